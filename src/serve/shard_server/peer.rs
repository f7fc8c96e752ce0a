//! One connection as its shard knows it, and why it is closed.

use super::Outcome;
use crate::{
    control::{ClientId, hooks},
    net::{self, SendKey},
    proto::{
        codec::SequenceError,
        http::{HeadError, websocket::WebSocketError},
        rtmp::{RtmpError, proxy},
    },
    serve::{http::State, play::Play, rtmp::publisher::Publish, session::Session},
    stats::Rate,
    tls,
};
use smallvec::SmallVec;
use std::{io, net::SocketAddr, os::fd::RawFd, task::Waker};

/// A handshake, TLS's included, that is not done by then is a half-open one.
const HANDSHAKE_MS_MAX: u64 = 10_000;
/// I/O timeout: a connection that neither publishes nor plays, a send that does not end.
pub(super) const IO_MS_MAX: u64 = 30_000;

/// How long an HTTP connection may rest between two requests; nginx's keepalive_timeout is 75 s.
const KEEP_ALIVE_MS_MAX: u64 = 60_000;
/// A WebSocket whose client has not said anything by then, though it was asked, is dead.
const PONG_MS_MAX: u64 = 60_000;

#[derive(Debug)]
pub(super) struct Connection {
    /// Never used twice on a shard.
    pub(super) serial: u32,
    /// By which it is known outside.
    pub(super) client: ClientId,
    pub(super) descriptor: RawFd,
    pub(super) peer: SocketAddr,
    pub(super) real_peer: Option<SocketAddr>,
    pub(super) session: Session,
    /// What the session's bytes are wrapped in.
    pub(super) tls: Option<Box<tls::Session>>,
    /// The kernel wraps them; bytes that it has sent so.
    pub(super) ktls_bytes: Option<u64>,
    /// A proxy header is still to come; what there is of it.
    pub(super) proxy: Option<Vec<u8>>,
    pub(super) plays: SmallVec<[Play; 1]>,
    pub(super) publishes: SmallVec<[Publish; 1]>,
    pub(super) handshaken: bool,
    /// A hook decides what comes next.
    pub(super) asking: bool,
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
    /// Since when the present send, silence or idleness lasts.
    pub(super) send_started_ms: u64,
    pub(super) heard_ms: u64,
    pub(super) closing: Option<CloseReason>,
    /// To be closed as soon as everything is sent.
    pub(super) leaving: Option<CloseReason>,
    pub(super) drained: Option<Waker>,
}

impl Connection {
    pub(super) fn token(&self, id: usize) -> u64 {
        super::token(self.serial, id)
    }

    /// The real peer, where a proxy has named it.
    pub(super) fn named(&self) -> SocketAddr {
        self.real_peer.unwrap_or(self.peer)
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

    /// Ends both directions, so that the connection's task sees the end and closes with `reason`.
    pub(super) fn close(&mut self, reason: CloseReason) {
        if self.closing.is_none() {
            self.closing = Some(reason);
            net::shutdown(self.descriptor);
        }
    }

    pub(super) fn unless_in_service(&self, reason: CloseReason) -> Outcome {
        if self.plays.is_empty() && self.publishes.is_empty() { Outcome::Close(reason) } else { Outcome::Continue }
    }

    /// Whether something waits to be sent that no player asked for.
    pub(super) fn has_words(&self) -> bool {
        self.session.output_len() > 0 || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// When the connection is late with something, in ms of the process's clock, and with what.
    pub(super) fn deadline(&self) -> Option<(u64, CloseReason)> {
        let service = !self.plays.is_empty() || !self.publishes.is_empty() || self.asking;
        let send = self.sending.map(|_| (self.send_started_ms + IO_MS_MAX, CloseReason::Stalled));
        let first = match &self.session {
            Session::Rtmp(_) => CloseReason::HandshakeTimeout,
            Session::Http(_) => CloseReason::RequestTimeout,
        };
        let handshake = (!self.handshaken).then_some((self.heard_ms + HANDSHAKE_MS_MAX, first));
        let idle = (!service).then_some((self.heard_ms + IO_MS_MAX, CloseReason::Idle));
        let idle = match &self.session {
            Session::Rtmp(_) => idle,
            Session::Http(http) if http.websocket.is_some() => {
                Some((self.heard_ms + PONG_MS_MAX, CloseReason::PongMissing))
            }
            Session::Http(http) if matches!(http.state, State::Head) && !http.input.is_empty() => {
                Some((self.heard_ms + HANDSHAKE_MS_MAX, CloseReason::RequestTimeout))
            }
            Session::Http(_) => idle.map(|_| (self.heard_ms + KEEP_ALIVE_MS_MAX, CloseReason::PeerClosed)),
        };
        let publishes = self.publishes.iter().map(Publish::deadline);
        [send, handshake, idle].into_iter().flatten().chain(publishes).min_by_key(|(deadline_ms, _)| *deadline_ms)
    }
}

/// Why a connection is closed.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::serve) enum CloseReason {
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
    #[error("connect refused: {0}")]
    ConnectRefused(String),
    #[error("HTTP: {0}")]
    Http(HeadError),
    #[error("{0}")]
    WebSocket(WebSocketError),
    #[error("no pong within {} s", PONG_MS_MAX / 1000)]
    PongMissing,
    #[error("sends more than can be looked at while it plays")]
    TooMuchUnread,
    #[error("its response has ended")]
    ResponseEnded,
    #[error("an operator has disconnected it")]
    Kicked,
    #[error("no complete handshake within {} s", HANDSHAKE_MS_MAX / 1000)]
    HandshakeTimeout,
    #[error("no complete request within {} s", HANDSHAKE_MS_MAX / 1000)]
    RequestTimeout,
    #[error("nothing published or played for {} s", IO_MS_MAX / 1000)]
    Idle,
    #[error("no media within {0} ms of the publish (firstpkt_timeout)")]
    NoMedia(u32),
    #[error("no media for {0} ms (normal_timeout)")]
    PublisherSilent(u32),
    #[error("nobody has played its stream for {0} s (kickoff_for_idle)")]
    Unseen(u32),
    #[error("another publisher has taken its stream over (takeover replace)")]
    Replaced,
    #[error("sequence header: {0}; `parse_sps off` takes it")]
    SequenceHeader(#[from] SequenceError),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the kernel's TLS: {0}")]
    Ktls(String),
    #[error("its TLS keys are used up; it may connect anew")]
    KeysUsedUp,
    #[error("the server stops, and its stream has ended")]
    Drained,
    #[error("does not read: a send took over {} s", IO_MS_MAX / 1000)]
    Stalled,
    #[error("does not read its replies")]
    RepliesUnread,
    #[error("a panic in its task; please report this")]
    Panic,
}

impl CloseReason {
    pub(in crate::serve) fn may_have_last_words(&self) -> bool {
        matches!(
            self,
            Self::Protocol(_)
                | Self::PublishRefused(_)
                | Self::PlayRefused(_)
                | Self::ConnectRefused(_)
                | Self::Http(_)
                | Self::Tls(_)
                | Self::SequenceHeader(_)
        )
    }

    /// Whether an operator wants to know.
    pub(super) fn is_fault(&self) -> bool {
        !matches!(self, Self::PeerClosed | Self::Io(_) | Self::Drained | Self::ResponseEnded)
    }
}
