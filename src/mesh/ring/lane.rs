//! One direction between two shards: a ring that grows with what is on its way, and what waits behind it.

use crate::media::{Entry, LOG_BYTES_MAX};
use rtrb::{Consumer, Producer, PushError, RingBuffer};
use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
};

/// Entries on their way through the ring. At half of it the receiver is woken, whatever its tick.
pub const RING_ENTRIES: usize = 1024;

/// Entries that wait for room in a ring before tags are dropped.
pub const OVERFLOW_ENTRIES_MAX: usize = 8192;

/// Bytes of media on their way to one shard before tags are dropped: a log that is joined, and as much again.
pub const LANE_BYTES_MAX: u64 = 2 * LOG_BYTES_MAX as u64;

/// Places of a ring that nothing has been sent through: for where to go on.
const UNUSED_ENTRIES: usize = 1;
/// Places of the first one that something is sent through; each further one has four times as many.
const FIRST_ENTRIES: usize = 16;
const GROWTH: usize = 4;
/// A ring of which less than an eighth was in use each of so many times that it was asked is followed by a smaller
/// one.
const CALM: u8 = 16;

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

/// What stands in a ring.
#[derive(Debug)]
enum Slot<T> {
    Message(T),
    /// It goes on in a larger ring; nothing else comes here.
    Next(Consumer<Self>),
}

/// Bytes that a message takes in a ring.
pub const fn slot_bytes<T>() -> usize {
    size_of::<Slot<T>>()
}

/// What a receiver has taken of one sender, in all; the receiver alone writes it.
#[derive(Debug, Default)]
pub(super) struct Taken {
    messages: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    messages: u64,
    bytes: u64,
}

/// The sender's end.
#[derive(Debug)]
pub(super) struct Lane<T> {
    ring: Producer<Slot<T>>,
    overflow: VecDeque<T>,
    /// In all, and of that what the receiver had taken when that was last looked at.
    sent: Count,
    seen: Count,
    /// It stands in the list of those that are to be drained.
    pub(super) listed: bool,
    /// Times in a row that it was found far too large.
    calm: u8,
}

/// The receiver's end.
#[derive(Debug)]
pub(super) struct Inlet<T>(Consumer<Slot<T>>);

/// Both ends of a new lane.
pub(super) fn lane<T>() -> (Lane<T>, Inlet<T>) {
    let (ring, consumer) = RingBuffer::new(UNUSED_ENTRIES);
    let none = Count::default();
    (Lane { ring, overflow: VecDeque::new(), sent: none, seen: none, listed: false, calm: 0 }, Inlet(consumer))
}

impl<T: Cargo> Inlet<T> {
    /// The next message.
    pub(super) fn pop(&mut self, taken: &Taken) -> Option<T> {
        loop {
            match self.0.pop().ok()? {
                Slot::Message(message) => {
                    // One thread writes it: no locked instruction.
                    let add = |to: &AtomicU64, n| to.store(to.load(Ordering::Relaxed) + n, Ordering::Release);
                    add(&taken.bytes, message.bytes());
                    add(&taken.messages, 1);
                    return Some(message);
                }
                Slot::Next(ring) => self.0 = ring,
            }
        }
    }
}

impl<T: Cargo> Lane<T> {
    pub(super) fn push(&mut self, taken: &Taken, message: T) {
        self.drain(taken);
        self.sent.bytes += message.bytes();
        self.sent.messages += 1;
        if self.overflow.is_empty() && self.ringed(taken) <= RING_ENTRIES {
            if let Err(message) = self.put(message) {
                self.overflow.push_back(message);
            }
        } else {
            self.overflow.push_back(message);
        }
    }

    /// Moves what waits into the ring, as far as there is room.
    pub(super) fn drain(&mut self, taken: &Taken) {
        while !self.overflow.is_empty() && self.ringed(taken) < RING_ENTRIES {
            let Some(message) = self.overflow.pop_front() else { return };
            if let Err(message) = self.put(message) {
                self.overflow.push_front(message);
                return;
            }
        }
    }

