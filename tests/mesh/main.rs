//! What rings and streams take on many shards, by an allocator that counts.

#![expect(unsafe_code, clippy::unwrap_used, reason = "an allocator is; a failure is a panic")]

use bytes::Bytes;
use corecast::{
    media::Settings,
    mesh::{
        relay::{Message, Relay},
        ring::{Cargo, Mesh, connect, slot_bytes},
        seats::{Seat, Seats},
    },
    proto::flv::{Tag, TagKind},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is the system's; what is added counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as asked.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as asked.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// As large as what a server adds.
#[derive(Debug)]
struct Server(#[expect(dead_code, reason = "it is large")] [u64; 11]);

impl Cargo for Server {
    fn bytes(&self) -> u64 {
        0
    }
}

type Meshes = Vec<Mesh<Message<Server>>>;

/// Every shard sends every other one so many messages, which are taken in turn.
fn talk(meshes: &mut Meshes, messages: usize) {
    for from in 0..meshes.len() {
        for to in (0..meshes.len()).filter(|to| *to != from) {
            (0..messages).for_each(|_| meshes[from].send(to, Message::Server(Server([0; 11]))));
            (0..messages).for_each(|_| assert!(meshes[to].receive().is_some()));
        }
    }
}

fn allocated_mib() -> f64 {
    ALLOCATED.load(Ordering::Relaxed) as f64 / f64::from(1 << 20)
}

/// One test, since all threads are counted together.
#[test]
fn memory_follows_what_is_sent() {
    rings_follow_what_is_sent();
    cold_streams_are_kept_once();
}

/// Before anything is said and after everybody has spoken with
/// everybody, here and there more than a little.
fn rings_follow_what_is_sent() {
    for (shards, idle_mib, used_mib) in [(64, 8, 16), (128, 32, 64)] {
        let before = allocated_mib();
        let mib = || allocated_mib() - before;
        let mut meshes: Meshes = connect(shards);
        let idle = mib();
        talk(&mut meshes, 10);
        let used = mib();
        talk(&mut meshes, 200);
        let busy = mib();
        for _ in 0..60 {
            meshes.iter_mut().for_each(Mesh::shrink);
            assert!(meshes.iter_mut().all(|mesh| mesh.receive().is_none()));
        }
        let (calm, bytes) = (mib(), slot_bytes::<Message<Server>>());
        println!(
            "{shards} shards, {bytes} bytes: {idle:.1} MiB idle, {used:.1} used, {busy:.1} after bursts of 200, \
             {calm:.1} a minute later"
        );
        assert!(idle < f64::from(idle_mib), "{shards} shards: {idle} MiB");
        assert!(used < f64::from(used_mib) && calm < f64::from(used_mib), "{shards} shards: {used}, {calm} MiB");
    }
}

/// Sixteen shards with streams of two players each, who come in anywhere.
struct Cold {
    relays: Vec<Relay<u32, Server>>,
    seats: Vec<Seat>,
    replicas: usize,
}

impl Cold {
    const SHARDS: usize = 16;

    /// With `seats`, players go home as a server's do.
    fn new(streams: usize, players: usize, seats: Option<&Arc<Seats>>) -> Self {
        let relays = connect(Self::SHARDS).into_iter().map(|mesh| Relay::new(mesh, Arc::default())).collect();
        let mut cold = Self { relays, seats: Vec::new(), replicas: 0 };
        let mut homes = Vec::new();
        for number in 0..streams {
            let key = format!("v/live/{number}");
            let home = cold.relays[0].home_of(&key);
            homes.push((home, cold.relays[home].publish(&key, Settings::DEFAULT, 0).unwrap()));
            for player in 0..players {
                let mut shard = (number * 7 + player * 5) % Self::SHARDS;
                if let Some(home) = cold.relays[shard].better_home(&key)
                    && let Some(seat) = seats.and_then(|seats| seats.take(&key))
                {
                    cold.seats.push(seat);
                    shard = home;
                }
                let id = cold.relays[shard].open(&key, Settings::DEFAULT);
                cold.relays[shard].stream_mut(id).unwrap().replica.schedule.add(player as u64, 0);
            }
        }
        cold.exchange();
        // Two seconds of 400 kbit/s. The media is the same for all, and counts for nothing here.
        let (picture, sound) = (vec![0x27; 1500], vec![0xAF; 250]);
        let [key, picture, sound] = [[&[0x17, 1], &picture[2..]].concat(), picture, sound].map(Bytes::from);
        for frame in 0..50 {
            for &(home, id) in &homes {
                let body = if frame == 0 { key.clone() } else { picture.clone() };
                cold.relays[home].ingest(id, Tag { kind: TagKind::Video, timestamp: frame * 40, body }, 0);
                let body = sound.clone();
                cold.relays[home].ingest(id, Tag { kind: TagKind::Audio, timestamp: frame * 40, body }, 0);
            }
            cold.exchange();
        }
        cold.replicas = cold.relays.iter().map(Relay::len).sum::<usize>() - streams;
        cold
    }

    fn exchange(&mut self) {
        for _ in 0..3 {
            for relay in &mut self.relays {
                relay.drain_overflow();
                while relay.receive(&mut Vec::new()).is_some() {}
            }
        }
    }
}

/// Streams that few play are kept once, those that many play everywhere.
fn cold_streams_are_kept_once() {
    const STREAMS: usize = 20_000;
    let mut taken = Vec::new();
    for seats in [None, Some(Arc::new(Seats::default()))] {
        let before = allocated_mib();
        let cold = Cold::new(STREAMS, 2, seats.as_ref());
        let mib = allocated_mib() - before;
        println!(
            "{STREAMS} streams, seats {}: {mib:.0} MiB without media, {} replicas away from home, {} players moved",
            seats.is_some(),
            cold.replicas,
            cold.seats.len()
        );
        taken.push((mib, cold.replicas));
    }
    let [(spread_mib, spread), (home_mib, home)] = taken[..] else { panic!("two ways") };
    assert!(home < spread / 10 && home_mib < 0.6 * spread_mib, "{taken:?}");
    let hot = Cold::new(100, 200, Some(&Arc::new(Seats::default())));
    assert_eq!(hot.replicas, 100 * (Cold::SHARDS - 1), "hot ones are on every shard");
}
