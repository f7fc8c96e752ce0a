//! The extended headers of Enhanced RTMP v2 ("Enhanced Video", "Enhanced Audio").

use super::{Class, Codec, TagInfo, signed24, video_frame_class};

/// Packet types that video and audio share, and video's own.
mod packet_type {
    pub(super) const SEQUENCE_START: u8 = 0;
    pub(super) const CODED_FRAMES: u8 = 1;
    pub(super) const CODED_FRAMES_X: u8 = 3;
    /// Video: HDR metadata. Audio: MultichannelConfig.
    pub(super) const METADATA: u8 = 4;
    /// Video.
    pub(super) const MPEG2_TS_SEQUENCE_START: u8 = 5;
    pub(super) const VIDEO_MULTITRACK: u8 = 6;
    pub(super) const AUDIO_MULTITRACK: u8 = 5;
    pub(super) const MOD_EX: u8 = 7;
}

/// VideoFrameType of a command frame, which has no body.
const FRAME_TYPE_COMMAND: u8 = 5;

/// What stands before a tag's media.
struct Head {
    packet_type: u8,
    fourcc: Option<[u8; 4]>,
    /// 0 without multitrack; the first track of several.
    track: u8,
    /// Bytes up to the media of that track, and of the media; all the rest if it is the only one.
    bytes: usize,
    length: Option<usize>,
}

impl Head {
    fn info(&self, class: Class, body: &[u8], composition: bool) -> TagInfo {
        let info = TagInfo { track: self.track, ..TagInfo::new(class, self.fourcc.map(Codec::FourCc)) };
        let end = self.length.map_or(body.len(), |length| body.len().min(self.bytes + length));
        let body = &body[..end];
        if !composition {
            return info.behind(self.bytes, body);
        }
        let composition_ms = body.get(self.bytes - 1..).map_or(0, signed24);
        TagInfo { composition_ms, ..info }.behind(self.bytes + 3, body)
    }
}

pub(super) fn inspect_video(first: u8, body: &[u8]) -> TagInfo {
    let frame_type = first >> 4 & 0x07;
    let Some(head) = read_head(first & 0x0F, body, packet_type::VIDEO_MULTITRACK) else {
        return TagInfo::new(Class::Data, None);
    };
    // ffmpeg marks HDR metadata as a command frame; only others have no body.
    if frame_type == FRAME_TYPE_COMMAND && head.packet_type != packet_type::METADATA {
        return TagInfo::new(Class::Data, None);
    }
    let class = match head.packet_type {
        packet_type::SEQUENCE_START | packet_type::METADATA | packet_type::MPEG2_TS_SEQUENCE_START => slot(&head),
        // Other tracks' keyframes do not start a GOP: track 0 is the default one.
        packet_type::CODED_FRAMES | packet_type::CODED_FRAMES_X if head.track == 0 => video_frame_class(frame_type),
        packet_type::CODED_FRAMES | packet_type::CODED_FRAMES_X => Class::InterFrame,
        _ => Class::Data,
    };
    // AVC, HEVC and VVC have a composition time (E-RTMP v2, "Enhanced Video").
    let reordered = matches!(head.fourcc.as_ref(), Some(b"avc1" | b"hvc1" | b"vvc1"));
    head.info(class, body, reordered && head.packet_type == packet_type::CODED_FRAMES)
}

pub(super) fn inspect_audio(packet_type: u8, body: &[u8]) -> TagInfo {
    let Some(head) = read_head(packet_type, body, packet_type::AUDIO_MULTITRACK) else {
        return TagInfo::new(Class::Audio, None);
    };
    let class = match head.packet_type {
        packet_type::SEQUENCE_START | packet_type::METADATA => slot(&head),
        packet_type::CODED_FRAMES => Class::Audio,
        // Nothing to hear, but forwarded as what comes between.
        _ => return TagInfo { track: head.track, ..TagInfo::new(Class::Audio, head.fourcc.map(Codec::FourCc)) },
    };
    head.info(class, body, false)
}

