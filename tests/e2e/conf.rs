//! Configuration files and the environment: those that ship, the seeds', and broken ones.

use crate::{
    live::{Live, bursts, median},
    media::{Running, avc_aac, bounded, have, publish_on},
    peer::Peer,
    rtmps::make_certificate,
    server::Server,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).expect("a file of the project")
}

fn corecast(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    command.current_dir(directory).args(arguments).envs(variables.iter().copied()).output().expect("corecast")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory with `conf/server.key` and `conf/server.crt`, made by the seed's recipe.
fn directory_with_certificate() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join("conf")).expect("conf");
    make_certificate(&directory.path().join("conf"), "localhost");
    directory
}

/// A server with a file as it stands, its ports replaced by free ones through the environment.
fn start(config: &str, directory: &Path, variables: &[(&str, &str)]) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    command.current_dir(directory).envs(variables.iter().copied());
    Server::start_with(config, command)
}

fn ffprobe_tracks(url: &str) -> Vec<String> {
    let mut probe = bounded("ffprobe");
    probe.args(["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", url]);
    let printed = Running::start(&mut probe).success();
    let mut tracks: Vec<String> = printed.split_whitespace().map(|line| line.trim_matches(',').to_owned()).collect();
    tracks.sort();
    tracks
}

/// A1: the seed's four lines, byte for byte: RTMP publish and play work.
#[test]
fn a1_the_seeds_rtmp_conf() {
    let config = read("conf/rtmp.conf");
    assert_eq!(
        config, "listen              1935;\nmax_connections     1000;\nvhost __defaultVhost__ {\n}\n",
        "as the seed has it"
    );
    if !have("ffmpeg") {
        return;
    }
    let server = start(&config, Path::new(ROOT), &[("SRS_LISTEN", "127.0.0.1:0")]);
    let publisher = publish_on(&avc_aac(), &server.url("/live/livestream"));
    server.wait_for_log("publish: AVC", 1);
    assert_eq!(ffprobe_tracks(&server.url("/live/livestream")), ["aac", "h264"]);
    publisher.kill();
}

/// A2: the seed's realtime.conf, byte for byte, gives the low-latency mode: K5, its mw_latency holds; no GOP
/// cache, TCP_NODELAY, no merged read.
#[test]
fn a2_the_seeds_realtime_conf() {
    let config = read("conf/realtime.conf");
    assert!(config.starts_with("# conf/realtime.conf\nlisten              1935;\n") && config.contains("mr off;"));
    let server = start(&config, Path::new(ROOT), &[("SRS_LISTEN", "127.0.0.1:0")]);
    let publisher = Live::start(server.address(), "live", "livestream", 20, 100, 0);
    std::thread::sleep(std::time::Duration::from_millis(400));
    let mut player = Peer::play(server.address(), "live", "livestream");
    player.expect_frames(20);
    assert_eq!(player.keyframes, 0, "no GOP cache");
    let distance = median(bursts(&player.expect_frames(100)));
    assert!((80..=130).contains(&distance), "{distance} ms");
    drop(publisher);
    let explained = text(&corecast(Path::new(ROOT), &["-t", "--explain", "-c", "conf/realtime.conf"], &[]).stdout);
    for line in [
        "    tcp_nodelay             on;              # conf/realtime.conf:5",
        "        mw_msgs                 0;           # default",
    ] {
        assert!(explained.contains(line), "{line}: {explained}");
    }
}

/// A3, S3: the seed's rtmps.conf with the openssl recipe: published and played over RTMPS.
#[test]
fn a3_the_seeds_rtmps_conf() {
    if !have("ffmpeg") || !have("openssl") {
        return;
    }
    let directory = directory_with_certificate();
    let ports = [("SRS_LISTEN", "127.0.0.1:0"), ("SRS_RTMPS_LISTEN", "127.0.0.1:0")];
    let server = start(&read("conf/rtmps.conf"), directory.path(), &ports);
    let url = format!("rtmps://{}/live/livestream", server.addresses()[1]);
    let publisher = publish_on(&avc_aac(), &url);
    server.wait_for_log("publish: AVC", 1);
    assert_eq!(ffprobe_tracks(&url), ["aac", "h264"]);
    publisher.kill();
    // Without key and certificate it says how to make them.
    let empty = tempfile::tempdir().expect("a directory");
    let conf = format!("{ROOT}/conf/rtmps.conf");
    let output = corecast(empty.path(), &["-c", &conf], &[]);
    assert!(text(&output.stderr).contains("openssl genrsa -out ./conf/server.key 2048"), "{}", text(&output.stderr));
}

