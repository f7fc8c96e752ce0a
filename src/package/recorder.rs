//! Recordings of a stream: files of FLV, tag by tag, or of fragments of MP4, so that what is there can be played whatever
//! happens to the server.

use super::{
    Made, Tell,
    files::{Keep, Log, Writer},
    fragments::Fragments,
    intake::Intake,
    names::{Moment, Words},
    packager::Name,
    recordings::Switch,
};
use crate::{
    config::Dvr,
    media::{Entry, Headers, Taker},
    proto::{
        codec::Class,
        flv::{TagKind, file},
        mp4,
    },
};
use bytes::Bytes;
use std::{fmt, mem, path::PathBuf, sync::Arc, time::Duration};

/// Bytes that are handed to the writer at once, and how old they get, in ms.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNK_MS: i64 = 1000;
/// Bytes of a fragment, whatever its time says.
const FRAGMENT_BYTES_MAX: usize = 8 << 20;
/// After a fault, the next file is tried so much later, in ms.
const RETRY_MS: u64 = 5000;
/// Frames of sound before the first picture.
const EARLY_MAX: usize = 64;

/// See the module.
pub struct Recorder {
    writer: Arc<Writer>,
    dvr: Arc<Dvr>,
    name: Name,
    since_1970_ms: u64,
    on_dvr: Option<Tell>,
    /// Whether it is to be recorded now.
    switch: Arc<Switch>,
    /// Of FLV: what a file begins with.
    headers: Headers,
    intake: Intake,
    /// A track is coded otherwise: no file of MP4 has both.
    changed: bool,
    early: Vec<Entry>,
    recording: Option<Recording>,
    /// No file is begun before, in ms of the process's clock.
    retry_ms: u64,
    now_ms: u64,
}

