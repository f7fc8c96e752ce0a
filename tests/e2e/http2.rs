//! HTTP/2: playlists and segments by curl and Chromium, many at a time; what else is asked for goes by HTTP/1.1; clients who mean no
//! good.

use crate::{
    hls::{playlist, segments},
    hooks::Hook,
    media::{Running, avc_aac, bounded, have, publish, publish_on},
    peer::connected,
    rtmps::make_certificate,
    server::{LIMIT, Server, eventually},
    web::{Web, config, get, node_modules},
};
use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

const VHOST: &str = "http_remux { enabled on; wait_stream 20; } hls { enabled on; hls_fragment 1; hls_window 100; hls_use_fmp4 on; } \
                     dash { enabled on; dash_fragment 1; dash_ll on; }";

/// A server with TLS; its https address.
fn secure(directory: &Path, shards: usize, http2: &str, more: &str) -> (Web, SocketAddr) {
    make_certificate(directory, "localhost");
    let path = directory.display();
    let server = Server::shards(
        shards,
        &format!(
            "listen 127.0.0.1:0; max_connections 1000; http_server {{ enabled on; listen 127.0.0.1:0; https {{ enabled on; \
             listen 127.0.0.1:0; key {path}/server.key; cert {path}/server.crt; {http2} }} }} \
             vhost __defaultVhost__ {{ {VHOST} {more} }}"
        ),
    );
    let address = server.addresses()[2];
    (Web { server }, address)
}

fn curl(args: &[&str]) -> String {
    Running::start(bounded("curl").args(["-sSk", "--max-time", "20"]).args(args)).success()
}

