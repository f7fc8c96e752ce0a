//! A single-producer single-consumer ring from every shard to every other one.
//!
//! Whoever sends wakes the receiver only if asked: merged streams are drained on the receiver's
//! tick. What finds a ring full waits in an overflow queue. Tags are dropped when that is full too, or holds
//! too many bytes, and say so. The rest must arrive: who sends it is told that the lane is full
//! ([`Mesh::take_congested`]), and rests until it is not. So does who sends many tags at a time
//! ([`Mesh::take_crowded`]), so that one stream's flood is no other stream's gap.
//!
//! There may be a hundred shards and more, most pairs of which have nothing to say to each other: a ring has its
//! places when it is used, and as many as it needs (`lane.rs`), and nobody walks over all of them (`ready.rs`).

mod lane;
mod ready;
mod waker;

pub use lane::{Cargo, LANE_BYTES_MAX, OVERFLOW_ENTRIES_MAX, RING_ENTRIES, slot_bytes};
pub use waker::ShardWaker;

use lane::{Inlet, Lane, Taken, lane};
use ready::{Ready, Turns};
use std::sync::Arc;

/// Messages from one shard before those of the next have their turn.
const IN_A_ROW_MAX: usize = 64;

/// What others know of a shard that they send to.
#[derive(Debug)]
struct Inbox {
    /// Which of them have sent it something.
    ready: Ready,
    /// What it has taken of each.
    taken: Box<[Taken]>,
}

/// One shard's ends of all its rings.
#[derive(Debug)]
pub struct Mesh<T> {
    me: usize,
    to: Vec<Lane<T>>,
    from: Vec<Inlet<T>>,
    inboxes: Arc<[Inbox]>,
    wakers: Arc<[ShardWaker]>,
    /// The ring that is read now, and how many messages of it in a row.
    reading: (usize, usize),
    /// Those that have their turn.
    turns: Turns,
    /// Lanes with messages that wait for room.
    blocked: Vec<usize>,
    /// The last lane that was full when something was sent that must arrive.
    congested: Option<usize>,
    /// The last lane that was full when a tag was sent.
    crowded: Option<usize>,
}

/// Connects `shards` shards.
pub fn connect<T>(shards: usize) -> Vec<Mesh<T>> {
    let wakers: Arc<[ShardWaker]> = (0..shards).map(|_| ShardWaker::default()).collect();
    let taken = || (0..shards).map(|_| Taken::default()).collect();
    let inboxes: Arc<[Inbox]> = (0..shards).map(|_| Inbox { ready: Ready::new(shards), taken: taken() }).collect();
    let empty = |me| Mesh {
        me,
        to: Vec::with_capacity(shards),
        from: Vec::with_capacity(shards),
        inboxes: Arc::clone(&inboxes),
        wakers: Arc::clone(&wakers),
        // The first one has the first turn.
        reading: (shards - 1, 0),
        turns: Turns::new(shards),
        blocked: Vec::new(),
        congested: None,
        crowded: None,
    };
    let mut meshes: Vec<_> = (0..shards).map(empty).collect();
    for from in 0..shards {
        for to in 0..shards {
            // The ring of a shard to itself stays empty; it keeps the indexes plain.
            let (lane, inlet) = lane();
            meshes[from].to.push(lane);
            meshes[to].from.push(inlet);
        }
    }
    meshes
}

/// Lists a lane that is to be drained.
fn note_blocked<T: Cargo>(blocked: &mut Vec<usize>, to: usize, lane: &mut Lane<T>) {
    if lane.is_blocked() && !std::mem::replace(&mut lane.listed, true) {
        blocked.push(to);
    }
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
        let (lane, inbox) = (&mut self.to[to], &self.inboxes[to]);
        let taken = &inbox.taken[self.me];
        lane.push(taken, message);
        inbox.ready.set(self.me);
        note_blocked(&mut self.blocked, to, lane);
        if lane.is_full(taken) {
            self.congested = Some(to);
        }
        self.wakers[to].wake();
    }

    /// Sends what may be dropped; tells whether it was sent.
    pub fn try_send(&mut self, to: usize, message: T) -> bool {
        let (lane, inbox) = (&mut self.to[to], &self.inboxes[to]);
        let taken = &inbox.taken[self.me];
        let room = lane.has_room(taken);
        if room {
            lane.push(taken, message);
            inbox.ready.set(self.me);
            note_blocked(&mut self.blocked, to, lane);
        }
        if lane.is_full(taken) {
            self.crowded = Some(to);
        }
        if lane.is_half_full(taken) {
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
        self.to[to].is_full(&self.inboxes[to].taken[self.me])
    }

    /// Wakes another shard.
    pub fn wake(&self, to: usize) {
        self.wakers[to].wake();
    }

    /// Entries that wait in the fullest ring to another shard, its overflow included.
    pub fn entries(&self) -> usize {
        let lanes = self.to.iter().zip(self.inboxes.iter());
        lanes.map(|(lane, inbox)| lane.entries(&inbox.taken[self.me])).max().unwrap_or(0)
    }

    /// Whether messages wait for room in a ring.
    pub fn is_blocked(&self) -> bool {
        self.blocked.iter().any(|to| self.to[*to].is_blocked())
    }

    /// Moves what waits into the rings, as far as there is room.
    pub fn drain_overflow(&mut self) {
        let Self { me, to: lanes, inboxes, wakers, blocked, .. } = self;
        blocked.retain(|&to| {
            let lane = &mut lanes[to];
            lane.drain(&inboxes[to].taken[*me]);
            inboxes[to].ready.set(*me);
            wakers[to].wake();
            lane.listed = lane.is_blocked();
            lane.listed
        });
    }

    /// Asked once in a while: has rings that were larger than they need to be for long become smaller.
    pub fn shrink(&mut self) {
        for (lane, inbox) in self.to.iter_mut().zip(self.inboxes.iter()) {
            if lane.shrink(&inbox.taken[self.me]) {
                inbox.ready.set(self.me);
            }
        }
    }

    /// The next message from any shard, and its sender. Shards have their turns one after the other.
    pub fn receive(&mut self) -> Option<(usize, T)> {
        let inbox = &self.inboxes[self.me];
        loop {
            let (at, row) = &mut self.reading;
            if *row < IN_A_ROW_MAX && self.turns.has(*at) {
                if let Some(message) = self.from[*at].pop(&inbox.taken[*at]) {
                    *row += 1;
                    return Some((*at, message));
                }
                self.turns.remove(*at);
            }
            // Who has something by now has its turn among the others.
            inbox.ready.take(&mut self.turns);
            *row = 0;
            *at = self.turns.after(*at)?;
        }
    }
}

#[cfg(test)]
mod tests;
