//! What is due next on a shard: a heap, so that a wake costs what is due and not what is there.

use super::{Stream, StreamId};
use slab::Slab;
use std::{cmp::Reverse, collections::BinaryHeap};

/// What is due.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Timer {
    /// Members of a stream's schedule.
    Flush(StreamId),
    /// Something of the shard's own, by its place: it knows itself whether the time still counts.
    Session(usize),
}

/// Times in ms, and whose they are. A stream's place counts only while it is armed for that time: what has changed
/// since leaves a dead one behind, which is dropped when its time comes.
#[derive(Debug, Default)]
pub(super) struct Due(BinaryHeap<Reverse<(u64, Timer)>>);

impl Due {
    /// Takes note of when a stream's members are due: not before `now_ms`, so that who is due at once waits
    /// behind those who have been for longer.
    pub(super) fn arm<P>(&mut self, id: StreamId, stream: &mut Stream<P>, now_ms: u64) {
        let Some(due_ms) = stream.replica.schedule.next_due_ms().map(|due_ms| due_ms.max(now_ms)) else { return };
        if stream.armed_ms.is_none_or(|armed_ms| due_ms < armed_ms) {
            stream.armed_ms = Some(due_ms);
            self.0.push(Reverse((due_ms, Timer::Flush(id))));
        }
    }

    /// Takes note of a time of the shard's own.
    pub(super) fn arm_session(&mut self, place: usize, due_ms: u64) {
        self.0.push(Reverse((due_ms, Timer::Session(place))));
    }

    /// When the first is due.
    pub(super) fn next_ms<P>(&mut self, streams: &Slab<Stream<P>>) -> Option<u64> {
        while let Some(Reverse((due_ms, timer))) = self.0.peek() {
            let counts = match timer {
                Timer::Flush(id) => streams.get(*id).is_some_and(|stream| stream.armed_ms == Some(*due_ms)),
                Timer::Session(_) => true,
            };
            if counts {
                return Some(*due_ms);
            }
            self.0.pop();
        }
        None
    }

    /// What has been due for longest, if anything is, and since when.
    pub(super) fn take<P>(&mut self, streams: &mut Slab<Stream<P>>, now_ms: u64) -> Option<(Timer, u64)> {
        self.next_ms(streams).filter(|due_ms| *due_ms <= now_ms)?;
        let Reverse((due_ms, timer)) = self.0.pop()?;
        if let Timer::Flush(id) = timer {
            streams.get_mut(id)?.armed_ms = None;
        }
        Some((timer, due_ms))
    }
}
