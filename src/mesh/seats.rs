//! Places at a stream's home for players who came in elsewhere: a stream that few play is kept once, however many
//! shards there are, and one that many play is played on all of them.

use super::hash_of;
use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

/// Streams are told apart by so many numbers; who shares one with another stream shares its seats.
const NUMBERS: usize = 1 << 17;
/// Players of a stream who go to its home from other shards, however many come at once: what they cost that core is
/// little.
const SEATS: u8 = 4;

/// How many are taken. All shards share it; it is touched when a play begins and when it ends.
#[derive(Debug)]
pub struct Seats(Box<[AtomicU8]>);

impl Default for Seats {
    fn default() -> Self {
        Self((0..NUMBERS).map(|_| AtomicU8::new(0)).collect())
    }
}

impl Seats {
    /// A seat at a stream's home, if there is one left.
    pub fn take(self: &Arc<Self>, key: &str) -> Option<Seat> {
        let number = usize::try_from(hash_of(key)).unwrap_or(0) % NUMBERS;
        let more = |taken| (taken < SEATS).then_some(taken + 1);
        self.0[number].fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Seat { seats: Arc::clone(self), number })
    }
}

/// One seat, free again when this is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    number: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.0[self.number].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many come at once, few go to one shard; who leaves makes room.
    #[test]
    fn seats_are_few_and_free_again() {
        let seats = Arc::new(Seats::default());
        let taken: Vec<Option<Seat>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..100).map(|_| seats.take("v/live/hot")).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(taken.iter().flatten().count(), usize::from(SEATS));
        assert!(seats.take("v/live/other").is_some() && seats.take("v/live/hot").is_none());
        drop(taken);
        assert!(seats.take("v/live/hot").is_some());
    }
}
