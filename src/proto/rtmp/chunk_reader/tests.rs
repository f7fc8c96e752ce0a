use super::*;
use crate::proto::rtmp::chunk_writer::{ChunkWriter, header0, header3};

/// Reads all of `wire` in pieces of `step` bytes.
fn read_all(reader: &mut ChunkReader, wire: &[u8], step: usize) -> Result<Vec<Message>, ChunkError> {
    let mut messages = Vec::new();
    for piece in wire.chunks(step.max(1)) {
        let mut input = piece;
        while let Some(message) = reader.read(&mut input)? {
            messages.push(message);
        }
        assert!(input.is_empty());
    }
    Ok(messages)
}

fn read_whole(wire: &[u8]) -> Result<Vec<Message>, ChunkError> {
    read_all(&mut ChunkReader::default(), wire, usize::MAX)
}

/// B4: every id survives a round trip, and every proper prefix asks for more bytes.
#[test]
fn b4_basic_header_round_trips_at_every_split() {
    for csid in (2..400).chain([65_598, 65_599]) {
        let header = header0(csid, 1, 0, 8, 0);
        let len = header.len() - 11;
        let (read, bytes) = BasicHeader::read(&header).unwrap();
        assert_eq!((read, bytes), (BasicHeader { fmt: 0, csid }, len));
        assert!((0..len).all(|cut| BasicHeader::read(&header[..cut]).is_none()));
    }
}

/// B4: message headers of 11, 7, 3 and 0 bytes, and interleaved chunk streams, at every split.
#[test]
fn b4_interleaved_chunk_streams_reassemble_at_every_split() {
    let mut wire = Vec::new();
    wire.extend_from_slice(&header0(6, 1000, 200, 9, 1));
    wire.extend_from_slice(&[b'v'; 128]);
    wire.extend_from_slice(&header0(70, 990, 3, 8, 1));
    wire.extend_from_slice(b"aaa");
    wire.push(0xC6); // type 3, csid 6: the rest of the video
    wire.extend_from_slice(&[b'w'; 72]);
    wire.extend_from_slice(&[0x46, 0, 0, 40, 0, 0, 2, 9, b'x', b'x']); // type 1: 1040
    wire.extend_from_slice(&[0x86, 0, 0, 33, b'y', b'y']); // type 2: 1073
    wire.extend_from_slice(&[0xC6, b'z', b'z']); // type 3 begins a message: 1106
    for step in 1..=wire.len() {
        let messages = read_all(&mut ChunkReader::default(), &wire, step).unwrap();
        let seen: Vec<_> = messages.iter().map(|m| (m.csid, m.type_id, m.timestamp, m.payload.len())).collect();
        assert_eq!(seen, [(70, 8, 990, 3), (6, 9, 1000, 200), (6, 9, 1040, 2), (6, 9, 1073, 2), (6, 9, 1106, 2)]);
        assert_eq!(messages[1].payload[127..129], *b"vw");
    }
}

/// B5: librtmp opens chunk streams with type 1; what no peer may do is an error with its reason.
#[test]
fn b5_what_may_open_and_what_may_stand_inside_a_message() {
    let messages = read_whole(&[0x44, 0, 0, 5, 0, 0, 1, 8, b'a']).unwrap();
    assert_eq!((messages[0].timestamp, &messages[0].payload[..]), (5, &b"a"[..]));
    for fmt in [2, 3] {
        assert_eq!(read_whole(&[fmt << 6 | 4, 0, 0, 0]), Err(ChunkError::MissingHeader { csid: 4, fmt }));
    }
    let mut open = header0(4, 0, 300, 9, 1).to_vec();
    open.extend_from_slice(&[0; 128]);
    let with = |tail: &[u8]| read_whole(&[&open[..], tail].concat());
    assert_eq!(with(&header0(4, 0, 300, 9, 1)), Err(ChunkError::HeaderInsideMessage { csid: 4 }));
    let changed = [0x44, 0, 0, 0, 0, 1, 0x2D, 9];
    assert_eq!(with(&changed), Err(ChunkError::LengthChanged { csid: 4, from: 300, to: 301 }));
}

