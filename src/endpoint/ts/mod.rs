//! HTTP-TS and WebSocket-TS: a stream as an MPEG transport stream, with H.264 or HEVC, and AAC or MP3.
//!
//! The packets are made once per shard ([`crate::package::ts`]), at the stream's own time, so that they are the same for
//! everybody: a reader's own are the first few alone.

use crate::{
    config::{HttpRemux, Vhost},
    core::port::{Frame, ImageKey, Sink, Start},
    media::{Kind, Subscription},
    package::ts as render,
    proto::{
        Write,
        flv::TagKind,
        http::live::{Format, Response},
        ts,
    },
};

/// For a request's path that ends so.
pub(super) const FORMAT: Format = Format {
    suffix: ".ts",
    content_type: "video/MP2T",
    refusal: Some("MPEG-TS carries H.264, HEVC, AAC and MP3, and the stream has none of them"),
};

/// A response that plays.
#[derive(Debug)]
pub(crate) struct TsSink {
    response: Response,
    kind: &'static Kind,
    /// There have been packets.
    begun: bool,
}

impl TsSink {
    pub(super) fn new(response: Response, vhost: &Vhost) -> Self {
        let HttpRemux { has_audio, has_video, .. } = vhost.http_remux;
        let kind = match (has_video, has_audio) {
            (true, false) => &render::VIDEO,
            (false, true) => &render::AUDIO,
            _ => &render::BOTH,
        };
        Self { response, kind, begun: false }
    }
}

impl Sink for TsSink {
    fn wrapping(&self) -> &'static str {
        self.response.framing().name()
    }

    fn client_type(&self) -> &'static str {
        "ts-play"
    }

    fn rendition(&self) -> Option<&'static Kind> {
        Some(self.kind)
    }

    fn share(&self, _: &Subscription) -> Option<ImageKey> {
        let tracks =
            u64::from(self.kind.name == render::VIDEO.name) << 1 | u64::from(self.kind.name == render::AUDIO.name);
        Some(ImageKey::new(self.response.framing().number() << 2 | tracks, 0))
    }

    fn put_shared<W: Write>(&self, frame: Frame<'_>, _: &Subscription, out: &mut W) {
        self.response.framing().share(frame.bytes, out);
    }

    fn start<W: Write>(&mut self, start: &Start<'_>, out: &mut W) -> bool {
        if self.response.is_fresh() && !can_be_carried(start) {
            self.response.refuse(out);
            return false;
        }
        if !self.response.begin(out) {
            return false;
        }
        let mut packets = Vec::new();
        ts::put_preamble(start.note, std::mem::replace(&mut self.begun, true), &mut packets);
        self.response.framing().put(&packets, out);
        true
    }

    fn end<W: Write>(&mut self, out: &mut W) -> bool {
        self.response.end(out);
        false
    }
}

/// Whether there is a track that a transport stream can have, or may come yet.
fn can_be_carried(start: &Start<'_>) -> bool {
    let is_carried = |kind| start.first(kind).map(|entry| entry.info.codec.and_then(render::stream_type).is_some());
    [TagKind::Video, TagKind::Audio].into_iter().any(|kind| is_carried(kind).unwrap_or(true))
}
