//! What peers want, and what comes of it.

use super::{
    CloseReason, Outcome, Publisher, ShardMessage, ShardServer,
    access::{Access, Found, Wish},
    flush::Turn,
    member,
    peer::Connection,
    place, session_settings, stream_settings,
};
use crate::{
    config::{Action, Takeover},
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
    serve::{
        play::{Play, Wire},
        rtmp::{
            player::RtmpWire,
            publisher::{Publish, Summary, Target},
        },
        session::Session,
    },
    shard::relay::StreamId,
};

/// Tries of a publish whose name's publisher may be about to end: longer than a reader rests by itself.
const RETRIES_MAX: usize = 15;
/// The same if that publisher has ended: longer than a reader rests with `mr`.
const RETRIES_AT_END_MAX: usize = 300;

/// Replies that may wait while a peer does not read.
const REPLY_BYTES_MAX: usize = 256 << 10;

impl ShardServer {
    /// Feeds received bytes to a connection and does what its peer wants.
    pub(in crate::serve) fn receive(&mut self, id: usize, bytes: &[u8]) -> Outcome {
        self.stats.bytes_received.add(bytes.len() as u64);
        self.work_on(id, |server, connection| server.receive_wire(id, connection, bytes))
    }

    /// Goes on with a publish's connection: bytes that were read before, out of their wrapping.
    pub(in crate::serve) fn receive_unread(&mut self, id: usize, bytes: &[u8]) -> Outcome {
        self.work_on(id, |server, connection| server.receive_plain(id, connection, bytes))
    }

    fn work_on(&mut self, id: usize, work: impl FnOnce(&mut Self, &mut Connection) -> Outcome) -> Outcome {
        let Some(mut connection) = self.connections.get_mut(id).and_then(Option::take) else {
            return Outcome::Close(CloseReason::PeerClosed);
        };
        let outcome = work(self, &mut connection);
        let replies_unread = connection.session.output_len() > REPLY_BYTES_MAX;
        self.put_back(id, connection);
        self.flush_connection(id, Turn::Own);
        self.flush_changed();
        self.pump();
        if replies_unread { Outcome::Close(CloseReason::RepliesUnread) } else { outcome }
    }

    pub(super) fn put_back(&mut self, id: usize, connection: Box<Connection>) {
        if let Some(place) = self.connections.get_mut(id) {
            *place = Some(connection);
        }
    }

    /// What stands on the wire: a proxy's header, then TLS or RTMP.
    fn receive_wire(&mut self, id: usize, connection: &mut Connection, bytes: &[u8]) -> Outcome {
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
        match connection.tls.as_mut().map(|tls| tls.receive(input)) {
            None => self.receive_plain(id, connection, input),
            Some(Ok(plain)) => self.receive_plain(id, connection, &plain),
            Some(Err(error)) => Outcome::Close(error.into()),
        }
    }

    fn receive_plain(&mut self, id: usize, connection: &mut Connection, mut input: &[u8]) -> Outcome {
        connection.received_bytes += input.len() as u64;
        let mut next = Outcome::Continue;
        loop {
            let Session::Rtmp(session) = &mut connection.session else {
                return self.receive_http(id, connection, input);
            };
            let outcome = match session.next_event(&mut input) {
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
                Outcome::Ask { wish, event, .. } => {
                    connection.asking = true;
                    return Outcome::Ask { wish, event, unread: input.to_vec() };
                }
                Outcome::HandOver => return Outcome::HandOver,
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
                if let Some(settings) = connection.session.connect().and_then(|connect| {
                    let address = StreamAddress::resolve(&connect.tc_url, &connect.app, "-").ok()?;
                    self.shared.config().vhost(&address.vhost).map(|vhost| session_settings(vhost))
                }) {
                    connection.session.say(|session| session.set_settings(settings));
                }
                if let Some(event) = self.on_connect(connection) {
                    return Outcome::Ask { wish: Wish::Connect, event, unread: Vec::new() };
                }
                connection.session.say(|session| session.accept_connect());
            }
            Event::Publish { msid, stream } => return self.wants_publish(id, connection, msid, stream),
            Event::Play { msid, stream, duration_ms } => {
                return self.wants_play(id, connection, msid, stream, duration_ms);
            }
            Event::Close { msid } => self.close_net_stream(id, connection, msid),
            Event::Pause { msid, paused } => {
                if let Some(play) = connection.plays.iter_mut().find(|play| play.msid == msid) {
                    play.paused = paused;
                    connection.session.say(|session| session.notify_pause(msid, paused));
                }
            }
            Event::Receive { msid, kind, wanted } => {
                let play = connection.plays.iter_mut().find(|play| play.msid == msid);
                if let Some(Play { wire: Wire::Rtmp(rtmp), .. }) = play {
                    rtmp.receive(kind, wanted);
                }
            }
            Event::Media { msid, kind, timestamp, body } => {
                return self.media(id, connection, msid, Tag { kind, timestamp, body });
            }
        }
        Outcome::Continue
    }

