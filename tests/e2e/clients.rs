//! Real publishers and players beside ffmpeg: GStreamer, ffprobe, rtmpdump, VLC.

use crate::{
    media::{Running, avc_aac, bounded, have, packets, packets_of_file, play_hashes, publish, publish_on, track},
    server::Server,
};
use std::{path::Path, process::Command};

const FFMPEG: &str = "ffmpeg";

/// The hashes of a file's packets of one track.
fn hashes(file: &Path, number: u32) -> Vec<String> {
    track(&packets_of_file(Path::new(FFMPEG), file), number).into_iter().map(|packet| packet.2).collect()
}

/// A player that waits for its publisher, and writes FLV to the path it is given.
fn plays_everything(tools: &[&str], may_lose: usize, player: impl FnOnce(&Server, &str, &Path) -> Command) {
    if !tools.iter().chain(&[FFMPEG]).all(|tool| have(tool)) {
        return;
    }
    let server = Server::plain();
    let (url, file) = (server.url("/live/clients"), server.file("played.flv"));
    let player = Running::start(&mut player(&server, &url, &file));
    server.wait_for_log("play peer", 1);
    publish(Path::new(FFMPEG), &avc_aac(), &url).success();
    player.output();
    for number in [0, 1] {
        let (played, mut published) = (hashes(&file, number), hashes(&avc_aac(), number));
        assert!(played.len() + may_lose >= published.len(), "{} of {}", played.len(), published.len());
        published.truncate(played.len());
        assert_eq!(played, published, "track {number}");
    }
}

/// A5: rtmpdump plays everything from the first to the last packet.
#[test]
fn rtmpdump_plays() {
    plays_everything(&["rtmpdump"], 0, |_, url, file| {
        let mut command = bounded("rtmpdump");
        command.args(["-q", "-v", "-r", url, "-o"]).arg(file);
        command
    });
}

/// A5: GStreamer's rtmp2src plays everything, but for a last message that it may drop itself when it is
/// told the end.
#[test]
fn gstreamer_plays() {
    plays_everything(&["gst-launch-1.0"], 1, |_, url, file| {
        let mut command = bounded("gst-launch-1.0");
        command.args(["-q", "rtmp2src", &format!("location={url}"), "!", "filesink"]);
        command.arg(format!("location={}", file.display()));
        command
    });
}

/// A5: VLC plays. It refuses root, changes AAC's framing on its way to a file, and drops the last frames
/// in its own muxer when it is told to quit: video packets are counted.
#[test]
fn vlc_plays() {
    if !(have("cvlc") && have(FFMPEG) && have("setpriv")) {
        return;
    }
    let server = Server::plain();
    let (url, file) = (server.url("/live/vlc"), server.file("played.ts"));
    // The user `nobody` must be able to write the file.
    std::fs::write(&file, []).expect("a file");
    let open = Command::new("chmod").args(["-R", "a+rwX"]).arg(file.parent().expect("a directory")).status();
    assert!(open.expect("chmod").success());
    let mut command = bounded("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "cvlc",
        "-I",
        "dummy",
        "--no-plugins-cache",
        &url,
    ]);
    command.arg(format!("--sout=#std{{access=file,mux=ts,dst={}}}", file.display())).arg("vlc://quit");
    let player = Running::start(command.env("HOME", file.parent().expect("a directory")));
    server.wait_for_log("play peer", 1);
    publish(Path::new(FFMPEG), &avc_aac(), &url).success();
    player.output();
    let count = |path: &Path| {
        let probe = [
            "-v",
            "error",
            "-select_streams",
            "v",
            "-count_packets",
            "-show_entries",
            "stream=nb_read_packets",
            "-of",
            "csv=p=0",
        ];
        let text = Running::start(bounded("ffprobe").args(probe).arg(path)).success();
        let first = text.lines().next().unwrap_or_default();
        first.trim_end_matches(',').parse::<u32>().unwrap_or_else(|_| panic!("{text}"))
    };
    let (played, published) = (count(&file), count(&avc_aac()));
    assert!((published - 10..=published).contains(&played), "{played} of {published} video packets");
}

/// A5: ffprobe sees the same tracks and codecs, and no data track (C4: no Data.Start).
#[test]
fn c4_ffprobe_sees_two_tracks() {
    if !(have("ffprobe") && have(FFMPEG)) {
        return;
    }
    let server = Server::plain();
    let url = server.url("/live/probe");
    let publisher = publish_on(&avc_aac(), &url);
    server.wait_for_log("publish: AVC 640x360 High 3.0, AAC", 1);
    let probe = ["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", &url];
    assert_eq!(Running::start(bounded("ffprobe").args(probe)).success(), "h264\naac\n");
    publisher.kill();
}

/// A5: GStreamer's rtmp2sink publishes; ffmpeg plays all its packets.
#[test]
fn gstreamer_publishes() {
    if !(have("gst-launch-1.0") && have(FFMPEG)) {
        return;
    }
    let server = Server::plain();
    let url = server.url("/live/gst");
    let player = play_hashes(Path::new(FFMPEG), &url);
    server.wait_for_log("play peer", 1);
    let mut command = bounded("gst-launch-1.0");
    command.args(["-q", "filesrc", &format!("location={}", avc_aac().display()), "!", "flvdemux", "name=d"]);
    command.args("d.video ! queue ! h264parse ! identity sync=true ! flvmux streamable=true name=m".split(' '));
    command.args(["!", "rtmp2sink", &format!("location={url}")]);
    command.args("d.audio ! queue ! aacparse ! m.".split(' '));
    Running::start(&mut command).success();
    let played = packets(&player.success());
    // GStreamer rebuilds the tags: counts and distances stay, the SEI of the first packet may not.
    let published = packets_of_file(Path::new(FFMPEG), &avc_aac());
    let (video, sound) = (track(&published, 0), track(&published, 1));
    let tracks = [track(&played, 0).len(), track(&played, 1).len()];
    assert!(tracks.contains(&video.len()) && tracks.iter().any(|count| count.abs_diff(sound.len()) <= 1), "{tracks:?}");
}
