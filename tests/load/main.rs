//! Thousands of players, by the load generator in the box; their content is checked. Apart from the
//! other tests, and one after the other, since they want the whole machine.

#![expect(clippy::expect_used, clippy::cast_possible_truncation, reason = "a test fails by a panic")]

#[expect(dead_code, reason = "e2e uses the rest")]
#[path = "../e2e/media.rs"]
mod media;
#[expect(dead_code, reason = "e2e uses the rest")]
#[path = "../e2e/server.rs"]
mod server;

use crate::{
    media::{Running, avc_large, bounded, have},
    server::Server,
};
use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

const BENCH: &str = env!("CARGO_BIN_EXE_corecast-bench");

/// Held by the test that has the machine.
fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn publish(server: &Server, streams: usize, file: &Path) -> Running {
    let mut command = bounded(BENCH);
    let url = server.url("/live/s{i}");
    command.args(["publish", "-c", &streams.to_string(), "-r", &url, "--seconds", "50", "-i"]).arg(file);
    let running = Running::start(&mut command);
    server.wait_for_log("publish: AVC", streams);
    running
}

fn play(server: &Server, players: usize, streams: usize, file: &Path) -> String {
    let url = server.url("/live/s{i}");
    let mut command = bounded(BENCH);
    command.args([
        "play",
        "-c",
        &players.to_string(),
        "--streams",
        &streams.to_string(),
        "-r",
        &url,
        "--seconds",
        "8",
        "-i",
    ]);
    let output = Running::start(command.arg(file)).output();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}

/// 2000 players of one stream over all shards: all at full rate, every tag of every player compared
/// with the file; each tag crosses to the other shard once; under 0.01 send system calls a message.
#[test]
fn two_thousand_players_of_one_stream() {
    let _alone = alone();
    if !have("ffmpeg") {
        return;
    }
    let file = media::avc_aac();
    let server = Server::plain();
    let publisher = publish(&server, 1, &file);
    let printed = play(&server, 2000, 1, &file);
    assert!(printed.contains("full rate: 2000 of 2000 players"), "{printed}");
    publisher.kill();
    server.wait_for_log("unpublish", 1);
    let (code, totals) = server.stop();
    assert_eq!(code, Some(0));
    let others = std::thread::available_parallelism().expect("CPUs").get() as u64 - 1;
    let (received, relayed) = (totals.value("tags_received"), totals.value("tags_relayed"));
    assert!(relayed <= received * others && (others == 0 || relayed > 0), "{relayed} relayed of {received}");
    assert_eq!((totals.value("gaps"), totals.value("skips")), (0, 0));
    let per_tag = totals.value("send_syscalls") as f64 / totals.value("tags_sent") as f64;
    assert!(per_tag < 0.01, "{per_tag} send system calls per delivered message");
}

/// 200 streams of 5 players each.
#[test]
fn two_hundred_streams_of_five_players() {
    let _alone = alone();
    if !have("ffmpeg") {
        return;
    }
    let file = media::avc_aac();
    let server = Server::plain();
    let publisher = publish(&server, 200, &file);
    let printed = play(&server, 1000, 200, &file);
    assert!(printed.contains("full rate: 1000 of 1000 players"), "{printed}");
    publisher.kill();
}

/// A large stream at the smallest chunk size.
#[test]
fn large_messages_in_small_chunks_to_many() {
    let _alone = alone();
    if !have("ffmpeg") {
        return;
    }
    let server = Server::start("listen 127.0.0.1:0; chunk_size 128; vhost __defaultVhost__ { }");
    let publisher = publish(&server, 1, &avc_large());
    play(&server, 50, 1, &avc_large());
    publisher.kill();
}

