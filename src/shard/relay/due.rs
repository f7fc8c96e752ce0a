//! Which stream is due next: a heap, so that a wake costs what is due and not what is there.

use super::{Stream, StreamId};
use slab::Slab;
use std::{cmp::Reverse, collections::BinaryHeap};

/// Times in ms, and streams. A place counts only while its stream is armed for that time: what has changed since
/// leaves a dead one behind, which is dropped when its time comes.
#[derive(Debug, Default)]
pub(super) struct Due(BinaryHeap<Reverse<(u64, StreamId)>>);

impl Due {
    /// Takes note of when a stream's members are due: not before `now_ms`, so that who is due at once waits
    /// behind those who have been for longer.
    pub(super) fn arm<P>(&mut self, id: StreamId, stream: &mut Stream<P>, now_ms: u64) {
        let Some(due_ms) = stream.replica.schedule.next_due_ms().map(|due_ms| due_ms.max(now_ms)) else { return };
        if stream.armed_ms.is_none_or(|armed_ms| due_ms < armed_ms) {
            stream.armed_ms = Some(due_ms);
            self.0.push(Reverse((due_ms, id)));
        }
    }

    /// When the first stream is due.
    pub(super) fn next_ms<P>(&mut self, streams: &Slab<Stream<P>>) -> Option<u64> {
        while let Some(Reverse((due_ms, id))) = self.0.peek() {
            if streams.get(*id).is_some_and(|stream| stream.armed_ms == Some(*due_ms)) {
                return Some(*due_ms);
            }
            self.0.pop();
        }
        None
    }

    /// The stream that has been due for longest, if any is, and since when.
    pub(super) fn take<P>(&mut self, streams: &mut Slab<Stream<P>>, now_ms: u64) -> Option<(StreamId, u64)> {
        self.next_ms(streams).filter(|due_ms| *due_ms <= now_ms)?;
        let Reverse((due_ms, id)) = self.0.pop()?;
        streams.get_mut(id)?.armed_ms = None;
        Some((id, due_ms))
    }
}
