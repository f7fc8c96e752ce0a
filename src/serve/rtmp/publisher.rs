//! A NetStream that publishes, and what the log says of it.

use crate::{
    proto::{
        codec::{self, Class, Codec, Metadata},
        flv::{Tag, TagKind},
    },
    shard::relay::StreamId,
};
use std::fmt;

/// The codecs are reported at the first keyframe, or after so many tags.
const REPORT_AFTER_TAGS: u64 = 100;

/// Where a publish's tags go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::serve) enum Target {
    /// This shard is the stream's home.
    Home(StreamId),
    /// The home is elsewhere: the connection has other NetStreams and stays where it is.
    Remote {
        /// The home shard.
        shard: usize,
        /// The stream there; `None` until it has agreed.
        stream: Option<StreamId>,
    },
}

/// One publishing NetStream.
#[derive(Debug)]
pub(in crate::serve) struct Publish {
    pub(in crate::serve) msid: u32,
    pub(in crate::serve) target: Target,
    pub(in crate::serve) summary: Box<Summary>,
}

/// What was published so far.
#[derive(Clone, Debug)]
pub(in crate::serve) struct Summary {
    pub(in crate::serve) key: String,
    pub(in crate::serve) started_ms: u64,
    pub(in crate::serve) bytes: u64,
    pub(in crate::serve) tags: u64,
    audio: Option<Codec>,
    video: Option<Codec>,
    metadata: Metadata,
    reported: bool,
}

impl Publish {
    pub(in crate::serve) fn new(msid: u32, target: Target, key: String, started_ms: u64) -> Self {
        let summary = Summary {
            key,
            started_ms,
            bytes: 0,
            tags: 0,
            audio: None,
            video: None,
            metadata: Metadata::default(),
            reported: false,
        };
        Self { msid, target, summary: Box::new(summary) }
    }
}

impl Summary {
    /// Counts a tag; true once, when the codecs are known.
    pub(in crate::serve) fn count(&mut self, tag: &Tag) -> bool {
        self.tags += 1;
        self.bytes += tag.body.len() as u64;
        if self.reported {
            return false;
        }
        let info = codec::inspect(tag.kind, &tag.body);
        match tag.kind {
            TagKind::Audio => self.audio = self.audio.or(info.codec),
            TagKind::Video => self.video = self.video.or(info.codec),
            TagKind::Script if info.class == Class::Metadata => self.metadata = codec::read_metadata(&tag.body),
            TagKind::Script => {}
        }
        self.reported = info.class == Class::Keyframe || self.tags >= REPORT_AFTER_TAGS;
        self.reported
    }

    /// Counts the end; true if the codecs were never reported.
    pub(in crate::serve) fn finish(&mut self) -> bool {
        !std::mem::replace(&mut self.reported, true)
    }
}

impl fmt::Display for Summary {
    /// For example `AVC 1280x720, AAC`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Metadata { width, height, .. } = self.metadata;
        match &self.video {
            Some(video) if width > 0 => write!(f, "{video} {width}x{height}")?,
            Some(video) => video.fmt(f)?,
            None => f.write_str("no video")?,
        }
        match &self.audio {
            Some(audio) => write!(f, ", {audio}"),
            None => f.write_str(", no audio"),
        }
    }
}
