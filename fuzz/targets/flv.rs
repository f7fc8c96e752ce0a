//! FLV files: the same tags at every split, which encode to the bytes that they came from, without a copy.
#![no_main]

use bytes::Bytes;
use corecast::proto::flv::{
    Tag, TagKind,
    file::{FlvError, read_file, read_tag},
};
use corecast_fuzz::{bound, conversation, seeds, within};
use libfuzzer_sys::fuzz_target;

const FILE_HEADER: &[u8] = b"FLV\x01\x05\0\0\0\x09\0\0\0\0";
const TAG_HEADER_BYTES: usize = 11;
const BACK_POINTER_BYTES: usize = 4;

fuzz_target!(init: seeds(files), |data: &[u8]| {
    let file = Bytes::copy_from_slice(data);
    // The tags share the file's bytes.
    let tags = within(bound(8 * data.len()), || read_file(file.clone()));
    let Ok(tags) = tags else {
        assert!(!data.starts_with(b"FLV") || data.len() < 9 || matches!(tags, Err(FlvError::TagType(_))));
        return;
    };
    assert!(tags.iter().map(|tag| TAG_HEADER_BYTES + tag.body.len()).sum::<usize>() <= data.len());
    let written = [FILE_HEADER, &write(&tags)].concat();
    assert_eq!(read_file(written.into()).as_ref(), Ok(&tags));
    check_growing(&write(&tags), &tags);
});

/// A tag is there as soon as its body is, and not before; nothing is taken until then.
fn check_growing(wire: &[u8], tags: &[Tag]) {
    let mut at = 0;
    for tag in tags.iter().take(8) {
        let body_end = at + TAG_HEADER_BYTES + tag.body.len();
        for cut in [at, at + TAG_HEADER_BYTES - 1, body_end - 1] {
            let mut bytes = Bytes::copy_from_slice(&wire[at..cut]);
            assert_eq!((read_tag(&mut bytes), bytes.len()), (Ok(None), cut - at));
        }
        for cut in [body_end, body_end + BACK_POINTER_BYTES, wire.len()] {
            let mut bytes = Bytes::copy_from_slice(&wire[at..cut]);
            assert_eq!(read_tag(&mut bytes).as_ref(), Ok(&Some(tag.clone())));
            assert_eq!(bytes.len(), cut.saturating_sub(body_end + BACK_POINTER_BYTES));
        }
        at = body_end + BACK_POINTER_BYTES;
    }
}

/// Tags with their back pointers (FLV 10.1 §E.4.1).
fn write(tags: &[Tag]) -> Vec<u8> {
    let mut out = Vec::new();
    for Tag { kind, timestamp, body } in tags {
        let [_, l0, l1, l2] = u32::try_from(body.len()).expect("24 bits").to_be_bytes();
        let [t3, t0, t1, t2] = timestamp.to_be_bytes();
        out.extend_from_slice(&[kind.type_id(), l0, l1, l2, t0, t1, t2, t3, 0, 0, 0]);
        out.extend_from_slice(body);
        out.extend_from_slice(&u32::try_from(TAG_HEADER_BYTES + body.len()).expect("24 bits").to_be_bytes());
    }
    out
}

fn files() -> Vec<Vec<u8>> {
    let tags = conversation::tags();
    let file = [FILE_HEADER, &write(&tags)].concat();
    let empty = Tag { kind: TagKind::Audio, timestamp: u32::MAX, body: Bytes::new() };
    vec![file[..file.len() - 9].to_vec(), file, [FILE_HEADER, &write(&[empty])].concat(), FILE_HEADER.to_vec()]
}
