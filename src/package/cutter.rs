//! Where segments and parts of a stream begin and end, whatever they are made of.

use super::intake::Intake;
use crate::{
    media::Entry,
    proto::{codec::Class, flv::TagKind},
};
use smallvec::SmallVec;
use std::{mem, ops::RangeInclusive};

/// A step of time that makes what comes something else, in ms.
const STEP_MS: RangeInclusive<i64> = -500..=10_000;
/// Sound before the first picture belongs to it, as far as it is no older, in ms.
const EARLY_MS_MAX: u64 = 500;
/// Frames of it.
const EARLY_MAX: usize = 64;
/// Frames after which their rate is known.
const RATE_FRAMES: i64 = 10;
/// A segment's bytes, whatever its time says.
const SEGMENT_BYTES_MAX: usize = 64 << 20;
/// Frames after which a segment begins without a keyframe: a stream with intra refresh has none.
const SKIPPED_MAX: u32 = 500;

/// The length of fragments that are no parts, in ms.
const FRAGMENT_MS: i64 = 1000;

/// How long segments and parts are to be, in ms.
#[derive(Clone, Debug)]
pub(super) struct Lengths {
    /// A segment ends at the first keyframe from there on.
    pub(super) fragment: u64,
    /// None is longer if keyframes allow it.
    pub(super) target: u64,
    /// A segment without a keyframe, and one of sound alone.
    pub(super) overflow: u64,
    pub(super) sound: u64,
    /// Segments begin with keyframes.
    pub(super) wait_keyframe: bool,
    /// A part, if that is of importance.
    pub(super) part: Option<u64>,
}

/// What a frame makes of segments.
#[derive(Debug)]
pub(super) enum Step {
    /// The part that is being made ends at a time; another begins at a time, with a keyframe or not.
    Part(i64, i64, bool),
    /// The segment that is being made ends at a time.
    Finish(i64),
    /// What comes does not follow what was, or is coded otherwise.
    Break,
    /// A segment begins at a time, with a keyframe or not.
    Begin(i64, bool),
    /// A frame of it.
    Put(Entry),
}

/// In order.
pub(super) type Steps = SmallVec<[Step; 2]>;

/// See the module.
#[derive(Debug)]
pub(super) struct Cutter {
    lengths: Lengths,
    /// When the segment that is being made begins, and the part.
    open: Option<(i64, i64)>,
    /// Bytes of the segment's frames.
    bytes: usize,
    /// A track is coded otherwise from the next segment on.
    changed: bool,
    /// Sound that a segment is to begin with.
    early: Vec<Entry>,
    /// Frames since a keyframe was waited for.
    skipped: u32,
    /// Of the track that segments are cut by: the last frame, the last keyframe, how far keyframes are apart.
    last_ms: i64,
    key_ms: i64,
    gop_ms: i64,
    /// Its first frame, and how many there have been.
    rate: (i64, i64),
    /// The longest that a part may be, in ms.
    part_ms: i64,
}

impl Cutter {
    pub(super) fn new(lengths: Lengths) -> Self {
        let part_ms = lengths.part.and_then(|part_ms| i64::try_from(part_ms + 1).ok()).unwrap_or(FRAGMENT_MS);
        Self {
            lengths,
            open: None,
            bytes: 0,
            changed: false,
            early: Vec::new(),
            skipped: 0,
            last_ms: 0,
            key_ms: 0,
            gop_ms: 0,
            rate: (0, 0),
            part_ms,
        }
    }

    /// A track is coded otherwise.
    pub(super) fn change(&mut self) {
        self.changed |= self.open.is_some();
    }

    /// The longest that a part may be, in ms.
    pub(super) fn part_ms(&self) -> i64 {
        self.part_ms
    }

    /// A part is as long as this.
    pub(super) fn saw_part(&mut self, length_ms: i64) {
        self.part_ms = self.part_ms.max(length_ms);
    }

    /// Where the last frame ends, and with it a segment whose publish is over.
    pub(super) fn end_ms(&self) -> i64 {
        self.last_ms + self.frame_ms()
    }

