//! A response that goes on as long as a stream does: what stands around its pieces.

use super::websocket;
use crate::proto::Write;
use bytes::Bytes;

/// What stands around a piece.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// HTTP/1.0: the connection's end is the response's.
    Plain,
    /// HTTP/1.1: a piece is a chunk (RFC 9112 §7.1), so that the end can be told from a fault.
    Chunked,
    /// A piece is a binary message (RFC 6455 §5.6).
    WebSocket,
}

/// Up to ten bytes of a frame's beginning, and room for what else stands before a body.
pub type Front = smallvec::SmallVec<[u8; 32]>;

impl Framing {
    /// For the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "Plain",
            Self::Chunked => "Chunked",
            Self::WebSocket => "WebSocket",
        }
    }

    /// Tells framings apart.
    pub fn number(self) -> u64 {
        match self {
            Self::Plain => 0,
            Self::Chunked => 1,
            Self::WebSocket => 2,
        }
    }

    /// What stands before and behind `length` bytes; there must be some.
    pub fn around(self, length: usize) -> (Front, &'static [u8]) {
        let mut front = Front::new();
        match self {
            Self::Plain => (front, b""),
            Self::Chunked => {
                let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
                let digit = |at: u32| b"0123456789ABCDEF"[(length >> (4 * at)) & 0xF];
                front.extend((0..digits).rev().map(digit));
                front.extend_from_slice(b"\r\n");
                (front, b"\r\n")
            }
            Self::WebSocket => {
                front.extend_from_slice(websocket::binary_header(length).as_ref());
                (front, b"")
            }
        }
    }

    /// Writes a piece that others have too, unless it is empty.
    pub fn share(self, piece: &Bytes, out: &mut impl Write) {
        if !piece.is_empty() {
            let (front, behind) = self.around(piece.len());
            if !front.is_empty() {
                out.copy(&front);
            }
            out.share(piece, 0..piece.len());
            if !behind.is_empty() {
                out.copy(behind);
            }
        }
    }

    /// Writes a piece of its own, unless it is empty.
    pub fn put(self, piece: &[u8], out: &mut impl Write) {
        if !piece.is_empty() {
            let (front, behind) = self.around(piece.len());
            out.copy(&front);
            out.copy(piece);
            out.copy(behind);
        }
    }
}

/// What a stream can be had as.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The end of the path.
    pub suffix: &'static str,
    /// RFC 9110 §8.3.
    pub content_type: &'static str,
    /// What is answered where a stream cannot be had so; `None` if every one can.
    pub refusal: Option<&'static str>,
}

/// One response.
#[derive(Debug)]
pub struct Response {
    framing: Framing,
    /// Its head, until it is sent.
    opening: Vec<u8>,
    /// What is sent instead, if the stream cannot be had so.
    refusal: Vec<u8>,
    /// The answer to HEAD ends here.
    head_only: bool,
}

impl Response {
    /// With its head as it will be sent, and the whole answer that may be sent instead.
    pub fn new(framing: Framing, opening: Vec<u8>, refusal: Vec<u8>, head_only: bool) -> Self {
        Self { framing, opening, refusal, head_only }
    }

    /// How its pieces are framed.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether its head is still to come.
    pub fn is_fresh(&self) -> bool {
        !self.opening.is_empty()
    }

    /// Writes the head, if it is still to come; tells whether media follows.
    pub fn begin(&mut self, out: &mut impl Write) -> bool {
        if self.opening.is_empty() {
            return true;
        }
        out.copy(&std::mem::take(&mut self.opening));
        self.refusal = Vec::new();
        !self.head_only
    }

    /// Says that the stream cannot be had so, instead of all else.
    pub fn refuse(&mut self, out: &mut impl Write) {
        self.opening.clear();
        out.copy(&std::mem::take(&mut self.refusal));
    }

    /// Writes what says that it is over.
    pub fn end(&self, out: &mut impl Write) {
        match self.framing {
            Framing::Plain => {}
            Framing::Chunked => out.copy(b"0\r\n\r\n"),
            Framing::WebSocket => out.copy(&websocket::close(1000)),
        }
    }
}
