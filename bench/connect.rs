//! Connections, to loopback from many addresses so that ports suffice.

use crate::scenario::Url;
use anyhow::Context;
use corecast::sys::Receiver;
use glommio::timer::Timer;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

/// Connections from one loopback address; it has about 28,000 ports, some of them in TIME_WAIT.
const PER_ADDRESS: usize = 500;
/// How long a connect may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A connect that is not done at once (the server's backlog is full, or it is far) is asked again so
/// often.
const CONNECT_POLL: Duration = Duration::from_millis(1);

/// The address of a URL.
pub(crate) fn resolve(url: &Url) -> anyhow::Result<SocketAddr> {
    let (host, port) = url.host();
    let mut addresses = (host, port).to_socket_addrs().with_context(|| format!("{host}:{port}"))?;
    addresses.next().with_context(|| format!("{host} has no address"))
}

/// Connects connection number `index` from within an executor; to loopback from 127.1.x.y.
///
/// # Cancel safety
/// Dropping it drops the socket.
pub(crate) async fn connect(index: usize, server: SocketAddr) -> io::Result<Receiver> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    if server.ip().is_loopback() && server.is_ipv4() {
        let number = u32::try_from(index / PER_ADDRESS).unwrap_or(0);
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + number);
        socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
    }
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    let started = Instant::now();
    match socket.connect(&SockAddr::from(server)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            while socket.peer_addr().is_err() {
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
                if started.elapsed() > CONNECT_LIMIT {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Timer::new(CONNECT_POLL).await;
            }
        }
        Err(error) => return Err(error),
    }
    // Sends may block for a moment; reads are the executor's.
    socket.set_nonblocking(false)?;
    Ok(Receiver::adopt(OwnedFd::from(socket), server))
}
