//! What peers want, and what comes of it.

use super::{
    CloseReason, Outcome, Publisher, ShardMessage, ShardServer, member, peer::Connection, place, session_settings,
    stream_settings,
};
use crate::{
    config::Vhost,
    net,
    proto::{
        flv::Tag,
        rtmp::{
            handshake::Scheme,
            proxy,
            server::Event,
            url::{StreamAddress, UrlError},
        },
    },
    serve::rtmp::{
        player::Play,
        publisher::{Publish, Summary, Target},
    },
    shard::relay::StreamId,
};

/// Replies that may wait while a peer does not read.
const REPLY_BYTES_MAX: usize = 256 << 10;

impl ShardServer {
    /// Feeds received bytes to a connection and does what its peer wants.
    pub(in crate::serve) fn receive(&mut self, id: usize, bytes: &[u8]) -> Outcome {
        let Some(mut connection) = self.connections.get_mut(id).and_then(Option::take) else {
            return Outcome::Close(CloseReason::PeerClosed);
        };
        self.stats.bytes_received.add(bytes.len() as u64);
        let outcome = self.receive_for(id, &mut connection, bytes);
        let replies_unread = connection.session.output_len() > REPLY_BYTES_MAX;
        self.put_back(id, connection);
        self.flush_connection(id, false);
        self.flush_changed();
        self.pump();
        if replies_unread { Outcome::Close(CloseReason::RepliesUnread) } else { outcome }
    }

    pub(super) fn put_back(&mut self, id: usize, connection: Box<Connection>) {
        if let Some(place) = self.connections.get_mut(id) {
            *place = Some(connection);
        }
    }

    pub(super) fn receive_for(&mut self, id: usize, connection: &mut Connection, bytes: &[u8]) -> Outcome {
        let header;
        let mut input = bytes;
        if let Some(mut waiting) = connection.proxy.take() {
            waiting.extend_from_slice(bytes);
            header = waiting;
            match proxy::read(&header) {
                Ok(Some(read)) => {
                    connection.real_peer = read.peer;
                    input = &header[read.bytes..];
                }
                Ok(None) => {
                    connection.proxy = Some(header);
                    return Outcome::Continue;
                }
                Err(error) => return Outcome::Close(error.into()),
            }
        }
        let mut next = Outcome::Continue;
        loop {
            let outcome = match connection.session.next_event(&mut input) {
                Ok(Some(event)) => self.handle(id, connection, event),
                Ok(None) => return next,
                Err(error) => return Outcome::Close(error.into()),
            };
            match outcome {
                Outcome::Continue => {}
                Outcome::SetNodelay(nodelay) => next = Outcome::SetNodelay(nodelay),
                Outcome::Move { home, msid, stream, .. } => {
                    return Outcome::Move { home, msid, stream, unread: input.to_vec() };
                }
                Outcome::Retry { msid, stream, .. } => {
                    return Outcome::Retry { msid, stream, unread: input.to_vec() };
                }
                Outcome::Close(reason) => return Outcome::Close(reason),
            }
        }
    }