/// A file that grows.
struct Recording {
    log: Arc<Log>,
    file: PathBuf,
    /// When it began, in the stream's time, and what its own counts from.
    start_ms: i64,
    base_ms: i64,
    last_ms: i64,
    buffer: Vec<u8>,
    given_ms: i64,
    /// The fragment that is being made has many bytes.
    large: bool,
    /// Of MP4: its fragments, and where its header has its length.
    fragments: Option<(Fragments, usize)>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Recorder {
    /// A publish begins.
    pub fn new(writer: &Arc<Writer>, dvr: &Arc<Dvr>, name: Name, since_1970_ms: u64, on_dvr: Option<Tell>) -> Self {
        let switch = writer.recordings.begin(&name.key, dvr.applies(&name.app, &name.stream));
        Self {
            switch,
            writer: Arc::clone(writer),
            dvr: Arc::clone(dvr),
            intake: Intake::new(&name.key, "a recording of MP4"),
            name,
            since_1970_ms,
            on_dvr,
            headers: Headers::default(),
            changed: false,
            early: Vec::new(),
            recording: None,
            retry_ms: 0,
            now_ms: 0,
        }
    }

    fn has_video(&self) -> bool {
        if self.dvr.mp4 { self.intake.video.is_some() } else { self.headers.has(TagKind::Video) }
    }

    fn frame(&mut self, entry: &Entry) {
        let is_video = entry.tag.kind == TagKind::Video;
        let key = !is_video || entry.info.class == Class::Keyframe;
        if is_video || !self.has_video() {
            self.look(entry, is_video, key);
        } else if self.recording.is_none() {
            if self.early.len() >= EARLY_MAX {
                self.early.remove(0);
            }
            return self.early.push(entry.clone());
        }
        self.put(entry);
    }

    /// Ends and begins files before a frame.
    fn look(&mut self, entry: &Entry, is_video: bool, key: bool) {
        let time_ms = entry.time_ms;
        if let Some(recording) = &self.recording {
            let length_ms = u64::try_from(time_ms - recording.start_ms).unwrap_or(0);
            let whole = self.dvr.segment_ms.is_some_and(|segment_ms| length_ms >= segment_ms);
            let over = whole && (key || is_video && !self.dvr.wait_keyframe);
            let failed = recording.log.has_failed() && key;
            if over || failed || !self.switch.is_on() || self.changed && key {
                if failed {
                    self.retry_ms = self.now_ms + RETRY_MS;
                }
                self.finish(time_ms);
            }
        }
        if self.recording.is_none() && key && self.switch.is_on() && self.now_ms >= self.retry_ms {
            self.begin(time_ms);
        }
    }

    fn begin(&mut self, time_ms: i64) {
        self.changed = false;
        let at_ms = self.since_1970_ms + self.now_ms;
        let moment = Moment { sequence: 0, duration_ms: 0, at_ms, timestamp: at_ms };
        let words = Words { vhost: &self.name.vhost, app: &self.name.app, stream: &self.name.stream };
        let Some(name) = words.fill(&self.dvr.file, Some(moment)) else {
            tracing::warn!(stream = %self.name.key, "not recorded: its name cannot be a file's");
            self.retry_ms = u64::MAX;
            return;
        };
        let file = PathBuf::from(format!("{}{name}", self.dvr.directory));
        let early = mem::take(&mut self.early);
        let first_ms = early.iter().map(|entry| entry.time_ms).chain([time_ms]).min().unwrap_or(time_ms);
        let base_ms = if self.dvr.absolute && !self.dvr.mp4 { 0 } else { first_ms };
        let mut buffer = Vec::with_capacity(CHUNK_BYTES);
        let fragments = if self.dvr.mp4 {
            let tracks: Vec<mp4::Track> =
                self.intake.tracks().map(|track| track.of_file(if track.is_video() { 1 } else { 2 })).collect();
            let length_at = mp4::put_file_header(&tracks, &mut buffer);
            Some((Fragments::default(), length_at))
        } else {
            file::put_header(true, self.has_video(), &mut buffer);
            let time = u32::try_from(first_ms - base_ms).unwrap_or(0);
            self.headers.iter().for_each(|entry| file::put_tag(&entry.tag, time, &mut buffer));
            None
        };
        let log = self.writer.open(file.clone(), &self.name.key, at_ms);
        tracing::info!(stream = %self.name.key, file = %file.display(), "recording");
        self.recording = Some(Recording {
            log,
            file,
            start_ms: time_ms,
            base_ms,
            last_ms: time_ms,
            buffer,
            given_ms: time_ms,
            large: false,
            fragments,
        });
        early.iter().for_each(|entry| self.put(entry));
    }

    fn put(&mut self, entry: &Entry) {
        let Some(recording) = &mut self.recording else { return };
        let time_ms = if entry.time_ms == Entry::BEFORE_MEDIA { recording.last_ms } else { entry.time_ms };
        let since_ms = time_ms - recording.base_ms;
        let is_video = entry.tag.kind == TagKind::Video;
        match &mut recording.fragments {
            None => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "FLV's times are modulo 2^32"
                )]
                let timestamp = since_ms.max(0) as u32;
                file::put_tag(&entry.tag, timestamp, &mut recording.buffer);
            }
            Some((fragments, _)) => {
                if self.changed && !is_video && self.intake.video.is_some() {
                    return;
                }
                let ends = is_video || self.intake.video.is_none();
                if ends && (recording.large || time_ms - recording.given_ms >= CHUNK_MS) {
                    self.end_fragment(since_ms);
                    return self.put(entry);
                }
                recording.large = fragments.push(&self.intake, entry, since_ms) > FRAGMENT_BYTES_MAX;
            }
        }
        recording.last_ms = time_ms;
        let due = time_ms - recording.given_ms >= CHUNK_MS || recording.buffer.len() >= CHUNK_BYTES;
        if due && recording.fragments.is_none() {
            recording.given_ms = time_ms;
            self.give();
        }
    }

    /// Writes the samples so far, which end at a time of the file.
    fn end_fragment(&mut self, end_ms: i64) {
        let Some(recording) = &mut self.recording else { return };
        recording.given_ms = recording.base_ms + end_ms;
        if let Some((fragments, _)) = &mut recording.fragments {
            recording.large = false;
            fragments.put(&self.intake, end_ms, &mut recording.buffer);
            self.give();
        }
    }

    fn give(&mut self) {
        if let Some(recording) = self.recording.as_mut().filter(|recording| !recording.buffer.is_empty()) {
            let chunk = mem::replace(&mut recording.buffer, Vec::with_capacity(CHUNK_BYTES));
            self.writer.append(&recording.log, chunk.into());
        }
    }

    /// The file ends, at a time of the stream.
    fn finish(&mut self, end_ms: i64) {
        let base_ms = self.recording.as_ref().map_or(0, |recording| recording.base_ms);
        self.end_fragment(end_ms - base_ms);
        self.give();
        let Some(Recording { log, file, fragments, .. }) = self.recording.take() else { return };
        let length_ms = u64::try_from(end_ms - base_ms).unwrap_or(0);
        let patch = fragments.map(|(_, at)| (at as u64, Bytes::copy_from_slice(&length_ms.to_be_bytes())));
        let tell = self.on_dvr.clone();
        self.writer.finish(log, patch, move || {
            if let Some(tell) = tell {
                tell(Made { file: file.display().to_string(), segment: None });
            }
        });
        let (age, bytes) = (Duration::from_millis(self.dvr.keep_ms), self.dvr.keep_bytes);
        if self.dvr.keep_ms > 0 || bytes > 0 {
            let (age, bytes) = (Some(age).filter(|age| !age.is_zero()), Some(bytes).filter(|bytes| *bytes > 0));
            self.writer.prune(Keep { pattern: self.dvr.pattern(), age, bytes });
        }
    }
}

impl Taker for Recorder {
    fn take(&mut self, entry: &Entry) {
        self.now_ms = entry.arrived_ms;
        if self.dvr.mp4 {
            let frames = self.intake.take(entry);
            self.changed |= self.intake.take_change() && self.recording.is_some();
            return frames
                .iter()
                .filter(|frame| self.intake.has(frame))
                .cloned()
                .collect::<Vec<_>>()
                .iter()
                .for_each(|frame| self.frame(frame));
        }
        self.headers.update(entry);
        match entry.info.class {
            Class::Keyframe | Class::InterFrame | Class::Audio if entry.time_ms != Entry::BEFORE_MEDIA => {
                self.frame(entry)
            }
            Class::Keyframe | Class::InterFrame | Class::Audio => {}
            Class::Header { .. } | Class::Metadata | Class::Data => self.put(entry),
        }
    }

    fn end(&mut self) {
        self.intake.release().iter().for_each(|frame| self.frame(frame));
        let end_ms = self.recording.as_ref().map_or(0, |recording| recording.last_ms);
        self.finish(end_ms);
        self.writer.recordings.end(&self.name.key, &self.switch);
    }
}
