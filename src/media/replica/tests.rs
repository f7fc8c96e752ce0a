use super::*;
use crate::{
    media::{Kind, LOG_BYTES_MAX},
    proto::{codec::inspect, flv::Tag},
};
use bytes::Bytes;

mod short;

const SETTINGS: Settings = Settings::DEFAULT;

const METADATA: &[u8] = b"\x02\x00\x0AonMetaData\x08\0\0\0\x01\0\x0Cvideocodecid\0\x40\x1C\0\0\0\0\0\0\0\0\x09";
const VIDEO_HEADER: &[u8] = &[0x17, 0];
const AUDIO_HEADER: &[u8] = &[0xAF, 0];
const KEY: &[u8] = &[0x17, 1];
const INTER: &[u8] = &[0x27, 1];
const AUDIO: &[u8] = &[0xAF, 1];

fn entry(kind: TagKind, body: &[u8], time_ms: i64) -> Entry {
    let body = Bytes::copy_from_slice(body);
    let info = inspect(kind, &body);
    let arrived_ms = time_ms.cast_unsigned();
    Entry { tag: Tag { kind, timestamp: truncate(time_ms), body }, info, time_ms, delta_ms: 0, arrived_ms }
}

fn push(replica: &mut Replica, tags: &[(TagKind, &[u8], i64)]) {
    tags.iter().for_each(|(kind, body, time_ms)| replica.push(entry(*kind, body, *time_ms)));
}

fn headers(replica: &mut Replica) {
    use TagKind::{Audio, Script, Video};
    push(replica, &[(Script, METADATA, 0), (Video, VIDEO_HEADER, 0), (Audio, AUDIO_HEADER, 0)]);
}

/// A publish with a GOP of 25 video tags of 40 ms from each of `keys`, in seconds, audio between.
fn gops(replica: &mut Replica, keys: std::ops::Range<i64>) {
    for second in keys {
        for at in 0..25 {
            let time_ms = second * 1000 + at * 40;
            push(
                replica,
                &[(TagKind::Video, if at == 0 { KEY } else { INTER }, time_ms), (TagKind::Audio, AUDIO, time_ms + 7)],
            );
        }
    }
}

fn live() -> Replica {
    let mut replica = Replica::new(SETTINGS, 0, 0);
    replica.schedule.add(1, 0);
    replica.begin(Snapshot::default());
    headers(&mut replica);
    replica
}

/// Steps until the replica says `Wait`; names what happened.
fn run(replica: &Replica, subscription: &mut Subscription, now_ms: u64) -> Vec<String> {
    let mut steps = Vec::new();
    loop {
        let step = match replica.step(subscription, now_ms) {
            Step::Wait => return steps,
            Step::Start { headers, again } => format!("start headers={} again={again}", headers.iter().count()),
            Step::Skipped { headers } => format!("skipped headers={}", headers.iter().count()),
            Step::End { silent } => if silent { "end, silent" } else { "end" }.to_owned(),
            Step::Entries(range) => {
                let newest = replica.log().range(range.clone()).map(|entry| entry.time_ms).max().unwrap();
                subscription.advance(range.end, newest);
                format!("entries {}..{}", range.start, range.end)
            }
        };
        steps.push(step);
    }
}

/// C9: a player that came before its publisher gets everything from the first tag on.
#[test]
fn c9_who_waits_gets_the_first_gop_whole() {
    let mut replica = Replica::new(SETTINGS, 0, 0);
    let mut subscription = replica.subscribe();
    replica.schedule.add(1, 0);
    assert!(run(&replica, &mut subscription, 0).is_empty());
    replica.begin(Snapshot::default());
    headers(&mut replica);
    push(&mut replica, &[(TagKind::Audio, AUDIO, 5)]);
    assert!(run(&replica, &mut subscription, 5).is_empty(), "no media before the first keyframe");
    push(&mut replica, &[(TagKind::Video, KEY, 20)]);
    assert_eq!(run(&replica, &mut subscription, 20), ["start headers=0 again=false", "entries 0..5"]);
    assert_eq!((subscription.time_of(5), subscription.time_of(20)), (0, 15), "the first media tag stands at 0");
}

