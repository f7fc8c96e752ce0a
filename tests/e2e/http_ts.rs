//! HTTP-TS, AAC and MP3: real players get every frame, at every place of the server, and no packet out of order.

use crate::{
    media::{Running, aac_only, avc_aac, bounded, ffmpeg9, have, hevc, mp3, packets, publish, publish_on, track},
    peer::{AVC_HEADER, Peer},
    server::eventually,
    web::{Web, get, node_modules, websocket},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const MOUNTS: &str = "mount [vhost]/[app]/[stream].flv [vhost]/[app]/[stream].ts [vhost]/[app]/[stream].aac \
                      [vhost]/[app]/[stream].mp3;";
/// What makes the same bytes of a frame wherever it comes from: its slices alone, and sound without ADTS. Where an
/// encoder's SEI stands among parameter sets, ffmpeg and we do not agree.
pub(crate) const AVC: [&str; 4] =
    ["-bsf:v", "h264_mp4toannexb,filter_units=remove_types=6-9", "-bsf:a", "aac_adtstoasc"];
pub(crate) const HEVC: [&str; 4] =
    ["-bsf:v", "hevc_mp4toannexb,filter_units=remove_types=32-40", "-bsf:a", "aac_adtstoasc"];

pub(crate) fn remux(more: &str) -> String {
    format!("http_remux {{ enabled on; wait_stream 20; {MOUNTS} {more} }}")
}

/// ffmpeg reading to the end, every frame's hash to stdout, and whatever it finds wrong to stderr.
pub(crate) fn hashes(ffmpeg: &Path, input: &str, filters: &[&str]) -> Running {
    let mut command = bounded(ffmpeg);
    command.args(["-v", "warning", "-i", input, "-map", "0:v?", "-map", "0:a?", "-c", "copy"]).args(filters);
    Running::start(command.args(["-f", "framehash", "-hash", "md5", "-"]))
}

/// What it printed; it must have found nothing wrong.
pub(crate) fn clean(player: Running) -> String {
    let output = player.output();
    let (text, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // ffmpeg 9 says so at the end of every chunked response.
    let found =
        words.lines().find(|line| !line.is_empty() && !line.ends_with("Error during demuxing: Input/output error"));
    assert!(output.status.success() && found.is_none(), "{words}");
    text.into_owned()
}

/// Frames by track, with their times from the first one on.
pub(crate) fn frames(framehash: &str) -> [Vec<(i64, String)>; 2] {
    let packets = packets(framehash);
    [0, 1].map(|number| track(&packets, number).into_iter().map(|packet| (packet.1, packet.2)).collect())
}

/// ffmpeg plays to the end of the stream: every frame that was published, at its time.
fn plays_whole(ffmpeg: &Path, published: &Path, filters: &[&str]) {
    let web = Web::start(&remux(""));
    let player = hashes(ffmpeg, &web.flv_url("/live/livestream.ts"), filters);
    web.server.wait_for_log("play peer", 1);
    publish(ffmpeg, published, &web.server.url("/live/livestream")).success();
    let seen = frames(&clean(player));
    let expected = frames(&hashes(ffmpeg, published.to_str().expect("a path"), filters).success());
    assert_eq!(seen[0].len(), expected[0].len());
    assert_eq!(seen, expected);
}

#[test]
fn http_ts_h264_and_aac_arrive_whole() {
    if have("ffmpeg") {
        plays_whole(Path::new("ffmpeg"), &avc_aac(), &AVC);
    }
}

#[test]
fn http_ts_hevc_arrives_whole() {
    if let Some(ffmpeg) = ffmpeg9() {
        plays_whole(&ffmpeg, &hevc(&ffmpeg), &HEVC);
    }
}

#[test]
fn http_ts_mp3_arrives_whole() {
    if have("ffmpeg") {
        plays_whole(Path::new("ffmpeg"), &mp3(), &AVC[..2]);
    }
}

/// Sound alone is a stream too.
#[test]
fn http_ts_without_video_arrives_whole() {
    if have("ffmpeg") {
        plays_whole(Path::new("ffmpeg"), &aac_only(), &AVC[2..]);
    }
}

/// curl players of one path into files.
pub(crate) fn curls(web: &Web, path: &str, count: usize) -> (Vec<Running>, Vec<PathBuf>) {
    let files: Vec<PathBuf> = (0..count).map(|number| web.server.file(&format!("{number}.played"))).collect();
    let start = |file: &PathBuf| Running::start(bounded("curl").args(["-sSf", "-o"]).arg(file).arg(web.flv_url(path)));
    (files.iter().map(start).collect(), files)
}

/// Who was there before the first frame gets the same packets on every shard, at home and elsewhere.
#[test]
fn http_ts_is_the_same_on_every_shard() {
    if !have("curl") || !have("ffmpeg") {
        return;
    }
    let mut sizes = Vec::new();
    for shards in [1, 2, 4] {
        let web = Web { server: crate::server::Server::shards(shards, &crate::web::config("", "", &remux(""))) };
        let (players, files) = curls(&web, "/live/s.ts", 12);
        web.shards_of_players("s", 12);
        publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/s")).success();
        players.into_iter().for_each(|player| drop(player.success()));
        let played: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).expect("a file")).collect();
        assert!(played.iter().all(|file| *file == played[0]), "{shards} shards");
        assert!(played[0].len() > 100_000 && played[0].len().is_multiple_of(188));
        sizes.push(played[0].len());
    }
    assert!(sizes.iter().all(|size| *size == sizes[0]), "{sizes:?}");
}

