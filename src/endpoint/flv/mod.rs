//! HTTP-FLV and WebSocket-FLV: a stream's entries as FLV (FLV 10.1 §E.2 to §E.4.1).

use crate::{
    config::{HttpRemux, Vhost},
    core::port::{Frame, ImageKey, Sink, Start},
    media::{Entry, Subscription},
    proto::{
        Write, codec,
        flv::TagKind,
        http::live::{Format, Framing, Response},
    },
};
use std::sync::Arc;

/// For a request's path that ends so.
pub(super) const FORMAT: Format = Format { suffix: ".flv", content_type: "video/x-flv", refusal: None };

const TAG_HEADER_BYTES: usize = 11;
const BACK_POINTER_BYTES: usize = 4;

/// A response that plays.
#[derive(Debug)]
pub(crate) struct FlvSink {
    response: Response,
    /// Kinds that are not left out.
    wanted: [bool; 3],
    vhost: Arc<Vhost>,
}

impl FlvSink {
    pub(super) fn new(response: Response, vhost: Arc<Vhost>) -> Self {
        let HttpRemux { has_audio, has_video, drop_if_not_match, .. } = vhost.http_remux;
        let wanted = [has_audio || !drop_if_not_match, has_video || !drop_if_not_match, true];
        Self { response, wanted, vhost }
    }

    fn put_header(&self, start: &Start<'_>, out: &mut impl Write) {
        let HttpRemux { has_audio, has_video, guess_has_av, .. } = self.vhost.http_remux;
        let has = |kind: TagKind| !guess_has_av || stream_has(kind, start);
        let flags = u8::from(has_audio && has(TagKind::Audio)) << 2 | u8::from(has_video && has(TagKind::Video));
        self.response.framing().put(&[b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0], out);
    }

    fn put_tag(&self, entry: &Entry, timestamp: u32, out: &mut impl Write) {
        if self.wanted[entry.tag.kind.index()] {
            put_tag(out, entry, timestamp, self.response.framing());
        }
    }
}

impl Sink for FlvSink {
    fn wrapping(&self) -> &'static str {
        self.response.framing().name()
    }

    fn client_type(&self) -> &'static str {
        "flv-play"
    }

    fn takes_flv(&self) -> bool {
        true
    }

    /// FLV's times are a player's own: the same for those who began at the same place.
    fn share(&self, subscription: &Subscription) -> Option<ImageKey> {
        let wanted = self.wanted.iter().fold(0, |bits, wanted| bits << 1 | u64::from(*wanted));
        Some(ImageKey::new(self.response.framing().number() << 3 | wanted, subscription.base_ms()))
    }

    fn put_shared<W: Write>(&self, frame: Frame<'_>, subscription: &Subscription, out: &mut W) {
        self.put_tag(frame.entry, subscription.time_of(frame.entry.time_ms), out);
    }

    fn start<W: Write>(&mut self, start: &Start<'_>, out: &mut W) -> bool {
        if self.response.is_fresh() {
            if !self.response.begin(out) {
                return false;
            }
            self.put_header(start, out);
        }
        let timestamp = start.subscription.resume_time();
        start.headers.iter().for_each(|entry| self.put_tag(entry, timestamp, out));
        true
    }

    fn end<W: Write>(&mut self, out: &mut W) -> bool {
        self.response.end(out);
        false
    }
}

/// Whether a stream has tags of a kind: a setup, what the metadata announces, or those that come first.
fn stream_has(kind: TagKind, start: &Start<'_>) -> bool {
    let Start { headers, replica, subscription, .. } = start;
    let log = replica.log();
    let announced = headers.metadata().map(|entry| codec::read_metadata(&entry.tag.body)).unwrap_or_default();
    headers.has(kind)
        || (kind == TagKind::Video && announced.has_video)
        || (kind == TagKind::Audio && announced.has_audio)
        || log.range(subscription.next()..log.head()).any(|entry| entry.tag.kind == kind)
}

/// Writes a tag with its header, back pointer and frame.
fn put_tag(out: &mut impl Write, entry: &Entry, timestamp: u32, framing: Framing) {
    let body = &entry.tag.body;
    let [_, l0, l1, l2] = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let [t3, t0, t1, t2] = timestamp.to_be_bytes();
    let header = [entry.tag.kind.type_id(), l0, l1, l2, t0, t1, t2, t3, 0, 0, 0];
    let size = TAG_HEADER_BYTES + body.len();
    let (mut front, behind) = framing.around(size + BACK_POINTER_BYTES);
    front.extend_from_slice(&header);
    out.copy(&front);
    out.share(body, 0..body.len());
    // Beside each other, so that they stay one piece.
    out.copy(&u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
    if !behind.is_empty() {
        out.copy(behind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        proto::flv::{Tag, file},
        sys::Gather,
    };
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
