//! What hostile and broken peers send: that connection is closed, logged with its reason, and nothing
//! else notices.

use crate::{
    media::{avc_aac, have, packets, packets_of_file, play_hashes, publish},
    peer::{Peer, connected},
    server::{Server, eventually},
};
use corecast::proto::{
    amf::Value,
    rtmp::{
        chunk_writer::header0,
        message::{Control, type_id},
    },
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

/// What the server must survive unchanged: a real stream beside it, complete.
pub(crate) fn beside_a_healthy_stream(server: &Server, hostile: impl FnOnce()) {
    if !have("ffmpeg") {
        return hostile();
    }
    let url = server.url("/live/healthy");
    let others = server.log().lines().filter(|line| line.contains("live/healthy")).count();
    let player = play_hashes(Path::new("ffmpeg"), &url);
    server.wait_for_log("live/healthy", others + 1);
    let publisher = publish(Path::new("ffmpeg"), &avc_aac(), &url);
    hostile();
    publisher.success();
    assert_eq!(packets(&player.success()), packets_of_file(Path::new("ffmpeg"), &avc_aac()));
}

/// Ends a connection with RST.
fn reset(socket: TcpStream) {
    let socket = socket2::Socket::from(socket);
    socket.set_linger(Some(Duration::ZERO)).expect("linger");
}

/// Memory and descriptors are where they were, `growth_kib` apart.
pub(crate) fn unchanged(server: &Server, descriptors: usize, rss_kib: u64, growth_kib: u64) {
    eventually("descriptors as before", || (server.descriptors() <= descriptors).then_some(()));
    let now_kib = server.rss_kib();
    assert!(now_kib <= rss_kib + growth_kib, "RSS {rss_kib} KiB before, {now_kib} KiB after");
}

fn garbage(server: SocketAddr, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; random.usize(1..4000)];
    random.fill(&mut bytes);
    // Half of them get past C0, a quarter past the handshake.
    if seed.is_multiple_of(2) {
        bytes[0] = 3;
    }
    let mut socket = connected(server);
    if seed.is_multiple_of(4) {
        let handshake = [&[3][..], &[0; 3072]].concat();
        drop(socket.write_all(&handshake));
    }
    drop(socket.write_all(&bytes));
    if seed.is_multiple_of(3) {
        // What comes at once, if anything does: half a handshake is waited for.
        socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
        drop(socket.read(&mut [0; 64]));
    }
    if seed.is_multiple_of(5) {
        reset(socket);
    }
}

/// 10,000 connections of random garbage.
#[test]
fn ten_thousand_garbage_connections() {
    let server = Server::plain();
    (0..500).for_each(|seed| garbage(server.address(), seed));
    eventually("the first ones closed", || (server.descriptors() < 100).then_some(()));
    let (descriptors, rss_kib) = (server.descriptors(), server.rss_kib());
    beside_a_healthy_stream(&server, || (500..10_500).for_each(|seed| garbage(server.address(), seed)));
    unchanged(&server, descriptors, rss_kib, 8 << 10);
    Peer::connect(server.address(), "live");
    let (code, totals) = server.stop();
    assert_eq!((code, totals.value("panics")), (Some(0), 0));
}

/// 10,000 connects with a RST at whatever point.
#[test]
fn ten_thousand_connect_and_reset_cycles() {
    let server = Server::plain();
    let cycle = |n: usize| match n % 10 {
        0..=6 => reset(connected(server.address())),
        7 => {
            let mut socket = connected(server.address());
            drop(socket.write_all(&[3; 700]));
            reset(socket);
        }
        8 => {
            let mut peer = Peer::connect(server.address(), "live");
            peer.create_stream();
            reset(peer.socket);
        }
        _ => {
            let peer = if n % 20 == 9 {
                Peer::play(server.address(), "live", "r")
            } else {
                Peer::connect(server.address(), "r")
            };
            reset(peer.socket);
        }
    };
    (0..500).for_each(cycle);
    eventually("the first ones closed", || (server.descriptors() < 100).then_some(()));
    let (descriptors, rss_kib) = (server.descriptors(), server.rss_kib());
    beside_a_healthy_stream(&server, || (500..10_500).for_each(cycle));
    unchanged(&server, descriptors, rss_kib, 8 << 10);
    let (code, totals) = server.stop();
    assert_eq!((code, totals.value("panics")), (Some(0), 0));
    assert_eq!(totals.value("accepted"), totals.value("closed") + totals.value("players") + totals.value("publishers"));
}

