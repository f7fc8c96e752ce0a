//! MPEG-TS out of whatever is published: whole packets, right counters for whoever begins anywhere, and no more memory
//! than the media's.
#![no_main]

use bytes::Bytes;
use corecast::{
    media::{Entry, Replica, Settings, Snapshot},
    package::ts::BOTH as TS,
    proto::{
        codec,
        flv::{Tag, TagKind},
        ts::{PACKET_BYTES, put_preamble},
    },
};
use corecast_fuzz::{conversation, seeds, stream::tags};
use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;

/// A setup of each codec, so that few bytes lead on.
const SETUPS: [&[u8]; 3] = [
    b"\x17\0\0\0\0\x01\x64\0\x1E\xFF\xE1\0\x03\x67\x01\x02\x01\0\x02\x68\x03",
    b"\x90hvc1\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x03\x01\x21\0\x01\0\x03\x42\x01\x02",
    b"\x90av01\x81\x05\x0C\0",
];

fuzz_target!(init: seeds(streams), |data: &[u8]| {
    let mut replica = Replica::new(Settings::DEFAULT, 0, 0);
    replica.attach(&TS);
    replica.begin(Snapshot::default());
    // Somebody stands at the log's beginning, so that it is kept.
    replica.schedule.add(1, 0);
    let (mut time_ms, mut notes) = (0_i64, Vec::new());
    for mut tag in tags(data) {
        if let Some(setup) = tag.body.strip_prefix(b"SETUP").and_then(|rest| SETUPS.get(usize::from(*rest.first()?))) {
            tag = Tag { kind: TagKind::Video, timestamp: tag.timestamp, body: Bytes::from_static(setup) };
        }
        if tag.timestamp == u32::MAX {
            replica.end(false);
            replica.begin(Snapshot::default());
        }
        time_ms += i64::from(tag.timestamp.cast_signed());
        let info = codec::inspect(tag.kind, &tag.body);
        assert!(info.payload(&tag.body).len() <= tag.body.len());
        replica.push(Entry { tag, info, time_ms, delta_ms: 0, arrived_ms: 0 });
    }
    let rendition = replica.rendition(&TS).expect("it is read");
    let (first, head) = (replica.log().first(), replica.log().head());
    let mut whole = Vec::new();
    for (index, entry) in (first..head).zip(replica.log().range(first..head)) {
        let piece = rendition.at(index).expect("a piece per entry");
        assert!(piece.bytes.len() < 4 * PACKET_BYTES * (8 + entry.tag.body.len()), "{}", piece.bytes.len());
        notes.push((whole.len(), piece.note));
        whole.extend_from_slice(&piece.bytes);
    }
    check(&whole);
    for from in [0, notes.len() / 2, notes.len().saturating_sub(1)] {
        let Some((at, note)) = notes.get(from) else { continue };
        let mut joined = Vec::new();
        put_preamble(*note, false, &mut joined);
        joined.extend_from_slice(&whole[*at..]);
        check(&joined);
        // Who has had all and skips back there.
        let mut skipped = whole.clone();
        put_preamble(*note, true, &mut skipped);
        skipped.extend_from_slice(&whole[*at..]);
        check(&skipped);
    }
});

/// ISO 13818-1 §2.4.3.3: payloads count, and only a discontinuity may jump.
fn check(stream: &[u8]) {
    let mut last: HashMap<u16, u8> = HashMap::new();
    assert_eq!(stream.len() % PACKET_BYTES, 0);
    for packet in stream.chunks(PACKET_BYTES) {
        assert_eq!(packet[0], 0x47);
        let pid = u16::from_be_bytes([packet[1] & 0x1F, packet[2]]);
        let (control, counter) = (packet[3] >> 4 & 3, packet[3] & 0x0F);
        let jumps = control & 2 != 0 && packet[4] > 0 && packet[5] & 0x80 != 0;
        assert!(control & 2 == 0 || usize::from(packet[4]) <= PACKET_BYTES - 5);
        let expected = last.get(&pid).map(|last| (last + (control & 1)) & 0x0F);
        assert!(jumps || expected.is_none_or(|expected| expected == counter), "{pid:x}: {expected:?} {counter}");
        last.insert(pid, counter);
    }
}

fn streams() -> Vec<Vec<u8>> {
    let write = |tags: &[Tag]| {
        let mut out = Vec::new();
        for Tag { kind, body, .. } in tags {
            let body = &body[..body.len().min(0x3FF)];
            let [high, low] = u16::try_from(body.len()).expect("10 bits").to_be_bytes();
            out.extend_from_slice(&[u8::try_from(kind.index()).expect("0 to 2"), 40, high, low]);
            out.extend_from_slice(body);
        }
        out
    };
    let tag = |kind, body: &[u8]| Tag { kind, timestamp: 0, body: Bytes::copy_from_slice(body) };
    let frames = |setup: u8, head: &[u8]| {
        [
            tag(TagKind::Video, &[&b"SETUP"[..], &[setup]].concat()),
            tag(TagKind::Audio, b"\xAF\0\x12\x10"),
            tag(TagKind::Video, &[head, &[0, 0, 0, 3, 0x65, 1, 2]].concat()),
            tag(TagKind::Audio, b"\xAF\x01sound"),
            tag(TagKind::Video, &[head, &[0, 0, 0, 1, 0x65, 1, 2]].concat()),
            tag(TagKind::Audio, b"\x2Fsound"),
        ]
    };
    let streams = [frames(0, b"\x17\x01\0\0\x28"), frames(1, b"\x91hvc1\0\0\x28"), frames(2, b"\x91av01")];
    streams.iter().map(|tags| write(tags)).chain([write(&conversation::tags())]).collect()
}