/// What a WebSocket's messages have is what HTTP has.
#[test]
fn websocket_ts_arrives_whole() {
    let Some(modules) = node_modules().filter(|_| have("node") && have("ffmpeg") && have("curl")) else { return };
    let web = Web::start(&remux(""));
    let file = web.server.file("ws.ts");
    let socket = websocket(&modules, &format!("ws://{}/live/ws.ts", web.http()), &file);
    let (players, files) = curls(&web, "/live/ws.ts", 1);
    web.server.wait_for_log("play peer", 2);
    publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/ws")).success();
    socket.success();
    players.into_iter().for_each(|player| drop(player.success()));
    assert_eq!(fs::read(&file).expect("a file"), fs::read(&files[0]).expect("a file"));
}

/// Who comes late begins with tables and a keyframe, and finds no counter wrong; so does who leaves and comes again.
#[test]
fn a_late_joiner_of_ts_begins_at_a_keyframe() {
    if !have("ffprobe") || !have("ffmpeg") {
        return;
    }
    for shards in [1, 2, 4] {
        let web = Web { server: crate::server::Server::shards(shards, &crate::web::config("", "", &remux(""))) };
        let publisher = publish_on(&avc_aac(), &web.server.url("/live/late"));
        web.live("late");
        for _ in 0..3 {
            let mut probe = bounded("ffprobe");
            probe.args(["-v", "warning", "-show_entries", "packet=codec_type,flags", "-of", "csv=p=0"]);
            let output =
                Running::start(probe.args(["-read_intervals", "%+#20", &web.flv_url("/live/late.ts")])).output();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
            let video = text.lines().find(|line| line.starts_with("video")).unwrap_or_default();
            assert!(video.contains(",K"), "{text}");
        }
        publisher.kill();
    }
}

