//! How long a turn of the shard's loop, or of a connection's task, may take before others have theirs.

use std::time::{Duration, Instant};

/// One turn: how long realtime tags, reads and flushes may wait for each other.
pub(super) const TURN_MAX: Duration = Duration::from_millis(2);
/// Small work between two looks at the clock.
const LOOK_EVERY: usize = 32;

/// What is left of a turn.
#[derive(Debug)]
pub(super) struct Budget {
    until: Instant,
    unlooked: usize,
    spent: bool,
}

impl Budget {
    /// A whole turn's.
    pub(super) fn turn() -> Self {
        Self::lasting(TURN_MAX)
    }

    fn lasting(limit: Duration) -> Self {
        Self { until: Instant::now() + limit, unlooked: 0, spent: false }
    }

    /// Half of what a turn has, beginning now.
    pub(super) fn half(&self) -> Self {
        Self::lasting(TURN_MAX / 2)
    }

    /// Takes note of so many pieces of small work (a member's flush, a message); tells whether the time is over.
    pub(super) fn spend(&mut self, pieces: usize) -> bool {
        self.unlooked += pieces;
        if self.unlooked >= LOOK_EVERY {
            self.unlooked = 0;
            self.spent |= Instant::now() >= self.until;
        }
        self.spent
    }
}
