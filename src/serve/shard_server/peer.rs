//! One connection as its shard knows it, and why it is closed.

use super::Outcome;
use crate::{
    net,
    proto::rtmp::{RtmpError, proxy, server::ServerSession},
    serve::rtmp::{player::Play, publisher::Publish},
};
use smallvec::SmallVec;
use std::{io, net::SocketAddr, os::fd::RawFd, task::Waker};

/// A handshake that is not done by then is a half-open one.
const HANDSHAKE_MS_MAX: u64 = 10_000;
/// I/O timeout: a connection that neither publishes nor plays, a publisher without a whole message, a
/// send that does not end.
const IO_MS_MAX: u64 = 30_000;

#[derive(Debug)]
pub(super) struct Connection {
    /// Never used twice on a shard.
    pub(super) serial: u32,
    pub(super) descriptor: RawFd,
    pub(super) peer: SocketAddr,
    pub(super) real_peer: Option<SocketAddr>,
    pub(super) session: ServerSession,
    /// A proxy header is still to come; what there is of it.
    pub(super) proxy: Option<Vec<u8>>,
    pub(super) plays: SmallVec<[Play; 1]>,
    pub(super) publishes: SmallVec<[Publish; 1]>,
    pub(super) handshaken: bool,
    pub(super) sending: bool,
    /// Members of due groups were passed over, or a send was full: flush when the send ends.
    pub(super) flush_again: bool,
    /// Since when the present send, silence or idleness lasts.
    pub(super) send_started_ms: u64,
    pub(super) heard_ms: u64,
    pub(super) closing: Option<CloseReason>,
    pub(super) drained: Option<Waker>,
}

impl Connection {
    pub(super) fn token(&self, id: usize) -> u64 {
        u64::from(self.serial) << 32 | (id as u64 & 0xFFFF_FFFF)
    }

    /// The real peer, where a proxy has named it.
    pub(super) fn named(&self) -> SocketAddr {
        self.real_peer.unwrap_or(self.peer)
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

    pub(super) fn lateness(&self, now_ms: u64) -> Option<CloseReason> {
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
    pub(in crate::serve) fn may_have_last_words(&self) -> bool {
        matches!(self, Self::Protocol(_) | Self::PublishRefused(_) | Self::PlayRefused(_))
    }

    /// Whether an operator wants to know.
    pub(super) fn is_fault(&self) -> bool {
        !matches!(self, Self::PeerClosed | Self::Io(_))
    }
}
