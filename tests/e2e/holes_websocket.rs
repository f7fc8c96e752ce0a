//! A WebSocket before its stream is there.

use crate::{
    crowd::{SHARDS, ready},
    peer::{Peer, connected},
    web::{Web, read_head},
};
use corecast::proto::amf::Value;
use std::{
    io::{Read, Write},
    net::TcpStream,
};

const PAYLOAD: &[u8] = b"early";

fn upgrade(path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// A ping as clients send it, masked with zeros.
fn ping() -> Vec<u8> {
    [&[0x89, 0x80 | PAYLOAD.len() as u8, 0, 0, 0, 0], PAYLOAD].concat()
}

/// The first line of what the server says.
fn first_line(head: &str) -> &str {
    head.lines().next().unwrap_or_default()
}

/// The next frame's opcode and payload.
fn next_frame(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    socket.read_exact(&mut head).expect("a frame");
    let mut more = [0; 8];
    let length = match head[1] {
        126 => {
            socket.read_exact(&mut more[6..]).expect("a length");
            u64::from_be_bytes(more)
        }
        127 => {
            socket.read_exact(&mut more).expect("a length");
            u64::from_be_bytes(more)
        }
        length => u64::from(length),
    };
    let mut payload = vec![0; length as usize];
    socket.read_exact(&mut payload).expect("a payload");
    (head[0] & 0x0F, payload)
}

/// Whether the answer to a ping is among the frames before the end.
fn has_pong(socket: &mut TcpStream) -> bool {
    loop {
        match next_frame(socket) {
            (10, payload) => return payload == PAYLOAD,
            (8, _) => return false,
            _ => {}
        }
    }
}

/// A ping before the answer to the upgrade, in the same write or behind it: the answer comes first, and the pong
/// behind it.
#[test]
fn a_ping_before_the_stream_is_answered_behind_the_upgrade() {
    for shards in SHARDS {
        let web = Web::shards(shards, "min_latency on;");
        for (name, at_once) in [("once", true), ("behind", false)] {
            let mut socket = connected(web.http());
            let path = format!("/live/{name}.flv");
            if at_once {
                socket.write_all(&[upgrade(&path), ping()].concat()).expect("send");
            } else {
                socket.write_all(&upgrade(&path)).expect("send");
                web.shards_of_players(name, 1);
                socket.write_all(&ping()).expect("send");
            }
            let mut publisher = Peer::publish(web.server.address(), "live", name);
            publisher.send_gop(1, 0, 25);
            let head = read_head(&mut socket).expect("a head");
            let line = first_line(&head);
            assert_eq!(line, "HTTP/1.1 101 Switching Protocols", "{shards} shards, {name}: {head:?}");
            drop(publisher);
            assert!(has_pong(&mut socket), "{shards} shards, {name}: a pong");
        }
    }
}

/// The same where the stream never comes: 404, and nothing before it.
#[test]
fn a_ping_before_a_404_is_not_answered_before_it() {
    let config = crate::web::config("", "", "http_remux { enabled on; wait_stream 1; }");
    let web = Web { server: crate::server::Server::start(&config) };
    let mut at_once = connected(web.http());
    at_once.write_all(&[upgrade("/live/none.flv"), ping()].concat()).expect("send");
    let mut behind = connected(web.http());
    behind.write_all(&upgrade("/live/nobody.flv")).expect("send");
    web.shards_of_players("nobody", 1);
    behind.write_all(&ping()).expect("send");
    for socket in [&mut at_once, &mut behind] {
        let head = read_head(socket).expect("a head");
        assert_eq!(first_line(&head), "HTTP/1.1 404 Not Found", "{head:?}");
    }
}

/// A stream that is there, but has no picture yet, is not there for a ping either.
#[test]
fn a_ping_before_the_first_picture_is_answered_behind_the_upgrade() {
    let web = Web::shards(2, "min_latency on;");
    let mut publisher = ready(web.server.address());
    publisher.command(1, "publish", 5.0, &[Value::Null, Value::string("s"), Value::string("live")]);
    publisher.expect_status("NetStream.Publish.Start");
    let mut socket = connected(web.http());
    socket.write_all(&[upgrade("/live/s.flv"), ping()].concat()).expect("send");
    web.shards_of_players("s", 1);
    publisher.send_gop(1, 0, 25);
    let head = read_head(&mut socket).expect("a head");
    assert_eq!(first_line(&head), "HTTP/1.1 101 Switching Protocols", "{head:?}");
    drop(publisher);
    assert!(has_pong(&mut socket), "a pong");
}
