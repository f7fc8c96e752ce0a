//! A stream's sound alone by HTTP: AAC with ADTS headers, or MP3.

use crate::{
    config::Vhost,
    core::port::{Frame, ImageKey, Sink, Start},
    media::{Entry, Headers, Kind, Render, Subscription},
    proto::{
        Write,
        codec::{Class, Codec, adts::Adts},
        flv::TagKind,
        http::live::{Format, Response},
    },
};
use bytes::Bytes;

/// For a request's path that ends so.
pub(super) const AAC: Format = Format {
    suffix: ".aac",
    content_type: "audio/x-aac",
    refusal: Some("the stream's sound is not AAC, or none that ADTS can carry"),
};
/// For a request's path that ends so.
pub(super) const MP3: Format =
    Format { suffix: ".mp3", content_type: "audio/mpeg", refusal: Some("the stream's sound is not MP3") };

static AAC_FRAMES: Kind = Kind { name: "aac", render: || Box::new(AacRender::default()) };
static MP3_FRAMES: Kind = Kind { name: "mp3", render: || Box::new(Mp3Render) };

/// A response that plays.
#[derive(Debug)]
pub(crate) struct AudioSink {
    response: Response,
    kind: &'static Kind,
    codec: [u8; 4],
    burst_ms: u64,
}

impl AudioSink {
    pub(super) fn new(response: Response, format: &Format, vhost: &Vhost) -> Self {
        let (kind, codec) = if format.suffix == MP3.suffix { (&MP3_FRAMES, *b".mp3") } else { (&AAC_FRAMES, *b"mp4a") };
        Self { response, kind, codec, burst_ms: vhost.http_remux.fast_cache_ms.into() }
    }

    /// Whether the stream's sound is of another codec.
    fn is_refused(&self, start: &Start<'_>) -> bool {
        let Some(first) = start.first(TagKind::Audio) else { return false };
        let fourcc = first.info.codec.and_then(Codec::fourcc);
        let header = first.info.class == Class::SETUP;
        let carried = self.codec != *b"mp4a" || !header || Adts::read(first.info.payload(&first.tag.body)).is_some();
        fourcc != Some(self.codec) || !carried
    }
}

impl Sink for AudioSink {
    fn wrapping(&self) -> &'static str {
        self.response.framing().name()
    }

    fn client_type(&self) -> &'static str {
        if self.codec == *b"mp4a" { "aac-play" } else { "mp3-play" }
    }

    fn rendition(&self) -> Option<&'static Kind> {
        Some(self.kind)
    }

    fn burst_ms(&self) -> u64 {
        self.burst_ms
    }

    fn share(&self, _: &Subscription) -> Option<ImageKey> {
        Some(ImageKey::new(self.response.framing().number() << 1 | u64::from(self.codec == *b"mp4a"), 0))
    }

    fn put_shared<W: Write>(&self, frame: Frame<'_>, _: &Subscription, out: &mut W) {
        self.response.framing().share(frame.bytes, out);
    }

    fn start<W: Write>(&mut self, start: &Start<'_>, out: &mut W) -> bool {
        if self.response.is_fresh() && self.is_refused(start) {
            self.response.refuse(out);
            return false;
        }
        self.response.begin(out)
    }

    fn end<W: Write>(&mut self, out: &mut W) -> bool {
        self.response.end(out);
        false
    }
}

#[derive(Debug, Default)]
struct AacRender {
    adts: Option<Adts>,
}

impl AacRender {
    fn set_up(&mut self, entry: &Entry) {
        if entry.tag.kind == TagKind::Audio && entry.info.class == Class::SETUP {
            let aac = entry.info.codec.and_then(Codec::fourcc) == Some(*b"mp4a");
            self.adts = if aac { Adts::read(entry.info.payload(&entry.tag.body)) } else { None };
        }
    }
}

impl Render for AacRender {
    fn begin(&mut self, headers: &Headers) {
        self.adts = None;
        headers.iter().for_each(|entry| self.set_up(entry));
    }

    fn render(&mut self, entry: &Entry) -> Bytes {
        self.set_up(entry);
        if entry.info.class != Class::Audio || entry.info.track != 0 {
            return Bytes::new();
        }
        let data = entry.info.payload(&entry.tag.body);
        let header = self.adts.and_then(|adts| adts.header(data.len()));
        header.map_or_else(Bytes::new, |header| [&header[..], data].concat().into())
    }

    fn note(&self) -> u64 {
        0
    }
}

#[derive(Debug)]
struct Mp3Render;

impl Render for Mp3Render {
    fn begin(&mut self, _: &Headers) {}

    fn render(&mut self, entry: &Entry) -> Bytes {
        let mp3 = entry.info.codec.and_then(Codec::fourcc) == Some(*b".mp3");
        if entry.info.class != Class::Audio || entry.info.track != 0 || !mp3 {
            return Bytes::new();
        }
        entry.tag.body.slice_ref(entry.info.payload(&entry.tag.body))
    }

    fn note(&self) -> u64 {
        0
    }
}
