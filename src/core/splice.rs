//! Where a stream goes on that is fetched from another origin than before: at a keyframe, with nothing twice.
//!
//! Where times are the encoder's own (`atc`), they say what players have had: media goes on with the next frame, and nothing is
//! missing if the new origin has kept enough ([`Splice::by_time`]).
//!
//! Otherwise the times of two origins have nothing in common. An origin sends at once what it has kept, back to its newest keyframe. Of that players have had whatever is older
//! than the loss. So the first tags are held until it is known how much came at once; then media goes on at the first
//! keyframe that is younger than the loss, or, if there is none, at the next one that comes.

use crate::proto::{
    codec::{self, Class},
    flv::{Tag, TagKind},
};
use smallvec::SmallVec;

/// What has been kept has come by then, in ms.
const HELD_MS: u64 = 100;
/// Most bytes that are held; then only what comes anew counts.
const HELD_BYTES_MAX: usize = 16 << 20;
/// A stream without a keyframe by then is taken as it comes, in ms.
const KEYFRAME_WAIT_MS_MAX: u64 = 20_000;
/// The same of one that has had no video at all.
const VIDEO_WAIT_MS_MAX: u64 = 500;

/// Times further from what players have had are another timeline's, in ms.
const NEAR_MS: i32 = 30_000;

/// Tags that go on.
pub(super) type Tags = SmallVec<[Tag; 1]>;

/// Where the last media stood before the loss.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Last {
    /// When it came, in ms.
    pub(super) came_ms: u64,
    /// Its times, of audio and video.
    pub(super) times: [Option<u32>; 2],
}

/// What goes on of what has come.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) tags: Tags,
    /// All that follows goes on, too.
    pub(super) done: bool,
    /// It does not follow what was there: the publish begins anew with it.
    pub(super) anew: bool,
}

/// How it is known what players have had.
#[derive(Debug)]
pub(super) enum Splice {
    Held(Held),
    Timed(Timed),
}

impl Splice {
    /// By how much comes at once.
    pub(super) fn by_burst(last: Last) -> Self {
        Self::Held(Held::new(last.came_ms))
    }

    /// By times.
    pub(super) fn by_time(last: Last) -> Self {
        Self::Timed(Timed { times: last.times, follows: false })
    }

    /// Whether the stream goes on as if nothing had been: what it has had of setups is not to come again.
    pub(super) fn is_by_time(&self) -> bool {
        matches!(self, Self::Timed(_))
    }

    /// Takes a tag that has come now.
    pub(super) fn take(&mut self, tag: Tag, now_ms: u64) -> Taken {
        match self {
            Self::Held(held) => {
                let (tags, done) = held.take(tag, now_ms);
                Taken { tags, done, anew: false }
            }
            Self::Timed(timed) => timed.take(tag),
        }
    }
}

/// See [`Splice::by_time`].
#[derive(Debug)]
pub(super) struct Timed {
    times: [Option<u32>; 2],
    /// What comes can be decoded behind what players have.
    follows: bool,
}

impl Timed {
    fn take(&mut self, tag: Tag) -> Taken {
        let class = codec::inspect(tag.kind, &tag.body).class;
        let only = |tags: Tags| Taken { tags, ..Taken::default() };
        let last = match (tag.kind, class) {
            (_, Class::Metadata | Class::Header { .. } | Class::Data) => return only(SmallVec::from_iter([tag])),
            (TagKind::Audio, _) => self.times[0],
            (TagKind::Video | TagKind::Script, _) => self.times[1],
        };
        let Some(last) = last else { return only(SmallVec::from_iter([tag])) };
        let ahead_ms = tag.timestamp.wrapping_sub(last).cast_signed();
        if !(-NEAR_MS..=NEAR_MS).contains(&ahead_ms) {
            // Another timeline begins where it can be decoded.
            let begins = class == Class::Keyframe || self.times[1].is_none();
            let tags = if begins { SmallVec::from_iter([tag]) } else { Tags::new() };
            return Taken { tags, done: begins, anew: begins };
        }
        let video = matches!(class, Class::Keyframe | Class::InterFrame);
        self.follows |= class == Class::Keyframe || video && ahead_ms <= 0 || self.times[1].is_none();
        let goes_on = ahead_ms > 0 && (self.follows || !video);
        // From a keyframe on that is new, all is.
        let done = goes_on && class == Class::Keyframe;
        Taken { tags: if goes_on { SmallVec::from_iter([tag]) } else { Tags::new() }, done, anew: false }
    }
}

/// See [`Splice::by_burst`].
#[derive(Debug)]
pub(super) struct Held {
    /// When the last tag came before the loss, in ms.
    lost_ms: u64,
    /// When the first one came after it.
    first_ms: Option<u64>,
    has_video: bool,
    held: Vec<OneHeld>,
    held_bytes: usize,
    /// There was no good keyframe among them.
    skipping: bool,
}

