//! The app is what tcUrl says.

use crate::{
    media::{Running, avc_aac, bounded, have},
    peer::{Peer, command, status_code},
    server::Server,
};
use corecast::proto::{amf::Value, rtmp::handshake::Scheme};

/// Connects with what is given, publishes, and returns the key that the stream got; `Err` if it is refused.
fn key_of(server: &Server, tc_url: Option<&str>, app: Option<&str>, stream: &str) -> Result<String, String> {
    let mut peer = Peer::handshake(server.address(), Scheme::Simple);
    let properties = [("app", app), ("tcUrl", tc_url)];
    let given = properties.into_iter().filter_map(|(key, value)| Some((key.into(), Value::string(value?))));
    peer.command(0, "connect", 1.0, &[Value::Object(given.collect())]);
    peer.expect_result(1.0);
    let msid = peer.create_stream();
    let before = server.log().len();
    peer.command(msid, "play", 0.0, &[Value::Null, Value::string(stream)]);
    let code = peer.find("an answer", |message| {
        let code = status_code(&command(message)?)?.to_owned();
        (code != "NetStream.Play.Reset").then_some(code)
    });
    if code != "NetStream.Play.Start" {
        return Err(code);
    }
    Ok(crate::server::eventually("the log of it", || {
        let log = server.log().split_off(before);
        let key = log.lines().find_map(|line| line.split("stream=").nth(1))?.split_whitespace().next()?.to_owned();
        Some(key)
    }))
}

/// tcUrl's path is the app, whatever the property of that name says; without tcUrl it is the property.
#[test]
fn the_app_comes_from_tc_url() {
    let server =
        Server::start("listen 127.0.0.1:0; vhost __defaultVhost__ { } vhost a.example { } vhost b.example { }");
    let default = |name: &str| format!("__defaultVhost__/{name}");
    let cases: [(Option<&str>, Option<&str>, &str, String); 19] = [
        (Some("rtmp://h/live"), Some("live"), "s", default("live/s")),
        (Some("rtmp://h/live"), None, "s", default("live/s")),
        (Some("rtmp://h/live"), Some(""), "s", default("live/s")),
        (Some("rtmp://h/live"), Some("other"), "s", default("live/s")),
        (Some("rtmp://h:1935/live/"), Some("other"), "s", default("live/s")),
        (Some("rtmp://h/a/b"), Some("a"), "s", default("a/b/s")),
        (Some("rtmp://h/a"), Some("a/b"), "s", default("a/s")),
        (Some("rtmp://h/a"), Some("other"), "b/s", default("a/b/s")),
        (Some("rtmp://h/live/_definst_"), Some("live"), "s", default("live/s")),
        (Some("rtmp://h/live?vhost=a.example"), Some("live"), "s", "a.example/live/s".to_owned()),
        (Some("rtmp://h/live?domain=a.example"), Some("other"), "s", "a.example/live/s".to_owned()),
        (Some("rtmp://h/live...vhost...b.example"), Some("live"), "s", "b.example/live/s".to_owned()),
        (Some("rtmp://a.example/live"), Some("other"), "s?vhost=b.example&t=1", "b.example/live/s".to_owned()),
        (Some("rtmp://a.example/live?t=1"), Some("other"), "s", "a.example/live/s".to_owned()),
        (Some("rtmp://h"), Some(""), "s", default("__defaultApp__/s")),
        (Some("rtmp://h/"), Some(""), "s", default("__defaultApp__/s")),
        (None, Some("live"), "s", default("live/s")),
        (None, Some("live?vhost=a.example"), "s", "a.example/live/s".to_owned()),
        (Some(""), Some("live"), "s", default("live/s")),
    ];
    let mut wrong = Vec::new();
    for (tc_url, app, stream, key) in cases {
        let found = key_of(&server, tc_url, app, stream);
        if found.as_ref() != Ok(&key) {
            wrong.push(format!("tcUrl {tc_url:?}, app {app:?}, stream {stream}: {found:?}, not {key}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// ffmpeg with an app of its own: the stream is where tcUrl says.
#[test]
fn ffmpeg_with_another_app_publishes_to_tc_urls() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::plain();
    let mut command = bounded("ffmpeg");
    command.args(["-v", "error", "-i"]).arg(avc_aac()).args(["-c", "copy", "-f", "flv"]);
    command.args(["-rtmp_app", "other", "-rtmp_tcurl", &server.url("/live"), &server.url("/ignored/s")]);
    Running::start(&mut command).success();
    server.wait_for_log("unpublish", 1);
    let log = server.log();
    let key = log.lines().find_map(|line| line.split("stream=").nth(1)?.split_whitespace().next());
    assert_eq!(key, Some("__defaultVhost__/live/s"));
}
