//! Cuts a stream into segments for DASH: each track's by itself, as CMAF has them (ISO 23009-1, 23000-19), and an MPD that
//! lists them.

use super::{
    MARK,
    cutter::{Cutter, Lengths, Step},
    files::Writer,
    fragments::{AUDIO, Chunk, Fragments, VIDEO, id},
    intake::Intake,
    kept::{Kept, Map, Period, PeriodTrack, Piece, Segment, Wanted},
    mpd::{self, NOW},
    names::{Moment, Words, content_type, encoded, prefix, timestamp},
    packager::{Name, Place},
    playlist::Window,
    shelf::{Blob, Growing, Item, Kind, Shelf, Shown},
};
use crate::{
    config::Dash,
    media::{Entry, Taker},
    proto::mp4,
};
use bytes::Bytes;
use std::{fmt, path::PathBuf, sync::Arc};

/// Bytes of a fragment whose end does not come.
const FRAGMENT_BYTES_MAX: usize = 32 << 20;
/// A segment without a keyframe is so many tenths of one with.
const OVERFLOW_TENTHS: u64 = 21;
/// The shortest segment that is cut, in ms.
const FRAGMENT_MS_MIN: u64 = 100;
/// What the names of a track's files begin with.
const NAMES: [&str; 2] = ["video", "audio"];

/// The segment that is being made.
struct Open {
    start_ms: i64,
    tracks: [Option<OpenTrack>; 2],
}

/// A track of it.
struct OpenTrack {
    piece: Piece,
    chunks: Vec<Bytes>,
    growing: Option<Arc<Growing>>,
}

/// See the module.
pub struct DashPackager {
    shelf: Arc<Shelf>,
    writer: Arc<Writer>,
    shown: Arc<Shown>,
    dash: Arc<Dash>,
    name: Name,
    /// Where segments are: for requests, for the MPD, and below the directory of files.
    paths: String,
    uris: String,
    home: String,
    since_1970_ms: u64,
    intake: Intake,
    cutter: Cutter,
    fragments: Fragments,
    period: Option<Arc<Period>>,
    open: Option<Open>,
    /// Paths of the segments that are announced.
    promised: [Option<String>; 2],
    now_ms: u64,
}

impl fmt::Debug for DashPackager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DashPackager").field("name", &self.name).finish_non_exhaustive()
    }
}

impl DashPackager {
    /// A publish begins; `None` if its name cannot be a file's.
    pub fn new(place: Place<'_>, dash: &Arc<Dash>, name: Name, since_1970_ms: u64) -> Option<Self> {
        let Place { shelf, writer, http_dir } = place;
        let at_ms = since_1970_ms;
        let moment = Moment { sequence: 0, duration_ms: 0, at_ms, timestamp: at_ms };
        let words = Words { vhost: &name.vhost, app: &name.app, stream: &name.stream };
        let file = words.fill(&dash.mpd_file, Some(moment))?;
        let home = file.strip_suffix(".mpd").map_or_else(|| format!("{file}.segments"), str::to_owned);
        let before = format!("{}/{}", name.vhost, prefix(&dash.path, http_dir));
        let path = format!("{before}{file}");
        let shown = shelf.shown(&Arc::from(name.key.as_str()), Kind::Dash, &path);
        let mut kept = shown.kept();
        if kept.sequence == 0 {
            // Numbers that an earlier run cannot have reached.
            kept.sequence = since_1970_ms / dash.fragment_ms.max(FRAGMENT_MS_MIN);
            kept.numbers = [kept.sequence; 2];
        }
        kept.target_ms = dash.fragment_ms;
        kept.dispose_ms = dash.dispose_ms;
        kept.file = dash.disk.then(|| dash.path.join(&file));
        if !kept.paths.contains(&path) {
            kept.paths.push(path);
        }
        drop(kept);
        let fragment = dash.fragment_ms.max(FRAGMENT_MS_MIN);
        let lengths = Lengths {
            fragment,
            target: fragment,
            overflow: fragment * OVERFLOW_TENTHS / 10,
            sound: fragment,
            wait_keyframe: true,
            part: dash.part_ms,
        };
        Some(Self {
            shelf: Arc::clone(shelf),
            writer: Arc::clone(writer),
            shown,
            dash: Arc::clone(dash),
            intake: Intake::new(&name.key, "DASH"),
            name,
            paths: format!("{before}{home}/"),
            uris: format!("{}/", encoded(home.rsplit('/').next().unwrap_or(&home))),
            home: format!("{home}/"),
            since_1970_ms,
            cutter: Cutter::new(lengths),
            fragments: Fragments::default(),
            period: None,
            open: None,
            promised: [None, None],
            now_ms: 0,
        })
    }

