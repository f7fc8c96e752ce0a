use super::*;
use crate::proto::{
    flv::{Tag, TagKind},
    rtmp::{
        client::{ClientSession, Event, Role},
        handshake::Scheme,
        url::RtmpUrl,
    },
};
use bytes::Bytes;
use std::{
    io::{Read, Write},
    net::TcpStream,
};

const LIMIT: Duration = Duration::from_secs(20);

/// A blocking client.
struct Client {
    socket: TcpStream,
    session: ClientSession,
    waiting: Vec<u8>,
}

impl Client {
    fn start(server: &Server, stream: &str, role: Role) -> Self {
        let address = server.listening()[0].1;
        let url = RtmpUrl::parse(&format!("rtmp://{address}/live/{stream}")).unwrap();
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self { socket, session: ClientSession::start(url, role, Scheme::Simple, 1), waiting: Vec::new() }
    }

    /// The next event; `None` when the server closes.
    fn next(&mut self) -> Option<Event> {
        let mut buffer = [0; 4096];
        loop {
            let mut input = &self.waiting[..];
            let event = self.session.next_event(&mut input).unwrap();
            self.waiting = input.to_vec();
            self.socket.write_all(&self.session.take_output()).ok()?;
            if event.is_some() {
                return event;
            }
            let bytes = self.socket.read(&mut buffer).ok().filter(|bytes| *bytes > 0)?;
            self.waiting.extend_from_slice(&buffer[..bytes]);
        }
    }

    fn wait_for(&mut self, wanted: &Event) {
        while self.next().expect("closed") != *wanted {}
    }

    fn send(&mut self, body: &[u8], timestamp: u32) {
        self.session.send_tag(&Tag { kind: TagKind::Video, timestamp, body: Bytes::copy_from_slice(body) });
        self.socket.write_all(&self.session.take_output()).unwrap();
    }

    /// Twenty frames of 100 kB, numbered from `first`; the first is a keyframe.
    fn send_large_gop(&mut self, first: u8) {
        for number in first..first + 20 {
            let head = [if number == first { 0x17 } else { 0x27 }, 1, 0, 0, 0, number];
            self.send(&[&head[..], &[number; 100_000]].concat(), u32::from(number) * 40);
        }
    }
}

fn server() -> Server {
    start("min_latency on;")
}

fn start(vhost: &str) -> Server {
    let config = Config::parse("test", &format!("listen 127.0.0.1:0; vhost __defaultVhost__ {{ {vhost} }}")).unwrap();
    Server::start(config, &cores::allowed(None).unwrap()).unwrap()
}

fn counter(server: &Server, name: &str) -> u64 {
    let sums = ShardStats::sum(server.stats().iter().map(AsRef::as_ref));
    sums.iter().find(|(known, _)| *known == name).unwrap().1
}

/// A panic in a connection's task costs that connection: publishers and players beside it go on, and
/// nothing of it stays.
#[test]
fn a_panic_costs_its_own_connection_only() {
    let server = server();
    let mut publisher = Client::start(&server, "s", Role::Publish);
    publisher.wait_for(&Event::Publishing);
    let mut player = Client::start(&server, "s", Role::Play);
    player.wait_for(&Event::Playing);
    for _ in 0..20 {
        let mut doomed = Client::start(&server, "panic", Role::Play);
        while doomed.next().is_some() {}
    }
    publisher.send(&[0x17, 0], 0);
    publisher.send(&[0x17, 1], 0);
    for _ in 0..2 {
        while !matches!(player.next().expect("closed"), Event::Tag(Tag { kind: TagKind::Video, .. })) {}
    }
    assert_eq!((counter(&server, "panics"), counter(&server, "closed")), (20, 20));
    server.stop();
    assert_eq!(server.wait(LIMIT), Ok(true));
}

/// Publishers are served at home wherever they were accepted, and tags cross once per other shard.
#[test]
fn publishers_move_home_and_tags_cross_once() {
    let server = server();
    let shards = server.stats().len() as u64;
    let mut publishers: Vec<Client> =
        (0..16).map(|n| Client::start(&server, &format!("s{n}"), Role::Publish)).collect();
    publishers.iter_mut().for_each(|publisher| publisher.wait_for(&Event::Publishing));
    // Enough players of one stream that every shard has some.
    let mut players: Vec<Client> = (0..64).map(|_| Client::start(&server, "s0", Role::Play)).collect();
    players.iter_mut().for_each(|player| player.wait_for(&Event::Playing));
    publishers[0].send(&[0x17, 0], 0);
    (0..50).for_each(|n| publishers[0].send(&[0x17, 1], n * 40));
    for player in &mut players {
        let mut tags = 0;
        while tags < 51 {
            tags += u32::from(matches!(player.next().expect("closed"), Event::Tag(Tag { kind: TagKind::Video, .. })));
        }
    }
    assert_eq!(counter(&server, "tags_relayed"), 51 * (shards - 1), "once per other shard, not per player");
    assert_eq!(counter(&server, "tags_sent"), 51 * 64);
    server.stop();
    assert_eq!(server.wait(LIMIT), Ok(true));
}

