//! The send ring: a second io_uring per shard, beside the executor's own.
//!
//! glommio 0.9 cannot send vectored on TCP, nor many sockets with one system call. Here one
//! `io_uring_enter` carries up to 256 sends. Invariants:
//! * One send in flight per TCP socket (the caller's duty), with MSG_WAITALL: a message is sent whole or the
//!   connection is over, and the kernel waits for room by itself, on a nonblocking socket too. A short result is the end.
//! * Buffers live in `ops` until their completion, whatever becomes of the socket.
//! * A socket that ends with a send in flight is given to that send ([`SendRing::bury`]): what the kernel has
//!   not taken yet names it by a number that could be another connection's next.
//! * While pumping, completions are reaped inline with the eventfd off; afterwards it is on, so that
//!   completions that come late wake the reaper.

use super::{Datagrams, Receiver};
use crate::proto::Write;
use bytes::Bytes;
use glommio::io::BufferedFile;
use io_uring::{IoUring, cqueue, opcode, squeue, types::Fd};
use slab::Slab;
use std::{
    io,
    ops::Range,
    os::fd::{FromRawFd, RawFd},
    rc::Rc,
};

const SUBMISSIONS: u32 = 512;
const COMPLETIONS: u32 = 16_384;
/// Sends handed to the kernel per system call.
const SUBMIT_AT: usize = 256;
/// Bytes of one player's own that are handed over at once: the kernel copies them while they are in the CPU's
/// cache, and the next player's take their place.
const SUBMIT_AT_OWN_BYTES: usize = 32 << 10;
/// iovecs of one sendmsg; the kernel takes 1024.
const PARTS_MAX: usize = 1000;
/// A piece of media below this is copied rather than referenced: an iovec and a refcount cost more.
const COPY_BYTES_MAX: usize = 512;

/// What is sent.
#[derive(Debug)]
pub enum SendBuf {
    /// One contiguous image, shared by many players, from a place on: what is before it has gone another way.
    Shared(Rc<Vec<u8>>, usize),
    /// One player's own list.
    Gather(Box<Gather>),
    /// One player's own bytes: encrypted ones.
    Own(Vec<u8>),
    /// To one peer of a UDP socket, which may have any number in flight.
    Datagrams(Box<Datagrams>),
}

