//! RTMPS: real clients, certificates that change, handshakes that stall.

use crate::{
    media::{Running, avc_aac, bounded, have, packets, packets_of_file, play_hashes, publish, publish_on, track},
    peer::{Peer, connected},
    server::Server,
};
use std::{
    io::{Read, Write},
    net::SocketAddr,
    path::Path,
    process::Command,
    time::Instant,
};

/// Makes a key and a certificate by the seed's recipe.
pub(crate) fn make_certificate(directory: &Path, name: &str) {
    let path = |suffix: &str| directory.join(format!("server.{suffix}"));
    let mut openssl = Command::new("openssl");
    let made = openssl.args(["genrsa", "-out"]).arg(path("key")).arg("2048").output().expect("openssl");
    assert!(made.status.success());
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-new", "-x509", "-key"]).arg(path("key")).arg("-out").arg(path("crt"));
    let subject = format!("/C=CN/ST=Beijing/L=Beijing/O=Me/OU=Me/CN={name}");
    let made = openssl.args(["-days", "3650", "-subj", &subject]).output().expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// An `rtmps` section with a key and certificate of its own in `directory`.
pub(crate) fn section(directory: &Path, listen: &str) -> String {
    make_certificate(directory, "localhost");
    let path = directory.display();
    format!("rtmps {{ enabled on; listen {listen}; key {path}/server.key; cert {path}/server.crt; }}")
}

/// A server that listens for RTMP and RTMPS.
fn server(directory: &Path, listen: &str, rtmps: &str) -> Server {
    Server::start(&format!("listen {listen}; {} vhost __defaultVhost__ {{ }}", section(directory, rtmps)))
}

/// The certificate's subject and the protocol that a client sees.
fn seen_by_openssl(address: SocketAddr, version: &str) -> String {
    let script = format!(
        "openssl s_client -connect {address} {version} </dev/null 2>/dev/null | openssl x509 -noout -subject; openssl s_client -connect {address} {version} </dev/null 2>&1 | grep -o 'TLSv1.[23]' | head -1"
    );
    let output = Command::new("sh").args(["-c", &script]).output().expect("openssl");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A certificate of X.509 version 1, such as the one in SRS's package.
#[test]
fn rtmps_with_a_certificate_of_version_1() {
    if !have("ffmpeg") || !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().display();
    let script = format!(
        "cd {path} && openssl genrsa -out server.key 2048 && openssl req -new -key server.key -subj /CN=localhost -out csr \
         && openssl x509 -req -in csr -signkey server.key -days 30 -out server.crt && openssl x509 -in server.crt -text"
    );
    let made = Command::new("sh").args(["-c", &script]).output().expect("openssl");
    assert!(String::from_utf8_lossy(&made.stdout).contains("Version: 1"), "{made:?}");
    let rtmps = format!("rtmps {{ enabled on; listen 127.0.0.1:0; key {path}/server.key; cert {path}/server.crt; }}");
    let server = Server::start(&format!("listen 127.0.0.1:0; {rtmps} vhost __defaultVhost__ {{ }}"));
    let url = format!("rtmps://{}/live/livestream", server.addresses()[1]);
    let player = play_hashes(Path::new("ffmpeg"), &url);
    server.wait_for_log("play peer", 1);
    publish(Path::new("ffmpeg"), &avc_aac(), &url).success();
    assert_eq!(packets(&player.success()).len(), packets_of_file(Path::new("ffmpeg"), &avc_aac()).len());
}

/// ffmpeg publishes by RTMPS, ffmpeg plays by RTMPS and by RTMP: every packet arrives.
#[test]
fn rtmps_ffmpeg_publishes_and_plays() {
    if !have("ffmpeg") || !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let server = server(directory.path(), "127.0.0.1:0", "127.0.0.1:0");
    let secure = format!("rtmps://{}/live/livestream", server.addresses()[1]);
    let players = [&secure, &server.url("/live/livestream")].map(|url| play_hashes(Path::new("ffmpeg"), url));
    server.wait_for_log("play peer", 2);
    publish(Path::new("ffmpeg"), &avc_aac(), &secure).success();
    let file = packets_of_file(Path::new("ffmpeg"), &avc_aac());
    for player in players {
        let played = packets(&player.success());
        for number in [0, 1] {
            assert_eq!(track(&played, number), track(&file, number), "track {number}");
        }
    }
    let mut probe = bounded("ffprobe");
    publish_again_and_probe(&server, &secure, &mut probe);
}

/// ffprobe over RTMPS sees both tracks, as ffplay would.
fn publish_again_and_probe(server: &Server, url: &str, probe: &mut Command) {
    let publisher = publish_on(&avc_aac(), &server.url("/live/livestream"));
    server.wait_for_log("publish: AVC", 2);
    probe.args(["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", url]);
    let tracks = Running::start(probe).success();
    let mut tracks: Vec<&str> = tracks.split_whitespace().map(|line| line.trim_matches(',')).collect();
    tracks.sort_unstable();
    assert_eq!(tracks, ["aac", "h264"]);
    publisher.kill();
}

/// TLS 1.2 and 1.3 both.
#[test]
fn rtmps_takes_both_tls_versions() {
    if !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let server = server(directory.path(), "127.0.0.1:0", "127.0.0.1:0");
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let seen = seen_by_openssl(server.addresses()[1], option);
        assert!(seen.contains("CN = localhost") && seen.contains(version), "{seen}");
    }
    let old = seen_by_openssl(server.addresses()[1], "-tls1_1");
    assert!(!old.contains("CN = localhost"), "{old}");
}

/// IPv4 and IPv6 for both protocols without a clash: published by rtmps over IPv6, played by rtmp over IPv4.
#[test]
fn rtmps_and_ipv6_at_once() {
    if !have("ffmpeg") || !have("openssl") {
        return;
    }
    let free = |port: &u16| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok();
    let port = (30_000..32_000).find(free).expect("a free port");
    let secure = (port + 1..32_767).find(free).expect("a free port");
    let directory = tempfile::tempdir().expect("a directory");
    let server = server(directory.path(), &format!("{port} [::]:{port}"), &format!("{secure} [::]:{secure}"));
    assert_eq!(server.addresses().len(), 4);
    let mut player = Peer::play(([127, 0, 0, 1], port).into(), "live", "livestream");
    publish(Path::new("ffmpeg"), &avc_aac(), &format!("rtmps://[::1]:{secure}/live/livestream")).success();
    player.expect_status("NetStream.Play.UnpublishNotify");
    assert!(player.keyframes >= 3);
}

/// A new certificate is there after a reload, for new connections; live ones go on, and one that cannot be
/// used changes nothing.
#[test]
fn rtmps_certificate_is_reloaded_under_live_connections() {
    if !have("ffmpeg") || !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let config =
        format!("listen 127.0.0.1:0; {} vhost __defaultVhost__ {{ }}", section(directory.path(), "127.0.0.1:0"));
    let server = Server::start(&config);
    let address = server.addresses()[1];
    let url = format!("rtmps://{address}/live/x");
    let player = play_hashes(Path::new("ffmpeg"), &url);
    server.wait_for_log("play peer", 1);
    let publisher = publish(Path::new("ffmpeg"), &avc_aac(), &url);
    server.wait_for_log("publish: AVC", 1);
    make_certificate(directory.path(), "renewed");
    assert!(seen_by_openssl(address, "").contains("CN = localhost"), "not yet");
    server.reload(&config);
    assert!(seen_by_openssl(address, "").contains("CN = renewed"));
    std::fs::write(directory.path().join("server.key"), "nonsense").expect("write");
    let said = server.reload(&config);
    assert!(said.contains("nothing has changed") && said.contains("server.key"), "{said}");
    assert!(seen_by_openssl(address, "").contains("CN = renewed"));
    publisher.success();
    let file = packets_of_file(Path::new("ffmpeg"), &avc_aac());
    assert_eq!(track(&packets(&player.success()), 0), track(&file, 0), "the live ones lost nothing");
}

/// Stalled TLS handshakes, and clients that speak RTMP or garbage to the TLS port: closed in time, and little
/// memory meanwhile (R16).
#[test]
fn rtmps_stalled_handshakes_are_closed_in_time() {
    if !have("openssl") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let server = Server::start(&format!(
        "listen 127.0.0.1:0; max_connections 3000; {} vhost __defaultVhost__ {{ }}",
        section(directory.path(), "127.0.0.1:0")
    ));
    let address = server.addresses()[1];
    let before = server.rss_kib();
    let started = Instant::now();
    // A record that announces a ClientHello, and not the rest of it.
    let mut stalled: Vec<_> = (0..500)
        .map(|_| {
            let mut socket = connected(address);
            socket.write_all(&[&[22, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3][..], &[7; 200]].concat()).expect("send");
            socket
        })
        .collect();
    // What is no TLS is refused at once, with an alert.
    let mut plain = connected(address);
    plain.write_all(&[&[3][..], &[0; 1536]].concat()).expect("send");
    let mut alert = Vec::new();
    drop(plain.read_to_end(&mut alert));
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
    server.wait_for_log("closed: TLS:", 1);
    let each = server.rss_kib().saturating_sub(before) * 1024 / 500;
    assert!(each < 32 << 10, "{each} bytes for a stalled handshake");
    for socket in &mut stalled {
        socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a timeout");
        while socket.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
    }
    let seconds = started.elapsed().as_secs();
    assert!((9..=13).contains(&seconds), "{seconds} s");
    server.wait_for_log("no complete handshake within 10 s", 500);
}