/// The FourCC and data of a SequenceStart without multitrack.
pub(super) fn sequence_start(first: u8, rest: &[u8]) -> Option<([u8; 4], &[u8])> {
    let (packet_type, rest) = skip_mod_ex(first & 0x0F, rest)?;
    let (fourcc, data) = rest.split_first_chunk::<4>()?;
    let is_command = first >> 4 & 0x07 == FRAME_TYPE_COMMAND;
    (packet_type == packet_type::SEQUENCE_START && !is_command).then_some((*fourcc, data))
}

fn slot(head: &Head) -> Class {
    Class::Header { slot: u16::from(head.packet_type) << 8 | u16::from(head.track) }
}

/// Follows ModEx headers to the packet type behind them; `None` if the body ends.
fn skip_mod_ex(mut packet_type: u8, mut rest: &[u8]) -> Option<(u8, &[u8])> {
    while packet_type == packet_type::MOD_EX {
        let (&size, after) = rest.split_first()?;
        (packet_type, rest) = match size {
            // 255 + 1 = 256 announces a 16-bit size.
            0xFF => {
                let size = usize::from(u16::from_be_bytes(*after.first_chunk()?)) + 1;
                mod_ex(after.get(2 + size..)?)?
            }
            size => mod_ex(after.get(usize::from(size) + 1..)?)?,
        };
    }
    Some((packet_type, rest))
}

/// Follows ModEx and multitrack headers to the packet type that counts; `None` if the body ends.
fn read_head(packet_type: u8, body: &[u8], multitrack: u8) -> Option<Head> {
    let (packet_type, rest) = skip_mod_ex(packet_type, body.get(1..)?)?;
    let at = |rest: &[u8]| body.len() - rest.len();
    if packet_type != multitrack {
        let fourcc = rest.first_chunk().copied();
        let bytes = at(rest.get(4..).unwrap_or_default());
        return Some(Head { packet_type, fourcc, track: 0, bytes, length: None });
    }
    let (&types, rest) = rest.split_first()?;
    let (fourcc, rest) = rest.split_first_chunk::<4>()?;
    // With many codecs the FourCC stands at each track, with one codec before them all: the first
    // track's id follows either way.
    let (&track, rest) = rest.split_first()?;
    let one = types >> 4 == 0;
    let length = rest.first_chunk().map(|&[high, middle, low]| u32::from_be_bytes([0, high, middle, low]) as usize);
    let (length, rest) =
        if one { (None, rest) } else { (Some(length.unwrap_or(0)), rest.get(3..).unwrap_or_default()) };
    Some(Head { packet_type: types & 0x0F, fourcc: Some(*fourcc), track, bytes: at(rest), length })
}

/// The nibbles after a ModEx's data: its type (0 = nanosecond offset) and the next packet type.
fn mod_ex(rest: &[u8]) -> Option<(u8, &[u8])> {
    let (&types, rest) = rest.split_first()?;
    Some((types & 0x0F, rest))
}

#[cfg(test)]
mod tests {
    use super::super::{CONNECT_FOURCCS, inspect};
    use super::*;
    use crate::proto::flv::TagKind;

    fn video(body: &[u8]) -> (Class, Option<String>) {
        let info = inspect(TagKind::Video, body);
        (info.class, info.codec.map(|codec| codec.to_string()))
    }

    fn audio(body: &[u8]) -> (Class, Option<String>) {
        let info = inspect(TagKind::Audio, body);
        (info.class, info.codec.map(|codec| codec.to_string()))
    }

    /// G2: every FourCC is seen, an unknown one too (G9: forwarded as it is).
    #[test]
    fn g2_every_fourcc_is_recognised() {
        for fourcc in CONNECT_FOURCCS.iter().chain(&["xyz!"]) {
            let name = Some((*fourcc).to_owned());
            let start = [&[0x90][..], fourcc.as_bytes(), &[1]].concat();
            assert_eq!(video(&start), (Class::Header { slot: 0 }, name.clone()));
            let frames = [&[0x91][..], fourcc.as_bytes(), &[0, 0, 0, 1]].concat();
            assert_eq!(video(&frames), (Class::Keyframe, name.clone()));
            assert_eq!(audio(&start), (Class::Header { slot: 0 }, name.clone()));
            assert_eq!(audio(&frames), (Class::Audio, name));
        }
    }

