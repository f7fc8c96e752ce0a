//! Protocols as values: bytes in, values out, and back. No sockets, clock, runtime or configuration.

pub mod address;
pub mod amf;
pub mod codec;
pub mod flv;
pub mod http;
pub mod mp4;
pub mod proxy;
pub mod rtmp;
pub mod ts;

use bytes::Bytes;
use std::ops::Range;

/// Where bytes go: one image for many players, or one player's list of pieces.
pub trait Write {
    /// Appends a copy.
    fn copy(&mut self, bytes: &[u8]);
    /// Appends a part of something that is shared.
    fn share(&mut self, body: &Bytes, range: Range<usize>);
}

impl Write for Vec<u8> {
    fn copy(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn share(&mut self, body: &Bytes, range: Range<usize>) {
        self.extend_from_slice(&body[range]);
    }
}
