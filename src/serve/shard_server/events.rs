//! What peers want, and what comes of it.

use super::{
    CloseReason, Outcome, ShardServer,
    access::{Access, Found, Wish},
    budget::Budget,
    flush::Turn,
    member,
    peer::Connection,
    session_settings, stream_settings,
};
use crate::{
    config::Action,
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
        connection::SCRATCH_BYTES,
        play::{Play, Wire},
        rtmp::{player::RtmpWire, publisher::Publish},
        session::Session,
    },
};
use std::borrow::Cow;

/// Messages, and bytes, that a publisher may send at a time, though another shard is behind with its stream.
const MESSAGES_AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = SCRATCH_BYTES;

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
        // What others have sent is not this connection's to wait for.
        self.relay.take_congested();
        self.relay.take_crowded();
        let outcome = work(self, &mut connection);
        let replies_unread = connection.session.output_len() > REPLY_BYTES_MAX;
        self.put_back(id, connection);
        self.flush_guarded(id, Turn::Own);
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
        let plain = match connection.tls.as_mut().map(|tls| tls.receive(input)) {
            None => Cow::Borrowed(input),
            Some(Ok(plain)) => Cow::Owned(plain),
            Some(Err(error)) => return Outcome::Close(error.into()),
        };
        // Here alone: what is left unread comes to `receive_plain` again.
        connection.received_bytes += plain.len() as u64;
        self.receive_plain(id, connection, &plain)
    }

    fn receive_plain(&mut self, id: usize, connection: &mut Connection, mut input: &[u8]) -> Outcome {
        let mut budget = Budget::turn();
        let (many, mut messages) = (input.len() >= BYTES_AT_ONCE, 0);
        loop {
            if connection.leaving.is_some() || connection.closing.is_some() {
                // It is closed as soon as it has been told why.
                return Outcome::Continue;
            }
            let Session::Rtmp(session) = &mut connection.session else {
                return self.receive_http(id, connection, input);
            };
            let outcome = match session.next_event(&mut input) {
                Ok(Some(event)) => self.handle(id, connection, event),
                Ok(None) => return Outcome::Continue,
                Err(error) => return Outcome::Close(error.into()),
            };
            match outcome {
                Outcome::Continue | Outcome::Later { .. } => {}
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
            messages += 1;
            connection.congested = self.relay.take_congested().or(connection.congested);
            if many || messages >= MESSAGES_AT_ONCE {
                connection.congested = self.relay.take_crowded().or(connection.congested);
            }
            if self.has_to_wait(connection) || budget.spend(1) {
                return Outcome::Later { unread: input.to_vec() };
            }
        }
    }

    /// Whether other shards have to take or answer something before more of a connection is read.
    fn has_to_wait(&mut self, connection: &mut Connection) -> bool {
        if connection.closing.is_some() || connection.leaving.is_some() {
            return false;
        }
        let relay = &mut self.relay;
        connection.congested.take_if(|shard| !relay.is_full(*shard));
        connection.congested.is_some() || connection.publishes.iter().any(Publish::is_pending)
    }

    /// Whether a connection goes on that had to wait.
    pub(in crate::serve) fn may_go_on(&mut self, id: usize) -> bool {
        let Some(mut connection) = self.connections.get_mut(id).and_then(Option::take) else { return true };
        let waits = self.has_to_wait(&mut connection);
        self.put_back(id, connection);
        !waits
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

    /// A `play`, before it is known whether it may be.
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

    pub(super) fn wants(&self, connection: &Connection, action: Action, stream: &str) -> Access {
        let access = match self.resolve(connection, stream) {
            Ok(found) => self.access(connection, action, &found),
            // A name that means nothing is refused by those who would use it.
            Err(_) => Access::Granted,
        };
        self.stats.refused_by_rule.add(u64::from(matches!(access, Access::Refused(_))));
        access
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
        let settings = stream_settings(&vhost);
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
        connection.session.say(|session| session.set_chunk_size(vhost.chunk_size));
        net::set_nodelay(connection.descriptor, vhost.tcp_nodelay);
        let wire = Wire::Rtmp(RtmpWire::new(set, duration_ms));
        let mut play = Play::new(msid, stream, subscription, wire);
        play.on_stop = on_stop;
        connection.plays.push(play);
        self.stats.players.add(1);
        tracing::debug!(peer = %connection.named(), stream = %key, "play");
        // The shard's loop learns of the stream's flush times.
        self.relay.arm(stream, now_ms);
        self.wake();
        Outcome::Continue
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
}

pub(super) fn refuse_play(connection: &mut Connection, msid: u32, error: String) -> Outcome {
    let missing = error == UrlError::EmptyStream.to_string();
    let code = if missing { "NetStream.Play.StreamNotFound" } else { "NetStream.Play.Failed" };
    connection.session.say(|session| session.reject_play(msid, code, &error));
    connection.unless_in_service(CloseReason::PlayRefused(error))
}
