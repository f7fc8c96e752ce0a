//! A stream's entries as FLV in an HTTP response or a WebSocket (FLV 10.1 §E.2 to §E.4.1).

use crate::{
    config::HttpRemux,
    net::Gather,
    proto::{codec, flv::TagKind, http::websocket},
    serve::wire::Sink,
    stream::{Entry, Headers, Replica, Subscription},
};
use std::sync::Arc;

const TAG_HEADER_BYTES: usize = 11;
const BACK_POINTER_BYTES: usize = 4;

/// What stands around the bytes of FLV.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::serve) enum Framing {
    /// HTTP/1.0: the connection's end is the response's.
    Plain,
    /// HTTP/1.1: a tag is a chunk (RFC 9112 §7.1), so that the end can be told from a fault.
    Chunked,
    /// A tag is a binary message (RFC 6455 §5.6).
    WebSocket,
}

/// FLV's part of a player.
#[derive(Debug)]
pub(in crate::serve) struct FlvWire {
    pub(in crate::serve) framing: Framing,
    /// Kinds that are not left out.
    pub(in crate::serve) wanted: [bool; 3],
    /// The response's head, until it is sent.
    opening: Vec<u8>,
    vhost: Arc<crate::config::Vhost>,
    /// The answer to HEAD ends here.
    head_only: bool,
}

impl FlvWire {
    /// `opening` is the response's head.
    pub(in crate::serve) fn new(
        framing: Framing,
        opening: Vec<u8>,
        vhost: Arc<crate::config::Vhost>,
        head_only: bool,
    ) -> Self {
        let HttpRemux { has_audio, has_video, drop_if_not_match, .. } = vhost.http_remux;
        let wanted = [has_audio || !drop_if_not_match, has_video || !drop_if_not_match, true];
        Self { framing, wanted, opening, vhost, head_only }
    }

    /// Media begins: writes the response's head and FLV's header if they are still to come. Tells whether the
    /// answer is whole with that.
    pub(in crate::serve) fn begin(
        &mut self,
        replica: &Replica,
        headers: &Headers,
        subscription: &Subscription,
        out: &mut Gather,
    ) -> bool {
        if self.opening.is_empty() {
            return false;
        }
        out.copy(&std::mem::take(&mut self.opening));
        if self.head_only {
            return true;
        }
        let HttpRemux { has_audio, has_video, guess_has_av, .. } = self.vhost.http_remux;
        let has = |kind: TagKind| !guess_has_av || stream_has(kind, replica, headers, subscription.next());
        let flags = u8::from(has_audio && has(TagKind::Audio)) << 2 | u8::from(has_video && has(TagKind::Video));
        let header = [b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0];
        let (prefix, suffix) = frame(self.framing, header.len());
        out.copy(prefix.as_slice());
        out.copy(&header);
        out.copy(suffix);
        false
    }

    /// Writes a tag, unless its kind is left out.
    pub(in crate::serve) fn put(&self, entry: &Entry, timestamp: u32, out: &mut Gather) {
        if self.wanted[entry.tag.kind.index()] {
            put_tag(out, entry, timestamp, self.framing);
        }
    }

    /// Writes the end of the response.
    pub(in crate::serve) fn end(&self, out: &mut Gather) {
        match self.framing {
            Framing::Plain => {}
            Framing::Chunked => out.copy(b"0\r\n\r\n"),
            Framing::WebSocket => out.copy(&websocket::close(1000)),
        }
    }
}

/// Whether a stream has tags of a kind: a setup, what the metadata announces, or those that come first.
fn stream_has(kind: TagKind, replica: &Replica, headers: &Headers, next: u64) -> bool {
    let log = replica.log();
    let announced = headers.metadata().map(|entry| codec::read_metadata(&entry.tag.body)).unwrap_or_default();
    headers.has(kind)
        || (kind == TagKind::Video && announced.has_video)
        || (kind == TagKind::Audio && announced.has_audio)
        || log.range(next..log.head()).any(|entry| entry.tag.kind == kind)
}

