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
    ktls_bytes: Option<u64>,
    real_peer: Option<SocketAddr>,
    client: ClientId,
    on_close: Option<Box<hooks::Event>>,
    started_ms: u64,
    received_bytes: u64,
    sent_bytes: u64,
}

/// An HTTP connection that the control plane is to answer.
#[derive(Debug)]
pub(in crate::serve) struct Taken {
    pub(in crate::serve) peer: SocketAddr,
    pub(in crate::serve) tls: Option<Box<tls::Session>>,
    pub(in crate::serve) ktls_bytes: Option<u64>,
    /// Bytes read and not yet understood.
    pub(in crate::serve) unread: Vec<u8>,
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
            (connection.tls, connection.ktls_bytes) = (state.tls, state.ktls_bytes);
        });
        id
    }

    /// Takes a connection out to send it to another shard; `None` if its replies are not sent yet, since
    /// the other shard's would mix with them.
    pub(in crate::serve) fn take_for_move(&mut self, id: usize) -> Option<MovedState> {
        let connection = self.take_at_rest(id)?;
        let Connection { session, tls, ktls_bytes, real_peer, client, on_close, .. } = *connection;
        let Connection { started_ms, received_bytes, sent_bytes, .. } = *connection;
        Some(MovedState {
            session,
            tls,
            ktls_bytes,
            real_peer,
            client,
            on_close,
            started_ms,
            received_bytes,
            sent_bytes,
        })
    }

    /// Takes a connection out if nothing of it is in flight.
    fn take_at_rest(&mut self, id: usize) -> Option<Box<Connection>> {
        self.pump();
        let connection = self.connections.get(id)?.as_ref()?;
        if connection.is_sending() {
            return None;
        }
        self.connections.try_remove(id).flatten()
    }

    /// Sends a connection to its stream's home.
    pub(in crate::serve) fn send_moved(&mut self, home: usize, moved: Box<Moved>) {
        self.relay.send(home, ShardMessage::Adopt(moved));
    }

    /// Takes an HTTP connection out for the control plane to answer; `None` if a send of it is in flight.
    pub(in crate::serve) fn take_to_hand_over(&mut self, id: usize) -> Option<Taken> {
        let connection = self.take_at_rest(id)?;
        let Connection { tls, ktls_bytes, session, .. } = *connection;
        let peer = connection.real_peer.unwrap_or(connection.peer);
        let unread = match session {
            Session::Http(http) => http.input,
            Session::Rtmp(_) => Vec::new(),
        };
        Some(Taken { peer, tls, ktls_bytes, unread })
    }

    /// Takes an HTTP connection back from the control plane.
    pub(in crate::serve) fn insert_handed(
        &mut self,
        descriptor: RawFd,
        peer: SocketAddr,
        tls: Option<Box<tls::Session>>,
        ktls_bytes: Option<u64>,
    ) -> usize {
        let id = self.insert_session(descriptor, peer, Session::Http(HttpSession::default()));
        self.with(id, |connection| {
            connection.handshaken = true;
            (connection.tls, connection.ktls_bytes) = (tls, ktls_bytes);
        });
        id
    }

    /// A connection was lost on its way, or is another's.
    pub(in crate::serve) fn forget_moved(&self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.stats.closed.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Config, Listen, Service},
        proto::http::websocket::Reader,
        serve::{Shared, http::State},
        shard::mesh,
    };
    use std::sync::Arc;

    fn server() -> ShardServer {
        let config = Config::parse("test", "listen 127.0.0.1:0; vhost __defaultVhost__ { }").unwrap();
        let mesh = mesh::connect(1).remove(0);
        ShardServer::new(Arc::new(Shared::new(config)), mesh, Arc::default()).unwrap()
    }

    fn insert(server: &mut ShardServer, service: Service) -> usize {
        let peer = "127.0.0.1:9".parse().unwrap();
        let listen = Listen { address: peer, service, tls: true, proxy_protocol: false };
        // No descriptor: nothing is sent.
        server.insert(-1, peer, listen, None)
    }

    /// Whose TLS is the kernel's stays so wherever it goes: its sends go in pieces, and its key is counted on.
    #[test]
    fn the_kernels_tls_moves_with_its_connection() {
        let mut server = server();
        let id = insert(&mut server, Service::Rtmp);
        server.with(id, |connection| connection.ktls_bytes = Some(7));
        let state = server.take_for_move(id).unwrap();
        let id = server.insert_moved(-1, "127.0.0.1:9".parse().unwrap(), state);
        assert_eq!(server.with(id, |connection| connection.ktls_bytes), Some(Some(7)));
        let id = insert(&mut server, Service::Http);
        server.with(id, |connection| connection.ktls_bytes = Some(9));
        let Taken { peer, tls, ktls_bytes, unread } = server.take_to_hand_over(id).unwrap();
        assert_eq!((ktls_bytes, unread.len()), (Some(9), 0));
        let id = server.insert_handed(-1, peer, tls, ktls_bytes);
        assert_eq!(server.with(id, |connection| connection.ktls_bytes), Some(Some(9)));
    }

    /// Nothing of a WebSocket is sent before its 101: no ping, however long it waits, and no pong.
    #[test]
    fn a_websocket_that_waits_says_nothing() {
        let mut server = server();
        let id = insert(&mut server, Service::Http);
        let ping = [0x89, 0x80, 1, 2, 3, 4];
        server.receive(id, &ping[..0]);
        server.with(id, |connection| {
            let Session::Http(http) = &mut connection.session else { panic!("HTTP") };
            http.websocket = Some(Reader::default());
            http.state = State::Waiting(1 << 40);
        });
        server.receive(id, &ping);
        let later_ms = server.shared().now_ms() + 26_000;
        server.with(id, |connection| {
            assert!(!ShardServer::look_over_http(connection, later_ms));
            assert_eq!(connection.session.output_len(), 0);
            let Session::Http(http) = &mut connection.session else { panic!("HTTP") };
            http.state = State::Playing;
        });
        // Once it plays, it is answered.
        let mut connection = server.connections[id].take().unwrap();
        server.receive_frames(&mut connection);
        assert_eq!(connection.session.output_len(), 2, "a pong");
        assert!(ShardServer::look_over_http(&mut connection, later_ms + 26_000));
    }
}