/// A joiner that is still at its GOP when the next keyframe comes loses nothing: other groups' flushes
/// do not cut the log behind it.
#[test]
fn a_joiner_keeps_its_gop_while_others_move_on() {
    let server = start("");
    let mut publisher = Client::start(&server, "s", Role::Publish);
    publisher.wait_for(&Event::Publishing);
    let mut others: Vec<Client> = (0..64).map(|_| Client::start(&server, "s", Role::Play)).collect();
    others.iter_mut().for_each(|player| player.wait_for(&Event::Playing));
    let drain = |mut player: Client| std::thread::spawn(move || while player.next().is_some() {});
    let others: Vec<_> = others.into_iter().map(drain).collect();
    for round in 0..5_u8 {
        publisher.send_large_gop(round * 40);
        while counter(&server, "tags_received") < u64::from(round) * 40 + 20 {
            std::thread::yield_now();
        }
        // It reads nothing while the next GOP comes and everybody else gets it.
        let mut slow = Client::start(&server, "s", Role::Play);
        socket2::SockRef::from(&slow.socket).set_recv_buffer_size(16 << 10).unwrap();
        slow.wait_for(&Event::Playing);
        publisher.send_large_gop(round * 40 + 20);
        std::thread::sleep(Duration::from_millis(800));
        let mut numbers = Vec::new();
        while numbers.last() != Some(&(round * 40 + 39)) {
            if let Event::Tag(Tag { kind: TagKind::Video, body, .. }) = slow.next().expect("closed") {
                numbers.push(body[5]);
            }
        }
        // Another shard may know the newest keyframe a tick later.
        assert!(numbers[0] % 20 == 0 && numbers[0] <= round * 40, "{numbers:?}");
        let expected: Vec<u8> = (numbers[0]..round * 40 + 40).collect();
        assert_eq!(numbers, expected, "round {round}");
    }
    assert_eq!(counter(&server, "skips"), 0);
    server.stop();
    others.into_iter().for_each(|player| player.join().unwrap());
}

/// A panic over what a tag contains costs its stream, on whatever shard it is: the others go on.
#[test]
fn a_panic_over_a_tag_costs_its_stream_only() {
    let server = server();
    let mut publisher = Client::start(&server, "s", Role::Publish);
    publisher.wait_for(&Event::Publishing);
    let mut player = Client::start(&server, "s", Role::Play);
    player.wait_for(&Event::Playing);
    for round in 0..5 {
        let mut doomed = Client::start(&server, "d", Role::Publish);
        doomed.wait_for(&Event::Publishing);
        let mut players: Vec<Client> = (0..8).map(|_| Client::start(&server, "d", Role::Play)).collect();
        players.iter_mut().for_each(|player| player.wait_for(&Event::Playing));
        doomed.send(b"\x17\x01\0\0\0a test asks for a panic", round);
        while doomed.next().is_some() {}
    }
    publisher.send(&[0x17, 1], 0);
    while !matches!(player.next().expect("closed"), Event::Tag(Tag { kind: TagKind::Video, .. })) {}
    assert!(counter(&server, "panics") >= 5);
    assert_eq!((counter(&server, "publishers"), counter(&server, "players") >= 1), (1, true));
    server.stop();
    assert_eq!(server.wait(LIMIT), Ok(true));
}

/// The same for HTTP: a panic behind the page, or at a live request, costs its own connection.
#[test]
fn a_panic_of_http_costs_its_own_connection_only() {
    let text = "listen 127.0.0.1:0; http_server { enabled on; listen 127.0.0.1:0; dir ./none; } \
                vhost __defaultVhost__ { http_remux { enabled on; } }";
    let server = Server::start(Config::parse("test", text).unwrap(), &cores::allowed(None).unwrap()).unwrap();
    let ask = |path: &str| {
        let mut socket = TcpStream::connect(server.listening()[1].1).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A connection that is lost may end by a reset.
        drop(socket.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).chars().take(12).collect::<String>()
    };
    for _ in 0..5 {
        assert_eq!((ask("/panic").as_str(), ask("/live/panic.flv").as_str()), ("", ""));
        assert_eq!((ask("/").as_str(), ask("/live/none.flv").as_str()), ("HTTP/1.1 200", "HTTP/1.1 404"));
    }
    server.stop();
    assert_eq!(server.wait(LIMIT), Ok(true));
}
