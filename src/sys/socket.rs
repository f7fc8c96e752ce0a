//! Connected sockets, and the process's descriptor limit.

use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use socket2::Socket;
use std::{
    io,
    net::{Shutdown, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// SO_SNDBUF of every connection, in bytes; the kernel doubles it for its own use. It bounds what a
/// peer that does not read can hold in the kernel (4 MB by default), and must carry the bandwidth
/// times the round trip of real players: 10 Mbit/s at 200 ms.
pub const SEND_BUFFER_BYTES: usize = 256 << 10;

/// The receiving half of a connection, on one executor. Sending is the send ring's.
#[derive(Debug)]
pub struct Receiver {
    stream: TcpStream,
    peer: SocketAddr,
}

impl Receiver {
    /// Prepares a fresh connection: bounded send buffer, no waiting but in the send ring, no delay while commands go
    /// to and fro.
    ///
    /// # Errors
    /// A peer that is gone already.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        let peer = stream.peer_addr().map_err(io::Error::from)?;
        let receiver = Self { stream, peer };
        let socket = receiver.socket();
        // A send that waits for memory of the kernel's, and not for its peer, goes on by itself on a blocking socket alone.
        socket.set_nonblocking(false)?;
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        socket.set_tcp_nodelay(true)?;
        Ok(receiver)
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The system call's; nobody answers in time.
    pub async fn connect(address: SocketAddr, limit: Duration) -> io::Result<Self> {
        Self::new(TcpStream::connect_timeout(address, limit).await.map_err(io::Error::from)?)
    }

    /// Takes over a connection that another shard gave away, with its settings.
    pub fn adopt(descriptor: OwnedFd, peer: SocketAddr) -> Self {
        // SAFETY: the descriptor is open and owned by nobody else after `into_raw_fd`.
        let stream = unsafe { TcpStream::from_raw_fd(descriptor.into_raw_fd()) };
        Self { stream, peer }
    }

    /// Gives the connection away: a second descriptor of it, so that dropping `self` does not close
    /// it.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        // SAFETY: the descriptor is open as long as `self.stream` lives.
        unsafe { BorrowedFd::borrow_raw(self.stream.as_raw_fd()) }.try_clone_to_owned()
    }

    /// The peer's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The descriptor, for the send ring; valid as long as `self`.
    pub fn descriptor(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Ends both directions: a send in flight completes short, and reads return 0. Dropping alone
    /// would let the FIN wait for the reactor, and a send in flight run on.
    pub fn shutdown(&self) {
        // A peer that is gone already is as well as shut down.
        drop(self.socket().shutdown(Shutdown::Both));
    }

    /// Reads what is there into `buffer`.
    ///
    /// # Errors
    /// The system call's.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }

    /// Sends what there is room for, for connections that are not the send ring's.
    ///
    /// # Errors
    /// The system call's.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    /// Reads what is there already, with one system call and nothing armed for later; `None` if nothing
    /// is.
    ///
    /// # Errors
    /// The system call's.
    pub fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        // SAFETY: `buffer` is valid for writing for its whole length.
        let read =
            unsafe { libc::recv(self.descriptor(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
        match usize::try_from(read) {
            Ok(read) => Ok(Some(read)),
            Err(_) => match io::Error::last_os_error() {
                error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Waits for bytes, and drops all that are there without copying them; returns how many.
    ///
    /// # Errors
    /// The system call's.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        const AT_ONCE: usize = 4 << 20;
        let mut first = [0];
        match self.poll_read(cx, &mut first) {
            Poll::Ready(Ok(1)) => {}
            ended @ (Poll::Ready(_) | Poll::Pending) => return ended,
        }
        let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
        // SAFETY: with MSG_TRUNC, TCP writes nothing to the buffer (tcp(7)), so that null is fine.
        let dropped = unsafe { libc::recv(self.descriptor(), std::ptr::null_mut(), AT_ONCE, flags) };
        Poll::Ready(Ok(1 + usize::try_from(dropped).unwrap_or(0)))
    }

    /// Sends a few bytes, commands for example, waiting for room in the send buffer.
    ///
    /// # Errors
    /// The system call's.
    pub fn send_blocking(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.socket().send_with_flags(bytes, libc::MSG_NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn socket(&self) -> Borrowed {
        borrow(self.stream.as_raw_fd())
    }
}

/// A socket that stays open when it is dropped.
type Borrowed = std::mem::ManuallyDrop<Socket>;

fn borrow(descriptor: RawFd) -> Borrowed {
    // SAFETY: the caller's connection owns the descriptor and keeps it open; it is not closed here.
    std::mem::ManuallyDrop::new(unsafe { Socket::from_raw_fd(descriptor) })
}

/// Shuts a connection down by its descriptor.
pub(crate) fn shutdown(descriptor: RawFd) {
    drop(borrow(descriptor).shutdown(Shutdown::Both));
}

/// Sets TCP_NODELAY of a connection by its descriptor. A peer that is gone shows at the next read.
pub(crate) fn set_nodelay(descriptor: RawFd, nodelay: bool) {
    drop(borrow(descriptor).set_tcp_nodelay(nodelay));
}

/// Has what does not go through the send ring end when there is no room, rather than wait.
pub(crate) fn set_nonblocking(descriptor: RawFd) {
    drop(borrow(descriptor).set_nonblocking(true));
}

/// Keeps this process's memory off transparent huge pages: they made an empty server twice as large
/// (21 MB against 10 MB) and freed media hard to give back, for no measured speed.
pub fn disable_huge_pages() {
    // SAFETY: a plain system call; where the kernel has no such switch it fails and nothing changes.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Whether something has come from the peer of a connection that is not read yet: bytes, or its end.
pub(crate) fn has_unread(descriptor: RawFd) -> bool {
    poll_now(descriptor, libc::POLLIN) != 0
}

/// Whether the peer of a connection has ended it, though what came before may be unread.
pub(crate) fn has_ended(descriptor: RawFd) -> bool {
    poll_now(descriptor, libc::POLLRDHUP) != 0
}

fn poll_now(descriptor: RawFd, events: i16) -> i16 {
    let mut poll = libc::pollfd { fd: descriptor, events, revents: 0 };
    // SAFETY: one descriptor, valid for writing.
    unsafe { libc::poll(&raw mut poll, 1, 0) };
    poll.revents
}

/// RLIMIT_NOFILE: soft and hard.
pub fn file_limit() -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writing.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (limit.rlim_cur, limit.rlim_max)
}

/// Raises the soft descriptor limit to the hard one; returns it.
pub fn raise_file_limit() -> u64 {
    let (soft, hard) = file_limit();
    if set_file_limit(hard, hard) { hard } else { soft }
}

/// What the soft limit can be raised to: beyond the hard one for who may (CAP_SYS_RESOURCE).
pub fn file_limit_max() -> u64 {
    let (soft, hard) = file_limit();
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    let Some(most) = most.filter(|most| *most > hard) else { return hard };
    if set_file_limit(most, most) {
        set_file_limit(soft, hard);
        most
    } else {
        hard
    }
}

/// Raises the soft limit to so many at least, if it may.
pub fn raise_file_limit_to(wanted: u64) {
    let (soft, hard) = file_limit();
    if wanted > soft {
        set_file_limit(wanted, hard.max(wanted));
    }
}

fn set_file_limit(soft: u64, hard: u64) -> bool {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is valid for reading.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0 }
}
