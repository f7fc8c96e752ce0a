//! The HTTP API, metrics, and who may use them.

use crate::{
    live::Live,
    media::{avc_aac, have, publish_on},
    peer::Peer,
    server::{Server, eventually},
    web::{Web, config, get, request, tool},
};
use std::{io::Write, path::Path, process::Stdio};

/// SRS's paths and shapes, with real figures: of an ffmpeg that publishes and of a player.
#[test]
fn the_api_tells_what_is() {
    if !have("ffmpeg") {
        return;
    }
    let web = Web::flv();
    let publisher = publish_on(&avc_aac(), &web.server.url("/live/livestream"));
    let stream = web.live("livestream");
    let mut player = Peer::play(web.server.address(), "live", "livestream");
    player.expect_frames(50);
    for (field, expected) in [("codec", "H264"), ("profile", "High"), ("level", "3")] {
        assert_eq!(stream["video"][field], expected, "{stream}");
    }
    assert_eq!((&stream["video"]["width"], &stream["video"]["height"]), (&640.into(), &360.into()));
    assert_eq!((&stream["audio"]["codec"], &stream["audio"]["sample_rate"]), (&"AAC".into(), &44_100.into()));
    assert_eq!(
        (&stream["audio"]["profile"], &stream["url"], &stream["flv"]),
        (&"LC".into(), &"/live/livestream".into(), &"/live/livestream.flv".into())
    );
    let rates = eventually("rates", || {
        let stream = web.live("livestream");
        let (recv, send) = (stream["kbps"]["recv_30s"].as_u64()?, stream["kbps"]["send_30s"].as_u64()?);
        (send > 100 && recv > 300).then_some((recv, send))
    });
    assert!((300..1500).contains(&rates.0) && rates.1 < 4000, "{rates:?}");
    let id = stream["id"].as_str().expect("an id");
    assert_eq!(web.ask(&format!("/api/v1/streams/{id}"))["stream"]["name"], "livestream");
    let clients = web.ask("/api/v1/clients");
    let clients = clients["clients"].as_array().expect("a list");
    let of = |kind: &str| clients.iter().find(|client| client["type"] == kind).unwrap_or_else(|| panic!("{clients:?}"));
    let playing = of("rtmp-play");
    assert!(
        playing["send_bytes"].as_u64() > Some(10_000)
            && playing["alive"].as_f64() > Some(0.0)
            && playing["ip"] == "127.0.0.1"
    );
    assert_eq!((&of("fmle-publish")["id"], &playing["stream"]), (&stream["publish"]["cid"], &stream["id"]));
    let vhosts = web.ask("/api/v1/vhosts");
    assert_eq!(
        (&vhosts["vhosts"][0]["name"], &vhosts["vhosts"][0]["clients"]),
        (&"__defaultVhost__".into(), &2.into())
    );
    let vhost = vhosts["vhosts"][0]["id"].as_str().expect("an id");
    assert_eq!(web.ask(&format!("/api/v1/vhosts/{vhost}"))["vhost"]["streams"], 1);
    for (path, field) in [
        ("versions", "version"),
        ("summaries", "self"),
        ("rusages", "ru_maxrss"),
        ("self_proc_stats", "pid"),
        ("system_proc_stats", "idle"),
        ("meminfos", "MemTotal"),
        ("features", "features"),
        ("requests", "headers"),
    ] {
        let answer = web.ask(&format!("/api/v1/{path}"));
        assert!(answer["code"] == 0 && answer["server"].as_str().is_some_and(|id| id.starts_with("vid-")), "{answer}");
        assert!(!answer["data"][field].is_null(), "{path}: {answer}");
    }
    let summary = web.ask("/api/v1/summaries");
    assert_eq!(summary["data"]["self"]["pid"], web.server.pid());
    let shards = web.ask("/api/v1/shards");
    let players: u64 =
        shards["shards"].as_array().expect("a list").iter().filter_map(|shard| shard["players"].as_u64()).sum();
    assert_eq!(players, 1);
    assert!(web.ask("/api/v1/")["urls"]["streams"].is_string() && web.ask("/api")["urls"]["v1"].is_string());
    publisher.kill();
}