    fn frame(&mut self, entry: Entry) {
        for step in self.cutter.frame(&self.intake, entry) {
            match step {
                Step::Part(end_ms, ..) => self.end_part(end_ms),
                Step::Finish(end_ms) => self.finish(end_ms),
                Step::Break => self.period = None,
                Step::Begin(start_ms, _) => self.open = Some(Open { start_ms, tracks: [None, None] }),
                Step::Put(entry) => {
                    if self.fragments.push(&self.intake, &entry, entry.time_ms) > FRAGMENT_BYTES_MAX {
                        self.end_part(entry.time_ms);
                    }
                }
            }
        }
    }

    /// What segments from here on have in common: it begins with the first chunks.
    fn begin_period(&mut self, start_ms: i64, chunks: &[Option<Chunk>; 2]) -> Period {
        let shown = Arc::clone(&self.shown);
        let mut kept = shown.kept();
        let serial = kept.next_period;
        kept.next_period += 1;
        // When its first frame came, which is what the clock of players goes by.
        let took_ms = u64::try_from(self.cutter.end_ms() - start_ms).unwrap_or(0);
        // A period never begins before the end of the one before: that would be cut off.
        let at_ms = (self.since_1970_ms + self.now_ms).saturating_sub(took_ms).max(kept.end_ms);
        if kept.epoch_ms == 0 {
            kept.epoch_ms = at_ms;
        }
        drop(kept);
        // Both tracks are counted from what is shown first, in each one's units.
        let known = [&self.intake.video, &self.intake.audio];
        let first_ms = known.iter().zip(chunks).filter_map(|(track, chunk)| {
            let (track, chunk) = ((*track).as_ref()?, chunk.as_ref()?);
            let shown = chunk.start.saturating_add_signed(chunk.composition.into());
            Some(i64::try_from(shown * 1000 / u64::from(track.timescale)).unwrap_or(start_ms))
        });
        let first_ms = first_ms.min().unwrap_or(start_ms);
        let mut tracks = Vec::new();
        for (number, track) in known.into_iter().enumerate() {
            let Some(track) = track else { continue };
            let file = match serial {
                0 => format!("{}-init.mp4", NAMES[number]),
                serial => format!("{}-init-{serial}.mp4", NAMES[number]),
            };
            let mut header = Vec::new();
            mp4::put_header(&[track.of_file(id(number))], &mut header);
            let header = Bytes::from(header);
            let path = format!("{}{file}", self.paths);
            if self.dash.memory {
                self.shelf.put(&path, Item::Blob(Blob::new(vec![header.clone()], content_type(true, number == VIDEO))));
            }
            let on_disk = self.on_disk(&file);
            on_disk.iter().for_each(|place| self.writer.put(place.clone(), vec![header.clone()]));
            tracks.push(PeriodTrack {
                track: number,
                codecs: track.codecs.clone(),
                timescale: track.timescale,
                coding: track.coding.clone(),
                start: track.at(first_ms),
                composition: chunks[number].as_ref().map_or(0, |chunk| chunk.composition),
                map: Map { uri: format!("{}{file}", self.uris), path, file: on_disk },
                media: format!("{}{}-", self.uris, NAMES[number]),
            });
        }
        let late_ms = u64::try_from(first_ms - start_ms).unwrap_or(0);
        Period { id: serial, at_ms: at_ms + late_ms, tracks }
    }

