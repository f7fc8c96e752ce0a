//! A single-producer single-consumer ring from every shard to every other one.
//!
//! Whoever sends wakes the receiver only if asked: merged streams are drained on the receiver's
//! tick. What finds a ring full waits in an overflow queue. Tags are dropped when that is full too,
//! and say so; the rest of it is bounded by the connections and streams that can cause it.

use atomic_waker::AtomicWaker;
use rtrb::{Consumer, Producer, PushError, RingBuffer};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

/// Entries of one ring. At half of it the receiver is woken, whatever its tick.
pub const RING_ENTRIES: usize = 1024;

/// Entries that wait for room in a ring before tags are dropped: many GOPs for a shard that players
/// have just come to.
pub const OVERFLOW_ENTRIES_MAX: usize = 32_768;

/// Wakes one shard's loop, from any thread.
#[derive(Debug, Default)]
pub struct ShardWaker {
    pending: AtomicBool,
    waker: AtomicWaker,
    /// The shard flushes streams without an interval of their own at once.
    eager: AtomicBool,
}

impl ShardWaker {
    /// Says whether the shard wants to be woken for tags of streams whose interval follows its load.
    pub fn set_eager(&self, eager: bool) {
        self.eager.store(eager, Ordering::Relaxed);
    }

    /// See [`Self::set_eager`].
    pub fn is_eager(&self) -> bool {
        self.eager.load(Ordering::Relaxed)
    }

    /// Wakes the shard, once until it has looked.
    pub fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Ready when somebody has woken the shard since the last time.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.pending.swap(false, Ordering::AcqRel) {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        if self.pending.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// One shard's ends of all its rings.
#[derive(Debug)]
pub struct Mesh<T> {
    me: usize,
    to: Vec<Lane<T>>,
    from: Vec<Consumer<T>>,
    wakers: Arc<[ShardWaker]>,
}

#[derive(Debug)]
struct Lane<T> {
    ring: Producer<T>,
    overflow: VecDeque<T>,
}

/// Connects `shards` shards.
pub fn connect<T>(shards: usize) -> Vec<Mesh<T>> {
    let wakers: Arc<[ShardWaker]> = (0..shards).map(|_| ShardWaker::default()).collect();
    let empty = |me| Mesh { me, to: Vec::new(), from: Vec::new(), wakers: Arc::clone(&wakers) };
    let mut meshes: Vec<_> = (0..shards).map(empty).collect();
    for from in 0..shards {
        for to in 0..shards {
            // The ring of a shard to itself stays empty; it keeps the indexes plain.
            let (ring, consumer) = RingBuffer::new(if from == to { 1 } else { RING_ENTRIES });
            meshes[from].to.push(Lane { ring, overflow: VecDeque::new() });
            meshes[to].from.push(consumer);
        }
    }
    meshes
}

impl<T> Mesh<T> {
    /// This shard.
    pub fn me(&self) -> usize {
        self.me
    }

    /// All shards.
    pub fn shards(&self) -> usize {
        self.to.len()
    }

    /// The wakers of all shards.
    pub fn wakers(&self) -> &Arc<[ShardWaker]> {
        &self.wakers
    }

    /// Sends what must arrive, and wakes the receiver.
    pub fn send(&mut self, to: usize, message: T) {
        self.to[to].push(message);
        self.wakers[to].wake();
    }

    /// Sends what may be dropped; tells whether it was sent.
    pub fn try_send(&mut self, to: usize, message: T) -> bool {
        let lane = &mut self.to[to];
        let room = lane.overflow.len() < OVERFLOW_ENTRIES_MAX;
        if room {
            lane.push(message);
        }
        if lane.ring.slots() < RING_ENTRIES / 2 {
            self.wakers[to].wake();
        }
        room
    }

    /// Wakes another shard.
    pub fn wake(&self, to: usize) {
        self.wakers[to].wake();
    }

    /// Entries that wait in the fullest ring to another shard, its overflow included.
    pub fn entries(&self) -> usize {
        let lanes = self.to.iter().enumerate().filter(|(to, _)| *to != self.me);
        lanes.map(|(_, lane)| RING_ENTRIES - lane.ring.slots() + lane.overflow.len()).max().unwrap_or(0)
    }

    /// Whether messages wait for room in a ring.
    pub fn is_blocked(&self) -> bool {
        self.to.iter().any(|lane| !lane.overflow.is_empty())
    }

    /// Moves what waits into the rings, as far as there is room.
    pub fn drain_overflow(&mut self) {
        for (lane, waker) in self.to.iter_mut().zip(self.wakers.iter()) {
            if !lane.overflow.is_empty() {
                lane.drain();
                waker.wake();
            }
        }
    }

    /// The next message from any shard, and its sender.
    pub fn receive(&mut self) -> Option<(usize, T)> {
        self.from.iter_mut().enumerate().find_map(|(from, ring)| ring.pop().ok().map(|message| (from, message)))
    }
}

impl<T> Lane<T> {
    fn push(&mut self, message: T) {
        self.drain();
        if !self.overflow.is_empty() {
            self.overflow.push_back(message);
        } else if let Err(PushError::Full(message)) = self.ring.push(message) {
            self.overflow.push_back(message);
        }
    }

    fn drain(&mut self) {
        while !self.overflow.is_empty() && self.ring.slots() > 0 {
            let Some(message) = self.overflow.pop_front() else { return };
            if let Err(PushError::Full(message)) = self.ring.push(message) {
                self.overflow.push_front(message);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_order_through_overflow() {
        let mut meshes = connect::<u32>(2);
        let [a, b] = &mut meshes[..] else { panic!("two shards") };
        let room = u32::try_from(RING_ENTRIES + OVERFLOW_ENTRIES_MAX).unwrap();
        (0..room).for_each(|n| assert!(a.try_send(1, n)));
        assert!(a.is_blocked() && !a.try_send(1, 9999));
        a.send(1, room);
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
}
