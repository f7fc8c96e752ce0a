//! `memory_max`: what is given up, and who is turned away, when the process takes more.

use super::{HOUSEKEEPING_MS, Shard, port::Endpoints};
use crate::sys;

/// How often it is looked how much is taken, in ms.
const LOOK_MS: u64 = 250;
/// What is given up comes back to the machine in this time, in ms.
const PATIENCE_MS: u64 = 2000;
/// Nobody is turned away any more once this part of the bound is free.
const FREE_PART: u64 = 20;

/// How it stands with memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Since when more is taken than may be, in ms of the process's clock.
    over_since_ms: Option<u64>,
    refuses: bool,
    /// When it is looked at next.
    due_ms: u64,
}

impl Memory {
    /// When it is looked at next, in ms.
    pub(super) fn due_ms(&self) -> u64 {
        self.due_ms
    }
}

impl<E: Endpoints> Shard<E> {
    /// Why nobody else may come; `None` if all is well.
    pub(super) fn short_of_memory(&self) -> Option<&'static str> {
        self.memory.refuses.then_some("the server is short of memory (memory_max)")
    }

    /// Looks how much is taken. Of what is too much each shard gives up its part: GOPs that wait for players, the oldest
    /// first. If that is not enough, whoever comes is turned away.
    pub(super) fn look_at_memory(&mut self, now_ms: u64) {
        let max = self.shared.config().memory_max;
        if max == 0 {
            self.memory = Memory { due_ms: now_ms + HOUSEKEEPING_MS, ..Memory::default() };
            return;
        }
        self.memory.due_ms = now_ms + LOOK_MS;
        let taken = sys::resident_bytes();
        let over = taken.saturating_sub(max);
        if over > 0 {
            let part = over.div_ceil(self.relay.wakers().len() as u64);
            let freed = self.relay.give_up(usize::try_from(part).unwrap_or(usize::MAX)) as u64;
            let since_ms = *self.memory.over_since_ms.get_or_insert(now_ms);
            if !self.memory.refuses && (freed < part || now_ms >= since_ms + PATIENCE_MS) {
                self.memory.refuses = true;
                let (taken, max) = (taken >> 20, max >> 20);
                tracing::warn!(taken, max, "memory_max: new publishers and players are turned away; in MiB");
            }
        } else {
            self.memory.over_since_ms = None;
            if self.memory.refuses && taken + max / FREE_PART <= max {
                self.memory.refuses = false;
                tracing::info!("memory_max: there is room again");
            }
        }
    }
}
