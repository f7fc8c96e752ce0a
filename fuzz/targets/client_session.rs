//! A client's session with an unknown server: the same events and words at every split, no more memory than has
//! come.
#![no_main]

use corecast::proto::{
    amf::Value,
    rtmp::{
        RtmpError,
        chunk_reader::{ChunkReader, Limits},
        client::{ClientSession, Event, Role},
        command::Command,
        handshake::Scheme,
        message::{Control, Message, type_id},
    },
};
use corecast_fuzz::{
    allocated, assert_same, assert_taken, choice, chunks_bound,
    conversation::{self, HANDSHAKE_BYTES, SEED},
    pieces, seeds, splits,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds(sessions), |data: &[u8]| {
    let (variant, wire) = choice(data);
    let runs = splits(wire, u64::from(variant)).map(|pieces| {
        let (mut events, mut output) = (Vec::new(), Vec::new());
        let error = run(&pieces, variant, |event| events.push(event), |bytes| output.extend(bytes));
        (events, words(&output), error)
    });
    assert_same(&runs);
    check_memory(wire, variant);
});

/// Feeds a session, from behind the handshake on.
fn run(
    pieces: &[&[u8]],
    variant: u8,
    mut found: impl FnMut(Event),
    mut send: impl FnMut(Vec<u8>),
) -> Option<RtmpError> {
    let role = if variant & 1 == 0 { Role::Play } else { Role::Publish };
    let mut session = ClientSession::start(conversation::url(), role, Scheme::Simple, SEED);
    let (_, handshake) = conversation::simple();
    send(session.take_output());
    assert_eq!(session.next_event(&mut &handshake[..]), Ok(None));
    for piece in pieces {
        let mut input = *piece;
        loop {
            let before = input;
            let event = session.next_event(&mut input);
            assert_taken(before, input);
            match event {
                Ok(Some(event)) => {
                    if event == Event::Publishing {
                        conversation::tags().iter().for_each(|tag| session.send_tag(tag));
                    }
                    found(event);
                }
                Ok(None) => break,
                Err(error) => {
                    send(session.take_output());
                    return Some(error);
                }
            }
        }
        assert!(input.is_empty(), "bytes are left though the server said nothing");
        send(session.take_output());
    }
    session.call("pause", &[Value::Null, Value::Boolean(true)]);
    session.close();
    send(session.take_output());
    None
}

/// The messages of an output; acknowledgements, which come as bytes do, are left out, and so are the times and
/// headers that a chunk stream would need them for.
fn words(output: &[u8]) -> Vec<Message> {
    let mut reader = ChunkReader::default();
    reader.set_limits(Limits::MEDIA);
    let mut input = &output[HANDSHAKE_BYTES..];
    let mut messages = Vec::new();
    while let Some(message) = reader.read(&mut input).expect("our own chunks") {
        match Control::read(&message).expect("our own control message") {
            Some(Control::SetChunkSize(bytes)) => reader.set_chunk_size(bytes).expect("our own size"),
            Some(Control::Acknowledgement(_)) => continue,
            None if message.type_id == type_id::COMMAND_AMF0 => drop(Command::read(&message).expect("our own command")),
            _ => {}
        }
        messages.push(message);
    }
    messages
}

/// What a session holds when its words are sent and its events are dealt with.
fn check_memory(wire: &[u8], variant: u8) {
    let pieces = pieces(wire, u64::from(variant));
    let most = chunks_bound(wire.len(), Limits::MEDIA);
    let before = allocated();
    run(&pieces, variant, drop, |output| {
        drop(output);
        let held = allocated() - before;
        assert!(held <= most, "{held} bytes held of {} that came", wire.len());
    });
}

fn sessions() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (variant, role) in [(0, Role::Play), (1, Role::Publish)] {
        let (to_server, to_client) = conversation::session(role);
        seeds.push([&[variant], &to_client[..]].concat());
        // Media, as a player gets them.
        seeds.push([&[variant], &to_client[..], &to_server[..]].concat());
    }
    seeds
}
