//! A stream's entries as packets of a transport stream, for players of HTTP-TS and for segments.

use crate::{
    media::{Entry, Headers, Kind, Render},
    proto::{
        codec::{
            Class, Codec,
            adts::Adts,
            nal::{Coded, Setup},
        },
        flv::TagKind,
        ts::{Muxer, Pid, StreamType, Unit},
    },
};
use bytes::Bytes;

/// Both tracks.
pub static BOTH: Kind = Kind { name: "ts", render: || Box::new(TsRender::new([true, true])) };
/// `has_audio off`.
pub static VIDEO: Kind = Kind { name: "ts of video", render: || Box::new(TsRender::new([true, false])) };
/// `has_video off`.
pub static AUDIO: Kind = Kind { name: "ts of audio", render: || Box::new(TsRender::new([false, true])) };

/// Frames are due so long after the clock that comes with them, in ms: the other track's may come so late.
const DELAY_MS: i64 = 150;
/// Longest time between two tables, in ms: TR 101 290 asks for half a second.
const TABLES_MS: i64 = 400;
/// The same between two clocks: ISO 13818-1 §2.7.2 asks for 100 ms.
const CLOCK_MS: i64 = 80;
/// A step back or on beyond which time is another one, in ms.
const STEP_MS: std::ops::RangeInclusive<i64> = -500..=10_000;
/// The clock goes so much behind media at most, in ms, for a track that comes later than [`DELAY_MS`].
const LAG_MS_MAX: i64 = 2000;

const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// One publish's tracks, and where its packets are.
#[derive(Debug)]
pub(super) struct TsRender {
    /// Video, audio.
    wanted: [bool; 2],
    muxer: Muxer,
    video: Option<Setup>,
    audio: Option<Adts>,
    pace: Pace,
    /// When the tables and the clock were last written; `None` before that.
    tables_ms: Option<i64>,
    clock_ms: Option<i64>,
    /// There have been packets.
    begun: bool,
    /// A frame's bytes.
    frame: Vec<u8>,
}

/// How far media has come, and how far one track is behind the other.
#[derive(Debug, Default)]
struct Pace {
    newest_ms: Option<i64>,
    /// Of video and audio.
    tracks: [Option<i64>; 2],
    lag_ms: i64,
}

impl Pace {
    /// Takes a frame's time; tells whether it is near neither the newest one nor its own track's.
    fn jumps(&mut self, pid: Pid, time_ms: i64) -> bool {
        let own = usize::from(pid == Pid::Audio);
        let near = |last_ms: i64| STEP_MS.contains(&(time_ms - last_ms));
        let near_newest = self.newest_ms.is_none_or(|newest_ms| near(newest_ms) || near(newest_ms - LAG_MS_MAX));
        let jumps = !self.tracks[own].map_or(near_newest, |last_ms| near(last_ms) || self.newest_ms.is_some_and(near));
        if jumps {
            *self = Self::default();
        }
        self.tracks[own] = Some(time_ms);
        let newest_ms = self.newest_ms.map_or(time_ms, |newest_ms| newest_ms.max(time_ms));
        self.newest_ms = Some(newest_ms);
        self.lag_ms = self.lag_ms.max((newest_ms - time_ms - DELAY_MS).min(LAG_MS_MAX));
        jumps
    }

    /// The clock's time: what comes is not due before it.
    fn clock_ms(&self) -> i64 {
        self.newest_ms.unwrap_or(0) - self.lag_ms
    }
}

/// How a transport stream has a codec.
pub fn stream_type(codec: Codec) -> Option<StreamType> {
    match &codec.fourcc()? {
        b"avc1" => Some(StreamType::Avc),
        b"hvc1" => Some(StreamType::Hevc),
        b"mp4a" => Some(StreamType::Aac),
        b".mp3" => Some(StreamType::MpegAudio),
        _ => None,
    }
}

impl TsRender {
    pub(super) fn new(wanted: [bool; 2]) -> Self {
        Self {
            wanted,
            muxer: Muxer::default(),
            video: None,
            audio: None,
            pace: Pace::default(),
            tables_ms: None,
            clock_ms: None,
            begun: false,
            frame: Vec::new(),
        }
    }

    /// What comes next stands by itself: it begins with the tables and the clock.
    pub(super) fn cut(&mut self) {
        (self.tables_ms, self.clock_ms) = (None, None);
    }

    fn set_track(&mut self, pid: Pid, stream_type: Option<StreamType>) {
        if self.muxer.set_track(pid, stream_type) {
            self.tables_ms = None;
        }
    }

    /// Takes a sequence header.
    fn set_up(&mut self, entry: &Entry) {
        let Some(codec) = entry.info.codec.filter(|_| entry.info.class == Class::SETUP) else { return };
        let data = entry.info.payload(&entry.tag.body);
        match entry.tag.kind {
            TagKind::Video if self.wanted[0] => {
                let coded = codec.fourcc().and_then(Coded::of);
                self.video = coded.and_then(|coded| Setup::read(coded, data));
                self.set_track(Pid::Video, stream_type(codec).filter(|_| self.video.is_some()));
            }
            TagKind::Audio if self.wanted[1] => {
                let aac = stream_type(codec) == Some(StreamType::Aac);
                self.audio = if aac { Adts::read(data) } else { None };
                self.set_track(Pid::Audio, self.audio.map(|_| StreamType::Aac));
            }
            TagKind::Video | TagKind::Audio | TagKind::Script => {}
        }
    }