/// B6: extended timestamps, repeated or not in type 3 chunks, at every split; extended deltas;
/// the 32-bit wrap.
#[test]
fn b6_extended_timestamps_in_both_forms() {
    for repeated in [true, false] {
        let mut wire = header0(6, 0x0100_0000, 300, 9, 1).to_vec();
        for (at, len) in [(0, 128), (1, 128), (2, 44)] {
            if at > 0 {
                wire.push(0xC6);
                if repeated {
                    wire.extend_from_slice(&[1, 0, 0, 0]);
                }
            }
            wire.extend_from_slice(&vec![b'0' + at; len]);
        }
        // An extended delta wraps 32 bits: 0x0100_0000 + 0xFF00_0001 = 1.
        wire.extend_from_slice(&[0x46, 0xFF, 0xFF, 0xFF, 0, 0, 2, 9, 0xFF, 0, 0, 1, b'e', b'f']);
        wire.extend_from_slice(&header0(6, 3, 1, 9, 1));
        wire.push(b'g');
        for step in 1..wire.len() {
            let messages = read_all(&mut ChunkReader::default(), &wire, step).unwrap();
            let seen: Vec<_> = messages.iter().map(|m| (m.timestamp, m.payload.len())).collect();
            assert_eq!(seen, [(0x0100_0000, 300), (1, 2), (3, 1)], "repeated {repeated}, step {step}");
            assert_eq!(messages[0].payload.iter().filter(|byte| **byte == b'1').count(), 128);
        }
    }
}

/// B6: a last chunk shorter than four bytes, without the repeat, followed at once by another.
#[test]
fn b6_short_last_chunk_without_the_repeat() {
    let mut wire = header0(6, 0x0100_0000, 130, 9, 1).to_vec();
    wire.extend_from_slice(&[7; 128]);
    wire.extend_from_slice(&[0xC6, 8, 9]);
    wire.extend_from_slice(&header0(4, 5, 1, 8, 1));
    wire.push(b'a');
    for step in 1..wire.len() {
        let messages = read_all(&mut ChunkReader::default(), &wire, step).unwrap();
        let seen: Vec<_> = messages.iter().map(|m| (m.csid, m.timestamp, m.payload.len())).collect();
        assert_eq!(seen, [(6, 0x0100_0000, 130), (4, 5, 1)], "step {step}");
    }
}

/// B6: a whole message among the bytes that were read to look ahead is there at once, not with the next byte.
#[test]
fn b6_a_message_inside_the_lookahead_does_not_wait() {
    let mut wire = [&header0(4, 5, 1, 8, 1)[..], b"a", &header0(6, 0x0100_0000, 1, 9, 1), b"v"].concat();
    // Type 3 begins a message of one byte without the repeat; another message and the start of a third follow.
    wire.extend_from_slice(&[0xC6, b'w', 0xC4, b'b', 0xC4]);
    for step in 1..=wire.len() {
        let messages = read_all(&mut ChunkReader::default(), &wire, step).unwrap();
        let seen: Vec<_> = messages.iter().map(|m| (m.csid, m.payload[0])).collect();
        assert_eq!(seen, [(4, b'a'), (6, b'v'), (6, b'w'), (4, b'b')], "step {step}");
    }
}

/// B7: 128 at first, then what the peer says; 0 and the highest bit are errors; claims are free.
#[test]
fn b7_chunk_size_and_lengths_are_bounded() {
    let mut reader = ChunkReader::default();
    assert_eq!(reader.set_chunk_size(0), Err(ChunkError::ChunkSize(0)));
    assert_eq!(reader.set_chunk_size(0x8000_0000), Err(ChunkError::ChunkSize(0x8000_0000)));
    for size in [1, 2, 127, 4096, 0x7FFF_FFFF] {
        let mut reader = ChunkReader::default();
        let mut writer = ChunkWriter::default();
        writer.set_chunk_size(size.min(CHUNK_SIZE_MAX));
        reader.set_chunk_size(size).unwrap();
        let mut wire = Vec::new();
        writer.write(&mut wire, 6, 9, 1, 40, &[5; 10_000]);
        assert_eq!(read_all(&mut reader, &wire, 997).unwrap()[0].payload.len(), 10_000);
    }
    let mut reader = ChunkReader::default();
    reader.set_limits(Limits::MEDIA);
    let mut claim = header0(6, 0, 0xFF_FFFF, 9, 1).to_vec();
    claim.extend_from_slice(&[0; 10]);
    assert_eq!(reader.read(&mut &claim[..]), Ok(None));
    assert!(reader.streams[0].payload.capacity() <= Limits::MEDIA.reserve_bytes);
    let too_large = ChunkError::MessageTooLarge { csid: 6, bytes: 0xFF_FFFF, bytes_max: 128 << 10 };
    assert_eq!(read_whole(&claim), Err(too_large));
}