/// Late joiners start with metadata, sequence headers and the newest keyframe, at time 0.
#[test]
fn late_joiner_starts_at_the_newest_keyframe() {
    let mut replica = live();
    gops(&mut replica, 0..3);
    let mut subscription = replica.subscribe();
    assert_eq!(run(&replica, &mut subscription, 3000), ["start headers=3 again=false", "entries 103..153"]);
    assert_eq!((subscription.time_of(2000), subscription.time_of(2047)), (0, 47));
}

/// Tracks interleave: the clock starts at the earliest of both, so that distances stay.
#[test]
fn the_clock_starts_at_the_earliest_track() {
    let mut replica = live();
    push(&mut replica, &[(TagKind::Video, KEY, 1000), (TagKind::Audio, AUDIO, 980)]);
    gops(&mut replica, 2..3);
    push(&mut replica, &[(TagKind::Video, KEY, 3000), (TagKind::Audio, AUDIO, 2990)]);
    let mut subscription = replica.subscribe();
    run(&replica, &mut subscription, 3000);
    assert_eq!((subscription.time_of(2990), subscription.time_of(3000)), (0, 10));
}

#[test]
fn without_gop_cache_the_newest_data_comes() {
    let mut replica = Replica::new(Settings { gop_cache: false, ..SETTINGS }, 0, 0);
    replica.begin(Snapshot::default());
    headers(&mut replica);
    gops(&mut replica, 0..2);
    let mut subscription = replica.subscribe();
    assert_eq!(run(&replica, &mut subscription, 2000), ["start headers=3 again=false"]);
    assert_eq!(replica.log().range(0..u64::MAX).count(), 0, "nothing is kept for nobody");
    replica.schedule.add(1, subscription.next());
    gops(&mut replica, 2..3);
    assert_eq!(run(&replica, &mut subscription, 3000), ["entries 103..153"]);
}

#[test]
fn audio_only_and_video_only_streams_play() {
    let mut audio = Replica::new(SETTINGS, 0, 0);
    let mut early = audio.subscribe();
    audio.schedule.add(1, 0);
    audio.begin(Snapshot::default());
    push(&mut audio, &[(TagKind::Audio, AUDIO_HEADER, 0), (TagKind::Audio, AUDIO, 0), (TagKind::Audio, AUDIO, 23)]);
    assert_eq!(run(&audio, &mut early, 23), ["start headers=0 again=false", "entries 0..3"]);
    let mut late = audio.subscribe();
    assert_eq!(run(&audio, &mut late, 23), ["start headers=1 again=false"]);
    push(&mut audio, &[(TagKind::Audio, AUDIO, 46)]);
    assert_eq!(run(&audio, &mut late, 46), ["entries 3..4"]);
    let mut video = Replica::new(SETTINGS, 0, 0);
    video.schedule.add(1, 0);
    video.begin(Snapshot::default());
    push(&mut video, &[(TagKind::Video, VIDEO_HEADER, 0), (TagKind::Video, KEY, 0), (TagKind::Video, INTER, 40)]);
    let mut joiner = video.subscribe();
    assert_eq!(run(&video, &mut joiner, 40), ["start headers=0 again=false", "entries 0..3"]);
}

/// A stream with intra refresh has no keyframes: it is bounded and plays all the same.
#[test]
fn a_stream_without_keyframes_is_bounded_and_plays() {
    let mut replica = Replica::new(SETTINGS, 0, 0);
    replica.begin(Snapshot::default());
    headers(&mut replica);
    let mut subscription = replica.subscribe();
    for frame in 0..2000 {
        push(&mut replica, &[(TagKind::Video, INTER, frame * 40)]);
    }
    assert!(replica.log().range(0..u64::MAX).count() as u64 <= KEYFRAME_WAIT_TAGS_MAX);
    assert_eq!(run(&replica, &mut subscription, 80_000), ["start headers=3 again=false"]);
    let mut long_gop = Replica::new(Settings { gop_cache_tags_max: 100, ..SETTINGS }, 0, 0);
    long_gop.begin(Snapshot::default());
    gops(&mut long_gop, 0..1);
    for frame in 0..2000 {
        push(&mut long_gop, &[(TagKind::Video, INTER, 1000 + frame * 40)]);
    }
    assert_eq!(long_gop.log().range(0..u64::MAX).count(), 0, "a GOP over the limit is not kept");
}

