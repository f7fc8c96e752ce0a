//! Everything of one shard: connections, streams, the send ring. All of it synchronous.
//!
//! Invariants worth naming:
//! * A connection has at most one send in flight, of whole messages; what else it has to say waits.
//! * A player's queue is its cursor. Nothing is allocated per tag and player.
//! * A socket that ends with a send in flight is the send ring's, which closes it: its number may be another
//!   connection's next.
//! * One turn of the loop takes about [`budget::TURN_MAX`], whatever there is to do; what is left waits in the
//!   order in which it was due.

mod access;
mod budget;
mod control;
mod events;
mod flush;
mod http;
mod load;
mod messages;
mod moving;
mod peer;
mod publishing;
mod report;
mod settings;
mod survey;

pub(super) use messages::{Publisher, ShardMessage};
pub(super) use moving::{Moved, Taken};
pub(super) use peer::CloseReason;

pub(super) use access::Wish;

use super::{Shared, http::HttpSession, play::Image, session::Session};
use crate::{
    config::{Listen, Service},
    control::{ClientId, hooks},
    net::{self, Ended, Notifier, Receiver, SendRing},
    proto::rtmp::server::ServerSession,
    shard::{
        mesh::{Mesh, ShardWaker},
        relay::{Message, Relay, StreamId},
    },
    stats::{Rate, ShardStats},
    tls,
};
use budget::Budget;
use load::Load;
use peer::Connection;
use settings::{session_settings, stream_settings};
use slab::Slab;
use smallvec::SmallVec;
use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    os::fd::RawFd,
    sync::{Arc, atomic::Ordering},
};

/// How often connections are looked over.
const HOUSEKEEPING_MS: u64 = 1000;
/// The same if a deadline is nearer.
const HOUSEKEEPING_MS_MIN: u64 = 50;
/// What a connection's task does next.
#[derive(Debug)]
pub(super) enum Outcome {
    Continue,
    /// Others have their turn first, or something is waited for.
    Later {
        unread: Vec<u8>,
    },
    Move {
        home: usize,
        msid: u32,
        stream: String,
        unread: Vec<u8>,
    },
    /// The stream's publisher has sent what is not read yet, perhaps its end: try again in a moment.
    Retry {
        msid: u32,
        stream: String,
        unread: Vec<u8>,
    },
    /// Somebody else decides whether it may go on.
    Ask {
        wish: Wish,
        event: Box<hooks::Event>,
        unread: Vec<u8>,
    },
    /// What it asks for is not the shard's to answer.
    HandOver,
    Close(CloseReason),
}

/// See the module.
pub(super) struct ShardServer {
    shared: Arc<Shared>,
    stats: Arc<ShardStats>,
    relay: Relay<Publisher, ShardMessage>,
    ring: SendRing,
    connections: Slab<Option<Box<Connection>>>,
    serial: u32,
    publish_serial: u64,
    images: Vec<Image>,
    changed: Vec<StreamId>,
    ended: Vec<Ended>,
    /// Connections that may have more to send, their last send having ended.
    refills: VecDeque<usize>,
    housekeeping_ms: u64,
    load: Load,
    survey: survey::Survey,
    /// Until when the shard's loop sleeps, in ms of the process's clock.
    asleep_until_ms: u64,
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
            publish_serial: 0,
            images: Vec::new(),
            changed: Vec::new(),
            ended: Vec::new(),
            refills: VecDeque::new(),
            housekeeping_ms: 0,
            load: Load::default(),
            survey: survey::Survey::default(),
            asleep_until_ms: 0,
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
    pub(super) fn tls_session(&self, service: Service) -> Option<tls::Session> {
        let config = self.shared.config();
        let acceptor = match service {
            Service::Rtmp => config.rtmps.tls.as_ref(),
            Service::Http => config.http.tls.as_ref(),
            Service::Api | Service::Exporter => config.api.tls.as_ref(),
        };
        let session = acceptor?.accept();
        session.inspect_err(|error| tracing::error!(%error, "TLS")).ok()
    }

    pub(super) fn accept_paused(&self, error: &io::Error) {
        self.stats.accept_pauses.add(1);
        tracing::warn!(%error, "accept pauses; running streams go on");
    }

    /// Takes a fresh connection in; returns its place.
    pub(super) fn insert(
        &mut self,
        descriptor: RawFd,
        peer: SocketAddr,
        listen: Listen,
        tls: Option<tls::Session>,
    ) -> usize {
        let session = match listen.service {
            Service::Rtmp => {
                let config = self.shared.config();
                let settings = config.vhosts.first().map(|vhost| session_settings(vhost)).unwrap_or_default();
                Session::Rtmp(ServerSession::new(settings, fastrand::u64(..)))
            }
            Service::Http | Service::Api | Service::Exporter => Session::Http(HttpSession::default()),
        };
        let id = self.insert_session(descriptor, peer, session);
        self.with(id, |connection| {
            connection.proxy = listen.proxy_protocol.then(Vec::new);
            connection.tls = tls.map(Box::new);
        });
        id
    }

