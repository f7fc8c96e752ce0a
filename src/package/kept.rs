//! What is kept of a stream for players who ask for segments: those in its playlist, and those that have just left it.

use crate::proto::mp4::Coding;
use std::{collections::VecDeque, path::PathBuf, sync::Arc};

/// Bytes of a stream's segments in its playlist, and their number, whatever their times say.
const WINDOW_BYTES_MAX: u64 = 512 << 20;
const SEGMENTS_MAX: usize = 3000;
/// Segments that a playlist has whatever room there is, and by how many it gets shorter with each new one where there is none.
const SEGMENTS_MIN: usize = 3;
const SHORTER: usize = 2;
/// Those that have left it, of these.
const RETIRED_BYTES_MAX: u64 = WINDOW_BYTES_MAX / 2;

/// A part of a segment.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) uri: String,
    pub(super) path: String,
    pub(super) duration_ms: u64,
    /// It begins with a keyframe.
    pub(super) independent: bool,
}

/// A header that segments have in common.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) uri: String,
    pub(super) path: String,
    /// On the disk.
    pub(super) file: Option<PathBuf>,
}

/// What segments are encrypted with.
#[derive(Debug)]
pub(super) struct Key {
    /// Without a visit's query.
    pub(super) uri: String,
    pub(super) path: String,
    /// On the disk.
    pub(super) file: Option<PathBuf>,
    pub(super) iv: [u8; 16],
}

/// A segment, whole or not.
#[derive(Clone, Debug, Default)]
pub(super) struct Segment {
    pub(super) sequence: u64,
    /// Empty until it is whole.
    pub(super) uri: String,
    pub(super) path: String,
    /// On the disk.
    pub(super) file: Option<PathBuf>,
    pub(super) duration_ms: u64,
    /// It does not follow what went before.
    pub(super) discontinuity: bool,
    /// When its first frame was, in ms since 1970.
    pub(super) at_ms: u64,
    pub(super) bytes: u64,
    pub(super) map: Option<Arc<Map>>,
    pub(super) key: Option<Arc<Key>>,
    pub(super) parts: Vec<Part>,
    /// Of DASH: its tracks', and what the segments around it have in common.
    pub(super) pieces: Vec<Piece>,
    pub(super) period: Option<Arc<Period>>,
}

/// A segment of one track, as DASH has it.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// Which of the period's.
    pub(super) track: usize,
    pub(super) number: u64,
    /// In the track's units.
    pub(super) start: u64,
    pub(super) duration: u64,
    pub(super) bytes: u64,
    pub(super) path: String,
    /// On the disk.
    pub(super) file: Option<PathBuf>,
}

/// What segments of DASH that follow each other have in common.
#[derive(Debug)]
pub(super) struct Period {
    pub(super) id: u64,
    /// When it began, in ms since 1970.
    pub(super) at_ms: u64,
    pub(super) tracks: Vec<PeriodTrack>,
}

/// A track of theirs.
#[derive(Debug)]
pub(super) struct PeriodTrack {
    /// Which it is.
    pub(super) track: usize,
    /// How it is coded, by its name for playlists, and as files have it.
    pub(super) codecs: String,
    pub(super) timescale: u32,
    pub(super) coding: Coding,
    /// Where it begins, and how much later than decoded its first frame is shown, in its own units. Keyframes with frames before
    /// them are shown later, those frames are not.
    pub(super) start: u64,
    pub(super) composition: i32,
    /// What its segments begin with, and what their names do up to their number.
    pub(super) map: Map,
    pub(super) media: String,
}

/// A path that is served, and the file.
pub(super) type Thing = (String, Option<PathBuf>);

impl Segment {
    /// What goes with it: itself, its parts, and what no other segment has.
    pub(super) fn into_things(self) -> Vec<Thing> {
        let mut things = vec![(self.path, self.file)];
        things.extend(self.parts.into_iter().map(|part| (part.path, None)));
        things.extend(self.pieces.into_iter().map(|piece| (piece.path, piece.file)));
        things.extend(self.key.and_then(Arc::into_inner).map(|key| (key.path, key.file)));
        things.extend(self.map.and_then(Arc::into_inner).map(|map| (map.path, map.file)));
        let period = self.period.and_then(Arc::into_inner);
        things
            .extend(period.into_iter().flat_map(|period| period.tracks).map(|track| (track.map.path, track.map.file)));
        things
    }
}

