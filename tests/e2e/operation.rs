//! Starting, stopping, and what operators see.

use crate::{
    media::{avc_aac, have, publish},
    peer::Peer,
    server::{Server, eventually},
};
use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

fn corecast(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_corecast")).args(arguments).output().expect("corecast")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// SIGTERM and SIGINT stop within a second, with exit code 0, under players.
#[test]
fn a7_signals_stop_within_a_second() {
    for signal in ["-TERM", "-INT"] {
        let server = Server::plain();
        let mut players: Vec<Peer> = (0..50).map(|_| Peer::play(server.address(), "live", "x")).collect();
        let started = Instant::now();
        server.signal(signal);
        let (code, _) = server.wait();
        assert_eq!(code, Some(0));
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        assert!(players.iter_mut().all(|player| player.until_closed().len() < 4), "players are told by FIN");
    }
}

/// A file of SRS's: a daemon that stays in the foreground and says so, a pid file, a server's own name, old spellings.
#[test]
fn a_file_of_srs_starts() {
    let directory = tempfile::tempdir().expect("a directory");
    let pid = directory.path().join("objs/srs.pid");
    let config = format!(
        "listen 127.0.0.1:0; daemon on; pid {}; server_id box-7; srs_log_level_v2 info; stats {{ network 0; }} \
         http_api {{ enabled on; listen 127.0.0.1:0; }} srt_server {{ enabled off; }} \
         vhost __defaultVhost__ {{ gop_cache off; hls {{ enabled off; }} }}",
        pid.display()
    );
    let server = Server::start(&config);
    assert_eq!(std::fs::read_to_string(&pid).expect("a pid file").trim(), server.pid().to_string());
    for said in ["stays in the foreground", "`stats` is SRS's and changes nothing", "play { gop_cache }"] {
        assert!(server.log().contains(said), "{said}: {}", server.log());
    }
    assert_eq!(crate::web::get(server.addresses()[1], "/api/v1/versions").json()["server"], "box-7");
}

#[test]
fn a_port_in_use_is_one_clear_line_and_exit_code_1() {
    let server = Server::plain();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("same.conf");
    std::fs::write(&file, format!("listen {}; vhost __defaultVhost__ {{ }}", server.address())).expect("write");
    let output = corecast(&["-c", file.to_str().expect("a path")]);
    let error = text(&output.stderr);
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    assert!(error.contains(&format!("{} is in use by another process", server.address())), "{error}");
}

#[test]
fn e3_a_bad_configuration_is_drawn_and_exit_code_1() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("bad.conf");
    std::fs::write(&file, "listen 1935;\nvhost v {\n  play { gop_cahce on; }\n}\n").expect("write");
    let output = corecast(&["-c", file.to_str().expect("a path")]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("bad.conf:3:10") && error.contains("did you mean `gop_cache`?"), "{error}");
    let missing = corecast(&["-c", "/nonexistent/x.conf"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("/nonexistent/x.conf: No such file"));
    let descriptors = "listen 1935; max_connections 900000; vhost v { }";
    std::fs::write(&file, descriptors).expect("write");
    let output = corecast(&["-t", "-c", file.to_str().expect("a path")]);
    assert!(text(&output.stderr).contains("max_connections 900000"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "a warning, as SRS gives it: fewer are taken");
}

/// A6: -t tests a configuration, -v and -h answer.
#[test]
fn a6_command_line() {
    let conf = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/default.conf");
    assert_eq!(corecast(&["-t", "-c", conf]).status.code(), Some(0));
    assert!(text(&corecast(&["-v"]).stdout).contains(env!("CARGO_PKG_VERSION")));
    assert!(text(&corecast(&["-h"]).stdout).contains("--cpus"));
    let cpus = corecast(&["--cpus", "4000"]);
    assert_eq!(cpus.status.code(), Some(1));
    assert!(text(&cpus.stderr).contains("CPU 4000 is not allowed here"));
}

/// `doctor` names what is missing with its fix, and says by its exit code whether the server can run.
#[test]
fn doctor_names_what_is_missing() {
    let output = corecast(&["doctor"]);
    let said = text(&output.stdout);
    assert!(output.status.code() == Some(0) && said.contains("io_uring") && said.contains(" 0 bad"), "{said}");
    let script = format!("ulimit -n 900; exec {} doctor", env!("CARGO_BIN_EXE_corecast"));
    let output = Command::new("bash").args(["-c", &script]).output().expect("bash");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("BAD   900 descriptors and max_connections 1000 needs 2000\n      -> ulimit -Hn 2000"),
        "{said}"
    );
}

/// A8: the inherited CPU mask is obeyed, one pinned shard per CPU.
#[test]
fn a8_the_cpu_mask_is_obeyed() {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", env!("CARGO_BIN_EXE_corecast")]);
    let server = Server::start_with("listen 127.0.0.1:0; vhost __defaultVhost__ { }", command);
    // An executor's second thread, for blocking calls, pins itself when it comes to run.
    eventually("shards on CPU 0", || (shard_masks(&server) == ["0"]).then_some(()));
    let all = Server::plain();
    let cpus = std::thread::available_parallelism().expect("CPUs").get();
    eventually("a CPU for each shard", || (shard_masks(&all).len() == cpus).then_some(()));
}

/// The different CPU masks of the shards' threads.
fn shard_masks(server: &Server) -> Vec<String> {
    let shards = server.threads().into_iter().filter(|(name, _)| name.starts_with("shard-"));
    let mut masks: Vec<String> = shards.map(|(_, mask)| mask).collect();
    masks.sort();
    masks.dedup();
    masks
}

/// IPv4 and IPv6 at once, without a clash: publish on one, play on the other.
#[test]
fn ipv6_and_ipv4_at_once() {
    if !have("ffmpeg") {
        return;
    }
    // Below the ephemeral ports, which tests beside this one take.
    let free = |port: &u16| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok();
    let port = (20_000..30_000).find(free).expect("a free port");
    let _server = Server::start(&format!("listen {port} [::]:{port}; vhost __defaultVhost__ {{ }}"));
    let v6 = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
    let mut player = Peer::play(v6, "live", "both");
    publish(Path::new("ffmpeg"), &avc_aac(), &format!("rtmp://127.0.0.1:{port}/live/both")).success();
    player.expect_status("NetStream.Play.UnpublishNotify");
    assert!(player.keyframes >= 3);
}

/// max_connections: the one too many is refused, the live ones go on.
#[test]
fn max_connections_refuses_the_one_too_many() {
    let server = Server::start("listen 127.0.0.1:0; max_connections 3; vhost __defaultVhost__ { min_latency on; }");
    let mut publisher = Peer::publish(server.address(), "live", "m");
    let mut players: Vec<Peer> = (0..2).map(|_| Peer::play(server.address(), "live", "m")).collect();
    let mut fourth = crate::peer::connected(server.address());
    assert_eq!(std::io::Read::read(&mut fourth, &mut [0; 16]).unwrap_or(0), 0);
    publisher.send_gop(1, 0, 3);
    players.iter_mut().for_each(|player| drop(player.expect_media()));
    drop(players);
    eventually("room again", || {
        let socket = std::net::TcpStream::connect(server.address()).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        std::io::Write::write_all(&mut &socket, &[&[3][..], &[0; 1536]].concat()).ok()?;
        (std::io::Read::read(&mut &socket, &mut [0; 16]).ok()? > 0).then_some(())
    });
}

/// Without a file, the embedded configuration runs, and the banner says all that is needed.
#[test]
fn the_embedded_configuration_runs() {
    // A port may be taken on this machine; then the one clear line is what is shown.
    let mut child = Command::new(env!("CARGO_BIN_EXE_corecast"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("corecast");
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("stdout"));
    let mut banner = String::new();
    while std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line") > 0 {
        banner.push_str(&line);
        if line.starts_with("play:") {
            break;
        }
        line.clear();
    }
    if banner.is_empty() {
        let output = child.wait_with_output().expect("its end");
        assert!(text(&output.stderr).contains("is in use by another process"), "{}", text(&output.stderr));
        return;
    }
    for word in [
        env!("CARGO_PKG_VERSION"),
        "shards:",
        "on CPU",
        "0.0.0.0:1935",
        "[::]:1935",
        "rtmp://HOST/live/livestream",
        "page:    http://HOST:8080/",
        "127.0.0.1:1985 api",
    ] {
        assert!(banner.contains(word), "{word}: {banner}");
    }
    child.kill().expect("kill");
    child.wait().expect("wait");
}
