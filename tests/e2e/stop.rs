//! SIGQUIT, SIGTERM with force_grace_quit, SIGUSR1, and what systemd is told.

use crate::{
    live::Live,
    peer::{Peer, command, status_code},
    server::{Server, eventually},
};
use corecast::proto::{amf::Value, rtmp::handshake::Scheme};
use std::{
    net::TcpStream,
    os::unix::net::UnixDatagram,
    process::Command,
    time::{Duration, Instant},
};

const QUICK: &str = "listen 127.0.0.1:0; grace_start_wait 300; grace_drain_limit 20; grace_final_wait 200; vhost __defaultVhost__ { min_latency on; }";

fn is_refused(server: &Server) -> Option<()> {
    TcpStream::connect(server.address()).is_err().then_some(())
}

/// A7: SIGQUIT accepts no more, serves players to the end of their stream, and ends when they have gone.
#[test]
fn a7_sigquit_drains() {
    let server = Server::start(QUICK);
    let publisher = Live::start(server.address(), "live", "q", 40, 25, 0);
    let mut players: Vec<Peer> = (0..20).map(|_| Peer::play(server.address(), "live", "q")).collect();
    let idle = Peer::connect(server.address(), "live");
    let mut waits = Peer::play(server.address(), "live", "nobody");
    players.iter_mut().for_each(|player| drop(player.expect_frames(3)));
    server.signal("-QUIT");
    // For grace_start_wait, newcomers are still served.
    drop(Peer::play(server.address(), "live", "q"));
    eventually("no more connections", || is_refused(&server));
    for player in &mut players {
        let frames = player.expect_frames(25);
        assert!(frames.windows(2).all(|pair| pair[1].0 == pair[0].0 + 40), "served on");
    }
    let mut idle = idle;
    idle.until_closed();
    waits.until_closed();
    drop(publisher.silence());
    for player in &mut players {
        player.expect_status("NetStream.Play.UnpublishNotify");
        assert!(player.until_closed().iter().all(|message| message.type_id != 9));
    }
    let (code, totals) = server.wait();
    assert_eq!((code, totals.value("skips")), (Some(0), 0));
}

/// The drain is bounded, and a second signal ends it at once.
#[test]
fn a7_a_drain_has_a_limit() {
    let server = Server::start(&QUICK.replace("grace_drain_limit 20", "grace_drain_limit 2"));
    let publisher = Live::start(server.address(), "live", "q", 40, 25, 0);
    let started = Instant::now();
    server.signal("-QUIT");
    let (code, _) = server.wait();
    let ms = started.elapsed().as_millis();
    assert!(code == Some(0) && (2200..=4000).contains(&ms), "{ms} ms");
    drop(publisher);
    let server = Server::start(QUICK);
    let publisher = Live::start(server.address(), "live", "q", 40, 25, 0);
    server.signal("-QUIT");
    server.wait_for_log("drain: no more connections", 1);
    let started = Instant::now();
    assert_eq!(server.stop().0, Some(0));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    drop(publisher);
}

/// force_grace_quit: SIGTERM drains too.
#[test]
fn force_grace_quit_makes_sigterm_drain() {
    let server = Server::start(&format!("force_grace_quit on; {QUICK}"));
    let mut publisher = Peer::publish(server.address(), "live", "q");
    publisher.send_gop(1, 0, 3);
    server.signal("-TERM");
    eventually("no more connections", || is_refused(&server));
    publisher.send_gop(1, 120, 3);
    drop(publisher);
    assert_eq!(server.wait().0, Some(0));
}

/// G7: a publisher that says it can reconnect is asked to, and its players are told when it has gone; others are
/// not bothered.
#[test]
fn g7_a_drain_asks_publishers_to_reconnect() {
    let server = Server::start(QUICK);
    let connect = |stream: &str, caps: f64| {
        let mut peer = Peer::handshake(server.address(), Scheme::Simple);
        let object = Value::object([
            ("app", Value::string("live")),
            ("tcUrl", Value::string("rtmp://h/live")),
            ("capsEx", Value::Number(caps)),
        ]);
        peer.command(0, "connect", 1.0, &[object]);
        peer.expect_result(1.0);
        let msid = peer.create_stream();
        peer.command(msid, "publish", 5.0, &[Value::Null, Value::string(stream), Value::string("live")]);
        peer.expect_status("NetStream.Publish.Start");
        peer
    };
    let (mut able, mut unable) = (connect("able", 1.0), connect("unable", 2.0));
    server.signal("-QUIT");
    able.expect_status("NetConnection.Connect.ReconnectRequest");
    able.send_gop(1, 0, 2);
    drop(able);
    server.wait_for_log("unpublish stream=__defaultVhost__/live/able", 1);
    server.signal("-QUIT");
    let told = unable.until_closed();
    let codes: Vec<String> =
        told.iter().filter_map(|message| Some(status_code(&command(message)?)?.to_owned())).collect();
    assert!(!codes.iter().any(|code| code.contains("Reconnect")), "{codes:?}");
    assert_eq!(server.wait().0, Some(0));
}

/// SIGUSR1 opens the log file anew, as a rotation wants it; srs_log_level says how much stands there.
#[test]
fn a7_sigusr1_reopens_the_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("srs.log");
    let config = format!(
        "listen 127.0.0.1:0; srs_log_tank file; srs_log_file {}; srs_log_level trace; vhost __defaultVhost__ {{ }}",
        file.display()
    );
    let mut binary = Command::new("env");
    binary.args(["-u", "RUST_LOG", env!("CARGO_BIN_EXE_corecast")]);
    let server = Server::start_with(&config, binary);
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap_or_default();
    drop(Peer::publish(server.address(), "live", "first"));
    eventually("the log", || read("srs.log").contains("live/first").then_some(()));
    assert!(!read("srs.log").contains("DEBUG"));
    std::fs::rename(&file, directory.path().join("srs.log.1")).expect("rename");
    server.signal("-USR1");
    eventually("a new log", || file.exists().then_some(()));
    drop(Peer::publish(server.address(), "live", "second"));
    eventually("lines in it", || read("srs.log").contains("live/second").then_some(()));
    assert!(!read("srs.log.1").contains("live/second"));
}

/// systemd is told when the server is ready, reloads and stops.
#[test]
fn systemd_is_notified() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(crate::server::LIMIT)).expect("a timeout");
    let next = || {
        let mut buffer = [0; 512];
        let bytes = socket.recv(&mut buffer).expect("a notification");
        String::from_utf8_lossy(&buffer[..bytes]).into_owned()
    };
    let server = Server::start_in(QUICK, &[("NOTIFY_SOCKET", path.to_str().expect("a path"))]);
    assert_eq!(next().trim(), "READY=1");
    server.reload(QUICK);
    let reloading = next();
    assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert_eq!(next().trim(), "READY=1");
    assert_eq!(server.stop().0, Some(0));
    assert_eq!(next().trim(), "STOPPING=1");
}