    fn insert_session(&mut self, descriptor: RawFd, peer: SocketAddr, session: Session) -> usize {
        self.serial = self.serial.wrapping_add(1);
        let token = token(self.serial, self.connections.vacant_key());
        self.connections.insert(Some(Box::new(Connection {
            serial: self.serial,
            client: ClientId { shard: self.relay.me(), token },
            descriptor,
            peer,
            real_peer: None,
            session,
            tls: None,
            ktls_bytes: None,
            proxy: None,
            plays: SmallVec::new(),
            publishes: SmallVec::new(),
            handshaken: false,
            asking: false,
            on_close: None,
            started_ms: self.shared.now_ms(),
            received_bytes: 0,
            sent_rate: Rate::new(self.shared.now_ms()),
            received_rate: Rate::new(self.shared.now_ms()),
            sent_bytes: 0,
            sending: None,
            refilling: false,
            congested: None,
            flush_again: false,
            send_started_ms: 0,
            heard_ms: self.shared.now_ms(),
            closing: None,
            leaving: None,
            drained: None,
        })))
    }

    /// Changes a connection that is not being worked on.
    fn with<T>(&mut self, id: usize, change: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        self.connections.get_mut(id)?.as_deref_mut().map(change)
    }

    /// How long the shard's loop may sleep before [`Self::turn`] has something to do, in ms; whatever
    /// becomes due earlier meanwhile wakes it.
    pub(super) fn sleep_ms(&mut self) -> u64 {
        let now_ms = self.shared.now_ms();
        self.asleep_until_ms = if !self.refills.is_empty() || !self.ended.is_empty() || self.survey.is_pending() {
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
        due.into_iter().chain([self.load.next_step_ms()]).min().unwrap_or(u64::MAX).min(self.housekeeping_ms)
    }

    /// One round of the shard's loop: what came from other shards, who is due, who is late. Returns
    /// connections that have moved here.
    pub(super) fn turn(&mut self) -> Vec<Moved> {
        let arrived = self.receive_messages(Budget::half_turn());
        self.flush_changed();
        let now_ms = self.shared.now_ms();
        let mut budget = Budget::turn();
        while let Some((stream, due_ms)) = self.relay.take_due(now_ms) {
            self.stats.late.note(self.shared.now_ms().saturating_sub(due_ms));
            self.flush_stream(stream, now_ms, &mut budget);
            self.relay.arm(stream, now_ms);
            if budget.spend(1) {
                break;
            }
        }
        self.step_load(now_ms);
        self.go_on_answering();
        if now_ms >= self.housekeeping_ms {
            self.housekeeping_ms = self.look_over_connections(now_ms);
            self.kick_unseen(now_ms);
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
    pub(super) fn end_service(&mut self, id: usize) {
        let Some(mut connection) = self.connections.get_mut(id).and_then(Option::take) else {
            return self.forget(id);
        };
        for mut play in std::mem::take(&mut connection.plays) {
            self.end_play(id, &mut play);
        }
        for publish in std::mem::take(&mut connection.publishes) {
            self.end_publish(id, &connection, publish);
        }
        self.put_back(id, connection);
        self.flush_guarded(id, flush::Turn::Own);
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
            let publishes = |publisher: &Publisher| publisher.shard == me && place(publisher.connection) == id;
            if self.relay.stream(stream).and_then(|stream| stream.publisher).as_ref().is_some_and(publishes) {
                self.changed.push(stream);
                self.relay.unpublish(stream);
                self.stats.publishers.sub(1);
            } else {
                self.relay.release(stream);
            }
        }
    }

    /// Forgets a connection, and logs why. Its socket is closed as soon as no send is on it.
    pub(super) fn remove(&mut self, id: usize, reason: &CloseReason, receiver: Receiver) {
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
            event.body.insert("send_bytes".to_owned(), connection.sent_bytes.into());
            event.body.insert("recv_bytes".to_owned(), connection.received_bytes.into());
        }
        self.tell(connection.on_close.take());
        // What the read saw may be but the echo of our own shutdown, whose reason counts then.
        let reason = if reason.is_fault() { reason } else { connection.closing.as_ref().unwrap_or(reason) };
        let (peer, position) = (connection.named(), connection.session.position());
        self.stats.closed_by_fault.add(u64::from(reason.is_fault()));
        if reason.is_fault() {
            tracing::warn!(%peer, position, "closed: {reason}");
        } else {
            tracing::debug!(%peer, position, "closed: {reason}");
        }
    }

    /// Closes connections that are late with something; returns when to look again.
    fn look_over_connections(&mut self, now_ms: u64) -> u64 {
        let mut next_ms = now_ms + HOUSEKEEPING_MS;
        self.relay.look_over(now_ms);
        let mut stirred: Vec<usize> = Vec::new();
        for (id, connection) in &mut self.connections {
            let Some(connection) = connection.as_deref_mut() else { continue };
            connection.sent_rate.look(now_ms, connection.sent_bytes);
            connection.received_rate.look(now_ms, connection.received_bytes);
            if Self::look_over_http(connection, now_ms) {
                stirred.push(id);
            }
            match connection.deadline() {
                Some((deadline_ms, reason)) if deadline_ms <= now_ms => connection.close(reason),
                Some((deadline_ms, _)) => next_ms = next_ms.min(deadline_ms),
                None => {}
            }
        }
        for id in stirred {
            self.flush_guarded(id, flush::Turn::Own);
        }
        next_ms.max(now_ms + HOUSEKEEPING_MS_MIN)
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

/// Names a connection: its place, and which one in that place.
fn token(serial: u32, id: usize) -> u64 {
    u64::from(serial) << 32 | (id as u64 & 0xFFFF_FFFF)
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
