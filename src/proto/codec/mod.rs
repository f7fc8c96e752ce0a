//! What a tag's body is, as far as distribution needs to know: sequence header, keyframe, codec.
//!
//! Legacy headers (FLV 10.1 §E.4.2, §E.4.3) and Enhanced RTMP v2's extended ones. Nothing is
//! changed, and what is not understood is forwarded as it is.

pub mod adts;
mod enhanced;
pub mod nal;
mod sequence;
mod sound;

pub use sequence::{Picture, SequenceError, read_sequence_header};
pub use sound::{Sound, read_sound};

use super::{
    amf::{Value, amf0},
    flv::TagKind,
};
use std::fmt;

/// The FourCCs that we name in `connect` (E-RTMP v2, "Enhancing NetConnection connect Command").
pub const CONNECT_FOURCCS: [&str; 12] =
    ["av01", "vp09", "vp08", "avc1", "hvc1", "vvc1", "ac-3", "ec-3", "Opus", ".mp3", "fLaC", "mp4a"];

/// What role a tag has in its stream.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Class {
    /// `onMetaData`; a late joiner gets the newest.
    Metadata,
    /// A sequence header or other setup (SequenceStart, Metadata, MultichannelConfig); a late joiner
    /// gets the newest of each slot. The slot tells packet type and track.
    Header {
        /// Equal for setups that replace each other.
        slot: u16,
    },
    /// A video frame that a decoder can start at.
    Keyframe,
    /// Another video frame.
    InterFrame,
    /// Audio.
    Audio,
    /// Anything else: other script data, an end of sequence, a command frame.
    Data,
}

impl Class {
    /// The first track's sequence header.
    pub const SETUP: Self = Self::Header { slot: 0 };
}

/// A codec that FLV numbers (FLV 10.1 §E.4.2.1, §E.4.3.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Legacy {
    Pcm,
    Adpcm,
    Mp3,
    Nellymoser,
    G711A,
    G711U,
    Aac,
    Speex,
    Opus,
    H263,
    Screen,
    Vp6,
    Vp6A,
    Avc,
    /// By the numbers that Chinese CDNs gave.
    Hevc,
    /// The same.
    Av1,
    Unknown,
}

/// A codec, as a tag names it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Codec {
    /// One of FLV's numbered codecs.
    Legacy(Legacy),
    /// An E-RTMP FourCC.
    FourCc([u8; 4]),
}

impl Codec {
    /// The FourCC that E-RTMP has for it, however the tag names it; `None` where there is none.
    pub fn fourcc(self) -> Option<[u8; 4]> {
        Some(*match self {
            Self::FourCc(fourcc) => return Some(fourcc),
            Self::Legacy(Legacy::Avc) => b"avc1",
            Self::Legacy(Legacy::Hevc) => b"hvc1",
            Self::Legacy(Legacy::Av1) => b"av01",
            Self::Legacy(Legacy::Aac) => b"mp4a",
            Self::Legacy(Legacy::Mp3) => b".mp3",
            Self::Legacy(Legacy::Opus) => b"Opus",
            Self::Legacy(_) => return None,
        })
    }

    /// The name in SRS's spelling, `H264` for example.
    pub fn common_name(self) -> String {
        let name = self.fourcc().and_then(|fourcc| {
            Some(match &fourcc {
                b"avc1" => "H264",
                b"hvc1" => "HEVC",
                b"vvc1" => "VVC",
                b"av01" => "AV1",
                b"vp09" => "VP9",
                b"vp08" => "VP8",
                b"mp4a" => "AAC",
                b".mp3" => "MP3",
                b"fLaC" => "FLAC",
                b"ac-3" => "AC3",
                b"ec-3" => "EAC3",
                _ => return None,
            })
        });
        let name = name.or(match self {
            Self::Legacy(Legacy::G711A) => Some("PCMA"),
            Self::Legacy(Legacy::G711U) => Some("PCMU"),
            Self::Legacy(Legacy::Vp6A) => Some("VP6"),
            Self::Legacy(_) | Self::FourCc(_) => None,
        });
        name.map_or_else(|| self.to_string(), str::to_owned)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FourCc(fourcc) => write!(f, "{}", fourcc.escape_ascii()),
            Self::Legacy(legacy) => f.write_str(match legacy {
                Legacy::Pcm => "PCM",
                Legacy::Adpcm => "ADPCM",
                Legacy::Mp3 => "MP3",
                Legacy::Nellymoser => "Nellymoser",
                Legacy::G711A => "G.711A",
                Legacy::G711U => "G.711U",
                Legacy::Aac => "AAC",
                Legacy::Speex => "Speex",
                Legacy::Opus => "Opus",
                Legacy::H263 => "H.263",
                Legacy::Screen => "Screen",
                Legacy::Vp6 => "VP6",
                Legacy::Vp6A => "VP6A",
                Legacy::Avc => "AVC",
                Legacy::Hevc => "HEVC",
                Legacy::Av1 => "AV1",
                Legacy::Unknown => "unknown",
            }),
        }
    }
}