/// AAC with its headers, and MP3 as it was published; what the sound is not is refused, and who asks is told why.
#[test]
fn sound_alone_is_served() {
    if !have("ffmpeg") || !have("curl") {
        return;
    }
    let ffmpeg = Path::new("ffmpeg");
    for (file, path, other) in [(avc_aac(), "/live/s.aac", "/live/s.mp3"), (mp3(), "/live/s.mp3", "/live/s.aac")] {
        let web = Web::start(&remux(""));
        let (players, played) = curls(&web, path, 2);
        web.server.wait_for_log("play peer", 2);
        let publisher = publish(ffmpeg, &file, &web.server.url("/live/s"));
        web.live("s");
        let refused = get(web.http(), other);
        assert_eq!(refused.status, 406, "{refused:?}");
        assert!(refused.text().contains("the stream's sound is not"), "{refused:?}");
        publisher.success();
        players.into_iter().for_each(|player| drop(player.success()));
        let sound = |input: &Path, more: &[&str]| {
            let filters = [&["-vn"][..], more].concat();
            let text = hashes(ffmpeg, input.to_str().expect("a path"), &filters).success();
            packets(&text).into_iter().map(|packet| packet.2).collect::<Vec<_>>()
        };
        let filters: &[&str] = if path.ends_with("aac") { &AVC[2..] } else { &[] };
        for played in played {
            assert_eq!(sound(&played, filters), sound(&file, filters), "{path}");
        }
    }
}

/// `fast_cache`: who comes gets the last seconds at once; without it, from the newest keyframe on.
#[test]
fn fast_cache_is_sound_at_once() {
    if !have("ffmpeg") {
        return;
    }
    for (cache, least, most) in [("fast_cache 3;", 2.2, 4.2), ("", 0.0, 1.8)] {
        let web = Web::start(&remux(cache));
        let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
        web.live("s");
        std::thread::sleep(std::time::Duration::from_millis(3500));
        let file = web.server.file("burst.aac");
        let mut curl = bounded("curl");
        let player = Running::start(
            curl.args(["-sS", "--no-buffer", "-m", "0.5", "-o"]).arg(&file).arg(web.flv_url("/live/s.aac")),
        );
        player.output();
        // Each frame has 1024 samples of 44,100 a second.
        let played = fs::read(&file).expect("a file");
        let (mut at, mut count) = (0, 0.0);
        while let Some(header) = played.get(at..at + 7) {
            assert_eq!((header[0], header[1]), (0xFF, 0xF1));
            at += usize::from(header[3] & 3) << 11 | usize::from(header[4]) << 3 | usize::from(header[5] >> 5);
            count += 1024.0 / 44_100.0;
        }
        assert!((least..=most).contains(&count), "{cache} {count} s");
        publisher.kill();
    }
}

/// A stream that MPEG-TS has no word for, and one without anything, are told apart.
#[test]
fn http_ts_refuses_what_it_cannot_carry() {
    let web = Web::start(&remux(""));
    let mut publisher = Peer::publish(web.server.address(), "live", "odd");
    publisher.send(6, 9, 1, 0, b"\x90av01\x81\x05\x0C\x00");
    publisher.send(4, 8, 1, 0, b"\x90OpusOpusHead\x01\x02");
    publisher.send(6, 9, 1, 0, b"\x91av01\x12\x00");
    let refused =
        eventually("the refusal", || Some(get(web.http(), "/live/odd.ts")).filter(|answer| answer.status == 406));
    assert!(refused.text().contains("H.264, HEVC, AAC and MP3"), "{refused:?}");
}