/// What a stream's playlist is made from. It outlives a publish.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// In the playlist.
    pub(super) segments: VecDeque<Segment>,
    /// Out of it, and there until a time in ms of the process's clock.
    pub(super) retired: VecDeque<(u64, Segment)>,
    /// The next segment's number.
    pub(super) sequence: u64,
    /// Discontinuities of segments that have left the playlist.
    pub(super) discontinuities: u64,
    /// Paths of the playlist and of headers.
    pub(super) paths: Vec<String>,
    /// The playlist's file, and how long what is there lasts without a publisher, in ms; 0 for ever.
    pub(super) file: Option<PathBuf>,
    pub(super) dispose_ms: u64,
    /// When the publish ended, in ms of the process's clock.
    pub(super) ended_ms: u64,
    pub(super) target_ms: u64,
    /// Of DASH: availabilityStartTime and the end of what there is, in ms since 1970, the next period, and the next segment of each
    /// track.
    pub(super) epoch_ms: u64,
    pub(super) end_ms: u64,
    pub(super) next_period: u64,
    pub(super) numbers: [u64; 2],
}

/// How much a playlist is to have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// So many ms.
    pub(super) ms: u64,
    /// And so many segments.
    pub(super) segments: usize,
}

impl Kept {
    /// Takes a whole segment in, and those out that the window has no room for.
    pub(super) fn push(&mut self, segment: Segment, window: Wanted, now_ms: u64) {
        self.sequence = segment.sequence + 1;
        self.target_ms = self.target_ms.max(segment.duration_ms.saturating_add(500) / 1000 * 1000);
        self.segments.push_back(segment);
        let total = |of: fn(&Segment) -> u64| -> u64 { self.segments.iter().map(of).sum() };
        let (mut total_ms, mut bytes) = (total(|segment| segment.duration_ms), total(|segment| segment.bytes));
        while self.segments.len() > 1
            && (total_ms > window.ms && self.segments.len() > window.segments
                || bytes > WINDOW_BYTES_MAX
                || self.segments.len() > SEGMENTS_MAX)
        {
            let Some(old) = self.segments.pop_front() else { break };
            (total_ms, bytes) = (total_ms - old.duration_ms, bytes - old.bytes);
            self.retire(old, now_ms);
        }
    }

    /// A segment leaves the playlist; players may still be about to ask for it.
    pub(super) fn retire(&mut self, old: Segment, now_ms: u64) {
        // The first one's counts as soon as it is gone, the next one's is not written.
        self.discontinuities += u64::from(self.segments.front().is_some_and(|next| next.discontinuity));
        self.retired.push_back((now_ms + 2 * self.target_ms.max(old.duration_ms), old));
    }

    /// There is no room for all of it: what has left the playlist goes at once, and of the playlist the oldest ones.
    pub(super) fn shorten(&mut self) {
        for _ in 0..SHORTER {
            if self.segments.len() <= SEGMENTS_MIN {
                break;
            }
            let old = self.segments.pop_front();
            old.into_iter().for_each(|old| self.retire(old, 0));
        }
        self.retired.iter_mut().for_each(|(until_ms, _)| *until_ms = 0);
    }

    /// The oldest segment whose time out of the playlist is over, or for which there is no room.
    pub(super) fn take_retired(&mut self, now_ms: u64) -> Option<Segment> {
        let bytes: u64 = self.retired.iter().map(|(_, segment)| segment.bytes).sum();
        let over = bytes > RETIRED_BYTES_MAX || self.retired.len() > SEGMENTS_MAX;
        let due = |(until_ms, _): &(u64, Segment)| over || *until_ms <= now_ms;
        if self.retired.front().is_some_and(due) { self.retired.pop_front().map(|(_, segment)| segment) } else { None }
    }
}
