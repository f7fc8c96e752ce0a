//! Cuts a stream into segments and parts, as its entries come.

use super::{
    files::Writer,
    names::{Moment, Words},
    playlist::{Kept, Key, MARK, Map, Part, Segment, Style, recover},
    shelf::{Blob, Item, Shelf, Shown, Window},
    track::{Samples, Track},
    ts::TsRender,
};
use crate::{
    config::Hls,
    media::{Entry, Render, Taker},
    proto::{
        codec::Class,
        flv::TagKind,
        mp4::{self, Run},
    },
};
use aws_lc_rs::{
    cipher::{AES_128, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey},
    iv::FixedLength,
    rand,
};
use bytes::Bytes;
use crossbeam_channel::Receiver;
use std::{
    mem,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A step of time that makes what comes something else, in ms.
const STEP_MS: std::ops::RangeInclusive<i64> = -500..=10_000;
/// Sound alone is packaged when pictures have not come for so long, in ms.
const PICTURES_MS_MAX: i64 = 1000;
/// Frames after which their rate is known.
const RATE_FRAMES: i64 = 10;
/// A piece of a transport stream's segment.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes of a fragment whose end does not come.
const FRAGMENT_BYTES_MAX: usize = 32 << 20;
/// The length of fragments that are no parts, in ms.
const FRAGMENT_MS: i64 = 1000;

/// Which stream it is.
#[derive(Clone, Debug)]
pub struct Name {
    /// `vhost/app/stream`.
    pub key: String,
    /// The vhost's name.
    pub vhost: String,
    /// The app.
    pub app: String,
    /// The stream.
    pub stream: String,
}

/// What a segment's bytes are.
#[derive(Debug)]
enum Wire {
    Ts(Box<TsRender>),
    Mp4 { map: Arc<Map>, video: Samples, audio: Samples, fragments: u32 },
}

/// The segment that is being made.
#[derive(Debug)]
struct Open {
    segment: Segment,
    start_ms: i64,
    /// Where the part that is being made begins, and whether with a keyframe.
    part: (i64, bool),
    chunks: Vec<Bytes>,
    /// Of a transport stream.
    buffer: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Packager {
    shelf: Arc<Shelf>,
    writer: Arc<Writer>,
    shown: Arc<Shown>,
    hls: Arc<Hls>,
    name: Name,
    /// What paths of requests begin with, before the names of files.
    prefix: String,
    /// When the process's clock was 0, in ms since 1970.
    since_1970_ms: u64,
    video: Option<Track>,
    audio: Option<Track>,
    /// Their sequence headers.
    setups: [Option<Entry>; 2],
    /// A track is coded otherwise from the next segment on.
    changed: bool,
    wire: Option<Wire>,
    open: Option<Open>,
    /// The next segment does not follow the last one.
    breaks: bool,
    /// The first frame of sound, where pictures are waited for, in ms.
    waits_since_ms: Option<i64>,
    /// Of the track that segments are cut by: the last frame, the last keyframe, how far keyframes are apart.
    last_ms: i64,
    key_ms: i64,
    gop_ms: i64,
    /// Its first frame, and how many there have been.
    rate: (i64, i64),
    /// The longest that a part may be, in ms.
    part_ms: i64,
    /// Time on the wall of a time of the stream, in ms since 1970.
    wall: Option<(u64, i64)>,
    /// What the last run of the server has left on the disk.
    left: Option<Receiver<Option<String>>>,
    /// What segments are encrypted with now.
    key: Option<([u8; 16], Arc<Key>)>,
    /// The path of the part that is announced.
    promised: Option<String>,
    now_ms: u64,
}

impl Packager {
    /// A publish begins; `None` if its name cannot be a file's.
    pub fn new(
        shelf: &Arc<Shelf>,
        writer: &Arc<Writer>,
        hls: &Arc<Hls>,
        http_dir: &Path,
        name: Name,
        since_1970_ms: u64,
    ) -> Option<Self> {
        let words = Words { vhost: &name.vhost, app: &name.app, stream: &name.stream };
        let prefix = prefix(&hls.path, http_dir);
        let file = words.fill(&hls.m3u8_file, None)?;
        let path = format!("{}/{prefix}{file}", name.vhost);
        let shown = shelf.shown(&Arc::from(name.key.as_str()), &path);
        let mut kept = shown.kept();
        let mut left = None;
        if !hls.recover {
            let segments: Vec<Segment> = kept.segments.drain(..).collect();
            segments.into_iter().for_each(|segment| kept.retire(segment, 0));
            (kept.sequence, kept.discontinuities) = (0, 0);
        } else if kept.sequence == 0 && hls.disk {
            left = Some(writer.read(hls.path.join(&file)));
        } else if kept.sequence == 0 {
            // Nothing is left of an earlier run: numbers that it cannot have reached.
            kept.sequence = since_1970_ms / hls.fragment_ms.max(1);
        }
        let breaks = !kept.segments.is_empty();
        kept.target_ms = kept.target_ms.max(hls.target_ms);
        kept.dispose_ms = hls.dispose_ms;
        kept.file = hls.disk.then(|| hls.path.join(&file));
        if !kept.paths.contains(&path) {
            kept.paths.push(path);
        }
        drop(kept);
        Some(Self {
            shelf: Arc::clone(shelf),
            writer: Arc::clone(writer),
            shown,
            hls: Arc::clone(hls),
            name,
            prefix,
            since_1970_ms,
            video: None,
            audio: None,
            setups: [None, None],
            changed: false,
            wire: None,
            open: None,
            breaks,
            waits_since_ms: None,
            last_ms: 0,
            key_ms: 0,
            gop_ms: 0,
            rate: (0, 0),
            part_ms: hls.part_ms.map_or(FRAGMENT_MS, |part_ms| i64::try_from(part_ms).unwrap_or(FRAGMENT_MS) + 1),
            wall: None,
            left,
            key: None,
            promised: None,
            now_ms: 0,
        })
    }

    fn set_up(&mut self, entry: &Entry) {
        if entry.info.class != Class::SETUP || entry.info.track != 0 {
            return;
        }
        let track = Track::read(entry);
        if let (None, Some(codec)) = (&track, entry.info.codec) {
            tracing::info!(stream = %self.name.key, %codec, "HLS goes without this track");
        }
        self.set_track(entry.tag.kind, track);
        self.setups[usize::from(entry.tag.kind == TagKind::Audio)] = Some(entry.clone());
        if let Some(Wire::Ts(render)) = &mut self.wire
            && !self.changed
        {
            render.render(entry);
        }
    }

    fn set_track(&mut self, kind: TagKind, track: Option<Track>) {
        let known = if kind == TagKind::Video { &mut self.video } else { &mut self.audio };
        if *known != track {
            self.changed |= self.wire.is_some();
            *known = track;
        }
    }

    fn frame(&mut self, entry: &Entry) {
        let is_video = entry.tag.kind == TagKind::Video;
        if !is_video && self.audio.is_none() && entry.info.codec.and_then(|codec| codec.fourcc()) == Some(*b".mp3") {
            self.set_track(TagKind::Audio, Track::mp3(entry.info.payload(&entry.tag.body)));
        }
        let known = if is_video { &self.video } else { &self.audio };
        // Sound that is coded otherwise has no place in this segment.
        if entry.info.track != 0 || known.is_none() || self.changed && !is_video && self.video.is_some() {
            return;
        }
        let time_ms = entry.time_ms;
        if is_video || self.video.is_none() {
            let key = !is_video || entry.info.class == Class::Keyframe;
            if !self.look(time_ms, is_video, key) {
                return;
            }
        }
        self.put(entry);
    }

    /// Ends and begins segments and parts before a frame of the track that they are cut by; tells whether there is one to put
    /// it into.
    fn look(&mut self, time_ms: i64, is_video: bool, key: bool) -> bool {
        let Some(open) = &self.open else {
            return key && self.is_ready(time_ms, is_video) && self.begin(time_ms, key);
        };
        let jumps = !STEP_MS.contains(&(time_ms - self.last_ms));
        let frame_ms = time_ms - self.last_ms;
        let length_ms = u64::try_from(time_ms - open.start_ms).unwrap_or(0);
        let end_ms = if jumps { self.last_ms + self.frame_ms() } else { time_ms };
        let part_ms = time_ms - open.part.0;
        let part_is_full = part_ms > 0 && part_ms + frame_ms > self.part_ms;
        let cut = jumps || self.is_cut(length_ms, is_video, key);
        self.rate = if jumps || self.rate.1 == 0 { (time_ms, 1) } else { (self.rate.0, self.rate.1 + 1) };
        if self.rate.1 == RATE_FRAMES {
            self.set_rate(time_ms - self.rate.0, RATE_FRAMES - 1);
        }
        if key && is_video {
            self.gop_ms = if jumps { 0 } else { time_ms - self.key_ms };
            self.key_ms = time_ms;
        }
        self.last_ms = time_ms;
        if cut {
            self.breaks |= jumps || self.changed;
            self.finish(end_ms);
            if self.changed || jumps {
                self.wire = None;
                self.changed = false;
                self.wall = None;
            }
            return (key || !jumps) && self.begin(time_ms, key);
        }
        if part_is_full {
            self.end_part(end_ms);
            if let Some(open) = &mut self.open {
                open.part = (time_ms, key);
            }
        }
        true
    }

    /// Whether a segment of a length ends before this frame.
    fn is_cut(&self, length_ms: u64, is_video: bool, key: bool) -> bool {
        if self.changed && key {
            return true;
        }
        if !is_video {
            return length_ms >= self.hls.overflow_ms;
        }
        let whole = length_ms >= self.hls.fragment_ms;
        // With one GOP more it would be longer than any may be.
        let next_ms = length_ms + u64::try_from(self.gop_ms).unwrap_or(0);
        let full = length_ms > 0 && next_ms >= self.hls.target_ms.max(self.hls.fragment_ms) + 500;
        key && (whole || full) || whole && !self.hls.wait_keyframe || length_ms >= self.hls.overflow_ms
    }

    fn frame_ms(&self) -> i64 {
        if self.rate.1 > 1 { (self.last_ms - self.rate.0) / (self.rate.1 - 1) } else { 0 }
    }

    /// Parts are of whole frames: as many as make the length that is wished for, and one more rather than much less.
    fn set_rate(&mut self, length_ms: i64, frames: i64) {
        let Some(part_ms) = self.hls.part_ms.and_then(|part_ms| i64::try_from(part_ms).ok()) else { return };
        if length_ms > 0 {
            let hundredths = (part_ms * 100 * frames / length_ms - 5).max(1);
            self.part_ms = self.part_ms.max((hundredths + 99) / 100 * length_ms / frames + 1);
        }
    }

    /// Whether it is known what the stream is of.
    fn is_ready(&mut self, time_ms: i64, is_video: bool) -> bool {
        let since_ms = *self.waits_since_ms.get_or_insert(time_ms);
        is_video || time_ms - since_ms >= PICTURES_MS_MAX || time_ms < since_ms
    }

    /// Begins a segment.
    fn begin(&mut self, time_ms: i64, key: bool) -> bool {
        if self.wire.is_none() && !self.choose_wire() {
            return false;
        }
        self.last_ms = time_ms;
        if self.rate.1 == 0 {
            (self.rate, self.key_ms) = ((time_ms, 1), time_ms);
        }
        let (wall_ms, at_ms) = *self.wall.get_or_insert((self.since_1970_ms + self.now_ms, time_ms));
        let map = match &mut self.wire {
            Some(Wire::Ts(render)) => {
                render.cut();
                None
            }
            Some(Wire::Mp4 { map, .. }) => Some(Arc::clone(map)),
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
        };
        self.open =
            Some(Open { segment, start_ms: time_ms, part: (time_ms, key), chunks: Vec::new(), buffer: Vec::new() });
        true
    }

    /// A transport stream, unless MP4 is wished for or a codec has no place in it.
    fn choose_wire(&mut self) -> bool {
        let fits = [&self.video, &self.audio].into_iter().flatten().all(Track::fits_ts);
        if !self.hls.fmp4 && fits {
            let mut render = TsRender::new([self.video.is_some(), self.audio.is_some()]);
            self.setups.iter().flatten().for_each(|entry| drop(render.render(entry)));
            self.wire = Some(Wire::Ts(Box::new(render)));
            return true;
        }
        if !self.hls.fmp4 {
            tracing::info!(stream = %self.name.key, "HLS by fragments of MP4: no transport stream has these codecs");
        }
        let tracks: Vec<mp4::Track> = [(1, &self.video), (2, &self.audio)]
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
        let blob = Blob::new(vec![header.clone()], content_type(true, self.video.is_some()));
        if self.hls.memory {
            self.shelf.put(&path, Item::Blob(blob));
        }
        if self.hls.disk {
            self.writer.put(self.hls.path.join(&file), vec![header]);
        }
        let on_disk = self.hls.disk.then(|| self.hls.path.join(&file));
        let map = Arc::new(Map { uri: self.uri(&file), path, file: on_disk });
        self.wire = Some(Wire::Mp4 { map, video: Samples::default(), audio: Samples::default(), fragments: 0 });
        true
    }

    fn put(&mut self, entry: &Entry) {
        let (Some(open), Some(wire)) = (&mut self.open, &mut self.wire) else { return };
        let is_video = entry.tag.kind == TagKind::Video;
        match wire {
            Wire::Ts(render) => {
                open.buffer.extend_from_slice(&render.render(entry));
                if open.buffer.len() >= CHUNK_BYTES {
                    open.take_buffer();
                }
            }
            Wire::Mp4 { video, audio, .. } => {
                let (samples, track) = if is_video { (video, &self.video) } else { (audio, &self.audio) };
                let Some(track) = track else { return };
                samples.push(track, entry);
                let bytes = samples.bytes();
                if bytes > FRAGMENT_BYTES_MAX {
                    let time_ms = entry.time_ms;
                    self.end_part(time_ms);
                    if let Some(open) = &mut self.open {
                        open.part = (time_ms, false);
                    }
                }
            }
        }
    }

    /// The part that is being made ends at a time.
    fn end_part(&mut self, end_ms: i64) {
        let (Some(open), Some(wire)) = (&mut self.open, &mut self.wire) else { return };
        let Wire::Mp4 { video, audio, fragments, .. } = wire else { return };
        if let Some(track) = &self.video {
            video.end_last(track.at(end_ms));
        }
        let ((video_start, video), (audio_start, audio)) = (video.take(), audio.take());
        let runs = [
            Run { track: 1, start: video_start, samples: &video },
            Run { track: 2, start: audio_start, samples: &audio },
        ];
        let runs: Vec<Run<'_>> = runs.into_iter().filter(|run| !run.samples.is_empty()).collect();
        if runs.is_empty() {
            return;
        }
        *fragments += 1;
        let bytes: usize = video.iter().chain(&audio).map(|sample| sample.bytes.len()).sum();
        let mut out = Vec::with_capacity(bytes + mp4::fragment_overhead(runs.len(), video.len() + audio.len()));
        mp4::put_fragment(*fragments, &runs, &mut out);
        let bytes = Bytes::from(out);
        open.chunks.push(bytes.clone());
        let (start_ms, independent) = open.part;
        let duration_ms = u64::try_from(end_ms - start_ms).unwrap_or(0);
        if self.hls.part_ms.is_none() || !self.hls.memory {
            return;
        }
        self.part_ms = self.part_ms.max(i64::try_from(duration_ms).unwrap_or(0));
        let shown = Arc::clone(&self.shown);
        let mut kept = shown.kept();
        self.recovered(&mut kept);
        let Some(file) = self.part_name(kept.sequence, self.open_parts()) else { return };
        let (uri, path) = (self.uri(&file), self.path(&file));
        self.shelf.put(&path, Item::Blob(Blob::new(vec![bytes], content_type(true, self.video.is_some()))));
        if let Some(open) = &mut self.open {
            open.segment.sequence = kept.sequence;
            open.segment.parts.push(Part { uri, path, duration_ms, independent });
        }
        self.show(&kept);
    }

    fn open_parts(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.segment.parts.len())
    }

    /// The segment that is being made ends at a time.
    fn finish(&mut self, end_ms: i64) {
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
        let mp4 = matches!(self.wire, Some(Wire::Mp4 { .. }));
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
            self.shelf.put(&segment.path, Item::Blob(Blob::new(chunks, content_type(mp4, self.video.is_some()))));
        }
        kept.push(segment, self.hls.window_ms, self.now_ms);
        while kept.retired.front().is_some_and(|(until_ms, _)| *until_ms <= self.now_ms) {
            let Some((_, old)) = kept.retired.pop_front() else { break };
            self.drop_segment(old, &mut kept);
        }
        self.show(&kept);
        if let Some(file) = &kept.file {
            let text = kept.window(Style { fmp4: mp4, part_ms: None }, None, None).text;
            self.writer.put(file.clone(), vec![Bytes::from(text.replace(MARK, ""))]);
        }
    }

    /// A segment encrypted, and what with; `None` where segments are not.
    fn sealed(&mut self, sequence: u64, chunks: &[Bytes]) -> Option<(Arc<Key>, Bytes)> {
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

    /// A segment is gone; its header too, if no other has it.
    fn drop_segment(&self, old: Segment, kept: &mut Kept) {
        old.leave(&self.shelf);
        let remove = |file: &Option<PathBuf>| {
            file.iter().filter(|_| self.hls.cleanup).for_each(|file| self.writer.remove(file.clone()));
        };
        remove(&old.file);
        if let Some(key) = old.key.as_ref().filter(|key| Arc::strong_count(key) == 1) {
            remove(&key.file);
        }
        if let Some(map) = old.map.filter(|map| Arc::strong_count(map) == 1) {
            self.shelf.remove(&map.path);
            kept.paths.retain(|path| *path != map.path);
            remove(&map.file);
        }
    }

    /// Takes up where the last run of the server has ended.
    fn recovered(&mut self, kept: &mut Kept) {
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
    fn show(&mut self, kept: &Kept) {
        if !self.hls.memory {
            return;
        }
        let style = Style {
            fmp4: matches!(self.wire, Some(Wire::Mp4 { .. })),
            part_ms: self
                .hls
                .part_ms
                .filter(|_| matches!(self.wire, Some(Wire::Mp4 { .. })))
                .and(u64::try_from(self.part_ms).ok()),
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
        let tracks = || [&self.video, &self.audio].into_iter().flatten();
        let codecs: Vec<&str> = tracks().map(|track| track.codecs.as_str()).collect();
        let mut attributes = format!(",CODECS=\"{}\"", codecs.join(","));
        if let Some((width, height)) = self.video.as_ref().map(Track::size).filter(|size| size.0 > 0) {
            attributes += &format!(",RESOLUTION={width}x{height}");
        }
        self.shelf.show(&self.shown, Window { attributes, ..window });
    }

    fn words(&self) -> Words<'_> {
        Words { vhost: &self.name.vhost, app: &self.name.app, stream: &self.name.stream }
    }

    fn moment(&self, sequence: u64, duration_ms: u64, at_ms: u64) -> Moment {
        let timestamp = if self.hls.ts_floor { at_ms / self.hls.fragment_ms.max(1) } else { at_ms };
        Moment { sequence, duration_ms, at_ms, timestamp }
    }

    /// What the number of the segment and the part's own make of a segment's name.
    fn part_name(&self, sequence: u64, part: usize) -> Option<String> {
        let stem = self.words().fill(&self.hls.m3u8_file, None)?;
        let stem = stem.rsplit_once('.').map_or(stem.as_str(), |(stem, _)| stem);
        Some(format!("{stem}-{sequence}.{part}.m4s"))
    }

    /// Where requests find a file.
    fn path(&self, file: &str) -> String {
        format!("{}/{}{file}", self.name.vhost, self.prefix)
    }

    /// As the playlist names a file: from where that stands on, if it can.
    fn uri(&self, file: &str) -> String {
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

impl Open {
    fn take_buffer(&mut self) {
        if !self.buffer.is_empty() {
            self.chunks.push(mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES)).into());
        }
    }
}

impl Taker for Packager {
    fn take(&mut self, entry: &Entry) {
        self.now_ms = entry.arrived_ms;
        match entry.info.class {
            Class::Header { .. } => self.set_up(entry),
            Class::Keyframe | Class::InterFrame | Class::Audio if entry.time_ms != Entry::BEFORE_MEDIA => {
                self.frame(entry)
            }
            Class::Keyframe | Class::InterFrame | Class::Audio | Class::Metadata | Class::Data => {}
        }
    }

    fn end(&mut self) {
        self.finish(self.last_ms + self.frame_ms());
        let shown = Arc::clone(&self.shown);
        let mut kept = shown.kept();
        kept.ended_ms = self.now_ms;
        shown.set_live(false);
        // Who waits for more is answered with what there is.
        self.show(&kept);
    }
}

fn content_type(mp4: bool, video: bool) -> &'static str {
    match (mp4, video) {
        (false, _) => "video/MP2T",
        (true, true) => "video/mp4",
        (true, false) => "audio/mp4",
    }
}

/// Where files below one directory are for requests that mean those below another: nothing, or `hls/`.
fn prefix(path: &Path, http_dir: &Path) -> String {
    let plain =
        |path: &Path| path.components().filter(|part| *part != std::path::Component::CurDir).collect::<PathBuf>();
    let (path, http_dir) = (plain(path), plain(http_dir));
    match path.strip_prefix(&http_dir) {
        Ok(rest) if !rest.as_os_str().is_empty() => format!("{}/", rest.to_string_lossy()),
        Ok(_) | Err(_) => String::new(),
    }
}

/// A path as a URI has it.
pub(super) fn encoded(path: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'/')
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~')
        .remove(b'=');
    percent_encoding::utf8_percent_encode(path, KEPT).to_string()
}
