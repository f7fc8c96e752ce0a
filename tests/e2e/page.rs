//! The page, as a person uses it in Chromium.

use crate::{
    live::Live,
    media::{Running, avc_aac, avc_only, bounded, have, publish_on},
    web::{Web, get, node_modules, request},
};
use serde_json::Value;
use std::path::Path;

/// Two streams are listed; the first plays by HTTP-FLV, HLS and DASH and the second by WebSocket, started from the keyboard:
/// time advances, frames are decoded, nothing is wider than a phone, no fault is said.
#[test]
fn the_page_plays_in_a_browser() {
    let Some(modules) = node_modules().filter(|_| have("node") && have("chromium") && have("ffmpeg")) else { return };
    let segments =
        "hls { enabled on; hls_fragment 1; hls_use_fmp4 on; } dash { enabled on; dash_fragment 1; dash_ll on; }";
    let web = Web::start(&format!("http_remux {{ enabled on; }} {segments}"));
    let publish = |file: &Path, name: &str| publish_on(file, &web.server.url(&format!("/live/{name}")));
    let publishers = [publish(&avc_aac(), "first"), publish(&avc_only(), "second")];
    web.live("first");
    web.live("second");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/play.mjs");
    let mut node = bounded("node");
    node.env("PAGE_MODULES", modules).arg(script).arg(format!("http://{}/", web.http()));
    let said = Running::start(&mut node).success();
    let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!((&said["rows"][0][0], &said["rows"][1][0]), (&"live/first".into(), &"live/second".into()), "{said}");
    assert_eq!((&said["rows"][0][1], &said["rows"][0][2]), (&"H264 640×360 High 3".into(), &"AAC 44.1 kHz".into()));
    for (number, how) in [(0, "flv"), (1, "ws"), (2, "hls"), (3, "dash")] {
        let (before, after) = (&said["before"][number], &said["after"][number]);
        let advanced = after["time"].as_f64().expect("a time") - before["time"].as_f64().expect("a time");
        let frames = after["frames"].as_u64().expect("frames") - before["frames"].as_u64().expect("frames");
        assert!(after["how"] == how && after["width"] == 640, "{said}");
        assert!((1.5..6.0).contains(&advanced) && frames > 30, "{advanced} s, {frames} frames: {said}");
    }
    assert_eq!((&said["overflow"], &said["faults"]), (&false.into(), &Value::Array(Vec::new())), "{said}");
    assert!(said["charts"].as_u64() >= Some(2), "{said}");
    publishers.into_iter().for_each(Running::kill);
}

/// The page's files: types, a policy, conditions.
#[test]
fn the_page_s_files_are_served() {
    let web = Web::start("http_remux { enabled on; }");
    let _live = Live::start(web.server.address(), "live", "s", 20, 25, 0);
    for (path, content_type) in [
        ("/", "text/html"),
        ("/index.html", "text/html"),
        ("/page/app.js", "text/javascript"),
        ("/page/style.css", "text/css"),
        ("/page/mpegts.js", "text/javascript"),
        ("/page/hls.js", "text/javascript"),
        ("/page/dash.js", "text/javascript"),
        ("/page/licences.txt", "text/plain"),
    ] {
        let answer = get(web.http(), path);
        assert!(
            answer.status == 200 && answer.head.contains(&format!("content-type: {content_type}")),
            "{path}: {}",
            answer.head
        );
        assert!(
            answer.head.contains("content-security-policy: default-src 'self'")
                && answer.has("x-content-type-options: nosniff")
        );
        let tag = answer.head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag").to_owned();
        let again = request(web.http(), "GET", path, &format!("If-None-Match: {tag}\r\n"));
        assert_eq!((again.status, again.body.len()), (304, 0));
        let head = request(web.http(), "HEAD", path, "");
        assert!(head.status == 200 && head.has(&format!("content-length: {}", answer.body.len())), "{head:?}");
    }
    // A directory's files come first; its index takes the page's place.
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("index.html"), "mine").expect("a file");
    std::fs::write(dir.path().join("crossdomain.xml"), "<x/>").expect("a file");
    let text = crate::web::config("", "", "").replacen(
        "http_server {",
        &format!("http_server {{ dir {};", dir.path().display()),
        1,
    );
    let own = Web { server: crate::server::Server::start(&text) };
    assert_eq!(
        (get(own.http(), "/").text(), get(own.http(), "/crossdomain.xml").text()),
        ("mine".to_owned(), "<x/>".to_owned())
    );
    assert!(get(own.http(), "/page/").text().contains("<title>corecast</title>"));
    assert!(get(web.http(), "/page/mpegts.js").body.len() > 100_000, "npm was there when this was built");
}
