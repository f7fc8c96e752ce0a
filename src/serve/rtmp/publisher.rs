//! A NetStream that publishes, and what the log says of it.

use crate::{
    config,
    proto::{
        codec::{self, Class, Codec, Metadata, Picture, SequenceError},
        flv::{Tag, TagKind},
    },
    serve::shard_server::CloseReason,
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
    /// As its vhost has them.
    pub(in crate::serve) settings: config::Publish,
    /// When media came last, in ms of the process's clock.
    heard_ms: Option<u64>,
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
    picture: Option<Picture>,
    /// Time in ms between two reads, if they are merged.
    mr_latency_ms: Option<u32>,
    reported: bool,
}

impl Publish {
    pub(in crate::serve) fn new(
        msid: u32,
        target: Target,
        key: String,
        started_ms: u64,
        settings: config::Publish,
    ) -> Self {
        let summary = Summary {
            key,
            started_ms,
            bytes: 0,
            tags: 0,
            audio: None,
            video: None,
            metadata: Metadata::default(),
            picture: None,
            mr_latency_ms: settings.mr_latency_ms,
            reported: false,
        };
        Self { msid, target, settings, heard_ms: None, summary: Box::new(summary) }
    }

    /// Takes note of a tag; true once, when the codecs are known.
    ///
    /// # Errors
    /// A sequence header that the vhost wants to be good is not.
    pub(in crate::serve) fn count(&mut self, tag: &Tag, now_ms: u64) -> Result<bool, SequenceError> {
        self.heard_ms = Some(now_ms);
        if tag.kind == TagKind::Video
            && self.settings.parse_sps
            && let Some(picture) = codec::read_sequence_header(&tag.body, self.settings.try_annexb_first)?
        {
            self.summary.picture = Some(picture);
        }
        Ok(self.summary.count(tag))
    }

    /// When the publisher is late with media, in ms of the process's clock, and what that is called.
    pub(in crate::serve) fn deadline(&self) -> (u64, CloseReason) {
        let config::Publish { firstpkt_timeout_ms, normal_timeout_ms, mr_latency_ms, .. } = self.settings;
        // What has come and is not read yet is not late.
        let rest_ms = mr_latency_ms.unwrap_or(0);
        match self.heard_ms {
            None => (
                self.summary.started_ms + u64::from(firstpkt_timeout_ms + rest_ms),
                CloseReason::NoMedia(firstpkt_timeout_ms),
            ),
            Some(heard_ms) => {
                (heard_ms + u64::from(normal_timeout_ms + rest_ms), CloseReason::PublisherSilent(normal_timeout_ms))
            }
        }
    }
}

impl Summary {
    /// Counts a tag; true once, when the codecs are known.
    fn count(&mut self, tag: &Tag) -> bool {
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
    /// For example `AVC 1280x720 High 3.1, AAC`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Metadata { width, height, kbps, .. } = self.metadata;
        match (&self.video, &self.picture) {
            (Some(video), Some(picture)) => write!(f, "{video} {picture}")?,
            (Some(video), None) if width > 0 => write!(f, "{video} {width}x{height}")?,
            (Some(video), None) => video.fmt(f)?,
            (None, _) => f.write_str("no video")?,
        }
        match &self.audio {
            Some(audio) => write!(f, ", {audio}"),
            None => f.write_str(", no audio"),
        }?;
        match self.mr_latency_ms {
            // What waits between two reads: ms x kbit/s / 8.
            Some(ms) if kbps > 0 => {
                write!(f, ", read every {ms} ms: up to {} KiB wait", ms.saturating_mul(kbps) / 8192)
            }
            Some(ms) => write!(f, ", read every {ms} ms"),
            None => Ok(()),
        }
    }
}
