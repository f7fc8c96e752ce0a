//! Servers that find each other's streams by Redis: leases, what comes of two claims, and what a Redis that is lost, hangs,
//! lies or forgets costs.

use crate::{
    edge::{Encoder, frames, gaps, players},
    forward::free_port,
    live::Live,
    media::have,
    peer::Peer,
    server::{Server, eventually},
    web::{self, Web},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// A Redis of the test's own.
pub(crate) struct Redis {
    pub(crate) port: u16,
    process: Option<std::process::Child>,
    directory: tempfile::TempDir,
}

impl Redis {
    pub(crate) fn start() -> Self {
        let mut redis = Self { port: free_port(), process: None, directory: tempfile::tempdir().expect("a directory") };
        redis.run();
        redis
    }

    pub(crate) fn run(&mut self) {
        let mut command = std::process::Command::new("redis-server");
        command.args([
            "--port",
            &self.port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
        ]);
        command.arg(self.directory.path()).stdout(std::process::Stdio::null());
        self.process = Some(command.spawn().expect("redis-server"));
        let port = self.port;
        eventually("Redis", || TcpStream::connect(("127.0.0.1", port)).ok());
    }

    /// Ends it; what it knew is lost.
    pub(crate) fn stop(&mut self) {
        let mut process = self.process.take().expect("running");
        process.kill().expect("kill");
        process.wait().expect("its end");
    }

    /// Asks it, in its inline form.
    pub(crate) fn ask(&self, line: &str) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).expect("Redis");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        socket.write_all(format!("{line}\r\nQUIT\r\n").as_bytes()).expect("a command");
        let mut said = String::new();
        drop(socket.read_to_string(&mut said));
        said
    }

    /// Keys of streams.
    pub(crate) fn streams(&self) -> usize {
        self.ask("KEYS corecast:stream:*").matches("corecast:stream:").count()
    }

    /// A server that takes part, on so many shards.
    fn member(&self, shards: usize, cluster: &str, vhost: &str) -> Web {
        let registry = format!("registry redis://127.0.0.1:{}; registry_lease 2; announce 127.0.0.1;", self.port);
        let vhost = format!("http_remux {{ enabled on; }} cluster {{ {registry} linger 1; {cluster} }} {vhost}");
        Web { server: Server::shards(shards, &web::config("", "", &vhost)) }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.stop();
        }
    }
}