/// `queue_length`: who falls behind moves to the newest keyframe, whole GOPs are lost, and it counts.
#[test]
fn an_overrun_moves_to_the_newest_keyframe() {
    let mut replica = live();
    gops(&mut replica, 0..1);
    let mut subscription = replica.subscribe();
    run(&replica, &mut subscription, 1000);
    gops(&mut replica, 1..40);
    assert_eq!(run(&replica, &mut subscription, 40_000), ["skipped headers=3", "entries 1953..2003"]);
    assert_eq!(subscription.skips(), 1);
    let class = replica.log().at(1953).unwrap().info.class;
    assert_eq!(class, Class::Keyframe);
}

/// Without a newer keyframe in the log it waits for the next one.
#[test]
fn an_overrun_without_newer_keyframe_waits_for_one() {
    let mut replica = live();
    gops(&mut replica, 0..1);
    let mut subscription = replica.subscribe();
    run(&replica, &mut subscription, 1000);
    for frame in 0..1000 {
        push(&mut replica, &[(TagKind::Video, INTER, 1000 + frame * 40)]);
    }
    assert!(run(&replica, &mut subscription, 41_000).is_empty());
    push(&mut replica, &[(TagKind::Video, INTER, 41_000)]);
    assert!(run(&replica, &mut subscription, 41_000).is_empty());
    push(&mut replica, &[(TagKind::Video, KEY, 41_040)]);
    assert_eq!(run(&replica, &mut subscription, 41_040), ["skipped headers=3", "entries 1054..1055"]);
}

/// The end comes after the last tag; a republish goes on for those who stayed, time included.
#[test]
fn ends_are_told_after_the_last_tag_and_republish_goes_on() {
    let mut replica = live();
    gops(&mut replica, 0..1);
    let mut stays = replica.subscribe();
    let mut slow = replica.subscribe();
    run(&replica, &mut stays, 1000);
    run(&replica, &mut slow, 1000);
    gops(&mut replica, 1..2);
    replica.end(false);
    assert_eq!(run(&replica, &mut stays, 2000), ["entries 53..103", "end"]);
    let mut late = replica.subscribe();
    assert!(run(&replica, &mut late, 2000).is_empty(), "nobody publishes");
    replica.begin(Snapshot::default());
    headers(&mut replica);
    gops(&mut replica, 0..1);
    assert_eq!(run(&replica, &mut stays, 3000), ["start headers=0 again=true", "entries 103..156"]);
    assert_eq!(stays.time_of(0), 1967 + 20, "time goes on");
    assert_eq!(
        run(&replica, &mut slow, 3000),
        ["entries 53..103", "end", "start headers=0 again=true", "entries 103..156"]
    );
}

#[test]
fn the_log_is_cut_to_what_is_needed() {
    let mut replica = live();
    gops(&mut replica, 0..5);
    replica.schedule.remove(1);
    replica.trim();
    assert_eq!((replica.log().first(), replica.log().head()), (203, 253), "one GOP for joiners");
    replica.end(false);
    replica.trim();
    assert_eq!(replica.log().bytes(), 0);
}

/// A publisher whose clock stands still cannot make the log grow.
#[test]
fn the_log_has_a_limit_in_bytes() {
    let mut replica = live();
    gops(&mut replica, 0..1);
    let mut subscription = replica.subscribe();
    run(&replica, &mut subscription, 0);
    let body = [INTER, &[0; 1 << 20]].concat();
    for _ in 0..200 {
        replica.push(entry(TagKind::Video, &body, 1000));
    }
    assert!(replica.log().bytes() <= LOG_BYTES_MAX);
    assert!(run(&replica, &mut subscription, 1000).is_empty() && subscription.skips() == 1);
}

