//! HTTP-FLV and WebSocket-FLV: real players get every packet; requests are answered as HTTP asks.

use crate::{
    live::Live,
    media::{
        Packet, Running, aac_only, av1, avc_aac, avc_only, bounded, ffmpeg9, have, hevc, packets, packets_of_file,
        play_hashes, publish, publish_on, track,
    },
    peer::{AVC_HEADER, Peer, connected},
    rtmps::make_certificate,
    server::{Server, eventually},
    web::{Web, get, node_modules, raw, read_answer, read_chunks, read_head, request, websocket},
};
use bytes::Bytes;
use corecast::proto::flv::{Tag, TagKind, file};
use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
};

/// Packets without their times, which begin elsewhere.
fn hashes(packets: &[Packet]) -> Vec<Vec<String>> {
    [0, 1].map(|number| track(packets, number).into_iter().map(|packet| packet.2).collect()).to_vec()
}

/// ffmpeg plays to the end of the stream, which ends the response: every packet, at the times published.
fn plays_whole(ffmpeg: &Path, published: &Path) {
    let web = Web::flv();
    let player = play_hashes(ffmpeg, &web.flv_url("/live/livestream.flv"));
    web.server.wait_for_log("play peer", 1);
    publish(ffmpeg, published, &web.server.url("/live/livestream")).success();
    assert_eq!(packets(&player.success()), packets_of_file(ffmpeg, published));
}

#[test]
fn http_flv_h264_and_aac_arrive_whole() {
    if have("ffmpeg") {
        plays_whole(Path::new("ffmpeg"), &avc_aac());
    }
}

#[test]
fn http_flv_hevc_arrives_whole() {
    if let Some(ffmpeg) = ffmpeg9() {
        plays_whole(&ffmpeg, &hevc(&ffmpeg));
    }
}

#[test]
fn http_flv_av1_arrives_whole() {
    if let Some(ffmpeg) = ffmpeg9() {
        plays_whole(&ffmpeg, &av1(&ffmpeg));
    }
}

/// Tags of an FLV file whose every back pointer is right; with the header's flags.
fn strict_tags(file: &[u8]) -> (u8, Vec<Tag>) {
    assert_eq!((&file[..4], &file[5..13]), (&b"FLV\x01"[..], &[0, 0, 0, 9, 0, 0, 0, 0][..]));
    let mut at = 13;
    while at < file.len() {
        let size = 11 + u32::from_be_bytes([0, file[at + 1], file[at + 2], file[at + 3]]) as usize;
        assert_eq!(&file[at + 8..at + 11], [0; 3], "StreamID is 0");
        at += size;
        assert_eq!(file[at..at + 4], (size as u32).to_be_bytes(), "the back pointer");
        at += 4;
    }
    (file[4], file::read_file(Bytes::copy_from_slice(file)).expect("FLV"))
}

/// curl gets a file whose tags are those published, byte for byte, from 0 on.
#[test]
fn curl_gets_a_whole_file() {
    if !have("curl") || !have("ffmpeg") {
        return;
    }
    let web = Web::flv();
    let file = web.server.file("curl.flv");
    let mut curl = bounded("curl");
    let player = Running::start(curl.args(["-sS", "-o"]).arg(&file).arg(web.flv_url("/live/livestream.flv")));
    web.server.wait_for_log("play peer", 1);
    publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/livestream")).success();
    player.success();
    let (flags, played) = strict_tags(&fs::read(&file).expect("a file"));
    let (_, published) = strict_tags(&fs::read(avc_aac()).expect("a file"));
    let media = |tags: &[Tag], kind: TagKind| -> Vec<(u32, Bytes)> {
        tags.iter().filter(|tag| tag.kind == kind).map(|tag| (tag.timestamp, tag.body.clone())).collect()
    };
    assert_eq!(flags, 5);
    for kind in [TagKind::Audio, TagKind::Video] {
        assert_eq!(media(&played, kind), media(&published, kind), "{kind:?}");
    }
    assert_eq!(played[0].kind, TagKind::Script, "metadata first");
}

