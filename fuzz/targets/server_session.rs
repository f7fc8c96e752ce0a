//! A server's session with an unknown peer: the same events and answers at every split, answers that our own
//! reader reads, no more memory than has come.
#![no_main]

use corecast::proto::{
    amf::{Value, amf0},
    rtmp::{
        RtmpError,
        chunk_reader::{ChunkReader, Limits},
        chunk_writer::ChunkWriter,
        client::Role,
        command::Command,
        message::{Control, Message, type_id},
        server::{Event, Redirect, ServerSession, Settings},
    },
};
use corecast_fuzz::{
    allocated, assert_same, assert_taken, choice, chunks_bound,
    conversation::{self, HANDSHAKE_BYTES, SEED},
    pieces, seeds, splits,
};
use libfuzzer_sys::fuzz_target;

/// The longest answer (to `play`) as a multiple of the shortest message that asks for it.
const ANSWER_FACTOR: usize = 128;

fuzz_target!(init: seeds(sessions), |data: &[u8]| {
    let (variant, wire) = choice(data);
    let runs = splits(wire, u64::from(variant)).map(|pieces| {
        let mut events = Vec::new();
        let mut output = Vec::new();
        let error = run(&pieces, variant, |_, event| events.push(event), |bytes| output.extend(bytes));
        assert!(output.len() <= 4096 + ANSWER_FACTOR * wire.len(), "{} bytes of answers", output.len());
        (events, answers(&output), error)
    });
    assert_same(&runs);
    check_memory(wire, variant);
});

/// Feeds a session, from behind the handshake on, and answers as `variant` says.
fn run(
    pieces: &[&[u8]],
    variant: u8,
    mut found: impl FnMut(&ServerSession, Event),
    mut send: impl FnMut(Vec<u8>),
) -> Option<RtmpError> {
    let in_ack_size = if variant & 1 == 0 { 0 } else { 100 };
    let mut session = ServerSession::new(Settings { in_ack_size, ..Settings::default() }, SEED);
    let (handshake, _) = conversation::simple();
    assert!(matches!(session.next_event(&mut &handshake[..]), Ok(Some(Event::Handshake(_)))));
    let mut fed = handshake.len();
    for piece in pieces {
        let mut input = *piece;
        loop {
            let before = input;
            let event = session.next_event(&mut input);
            assert_taken(before, input);
            fed += before.len() - input.len();
            match event {
                Ok(Some(event)) => {
                    answer(&mut session, &event, variant);
                    found(&session, event);
                }
                Ok(None) => break,
                Err(error) => {
                    send(session.take_output());
                    return Some(error);
                }
            }
        }
        assert!(input.is_empty(), "bytes are left though the peer wants nothing");
        assert_eq!(session.position() as usize, fed);
        send(session.take_output());
    }
    None
}

fn answer(session: &mut ServerSession, event: &Event, variant: u8) {
    let redirect = Redirect { tc_url: "rtmp://other/live", url: "rtmp://other/live/s" };
    let refuse = variant & 2 != 0;
    match event {
        Event::Connect => {
            assert!(session.connect().is_some());
            session.set_settings(Settings { chunk_size: 128 << (variant & 7), ..Settings::default() });
            if variant & 4 != 0 {
                session.request_reconnect();
            }
            session.accept_connect();
        }
        Event::Publish { msid, .. } if refuse => session.reject_publish(*msid, "taken"),
        Event::Play { msid, .. } if refuse => session.redirect(*msid, redirect),
        Event::Play { msid, .. } => {
            session.accept_play(*msid);
            if variant & 4 != 0 {
                session.notify_unpublish(*msid);
                session.notify_publish(*msid);
                session.notify_play_end(*msid);
            }
        }
        event => conversation::accept(session, event),
    }
}

/// The messages of an output; acknowledgements, which come as bytes do, are left out.
fn answers(output: &[u8]) -> Vec<Message> {
    let mut reader = ChunkReader::default();
    reader.set_limits(Limits::MEDIA);
    let mut input = &output[HANDSHAKE_BYTES.min(output.len())..];
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

/// What a session holds when its answers are sent and its events are dealt with.
fn check_memory(wire: &[u8], variant: u8) {
    let pieces = pieces(wire, u64::from(variant));
    let most = chunks_bound(wire.len(), if variant & 2 == 0 { Limits::MEDIA } else { Limits::COMMANDS });
    let before = allocated();
    let check = |_: &ServerSession, event| {
        drop(event);
        // Answers of this piece are still there.
        let held = allocated() - before;
        let with_answers = most + HANDSHAKE_BYTES + ANSWER_FACTOR * wire.len();
        assert!(held <= with_answers, "{held} bytes held");
    };
    run(&pieces, variant, check, |output| {
        drop(output);
        let held = allocated() - before;
        assert!(held <= most, "{held} bytes held of {} that came", wire.len());
    });
}

fn sessions() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for role in [Role::Publish, Role::Play] {
        let (wire, _) = conversation::session(role);
        seeds.extend([0, 1, 2, 4].map(|variant| [&[variant], &wire[..]].concat()));
    }
    // What our own client never says, of the types that have AMF3 too.
    for kind in [type_id::COMMAND_AMF0, type_id::COMMAND_AMF3] {
        let (mut writer, mut wire) = (ChunkWriter::default(), vec![kind & 1]);
        let name = || Value::string("stream?token=1");
        let object = Value::object([
            ("app", Value::string("live")),
            ("tcUrl", Value::string("rtmp://localhost/live")),
            ("objectEncoding", Value::Number(3.0)),
            ("capsEx", Value::Number(15.0)),
        ]);
        let commands: [(u32, &str, f64, Vec<Value>); 15] = [
            (0, "connect", 1.0, vec![object]),
            (0, "releaseStream", 2.0, vec![Value::Null, name()]),
            (0, "FCPublish", 3.0, vec![Value::Null, name()]),
            (0, "createStream", 4.0, vec![Value::Null]),
            (0, "createStream", 5.0, vec![Value::Null]),
            (1, "publish", 6.0, vec![Value::Null, name(), Value::string("live")]),
            (0, "FCSubscribe", 7.0, vec![Value::Null, name()]),
            (0, "getStreamLength", 8.0, vec![Value::Null, name()]),
            (2, "play", 9.0, vec![Value::Null, name(), Value::Number(-2000.0), Value::Number(3.0)]),
            (2, "receiveAudio", 0.0, vec![Value::Null, Value::Boolean(false)]),
            (2, "receiveVideo", 0.0, vec![Value::Null, Value::Boolean(false)]),
            (2, "pause", 0.0, vec![Value::Null, Value::Boolean(true), Value::Number(0.0)]),
            (2, "closeStream", 0.0, vec![Value::Null]),
            (0, "FCUnpublish", 10.0, vec![Value::Null, name()]),
            (0, "deleteStream", 11.0, vec![Value::Null, Value::Number(1.0)]),
        ];
        for (msid, name, tid, arguments) in commands {
            writer.write(&mut wire, 3, kind, msid, 0, &Command::encode(name, tid, &arguments));
        }
        let metadata = amf0::encode_all(&[Value::string("@setDataFrame"), Value::string("onMetaData"), Value::Null]);
        writer.write(&mut wire, 5, kind - 2, 1, 0, &metadata);
        for control in [Control::WindowAckSize(200), Control::PingRequest(7), Control::SetBufferLength(1, 9)] {
            let (type_id, body) = control.encode();
            writer.write(&mut wire, 2, type_id, 0, 0, &body);
        }
        seeds.push(wire);
    }
    seeds
}
