//! Whole segments: their names and places, what they are encrypted with, and the playlist that has them.

use super::{Open, Packager, Wire};
use crate::package::{
    MARK, Made, MadeSegment,
    kept::{Kept, Key, Segment, Wanted},
    names::{Moment, Words, content_type, encoded},
    playlist::{Style, Window, recover, seconds},
    shelf::{Blob, Item},
    track::Track,
};
use aws_lc_rs::{
    cipher::{AES_128, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey},
    iv::FixedLength,
    rand,
};
use bytes::Bytes;
use std::{mem, sync::Arc};

impl Packager {
    /// The segment that is being made ends at a time.
    pub(super) fn finish(&mut self, end_ms: i64) {
        self.end_part(end_ms);
        let Some(mut open) = self.open.take() else { return };
        open.take_buffer();
        let Open { mut segment, mut chunks, start_ms, .. } = open;
        if chunks.is_empty() {
            self.breaks |= segment.discontinuity;
            return;
        }
        let shown = Arc::clone(&self.shown);
        let mut kept = shown.kept();
        self.recovered(&mut kept);
        segment.sequence = kept.sequence;
        segment.duration_ms = u64::try_from(end_ms - start_ms).unwrap_or(0).max(1);
        if matches!(self.wire, Some(Wire::Ts(_)))
            && let Some((key, sealed)) = self.sealed(segment.sequence, &chunks)
        {
            (segment.key, chunks) = (Some(key), vec![sealed]);
        }
        segment.bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let mp4 = matches!(self.wire, Some(Wire::Mp4(..)));
        let template = if mp4 { &self.hls.fmp4_file } else { &self.hls.segment_file };
        let moment = self.moment(segment.sequence, segment.duration_ms, segment.at_ms);
        let Some(mut file) = self.words().fill(template, Some(moment)) else { return };
        if kept.segments.iter().any(|other| other.path == self.path(&file)) {
            // A template that does not tell segments apart.
            file = format!("{}-{file}", segment.sequence);
        }
        (segment.uri, segment.path) = (self.uri(&file), self.path(&file));
        if self.hls.disk {
            let place = self.hls.path.join(&file);
            self.writer.put(place.clone(), chunks.clone());
            segment.file = Some(place);
        }
        if self.hls.memory {
            self.shelf
                .put(&segment.path, Item::Blob(Blob::new(chunks, content_type(mp4, self.intake.video.is_some()))));
        }
        self.tell(&segment, &file);
        kept.push(segment, Wanted { ms: self.hls.window_ms, segments: 0 }, self.now_ms);
        self.shelf.drop_retired(&mut kept, self.hls.cleanup.then_some(&*self.writer), self.now_ms);
        self.show(&kept);
        if let Some(file) = &kept.file {
            let text = kept.window(Style { fmp4: mp4, part_ms: None }, None, None).text;
            self.writer.put(file.clone(), vec![Bytes::from(text.replace(MARK, ""))]);
        }
    }

    /// Tells who wants to know of a segment.
    fn tell(&self, segment: &Segment, file: &str) {
        let Some(tell) = &self.on_hls else { return };
        let Some(playlist) = self.words().fill(&self.hls.m3u8_file, None) else { return };
        let place = |file: &str| self.hls.path.join(file).display().to_string();
        let url = match playlist.rsplit_once('/') {
            Some((directory, _)) if !segment.uri.contains("://") && !segment.uri.starts_with('/') => {
                format!("{directory}/{}", segment.uri)
            }
            _ => segment.uri.clone(),
        };
        let duration = seconds(segment.duration_ms);
        let m3u8 = place(&playlist);
        let made = MadeSegment { duration, url, m3u8, m3u8_url: playlist, sequence: segment.sequence };
        tell(Made { file: place(file), segment: Some(made) });
    }

    /// A segment encrypted, and what with; `None` where segments are not.
    pub(super) fn sealed(&mut self, sequence: u64, chunks: &[Bytes]) -> Option<(Arc<Key>, Bytes)> {
        let keys = self.hls.keys.as_ref()?;
        if self.key.is_none() || sequence.is_multiple_of(keys.segments) {
            let (mut secret, mut iv) = ([0; 16], [0; 16]);
            rand::fill(&mut secret).and_then(|()| rand::fill(&mut iv)).ok()?;
            let moment = self.moment(sequence, 0, self.since_1970_ms + self.now_ms);
            let file = self.words().fill(&keys.file, Some(moment))?;
            let path = self.path(&file);
            let bytes = Bytes::copy_from_slice(&secret);
            if self.hls.memory {
                self.shelf.put(&path, Item::Blob(Blob::new(vec![bytes.clone()], "application/octet-stream")));
            }
            let on_disk = self.hls.disk.then(|| keys.path.join(&file));
            on_disk.iter().for_each(|place| self.writer.put(place.clone(), vec![bytes.clone()]));
            let uri = match keys.url.split_once('?') {
                _ if keys.url.is_empty() => self.uri(&file),
                Some((url, query)) => format!("{}/{file}?{query}", url.trim_end_matches('/')),
                None => format!("{}/{file}", keys.url.trim_end_matches('/')),
            };
            self.key = Some((secret, Arc::new(Key { uri, path, file: on_disk, iv })));
        }
        let (secret, key) = self.key.as_ref()?;
        let mut sealed = chunks.concat();
        let cipher = UnboundCipherKey::new(&AES_128, secret).and_then(PaddedBlockEncryptingKey::cbc_pkcs7).ok()?;
        cipher.less_safe_encrypt(&mut sealed, EncryptionContext::Iv128(FixedLength::from(key.iv))).ok()?;
        Some((Arc::clone(key), sealed.into()))
    }

