//! RTMP as our own two sides speak it: both handshakes, and whole sessions.

use bytes::Bytes;
use corecast::proto::{
    amf::{Value, amf0},
    flv::{Tag, TagKind},
    rtmp::{
        client::{self, ClientSession, Role},
        handshake::{BLOCK_BYTES, ClientHandshake, Scheme, ServerHandshake},
        server::{self, ServerSession, Settings},
        url::RtmpUrl,
    },
};
use std::sync::OnceLock;

/// The seed of both sides' random bytes.
pub const SEED: u64 = 7;
/// Bytes of a handshake in each direction.
pub const HANDSHAKE_BYTES: usize = 1 + 2 * BLOCK_BYTES;

/// The simple handshake of sessions: the client's bytes and the server's.
pub fn simple() -> &'static (Vec<u8>, Vec<u8>) {
    static SIMPLE: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    SIMPLE.get_or_init(|| handshake(Scheme::Simple))
}

/// A handshake: the client's bytes and the server's, seeded with [`SEED`].
pub fn handshake(scheme: Scheme) -> (Vec<u8>, Vec<u8>) {
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    let mut client = ClientHandshake::start(scheme, SEED, &mut to_server);
    let mut server = ServerHandshake::new(SEED);
    server.receive(&mut &to_server[..], &mut to_client).expect("C0 and C1");
    client.receive(&mut &to_client[..], &mut to_server).expect("S0 to S2");
    (to_server, to_client)
}

/// Where sessions of a target go.
pub fn url() -> RtmpUrl {
    RtmpUrl::parse("rtmp://localhost/live/stream?token=1").expect("a URL")
}

/// A stream of one metadata tag, both sequence headers and a few frames.
pub fn tags() -> Vec<Tag> {
    let metadata = Value::EcmaArray(vec![
        ("width".into(), Value::Number(640.0)),
        ("height".into(), Value::Number(360.0)),
        ("videocodecid".into(), Value::Number(7.0)),
        ("encoder".into(), Value::string("corecast")),
    ]);
    let avc =
        b"\x17\0\0\0\0\x01\x64\0\x1e\xff\xe1\0\x1a\x67\x64\0\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x11\0\0\x03\0\x01\0\0\
        \x03\0\x3c\x0f\x16\x2d\x96\x01\0\x04\x68\xef\x8f\xcb";
    let tag = |kind, timestamp, body: &[u8]| Tag { kind, timestamp, body: Bytes::copy_from_slice(body) };
    vec![
        tag(TagKind::Script, 0, &amf0::encode_all(&[Value::string("onMetaData"), metadata])),
        tag(TagKind::Video, 0, avc),
        tag(TagKind::Audio, 0, &[0xAF, 0, 0x12, 0x10]),
        tag(TagKind::Video, 0, &[&b"\x17\x01\0\0\0"[..], &[0x65; 300]].concat()),
        tag(TagKind::Audio, 23, &[&b"\xAF\x01"[..], &[0x21; 40]].concat()),
        tag(TagKind::Video, 40, b"\x27\x01\0\0\0\x41\x42\x43"),
        tag(TagKind::Video, 0x0100_0000, b"\x27\x01\0\0\0\x41\x42\x43"),
    ]
}

/// A whole session of our own client with our own server: the client's bytes and the server's, without handshake.
pub fn session(role: Role) -> (Vec<u8>, Vec<u8>) {
    let mut client = ClientSession::start(url(), role, Scheme::Simple, SEED);
    let mut server = ServerSession::new(Settings { chunk_size: 128, ..Settings::default() }, SEED);
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    for round in 0..20 {
        let sent = client.take_output();
        to_server.extend_from_slice(&sent);
        let mut input = &sent[..];
        while let Some(event) = server.next_event(&mut input).expect("our own client") {
            accept(&mut server, &event);
        }
        let sent = server.take_output();
        to_client.extend_from_slice(&sent);
        let mut input = &sent[..];
        while let Some(event) = client.next_event(&mut input).expect("our own server") {
            match event {
                client::Event::Publishing => tags().iter().for_each(|tag| client.send_tag(tag)),
                client::Event::Playing => client.call("pause", &[Value::Null, Value::Boolean(true)]),
                client::Event::Status { .. }
                | client::Event::Redirect(_)
                | client::Event::StreamEof
                | client::Event::Tag(_) => {}
            }
        }
        if round == 15 {
            client.close();
        }
    }
    (to_server.split_off(HANDSHAKE_BYTES), to_client.split_off(HANDSHAKE_BYTES))
}

/// Says yes to an event.
pub fn accept(server: &mut ServerSession, event: &server::Event) {
    match event {
        server::Event::Connect => server.accept_connect(),
        server::Event::Publish { msid, .. } => server.accept_publish(*msid),
        server::Event::Play { msid, .. } => server.accept_play(*msid),
        server::Event::Pause { msid, paused } => server.notify_pause(*msid, *paused),
        server::Event::Handshake(_)
        | server::Event::Close { .. }
        | server::Event::Receive { .. }
        | server::Event::Media { .. } => {}
    }
}
