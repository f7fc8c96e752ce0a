//! Listening sockets: one per shard and endpoint, with SO_REUSEPORT, so that the kernel spreads
//! connections over the shards.

use glommio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    io,
    net::SocketAddr,
    os::fd::{FromRawFd, IntoRawFd, RawFd},
    time::{Duration, Instant},
};

/// Connections that may wait to be accepted, per socket; the kernel's somaxconn caps it.
pub const BACKLOG: i32 = 4096;

/// Why an endpoint cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has it.
    #[error("{0} is in use by another process; stop that one or choose another port")]
    InUse(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {0}: {1}")]
    Io(SocketAddr, io::Error),
}

/// Bound and listening sockets for every shard.
#[derive(Debug)]
pub struct Listeners {
    /// By shard, then by endpoint.
    per_shard: Vec<Vec<Socket>>,
    addresses: Vec<SocketAddr>,
}

impl Listeners {
    /// Binds every endpoint once per shard. Port 0 takes a free one, the same for all shards. `own` are
    /// addresses that this process listens on already, perhaps on more or fewer interfaces.
    ///
    /// # Errors
    /// [`ListenError`]; nothing stays bound then.
    pub fn bind(endpoints: &[SocketAddr], shards: usize, own: &[SocketAddr]) -> Result<Self, ListenError> {
        let mut per_shard: Vec<Vec<Socket>> = (0..shards).map(|_| Vec::new()).collect();
        let mut addresses = Vec::new();
        for address in endpoints {
            let mut address = *address;
            // SO_REUSEPORT would share the port with another server of ours: ask without it first.
            if address.port() != 0 && own.iter().all(|own| own.port() != address.port()) {
                claim(address).map_err(|error| explain(address, error))?;
            }
            for sockets in &mut per_shard {
                let socket = listen(address, true).map_err(|error| explain(address, error))?;
                if let Some(bound) = socket.local_addr().ok().and_then(|bound| bound.as_socket()) {
                    address = bound;
                }
                sockets.push(socket);
            }
            addresses.push(address);
        }
        Ok(Self { per_shard, addresses })
    }

    /// The addresses, in the endpoints' order.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The sockets of each shard.
    pub fn into_shards(self) -> Vec<Vec<Socket>> {
        self.per_shard
    }
}

/// Listens for a moment as the only one. A server that has just ended may hold its sockets for some
/// more milliseconds: the kernel takes its rings down behind it.
fn claim(address: SocketAddr) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let until = Instant::now() + PATIENCE;
    loop {
        match listen(address, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            claimed => return claimed.map(drop),
        }
    }
}

fn explain(address: SocketAddr, error: io::Error) -> ListenError {
    if error.kind() == io::ErrorKind::AddrInUse { ListenError::InUse(address) } else { ListenError::Io(address, error) }
}

fn listen(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // So that `1935` and `[::]:1935` do not clash.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Accepts on one socket within a shard's executor.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    /// The listener's own, open as long as it is.
    descriptor: RawFd,
}

impl Acceptor {
    /// Takes a listening socket into the present executor.
    pub fn new(socket: Socket) -> Self {
        let descriptor = socket.into_raw_fd();
        // SAFETY: the descriptor is open and owned by nobody else after `into_raw_fd`.
        Self { listener: unsafe { TcpListener::from_raw_fd(descriptor) }, descriptor }
    }

    /// The next connection.
    ///
    /// # Errors
    /// The system call's; EMFILE and ENFILE pass when descriptors are freed.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        // An `AcceptedTcpStream` that is dropped leaks its descriptor: bind it at once.
        Ok(self.listener.shared_accept().await.map_err(io::Error::from)?.bind_to_executor())
    }

    /// Listens no more: whoever waits in [`Self::accept`] gets an error. Connections that nobody has accepted
    /// yet are reset.
    pub fn close(&self) {
        super::socket::shutdown(self.descriptor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_and_both_families_fit() {
        let any = |text: &str| text.parse::<SocketAddr>().unwrap();
        let first = Listeners::bind(&[any("127.0.0.1:0")], 2, &[]).unwrap();
        let taken = first.addresses()[0];
        assert!(matches!(Listeners::bind(&[taken], 2, &[]), Err(ListenError::InUse(address)) if address == taken));
        let port = Listeners::bind(&[any("0.0.0.0:0")], 1, &[]).unwrap().addresses()[0].port();
        let both = Listeners::bind(&[any(&format!("0.0.0.0:{port}")), any(&format!("[::]:{port}"))], 2, &[]).unwrap();
        assert_eq!(both.addresses().len(), 2);
    }
}