/// Writes a tag with its header, back pointer and frame.
pub(in crate::serve) fn put_tag(sink: &mut impl Sink, entry: &Entry, timestamp: u32, framing: Framing) {
    let body = &entry.tag.body;
    let [_, l0, l1, l2] = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let [t3, t0, t1, t2] = timestamp.to_be_bytes();
    let header = [entry.tag.kind.type_id(), l0, l1, l2, t0, t1, t2, t3, 0, 0, 0];
    let size = TAG_HEADER_BYTES + body.len();
    let (mut front, behind) = frame(framing, size + BACK_POINTER_BYTES);
    front.extend_from_slice(&header);
    sink.copy(&front);
    sink.share(body, 0..body.len());
    // Beside each other, so that they stay one piece.
    sink.copy(&u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
    if !behind.is_empty() {
        sink.copy(behind);
    }
}

/// Up to ten bytes of a frame's beginning, and room for a tag's header.
type Front = smallvec::SmallVec<[u8; 32]>;

/// What stands before and behind `length` bytes.
fn frame(framing: Framing, length: usize) -> (Front, &'static [u8]) {
    let mut front = Front::new();
    match framing {
        Framing::Plain => (front, b""),
        Framing::Chunked => {
            let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
            let digit = |at: u32| b"0123456789ABCDEF"[(length >> (4 * at)) & 0xF];
            front.extend((0..digits).rev().map(digit));
            front.extend_from_slice(b"\r\n");
            (front, b"\r\n")
        }
        Framing::WebSocket => {
            front.extend_from_slice(websocket::binary_header(length).as_ref());
            (front, b"")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::flv::{Tag, file};
    use bytes::Bytes;

    fn entry(kind: TagKind, len: usize) -> Entry {
        let body = Bytes::from(vec![7; len]);
        let info = codec::inspect(kind, &body);
        Entry { tag: Tag { kind, timestamp: 0, body }, info, time_ms: 0, delta_ms: 0, arrived_ms: 0 }
    }

    /// What is written reads back as FLV, times over 24 bits and back pointers too.
    #[test]
    fn tags_are_flv() {
        let mut out = Vec::new();
        put_tag(&mut out, &entry(TagKind::Video, 70_000), 0x0123_4567, Framing::Plain);
        put_tag(&mut out, &entry(TagKind::Audio, 0), 1, Framing::Plain);
        assert_eq!(out[TAG_HEADER_BYTES + 70_000..][..4], 70_011_u32.to_be_bytes());
        assert_eq!(out[out.len() - 4..], 11_u32.to_be_bytes());
        let tags = file::read_file(Bytes::from([b"FLV\x01\x05\0\0\0\x09\0\0\0\0", &out[..]].concat())).unwrap();
        let seen: Vec<_> = tags.iter().map(|tag| (tag.kind, tag.timestamp, tag.body.len())).collect();
        assert_eq!(seen, [(TagKind::Video, 0x0123_4567, 70_000), (TagKind::Audio, 1, 0)]);
    }

    #[test]
    fn frames_stand_around_tags() {
        let mut chunked = Vec::new();
        put_tag(&mut chunked, &entry(TagKind::Audio, 2), 0, Framing::Chunked);
        assert_eq!(&chunked[..4], b"11\r\n");
        assert_eq!((chunked.len(), &chunked[chunked.len() - 2..]), (4 + 17 + 2, &b"\r\n"[..]));
        let mut messages = Vec::new();
        put_tag(&mut messages, &entry(TagKind::Audio, 2), 0, Framing::WebSocket);
        assert_eq!((&messages[..2], messages.len()), (&[0x82, 17][..], 2 + 17));
        let mut gather = Gather::default();
        for len in [0, 600, 70_000] {
            put_tag(&mut chunked, &entry(TagKind::Video, len), 9, Framing::Chunked);
            put_tag(&mut gather, &entry(TagKind::Video, len), 9, Framing::Chunked);
        }
        assert_eq!(gather.to_vec(), chunked[23..], "a list of pieces has the same bytes");
    }
}
