//! Everything of one shard, synchronous and without a clock or socket of its own: connections, streams, the send
//! ring. It is generic over [`port::Endpoints`] and names no protocol.
//!
//! Invariants worth naming:
//! * A connection has at most one send in flight, of whole messages; what else it has to say waits.
//! * A player's queue is its cursor. Nothing is allocated per tag and player.
//! * A socket that ends with a send in flight is the send ring's, which closes it: its number may be another
//!   connection's next.
//! * One turn of the loop takes about 2 ms (`budget.rs`), whatever there is to do; what is left waits in the
//!   order in which it was due.

mod access;
mod attempt;
mod audience;
mod budget;
mod connection;
mod control;
mod fetch;
mod flush;
mod images;
mod load;
mod memory;
mod messages;
mod moving;
mod origins;
mod outbound;
mod play;
pub mod port;
mod publish;
mod publishing;
mod receive;
mod report;
mod settings;
mod shared;
mod splice;
mod survey;
mod target;
#[cfg(test)]
mod testing;
mod told;
mod visits;

pub(crate) use messages::ShardMessage;
pub(crate) use moving::{Moved, Taken};
pub(crate) use outbound::{Errand, Follow, Step};
pub(crate) use shared::Shared;

use crate::{
    cluster::Place,
    config::{Listen, Service},
    control::{ClientId, hooks},
    mesh::{
        relay::{Message, Relay, StreamId, Timer},
        ring::{Mesh, ShardWaker},
    },
    stats::ShardStats,
    sys::{self, Ended, Notifier, Receiver, SendRing},
    tls,
};
use budget::Budget;
use connection::Connection;
use hashbrown::HashSet;
use images::Images;
use load::Load;
use messages::Publisher;
use port::{CloseReason, Endpoints, Id, Session};
use slab::Slab;
use splice::Last;
use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    os::fd::RawFd,
    sync::{Arc, atomic::Ordering},
};

/// How often streams are looked over.
const HOUSEKEEPING_MS: u64 = 1000;
/// Bytes read at once, by all connections of a shard into one buffer.
pub(crate) const SCRATCH_BYTES: usize = 64 << 10;

/// What a connection's task does next.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It reads.
    Continue,
    /// Others have their turn first, or something is waited for.
    Later {
        unread: Vec<u8>,
    },
    /// What it wants to publish, or to play with few others, is at home elsewhere.
    Move {
        home: usize,
        unread: Vec<u8>,
    },
    /// The publisher of what it wants to publish has sent what is not read yet, perhaps its end: try again in a
    /// moment.
    Retry {
        unread: Vec<u8>,
    },
    /// Somebody else decides whether it may go on.
    Ask {
        question: Question,
        unread: Vec<u8>,
    },
    /// What it asks for is not the shard's to answer.
    HandOver,
    Close(CloseReason),
}

/// Who decides.
#[derive(Debug)]
pub(crate) enum Question {
    Hooks(Box<hooks::Event>),
    /// An origin, whose answer this will be.
    Origin(async_channel::Receiver<hooks::Verdict>),
    /// Where the stream is, if it is not here.
    Place(async_channel::Receiver<Option<Place>>),
}

/// See the module.
pub(crate) struct Shard<E: Endpoints> {
    shared: Arc<Shared>,
    stats: Arc<ShardStats>,
    relay: Relay<Publisher, ShardMessage<E>>,
    ring: SendRing,
    connections: Slab<Option<Box<Connection<E>>>>,
    serial: u32,
    publish_serial: u64,
    images: Images,
    /// System calls of sends from their file.
    file_syscalls: u64,
    changed: Vec<StreamId>,
    ended: Vec<Ended>,
    /// Connections that may have more to send, their last send having ended.
    refills: VecDeque<usize>,
    housekeeping_ms: u64,
    load: Load,
    survey: survey::Survey,
    memory: memory::Memory,
    visits: visits::Visits,
    /// Where publishes are pushed on to, and streams are fetched from.
    outbound: Slab<attempt::Outbound>,
    /// Streams that are fetched, by their keys.
    fetches: HashSet<String>,
    errands: Vec<Errand>,
    /// Until when the shard's loop sleeps, in ms of the process's clock.
    asleep_until_ms: u64,
}

