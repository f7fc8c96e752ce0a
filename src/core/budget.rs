//! How long a turn of the shard's loop, or of a connection's task, may take before others have theirs.

use std::time::{Duration, Instant};

/// One turn: how long realtime tags, reads and flushes may wait for each other.
pub(super) const TURN_MAX: Duration = Duration::from_millis(2);
/// Small work between two looks at the clock.
const LOOK_EVERY: usize = 32;

/// What is left of a turn. It begins at the first look at the clock, so that what is soon done needs none.
#[derive(Debug)]
pub(super) struct Budget {
    limit: Duration,
    until: Option<Instant>,
    unlooked: usize,
    spent: bool,
}

impl Budget {
    /// A whole turn's.
    pub(super) fn turn() -> Self {
        Self::lasting(TURN_MAX)
    }

    fn lasting(limit: Duration) -> Self {
        Self { limit, until: None, unlooked: 0, spent: false }
    }

    /// Half of a turn's.
    pub(super) fn half_turn() -> Self {
        Self::lasting(TURN_MAX / 2)
    }

    /// Takes note of so many pieces of small work (a member's flush, a message); tells whether the time is over.
    pub(super) fn spend(&mut self, pieces: usize) -> bool {
        self.unlooked += pieces;
        if self.unlooked >= LOOK_EVERY {
            self.unlooked = 0;
            let now = Instant::now();
            self.spent |= now >= *self.until.get_or_insert(now + self.limit);
        }
        self.spent
    }
}