    /// G3: each packet type of video and audio.
    #[test]
    fn g3_packet_types() {
        let body = |first: u8| [&[first][..], b"hvc1", &[0; 8]].concat();
        let video = |first| video(&body(first)).0;
        assert_eq!(video(0x90), Class::Header { slot: 0 });
        assert_eq!(video(0x91), Class::Keyframe);
        assert_eq!(video(0xA1), Class::InterFrame);
        assert_eq!(video(0x92), Class::Data, "SequenceEnd");
        assert_eq!(video(0x93), Class::Keyframe, "CodedFramesX");
        assert_eq!(video(0xA3), Class::InterFrame);
        assert_eq!(video(0x94), Class::Header { slot: 0x400 }, "Metadata (HDR)");
        assert_eq!(video(0x95), Class::Header { slot: 0x500 }, "MPEG2TSSequenceStart");
        assert_eq!(video(0xD1), Class::Data, "a command frame");
        assert_eq!(video(0xD4), Class::Header { slot: 0x400 }, "Metadata as ffmpeg sends it");
        let audio = |first| audio(&body(first)).0;
        assert_eq!(audio(0x90), Class::Header { slot: 0 });
        assert_eq!(audio(0x91), Class::Audio);
        assert_eq!(audio(0x92), Class::Audio, "SequenceEnd");
        assert_eq!(audio(0x94), Class::Header { slot: 0x400 }, "MultichannelConfig");
    }

    /// G4: ModEx in both sizes, and two in a row, with the nanosecond offset (type 0).
    #[test]
    fn g4_mod_ex_loop() {
        let once = [&[0x97, 2, 0, 0, 1, 0x01][..], b"hvc1", &[0; 4]].concat();
        assert_eq!(video(&once), (Class::Keyframe, Some("hvc1".into())));
        let twice = [&[0x97, 2, 0, 0, 1, 0x07, 0, 9, 0x00][..], b"av01"].concat();
        assert_eq!(video(&twice), (Class::Header { slot: 0 }, Some("av01".into())));
        let long = [&[0x97, 0xFF, 0x01, 0x2B][..], &[0; 300], &[0x01], b"hvc1", &[0; 4]].concat();
        assert_eq!(video(&long), (Class::Keyframe, Some("hvc1".into())));
        for cut in 0..once.len() - 8 {
            assert_ne!(video(&once[..cut]).0, Class::Keyframe, "cut at {cut}");
        }
        let sound = [&[0x97, 2, 0, 0, 1, 0x01][..], b"Opus"].concat();
        assert_eq!(audio(&sound), (Class::Audio, Some("Opus".into())));
    }

    /// G5: OneTrack, ManyTracks, ManyTracksManyCodecs; only track 0 starts a GOP.
    #[test]
    fn g5_multitrack() {
        let body = |first: u8, types: u8, track: u8| [&[first, types][..], b"avc1", &[track, 0, 0, 1, 9]].concat();
        for multitrack_type in [0x00, 0x10, 0x20] {
            assert_eq!(video(&body(0x96, multitrack_type, 0)), (Class::Header { slot: 0 }, Some("avc1".into())));
            assert_eq!(video(&body(0x96, multitrack_type, 3)).0, Class::Header { slot: 3 });
            assert_eq!(video(&body(0x96, multitrack_type | 1, 0)).0, Class::Keyframe);
            assert_eq!(video(&body(0x96, multitrack_type | 1, 3)).0, Class::InterFrame);
            assert_eq!(audio(&body(0x95, multitrack_type, 2)).0, Class::Header { slot: 2 });
            assert_eq!(audio(&body(0x95, multitrack_type | 1, 2)).0, Class::Audio);
        }
    }
}