/// Every file that ships is good.
#[test]
fn a3_every_shipped_configuration_is_good() {
    let directory = directory_with_certificate();
    let mut seen = 0;
    for file in fs::read_dir(Path::new(ROOT).join("conf")).expect("conf").filter_map(Result::ok) {
        let path = file.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            // The number is the box's to bear, which this one need not.
            let file = path.to_str().expect("a path");
            let output = corecast(directory.path(), &["-t", "-c", file], &[("SRS_MAX_CONNECTIONS", "100")]);
            assert!(output.status.success(), "{}: {}", path.display(), text(&output.stderr));
            seen += 1;
        }
    }
    assert!(seen >= 7, "{seen} files");
}

/// S3's long example: it starts, and what it sets acts: small chunks, no GOP cache, one message at a time.
#[test]
fn the_seeds_long_example() {
    if !have("ffmpeg") {
        return;
    }
    let config = read("tests/seeds/rtmp-all.conf");
    let server = start(&config, Path::new(ROOT), &[("SRS_LISTEN", "127.0.0.1:0")]);
    let publisher = Live::start(server.address(), "live", "livestream", 20, 25, 0);
    let mut player = Peer::play(server.address(), "live", "livestream");
    let frames = player.expect_frames(60);
    let bursts = bursts(&frames);
    assert!(bursts.len() >= 50, "one by one: {bursts:?}");
    drop(publisher);
    let publisher = publish_on(&avc_aac(), &server.url("/live/other"));
    server.wait_for_log("publish: AVC 640x360", 2);
    assert_eq!(ffprobe_tracks(&server.url("/live/other")), ["aac", "h264"]);
    publisher.kill();
    let explained =
        text(&corecast(Path::new(ROOT), &["-t", "--explain", "-c", "tests/seeds/rtmp-all.conf"], &[]).stdout);
    assert!(explained.contains("normal_timeout          7000;"), "K2: what stands there holds: {explained}");
    let default = text(&corecast(Path::new(ROOT), &["-t", "--explain", "-c", "conf/rtmp.conf"], &[]).stdout);
    for line in ["normal_timeout          5000;", "queue_length            30;", "gop_cache               on;"] {
        assert!(default.contains(line), "K2: the comment's default holds where nothing stands: {line}");
    }
}

/// S3's IPv6 examples: both families, both protocols, at once.
#[test]
fn the_seeds_ipv6_examples() {
    if !have("ffmpeg") || !have("openssl") {
        return;
    }
    let directory = directory_with_certificate();
    let ports = [("SRS_LISTEN", "127.0.0.1:0 [::1]:0"), ("SRS_RTMPS_LISTEN", "127.0.0.1:0 [::1]:0")];
    for (file, listens) in [("tests/seeds/ipv6.conf", 4), ("tests/seeds/dual-stack.conf", 2)] {
        let server = start(&read(file), directory.path(), &ports);
        let addresses = server.addresses().to_vec();
        assert_eq!(addresses.len(), listens, "{file}");
        let url = |at: usize| format!("{}://{}/live/livestream", if at < 2 { "rtmp" } else { "rtmps" }, addresses[at]);
        // Published by the last, which is IPv6, played by all.
        let publisher = publish_on(&avc_aac(), &url(listens - 1));
        server.wait_for_log("publish: AVC", 1);
        (0..listens).for_each(|at| assert_eq!(ffprobe_tracks(&url(at)), ["aac", "h264"], "{}", url(at)));
        publisher.kill();
    }
}

