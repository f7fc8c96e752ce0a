//! `refer`: pages that may have a vhost's streams in them.

use crate::{
    media::{avc_aac, bounded, have, publish_on},
    peer::Peer,
    server::Server,
};
use corecast::proto::{amf::Value, rtmp::handshake::Scheme};
use std::process::{Command, Stdio};

const CONFIG: &str = "listen 127.0.0.1:0; http_server { enabled on; listen 127.0.0.1:0; }
    vhost __defaultVhost__ { refer { enabled on; all example.com; publish studio.example.com; } }
    vhost 127.0.0.1 { http_remux { enabled on; } refer { enabled on; play example.com 127.0.0.2; } }
    vhost old.example { refer_play example.org; }";

/// Publishers, by RTMP's pageUrl; ffmpeg sends none when it publishes.
#[test]
fn publishers_from_pages_that_may() {
    let server = Server::start(CONFIG);
    let publish = |page: &str| {
        let mut peer = Peer::handshake(server.address(), Scheme::Simple);
        let fields = [("app", "live"), ("tcUrl", "rtmp://h/live"), ("pageUrl", page)];
        peer.command(0, "connect", 1.0, &[Value::object(fields.map(|(name, text)| (name, Value::string(text))))]);
        peer.expect_result(1.0);
        let msid = peer.create_stream();
        peer.command(msid, "publish", 0.0, &[Value::Null, Value::string("p"), Value::string("live")]);
        peer
    };
    for page in ["", "http://www.example.com/", "http://studio.example.com.evil.org/"] {
        publish(page).expect_status("NetStream.Publish.BadName");
    }
    server.wait_for_log("may not publish (refer)", 3);
    publish("http://studio.example.com:8080/on/air").expect_status("NetStream.Publish.Start");
}

/// What ffprobe makes of a stream in a page; tells whether it got it.
fn plays(server: &Server, stream: &str, page: &str) -> bool {
    let mut probe = bounded("ffprobe");
    probe.args(["-v", "error", "-rtmp_live", "live"]);
    if !page.is_empty() {
        probe.args(["-rtmp_pageurl", page]);
    }
    probe.arg(server.url(stream)).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().expect("ffprobe").success()
}

/// What HTTP says to a request from a page.
fn status(server: &Server, page: &str) -> String {
    let url = format!("http://{}/live/a.flv", server.addresses()[1]);
    let mut curl = Command::new("curl");
    curl.args(["-s", "-m", "2", "-o", "/dev/null", "-w", "%{http_code}", &url]);
    if !page.is_empty() {
        curl.args(["-e", page]);
    }
    String::from_utf8_lossy(&curl.output().expect("curl").stdout).into_owned()
}

/// Players: ffmpeg by RTMP's pageUrl, curl by HTTP's Referer.
#[test]
fn players_from_pages_that_may() {
    if !have("ffmpeg") || !have("ffprobe") || !have("curl") {
        return;
    }
    let server = Server::start(CONFIG);
    let publisher = publish_on(&avc_aac(), &server.url("/live/a"));
    server.wait_for_log("publish: AVC", 1);
    assert!(plays(&server, "/live/a", "https://www.example.com/watch"));
    for page in ["", "http://evilexample.com/", "http://evil.org/www.example.com"] {
        assert!(!plays(&server, "/live/a", page), "{page}");
    }
    assert_eq!(
        (status(&server, "https://example.com/watch?v=1"), status(&server, "http://127.0.0.2/")),
        ("200".into(), "200".into())
    );
    for page in ["", "http://evil.org/example.com"] {
        assert_eq!(status(&server, page), "403", "{page}");
    }
    publisher.kill();
    // The old form.
    let old = publish_on(&avc_aac(), &server.url("/live/b?vhost=old.example"));
    server.wait_for_log("publish: AVC", 2);
    assert!(plays(&server, "/live/b?vhost=old.example", "http://example.org/"));
    assert!(!plays(&server, "/live/b?vhost=old.example", "http://example.com/"));
    old.kill();
}
