//! Hooks, signed URLs, access rules: who is asked, what they are told, and what their faults cost.

use crate::{
    live::Live,
    media::{Running, avc_aac, bounded, have},
    peer::{Peer, connected},
    server::{Server, eventually, field},
    web::{Web, get},
};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A hook server: keeps what it is told, and answers as it is told to.
pub(crate) struct Hook {
    pub(crate) url: String,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Hook {
    /// `answer` makes a body of the event; `None` hangs for ever.
    pub(crate) fn start(answer: impl Fn(&Value) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let told: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (keep, answer) = (Arc::clone(&told), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, keep, answer) =
                    (stream.expect("a connection"), Arc::clone(&keep), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut request = Vec::new();
                    let body = loop {
                        let mut buffer = [0; 4096];
                        let Ok(read @ 1..) = stream.read(&mut buffer) else { return };
                        request.extend_from_slice(&buffer[..read]);
                        let text = String::from_utf8_lossy(&request).into_owned();
                        if let Some((_, body)) = text.split_once("\r\n\r\n")
                            && let Ok(event) = serde_json::from_str::<Value>(body)
                        {
                            break event;
                        }
                    };
                    let reply = answer(&body);
                    keep.lock().expect("the list").push(body);
                    match reply {
                        None => std::thread::sleep(Duration::from_secs(100)),
                        Some(text) => {
                            let head = format!(
                                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                                text.len()
                            );
                            drop(stream.write_all(format!("{head}{text}").as_bytes()));
                        }
                    }
                });
            }
        });
        Self { url, told }
    }

    pub(crate) fn all(&self) -> Vec<Value> {
        self.told.lock().expect("the list").clone()
    }

    /// Waits for an event of an action.
    pub(crate) fn wait(&self, action: &str) -> Value {
        eventually(action, || self.all().into_iter().find(|event| event["action"] == action))
    }
}

fn section(hook: &Hook, more: &str) -> String {
    let urls: Vec<String> = ["on_connect", "on_close", "on_publish", "on_unpublish", "on_play", "on_stop"]
        .iter()
        .map(|name| format!("{name} {};", hook.url))
        .collect();
    format!("http_hooks {{ enabled on; {} {more} }}", urls.join(" "))
}

/// Everybody is told of everything with SRS's fields, by ffmpeg's publish and play, RTMP and HTTP.
#[test]
fn hooks_are_told_what_srs_tells() {
    if !have("ffmpeg") {
        return;
    }
    let hook = Hook::start(|_| Some("{\"code\": 0}".to_owned()));
    let web = Web::start(&format!("http_remux {{ enabled on; wait_stream 10; }} {}", section(&hook, "")));
    let mut command = bounded("ffmpeg");
    command.args(["-v", "error", "-re", "-i"]).arg(avc_aac()).args(["-c", "copy", "-f", "flv"]);
    let publisher = Running::start(command.arg(web.server.url("/live/livestream?token=abc")));
    web.live("livestream");
    let mut player = Peer::play(web.server.address(), "live", "livestream?who=me");
    player.expect_frames(20);
    drop(player);
    let mut socket = connected(web.http());
    socket
        .write_all(b"GET /live/livestream.flv?key=1 HTTP/1.1\r\nHost: h\r\nReferer: http://page/\r\n\r\n")
        .expect("a request");
    let mut begin = [0; 100];
    socket.read_exact(&mut begin).expect("a response");
    drop(socket);
    publisher.success();
    let publish = hook.wait("on_publish");
    for (field, value) in [
        ("app", "live"),
        ("stream", "livestream"),
        ("param", "?token=abc"),
        ("vhost", "__defaultVhost__"),
        ("ip", "127.0.0.1"),
        ("stream_url", "/live/livestream"),
    ] {
        assert_eq!(publish[field], value, "{publish}");
    }
    let connect = hook.wait("on_connect");
    assert!(connect["tcUrl"].as_str().is_some_and(|url| url.starts_with("rtmp://127.0.0.1")), "{connect}");
    let client = publish["client_id"].as_str().expect("an id").to_owned();
    let unpublish = hook.wait("on_unpublish");
    assert_eq!((unpublish["stream"].as_str(), &unpublish["stream_id"]), (Some("livestream"), &publish["stream_id"]));
    let counts = || {
        let all = hook.all();
        let count = |action: &str| all.iter().filter(|event| event["action"] == action).count();
        [count("on_play"), count("on_stop"), count("on_close")]
    };
    eventually("two plays, stops, and closes", || {
        println!("{:?}", counts());
        (counts() == [2, 2, 2]).then_some(())
    });
    let plays: Vec<Value> = hook.all().into_iter().filter(|event| event["action"] == "on_play").collect();
    assert!(
        plays.iter().any(|play| play["param"] == "?who=me")
            && plays.iter().any(|play| play["param"] == "?key=1" && play["pageUrl"] == "http://page/"),
        "{plays:?}"
    );
    let close = hook.wait("on_close");
    assert!(close["send_bytes"].as_u64() > Some(0) && close["recv_bytes"].as_u64() > Some(0), "{close}");
    assert!(!client.is_empty());
}