    pub(super) fn handle(&mut self, id: usize, connection: &mut Connection, event: Event) -> Outcome {
        // What costs a peer nothing does not keep it from being idle.
        if !matches!(event, Event::Pause { .. } | Event::Receive { .. }) {
            connection.heard_ms = self.shared.now_ms();
        }
        match event {
            Event::Handshake(outcome) => {
                connection.handshaken = true;
                let complex = matches!(outcome.scheme, Scheme::Complex { .. });
                tracing::debug!(peer = %connection.named(), complex, echo_matches = outcome.echo_matches, "handshake");
            }
            Event::Connect => {
                if let Some(vhost) = connection.session.connect().and_then(|connect| {
                    let address = StreamAddress::resolve(&connect.tc_url, &connect.app, "-").ok()?;
                    self.shared.config.vhost(&address.vhost)
                }) {
                    connection.session.set_settings(session_settings(vhost));
                }
                connection.session.accept_connect();
            }
            Event::Publish { msid, stream } => return self.publish(id, connection, msid, &stream, true),
            Event::Play { msid, stream, duration_ms } => return self.play(id, connection, msid, &stream, duration_ms),
            Event::Close { msid } => self.close_net_stream(id, connection, msid),
            Event::Pause { msid, paused } => {
                if let Some(play) = connection.plays.iter_mut().find(|play| play.msid == msid) {
                    play.paused = paused;
                    connection.session.notify_pause(msid, paused);
                }
            }
            Event::Receive { msid, kind, wanted } => {
                if let Some(play) = connection.plays.iter_mut().find(|play| play.msid == msid) {
                    play.receive(kind, wanted);
                }
            }
            Event::Media { msid, kind, timestamp, body } => {
                self.media(id, connection, msid, Tag { kind, timestamp, body });
            }
        }
        Outcome::Continue
    }

    /// Finds out which stream a name means, and whether its vhost answers.
    pub(super) fn resolve(&self, connection: &Connection, stream: &str) -> Result<(String, &Vhost), String> {
        let (tc_url, app) = connection.session.connect().map_or(("", ""), |connect| (&connect.tc_url, &connect.app));
        let address = StreamAddress::resolve(tc_url, app, stream).map_err(|error: UrlError| error.to_string())?;
        let vhost = self
            .shared
            .config
            .vhost(&address.vhost)
            .ok_or_else(|| format!("vhost {} is not configured", address.vhost))?;
        if !vhost.enabled {
            return Err(format!("vhost {} is off", vhost.name));
        }
        Ok((address.key(&vhost.name), vhost))
    }

    /// Begins a publish; while its name is taken by a publisher of whom not everything is read, perhaps
    /// its end, it may be asked for again if it `may_retry`.
    pub(super) fn publish(
        &mut self,
        id: usize,
        connection: &mut Connection,
        msid: u32,
        stream: &str,
        may_retry: bool,
    ) -> Outcome {
        let (key, settings, nodelay) = match self.resolve(connection, stream) {
            Ok((key, vhost)) => (key, stream_settings(vhost), vhost.tcp_nodelay),
            Err(error) => return refuse_publish(connection, msid, error),
        };
        if connection.publishes.iter().any(|publish| publish.msid == msid)
            || connection.plays.iter().any(|play| play.msid == msid)
        {
            return refuse_publish(connection, msid, "the NetStream is in use".to_owned());
        }
        let home = self.relay.home_of(&key);
        let publisher = self.publisher(id, connection, msid);
        if home == self.relay.me() {
            return match self.relay.publish(&key, settings, publisher) {
                Ok(stream) => {
                    self.begin_publish(connection, msid, Target::Home(stream), key);
                    self.changed.push(stream);
                    Outcome::SetNodelay(nodelay)
                }
                Err(_) if may_retry && self.publisher_has_more_to_say(&key) => {
                    Outcome::Retry { msid, stream: stream.to_owned(), unread: Vec::new() }
                }
                Err(busy) => refuse_publish(connection, msid, format!("{key}: {busy}")),
            };
        }
        if connection.plays.is_empty() && connection.publishes.is_empty() {
            return Outcome::Move { home, msid, stream: stream.to_owned(), unread: Vec::new() };
        }
        // The connection is needed here too: its tags go home one by one.
        let target = Target::Remote { shard: home, stream: None };
        connection.publishes.push(Publish::new(msid, target, key.clone(), self.shared.now_ms()));
        self.relay.send(home, ShardMessage::Publish { key, settings, publisher });
        Outcome::Continue
    }

    fn publisher_has_more_to_say(&self, key: &str) -> bool {
        let Some(publisher) = self.relay.publisher_of(key).filter(|publisher| publisher.shard == self.relay.me())
        else {
            return false;
        };
        let connection = self.connections.get(place(publisher.connection)).and_then(Option::as_deref);
        connection.is_some_and(|connection| net::has_unread(connection.descriptor))
    }

