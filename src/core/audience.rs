//! Who is there, for hooks, and what is told when they go.

use crate::control::hooks;
use hashbrown::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many publish and play each stream, on all shards: `clients` in hooks. Streams of vhosts whose hooks ask for it
/// stand here, and a lock is held where one of their clients comes or goes.
#[derive(Debug, Default)]
pub(super) struct Audience(Mutex<HashMap<String, u64>>);

/// One client of a stream, as long as this is there.
#[derive(Debug)]
pub(super) struct Present {
    audience: Arc<Audience>,
    key: String,
}

impl Audience {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(self: &Arc<Self>, key: &str) -> Present {
        *self.lock().entry(key.to_owned()).or_default() += 1;
        Present { audience: Arc::clone(self), key: key.to_owned() }
    }

    pub(super) fn count(&self, key: &str) -> u64 {
        self.lock().get(key).copied().unwrap_or(0)
    }
}

impl Present {
    /// Clients of its stream, itself among them.
    pub(super) fn count(&self) -> u64 {
        self.audience.count(&self.key)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut all = self.audience.lock();
        if let Some(count) = all.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.key);
            }
        }
    }
}

/// What is to be told when a publish or a play ends.
#[derive(Debug, Default)]
pub(super) struct AtEnd {
    pub(super) event: Option<Box<hooks::Event>>,
    pub(super) present: Option<Present>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_counted_as_long_as_they_are_there() {
        let audience = Arc::new(Audience::default());
        let (a, b, other) = (audience.enter("a"), audience.enter("a"), audience.enter("b"));
        assert_eq!((audience.count("a"), audience.count("b"), audience.count("c")), (2, 1, 0));
        drop((a, b, other));
        assert!(audience.lock().is_empty());
    }
}
