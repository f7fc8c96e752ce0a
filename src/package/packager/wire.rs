//! A segment's bytes, as frames come: packets of a transport stream, or fragments of MP4.

use super::{CHUNK_BYTES, FRAGMENT_BYTES_MAX, Open, Packager, Wire};
use crate::{
    media::{Entry, Render},
    package::{
        fragments::Fragments,
        kept::{Map, Part, Segment},
        names::content_type,
        shelf::{Blob, Item},
        track::Track,
        ts::TsRender,
    },
    proto::mp4,
};
use bytes::Bytes;
use std::{mem, sync::Arc};

impl Packager {
    /// Begins a segment.
    pub(super) fn begin(&mut self, time_ms: i64, key: bool) {
        if self.wire.is_none() && !self.choose_wire() {
            return;
        }
        let (wall_ms, at_ms) = *self.wall.get_or_insert((self.since_1970_ms + self.now_ms, time_ms));
        let map = match &mut self.wire {
            Some(Wire::Ts(render)) => {
                render.cut();
                None
            }
            Some(Wire::Mp4(map, _)) => Some(Arc::clone(map)),
            None => None,
        };
        let segment = Segment {
            sequence: 0,
            uri: String::new(),
            path: String::new(),
            file: None,
            duration_ms: 0,
            discontinuity: mem::take(&mut self.breaks),
            at_ms: wall_ms.saturating_add_signed(time_ms - at_ms),
            bytes: 0,
            map,
            key: None,
            parts: Vec::new(),
            pieces: Vec::new(),
            period: None,
        };
        self.open =
            Some(Open { segment, start_ms: time_ms, part: (time_ms, key), chunks: Vec::new(), buffer: Vec::new() });
    }

    /// A transport stream, unless MP4 is wished for or a codec has no place in it.
    pub(super) fn choose_wire(&mut self) -> bool {
        let fits = self.intake.tracks().all(Track::fits_ts);
        if !self.hls.fmp4 && fits {
            let mut render = TsRender::new([self.intake.video.is_some(), self.intake.audio.is_some()]);
            self.intake.setups.iter().flatten().for_each(|entry| drop(render.render(entry)));
            self.wire = Some(Wire::Ts(Box::new(render)));
            return true;
        }
        if !self.hls.fmp4 {
            tracing::info!(stream = %self.name.key, "HLS by fragments of MP4: no transport stream has these codecs");
        }
        let tracks: Vec<mp4::Track> = [(1, &self.intake.video), (2, &self.intake.audio)]
            .into_iter()
            .filter_map(|(id, track)| track.as_ref().map(|track| track.of_file(id)))
            .collect();
        let mut header = Vec::new();
        mp4::put_header(&tracks, &mut header);
        let header = Bytes::from(header);
        // Headers that differ must not have one name.
        let mut kept = self.shown.kept();
        let moment = self.moment(kept.sequence, 0, self.since_1970_ms + self.now_ms);
        let Some(mut file) = self.words().fill(&self.hls.init_file, Some(moment)) else { return false };
        if kept.paths.contains(&self.path(&file)) {
            file = match file.rsplit_once('.') {
                Some((stem, end)) => format!("{stem}-{}.{end}", kept.sequence),
                None => format!("{file}-{}", kept.sequence),
            };
        }
        let path = self.path(&file);
        if !kept.paths.contains(&path) {
            kept.paths.push(path.clone());
        }
        drop(kept);
        let blob = Blob::new(vec![header.clone()], content_type(true, self.intake.video.is_some()));
        if self.hls.memory {
            self.shelf.put(&path, Item::Blob(blob));
        }
        if self.hls.disk {
            self.writer.put(self.hls.path.join(&file), vec![header]);
        }
        let on_disk = self.hls.disk.then(|| self.hls.path.join(&file));
        let map = Arc::new(Map { uri: self.uri(&file), path, file: on_disk });
        self.wire = Some(Wire::Mp4(map, Fragments::default()));
        true
    }

    pub(super) fn put(&mut self, entry: &Entry) {
        let (Some(open), Some(wire)) = (&mut self.open, &mut self.wire) else { return };
        match wire {
            Wire::Ts(render) => {
                open.buffer.extend_from_slice(&render.render(entry));
                if open.buffer.len() >= CHUNK_BYTES {
                    open.take_buffer();
                }
            }
            Wire::Mp4(_, fragments) => {
                if fragments.push(&self.intake, entry, entry.time_ms) > FRAGMENT_BYTES_MAX {
                    self.end_part(entry.time_ms);
                    self.begin_part(entry.time_ms, false);
                }
            }
        }
    }

    /// The part that is being made ends at a time.
    pub(super) fn end_part(&mut self, end_ms: i64) {
        let (Some(open), Some(wire)) = (&mut self.open, &mut self.wire) else { return };
        let Wire::Mp4(_, fragments) = wire else { return };
        let mut out = Vec::new();
        if !fragments.put(&self.intake, end_ms, &mut out) {
            return;
        }
        let bytes = Bytes::from(out);
        open.chunks.push(bytes.clone());
        let (start_ms, independent) = open.part;
        let duration_ms = u64::try_from(end_ms - start_ms).unwrap_or(0);
        if self.hls.part_ms.is_none() || !self.hls.memory {
            return;
        }
        self.cutter.saw_part(i64::try_from(duration_ms).unwrap_or(0));
        let shown = Arc::clone(&self.shown);
        let mut kept = shown.kept();
        self.recovered(&mut kept);
        let Some(file) = self.part_name(kept.sequence, self.open_parts()) else { return };
        let (uri, path) = (self.uri(&file), self.path(&file));
        self.shelf.put(&path, Item::Part(Blob::new(vec![bytes], content_type(true, self.intake.video.is_some()))));
        if let Some(open) = &mut self.open {
            open.segment.sequence = kept.sequence;
            open.segment.parts.push(Part { uri, path, duration_ms, independent });
        }
        self.show(&kept);
    }

    pub(super) fn open_parts(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.segment.parts.len())
    }
}
