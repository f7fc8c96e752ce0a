//! Plain counters, one set per shard, summed when asked.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that one thread writes and others may read: no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; by the owning shard only.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Subtracts from a gauge; by the owning shard only.
    pub fn sub(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(count), Ordering::Relaxed);
    }

    /// Sets a gauge; by the owning shard only.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of a [`Histogram`]'s buckets, in ms; one more takes the rest.
pub const AGE_BOUNDS_MS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 350, 500, 1000, 2000, 5000];

/// The bucket of a time in ms.
fn bucket(ms: u64) -> usize {
    AGE_BOUNDS_MS.iter().position(|bound| ms <= *bound).unwrap_or(AGE_BOUNDS_MS.len())
}

/// Times in ms, counted by how long they are.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: [u64; AGE_BOUNDS_MS.len() + 1],
    sum_ms: u64,
}

impl Histogram {
    /// Counts a time.
    pub fn note(&mut self, ms: u64) {
        self.counts[bucket(ms)] += 1;
        self.sum_ms += ms;
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum_ms += other.sum_ms;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum, in ms.
    pub fn sum_ms(&self) -> u64 {
        self.sum_ms
    }

    /// Each bound with how many are at or below it.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut below = 0;
        AGE_BOUNDS_MS.iter().zip(self.counts).map(move |(bound, count)| {
            below += count;
            (*bound, below)
        })
    }

    /// The bound that `percent` of them are at or below; the greatest one for what is beyond. 0 if none is there.
    pub fn percentile(&self, percent: u64) -> u64 {
        let needed = (self.count() * percent).div_ceil(100);
        let found = self.cumulative().find(|(_, below)| *below >= needed && needed > 0);
        let beyond = if needed > 0 { AGE_BOUNDS_MS[AGE_BOUNDS_MS.len() - 1] } else { 0 };
        found.map_or(beyond, |(bound, _)| bound)
    }
}

/// The same, written by one shard and read by any thread.
#[derive(Debug, Default)]
pub struct SharedHistogram {
    counts: [Counter; AGE_BOUNDS_MS.len() + 1],
    sum_ms: Counter,
}

impl SharedHistogram {
    /// Counts a time; by the owning shard only.
    pub fn note(&self, ms: u64) {
        self.counts[bucket(ms)].add(1);
        self.sum_ms.add(ms);
    }

    /// The counts of the moment.
    pub fn read(&self) -> Histogram {
        Histogram { counts: std::array::from_fn(|at| self.counts[at].value()), sum_ms: self.sum_ms.value() }
    }
}

/// A count's growth over the last half minute, at the cost of four numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// When, in ms, and the count then; the older one is what is compared with.
    older: (u64, u64),
    newer: (u64, u64),
}

/// Between two looks of a [`Rate`], in ms: its window is one to two of them.
const RATE_STEP_MS: u64 = 15_000;

impl Rate {
    /// Begins at a time in ms, with a count of 0.
    pub fn new(now_ms: u64) -> Self {
        Self { older: (now_ms, 0), newer: (now_ms, 0) }
    }

    /// Takes note of a count now and then.
    pub fn look(&mut self, now_ms: u64, count: u64) {
        if now_ms >= self.newer.0 + RATE_STEP_MS {
            self.older = self.newer;
            self.newer = (now_ms, count);
        }
    }

    /// Growth in kbit/s, of a count of bytes.
    pub fn kbps(&self, now_ms: u64, bytes: u64) -> u64 {
        let elapsed_ms = now_ms.saturating_sub(self.older.0);
        (bytes.saturating_sub(self.older.1) * 8).checked_div(elapsed_ms).unwrap_or(0)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// One shard's counters.
        #[derive(Debug, Default)]
        pub struct ShardStats {
            $($(#[$doc])* pub $name: Counter,)*
            /// Age of the oldest tag of each flush of a player, in ms since its arrival.
            pub age: SharedHistogram,
            /// How late flushes begin, in ms.
            pub late: SharedHistogram,
        }

        impl ShardStats {
            /// Names and sums over `shards`.
            pub fn sum<'a>(shards: impl IntoIterator<Item = &'a Self> + Clone) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), shards.clone().into_iter().map(|shard| shard.$name.value()).sum())),*]
            }
        }
    };
}

counters! {
    /// Connections accepted.
    accepted,
    /// Connections closed.
    closed,
    /// Publishes and plays begun.
    clients,
    /// Connections refused at `max_connections`.
    refused,
    /// Publishes and plays refused by `security` or for want of a signature.
    refused_by_rule,
    /// Connections, publishes and plays refused by a hook.
    refused_by_hook,
    /// Publishes refused, the stream being published.
    refused_busy,
    /// Publishes and plays refused at `memory_max`.
    refused_for_memory,
    /// Connections that ended by a fault of theirs or ours.
    closed_by_fault,
    /// Connections that ended in a panic of their task.
    panics,
    /// Pauses of accept for want of descriptors.
    accept_pauses,
    /// Bytes received.
    bytes_received,
    /// Bytes sent.
    bytes_sent,
    /// Tags received from publishers.
    tags_received,
    /// Tags handed to the kernel for players.
    tags_sent,
    /// Tags sent to other shards' replicas.
    tags_relayed,
    /// Tags left out between shards because a ring was full.
    gaps,
    /// Times that a player was moved to a newer keyframe.
    skips,
    /// Send operations handed to the send ring.
    sends,
    /// System calls of the send ring.
    send_syscalls,
    /// Players that play now.
    players,
    /// Publishers that publish now.
    publishers,
    /// Flush interval of `mw_latency auto` now, in ms; 0 is at once. A sum over shards means nothing.
    pace_ms,
    /// The shard's load, smoothed, in 1/1000 of its core. A sum over shards means nothing.
    busy_permille,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_count_by_bounds() {
        let shared = SharedHistogram::default();
        for ms in [0, 1, 2, 350, 351, 9999] {
            shared.note(ms);
        }
        let mut seen = shared.read();
        assert_eq!((seen.count(), seen.sum_ms(), seen.percentile(50), seen.percentile(99)), (6, 10_703, 2, 5000));
        seen.add(&seen.clone());
        assert_eq!(seen.cumulative().last(), Some((5000, 10)));
        assert_eq!(Histogram::default().percentile(99), 0);
    }

    #[test]
    fn a_rate_follows_the_last_half_minute() {
        let mut rate = Rate::new(1000);
        assert_eq!((rate.kbps(1000, 0), rate.kbps(2000, 1000)), (0, 8));
        for second in 1..=60 {
            rate.look(1000 + second * 1000, second * 1000);
        }
        assert_eq!(rate.kbps(61_000, 60_000), 8);
        (61..=120).for_each(|second| rate.look(1000 + second * 1000, 60_000));
        assert_eq!(rate.kbps(121_000, 60_000), 0);
    }
}
