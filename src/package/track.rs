//! A track of a stream as files have it: how it is coded, by its sequence header, and its frames as samples.

use crate::{
    media::Entry,
    proto::{
        codec::{
            self, Class,
            nal::{Coded, Setup},
        },
        flv::TagKind,
        mp4::{self, Coding, Sample},
    },
};
use bytes::{BufMut, Bytes, BytesMut};

/// Units of a video track's time in a second.
const VIDEO_TIMESCALE: u32 = 90_000;
/// Of Opus (RFC 6716 §2).
const OPUS_RATE: u32 = 48_000;
/// Rates by their number (ISO 14496-3 §1.6.3.4).
const AAC_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// How a track is coded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Track {
    /// Which codec.
    pub(super) fourcc: [u8; 4],
    /// As playlists name it (RFC 6381).
    pub(super) codecs: String,
    /// As a file's header has it.
    pub(super) coding: Coding,
    /// Units of its time in a second.
    pub(super) timescale: u32,
    /// How units of NAL stand in its frames.
    setup: Option<Setup>,
    /// How long each frame of sound lasts, in units of its time, where the header says so.
    block: Option<u32>,
}

impl Track {
    /// Reads a sequence header; `None` for what no file here can have.
    pub(super) fn read(entry: &Entry) -> Option<Self> {
        if entry.info.class != Class::SETUP || entry.info.track != 0 {
            return None;
        }
        let fourcc = entry.info.codec?.fourcc()?;
        let record = entry.info.payload(&entry.tag.body);
        match entry.tag.kind {
            TagKind::Video => Self::video(fourcc, record, &entry.tag.body),
            TagKind::Audio => Self::audio(fourcc, record),
            TagKind::Script => None,
        }
    }

    fn video(fourcc: [u8; 4], record: &[u8], body: &[u8]) -> Option<Self> {
        let setup = Coded::of(fourcc).and_then(|coded| Setup::read(coded, record));
        let (name, record, codecs) = match &fourcc {
            b"avc1" => {
                let record = if record.first() == Some(&1) { record.to_vec() } else { avc_record(setup.as_ref()?)? };
                let &[profile, compatible, level] = record.get(1..4)? else { return None };
                (*b"avcC", record, format!("avc1.{profile:02x}{compatible:02x}{level:02x}"))
            }
            b"hvc1" if record.first() == Some(&1) => (*b"hvcC", record.to_vec(), hevc_codecs(record)?),
            b"av01" if record.first() == Some(&0x81) => (*b"av1C", record.to_vec(), av1_codecs(record)?),
            b"vp09" => (*b"vpcC", vp9_record(record)?, vp9_codecs(record)?),
            _ => return None,
        };
        if Coded::of(fourcc).is_some() && setup.is_none() {
            return None;
        }
        let side = |pixels: u32| u16::try_from(pixels).unwrap_or(u16::MAX);
        let size = match codec::read_sequence_header(body, false).ok().flatten() {
            Some(picture) => (side(picture.width), side(picture.height)),
            // Its keyframes say it.
            None if &fourcc == b"vp09" => (0, 0),
            None => return None,
        };
        let coding = Coding::Video { entry: fourcc, record: (name, record.into()), size };
        Some(Self { fourcc, codecs, coding, timescale: VIDEO_TIMESCALE, setup, block: None })
    }

