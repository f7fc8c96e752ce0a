//! Connections that come from elsewhere and go elsewhere: to their stream's home shard, to the control plane
//! and back.

use super::{Connection, ShardMessage, ShardServer};
use crate::{
    control::{ClientId, hooks},
    serve::{http::HttpSession, session::Session},
    tls,
};
use std::{
    net::SocketAddr,
    os::fd::{OwnedFd, RawFd},
    sync::atomic::Ordering,
};

/// A connection on its way to another shard.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(in crate::serve) descriptor: OwnedFd,
    pub(in crate::serve) peer: SocketAddr,
    pub(in crate::serve) state: MovedState,
    /// What it wants to publish.
    pub(in crate::serve) msid: u32,
    pub(in crate::serve) stream: String,
    /// Bytes read and not yet understood.
    pub(in crate::serve) unread: Vec<u8>,
}

/// A connection's protocol state.
#[derive(Debug)]
pub(crate) struct MovedState {
    session: Session,
    tls: Option<Box<tls::Session>>,
    real_peer: Option<SocketAddr>,
    client: ClientId,
    on_close: Option<Box<hooks::Event>>,
    started_ms: u64,
    received_bytes: u64,
    sent_bytes: u64,
}

impl ShardServer {
    /// Takes a connection of another shard over.
    pub(in crate::serve) fn insert_moved(&mut self, descriptor: RawFd, peer: SocketAddr, state: MovedState) -> usize {
        let id = self.insert_session(descriptor, peer, state.session);
        self.with(id, |connection| {
            connection.handshaken = true;
            connection.real_peer = state.real_peer;
            connection.client = state.client;
            connection.on_close = state.on_close;
            connection.started_ms = state.started_ms;
            (connection.received_bytes, connection.sent_bytes) = (state.received_bytes, state.sent_bytes);
            connection.tls = state.tls;
        });
        id
    }

    /// Takes a connection out to send it to another shard; `None` if its replies are not sent yet, since
    /// the other shard's would mix with them.
    pub(in crate::serve) fn take_for_move(&mut self, id: usize) -> Option<MovedState> {
        self.pump();
        let connection = self.connections.try_remove(id).flatten().filter(|connection| !connection.sending)?;
        let Connection { session, tls, real_peer, client, on_close, .. } = *connection;
        let Connection { started_ms, received_bytes, sent_bytes, .. } = *connection;
        Some(MovedState { session, tls, real_peer, client, on_close, started_ms, received_bytes, sent_bytes })
    }

    /// Sends a connection to its stream's home.
    pub(in crate::serve) fn send_moved(&mut self, home: usize, moved: Box<Moved>) {
        self.relay.send(home, ShardMessage::Adopt(moved));
    }

    /// Takes an HTTP connection out, with what of it is unread, for the control plane to answer.
    pub(in crate::serve) fn take_to_hand_over(
        &mut self,
        id: usize,
    ) -> Option<(SocketAddr, Option<Box<tls::Session>>, Vec<u8>)> {
        self.pump();
        let connection = self.connections.try_remove(id).flatten().filter(|connection| !connection.sending)?;
        let peer = connection.named();
        match connection.session {
            Session::Http(http) => Some((peer, connection.tls, http.input)),
            Session::Rtmp(_) => None,
        }
    }

    /// Takes an HTTP connection back from the control plane.
    pub(in crate::serve) fn insert_handed(
        &mut self,
        descriptor: RawFd,
        peer: SocketAddr,
        tls: Option<Box<tls::Session>>,
    ) -> usize {
        let id = self.insert_session(descriptor, peer, Session::Http(HttpSession::default()));
        self.with(id, |connection| {
            connection.handshaken = true;
            connection.tls = tls;
        });
        id
    }

    /// A connection was lost on its way, or is another's.
    pub(in crate::serve) fn forget_moved(&self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.stats.closed.add(1);
    }
}
