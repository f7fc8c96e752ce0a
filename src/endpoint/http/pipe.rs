//! A socket that is none: what HTTP/2's library reads has been put there, and what it writes is fetched.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context as Poller, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that wait to be sent.
const OUTPUT_BYTES_MAX: usize = 128 << 10;

/// What lies between the library and the shard.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
}

/// The library's end of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Pipe(Arc<Mutex<Buffers>>);

impl Pipe {
    pub(super) fn lock(&self) -> MutexGuard<'_, Buffers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _: &mut Poller<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut buffers = self.lock();
        let count = buffers.input.len().min(out.remaining());
        if count == 0 {
            return Poll::Pending;
        }
        out.put_slice(&buffers.input[..count]);
        buffers.input.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Poller<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut buffers = self.lock();
        let count = bytes.len().min(OUTPUT_BYTES_MAX.saturating_sub(buffers.output.len()));
        if count == 0 && !bytes.is_empty() {
            return Poll::Pending;
        }
        buffers.output.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
