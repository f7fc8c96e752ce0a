//! `mw_latency auto`: the flush interval follows the shard's load.
//!
//! A short interval costs sends, and a shard that has time can afford them: it flushes at once. The
//! busier it is, the longer the interval, up to [`CEILING_MS`]. One interval serves all streams of a
//! shard: for a given number of sends per second, the mean delay over all players is least when every
//! stream has the same interval (n₁·T₁ + n₂·T₂ under n₁/T₁ + n₂/T₂ constant is least at T₁ = T₂).

/// The longest interval, in ms: what `mw_latency` has where nothing is said.
pub const CEILING_MS: f64 = 350.0;
/// Intervals up to this are "at once", in ms: tags come in about such distances.
const AT_ONCE_MS: f64 = 5.0;
/// The load that is aimed at: what part of its core a shard may spend before it merges more.
const BUSY_TARGET: f64 = 0.3;
/// How often the interval is looked at, in ms.
pub const STEP_MS: u64 = 100;

/// A load so near the target, by ratio, changes nothing.
const DEAD_BAND: f64 = 0.1;
/// The most that one step changes, by ratio.
const STEP_MAX: f64 = 1.4;
/// Weight of the newest measurement.
const SMOOTHING: f64 = 0.3;

/// The pace of one shard.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    interval_ms: f64,
    busy: f64,
}

impl Default for Pace {
    /// An idle shard's.
    fn default() -> Self {
        Self { interval_ms: AT_ONCE_MS, busy: 0.0 }
    }
}

impl Pace {
    /// Takes the shard's load of the last [`STEP_MS`], 0 to 1, into account.
    pub fn step(&mut self, busy: f64) {
        self.busy += SMOOTHING * (busy.clamp(0.0, 1.0) - self.busy);
        self.interval_ms = next_interval_ms(self.interval_ms, self.busy);
    }

    /// The interval in ms; 0 is at once.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "5 to 350")]
    pub fn interval_ms(&self) -> u64 {
        if self.interval_ms <= AT_ONCE_MS { 0 } else { self.interval_ms.round() as u64 }
    }

    /// The load, smoothed.
    pub fn busy(&self) -> f64 {
        self.busy
    }
}

/// The rule: the interval grows and shrinks with the root of the load's ratio to its target. More sends
/// never cost less, so this settles; the root, the bounded step and the dead band keep it from swinging.
fn next_interval_ms(interval_ms: f64, busy: f64) -> f64 {
    let ratio = busy / BUSY_TARGET;
    if (ratio - 1.0).abs() <= DEAD_BAND {
        return interval_ms;
    }
    (interval_ms * ratio.sqrt().clamp(1.0 / STEP_MAX, STEP_MAX)).clamp(AT_ONCE_MS, CEILING_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shard spends: bytes cost the same at any interval, sends do not.
    fn cost(players: f64, interval_ms: f64) -> f64 {
        let tags_per_s = 73.0;
        let sends_per_s = (1000.0 / interval_ms).min(tags_per_s);
        (players * (331_000.0 * 1.4e-10 + sends_per_s * 3.5e-6)).min(1.0)
    }

    /// The last second of a minute with so many players, starting from `pace`.
    fn settle(pace: &mut Pace, players: f64) -> Vec<f64> {
        let mut intervals = Vec::new();
        for step in 0..600 {
            // A measurement is never quite the same.
            let noise = if step % 2 == 0 { 0.95 } else { 1.05 };
            pace.step(cost(players, pace.interval_ms) * noise);
            intervals.push(pace.interval_ms);
        }
        intervals.split_off(590)
    }

    #[test]
    fn idle_is_at_once_and_busy_is_the_ceiling() {
        let mut pace = Pace::default();
        assert_eq!(pace.interval_ms(), 0);
        settle(&mut pace, 500.0);
        assert_eq!(pace.interval_ms(), 0);
        settle(&mut pace, 8000.0);
        assert_eq!(pace.interval_ms(), 350);
        settle(&mut pace, 10.0);
        assert_eq!(pace.interval_ms(), 0);
    }

    /// More players, a longer interval; and it stays where it is.
    #[test]
    fn it_is_smooth_and_does_not_swing() {
        let mut pace = Pace::default();
        let mut last = 0.0;
        for players in (500..8000).step_by(500) {
            let settled = settle(&mut pace, f64::from(players));
            let (least, most) = settled.iter().fold((f64::MAX, 0.0_f64), |(a, b), ms| (a.min(*ms), b.max(*ms)));
            assert!(most <= least * 1.1, "{players} players: {least} to {most} ms");
            assert!(most >= last * 0.9, "{players} players: {most} ms after {last}");
            last = most;
        }
    }

    /// A sudden crowd is answered within two seconds.
    #[test]
    fn a_crowd_is_answered_soon() {
        let mut pace = Pace::default();
        let steps = (0..100).take_while(|_| {
            pace.step(1.0);
            pace.interval_ms() < 350
        });
        assert!(steps.count() <= 20);
    }
}