    /// Finds out which stream a name means, and whether its vhost answers.
    pub(super) fn resolve(&self, connection: &Connection, stream: &str) -> Result<Found, String> {
        let (tc_url, app) = connection.session.connect().map_or(("", ""), |connect| (&connect.tc_url, &connect.app));
        let address = StreamAddress::resolve(tc_url, app, stream).map_err(|error: UrlError| error.to_string())?;
        let config = self.shared.config();
        let vhost = config
            .vhost(&address.vhost)
            .cloned()
            .ok_or_else(|| format!("vhost {} is not configured", address.vhost))?;
        if !vhost.enabled {
            return Err(format!("vhost {} is off", vhost.name));
        }
        Ok(Found { key: address.key(&vhost.name), vhost, address })
    }

    /// A `publish`, before it is known whether it may be.
    fn wants_publish(&mut self, id: usize, connection: &mut Connection, msid: u32, stream: String) -> Outcome {
        match self.wants(connection, Action::Publish, &stream) {
            Access::Granted => self.publish(id, connection, msid, &stream, 0),
            Access::Refused(why) => refuse_publish(connection, msid, why),
            Access::Ask(event) => Outcome::Ask { wish: Wish::Publish { msid, stream }, event, unread: Vec::new() },
        }
    }

    /// The same for `play`.
    fn wants_play(
        &mut self,
        id: usize,
        connection: &mut Connection,
        msid: u32,
        stream: String,
        duration_ms: Option<u32>,
    ) -> Outcome {
        match self.wants(connection, Action::Play, &stream) {
            Access::Granted => self.play(id, connection, msid, &stream, duration_ms),
            Access::Refused(why) => refuse_play(connection, msid, why),
            Access::Ask(event) => {
                Outcome::Ask { wish: Wish::Play { msid, stream, duration_ms }, event, unread: Vec::new() }
            }
        }
    }

    fn wants(&self, connection: &Connection, action: Action, stream: &str) -> Access {
        let access = match self.resolve(connection, stream) {
            Ok(found) => self.access(connection, action, &found),
            // A name that means nothing is refused by those who would use it.
            Err(_) => Access::Granted,
        };
        self.stats.refused_by_rule.add(u64::from(matches!(access, Access::Refused(_))));
        access
    }

