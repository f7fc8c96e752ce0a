//! Hostile and broken HTTP clients: the right status or an end, bounded time and memory, and nobody else
//! notices.

use crate::{
    bad_input::{beside_a_healthy_stream, unchanged},
    live::Live,
    peer::connected,
    server::{Server, eventually},
    web::{Answer, Web, get, raw, read_answer, read_head, request},
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

/// Whether the server closes, and how long it takes.
fn closed_after(socket: &mut TcpStream) -> Duration {
    let started = Instant::now();
    let mut rest = [0; 4096];
    while matches!(socket.read(&mut rest), Ok(bytes) if bytes > 0) {}
    started.elapsed()
}

/// Malformed and oversized heads, smuggling shapes, traversal: on a fresh connection, and behind a request that
/// the page has answered.
#[test]
fn malformed_requests_get_their_status_and_the_end() {
    let web = Web::flv();
    let long = "x".repeat(20_000);
    let fields = "a: b\r\n".repeat(70);
    let cases: Vec<(u16, String)> = [
        (400, "nonsense\r\n\r\n"),
        (400, "GET /live/s.flv\r\n\r\n"),
        (400, "GET /live/s.flv HTTP/9.9\r\nHost: h\r\n\r\n"),
        (400, "PRI * HTTP/2.0\r\n\r\nXM\r\n\r\n"),
        (400, "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n"),
        (501, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n"),
        (413, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (413, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n"),
        (400, "GET /../../etc/passwd HTTP/1.1\r\nHost: h\r\n\r\n"),
        (400, "GET /live/%2e%2e/%2e%2e/etc/passwd.flv HTTP/1.1\r\nHost: h\r\n\r\n"),
        (400, "GET /live/%ff%fe.flv HTTP/1.1\r\nHost: h\r\n\r\n"),
        (400, "GET /live/a%00.flv HTTP/1.1\r\nHost: h\r\n\r\n"),
        (404, "GET /page/../../x HTTP/1.0\r\n\r\n"),
        (405, "BREW /live/s.flv HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
        (405, "DELETE / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
    ]
    .into_iter()
    .map(|(status, text)| (if text.contains("/../") { 400 } else { status }, text.to_owned()))
    .chain([
        (431, format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: h\r\nx: {long}\r\n\r\n")),
        (431, format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")),
    ])
    .collect();
    for (status, text) in &cases {
        let answer = raw(web.http(), text.as_bytes(), false);
        assert_eq!(answer.status, *status, "{:?}: {answer:?}", &text[..text.len().min(90)]);
        // The API's port has the same gate.
        let answer = raw(web.api(), text.as_bytes(), false);
        assert!((400..=501).contains(&answer.status), "{:?}: {answer:?}", &text[..text.len().min(90)]);
        let mut socket = connected(web.http());
        socket.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").expect("the page");
        assert_eq!(read_answer(&mut socket, false).map(|answer| answer.status), Some(200));
        drop(socket.write_all(text.as_bytes()));
        let answer = read_answer(&mut socket, false);
        assert_eq!(
            answer.map(|answer| answer.status),
            Some(*status),
            "behind the page: {:?}",
            &text[..text.len().min(90)]
        );
        assert!(
            closed_after(&mut socket) < Duration::from_secs(2),
            "it goes on after {:?}",
            &text[..text.len().min(90)]
        );
    }
    let (code, totals) = web.server.stop();
    assert_eq!((code, totals.value("panics")), (Some(0), 0));
}

/// A head that comes a byte a second is cut after ten; so is a connection that says nothing at all.
#[test]
fn slow_heads_are_cut() {
    let web = Web::flv();
    let slow = |address: SocketAddr| {
        std::thread::spawn(move || {
            let started = Instant::now();
            let mut socket = connected(address);
            for byte in b"GET /live/s.flv HTTP/1.1\r\nHost: a.very.slow.host".iter().cycle() {
                if socket.write_all(&[*byte]).is_err() || started.elapsed() > Duration::from_secs(25) {
                    break;
                }
                sleep(Duration::from_millis(500));
            }
            started.elapsed()
        })
    };
    let silent = |address: SocketAddr| std::thread::spawn(move || closed_after(&mut connected(address)));
    let all: Vec<_> =
        [web.http(), web.api()].into_iter().flat_map(|address| [slow(address), silent(address)]).collect();
    for waited in all {
        let seconds = waited.join().expect("a client").as_secs_f64();
        assert!((8.0..18.0).contains(&seconds), "cut after {seconds} s");
    }
    assert_eq!(get(web.http(), "/").status, 200);
}

/// Players that never read are cut after 30 s, and hold up nobody.
#[test]
fn players_that_never_read_are_cut() {
    let web = Web::start("play { queue_length 2; } http_remux { enabled on; }");
    let _live = Live::start(web.server.address(), "live", "s", 20, 25, 20_000);
    web.live("s");
    let stalled: Vec<TcpStream> = (0..20)
        .map(|_| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
            socket.set_recv_buffer_size(4096).expect("a small buffer");
            socket.connect(&web.http().into()).expect("connect");
            let mut socket = TcpStream::from(socket);
            socket.write_all(b"GET /live/s.flv HTTP/1.1\r\nHost: h\r\n\r\n").expect("a request");
            socket
        })
        .collect();
    let rss_kib = web.server.rss_kib();
    beside_a_healthy_stream(&web.server, || sleep(Duration::from_secs(1)));
    web.server.wait_for_log("does not read: a send took over 30 s", 20);
    let now_kib = web.server.rss_kib();
    assert!(now_kib < rss_kib + (16 << 10), "RSS {rss_kib} KiB before, {now_kib} KiB after");
    drop(stalled);
}

/// A player that reads too slowly is moved to newer keyframes: the API counts it, for it alone.
#[test]
fn skips_of_a_throttled_player_are_counted() {
    let web = Web::start("play { queue_length 1; } http_remux { enabled on; }");
    let _live = Live::start(web.server.address(), "live", "s", 20, 25, 20_000);
    web.live("s");
    let ask = |throttled: bool| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(if throttled { 4096 } else { 1 << 20 }).expect("a buffer");
        socket.connect(&web.http().into()).expect("connect");
        let mut socket = TcpStream::from(socket);
        socket.write_all(b"GET /live/s.flv HTTP/1.1\r\nHost: h\r\n\r\n").expect("a request");
        std::thread::spawn(move || {
            let mut bytes = vec![0; if throttled { 20_000 } else { 1 << 20 }];
            while matches!(socket.read(&mut bytes), Ok(read) if read > 0) {
                if throttled {
                    sleep(Duration::from_millis(100));
                }
            }
        })
    };
    let _players = [ask(true), ask(false)];
    let skips = eventually("a skip", || {
        let clients = web.ask("/api/v1/clients")["clients"].clone();
        let players = clients.as_array()?.iter().filter(|client| client["type"] == "flv-play");
        let mut skips: Vec<u64> = players.filter_map(|client| client["skips"].as_u64()).collect();
        skips.sort_unstable();
        (skips.len() == 2 && skips[1] >= 2).then_some(skips)
    });
    assert_eq!(skips[0], 0, "the other player's");
    let stream = web.live("s");
    assert!(stream["skips"].as_u64() >= Some(2) && stream["frame_age"]["count"].as_u64() > Some(0), "{stream}");
    assert!(
        get(web.exporter(), "/metrics").text().contains("corecast_stream_skips{stream=\"__defaultVhost__/live/s\"}")
    );
}

fn upgrade(address: SocketAddr) -> TcpStream {
    let mut socket = connected(address);
    let key = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    socket.write_all(format!("GET /live/s.flv HTTP/1.1\r\nHost: h\r\n{key}\r\n").as_bytes()).expect("a request");
    let head = read_head(&mut socket).expect("a head");
    assert!(
        head.starts_with("HTTP/1.1 101") && head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "{head}"
    );
    socket
}

/// WebSocket clients that send garbage, floods, unmasked or huge frames are closed; a close is answered; pings
/// are too.
#[test]
fn websocket_garbage_ends_its_connection() {
    let web = Web::flv();
    let _live = Live::start(web.server.address(), "live", "s", 20, 25, 0);
    web.live("s");
    let ends_with = |bytes: &[u8], code: u16| {
        let mut socket = upgrade(web.http());
        socket.write_all(bytes).expect("garbage");
        let mut received = Vec::new();
        drop(socket.read_to_end(&mut received));
        let close = [&[0x88, 2][..], &code.to_be_bytes()].concat();
        assert!(received.ends_with(&close), "{bytes:?}: {:?}", &received[received.len().saturating_sub(20)..]);
    };
    ends_with(b"garbage, and more of it", 1002);
    ends_with(&[0x82, 1, 0], 1002);
    ends_with(&[0xF2, 0x80, 1, 2, 3, 4], 1002);
    ends_with(&[0x82, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4], 1009);
    ends_with(&[0x88, 0x82, 0, 0, 0, 0, 3, 232], 1000);
    let mut socket = upgrade(web.http());
    for _ in 0..2000 {
        socket.write_all(&[0x89, 0x83, 0, 0, 0, 0, b'h', b'e', b'y']).expect("a ping");
        socket.write_all(&[&[0x82, 0xFE, 4, 0, 1, 2, 3, 4][..], &[9; 1024]].concat()).expect("data");
    }
    let mut received = vec![0; 64 << 10];
    let mut seen = Vec::new();
    eventually("a pong", || {
        let read = socket.read(&mut received).expect("more");
        seen.extend_from_slice(&received[..read]);
        seen.windows(5).any(|bytes| bytes == [0x8A, 3, b'h', b'e', b'y']).then_some(())
    });
}

/// A WebSocket client that answers no ping is closed within a minute and a half.
#[test]
fn a_websocket_without_pongs_is_closed() {
    let web = Web::flv();
    let _live = Live::start(web.server.address(), "live", "s", 20, 25, 0);
    web.live("s");
    let mut socket = upgrade(web.http());
    let waited = closed_after(&mut socket).as_secs();
    assert!((50..90).contains(&waited), "closed after {waited} s");
    web.server.wait_for_log("no pong within 60 s", 1);
}

/// Thousands of connections of garbage on both ports, beside a stream that loses nothing.
#[test]
fn thousands_of_garbage_requests() {
    let web = Web::flv();
    let garbage = |address: SocketAddr, seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = vec![0; random.usize(1..3000)];
        random.fill(&mut bytes);
        let begin: &[u8] = match seed % 4 {
            0 => b"GET /live/s.flv HTTP/1.1\r\nHost: h\r\n\r\n",
            1 => b"GET /live/s.flv HTTP/1.1\r\n",
            2 => b"GET /api/v1/streams HTTP/1.1\r\nHost: localhost\r\n\r\n",
            _ => b"",
        };
        let mut socket = connected(address);
        drop(socket.write_all(&[begin, &bytes].concat()));
        if seed.is_multiple_of(3) {
            socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
            drop(socket.read(&mut [0; 64]));
        }
    };
    let one = |seed: u64| garbage(if seed.is_multiple_of(2) { web.http() } else { web.api() }, seed);
    (0..500).for_each(one);
    eventually("the first ones closed", || (web.server.descriptors() < 150).then_some(()));
    let (descriptors, rss_kib) = (web.server.descriptors(), web.server.rss_kib());
    beside_a_healthy_stream(&web.server, || (500..5000).for_each(one));
    unchanged(&web.server, descriptors, rss_kib, 8 << 10);
    let (code, totals) = web.server.stop();
    assert_eq!((code, totals.value("panics")), (Some(0), 0));
}

/// More connections than the page and the API have: those over it are closed, those within are served, and
/// players are not among them.
#[test]
fn the_page_and_the_api_have_a_limit_of_their_own() {
    let server = Server::start(
        &crate::web::config("", "", "http_remux { enabled on; }").replace("max_connections 6000", "max_connections 3"),
    );
    let web = Web { server };
    let _live = Live::start(web.server.address(), "live", "s", 20, 25, 0);
    // A server that is full still answers its operator.
    let full: Vec<TcpStream> = (0..5).map(|_| connected(web.server.address())).collect();
    eventually("refusals", || (web.metric("corecast_connections").iter().sum::<u64>() == 3).then_some(()));
    drop(full);
    let resting: Vec<TcpStream> = (0..300).map(|_| connected(web.api())).collect();
    web.server.wait_for_log("too many connections for this", 1);
    assert_eq!(get(web.http(), "/").status, 200, "the page has its own");
    assert_eq!(get(web.exporter(), "/metrics").status, 200, "and the exporter");
    drop(resting);
    let Answer { status, .. } =
        eventually("an answer", || std::panic::catch_unwind(|| request(web.api(), "GET", "/api/v1/versions", "")).ok());
    assert_eq!(status, 200);
}