    fn on_disk(&self, file: &str) -> Option<PathBuf> {
        self.dash.disk.then(|| self.dash.path.join(format!("{}{file}", self.home)))
    }

    /// The chunks that are being made end at a time.
    fn end_part(&mut self, end_ms: i64) {
        let chunks = self.fragments.chunks(&self.intake, end_ms);
        let Some(start_ms) = self.open.as_ref().map(|open| open.start_ms) else { return };
        if chunks.iter().all(Option::is_none) {
            return;
        }
        let period = match self.period.take() {
            Some(period) => period,
            None => Arc::new(self.begin_period(start_ms, &chunks)),
        };
        let composition =
            |track| period.tracks.iter().find(|known| known.track == track).map_or(0, |known| known.composition);
        let compositions = [composition(VIDEO), composition(AUDIO)];
        self.period = Some(period);
        let shown = Arc::clone(&self.shown);
        let mut kept = shown.kept();
        let mut opened = false;
        for (track, chunk) in chunks.into_iter().enumerate() {
            let Some(chunk) = chunk else { continue };
            let open = match self.open.as_mut().map(|open| &mut open.tracks[track]) {
                Some(Some(open)) => open,
                Some(none) => {
                    opened = true;
                    let number = kept.numbers[track];
                    kept.numbers[track] += 1;
                    let file = format!("{}-{number}.m4s", NAMES[track]);
                    let path = format!("{}{file}", self.paths);
                    let place = self.dash.path.join(format!("{}{file}", self.home));
                    let file = self.dash.disk.then_some(place);
                    let growing = self.dash.part_ms.filter(|_| self.dash.memory).map(|_| {
                        let growing = Growing::new(&shown, content_type(true, track == VIDEO));
                        self.shelf.put(&path, Item::Growing(Arc::clone(&growing)));
                        growing
                    });
                    let start = chunk.start.saturating_add_signed(compositions[track].into());
                    let piece = Piece { track, number, start, duration: 0, bytes: 0, path, file };
                    none.insert(OpenTrack { piece, chunks: Vec::new(), growing })
                }
                None => continue,
            };
            open.piece.duration += chunk.duration;
            open.piece.bytes += chunk.bytes.len() as u64;
            if let Some(growing) = &open.growing {
                growing.push(chunk.bytes.clone());
            }
            open.chunks.push(chunk.bytes);
        }
        if self.dash.part_ms.is_some() {
            if opened { self.show(&kept) } else { self.shelf.touch(&shown) }
        }
    }

    /// The segment that is being made ends at a time.
    fn finish(&mut self, end_ms: i64) {
        self.end_part(end_ms);
        let (Some(open), Some(period)) = (self.open.take(), &self.period) else { return };
        let shown = Arc::clone(&self.shown);
        let mut kept = shown.kept();
        let mut segment = Segment {
            sequence: kept.sequence,
            duration_ms: u64::try_from(end_ms - open.start_ms).unwrap_or(0).max(1),
            period: Some(Arc::clone(period)),
            ..Segment::default()
        };
        for OpenTrack { piece, chunks, growing } in open.tracks.into_iter().flatten() {
            segment.bytes += piece.bytes;
            if let Some(file) = &piece.file {
                self.writer.put(file.clone(), chunks.clone());
            }
            if self.dash.memory {
                let blob = Blob::new(chunks, content_type(true, piece.track == VIDEO));
                self.shelf.put(&piece.path, Item::Blob(blob));
            }
            if let Some(growing) = growing {
                growing.end();
            }
            if let Some(track) = period.tracks.iter().find(|track| track.track == piece.track) {
                let since = (piece.start + piece.duration).saturating_sub(track.start);
                kept.end_ms = kept.end_ms.max(period.at_ms + since * 1000 / u64::from(track.timescale));
            }
            segment.pieces.push(piece);
        }
        if segment.pieces.is_empty() {
            return;
        }
        kept.push(segment, Wanted { ms: self.dash.timeshift_ms, segments: self.dash.window }, self.now_ms);
        let writer = self.dash.cleanup.then_some(&*self.writer);
        self.shelf.drop_retired(&mut kept, writer, self.now_ms);
        self.show(&kept);
        if let Some(file) = &kept.file {
            let now = timestamp(self.since_1970_ms + self.now_ms);
            let text = self.text(&kept, None, &[]).replace(MARK, "").replace(NOW, &now);
            self.writer.put(file.clone(), vec![text.into()]);
        }
    }

