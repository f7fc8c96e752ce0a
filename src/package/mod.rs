//! Segments of streams: cut once, where a stream is at home, and kept in memory for all shards; on disk too, where that is
//! wanted.
//!
//! A [`Packager`] takes a stream's entries as they come ([`crate::media::Taker`]). What it makes lies on the
//! [`Shelf`], by path, in refcounted pieces that whoever asks is given without a copy. Nobody waits for a disk: files
//! are the [`files::Writer`]'s.

mod files;
mod hls;
mod names;
mod packager;
mod playlist;
mod shelf;
mod track;
pub mod ts;

pub use files::Writer;
pub use hls::{Answer, Asked, answer, sweep};
pub use packager::{Name, Packager};
pub use shelf::{Blob, Shelf, Shown, Visit};
