//! One connection as its shard knows it.

use super::{
    Shard,
    play::Play,
    port::{CloseReason, Endpoints, IO_MS_MAX, Request, Session},
    publish::Publish,
};
use crate::{
    control::{ClientId, hooks},
    mesh::seats::Seat,
    stats::Rate,
    sys::{self, SendKey},
    tls,
};
use bytes::Bytes;
use smallvec::SmallVec;
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    os::fd::RawFd,
    task::Waker,
};

/// Longest time between two looks at a connection, in ms: its rates want one.
const LOOK_MS_MAX: u64 = 15_000;
/// Connections are looked at on a grid of so many ms, so that many of them share a wake-up: a deadline, which is of
/// seconds, comes so much later at most.
const LOOK_GRID_MS: u64 = 100;

#[derive(Debug)]
pub(super) struct Connection<E: Endpoints> {
    /// Never used twice on a shard.
    pub(super) serial: u32,
    /// By which it is known outside.
    pub(super) client: ClientId,
    pub(super) descriptor: RawFd,
    pub(super) peer: SocketAddr,
    /// The real one, as a proxy header has named it.
    pub(super) real_peer: Option<SocketAddr>,
    /// Whom its present request is from, as a proxy that is believed has said in it.
    pub(super) forwarded: Option<IpAddr>,
    pub(super) session: E::Session,
    /// What the session's bytes are wrapped in.
    pub(super) tls: Option<Box<tls::Session>>,
    /// The kernel wraps them; bytes that it has sent so.
    pub(super) ktls_bytes: Option<u64>,
    /// A proxy header is still to come; what there is of it.
    pub(super) proxy: Option<Vec<u8>>,
    pub(super) plays: SmallVec<[Play<E::Sink>; 1]>,
    pub(super) publishes: SmallVec<[Publish; 1]>,
    /// A hook decides whether this may be.
    pub(super) wish: Option<Wish<E::Sink>>,
    /// The target that it was opened to, if it has not come in.
    pub(super) outbound: Option<usize>,
    /// What it is to do as soon as it is where that is, and what it publishes has a free name.
    pub(super) pending: Option<Pending<E::Sink>>,
    /// It has played, and goes nowhere to play.
    pub(super) stays: bool,
    /// It has connected, and `on_connect` is to be asked with the first stream that it wants.
    pub(super) unasked: bool,
    /// Whom to tell when it ends.
    pub(super) on_close: Option<Box<hooks::Event>>,
    /// In ms of the process's clock.
    pub(super) started_ms: u64,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    pub(super) sent_rate: Rate,
    pub(super) received_rate: Rate,
    /// The send in flight.
    pub(super) sending: Option<SendKey>,
    /// Its last send has ended, and it is to be looked at whether it has more.
    pub(super) refilling: bool,
    /// A shard that has not taken yet what this connection has sent it.
    pub(super) congested: Option<usize>,
    /// Members of due groups were passed over, or a send was full: flush when the send ends.
    pub(super) flush_again: bool,
    /// Since when the present send lasts.
    pub(super) send_started_ms: u64,
    /// When it is looked at next.
    pub(super) armed_ms: u64,
    /// When bytes of it were last looked at.
    pub(super) heard_ms: u64,
    /// What is to be sent behind what its session has said.
    pub(super) body: VecDeque<Bytes>,
    pub(super) closing: Option<CloseReason>,
    /// To be closed as soon as everything is sent.
    pub(super) leaving: Option<CloseReason>,
    pub(super) drained: Option<Waker>,
}

impl<E: Endpoints> Connection<E> {
    pub(super) fn new(
        serial: u32,
        client: ClientId,
        descriptor: RawFd,
        peer: SocketAddr,
        session: E::Session,
        now_ms: u64,
    ) -> Self {
        Self {
            serial,
            client,
            descriptor,
            peer,
            real_peer: None,
            forwarded: None,
            session,
            tls: None,
            ktls_bytes: None,
            proxy: None,
            plays: SmallVec::new(),
            publishes: SmallVec::new(),
            wish: None,
            pending: None,
            outbound: None,
            stays: false,
            unasked: false,
            on_close: None,
            started_ms: now_ms,
            received_bytes: 0,
            sent_bytes: 0,
            sent_rate: Rate::new(now_ms),
            received_rate: Rate::new(now_ms),
            sending: None,
            refilling: false,
            congested: None,
            flush_again: false,
            send_started_ms: 0,
            armed_ms: u64::MAX,
            heard_ms: now_ms,
            body: VecDeque::new(),
            closing: None,
            leaving: None,
            drained: None,
        }
    }

    pub(super) fn token(&self, id: usize) -> u64 {
        super::token(self.serial, id)
    }

    /// The real peer, where a proxy has named it.
    pub(super) fn named(&self) -> SocketAddr {
        let named = self.real_peer.unwrap_or(self.peer);
        self.forwarded.map_or(named, |ip| SocketAddr::new(ip, 0))
    }