/// VLC plays to the end: what it counts is what was published, but for the last frames in its own muxer.
#[test]
fn vlc_plays_http_flv() {
    if !(have("cvlc") && have("ffmpeg") && have("setpriv")) {
        return;
    }
    let web = Web::flv();
    let file = web.server.file("played.ts");
    fs::write(&file, []).expect("a file");
    let directory = file.parent().expect("a directory");
    let open = std::process::Command::new("chmod").args(["-R", "a+rwX"]).arg(directory).status();
    assert!(open.expect("chmod").success());
    let mut command = bounded("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "cvlc", "-I", "dummy", "--no-plugins-cache"]);
    command.arg(web.flv_url("/live/vlc.flv"));
    command.arg(format!("--sout=#std{{access=file,mux=ts,dst={}}}", file.display())).arg("vlc://quit");
    let player = Running::start(command.env("HOME", directory));
    web.server.wait_for_log("play peer", 1);
    publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/vlc")).success();
    player.output();
    let count = |path: &Path| {
        let args = ["-v", "error", "-select_streams", "v", "-count_packets", "-show_entries", "stream=nb_read_packets"];
        let mut probe = bounded("ffprobe");
        let text = Running::start(probe.args(args).args(["-of", "csv=p=0"]).arg(path)).success();
        let first = text.lines().next().unwrap_or_default();
        first.trim_end_matches(',').parse::<u32>().unwrap_or_else(|_| panic!("{text}"))
    };
    let (played, published) = (count(&file), count(&avc_aac()));
    assert!((published - 10..=published).contains(&played), "{played} of {published} video packets");
}

/// Who comes late begins at a keyframe, at time 0, in every framing alike.
#[test]
fn a_late_joiner_begins_at_a_keyframe() {
    if !have("ffprobe") {
        return;
    }
    let web = Web::flv();
    let publisher = publish_on(&avc_aac(), &web.server.url("/live/late"));
    web.live("late");
    let mut probe = bounded("ffprobe");
    probe.args(["-v", "error", "-show_entries", "packet=codec_type,dts_time,flags", "-of", "csv=p=0"]);
    probe.args(["-read_intervals", "%+#20", &web.flv_url("/live/late.flv")]);
    let text = Running::start(&mut probe).success();
    let first = text.lines().find(|line| line.starts_with("video")).unwrap_or_else(|| panic!("no video: {text}"));
    assert!(first.contains(",K"), "{text}");
    let earliest = text.lines().filter_map(|line| line.split(',').nth(1)?.parse::<f64>().ok()).fold(f64::MAX, f64::min);
    assert!(earliest.abs() < 0.001, "the first packet is at {earliest}: {text}");
    publisher.kill();
}

/// The header's flags say what the stream has, or what the configuration says.
#[test]
fn flags_follow_the_stream_and_the_configuration() {
    if !have("ffmpeg") {
        return;
    }
    let flags = |vhost: &str, published: &Path| {
        let web = Web::start(&format!("http_remux {{ enabled on; wait_stream 20; {vhost} }}"));
        let mut socket = ask_for(web.http(), "/live/s.flv");
        web.server.wait_for_log("play peer", 1);
        publish(Path::new("ffmpeg"), published, &web.server.url("/live/s")).success();
        read_head(&mut socket).expect("a head");
        let (flags, tags) = strict_tags(&read_chunks(&mut socket));
        let has = |kind| u8::from(tags.iter().any(|tag| tag.kind == kind));
        (flags, has(TagKind::Audio) << 2 | has(TagKind::Video))
    };
    assert_eq!(flags("", &avc_only()), (1, 1));
    assert_eq!(flags("", &aac_only()), (4, 4));
    assert_eq!(flags("guess_has_av off;", &avc_only()), (5, 1));
    assert_eq!(flags("has_audio off;", &avc_aac()), (1, 1), "drop_if_not_match leaves audio out");
    assert_eq!(flags("has_video off; drop_if_not_match off;", &avc_aac()), (4, 5));
}

fn ask_for(address: SocketAddr, path: &str) -> TcpStream {
    let mut socket = connected(address);
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).expect("a request");
    socket
}

