//! Segments of streams: cut once, where a stream is at home, and kept in memory for all shards; on disk too, where that is
//! wanted.
//!
//! A [`Packager`] takes a stream's entries as they come ([`crate::media::Taker`]). What it makes lies on the
//! [`Shelf`], by path, in refcounted pieces that whoever asks is given without a copy. Nobody waits for a disk: files
//! are the [`files::Writer`]'s.

mod answer;
mod cutter;
mod dash;
mod files;
mod fragments;
mod intake;
mod kept;
mod mpd;
mod names;
mod packager;
mod playlist;
mod recorder;
mod recordings;
mod shelf;
mod track;
pub mod ts;
mod variants;

use serde_json::Value;
use std::sync::Arc;

/// Stands behind every URI of a playlist, where a query goes that is a player's own.
const MARK: char = '\u{1}';

/// Tells others of a file.
pub type Tell = Arc<dyn Fn(Made) + Send + Sync>;

/// A file that has been made, in the words of SRS's hooks.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// Where it is.
    pub file: String,
    /// A segment's own fields.
    pub segment: Option<MadeSegment>,
}

/// The same of a segment.
#[derive(Clone, Debug, Default)]
pub struct MadeSegment {
    /// In seconds.
    pub duration: f64,
    /// From the playlist on, or whole.
    pub url: String,
    /// The playlist's file.
    pub m3u8: String,
    /// The playlist below the HTTP server's root.
    pub m3u8_url: String,
    /// Its number.
    pub sequence: u64,
}

impl Made {
    /// What is told of it.
    pub fn fields(self) -> Vec<(&'static str, Value)> {
        let mut fields = vec![("file", self.file.into())];
        if let Some(MadeSegment { duration, url, m3u8, m3u8_url, sequence }) = self.segment {
            fields.extend([
                ("duration", duration.into()),
                ("url", url.into()),
                ("m3u8", m3u8.into()),
                ("m3u8_url", m3u8_url.into()),
                ("seq_no", sequence.into()),
            ]);
        }
        fields
    }
}

pub use answer::{Answer, Asked, Playlist, answer, is_playlist, is_there, sweep, to_fetch};
pub use dash::DashPackager;
pub use files::Writer;
pub use packager::{Name, Packager, Place};
pub use recorder::Recorder;
pub use recordings::{Recorded, RecordingState};
pub use shelf::{Blob, Growing, Shelf, Shown, Visit};