    /// Takes up where the last run of the server has ended.
    pub(super) fn recovered(&mut self, kept: &mut Kept) {
        let Some(told) = self.left.take() else { return };
        match told.try_recv() {
            Ok(text) => {
                if let Some((sequence, discontinuities)) = text.as_deref().and_then(recover) {
                    // What was there is no part of the playlist any more.
                    (kept.sequence, kept.discontinuities) = (sequence, discontinuities + 1);
                }
            }
            Err(error) => {
                tracing::debug!(stream = %self.name.key, %error, "HLS: the old playlist is not read in time");
            }
        }
    }

    /// Shows the playlist as it is now.
    pub(super) fn show(&mut self, kept: &Kept) {
        if !self.hls.memory {
            return;
        }
        let style = Style {
            fmp4: matches!(self.wire, Some(Wire::Mp4(..))),
            part_ms: self
                .hls
                .part_ms
                .filter(|_| matches!(self.wire, Some(Wire::Mp4(..))))
                .and(u64::try_from(self.cutter.part_ms()).ok()),
        };
        let next = style.part_ms.filter(|_| self.shown.is_live());
        let next = next.and_then(|_| self.part_name(kept.sequence, self.open_parts()));
        let promised = next.as_ref().map(|next| self.path(next));
        if let Some(path) = &promised {
            self.shelf.put(path, Item::Promised(Arc::clone(&self.shown)));
        }
        if let Some(old) = mem::replace(&mut self.promised, promised).filter(|old| self.promised.as_ref() != Some(old))
        {
            self.shelf.withdraw(&old);
        }
        let open = self.open.as_ref().map(|open| &open.segment);
        let next = next.map(|next| self.uri(&next));
        let window = kept.window(style, open, next.as_deref());
        let codecs: Vec<&str> = self.intake.tracks().map(|track| track.codecs.as_str()).collect();
        let mut attributes = format!(",CODECS=\"{}\"", codecs.join(","));
        if let Some((width, height)) = self.intake.video.as_ref().map(Track::size).filter(|size| size.0 > 0) {
            attributes += &format!(",RESOLUTION={width}x{height}");
        }
        self.shelf.show(&self.shown, Window { attributes, ..window });
    }

    pub(super) fn words(&self) -> Words<'_> {
        Words { vhost: &self.name.vhost, app: &self.name.app, stream: &self.name.stream }
    }

    pub(super) fn moment(&self, sequence: u64, duration_ms: u64, at_ms: u64) -> Moment {
        let timestamp = if self.hls.ts_floor { at_ms / self.hls.fragment_ms.max(1) } else { at_ms };
        Moment { sequence, duration_ms, at_ms, timestamp }
    }

    /// What the number of the segment and the part's own make of a segment's name.
    pub(super) fn part_name(&self, sequence: u64, part: usize) -> Option<String> {
        let stem = self.words().fill(&self.hls.m3u8_file, None)?;
        let stem = stem.rsplit_once('.').map_or(stem.as_str(), |(stem, _)| stem);
        Some(format!("{stem}-{sequence}.{part}.m4s"))
    }

    /// Where requests find a file.
    pub(super) fn path(&self, file: &str) -> String {
        format!("{}/{}{file}", self.name.vhost, self.prefix)
    }

    /// As the playlist names a file: from where that stands on, if it can.
    pub(super) fn uri(&self, file: &str) -> String {
        if !self.hls.entry_prefix.is_empty() {
            return format!("{}/{file}", self.hls.entry_prefix.trim_end_matches('/'));
        }
        let playlist = self.words().fill(&self.hls.m3u8_file, None).unwrap_or_default();
        let directory = playlist.rsplit_once('/').map_or("", |(directory, _)| directory);
        let below =
            file.strip_prefix(directory).map(|rest| rest.trim_start_matches('/')).filter(|_| !directory.is_empty());
        match below {
            Some(below) => encoded(below),
            None if directory.is_empty() => encoded(file),
            None => format!("/{}{}", self.prefix, encoded(file)),
        }
    }
}