/// What [`inspect`] finds: a tag's body is looked at once, where it comes in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TagInfo {
    /// The role.
    pub class: Class,
    /// The codec, where the body names one.
    pub codec: Option<Codec>,
    /// From decoding to presentation, in ms.
    pub composition_ms: i32,
    /// The track; 0 without multitrack.
    pub track: u8,
    /// Where the codec's own bytes stand in the body: a frame, or a setup's data.
    payload: (u32, u32),
}

impl TagInfo {
    fn new(class: Class, codec: Option<Codec>) -> Self {
        Self { class, codec, composition_ms: 0, track: 0, payload: (0, 0) }
    }

    /// The payload is what stands behind the first `head` bytes of a body.
    fn behind(self, head: usize, body: &[u8]) -> Self {
        let bytes = |bytes: usize| u32::try_from(bytes.min(body.len())).unwrap_or(u32::MAX);
        Self { payload: (bytes(head), bytes(body.len())), ..self }
    }

    /// The codec's own bytes in the body that was looked at.
    pub fn payload(self, body: &[u8]) -> &[u8] {
        body.get(self.payload.0 as usize..self.payload.1 as usize).unwrap_or_default()
    }
}

/// Looks at a tag's first bytes.
pub fn inspect(kind: TagKind, body: &[u8]) -> TagInfo {
    match kind {
        TagKind::Audio => inspect_audio(body),
        TagKind::Video => inspect_video(body),
        TagKind::Script => {
            let metadata = body.starts_with(b"\x02\x00\x0AonMetaData");
            TagInfo::new(if metadata { Class::Metadata } else { Class::Data }, None)
        }
    }
}

fn inspect_video(body: &[u8]) -> TagInfo {
    let &[first, ref rest @ ..] = body else { return TagInfo::new(Class::Data, None) };
    if first & 0x80 != 0 {
        return enhanced::inspect_video(first, body);
    }
    let legacy = match first & 0x0F {
        2 => Legacy::H263,
        3 => Legacy::Screen,
        4 => Legacy::Vp6,
        5 => Legacy::Vp6A,
        7 => Legacy::Avc,
        12 => Legacy::Hevc,
        13 => Legacy::Av1,
        _ => Legacy::Unknown,
    };
    // The numbered HEVC and AV1 of Chinese CDNs have AVC's packet type and composition time.
    let packeted = matches!(legacy, Legacy::Avc | Legacy::Hevc | Legacy::Av1);
    let packet_type = if packeted { rest.first().copied() } else { Some(1) };
    let class = match packet_type {
        Some(0) => Class::Header { slot: 0 },
        Some(1) => video_frame_class(first >> 4),
        _ => Class::Data,
    };
    let info = TagInfo::new(class, Some(Codec::Legacy(legacy)));
    if !packeted {
        return info.behind(1, body);
    }
    let composition_ms = if class == (Class::Header { slot: 0 }) { 0 } else { signed24(&body[1..]) };
    TagInfo { composition_ms, ..info }.behind(5, body)
}

/// The signed 24 bits behind a byte (FLV 10.1 §E.4.3.2, CompositionTime); 0 where there are none.
fn signed24(bytes: &[u8]) -> i32 {
    let Some(&[_, high, middle, low]) = bytes.first_chunk() else { return 0 };
    i32::from_be_bytes([high, middle, low, 0]) >> 8
}

/// FrameType 1 is a keyframe, 4 one that a server made.
fn video_frame_class(frame_type: u8) -> Class {
    if matches!(frame_type, 1 | 4) { Class::Keyframe } else { Class::InterFrame }
}