    fn audio(fourcc: [u8; 4], record: &[u8]) -> Option<Self> {
        let mut block = None;
        let (coding, codecs, timescale) = match &fourcc {
            b"fLaC" => {
                // Its marker and the block's head may stand before (E-RTMP), or not (ffmpeg).
                let info = record.strip_prefix(b"fLaC").and_then(|rest| rest.get(4..)).unwrap_or(record).get(..34)?;
                let (least, most) = (u16::from_be_bytes([info[0], info[1]]), u16::from_be_bytes([info[2], info[3]]));
                block = Some(u32::from(most)).filter(|_| least == most && most > 0);
                let rate = u32::from_be_bytes([0, info[10], info[11], info[12]]) >> 4;
                let channels = u16::from(info[12] >> 1 & 7) + 1;
                // FLAC in ISOBMFF §3.3.2: one block, the last.
                let record = (*b"dfLa", [&[0, 0, 0, 0, 0x80, 0, 0, 34], info].concat().into());
                let rate = Some(rate).filter(|rate| *rate > 0)?;
                (Coding::Audio { entry: *b"fLaC", record, channels, rate }, "fLaC".to_owned(), rate)
            }
            b"mp4a" => {
                let &[first, second] = record.first_chunk()?;
                let word = u16::from_be_bytes([first, second]);
                let (object, channels) = (word >> 11, word >> 3 & 0x0F);
                let rate = *AAC_RATES.get(usize::from(word >> 7 & 0x0F))?;
                let record = (*b"esds", mp4::elementary_stream(0x40, record).into());
                let channels = if channels == 0 { 2 } else { channels };
                (Coding::Audio { entry: *b"mp4a", record, channels, rate }, format!("mp4a.40.{object}"), rate)
            }
            b"Opus" => {
                let head = record.strip_prefix(b"OpusHead").filter(|head| head.len() >= 11)?;
                let channels = u16::from(head[1]);
                // The same in the other order of bytes (Opus in ISOBMFF §4.3.2).
                let mut specific = vec![0, head[1], head[3], head[2], head[7], head[6], head[5], head[4]];
                specific.extend_from_slice(&[head[9], head[8]]);
                specific.extend_from_slice(&head[10..]);
                let record = (*b"dOps", specific.into());
                let rate = OPUS_RATE;
                (Coding::Audio { entry: *b"Opus", record, channels, rate }, "opus".to_owned(), rate)
            }
            _ => return None,
        };
        Some(Self { fourcc, codecs, coding, timescale, setup: None, block })
    }

    /// The same track with the size of a keyframe, where its header has none; `None` if nothing differs.
    pub(super) fn resized(&self, entry: &Entry) -> Option<Self> {
        let is_key = &self.fourcc == b"vp09" && entry.info.class == Class::Keyframe;
        let found = is_key.then(|| vp9_size(entry.info.payload(&entry.tag.body))).flatten()?;
        let mut track = self.clone();
        if let Coding::Video { size, .. } = &mut track.coding {
            *size = found;
        }
        (track != *self).then_some(track)
    }

    /// MP3, which has no sequence header: by a frame's own (ISO 11172-3 §2.4.1.3).
    pub(super) fn mp3(frame: &[u8]) -> Option<Self> {
        let &[0xFF, second, third, fourth] = frame.first_chunk()? else { return None };
        let rates: [u32; 3] = match second >> 3 & 3 {
            3 => [44_100, 48_000, 32_000],
            2 => [22_050, 24_000, 16_000],
            0 => [11_025, 12_000, 8_000],
            _ => return None,
        };
        let rate = *rates.get(usize::from(third >> 2 & 3))?;
        let channels = if fourth >> 6 == 3 { 1 } else { 2 };
        let record = (*b"esds", mp4::elementary_stream(0x6B, &[]).into());
        let coding = Coding::Audio { entry: *b"mp4a", record, channels, rate };
        Some(Self {
            fourcc: *b".mp3",
            codecs: "mp4a.40.34".to_owned(),
            coding,
            timescale: rate,
            setup: None,
            block: None,
        })
    }

    /// As a file's header has it.
    pub(super) fn of_file(&self, id: u32) -> mp4::Track {
        mp4::Track { id, timescale: self.timescale, coding: self.coding.clone() }
    }

    /// A time in ms, in the track's units.
    pub(super) fn at(&self, time_ms: i64) -> u64 {
        u64::try_from(time_ms).unwrap_or(0) * u64::from(self.timescale) / 1000
    }

    /// Whether it is of pictures.
    pub(super) fn is_video(&self) -> bool {
        matches!(self.coding, Coding::Video { .. })
    }

    /// Whether a transport stream has it by a standard.
    pub(super) fn fits_ts(&self) -> bool {
        matches!(&self.fourcc, b"avc1" | b"hvc1" | b"mp4a" | b".mp3")
    }

