//! Everything of one shard: connections, streams, the send ring. All of it synchronous.
//!
//! Invariants worth naming:
//! * A connection has at most one send in flight, of whole messages; what else it has to say waits.
//! * A player's queue is its cursor. Nothing is allocated per tag and player.
//! * A descriptor is not closed before everything queued on it has been handed to the kernel: its
//!   number may be another connection's next.

use super::{
    Shared,
    rtmp::{
        player::{Image, Play, Progress, SEND_BYTES_MAX},
        publisher::{Publish, Summary, Target},
    },
};
use crate::{
    config::Vhost,
    net::{self, Gather, Notifier, SendBuf, SendRing},
    proto::{
        flv::Tag,
        rtmp::{
            RtmpError,
            handshake::Scheme,
            proxy,
            server::{Event, ServerSession},
            url::{StreamAddress, UrlError},
        },
    },
    shard::{
        mesh::{Mesh, ShardWaker},
        relay::{Message, Relay, StreamId},
    },
    stats::ShardStats,
    stream,
};
use slab::Slab;
use smallvec::SmallVec;
use std::{
    io, net::SocketAddr,
    os::fd::{OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
};

/// A handshake that is not done by then is a half-open one.
const HANDSHAKE_MS_MAX: u64 = 10_000;
/// I/O timeout: a connection that neither publishes nor plays, a publisher without a whole message, a
/// send that does not end.
const IO_MS_MAX: u64 = 30_000;
/// Replies that may wait while a peer does not read.
const REPLY_BYTES_MAX: usize = 256 << 10;
/// Members of one flush from which an image pays: one copy against that many iovec lists.
const IMAGE_MEMBERS_MIN: usize = 4;
/// How often connections are looked over.
const HOUSEKEEPING_MS: u64 = 1000;

/// What crosses between shards besides tags.
#[derive(Debug)]
pub(crate) enum ShardMessage {
    /// A publisher comes home.
    Adopt(Box<Moved>),
    /// A publisher that cannot move wants to publish.
    Publish { key: String, settings: stream::Settings, publisher: Publisher },
    /// The home's answer.
    Published { home: usize, connection: u64, msid: u32, stream: Option<StreamId> },
    /// A tag of such a publisher.
    Tag { stream: StreamId, publisher: Publisher, tag: Tag },
    /// Its end.
    Unpublish { stream: StreamId, publisher: Publisher },
}

/// Who publishes a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Publisher {
    shard: usize,
    connection: u64,
    msid: u32,
}

/// A connection on its way to another shard.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(super) descriptor: OwnedFd,
    pub(super) peer: SocketAddr,
    pub(super) state: MovedState,
    /// What it wants to publish.
    pub(super) msid: u32,
    pub(super) stream: String,
    /// Bytes read and not yet understood.
    pub(super) unread: Vec<u8>,
}

/// A connection's protocol state.
#[derive(Debug)]
pub(crate) struct MovedState {
    session: ServerSession,
    real_peer: Option<SocketAddr>,
}

/// What a connection's task does next.
#[derive(Debug)]
pub(super) enum Outcome {
    Continue,
    SetNodelay(bool),
    Move { home: usize, msid: u32, stream: String, unread: Vec<u8> },
    Close(CloseReason),
}

