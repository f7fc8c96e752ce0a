//! What the rings between many shards take, by an allocator that counts.

#![expect(unsafe_code, reason = "an allocator is")]

use corecast::mesh::{
    relay::Message,
    ring::{Cargo, Mesh, connect, slot_bytes},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
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

/// One test, since all threads are counted together. Before anything is said and after everybody has spoken with
/// everybody, here and there more than a little.
#[test]
fn memory_follows_what_is_sent() {
    for (shards, idle_mib, used_mib) in [(64, 8, 16), (128, 32, 64)] {
        let before = ALLOCATED.load(Ordering::Relaxed);
        let mib = || (ALLOCATED.load(Ordering::Relaxed) - before) as f64 / f64::from(1 << 20);
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
