//! forward: what is published here is published there too, packet for packet, and comes back when the other side does.

use crate::{
    hooks::Hook,
    live::Live,
    media::{self, Running, avc_aac, bounded, ffmpeg9, have, packets, packets_of_file, play_hashes, publish, track},
    peer::Peer,
    server::{Server, eventually},
    web::{self, Web},
};
use corecast::proto::amf;
use serde_json::Value;
use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
    time::Duration,
};

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

/// A vhost's section.
pub(crate) fn section(more: &str) -> String {
    format!("forward {{ enabled on; {more} }}")
}

/// The destinations of a stream, as the API has them.
pub(crate) fn forwards(web: &Web, name: &str) -> Vec<Value> {
    let streams = web.ask("/api/v1/streams?count=1000")["streams"].clone();
    let found = streams.as_array().expect("a list").iter().find(|stream| stream["name"] == name).cloned();
    found.map_or_else(Vec::new, |stream| stream["forward"].as_array().expect("a list").clone())
}

/// Waits until a stream's destination is in a state, by the API.
pub(crate) fn wait_for_state(web: &Web, name: &str, state: &str) -> Value {
    eventually(state, || forwards(web, name).into_iter().find(|forward| forward["state"] == state))
}

/// Publishes `file` at `url`, while ffmpeg waits for it at `there`: every packet and time distance arrives.
pub(crate) fn arrives_exactly(
    ffmpeg: &Path,
    file: &Path,
    (url, there): (&str, &str),
    waits: impl FnOnce(),
    ended: impl FnOnce(),
) {
    let player = play_hashes(ffmpeg, there);
    waits();
    publish(ffmpeg, file, url).success();
    ended();
    let (played, published) = (packets(&player.success()), packets_of_file(ffmpeg, file));
    assert!(published.len() > 100, "{} packets", published.len());
    for number in [0, 1] {
        assert_eq!(track(&played, number), track(&published, number), "track {number}");
    }
}

/// On one, two and four shards, wherever the publisher comes in.
#[test]
fn forward_to_another_corecast() {
    if !have("ffmpeg") {
        return;
    }
    let there = Server::plain();
    for shards in [1, 2, 4] {
        let vhost = section(&format!("destination {};", there.address()));
        let here = Server::shards(shards, &format!("listen 127.0.0.1:0; vhost __defaultVhost__ {{ {vhost} }}"));
        let path = format!("/live/shards{shards}?token=1");
        let waits = || there.wait_for_log(&format!("live/shards{shards} client"), 1);
        let urls = (here.url(&path), there.url(&path));
        arrives_exactly(Path::new("ffmpeg"), &avc_aac(), (&urls.0, &urls.1), waits, || ());
    }
}

/// HEVC by Enhanced RTMP.
#[test]
fn forward_carries_hevc() {
    let Some(ffmpeg) = ffmpeg9() else { return };
    let there = Server::plain();
    let here = Server::vhost(&section(&format!("destination {};", there.address())));
    let waits = || there.wait_for_log("play peer", 1);
    let urls = (here.url("/live/hevc"), there.url("/live/hevc"));
    arrives_exactly(&ffmpeg, &media::hevc(&ffmpeg), (&urls.0, &urls.1), waits, || ());
}

/// nginx with its RTMP module, in a directory of its own.
fn nginx(directory: &Path, port: u16) -> Running {
    let path = directory.display();
    let config = format!(
        "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so; daemon off; worker_processes 1; error_log {path}/log; \
         pid {path}/pid; events {{ }} rtmp {{ server {{ listen 127.0.0.1:{port}; application live {{ live on; }} }} }}"
    );
    std::fs::write(directory.join("nginx.conf"), config).expect("a configuration");
    Running::start(bounded("nginx").arg("-p").arg(directory).arg("-c").arg(directory.join("nginx.conf")))
}

