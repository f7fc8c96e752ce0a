use super::*;
use futures_lite::future;
use std::{future::poll_fn, time::Duration};

const PATIENCE: Duration = Duration::from_secs(60);

impl Cargo for u32 {
    /// Small numbers are messages without media.
    fn bytes(&self) -> u64 {
        if *self < 1 << 20 { 0 } else { u64::from(*self) }
    }
}

#[test]
fn messages_keep_their_order_through_overflow() {
    let mut meshes = connect::<u32>(2);
    let [a, b] = &mut meshes[..] else { panic!("two shards") };
    let room = u32::try_from(RING_ENTRIES + OVERFLOW_ENTRIES_MAX).unwrap();
    (0..room).for_each(|n| assert!(a.try_send(1, n)));
    assert!(a.is_blocked() && !a.try_send(1, 9999) && a.take_congested().is_none());
    a.send(1, room);
    assert!(a.take_congested() == Some(1) && a.take_congested().is_none());
    let mut seen = Vec::new();
    while seen.len() <= room as usize {
        while let Some((from, n)) = b.receive() {
            assert_eq!(from, 0);
            seen.push(n);
        }
        a.drain_overflow();
    }
    assert_eq!(seen, (0..=room).collect::<Vec<_>>());
    assert!(!a.is_blocked() && a.try_send(1, 9999));
}

/// A lane that holds too many bytes drops tags, and takes them again when they have been received.
#[test]
fn bytes_on_their_way_are_bounded() {
    let mut meshes = connect::<u32>(2);
    let [a, b] = &mut meshes[..] else { panic!("two shards") };
    let half = u32::try_from(LANE_BYTES_MAX / 2).unwrap();
    assert!(a.try_send(1, half) && a.try_send(1, half) && a.try_send(1, half) && !a.try_send(1, 1));
    assert!(a.is_full(1) && !a.is_blocked());
    b.receive();
    assert!(a.try_send(1, 1) && a.is_full(1));
    b.receive();
    b.receive();
    assert!(!a.is_full(1) && a.take_crowded() == Some(1));
}

/// Who sends much does not keep the others waiting.
#[test]
fn shards_have_their_turns() {
    let mut meshes = connect::<u32>(3);
    (0..1000).for_each(|n| assert!(meshes[0].try_send(2, n)));
    assert!(meshes[1].try_send(2, 7));
    let first = (0..=IN_A_ROW_MAX).map(|_| meshes[2].receive().unwrap().0).position(|from| from == 1);
    assert_eq!(first, Some(IN_A_ROW_MAX));
}

/// What waits in a ring that was too small comes before what stands in its successors.
#[test]
fn rings_grow_and_keep_the_order() {
    let mut meshes = connect::<u32>(2);
    let [a, b] = &mut meshes[..] else { panic!("two shards") };
    let mut next = (0, 0);
    for count in [1, 14, 1, 2, 60, 200, 3, 1000, 1024, 5] {
        (0..count).for_each(|n| assert!(a.try_send(1, next.0 + n)));
        next.0 += count;
        assert_eq!(a.entries(), (next.0 - next.1) as usize);
        // All but one, so that no ring is ever empty when the next one comes.
        while next.1 + 1 < next.0 {
            a.drain_overflow();
            assert_eq!(b.receive(), Some((0, next.1)));
            next.1 += 1;
        }
    }
    assert_eq!((b.receive(), b.receive(), a.entries()), (Some((0, next.1)), None, 0));
    // And shrink.
    for n in 0..200 {
        a.shrink();
        a.send(1, n);
        assert_eq!(b.receive(), Some((0, n)));
    }
}

/// Many shards at once, each with a thread of its own that sleeps when nothing is said to be there: everything
/// arrives once and in its order, and nobody sleeps for good.
#[test]
fn nothing_is_lost_between_threads() {
    let (shards, rounds) = (7, 20_000);
    let (tell, told) = std::sync::mpsc::channel();
    for mesh in connect::<u32>(shards) {
        let tell = tell.clone();
        std::thread::spawn(move || {
            let me = mesh.me();
            let counts = talk(mesh, rounds);
            tell.send((me, counts)).unwrap();
        });
    }
    for _ in 0..shards {
        let (me, counts) = told.recv_timeout(PATIENCE).expect("somebody sleeps for good");
        assert_eq!(counts, vec![rounds; shards], "messages that shard {me} has got");
    }
}

/// Sends `rounds` messages to every other shard, in rounds of changing sizes, and takes what comes until it has as
/// many of each. Returns how many it has got.
fn talk(mut mesh: Mesh<u32>, rounds: u32) -> Vec<u32> {
    let (me, shards) = (mesh.me(), mesh.shards());
    let (mut sent, mut got) = (vec![0; shards], vec![0; shards]);
    // Nothing is to come from itself.
    (sent[me], got[me]) = (rounds, rounds);
    let mut random = fastrand::Rng::with_seed(me as u64);
    let wakers = Arc::clone(mesh.wakers());
    while sent.iter().chain(&got).any(|count| *count < rounds) || mesh.is_blocked() {
        let to = random.usize(..shards);
        for _ in 0..random.u32(..40).min(rounds - sent[to]) {
            // Now and then as tags are: nobody is woken.
            if random.bool() && mesh.try_send(to, sent[to]) {
                sent[to] += 1;
            } else {
                mesh.send(to, sent[to]);
                sent[to] += 1;
            }
        }
        if sent[to] == rounds {
            mesh.wake(to);
        }
        mesh.drain_overflow();
        for _ in 0..random.u32(..200) {
            let Some((from, n)) = mesh.receive() else {
                if sent.iter().all(|sent| *sent == rounds) && !mesh.is_blocked() && got.iter().any(|got| *got < rounds)
                {
                    future::block_on(poll_fn(|cx| wakers[me].poll(cx)));
                }
                break;
            };
            assert_eq!(n, got[from], "from shard {from} to {me}");
            got[from] += 1;
        }
    }
    got
}

/// A message wakes who sleeps, and is seen by who is about to: one goes to and fro, and meets its receiver in the
/// middle of its looks.
#[test]
fn a_message_wakes_its_receiver() {
    const HOPS: u32 = 300_000;
    let (tell, told) = std::sync::mpsc::channel();
    for mut mesh in connect::<u32>(2) {
        let tell = tell.clone();
        std::thread::spawn(move || {
            let (me, wakers) = (mesh.me(), Arc::clone(mesh.wakers()));
            let mut random = fastrand::Rng::with_seed(me as u64);
            if me == 0 {
                mesh.send(1, 1);
            }
            loop {
                let mut looks = random.u32(1..200);
                while looks > 0 {
                    looks -= 1;
                    let Some((from, hop)) = mesh.receive() else { continue };
                    mesh.send(from, hop + 1);
                    if hop >= HOPS {
                        return tell.send(hop).unwrap();
                    }
                    looks = random.u32(1..200);
                }
                future::block_on(poll_fn(|cx| wakers[me].poll(cx)));
            }
        });
    }
    for _ in 0..2 {
        told.recv_timeout(PATIENCE).expect("somebody sleeps for good");
    }
}
