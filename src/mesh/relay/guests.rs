//! Streams of other shards that are played here.

use super::Relay;
use crate::mesh::ring::Cargo;

/// So many are kept here without a thought; from there on those that few play are played at home.
const GUESTS: usize = 64;

impl<P, M: Cargo> Relay<P, M> {
    /// The home of a stream that is better played there, if few play it: it is not here, and many others are.
    pub fn better_home(&self, key: &str) -> Option<usize> {
        let home = self.home_of(key);
        (home != self.me() && self.guests >= GUESTS && !self.by_key.contains_key(key)).then_some(home)
    }
}
