use super::*;
use crate::{mesh::ring, proto::flv::TagKind};
use bytes::Bytes;

const SETTINGS: Settings = Settings::DEFAULT;

type TestRelay = Relay<u32, ()>;

impl Cargo for () {
    fn bytes(&self) -> u64 {
        0
    }
}

fn relays(shards: usize) -> Vec<TestRelay> {
    ring::connect(shards).into_iter().map(|mesh| Relay::new(mesh, Arc::default())).collect()
}

/// A key that is at home on `shard` of `shards`.
fn key_at(shard: usize, shards: usize) -> String {
    (0..).map(|n| format!("v/live/{n}")).find(|key| home_of(key, shards) == shard).unwrap()
}

fn tag(body: &[u8], timestamp: u32) -> Tag {
    Tag { kind: TagKind::Video, timestamp, body: Bytes::copy_from_slice(body) }
}

fn exchange(relays: &mut [TestRelay]) {
    for _ in 0..4 {
        for relay in relays.iter_mut() {
            relay.drain_overflow();
            while relay.receive(&mut Vec::new()).is_some() {}
        }
    }
}

fn relayed(relay: &TestRelay) -> u64 {
    relay.stats.tags_relayed.value()
}

/// Fan-out is real: each tag crosses once per interested shard, whatever number of players is there.
#[test]
fn a_tag_crosses_once_per_interested_shard() {
    let mut relays = relays(4);
    let key = key_at(0, 4);
    let home = relays[0].publish(&key, SETTINGS, 7).unwrap();
    for (shard, players) in [(0, 50), (1, 1), (2, 1000)] {
        for player in 0..players {
            let id = relays[shard].open(&key, SETTINGS);
            relays[shard].stream_mut(id).unwrap().replica.schedule.add(player, 0);
        }
    }
    exchange(&mut relays);
    for n in 0..100 {
        relays[0].ingest(home, tag(&[if n % 25 == 0 { 0x17 } else { 0x27 }, 1], n * 40), 0);
        exchange(&mut relays);
    }
    assert_eq!(relayed(&relays[0]), 200, "100 tags to each of the two shards that have players, none to shard 3");
    for shard in [1, 2] {
        let (_, stream) = relays[shard].streams().next().unwrap();
        assert_eq!(stream.replica.log().head(), 100);
    }
    assert_eq!(relays[3].len(), 0);
}

/// A shard that joins late gets the headers and the GOP, and the same start as at home.
#[test]
fn a_late_shard_gets_the_gop() {
    let mut relays = relays(2);
    let key = key_at(0, 2);
    let home = relays[0].publish(&key, SETTINGS, 7).unwrap();
    relays[0].ingest(home, tag(&[0x17, 0], 0), 0);
    for n in 0..60 {
        relays[0].ingest(home, tag(&[if n % 25 == 0 { 0x17 } else { 0x27 }, 1], n * 40), 0);
    }
    let id = relays[1].open(&key, SETTINGS);
    relays[1].stream_mut(id).unwrap().replica.schedule.add(1, 0);
    exchange(&mut relays);
    let replica = &relays[1].stream(id).unwrap().replica;
    assert_eq!((replica.log().head(), replica.headers().iter().count()), (10, 1));
    assert_eq!(relayed(&relays[0]), 10);
    // Who leaves and comes back at once asks for nothing.
    for player in 2..100 {
        relays[1].stream_mut(id).unwrap().replica.schedule.remove(player - 1);
        relays[1].release(id);
        assert_eq!((relays[1].open(&key, SETTINGS), relays[1].ring_entries()), (id, 0));
        relays[1].stream_mut(id).unwrap().replica.schedule.add(player, 0);
    }
    assert_eq!(relayed(&relays[0]), 10);
    relays[0].unpublish(home);
    exchange(&mut relays);
    assert!(!relays[1].stream(id).unwrap().replica.is_live());
}

/// A body that crosses is not copied, and who references it elsewhere counts there.
#[test]
fn bodies_are_shared_and_counted_where_they_are_used() {
    let mut relays = relays(2);
    let key = key_at(0, 2);
    let home = relays[0].publish(&key, SETTINGS, 7).unwrap();
    let body = |first: u8| [&[first, 1][..], &[7; 1000]].concat();
    relays[0].ingest(home, tag(&body(0x17), 0), 0);
    let id = relays[1].open(&key, SETTINGS);
    relays[1].stream_mut(id).unwrap().replica.schedule.add(1, 0);
    exchange(&mut relays);
    relays[0].ingest(home, tag(&body(0x27), 40), 0);
    exchange(&mut relays);
    let bodies = |relay: &TestRelay, id| {
        let log = relay.stream(id).unwrap().replica.log();
        log.range(0..u64::MAX).map(|entry| entry.tag.body.clone()).collect::<Vec<Bytes>>()
    };
    let (at_home, here) = (bodies(&relays[0], home), bodies(&relays[1], id));
    assert_eq!((at_home.len(), here.len()), (2, 2), "one by the snapshot, one as it came");
    assert!(at_home.iter().zip(&here).all(|(home, here)| home.as_ptr() == here.as_ptr() && home == here));
    relays[0].unpublish(home);
    drop(at_home);
    exchange(&mut relays);
    assert!(here[0] == body(0x17) && here[1] == body(0x27), "they outlive the home's");
}

