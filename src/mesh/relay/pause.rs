//! How long publishers rest between two reads.

use super::{Relay, StreamId, stream::Interest};
use crate::mesh::ring::Cargo;

/// Publishers of a shard per ms of pause between two reads of one: few of them cost little anyway.
const PUBLISHERS_PER_PAUSE_MS: u64 = 5;
/// Reads within one flush interval: what they add to the latency is a small part of it.
const READ_PAUSES_PER_FLUSH: u64 = 8;
/// Longest pause between two reads of a publisher, in ms; 25 Mbit/s fill 128 KiB in it.
const READ_PAUSE_MS_MAX: u64 = 40;
/// The same while nobody plays the stream.
const READ_PAUSE_UNSEEN_MS: u64 = 100;

impl<P, M: Cargo> Relay<P, M> {
    /// How long the publisher of a stream may be left unread, in ms: reads that are fewer and larger cost
    /// less, and what waits for the next flush anyway is not late by it.
    pub fn read_pause_ms(&self, id: StreamId) -> u64 {
        let Some(stream) = self.streams.get(id) else { return 0 };
        if let Some(mr_latency_ms) = stream.replica.settings().mr_latency_ms {
            return mr_latency_ms;
        }
        let most_ms = self.publishers / PUBLISHERS_PER_PAUSE_MS;
        if stream.is_unseen() {
            return READ_PAUSE_UNSEEN_MS.min(most_ms);
        }
        let eager = |interest: &Interest| self.mesh.wakers()[interest.shard].is_eager();
        let interval_ms = match stream.replica.settings().interval_ms() {
            Some(interval_ms) => interval_ms,
            None if stream.interested.iter().any(eager) => 0,
            // The other shards merge; how far is theirs to know.
            None if stream.replica.schedule.is_empty() => READ_PAUSE_MS_MAX * READ_PAUSES_PER_FLUSH,
            None => stream.replica.schedule.interval_ms(),
        };
        (interval_ms / READ_PAUSES_PER_FLUSH).min(READ_PAUSE_MS_MAX).min(most_ms)
    }
}