/// What the exporter says of the registry.
fn metric(server: &Web, name: &str) -> Option<u64> {
    let text = web::get(server.exporter(), "/metrics").text();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

const OWN: &str = "corecast_registry_streams{of=\"own\"}";
const OTHERS: &str = "corecast_registry_streams{of=\"others\"}";

/// Who comes to the wrong server is served there, by one fetch, whatever he speaks; when the owner dies, its lease does.
#[test]
fn servers_find_each_others_streams() {
    if !have("redis-server") {
        return;
    }
    let redis = Redis::start();
    for shards in [1, 2, 4] {
        let (here, there) = (redis.member(shards, "", ""), redis.member(shards, "mode remote;", ""));
        let name = format!("x{shards}");
        let _encoder = Encoder::start(&[here.server.address()], &name);
        eventually("the lease", || (redis.streams() == 1).then_some(()));
        let mut rtmp: Vec<Peer> = (0..4).map(|_| Peer::play(there.server.address(), "live", &name)).collect();
        for player in &mut rtmp {
            assert!(gaps(&frames(player, 30)).is_empty());
        }
        eventually("one fetch", || (players(&here, &name) == 1).then_some(()));
        assert_eq!((metric(&here, "corecast_registry_up"), metric(&here, OWN)), (Some(1), Some(1)));
        eventually("the view", || (metric(&there, OTHERS) == Some(1)).then_some(()));
        here.server.signal("-KILL");
        let killed = Instant::now();
        eventually("the lease's end", || (redis.streams() == 0).then_some(()));
        assert!(killed.elapsed() < Duration::from_millis(3500), "{:?}", killed.elapsed());
        eventually("the view's end", || (metric(&there, OTHERS) == Some(0)).then_some(()));
        // Its encoder goes elsewhere, and the players have it from there.
        let next = redis.member(shards, "", "");
        let _live = Live::start(next.server.address(), "live", &name, 40, 25, 500);
        for player in &mut rtmp {
            player.expect_frames(30);
        }
    }
}

/// Redis killed, and empty when it comes back: whoever plays goes on, who comes for what is known is served meanwhile, and all
/// is announced anew.
#[test]
fn a_lost_registry_costs_nobody_a_stream() {
    if !have("redis-server") {
        return;
    }
    let mut redis = Redis::start();
    let (here, there) = (redis.member(2, "", ""), redis.member(2, "", ""));
    let _encoders: Vec<Encoder> =
        ["x", "y"].iter().map(|name| Encoder::start(&[here.server.address()], name)).collect();
    let mut player = Peer::play(there.server.address(), "live", "x");
    let mut seen = frames(&mut player, 30);
    eventually("the view", || (metric(&there, OTHERS) == Some(2)).then_some(()));
    redis.stop();
    eventually("the loss", || (metric(&there, "corecast_registry_up") == Some(0)).then_some(()));
    // Longer than a lease.
    seen.extend(frames(&mut player, 75));
    frames(&mut Peer::play(there.server.address(), "live", "y"), 30);
    let _near = Live::start(there.server.address(), "live", "new", 40, 25, 500);
    redis.run();
    eventually("everything anew", || (redis.streams() == 3).then_some(()));
    seen.extend(frames(&mut player, 25));
    assert!(gaps(&seen).is_empty());
    frames(&mut Peer::play(here.server.address(), "live", "new"), 10);
    // One that hangs.
    let mut socket = TcpStream::connect(("127.0.0.1", redis.port)).expect("Redis");
    socket.write_all(b"CLIENT PAUSE 5000 ALL\r\n").expect("a command");
    eventually("the loss", || (metric(&there, "corecast_registry_up") == Some(0)).then_some(()));
    let asked = Instant::now();
    assert_eq!(web::get(there.http(), "/live/nowhere.flv").status, 404);
    assert!(asked.elapsed() < Duration::from_secs(25));
    frames(&mut player, 50);
    eventually("its return", || (metric(&there, "corecast_registry_up") == Some(1)).then_some(()));
}

/// Two publishes of a name: within about a lease there is one. With `takeover replace` it is the later one.
#[test]
fn two_claims_on_a_name() {
    if !have("redis-server") {
        return;
    }
    let redis = Redis::start();
    for (takeover, later_wins) in [("reject", false), ("replace", true)] {
        let vhost = format!("publish {{ takeover {takeover}; }}");
        let (first, second) = (redis.member(2, "", &vhost), redis.member(2, "", &vhost));
        let _early = Encoder::start(&[first.server.address()], "x");
        eventually("the lease", || (redis.streams() == 1).then_some(()));
        let _late = Encoder::start(&[second.server.address()], "x");
        let loser = if later_wins { &first } else { &second };
        let winner = if later_wins { &second } else { &first };
        let began = Instant::now();
        loser.server.wait_for_log("the publish ends: 127.0.0.1 has the stream (registry)", 1);
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        assert_eq!(metric(winner, OWN), Some(1));
        eventually("one", || (metric(loser, OWN) == Some(0)).then_some(()));
        frames(&mut Peer::play(loser.server.address(), "live", "x"), 30);
    }
}

/// What others write there: nothing of it is believed without the secret's signature, and nothing harms.
#[test]
fn forged_entries_are_passed_over() {
    if !have("redis-server") {
        return;
    }
    let redis = Redis::start();
    let (here, there) = (redis.member(1, "registry_secret s;", ""), redis.member(1, "registry_secret s;", ""));
    let forged = |stream: &str, entry: &str| {
        assert!(redis.ask(&format!("SET corecast:stream:__defaultVhost__/live/{stream} \"{entry}\"")).contains("+OK"));
    };
    forged("x", "v1 9999999999999 0a0b0c0d 127.0.0.1 1 -");
    forged("y", "v1 9999999999999 0a0b0c0d 127.0.0.1 1 00ff");
    forged("z", "v9 something else");
    forged("w", &"A".repeat(5000));
    assert!(redis.ask("PUBLISH corecast:changes garbage").contains(':'));
    for name in ["x", "w"] {
        let _encoder = Encoder::start(&[here.server.address()], name);
        frames(&mut Peer::play(there.server.address(), "live", name), 30);
    }
    assert_eq!(web::get(there.http(), "/live/y.flv").status, 404);
    assert_eq!(web::get(there.http(), "/live/z.flv").status, 404);
    // A server without the secret is no part of it.
    let stranger = redis.member(1, "", "");
    let _other = Live::start(stranger.server.address(), "live", "s", 40, 25, 500);
    eventually("its lease", || {
        redis.ask("EXISTS corecast:stream:__defaultVhost__/live/s").contains(":1").then_some(())
    });
    assert_eq!(web::get(there.http(), "/live/s.flv").status, 404);
}

/// A Redis that nobody answers for is waited for by nobody.
#[test]
fn a_registry_that_is_not_there() {
    let registry = format!("cluster {{ registry redis://127.0.0.1:{}; }} http_remux {{ enabled on; }}", free_port());
    let server = Web { server: Server::start(&web::config("", "", &registry)) };
    let _live = Live::start(server.server.address(), "live", "x", 40, 25, 500);
    Peer::play(server.server.address(), "live", "x").expect_frames(30);
    assert_eq!(web::get(server.http(), "/live/none.flv").status, 404);
    assert_eq!(metric(&server, "corecast_registry_up"), Some(0));
}

/// `corecast cluster` shows who has what.
#[test]
fn the_cluster_can_be_looked_at() {
    if !have("redis-server") {
        return;
    }
    let redis = Redis::start();
    let here = redis.member(1, "", "");
    let _live = Live::start(here.server.address(), "live", "x", 40, 25, 500);
    eventually("the lease", || (redis.streams() == 1).then_some(()));
    redis.ask("SET corecast:stream:bad garbage");
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("x.conf");
    let registry = format!("registry redis://127.0.0.1:{};", redis.port);
    std::fs::write(&config, format!("listen 1; vhost v {{ cluster {{ {registry} }} }}")).expect("write");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_corecast"));
    let output = command.args(["cluster", "--streams", "-c"]).arg(&config).output().expect("corecast");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for line in [
        format!("127.0.0.1:{}", here.server.address().port()),
        "__defaultVhost__/live/x".to_owned(),
        "1 servers, 1 streams".to_owned(),
        "1 entries are no good".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }
}

/// A server that stops gives its leases up at once.
#[test]
fn a_stop_ends_leases() {
    if !have("redis-server") {
        return;
    }
    let redis = Redis::start();
    let here = redis.member(2, "", "");
    let _lives: Vec<Live> =
        (0..20).map(|n| Live::start(here.server.address(), "live", &format!("s{n}"), 100, 10, 100)).collect();
    eventually("the leases", || (redis.streams() == 20).then_some(()));
    let (code, _) = here.server.stop();
    assert_eq!((code, redis.streams()), (Some(0), 0));
}
