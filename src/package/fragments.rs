//! Fragments of MP4, made of a stream's frames: of both tracks in one, or of each.

use super::{
    intake::Intake,
    track::{Samples, Track},
};
use crate::{
    media::Entry,
    proto::{
        flv::TagKind,
        mp4::{self, Run, Sample},
    },
};
use bytes::Bytes;

/// Tracks, by their place here.
pub(super) const VIDEO: usize = 0;
pub(super) const AUDIO: usize = 1;

/// What is to be the next fragment.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    tracks: [Samples; 2],
    /// Fragments so far.
    made: u32,
}

/// A fragment of one track.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    /// When its first frame is decoded, how much later that is shown, and how long it all lasts, in the track's units.
    pub(super) start: u64,
    pub(super) composition: i32,
    pub(super) duration: u64,
}

/// A track's number in a file.
pub(super) fn id(track: usize) -> u32 {
    if track == VIDEO { 1 } else { 2 }
}

fn known(intake: &Intake, track: usize) -> Option<&Track> {
    if track == VIDEO { intake.video.as_ref() } else { intake.audio.as_ref() }
}

impl Fragments {
    /// Adds a frame, at a time in ms; tells how many bytes there are of its track.
    pub(super) fn push(&mut self, intake: &Intake, entry: &Entry, time_ms: i64) -> usize {
        let track = if entry.tag.kind == TagKind::Video { VIDEO } else { AUDIO };
        let samples = &mut self.tracks[track];
        if let Some(known) = known(intake, track) {
            samples.push(known, entry, time_ms);
        }
        samples.bytes()
    }

    /// Ends the fragments at a time in ms.
    fn take(&mut self, intake: &Intake, end_ms: i64) -> [(u64, Vec<Sample>); 2] {
        if let Some(track) = &intake.video {
            self.tracks[VIDEO].end_last(track.at(end_ms));
        }
        self.tracks.each_mut().map(Samples::take)
    }

    /// Writes the fragment of both tracks, which ends at a time in ms; tells whether there is one.
    pub(super) fn put(&mut self, intake: &Intake, end_ms: i64, out: &mut Vec<u8>) -> bool {
        let taken = self.take(intake, end_ms);
        let runs =
            taken.iter().enumerate().map(|(track, (start, samples))| Run { track: id(track), start: *start, samples });
        let runs: Vec<Run<'_>> = runs.filter(|run| !run.samples.is_empty()).collect();
        if runs.is_empty() {
            return false;
        }
        self.made += 1;
        mp4::put_fragment(self.made, &runs, out);
        true
    }

    /// The same of each track.
    pub(super) fn chunks(&mut self, intake: &Intake, end_ms: i64) -> [Option<Chunk>; 2] {
        self.made += 1;
        let mut track = 0;
        self.take(intake, end_ms).map(|(start, samples)| {
            let run = Run { track: id(track), start, samples: &samples };
            track += 1;
            let composition = samples.first()?.composition;
            let mut out = Vec::new();
            mp4::put_fragment(self.made, &[run], &mut out);
            let duration = samples.iter().map(|sample| u64::from(sample.duration)).sum();
            Some(Chunk { bytes: out.into(), start, composition, duration })
        })
    }
}
