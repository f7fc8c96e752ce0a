//! The body of an answer: bytes, or a part of a file, read as it is taken.

use crate::sys::cores;
use bytes::Bytes;
use futures_lite::future::BoxedLocal;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    fmt,
    fs::File,
    io::{self, Read},
    pin::Pin,
    task::{Context, Poll, ready},
};

/// Bytes of a file that are read at once.
const PART_BYTES: u64 = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) enum Content {
    /// As it is.
    Whole(Bytes),
    /// A part of a file.
    File(Reading),
}

/// So many bytes from where a file stands. They are read by a thread that may wait for the disk, one part at a time.
pub(super) struct Reading {
    left: u64,
    file: Option<File>,
    part: Option<BoxedLocal<(File, io::Result<Vec<u8>>)>>,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Reading {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if let Some(mut file) = self.file.take() {
            let bytes = PART_BYTES.min(self.left);
            let read = move || {
                let mut part = Vec::new();
                let outcome = (&mut file).take(bytes).read_to_end(&mut part).map(|_| part);
                (file, outcome)
            };
            self.part = Some(Box::pin(cores::beside(read)));
        }
        let Some(part) = &mut self.part else { return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())) };
        let (file, outcome) = ready!(part.as_mut().poll(cx));
        (self.file, self.part) = (Some(file), None);
        let part = outcome?;
        if part.is_empty() {
            // It has become shorter, and its length was promised.
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.left -= part.len() as u64;
        Poll::Ready(Ok(part.into()))
    }
}

impl Content {
    pub(super) fn file(file: File, bytes: u64) -> Self {
        Self::File(Reading { left: bytes, file: Some(file), part: None })
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(bytes)
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let bytes = match &mut *self {
            Self::Whole(bytes) => std::mem::take(bytes),
            Self::File(reading) if reading.left == 0 => Bytes::new(),
            Self::File(reading) => ready!(reading.poll_part(cx))?,
        };
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::File(reading) => reading.left,
        })
    }
}
