//! A single-producer single-consumer ring from every shard to every other one.
//!
//! Whoever sends wakes the receiver only if asked: merged streams are drained on the receiver's
//! tick. What finds a ring full waits in an overflow queue. Tags are dropped when that is full too, or holds
//! too many bytes, and say so. The rest must arrive: who sends it is told that the lane is full
//! ([`Mesh::take_congested`]), and rests until it is not. So does who sends many tags at a time
//! ([`Mesh::take_crowded`]), so that one stream's flood is no other stream's gap.

use crate::media::{Entry, LOG_BYTES_MAX};
use atomic_waker::AtomicWaker;
use rtrb::{Consumer, Producer, PushError, RingBuffer};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

/// Entries of one ring. At half of it the receiver is woken, whatever its tick.
pub const RING_ENTRIES: usize = 1024;

/// Entries that wait for room in a ring before tags are dropped.
pub const OVERFLOW_ENTRIES_MAX: usize = 8192;

/// Bytes of media on their way to one shard before tags are dropped: a log that is joined, and as much again.
pub const LANE_BYTES_MAX: u64 = 2 * LOG_BYTES_MAX as u64;

/// Messages from one shard before those of the next have their turn.
const IN_A_ROW_MAX: usize = 64;

/// What crosses from shard to shard.
pub trait Cargo {
    /// Bytes of media that it holds.
    fn bytes(&self) -> u64;
}

impl Cargo for Entry {
    fn bytes(&self) -> u64 {
        Self::bytes(self) as u64
    }
}

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
    from: Vec<Inlet<T>>,
    wakers: Arc<[ShardWaker]>,
    /// The ring that is read now, and how many messages of it in a row.
    reading: (usize, usize),
    /// The last lane that was full when something was sent that must arrive.
    congested: Option<usize>,
    /// The last lane that was full when a tag was sent.
    crowded: Option<usize>,
}

#[derive(Debug)]
struct Lane<T> {
    ring: Producer<T>,
    overflow: VecDeque<T>,
    /// Bytes sent in all; bytes that the receiver had taken when they were last looked at.
    sent_bytes: u64,
    seen_bytes: u64,
    taken_bytes: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Inlet<T> {
    ring: Consumer<T>,
    /// Bytes taken in all; the receiver alone writes them.
    taken_bytes: Arc<AtomicU64>,
}

/// Connects `shards` shards.
pub fn connect<T>(shards: usize) -> Vec<Mesh<T>> {
    let wakers: Arc<[ShardWaker]> = (0..shards).map(|_| ShardWaker::default()).collect();
    let empty = |me| Mesh {
        me,
        to: Vec::new(),
        from: Vec::new(),
        wakers: Arc::clone(&wakers),
        reading: (0, 0),
        congested: None,
        crowded: None,
    };
    let mut meshes: Vec<_> = (0..shards).map(empty).collect();
    for from in 0..shards {
        for to in 0..shards {
            // The ring of a shard to itself stays empty; it keeps the indexes plain.
            let (ring, consumer) = RingBuffer::new(if from == to { 1 } else { RING_ENTRIES });
            let taken_bytes = Arc::new(AtomicU64::new(0));
            let inlet = Inlet { ring: consumer, taken_bytes: Arc::clone(&taken_bytes) };
            meshes[from].to.push(Lane { ring, overflow: VecDeque::new(), sent_bytes: 0, seen_bytes: 0, taken_bytes });
            meshes[to].from.push(inlet);
        }
    }
    meshes
}

impl<T: Cargo> Mesh<T> {
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
        let lane = &mut self.to[to];
        lane.push(message);
        if lane.is_full() {
            self.congested = Some(to);
        }
        self.wakers[to].wake();
    }

    /// Sends what may be dropped; tells whether it was sent.
    pub fn try_send(&mut self, to: usize, message: T) -> bool {
        let lane = &mut self.to[to];
        let room = lane.overflow.len() < OVERFLOW_ENTRIES_MAX && lane.bytes() <= LANE_BYTES_MAX;
        if room {
            lane.push(message);
        }
        if lane.is_full() {
            self.crowded = Some(to);
        }
        if lane.ring.slots() < RING_ENTRIES / 2 {
            self.wakers[to].wake();
        }
        room
    }

    /// The lane that was full when something was last sent that must arrive, if any was since this was asked.
    pub fn take_congested(&mut self) -> Option<usize> {
        self.congested.take()
    }

    /// The lane that was full when a tag was last sent, if any was since this was asked.
    pub fn take_crowded(&mut self) -> Option<usize> {
        self.crowded.take()
    }

    /// Whether what goes to a shard has to wait.
    pub fn is_full(&mut self, to: usize) -> bool {
        self.to[to].is_full()
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

    /// The next message from any shard, and its sender. Shards have their turns one after the other.
    pub fn receive(&mut self) -> Option<(usize, T)> {
        let shards = self.from.len();
        let (mut at, mut row) = self.reading;
        for _ in 0..=shards {
            if row < IN_A_ROW_MAX
                && let Ok(message) = self.from[at].ring.pop()
            {
                let taken_bytes = &self.from[at].taken_bytes;
                // One thread writes it: no locked instruction.
                taken_bytes.store(taken_bytes.load(Ordering::Relaxed) + message.bytes(), Ordering::Relaxed);
                self.reading = (at, row + 1);
                return Some((at, message));
            }
            (at, row) = ((at + 1) % shards, 0);
        }
        self.reading = (at, 0);
        None
    }
}

impl<T: Cargo> Lane<T> {
    fn push(&mut self, message: T) {
        self.sent_bytes += message.bytes();
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

    /// Bytes on their way; the receiver's line of the cache is looked at only when it may matter.
    fn bytes(&mut self) -> u64 {
        if self.sent_bytes - self.seen_bytes > LANE_BYTES_MAX / 4 {
            self.seen_bytes = self.taken_bytes.load(Ordering::Relaxed);
        }
        self.sent_bytes - self.seen_bytes
    }

    /// Whether the receiver is behind: who can rest does, long before anything is dropped.
    fn is_full(&mut self) -> bool {
        !self.overflow.is_empty() || self.bytes() > LANE_BYTES_MAX / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
