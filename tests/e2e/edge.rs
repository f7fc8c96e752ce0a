//! Edges: what is played here is fetched from an origin, once for all players; what is published here is taken there.

use crate::{
    forward::{arrives_exactly, free_port, wait_for_state},
    hooks::Hook,
    live::Live,
    media::{Running, avc_aac, bounded, ffmpeg9, have, hevc, packets, packets_of_file, play_hashes, publish, track},
    peer::{AVC_HEADER, Peer},
    server::{Server, eventually},
    web::{self, FlvBody, Web},
};
use corecast::proto::{amf, rtmp::message::Control};
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// An origin with everything that others may fetch by.
pub(crate) fn origin() -> Web {
    Web::start("http_remux { enabled on; wait_stream 20; }")
}

/// A vhost's section that fetches from `servers`.
pub(crate) fn section(servers: &[SocketAddr], more: &str) -> String {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    format!("cluster {{ mode remote; origin {}; {more} }}", servers.join(" "))
}

/// Players of a stream, as the API counts them.
pub(crate) fn players(web: &Web, name: &str) -> u64 {
    let streams = web.ask("/api/v1/streams?count=1000")["streams"].clone();
    let found = streams.as_array().expect("a list").iter().find(|stream| stream["name"] == name).cloned();
    found.map_or(0, |stream| stream["players"].as_u64().expect("a number"))
}

/// How an edge's stream is fetched.
pub(crate) fn fetch(web: &Web, name: &str) -> Value {
    let streams = web.ask("/api/v1/streams?count=1000")["streams"].clone();
    let found = streams.as_array().expect("a list").iter().find(|stream| stream["name"] == name).cloned();
    found.map_or(Value::Null, |stream| stream["fetch"].clone())
}

