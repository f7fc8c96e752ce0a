//! Publishes that are short, come to nothing, or lie.

use super::*;

/// What a subscription gets: every entry's index.
fn taken(replica: &Replica, subscription: &mut Subscription, now_ms: u64) -> Vec<u64> {
    let mut indexes = Vec::new();
    loop {
        match replica.step(subscription, now_ms) {
            Step::Wait => return indexes,
            Step::Entries(range) => {
                indexes.extend(range.clone());
                subscription.advance(range.end, 0);
            }
            Step::Start { .. } | Step::Skipped { .. } | Step::End { .. } => {}
        }
    }
}

/// A publish may be over before anybody is flushed: who was there gets it whole, and its end.
#[test]
fn a_publish_shorter_than_a_flush_is_played_whole() {
    let mut replica = Replica::new(SETTINGS, 0, 0);
    let mut early = replica.subscribe();
    replica.schedule.add(1, replica.holds_from(&early, 0));
    replica.begin(Snapshot::default());
    headers(&mut replica);
    // Its headers have come, and no media yet.
    let mut after_headers = replica.subscribe();
    replica.schedule.add(2, replica.holds_from(&after_headers, 0));
    gops(&mut replica, 0..1);
    let mut late = replica.subscribe();
    replica.schedule.add(3, replica.holds_from(&late, 0));
    gops(&mut replica, 1..2);
    replica.end(false);
    let mut too_late = replica.subscribe();
    replica.trim();
    for (subscription, name) in [(&mut early, "early"), (&mut after_headers, "after the headers")] {
        let steps = run(&replica, subscription, 1000);
        assert_eq!(steps, ["start headers=0 again=false", "entries 0..103", "end"], "{name}");
    }
    assert_eq!(run(&replica, &mut late, 1000), ["start headers=3 again=false", "entries 53..103", "end"]);
    assert!(run(&replica, &mut too_late, 1000).is_empty());
    assert_eq!(early.newest_ms, after_headers.newest_ms);
}

/// Two publishes may come and go before a flush: both are played, with both ends.
#[test]
fn publishes_that_follow_each_other_at_once_are_all_played() {
    let mut replica = Replica::new(SETTINGS, 0, 0);
    let mut subscription = replica.subscribe();
    replica.schedule.add(1, 0);
    for _ in 0..2 {
        replica.begin(Snapshot::default());
        headers(&mut replica);
        gops(&mut replica, 0..1);
        replica.end(false);
    }
    replica.begin(Snapshot::default());
    headers(&mut replica);
    gops(&mut replica, 0..1);
    let steps = run(&replica, &mut subscription, 1000);
    let again = "start headers=0 again=true";
    let expected = [
        "start headers=0 again=false",
        "entries 0..53",
        "end",
        again,
        "entries 53..106",
        "end",
        again,
        "entries 106..159",
    ];
    assert_eq!(steps, expected);
}

/// Ends of publishes are bounded, and those of nothing are one.
#[test]
fn ends_are_bounded() {
    let mut replica = Replica::new(SETTINGS, 0, 0);
    let mut subscription = replica.subscribe();
    replica.schedule.add(1, 0);
    replica.begin(Snapshot::default());
    headers(&mut replica);
    gops(&mut replica, 0..1);
    for round in 0..10_000 {
        replica.end(round % 2 == 0);
        replica.begin(Snapshot::default());
    }
    assert!(replica.ends.len() <= ENDS_MAX);
    headers(&mut replica);
    gops(&mut replica, 0..1);
    let last: Vec<u64> = (replica.log.head() - 53..replica.log.head()).collect();
    assert!(taken(&replica, &mut subscription, 1000).ends_with(&last));
    // Publishes of nothing after one of something cost it nothing.
    let mut waiting = replica.subscribe();
    replica.end(false);
    replica.begin(Snapshot::default());
    gops(&mut replica, 5..6);
    for _ in 0..1000 {
        replica.end(false);
        replica.begin(Snapshot::default());
    }
    assert_eq!(taken(&replica, &mut waiting, 6000).len(), 53 + 50, "the GOP at hand, and what followed");
}

/// Metadata may promise video that never comes: audio goes on after two seconds of it, or of waiting.
#[test]
fn promised_video_is_waited_for_two_seconds() {
    let promised = || {
        let mut replica = Replica::new(SETTINGS, 0, 0);
        replica.schedule.add(1, 0);
        let subscription = replica.subscribe();
        replica.begin(Snapshot::default());
        push(&mut replica, &[(TagKind::Script, METADATA, 0), (TagKind::Audio, AUDIO_HEADER, 0)]);
        (replica, subscription)
    };
    let (mut replica, mut subscription) = promised();
    for at in 0..20 {
        push(&mut replica, &[(TagKind::Audio, AUDIO, at * 100)]);
        assert!(run(&replica, &mut subscription, 0).is_empty(), "at {at}");
    }
    push(&mut replica, &[(TagKind::Audio, AUDIO, 2000)]);
    assert_eq!(run(&replica, &mut subscription, 0), ["start headers=0 again=false", "entries 0..23"]);
    // By the clock, though next to nothing has come.
    let (mut replica, mut subscription) = promised();
    push(&mut replica, &[(TagKind::Audio, AUDIO, 0)]);
    assert!(replica.expects_video_only() && run(&replica, &mut subscription, 1999).is_empty());
    assert_eq!(run(&replica, &mut subscription, 2000), ["start headers=0 again=false", "entries 0..3"]);
    // A late joiner does not wait again.
    let mut late = replica.subscribe();
    assert_eq!(run(&replica, &mut late, 2500)[0], "start headers=2 again=false");
}

/// Entries without bodies count too, and so do setups.
#[test]
fn what_a_publisher_sends_is_bounded_in_what_it_takes() {
    let mut replica = live();
    (0..200_000).for_each(|at| push(&mut replica, &[(TagKind::Audio, b"", at)]));
    assert!(replica.log.range(0..u64::MAX).count() <= crate::media::LOG_ENTRIES_MAX);
    let large = [&[0x17, 0][..], &vec![0; HEADERS_BYTES_MAX]].concat();
    assert!(replica.headers().has(TagKind::Video));
    push(&mut replica, &[(TagKind::Video, &large, 0)]);
    assert!(!replica.headers().has(TagKind::Video), "a stale setup is worse than none");
    assert!(replica.headers().bytes() <= HEADERS_BYTES_MAX);
}