    /// Begins a publish, tried so many times before; while its name is taken by a publisher of whom not
    /// everything is read, perhaps its end, it is to be tried again in a moment.
    pub(super) fn publish(
        &mut self,
        id: usize,
        connection: &mut Connection,
        msid: u32,
        stream: &str,
        tries: usize,
    ) -> Outcome {
        let found = match self.resolve(connection, stream) {
            Ok(found) => found,
            Err(error) => return refuse_publish(connection, msid, error),
        };
        let on_end = self.hook_event(connection, "on_unpublish", &found.vhost.hooks.on_unpublish, &found);
        let Found { key, vhost, .. } = found;
        let (settings, nodelay) = (stream_settings(&vhost), vhost.tcp_nodelay);
        let replace = vhost.publish.takeover == Takeover::Replace;
        if connection.publishes.iter().any(|publish| publish.msid == msid)
            || connection.plays.iter().any(|play| play.msid == msid)
        {
            return refuse_publish(connection, msid, "the NetStream is in use".to_owned());
        }
        let home = self.relay.home_of(&key);
        let publisher = self.publisher(id, connection, msid);
        if home == self.relay.me() {
            if replace {
                self.oust(&key, Some((id, connection)));
            }
            return match self.relay.publish(&key, settings, publisher) {
                Ok(stream) => {
                    let target = Target::Home(stream);
                    connection.session.say(|session| session.accept_publish(msid));
                    let now_ms = self.shared.now_ms();
                    connection.publishes.push(Publish::new(msid, target, key, now_ms, vhost.publish, on_end));
                    self.stats.publishers.add(1);
                    self.changed.push(stream);
                    Outcome::SetNodelay(nodelay)
                }
                Err(_) if self.publisher_may_end(&key, tries) => {
                    Outcome::Retry { msid, stream: stream.to_owned(), unread: Vec::new() }
                }
                Err(busy) => {
                    self.stats.refused_busy.add(1);
                    refuse_publish(connection, msid, format!("{key}: {busy}"))
                }
            };
        }
        if connection.plays.is_empty() && connection.publishes.is_empty() {
            return Outcome::Move { home, msid, stream: stream.to_owned(), unread: Vec::new() };
        }
        // The connection is needed here too: its tags go home one by one.
        let target = Target::Remote { shard: home, stream: None };
        connection.publishes.push(Publish::new(msid, target, key.clone(), self.shared.now_ms(), vhost.publish, on_end));
        self.relay.send(home, ShardMessage::Publish { key, settings, publisher, replace });
        Outcome::Continue
    }

    /// Whether a stream's publisher may end within a few moments: it has said something that is not read, or
    /// its end is there and waits for its reader, who may rest for as long as `mr_latency`.
    fn publisher_may_end(&self, key: &str, tries: usize) -> bool {
        let Some(publisher) = self.relay.publisher_of(key).filter(|publisher| publisher.shard == self.relay.me())
        else {
            return false;
        };
        let connection = self.connections.get(place(publisher.connection)).and_then(Option::as_deref);
        connection.is_some_and(|Connection { descriptor, .. }| {
            tries < RETRIES_MAX && net::has_unread(*descriptor)
                || tries < RETRIES_AT_END_MAX && net::has_ended(*descriptor)
        })
    }

    /// Goes on with the `publish` that brought a connection here, or that is tried again.
    pub(in crate::serve) fn resume_publish(&mut self, id: usize, msid: u32, stream: &str, tries: usize) -> Outcome {
        let Some(mut connection) = self.connections.get_mut(id).and_then(Option::take) else {
            return Outcome::Close(CloseReason::PeerClosed);
        };
        let outcome = self.publish(id, &mut connection, msid, stream, tries);
        self.put_back(id, connection);
        self.flush_connection(id, Turn::Own);
        self.flush_changed();
        self.pump();
        outcome
    }

    pub(super) fn publisher(&self, id: usize, connection: &Connection, msid: u32) -> Publisher {
        Publisher { shard: self.relay.me(), connection: connection.token(id), msid }
    }

    pub(super) fn play(
        &mut self,
        id: usize,
        connection: &mut Connection,
        msid: u32,
        stream: &str,
        duration_ms: Option<u32>,
    ) -> Outcome {
        let found = match self.resolve(connection, stream) {
            Ok(found) => found,
            Err(error) => return refuse_play(connection, msid, error),
        };
        let on_stop = self.hook_event(connection, "on_stop", &found.vhost.hooks.on_stop, &found);
        let Found { key, vhost, .. } = found;
        let (settings, nodelay, chunk_size) = (stream_settings(&vhost), vhost.tcp_nodelay, vhost.chunk_size);
        // A second play on a NetStream replaces the first one (RTMP 1.0 §7.2.2.1).
        self.close_net_stream(id, connection, msid);
        #[cfg(test)]
        assert!(!key.ends_with("/panic"), "a test asked for a panic");
        let stream = self.relay.open(&key, settings);
        let Some(found) = self.relay.stream_mut(stream) else { return Outcome::Continue };
        let subscription = found.replica.subscribe();
        let set = (0..).find(|set| connection.plays.iter().all(|play| !play.uses(*set))).unwrap_or(0);
        let now_ms = self.shared.now_ms();
        found.replica.schedule.add(member(id, msid), found.replica.holds_from(&subscription, now_ms));
        connection.session.say(|session| session.set_chunk_size(chunk_size));
        connection.session.say(|session| session.accept_play(msid));
        let wire = Wire::Rtmp(RtmpWire::new(set, duration_ms));
        let mut play = Play::new(msid, stream, subscription, wire);
        play.on_stop = on_stop;
        connection.plays.push(play);
        self.stats.players.add(1);
        tracing::debug!(peer = %connection.named(), stream = %key, "play");
        // The shard's loop learns of the stream's flush times.
        self.relay.wakers()[self.relay.me()].wake();
        Outcome::SetNodelay(nodelay)
    }