    /// Goes on with the `publish` that brought a connection here, or that is tried again.
    pub(in crate::serve) fn resume_publish(&mut self, id: usize, msid: u32, stream: &str, may_retry: bool) -> Outcome {
        let Some(mut connection) = self.connections.get_mut(id).and_then(Option::take) else {
            return Outcome::Close(CloseReason::PeerClosed);
        };
        let outcome = self.publish(id, &mut connection, msid, stream, may_retry);
        self.put_back(id, connection);
        self.flush_connection(id, false);
        self.flush_changed();
        self.pump();
        outcome
    }

    pub(super) fn publisher(&self, id: usize, connection: &Connection, msid: u32) -> Publisher {
        Publisher { shard: self.relay.me(), connection: connection.token(id), msid }
    }

    pub(super) fn begin_publish(&mut self, connection: &mut Connection, msid: u32, target: Target, key: String) {
        connection.session.accept_publish(msid);
        connection.publishes.push(Publish::new(msid, target, key, self.shared.now_ms()));
        self.stats.publishers.add(1);
    }

    pub(super) fn play(
        &mut self,
        id: usize,
        connection: &mut Connection,
        msid: u32,
        stream: &str,
        duration_ms: Option<u32>,
    ) -> Outcome {
        let (key, settings, nodelay, chunk_size) = match self.resolve(connection, stream) {
            Ok((key, vhost)) => (key, stream_settings(vhost), vhost.tcp_nodelay, vhost.chunk_size),
            Err(error) => {
                let code = if error == UrlError::EmptyStream.to_string() {
                    "NetStream.Play.StreamNotFound"
                } else {
                    "NetStream.Play.Failed"
                };
                connection.session.reject_play(msid, code, &error);
                return connection.unless_in_service(CloseReason::PlayRefused(error));
            }
        };
        // A second play on a NetStream replaces the first one (RTMP 1.0 §7.2.2.1).
        self.close_net_stream(id, connection, msid);
        #[cfg(test)]
        assert!(!key.ends_with("/panic"), "a test asked for a panic");
        let stream = self.relay.open(&key, settings);
        let Some(found) = self.relay.stream_mut(stream) else { return Outcome::Continue };
        let subscription = found.replica.subscribe();
        let set = (0..).find(|set| connection.plays.iter().all(|play| !play.uses(*set))).unwrap_or(0);
        found.replica.schedule.add(member(id, msid), found.replica.holds_from(&subscription));
        connection.session.set_chunk_size(chunk_size);
        connection.session.accept_play(msid);
        connection.plays.push(Play::new(msid, stream, subscription, set, duration_ms));
        self.stats.players.add(1);
        tracing::debug!(peer = %connection.named(), stream = %key, "play");
        // The shard's loop learns of the stream's flush times.
        self.relay.wakers()[self.relay.me()].wake();
        Outcome::SetNodelay(nodelay)
    }

    pub(super) fn close_net_stream(&mut self, id: usize, connection: &mut Connection, msid: u32) {
        if let Some(at) = connection.plays.iter().position(|play| play.msid == msid) {
            let play = connection.plays.remove(at);
            self.end_play(id, &play);
        }
        if let Some(at) = connection.publishes.iter().position(|publish| publish.msid == msid) {
            let publish = connection.publishes.remove(at);
            self.end_publish(id, connection, publish);
        }
    }

    pub(super) fn end_play(&mut self, id: usize, play: &Play) {
        if let Some(stream) = self.relay.stream_mut(play.stream) {
            stream.replica.schedule.remove(member(id, play.msid));
        }
        self.relay.release(play.stream);
        self.stats.players.sub(1);
    }