fn inspect_audio(body: &[u8]) -> TagInfo {
    let &[first, ref rest @ ..] = body else { return TagInfo::new(Class::Audio, None) };
    let legacy = match first >> 4 {
        0 | 3 => Legacy::Pcm,
        1 => Legacy::Adpcm,
        2 | 14 => Legacy::Mp3,
        4..=6 => Legacy::Nellymoser,
        7 => Legacy::G711A,
        8 => Legacy::G711U,
        9 => return enhanced::inspect_audio(first & 0x0F, body),
        10 => Legacy::Aac,
        11 => Legacy::Speex,
        13 => Legacy::Opus,
        _ => Legacy::Unknown,
    };
    let packeted = matches!(legacy, Legacy::Aac | Legacy::Opus);
    let header = packeted && rest.first() == Some(&0);
    let class = if header { Class::Header { slot: 0 } } else { Class::Audio };
    TagInfo::new(class, Some(Codec::Legacy(legacy))).behind(if packeted { 2 } else { 1 }, body)
}

/// What `onMetaData` says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Metadata {
    /// Pixels; 0 if not said.
    pub width: u32,
    /// Pixels; 0 if not said.
    pub height: u32,
    /// Whether it announces a video track.
    pub has_video: bool,
    /// Whether it announces an audio track.
    pub has_audio: bool,
    /// What video and audio together are said to have, in kbit/s; 0 if not said.
    pub kbps: u32,
    /// Whether `bravo_atc` is "true": times are absolute.
    pub absolute_time: bool,
}

/// Reads the body of an `onMetaData` tag; what cannot be read counts as not said.
pub fn read_metadata(body: &[u8]) -> Metadata {
    let properties = amf0::decode_one(body).and_then(|(_, rest)| amf0::decode_one(rest)).map(|(value, _)| value);
    let Ok(properties) = properties else { return Metadata::default() };
    let number = |key| {
        let number = properties.property(key).and_then(Value::as_number).unwrap_or(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
        let number = number as u32;
        number
    };
    let has = |key, none: f64| {
        let codec = properties.property(key);
        codec.is_some_and(|codec| codec.as_number() != Some(none) && *codec != Value::Null)
    };
    // Number 0 is no video codec, and uncompressed audio.
    let (has_video, has_audio) = (has("videocodecid", 0.0), has("audiocodecid", -1.0));
    Metadata {
        width: number("width"),
        height: number("height"),
        has_video,
        has_audio,
        kbps: number("videodatarate").saturating_add(number("audiodatarate")),
        absolute_time: properties.property("bravo_atc").and_then(Value::as_str) == Some("true"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(kind: TagKind, body: &[u8]) -> Class {
        inspect(kind, body).class
    }

    #[test]
    fn legacy_headers() {
        assert_eq!(class(TagKind::Video, &[0x17, 0, 0, 0, 0]), Class::Header { slot: 0 });
        assert_eq!(class(TagKind::Video, &[0x17, 1, 0, 0, 0]), Class::Keyframe);
        assert_eq!(class(TagKind::Video, &[0x27, 1, 0, 0, 0]), Class::InterFrame);
        assert_eq!(class(TagKind::Video, &[0x17, 2]), Class::Data, "end of sequence is no place to start");
        assert_eq!(class(TagKind::Video, &[0x12]), Class::Keyframe);
        assert_eq!(class(TagKind::Audio, &[0xAF, 0, 0x12]), Class::Header { slot: 0 });
        assert_eq!(class(TagKind::Audio, &[0xAF, 1]), Class::Audio);
        assert_eq!(class(TagKind::Audio, &[0x2F, 0]), Class::Audio, "MP3 has no sequence header");
        assert_eq!(class(TagKind::Script, b"\x02\x00\x0AonMetaData\x08"), Class::Metadata);
        assert_eq!(class(TagKind::Script, b"\x02\x00\x09onCuePoint"), Class::Data);
        for kind in TagKind::ALL {
            assert!(inspect(kind, &[]).codec.is_none());
        }
    }

    #[test]
    fn metadata_sizes() {
        let object = Value::EcmaArray(vec![
            ("width".into(), Value::Number(1280.0)),
            ("height".into(), Value::Number(720.0)),
            ("videocodecid".into(), Value::Number(7.0)),
        ]);
        let body = amf0::encode_all(&[Value::string("onMetaData"), object]);
        let expected = Metadata { width: 1280, height: 720, has_video: true, ..Metadata::default() };
        assert_eq!(read_metadata(&body), expected);
        assert_eq!(read_metadata(&body[..20]), Metadata::default());
    }

    proptest::proptest! {
        /// No body panics.
        #[test]
        fn any_bytes(body in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            for kind in TagKind::ALL {
                inspect(kind, &body);
            }
            read_metadata(&body);
        }
    }
}