    pub(super) fn close_net_stream(&mut self, id: usize, connection: &mut Connection, msid: u32) {
        if let Some(at) = connection.plays.iter().position(|play| play.msid == msid) {
            let mut play = connection.plays.remove(at);
            self.end_play(id, &mut play);
        }
        if let Some(at) = connection.publishes.iter().position(|publish| publish.msid == msid) {
            let publish = connection.publishes.remove(at);
            self.end_publish(id, connection, publish);
        }
    }

    pub(super) fn end_play(&mut self, id: usize, play: &mut Play) {
        self.tell(play.on_stop.take());
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
        self.tell(publish.on_end.take());
        if publish.summary.finish() {
            log_publish(connection, &publish.summary);
        }
        let Summary { key, started_ms, bytes, tags, .. } = &*publish.summary;
        let seconds = (self.shared.now_ms() - started_ms) / 1000;
        tracing::info!(stream = %key, peer = %connection.named(), seconds, bytes, tags, "unpublish");
    }

    pub(super) fn media(&mut self, id: usize, connection: &mut Connection, msid: u32, tag: Tag) -> Outcome {
        let publisher = self.publisher(id, connection, msid);
        let Some(publish) = connection.publishes.iter_mut().find(|publish| publish.msid == msid) else {
            return Outcome::Continue;
        };
        self.stats.tags_received.add(1);
        // The clock was looked at when the tag came.
        let now_ms = connection.heard_ms;
        let report = match publish.count(&tag, now_ms) {
            Ok(report) => report,
            Err(error) => {
                connection.session.say(|session| session.reject_publish(msid, &error.to_string()));
                return Outcome::Close(error.into());
            }
        };
        match publish.target {
            Target::Home(stream) => {
                self.relay.ingest(stream, tag, now_ms);
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
        Outcome::Continue
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
                connection.session.say(|session| session.accept_publish(msid));
                self.stats.publishers.add(1);
            }
            (Some(Target::Remote { stream: None, .. }), None) => {
                connection.publishes.retain(|publish| publish.msid != msid);
                connection.session.say(|session| session.reject_publish(msid, "the stream is being published"));
                tracing::warn!(peer = %connection.named(), "publish refused: the stream is being published");
            }
            // It has closed meanwhile.
            (_, Some(stream)) => self.relay.send(home, give_back(stream)),
            (_, None) => {}
        }
        self.put_back(id, connection);
        self.flush_connection(id, Turn::Own);
    }
}

pub(super) fn refuse_publish(connection: &mut Connection, msid: u32, error: String) -> Outcome {
    connection.session.say(|session| session.reject_publish(msid, &error));
    connection.unless_in_service(CloseReason::PublishRefused(error))
}

pub(super) fn refuse_play(connection: &mut Connection, msid: u32, error: String) -> Outcome {
    let missing = error == UrlError::EmptyStream.to_string();
    let code = if missing { "NetStream.Play.StreamNotFound" } else { "NetStream.Play.Failed" };
    connection.session.say(|session| session.reject_play(msid, code, &error));
    connection.unless_in_service(CloseReason::PlayRefused(error))
}

/// The one line of a publish: who, which codecs, what size.
fn log_publish(connection: &Connection, summary: &Summary) {
    let encoder = connection.session.connect().map_or("", |connect| connect.flash_ver.as_str());
    tracing::info!(stream = %summary.key, peer = %connection.named(), encoder, "publish: {summary}");
}
