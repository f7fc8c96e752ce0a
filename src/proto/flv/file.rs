//! FLV files and streams: header, tags, back pointers (FLV 10.1 §E.2 to §E.4.1).

use super::{Tag, TagKind};
use bytes::{Buf, Bytes};

const FILE_HEADER_BYTES: usize = 9;
const TAG_HEADER_BYTES: usize = 11;
const BACK_POINTER_BYTES: usize = 4;

/// Why bytes are no FLV.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FlvError {
    /// The file does not begin with `FLV`.
    #[error("not an FLV file")]
    Signature,
    /// A tag of a type that FLV lacks, or encrypted.
    #[error("tag of unknown type {0}")]
    TagType(u8),
}

/// Writes a file's header, and the back pointer behind it.
pub fn put_header(audio: bool, video: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'F', b'L', b'V', 1, u8::from(audio) << 2 | u8::from(video), 0, 0, 0, 9, 0, 0, 0, 0]);
}

/// Writes a tag at a time, and the back pointer behind it.
pub fn put_tag(tag: &Tag, timestamp: u32, out: &mut Vec<u8>) {
    let [_, l0, l1, l2] = u32::try_from(tag.body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let [t3, t0, t1, t2] = timestamp.to_be_bytes();
    out.extend_from_slice(&[tag.kind.type_id(), l0, l1, l2, t0, t1, t2, t3, 0, 0, 0]);
    out.extend_from_slice(&tag.body);
    let size = u32::try_from(TAG_HEADER_BYTES + tag.body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&size.to_be_bytes());
}

/// Reads a whole FLV file; an unfinished last tag is left out.
///
/// # Errors
/// Any [`FlvError`].
pub fn read_file(mut bytes: Bytes) -> Result<Vec<Tag>, FlvError> {
    if !bytes.starts_with(b"FLV") || bytes.len() < FILE_HEADER_BYTES {
        return Err(FlvError::Signature);
    }
    let data_offset = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]) as usize;
    bytes.advance(bytes.len().min(data_offset.saturating_add(BACK_POINTER_BYTES)));
    let mut tags = Vec::new();
    while let Some(tag) = read_tag(&mut bytes)? {
        tags.push(tag);
    }
    Ok(tags)
}

/// Reads a tag and its back pointer from the front of `bytes`; `None`, and nothing taken, until it
/// is whole.
///
/// # Errors
/// [`FlvError::TagType`].
pub fn read_tag(bytes: &mut Bytes) -> Result<Option<Tag>, FlvError> {
    let Some(&[type_id, l0, l1, l2, t0, t1, t2, t3, ..]) = bytes.first_chunk::<TAG_HEADER_BYTES>() else {
        return Ok(None);
    };
    let kind = TagKind::from_type_id(type_id).ok_or(FlvError::TagType(type_id))?;
    let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
    if bytes.len() < TAG_HEADER_BYTES + length {
        return Ok(None);
    }
    bytes.advance(TAG_HEADER_BYTES);
    let body = bytes.split_to(length);
    bytes.advance(bytes.len().min(BACK_POINTER_BYTES));
    Ok(Some(Tag { kind, timestamp: u32::from_be_bytes([t3, t0, t1, t2]), body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut file = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        file.extend_from_slice(&[9, 0, 0, 2, 0, 0, 1, 2, 0, 0, 0, 0x17, 1, 0, 0, 0, 13]);
        file.extend_from_slice(&[8, 0, 0, 1, 0, 0, 5, 0, 0, 0, 0, 0xAF, 0, 0, 0, 12]);
        file
    }

    #[test]
    fn reads_whole_tags_at_every_cut() {
        let file = sample();
        for cut in FILE_HEADER_BYTES..=file.len() {
            let tags = read_file(Bytes::copy_from_slice(&file[..cut])).unwrap();
            let whole = usize::from(cut >= 26) + usize::from(cut >= file.len() - 4);
            assert_eq!(tags.len(), whole, "cut at {cut}");
        }
        let tags = read_file(file.into()).unwrap();
        assert_eq!((tags[0].kind, tags[0].timestamp, &tags[0].body[..]), (TagKind::Video, 0x0200_0001, &[0x17, 1][..]));
    }

    proptest::proptest! {
        /// No input panics.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            drop(read_file(Bytes::from([b"FLV\x01\x05\0\0\0\x09", &bytes[..]].concat())));
        }
    }
}
