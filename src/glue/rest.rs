//! Where publishers rest between two reads: a wheel of common ticks.
//!
//! A read that the kernel announces costs several times one that simply finds what has come: the poll,
//! its completion, and an interrupt from the core that received. Resting readers share ticks, which
//! stop while nobody rests.

use std::{
    cell::{Cell, RefCell},
    task::{Context, Poll, Waker},
};

/// Time between two ticks, in ms.
pub(super) const TICK_MS: u64 = 10;
/// Ticks until the wheel comes round; nobody rests longer. SRS advises `mr_latency` up to 2 s.
const TICKS: usize = 256;

/// Those who rest on one shard.
#[derive(Debug)]
pub(super) struct Rest {
    slots: RefCell<Vec<Vec<Waker>>>,
    now: Cell<u64>,
    resting: Cell<usize>,
    ticking: Cell<bool>,
}

impl Default for Rest {
    fn default() -> Self {
        Self {
            slots: RefCell::new(vec![Vec::new(); TICKS]),
            now: Cell::new(0),
            resting: Cell::new(0),
            ticking: Cell::new(false),
        }
    }
}

impl Rest {
    /// The tick at which a rest of `pause_ms` that begins now is over; `None` if it is too short.
    pub(super) fn until(&self, pause_ms: u64) -> Option<u64> {
        let ticks = (pause_ms / TICK_MS).min(TICKS as u64 - 1);
        (ticks > 0).then(|| self.now.get() + ticks)
    }

    /// Ready at tick `until`.
    pub(super) fn poll(&self, until: u64, cx: &Context<'_>) -> Poll<()> {
        if self.now.get() >= until {
            return Poll::Ready(());
        }
        self.slots.borrow_mut()[slot(until)].push(cx.waker().clone());
        self.resting.set(self.resting.get() + 1);
        Poll::Pending
    }

    /// Whether the caller has to begin with [`Self::tick`]ing: somebody rests and nobody ticks.
    pub(super) fn begin_ticking(&self) -> bool {
        !self.ticking.replace(true)
    }

    /// Wakes those whose time has come; tells whether others rest on. If not, ticking is over.
    pub(super) fn tick(&self) -> bool {
        self.now.set(self.now.get() + 1);
        let due = std::mem::take(&mut self.slots.borrow_mut()[slot(self.now.get())]);
        self.resting.set(self.resting.get() - due.len());
        due.into_iter().for_each(Waker::wake);
        let goes_on = self.resting.get() > 0;
        self.ticking.set(goes_on);
        goes_on
    }
}

fn slot(tick: u64) -> usize {
    usize::try_from(tick).unwrap_or(0) % TICKS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_woken_at_the_tick_asked_for() {
        let rest = Rest::default();
        let cx = Context::from_waker(Waker::noop());
        assert_eq!((rest.until(TICK_MS - 1), rest.until(TICK_MS), rest.until(100_000)), (None, Some(1), Some(255)));
        assert!(rest.begin_ticking() && !rest.begin_ticking());
        for until in 1..256 {
            assert!(rest.poll(until, &cx).is_pending());
        }
        for tick in 1..256 {
            assert_eq!(rest.tick(), tick < 255);
            assert!(rest.poll(tick, &cx).is_ready());
        }
        assert!(rest.begin_ticking(), "it had stopped");
    }
}
