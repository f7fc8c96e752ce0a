//! What a player must get: metadata, sequence headers, a keyframe first, then every tag of the stream,
//! whole, in order, at the publisher's time distances.
//!
//! The reference is the published file, or, without one, the stream as the players before saw it: the
//! first that receives a tag adds it, all others must receive the same.

use crate::clock;
use corecast::proto::{
    codec::{self, Class},
    flv::{Tag, TagKind},
};
use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher},
};

/// The stream as it should be.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    tags: Vec<(u64, i64)>,
    /// Which of them are video.
    video: Vec<bool>,
    places: HashMap<u64, usize>,
    /// The tags repeat: a file that is published over and over.
    repeats: bool,
}

impl Reference {
    /// The media tags of a file that is published in a loop.
    pub(crate) fn of_file(tags: &[Tag]) -> Self {
        let mut reference = Self::default();
        for tag in tags.iter().filter(|tag| is_media(tag)) {
            reference.add(tag, fingerprint(tag), i64::from(tag.timestamp));
        }
        reference.repeats = true;
        reference
    }

    fn add(&mut self, tag: &Tag, print: u64, time_ms: i64) -> usize {
        self.tags.push((print, time_ms));
        self.video.push(tag.kind == TagKind::Video);
        self.places.insert(print, self.tags.len() - 1);
        self.tags.len() - 1
    }
}

fn is_media(tag: &Tag) -> bool {
    matches!(codec::inspect(tag.kind, &tag.body).class, Class::Keyframe | Class::InterFrame | Class::Audio)
}

/// A body's hash, whatever time is stamped into it.
fn fingerprint(tag: &Tag) -> u64 {
    let mut hasher = FixedState::with_seed(u64::from(tag.kind.type_id())).build_hasher();
    let (_, head, rest) = clock::split(&tag.body);
    hasher.write(head);
    hasher.write(rest);
    hasher.finish()
}

/// One player's view.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    metadata: bool,
    headers: [bool; 2],
    first_video_seen: bool,
    newest: [Option<u32>; 2],
    /// Place of the last tag in the reference, and its distance to our clock.
    at: Option<(usize, i64)>,
    video_compared: bool,
    pub(crate) media_tags: u64,
    pub(crate) faults: Faults,
}

/// What was wrong, counted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Faults {
    pub(crate) no_metadata_first: u64,
    pub(crate) no_sequence_header_first: u64,
    pub(crate) no_keyframe_first: u64,
    pub(crate) backward_time: u64,
    pub(crate) wrong_distance: u64,
    pub(crate) gaps_or_altered: u64,
}

impl Faults {
    pub(crate) fn total(&self) -> u64 {
        let Self {
            no_metadata_first,
            no_sequence_header_first,
            no_keyframe_first,
            backward_time,
            wrong_distance,
            gaps_or_altered,
        } = self;
        no_metadata_first
            + no_sequence_header_first
            + no_keyframe_first
            + backward_time
            + wrong_distance
            + gaps_or_altered
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.no_metadata_first += other.no_metadata_first;
        self.no_sequence_header_first += other.no_sequence_header_first;
        self.no_keyframe_first += other.no_keyframe_first;
        self.backward_time += other.backward_time;
        self.wrong_distance += other.wrong_distance;
        self.gaps_or_altered += other.gaps_or_altered;
    }
}

impl Checker {
    /// The newest media time, in ms.
    pub(crate) fn newest_ms(&self) -> Option<u32> {
        self.newest.iter().flatten().copied().max()
    }

    /// Takes the next tag of the player.
    pub(crate) fn tag(&mut self, tag: &Tag, reference: &mut Reference) {
        let info = codec::inspect(tag.kind, &tag.body);
        let kind = usize::from(tag.kind == TagKind::Video);
        match info.class {
            Class::Metadata => self.metadata = true,
            Class::Header { .. } => self.headers[kind] = true,
            Class::Data => {}
            Class::Keyframe | Class::InterFrame | Class::Audio => {
                self.media(tag, info.class, kind);
                self.compare(tag, reference);
            }
        }
    }

    fn media(&mut self, tag: &Tag, class: Class, kind: usize) {
        if self.media_tags == 0 && !self.metadata {
            self.faults.no_metadata_first += 1;
        }
        let first = self.newest[kind].is_none();
        let needs_header = tag.kind == TagKind::Video || tag.body.first().is_some_and(|byte| byte >> 4 == 10);
        if first && needs_header && !self.headers[kind] {
            self.faults.no_sequence_header_first += 1;
        }
        if tag.kind == TagKind::Video
            && !std::mem::replace(&mut self.first_video_seen, true)
            && class != Class::Keyframe
        {
            self.faults.no_keyframe_first += 1;
        }
        if self.newest[kind].is_some_and(|newest| tag.timestamp < newest) {
            self.faults.backward_time += 1;
        }
        self.newest[kind] = Some(tag.timestamp);
        self.media_tags += 1;
    }