/// Each fault of the chunk stream and the commands closes its connection, with its reason in the log.
#[test]
fn each_protocol_fault_is_named() {
    let server = Server::plain();
    let deep = [&b"\x02\0\x04play\0\0\0\0\0\0\0\0\0"[..], &[0x03, 0, 1, b'k'].repeat(10_000)].concat();
    let message = |kind: u8, body: &[u8]| {
        let mut wire = Vec::new();
        corecast::proto::rtmp::chunk_writer::ChunkWriter::plain().write(&mut wire, 3, kind, 0, 0, body);
        wire
    };
    let faults: [(Vec<u8>, &str); 9] = [
        (message(type_id::SET_CHUNK_SIZE, &[0, 0, 0, 0]), "chunk size 0 is outside"),
        (message(type_id::SET_CHUNK_SIZE, &[0xFF; 4]), "chunk size 4294967295 is outside"),
        (message(type_id::SET_CHUNK_SIZE, &[1]), "type 1 message of only 1 bytes"),
        (vec![0xC9], "csid 9: type 3 chunk before any type 0"),
        (header0(6, 0, 0xFF_FFFF, 9, 1).to_vec(), "csid 6: message of 16777215 bytes"),
        (message(type_id::COMMAND_AMF0, &deep), "nested deeper than 32"),
        (message(type_id::COMMAND_AMF0, &[5]), "a command without a name"),
        (message(type_id::COMMAND_AMF0, b"\x02\0\x07connect\0\0\0\0\0\0\0\0\0"), "connect on a connected"),
        (message(type_id::AGGREGATE, &[9; 12]), "aggregate message whose parts exceed it"),
    ];
    for (wire, reason) in &faults {
        let mut peer = Peer::connect(server.address(), "live");
        peer.socket.write_all(wire).expect("send");
        peer.until_closed();
        server.wait_for_log(reason, 1);
    }
    let mut early = Peer::handshake(server.address(), corecast::proto::rtmp::handshake::Scheme::Simple);
    early.command(0, "createStream", 2.0, &[Value::Null]);
    early.until_closed();
    server.wait_for_log("a command before connect", 1);
    let mut tls = connected(server.address());
    tls.write_all(&[0x16, 3, 1]).expect("send");
    assert_eq!(tls.read(&mut [0; 16]).unwrap_or(0), 0);
    server.wait_for_log("version 22, only 3", 1);
    assert_eq!(server.log().lines().filter(|line| line.contains("closed:") && line.contains("WARN")).count(), 11);
    Peer::connect(server.address(), "live");
}

/// A player that never reads costs others nothing: their content is complete, memory is bounded.
#[test]
fn head_of_line_stalled_players_cost_others_nothing() {
    let server = Server::start("listen 127.0.0.1:0; vhost __defaultVhost__ { play { queue_length 2; } }");
    // Windows as small as they get: the kernel takes little for them.
    let stalled: Vec<TcpStream> = (0..200)
        .map(|_| {
            let peer = Peer::play(server.address(), "live", "healthy");
            socket2::SockRef::from(&peer.socket).set_recv_buffer_size(4096).expect("a small window");
            peer.socket
        })
        .collect();
    let before_kib = server.rss_kib();
    beside_a_healthy_stream(&server, || {});
    // What 200 stalled players may pin: the log of queue_length and what is in flight.
    let growth_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(growth_kib < 64 << 10, "{growth_kib} KiB");
    drop(stalled);
}

/// Descriptors exhausted: accept pauses and resumes, the running stream goes on.
#[test]
fn accept_pauses_when_descriptors_are_exhausted() {
    let mut command = Command::new("prlimit");
    command.args(["--nofile=4000:4000", env!("CARGO_BIN_EXE_corecast")]);
    let server = Server::start_with("listen 127.0.0.1:0; max_connections 300; vhost __defaultVhost__ { }", command);
    // However many its shards need.
    let nofile = format!("--nofile={}:4000", server.descriptors() + 80);
    let limit = Command::new("prlimit").args(["--pid", &server.pid().to_string(), &nofile]).status();
    assert!(limit.expect("prlimit").success());
    beside_a_healthy_stream(&server, || {
        let many: Vec<TcpStream> = (0..200).map(|_| connected(server.address())).collect();
        server.wait_for_log("accept pauses", 1);
        drop(many);
        eventually("accept again", || {
            let mut socket = TcpStream::connect(server.address()).ok()?;
            socket.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
            let handshake = [&[3][..], &[0; 1536]].concat();
            socket.write_all(&handshake).ok()?;
            (socket.read(&mut [0; 16]).ok()? > 0).then_some(())
        });
    });
}

/// A peer that asks and asks, and never reads the answers, is closed; what it holds is bounded.
#[test]
fn unread_replies_are_bounded() {
    let server = Server::plain();
    let mut wire = Vec::new();
    let (kind, body) = Control::PingRequest(1).encode();
    corecast::proto::rtmp::chunk_writer::ChunkWriter::plain().write(&mut wire, 2, kind, 0, 0, &body);
    let many = wire.repeat(1000);
    let flood = |count: usize| {
        // Small from the start: a window that shrinks may leave both ends waiting for the other, whoever they are.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small window");
        socket.connect(&server.address().into()).expect("connect");
        let mut peer = Peer::over(socket.into(), corecast::proto::rtmp::handshake::Scheme::Simple);
        peer.connect_app("live", "rtmp://127.0.0.1/live");
        peer.expect_result(1.0);
        let sent = (0..2000).take_while(|_| (&peer.socket).write_all(&many).is_ok()).count();
        assert!(sent < 2000, "44 MB of questions were taken");
        server.wait_for_log("does not read its replies", count);
    };
    // The allocator keeps what some of them needed; it must not grow with their number.
    (1..21).for_each(flood);
    let before_kib = server.rss_kib();
    (21..61).for_each(flood);
    let growth_kib = server.rss_kib().saturating_sub(before_kib);
    assert!(growth_kib < 8 << 10, "{growth_kib} KiB");
    Peer::connect(server.address(), "live");
}
