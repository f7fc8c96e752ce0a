//! The body of an answer: bytes, or a part of a file, read as it is taken.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    fs::File,
    io::{self, Read},
    pin::Pin,
    task::{Context, Poll},
};

/// Bytes of a file that are read at once.
const PART_BYTES: u64 = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) enum Content {
    /// As it is.
    Whole(Bytes),
    /// So many bytes from where the file stands.
    File(File, u64),
}

impl Content {
    pub(super) fn file(file: File, bytes: u64) -> Self {
        Self::File(file, bytes)
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

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let bytes = match &mut *self {
            Self::Whole(bytes) => std::mem::take(bytes),
            Self::File(_, 0) => Bytes::new(),
            Self::File(file, left) => {
                let mut part = Vec::new();
                let read = file.take(PART_BYTES.min(*left)).read_to_end(&mut part)?;
                *left -= read as u64;
                if read == 0 {
                    // It has become shorter, and its length was promised.
                    return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                }
                part.into()
            }
        };
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::File(_, left) => *left,
        })
    }
}