/// curl takes playlists and segments by HTTP/2, many at a time over one connection, on every shard, as they are by HTTP/1.1; ranges,
/// conditions and heads too. The page and live streams come by HTTP/1.1, as does all with `http2 off`.
#[test]
fn curl_takes_segments_by_http2() {
    if !have("ffmpeg") || !have("curl") || !have("openssl") {
        return;
    }
    for shards in [1, 2, 4] {
        let directory = tempfile::tempdir().expect("a directory");
        let (web, address) = secure(directory.path(), shards, "", "");
        publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/s")).success();
        let version = ["-o", "/dev/null", "-w", "%{http_version} %{http_code}"];
        let url = |path: &str| format!("https://{address}{path}");
        let asked = |args: &[&str], path: &str| curl(&[&version[..], args, &[&url(path)]].concat());
        let media = playlist(&web, "/live/s.m3u8?hls_ctx=abc");
        assert_eq!(asked(&[], "/live/s.m3u8"), "2 200");
        assert_eq!(asked(&["-I"], "/live/s.m3u8"), "2 200");
        assert_eq!(asked(&[], "/live/nobody.m3u8"), "1.1 404");
        assert_eq!(asked(&[], "/"), "1.1 200");
        let uris: Vec<String> = segments(&media).iter().map(|uri| format!("/live/{uri}")).collect();
        assert!(uris.len() >= 4, "{media}");
        assert_eq!(asked(&["-r", "10-19"], &uris[0]), "2 206");
        assert_eq!(asked(&["-H", "If-None-Match: *"], &uris[0]), "2 304");
        let mut args: Vec<String> = ["--http2", "--parallel", "--parallel-max", "60"].map(str::to_owned).to_vec();
        let place = |number: usize| directory.path().join(format!("{number}.got"));
        for number in 0..60 {
            args.extend(["-o".to_owned(), place(number).display().to_string(), url(&uris[number % uris.len()])]);
        }
        curl(&args.iter().map(String::as_str).collect::<Vec<_>>());
        for number in 0..60 {
            let whole = get(web.http(), &uris[number % uris.len()]).body;
            assert!(whole.len() > 10_000 && fs::read(place(number)).expect("a file") == whole, "{number}");
        }
        let publisher = publish_on(&avc_aac(), &web.server.url("/live/l"));
        // A reload that waits, and a segment that grows, are not in each other's way.
        let text = eventually("segments", || {
            let answer = get(web.http(), "/live/l.m3u8?hls_ctx=abc");
            Some(answer.text()).filter(|text| text.contains("#EXTINF"))
        });
        // What never ends is taken for a while, by HTTP/1.1.
        let mut live = bounded("curl");
        live.args([
            "-sSk",
            "--max-time",
            "2",
            "-o",
            "/dev/null",
            "-w",
            "%{http_version} %{http_code}",
            &url("/live/l.flv"),
        ]);
        assert_eq!(String::from_utf8_lossy(&Running::start(&mut live).output().stdout), "1.1 200");
        let next = text.matches("#EXTINF").count()
            + segments(&text)[0]
                .split(['-', '.'])
                .nth(1)
                .and_then(|number| number.parse::<usize>().ok())
                .expect("a number");
        let waiting = url(&format!("/live/l.m3u8?hls_ctx=abc&_HLS_msn={next}"));
        let mpd = get(web.http(), "/live/l.mpd").text();
        let attribute =
            |name: &str| mpd.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split('"').next());
        let first: u64 = attribute("startNumber").and_then(|number| number.parse().ok()).expect("a number");
        let listed: u64 = mpd
            .split("</SegmentTimeline>")
            .next()
            .expect("a list")
            .split("<S ")
            .skip(1)
            .map(|element| {
                element
                    .split_once("r=\"")
                    .and_then(|(_, rest)| rest.split('"').next()?.parse::<u64>().ok())
                    .unwrap_or(0)
                    + 1
            })
            .sum();
        let growing = url(&format!("/live/l/video-{}.m4s", first + listed - 1));
        let said = curl(&[
            "--http2",
            "--parallel",
            "-o",
            "/dev/null",
            "-o",
            "/dev/null",
            "-w",
            "%{http_version} %{http_code} %{size_download}\n",
            &waiting,
            &growing,
        ]);
        let got: Vec<Vec<&str>> = said.lines().map(|line| line.split(' ').collect()).collect();
        assert!(got.len() == 2 && got.iter().all(|got| got[..2] == ["2", "200"]), "{said}");
        assert!(got.iter().all(|got| got[2].parse::<u64>().is_ok_and(|bytes| bytes > 300)), "{said}");
        publisher.kill();
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (web, address) = secure(directory.path(), 2, "http2 off;", "");
    publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/s")).success();
    let url = format!("https://{address}/live/s.m3u8");
    assert_eq!(curl(&["--http2", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", &url]), "1.1 200");
}

/// hls.js plays with low latency in Chromium, which takes all of it by HTTP/2.
#[test]
fn chromium_plays_by_http2() {
    let tools = ["ffmpeg", "node", "chromium", "openssl"];
    let Some(modules) = node_modules().filter(|_| tools.iter().all(|tool| have(tool))) else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let (web, address) = secure(directory.path(), 2, "", "");
    let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
    eventually("segments", || get(web.http(), "/live/s.m3u8?hls_ctx=abc").text().contains("#EXTINF").then_some(()));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/play_hls.mjs");
    let mut node = bounded("node");
    node.env("PAGE_MODULES", &modules)
        .env("NODE_TLS_REJECT_UNAUTHORIZED", "0")
        .arg(script)
        .arg(format!("http://{}/", web.http()));
    let said = Running::start(node.args([&format!("https://{address}/live/s.m3u8"), "8"])).success();
    let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    let number = |when: &str, name: &str| said[when][name].as_f64().unwrap_or_else(|| panic!("{name}: {said}"));
    assert!((7.4..8.8).contains(&(number("after", "time") - number("before", "time"))), "{said}");
    assert!(number("after", "parts") > 10.0 && number("after", "latency") < 1.5, "{said}");
    assert_eq!(said["after"]["faults"], Value::Array(Vec::new()), "{said}");
    let protocols = said["protocols"].as_array().expect("a list");
    assert!(protocols.len() == 1 && protocols[0] == "h2", "{said}");
    publisher.kill();
}

/// A frame (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a length").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Header fields of a GET, without tables (RFC 7541 §6.2.2).
fn fields(path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", path)] {
        for text in [&[0][..], &[name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()] {
            out.extend_from_slice(text);
        }
    }
    out
}

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM_AND_HEADERS: u8 = 5;

/// A connection whose streams begin with windows of so many bytes.
fn opened(address: SocketAddr, window: u32) -> TcpStream {
    let mut socket = connected(address);
    let settings = [&[0, 4][..], &window.to_be_bytes()].concat();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("a preface");
    socket.write_all(&frame(SETTINGS, 0, 0, &settings)).expect("settings");
    socket
}

/// The next frame: its kind, its stream and how long it is; `None` at the end.
fn next(socket: &mut TcpStream) -> Option<(u8, u32, usize)> {
    let mut head = [0; 9];
    socket.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    socket.read_exact(&mut vec![0; length]).ok()?;
    Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), length))
}

