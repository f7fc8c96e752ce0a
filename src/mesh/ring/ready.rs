//! Who has something for a shard: a bit per sender, so that nobody looks at empty rings.

use super::waker::Padded;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Senders of one word.
const WORD: usize = u64::BITS as usize;

/// One receiver's bits. A sender sets its own after it has pushed; the receiver clears what is set, and looks into
/// those rings afterwards.
///
/// Nothing is overlooked: each side has a fence between what it writes and what it reads, and one of the two fences
/// is first. If it is the sender's, the receiver's look into the ring sees what was pushed; if it is the receiver's,
/// the sender sees its bit cleared, and sets it.
#[derive(Debug)]
pub(super) struct Ready(Box<[Padded<AtomicU64>]>);

impl Ready {
    pub(super) fn new(senders: usize) -> Self {
        Self((0..senders.div_ceil(WORD)).map(|_| Padded::default()).collect())
    }

    /// Says that `from` has pushed something. Where that is known already nothing is written, so that the line of
    /// the cache stays with everybody.
    pub(super) fn set(&self, from: usize) {
        let (word, bit) = (&self.0[from / WORD], 1 << (from % WORD));
        fence(Ordering::SeqCst);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    /// Clears the bits that are set, and adds them to `turns`.
    pub(super) fn take(&self, turns: &mut Turns) {
        let mut any = false;
        for (word, turns) in self.0.iter().zip(&mut turns.0) {
            if word.load(Ordering::Relaxed) != 0 {
                *turns |= word.swap(0, Ordering::AcqRel);
                any = true;
            }
        }
        if any {
            fence(Ordering::SeqCst);
        }
    }
}

/// Whose turn it is among those who had something when that was asked.
#[derive(Debug)]
pub(super) struct Turns(Box<[u64]>);

impl Turns {
    pub(super) fn new(senders: usize) -> Self {
        Self(vec![0; senders.div_ceil(WORD)].into())
    }

    pub(super) fn has(&self, sender: usize) -> bool {
        self.0[sender / WORD] & 1 << (sender % WORD) != 0
    }

    pub(super) fn remove(&mut self, sender: usize) {
        self.0[sender / WORD] &= !(1 << (sender % WORD));
    }

    /// The next one behind `sender`, and at last that one itself.
    pub(super) fn after(&self, sender: usize) -> Option<usize> {
        let (word, bit) = (sender / WORD, sender % WORD);
        let first = |at: usize, bits: u64| (bits != 0).then(|| at * WORD + bits.trailing_zeros() as usize);
        let others = (word + 1..self.0.len()).chain(0..=word);
        first(word, self.0[word] & u64::MAX << bit << 1)
            .or_else(|| others.into_iter().find_map(|at| first(at, self.0[at])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everybody has a turn, on machines of one word and of several.
    #[test]
    fn turns_go_round() {
        for senders in [1, 2, 63, 64, 65, 128, 200] {
            let (ready, mut turns) = (Ready::new(senders), Turns::new(senders));
            assert_eq!(turns.after(senders - 1), None);
            (0..senders).for_each(|sender| ready.set(sender));
            ready.take(&mut turns);
            let mut at = senders - 1;
            for expected in (0..senders).chain(0..senders) {
                at = turns.after(at).unwrap();
                assert_eq!(at, expected);
            }
            for sender in 0..senders {
                assert!(turns.has(sender));
                turns.remove(sender);
                assert_eq!(turns.after(sender), (sender + 1 < senders).then_some(sender + 1));
            }
            ready.take(&mut turns);
            assert_eq!(turns.after(0), None, "taken once");
        }
    }
}