#[test]
fn forward_to_nginx() {
    if !have("ffmpeg") || !have("nginx") {
        return;
    }
    let (directory, port) = (tempfile::tempdir().expect("a directory"), free_port());
    let there = nginx(directory.path(), port);
    eventually("nginx", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let here = Server::vhost(&section(&format!("destination 127.0.0.1:{port};")));
    let url = format!("rtmp://127.0.0.1:{port}/live/x");
    // It says nothing of a player that waits, and tells nobody that a stream is over.
    let pause = || std::thread::sleep(Duration::from_secs(2));
    let ended = || {
        pause();
        there.kill();
    };
    arrives_exactly(Path::new("ffmpeg"), &avc_aac(), (&here.url("/live/x"), &url), pause, ended);
}

/// A publisher whose streams are at home on several shards, since its connection cannot move to all of them.
#[test]
fn forward_of_several_net_streams() {
    let there = Server::plain();
    let vhost = section(&format!("destination {};", there.address()));
    let here = Server::shards(4, &format!("listen 127.0.0.1:0; vhost __defaultVhost__ {{ {vhost} }}"));
    let mut publisher = Peer::publish(here.address(), "live", "s1");
    for number in 2..=6 {
        let msid = publisher.create_stream();
        publisher.command(msid, "publish", 0.0, &[amf::Value::Null, amf::Value::string(format!("s{number}"))]);
        publisher.expect_status("NetStream.Publish.Start");
    }
    let mut players: Vec<Peer> =
        (1..=6).map(|number| Peer::play(there.address(), "live", &format!("s{number}"))).collect();
    (1..=6).for_each(|msid| publisher.send_gop(msid, 0, 25));
    for player in &mut players {
        player.expect_frames(25);
    }
}

/// The destination is killed and comes back: the stream goes on there at a keyframe, and nobody here notices.
#[test]
fn forward_comes_back() {
    let port = free_port();
    let config = format!("listen 127.0.0.1:{port}; vhost __defaultVhost__ {{ }}");
    let here = Web::start(&section(&format!("destination 127.0.0.1:{port};")));
    let _live = Live::start(here.server.address(), "live", "x", 20, 25, 1000);
    // It is not there yet.
    wait_for_state(&here, "x", "waiting");
    let mut player = Peer::play(here.server.address(), "live", "x");
    for round in 0..2 {
        let there = Server::start(&config);
        let mut far = Peer::play(there.address(), "live", "x");
        let (kind, _, body) = far.expect_media();
        assert_eq!((kind, body[0], body[1]), (9, 0x17, 0), "round {round}: the sequence header");
        let (kind, _, body) = far.expect_media();
        assert_eq!((kind, body[0], body[1]), (9, 0x17, 1), "round {round}: a keyframe");
        far.expect_frames(50);
        wait_for_state(&here, "x", "publishing");
    }
    let waiting = wait_for_state(&here, "x", "waiting");
    assert!(waiting["retries"].as_u64() > Some(1), "{waiting}");
    assert!(waiting["error"].as_str().is_some_and(|error| !error.is_empty()), "{waiting}");
    let times = player.expect_frames(250);
    assert!(times.windows(2).all(|pair| pair[1].0 == pair[0].0 + 20), "{times:?}");
    let text = web::get(here.exporter(), "/metrics").text();
    for line in ["corecast_forwards{state=\"publishing\"} 0", "corecast_forward_up{stream=\"__defaultVhost__/live/x\""]
    {
        assert!(text.contains(line), "{line}: {text}");
    }
}

/// A publish that follows another one at once is pushed on too; its players there stay.
#[test]
fn forward_of_a_quick_republish() {
    let there = Server::plain();
    let here = Server::vhost(&section(&format!("destination {};", there.address())));
    let mut player = Peer::play(there.address(), "live", "x");
    for _ in 0..5 {
        let mut publisher = Peer::publish(here.address(), "live", "x");
        publisher.send_gop(1, 0, 25);
        player.expect_frames(25);
    }
}

/// The backend is asked with SRS's words, again if it has no good answer, and says where to.
#[test]
fn forward_asks_its_backend() {
    let there = Server::plain();
    let url = there.url("/other/name?secret=1");
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let hook = Hook::start(move |_| {
        let first = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        Some(if first { "garbage".to_owned() } else { format!("{{\"code\":0,\"data\":{{\"urls\":[\"{url}\"]}}}}") })
    });
    let here = Web::start(&section(&format!("destination 127.0.0.1:1; backend {};", hook.url)));
    let _live = Live::start(here.server.address(), "live", "x?key=1", 40, 25, 100);
    Peer::play(there.address(), "other", "name").expect_frames(50);
    let event = hook.wait("on_forward");
    for (field, value) in [("app", "live"), ("stream", "x"), ("param", "?key=1"), ("vhost", "__defaultVhost__")] {
        assert_eq!(event[field], value, "{event}");
    }
    assert!(event["tcUrl"].as_str().is_some_and(|url| url.starts_with("rtmp://")), "{event}");
    assert_eq!(hook.all().len(), 2);
    let forwards = forwards(&here, "x");
    assert_eq!(forwards.len(), 1, "{forwards:?}");
    assert_eq!(forwards[0]["to"], format!("rtmp://{}/other", there.address()));
}

/// By RTMPS, to who has a certificate that is trusted; not to who has none.
#[test]
fn forward_by_rtmps() {
    if !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().display();
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]);
    let made = openssl.args(["-keyout", &format!("{path}/key"), "-out", &format!("{path}/crt")]).output();
    assert!(made.expect("openssl").status.success());
    let rtmps = format!("rtmps {{ enabled on; listen 127.0.0.1:0; key {path}/key; cert {path}/crt; }}");
    let there = Server::start(&format!("listen 127.0.0.1:0; {rtmps} vhost __defaultVhost__ {{ }}"));
    let port = there.addresses()[1].port();
    let config = web::config("", "", &section(&format!("destination rtmps://localhost:{port};")));
    let trusts = Web { server: Server::start_in(&config, &[("SSL_CERT_FILE", &format!("{path}/crt"))]) };
    let _live = Live::start(trusts.server.address(), "live", "x", 40, 25, 1000);
    Peer::play(there.address(), "live", "x").expect_frames(100);
    assert!(there.log().contains("publish: AVC"), "{}", there.log());
    let doubts = Web { server: Server::start(&config) };
    let _other = Live::start(doubts.server.address(), "live", "y", 40, 25, 1000);
    let waiting = wait_for_state(&doubts, "y", "waiting");
    assert!(waiting["error"].as_str().is_some_and(|error| error.contains("certificate")), "{waiting}");
}