impl<E: Endpoints> Shard<E> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        mesh: Mesh<Message<ShardMessage<E>>>,
        stats: Arc<ShardStats>,
    ) -> io::Result<Self> {
        let images = Images::new(shared.config().send_path);
        let mut shard = Self {
            shared,
            relay: Relay::new(mesh, Arc::clone(&stats)),
            stats,
            ring: SendRing::new()?,
            connections: Slab::new(),
            serial: 0,
            publish_serial: 0,
            images,
            file_syscalls: 0,
            changed: Vec::new(),
            ended: Vec::new(),
            refills: VecDeque::new(),
            housekeeping_ms: 0,
            load: Load::default(),
            survey: survey::Survey::default(),
            memory: memory::Memory::default(),
            visits: visits::Visits::default(),
            outbound: Slab::new(),
            fetches: HashSet::new(),
            errands: Vec::new(),
            asleep_until_ms: 0,
        };
        let config = shard.shared.config();
        shard.pin_pulls(&config);
        Ok(shard)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn wakers(&self) -> &Arc<[ShardWaker]> {
        self.relay.wakers()
    }

    pub(crate) fn index(&self) -> usize {
        self.relay.me()
    }

    pub(crate) fn notifier(&self) -> Notifier {
        self.ring.notifier()
    }

    /// Counts a new connection in, unless there are too many.
    pub(crate) fn admit(&self) -> bool {
        let max = self.shared.config().max_connections as usize;
        if self.shared.connections.fetch_add(1, Ordering::Relaxed) < max {
            self.stats.accepted.add(1);
            return true;
        }
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.stats.refused.add(1);
        tracing::warn!(max_connections = max, "a connection is refused");
        false
    }

    /// A TLS session for a new connection; `None` if the endpoint has just been switched off.
    pub(crate) fn tls_session(&self, service: Service) -> Option<tls::Session> {
        let config = self.shared.config();
        let acceptor = match service {
            Service::Rtmp => config.rtmps.tls.as_ref(),
            Service::Http => config.http.tls.as_ref(),
            Service::Api | Service::Exporter => config.api.tls.as_ref(),
        };
        let session = acceptor?.accept();
        session.inspect_err(|error| tracing::error!(%error, "TLS")).ok()
    }

    pub(crate) fn accept_paused(&self, error: &io::Error) {
        self.stats.accept_pauses.add(1);
        tracing::warn!(%error, "accept pauses; running streams go on");
    }

    /// Takes a fresh connection in; returns its place.
    pub(crate) fn insert(
        &mut self,
        descriptor: RawFd,
        peer: SocketAddr,
        listen: Listen,
        tls: Option<tls::Session>,
    ) -> usize {
        let session = E::accept(listen, &self.shared.context());
        let id = self.insert_session(descriptor, peer, session);
        self.with(id, |connection| {
            connection.proxy = listen.proxy_protocol.then(Vec::new);
            connection.tls = tls.map(Box::new);
        });
        id
    }

    fn insert_session(&mut self, descriptor: RawFd, peer: SocketAddr, session: E::Session) -> usize {
        self.serial = self.serial.wrapping_add(1);
        let token = token(self.serial, self.connections.vacant_key());
        let client = ClientId { shard: self.relay.me(), token };
        if self.images.by_file() {
            sys::set_nonblocking(descriptor);
        }
        let connection = Connection::new(self.serial, client, descriptor, peer, session, self.shared.now_ms());
        let id = self.connections.insert(Some(Box::new(connection)));
        self.arm_connection(id);
        id
    }

    /// Changes a connection that is not being worked on.
    fn with<T>(&mut self, id: usize, change: impl FnOnce(&mut Connection<E>) -> T) -> Option<T> {
        self.connections.get_mut(id)?.as_deref_mut().map(change)
    }

    /// How long the shard's loop may sleep before [`Self::turn`] has something to do, in ms; whatever
    /// becomes due earlier meanwhile wakes it.
    pub(crate) fn sleep_ms(&mut self) -> u64 {
        let now_ms = self.shared.now_ms();
        self.asleep_until_ms = if !self.refills.is_empty()
            || !self.ended.is_empty()
            || self.survey.is_pending()
            || self.visits.is_pending()
        {
            now_ms
        } else if self.relay.is_blocked() {
            now_ms + 1
        } else {
            self.next_due_ms()
        };
        self.asleep_until_ms.saturating_sub(now_ms)
    }

    fn next_due_ms(&mut self) -> u64 {
        let due = self.relay.next_due_ms();
        let lingers = self.relay.next_linger_ms();
        due.into_iter()
            .chain(lingers)
            .chain([self.load.next_step_ms(), self.housekeeping_ms.min(self.memory.due_ms())])
            .min()
            .unwrap_or(u64::MAX)
    }

    /// One round of the shard's loop: what came from other shards, who is due, who is late. Returns
    /// connections that have moved here.
    pub(crate) fn turn(&mut self) -> Vec<Moved<E>> {
        let arrived = self.receive_messages(Budget::half_turn());
        self.flush_changed();
        let now_ms = self.shared.now_ms();
        let mut budget = Budget::turn();
        while let Some((timer, due_ms)) = self.relay.take_due(now_ms) {
            match timer {
                Timer::Flush(stream) => {
                    self.stats.late.note(self.shared.now_ms().saturating_sub(due_ms));
                    self.flush_stream(stream, now_ms, &mut budget);
                    self.relay.arm(stream, now_ms);
                }
                Timer::Session(id) => self.look_at_connection(id, due_ms, now_ms),
            }
            if budget.spend(1) {
                break;
            }
        }
        self.relay.forget_lingering(now_ms);
        self.step_load(now_ms);
        self.go_on_answering();
        self.tell_of_changes();
        if now_ms >= self.memory.due_ms() {
            self.look_at_memory(now_ms);
        }
        if now_ms >= self.housekeeping_ms {
            let before = self.images.by_file();
            self.images.set_path(self.shared.config().send_path);
            if self.images.by_file() && !before {
                let all = self.connections.iter().filter_map(|(_, connection)| connection.as_deref());
                all.for_each(|connection| sys::set_nonblocking(connection.descriptor));
            }
            self.relay.look_over(now_ms);
            self.end_lost();
            self.look_at_visits(now_ms);
            self.housekeeping_ms = self.kick_unseen(now_ms).min(now_ms + HOUSEKEEPING_MS);
        }
        self.pump();
        arrived
    }

    /// Has the shard's loop come round without sleep.
    fn wake(&mut self) {
        self.asleep_until_ms = 0;
        self.relay.wakers()[self.relay.me()].wake();
    }

    /// Ends whatever a connection publishes and plays.
    pub(crate) fn end_service(&mut self, id: usize) {
        let Some(mut connection) = self.connections.get_mut(id).and_then(Option::take) else {
            return self.forget(id);
        };
        for play in std::mem::take(&mut connection.plays) {
            self.end_play(id, play);
        }
        for publish in std::mem::take(&mut connection.publishes) {
            // Of what is fetched, another origin may have more.
            let goes_on = connection.outbound.and_then(|outbound| self.outbound.get_mut(outbound));
            let last = Last { came_ms: connection.heard_ms, times: publish.times };
            let goes_on = goes_on.map(|outbound| outbound.lost = Some(last)).is_some();
            self.end_publish(id, &connection, publish, goes_on);
        }
        self.put_back(id, connection);
        self.flush_guarded(id, connection::Turn::Own);
        self.flush_changed();
        self.pump();
    }

    /// Cleans up after a connection that was lost in a panic: whatever names it.
    fn forget(&mut self, id: usize) {
        self.stats.panics.add(1);
        self.relay.take_broken();
        let me = self.relay.me();
        let streams: Vec<StreamId> = self.relay.streams().map(|(stream, _)| stream).collect();
        for stream in streams {
            let Some(found) = self.relay.stream_mut(stream) else { continue };
            let members: Vec<u64> = found.replica.schedule.members().filter(|member| place(*member) == id).collect();
            for member in members {
                found.replica.schedule.remove(member);
                self.stats.players.sub(1);
            }
            found.replica.drop_unread();
            let publishes = |publisher: &Publisher| publisher.shard == me && place(publisher.connection) == id;
            if self.relay.stream(stream).and_then(|stream| stream.publisher).as_ref().is_some_and(publishes) {
                self.changed.push(stream);
                let publish = self.relay.stream(stream).and_then(|stream| stream.publisher).map(|found| found.publish);
                publish.into_iter().for_each(|publish| self.shared.programs.ends((me, publish)));
                self.relay.unpublish(stream);
                self.stats.publishers.sub(1);
            } else {
                self.relay.release(stream);
            }
        }
    }

    /// Forgets a connection, and logs why. Its socket is closed as soon as no send is on it.
    pub(crate) fn remove(&mut self, id: usize, reason: &CloseReason, receiver: Receiver) {
        self.pump();
        let connection = self.connections.try_remove(id).flatten();
        match &connection {
            Some(connection) if connection.sending.is_none() => drop(receiver),
            Some(connection) => self.ring.bury(connection.sending, receiver),
            None => self.ring.bury(None, receiver),
        }
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.stats.closed.add(1);
        let Some(mut connection) = connection else {
            tracing::error!("a connection was lost: {reason}");
            return;
        };
        if let Some(event) = &mut connection.on_close {
            event.body.add("send_bytes", connection.sent_bytes);
            event.body.add("recv_bytes", connection.received_bytes);
        }
        self.tell(connection.on_close.take());
        // What the read saw may be but the echo of our own shutdown, whose reason counts then.
        let reason = if reason.is_fault() { reason } else { connection.closing.as_ref().unwrap_or(reason) };
        if let Some(outbound) = connection.outbound {
            return self.outbound_ended(outbound, reason, &connection);
        }
        let (peer, position) = (connection.named(), connection.session.peer().position);
        self.stats.closed_by_fault.add(u64::from(reason.is_fault()));
        if reason.is_fault() {
            tracing::warn!(%peer, position, "closed: {reason}");
        } else {
            tracing::debug!(%peer, position, "closed: {reason}");
        }
    }

    /// Closes everything, for the process's end.
    pub(crate) fn shut_down(&mut self) {
        let streams: Vec<StreamId> = self.relay.streams().map(|(stream, _)| stream).collect();
        for stream in streams {
            if let Some(stream) = self.relay.stream_mut(stream) {
                stream.replica.end_takers();
            }
        }
        for (_, connection) in &mut self.connections {
            if let Some(connection) = connection.as_deref_mut() {
                sys::shutdown(connection.descriptor);
            }
        }
        self.pump();
    }
}

/// Names a connection: its place, and which one in that place.
fn token(serial: u32, id: usize) -> u64 {
    u64::from(serial) << 32 | (id as u64 & 0xFFFF_FFFF)
}

/// A player in a schedule: its connection's place and its number there.
fn member(id: usize, play: Id) -> u64 {
    u64::from(play) << 32 | (id as u64 & 0xFFFF_FFFF)
}

fn play_of(member: u64) -> Id {
    u32::try_from(member >> 32).unwrap_or(0)
}

/// The connection's place in a member or token.
fn place(token: u64) -> usize {
    usize::try_from(token & 0xFFFF_FFFF).unwrap_or(usize::MAX)
}
