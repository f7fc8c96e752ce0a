//! Chunks → messages: the same at every split, no more memory than has come, and the writer's chunks read back.
#![no_main]

use corecast::proto::rtmp::{
    chunk_reader::{ChunkError, ChunkReader, Limits},
    chunk_writer::{ChunkWriter, header0, header1, header3},
    client::Role,
    message::{Aggregate, Control, Message, type_id},
};
use corecast_fuzz::{
    allocated, assert_same, assert_taken, bound, choice, chunks_bound, conversation, pieces, seeds, splits,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds(chunk_streams), |data: &[u8]| {
    let (variant, wire) = choice(data);
    let runs = splits(wire, u64::from(variant)).map(|pieces| {
        let mut messages = Vec::new();
        let (_, error) = read(&pieces, variant, |_, message| messages.push(message));
        (messages, error)
    });
    assert_same(&runs);
    let [(messages, _), ..] = runs;
    assert!(messages.iter().map(|message| message.payload.len()).sum::<usize>() <= wire.len(), "more than has come");
    messages.iter().for_each(check_contents);
    check_round_trip(&messages, variant);
    check_memory(wire, variant);
});

fn limits(variant: u8) -> Limits {
    if variant & 1 == 0 { Limits::COMMANDS } else { Limits::MEDIA }
}

/// Reads pieces and obeys what they say of chunks; gives each message to `found`.
fn read(
    pieces: &[&[u8]],
    variant: u8,
    mut found: impl FnMut(&ChunkReader, Message),
) -> (ChunkReader, Option<ChunkError>) {
    let mut reader = ChunkReader::default();
    reader.set_limits(limits(variant));
    for piece in pieces {
        let mut input = *piece;
        loop {
            let before = input;
            let message = match reader.read(&mut input) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => return (reader, Some(error)),
            };
            assert_taken(before, input);
            match Control::read(&message) {
                Ok(Some(Control::Abort(csid))) => reader.abort(csid),
                Ok(Some(Control::SetChunkSize(bytes))) => {
                    if let Err(error) = reader.set_chunk_size(bytes) {
                        return (reader, Some(error));
                    }
                }
                _ => {}
            }
            found(&reader, message);
        }
        assert!(input.is_empty(), "bytes are left though no message is whole");
    }
    (reader, None)
}

/// A control message says the same when it is encoded again; an aggregate holds no more than it has.
fn check_contents(message: &Message) {
    if let Ok(Some(control)) = Control::read(message) {
        let (type_id, body) = control.encode();
        assert_eq!(Control::read(&Message { type_id, payload: body.into(), ..message.clone() }), Ok(Some(control)));
    }
    if message.type_id == type_id::AGGREGATE {
        let (mut aggregate, mut bytes) = (Aggregate::new(message.clone()), 0);
        while let Ok(Some(inner)) = aggregate.next_message() {
            bytes += 11 + inner.payload.len();
        }
        assert!(bytes <= message.payload.len());
    }
}

/// What both kinds of writer write is what was read.
fn check_round_trip(messages: &[Message], variant: u8) {
    for mut writer in [ChunkWriter::default(), ChunkWriter::plain()] {
        let chunk_size = 1 + u32::from(variant) * 3;
        let mut wire = Vec::new();
        writer.set_chunk_size(chunk_size);
        for Message { csid, timestamp, type_id, message_stream_id, payload } in messages {
            writer.write(&mut wire, *csid, *type_id, *message_stream_id, *timestamp, payload);
        }
        let mut reader = ChunkReader::default();
        reader.set_limits(Limits::MEDIA);
        reader.set_chunk_size(chunk_size).expect("a size");
        let mut input = &wire[..];
        for message in messages {
            assert_eq!(reader.read(&mut input).as_ref(), Ok(&Some(message.clone())));
        }
        assert_eq!((reader.read(&mut input), input.len()), (Ok(None), 0));
    }
}

/// What a reader holds after each piece and each message: what it says, which is within its limits.
fn check_memory(wire: &[u8], variant: u8) {
    let pieces = pieces(wire, u64::from(variant));
    let limits = limits(variant);
    let before = allocated();
    let check = |reader: &ChunkReader| {
        let (held, said) = (allocated() - before, reader.held_bytes());
        assert!(said <= limits.held_bytes_max, "{said} bytes held");
        assert!(held <= bound(said), "{held} bytes held, and {said} are said to be");
        assert!(held <= chunks_bound(wire.len(), limits), "{held} bytes held of {} that came", wire.len());
    };
    let (reader, error) = read(&pieces, variant, |reader, message| {
        drop(message);
        check(reader);
    });
    if error.is_none() {
        check(&reader);
    }
}

fn chunk_streams() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for role in [Role::Publish, Role::Play] {
        let (to_server, to_client) = conversation::session(role);
        seeds.extend([to_server, to_client].map(|wire| [&[1], &wire[..]].concat()));
    }
    // Every header, extended times with and without the repeat, and aggregates.
    let mut writer = ChunkWriter::default();
    let mut wire = vec![0];
    for (csid, timestamp, bytes) in
        [(6, 0, 10), (6, 40, 9), (6, 80, 9), (70, 7, 300), (6, 0x0200_0000, 300), (400, 1, 0)]
    {
        writer.write(&mut wire, csid, type_id::VIDEO, 1, timestamp, &vec![9; bytes]);
    }
    seeds.push(wire);
    let unrepeated =
        [&[0][..], &header0(6, 0x0100_0000, 130, 9, 1), &[7; 128], &[0xC6, 8, 9], &header0(4, 5, 1, 8, 1), b"a"];
    seeds.push(unrepeated.concat());
    let interleaved =
        [&header0(3, 0, 200, 9, 1)[..], &[1; 128], &header0(4, 0, 200, 8, 1), &[2; 128], &header3(3, 0), &[1; 72]];
    seeds.push([&[2], &interleaved.concat()[..], &header1(3, 40, 1, 9), b"x"].concat());
    let tag = [&[8, 0, 0, 5, 0, 0, 10, 0, 0, 0, 0][..], b"audio", &[0, 0, 0, 16]].concat();
    let mut wire = vec![3];
    ChunkWriter::plain().write(&mut wire, 6, type_id::AGGREGATE, 1, 1000, &tag.repeat(2));
    for control in
        [Control::SetChunkSize(4096), Control::Abort(6), Control::SetBufferLength(1, 3000), Control::PingRequest(9)]
    {
        let (type_id, body) = control.encode();
        ChunkWriter::plain().write(&mut wire, 2, type_id, 0, 0, &body);
    }
    seeds.push(wire);
    seeds
}