/// HEAD, Range, conditions, HTTP/1.0, CORS, vhosts, what is missing; many requests on one connection.
#[test]
fn requests_are_answered_as_http_asks() {
    let web = Web {
        server: Server::start(&crate::web::config(
            "vhost other.host { http_remux { enabled on; mount [vhost]/[app]/[stream].flv; } } vhost plain.host { }",
            "",
            "http_remux { enabled on; }",
        )),
    };
    let _live = Live::start(web.server.address(), "live", "s", 20, 25, 0);
    let _other = Live::start(web.server.address(), "live", "o?vhost=other.host", 20, 25, 0);
    web.live("s");
    web.live("o");
    let head = request(web.http(), "HEAD", "/live/s.flv", "");
    assert_eq!(head.status, 200);
    for line in [
        "content-type: video/x-flv",
        "transfer-encoding: chunked",
        "access-control-allow-origin: *",
        "accept-ranges: none",
    ] {
        assert!(head.has(line), "{line}: {head:?}");
    }
    let status = |path: &str, fields: &str| request(web.http(), "GET", path, fields).status;
    assert_eq!(status("/live/s.flv", "Range: bytes=0-99\r\n"), 200, "a live stream has no ranges");
    assert_eq!(status("/live/s.flv", "If-None-Match: *\r\nIf-Modified-Since: Sat, 01 Jan 2050 00:00:00 GMT\r\n"), 200);
    assert_eq!((status("/live/none.flv", ""), status("/live/s.ts", ""), status("/live/", "")), (404, 404, 404));
    assert_eq!(status("/live/o.flv", ""), 404, "it is another vhost's");
    assert_eq!((status("/live/o.flv?vhost=other.host", ""), status("/live/s.flv?vhost=plain.host", "")), (200, 404));
    let by_host = raw(web.http(), b"GET /live/o.flv HTTP/1.1\r\nHost: other.host:8080\r\n\r\n", true);
    assert_eq!((by_host.status, status("/live/%73.flv?a=b", "")), (200, 200));
    let options = request(web.http(), "OPTIONS", "/live/s.flv", "Origin: http://x\r\n");
    assert!(options.status == 200 && options.has("access-control-allow-origin: *"), "{options:?}");
    let post = request(web.http(), "POST", "/live/s.flv", "Content-Length: 0\r\n");
    assert!(post.status == 405 && post.has("allow: get, head"), "{post:?}");
    let old = raw(web.http(), b"GET /live/s.flv HTTP/1.0\r\n\r\n", true);
    assert!(old.status == 200 && !old.head.contains("chunked") && old.has("connection: close"), "{old:?}");
    // One connection: what is missing, the page, HEAD, missing again, and in the end the stream.
    let mut socket = connected(web.http());
    for _ in 0..3 {
        for (method, path, expected) in
            [("GET", "/live/none.flv", 404), ("GET", "/", 200), ("HEAD", "/live/s.flv", 200)]
        {
            socket.write_all(format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).expect("a request");
            let answer = read_answer(&mut socket, method == "HEAD").expect("an answer");
            assert_eq!((answer.status, path), (expected, path));
        }
    }
    socket.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /page/app.js HTTP/1.1\r\nHost: h\r\n\r\nGET /live/s.flv HTTP/1.1\r\nHost: h\r\n\r\n").expect("three at once");
    let pages: Vec<u16> = (0..2).map(|_| read_answer(&mut socket, false).expect("an answer").status).collect();
    assert_eq!((pages, read_answer(&mut socket, true).expect("an answer").status), (vec![200, 200], 200));
    let mut begin = [0; 7];
    socket.read_exact(&mut begin).expect("FLV");
    assert_eq!(&begin, b"D\r\nFLV\x01");
}

/// A request for a stream that is not there waits as long as the vhost says; the end of a publish ends the
/// response, and the connection goes on.
#[test]
fn a_missing_stream_is_waited_for() {
    let web = Web::start("http_remux { enabled on; wait_stream 2; }");
    let started = std::time::Instant::now();
    assert_eq!(get(web.http(), "/live/none.flv").status, 404);
    let waited = started.elapsed().as_millis();
    assert!((1900..4500).contains(&waited), "{waited} ms");
    let mut socket = ask_for(web.http(), "/live/s.flv");
    web.server.wait_for_log("play peer", 2);
    for _ in 0..2 {
        let mut publisher = Peer::publish(web.server.address(), "live", "s");
        publisher.send_gop(1, 0, 50);
        assert!(read_head(&mut socket).expect("a head").contains("200 OK"));
        drop(publisher);
        let (flags, tags) = strict_tags(&read_chunks(&mut socket));
        let frames = tags.iter().filter(|tag| tag.body.get(1) == Some(&1)).count();
        assert_eq!((flags, frames), (5, 100), "everything of the publish, and its end");
        let request = b"GET /live/s.flv HTTP/1.1\r\nHost: h\r\n\r\n";
        socket.write_all(request).expect("the next request");
    }
    // A client that has sent everything it will, and waits for the answer, is not one that has gone.
    socket.shutdown(Shutdown::Both).expect("a shutdown");
}