    fn compare(&mut self, tag: &Tag, reference: &mut Reference) {
        let print = fingerprint(tag);
        let time_ms = i64::from(tag.timestamp);
        let known = |reference: &mut Reference| match reference.places.get(&print) {
            Some(place) => Some(*place),
            None if reference.repeats => None,
            None => Some(reference.add(tag, print, time_ms)),
        };
        let lead_in = !self.video_compared;
        self.video_compared |= tag.kind == TagKind::Video;
        let Some((last, offset)) = self.at else {
            match known(reference) {
                Some(place) => self.at = Some((place, time_ms - reference.tags[place].1)),
                None => self.faults.gaps_or_altered += 1,
            }
            return;
        };
        let mut next = last + 1;
        let mut offset = offset;
        if next == reference.tags.len() {
            if reference.repeats {
                next = 0;
                // The publisher's next round: how far its clock went on, the first tag tells.
                offset = time_ms - reference.tags[0].1;
            } else {
                reference.add(tag, print, time_ms - offset);
            }
        }
        if reference.tags[next].0 == print {
            if reference.tags[next].1 + offset != time_ms {
                self.faults.wrong_distance += 1;
                offset = time_ms - reference.tags[next].1;
            }
            self.at = Some((next, offset));
            return;
        }
        let place = known(reference);
        let left_out = place.and_then(|place| reference.video.get(next..place));
        // A server without a GOP cache may begin with audio, and leave video out up to its keyframe.
        if !(lead_in && left_out.is_some_and(|video| video.iter().all(|video| *video))) {
            self.faults.gaps_or_altered += 1;
        }
        if let Some(place) = place {
            self.at = Some((place, time_ms - reference.tags[place].1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn tag(kind: TagKind, timestamp: u32, body: &[u8]) -> Tag {
        Tag { kind, timestamp, body: Bytes::copy_from_slice(body) }
    }

    fn stream() -> Vec<Tag> {
        let mut tags = vec![
            tag(TagKind::Script, 0, b"\x02\x00\x0AonMetaData\x05"),
            tag(TagKind::Video, 0, &[0x17, 0, 1]),
            tag(TagKind::Audio, 0, &[0xAF, 0, 1]),
        ];
        for n in 0..50_u8 {
            tags.push(tag(TagKind::Video, u32::from(n) * 40, &[if n % 25 == 0 { 0x17 } else { 0x27 }, 1, n]));
            tags.push(tag(TagKind::Audio, u32::from(n) * 40 + 5, &[0xAF, 1, n]));
        }
        tags
    }

    fn faults(tags: &[Tag], reference: &mut Reference) -> Faults {
        let mut checker = Checker::default();
        tags.iter().for_each(|tag| checker.tag(tag, reference));
        checker.faults
    }

    #[test]
    fn a_good_stream_has_no_faults_from_any_keyframe_on() {
        for mut reference in [Reference::default(), Reference::of_file(&stream())] {
            assert_eq!(faults(&stream(), &mut reference).total(), 0);
            let mut late = stream();
            late.drain(3..53);
            late.iter_mut().skip(3).for_each(|tag| tag.timestamp -= 1000);
            assert_eq!(faults(&late, &mut reference).total(), 0);
        }
    }

    /// Audio alone up to a keyframe is no fault; the same within the stream is.
    #[test]
    fn video_may_begin_at_a_later_keyframe() {
        let audio_until = |keyframe: usize| {
            let mut tags = stream();
            let mut at = 0;
            tags.retain(|tag| {
                at += 1;
                at <= 3 || at > keyframe || tag.kind == TagKind::Audio
            });
            tags
        };
        let mut reference = Reference::of_file(&stream());
        assert_eq!(faults(&audio_until(53), &mut reference).total(), 0);
        let mut late = stream();
        late.drain(60..62);
        late.remove(61);
        assert!(faults(&late, &mut reference).gaps_or_altered > 0);
    }

    /// The checker can fail: one dropped tag, one flipped bit, one shifted time are each seen.
    #[test]
    fn each_fault_is_seen() {
        for mut reference in [Reference::default(), Reference::of_file(&stream())] {
            faults(&stream(), &mut reference);
            let mut dropped = stream();
            dropped.remove(20);
            assert_eq!(faults(&dropped, &mut reference).gaps_or_altered, 1);
            let mut flipped = stream();
            flipped[20] = tag(flipped[20].kind, flipped[20].timestamp, &[0x27, 1, 0xFF]);
            assert!(faults(&flipped, &mut reference).gaps_or_altered > 0);
        }
        let mut reference = Reference::of_file(&stream());
        let mut shifted = stream();
        shifted[20].timestamp += 1;
        assert_eq!(faults(&shifted, &mut reference).wrong_distance, 2);
        let mut headless = stream();
        headless.drain(..4);
        let found = faults(&headless, &mut reference);
        assert_eq!((found.no_metadata_first, found.no_sequence_header_first, found.no_keyframe_first), (1, 2, 1));
    }
}