/// What encoders send that is none: no parameter sets, byte streams behind a record, empty units, garbage, times that
/// jump. The stream goes on, and ffmpeg finds the pictures that are some.
#[test]
fn http_ts_goes_on_over_odd_media() {
    if !have("curl") {
        return;
    }
    let web = Web::start(&remux(""));
    let (players, files) = curls(&web, "/live/odd.ts", 2);
    web.server.wait_for_log("play peer", 2);
    let mut publisher = Peer::publish(web.server.address(), "live", "odd");
    let frame =
        |key: bool, unit: &[u8]| [if key { &b"\x17\x01\0\0\0"[..] } else { &b"\x27\x01\0\0\0"[..] }, unit].concat();
    // Before any header.
    publisher.send(6, 9, 1, 0, &frame(true, &[0, 0, 0, 2, 0x65, 1]));
    publisher.send(6, 9, 1, 0, AVC_HEADER);
    let units: [&[u8]; 6] = [
        &[0, 0, 0, 2, 0x65, 1],
        &[0, 0, 0, 1, 0x65, 0x88, 0x84],
        &[0, 0, 0, 0, 0, 0, 0, 2, 0x65, 3],
        &[0xFF; 40],
        &[],
        &[0, 0, 1],
    ];
    for (number, time_ms) in [40, 80, 120, 4_000_000, 30, 70, 110, 150, 190].into_iter().enumerate() {
        publisher.send(6, 9, 1, time_ms, &frame(number == 0, units[number % units.len()]));
        publisher.send(4, 8, 1, time_ms, b"\xAF\x01garbage");
    }
    publisher.send(4, 8, 1, 200, b"\xAF\x00\xF9\x50");
    publisher.send(4, 8, 1, 240, b"\xAF\x01not to be carried");
    drop(publisher);
    players.into_iter().for_each(|player| drop(player.success()));
    for file in files {
        let played = fs::read(file).expect("a file");
        assert!(played.len() >= 188 * 6 && played.len().is_multiple_of(188), "{}", played.len());
        assert!(played.chunks(188).all(|packet| packet[0] == 0x47));
        let pid = |packet: &[u8]| u16::from_be_bytes([packet[1] & 0x1F, packet[2]]);
        assert!(played.chunks(188).all(|packet| pid(packet) != 0x101), "no sound that is none");
        assert!(played.chunks(188).filter(|packet| pid(packet) == 0x100).count() >= 3);
    }
    assert_eq!(web.metric("corecast_panics_total").iter().sum::<u64>(), 0);
}

/// VLC and GStreamer play it to the end.
#[test]
fn vlc_and_gstreamer_play_http_ts() {
    if !(have("cvlc") && have("ffmpeg") && have("setpriv") && have("gst-launch-1.0")) {
        return;
    }
    let web = Web::start(&remux(""));
    let file = web.server.file("played.ts");
    fs::write(&file, []).expect("a file");
    let directory = file.parent().expect("a directory");
    assert!(Command::new("chmod").args(["-R", "a+rwX"]).arg(directory).status().expect("chmod").success());
    let mut vlc = bounded("setpriv");
    vlc.args(["--reuid=65534", "--regid=65534", "--clear-groups", "cvlc", "-I", "dummy", "--no-plugins-cache"]);
    vlc.arg(web.flv_url("/live/s.ts")).arg(format!("--sout=#std{{access=file,mux=ts,dst={}}}", file.display()));
    let vlc = Running::start(vlc.arg("vlc://quit").env("HOME", directory));
    let decoded = web.server.file("gst.aac");
    let mut gst = bounded("gst-launch-1.0");
    gst.args(["-q", "souphttpsrc", &format!("location={}", web.flv_url("/live/s.ts")), "!", "tsparse", "!", "tsdemux"]);
    gst.args([
        "name=d",
        "d.",
        "!",
        "queue",
        "!",
        "h264parse",
        "!",
        "fakesink",
        "d.",
        "!",
        "queue",
        "!",
        "aacparse",
        "!",
    ]);
    let gst = Running::start(gst.args([
        "audio/mpeg,stream-format=adts",
        "!",
        "filesink",
        &format!("location={}", decoded.display()),
    ]));
    web.server.wait_for_log("play peer", 2);
    publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/s")).success();
    vlc.output();
    gst.success();
    let count = |path: &Path, kind: &str| {
        let mut probe = bounded("ffprobe");
        probe.args([
            "-v",
            "error",
            "-select_streams",
            kind,
            "-count_packets",
            "-show_entries",
            "stream=nb_read_packets",
        ]);
        let text = Running::start(probe.args(["-of", "csv=p=0"]).arg(path)).success();
        let first = text.lines().next().unwrap_or_default();
        first.trim_end_matches(',').parse::<u32>().unwrap_or_else(|_| panic!("{text}"))
    };
    let (played, published) = (count(&file, "v"), count(&avc_aac(), "v"));
    assert!((published - 10..=published).contains(&played), "VLC: {played} of {published} pictures");
    let (played, published) = (count(&decoded, "a"), count(&avc_aac(), "a"));
    assert!((published - 2..=published).contains(&played), "GStreamer: {played} of {published} frames of sound");
}
