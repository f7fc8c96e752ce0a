//! The shard's load, and the flush interval that follows it.

use super::{Shard, port::Endpoints};
use crate::{
    media::{PACE_STEP_MS, Pace},
    sys,
};
use std::time::Duration;

/// Between two lines of the log about the interval, in ms.
const LOG_EVERY_MS: u64 = 10_000;

/// How busy a shard is.
#[derive(Debug, Default)]
pub(super) struct Load {
    pace: Pace,
    stepped_ms: u64,
    cpu: Duration,
    logged_ms: u64,
    logged_interval_ms: u64,
}

impl Load {
    /// When the next step is due, in ms of the process's clock.
    pub(super) fn next_step_ms(&self) -> u64 {
        // A shard at rest has nothing to follow: its housekeeping is enough.
        if self.pace.interval_ms() == 0 && self.pace.busy() < 0.02 { u64::MAX } else { self.stepped_ms + PACE_STEP_MS }
    }
}

impl<E: Endpoints> Shard<E> {
    /// Measures the load, at most every [`PACE_STEP_MS`], and sets the interval of `mw_latency auto`.
    pub(super) fn step_load(&mut self, now_ms: u64) {
        let load = &mut self.load;
        let elapsed_ms = now_ms.saturating_sub(load.stepped_ms);
        if elapsed_ms < PACE_STEP_MS {
            return;
        }
        let cpu = sys::thread_cpu_time();
        let busy = (cpu.saturating_sub(load.cpu)).as_secs_f64() * 1000.0 / elapsed_ms as f64;
        load.pace.step(busy);
        (load.stepped_ms, load.cpu) = (now_ms, cpu);
        let interval_ms = load.pace.interval_ms();
        tracing::trace!(interval_ms, busy, "pace");
        self.relay.set_pace(interval_ms);
        self.stats.pace_ms.set(interval_ms);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
        self.stats.busy_permille.set((load.pace.busy() * 1000.0) as u64);
        let (least, most) = (interval_ms.min(load.logged_interval_ms), interval_ms.max(load.logged_interval_ms));
        if most > 2 * least && now_ms.saturating_sub(load.logged_ms) >= LOG_EVERY_MS {
            (load.logged_ms, load.logged_interval_ms) = (now_ms, interval_ms);
            let (shard, busy) = (self.relay.me(), load.pace.busy());
            tracing::info!(shard, "mw_latency auto: flush interval {interval_ms} ms at {:.0} % load", busy * 100.0);
        }
    }
}
