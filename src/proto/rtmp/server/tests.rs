use super::*;
use crate::proto::rtmp::{
    chunk_reader::ChunkReader,
    handshake::{ClientHandshake, Scheme},
};

/// A client's bytes: handshake, then what `script` writes.
fn client_bytes(script: impl FnOnce(&mut ChunkWriter, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    let mut handshake = ClientHandshake::start(Scheme::Simple, 1, &mut out);
    let mut server = ServerHandshake::new(2);
    let mut answer = Vec::new();
    server.receive(&mut &out[..], &mut answer).unwrap();
    handshake.receive(&mut &answer[..], &mut out).unwrap().unwrap();
    script(&mut ChunkWriter::default(), &mut out);
    out
}

fn command(writer: &mut ChunkWriter, out: &mut Vec<u8>, msid: u32, name: &str, tid: f64, arguments: &[Value]) {
    writer.write(out, 3, type_id::COMMAND_AMF0, msid, 0, &Command::encode(name, tid, arguments));
}

fn connect(writer: &mut ChunkWriter, out: &mut Vec<u8>) {
    let object = Value::object([("app", Value::string("live")), ("tcUrl", Value::string("rtmp://h/live"))]);
    command(writer, out, 0, "connect", 1.0, &[object]);
}

/// Feeds `bytes` in pieces of `step`, answers every event; returns the events and all output.
fn run(bytes: &[u8], step: usize) -> (Vec<Event>, Vec<u8>) {
    let mut session = ServerSession::new(Settings::default(), 2);
    let (mut events, mut output) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(step) {
        let mut input = piece;
        while let Some(event) = session.next_event(&mut input).unwrap() {
            match &event {
                Event::Connect => session.accept_connect(),
                Event::Publish { msid, .. } => session.accept_publish(*msid),
                Event::Play { msid, .. } => session.accept_play(*msid),
                Event::Pause { msid, paused } => session.notify_pause(*msid, *paused),
                Event::Handshake(_) | Event::Close { .. } | Event::Receive { .. } | Event::Media { .. } => {}
            }
            events.push(event);
        }
        output.extend(session.take_output());
    }
    (events, output)
}

/// B4, C2: a whole session gives the same events and the same answers, however its bytes are cut.
#[test]
fn a_session_is_the_same_at_every_split() {
    let bytes = client_bytes(|writer, out| {
        connect(writer, out);
        let name = || Value::string("s?token=1");
        command(writer, out, 0, "releaseStream", 2.0, &[Value::Null, name()]);
        command(writer, out, 0, "FCPublish", 3.0, &[Value::Null, name()]);
        command(writer, out, 0, "createStream", 4.0, &[Value::Null]);
        command(writer, out, 1, "publish", 5.0, &[Value::Null, name(), Value::string("live")]);
        let metadata = amf0::encode_all(&[Value::string("@setDataFrame"), Value::string("onMetaData"), Value::Null]);
        writer.write(out, 5, type_id::DATA_AMF0, 1, 0, &metadata);
        writer.write(out, 6, type_id::VIDEO, 1, 40, &[0x17; 700]);
        writer.write(out, 4, type_id::AUDIO, 1, 43, &[0xAF; 10]);
        command(writer, out, 0, "FCUnpublish", 6.0, &[Value::Null, name()]);
        command(writer, out, 0, "deleteStream", 7.0, &[Value::Null, Value::Number(1.0)]);
    });
    let whole = run(&bytes, usize::MAX);
    let kinds: Vec<&str> = whole
        .0
        .iter()
        .map(|event| match event {
            Event::Handshake(_) => "handshake",
            Event::Connect => "connect",
            Event::Publish { stream, .. } => stream,
            Event::Media { kind: TagKind::Script, .. } => "script",
            Event::Media { kind: TagKind::Video, .. } => "video",
            Event::Media { kind: TagKind::Audio, .. } => "audio",
            Event::Close { .. } => "close",
            Event::Play { .. } | Event::Pause { .. } | Event::Receive { .. } => "?",
        })
        .collect();
    assert_eq!(kinds, ["handshake", "connect", "s?token=1", "script", "video", "audio", "close", "close"]);
    for step in (1..600).chain([1536, 1537, 3000, 3073, 3074]) {
        assert!(run(&bytes, step) == whole, "step {step}");
    }
}

/// C7: a redirect, at connect and after it, as SRS words it.
#[test]
fn c7_redirect() {
    let redirect = Redirect { tc_url: "rtmp://other/live", url: "rtmp://other/live/s" };
    for at_connect in [true, false] {
        let mut session = ServerSession::new(Settings::default(), 2);
        let bytes = client_bytes(connect);
        let mut input = &bytes[..];
        while let Some(event) = session.next_event(&mut input).unwrap() {
            if event == Event::Connect {
                session.take_output();
                if at_connect {
                    session.reject_connect("go elsewhere", Some(redirect));
                } else {
                    session.redirect(1, redirect);
                }
            }
        }
        let mut reader = ChunkReader::default();
        let output = session.take_output();
        let message = reader.read(&mut &output[..]).unwrap().unwrap();
        let command = Command::read(&message).unwrap();
        assert_eq!(&*command.name, if at_connect { "_error" } else { "onStatus" });
        let info = command.argument(1);
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        assert_eq!(text(info.property("code")).as_deref(), Some("NetConnection.Connect.Rejected"));
        assert_eq!(text(info.property("level")).as_deref(), Some("error"));
        let ex = info.property("ex").unwrap();
        assert_eq!(ex.property("code"), Some(&Value::Number(302.0)));
        assert_eq!(text(ex.property("redirect")).as_deref(), Some("rtmp://other/live"));
        assert_eq!(text(ex.property("redirect2")).as_deref(), Some("rtmp://other/live/s"));
    }
}

/// `in_ack_size`: an encoder that never says WindowAckSize still gets acknowledgements; and
/// `out_ack_size 0` says none.
#[test]
fn b8_acknowledgement_windows() {
    let bytes = client_bytes(|writer, out| {
        connect(writer, out);
        writer.write(out, 6, type_id::VIDEO, 1, 0, &[0x17; 5000]);
    });
    let mut session = ServerSession::new(Settings { in_ack_size: 1000, out_ack_size: 0, ..Settings::default() }, 2);
    let (mut controls, mut reader) = (Vec::new(), ChunkReader::default());
    let mut skip = 3073;
    for piece in bytes.chunks(500) {
        let mut input = piece;
        while let Some(event) = session.next_event(&mut input).unwrap() {
            if event == Event::Connect {
                session.accept_connect();
            }
        }
        let output = session.take_output();
        // S0, S1 and S2 are no chunks.
        let handshake = skip.min(output.len());
        let mut output = &output[handshake..];
        skip -= handshake;
        while let Some(message) = reader.read(&mut output).unwrap() {
            controls.extend(Control::read(&message).unwrap());
            if let Some(Control::SetChunkSize(bytes)) = controls.last() {
                reader.set_chunk_size(*bytes).unwrap();
            }
        }
    }
    let acknowledgements = controls.iter().filter(|control| matches!(control, Control::Acknowledgement(_))).count();
    assert!(acknowledgements >= 4, "{controls:?}");
    assert!(!controls.iter().any(|control| matches!(control, Control::WindowAckSize(_))));
}

proptest::proptest! {
    /// No bytes after a handshake panic a session, or make it answer more than it was sent.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        let mut session = ServerSession::new(Settings::default(), 2);
        let start = client_bytes(connect);
        for piece in [&start[..], &bytes] {
            let mut input = piece;
            while let Ok(Some(event)) = session.next_event(&mut input) {
                if event == Event::Connect {
                    session.accept_connect();
                }
            }
        }
        proptest::prop_assert!(session.output_len() < 16 << 10);
    }
}
