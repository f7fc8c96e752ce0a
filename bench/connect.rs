//! Connections from many loopback addresses, made on a thread of their own: connect and name lookup
//! block.

use anyhow::Context;
use corecast::{net::Receiver, proto::rtmp::url::RtmpUrl};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    os::fd::OwnedFd,
    time::Duration,
};

/// Connections from one loopback address; it has about 28,000 ports, some of them in TIME_WAIT.
const PER_ADDRESS: usize = 500;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A connected socket on its way to an executor.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) index: usize,
    descriptor: OwnedFd,
    peer: SocketAddr,
}

impl Connected {
    /// Takes it into the present executor.
    pub(crate) fn receiver(self) -> Receiver {
        Receiver::adopt(self.descriptor, self.peer)
    }
}

/// The address of an RTMP URL.
pub(crate) fn resolve(url: &RtmpUrl) -> anyhow::Result<SocketAddr> {
    let name = (url.host.as_str(), url.port);
    let mut addresses = name.to_socket_addrs().with_context(|| format!("{}:{}", url.host, url.port))?;
    addresses.next().with_context(|| format!("{} has no address", url.host))
}

/// Connects connection number `index`; to loopback from 127.1.x.y, so that ports suffice.
pub(crate) fn connect(index: usize, server: SocketAddr) -> io::Result<Connected> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    if server.ip().is_loopback() && server.is_ipv4() {
        let number = u32::try_from(index / PER_ADDRESS).unwrap_or(0);
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + number);
        socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
    }
    socket.connect_timeout(&SockAddr::from(server), CONNECT_LIMIT)?;
    socket.set_tcp_nodelay(true)?;
    Ok(Connected { index, descriptor: OwnedFd::from(socket), peer: server })
}