    /// Takes a frame of a track that is known.
    pub(super) fn frame(&mut self, intake: &Intake, entry: Entry) -> Steps {
        let mut steps = Steps::new();
        let is_video = entry.tag.kind == TagKind::Video;
        let has_video = intake.video.is_some();
        // Sound that is coded otherwise has no place in this segment.
        if entry.info.track != 0 || !intake.has(&entry) || self.changed && !is_video && has_video {
            return steps;
        }
        let time_ms = entry.time_ms;
        if is_video || !has_video {
            let key = !is_video || entry.info.class == Class::Keyframe;
            if !self.look(time_ms, is_video, key, &mut steps) {
                return steps;
            }
            steps.extend(mem::take(&mut self.early).into_iter().map(Step::Put));
        } else if self.open.is_none() {
            // It belongs to the picture that comes.
            self.early.retain(|early| time_ms.abs_diff(early.time_ms) <= EARLY_MS_MAX);
            if self.early.len() >= EARLY_MAX {
                self.early.remove(0);
            }
            self.early.push(entry);
            return steps;
        }
        self.bytes += entry.bytes();
        steps.push(Step::Put(entry));
        steps
    }

    /// Ends and begins segments and parts before a frame of the track that they are cut by; tells whether there is one to put
    /// it into.
    fn look(&mut self, time_ms: i64, is_video: bool, key: bool, steps: &mut Steps) -> bool {
        let Some((start_ms, part_start_ms)) = self.open else {
            self.skipped += 1;
            return (key || self.skipped > SKIPPED_MAX) && self.begin(time_ms, key, steps);
        };
        let jumps = !STEP_MS.contains(&(time_ms - self.last_ms));
        let frame_ms = time_ms - self.last_ms;
        let length_ms = u64::try_from(time_ms - start_ms).unwrap_or(0);
        let end_ms = if jumps { self.last_ms + self.frame_ms() } else { time_ms };
        let part_ms = time_ms - part_start_ms;
        let part_is_full = part_ms > 0 && part_ms + frame_ms > self.part_ms;
        let cut = jumps || self.bytes > SEGMENT_BYTES_MAX || self.is_cut(length_ms, is_video, key);
        self.rate = if jumps || self.rate.1 == 0 { (time_ms, 1) } else { (self.rate.0, self.rate.1 + 1) };
        if self.rate.1 == RATE_FRAMES {
            self.set_rate(time_ms - self.rate.0, RATE_FRAMES - 1);
        }
        if key && is_video {
            self.gop_ms = if jumps { 0 } else { time_ms - self.key_ms };
            self.key_ms = time_ms;
        }
        self.last_ms = time_ms;
        if cut {
            self.open = None;
            steps.push(Step::Finish(end_ms));
            if mem::take(&mut self.changed) || jumps {
                steps.push(Step::Break);
            }
            return (key || !jumps) && self.begin(time_ms, key, steps);
        }
        if part_is_full {
            steps.push(Step::Part(end_ms, time_ms, key));
            self.open = Some((start_ms, time_ms));
        }
        true
    }

    fn begin(&mut self, time_ms: i64, key: bool, steps: &mut Steps) -> bool {
        (self.last_ms, self.skipped, self.bytes) = (time_ms, 0, 0);
        if self.rate.1 == 0 {
            (self.rate, self.key_ms) = ((time_ms, 1), time_ms);
        }
        self.open = Some((time_ms, time_ms));
        steps.push(Step::Begin(time_ms, key));
        true
    }

    /// Whether a segment of a length ends before this frame.
    fn is_cut(&self, length_ms: u64, is_video: bool, key: bool) -> bool {
        if self.changed && key {
            return true;
        }
        if !is_video {
            return length_ms >= self.lengths.sound;
        }
        let whole = length_ms >= self.lengths.fragment;
        // With one GOP more it would be longer than any may be.
        let next_ms = length_ms + u64::try_from(self.gop_ms).unwrap_or(0);
        let full = length_ms > 0 && next_ms >= self.lengths.target.max(self.lengths.fragment) + 500;
        key && (whole || full) || whole && !self.lengths.wait_keyframe || length_ms >= self.lengths.overflow
    }

    fn frame_ms(&self) -> i64 {
        if self.rate.1 > 1 { (self.last_ms - self.rate.0) / (self.rate.1 - 1) } else { 0 }
    }

    /// Parts are of whole frames: as many as make the length that is wished for, and one more rather than much less.
    fn set_rate(&mut self, length_ms: i64, frames: i64) {
        let Some(part_ms) = self.lengths.part.and_then(|part_ms| i64::try_from(part_ms).ok()) else { return };
        if length_ms > 0 {
            let hundredths = (part_ms * 100 * frames / length_ms - 5).max(1);
            self.part_ms = self.part_ms.max((hundredths + 99) / 100 * length_ms / frames + 1);
        }
    }
}