/// A joiner gets the sequence headers as they were at its keyframe, and the change after it.
#[test]
fn sequence_headers_change_in_the_middle() {
    let mut replica = live();
    gops(&mut replica, 0..2);
    push(&mut replica, &[(TagKind::Video, &[0x17, 0, 2], 2000)]);
    let mut subscription = replica.subscribe();
    let Step::Start { headers, .. } = replica.step(&mut subscription, 2000) else { panic!("start") };
    assert_eq!(headers.iter().nth(1).unwrap().tag.body, VIDEO_HEADER);
    gops(&mut replica, 2..3);
    let mut subscription = replica.subscribe();
    let Step::Start { headers, .. } = replica.step(&mut subscription, 2000) else { panic!("start") };
    assert_eq!(headers.iter().nth(1).unwrap().tag.body[..], [0x17, 0, 2]);
}

/// G9: extended headers make the GOP cache and the sequence headers as legacy ones do.
#[test]
fn g9_extended_headers_fill_the_gop_cache() {
    let mut replica = live();
    let start = [&[0x90][..], b"hvc1", &[1]].concat();
    let key = [&[0x91][..], b"hvc1", &[0, 0, 0, 1]].concat();
    let inter = [&[0xA1][..], b"hvc1", &[0, 0, 0, 1]].concat();
    push(&mut replica, &[(TagKind::Video, &start, 0), (TagKind::Video, &key, 0), (TagKind::Video, &inter, 40)]);
    push(&mut replica, &[(TagKind::Video, &key, 80), (TagKind::Video, &inter, 120)]);
    let mut subscription = replica.subscribe();
    assert_eq!(run(&replica, &mut subscription, 120), ["start headers=3 again=false", "entries 6..8"]);
}

/// Setups with a clock of their own (0 at any time) neither hold back nor push the media's.
#[test]
fn setups_with_a_foreign_clock_do_not_move_time() {
    let mut replica = live();
    push(&mut replica, &[(TagKind::Video, KEY, 70_000), (TagKind::Audio, AUDIO, 70_010)]);
    let mut subscription = replica.subscribe();
    run(&replica, &mut subscription, 70_000);
    let before = replica.log().head();
    headers(&mut replica);
    let mut relayed = entry(TagKind::Video, VIDEO_HEADER, 0);
    relayed.time_ms = Entry::BEFORE_MEDIA;
    replica.push(relayed);
    push(&mut replica, &[(TagKind::Video, INTER, 70_040)]);
    let setups: Vec<(i64, u32)> =
        replica.log().range(before..u64::MAX).map(|entry| (entry.time_ms, entry.delta_ms)).collect();
    assert_eq!(setups, [(70_010, 0), (70_010, 10), (70_010, 0), (70_010, 0), (70_040, 30)]);
}

/// However late a waiting player is flushed: it gets the publish from its first keyframe.
#[test]
fn c9_who_waits_starts_at_the_first_keyframe_not_the_newest() {
    for gop_cache in [true, false] {
        let mut replica = Replica::new(Settings { gop_cache, ..SETTINGS }, 0, 0);
        let mut subscription = replica.subscribe();
        replica.schedule.add(1, replica.holds_from(&subscription, 0));
        replica.begin(Snapshot::default());
        headers(&mut replica);
        gops(&mut replica, 0..3);
        replica.trim();
        assert_eq!(run(&replica, &mut subscription, 3000), ["start headers=0 again=false", "entries 0..153"]);
    }
}

