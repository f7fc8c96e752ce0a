//! A log made of a log: what an endpoint makes of a stream's entries, once per shard and never per player.
//!
//! A rendition has a piece for every entry, with the same index, so that the same cursors read it.

use super::{Entry, Headers};
use bytes::Bytes;
use std::{collections::VecDeque, fmt, rc::Rc};

/// A way to render a stream.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Tells kinds apart.
    pub name: &'static str,
    /// Begins one.
    pub render: fn() -> Box<dyn Render>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Makes pieces of entries.
pub trait Render: fmt::Debug {
    /// A publish begins, or is joined late: what stands before its first entry.
    fn begin(&mut self, headers: &Headers);

    /// Makes the next entry's piece, perhaps an empty one.
    fn render(&mut self, entry: &Entry) -> Bytes;

    /// What a reader has to know that begins at the next entry; its endpoint says what that is.
    fn note(&self) -> u64;
}

/// What stands for an entry.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Perhaps none.
    pub bytes: Bytes,
    /// What a reader has to know that begins here.
    pub note: u64,
}

/// The pieces of one kind, as long as somebody reads them.
#[derive(Debug)]
pub struct Rendition {
    kind: &'static Kind,
    render: Box<dyn Render>,
    first: u64,
    pieces: VecDeque<Piece>,
    /// Bytes that the pieces take.
    bytes: usize,
    reader: Reader,
}

/// Kept by whoever reads a rendition; how many there are is counted even if one is lost in a panic.
#[derive(Clone, Debug, Default)]
pub struct Reader(Rc<()>);

impl Rendition {
    /// Begins at an index of the log, with what stands before it.
    pub(super) fn new(kind: &'static Kind, first: u64, headers: &Headers) -> Self {
        let mut render = (kind.render)();
        render.begin(headers);
        Self { kind, render, first, pieces: VecDeque::new(), bytes: 0, reader: Reader::default() }
    }

    /// For one who reads it.
    pub(super) fn reader(&self) -> Reader {
        self.reader.clone()
    }

    pub(super) fn is_read(&self) -> bool {
        Rc::strong_count(&self.reader.0) > 1
    }

    /// Whether it is of a kind.
    pub fn is(&self, kind: &Kind) -> bool {
        self.kind.name == kind.name
    }

    /// The piece of an entry; `None` before its beginning and at the log's end.
    pub fn at(&self, index: u64) -> Option<&Piece> {
        self.pieces.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// What a reader has to know that begins at `index`.
    pub fn note(&self, index: u64) -> u64 {
        self.at(index).map_or_else(|| self.render.note(), |piece| piece.note)
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn begin(&mut self, headers: &Headers) {
        self.render.begin(headers);
    }

    pub(super) fn push(&mut self, entry: &Entry) {
        let note = self.render.note();
        let bytes = self.render.render(entry);
        self.bytes += size_of::<Piece>() + bytes.len();
        self.pieces.push_back(Piece { bytes, note });
    }

    /// Drops the oldest pieces beyond so many bytes.
    pub(super) fn bound(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            self.trim(self.first + 1);
        }
    }

    /// Drops what the log has dropped.
    pub(super) fn trim(&mut self, first: u64) {
        while self.first < first {
            let Some(piece) = self.pieces.pop_front() else { return };
            self.bytes -= size_of::<Piece>() + piece.bytes.len();
            self.first += 1;
        }
    }
}
