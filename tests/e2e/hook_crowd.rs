//! Hooks beside a real HTTP server: thousands of events at once, and https with an authority of one's own.

use crate::{
    media::{Running, bounded, have},
    peer::Peer,
    server::{Server, eventually},
};
use corecast::{
    config::HookUrl,
    control::{
        ClientId,
        hooks::{Body, Event, Hooks, Verdict},
    },
    proto::http::url::HttpUrl,
};
use serde_json::Value;
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// nginx that allows everything, and logs each body as a line.
struct Nginx {
    running: Running,
    port: u16,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Nginx {
    fn start(tls: Option<(&Path, &Path)>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let (path, log) = (dir.path().display(), dir.path().join("told.log"));
        let tls = tls.map_or_else(String::new, |(key, cert)| {
            format!("ssl_certificate {}; ssl_certificate_key {};", cert.display(), key.display())
        });
        let listen = if tls.is_empty() { "" } else { " ssl" };
        // A body is there to be logged once it has been passed on, for which nginx asks itself.
        let config = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log; \
             events {{ worker_connections 1024; }} \
             http {{ log_format told escape=none '$request_body'; access_log off; \
             client_body_temp_path {path}/b; proxy_temp_path {path}/p; fastcgi_temp_path {path}/f; \
             uwsgi_temp_path {path}/u; scgi_temp_path {path}/s; client_body_in_single_buffer on; \
             keepalive_requests 100000; upstream own {{ server unix:{path}/own; keepalive 32; }} \
             server {{ listen unix:{path}/own; location / {{ return 200 '0'; }} }} \
             server {{ listen 127.0.0.1:{port}{listen}; {tls} access_log {} told; \
             location / {{ proxy_pass http://own; proxy_http_version 1.1; proxy_set_header Connection ''; }} }} }}",
            log.display()
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, config).expect("a file");
        let mut command = bounded("nginx");
        let running = Running::start(command.arg("-p").arg(dir.path()).arg("-c").arg(&file).stderr(Stdio::null()));
        eventually("nginx", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { running, port, log, _dir: dir }
    }

    fn told(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

fn event(action: &'static str, client: u64, url: &HookUrl) -> Event {
    let mut body = Body::default();
    body.add("action", action);
    body.add("client_id", client);
    body.add("tcUrl", "rtmp://example.com/live/with/a/path/of/some/length?and=a&query=too");
    Event {
        action,
        urls: vec![HookUrl::clone(url)],
        timeout: Duration::from_secs(3),
        fail_open: false,
        trust: None,
        client: ClientId { shard: 0, token: client },
        publishes: None,
        body,
    }
}

/// How long an `on_publish` takes, in ms.
fn ask(hooks: &Hooks, client: u64, url: &HookUrl) -> f64 {
    let started = Instant::now();
    let verdict = hooks.ask(event("on_publish", client, url)).recv_blocking().expect("a verdict");
    assert_eq!(verdict, Verdict::Allowed(Value::Null));
    started.elapsed().as_secs_f64() * 1000.0
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// 5000 players end at once: every `on_stop` arrives, once, and an `on_publish` beside them to the same server waits
/// for none of them.
#[test]
fn five_thousand_stops_delay_no_publish() {
    if !have("nginx") {
        return;
    }
    let nginx = Nginx::start(None);
    let url: HookUrl = Arc::new(HttpUrl::read(&format!("http://127.0.0.1:{}/", nginx.port)).expect("a URL"));
    let hooks = Hooks::default();
    let mut before: Vec<f64> = (0..50).map(|client| ask(&hooks, 10_000 + client, &url)).collect();
    let started = Instant::now();
    (0..5000).for_each(|client| hooks.tell(event("on_stop", client, &url)));
    let mut beside = Vec::new();
    while hooks.waiting_bytes().1 > 0 {
        beside.push(ask(&hooks, 20_000 + beside.len() as u64, &url));
    }
    let all_ms = started.elapsed().as_millis();
    let asked = beside.len();
    let longest = beside.iter().copied().fold(0.0, f64::max);
    let (before, beside) = (median(&mut before), median(&mut beside));
    println!(
        "on_publish: {before:.2} ms alone; beside 5000 on_stop {beside:.2} ms, at most {longest:.2} ms ({asked} asked); \
         all told within {all_ms} ms"
    );
    let mut stopped: Vec<u64> = eventually("5000 on_stop", || {
        let told = nginx.told();
        let stops = told.iter().filter(|event| event["action"] == "on_stop");
        let stops: Vec<u64> = stops.filter_map(|event| event["client_id"].as_u64()).collect();
        (stops.len() >= 5000).then_some(stops)
    });
    stopped.sort_unstable();
    assert!(stopped.iter().copied().eq(0..5000), "{} told", stopped.len());
    assert_eq!(hooks.counts().map(|count| count.dropped + count.failed).sum::<u64>(), 0);
    assert!(beside < before + 100.0, "half of the on_publish took {beside} ms or more, {before} alone");
    nginx.running.kill();
}

fn openssl(dir: &Path, arguments: &[&str]) {
    let done = Command::new("openssl").args(arguments).current_dir(dir).stderr(Stdio::null()).status();
    assert!(done.expect("openssl").success(), "{arguments:?}");
}

/// An https server is trusted if `hook_ca` names its authority, and not otherwise.
#[test]
fn hook_ca_trusts_a_private_authority() {
    if !have("nginx") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let ca = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2"];
    openssl(dir.path(), &[&ca[..], &["-subj", "/CN=own authority"]].concat());
    let request =
        ["req", "-newkey", "rsa:2048", "-nodes", "-keyout", "own.key", "-out", "own.csr", "-subj", "/CN=hooks"];
    openssl(dir.path(), &request);
    fs::write(dir.path().join("san"), "subjectAltName=IP:127.0.0.1\n").expect("a file");
    let sign = ["x509", "-req", "-in", "own.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
    openssl(dir.path(), &[&sign[..], &["-extfile", "san", "-out", "own.pem"]].concat());
    let path = |name: &str| dir.path().join(name);
    let nginx = Nginx::start(Some((&path("own.key"), &path("own.pem"))));
    let hooks =
        format!("http_hooks {{ enabled on; on_publish https://name:secret@127.0.0.1:{}/hook?token=secret;", nginx.port);
    let config = format!(
        "listen 127.0.0.1:0; vhost trusts {{ {hooks} hook_ca {}; }} }} vhost __defaultVhost__ {{ {hooks} }} }}",
        path("ca.pem").display()
    );
    let server = Server::start(&config);
    drop(Peer::publish(server.address(), "live", "s?vhost=trusts"));
    eventually("the event", || nginx.told().into_iter().find(|event| event["action"] == "on_publish"));
    let mut peer = Peer::connect(server.address(), "live");
    let msid = peer.create_stream();
    let name = corecast::proto::amf::Value::string("s");
    peer.command(msid, "publish", 5.0, &[corecast::proto::amf::Value::Null, name]);
    peer.expect_status("NetStream.Publish.BadName");
    server.wait_for_log("UnknownIssuer", 1);
    let log = server.log();
    assert!(log.contains(&format!("https://127.0.0.1:{}/hook?...", nginx.port)) && !log.contains("secret"), "{log}");
    nginx.running.kill();
}