/// The same encoder at several servers: each frame has the same time and content everywhere. 25 frames a second,
/// keyframes a second apart, with sound beside each.
pub(crate) struct Encoder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Encoder {
    pub(crate) fn start(servers: &[SocketAddr], stream: &str) -> Self {
        let mut peers: Vec<Option<Peer>> =
            servers.iter().map(|server| Some(Peer::publish(*server, "live", stream))).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            for peer in peers.iter_mut().flatten() {
                peer.send(6, 9, 1, 0, AVC_HEADER);
                peer.send(4, 8, 1, 0, &[0xAF, 0, 0x12, 0x10]);
            }
            for frame in 0.. {
                std::thread::sleep(Duration::from_millis(u64::from(frame * 40)).saturating_sub(started.elapsed()));
                if told.load(Ordering::Relaxed) {
                    return;
                }
                for peer in &mut peers {
                    let sent = peer.as_mut().map(|peer| {
                        peer.try_send_frame(1, frame * 40, frame % 25 == 0, 500)?;
                        let [a, b, c, d] = (frame * 40).to_be_bytes();
                        peer.try_send(4, 8, 1, frame * 40 + 3, &[0xAF, 1, 0, 0, 0, a, b, c, d])
                    });
                    if sent.is_some_and(|sent| sent.is_err()) {
                        *peer = None;
                    }
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What stands in a frame of [`Encoder`]: its published time.
pub(crate) fn content(body: &[u8]) -> u32 {
    u32::from_be_bytes([body[5], body[6], body[7], body[8]])
}

/// The next frames that a player gets, by content and by time.
pub(crate) fn frames(player: &mut Peer, count: usize) -> Vec<(u32, u32)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let (kind, time, body) = player.expect_media();
        if kind == 9 && body[1] == 1 {
            seen.push((content(&body), time));
        }
    }
    seen
}

/// Nothing is wrong, double or out of order, and time goes on; what is left out ends at a keyframe. Returns the gaps in
/// ms of content.
pub(crate) fn gaps(seen: &[(u32, u32)]) -> Vec<u32> {
    let mut gaps = Vec::new();
    for pair in seen.windows(2) {
        let [(last, last_ms), (next, next_ms)] = pair else { continue };
        assert!(next > last, "{last} and then {next}: {seen:?}");
        assert!(next_ms > last_ms, "time {last_ms} and then {next_ms}: {seen:?}");
        if next - last > 40 {
            assert!(next.is_multiple_of(1000), "goes on at {next}, which is no keyframe: {seen:?}");
            gaps.push(next - last - 40);
        }
    }
    gaps
}

/// By RTMP and by FLV, on one, two and four shards, wherever the players come in: every packet arrives as it was
/// published, and the origin sends once.
#[test]
fn edges_give_what_the_origin_has() {
    if !have("ffmpeg") {
        return;
    }
    let origin = origin();
    let (rtmp, flv) = (section(&[origin.server.address()], ""), section(&[origin.http()], "protocol flv;"));
    for (protocol, vhost) in [("rtmp", &rtmp), ("flv", &flv)] {
        for shards in [1, 2, 4] {
            let edge = Web::shards(shards, vhost);
            let name = format!("{protocol}{shards}");
            let path = format!("/live/{name}");
            let ffmpeg = Path::new("ffmpeg");
            let urls = [edge.server.url(&path), edge.server.url(&path), edge.flv_url(&format!("{path}.flv"))];
            let running: Vec<_> = urls.iter().map(|url| play_hashes(ffmpeg, url)).collect();
            eventually("the players", || (players(&edge, &name) == 3).then_some(()));
            eventually("the fetch", || (players(&origin, &name) == 1).then_some(()));
            publish(ffmpeg, &avc_aac(), &origin.server.url(&path)).success();
            let published = packets_of_file(ffmpeg, &avc_aac());
            for player in running {
                let played = packets(&player.success());
                for number in [0, 1] {
                    assert_eq!(track(&played, number), track(&published, number), "{name}, track {number}");
                }
            }
        }
    }
}

/// HEVC by Enhanced RTMP.
#[test]
fn edges_carry_hevc() {
    let Some(ffmpeg) = ffmpeg9() else { return };
    let origin = Server::plain();
    let edge = Server::vhost(&section(&[origin.address()], ""));
    let waits = || origin.wait_for_log("play peer", 1);
    let urls = (origin.url("/live/hevc"), edge.url("/live/hevc"));
    arrives_exactly(&ffmpeg, &hevc(&ffmpeg), (&urls.0, &urls.1), waits, || ());
}

/// Players who come in the middle begin at a keyframe; the stream is fetched once, whatever they speak, and no more a
/// while after the last has gone.
#[test]
fn one_fetch_for_all_and_its_end() {
    let origin = origin();
    let _live = Live::start(origin.server.address(), "live", "x", 40, 25, 1000);
    for shards in [1, 4] {
        let edge = Web::shards(shards, &section(&[origin.server.address()], "linger 1;"));
        let mut rtmp: Vec<Peer> = (0..6).map(|_| Peer::play(edge.server.address(), "live", "x")).collect();
        let mut flv: Vec<FlvBody> = (0..6).map(|_| FlvBody::ask_for(edge.http(), "/live/x.flv")).collect();
        for player in &mut rtmp {
            let (kind, _, body) = player.expect_media();
            assert_eq!((kind, body[0], body[1]), (9, 0x17, 0), "the sequence header");
            player.expect_frames(60);
        }
        for player in &mut flv {
            while player.next_tag().expect("a tag").expect("a tag").2.get(1) != Some(&1) {}
        }
        assert_eq!(players(&origin, "x"), 1);
        assert_eq!(fetch(&edge, "x")["state"], "playing");
        let text = web::get(edge.exporter(), "/metrics").text();
        assert!(text.contains("corecast_fetches{state=\"playing\"} 1"), "{text}");
        drop((rtmp, flv));
        eventually("the fetch's end", || (players(&origin, "x") == 0).then_some(()));
        // And again.
        Peer::play(edge.server.address(), "live", "x").expect_frames(30);
    }
}

/// Streams shorter than one flush, whose players were there before, on the home shard and off it.
#[test]
fn short_streams_arrive_whole() {
    let origin = origin();
    for (shards, count) in [(1, 1), (2, 3), (4, 25)] {
        let edge = Web::shards(shards, &section(&[origin.server.address()], ""));
        let name = format!("short{shards}");
        let mut players: Vec<Peer> = (0..4).map(|_| Peer::play(edge.server.address(), "live", &name)).collect();
        eventually("the fetch", || (self::players(&origin, &name) == 1).then_some(()));
        for _ in 0..3 {
            let mut publisher = Peer::publish(origin.server.address(), "live", &name);
            publisher.send_gop(1, 0, count);
            drop(publisher);
            for player in &mut players {
                player.expect_frames(2 * count as usize);
                player.expect_status("NetStream.Play.UnpublishNotify");
            }
        }
    }
}

/// What is published at an edge goes to the origin, and its players have it from here and there; RTMP's clients are told
/// what the origin says.
#[test]
fn publishes_are_taken_to_the_origin() {
    if !have("ffmpeg") {
        return;
    }
    for shards in [1, 2, 4] {
        let origin = origin();
        let edge = Web::shards(shards, &section(&[origin.server.address()], ""));
        let path = format!("/live/up{shards}?token=1");
        let here = play_hashes(Path::new("ffmpeg"), &edge.server.url(&path));
        let waits = || {
            origin.server.wait_for_log("play peer", 2);
        };
        let urls = (edge.server.url(&path), origin.server.url(&path));
        arrives_exactly(Path::new("ffmpeg"), &avc_aac(), (&urls.0, &urls.1), waits, || ());
        let (played, published) = (packets(&here.success()), packets_of_file(Path::new("ffmpeg"), &avc_aac()));
        assert_eq!(track(&played, 0), track(&published, 0));
        // The name is free again here and there.
        let _other = Live::start(origin.server.address(), "live", "taken", 40, 25, 100);
        let mut refused = Peer::publish(edge.server.address(), "live", "taken");
        refused.expect_status("NetStream.Publish.BadName");
    }
}

/// A publisher at the edge goes before what is fetched; when it has gone, the stream is fetched again.
#[test]
fn a_publisher_goes_before_a_fetch() {
    let origin = origin();
    let edge = Web::start(&section(&[origin.server.address()], ""));
    let far = Encoder::start(&[origin.server.address()], "x");
    let mut player = Peer::play(edge.server.address(), "live", "x");
    frames(&mut player, 30);
    drop(far);
    player.expect_status("NetStream.Play.UnpublishNotify");
    let mut near = Peer::publish(edge.server.address(), "live", "x");
    near.send_gop(1, 0, 25);
    player.expect_frames(50);
    drop(near);
    player.expect_status("NetStream.Play.UnpublishNotify");
    eventually("the end there", || (players(&origin, "x") == 1).then_some(()));
    let _far = Encoder::start(&[origin.server.address()], "x");
    frames(&mut player, 30);
}

/// The vhost there may be another one, and tokens go along.
#[test]
fn vhosts_and_tokens_go_along() {
    let config = "listen 127.0.0.1:0; vhost up.v.com { }";
    let origin = Server::start(config);
    let far = origin.address();
    let edge =
        Server::start(&format!("listen 127.0.0.1:0; vhost v.com {{ {} }}", section(&[far], "vhost up.[vhost];")));
    let mut publisher = Peer::connect(far, "live?vhost=up.v.com");
    let msid = publisher.create_stream();
    publisher.command(msid, "publish", 5.0, &[amf::Value::Null, amf::Value::string("x"), amf::Value::string("live")]);
    publisher.expect_status("NetStream.Publish.Start");
    publisher.control(Control::SetChunkSize(60_000));
    publisher.writer.set_chunk_size(60_000);
    let mut player = Peer::play(edge.address(), "live?vhost=v.com", "x?token=7");
    eventually("the fetch", || origin.log().contains("client=\"rtmp-play\"").then_some(()));
    publisher.send_gop(msid, 0, 25);
    player.expect_frames(50);
}

/// A stream that nobody publishes there is waited for; a player by HTTP is told so in the end.
#[test]
fn what_is_not_there_is_waited_for() {
    let origin = Web::start("http_remux { enabled on; }");
    let edge = Web::start(&format!(
        "http_remux {{ enabled on; }} {}",
        section(&[origin.http()], "protocol flv; origin_timeout 1;")
    ));
    let asked = Instant::now();
    assert_eq!(web::get(edge.http(), "/live/none.flv").status, 404);
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    let mut player = Peer::play(edge.server.address(), "live", "late");
    eventually("a try", || (fetch(&edge, "late")["retries"].as_u64() > Some(0)).then_some(()));
    let _live = Live::start(origin.server.address(), "live", "late", 40, 25, 100);
    player.expect_frames(50);
}

/// An origin that comes late is found.
#[test]
fn an_origin_may_come_late() {
    let port = free_port();
    let edge = Web::start(&section(&[SocketAddr::from(([127, 0, 0, 1], port))], ""));
    let mut player = Peer::play(edge.server.address(), "live", "x");
    let _near = Live::start(edge.server.address(), "live", "up", 40, 25, 100);
    wait_for_state(&edge, "up", "waiting");
    let origin = Server::start(&format!("listen 127.0.0.1:{port}; vhost __defaultVhost__ {{ }}"));
    let _live = Live::start(origin.address(), "live", "x", 40, 25, 100);
    player.expect_frames(50);
    Peer::play(origin.address(), "live", "up").expect_frames(50);
}

/// HLS and DASH at an edge: the first request fetches the stream and waits for it; it goes on as long as there are
/// requests, and no longer. What is not there is said to be missing, once an origin has said so.
#[test]
fn segments_at_an_edge() {
    if !have("ffprobe") {
        return;
    }
    let origin = origin();
    let _live = publish_for(&origin, "x", 90);
    for (shards, ctx) in [(1, "on"), (2, "off"), (4, "on")] {
        let hls = format!("hls {{ enabled on; hls_fragment 1; hls_window 6; hls_ctx {ctx}; }}");
        let dash = "dash { enabled on; dash_fragment 1; dash_timeshift 6; }";
        let servers = section(&[origin.http()], "protocol flv; origin_timeout 1; linger 0;");
        let edge = Web::shards(shards, &format!("{hls} {dash} {servers}"));
        for path in ["/live/x.m3u8", "/live/x.mpd"] {
            let url = edge.flv_url(path);
            let probe = bounded("ffprobe")
                .args(["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv"])
                .arg(url)
                .output();
            let said = String::from_utf8(probe.expect("ffprobe").stdout).expect("text");
            assert!(said.contains("h264") && said.contains("aac"), "{shards} {path}: {said}");
        }
        eventually("one fetch", || (players(&origin, "x") == 1).then_some(()));
        let asked = Instant::now();
        let missing = web::get(edge.http(), "/live/none.m3u8");
        if ctx == "off" {
            assert_eq!(missing.status, 404, "{missing:?}");
            assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        }
        assert_eq!(web::get(edge.http(), "/live/../x.m3u8").status, 400);
        // Requests keep it, though nobody plays it by anything else.
        for _ in 0..4 {
            std::thread::sleep(Duration::from_secs(1));
            assert_eq!(web::get(edge.http(), "/live/x.mpd").status, 200);
        }
        assert_eq!(fetch(&edge, "x")["state"], "playing");
    }
}

/// ffmpeg publishes in real time, for so many seconds at most.
pub(crate) fn publish_for(origin: &Web, name: &str, seconds: u32) -> Running {
    let mut ffmpeg = bounded("ffmpeg");
    ffmpeg.args(["-v", "error", "-re", "-stream_loop", "-1", "-i"]).arg(avc_aac());
    ffmpeg.args(["-c", "copy", "-t", &seconds.to_string(), "-f", "flv", &origin.server.url(&format!("/live/{name}"))]);
    let running = Running::start(&mut ffmpeg);
    origin.live(name);
    running
}

/// With token_traverse an origin says who may play, by the tokens that players bring.
#[test]
fn an_origin_decides_by_tokens() {
    let hook = Hook::start(|event| {
        let good = event["action"] != "on_play" || event["param"] == "?token=good";
        Some(format!("{{\"code\":{}}}", u8::from(!good)))
    });
    let hooks = format!("http_hooks {{ enabled on; on_play {}; }}", hook.url);
    let origin = Web::start(&format!("http_remux {{ enabled on; wait_stream 20; }} {hooks}"));
    let _live = Live::start(origin.server.address(), "live", "x", 40, 25, 500);
    for shards in [1, 4] {
        let servers = [SocketAddr::from(([127, 0, 0, 1], free_port())), origin.server.address()];
        let edge = Web::shards(shards, &section(&servers, "token_traverse on;"));
        for _ in 0..4 {
            Peer::play(edge.server.address(), "live", "x?token=good").expect_frames(30);
            let mut refused = Peer::connect(edge.server.address(), "live");
            let msid = refused.create_stream();
            let name = amf::Value::string("x?token=bad");
            refused.command(msid, "play", 0.0, &[amf::Value::Null, name]);
            refused.expect_status("NetStream.Play.Failed");
            assert_eq!(web::get(edge.http(), "/live/x.flv?token=bad").status, 403);
        }
        let alone = Web::shards(shards, &section(&servers[..1], "token_traverse on;"));
        assert_eq!(web::get(alone.http(), "/live/x.flv?token=good").status, 403);
        eventually("their end", || (players(&origin, "x") <= 1).then_some(()));
    }
}

/// A stream that the configuration says is to be fetched is there without players, on whatever shard, and comes back; a reload
/// ends it and begins another.
#[test]
fn pulls_last_as_long_as_the_server() {
    let port = free_port();
    let config = format!("listen 127.0.0.1:{port}; vhost __defaultVhost__ {{ }}");
    let there = Server::start(&config);
    let live = Live::start(there.address(), "far", "x", 40, 25, 500);
    let with = |pulls: &str| web::config("", "", &format!("http_remux {{ enabled on; }} {pulls}"));
    let pull =
        |name: &str| format!("pull live/{name} {{ url rtmp://127.0.0.1:1/far/x rtmp://127.0.0.1:{port}/far/x; }}");
    for shards in [1, 4] {
        let here = Web { server: Server::shards(shards, &with(&(pull("a") + &pull("b")))) };
        here.live("a");
        here.live("b");
        assert_eq!(fetch(&here, "a")["state"], "playing");
        let mut player = Peer::play(here.server.address(), "live", "a");
        player.expect_frames(30);
        drop(player);
        here.server.reload(&with(&(pull("b") + &pull("c"))));
        here.live("c");
        eventually("the end of one", || fetch(&here, "a").is_null().then_some(()));
        assert_eq!(fetch(&here, "b")["state"], "playing");
    }
    let here = Web { server: Server::start(&with(&pull("a"))) };
    here.live("a");
    let mut player = Peer::play(here.server.address(), "live", "a");
    there.signal("-KILL");
    drop(live);
    let again = Server::start(&config);
    let _live = Live::start(again.address(), "far", "x", 40, 25, 500);
    player.expect_frames(60);
}
