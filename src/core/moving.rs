//! Connections that come from elsewhere and go elsewhere: to their stream's home shard, to the control plane
//! and back.

use super::{
    Shard,
    connection::{Connection, Pending},
    port::{Endpoints, Session},
};
use crate::{
    config::{Listen, Service},
    control::{ClientId, hooks},
    tls,
};
use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{OwnedFd, RawFd},
    sync::atomic::Ordering,
};

/// A connection on its way to another shard.
#[derive(Debug)]
pub(crate) struct Moved<E: Endpoints> {
    pub(crate) descriptor: OwnedFd,
    pub(crate) peer: SocketAddr,
    pub(crate) state: MovedState<E>,
    /// Bytes read and not yet understood.
    pub(crate) unread: Vec<u8>,
}

/// A connection's state.
#[derive(Debug)]
pub(crate) struct MovedState<E: Endpoints> {
    session: E::Session,
    /// What it wants there.
    pending: Option<Pending<E::Sink>>,
    tls: Option<Box<tls::Session>>,
    ktls_bytes: Option<u64>,
    real_peer: Option<SocketAddr>,
    forwarded: Option<IpAddr>,
    client: ClientId,
    on_close: Option<Box<hooks::Event>>,
    started_ms: u64,
    received_bytes: u64,
    sent_bytes: u64,
}

/// An HTTP connection that the control plane is to answer.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) peer: SocketAddr,
    pub(crate) tls: Option<Box<tls::Session>>,
    pub(crate) ktls_bytes: Option<u64>,
    /// Bytes read and not yet understood.
    pub(crate) unread: Vec<u8>,
}

impl<E: Endpoints> Shard<E> {
    /// Takes a connection of another shard over.
    pub(crate) fn insert_moved(&mut self, descriptor: RawFd, peer: SocketAddr, state: MovedState<E>) -> usize {
        let id = self.insert_session(descriptor, peer, state.session);
        self.with(id, |connection| {
            connection.pending = state.pending;
            (connection.real_peer, connection.forwarded) = (state.real_peer, state.forwarded);
            connection.client = state.client;
            connection.on_close = state.on_close;
            connection.started_ms = state.started_ms;
            (connection.received_bytes, connection.sent_bytes) = (state.received_bytes, state.sent_bytes);
            (connection.tls, connection.ktls_bytes) = (state.tls, state.ktls_bytes);
        });
        id
    }

    /// Takes a connection out to send it to another shard; `None` if its replies are not sent yet, since
    /// the other shard's would mix with them.
    pub(crate) fn take_for_move(&mut self, id: usize) -> Option<MovedState<E>> {
        let connection = self.take_at_rest(id)?;
        let Connection { session, pending, tls, ktls_bytes, real_peer, forwarded, client, on_close, .. } = *connection;
        let Connection { started_ms, received_bytes, sent_bytes, .. } = *connection;
        Some(MovedState {
            session,
            pending,
            tls,
            ktls_bytes,
            real_peer,
            forwarded,
            client,
            on_close,
            started_ms,
            received_bytes,
            sent_bytes,
        })
    }

    /// Takes a connection out if nothing of it is in flight.
    fn take_at_rest(&mut self, id: usize) -> Option<Box<Connection<E>>> {
        self.pump();
        let connection = self.connections.get(id)?.as_ref()?;
        if connection.is_sending() {
            return None;
        }
        self.connections.try_remove(id).flatten()
    }

    /// Takes an HTTP connection out for the control plane to answer; `None` if a send of it is in flight.
    pub(crate) fn take_to_hand_over(&mut self, id: usize) -> Option<Taken> {
        let connection = self.take_at_rest(id)?;
        let Connection { tls, ktls_bytes, session, .. } = *connection;
        let peer = connection.real_peer.unwrap_or(connection.peer);
        Some(Taken { peer, tls, ktls_bytes, unread: session.into_unread() })
    }

    /// Takes an HTTP connection back from the control plane.
    pub(crate) fn insert_handed(
        &mut self,
        descriptor: RawFd,
        peer: SocketAddr,
        tls: Option<Box<tls::Session>>,
        ktls_bytes: Option<u64>,
    ) -> usize {
        let listen = Listen { address: peer, service: Service::Http, tls: tls.is_some(), proxy_protocol: false };
        let session = E::accept(listen, &self.shared.context());
        let id = self.insert_session(descriptor, peer, session);
        self.with(id, |connection| {
            (connection.tls, connection.ktls_bytes) = (tls, ktls_bytes);
        });
        id
    }

    /// A connection was lost on its way, or is another's.
    pub(crate) fn forget_moved(&self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.stats.closed.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{insert, shard};

    /// Whose TLS is the kernel's stays so wherever it goes: its sends go in pieces, and its key is counted on.
    #[test]
    fn the_kernels_tls_moves_with_its_connection() {
        let mut shard = shard();
        let id = insert(&mut shard);
        shard.with(id, |connection| connection.ktls_bytes = Some(7));
        let state = shard.take_for_move(id).unwrap();
        let id = shard.insert_moved(-1, "127.0.0.1:9".parse().unwrap(), state);
        assert_eq!(shard.with(id, |connection| connection.ktls_bytes), Some(Some(7)));
        let id = insert(&mut shard);
        shard.with(id, |connection| connection.ktls_bytes = Some(9));
        let Taken { peer, tls, ktls_bytes, unread } = shard.take_to_hand_over(id).unwrap();
        assert_eq!((ktls_bytes, unread.len()), (Some(9), 0));
        let id = shard.insert_handed(-1, peer, tls, ktls_bytes);
        assert_eq!(shard.with(id, |connection| connection.ktls_bytes), Some(Some(9)));
    }
}
