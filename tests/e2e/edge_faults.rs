//! Edges whose origins fail, or are no good.

use crate::{
    edge::{Encoder, content, fetch, frames, gaps, origin, players, section},
    live::Live,
    peer::Peer,
    server::{Server, eventually},
    web::{self, FlvBody, Web},
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    time::Duration,
};

/// What one origin has is taken from the other when it dies, by whatever it dies.
fn goes_on(shards: usize, protocol: &str, kill: impl FnOnce(&Web), most_ms: u32) {
    let (first, second) = (origin(), origin());
    let servers = match protocol {
        "flv" => [first.http(), second.http()],
        _ => [first.server.address(), second.server.address()],
    };
    let edge = Web::shards(shards, &section(&servers, &format!("protocol {protocol}; origin_timeout 1;")));
    let _encoder = Encoder::start(&[first.server.address(), second.server.address()], "x");
    let mut player = Peer::play(edge.server.address(), "live", "x");
    let mut others: Vec<FlvBody> = (0..4).map(|_| FlvBody::ask_for(edge.http(), "/live/x.flv")).collect();
    let mut seen = frames(&mut player, 30);
    let (had, other) = if players(&first, "x") == 1 { (first, second) } else { (second, first) };
    assert_eq!((players(&had, "x"), players(&other, "x")), (1, 0));
    kill(&had);
    seen.extend(frames(&mut player, 100));
    let gaps = gaps(&seen);
    assert!(gaps.len() <= 1 && gaps.iter().sum::<u32>() <= most_ms, "{gaps:?}");
    assert_eq!(players(&other, "x"), 1);
    for player in &mut others {
        let mut last = 0;
        while last < 4000 {
            let (kind, time, body) = player.next_tag().expect("a tag").expect("a tag");
            if kind == 9 && body.get(1) == Some(&1) {
                assert!(time >= last, "{time} after {last}");
                last = time;
            }
        }
    }
    // One that is stopped is to end.
    drop(std::process::Command::new("kill").args(["-KILL", &had.server.pid().to_string()]).status());
}

/// Killed: the other one is asked at once, and what it has kept fills the gap, or the next keyframe ends it.
#[test]
fn players_stay_when_an_origin_is_killed() {
    for (shards, protocol) in [(1, "rtmp"), (2, "flv"), (4, "rtmp")] {
        goes_on(shards, protocol, |origin| origin.server.signal("-KILL"), 1000);
    }
}

/// Stopped: it is left when it has said nothing for `origin_timeout`.
#[test]
fn players_stay_when_an_origin_is_silent() {
    for (shards, protocol) in [(1, "flv"), (2, "rtmp")] {
        goes_on(shards, protocol, |origin| origin.server.signal("-STOP"), 2500);
    }
}

/// Where times are the encoder's, the other origin's GOP goes on frame by frame: nothing is missing, and no header comes again.
#[test]
fn equal_times_are_spliced_without_a_gap() {
    for (shards, protocol) in [(1, "rtmp"), (4, "flv"), (2, "rtmp")] {
        let vhost = "play { atc on; } http_remux { enabled on; wait_stream 20; }";
        let (first, second) = (Web::start(vhost), Web::start(vhost));
        let servers = match protocol {
            "flv" => [first.http(), second.http()],
            _ => [first.server.address(), second.server.address()],
        };
        let cluster = section(&servers, &format!("protocol {protocol}; origin_timeout 1;"));
        let edge = Web::shards(shards, &format!("play {{ atc on; }} {cluster}"));
        let _encoder = Encoder::start(&[first.server.address(), second.server.address()], "x");
        let mut players: Vec<Peer> = (0..4).map(|_| Peer::play(edge.server.address(), "live", "x")).collect();
        let mut seen: Vec<Vec<(u32, u32)>> = players.iter_mut().map(|player| frames(player, 30)).collect();
        let had = if crate::edge::players(&first, "x") == 1 { &first } else { &second };
        had.server.signal("-KILL");
        for (player, seen) in players.iter_mut().zip(&mut seen) {
            while seen.len() < 120 {
                let (kind, time, body) = player.expect_media();
                assert_eq!(body[1], 1, "a header in the middle");
                if kind == 9 {
                    seen.push((content(&body), time));
                }
            }
            assert!(gaps(seen).is_empty(), "{:?}", gaps(seen));
            assert!(seen.iter().all(|(content, time)| content == time), "{seen:?}");
        }
    }
}

/// It drains, and says so.
#[test]
fn players_stay_when_an_origin_drains() {
    goes_on(2, "rtmp", |origin| origin.server.signal("-QUIT"), 1000);
}

/// The only origin dies and comes back.
#[test]
fn players_wait_for_their_only_origin() {
    let port = crate::forward::free_port();
    let config = format!("listen 127.0.0.1:{port}; vhost __defaultVhost__ {{ }}");
    let edge = Web::shards(2, &section(&[SocketAddr::from(([127, 0, 0, 1], port))], ""));
    let mut player = Peer::play(edge.server.address(), "live", "x");
    for _ in 0..3 {
        let there = Server::start(&config);
        let _live = Live::start(there.address(), "live", "x", 20, 25, 1000);
        player.expect_frames(60);
        there.signal("-KILL");
    }
    assert!(fetch(&edge, "x")["retries"].as_u64() > Some(2));
}

