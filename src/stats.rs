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

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// One shard's counters.
        #[derive(Debug, Default)]
        pub struct ShardStats {
            $($(#[$doc])* pub $name: Counter,)*
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
    /// Connections refused at `max_connections`.
    refused,
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