#[derive(Debug)]
struct OneHeld {
    tag: Tag,
    class: Class,
    at_ms: u64,
}

fn is_setup(class: Class) -> bool {
    matches!(class, Class::Metadata | Class::Header { .. })
}

impl Held {
    fn new(lost_ms: u64) -> Self {
        Self { lost_ms, first_ms: None, has_video: false, held: Vec::new(), held_bytes: 0, skipping: false }
    }

    /// What goes on, and whether all that follows does.
    fn take(&mut self, tag: Tag, now_ms: u64) -> (Tags, bool) {
        let info = codec::inspect(tag.kind, &tag.body);
        let first_ms = *self.first_ms.get_or_insert(now_ms);
        self.has_video |= matches!(info.class, Class::Keyframe | Class::InterFrame);
        let keyframe = info.class == Class::Keyframe;
        if self.skipping && keyframe {
            return (SmallVec::from_iter([tag]), true);
        }
        if self.held.is_empty() && !keyframe || self.skipping {
            if is_setup(info.class) {
                return (SmallVec::from_iter([tag]), false);
            }
            let most_ms = if self.has_video { KEYFRAME_WAIT_MS_MAX } else { VIDEO_WAIT_MS_MAX };
            if now_ms >= first_ms + most_ms {
                return (SmallVec::from_iter([tag]), true);
            }
            return (Tags::new(), false);
        }
        self.held_bytes += tag.body.len();
        self.held.push(OneHeld { tag, class: info.class, at_ms: now_ms });
        if self.held_bytes > HELD_BYTES_MAX {
            return (self.give_up(), false);
        }
        if now_ms < self.held[0].at_ms + HELD_MS {
            return (Tags::new(), false);
        }
        match self.good_keyframe() {
            Some(at) => {
                let held = std::mem::take(&mut self.held).into_iter().enumerate();
                let goes_on = |(index, held): &(usize, OneHeld)| *index >= at || is_setup(held.class);
                (held.filter(goes_on).map(|(_, held)| held.tag).collect(), true)
            }
            None => (self.give_up(), false),
        }
    }

    /// The first keyframe that is no older than the loss: what came faster than real time behind it was old.
    fn good_keyframe(&self) -> Option<usize> {
        let video = |held: &&OneHeld| matches!(held.class, Class::Keyframe | Class::InterFrame);
        let newest = self.held.iter().rev().find(video)?;
        let outage_ms = self.held[0].at_ms.saturating_sub(self.lost_ms);
        self.held.iter().position(|held| {
            // Sound may have come behind the newest picture; no picture has.
            let span_ms = u64::from(newest.tag.timestamp.wrapping_sub(held.tag.timestamp));
            let passed_ms = newest.at_ms.saturating_sub(held.at_ms);
            held.class == Class::Keyframe && span_ms.saturating_sub(passed_ms) <= outage_ms
        })
    }