impl SendBuf {
    /// Bytes to send.
    pub fn len(&self) -> usize {
        match self {
            Self::Shared(bytes, from) => bytes.len() - from,
            Self::Gather(gather) => gather.bytes,
            Self::Own(bytes) => bytes.len(),
            Self::Datagrams(datagrams) => datagrams.len(),
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A list of pieces: own bytes and shared ones, in order.
#[derive(Debug, Default)]
pub struct Gather {
    arena: Vec<u8>,
    held: Vec<Bytes>,
    parts: Vec<Part>,
    bytes: usize,
    iovecs: Vec<libc::iovec>,
    header: Option<Box<libc::msghdr>>,
}

#[derive(Debug)]
enum Part {
    Arena(Range<usize>),
    Held { at: usize, range: Range<usize> },
}

impl Gather {
    /// Begins with own bytes.
    pub fn new(own: Vec<u8>) -> Self {
        let bytes = own.len();
        let parts = if own.is_empty() { Vec::new() } else { vec![Part::Arena(0..bytes)] };
        Self { arena: own, parts, bytes, ..Self::default() }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// All bytes in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        self.pieces().flatten().copied().collect()
    }

    /// The pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| self.piece(part))
    }

    fn piece(&self, part: &Part) -> &[u8] {
        match part {
            Part::Arena(range) => &self.arena[range.clone()],
            Part::Held { at, range } => &self.held[*at][range.clone()],
        }
    }

    /// Fixes the pieces' addresses; nothing may be appended afterwards.
    fn seal(&mut self) -> *const libc::msghdr {
        let iovec = |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        self.iovecs = self.parts.iter().map(|part| iovec(self.piece(part))).collect();
        // SAFETY: all zeroes is a valid msghdr: no name, no pieces, no control data.
        let mut header: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        header.msg_iov = self.iovecs.as_mut_ptr();
        header.msg_iovlen = self.iovecs.len();
        &raw const **self.header.insert(header)
    }
}

impl Write for Gather {
    fn copy(&mut self, bytes: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        self.bytes += bytes.len();
        match self.parts.last_mut() {
            Some(Part::Arena(range)) if range.end == start => range.end = self.arena.len(),
            _ => self.parts.push(Part::Arena(start..self.arena.len())),
        }
    }

    /// By reference; small pieces are copied.
    fn share(&mut self, body: &Bytes, range: Range<usize>) {
        if range.len() < COPY_BYTES_MAX || self.parts.len() + 1 >= PARTS_MAX {
            return self.copy(&body[range]);
        }
        let known = self.held.last().is_some_and(|last| last.as_ptr() == body.as_ptr() && last.len() == body.len());
        if !known {
            self.held.push(body.clone());
        }
        self.bytes += range.len();
        self.parts.push(Part::Held { at: self.held.len() - 1, range });
    }
}

/// A send in the kernel.
#[derive(Debug)]
struct Op {
    token: u64,
    descriptor: RawFd,
    buf: SendBuf,
    /// What has gone, of a send that the kernel may take in pieces.
    sent: Option<usize>,
    /// The socket, whose connection is over; few sends have one, and all are copied.
    buried: Option<Box<Receiver>>,
}

/// Names a send in flight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SendKey(usize);

/// How a send ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended {
    /// As given to [`SendRing::push`].
    pub token: u64,
    /// Whether all bytes went; if not, the connection is over.
    pub whole: bool,
    /// Bytes that went.
    pub bytes: usize,
}

/// See the module.
pub struct SendRing {
    ring: IoUring,
    ops: Slab<Op>,
    /// Sends that have ended and are not reported yet.
    ended: Vec<Ended>,
    unsubmitted: usize,
    /// Bytes of [`SendBuf::Own`] among them.
    own_bytes: usize,
    syscalls: u64,
    eventfd: RawFd,
    /// Calls of submit that the kernel refuses from now on, as it does when memory is short.
    #[cfg(test)]
    refusals: usize,
}

impl std::fmt::Debug for SendRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendRing").field("in_flight", &self.ops.len()).finish_non_exhaustive()
    }
}