    /// Puts a message, which is counted already, into the ring, or into a larger one that follows.
    fn put(&mut self, message: T) -> Result<(), T> {
        let room = self.ring.buffer().capacity();
        // The last place is for what follows. The receiver's count is as of the last look: at most too large.
        if room < RING_ENTRIES && self.on_their_way() - self.overflow.len() >= room {
            self.go_on((room * GROWTH).max(FIRST_ENTRIES));
        }
        match self.ring.push(Slot::Message(message)) {
            Err(PushError::Full(Slot::Message(message))) => Err(message),
            Ok(()) | Err(PushError::Full(Slot::Next(_))) => Ok(()),
        }
    }

    /// Goes on in a ring of another size; tells whether there was room to say so.
    fn go_on(&mut self, entries: usize) -> bool {
        let (ring, next) = RingBuffer::new(entries.min(RING_ENTRIES));
        let said = self.ring.push(Slot::Next(next)).is_ok();
        if said {
            self.ring = ring;
        }
        said
    }

    /// Asked once in a while: tells whether it goes on in a smaller ring, since little was on its way each time.
    pub(super) fn shrink(&mut self, taken: &Taken) -> bool {
        let room = self.ring.buffer().capacity();
        if room <= FIRST_ENTRIES {
            return false;
        }
        self.look(taken);
        self.calm = if self.on_their_way() < room / 8 { self.calm + 1 } else { 0 };
        let calm = self.calm >= CALM;
        if calm {
            self.calm = 0;
        }
        calm && self.go_on(room / GROWTH)
    }

    /// Messages on their way, as of the last look at what the receiver has taken.
    fn on_their_way(&self) -> usize {
        usize::try_from(self.sent.messages - self.seen.messages).unwrap_or(usize::MAX)
    }

    /// Looks at what the receiver has taken, since the receiver's line of the cache is looked at only when it may
    /// matter.
    fn look(&mut self, taken: &Taken) {
        // What was taken left its place before that was said.
        self.seen.messages = taken.messages.load(Ordering::Acquire);
        self.seen.bytes = taken.bytes.load(Ordering::Acquire);
    }

    /// Messages in the ring.
    fn ringed(&mut self, taken: &Taken) -> usize {
        let matters = self.ring.buffer().capacity().min(RING_ENTRIES / 2);
        if self.on_their_way() - self.overflow.len() >= matters {
            self.look(taken);
        }
        self.on_their_way() - self.overflow.len()
    }

    /// Bytes on their way.
    fn bytes(&mut self, taken: &Taken) -> u64 {
        if self.sent.bytes - self.seen.bytes > LANE_BYTES_MAX / 4 {
            self.look(taken);
        }
        self.sent.bytes - self.seen.bytes
    }

    /// Whether there is room for what may be dropped.
    pub(super) fn has_room(&mut self, taken: &Taken) -> bool {
        self.overflow.len() < OVERFLOW_ENTRIES_MAX && self.bytes(taken) <= LANE_BYTES_MAX
    }

    /// Whether the receiver is to be woken, whatever its tick.
    pub(super) fn is_half_full(&mut self, taken: &Taken) -> bool {
        self.ringed(taken) > RING_ENTRIES / 2
    }

    /// Whether the receiver is behind: who can rest does, long before anything is dropped.
    pub(super) fn is_full(&mut self, taken: &Taken) -> bool {
        self.is_blocked() || self.bytes(taken) > LANE_BYTES_MAX / 2
    }

    /// Whether messages wait for room in the ring.
    pub(super) fn is_blocked(&self) -> bool {
        !self.overflow.is_empty()
    }

    /// Messages on their way, those that wait for room included.
    pub(super) fn entries(&self, taken: &Taken) -> usize {
        let entries = self.sent.messages - taken.messages.load(Ordering::Relaxed);
        usize::try_from(entries).unwrap_or(usize::MAX)
    }
}
