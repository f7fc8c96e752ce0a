//! A socket as hyper's client sees it, in TLS if need be.

use crate::{sys::Receiver, tls};
use hyper::rt::{Read, ReadBufCursor, Write};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

const READ_BYTES: usize = 16 << 10;

pub(super) struct Wire {
    receiver: Receiver,
    tls: Option<Box<tls::Session>>,
    /// Bytes read, out of their wrapping, and not passed on yet.
    unread: Vec<u8>,
    /// Bytes to send, in their wrapping.
    unsent: Vec<u8>,
}

impl Wire {
    pub(super) fn new(receiver: Receiver, tls: Option<tls::Session>) -> Self {
        Self { receiver, tls: tls.map(Box::new), unread: Vec::new(), unsent: Vec::new() }
    }

    /// Sends what waits.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(self.receiver.poll_write(cx, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads, and takes what has come out of its wrapping; 0 is the end.
    fn poll_socket(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut scratch = [0; READ_BYTES];
        let read = ready!(self.receiver.poll_read(cx, &mut scratch))?;
        let bytes = &scratch[..read];
        match &mut self.tls {
            None => self.unread.extend_from_slice(bytes),
            Some(tls) => {
                let plain = tls.receive(bytes);
                self.unsent.extend(tls.take_output());
                // An alert goes with what follows, or now.
                if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                    return Poll::Ready(Err(error));
                }
                self.unread.extend(plain.map_err(io::Error::other)?);
            }
        }
        Poll::Ready(Ok(read))
    }
}

impl Read for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut cursor: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        while wire.unread.is_empty() {
            if ready!(wire.poll_socket(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let now = wire.unread.len().min(cursor.remaining());
        cursor.put_slice(&wire.unread[..now]);
        wire.unread.drain(..now);
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        // What was taken before must have gone: it bounds what waits.
        ready!(wire.poll_send(cx))?;
        match &mut wire.tls {
            None => wire.unsent.extend_from_slice(bytes),
            Some(tls) => wire.unsent.extend(tls.wrap(&[IoSlice::new(bytes)])),
        }
        match wire.poll_send(cx) {
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
