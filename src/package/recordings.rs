//! Recordings of now and of late, whom they are of, and who is to be recorded.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Recordings that are remembered.
const REMEMBERED_MAX: usize = 1000;

/// Whether a stream is to be recorded.
#[derive(Debug, Default)]
pub(super) struct Switch(AtomicBool);

impl Switch {
    pub(super) fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A recording, for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Recorded {
    /// The stream's key.
    pub key: String,
    /// Its file, when it is whole.
    pub file: String,
    /// When it began, in ms since 1970.
    pub started_ms: u64,
    /// What has been written.
    pub bytes: u64,
    /// How it stands.
    pub state: RecordingState,
}

/// How a recording stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RecordingState {
    /// It grows.
    Recording,
    /// It is whole.
    Done,
    /// It has an end that was not meant.
    Failed,
}

/// What is known of a recording while it is made, and later.
#[derive(Debug)]
pub(super) struct Entry {
    key: String,
    file: String,
    started_ms: u64,
    pub(super) bytes: AtomicU64,
    pub(super) failed: AtomicBool,
    pub(super) whole: AtomicBool,
}

impl Entry {
    pub(super) fn new(key: &str, file: &Path, started_ms: u64) -> Self {
        let (failed, whole) = (AtomicBool::new(false), AtomicBool::new(false));
        let file = file.display().to_string();
        Self { key: key.to_owned(), file, started_ms, bytes: AtomicU64::new(0), failed, whole }
    }

    fn told(&self) -> Recorded {
        let state = match (self.failed.load(Ordering::Relaxed), self.whole.load(Ordering::Relaxed)) {
            (true, _) => RecordingState::Failed,
            (false, true) => RecordingState::Done,
            (false, false) => RecordingState::Recording,
        };
        let (key, file) = (self.key.clone(), self.file.clone());
        Recorded { key, file, started_ms: self.started_ms, bytes: self.bytes.load(Ordering::Relaxed), state }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Recordings {
    streams: Mutex<HashMap<String, Arc<Switch>>>,
    entries: Mutex<VecDeque<Arc<Entry>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recordings {
    /// A publish begins of a stream that can be recorded, and is if the configuration says so.
    pub(super) fn begin(&self, key: &str, on: bool) -> Arc<Switch> {
        let switch = Arc::new(Switch(on.into()));
        lock(&self.streams).insert(key.to_owned(), Arc::clone(&switch));
        switch
    }

    /// It has ended; another may have begun.
    pub(super) fn end(&self, key: &str, switch: &Arc<Switch>) {
        let mut streams = lock(&self.streams);
        if streams.get(key).is_some_and(|present| Arc::ptr_eq(present, switch)) {
            streams.remove(key);
        }
    }

    pub(super) fn add(&self, entry: &Arc<Entry>) {
        let mut entries = lock(&self.entries);
        if entries.len() >= REMEMBERED_MAX {
            entries.pop_front();
        }
        entries.push_back(Arc::clone(entry));
    }

    /// Has a published stream recorded, from its next keyframe on, or no more; `None` if it cannot be, else whether that is new.
    pub fn set(&self, key: &str, on: bool) -> Option<bool> {
        lock(&self.streams).get(key).map(|switch| switch.0.swap(on, Ordering::Relaxed) != on)
    }

    /// Streams that can be recorded.
    pub fn streams(&self) -> Vec<String> {
        lock(&self.streams).keys().cloned().collect()
    }

    /// Recordings, the newest first.
    pub fn list(&self) -> Vec<Recorded> {
        lock(&self.entries).iter().rev().map(|entry| entry.told()).collect()
    }
}
