//! What a video sequence header says of the picture: size, profile, level.
//!
//! AVC (ISO 14496-15 §5.3.3.1, H.264 §7.3.2.1.1), HEVC (ISO 14496-15 §8.3.3.1, H.265 §7.3.2.2) and AV1 (AV1 in
//! ISOBMFF §2.3, AV1 §5.5.1). AVC and HEVC headers may be Annex B byte streams (H.264 §B.1) instead of
//! configuration records: some encoders send them so.

use super::{enhanced, nal::annexb};
use h264_reader::{
    nal::sps::SeqParameterSet,
    rbsp::{BitRead, BitReader, BitReaderError, ByteReader, decode_nal},
};
use std::{fmt, num::NonZeroUsize};

/// A picture as its sequence header has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Picture {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// For example `High` or `Main 10`.
    pub profile: String,
    /// For example `3.1`.
    pub level: String,
}

impl fmt::Display for Picture {
    /// For example `1280x720 High 3.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.width > 0 {
            write!(f, "{}x{} ", self.width, self.height)?;
        }
        write!(f, "{} {}", self.profile, self.level)
    }
}

/// Why a sequence header cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SequenceError {
    /// The configuration record ends too early.
    #[error("the configuration record ends too early")]
    Short,
    /// It has no sequence parameter set.
    #[error("no sequence parameter set")]
    NoSps,
    /// The parameter set is broken.
    #[error("broken sequence parameter set ({0})")]
    BrokenSps(String),
}

/// Most pixels of a side; beyond is no picture.
const SIDE_MAX: u32 = 65_536;