/// Another publisher takes the stream over: players see one stream that goes on.
#[test]
fn players_stay_through_a_takeover() {
    let web = Web::start("publish { takeover replace; } http_remux { enabled on; wait_stream 20; }");
    let mut socket = ask_for(web.http(), "/live/s.flv");
    web.server.wait_for_log("play peer", 1);
    let mut first = Peer::publish(web.server.address(), "live", "s");
    first.send_gop(1, 0, 25);
    read_head(&mut socket).expect("a head");
    let mut second = Peer::publish(web.server.address(), "live", "s");
    let sent = || {
        let clients = web.ask("/api/v1/clients")["clients"].clone();
        let player = clients.as_array()?.iter().find(|client| client["type"] == "flv-play")?.clone();
        player["send_bytes"].as_u64()
    };
    let before = sent();
    second.send_gop(1, 5000, 25);
    eventually("the second publish at the player", || (sent() > before).then_some(()));
    drop(second);
    let (_, tags) = strict_tags(&read_chunks(&mut socket));
    let video: Vec<u32> =
        tags.iter().filter(|tag| tag.kind == TagKind::Video && tag.body[1] == 1).map(|tag| tag.timestamp).collect();
    assert_eq!((video.len(), video[0], video[25]), (50, 0, 980), "{video:?}");
    let headers = tags.iter().filter(|tag| tag.body == AVC_HEADER).count();
    assert_eq!(headers, 2, "each publish's sequence header");
}

/// A WebSocket client that others wrote gets the same bytes, each tag a message.
#[test]
fn websocket_flv_arrives_whole() {
    let Some(modules) = node_modules().filter(|_| have("node") && have("ffmpeg")) else { return };
    let web = Web::flv();
    let file = web.server.file("ws.flv");
    let player = websocket(&modules, &format!("ws://{}/live/ws.flv", web.http()), &file);
    web.server.wait_for_log("WebSocket", 1);
    publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/ws")).success();
    player.success();
    strict_tags(&fs::read(&file).expect("a file"));
    let ffmpeg = Path::new("ffmpeg");
    assert_eq!(hashes(&packets_of_file(ffmpeg, &file)), hashes(&packets_of_file(ffmpeg, &avc_aac())));
}

/// The same through TLS, by ffmpeg and curl; the page too.
#[test]
fn https_flv_arrives_whole() {
    if !have("ffmpeg") || !have("curl") || !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    make_certificate(directory.path(), "localhost");
    let path = directory.path().display();
    let server = Server::start(&format!(
        "listen 127.0.0.1:0; http_server {{ enabled on; listen 127.0.0.1:0; https {{ enabled on; listen 127.0.0.1:0; \
         key {path}/server.key; cert {path}/server.crt; }} }} vhost __defaultVhost__ {{ http_remux {{ enabled on; wait_stream 20; }} }}"
    ));
    let secure = server.addresses()[2];
    let url = format!("https://{secure}/live/livestream.flv");
    let file = server.file("curl.flv");
    let curl = Running::start(bounded("curl").args(["-sSk", "-o"]).arg(&file).arg(&url));
    let ffmpeg = play_hashes(Path::new("ffmpeg"), &url);
    server.wait_for_log("play peer", 2);
    publish(Path::new("ffmpeg"), &avc_aac(), &server.url("/live/livestream")).success();
    curl.success();
    let published = packets_of_file(Path::new("ffmpeg"), &avc_aac());
    assert_eq!(packets(&ffmpeg.success()), published);
    assert_eq!(hashes(&packets_of_file(Path::new("ffmpeg"), &file)), hashes(&published));
    // The page, and a missing stream, on one connection.
    let urls =
        [format!("https://{secure}/"), format!("https://{secure}/page/mpegts.js"), format!("https://{secure}/nothing")];
    let text = Running::start(
        bounded("curl")
            .args(["-sSk", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n"])
            .arg(&urls[0])
            .args(["-o", "/dev/null"])
            .arg(&urls[1])
            .args(["-o", "/dev/null"])
            .arg(&urls[2]),
    )
    .success();
    assert_eq!(text, "200 1\n200 0\n404 0\n");
}

/// Players of RTMP, HTTP-FLV and WebSocket at once, on all shards, with one that leaves: nobody misses
/// anything, and the API counts them.
#[test]
fn players_of_all_protocols_share_a_stream() {
    let web = Web::flv();
    let _live = Live::start(web.server.address(), "live", "s", 20, 25, 0);
    web.live("s");
    let mut sockets: Vec<TcpStream> = (0..40).map(|_| ask_for(web.http(), "/live/s.flv")).collect();
    let mut rtmp: Vec<Peer> = (0..5).map(|_| Peer::play(web.server.address(), "live", "s")).collect();
    rtmp.iter_mut().for_each(|peer| drop(peer.expect_frames(10)));
    for socket in &mut sockets {
        assert!(read_head(socket).expect("a head").contains("200 OK"));
    }
    sockets.truncate(39);
    eventually("44 players", || (web.live("s")["players"] == 44).then_some(()));
    let kinds = web.ask("/api/v1/clients?count=100");
    let of = |kind: &str| {
        kinds["clients"].as_array().expect("a list").iter().filter(|client| client["type"] == kind).count()
    };
    assert_eq!((of("flv-play"), of("rtmp-play"), of("fmle-publish")), (39, 5, 1), "{kinds}");
}
