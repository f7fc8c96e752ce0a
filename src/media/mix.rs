//! `mix_correct`: audio and video in one order of time.

use super::Entry;
use crate::proto::{codec::Class, flv::TagKind};
use std::collections::VecDeque;

/// Tags of one track that wait for one of the other before they go on without it, as in SRS.
pub const MIX_TAGS_MAX: usize = 10;
/// Most bytes that wait so.
pub const MIX_BYTES_MAX: usize = 4 << 20;

/// Tags that wait for the other track. A track's own order never changes.
#[derive(Debug, Default)]
pub struct Mix {
    audio: VecDeque<(i64, Entry)>,
    video: VecDeque<(i64, Entry)>,
    newest: [i64; 2],
    bytes: usize,
}

impl Mix {
    /// Takes a tag, and gives those whose turn has come, in order.
    pub fn push(&mut self, entry: Entry) -> Vec<Entry> {
        let track = match entry.tag.kind {
            TagKind::Audio => 0,
            TagKind::Video => 1,
            // Script data is of neither track.
            TagKind::Script => return vec![entry],
        };
        // A setup goes where its track stands, whatever its time.
        let setup = matches!(entry.info.class, Class::Header { .. });
        let at = if setup { self.newest[track] } else { entry.time_ms.max(self.newest[track]) };
        self.newest[track] = at;
        self.bytes += entry.bytes();
        if track == 0 {
            self.audio.push_back((at, entry))
        } else {
            self.video.push_back((at, entry))
        }
        let mut out = Vec::new();
        while let Some(entry) = self.pop(if self.bytes > MIX_BYTES_MAX { 0 } else { MIX_TAGS_MAX }) {
            out.push(entry);
        }
        out
    }

    /// All that is left.
    pub fn drain(&mut self) -> Vec<Entry> {
        std::iter::from_fn(|| self.pop(0)).collect()
    }

    /// The earliest, if both tracks have one or one has more than `alone`.
    fn pop(&mut self, alone: usize) -> Option<Entry> {
        let queue = match (self.audio.front(), self.video.front()) {
            (Some((audio, _)), Some((video, _))) if audio <= video => &mut self.audio,
            (Some(_), Some(_)) => &mut self.video,
            (Some(_), None) if self.audio.len() > alone => &mut self.audio,
            (None, Some(_)) if self.video.len() > alone => &mut self.video,
            _ => return None,
        };
        let (_, entry) = queue.pop_front()?;
        self.bytes -= entry.bytes();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{codec, flv::Tag};

    fn entry(kind: TagKind, time_ms: i64) -> Entry {
        let body: &'static [u8] = if kind == TagKind::Audio { b"\xAF\x01" } else { b"\x27\x01\0\0\0" };
        let info = codec::inspect(kind, body);
        Entry { tag: Tag { kind, timestamp: 0, body: body.into() }, info, time_ms, delta_ms: 0, arrived_ms: 0 }
    }

    #[test]
    fn tracks_merge_in_order_and_one_alone_goes_on() {
        let mut mix = Mix::default();
        let mut out = Vec::new();
        for (kind, at) in [
            (TagKind::Video, 0),
            (TagKind::Video, 40),
            (TagKind::Audio, 10),
            (TagKind::Audio, 30),
            (TagKind::Audio, 50),
            (TagKind::Video, 80),
        ] {
            out.extend(mix.push(entry(kind, at)));
        }
        out.extend(mix.drain());
        assert_eq!(out.iter().map(|entry| entry.time_ms).collect::<Vec<_>>(), [0, 10, 30, 40, 50, 80]);
        for at in 0..100 {
            out.extend(mix.push(entry(TagKind::Audio, at)));
        }
        assert_eq!(out.len(), 6 + 100 - MIX_TAGS_MAX);
    }

    /// A track that steps back stays in its own order.
    #[test]
    fn no_track_is_reordered() {
        let mut mix = Mix::default();
        let times = [100, 50, 60, 70];
        let mut out: Vec<Entry> = times.into_iter().flat_map(|at| mix.push(entry(TagKind::Video, at))).collect();
        out.extend(mix.drain());
        assert_eq!(out.iter().map(|entry| entry.time_ms).collect::<Vec<_>>(), times);
    }
}