    pub(super) fn end_publish(&mut self, id: usize, connection: &Connection, mut publish: Publish) {
        let publisher = self.publisher(id, connection, publish.msid);
        match publish.target {
            Target::Home(stream) => {
                self.changed.push(stream);
                self.relay.unpublish(stream);
            }
            Target::Remote { shard, stream: Some(stream) } => {
                self.relay.send(shard, ShardMessage::Unpublish { stream, publisher });
            }
            // Refused, or not yet answered: the answer finds nobody and is given back then.
            Target::Remote { stream: None, .. } => return,
        }
        self.stats.publishers.sub(1);
        if publish.summary.finish() {
            log_publish(connection, &publish.summary);
        }
        let Summary { key, started_ms, bytes, tags, .. } = &*publish.summary;
        let seconds = (self.shared.now_ms() - started_ms) / 1000;
        tracing::info!(stream = %key, peer = %connection.named(), seconds, bytes, tags, "unpublish");
    }

    pub(super) fn media(&mut self, id: usize, connection: &mut Connection, msid: u32, tag: Tag) {
        let publisher = self.publisher(id, connection, msid);
        let Some(publish) = connection.publishes.iter_mut().find(|publish| publish.msid == msid) else { return };
        self.stats.tags_received.add(1);
        let report = publish.summary.count(&tag);
        match publish.target {
            Target::Home(stream) => {
                self.relay.ingest(stream, tag, self.shared.now_ms());
                self.note_change(stream);
            }
            Target::Remote { shard, stream: Some(stream) } => {
                self.relay.send(shard, ShardMessage::Tag { stream, publisher, tag });
            }
            Target::Remote { stream: None, .. } => {}
        }
        if report && let Some(publish) = connection.publishes.iter().find(|publish| publish.msid == msid) {
            log_publish(connection, &publish.summary);
        }
    }

    pub(super) fn note_change(&mut self, stream: StreamId) {
        if self.changed.last() != Some(&stream) {
            self.changed.push(stream);
        }
    }

    /// The home's answer to a publisher that stayed here.
    pub(super) fn published(&mut self, home: usize, token: u64, msid: u32, stream: Option<StreamId>) {
        let id = place(token);
        let me = self.relay.me();
        let give_back =
            |stream| ShardMessage::Unpublish { stream, publisher: Publisher { shard: me, connection: token, msid } };
        let taken = self.connections.get_mut(id).and_then(Option::take);
        let Some(mut connection) = taken else {
            return stream.into_iter().for_each(|stream| self.relay.send(home, give_back(stream)));
        };
        let current = connection.token(id) == token;
        let publish = connection.publishes.iter_mut().find(|publish| current && publish.msid == msid);
        match (publish.map(|publish| &mut publish.target), stream) {
            (Some(Target::Remote { stream: target @ None, .. }), Some(stream)) => {
                *target = Some(stream);
                connection.session.accept_publish(msid);
                self.stats.publishers.add(1);
            }
            (Some(Target::Remote { stream: None, .. }), None) => {
                connection.publishes.retain(|publish| publish.msid != msid);
                connection.session.reject_publish(msid, "the stream is being published");
                tracing::warn!(peer = %connection.named(), "publish refused: the stream is being published");
            }
            // It has closed meanwhile.
            (_, Some(stream)) => self.relay.send(home, give_back(stream)),
            (_, None) => {}
        }
        self.put_back(id, connection);
        self.flush_connection(id, false);
    }
}

fn refuse_publish(connection: &mut Connection, msid: u32, error: String) -> Outcome {
    connection.session.reject_publish(msid, &error);
    connection.unless_in_service(CloseReason::PublishRefused(error))
}

/// The one line of a publish: who, which codecs, what size.
fn log_publish(connection: &Connection, summary: &Summary) {
    let encoder = connection.session.connect().map_or("", |connect| connect.flash_ver.as_str());
    tracing::info!(stream = %summary.key, peer = %connection.named(), encoder, "publish: {summary}");
}
