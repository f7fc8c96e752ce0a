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