    /// Width and height; 0 of sound.
    pub(super) fn size(&self) -> (u16, u16) {
        match self.coding {
            Coding::Video { size, .. } => size,
            Coding::Audio { .. } => (0, 0),
        }
    }

    /// How long a frame of sound lasts, in the track's units; `None` where its bytes do not say.
    fn frame_length(&self, frame: &[u8]) -> Option<u32> {
        match &self.fourcc {
            b"fLaC" => self.block,
            b"mp4a" => Some(1024),
            b".mp3" => Some(if self.timescale >= 32_000 { 1152 } else { 576 }),
            b"Opus" => {
                // RFC 6716 §3.1: the first byte has the configuration and how many frames there are.
                let &first = frame.first()?;
                let one = match first >> 3 {
                    config @ 0..12 => [480, 960, 1920, 2880][usize::from(config & 3)],
                    config @ 12..16 => [480, 960][usize::from(config & 1)],
                    config => [120, 240, 480, 960][usize::from(config & 3)],
                };
                let count = match first & 3 {
                    0 => 1,
                    3 => u32::from(frame.get(1)? & 0x3F),
                    _ => 2,
                };
                Some(one * count)
            }
            _ => None,
        }
    }

    /// A frame as a sample's bytes; `None` if it is none.
    fn bytes(&self, entry: &Entry) -> Option<Bytes> {
        let payload = entry.info.payload(&entry.tag.body);
        if payload.is_empty() {
            return None;
        }
        if let Some(setup) = &self.setup {
            let units = setup.units(payload).filter(|units| !units.is_empty())?;
            let length = |unit: &[u8]| u32::try_from(unit.len()).unwrap_or(u32::MAX).to_be_bytes();
            let total: usize = units.iter().map(|unit| unit.len() + 4).sum();
            if total != payload.len() || !payload.starts_with(&length(units[0])) {
                let mut bytes = BytesMut::with_capacity(total);
                for unit in units {
                    bytes.put_slice(&length(unit));
                    bytes.put_slice(unit);
                }
                return Some(bytes.freeze());
            }
        }
        Some(entry.tag.body.slice_ref(payload))
    }
}

/// A record of Annex B parameter sets (ISO 14496-15 §5.3.3.1).
fn avc_record(setup: &Setup) -> Option<Vec<u8>> {
    let of_type =
        |kind: u8| setup.parameter_sets.iter().filter(move |nal| nal.first().is_some_and(|first| first & 0x1F == kind));
    let first = of_type(7).next().filter(|sps| sps.len() >= 4)?;
    let mut out = vec![1, first[1], first[2], first[3], 0xFF];
    for (kind, flags) in [(7, 0xE0), (8, 0)] {
        out.push(flags | u8::try_from(of_type(kind).count().min(31)).unwrap_or(0));
        for nal in of_type(kind).take(31) {
            out.extend_from_slice(&u16::try_from(nal.len()).ok()?.to_be_bytes());
            out.extend_from_slice(nal);
        }
    }
    Some(out)
}

/// ISO 14496-15 §E.3.
fn hevc_codecs(record: &[u8]) -> Option<String> {
    let head: &[u8; 13] = record.first_chunk()?;
    let space = ["", "A", "B", "C"][usize::from(head[1] >> 6)];
    let compatible = u32::from_be_bytes([head[2], head[3], head[4], head[5]]).reverse_bits();
    let tier = if head[1] & 0x20 == 0 { 'L' } else { 'H' };
    let constraints = &head[6..12];
    let used = constraints.len() - constraints.iter().rev().take_while(|byte| **byte == 0).count();
    let constraints: String = constraints[..used].iter().map(|byte| format!(".{byte:X}")).collect();
    Some(format!("hvc1.{space}{}.{compatible:X}.{tier}{}{constraints}", head[1] & 0x1F, head[12]))
}