/// A client that is kicked is closed at once, on whatever shard; a bad id is told so; lists have pages.
#[test]
fn kicking_a_client_works() {
    let web = Web::flv();
    let _live = Live::start(web.server.address(), "live", "s", 20, 25, 0);
    let mut players: Vec<Peer> = (0..12).map(|_| Peer::play(web.server.address(), "live", "s")).collect();
    players.iter_mut().for_each(|player| drop(player.expect_frames(5)));
    let list = |query: &str| web.ask(&format!("/api/v1/clients{query}"))["clients"].as_array().expect("a list").clone();
    let mut pages: Vec<String> = Vec::new();
    for start in [0, 5, 10] {
        pages.extend(list(&format!("?start={start}&count=5")).iter().map(|client| client["id"].to_string()));
    }
    pages.sort();
    pages.dedup();
    assert_eq!((pages.len(), list("").len(), list("?start=99").len(), list("?count=0").len()), (13, 10, 0, 1));
    let all = list("?count=100");
    let players_of = |all: &[serde_json::Value]| all.iter().filter(|client| client["type"] == "rtmp-play").count();
    assert_eq!(players_of(&all), 12);
    let id = all.iter().find(|client| client["type"] == "rtmp-play").expect("a player")["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let kick = |id: &str| request(web.api(), "DELETE", &format!("/api/v1/clients/{id}"), &web.server.bearer());
    assert_eq!(kick(&id).status, 200);
    web.server.wait_for_log("an operator has disconnected it", 1);
    eventually("11 players", || (players_of(&list("?count=100")) == 11).then_some(()));
    assert_eq!(kick(&id).json()["code"], 2049, "gone already");
    for bad in ["x", "0-0", "9999-1", "-1-1", "0-ffffffffffffffffffff"] {
        assert_eq!(kick(bad).json()["code"], 2049, "{bad}");
    }
    assert_eq!(kick("%ff").status, 400);
    for (query, length) in [("?start=-1", 10), ("?count=abc", 1), ("?count=3x", 3), ("?count=4294967295", 12)] {
        assert_eq!(list(query).len(), length, "{query}");
    }
    let wrong = request(web.api(), "PUT", "/api/v1/streams", "Content-Length: 0\r\n");
    assert!(wrong.status == 405 && wrong.has("allow: get, head"), "{wrong:?}");
    for (method, path) in [("POST", "/api/v1/versions"), ("PUT", "/api/v1/summaries")] {
        let answer = request(web.api(), method, path, "Content-Length: 2\r\n\r\n{}");
        assert!(answer.status == 200 && answer.json()["code"] == 0, "as SRS answers: {answer:?}");
    }
    assert!(!get(web.api(), "/api/v1/versions").head.contains("access-control"), "crossdomain is off");
}

/// On loopback the API is this machine's alone, and on its own port; with auth, everybody must prove who they are, to the
/// page's list too.
#[test]
fn the_api_is_closed_to_strangers() {
    let web = Web::flv();
    let status = |address, fields: &str| request(address, "GET", "/api/v1/versions", fields).status;
    assert_eq!(status(web.api(), ""), 200);
    assert_eq!(status(web.api(), "X-Forwarded-For: 1.2.3.4\r\n"), 403);
    assert_eq!(status(web.api(), "Sec-Fetch-Site: cross-site\r\n"), 403);
    assert_eq!(status(web.api(), "Origin: http://evil.example\r\n"), 403);
    let rebound = b"GET /api/v1/versions HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    assert_eq!(crate::web::raw(web.api(), rebound, false).status, 403, "DNS rebinding");
    assert_eq!(status(web.http(), ""), 404, "it has a port of its own");
    let api = "auth { enabled on; username admin; password \"a b\"; token t0ken; } crossdomain on;";
    let web = Web { server: Server::start(&config("", api, "")) };
    let denied = request(web.api(), "GET", "/api/v1/versions", "");
    assert!(denied.status == 401 && denied.head.contains("www-authenticate: basic"), "{denied:?}");
    assert_eq!(status(web.api(), "Authorization: Basic YWRtaW46YSBi\r\n"), 200);
    assert_eq!(status(web.api(), "Authorization: Bearer t0ken\r\n"), 200);
    assert_eq!(status(web.api(), "Authorization: Bearer wrong\r\n"), 401);
    assert!(denied.has("access-control-allow-origin: *"));
    let list = |fields: &str| request(web.http(), "GET", "/page/streams.json", fields).status;
    assert_eq!((list(""), list("Authorization: Basic YWRtaW46YSBi\r\n")), (401, 200), "the page's list too");
    assert_eq!(web.server.bearer(), "", "the file's own counts");
    let shown = std::process::Command::new(env!("CARGO_BIN_EXE_corecast"))
        .args(["-t", "--explain", "-c"])
        .arg(web.server.file("test.conf"))
        .output()
        .expect("corecast");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("******") && !shown.contains("t0ken") && !shown.contains("a b"), "{shown}");
}

