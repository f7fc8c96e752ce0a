//! What is known of the servers that an edge has its streams from: who has failed lately, and what the players asked
//! for who want a stream.

use super::port::{Request, Target};
use hashbrown::HashMap;
use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// A server that has failed is tried last for so long, in ms.
const AVOIDED_MS: u64 = 10_000;
/// Servers and wishes that are remembered; beyond that all are forgotten.
const REMEMBERED_MAX: usize = 10_000;

/// See the module; one for all shards, and touched when a stream begins or a server fails.
#[derive(Debug, Default)]
pub(super) struct Origins {
    /// When a server failed last, in ms, by its name.
    failed: Mutex<HashMap<String, u64>>,
    /// By the stream's key.
    wishes: Mutex<HashMap<String, Wish>>,
    /// Streams that have begun: each begins with the next server.
    turn: AtomicUsize,
}

/// What somebody asked for who wants a stream that is not here.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    /// With the query, where tokens stand.
    pub(super) request: Request,
    /// The marks of the servers that ask.
    pub(super) path: String,
    /// It is to be had by FLV.
    pub(super) by_flv: bool,
}

impl Origins {
    fn failed(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wishes(&self) -> MutexGuard<'_, HashMap<String, Wish>> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_failure(&self, target: &Target, now_ms: u64) {
        let mut failed = self.failed();
        if failed.len() >= REMEMBERED_MAX {
            failed.clear();
        }
        failed.insert(target.name.clone(), now_ms);
    }

    pub(super) fn note_success(&self, target: &Target) {
        self.failed().remove(&target.name);
    }

    /// Which of the targets a stream begins with.
    pub(super) fn first(&self, targets: &[Target], now_ms: u64) -> usize {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.next(targets, turn % targets.len().max(1), now_ms)
    }

    /// The first of the targets from a place on that has not failed lately; that place if all have.
    pub(super) fn next(&self, targets: &[Target], from: usize, now_ms: u64) -> usize {
        let failed = self.failed();
        let is_good = |at: &usize| {
            let when = targets.get(*at).and_then(|target| failed.get(&target.name));
            when.is_none_or(|failed_ms| now_ms >= failed_ms + AVOIDED_MS)
        };
        (from..targets.len()).chain(0..from).find(is_good).unwrap_or(from)
    }

    pub(super) fn wish(&self, wish: Wish) {
        let mut wishes = self.wishes();
        if wishes.len() >= REMEMBERED_MAX {
            wishes.clear();
        }
        wishes.insert(wish.request.key.clone(), wish);
    }

    pub(super) fn take_wish(&self, key: &str) -> Option<Wish> {
        self.wishes().remove(key)
    }
}
