//! The sending time inside the stream, so that any server relays it: an SEI "user data unregistered"
//! before a video tag's first NAL unit (H.264 Annex D.1.6, H.265 Annex D.2.6).
//!
//! The time is the wall clock in µs: between two hosts their clocks must agree.

use bytes::{BufMut, Bytes, BytesMut};
use corecast::proto::codec::{self, Class};
use corecast::proto::flv::{Tag, TagKind};
use std::time::{SystemTime, UNIX_EPOCH};

/// Names our SEI.
const UUID: [u8; 16] = *b"corecast-clock-1";
/// FLV's AVC tag header: frame type and codec, packet type, composition time.
const AVC_HEADER_BYTES: usize = 5;
/// NAL length, NAL header, payload type and size, UUID, 16 hex digits, trailing bits. Hex, since bytes
/// of a NAL unit must not look like a start code.
const SEI_BYTES: usize = 4 + 1 + 2 + 16 + 16 + 1;

/// The wall clock in µs.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

/// Whether a file's tags can be stamped: AVC in AVCC form.
pub(crate) fn can_stamp(tags: &[Tag]) -> bool {
    tags.iter().any(is_avc_frame)
}

fn is_avc_frame(tag: &Tag) -> bool {
    let frame = matches!(codec::inspect(tag.kind, &tag.body).class, Class::Keyframe | Class::InterFrame);
    frame && tag.kind == TagKind::Video && tag.body.len() > AVC_HEADER_BYTES && tag.body[0] & 0x8F == 7
}

/// A video tag's body with the present time in it; anything else as it is.
pub(crate) fn stamp(tag: &Tag) -> Bytes {
    if !is_avc_frame(tag) {
        return tag.body.clone();
    }
    let mut body = BytesMut::with_capacity(tag.body.len() + SEI_BYTES);
    body.put_slice(&tag.body[..AVC_HEADER_BYTES]);
    body.put_u32(u32::try_from(SEI_BYTES - 4).unwrap_or(0));
    body.put_slice(&[6, 5, 32]);
    body.put_slice(&UUID);
    body.put_slice(format!("{:016x}", now_us()).as_bytes());
    body.put_u8(0x80);
    body.put_slice(&tag.body[AVC_HEADER_BYTES..]);
    body.freeze()
}

/// The time of a stamped body, and the body's two parts around the stamp; without a stamp the second
/// part begins where the first ends.
pub(crate) fn split(body: &[u8]) -> (Option<u64>, &[u8], &[u8]) {
    let (head, rest) = body.split_at(body.len().min(AVC_HEADER_BYTES));
    let stamp = rest.get(..SEI_BYTES).filter(|sei| sei[4..7] == [6, 5, 32] && sei[7..23] == UUID);
    let time = stamp.and_then(|sei| u64::from_str_radix(std::str::from_utf8(&sei[23..39]).ok()?, 16).ok());
    (time, head, if time.is_some() { &rest[SEI_BYTES..] } else { rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_out_as_it_went_in() {
        let body = Bytes::from_static(&[0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 0x88]);
        let tag = Tag { kind: TagKind::Video, timestamp: 0, body: body.clone() };
        let before = now_us();
        let stamped = stamp(&tag);
        assert_eq!(stamped.len(), body.len() + SEI_BYTES);
        let (time, head, rest) = split(&stamped);
        assert!(time.unwrap() >= before && time.unwrap() <= now_us());
        assert_eq!([head, rest].concat(), body);
        assert_eq!(split(&body), (None, &body[..5], &body[5..]));
        assert_eq!(split(&[]), (None, &[][..], &[][..]));
        let header = Tag { kind: TagKind::Video, timestamp: 0, body: Bytes::from_static(&[0x17, 0, 0, 0, 0, 1]) };
        assert_eq!(stamp(&header), header.body);
    }
}