    /// Whether a send is in flight, or another one may follow at once.
    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some() || self.refilling
    }

    /// Wakes who waits for everything to be sent, if it is.
    pub(super) fn wake_drained(&mut self) {
        if !self.is_sending()
            && let Some(waker) = self.drained.take()
        {
            waker.wake();
        }
    }

    /// Wakes who waits for an answer, if it is on its way.
    pub(super) fn wake_answered(&mut self) {
        if !self.session.is_answering() {
            self.drained.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Ends both directions, so that the connection's task sees the end and closes with `reason`.
    pub(super) fn close(&mut self, reason: CloseReason) {
        if self.closing.is_none() {
            self.closing = Some(reason);
            sys::shutdown(self.descriptor);
            // Its task may wait for an answer to be sent.
            self.drained.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Whether it plays, publishes, or waits to.
    pub(super) fn is_busy(&self) -> bool {
        !self.plays.is_empty() || !self.publishes.is_empty() || self.wish.is_some()
    }

    /// Whether something waits to be sent that no player asked for.
    pub(super) fn has_words(&self) -> bool {
        self.session.output_len() > 0 || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// When its publisher or its peer's reading is late, in ms of the process's clock, and what that is called.
    fn deadline(&self) -> Option<(u64, CloseReason)> {
        let send = self.sending.map(|_| (self.send_started_ms + IO_MS_MAX, CloseReason::Stalled));
        send.into_iter().chain(self.publishes.iter().map(Publish::deadline)).min_by_key(|(deadline_ms, _)| *deadline_ms)
    }

    /// When it is to be looked at.
    fn due_ms(&self, now_ms: u64) -> u64 {
        let deadline_ms = self.deadline().map(|(deadline_ms, _)| deadline_ms);
        let session_ms = self.session.deadline(self.is_busy());
        let due_ms = deadline_ms.into_iter().chain(session_ms).min().unwrap_or(u64::MAX);
        due_ms.min(now_ms + LOOK_MS_MAX).next_multiple_of(LOOK_GRID_MS)
    }
}

/// Why a connection is flushed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// Its group is due; enough others are to `share` an image.
    Due { share: bool },
    /// It has something to say, or may have more.
    Own,
}

/// What is done at a stream's home.
#[derive(Debug)]
pub(super) enum Pending<S> {
    Publish(Box<Request>),
    Play(Box<Request>, S, Seat),
}

/// What is done once a hook has allowed it.
#[derive(Debug)]
pub(super) enum Wish<S> {
    /// The connection, with the first stream that is wanted.
    Connect(Box<Wanted<S>>),
    Publish(Box<Request>),
    Play(Box<Request>, S),
    /// The same once an origin has allowed it, too.
    PlayOfOrigin(Box<Request>, S),
    /// The same once it is known whether another server has the stream.
    PlaySomewhere(Box<Request>, S),
}

/// What a connection wants of a stream.
#[derive(Debug)]
pub(super) enum Wanted<S> {
    Publish(Box<Request>),
    Play(Box<Request>, S),
}

impl<E: Endpoints> Shard<E> {
    /// Sees to it that a connection is looked at in time.
    pub(super) fn arm_connection(&mut self, id: usize) {
        let now_ms = self.shared.now_ms();
        let Some(connection) = self.connections.get_mut(id).and_then(Option::as_deref_mut) else { return };
        let due_ms = connection.due_ms(now_ms);
        if due_ms < connection.armed_ms {
            connection.armed_ms = due_ms;
            self.relay.arm_session(id, due_ms);
            if due_ms < self.asleep_until_ms {
                self.wake();
            }
        }
    }

    /// A connection's time has come: closes it if it is late with something.
    pub(super) fn look_at_connection(&mut self, id: usize, due_ms: u64, now_ms: u64) {
        let context = self.shared.context();
        let Some(connection) = self.connections.get_mut(id).and_then(Option::as_deref_mut) else { return };
        if connection.armed_ms != due_ms {
            // An earlier one's, or another connection's.
            return;
        }
        connection.armed_ms = u64::MAX;
        connection.sent_rate.look(now_ms, connection.sent_bytes);
        connection.received_rate.look(now_ms, connection.received_bytes);
        let busy = connection.is_busy();
        let late = connection.deadline().filter(|(deadline_ms, _)| *deadline_ms <= now_ms).map(|(_, reason)| reason);
        if let Some(reason) = late.or_else(|| connection.session.timeout(busy, &context)) {
            connection.close(reason);
        }
        // Whoever plays has its turn with its group.
        if connection.has_words() || connection.plays.iter().any(|play| !play.begun) {
            self.flush_guarded(id, Turn::Own);
        }
        self.arm_connection(id);
    }
}