/// Streams leave nothing behind when publisher and players have gone.
#[test]
fn nothing_stays_of_a_stream_that_nobody_needs() {
    let mut relays = relays(2);
    let key = key_at(0, 2);
    for _ in 0..3 {
        let id = relays[1].open(&key, SETTINGS);
        relays[1].stream_mut(id).unwrap().replica.schedule.add(1, 0);
        exchange(&mut relays);
        let home = relays[0].publish(&key, SETTINGS, 7).unwrap();
        assert_eq!(relays[0].publish(&key, SETTINGS, 8), Err(Busy));
        relays[0].unpublish(home);
        relays[1].stream_mut(id).unwrap().replica.schedule.remove(1);
        relays[1].release(id);
        exchange(&mut relays);
        assert!(relays.iter().all(Relay::is_empty));
    }
}

/// A live stream stays for a while on a shard that its players have left; few do, and none for long.
#[test]
fn streams_linger_in_bounds() {
    let mut relays = relays(2);
    let keys: Vec<String> = (0..).map(|n| format!("v/live/{n}")).filter(|key| home_of(key, 2) == 0).take(200).collect();
    for key in &keys {
        relays[0].publish(key, SETTINGS, 7).unwrap();
        let id = relays[1].open(key, SETTINGS);
        relays[1].stream_mut(id).unwrap().replica.schedule.add(1, 0);
        exchange(&mut relays);
        relays[1].stream_mut(id).unwrap().replica.schedule.remove(1);
        relays[1].release(id);
    }
    assert!((1..=64).contains(&relays[1].len()), "{}", relays[1].len());
    relays[1].forget_lingering(500);
    let played = relays[1].open(&keys[199], SETTINGS);
    relays[1].stream_mut(played).unwrap().replica.schedule.add(1, 0);
    relays[1].forget_lingering(999);
    assert!(relays[1].len() > 1 && relays[1].next_linger_ms() == Some(1000));
    relays[1].forget_lingering(1000);
    assert_eq!(relays[1].len(), 1, "the one that is played again");
}

/// The stream that has been due for longest comes first, whatever its place in the table.
#[test]
fn streams_are_due_in_their_order() {
    let mut relays = relays(1);
    let ids: Vec<StreamId> =
        (0..100).map(|n| relays[0].publish(&format!("v/live/{n}"), SETTINGS, 7).unwrap()).collect();
    for id in &ids {
        relays[0].stream_mut(*id).unwrap().replica.schedule.add(1, 0);
    }
    // The last ones come to be due first.
    ids.iter().rev().zip(1000..).for_each(|(id, now_ms)| relays[0].arm(*id, now_ms));
    assert_eq!(relays[0].next_due_ms(), Some(1000));
    let order: Vec<Timer> = std::iter::from_fn(|| relays[0].take_due(2000)).map(|(timer, _)| timer).collect();
    assert_eq!(order, ids.into_iter().rev().map(Timer::Flush).collect::<Vec<_>>());
    assert_eq!(relays[0].next_due_ms(), None);
}

/// What is on its way for an old subscription does not reach a new one.
#[test]
fn an_old_subscription_s_tags_are_dropped() {
    let mut relays = relays(2);
    let key = key_at(0, 2);
    let home = relays[0].publish(&key, SETTINGS, 7).unwrap();
    let id = relays[1].open(&key, SETTINGS);
    relays[0].receive(&mut Vec::new());
    relays[0].ingest(home, tag(&[0x17, 1], 0), 0);
    relays[1].forget(id);
    let again = relays[1].open(&key, SETTINGS);
    relays[1].receive(&mut Vec::new());
    assert_eq!(relays[1].stream(again).unwrap().replica.log().head(), 0);
    exchange(&mut relays);
    assert_eq!(relays[1].stream(again).unwrap().replica.log().head(), 1, "by the new subscription");
}