    /// Puts an access unit's byte stream together (H.264 §B.1); tells whether there is one.
    fn take_video(&mut self, entry: &Entry) -> bool {
        let Some(setup) = &self.video else { return false };
        let Some(units) = setup.units(entry.info.payload(&entry.tag.body)).filter(|units| !units.is_empty()) else {
            return false;
        };
        let mut put = |nal: &[u8]| {
            self.frame.extend_from_slice(&START_CODE);
            self.frame.extend_from_slice(nal);
        };
        if !units.iter().any(|nal| setup.coded.is_delimiter(nal)) {
            put(setup.coded.delimiter());
        }
        let own = units.iter().any(|nal| setup.coded.is_parameter_set(nal));
        if entry.info.class == Class::Keyframe && !own {
            setup.parameter_sets.iter().for_each(|nal| put(nal));
        }
        units.iter().for_each(|nal| put(nal));
        true
    }

    /// Takes a frame of sound; tells whether there is one.
    fn take_audio(&mut self, entry: &Entry) -> bool {
        let data = entry.info.payload(&entry.tag.body);
        match entry.info.codec.and_then(stream_type) {
            Some(StreamType::MpegAudio) if !data.is_empty() => {
                self.set_track(Pid::Audio, Some(StreamType::MpegAudio));
                self.frame.extend_from_slice(data);
                true
            }
            Some(StreamType::Aac) => {
                let Some(header) = self.audio.and_then(|adts| adts.header(data.len())) else { return false };
                self.frame.extend_from_slice(&header);
                self.frame.extend_from_slice(data);
                true
            }
            _ => false,
        }
    }

    /// Writes what is due before a frame at a time; returns the clock that goes with the frame, if one does.
    fn put_due(&mut self, pid: Pid, time_ms: i64, keyframe: bool, out: &mut Vec<u8>) -> Option<i64> {
        if self.pace.jumps(pid, time_ms) {
            self.muxer.break_off();
            (self.clock_ms, self.tables_ms) = (None, None);
        }
        let now_ms = self.pace.clock_ms();
        if keyframe || self.tables_ms.is_none_or(|tables_ms| now_ms - tables_ms >= TABLES_MS) {
            self.muxer.put_tables(out);
            self.tables_ms = Some(now_ms);
        }
        // A clock that stood would be none.
        let due = self.clock_ms.is_none_or(|clock_ms| now_ms > clock_ms);
        let late = self.clock_ms.is_none_or(|clock_ms| now_ms - clock_ms >= CLOCK_MS);
        match (pid, self.video.is_some()) {
            (Pid::Video, _) if due => {}
            (Pid::Audio, false) if late => {}
            (Pid::Audio, true) if late => {
                self.muxer.put_clock(Pid::Video, now_ms, out);
                self.clock_ms = Some(now_ms);
                return None;
            }
            _ => return None,
        }
        self.clock_ms = Some(now_ms);
        Some(now_ms)
    }
}

impl Render for TsRender {
    fn begin(&mut self, headers: &Headers) {
        (self.video, self.audio) = (None, None);
        (self.tables_ms, self.clock_ms) = (None, None);
        self.pace = Pace::default();
        if self.begun {
            self.muxer.break_off();
        }
        for (pid, kind) in [(Pid::Video, TagKind::Video), (Pid::Audio, TagKind::Audio)] {
            if !headers.has(kind) {
                self.set_track(pid, None);
            }
        }
        headers.iter().for_each(|entry| self.set_up(entry));
    }

    fn render(&mut self, entry: &Entry) -> Bytes {
        let pid = match (entry.info.class, entry.tag.kind) {
            (Class::Header { .. }, _) => {
                self.set_up(entry);
                return Bytes::new();
            }
            (Class::Keyframe | Class::InterFrame, _) if self.wanted[0] => Pid::Video,
            (Class::Audio, _) if self.wanted[1] => Pid::Audio,
            _ => return Bytes::new(),
        };
        self.frame.clear();
        let taken = entry.info.track == 0
            && entry.time_ms != Entry::BEFORE_MEDIA
            && if pid == Pid::Video { self.take_video(entry) } else { self.take_audio(entry) };
        if !taken {
            return Bytes::new();
        }
        let keyframe = entry.info.class == Class::Keyframe;
        let mut out = Vec::with_capacity(self.frame.len() + self.frame.len() / 16 + 4 * 188);
        let pcr_ms = self.put_due(pid, entry.time_ms, keyframe, &mut out);
        let dts_ms = entry.time_ms + DELAY_MS;
        let unit = Unit {
            dts_ms,
            pts_ms: dts_ms + i64::from(entry.info.composition_ms),
            random_access: keyframe || pid == Pid::Audio && self.video.is_none(),
            pcr_ms,
            bytes: &self.frame,
        };
        self.muxer.put_unit(pid, &unit, &mut out);
        self.begun = true;
        out.into()
    }

    fn note(&self) -> u64 {
        self.muxer.note()
    }
}