/// Row by row: each variable of the environment goes before the default, and is named as the origin.
#[test]
fn every_variable_overrides() {
    let directory = directory_with_certificate();
    let variables = [
        ("SRS_LISTEN", "1935 [::]:1935"),
        ("SRS_MAX_CONNECTIONS", "77"),
        ("SRS_CHUNK_SIZE", "5000"),
        ("SRS_RTMPS_ENABLED", "on"),
        ("SRS_RTMPS_LISTEN", "1443"),
        ("SRS_RTMPS_KEY", "conf/server.key"),
        ("SRS_RTMPS_CERT", "conf/server.crt"),
        ("SRS_VHOST_MIN_LATENCY", "on"),
        ("SRS_VHOST_TCP_NODELAY", "on"),
        ("SRS_VHOST_CHUNK_SIZE", "6000"),
        ("SRS_VHOST_IN_ACK_SIZE", "1"),
        ("SRS_VHOST_OUT_ACK_SIZE", "2"),
        ("SRS_VHOST_PUBLISH_MR", "on"),
        ("SRS_VHOST_PUBLISH_MR_LATENCY", "400"),
        ("SRS_VHOST_PUBLISH_FIRSTPKT_TIMEOUT", "30000"),
        ("SRS_VHOST_PUBLISH_NORMAL_TIMEOUT", "6000"),
        ("SRS_VHOST_PUBLISH_PARSE_SPS", "off"),
        ("SRS_VHOST_PUBLISH_TRY_ANNEXB_FIRST", "off"),
        ("SRS_VHOST_PUBLISH_KICKOFF_FOR_IDLE", "9"),
        ("SRS_VHOST_PLAY_GOP_CACHE", "off"),
        ("SRS_VHOST_PLAY_GOP_CACHE_MAX_FRAMES", "100"),
        ("SRS_VHOST_PLAY_QUEUE_LENGTH", "9"),
        ("SRS_VHOST_PLAY_TIME_JITTER", "off"),
        ("SRS_VHOST_PLAY_ATC", "on"),
        ("SRS_VHOST_PLAY_MIX_CORRECT", "on"),
        ("SRS_VHOST_PLAY_ATC_AUTO", "on"),
        ("SRS_VHOST_PLAY_MW_LATENCY", "auto"),
        ("SRS_VHOST_PLAY_MW_MSGS", "3"),
        ("SRS_VHOST_PLAY_SEND_MIN_INTERVAL", "1.5"),
        ("SRS_VHOST_PLAY_REDUCE_SEQUENCE_HEADER", "on"),
    ];
    let output = corecast(directory.path(), &["-e", "-t", "--explain"], &variables);
    let explained = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for (name, value) in variables {
        let line = explained
            .lines()
            .find(|line| line.ends_with(&format!("# {name}")))
            .unwrap_or_else(|| panic!("{name}: {explained}"));
        assert!(line.contains(&format!(" {value};")), "{line}");
    }
    let bad = corecast(directory.path(), &["-e", "-t"], &[("SRS_LISTEN", "1935"), ("SRS_VHOST_PLAY_MW_MSGS", "many")]);
    let error = text(&bad.stderr);
    assert!(
        bad.status.code() == Some(1) && error.contains("environment:2:24") && error.contains("`many` is no value"),
        "{error}"
    );
}

/// A6, K1: -e runs from the environment alone, and its vhost variables act; -t, --explain and --lenient.
#[test]
fn a6_environment_alone() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    command
        .arg("-e")
        .env("SRS_RTMP_LISTEN", "127.0.0.1:0")
        .env("SRS_VHOST_PLAY_MW_LATENCY", "200")
        .env("SRS_VHOST_PLAY_MW_MSGS", "0");
    let server = Server::start_bare(command);
    let publisher = Live::start(server.address(), "live", "e", 20, 25, 0);
    let mut player = Peer::play(server.address(), "live", "e");
    player.expect_frames(50);
    let distance = median(bursts(&player.expect_frames(100)));
    assert!((170..=230).contains(&distance), "{distance} ms");
    drop(publisher);
    let root = Path::new(ROOT);
    let nothing = corecast(root, &["-e"], &[]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(text(&nothing.stderr).contains("SRS_LISTEN=1935"), "{}", text(&nothing.stderr));
    let directory = tempfile::tempdir().expect("a directory");
    let config = "listen 1935; rtc_server { enabled on; } vhost v { srt { enabled on; } rtc { enabled on; } }";
    fs::write(directory.path().join("x.conf"), config).expect("write");
    let strict = corecast(directory.path(), &["-t", "-c", "x.conf"], &[]);
    assert_eq!((strict.status.code(), text(&strict.stderr).matches("not supported").count()), (Some(1), 3));
    let lenient = corecast(directory.path(), &["-t", "--lenient", "-c", "x.conf"], &[]);
    assert_eq!((lenient.status.code(), text(&lenient.stderr).matches("warning:").count()), (Some(0), 3));
}

/// E3: what an operator reads about each broken file; the texts stand beside the files, to be read by eye.
#[test]
fn e3_every_fault_is_explained() {
    let directory = Path::new(ROOT).join("tests/faults");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&directory).expect("faults").filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    assert!(files.len() >= 20, "{} files", files.len());
    for path in files {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let script = format!("ulimit -n 4096; exec taskset -c 0 {} -t -c {name}", env!("CARGO_BIN_EXE_corecast"));
        let output = Command::new("bash").args(["-c", &script]).current_dir(&directory).output().expect("bash");
        assert_eq!(output.status.code(), Some(1), "{name}");
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(&directory);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name.trim_end_matches(".conf"), text(&output.stderr)));
    }
}

/// A key of another certificate is refused, at the line that names it.
#[test]
fn a_key_that_does_not_match_is_refused() {
    let [one, two] = [directory_with_certificate(), directory_with_certificate()];
    let (key, cert) = (one.path().join("conf/server.key"), two.path().join("conf/server.crt"));
    let file = one.path().join("x.conf");
    let config = format!(
        "listen 1935;\nrtmps {{\n  enabled on;\n  listen 1443;\n  key {};\n  cert {};\n}}\n",
        key.display(),
        cert.display()
    );
    fs::write(&file, config).expect("write");
    let output = corecast(one.path(), &["-t", "-c", "x.conf"], &[]);
    let error = text(&output.stderr);
    assert!(error.contains("x.conf:5:7") && error.contains("does not belong to certificate"), "{error}");
}
