//! forward: destinations that refuse, hang, lie or lead back cost the stream nothing.

use crate::{
    forward::{forwards, free_port, section, wait_for_state},
    live::Live,
    peer::Peer,
    server::{Server, eventually},
    web::{self, Web},
};
use corecast::proto::rtmp::server::{Event, ServerSession, Settings};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

/// Listens, and does the same with everybody who comes.
fn destination(serve: impl Fn(TcpStream) + Send + Sync + Copy + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn hang() {
    std::thread::sleep(Duration::from_secs(100));
}

/// Answers as a server until somebody publishes, takes or refuses that, and reads no more.
fn answer(mut stream: TcpStream, take: bool) {
    let mut session = ServerSession::new(Settings::default(), 1);
    let mut buffer = [0; 4096];
    loop {
        let Ok(read @ 1..) = stream.read(&mut buffer) else { return };
        let mut input = &buffer[..read];
        while let Ok(Some(event)) = session.next_event(&mut input) {
            if event == Event::Connect {
                session.accept_connect();
            } else if let Event::Publish { msid, .. } = event {
                if take {
                    session.accept_publish(msid);
                } else {
                    session.reject_publish(msid, "not you");
                }
                drop(stream.write_all(&session.take_output()));
                return hang();
            }
        }
        drop(stream.write_all(&session.take_output()));
    }
}

/// Each is told in the API, and a player here gets every frame meanwhile; so does a destination that is good.
#[test]
fn bad_destinations_cost_the_stream_nothing() {
    let there = Server::plain();
    let closes = destination(drop);
    let hangs = destination(|stream| {
        hang();
        drop(stream);
    });
    let garbage = destination(|mut stream| while stream.write_all(&[0x55; 4096]).is_ok() {});
    let refuses = destination(|stream| answer(stream, false));
    let stalls = destination(|stream| answer(stream, true));
    let shut = free_port();
    let good = there.address();
    let all = format!(
        "destination 127.0.0.1:{shut} {closes} {hangs} {garbage} {refuses} {stalls} no.such.host.invalid {good};"
    );
    let here = Web::start(&section(&all));
    let growth = here.server.growth();
    let _live = Live::start(here.server.address(), "live", "x", 10, 50, 20_000);
    let mut player = Peer::play(here.server.address(), "live", "x");
    let mut far = Peer::play(good, "live", "x");
    let times = player.expect_frames(1200);
    assert!(times.windows(2).all(|pair| pair[1].0 == pair[0].0 + 10), "{times:?}");
    let times = far.expect_frames(1000);
    assert!(times.windows(2).all(|pair| pair[1].0 == pair[0].0 + 10), "{times:?}");
    let found = forwards(&here, "x");
    let said = |to: &str, error: &str| {
        let to = format!("rtmp://{to}/live");
        let forward = found.iter().find(|forward| forward["to"] == to).unwrap_or_else(|| panic!("no {to}: {found:?}"));
        let text = forward["error"].as_str().unwrap_or_default();
        assert!(text.contains(error) && (forward["retries"].as_u64() > Some(0)), "{to}: {forward}");
    };
    said(&format!("127.0.0.1:{shut}"), "refused");
    said(&closes.to_string(), "");
    said(&hangs.to_string(), "no publish within 10000 ms");
    said(&garbage.to_string(), "handshake");
    said(&refuses.to_string(), "NetStream.Publish.BadName: not you");
    said("no.such.host.invalid:1935", "");
    let state = |address: SocketAddr| {
        let to = format!("rtmp://{address}/live");
        found.iter().find(|forward| forward["to"] == to).map(|forward| forward["state"].clone())
    };
    assert_eq!([state(stalls), state(good)], [Some("publishing".into()), Some("publishing".into())]);
    // 24 MB have been published; the log holds what the one that stalls may lag.
    growth.is_below(100, "a stream with bad destinations");
}

/// Two servers push on to each other, and a newcomer takes a name over: the stream does not go round.
#[test]
fn forwards_do_not_go_round() {
    let (one, other) = (free_port(), free_port());
    let config = |port, to| {
        let vhost = format!("publish {{ takeover replace; }} {}", section(&format!("destination 127.0.0.1:{to};")));
        web::config("", "", &vhost).replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1)
    };
    let here = Web { server: Server::start(&config(one, other)) };
    let there = Web { server: Server::start(&config(other, one)) };
    let _live = Live::start(here.server.address(), "live", "x", 40, 25, 100);
    let waiting = wait_for_state(&there, "x", "waiting");
    assert!(waiting["error"].as_str().is_some_and(|error| error.contains("go round")), "{waiting}");
    let mut player = Peer::play(there.server.address(), "live", "x");
    let times = player.expect_frames(100);
    assert!(times.windows(2).all(|pair| pair[1].0 == pair[0].0 + 40), "{times:?}");
    assert!(!here.server.log().contains("takes over"), "{}", here.server.log());
    assert_eq!(forwards(&here, "x")[0]["retries"], 0);
}

/// A server that pushes on to itself is told so, and its stream lives.
#[test]
fn a_forward_to_itself_is_refused() {
    let port = free_port();
    let vhost = section(&format!("destination 127.0.0.1:{port};"));
    let config = web::config("", "", &vhost).replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1);
    let here = Web { server: Server::start(&config) };
    let live = Live::start(here.server.address(), "live", "x", 40, 25, 100);
    let waiting = wait_for_state(&here, "x", "waiting");
    assert!(waiting["error"].as_str().is_some_and(|error| error.contains("go round")), "{waiting}");
    Peer::play(here.server.address(), "live", "x").expect_frames(50);
    drop(live);
    eventually("no connections", || {
        web::get(here.exporter(), "/metrics").text().contains("srs_clients 0").then_some(())
    });
}