/// R13: 200 reloads under 500 players, each changing flush intervals, timeouts, endpoints and vhosts: no
/// connection is lost, and every tag of every player is as it was published.
#[test]
fn two_hundred_reloads_under_five_hundred_players() {
    let _alone = alone();
    if !have("ffmpeg") {
        return;
    }
    let file = media::avc_aac();
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let second = (28_000..30_000).find(free).expect("a free port");
    let config = |round: u32| {
        let (latency, cache) =
            ([350, 100, 200][round as usize % 3], if round.is_multiple_of(5) { "off" } else { "on" });
        let listen = if round.is_multiple_of(2) { String::new() } else { format!("127.0.0.1:{second}") };
        format!(
            "listen 127.0.0.1:0 {listen}; max_connections {}; vhost other{} {{ }} \
             vhost __defaultVhost__ {{ chunk_size {}; publish {{ normal_timeout {}; }} \
             play {{ mw_latency {latency}; mw_msgs {}; gop_cache {cache}; queue_length {}; }} }}",
            1000 + round % 7,
            round % 4,
            if round.is_multiple_of(2) { 60_000 } else { 4096 },
            5000 + round,
            round % 9,
            10 + round % 20,
        )
    };
    let server = Server::start(&config(1));
    let publisher = publish(&server, 1, &file);
    let url = server.url("/live/s{i}");
    let mut command = bounded(BENCH);
    command.args(["play", "-c", "500", "-r", &url, "--seconds", "25"]);
    // Whether a joiner's GOP falls into the measured time makes some percent of its rate: what counts here is
    // that nobody is cut, misses a tag or stands still.
    command.args(["--require", "playing=100%,failures=0,faults=0,stall-max=2s", "-i"]);
    let players = Running::start(command.arg(&file));
    server.wait_for_log("play peer", 500);
    let started = std::time::Instant::now();
    for round in 2..202 {
        let said = server.reload(&config(round));
        assert!(said.contains("reload: done"), "{said}");
    }
    let seconds = started.elapsed().as_secs();
    assert!(seconds < 24, "the players must outlast the reloads: {seconds} s");
    let output = players.output();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && printed.contains("playing: 500 of 500"), "{printed}");
    publisher.kill();
    let (code, totals) = server.stop();
    assert_eq!((code, totals.value("skips"), totals.value("gaps")), (Some(0), 0, 0));
}

/// A9, shortened: players come and go by the hundred, publishers republish, RTMPS among them; memory and
/// descriptors do not grow. Prints the slope of the memory.
#[test]
fn a9_no_growth_under_churn() {
    let _alone = alone();
    if !have("ffmpeg") {
        return;
    }
    let file = media::avc_aac();
    let server = Server::plain();
    let publisher = publish(&server, 4, &file);
    let descriptors = server.descriptors();
    let url = server.url("/live/s{i}");
    let mut command = bounded(BENCH);
    command.args(["churn", "-c", "200", "--streams", "4", "-r", &url, "--stay", "0.2-0.8", "--seconds", "28", "-i"]);
    let churn = Running::start(command.arg(&file));
    let mut republish = 0;
    let started = std::time::Instant::now();
    let mut samples: Vec<(f64, f64)> = Vec::new();
    while started.elapsed().as_secs() < 26 {
        std::thread::sleep(std::time::Duration::from_millis(250));
        let mut again = bounded("ffmpeg");
        let url = server.url(&format!("/live/again{}", republish % 3));
        again.args(["-v", "error", "-i"]).arg(&file).args(["-c", "copy", "-f", "flv", &url]);
        Running::start(&mut again).success();
        republish += 1;
        let seconds = started.elapsed().as_secs_f64();
        if seconds > 8.0 {
            samples.push((seconds, server.rss_kib() as f64));
        }
    }
    let churn = churn.output();
    assert!(churn.status.success(), "{}", String::from_utf8_lossy(&churn.stdout));
    let slope = slope(&samples);
    println!("{} samples, {republish} publishes: {slope:.1} KiB/s", samples.len());
    assert!(slope < 100.0, "memory grows by {slope:.1} KiB/s: {samples:?}");
    // Of 16,000 players, each of whom might have left something.
    server::eventually("descriptors as before", || (server.descriptors() <= descriptors).then_some(()));
    publisher.kill();
    assert_eq!(server.stop().1.value("panics"), 0);
}

/// Least squares: units of the second value per unit of the first.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let mean = |part: fn(&(f64, f64)) -> f64| samples.iter().map(part).sum::<f64>() / count;
    let (x, y) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let covariance: f64 = samples.iter().map(|sample| (sample.0 - x) * (sample.1 - y)).sum();
    covariance / samples.iter().map(|sample| (sample.0 - x).powi(2)).sum::<f64>()
}