/// Reads the body of a video tag that is a sequence header of AVC, HEVC or AV1; `None` for every other
/// tag and codec, and for a header that says nothing: ffmpeg sends one of libaom's before it knows more. `annexb_first` says which form is tried first.
///
/// # Errors
/// [`SequenceError`]: neither form can be read.
pub fn read_sequence_header(body: &[u8], annexb_first: bool) -> Result<Option<Picture>, SequenceError> {
    let Some((codec, data)) = sequence_header(body).filter(|(_, data)| !data.is_empty()) else { return Ok(None) };
    let is_sps = |nal: &&[u8]| match codec {
        Coded::Avc => nal[0] & 0x1F == 7,
        Coded::Hevc => nal[0] >> 1 & 0x3F == 33,
        Coded::Av1 => false,
    };
    let record_sps = match codec {
        Coded::Avc => avc_record_sps,
        Coded::Hevc => hevc_record_sps,
        Coded::Av1 => return read_av1(data).map(Some),
    };
    let read_sps = |sps: &[u8]| if codec == Coded::Avc { read_avc_sps(sps) } else { read_hevc_sps(sps) };
    let annexb = || annexb(data).find(is_sps).ok_or(SequenceError::NoSps).and_then(read_sps);
    let record = || record_sps(data).and_then(read_sps);
    let picture = if annexb_first {
        annexb().or_else(|_| record())
    } else {
        record().or_else(|error| annexb().map_err(|_| error))
    };
    picture.map(Some)
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Coded {
    Avc,
    Hevc,
    Av1,
}

/// The codec and what stands behind the tag's header.
fn sequence_header(body: &[u8]) -> Option<(Coded, &[u8])> {
    let (&first, rest) = body.split_first()?;
    if first & 0x80 != 0 {
        let (fourcc, data) = enhanced::sequence_start(first, rest)?;
        let codec = match &fourcc {
            b"avc1" => Coded::Avc,
            b"hvc1" => Coded::Hevc,
            b"av01" => Coded::Av1,
            _ => return None,
        };
        return Some((codec, data));
    }
    let codec = match first & 0x0F {
        7 => Coded::Avc,
        12 => Coded::Hevc,
        13 => Coded::Av1,
        _ => return None,
    };
    // The packet type 0, then three bytes of composition time.
    let (&[0, _, _, _], data) = rest.split_first_chunk()? else { return None };
    Some((codec, data))
}

fn avc_record_sps(record: &[u8]) -> Result<&[u8], SequenceError> {
    let (&[_, _, _, _, _, count], rest) = record.split_first_chunk().ok_or(SequenceError::Short)?;
    if count & 0x1F == 0 {
        return Err(SequenceError::NoSps);
    }
    sized(rest).map(|(sps, _)| sps)
}

fn hevc_record_sps(record: &[u8]) -> Result<&[u8], SequenceError> {
    const ARRAYS_AT: usize = 22;
    let (&arrays, mut rest) = record.get(ARRAYS_AT..).and_then(<[u8]>::split_first).ok_or(SequenceError::Short)?;
    for _ in 0..arrays {
        let (&[kind, high, low], after) = rest.split_first_chunk().ok_or(SequenceError::Short)?;
        rest = after;
        for _ in 0..u16::from_be_bytes([high, low]) {
            let (nal, after) = sized(rest)?;
            if kind & 0x3F == 33 {
                return Ok(nal);
            }
            rest = after;
        }
    }
    Err(SequenceError::NoSps)
}

/// A NAL unit behind its 16-bit length, which is not 0.
fn sized(data: &[u8]) -> Result<(&[u8], &[u8]), SequenceError> {
    let (length, rest) = data.split_first_chunk().ok_or(SequenceError::Short)?;
    let (nal, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(SequenceError::Short)?;
    if nal.is_empty() { Err(SequenceError::NoSps) } else { Ok((nal, rest)) }
}

fn no_size() -> SequenceError {
    SequenceError::BrokenSps("no picture size".to_owned())
}

fn broken(error: impl fmt::Debug) -> SequenceError {
    SequenceError::BrokenSps(format!("{error:?}"))
}

fn read_avc_sps(nal: &[u8]) -> Result<Picture, SequenceError> {
    if nal.first().is_none_or(|first| first & 0x9F != 7) {
        return Err(SequenceError::NoSps);
    }
    let rbsp = decode_nal(nal).map_err(broken)?;
    let sps = SeqParameterSet::from_bits(BitReader::new(&rbsp[..])).map_err(broken)?;
    let (width, height) = sps.pixel_dimensions().map_err(broken)?;
    if ![width, height].iter().all(|side| (1..=SIDE_MAX).contains(side)) {
        return Err(no_size());
    }
    let level = sps.level().level_idc();
    Ok(Picture {
        width,
        height,
        profile: format!("{:?}", sps.profile()),
        level: format!("{}.{}", level / 10, level % 10),
    })
}

fn read_hevc_sps(nal: &[u8]) -> Result<Picture, SequenceError> {
    const HEADER: NonZeroUsize = NonZeroUsize::new(2).unwrap();
    if nal.len() < 3 || nal[0] >> 1 & 0x3F != 33 {
        return Err(SequenceError::NoSps);
    }
    let mut bits = BitReader::new(ByteReader::skipping_bytes(nal, HEADER));
    hevc_sps(&mut bits).map_err(broken)?.ok_or_else(no_size)
}

/// H.265 §7.3.2.2.1 up to the conformance window.
fn hevc_sps(bits: &mut impl BitRead) -> Result<Option<Picture>, BitReaderError> {
    bits.skip(4, "sps_video_parameter_set_id")?;
    let sub_layers: u32 = bits.read::<3, _>("sps_max_sub_layers_minus1")?;
    bits.skip(1, "sps_temporal_id_nesting_flag")?;
    let (profile, level) = hevc_profile_tier_level(bits, sub_layers)?;
    bits.read_ue("sps_seq_parameter_set_id")?;
    let chroma = bits.read_ue("chroma_format_idc")?;
    if chroma == 3 {
        bits.skip(1, "separate_colour_plane_flag")?;
    }
    let (width, height) = (bits.read_ue("pic_width_in_luma_samples")?, bits.read_ue("pic_height_in_luma_samples")?);
    let mut crop = [0; 4];
    if bits.read_bit("conformance_window_flag")? {
        for side in &mut crop {
            *side = bits.read_ue("conf_win_offset")?;
        }
    }
    let (sub_width, sub_height) = (if matches!(chroma, 1 | 2) { 2 } else { 1 }, if chroma == 1 { 2 } else { 1 });
    let cropped = |size: u32, a: u32, b: u32, unit: u32| {
        size.checked_sub(a.checked_add(b)?.checked_mul(unit)?).filter(|size| (1..=SIDE_MAX).contains(size))
    };
    let size = cropped(width, crop[0], crop[1], sub_width).zip(cropped(height, crop[2], crop[3], sub_height));
    Ok(size.map(|(width, height)| Picture { width, height, profile, level }))
}

/// H.265 §7.3.3: profile and level of the whole stream; those of sub-layers are passed over.
fn hevc_profile_tier_level(bits: &mut impl BitRead, sub_layers: u32) -> Result<(String, String), BitReaderError> {
    bits.skip(3, "general_profile_space, general_tier_flag")?;
    let profile: u8 = bits.read::<5, _>("general_profile_idc")?;
    bits.skip(32 + 4 + 43 + 1, "general flags")?;
    let level: u32 = bits.read::<8, _>("general_level_idc")?;
    let mut present = Vec::new();
    for _ in 0..sub_layers {
        present
            .push((bits.read_bit("sub_layer_profile_present_flag")?, bits.read_bit("sub_layer_level_present_flag")?));
    }
    if sub_layers > 0 {
        bits.skip(2 * (8 - sub_layers), "reserved_zero_2bits")?;
    }
    for (profile, level) in present {
        bits.skip(if profile { 88 } else { 0 } + if level { 8 } else { 0 }, "sub_layer")?;
    }
    let name = match profile {
        1 => "Main".to_owned(),
        2 => "Main 10".to_owned(),
        3 => "Main Still Picture".to_owned(),
        4 => "Rext".to_owned(),
        other => format!("profile {other}"),
    };
    // The level is 30 times its number.
    Ok((name, format!("{}.{}", level / 30, level % 30 / 3)))
}

/// An AV1CodecConfigurationRecord; the size stands in its sequence header OBU, which may be missing.
fn read_av1(record: &[u8]) -> Result<Picture, SequenceError> {
    let (&[marker, profile, _, _], mut obus) = record.split_first_chunk().ok_or(SequenceError::Short)?;
    if marker != 0x81 {
        return Err(broken("marker and version"));
    }
    let level = u32::from(profile & 0x1F);
    let mut picture = Picture {
        width: 0,
        height: 0,
        profile: match profile >> 5 {
            0 => "Main".to_owned(),
            1 => "High".to_owned(),
            2 => "Professional".to_owned(),
            other => format!("profile {other}"),
        },
        level: format!("{}.{}", 2 + level / 4, level % 4),
    };
    while let Some((&header, rest)) = obus.split_first() {
        let extension = usize::from(header & 0x04 != 0);
        let (size, rest) = leb128(rest.get(extension..).ok_or(SequenceError::Short)?, header & 0x02 != 0)?;
        let (obu, rest) = rest.split_at_checked(size).ok_or(SequenceError::Short)?;
        if header >> 3 & 0x0F == 1 {
            (picture.width, picture.height) = av1_size(&mut BitReader::new(obu)).map_err(broken)?;
        }
        obus = rest;
    }
    Ok(picture)
}

/// An OBU's size (AV1 §4.10.5); without the field, all that is left.
fn leb128(mut data: &[u8], present: bool) -> Result<(usize, &[u8]), SequenceError> {
    let mut size = 0;
    for shift in (0..28).step_by(7).take_while(|_| present) {
        let (&byte, rest) = data.split_first().ok_or(SequenceError::Short)?;
        data = rest;
        size |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok((size, data));
        }
    }
    if present { Err(SequenceError::Short) } else { Ok((data.len(), data)) }
}

/// AV1 §5.5.1 up to max_frame_height_minus_1.
fn av1_size(bits: &mut impl BitRead) -> Result<(u32, u32), BitReaderError> {
    bits.skip(4, "seq_profile, still_picture")?;
    if bits.read_bit("reduced_still_picture_header")? {
        bits.skip(5, "seq_level_idx")?;
    } else {
        let mut delay_bits = None;
        if bits.read_bit("timing_info_present_flag")? {
            bits.skip(64, "num_units_in_display_tick, time_scale")?;
            if bits.read_bit("equal_picture_interval")? {
                bits.read_ue("num_ticks_per_picture_minus_1")?;
            }
            if bits.read_bit("decoder_model_info_present_flag")? {
                delay_bits = Some(bits.read::<5, u32>("buffer_delay_length_minus_1")? + 1);
                bits.skip(32 + 5 + 5, "decoder_model_info")?;
            }
        }
        let display_delay = bits.read_bit("initial_display_delay_present_flag")?;
        let points: u32 = bits.read::<5, _>("operating_points_cnt_minus_1")?;
        for _ in 0..=points {
            bits.skip(12, "operating_point_idc")?;
            if bits.read::<5, u32>("seq_level_idx")? > 7 {
                bits.skip(1, "seq_tier")?;
            }
            if let Some(delay_bits) = delay_bits
                && bits.read_bit("decoder_model_present_for_this_op")?
            {
                bits.skip(2 * delay_bits + 1, "operating_parameters_info")?;
            }
            if display_delay && bits.read_bit("initial_display_delay_present_for_this_op")? {
                bits.skip(4, "initial_display_delay_minus_1")?;
            }
        }
    }
    let width_bits = bits.read::<4, u32>("frame_width_bits_minus_1")? + 1;
    let height_bits = bits.read::<4, u32>("frame_height_bits_minus_1")? + 1;
    let width: u32 = bits.read_var(width_bits, "max_frame_width_minus_1")?;
    let height: u32 = bits.read_var(height_bits, "max_frame_height_minus_1")?;
    Ok((width + 1, height + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            hex.chars().filter_map(|c| c.to_digit(16)).filter_map(|digit| u8::try_from(digit).ok()).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// x264's SPS of 640x360, High, level 3.0, as a record and as a byte stream.
    #[test]
    fn avc_in_both_forms() {
        let sps = bytes("6764001eacd940a02ff970110000030001000003003c0f162d96");
        let pps = bytes("68ef8fcb");
        let size = |nal: &[u8]| u16::try_from(nal.len()).unwrap().to_be_bytes();
        let record = [&bytes("01 64001e ffe1")[..], &size(&sps), &sps, &[1], &size(&pps), &pps].concat();
        let stream = [&[0, 0, 0, 1][..], &sps, &[0, 0, 0, 1], &pps].concat();
        for data in [&record, &stream] {
            for annexb_first in [true, false] {
                for head in [&bytes("17 00 000000")[..], b"\x90avc1"] {
                    let picture = read_sequence_header(&[head, &data[..]].concat(), annexb_first).unwrap().unwrap();
                    assert_eq!(picture.to_string().split(' ').next(), Some("640x360"));
                    assert_eq!((picture.profile.as_str(), picture.level.as_str()), ("High", "3.0"));
                }
            }
        }
        let cut = [&bytes("17 00 000000")[..], &record[..12]].concat();
        assert_eq!(read_sequence_header(&cut, true), Err(SequenceError::Short));
        let mut spoilt = record;
        spoilt[12..].fill(0);
        let spoilt = [&bytes("17 00 000000")[..], &spoilt].concat();
        assert!(matches!(read_sequence_header(&spoilt, true), Err(SequenceError::BrokenSps(_))));
    }

    /// 48x458624: a size that no picture has.
    #[test]
    fn a_picture_has_a_size() {
        let record = bytes("17 00 000000 01 64001a ffe1 000c 6764001a 04046766 000dff01");
        let broken = Err(SequenceError::BrokenSps("no picture size".to_owned()));
        assert_eq!(read_sequence_header(&record, false), broken);
    }

    #[test]
    fn other_tags_are_none() {
        for body in [
            &b""[..],
            b"\x17",
            b"\x17\x01\0\0\0\x09",
            b"\x27\x01\0\0\0",
            b"\x90vp09\x01",
            b"\x91hvc1\0\0\0",
            b"\x12\0\0\0\0",
            b"\x90av01",
            // A command frame is no header, whatever stands in it.
            b"\xD0av01\x81\x05\x0C\0",
        ] {
            assert_eq!(read_sequence_header(body, true), Ok(None), "{body:?}");
        }
    }

    proptest::proptest! {
        /// Nothing panics.
        #[test]
        fn any_bytes(head in 0..6_usize, data in proptest::collection::vec(proptest::num::u8::ANY, 0..80), annexb: bool) {
            let heads: [&[u8]; 6] = [b"\x17\0\0\0\0", b"\x1C\0\0\0\0", b"\x1D\0\0\0\0", b"\x90avc1", b"\x90hvc1", b"\x90av01\x81"];
            drop(read_sequence_header(&[heads[head], &data].concat(), annexb));
            drop(read_avc_sps(&data));
            drop(read_hevc_sps(&[&[0x42, 1], &data[..]].concat()));
            drop(av1_size(&mut BitReader::new(&data[..])));
        }
    }
}