/// What answers every connection with `bytes`, and closes it or not.
fn answers(bytes: &'static [u8], closes: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            std::thread::spawn(move || {
                drop(socket.write_all(bytes));
                while !closes && socket.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
            });
        }
    });
    address
}

const REDIRECT: &[u8] = b"HTTP/1.1 302 Found\r\nLocation: /nowhere\r\n\r\n";
const ENDLESS_HEAD: &[u8] = &[b'x'; 100_000];
const HUGE_CHUNK: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nFLV";

/// Servers that are none: nobody's player suffers, and the good one is found.
#[test]
fn bad_origins_are_passed_over() {
    let good = origin();
    let _live = Live::start(good.server.address(), "live", "x", 40, 25, 500);
    let bad = [
        ("it says nothing", answers(b"", false)),
        ("it closes", answers(b"", true)),
        ("garbage", answers(&[0x55; 8192], false)),
        ("a redirect that is none", answers(REDIRECT, false)),
        ("a head without end", answers(ENDLESS_HEAD, false)),
        ("a chunk without end", answers(HUGE_CHUNK, false)),
        ("another status", answers(b"HTTP/1.1 500 No\r\n\r\n", true)),
    ];
    for protocol in ["rtmp", "flv"] {
        let there = if protocol == "flv" { good.http() } else { good.server.address() };
        for (what, server) in bad {
            let more = format!("protocol {protocol}; origin_timeout 1;");
            let edge = Web::shards(2, &section(&[server, there], &more));
            for _ in 0..2 {
                // Whichever is tried first.
                Peer::play(edge.server.address(), "live", "x").expect_frames(30);
            }
            let alone = Web::start(&section(&[server], &more));
            let _player = Peer::play(alone.server.address(), "live", "x");
            eventually(what, || {
                let fetch = fetch(&alone, "x");
                (fetch["retries"].as_u64() > Some(1) && fetch["error"].is_string()).then_some(())
            });
        }
    }
    drop(good);
}

/// Redirects are followed, but not for ever.
#[test]
fn redirects_are_followed_thrice() {
    let good = origin();
    let _live = Live::start(good.server.address(), "live", "x", 40, 25, 500);
    let to = |url: String| -> SocketAddr {
        let answer = format!("HTTP/1.1 302 Found\r\nLocation: {url}\r\n\r\n");
        answers(Box::leak(answer.into_boxed_str()).as_bytes(), false)
    };
    let mut at = good.http();
    for hops in 1..=4 {
        at = to(format!("http://{at}/live/x.flv"));
        let edge = Web::start(&section(&[at], "protocol flv; origin_timeout 1;"));
        let mut player = Peer::play(edge.server.address(), "live", "x");
        if hops <= 3 {
            player.expect_frames(30);
        } else {
            let is_told = || fetch(&edge, "x")["error"].as_str().filter(|error| error.contains("no use")).map(|_| ());
            eventually("the end of redirects", is_told);
        }
    }
}

/// Edges that fetch from each other find that out, and players get no media and no flood of tries.
#[test]
fn edges_in_a_circle() {
    let port = crate::forward::free_port();
    let first = Web::start(&section(&[SocketAddr::from(([127, 0, 0, 1], port))], "origin_timeout 1;"));
    let more = section(&[first.server.address()], "origin_timeout 1;");
    let second = Server::start(&format!("listen 127.0.0.1:{port}; vhost __defaultVhost__ {{ {more} }}"));
    let _players = [
        Peer::play(first.server.address(), "live", "x"),
        Peer::play(second.address(), "live", "x"),
        Peer::play(first.server.address(), "live", "y"),
    ];
    eventually("the circle", || (first.server.log() + &second.log()).contains("fetch from each other").then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    let tries = (first.server.log() + &second.log()).matches("play refused").count();
    assert!(tries < 40, "{tries} tries");
    // Its own origin is itself.
    let port = crate::forward::free_port();
    let more = section(&[SocketAddr::from(([127, 0, 0, 1], port))], "");
    let alone = Server::start(&format!("listen 127.0.0.1:{port}; vhost __defaultVhost__ {{ {more} }}"));
    let mut publisher = Peer::publish(alone.address(), "live", "x");
    publisher.expect_status("NetStream.Publish.BadName");
}

/// A stream's players at an edge whose origin refuses them.
#[test]
fn a_refusal_of_the_origin_is_told() {
    let refuses = Web::start("http_remux { enabled on; } security { enabled on; deny play all; deny publish all; }");
    let edge = Web::start(&format!("http_remux {{ enabled on; }} {}", section(&[refuses.server.address()], "")));
    assert_eq!(web::get(edge.http(), "/live/x.flv").status, 404);
    let mut publisher = Peer::publish(edge.server.address(), "live", "up");
    publisher.expect_status("NetStream.Publish.BadName");
    assert!(publisher.until_closed().len() < 10);
}