    /// Setups of what was held; the rest is left out.
    fn give_up(&mut self) -> Tags {
        self.skipping = true;
        self.held_bytes = 0;
        let held = std::mem::take(&mut self.held);
        held.into_iter().filter(|held| is_setup(held.class)).map(|held| held.tag).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn video(timestamp: u32, keyframe: bool) -> Tag {
        let body = if keyframe { &b"\x17\x01\0\0\0k"[..] } else { &b"\x27\x01\0\0\0i"[..] };
        Tag { kind: TagKind::Video, timestamp, body: Bytes::from_static(body) }
    }

    fn header() -> Tag {
        Tag { kind: TagKind::Video, timestamp: 0, body: Bytes::from_static(b"\x17\0\0\0\0h") }
    }

    fn sound(timestamp: u32) -> Tag {
        Tag { kind: TagKind::Audio, timestamp, body: Bytes::from_static(b"\xAF\x01s") }
    }

    /// What goes on of tags with their arrivals, by timestamps.
    fn goes_on(splice: &mut Held, tags: impl IntoIterator<Item = (Tag, u64)>) -> Vec<u32> {
        let (mut seen, mut done) = (Vec::new(), false);
        for (tag, now_ms) in tags {
            if done {
                seen.push(tag.timestamp);
                continue;
            }
            let (tags, over) = splice.take(tag, now_ms);
            seen.extend(tags.iter().map(|tag| tag.timestamp));
            done = over;
        }
        seen
    }

    /// 25 pictures a second from a cached GOP of `cached_ms` on, which comes at once at 10 s; a keyframe each second.
    fn stream(cached_ms: u32, until_ms: u32) -> impl Iterator<Item = (Tag, u64)> {
        let frames = (0..until_ms).step_by(40).map(move |at| {
            let arrived_ms = 10_000 + u64::from(at.saturating_sub(cached_ms));
            (video(at, at % 1000 == 0), arrived_ms)
        });
        [(header(), 10_000)].into_iter().chain(frames)
    }

    #[test]
    fn what_was_missed_of_the_kept_gop_is_given() {
        let seen = goes_on(&mut Held::new(9000), stream(600, 2000));
        assert_eq!((seen[0], seen[1], seen[2], seen.len()), (0, 0, 40, 51));
    }

    #[test]
    fn what_players_have_had_is_not_given_again() {
        // 200 ms are missing, and 600 ms come at once: 400 of them are old.
        let seen = goes_on(&mut Held::new(9800), stream(600, 2000));
        assert_eq!((seen[0], seen[1], seen[2]), (0, 1000, 1040));
    }

    #[test]
    fn a_later_keyframe_of_what_is_kept_may_do() {
        // With what is kept come two keyframes, of which one is young enough.
        let seen = goes_on(&mut Held::new(9500), stream(1300, 3000));
        assert_eq!((seen[0], seen[1], seen[2]), (0, 1000, 1040));
    }

    /// Sound comes between pictures, and behind the newest one.
    #[test]
    fn sound_beside_pictures_changes_nothing() {
        for (lost_ms, first) in [(9000, 0), (9800, 1000)] {
            let with_sound = stream(600, 2000).flat_map(|(tag, at_ms)| {
                let beside = sound(tag.timestamp + 10);
                [(tag, at_ms), (beside, at_ms + 7)]
            });
            let seen = goes_on(&mut Held::new(lost_ms), with_sound);
            assert_eq!((seen[0], seen[1], seen[2]), (0, first, if first == 0 { 10 } else { 1010 }));
        }
    }

    #[test]
    fn a_stream_without_video_goes_on_soon() {
        let sounds = (0..2000).step_by(20).map(|at| (sound(at), 10_000 + u64::from(at)));
        let seen = goes_on(&mut Held::new(9800), sounds);
        assert_eq!((seen[0], seen[1]), (500, 520));
    }

    #[test]
    fn what_is_held_is_bounded() {
        let large = || Tag { body: [&b"\x27\x01\0\0\0"[..], &vec![0; 1 << 20]].concat().into(), ..video(1, false) };
        let mut splice = Held::new(0);
        assert!(splice.take(video(0, true), 10_000).0.is_empty());
        for _ in 0..64 {
            assert!(splice.take(large(), 10_000).0.is_empty());
            assert!(splice.held_bytes <= HELD_BYTES_MAX);
        }
        assert_eq!(goes_on(&mut splice, [(video(7, true), 10_001), (sound(8), 10_002)]), [7, 8]);
    }

    /// What goes on by times, of tags one after the other.
    fn by_time(times: [Option<u32>; 2], tags: &[Tag]) -> (Vec<u32>, bool) {
        let mut splice = Splice::by_time(Last { came_ms: 0, times });
        let (mut seen, mut done, mut anew) = (Vec::new(), false, false);
        for tag in tags {
            let taken = if done {
                Taken { tags: SmallVec::from_iter([tag.clone()]), ..Taken::default() }
            } else {
                splice.take(tag.clone(), 0)
            };
            seen.extend(taken.tags.iter().map(|tag| tag.timestamp));
            (done, anew) = (done || taken.done, anew || taken.anew);
        }
        (seen, anew)
    }

    #[test]
    fn times_that_go_on_are_followed_frame_by_frame() {
        let frames: Vec<Tag> = (1000..1400).step_by(40).map(|at| video(at, at == 1000)).collect();
        // Players have had everything up to 1200: the kept GOP goes back behind that.
        assert_eq!(by_time([None, Some(1200)], &frames), (vec![1240, 1280, 1320, 1360], false));
        // It begins behind what they have had: at its keyframe.
        assert_eq!(by_time([None, Some(900)], &frames).0[0], 1000);
        // Nothing is kept, and something is missing: the next keyframe.
        let later = [video(1400, false), sound(1410), video(1440, false), video(2000, true), video(2040, false)];
        assert_eq!(by_time([Some(1200), Some(1200)], &later), (vec![1410, 2000, 2040], false));
        // Sound alone.
        assert_eq!(by_time([Some(1200), None], &[sound(1190), sound(1210)]), (vec![1210], false));
    }

    #[test]
    fn another_timeline_begins_anew() {
        let frames = [video(10, false), sound(20), video(40, true), video(80, false)];
        assert_eq!(by_time([Some(9_000_000), Some(9_000_000)], &frames), (vec![40, 80], true));
    }
}