/// Why a connection is closed.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum CloseReason {
    #[error("the peer closed it")]
    PeerClosed,
    #[error("{0}")]
    Io(io::ErrorKind),
    #[error("{0}")]
    Protocol(#[from] RtmpError),
    #[error("{0}")]
    Proxy(#[from] proxy::ProxyError),
    #[error("publish refused: {0}")]
    PublishRefused(String),
    #[error("play refused: {0}")]
    PlayRefused(String),
    #[error("no complete handshake within {} s", HANDSHAKE_MS_MAX / 1000)]
    HandshakeTimeout,
    #[error("nothing published or played for {} s", IO_MS_MAX / 1000)]
    Idle,
    #[error("no whole message for {} s", IO_MS_MAX / 1000)]
    PublisherSilent,
    #[error("does not read: a send took over {} s", IO_MS_MAX / 1000)]
    Stalled,
    #[error("does not read its replies")]
    RepliesUnread,
    #[error("a panic in its task; please report this")]
    Panic,
}

impl CloseReason {
    pub(super) fn may_have_last_words(&self) -> bool {
        matches!(self, Self::Protocol(_) | Self::PublishRefused(_) | Self::PlayRefused(_))
    }

    /// Whether an operator wants to know.
    fn is_fault(&self) -> bool {
        !matches!(self, Self::PeerClosed | Self::Io(_))
    }
}

#[derive(Debug)]
struct Connection {
    /// Never used twice on a shard.
    serial: u32,
    descriptor: RawFd,
    peer: SocketAddr,
    real_peer: Option<SocketAddr>,
    session: ServerSession,
    /// A proxy header is still to come; what there is of it.
    proxy: Option<Vec<u8>>,
    plays: SmallVec<[Play; 1]>,
    publishes: SmallVec<[Publish; 1]>,
    handshaken: bool,
    sending: bool,
    /// Members of due groups were passed over, or a send was full: flush when the send ends.
    flush_again: bool,
    /// Since when the present send, silence or idleness lasts.
    send_started_ms: u64,
    heard_ms: u64,
    closing: Option<CloseReason>,
    drained: Option<Waker>,
}

/// See the module.
pub(super) struct ShardServer {
    shared: Arc<Shared>,
    stats: Arc<ShardStats>,
    relay: Relay<Publisher, ShardMessage>,
    ring: SendRing,
    connections: Slab<Option<Box<Connection>>>,
    serial: u32,
    images: Vec<Image>,
    changed: Vec<StreamId>,
    ended: Vec<(u64, bool, usize)>,
    housekeeping_ms: u64,
}

impl ShardServer {
    pub(super) fn new(
        shared: Arc<Shared>,
        mesh: Mesh<Message<ShardMessage>>,
        stats: Arc<ShardStats>,
    ) -> io::Result<Self> {
        Ok(Self {
            shared,
            relay: Relay::new(mesh, Arc::clone(&stats)),
            stats,
            ring: SendRing::new()?,
            connections: Slab::new(),
            serial: 0,
            images: Vec::new(),
            changed: Vec::new(),
            ended: Vec::new(),
            housekeeping_ms: 0,
        })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn wakers(&self) -> &Arc<[ShardWaker]> {
        self.relay.wakers()
    }

    pub(super) fn index(&self) -> usize {
        self.relay.me()
    }

    pub(super) fn notifier(&self) -> Notifier {
        self.ring.notifier()
    }

    /// Counts a new connection in, unless there are too many.
    pub(super) fn admit(&self) -> bool {
        let max = self.shared.config.max_connections as usize;
        if self.shared.connections.fetch_add(1, Ordering::Relaxed) < max {
            self.stats.accepted.add(1);
            return true;
        }
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.stats.refused.add(1);
        tracing::warn!(max_connections = max, "a connection is refused");
        false
    }

    pub(super) fn accept_paused(&self, error: &io::Error) {
        self.stats.accept_pauses.add(1);
        tracing::warn!(%error, "accept pauses; running streams go on");
    }

    /// Takes a fresh connection in; returns its place.
    pub(super) fn insert(&mut self, descriptor: RawFd, peer: SocketAddr, proxy: bool) -> usize {
        let settings = self.shared.config.vhosts.first().map(session_settings).unwrap_or_default();
        let session = ServerSession::new(settings, fastrand::u64(..));
        let id = self.insert_session(descriptor, peer, session);
        if proxy {
            self.with(id, |connection| connection.proxy = Some(Vec::new()));
        }
        id
    }

    /// Takes a connection of another shard over.
    pub(super) fn insert_moved(&mut self, descriptor: RawFd, peer: SocketAddr, state: MovedState) -> usize {
        let id = self.insert_session(descriptor, peer, state.session);
        self.with(id, |connection| {
            connection.handshaken = true;
            connection.real_peer = state.real_peer;
        });
        id
    }

    fn insert_session(&mut self, descriptor: RawFd, peer: SocketAddr, session: ServerSession) -> usize {
        self.serial = self.serial.wrapping_add(1);
        self.connections.insert(Some(Box::new(Connection {
            serial: self.serial,
            descriptor,
            peer,
            real_peer: None,
            session,
            proxy: None,
            plays: SmallVec::new(),
            publishes: SmallVec::new(),
            handshaken: false,
            sending: false,
            flush_again: false,
            send_started_ms: 0,
            heard_ms: self.shared.now_ms(),
            closing: None,
            drained: None,
        })))
    }

    fn with<T>(&mut self, id: usize, change: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        self.connections.get_mut(id)?.as_deref_mut().map(change)
    }

    /// Feeds received bytes to a connection and does what its peer wants.
    pub(super) fn receive(&mut self, id: usize, bytes: &[u8]) -> Outcome {
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

    fn put_back(&mut self, id: usize, connection: Box<Connection>) {
        if let Some(place) = self.connections.get_mut(id) {
            *place = Some(connection);
        }
    }

    fn receive_for(&mut self, id: usize, connection: &mut Connection, bytes: &[u8]) -> Outcome {
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
                Outcome::Close(reason) => return Outcome::Close(reason),
            }
        }
    }

    fn handle(&mut self, id: usize, connection: &mut Connection, event: Event) -> Outcome {
        connection.heard_ms = self.shared.now_ms();
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
            Event::Publish { msid, stream } => return self.publish(id, connection, msid, &stream),
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
    fn resolve(&self, connection: &Connection, stream: &str) -> Result<(String, &Vhost), String> {
        let (tc_url, app) = connection.session.connect().map_or(("", ""), |connect| (&connect.tc_url, &connect.app));
        let address = StreamAddress::resolve(tc_url, app, stream).map_err(|error: UrlError| error.to_string())?;
        let vhost = self.shared.config.vhost(&address.vhost).ok_or_else(|| format!("vhost {} is not configured", address.vhost))?;
        if !vhost.enabled {
            return Err(format!("vhost {} is off", vhost.name));
        }
        Ok((address.key(&vhost.name), vhost))
    }

    fn publish(&mut self, id: usize, connection: &mut Connection, msid: u32, stream: &str) -> Outcome {
        let (key, settings, nodelay) = match self.resolve(connection, stream) {
            Ok((key, vhost)) => (key, stream_settings(vhost), vhost.tcp_nodelay),
            Err(error) => return refuse_publish(connection, msid, error),
        };
        if connection.publishes.iter().any(|publish| publish.msid == msid) || connection.plays.iter().any(|play| play.msid == msid) {
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

    /// Goes on with the `publish` that brought a connection here.
    pub(super) fn resume_publish(&mut self, id: usize, msid: u32, stream: String) -> Outcome {
        let Some(mut connection) = self.connections.get_mut(id).and_then(Option::take) else {
            return Outcome::Close(CloseReason::PeerClosed);
        };
        let outcome = self.publish(id, &mut connection, msid, &stream);
        self.put_back(id, connection);
        self.flush_connection(id, false);
        self.flush_changed();
        self.pump();
        outcome
    }

    fn publisher(&self, id: usize, connection: &Connection, msid: u32) -> Publisher {
        Publisher { shard: self.relay.me(), connection: connection.token(id), msid }
    }

    fn begin_publish(&mut self, connection: &mut Connection, msid: u32, target: Target, key: String) {
        connection.session.accept_publish(msid);
        connection.publishes.push(Publish::new(msid, target, key, self.shared.now_ms()));
        self.stats.publishers.add(1);
    }

    fn play(
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
                let code = if error == UrlError::EmptyStream.to_string() { "NetStream.Play.StreamNotFound" } else { "NetStream.Play.Failed" };
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

    fn close_net_stream(&mut self, id: usize, connection: &mut Connection, msid: u32) {
        if let Some(at) = connection.plays.iter().position(|play| play.msid == msid) {
            let play = connection.plays.remove(at);
            self.end_play(id, &play);
        }
        if let Some(at) = connection.publishes.iter().position(|publish| publish.msid == msid) {
            let publish = connection.publishes.remove(at);
            self.end_publish(id, connection, publish);
        }
    }

    fn end_play(&mut self, id: usize, play: &Play) {
        if let Some(stream) = self.relay.stream_mut(play.stream) {
            stream.replica.schedule.remove(member(id, play.msid));
        }
        self.relay.release(play.stream);
        self.stats.players.add(u64::MAX);
    }

    fn end_publish(&mut self, id: usize, connection: &Connection, mut publish: Publish) {
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
        self.stats.publishers.add(u64::MAX);
        if publish.summary.finish() {
            log_publish(connection, &publish.summary);
        }
        let Summary { key, started_ms, bytes, tags, .. } = &*publish.summary;
        let seconds = (self.shared.now_ms() - started_ms) / 1000;
        tracing::info!(stream = %key, peer = %connection.named(), seconds, bytes, tags, "unpublish");
    }

    fn media(&mut self, id: usize, connection: &mut Connection, msid: u32, tag: Tag) {
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
        if report {
            if let Some(publish) = connection.publishes.iter().find(|publish| publish.msid == msid) {
                log_publish(connection, &publish.summary);
            }
        }
    }

    fn note_change(&mut self, stream: StreamId) {
        if self.changed.last() != Some(&stream) {
            self.changed.push(stream);
        }
    }

    /// When [`Self::turn`] has something to do next, in ms of the process's clock.
    pub(super) fn next_due_ms(&self) -> u64 {
        if self.relay.is_blocked() {
            return self.shared.now_ms() + 1;
        }
        let due = self.relay.streams().filter_map(|(_, stream)| stream.replica.schedule.next_due_ms());
        due.chain([self.housekeeping_ms]).min().unwrap_or(self.housekeeping_ms)
    }

    /// One round of the shard's loop: what came from other shards, who is due, who is late. Returns
    /// connections that have moved here.
    pub(super) fn turn(&mut self) -> Vec<Box<Moved>> {
        let mut arrived = Vec::new();
        let mut changed = std::mem::take(&mut self.changed);
        while let Some(message) = self.relay.receive(&mut changed) {
            self.receive_message(message, &mut changed, &mut arrived);
        }
        self.changed = changed;
        self.flush_changed();
        let now_ms = self.shared.now_ms();
        let due = |(id, stream): (StreamId, &crate::shard::relay::Stream<Publisher>)| {
            stream.replica.schedule.next_due_ms().filter(|due_ms| *due_ms <= now_ms).map(|_| id)
        };
        let due: SmallVec<[StreamId; 16]> = self.relay.streams().filter_map(due).collect();
        for stream in due {
            self.flush_stream(stream, now_ms);
        }
        if now_ms >= self.housekeeping_ms {
            self.housekeeping_ms = now_ms + HOUSEKEEPING_MS;
            self.look_over_connections(now_ms);
        }
        self.pump();
        arrived
    }

    fn receive_message(&mut self, message: ShardMessage, changed: &mut Vec<StreamId>, arrived: &mut Vec<Box<Moved>>) {
        match message {
            ShardMessage::Adopt(moved) => arrived.push(moved),
            ShardMessage::Publish { key, settings, publisher } => {
                let stream = self.relay.publish(&key, settings, publisher).ok();
                let Publisher { shard, connection, msid } = publisher;
                let home = self.relay.me();
                self.relay.send(shard, ShardMessage::Published { home, connection, msid, stream });
            }
            ShardMessage::Published { home, connection, msid, stream } => self.published(home, connection, msid, stream),
            ShardMessage::Tag { stream, publisher, tag } => {
                if self.relay.stream(stream).is_some_and(|stream| stream.publisher == Some(publisher)) {
                    self.relay.ingest(stream, tag, self.shared.now_ms());
                    if changed.last() != Some(&stream) {
                        changed.push(stream);
                    }
                }
            }
            ShardMessage::Unpublish { stream, publisher } => {
                if self.relay.stream(stream).is_some_and(|stream| stream.publisher == Some(publisher)) {
                    changed.push(stream);
                    self.relay.unpublish(stream);
                }
            }
        }
    }

    /// The home's answer to a publisher that stayed here.
    fn published(&mut self, home: usize, token: u64, msid: u32, stream: Option<StreamId>) {
        let id = place(token);
        let me = self.relay.me();
        let give_back = |stream| ShardMessage::Unpublish { stream, publisher: Publisher { shard: me, connection: token, msid } };
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

    /// Flushes streams at 0 ms, whose tags go out as they come.
    fn flush_changed(&mut self) {
        if self.changed.is_empty() {
            return;
        }
        let now_ms = self.shared.now_ms();
        let mut changed = std::mem::take(&mut self.changed);
        for stream in changed.drain(..) {
            let immediate = |stream: &crate::shard::relay::Stream<Publisher>| stream.replica.schedule.is_immediate();
            if self.relay.stream(stream).is_some_and(immediate) {
                self.flush_stream(stream, now_ms);
            }
        }
        self.changed = changed;
    }

    /// Flushes the members of a stream that are due.
    fn flush_stream(&mut self, id: StreamId, now_ms: u64) {
        let Some(stream) = self.relay.stream_mut(id) else { return };
        let head = stream.replica.log().head();
        let msgs = stream.replica.settings().mw_msgs;
        for group in stream.replica.schedule.take_due(now_ms, head, msgs) {
            let Some(stream) = self.relay.stream_mut(id) else { return };
            let mut members = stream.replica.schedule.lend(group);
            let share = members.len() >= IMAGE_MEMBERS_MIN;
            let mut oldest = u64::MAX;
            members.retain(|member| {
                let connection = place(*member);
                self.flush_guarded(connection, share);
                let holds = self.holds_from(connection, id, msid_of(*member));
                oldest = oldest.min(holds.unwrap_or(u64::MAX));
                holds.is_some()
            });
            self.images.clear();
            let Some(stream) = self.relay.stream_mut(id) else { return };
            stream.replica.schedule.put_back(group, members, oldest);
        }
        if let Some(stream) = self.relay.stream_mut(id) {
            stream.replica.trim();
        }
        self.relay.release(id);
    }

    /// From where a member needs the log; `None` if it is a member no more.
    fn holds_from(&self, id: usize, stream: StreamId, msid: u32) -> Option<u64> {
        let connection = self.connections.get(id)?.as_ref()?;
        let play = connection.plays.iter().find(|play| play.msid == msid && play.stream == stream)?;
        let replica = &self.relay.stream(stream)?.replica;
        Some(if play.paused { u64::MAX } else { replica.holds_from(&play.subscription) })
    }

    fn flush_guarded(&mut self, id: usize, share: bool) {
        if catch_unwind(AssertUnwindSafe(|| self.flush_connection(id, share))).is_err() {
            // The connection was lost with the panic; its task sees its socket shut.
            self.stats.panics.add(1);
        }
    }

    /// Sends what a connection has to say and its players have to get, unless a send is in flight.
    fn flush_connection(&mut self, id: usize, share: bool) {
        let Some(place) = self.connections.get_mut(id) else { return };
        if let Some(connection) = place.as_mut().filter(|connection| connection.sending || connection.closing.is_some()) {
            connection.flush_again = true;
            return;
        }
        let Some(mut connection) = place.take() else { return };
        let buf = self.gather(id, &mut connection, share);
        if let Some(buf) = buf.filter(|buf| !buf.is_empty()) {
            connection.sending = true;
            connection.send_started_ms = self.shared.now_ms();
            self.stats.sends.add(1);
            self.ring.push(connection.token(id), connection.descriptor, buf);
        }
        self.put_back(id, connection);
    }

    fn gather(&mut self, id: usize, connection: &mut Connection, share: bool) -> Option<SendBuf> {
        let now_ms = self.shared.now_ms();
        let own = connection.session.take_output();
        if let ([play], true, true) = (&mut connection.plays[..], share, own.is_empty()) {
            let replica = &self.relay.stream(play.stream)?.replica;
            let image = play.take_image(replica, connection.session.chunk_size(), &mut self.images, now_ms);
            if let Some((bytes, tags)) = image {
                self.stats.tags_sent.add(tags);
                // The end of a publish, or more than fits, follows when this is sent.
                connection.flush_again = play.subscription.next() < replica.log().head() || !replica.is_live();
                return Some(SendBuf::Shared(bytes));
            }
        }
        let mut out = Gather::new(own);
        let mut finished: SmallVec<[u32; 1]> = SmallVec::new();
        for play in &mut connection.plays {
            let Some(stream) = self.relay.stream(play.stream) else { continue };
            loop {
                match play.step(&stream.replica, &mut connection.session, &mut out, now_ms) {
                    Progress::Took(tags) => self.stats.tags_sent.add(tags),
                    Progress::Started | Progress::Ended => {}
                    Progress::Skipped => self.stats.skips.add(1),
                    Progress::Finished => {
                        finished.push(play.msid);
                        break;
                    }
                    Progress::Full => {
                        connection.flush_again = true;
                        break;
                    }
                    Progress::Idle => break,
                }
            }
        }
        for msid in finished {
            connection.heard_ms = now_ms;
            self.close_net_stream(id, connection, msid);
        }
        debug_assert!(out.len() <= SEND_BYTES_MAX * 2 + (32 << 20), "a send is bounded");
        Some(SendBuf::Gather(Box::new(out)))
    }

    /// Hands queued sends to the kernel and goes on with connections whose sends have ended.
    pub(super) fn pump(&mut self) {
        let mut ended = std::mem::take(&mut self.ended);
        loop {
            self.ring.pump(|token, whole, bytes| ended.push((token, whole, bytes)));
            if ended.is_empty() {
                break;
            }
            for (token, whole, bytes) in ended.drain(..) {
                self.stats.bytes_sent.add(bytes as u64);
                self.send_ended(token, whole);
            }
        }
        self.ended = ended;
        self.stats.send_syscalls.set(self.ring.syscalls());
    }

    fn send_ended(&mut self, token: u64, whole: bool) {
        let id = place(token);
        let Some(connection) = self.connections.get_mut(id).and_then(Option::as_deref_mut) else { return };
        if connection.token(id) != token {
            return;
        }
        connection.sending = false;
        if !whole {
            // The socket was shut, by us or the peer; the task's read sees it and closes.
            connection.close(CloseReason::PeerClosed);
        } else if connection.flush_again || connection.session.output_len() > 0 {
            connection.flush_again = false;
            self.flush_guarded(id, false);
        }
        if let Some(connection) = self.connections.get_mut(id).and_then(Option::as_deref_mut) {
            if let Some(waker) = connection.drained.take_if(|_| !connection.sending) {
                waker.wake();
            }
        }
    }

    /// Ready when nothing of the connection is in flight or waits.
    pub(super) fn poll_drained(&mut self, id: usize, cx: &Context<'_>) -> Poll<()> {
        let Some(connection) = self.connections.get_mut(id).and_then(Option::as_deref_mut) else { return Poll::Ready(()) };
        if !connection.sending {
            return Poll::Ready(());
        }
        connection.drained = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends whatever a connection publishes and plays.
    pub(super) fn end_service(&mut self, id: usize) {
        let Some(mut connection) = self.connections.get_mut(id).and_then(Option::take) else {
            return self.forget(id);
        };
        for play in std::mem::take(&mut connection.plays) {
            self.end_play(id, &play);
        }
        for publish in std::mem::take(&mut connection.publishes) {
            self.end_publish(id, &connection, publish);
        }
        self.put_back(id, connection);
        self.flush_connection(id, false);
        self.flush_changed();
        self.pump();
    }

    /// Cleans up after a connection that was lost in a panic: whatever names it.
    fn forget(&mut self, id: usize) {
        self.stats.panics.add(1);
        let me = self.relay.me();
        let streams: Vec<StreamId> = self.relay.streams().map(|(stream, _)| stream).collect();
        for stream in streams {
            let Some(found) = self.relay.stream_mut(stream) else { continue };
            let members: Vec<u64> = found.replica.schedule.members().filter(|member| place(*member) == id).collect();
            for member in members {
                found.replica.schedule.remove(member);
                self.stats.players.add(u64::MAX);
            }
            let publishes = |publisher: &Publisher| publisher.shard == me && place(publisher.connection) == id;
            if self.relay.stream(stream).and_then(|stream| stream.publisher).as_ref().is_some_and(publishes) {
                self.changed.push(stream);
                self.relay.unpublish(stream);
                self.stats.publishers.add(u64::MAX);
            } else {
                self.relay.release(stream);
            }
        }
    }

    /// Forgets a connection, and logs why.
    pub(super) fn remove(&mut self, id: usize, reason: &CloseReason) {
        self.pump();
        let connection = self.connections.try_remove(id).flatten();
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.stats.closed.add(1);
        let Some(connection) = connection else {
            tracing::error!("a connection was lost: {reason}");
            return;
        };
        let reason = connection.closing.as_ref().unwrap_or(reason);
        let (peer, position) = (connection.named(), connection.session.position());
        if reason.is_fault() {
            tracing::warn!(%peer, position, "closed: {reason}");
        } else {
            tracing::debug!(%peer, position, "closed: {reason}");
        }
    }

    /// Takes a connection out to send it to another shard.
    pub(super) fn take_for_move(&mut self, id: usize) -> Option<MovedState> {
        self.pump();
        let connection = self.connections.try_remove(id).flatten()?;
        Some(MovedState { session: connection.session, real_peer: connection.real_peer })
    }

    /// Sends a connection to its stream's home.
    pub(super) fn send_moved(&mut self, home: usize, moved: Box<Moved>) {
        self.relay.send(home, ShardMessage::Adopt(moved));
    }

    /// A connection was lost on its way.
    pub(super) fn forget_moved(&self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.stats.closed.add(1);
    }

    /// Closes connections that are late with something.
    fn look_over_connections(&mut self, now_ms: u64) {
        for (_, connection) in &mut self.connections {
            if let Some(connection) = connection.as_deref_mut() {
                if let Some(reason) = connection.lateness(now_ms) {
                    connection.close(reason);
                }
            }
        }
    }

    /// Closes everything, for the process's end.
    pub(super) fn shut_down(&mut self) {
        for (_, connection) in &mut self.connections {
            if let Some(connection) = connection.as_deref_mut() {
                net::shutdown(connection.descriptor);
            }
        }
        self.pump();
    }
}

impl Connection {
    fn token(&self, id: usize) -> u64 {
        u64::from(self.serial) << 32 | (id as u64 & 0xFFFF_FFFF)
    }

    /// The real peer, where a proxy has named it.
    fn named(&self) -> SocketAddr {
        self.real_peer.unwrap_or(self.peer)
    }

    /// Ends both directions, so that the connection's task sees the end and closes with `reason`.
    fn close(&mut self, reason: CloseReason) {
        if self.closing.is_none() {
            self.closing = Some(reason);
            net::shutdown(self.descriptor);
        }
    }

    fn unless_in_service(&self, reason: CloseReason) -> Outcome {
        if self.plays.is_empty() && self.publishes.is_empty() { Outcome::Close(reason) } else { Outcome::Continue }
    }

    fn lateness(&self, now_ms: u64) -> Option<CloseReason> {
        let silent_ms = now_ms.saturating_sub(self.heard_ms);
        if self.sending && now_ms.saturating_sub(self.send_started_ms) > IO_MS_MAX {
            Some(CloseReason::Stalled)
        } else if !self.handshaken && silent_ms > HANDSHAKE_MS_MAX {
            Some(CloseReason::HandshakeTimeout)
        } else if !self.publishes.is_empty() && silent_ms > IO_MS_MAX {
            Some(CloseReason::PublisherSilent)
        } else if self.plays.is_empty() && self.publishes.is_empty() && silent_ms > IO_MS_MAX {
            Some(CloseReason::Idle)
        } else {
            None
        }
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

fn session_settings(vhost: &Vhost) -> crate::proto::rtmp::server::Settings {
    crate::proto::rtmp::server::Settings { chunk_size: vhost.chunk_size, ..Default::default() }
}

fn stream_settings(vhost: &Vhost) -> stream::Settings {
    stream::Settings {
        gop_cache: vhost.play.gop_cache,
        gop_cache_tags_max: u64::from(vhost.play.gop_cache_max_frames),
        queue_ms_max: u64::from(vhost.play.queue_length_s) * 1000,
        mw_latency_ms: u64::from(vhost.play.mw_latency_ms),
        mw_msgs: u64::from(vhost.play.mw_msgs),
    }
}

/// A player in a schedule: its connection's place and its NetStream.
fn member(id: usize, msid: u32) -> u64 {
    u64::from(msid) << 32 | (id as u64 & 0xFFFF_FFFF)
}

fn msid_of(member: u64) -> u32 {
    u32::try_from(member >> 32).unwrap_or(0)
}

/// The connection's place in a member or token.
fn place(token: u64) -> usize {
    usize::try_from(token & 0xFFFF_FFFF).unwrap_or(usize::MAX)
}
