//! A stream as bytes have it: whatever is fuzzed reads the same tags.

use bytes::Bytes;
use corecast::proto::flv::{Tag, TagKind};

/// Tags out of bytes: kind, a step of time (`u32::MAX` is one back), a length, and a body each.
pub fn tags(mut data: &[u8]) -> Vec<Tag> {
    let mut tags = Vec::new();
    while let Some((&[kind, step, high, low], rest)) = data.split_first_chunk() {
        let (body, rest) = rest.split_at(usize::from(u16::from_be_bytes([high & 3, low])).min(rest.len()));
        let timestamp = if step == 0xFF { u32::MAX } else { u32::from(step) << (kind >> 4) };
        let kind = TagKind::ALL[usize::from(kind % 3)];
        tags.push(Tag { kind, timestamp, body: Bytes::copy_from_slice(body) });
        data = rest;
    }
    tags
}