/// AV1 in ISOBMFF §5.
fn av1_codecs(record: &[u8]) -> Option<String> {
    let &[_, second, third, _] = record.first_chunk()?;
    let (profile, level) = (second >> 5, second & 0x1F);
    let tier = if third & 0x80 == 0 { 'M' } else { 'H' };
    let depth = match (third >> 6 & 1, third >> 5 & 1) {
        (0, _) => 8,
        (_, 0) => 10,
        _ => 12,
    };
    Some(format!("av01.{profile}.{level:02}{tier}.{depth:02}"))
}

/// VP9 in ISOBMFF §2.2: what E-RTMP's publishers send with version and flags, or without.
fn vp9_record(record: &[u8]) -> Option<Vec<u8>> {
    match record {
        [1, 0, 0, 0, rest @ ..] if rest.len() >= 8 => Some(record.to_vec()),
        _ if record.len() >= 8 => Some([&[1, 0, 0, 0], record].concat()),
        _ => None,
    }
}

fn vp9_codecs(record: &[u8]) -> Option<String> {
    let record = vp9_record(record)?;
    let &[profile, level, packed] = record.get(4..7)? else { return None };
    Some(format!("vp09.{profile:02}.{level:02}.{:02}", packed >> 4))
}

/// Width and height of a keyframe (VP9 §6.2).
fn vp9_size(frame: &[u8]) -> Option<(u16, u16)> {
    let mut at = 0;
    let mut bits = |count: usize| {
        let mut value = 0_u32;
        for _ in 0..count {
            value = value << 1 | u32::from(*frame.get(at / 8)? >> (7 - at % 8) & 1);
            at += 1;
        }
        Some(value)
    };
    if bits(2)? != 2 {
        return None;
    }
    let profile = bits(1)? | bits(1)? << 1;
    if profile == 3 {
        bits(1)?;
    }
    // An old frame shown again, or one that depends on others.
    if bits(1)? == 1 || bits(1)? == 1 {
        return None;
    }
    bits(2)?;
    if bits(24)? != 0x49_8342 {
        return None;
    }
    if profile >= 2 {
        bits(1)?;
    }
    let odd = profile & 1;
    // RGB has neither a range nor a choice of sampling.
    match bits(3)? {
        7 => bits(usize::try_from(odd).ok()?)?,
        _ => bits(1 + 3 * usize::try_from(odd).ok()?)?,
    };
    let side = |minus_1: u32| u16::try_from(minus_1 + 1).unwrap_or(u16::MAX);
    Some((side(bits(16)?), side(bits(16)?)))
}

/// Samples of a track that are not written yet, and where its time stands.
#[derive(Debug, Default)]
pub(super) struct Samples {
    list: Vec<Sample>,
    bytes: usize,
    /// Decoding time of the first of them, in the track's units.
    start: u64,
    /// The same of the last one, and how long one lasts.
    last: (u64, u32),
    /// Where the next frame of sound begins.
    expected: Option<u64>,
}

/// What a sound's clock may be off by before it is set anew, in ms.
const DRIFT_MS_MAX: u64 = 60;

impl Samples {
    /// Adds a frame, at a time in ms; tells whether it was one. Frames of sound last as long as they say, so that they leave no gaps;
    /// those of pictures until the next one.
    pub(super) fn push(&mut self, track: &Track, entry: &Entry, time_ms: i64) -> bool {
        let Some(bytes) = track.bytes(entry) else { return false };
        let scale = u64::from(track.timescale);
        let now = track.at(time_ms);
        let own = (!track.is_video()).then(|| track.frame_length(&bytes)).flatten();
        let time = match self.expected.filter(|_| own.is_some()) {
            Some(expected) if expected.abs_diff(now) * 1000 <= DRIFT_MS_MAX * scale => expected,
            Some(expected) if !self.list.is_empty() => now.max(expected),
            _ => now.max(if self.list.is_empty() { 0 } else { self.last.0 }),
        };
        self.end_last(time);
        if self.list.is_empty() {
            self.start = time;
        }
        self.last = (time, own.unwrap_or(self.last.1));
        self.expected = own.map(|length| time + u64::from(length));
        let composition = i64::from(entry.info.composition_ms) * i64::from(track.timescale) / 1000;
        self.bytes += bytes.len();
        self.list.push(Sample {
            duration: self.last.1,
            composition: i32::try_from(composition).unwrap_or(0),
            sync: entry.info.class != Class::InterFrame,
            bytes,
        });
        true
    }