    fn text(&self, kept: &Kept, part_ms: Option<u64>, open: &[Piece]) -> String {
        let now_ms = self.since_1970_ms + self.now_ms;
        let open = self.period.as_ref().filter(|_| !open.is_empty()).map(|period| (period, open));
        mpd::text(kept, &self.dash, part_ms, open, now_ms)
    }

    /// Shows the MPD as it is now. For low latency it has the segment that is being made, and the next one, as long as the one
    /// before: who asks for that waits until it begins, and need not have a newer MPD first.
    fn show(&mut self, kept: &Kept) {
        if !self.dash.memory {
            return;
        }
        let mut coming = Vec::new();
        if self.dash.part_ms.is_some() && self.shown.is_live() {
            let tracks: Vec<usize> =
                self.period.iter().flat_map(|period| &period.tracks).map(|track| track.track).collect();
            for track in tracks {
                self.foresee(track, kept, &mut coming);
            }
        }
        if kept.segments.is_empty() && coming.is_empty() {
            return;
        }
        let (text, since_1970_ms) = (self.text(kept, self.dash.part_ms, &coming), self.since_1970_ms);
        self.shelf.show(&self.shown, Window { text, since_1970_ms, ..Window::default() });
    }

    /// A track's segment that is being made, if there is one, and the next.
    fn foresee(&mut self, track: usize, kept: &Kept, coming: &mut Vec<Piece>) {
        let of_track = |segment: &Segment| segment.pieces.iter().find(|piece| piece.track == track).cloned();
        let last = kept.segments.back().filter(|last| {
            last.period.as_ref().zip(self.period.as_ref()).is_some_and(|(last, now)| Arc::ptr_eq(last, now))
        });
        let last = last.and_then(of_track);
        let known = [&self.intake.video, &self.intake.audio][track].as_ref();
        let planned = known.map_or(0, |known| known.at(i64::try_from(self.dash.fragment_ms).unwrap_or(0)));
        let duration = last.as_ref().map_or(planned, |last| last.duration).max(1);
        let open = self.open.as_ref().and_then(|open| open.tracks[track].as_ref()).map(|open| open.piece.clone());
        let open = open.map(|open| Piece { duration: duration.max(open.duration), ..open });
        let Some(before) = open.clone().or(last) else { return };
        coming.extend(open);
        let number = kept.numbers[track];
        let path = format!("{}{}-{number}.m4s", self.paths, NAMES[track]);
        self.shelf.put(&path, Item::Promised(Arc::clone(&self.shown)));
        if let Some(old) = self.promised[track].replace(path.clone()).filter(|old| *old != path) {
            self.shelf.withdraw(&old);
        }
        coming.push(Piece {
            track,
            number,
            start: before.start + before.duration,
            duration,
            bytes: 0,
            path,
            file: None,
        });
    }
}

impl Taker for DashPackager {
    fn take(&mut self, entry: &Entry) {
        self.now_ms = entry.arrived_ms;
        let frames = self.intake.take(entry);
        if self.intake.take_change() {
            self.cutter.change();
        }
        frames.into_iter().for_each(|frame| self.frame(frame));
    }

    fn end(&mut self) {
        self.intake.release().into_iter().for_each(|frame| self.frame(frame));
        self.finish(self.cutter.end_ms());
        let shown = Arc::clone(&self.shown);
        let mut kept = shown.kept();
        kept.ended_ms = kept.ended_ms.max(self.now_ms);
        shown.set_live(false);
        self.promised.iter_mut().filter_map(Option::take).for_each(|path| self.shelf.withdraw(&path));
        self.show(&kept);
    }
}
