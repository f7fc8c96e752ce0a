//! The load generator against servers that serve well and badly, ours and others': its checker can fail,
//! and it ends whatever a server does.

#![expect(clippy::expect_used, clippy::cast_possible_truncation, reason = "a test fails by a panic")]

mod faulty;
#[expect(dead_code, reason = "e2e uses the rest")]
#[path = "../e2e/media.rs"]
mod media;
#[expect(dead_code, reason = "e2e uses the rest")]
#[path = "../e2e/server.rs"]
mod server;

use crate::{
    faulty::Manner,
    media::{Running, avc_aac, bounded, have},
    server::{Server, eventually},
};
use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

const BENCH: &str = env!("CARGO_BIN_EXE_corecast-bench");

fn bench(arguments: &[&str]) -> Output {
    Running::start(bounded(BENCH).args(arguments)).output()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Four players for four seconds.
fn play(address: SocketAddr, more: &[&str]) -> Output {
    let (file, url) = (avc_aac(), format!("rtmp://{address}/live/s"));
    let file = file.to_str().expect("a path");
    bench(&[&["play", "-c", "4", "-r", &url, "--seconds", "6", "-i", file], more].concat())
}

fn against(manner: Manner, more: &[&str]) -> (Option<i32>, String) {
    let output = play(faulty::start(manner, &avc_aac()), more);
    (output.status.code(), text(&output))
}

/// Each fault of a relay is seen, and what is good is called good.
#[test]
fn a_corrupted_relay_is_caught() {
    if !have("ffmpeg") {
        return;
    }
    let cases = [
        (Manner::Good, 0, "full rate: 4 of 4 players"),
        (Manner::FlipsAByte, 1, "gaps_or_altered"),
        (Manner::DropsATag, 1, "gaps_or_altered"),
        (Manner::ShiftsATag, 1, "wrong_distance"),
        (Manner::HalfRate, 1, "full rate: 0 of 4 players"),
        (Manner::ClosesMidway, 1, "closed while it played"),
    ];
    let runs = cases.map(|(manner, ..)| std::thread::spawn(move || against(manner, &[])));
    for ((manner, code, said), run) in cases.into_iter().zip(runs) {
        let (found, text) = run.join().expect("a run");
        assert!(found == Some(code) && text.contains(said), "{manner:?}: {found:?}\n{text}");
        let faults = text.contains("NOT KEPT:  faults=0");
        let expected = matches!(manner, Manner::FlipsAByte | Manner::DropsATag | Manner::ShiftsATag);
        assert_eq!(faults, expected, "{manner:?}\n{text}");
    }
}

/// A server at half speed is slow even for players who look at nothing, as long as one looks.
#[test]
fn half_the_rate_is_told_by_few_who_check() {
    if !have("ffmpeg") {
        return;
    }
    let (code, text) = against(Manner::HalfRate, &["--check-every", "4"]);
    assert!(code == Some(1) && text.contains("full rate: 0 of 4 players, the slowest at 5"), "{text}");
}

/// Bad servers are named by kind, soon, with exit code 1.
#[test]
fn bad_servers_are_counted_by_kind() {
    if !have("ffmpeg") {
        return;
    }
    let cases = [
        (Manner::Refuses, "4 x refused: NetStream.Play.StreamNotFound"),
        (Manner::NoRtmp, "nobody plays"),
        (Manner::Silent, "nobody plays: no answer"),
    ];
    let runs =
        cases.map(|(manner, _)| std::thread::spawn(move || (Instant::now(), against(manner, &[]), Instant::now())));
    for ((manner, said), run) in cases.into_iter().zip(runs) {
        let (began, (code, text), ended) = run.join().expect("a run");
        assert!(code == Some(1) && text.contains(said), "{manner:?}: {code:?}\n{text}");
        assert!(ended - began < Duration::from_secs(20), "{manner:?}: {:?}", ended - began);
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = text(&play(nobody, &[]));
    assert!(text.contains("nobody plays: 4 x connect: connection refused"), "{text}");
    let publish = ["publish", "-c", "2", "-r", &format!("rtmp://{nobody}/live/s"), "-i"];
    let output = bench(&[&publish[..], &[avc_aac().to_str().unwrap()]].concat());
    assert!(self::text(&output).contains("nobody publishes: 2 x publisher: connect: connection refused"));
}

/// What cannot work is said before the run.
#[test]
fn limits_are_found_before_the_run() {
    let limited = |limit: &str, arguments: &[&str]| {
        let mut command = bounded("bash");
        let script = format!("ulimit -n {limit}; exec \"$@\"");
        let output = Running::start(command.args(["-c", &script, "bash", BENCH]).args(arguments)).output();
        assert_eq!(output.status.code(), Some(1));
        text(&output)
    };
    let url = "rtmp://127.0.0.1:1/live/s";
    let said = limited("1000", &["play", "-c", "2000", "-r", url]);
    assert!(said.contains("2000 connections need 2100 descriptors and the limit is 1000: raise it"), "{said}");
    let said = limited("500000", &["play", "-c", "100000", "-r", "rtmp://192.0.2.1/live/s"]);
    assert!(said.contains("descriptors") || said.contains("need as many local ports"), "{said}");
    let said = text(&bench(&["publish", "-r", url]));
    assert!(said.contains("publishers need a file: -i FILE.flv"), "{said}");
    let said = text(&bench(&["play", "-r", "ftp://h/live/s"]));
    assert!(said.contains("not an rtmp:// URL"), "{said}");
    let said = text(&bench(&["play", "-r", url, "--require", "p98=1ms"]));
    assert!(said.contains("`p98` is no bound; known are full-rate"), "{said}");
}

fn publish(url: &str, file: &Path, more: &[&str]) -> Running {
    let mut command = bounded(BENCH);
    command.args(["publish", "-r", url, "--seconds", "40", "-i"]).arg(file).args(more);
    Running::start(&mut command)
}

/// A player who reads at half the rate is told from the others; bounds are kept or not; the latency of a
/// stamped stream is about the flush interval; JSON and page are written.
#[test]
fn throttled_players_bounds_and_latency_are_reported() {
    if !have("ffmpeg") {
        return;
    }
    let file = avc_aac();
    let server = Server::start("listen 127.0.0.1:0; vhost __defaultVhost__ { play { mw_latency 100; mw_msgs 0; } }");
    let publisher = publish(&server.url("/live/s"), &file, &["--clock"]);
    server.wait_for_log("publish: AVC", 1);
    let (json, page) = (server.file("result.json"), server.file("page.html"));
    let (url, pid) = (server.url("/live/s"), server.pid().to_string());
    let mut command = bounded(BENCH);
    command.args(["play", "-c", "10", "-r", &url, "--pid", &pid, "--seconds", "8", "-i"]).arg(&file);
    command.args(["--throttle", "40000", "--throttled", "2", "--require", "full-rate=80%,p99=20s,p50=1us,faults=0"]);
    let output = Running::start(command.arg("--json").arg(&json).arg("--report").arg(&page)).output();
    let said = text(&output);
    assert!(output.status.code() == Some(1) && said.contains("full rate: 8 of 10 players, the slowest at 4"), "{said}");
    assert!(said.contains("NOT KEPT:  p50=1us") && said.matches("NOT KEPT").count() == 1, "{said}");
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let p50 = report["latency"]["p50"].as_f64().unwrap();
    assert!((10.0..1000.0).contains(&p50), "{p50} ms at an interval of 100 ms");
    assert!(report["server"]["cpu_s"].as_f64().unwrap() > 0.0 && report["timeline"].as_array().unwrap().len() > 8);
    // Players on every shard get theirs within the interval, not at some later wake-up.
    let p99 = report["groups"][0]["latency"]["p99"].as_f64().unwrap();
    assert!(p99 < 600.0, "{p99} ms at an interval of 100 ms");
    let page = fs::read_to_string(&page).unwrap();
    assert!(page.matches("<svg").count() >= 5 && !page.contains("http-equiv") && page.contains("percentile"));
    publisher.kill();
}

/// Joins and churn: everybody gets a picture, who stays loses nothing.
#[test]
fn players_come_and_go() {
    if !have("ffmpeg") {
        return;
    }
    let file = avc_aac();
    let server = Server::plain();
    let publisher = publish(&server.url("/live/s"), &file, &[]);
    server.wait_for_log("publish: AVC", 1);
    let (url, file) = (server.url("/live/s"), file.to_str().unwrap().to_owned());
    let join = ["join", "-c", "300", "--bystanders", "5", "--leave", "--seconds", "6", "-r", &url, "-i", &file];
    let said = text(&bench(&[&join[..], &["--require", "full-rate=100%,faults=0,failures=0,join-p50=5s"]].concat()));
    assert!(said.contains("full rate: 5 of 5") && !said.contains("NOT KEPT"), "{said}");
    assert!(said.contains("joiners: join") && said.contains(" 300 "), "{said}");
    let churn =
        ["churn", "-c", "40", "--bystanders", "5", "--stay", "0.2-1", "--seconds", "6", "-r", &url, "-i", &file];
    let said = text(&bench(&churn));
    assert!(said.contains("full rate: 5 of 5") && !said.contains("NOT KEPT"), "{said}");
    publisher.kill();
    server.wait_for_log("unpublish", 1);
    let (_, totals) = server.stop();
    assert!(totals.value("accepted") > 5 + 300 + 5 + 100, "they came again and again");
}

/// nginx-rtmp, which others wrote, is measured like us: content checked, latency from the SEI.
#[test]
fn another_server_is_measured_too() {
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
    if !have("ffmpeg") || !have_nginx(MODULE) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "load_module {MODULE}; daemon off; master_process off; pid {0}/pid; error_log {0}/log;\nevents {{ }}\n\
         rtmp {{ access_log off; server {{ listen 127.0.0.1:{port}; application live {{ live on; }} }} }}\n",
        directory.path().display()
    );
    let file = directory.path().join("nginx.conf");
    fs::write(&file, config).unwrap();
    let nginx = Running::start(bounded("nginx").arg("-p").arg(directory.path()).arg("-c").arg(&file));
    eventually("nginx", || TcpStream::connect(("127.0.0.1", port)).ok());
    let url = format!("rtmp://127.0.0.1:{port}/live/s");
    let publisher = publish(&url, &avc_aac(), &["--clock"]);
    std::thread::sleep(Duration::from_secs(1));
    let output = play(([127, 0, 0, 1], port).into(), &["--require", "full-rate=100%,p50=1s"]);
    let said = text(&output);
    assert!(output.status.success() && said.contains("players: latency"), "{said}");
    publisher.kill();
    nginx.kill();
}

fn have_nginx(module: &str) -> bool {
    have("nginx") && {
        assert!(Path::new(module).exists(), "libnginx-mod-rtmp is missing: run scripts/check");
        true
    }
}

/// Publishing and playing through TLS, which socat ends.
#[test]
fn rtmps_publishes_and_plays() {
    if !have("ffmpeg") || !have("socat") || !have("openssl") {
        return;
    }
    let server = Server::plain();
    let pem = server.file("pem");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout"])
        .args([server.file("key").as_os_str(), "-out".as_ref(), pem.as_os_str()])
        .output();
    assert!(made.unwrap().status.success());
    let joined = [fs::read(server.file("key")).unwrap(), fs::read(&pem).unwrap()].concat();
    fs::write(&pem, joined).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,verify=0,cert={}", pem.display());
    let socat = Running::start(bounded("socat").args([listen, format!("TCP:{}", server.address())]));
    eventually("socat", || TcpStream::connect(("127.0.0.1", port)).ok());
    let url = format!("rtmps://127.0.0.1:{port}/live/s");
    let publisher = publish(&url, &avc_aac(), &["--clock"]);
    server.wait_for_log("publish: AVC", 1);
    let file = avc_aac();
    let said = text(&bench(&["play", "-c", "6", "-r", &url, "--seconds", "6", "-i", file.to_str().unwrap()]));
    assert!(said.contains("full rate: 6 of 6 players") && said.contains("players: latency"), "{said}");
    publisher.kill();
    socat.kill();
}