    /// The last frame ends at a time: where the next one begins.
    pub(super) fn end_last(&mut self, time: u64) {
        if let (Some(sample), Ok(length)) = (self.list.last_mut(), u32::try_from(time.saturating_sub(self.last.0))) {
            sample.duration = length;
            self.last.1 = length;
        }
    }

    /// Bytes of the samples.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes them: when the first one begins, and all.
    pub(super) fn take(&mut self) -> (u64, Vec<Sample>) {
        self.bytes = 0;
        (self.start, std::mem::take(&mut self.list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{codec::inspect, flv::Tag};

    fn entry(kind: TagKind, time_ms: i64, body: &'static [u8]) -> Entry {
        let tag = Tag { kind, timestamp: 0, body: Bytes::from_static(body) };
        Entry { info: inspect(kind, &tag.body), tag, time_ms, delta_ms: 0, arrived_ms: 0 }
    }

    /// A VP9 keyframe says its size, and nothing else does; FLAC's header may have its marker, and says how long frames are.
    #[test]
    fn vp9_and_flac_are_read() {
        let setup = entry(TagKind::Video, 0, b"\x90vp09\x01\0\0\0\0\x14\x82\x02\x02\x02\0\0");
        let track = Track::read(&setup).unwrap();
        assert_eq!((track.codecs.as_str(), track.size()), ("vp09.00.20.08", (0, 0)));
        let short = entry(TagKind::Video, 0, b"\x90vp09\0\x14\x82\x02\x02\x02\0\0");
        assert_eq!(Track::read(&short).as_ref(), Some(&track));
        let key = entry(TagKind::Video, 0, b"\x91vp09\x82\x49\x83\x42\0\x13\xf0\x0e\xf6\x06");
        let sized = track.resized(&key).unwrap();
        assert_eq!((sized.size(), sized.resized(&key)), ((320, 240), None));
        assert_eq!(track.resized(&entry(TagKind::Video, 0, b"\xa1vp09\x86\0\x40")), None);
        let info = b"\x04\0\x04\0\0\0\0\0\x08\x15\x0b\xb8\x02\xf0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let bare: &'static [u8] = [&b"\x90fLaC"[..], info].concat().leak();
        let marked: &'static [u8] = [&b"\x90fLaCfLaC\x80\0\0\x22"[..], info].concat().leak();
        for header in [bare, marked] {
            let track = Track::read(&entry(TagKind::Audio, 0, header)).unwrap();
            let Coding::Audio { channels, rate, record, .. } = &track.coding else { panic!("sound") };
            assert_eq!((*channels, *rate, record.1.len(), track.block), (2, 48_000, 42, Some(1024)));
        }
    }

    /// Times of sound in whole ms become a track without gaps; a real gap stays one.
    #[test]
    fn sound_has_no_gaps() {
        let track = Track::read(&entry(TagKind::Audio, 0, &[0xAF, 0, 0x12, 0x10])).unwrap();
        assert_eq!((track.codecs.as_str(), track.timescale), ("mp4a.40.2", 44_100));
        let mut samples = Samples::default();
        for time_ms in [0, 23, 46, 70, 93, 1000] {
            assert!(samples.push(&track, &entry(TagKind::Audio, 0, &[0xAF, 1, 1, 2]), time_ms));
        }
        let (start, list) = samples.take();
        assert_eq!(start, 0);
        let durations: Vec<u32> = list.iter().map(|sample| sample.duration).collect();
        assert_eq!(durations, [1024, 1024, 1024, 1024, 44_100 - 4 * 1024, 1024]);
        assert!(samples.push(&track, &entry(TagKind::Audio, 0, &[0xAF, 1, 1]), 1023));
        assert_eq!(samples.take().0, 44_100 + 1024);
    }
}
