//! The ways that shared images go to the kernel: each brings every player the same bytes, whenever it reads.

use crate::{
    peer::{AVC_HEADER, Peer},
    server::Server,
};
use corecast::proto::rtmp::{handshake::Scheme, message::Control};
use std::time::Duration;

const FRAMES: u32 = 300;
const EVERY_MS: u32 = 10;

/// A frame of about 20 kB, of which every byte follows from its time.
fn frame(time: u32) -> Vec<u8> {
    let [a, b, c, d] = time.to_be_bytes();
    let head = [if time == 0 { 0x17 } else { 0x27 }, 1, 0, 0, 0, a, b, c, d];
    let pattern = (0..19_000 + time % 1777).map(|at| (at ^ (at >> 8) ^ time ^ (time >> 8)) as u8);
    head.into_iter().chain(pattern).collect()
}

/// Plays over a small window, so that what is not read stays on the server's side.
fn player(server: &Server) -> Peer {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(32 << 10).expect("a small window");
    socket.connect(&server.address().into()).expect("connect");
    let mut peer = Peer::over(socket.into(), Scheme::Simple);
    peer.connect_app("live", "rtmp://127.0.0.1/live");
    peer.expect_result(1.0);
    peer.create_stream();
    peer.command(1, "play", 0.0, &[corecast::proto::amf::Value::Null, corecast::proto::amf::Value::string("s")]);
    peer.expect_status("NetStream.Play.Start");
    peer
}

fn gets_every_frame(player: &mut Peer) {
    let mut next = 0;
    while next < FRAMES * EVERY_MS {
        let (kind, time, body) = player.expect_media();
        if kind == 9 && body[1] == 1 {
            assert_eq!(time, next, "a frame is missing");
            assert!(body == frame(time), "the frame at {time} is another one");
            next += EVERY_MS;
        }
    }
}

/// Half of the players read as it comes; the others not before its end, with everything full in between.
fn plays_whole(server: &Server, meanwhile: impl Fn(u32)) {
    let mut publisher = Peer::publish(server.address(), "live", "s");
    publisher.control(Control::SetChunkSize(60_000));
    publisher.writer.set_chunk_size(60_000);
    publisher.send(6, 9, 1, 0, AVC_HEADER);
    publisher.settle();
    let mut players: Vec<Peer> = (0..24).map(|_| player(server)).collect();
    let late = players.split_off(12);
    let readers = players.into_iter().map(|mut player| std::thread::spawn(move || gets_every_frame(&mut player)));
    let readers: Vec<_> = readers.collect();
    for number in 0..FRAMES {
        publisher.send(6, 9, 1, number * EVERY_MS, &frame(number * EVERY_MS));
        std::thread::sleep(Duration::from_millis(u64::from(EVERY_MS)));
        meanwhile(number);
    }
    let late = late.into_iter().map(|mut player| std::thread::spawn(move || gets_every_frame(&mut player)));
    readers.into_iter().chain(late).for_each(|reader| reader.join().expect("a player"));
}

fn configuration(path: &str) -> String {
    format!("listen 127.0.0.1:0; max_connections 1000; send_path {path}; vhost __defaultVhost__ {{ }}")
}

#[test]
fn every_send_path_carries_the_same() {
    for path in ["copy", "sendfile"] {
        for shards in [1, 2, 4] {
            plays_whole(&Server::shards(shards, &configuration(path)), |_| {});
        }
    }
}

/// A reload changes the way under players who are in the middle of a send.
#[test]
fn the_send_path_changes_under_load() {
    let server = Server::shards(2, &configuration("sendfile"));
    plays_whole(&server, |number| {
        if number % 30 == 29 {
            let said = server.reload(&configuration(["copy", "sendfile"][number as usize / 30 % 2]));
            assert!(said.contains("reload: done"), "{said}");
        }
    });
}
