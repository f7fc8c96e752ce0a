//! Strangers at the API: through proxies, by loopback, by forged log lines.

use crate::{
    live::Live,
    media::{Running, bounded, have},
    peer::{Peer, connected},
    server::{Server, eventually},
    web::{Answer, Web, config, get, request},
};
use corecast::proto::amf::Value;
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

/// nginx with a bare `proxy_pass`, as found in the field: it says nothing of whom it speaks for.
struct Proxy {
    running: Running,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Proxy {
    fn to(server: SocketAddr) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let address = free();
        let path = dir.path().display();
        let text = format!(
            "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log; events {{ }} \
             http {{ access_log off; client_body_temp_path {path}/b; proxy_temp_path {path}/p; \
             fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s; \
             server {{ listen {address}; location / {{ proxy_pass http://{server}; }} }} }}"
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, text).expect("a file");
        let mut command = bounded("nginx");
        let running = Running::start(command.arg("-p").arg(dir.path()).arg("-c").arg(&file).stderr(Stdio::null()));
        eventually("nginx", || std::net::TcpStream::connect(address).ok());
        Self { running, address, _dir: dir }
    }

    fn get(&self, path: &str) -> Answer {
        request(self.address, "GET", path, "Connection: close\r\n")
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
}

/// Behind a proxy on this machine every stranger is local: in front of the HTTP server nothing of the API is listed, in
/// front of the API nothing is kicked or reloaded.
#[test]
fn a_bare_proxy_gives_nothing_away() {
    if !have("nginx") {
        return;
    }
    let api = "raw_api { enabled on; allow_reload on; }";
    let web = Web { server: Server::start(&config("", api, "http_remux { enabled on; }")) };
    let _live = Live::start(web.server.address(), "live", "s", 20, 25, 0);
    web.live("s");
    let mut player = Peer::play(web.server.address(), "live", "s");
    player.expect_frames(5);
    let clients = web.ask("/api/v1/clients")["clients"].clone();
    let ids: Vec<String> = clients.as_array().expect("a list").iter().map(|client| client["id"].to_string()).collect();
    assert_eq!(ids.len(), 2);

    let front = Proxy::to(web.http());
    for path in
        ["/api", "/api/", "/api/v1/", "/api/v1/clients", "/api/v1/streams", "/api/v1/raw?rpc=reload", "/metrics"]
    {
        assert_eq!(front.get(path).status, 404, "{path}");
    }
    let list = front.get("/page/streams.json");
    assert!(list.status == 200 && list.json()["streams"][0]["url"] == "/live/s", "{list:?}");
    for secret in ids.iter().map(|id| id.trim_matches('"')).chain(["127.0.0.1", "cid", "tcUrl"]) {
        assert!(!list.text().contains(secret), "{secret}: {}", list.text());
    }

    let front_of_api = Proxy::to(web.api());
    assert_eq!(front_of_api.get("/api/v1/versions").status, 200, "what is read follows listen");
    for id in &ids {
        let path = format!("/api/v1/clients/{}", id.trim_matches('"'));
        let denied = request(front_of_api.address, "DELETE", &path, "Connection: close\r\n");
        assert!(denied.status == 401 && denied.text().contains("Bearer"), "{denied:?}");
    }
    for path in ["/api/v1/raw?rpc=reload", "/api/v1/raw?rpc=reload&token=x", "/api/v1/raw?a=b&rpc=reload"] {
        assert_eq!(front_of_api.get(path).status, 401, "{path}");
    }
    assert!(!web.server.log().contains("reload"), "{}", web.server.log());
    player.expect_frames(50);

    // Whoever can read the token may, by the proxy too.
    let fields = format!("Connection: close\r\n{}", web.server.bearer());
    let path = format!("/api/v1/clients/{}", clients[1]["id"].as_str().expect("an id"));
    assert_eq!(request(front_of_api.address, "DELETE", &path, &fields).status, 200);
    web.server.wait_for_log("API: a client is disconnected", 1);
    let log = web.server.log();
    assert!(log.contains("by=\"the token\"") && !log.contains(web.server.bearer().trim()), "{log}");
    front.running.kill();
    front_of_api.running.kill();
}

/// The token's file: this user's alone, named in the log, gone with the server; two servers keep their own.
#[test]
fn the_token_is_in_a_file() {
    let runtime = tempfile::tempdir().expect("a directory");
    let address = free();
    let start = |api: SocketAddr| {
        let text = format!("listen 127.0.0.1:0; http_api {{ enabled on; listen {api}; }} vhost __defaultVhost__ {{ }}");
        let mut command = Command::new("env");
        command.arg(format!("RUNTIME_DIRECTORY={}", runtime.path().display())).arg(env!("CARGO_BIN_EXE_corecast"));
        Server::start_with(&text, command)
    };
    let first = start(address);
    let second = start(SocketAddr::from(([127, 0, 0, 2], address.port())));
    let mut files: Vec<_> =
        fs::read_dir(runtime.path()).expect("a directory").map(|file| file.expect("a file").path()).collect();
    files.sort();
    assert_eq!(files.len(), 2, "{files:?}");
    let mut tokens = Vec::new();
    for file in &files {
        assert_eq!(fs::metadata(file).expect("a file").permissions().mode() & 0o777, 0o600);
        let token = fs::read_to_string(file).expect("a token").trim().to_owned();
        assert_eq!(token.len(), 64);
        let shown = file.display().to_string();
        assert!(first.log().contains(&shown) || second.log().contains(&shown), "{shown}: {}", first.log());
        assert!(!first.log().contains(&token) && !second.log().contains(&token));
        tokens.push(token);
    }
    assert_ne!(tokens[0], tokens[1]);
    let kick = |server: &Server, token: &str| {
        let field = format!("Authorization: Bearer {token}\r\nAccept: application/problem+json\r\n");
        request(server.addresses()[1], "DELETE", "/api/v1/clients/0-1", &field).status
    };
    let first_token =
        fs::read_to_string(runtime.path().join(format!("api-{}.token", address.port()))).expect("a token");
    let other = tokens.iter().find(|token| **token != first_token.trim()).expect("another");
    assert_eq!((kick(&first, first_token.trim()), kick(&first, other)), (404, 401));
    assert_eq!((kick(&second, other), kick(&second, first_token.trim())), (404, 401));
    first.signal("-TERM");
    eventually("the first's file is gone", || (!files.iter().all(|file| file.exists())).then_some(()));
}

/// Where the file puts both on one port, as SRS has it, the API is there, with the same rules.
#[test]
fn one_port_has_both() {
    let both = free();
    let server = Server::start(&format!(
        "listen 127.0.0.1:0; http_server {{ enabled on; listen {both}; }} http_api {{ enabled on; listen {both}; }} \
         vhost __defaultVhost__ {{ }}"
    ));
    assert_eq!(get(both, "/api/v1/versions").status, 200);
    assert_eq!(request(both, "DELETE", "/api/v1/clients/0-1", "").status, 401);
    let gone = request(both, "DELETE", "/api/v1/clients/0-1", &server.bearer());
    assert_eq!((gone.status, &gone.json()["code"]), (200, &2049.into()), "as SRS says it");
    assert!(get(both, "/").text().contains("<title>corecast</title>"));
}

/// What a peer says ends neither a line of the log nor a field.
#[test]
fn a_peer_s_words_forge_nothing_in_the_log() {
    let server = Server::plain();
    let _live = Live::start(server.address(), "live", "a peer=10.9.8.7:1 x", 20, 25, 0);
    server.wait_for_log("publish: AVC", 1);
    let mut forger = Peer::connect(server.address(), "live");
    let msid = forger.create_stream();
    let name = "b\n2026-01-01T00:00:00Z  WARN forged\u{1b}[2J";
    forger.command(msid, "publish", 5.0, &[Value::Null, Value::string(name), Value::string("live")]);
    drop(forger.socket.read_to_end(&mut Vec::new()));
    server.wait_for_log("a control character", 1);
    let log = server.log();
    assert!(!log.contains('\u{1b}') && !log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z")), "{log}");
    let line = log.lines().find(|line| line.contains("publish: AVC")).expect("a line");
    assert!(line.contains("stream=\"__defaultVhost__/live/a peer=10.9.8.7:1 x\" peer=127.0.0.1:"), "{line}");
}

/// Who guesses is logged, without what was guessed, and slowed; others are not.
#[test]
fn guessing_takes_long() {
    let web = Web { server: Server::start(&config("", "auth { enabled on; username admin; password right; }", "")) };
    let ask = |fields: &str| request(web.api(), "GET", "/api/v1/versions", fields).status;
    let started = std::time::Instant::now();
    let wrong = "Authorization: Basic YWRtaW46d3Jvbmc=\r\n";
    assert!((0..6).all(|_| ask(wrong) == 401));
    assert!(started.elapsed().as_millis() >= 1500, "{:?}", started.elapsed());
    assert_eq!(ask(""), 401, "without a credential at once");
    assert_eq!(ask("Authorization: Basic YWRtaW46cmlnaHQ=\r\n"), 200);
    web.server.wait_for_log("API: a wrong name, password or token", 3);
    let log = web.server.log();
    assert!(log.contains("peer=127.0.0.1:") && !log.contains("YWRtaW46") && !log.contains("admin"), "{log}");
}

/// Credentials count in a header alone; heads without end, and ids that are none, are answered and no more.
#[test]
fn odd_requests_are_answered() {
    let web = Web { server: Server::start(&config("", "auth { enabled on; token s3cret-t0ken; }", "")) };
    for path in ["/api/v1/clients?token=s3cret-t0ken", "/api/v1/clients?access_token=s3cret-t0ken&a=b"] {
        assert_eq!(get(web.api(), path).status, 401, "{path}");
    }
    let token = "Authorization: Bearer s3cret-t0ken\r\n";
    for id in ["0-18446744073709551616", "99999999-1", "0-0", "-1-1", "0--1", "%00", "0-1%2f..", "'"] {
        let answer = request(web.api(), "DELETE", &format!("/api/v1/clients/{id}"), token);
        assert!((400..500).contains(&answer.status) || answer.json()["code"] != 0, "{id}: {answer:?}");
    }
    assert_eq!(request(web.api(), "GET", "/", &"x: y\r\n".repeat(65)).status, 431);
    assert_eq!(request(web.api(), "GET", "/", &format!("x: {}\r\n", "y".repeat(20_000))).status, 431);
    let long = format!("Authorization: Bearer {}\r\n", "t".repeat(15_000));
    assert_eq!(request(web.api(), "GET", "/api/v1/versions", &long).status, 401);
    assert_eq!(request(web.api(), "GET", "/api/v1/versions", token).status, 200);
    assert!(!web.server.log().contains("s3cret"), "{}", web.server.log());
}

/// Whom a proxy speaks for is believed of `trusted_proxies` alone, and of the last one that is none of them.
#[test]
fn a_proxy_that_is_trusted_names_the_client() {
    let vhost =
        "http_remux { enabled on; } security { enabled on; allow publish all; allow play all; deny play 192.0.2.66; }";
    for trusted in [true, false] {
        let proxies = if trusted { "trusted_proxies 127.0.0.1 10.0.0.0/8;" } else { "" };
        let web = Web { server: Server::start(&config(proxies, "", vhost)) };
        let _live = Live::start(web.server.address(), "live", "s", 20, 25, 0);
        web.live("s");
        let ip_of = |fields: &str| {
            let mut player = connected(web.http());
            let head = format!("GET /live/s.flv HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
            player.write_all(head.as_bytes()).expect("send");
            let mut status = [0; 12];
            player.read_exact(&mut status).expect("a status");
            if status.ends_with(b"403") {
                return "refused".to_owned();
            }
            let ip = eventually("the player", || {
                let clients = web.ask("/api/v1/clients")["clients"].clone();
                let mut players = clients.as_array()?.iter().filter(|client| client["publish"] == false);
                players.next().map(|client| client["ip"].as_str().expect("an address").to_owned())
            });
            drop(player);
            eventually("it has gone", || (web.ask("/api/v1/clients")["total"] == 1).then_some(()));
            ip
        };
        let (client, forged, denied) =
            if trusted { ("192.0.2.7", "192.0.2.7", "refused") } else { ("127.0.0.1", "127.0.0.1", "127.0.0.1") };
        assert_eq!(ip_of(""), "127.0.0.1");
        assert_eq!(ip_of("X-Forwarded-For: 192.0.2.7\r\n"), client);
        assert_eq!(ip_of("X-Real-IP: 192.0.2.7\r\n"), client);
        assert_eq!(ip_of("X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.1.1.1\r\n"), forged);
        assert_eq!(ip_of("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.66\r\n"), denied);
    }
}

/// A proxy header is believed of those who may have written it; where strangers can connect, they are named.
#[test]
fn proxy_headers_are_of_proxies() {
    let server =
        Server::start("listen 127.0.0.1:0 proxy_protocol; trusted_proxies 10.0.0.0/8; vhost __defaultVhost__ { }");
    let mut stranger = connected(server.address());
    stranger.write_all(b"PROXY TCP4 192.0.2.7 127.0.0.1 4660 1935\r\n").expect("send");
    assert_eq!(stranger.read(&mut [0; 16]).unwrap_or(0), 0);
    server.wait_for_log("a proxy header from an address that is not in trusted_proxies", 1);

    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("x.conf");
    fs::write(&file, "listen 0.0.0.0:1 proxy_protocol;\nvhost __defaultVhost__ { }\n").expect("a file");
    let output = command.arg("-t").arg("-c").arg(&file).output().expect("corecast");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("x.conf:1:8") && said.contains("`trusted_proxies 10.0.0.5"),
        "{said}"
    );
}

/// No header keeps a page of another site from what a WebSocket brings it: it is refused where `crossdomain` is off.
#[test]
fn websockets_obey_crossdomain() {
    for crossdomain in ["on", "off"] {
        let server = Server::start(&format!(
            "listen 127.0.0.1:0; http_server {{ enabled on; listen 127.0.0.1:0; crossdomain {crossdomain}; }} \
             vhost __defaultVhost__ {{ http_remux {{ enabled on; wait_stream 20; }} }}"
        ));
        let _live = Live::start(server.address(), "live", "s", 20, 25, 0);
        let address = server.addresses()[1];
        let status = |field: &str| {
            let mut socket = connected(address);
            let head = format!(
                "GET /live/s.flv HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{field}\r\n"
            );
            socket.write_all(head.as_bytes()).expect("send");
            let mut status = [0; 12];
            socket.read_exact(&mut status).expect("a status");
            String::from_utf8_lossy(&status[9..]).into_owned()
        };
        let foreign = if crossdomain == "on" { "101" } else { "403" };
        assert_eq!(status(""), "101", "no browser");
        assert_eq!(status(&format!("Origin: http://{address}\r\n")), "101", "the page");
        assert_eq!(status("Origin: http://evil.example\r\n"), foreign);
        assert_eq!(status("Origin: null\r\n"), foreign);
        assert_eq!(status("Sec-Fetch-Site: cross-site\r\n"), foreign);
    }
}

/// One address takes a part of the page's connections, and none of the API's.
#[test]
fn an_address_has_a_part_of_the_connections() {
    let server = Server::start(
        "listen 127.0.0.1:0; http_server { enabled on; listen 127.0.0.1:0 proxy_protocol; } \
         http_api { enabled on; listen 127.0.0.1:0; } vhost __defaultVhost__ { }",
    );
    let ask = |from: &str| {
        let mut socket = connected(server.addresses()[1]);
        let head = format!("PROXY TCP4 {from} 127.0.0.1 4660 80\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
        socket.write_all(head.as_bytes()).expect("send");
        let answered = socket.read(&mut [0; 4096]).unwrap_or(0) > 0;
        answered.then_some(socket)
    };
    let held: Vec<_> = std::iter::from_fn(|| ask("192.0.2.7")).take(1000).collect();
    assert_eq!(held.len(), 64);
    assert!(ask("192.0.2.8").is_some(), "another one's");
    assert_eq!(get(server.addresses()[2], "/api/v1/versions").status, 200);
    drop(held);
    eventually("room again", || ask("192.0.2.7"));
}
