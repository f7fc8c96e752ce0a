//! The ring log of a stream's recent tags.

use crate::proto::{codec::TagInfo, flv::Tag};
use std::{collections::VecDeque, ops::Range};

/// Most bytes that one stream's log takes on one shard, entries included; the oldest go first. At
/// 20 Mbit/s this is 26 s.
pub const LOG_BYTES_MAX: usize = 64 << 20;
/// Most entries of it: 30 s of 1000 tags a second, five times what real streams have.
pub const LOG_ENTRIES_MAX: usize = 1 << 15;
/// What an entry takes beside its body's bytes: its place, and the allocation that counts references.
pub const ENTRY_BYTES: usize = size_of::<Entry>() + 64;

/// A tag in the log, and across cores: cloning it counts a reference.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As published.
    pub tag: Tag,
    /// What it is.
    pub info: TagInfo,
    /// Media time in ms, unwrapped: grows over 2^32. [`Entry::BEFORE_MEDIA`] before all media.
    pub time_ms: i64,
    /// Distance to the last tag of its kind, in ms, modulo 2^32; 0 for the first one.
    pub delta_ms: u32,
    /// When the publisher's shard got it, in ms of the process's clock.
    pub arrived_ms: u64,
}

impl Entry {
    /// The time of what comes before a publish's first media tag: where a subscription begins.
    pub const BEFORE_MEDIA: i64 = i64::MIN;

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        ENTRY_BYTES + self.tag.body.len()
    }
}

/// Entries by index.
#[derive(Debug, Default)]
pub struct Log {
    entries: VecDeque<Entry>,
    first: u64,
    bytes: usize,
}

impl Log {
    /// The index of the oldest entry.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The index that the next entry gets.
    pub fn head(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it is over its limits.
    pub fn is_over(&self) -> bool {
        self.bytes > LOG_BYTES_MAX || self.entries.len() > LOG_ENTRIES_MAX
    }

    /// The newest entry.
    pub fn newest(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// The entry at `index`, if it is kept.
    pub fn at(&self, index: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// The entries of `range`, which must be kept.
    pub fn range(&self, range: Range<u64>) -> impl Iterator<Item = &Entry> {
        let at = |index: u64| {
            usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.entries.len())
        };
        self.entries.range(at(range.start)..at(range.end).max(at(range.start)))
    }

    /// Appends; returns the index.
    pub(super) fn push(&mut self, entry: Entry) -> u64 {
        let index = self.head();
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        index
    }

    /// Drops what is older than `keep_from`, and more if the log is over its limits.
    pub(super) fn trim(&mut self, keep_from: u64) {
        while self.first < keep_from || self.is_over() {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= entry.bytes();
            self.first += 1;
        }
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }
}