impl SendRing {
    /// Sets a ring up; call it on the shard's own thread, which alone may use it.
    ///
    /// # Errors
    /// The kernel lacks or forbids io_uring.
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        // Blocking: with EFD_NONBLOCK, io_uring's read would return EAGAIN instead of waiting.
        // SAFETY: a plain system call.
        let eventfd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if eventfd < 0 {
            return Err(io::Error::last_os_error());
        }
        ring.submitter().register_eventfd(eventfd)?;
        Ok(Self {
            ring,
            ops: Slab::new(),
            ended: Vec::new(),
            unsubmitted: 0,
            own_bytes: 0,
            syscalls: 0,
            eventfd,
            #[cfg(test)]
            refusals: 0,
        })
    }

    /// The file to wait on for late completions; take it once.
    pub fn notifier(&self) -> Notifier {
        // SAFETY: the eventfd is open and this is its only owner from here on.
        Notifier(unsafe { BufferedFile::from_raw_fd(self.eventfd) })
    }

    /// Sends in the kernel or on their way to it.
    pub fn in_flight(&self) -> usize {
        self.ops.len()
    }

    /// System calls so far.
    pub fn syscalls(&self) -> u64 {
        self.syscalls
    }

    /// Queues a send on `descriptor`, which must have none in flight; [`Self::pump`] tells `token`
    /// how it ended.
    pub fn push(&mut self, token: u64, descriptor: RawFd, buf: SendBuf) -> SendKey {
        let key = self.ops.insert(Op { token, descriptor, buf, sent: None, buried: None });
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let send = |bytes: &[u8]| {
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            opcode::Send::new(Fd(descriptor), bytes.as_ptr(), len).flags(flags).build()
        };
        let entry = match &mut self.ops[key].buf {
            SendBuf::Shared(bytes, from) => send(&bytes[*from..]),
            SendBuf::Own(bytes) => {
                self.own_bytes += bytes.len();
                send(bytes)
            }
            SendBuf::Gather(gather) => {
                opcode::SendMsg::new(Fd(descriptor), gather.seal()).flags(flags.cast_unsigned()).build()
            }
            SendBuf::Datagrams(datagrams) => opcode::SendMsg::new(Fd(descriptor), datagrams.seal()).build(),
        };
        self.queue(&entry.user_data(key as u64));
        if self.unsubmitted >= SUBMIT_AT {
            self.submit();
        } else if self.own_bytes >= SUBMIT_AT_OWN_BYTES {
            self.submit();
            self.reap();
        }
        SendKey(key)
    }

    /// The same on a socket whose kernel encrypts: it knows no MSG_WAITALL, and may take less than all.
    pub fn push_in_pieces(&mut self, token: u64, descriptor: RawFd, buf: SendBuf) -> SendKey {
        let buf = match buf {
            // What goes in pieces is not a list of them.
            SendBuf::Gather(gather) => SendBuf::Own(gather.to_vec()),
            whole @ (SendBuf::Shared(..) | SendBuf::Own(_) | SendBuf::Datagrams(_)) => whole,
        };
        let key = self.ops.insert(Op { token, descriptor, buf, sent: Some(0), buried: None });
        self.queue_rest(key);
        if self.unsubmitted >= SUBMIT_AT {
            self.submit();
        }
        SendKey(key)
    }

    /// Takes the socket of a connection that is over: it is closed when the send `key` on it has ended, at once if
    /// it has. Without a key every send is looked at.
    pub fn bury(&mut self, key: Option<SendKey>, receiver: Receiver) {
        let descriptor = receiver.descriptor();
        let on_it = |op: &&mut Op| op.descriptor == descriptor && op.buried.is_none();
        let op = match key {
            Some(SendKey(key)) => self.ops.get_mut(key).filter(on_it),
            None => self.ops.iter_mut().map(|(_, op)| op).find(on_it),
        };
        if let Some(op) = op {
            op.buried = Some(Box::new(receiver));
        }
    }

    fn queue_rest(&mut self, key: usize) {
        let Some(Op { buf, sent: Some(sent), descriptor, .. }) = self.ops.get(key) else { return };
        let bytes = match buf {
            SendBuf::Shared(bytes, from) => &bytes[from + *sent..],
            SendBuf::Own(bytes) => &bytes[*sent..],
            SendBuf::Gather(_) | SendBuf::Datagrams(_) => return,
        };
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fd(*descriptor), bytes.as_ptr(), len).flags(libc::MSG_NOSIGNAL).build();
        self.queue(&entry.user_data(key as u64));
    }

    fn queue(&mut self, entry: &squeue::Entry) {
        // SAFETY: `ops` keeps the buffers at their addresses until the completion is reaped.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.submit();
            // A full completion queue would make the kernel refuse more.
            self.reap();
        }
        self.unsubmitted += 1;
    }

    /// Hands everything to the kernel, and adds what has ended to `ended`.
    pub fn pump(&mut self, ended: &mut Vec<Ended>) {
        self.ring.completion().disable_eventfd();
        loop {
            if self.unsubmitted > 0 {
                self.submit();
            }
            if !self.reap() {
                break;
            }
        }
        self.ring.completion().enable_eventfd();
        // What completed between the last look and the switch rang no bell.
        if self.reap() && self.unsubmitted > 0 {
            self.submit();
        }
        ended.append(&mut self.ended);
    }

    fn submit(&mut self) {
        #[cfg(test)]
        if let Some(left) = self.refusals.checked_sub(1) {
            self.refusals = left;
            return;
        }
        match self.ring.submit() {
            Ok(submitted) => self.unsubmitted -= submitted.min(self.unsubmitted),
            // The completion queue is full or memory is short: what is queued stays queued.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EAGAIN | libc::EINTR)) => {}
            Err(error) => tracing::error!(%error, "send ring: submit failed"),
        }
        self.syscalls += 1;
        self.own_bytes = 0;
    }

    /// Takes completions in; tells whether there were any.
    fn reap(&mut self) -> bool {
        let mut any = false;
        while let Some(completion) = self.next_completion() {
            any = true;
            let Ok(key) = usize::try_from(completion.user_data()) else { continue };
            let now = usize::try_from(completion.result()).unwrap_or(0);
            if let Some(Op { buf, sent: Some(sent), .. }) = self.ops.get_mut(key) {
                *sent += now;
                if now > 0 && *sent < buf.len() {
                    self.queue_rest(key);
                    continue;
                }
            }
            let Some(Op { token, buf, sent, .. }) = self.ops.try_remove(key) else { continue };
            let bytes = sent.unwrap_or(now);
            self.ended.push(Ended { token, whole: bytes == buf.len(), bytes });
        }
        any
    }

    fn next_completion(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }
}

