//! `memory_max`: what waits for players goes, then whoever comes is turned away, and what runs goes on.

use crate::{
    live::Live,
    peer::Peer,
    server::{Server, eventually},
    web::{Web, config, get},
};
use corecast::proto::amf::Value;

fn resident_mib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

/// Streams without players and with long GOPs fill their logs; with a bound they do not, and publish on.
#[test]
fn gops_that_nobody_waits_for_go_first() {
    for (max, shards) in [(0, 1), (120, 1), (120, 2), (120, 4)] {
        let text = config(&format!("memory_max {max};"), "", "");
        let web = Web { server: Server::shards(shards, &text) };
        // 50 pictures a second of 100 KB: 5 MB a second each.
        let names = ["a", "b", "c", "d"];
        let _live = names.map(|name| Live::start(web.server.address(), "live", name, 20, 500, 100_000));
        eventually("180 MB published", || {
            let streams = web.ask("/api/v1/streams")["streams"].clone();
            let bytes = |stream: &serde_json::Value| stream["recv_bytes"].as_u64().unwrap_or(0);
            (streams.as_array()?.iter().map(bytes).sum::<u64>() > 180_000_000).then_some(())
        });
        let resident = resident_mib(&web.server);
        if max == 0 {
            assert!(resident > 150, "{resident} MiB: they would not have filled it");
            continue;
        }
        assert!(resident < max + 40, "{resident} MiB of {max} on {shards} shards");
        let frames = web.live("a")["frames"].as_u64();
        eventually("it goes on", || (web.live("a")["frames"].as_u64() > frames).then_some(()));
        Peer::play(web.server.address(), "live", "b").expect_frames(20);
    }
}

/// Where nothing is left to give up, publishers and players are turned away in words; those who are here stay.
#[test]
fn who_comes_too_late_is_turned_away() {
    let text = |max: u64| config(&format!("memory_max {max};"), "", "http_remux { enabled on; wait_stream 20; }");
    let web = Web { server: Server::start(&text(0)) };
    let _live = Live::start(web.server.address(), "live", "s", 20, 25, 0);
    let mut early = Peer::play(web.server.address(), "live", "s");
    early.expect_frames(5);
    // Less than any process takes.
    web.server.reload(&text(1));
    web.server.wait_for_log("new publishers and players are turned away", 1);
    let refused = |what: &str, expected: &str| {
        let mut peer = Peer::connect(web.server.address(), "live");
        let msid = peer.create_stream();
        let live = [Value::Null, Value::string("t"), Value::string("live")];
        peer.command(msid, what, 5.0, if what == "play" { &live[..2] } else { &live });
        let status = peer.expect_command("onStatus");
        let said = format!("{status:?}");
        assert!(said.contains(expected) && said.contains("memory_max"), "{said}");
    };
    refused("play", "NetStream.Play.Failed");
    refused("publish", "NetStream.Publish");
    let answer = get(web.http(), "/live/s.flv");
    assert!(answer.status == 503 && answer.text().contains("memory_max"), "{answer:?}");
    early.expect_frames(50);
    let metrics = get(web.exporter(), "/metrics").text();
    assert!(metrics.contains("corecast_refusals_total{reason=\"memory\"} 3"), "{metrics}");
    web.server.reload(&text(0));
    eventually("room", || (get(web.http(), "/page/").status == 200).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(1500));
    Peer::play(web.server.address(), "live", "s").expect_frames(5);
}