/// A GOP longer than `queue_length` still serves late joiners and those who skip to it.
#[test]
fn a_gop_longer_than_the_queue_is_no_lag() {
    let mut replica = Replica::new(Settings { queue_ms_max: 1000, ..SETTINGS }, 0, 0);
    replica.schedule.add(1, 0);
    replica.begin(Snapshot::default());
    gops(&mut replica, 0..1);
    let mut slow = replica.subscribe();
    run(&replica, &mut slow, 1000);
    push(&mut replica, &[(TagKind::Video, INTER, 1000), (TagKind::Video, KEY, 1040)]);
    (1..100).for_each(|frame| push(&mut replica, &[(TagKind::Video, INTER, 1040 + frame * 40)]));
    let mut joiner = replica.subscribe();
    assert_eq!(run(&replica, &mut joiner, 5000), ["start headers=0 again=false", "entries 51..151"]);
    assert_eq!(run(&replica, &mut slow, 5000), ["skipped headers=0", "entries 51..151"]);
    assert_eq!((joiner.skips(), slow.skips()), (0, 1));
}

/// A publisher who takes over and goes before anybody looked: who was not told of the first end is told of the
/// second.
#[test]
fn a_takeover_that_ends_unseen_is_told() {
    let mut replica = live();
    let mut subscription = replica.subscribe();
    gops(&mut replica, 0..1);
    run(&replica, &mut subscription, 1000);
    replica.end(true);
    replica.begin(Snapshot::default());
    headers(&mut replica);
    gops(&mut replica, 1..2);
    replica.end(false);
    let steps = run(&replica, &mut subscription, 2000);
    assert_eq!(steps.iter().filter(|step| step.starts_with("end")).count(), 2, "{steps:?}");
    assert!(run(&replica, &mut subscription, 3000).is_empty(), "once");
}

/// Who does not read holds the log for as long as it may lag, and no longer, though it is never stepped.
#[test]
fn a_stalled_subscription_holds_the_log_for_queue_length_only() {
    let mut replica = Replica::new(Settings { queue_ms_max: 2000, ..SETTINGS }, 350, 0);
    replica.schedule.add(1, 0);
    replica.begin(Snapshot::default());
    headers(&mut replica);
    gops(&mut replica, 0..1);
    let mut subscription = replica.subscribe();
    run(&replica, &mut subscription, 1000);
    for second in 1..30 {
        gops(&mut replica, second..second + 1);
        let now_ms = second.cast_unsigned() * 1000 + 1000;
        let head = replica.log().head();
        replica.schedule.note_change();
        while replica.schedule.begin_flush(now_ms, head, 0) {
            while let Some((member, _)) = replica.schedule.next_member() {
                replica.schedule.flushed(member, Some(replica.holds_from(&subscription, now_ms)));
            }
        }
        replica.trim();
        let kept = replica.log().head() - replica.log().first();
        assert!(kept <= 3 * 50 + 3, "{kept} tags after {second} s");
    }
    let steps = run(&replica, &mut subscription, 30_000);
    assert!(steps[0].starts_with("skipped"), "{steps:?}");
}

#[derive(Debug)]
struct Swollen;

impl crate::media::Render for Swollen {
    fn begin(&mut self, _: &Headers) {}

    fn render(&mut self, _: &Entry) -> Bytes {
        Bytes::from(vec![0; 1 << 20])
    }

    fn note(&self) -> u64 {
        0
    }
}

static SWOLLEN: Kind = Kind { name: "swollen", render: || Box::new(Swollen) };

/// What is made of small entries is bounded though somebody holds them all.
#[test]
fn renditions_are_bounded() {
    let mut replica = Replica::new(Settings::DEFAULT, 0, 0);
    let reader = replica.attach(&SWOLLEN);
    replica.begin(Snapshot::default());
    replica.schedule.add(1, 0);
    for time_ms in 0..200 {
        push(&mut replica, &[(TagKind::Video, INTER, time_ms)]);
    }
    let rendition = replica.rendition(&SWOLLEN).unwrap();
    let (first, head) = (replica.log().first(), replica.log().head());
    assert!(rendition.bytes() <= LOG_BYTES_MAX && head - first > 60, "{first} {head}");
    assert!((first..head).all(|index| rendition.at(index).is_some()) && rendition.at(first - 1).is_none());
    drop(reader);
    replica.drop_unread();
    assert!(replica.rendition(&SWOLLEN).is_none());
}