impl Drop for SendRing {
    /// Buffers must outlive the kernel's use of them: what is still in flight is leaked, not freed.
    fn drop(&mut self) {
        std::mem::forget(std::mem::take(&mut self.ops));
    }
}

/// Rings when completions come while nobody pumps.
#[derive(Debug)]
pub struct Notifier(BufferedFile);

impl Notifier {
    /// Waits for a ring of the bell.
    ///
    /// # Errors
    /// The executor is going down.
    pub async fn wait(&self) -> io::Result<()> {
        self.0.read_at(0, 8).await.map(drop).map_err(io::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glommio::{LocalExecutorBuilder, Placement};
    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
        os::fd::OwnedFd,
        time::Duration,
    };

    /// Both ends of a connection: ours, and a peer's.
    fn pair(listener: &TcpListener) -> (Receiver, TcpStream) {
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (ours, address) = listener.accept().unwrap();
        (Receiver::adopt(OwnedFd::from(ours), address), peer)
    }

    /// What was queued while the kernel took nothing reaches its own socket, though that connection is over and
    /// another one has come since; the socket is closed when the send has ended.
    #[test]
    fn a_refused_submit_sends_to_nobody_else() {
        let main = || async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut ring = SendRing::new().unwrap();
            let (receiver, mut first) = pair(&listener);
            ring.refusals = 3;
            let key = ring.push(1, receiver.descriptor(), SendBuf::Own(b"for the first".to_vec()));
            ring.pump(&mut Vec::new());
            assert_eq!(ring.in_flight(), 1, "still queued");
            ring.bury(Some(key), receiver);
            // A socket that were closed would give its number to this one.
            let (another, mut second) = pair(&listener);
            ring.refusals = 0;
            let mut ended = Vec::new();
            while ended.is_empty() {
                ring.pump(&mut ended);
            }
            assert_eq!(ended, [Ended { token: 1, whole: true, bytes: 13 }]);
            let mut text = Vec::new();
            glommio::executor().yield_now().await;
            first.read_to_end(&mut text).unwrap();
            assert_eq!(text, b"for the first", "and then its end");
            drop(another);
            glommio::executor().yield_now().await;
            text.clear();
            second.read_to_end(&mut text).unwrap();
            assert!(text.is_empty(), "{text:?}");
        };
        LocalExecutorBuilder::new(Placement::Unbound).spawn(main).unwrap().join().unwrap();
    }
}
