//! What takes a stream where it is at home, beside its log: segments, recordings.

use super::Entry;
use std::fmt::Debug;

/// Takes one publish.
pub trait Taker: Debug {
    /// The next entry, with its time.
    fn take(&mut self, entry: &Entry);

    /// The publish is over.
    fn end(&mut self);
}