/// Who is refused is told so and closed; the others go on.
#[test]
fn hooks_refuse_connects_publishes_and_plays() {
    let hook = Hook::start(|event| {
        let bad = |field: &str, word: &str| event[field].as_str().is_some_and(|text| text.contains(word));
        Some(if bad("app", "closed") || bad("param", "token=bad") { "1" } else { "0" }.to_owned())
    });
    let web = Web::start(&format!("http_remux {{ enabled on; }} {}", section(&hook, "")));
    let _live = Live::start(web.server.address(), "live", "s", 20, 25, 0);
    let mut peer = Peer::handshake(web.server.address(), corecast::proto::rtmp::handshake::Scheme::Simple);
    // As with SRS, a connection is judged with the first stream that it wants.
    peer.connect_app("closed", &format!("rtmp://{}/closed", web.server.address()));
    peer.expect_result(1.0);
    let msid = peer.create_stream();
    let name = corecast::proto::amf::Value::string("s");
    peer.command(msid, "publish", 5.0, &[corecast::proto::amf::Value::Null, name]);
    peer.expect_status("NetStream.Publish.BadName");
    assert!(peer.next().is_none(), "closed");
    for (command, code) in [("publish", "NetStream.Publish.BadName"), ("play", "NetStream.Play.Failed")] {
        let mut peer = Peer::connect(web.server.address(), "live");
        let msid = peer.create_stream();
        let name = corecast::proto::amf::Value::string("s2?token=bad");
        peer.command(msid, command, 5.0, &[corecast::proto::amf::Value::Null, name]);
        peer.expect_status(code);
        assert!(peer.next().is_none(), "{command}: closed");
    }
    assert_eq!(get(web.http(), "/live/s.flv?token=bad").status, 403);
    Peer::play(web.server.address(), "live", "s?token=good").expect_frames(5);
    assert!(get(web.exporter(), "/metrics").text().contains("corecast_refusals_total{reason=\"hook\"} 4"));
}

/// Only the shards are pinned: whatever a shard starts, such as a hook's thread, runs wherever the process may.
#[test]
fn only_shards_are_pinned() {
    let hook = Hook::start(|_| Some("0".to_owned()));
    let web = Web::start(&format!("http_remux {{ enabled on; }} {}", section(&hook, "")));
    let peers: Vec<Peer> =
        (0..8).map(|number| Peer::publish(web.server.address(), "live", &format!("s{number}"))).collect();
    assert_eq!(get(web.exporter(), "/metrics").status, 200);
    let own = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let threads = web.server.threads();
    for name in ["hook", "control", "keep-awake", "shard"] {
        assert!(threads.iter().any(|(thread, _)| thread.starts_with(name)), "{name}: {threads:?}");
    }
    for (name, mask) in threads.iter().filter(|(name, _)| !name.starts_with("shard-")) {
        assert_eq!(Some(mask.as_str()), field(&own, "Cpus_allowed_list:"), "{name}: {threads:?}");
    }
    drop(peers);
}