/// What a peer may hold is bounded in bytes, by as many chunk streams as it likes.
#[test]
fn unfinished_messages_and_chunk_streams_are_limited() {
    let one = |csid| [&header0(csid, 0, 1, 8, 1)[..], b"a"].concat();
    let mut reader = ChunkReader::default();
    let most = u32::try_from(Limits::COMMANDS.held_bytes_max / CHUNK_STREAM_BYTES).unwrap() - 1;
    let wire: Vec<u8> = (2..2 + most).flat_map(one).collect();
    assert_eq!(read_all(&mut reader, &wire, 1000).unwrap().len(), most as usize);
    let over = (2 + most..).find_map(|csid| reader.read(&mut &one(csid)[..]).err());
    assert!(matches!(over, Some(ChunkError::TooManyBytesHeld { .. })));
    // A byte of each of many long messages takes little.
    let mut reader = ChunkReader::default();
    reader.set_chunk_size(1).unwrap();
    let open = |csid: u32| [&header0(csid, 0, 120_000, 8, 1)[..], b"a"].concat();
    let opened = (2..2000).take_while(|csid| reader.read(&mut &open(*csid)[..]) == Ok(None)).count();
    assert!((200..400).contains(&opened) && reader.held_bytes() <= Limits::COMMANDS.held_bytes_max + 4096);
    // A publisher's too.
    let mut reader = ChunkReader::default();
    reader.set_limits(Limits::MEDIA);
    reader.set_chunk_size(1).unwrap();
    (2..2502).for_each(|csid| assert_eq!(reader.read(&mut &open(csid)[..]), Ok(None)));
    assert!(reader.held_bytes() < 2 << 20, "{}", reader.held_bytes());
    let mut reader = ChunkReader::default();
    reader.set_chunk_size(90_000).unwrap();
    let open = |csid| [&header0(csid, 0, 100_000, 8, 1)[..], &vec![0; 90_000]].concat();
    assert_eq!(reader.read(&mut &open(3)[..]), Ok(None));
    assert!(matches!(reader.read(&mut &open(4)[..]), Ok(None) | Err(ChunkError::TooManyBytesHeld { .. })));
    let mut reader = ChunkReader::default();
    reader.set_chunk_size(90_000).unwrap();
    assert_eq!(reader.read(&mut &open(3)[..]), Ok(None));
    reader.abort(3);
    assert_eq!((reader.held_bytes(), reader.read(&mut &open(3)[..])), (CHUNK_STREAM_BYTES, Ok(None)));
}

/// Every one of the 65,598 chunk streams can be used by a publisher, and each keeps its own state.
#[test]
fn all_chunk_streams_are_found_again() {
    let mut reader = ChunkReader::default();
    reader.set_limits(Limits::MEDIA);
    let csids = || (2..400).chain([1000, 65_598, 65_599]);
    for (round, fmt) in [(0, 0), (1, 3)] {
        for csid in csids() {
            let header = if fmt == 0 { header0(csid, csid, 2, 8, 1).to_vec() } else { header3(csid, csid).to_vec() };
            let body = [u8::try_from(csid % 251).unwrap(), round];
            let message = reader.read(&mut &[&header[..], &body].concat()[..]).unwrap().unwrap();
            let timestamp = csid * u32::from(round + 1);
            assert_eq!((message.csid, message.timestamp, &message.payload[..]), (csid, timestamp, &body[..]));
        }
    }
}

proptest::proptest! {
    /// No input panics, at any split, whatever the chunk size.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600), step in 1..40_usize, size in 1..200_u32) {
        let mut reader = ChunkReader::default();
        reader.set_chunk_size(size).unwrap();
        drop(read_all(&mut reader, &bytes, step));
    }

    /// What the writer writes, the reader reads, with compressed headers too.
    #[test]
    fn round_trip(
        messages in proptest::collection::vec((2..300_u32, 8..10_u8, 0..3_u32, proptest::num::u32::ANY, 0..500_usize), 1..20),
        step in 1..60_usize, size in 1..300_u32,
    ) {
        let mut writer = ChunkWriter::default();
        writer.set_chunk_size(size);
        let mut reader = ChunkReader::default();
        reader.set_chunk_size(size).unwrap();
        let mut wire = Vec::new();
        for (csid, type_id, msid, timestamp, len) in &messages {
            writer.write(&mut wire, *csid, *type_id, *msid, *timestamp, &vec![*type_id; *len]);
        }
        let read = read_all(&mut reader, &wire, step).unwrap();
        let seen: Vec<_> = read.iter().map(|m| (m.csid, m.type_id, m.message_stream_id, m.timestamp, m.payload.len())).collect();
        proptest::prop_assert_eq!(seen, messages);
    }
}
