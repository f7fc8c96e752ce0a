//! What a late joiner needs before media: metadata and sequence headers.

use super::Entry;
use crate::proto::{codec::Class, flv::TagKind};
use smallvec::SmallVec;

/// Most setups that one stream keeps beside its metadata; tracks and packet types beyond are
/// forwarded and not kept.
pub const HEADERS_MAX: usize = 32;
/// Most bytes that they take, metadata included; what does not fit is forwarded and not kept. A stream has up
/// to five generations of them (the newest, the publish's first, two marks, ended publishes): one MiB in all.
pub const HEADERS_BYTES_MAX: usize = 192 << 10;

/// The newest metadata, and the newest setup of each slot in the order of their first coming.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    metadata: Option<Entry>,
    setups: SmallVec<[Entry; 2]>,
}

impl Headers {
    /// Takes an entry over if it is metadata or a setup.
    pub fn update(&mut self, entry: &Entry) {
        match entry.info.class {
            Class::Metadata => {
                self.metadata = None;
                self.metadata = self.has_room(entry).then(|| entry.clone());
            }
            Class::Header { .. } => self.replace(entry),
            Class::Keyframe | Class::InterFrame | Class::Audio | Class::Data => {}
        }
    }

    fn replace(&mut self, entry: &Entry) {
        let same = |known: &Entry| known.tag.kind == entry.tag.kind && known.info.class == entry.info.class;
        let known = self.setups.iter().position(same);
        // An old setup in place of a new one that does not fit would be worse than none.
        if let Some(at) = known {
            self.setups.remove(at);
        }
        if self.setups.len() < HEADERS_MAX && self.has_room(entry) {
            self.setups.insert(known.unwrap_or(self.setups.len()), entry.clone());
        }
    }

    fn has_room(&self, entry: &Entry) -> bool {
        self.bytes() + entry.bytes() <= HEADERS_BYTES_MAX
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        self.iter().map(Entry::bytes).sum()
    }

    /// Whether an entry is a setup that says what the one before it in its slot said.
    pub fn repeats(&self, entry: &Entry) -> bool {
        matches!(entry.info.class, Class::Header { .. })
            && self.setups.iter().any(|known| {
                known.tag.kind == entry.tag.kind
                    && known.info.class == entry.info.class
                    && known.tag.body == entry.tag.body
            })
    }

    /// Metadata first, then the setups.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.metadata.iter().chain(&self.setups)
    }

    /// Whether a setup of `kind` is there.
    pub fn has(&self, kind: TagKind) -> bool {
        self.setups.iter().any(|entry| entry.tag.kind == kind)
    }

    /// The newest metadata.
    pub fn metadata(&self) -> Option<&Entry> {
        self.metadata.as_ref()
    }
}