/// A hook server that hangs: its own vhost's publishers are refused after the timeout, or let in; everybody
/// else publishes as fast as ever, all the while.
#[test]
fn a_hook_that_hangs_holds_up_nobody_else() {
    let (hangs, answers) = (Hook::start(|_| None), Hook::start(|_| Some("0".to_owned())));
    let vhost = |name: &str, hook: &Hook, more: &str| {
        format!("vhost {name} {{ http_hooks {{ enabled on; on_publish {}; timeout 2000; {more} }} }}", hook.url)
    };
    let config = format!(
        "listen 127.0.0.1:0; {} {} {} vhost __defaultVhost__ {{ }}",
        vhost("hangs", &hangs, ""),
        vhost("opens", &hangs, "on_failure allow;"),
        vhost("asks", &answers, "")
    );
    let server = Server::start(&config);
    let publish = |address, vhost: &str, number: usize| {
        let mut peer = Peer::connect(address, "live");
        let msid = peer.create_stream();
        let name = corecast::proto::amf::Value::string(format!("s{number}?vhost={vhost}"));
        let started = Instant::now();
        peer.command(msid, "publish", 5.0, &[corecast::proto::amf::Value::Null, name]);
        (peer, started)
    };
    let address = server.address();
    // Many more than may be called at once.
    let waiting: Vec<_> = (0..100).map(|number| publish(address, "hangs", number)).collect();
    let open = publish(address, "opens", 0);
    std::thread::sleep(Duration::from_millis(200));
    for (vhost, limit_ms) in [("none", 10.0), ("asks", 100.0)] {
        let mut times: Vec<f64> = (0..50)
            .map(|number| {
                let (mut peer, started) = publish(address, vhost, number);
                peer.expect_status("NetStream.Publish.Start");
                started.elapsed().as_secs_f64() * 1000.0
            })
            .collect();
        times.sort_by(f64::total_cmp);
        assert!(times[25] < limit_ms, "{vhost}: half of the publishes took {} ms or more, {times:?}", times[25]);
    }
    let (mut peer, started) = open;
    peer.expect_status("NetStream.Publish.Start");
    assert!((1.8..6.0).contains(&started.elapsed().as_secs_f64()), "{:?}", started.elapsed());
    for (mut peer, started) in waiting {
        peer.expect_status("NetStream.Publish.BadName");
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    }
}

/// A publish at another shard than its connection's waits for the hook, and then moves home; what was sent
/// behind it is not lost.
#[test]
fn a_publish_that_waited_for_a_hook_is_whole() {
    let hook = Hook::start(|_| {
        std::thread::sleep(Duration::from_millis(300));
        Some("0".to_owned())
    });
    let web = Web::start(&format!(
        "http_remux {{ enabled on; wait_stream 10; }} http_hooks {{ enabled on; on_publish {}; }}",
        hook.url
    ));
    for number in 0..8 {
        let name = format!("s{number}");
        let mut player = Peer::play(web.server.address(), "live", &name);
        let mut peer = Peer::connect(web.server.address(), "live");
        let msid = peer.create_stream();
        let value = corecast::proto::amf::Value::string(name);
        peer.command(msid, "publish", 5.0, &[corecast::proto::amf::Value::Null, value]);
        // It does not wait for the answer.
        peer.send_gop(msid, 0, 30);
        let frames = player.expect_frames(60);
        assert_eq!(frames.last().map(|frame| frame.0), Some(29 * 40));
    }
}

/// Who is replaced has unpublished.
#[test]
fn a_takeover_is_an_unpublish() {
    let hook = Hook::start(|_| Some("0".to_owned()));
    let server = Server::start(&format!(
        "listen 127.0.0.1:0; vhost __defaultVhost__ {{ publish {{ takeover replace; }} {} }}",
        section(&hook, "")
    ));
    let _first = Peer::publish(server.address(), "live", "s");
    let first = hook.wait("on_publish");
    let _second = Peer::publish(server.address(), "live", "s");
    assert_eq!(hook.wait("on_unpublish")["client_id"], first["client_id"]);
    eventually("one unpublish and two publishes", || {
        let count = |action: &str| hook.all().iter().filter(|event| event["action"] == action).count();
        (count("on_publish") == 2 && count("on_unpublish") == 1).then_some(())
    });
}

