//! A publish, and what the log says of it.

use super::{
    audience::AtEnd,
    port::{CloseReason, Id},
    splice::Splice,
};
use crate::{
    config,
    control::{AudioReport, VideoReport},
    mesh::relay::StreamId,
    programs,
    proto::{
        codec::{self, Class, Codec, Metadata, Picture, SequenceError, Sound},
        flv::{Tag, TagKind},
    },
};
use std::fmt;

/// The codecs are reported at the first keyframe, or after so many tags.
const REPORT_AFTER_TAGS: u64 = 100;

/// Where a publish's tags go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Target {
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

/// One publish.
#[derive(Debug)]
pub(super) struct Publish {
    /// Never used twice on a shard.
    pub(super) serial: u64,
    /// The session's number for it.
    pub(super) id: Id,
    pub(super) target: Target,
    /// As its vhost has them.
    pub(super) settings: config::Publish,
    /// When media came last, in ms of the process's clock.
    heard_ms: Option<u64>,
    pub(super) summary: Box<Summary>,
    /// Whom to tell when it ends.
    pub(super) on_end: AtEnd,
    /// What programs of the vhost are to know of it, until they do.
    pub(super) for_programs: Option<Box<programs::Publish>>,
    /// They know.
    pub(super) has_programs: bool,
    /// Times of the newest audio and video.
    pub(super) times: [Option<u32>; 2],
    /// It goes on where another origin has been lost, and is looked through until the place is found.
    pub(super) splice: Option<Box<Splice>>,
}

/// What was published so far.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    pub(super) key: String,
    pub(super) started_ms: u64,
    pub(super) bytes: u64,
    pub(super) tags: u64,
    pub(super) video_frames: u64,
    pub(super) audio_frames: u64,
    audio: Option<Codec>,
    video: Option<Codec>,
    metadata: Metadata,
    picture: Option<Picture>,
    sound: Option<Sound>,
    /// Time in ms between two reads, if they are merged.
    mr_latency_ms: Option<u32>,
    reported: bool,
}

impl Publish {
    pub(super) fn new(
        serial: u64,
        id: Id,
        target: Target,
        key: String,
        started_ms: u64,
        settings: config::Publish,
        on_end: AtEnd,
    ) -> Self {
        let summary = Summary {
            key,
            started_ms,
            bytes: 0,
            tags: 0,
            video_frames: 0,
            audio_frames: 0,
            audio: None,
            video: None,
            metadata: Metadata::default(),
            picture: None,
            sound: None,
            mr_latency_ms: settings.mr_latency_ms,
            reported: false,
        };
        Self {
            serial,
            id,
            target,
            settings,
            heard_ms: None,
            summary: Box::new(summary),
            on_end,
            for_programs: None,
            has_programs: false,
            times: [None; 2],
            splice: None,
        }
    }

    /// Takes note of a tag; true once, when the codecs are known.
    ///
    /// # Errors
    /// A sequence header that the vhost wants to be good is not.
    pub(super) fn count(&mut self, tag: &Tag, now_ms: u64) -> Result<bool, SequenceError> {
        self.heard_ms = Some(now_ms);
        match tag.kind {
            TagKind::Audio => self.times[0] = Some(tag.timestamp),
            TagKind::Video => self.times[1] = Some(tag.timestamp),
            TagKind::Script => {}
        }
        if tag.kind == TagKind::Video {
            let picture = codec::read_sequence_header(&tag.body, self.settings.try_annexb_first);
            if let Some(picture) = if self.settings.parse_sps { picture? } else { picture.ok().flatten() } {
                self.summary.picture = Some(picture);
            }
        }
        Ok(self.summary.count(tag))
    }

    /// It is fetched: how long its origin may be silent is the edge's to say.
    pub(super) fn be_fetched(&mut self, vhost: &config::Vhost) {
        self.settings.normal_timeout_ms = u32::try_from(vhost.cluster.timeout_ms).unwrap_or(u32::MAX);
    }

    /// Takes note of it that something has come.
    pub(super) fn hear(&mut self, now_ms: u64) {
        self.heard_ms = Some(now_ms);
    }

    /// Whether this shard is the stream's home.
    pub(super) fn is_home(&self) -> bool {
        matches!(self.target, Target::Home(_))
    }

    /// Whether the home has not answered yet.
    pub(super) fn is_pending(&self) -> bool {
        matches!(self.target, Target::Remote { stream: None, .. })
    }

    /// When the publisher is late with media, in ms of the process's clock, and what that is called.
    pub(super) fn deadline(&self) -> (u64, CloseReason) {
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
        self.video_frames += u64::from(tag.kind == TagKind::Video);
        self.audio_frames += u64::from(tag.kind == TagKind::Audio);
        // A header says more than the flags of a frame.
        if tag.kind == TagKind::Audio && (self.sound.is_none() || tag.body.get(1) == Some(&0)) {
            self.sound = codec::read_sound(&tag.body).or(self.sound);
        }
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

    /// Video and audio track, as far as they are known.
    pub(super) fn tracks(&self) -> (Option<VideoReport>, Option<AudioReport>) {
        let Metadata { width, height, .. } = self.metadata;
        let video = self.video.map(|video| {
            let codec = video.common_name();
            match &self.picture {
                Some(Picture { width, height, profile, level }) => VideoReport {
                    codec,
                    profile: profile.clone(),
                    level: level.clone(),
                    width: *width,
                    height: *height,
                },
                None => VideoReport { codec, width, height, ..VideoReport::default() },
            }
        });
        let Sound { sample_rate, channels, profile } = self.sound.unwrap_or_default();
        let audio = self.audio.map(|audio| AudioReport {
            codec: audio.common_name(),
            sample_rate,
            channels,
            profile: profile.to_owned(),
        });
        (video, audio)
    }

    /// Counts the end; true if the codecs were never reported.
    pub(super) fn finish(&mut self) -> bool {
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