/// Reload by the API: refused unless allowed; what is wrong is told; changes are counted.
#[test]
fn the_raw_api_reloads() {
    let web = Web::flv();
    let answer = get(web.api(), "/api/v1/raw?rpc=reload");
    assert_eq!((answer.status, &answer.json()["code"]), (200, &1061.into()));
    let text = config("", "raw_api { enabled on; allow_reload on; }", "");
    let web = Web { server: Server::start(&text) };
    assert_eq!(web.ask("/api/v1/raw?rpc=raw")["http_api"]["raw_api"]["allow_reload"], true);
    let bearer = web.server.bearer();
    let reload = || request(web.api(), "GET", "/api/v1/raw?rpc=reload", &bearer);
    assert_eq!(get(web.api(), "/api/v1/raw?rpc=reload").status, 401, "being here is no proof");
    assert_eq!(reload().json()["changes"], 0);
    std::fs::write(
        web.server.file("test.conf"),
        text.replace("vhost __defaultVhost__ { ", "vhost __defaultVhost__ { chunk_size 4096; "),
    )
    .expect("a file");
    assert_eq!(reload().json()["changes"], 1);
    std::fs::write(web.server.file("test.conf"), "nonsense").expect("a file");
    let faults = reload();
    assert!(
        faults.json()["code"] == 1060
            && faults.json()["message"].as_str().is_some_and(|text| text.contains("test.conf:1")),
        "{faults:?}"
    );
    assert_eq!(web.ask("/api/v1/versions")["code"], 0, "the old configuration serves on");
}

/// Prometheus's own parser takes the metrics, and they count.
#[test]
fn metrics_are_prometheus_s() {
    let web = Web::start("http_remux { enabled on; }");
    let _lives: Vec<Live> =
        (0..25).map(|number| Live::start(web.server.address(), "live", &format!("s\"{number}"), 20, 25, 0)).collect();
    let mut player = Peer::play(web.server.address(), "live", "s\"7");
    player.expect_frames(60);
    let answer = get(web.exporter(), "/metrics");
    assert!(answer.has("content-type: text/plain; version=0.0.4; charset=utf-8"), "{answer:?}");
    assert_eq!(
        (get(web.api(), "/metrics").status, get(web.exporter(), "/").status, get(web.http(), "/metrics").status),
        (200, 404, 404)
    );
    let text = answer.text();
    let sum = |name: &str| -> f64 {
        let lines =
            text.lines().filter(|line| line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} ")));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    assert_eq!((sum("srs_streams"), sum("corecast_publishers"), sum("corecast_players")), (25.0, 25.0, 1.0));
    assert_eq!(text.matches("corecast_stream_players{").count(), 21, "the top 20 and the rest");
    assert!(text.contains("corecast_stream_players{stream=\"__defaultVhost__/live/s\\\"7\"} 1"), "{text}");
    for name in [
        "srs_send_bytes_total",
        "srs_receive_bytes_total",
        "srs_clients_total",
        "corecast_sends_total",
        "corecast_frame_age_seconds_count",
        "corecast_memory_bytes",
    ] {
        assert!(sum(name) > 0.0, "{name}");
    }
    let Some(promtool) = tool("promtool") else { return };
    let mut child = std::process::Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    child.stdin.take().expect("stdin").write_all(text.as_bytes()).expect("metrics");
    let output = child.wait_with_output().expect("promtool");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// schemathesis sends what the API's description allows and what it does not; every answer is as described.
#[test]
fn the_api_is_as_it_describes_itself() {
    let Some(schemathesis) = tool("schemathesis/bin/schemathesis") else { return };
    let web = Web { server: Server::start(&config("", "raw_api { enabled on; }", "http_remux { enabled on; }")) };
    let _live = Live::start(web.server.address(), "live", "s", 20, 25, 0);
    web.live("s");
    let mut command = std::process::Command::new("timeout");
    command.arg("150").arg(schemathesis).arg("run").arg(format!("http://{}/api/v1/openapi.json", web.api()));
    command.args([
        "--header",
        "Accept: application/problem+json",
        "--checks",
        "all",
        "--max-examples",
        "20",
        "--seed",
        "1",
        "--phases",
        "examples,coverage,fuzzing",
    ]);
    command.current_dir(web.server.file("log").parent().unwrap_or(Path::new("/")));
    let output = command.output().expect("schemathesis");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", &text[text.len().saturating_sub(6000)..]);
    let publisher = publish_on(&avc_aac(), &web.server.url("/live/after"));
    web.live("after");
    publisher.kill();
}