/// A signature lets in until its time, for one stream and one purpose.
#[test]
fn signed_urls_let_in() {
    let web = Web::start("http_remux { enabled on; } signed_url { enabled on; key secret; }");
    let sign = |action: &str, expires: u64| {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"secret").expect("a key");
        mac.update(format!("{action} /live/s {expires}").as_bytes());
        format!("s?expires={expires}&sign={}", hex::encode(mac.finalize().into_bytes()))
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
    let _live = Live::start(web.server.address(), "live", &sign("publish", now + 60), 20, 25, 0);
    web.live("s");
    Peer::play(web.server.address(), "live", &sign("play", now + 60)).expect_frames(5);
    for bad in [sign("publish", now + 60), sign("play", now - 10), "s".to_owned(), "s?expires=1&sign=zz".to_owned()] {
        let mut peer = Peer::connect(web.server.address(), "live");
        let msid = peer.create_stream();
        let name = corecast::proto::amf::Value::string(bad.clone());
        peer.command(msid, "play", 5.0, &[corecast::proto::amf::Value::Null, name]);
        peer.expect_status("NetStream.Play.Failed");
        assert_eq!(get(web.http(), &format!("/live/{}", bad.replacen('s', "s.flv", 1))).status, 403, "{bad}");
    }
    let good = format!("/live/{}", sign("play", now + 60).replacen('s', "s.flv", 1));
    assert_eq!(crate::web::request(web.http(), "HEAD", &good, "").status, 200);
    // The recipe of the README.
    let script = format!("printf 'play /live/s {}' | openssl dgst -sha256 -hmac secret -hex | sed 's/.* //'", now + 60);
    let made = std::process::Command::new("sh").args(["-c", &script]).output().expect("openssl");
    assert!(good.ends_with(String::from_utf8_lossy(&made.stdout).trim()));
}

/// Rules by address, for RTMP and HTTP alike.
#[test]
fn access_rules_hold() {
    let rules = "security { enabled on; allow publish 127.0.0.0/8; allow play all; deny play 127.0.0.9; }";
    let web = Web::start(&format!("http_remux {{ enabled on; }} {rules}"));
    let _live = Live::start(web.server.address(), "live", "s", 20, 25, 0);
    web.live("s");
    assert_eq!(crate::web::request(web.http(), "HEAD", "/live/s.flv", "").status, 200);
    let from = |address: std::net::SocketAddr| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 9], 0)).into()).expect("an address");
        socket.connect(&address.into()).expect("connect");
        std::net::TcpStream::from(socket)
    };
    let mut socket = from(web.http());
    socket.write_all(b"GET /live/s.flv HTTP/1.1\r\nHost: h\r\n\r\n").expect("a request");
    assert_eq!(crate::web::read_answer(&mut socket, false).map(|answer| answer.status), Some(403));
    let mut peer = Peer::over(from(web.server.address()), corecast::proto::rtmp::handshake::Scheme::Simple);
    peer.connect_app("live", "rtmp://127.0.0.1/live");
    peer.expect_result(1.0);
    let msid = peer.create_stream();
    peer.command(msid, "play", 5.0, &[corecast::proto::amf::Value::Null, corecast::proto::amf::Value::string("s")]);
    peer.expect_status("NetStream.Play.Failed");
    let closed = Web::start("security { enabled on; allow play all; }");
    let mut peer = Peer::connect(closed.server.address(), "live");
    let msid = peer.create_stream();
    peer.command(msid, "publish", 5.0, &[corecast::proto::amf::Value::Null, corecast::proto::amf::Value::string("s")]);
    peer.expect_status("NetStream.Publish.BadName");
    assert!(get(closed.exporter(), "/metrics").text().contains("corecast_refusals_total{reason=\"rule\"} 1"));
}