/// A thousand destinations at once: twenty streams, fifty each.
#[test]
fn a_thousand_forwards() {
    let there = Web { server: Server::start(&web::config("", "", "")) };
    let address: SocketAddr = there.server.address();
    let hook = Hook::start(move |event| {
        let name = event["stream"].as_str().expect("a name");
        let urls: Vec<String> = (0..50).map(|number| format!("rtmp://{address}/many/{name}-{number}")).collect();
        Some(serde_json::json!({ "code": 0, "data": { "urls": urls } }).to_string())
    });
    let here = Web::start(&section(&format!("backend {};", hook.url)));
    let streams: Vec<Live> =
        (0..20).map(|n| Live::start(here.server.address(), "live", &format!("s{n}"), 100, 10, 1000)).collect();
    let up = |state: &str| {
        let text = web::get(here.exporter(), "/metrics").text();
        let line = format!("corecast_forwards{{state=\"{state}\"}} ");
        text.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok())
    };
    eventually("a thousand forwards", || up("publishing").filter(|count| *count == 1000));
    for n in [0, 19] {
        Peer::play(address, "many", &format!("s{n}-49")).expect_frames(30);
    }
    drop(streams);
    eventually("their end", || up("publishing").filter(|count| *count == 0));
    eventually("their end there", || {
        let text = web::get(there.exporter(), "/metrics").text();
        text.contains("srs_clients 0").then_some(())
    });
}
