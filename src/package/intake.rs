//! What a publish is of: its tracks, as they become known. Its first frames wait until they are.

use super::track::Track;
use crate::{
    media::Entry,
    proto::{
        codec::{self, Class, Metadata},
        flv::TagKind,
    },
};
use smallvec::{SmallVec, smallvec};

/// A track that was announced, or may come where nothing is, is waited for so long, in ms.
const WAIT_MS_MAX: u64 = 1000;
/// Bytes of frames that wait with it.
const HELD_BYTES_MAX: usize = 8 << 20;

/// Frames that are to be taken now, in order.
pub(super) type Frames = SmallVec<[Entry; 1]>;

/// See the module.
#[derive(Debug)]
pub(super) struct Intake {
    /// For the log: which stream, and what goes without a track.
    key: String,
    what: &'static str,
    pub(super) video: Option<Track>,
    pub(super) audio: Option<Track>,
    /// Their sequence headers.
    pub(super) setups: [Option<Entry>; 2],
    /// Frames before it is known what the stream is of, and their bytes.
    held: Option<(Frames, usize)>,
    announced: Option<Metadata>,
    /// A track is coded otherwise than the last time that this was asked.
    changed: bool,
}

impl Intake {
    pub(super) fn new(key: &str, what: &'static str) -> Self {
        Self {
            key: key.to_owned(),
            what,
            video: None,
            audio: None,
            setups: [None, None],
            held: Some((Frames::new(), 0)),
            announced: None,
            changed: false,
        }
    }

    /// Takes an entry; returns frames of tracks that are known.
    pub(super) fn take(&mut self, entry: &Entry) -> Frames {
        match entry.info.class {
            Class::Header { .. } => self.set_up(entry),
            Class::Metadata => self.announced = Some(codec::read_metadata(&entry.tag.body)),
            Class::Keyframe | Class::InterFrame | Class::Audio => return self.frame(entry),
            Class::Data => {}
        }
        Frames::new()
    }

    /// What is still held: the publish is over.
    pub(super) fn release(&mut self) -> Frames {
        self.held.take().map(|(held, _)| held).unwrap_or_default()
    }

    /// Whether a track has changed since this was asked last.
    pub(super) fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether a frame's track is known.
    pub(super) fn has(&self, frame: &Entry) -> bool {
        if frame.tag.kind == TagKind::Video { self.video.is_some() } else { self.audio.is_some() }
    }

    /// The tracks that there are.
    pub(super) fn tracks(&self) -> impl Iterator<Item = &Track> {
        [&self.video, &self.audio].into_iter().flatten()
    }

    fn set_up(&mut self, entry: &Entry) {
        if entry.info.class != Class::SETUP || entry.info.track != 0 {
            return;
        }
        let track = Track::read(entry);
        if let (None, Some(codec)) = (&track, entry.info.codec) {
            tracing::info!(stream = %self.key, %codec, "{} goes without this track", self.what);
        }
        self.set_track(entry.tag.kind, track);
        self.setups[usize::from(entry.tag.kind == TagKind::Audio)] = Some(entry.clone());
    }

    fn set_track(&mut self, kind: TagKind, track: Option<Track>) {
        let known = if kind == TagKind::Video { &mut self.video } else { &mut self.audio };
        self.changed |= *known != track;
        *known = track;
    }

    fn frame(&mut self, entry: &Entry) -> Frames {
        if entry.time_ms == Entry::BEFORE_MEDIA || entry.info.track != 0 {
            return Frames::new();
        }
        let is_video = entry.tag.kind == TagKind::Video;
        if !is_video && self.audio.is_none() && entry.info.codec.and_then(|codec| codec.fourcc()) == Some(*b".mp3") {
            self.set_track(TagKind::Audio, Track::mp3(entry.info.payload(&entry.tag.body)));
        }
        if let Some(track) = self.video.as_ref().filter(|_| is_video).and_then(|track| track.resized(entry)) {
            self.set_track(TagKind::Video, Some(track));
        }
        let Some((held, bytes)) = &mut self.held else { return smallvec![entry.clone()] };
        held.push(entry.clone());
        *bytes += entry.bytes();
        let waits_ms = entry.time_ms.abs_diff(held.first().map_or(0, |first| first.time_ms));
        let late = waits_ms >= WAIT_MS_MAX || *bytes > HELD_BYTES_MAX;
        // Where nothing is announced, both may come.
        let (video, audio) = self.announced.map_or((true, true), |metadata| (metadata.has_video, metadata.has_audio));
        if late || (!video || self.video.is_some()) && (!audio || self.audio.is_some()) {
            return self.release();
        }
        Frames::new()
    }
}
