//! What a tag's body is, as far as distribution needs to know: sequence header, keyframe, codec.
//!
//! Legacy headers (FLV 10.1 §E.4.2, §E.4.3) and Enhanced RTMP v2's extended ones. Nothing is
//! changed, and what is not understood is forwarded as it is.

mod enhanced;
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

/// A codec's name, for people.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Codec {
    /// One of FLV's numbered codecs.
    Legacy(&'static str),
    /// An E-RTMP FourCC.
    FourCc([u8; 4]),
}

impl Codec {
    /// The name in SRS's spelling, `H264` for example.
    pub fn common_name(&self) -> String {
        match self {
            Self::Legacy("AVC") => "H264".to_owned(),
            Self::Legacy(name) => (*name).to_owned(),
            Self::FourCc(fourcc) => match fourcc {
                b"avc1" => "H264".to_owned(),
                b"hvc1" => "HEVC".to_owned(),
                b"vvc1" => "VVC".to_owned(),
                b"av01" => "AV1".to_owned(),
                b"vp09" => "VP9".to_owned(),
                b"vp08" => "VP8".to_owned(),
                b"mp4a" => "AAC".to_owned(),
                b".mp3" => "MP3".to_owned(),
                b"fLaC" => "FLAC".to_owned(),
                b"ac-3" => "AC3".to_owned(),
                b"ec-3" => "EAC3".to_owned(),
                _ => self.to_string(),
            },
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Legacy(name) => f.write_str(name),
            Self::FourCc(fourcc) => write!(f, "{}", fourcc.escape_ascii()),
        }
    }
}

/// What [`inspect`] finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TagInfo {
    /// The role.
    pub class: Class,
    /// The codec, where the body names one.
    pub codec: Option<Codec>,
}

/// Looks at a tag's first bytes.
pub fn inspect(kind: TagKind, body: &[u8]) -> TagInfo {
    match kind {
        TagKind::Audio => inspect_audio(body),
        TagKind::Video => inspect_video(body),
        TagKind::Script => {
            let metadata = body.starts_with(b"\x02\x00\x0AonMetaData");
            TagInfo { class: if metadata { Class::Metadata } else { Class::Data }, codec: None }
        }
    }
}

fn inspect_video(body: &[u8]) -> TagInfo {
    let &[first, ref rest @ ..] = body else { return TagInfo { class: Class::Data, codec: None } };
    if first & 0x80 != 0 {
        return enhanced::inspect_video(first, rest);
    }
    let name = match first & 0x0F {
        2 => "H.263",
        3 => "Screen",
        4 => "VP6",
        5 => "VP6A",
        7 => "AVC",
        12 => "HEVC",
        13 => "AV1",
        _ => "unknown",
    };
    // The numbered HEVC and AV1 of Chinese CDNs have AVC's packet type.
    let packet_type = if matches!(first & 0x0F, 7 | 12 | 13) { rest.first().copied() } else { Some(1) };
    let class = match packet_type {
        Some(0) => Class::Header { slot: 0 },
        Some(1) => video_frame_class(first >> 4),
        _ => Class::Data,
    };
    TagInfo { class, codec: Some(Codec::Legacy(name)) }
}

/// FrameType 1 is a keyframe, 4 one that a server made.
fn video_frame_class(frame_type: u8) -> Class {
    if matches!(frame_type, 1 | 4) { Class::Keyframe } else { Class::InterFrame }
}

fn inspect_audio(body: &[u8]) -> TagInfo {
    let &[first, ref rest @ ..] = body else { return TagInfo { class: Class::Audio, codec: None } };
    let name = match first >> 4 {
        0 | 3 => "PCM",
        1 => "ADPCM",
        2 | 14 => "MP3",
        4..=6 => "Nellymoser",
        7 => "G.711A",
        8 => "G.711U",
        9 => return enhanced::inspect_audio(first & 0x0F, rest),
        10 => "AAC",
        11 => "Speex",
        13 => "Opus",
        _ => "unknown",
    };
    let header = matches!(first >> 4, 10 | 13) && rest.first() == Some(&0);
    let class = if header { Class::Header { slot: 0 } } else { Class::Audio };
    TagInfo { class, codec: Some(Codec::Legacy(name)) }
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