/// A full ring costs tags up to the next keyframe, of that shard only, and nothing waits for it.
#[test]
fn a_full_ring_makes_a_gap_up_to_the_next_keyframe() {
    let mut relays = relays(2);
    let key = key_at(0, 2);
    let home = relays[0].publish(&key, SETTINGS, 7).unwrap();
    let id = relays[1].open(&key, SETTINGS);
    relays[1].stream_mut(id).unwrap().replica.schedule.add(1, 0);
    exchange(&mut relays);
    let body = |n: u32| [if n.is_multiple_of(500) { 0x17 } else { 0x27 }, 1];
    let room = u32::try_from(ring::RING_ENTRIES + ring::OVERFLOW_ENTRIES_MAX).unwrap();
    (0..room + 100).for_each(|n| relays[0].ingest(home, tag(&body(n), n), 0));
    (0..40).for_each(|_| exchange(&mut relays));
    (room + 100..room + 1600).for_each(|n| relays[0].ingest(home, tag(&body(n), n), 0));
    (0..4).for_each(|_| exchange(&mut relays));
    let replica = &relays[1].stream(id).unwrap().replica;
    let times: Vec<i64> = replica.log().range(0..u64::MAX).map(|entry| entry.time_ms).collect();
    let jump = times.windows(2).find(|pair| pair[1] != pair[0] + 1).unwrap();
    assert_eq!(jump[0], i64::from(room) - 1);
    assert_eq!((jump[1] % 500, *times.last().unwrap()), (0, i64::from(room) + 1599), "goes on at a keyframe");
    assert!(relays[0].stats.gaps.value() > 0);
}

/// A publisher rests as long as nobody is late by it.
#[test]
fn publishers_rest_between_reads_unless_somebody_waits_for_every_tag() {
    let with = |mw_latency_ms| Settings { mw_latency_ms, ..SETTINGS };
    let pause = |publishers: usize, settings: Settings, here: bool, there_ms: Option<u64>| {
        let mut relays = relays(2);
        let keys = (0..).map(|n| format!("v/live/{n}")).filter(|key| home_of(key, 2) == 0).take(publishers);
        let mut homes: Vec<(String, StreamId)> = Vec::new();
        for key in keys {
            let home = relays[0].publish(&key, settings, 7).unwrap();
            homes.push((key, home));
        }
        let (key, home) = homes.remove(0);
        if here {
            relays[0].stream_mut(home).unwrap().replica.schedule.add(1, 0);
        }
        if let Some(pace_ms) = there_ms {
            relays[1].set_pace(pace_ms);
            let id = relays[1].open(&key, settings);
            relays[1].stream_mut(id).unwrap().replica.schedule.add(1, 0);
            exchange(&mut relays);
        }
        relays[0].read_pause_ms(home)
    };
    assert_eq!(pause(1000, with(Some(350)), false, None), 100, "nobody plays");
    assert_eq!(pause(1000, with(Some(350)), true, None), 40);
    assert_eq!(pause(1000, with(Some(100)), true, None), 12);
    assert_eq!(pause(1000, with(Some(0)), true, None), 0);
    assert_eq!(pause(1000, with(Some(0)), false, None), 100);
    assert_eq!(pause(1000, with(None), true, None), 0, "auto, idle shard");
    assert_eq!(pause(1000, with(None), false, Some(0)), 0, "auto, players on another idle shard");
    assert_eq!(pause(1000, with(None), false, Some(200)), 40, "auto, players on another busy shard");
    assert_eq!(
        [pause(1, with(Some(350)), true, None), pause(100, with(Some(350)), true, None)],
        [0, 20],
        "few publishers"
    );
}

/// Ids are a shard's own: when one shard has no players any more, those of another go on.
#[test]
fn a_shard_that_leaves_takes_nobody_else_with_it() {
    let mut relays = relays(4);
    let key = key_at(0, 4);
    let home = relays[0].publish(&key, SETTINGS, 7).unwrap();
    let ids: Vec<StreamId> = (1..4).map(|shard| relays[shard].open(&key, SETTINGS)).collect();
    for (shard, id) in [(2, ids[1]), (3, ids[2])] {
        relays[shard].stream_mut(id).unwrap().replica.schedule.add(1, 0);
    }
    exchange(&mut relays);
    relays[1].release(ids[0]);
    exchange(&mut relays);
    relays[0].ingest(home, tag(&[0x17, 1], 0), 0);
    exchange(&mut relays);
    for (shard, id) in [(2, ids[1]), (3, ids[2])] {
        assert_eq!(relays[shard].stream(id).unwrap().replica.log().head(), 1, "shard {shard}");
    }
}