/// Streams taken back as fast as they are opened, header fields that never end, a window that stays shut, garbage: each costs that
/// connection, or nothing at all, and little memory; others go on.
#[test]
fn clients_of_http2_who_mean_no_good() {
    if !have("ffmpeg") {
        return;
    }
    let web = Web { server: Server::shards(2, &config("", "", VHOST)) };
    publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/s")).success();
    let path = format!("/live/{}", segments(&playlist(&web, "/live/s.m3u8?hls_ctx=abc"))[0]);
    let whole = get(web.http(), &path).body;
    let before = web.server.rss_kib();
    // Nothing is sent into a shut window, and all once it opens.
    let mut shut = opened(web.http(), 0);
    shut.write_all(&frame(HEADERS, END_STREAM_AND_HEADERS, 1, &fields(&path))).expect("a request");
    let mut kinds = Vec::new();
    while !kinds.contains(&HEADERS) {
        kinds.push(next(&mut shut).expect("a frame").0);
    }
    assert!(!kinds.contains(&0), "{kinds:?}");
    for stream in [0, 1] {
        shut.write_all(&frame(WINDOW_UPDATE, 0, stream, &1_000_000_u32.to_be_bytes())).expect("a window");
    }
    let mut got = 0;
    while got < whole.len() {
        let (kind, stream, length) = next(&mut shut).expect("a frame");
        got += if kind == 0 && stream == 1 { length } else { 0 };
    }
    assert_eq!(got, whole.len());
    // Rapid reset.
    let mut rapid = opened(web.http(), 0);
    let pairs = (0..3000_u32).flat_map(|number| {
        let stream = 2 * number + 1;
        [frame(HEADERS, END_STREAM_AND_HEADERS, stream, &fields(&path)), frame(RESET, 0, stream, &[0, 0, 0, 8])]
            .concat()
    });
    drop(rapid.write_all(&pairs.collect::<Vec<u8>>()));
    rapid.set_read_timeout(Some(LIMIT)).expect("a timeout");
    let mut last = None;
    while let Some((kind, ..)) = next(&mut rapid) {
        last = Some(kind);
    }
    assert_eq!(last, Some(GOAWAY));
    // Fields without an end.
    let mut endless = opened(web.http(), 65_535);
    drop(endless.write_all(&frame(HEADERS, 1, 1, &fields(&path))));
    let more = frame(CONTINUATION, 0, 1, &[&[0, 1, b'x', 127, 0x81, 0x7E][..], &[b'y'; 16_000]].concat());
    while endless.write_all(&more).is_ok() {}
    // Garbage behind the preface, and half a preface.
    let mut garbage = connected(web.http());
    garbage.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0xFF; 4096][..]].concat()).expect("garbage");
    while next(&mut garbage).is_some() {}
    let mut half = connected(web.http());
    half.write_all(b"PRI * HTTP/2.0\r\n\r\nXX").expect("half of it");
    let mut answer = Vec::new();
    drop(half.read_to_end(&mut answer));
    assert!(answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(get(web.http(), &path).body, whole);
    let grown = web.server.rss_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB");
}

/// Hooks are asked about visits by HTTP/2 too, one after the other, however many are wished for at once; segments come to all, and
/// playlists to those who may.
#[test]
fn visits_by_http2_are_asked_about() {
    if !have("ffmpeg") || !have("curl") || !have("openssl") {
        return;
    }
    let hook = Hook::start(|event| {
        std::thread::sleep(Duration::from_millis(100));
        Some(if event["param"] == "?secret=no" { "1" } else { "0" }.to_owned())
    });
    let hooks = format!("http_hooks {{ enabled on; on_play {}; }}", hook.url);
    let directory = tempfile::tempdir().expect("a directory");
    let (web, address) = secure(directory.path(), 2, "", &hooks);
    publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/s")).success();
    let url = |secret: &str| format!("https://{address}/live/s.m3u8?secret={secret}");
    let mut args = vec!["--http2".to_owned(), "--parallel".to_owned()];
    args.extend(["-w", "%{http_version} %{http_code}\n", "-e", "http://page.example/"].map(str::to_owned));
    for number in 0..8 {
        args.extend(["-o".to_owned(), "/dev/null".to_owned(), url(if number % 4 == 3 { "no" } else { "yes" })]);
    }
    let said = curl(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["2 200", "2 200", "2 200", "2 200", "2 200", "2 200", "2 403", "2 403"]);
    let told = hook.all();
    assert_eq!(told.len(), 8);
    assert!(told.iter().all(|event| event["action"] == "on_play" && event["stream"] == "s"), "{told:?}");
    assert!(told.iter().all(|event| event["pageUrl"] == "http://page.example/"), "{told:?}");
}
