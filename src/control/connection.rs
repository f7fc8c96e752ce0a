//! One connection of the control plane: hyper over a socket that was a shard's, behind a gate.
//!
//! The gate reads every request's head before hyper does. What is ambiguous is refused there, and a request for
//! a live stream ends hyper's part: the connection goes back to a shard.

use crate::{
    proto::http::{Body, HEAD_BYTES_MAX, Head, HeadError},
    sys::Receiver,
    tls,
};
use hyper::rt::{Read, ReadBufCursor, Write};
use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// A request's head must be whole so long after its first byte.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// A connection may rest for so long between two requests.
const REST_TIME: Duration = Duration::from_secs(60);
/// A request must be answered, and its answer taken, in this time; each send gives as much again.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Longest body of a request; nothing here needs more.
const BODY_BYTES_MAX: u64 = 64 << 10;
const READ_BYTES: usize = 16 << 10;

/// Why the gate lets nothing more through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// The peer has gone, or hyper has done with it.
    Closed,
    /// A request for a live stream stands in front.
    Live,
    /// A request that cannot be read further.
    Refused(HeadError),
    /// A body without its length, or too long.
    Body,
}

/// What gate, service and watch share.
#[derive(Debug)]
pub(super) struct Shared {
    /// A request is being answered.
    answering: Cell<bool>,
    deadline: Cell<Instant>,
    reader: RefCell<Option<Waker>>,
    end: Cell<End>,
    /// Whom the present request is from, in a proxy's words.
    forwarded_for: RefCell<String>,
}

impl Shared {
    /// The answer is on its way as a whole: the next request may come.
    pub(super) fn answered(&self) {
        self.answering.set(false);
        self.deadline.set(Instant::now() + REST_TIME);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Whom the present request is from, in the words of whoever stands before the server; mostly empty.
    pub(super) fn forwarded_for(&self) -> String {
        self.forwarded_for.borrow().clone()
    }

    /// When the connection is late with something.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline.get()
    }

    /// Why the gate was shut.
    pub(super) fn end(&self) -> End {
        self.end.get()
    }
}

/// The socket as hyper sees it.
pub(super) struct Gate<L> {
    pub(super) receiver: Receiver,
    pub(super) tls: Option<Box<tls::Session>>,
    /// Bytes read, out of their wrapping, and not passed on yet.
    pub(super) unread: Vec<u8>,
    /// Bytes of the present request that may pass.
    passing: usize,
    /// Bytes to send, in their wrapping.
    unsent: Vec<u8>,
    shared: Rc<Shared>,
    is_live: L,
    scratch: Box<[u8]>,
}

impl<L: Fn(&Head) -> bool> Gate<L> {
    pub(super) fn new(receiver: Receiver, tls: Option<Box<tls::Session>>, unread: Vec<u8>, is_live: L) -> Self {
        let shared = Rc::new(Shared {
            answering: Cell::new(false),
            deadline: Cell::new(Instant::now() + HEAD_TIME),
            reader: RefCell::new(None),
            end: Cell::new(End::Closed),
            forwarded_for: RefCell::default(),
        });
        let scratch = vec![0; READ_BYTES].into();
        Self { receiver, tls, unread, passing: 0, unsent: Vec::new(), shared, is_live, scratch }
    }

    pub(super) fn shared(&self) -> Rc<Shared> {
        Rc::clone(&self.shared)
    }

    /// Looks at the head in front; tells whether hyper may see it.
    fn look(&mut self) -> Result<bool, End> {
        let head = match Head::read(&self.unread) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(false),
            Err(error) => return Err(End::Refused(error)),
        };
        if (self.is_live)(&head) {
            return Err(End::Live);
        }
        match head.body {
            Body::Length(bytes) if bytes <= BODY_BYTES_MAX => {
                self.shared.forwarded_for.replace(head.forwarded_for);
                self.passing = head.bytes + usize::try_from(bytes).unwrap_or(0);
                self.shared.answering.set(true);
                self.shared.deadline.set(Instant::now() + ANSWER_TIME);
                Ok(true)
            }
            Body::Length(_) | Body::Chunked => Err(End::Body),
        }
    }

    fn poll_socket(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = std::task::ready!(self.receiver.poll_read(cx, &mut self.scratch))?;
        if read == 0 {
            return Poll::Ready(Ok(0));
        }
        let bytes = &self.scratch[..read];
        if self.unread.is_empty() && self.passing == 0 {
            self.shared.deadline.set(Instant::now() + HEAD_TIME);
        }
        match &mut self.tls {
            None => self.unread.extend_from_slice(bytes),
            Some(tls) => {
                self.unread.extend(tls.receive(bytes).map_err(io::Error::other)?);
                self.unsent.extend(tls.take_output());
            }
        }
        Poll::Ready(Ok(read))
    }

    /// Sends what waits.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = std::task::ready!(self.receiver.poll_write(cx, &self.unsent))?;
            self.unsent.drain(..sent);
            self.shared.deadline.set(Instant::now() + ANSWER_TIME);
        }
        Poll::Ready(Ok(()))
    }
}

impl<L: Fn(&Head) -> bool + Unpin> Read for Gate<L> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        loop {
            if gate.passing > 0 && !gate.unread.is_empty() {
                let now = gate.passing.min(gate.unread.len()).min(cursor.remaining());
                cursor.put_slice(&gate.unread[..now]);
                gate.unread.drain(..now);
                gate.passing -= now;
                return Poll::Ready(Ok(()));
            }
            // The next request waits until this one is answered; how much of it may wait is bounded.
            let answering = gate.shared.answering.get() && gate.passing == 0;
            if answering && gate.unread.len() > HEAD_BYTES_MAX {
                *gate.shared.reader.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            if gate.passing == 0 && !answering && !gate.unread.is_empty() {
                match gate.look() {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(end) => {
                        gate.shared.end.set(end);
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            if answering {
                *gate.shared.reader.borrow_mut() = Some(cx.waker().clone());
            }
            match gate.poll_socket(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {
                    // What TLS has to say goes with the next answer, or now.
                    if let Poll::Ready(Err(error)) = gate.poll_send(cx) {
                        return Poll::Ready(Err(error));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<L: Fn(&Head) -> bool + Unpin> Write for Gate<L> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let gate = self.get_mut();
        // What was taken before must have gone: it bounds what waits.
        std::task::ready!(gate.poll_send(cx))?;
        match &mut gate.tls {
            None => gate.unsent.extend_from_slice(bytes),
            Some(tls) => gate.unsent.extend(tls.wrap(&[IoSlice::new(bytes)])),
        }
        match gate.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }
}
