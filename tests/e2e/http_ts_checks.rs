//! HTTP-TS as checkers see it that others wrote: ffprobe, GStreamer and tsreport; and mpegts.js in Chromium.

use crate::{
    http_ts::{curls, remux},
    media::{Running, aac_only, avc_aac, avc_only, bounded, ffmpeg9, have, hevc, mp3, publish_on},
    server::Server,
    ts::Ts,
    web::{self, Web, node_modules},
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Whether the checkers are there.
fn have_checkers() -> bool {
    ["ffmpeg", "ffprobe", "gst-launch-1.0", "tsreport", "curl"].into_iter().all(have)
}

/// Lines of what a checker says that have one of `words`.
fn said(checker: &mut std::process::Command, words: &[&str]) -> Vec<String> {
    let output = Running::start(checker).output();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().filter(|line| words.iter().any(|word| line.contains(word))).map(str::to_owned).collect()
}

/// ffmpeg's demultiplexer: counters, lengths, checksums.
fn ffprobe(file: &Path) -> Vec<String> {
    let mut probe = bounded("ffprobe");
    probe.args(["-v", "debug", "-show_packets"]).arg(file);
    said(&mut probe, &["Continuity check failed", "orrupt", "mismatch", "Invalid", "stream 2"])
}

/// GStreamer's: counters of tables too, clocks, tables without tracks.
fn gstreamer(file: &Path) -> Vec<String> {
    let mut gst = bounded("gst-launch-1.0");
    gst.args(["-q", "filesrc", &format!("location={}", file.display()), "!", "tsparse", "!", "tsdemux", "name=d"]);
    let tracks =
        Ts::read(&fs::read(file).expect("a file")).frames.into_iter().filter(|frames| !frames.is_empty()).count();
    for _ in 0..tracks {
        gst.args(["d.", "!", "queue", "!", "fakesink"]);
    }
    gst.env("GST_DEBUG_NO_COLOR", "1").env("GST_DEBUG", "tsparse:2,tsdemux:2,mpegtsbase:2,mpegtspacketizer:2");
    said(&mut gst, &["WARN", "ERROR"])
}

/// tstools: distances of clocks, and whether every time is ahead of them. It stops at tables without tracks.
fn tsreport(file: &Path) -> Vec<String> {
    let mut report = bounded("tsreport");
    let found = said(report.arg("-buffering").arg(file), &["###", "!!!", "PCRs found: ", "duplicate packets: "]);
    assert!(found.iter().any(|line| line.contains("PCRs found: ") && !line.contains("found: 0,")), "{found:?}");
    found.into_iter().filter(|line| !line.contains("gaps: 0,") && !line.ends_with("duplicate packets: 0")).collect()
}

/// Nobody finds anything wrong.
fn is_faultless(file: &Path, what: &str) {
    let faults = Ts::read(&fs::read(file).expect("a file")).faults;
    assert!(faults.is_empty(), "{what}: {faults:?}");
    for (checker, found) in [("ffprobe", ffprobe(file)), ("GStreamer", gstreamer(file)), ("tsreport", tsreport(file))] {
        assert!(found.is_empty(), "{what}: {checker}: {found:?}");
    }
}

/// Publishes a file twice over, as fast as it goes, to somebody who waits for it.
fn played_twice(web: &Web, ffmpeg: &Path, file: &Path) -> PathBuf {
    let (players, files) = curls(web, "/live/s.ts", 1);
    web.server.wait_for_log("play peer", 1);
    let mut command = bounded(ffmpeg);
    command.args(["-v", "error", "-stream_loop", "1", "-i"]).arg(file);
    Running::start(command.args(["-c", "copy", "-f", "flv", &web.server.url("/live/s")])).success();
    players.into_iter().for_each(|player| drop(player.success()));
    files.into_iter().next().expect("a file")
}

/// Eight seconds of each kind of stream.
#[test]
fn others_find_no_fault_in_ts() {
    if !have_checkers() {
        return;
    }
    let ffmpeg = Path::new("ffmpeg");
    let mut kinds = vec![(ffmpeg.to_owned(), avc_aac()), (ffmpeg.to_owned(), avc_only())];
    kinds.extend([(ffmpeg.to_owned(), aac_only()), (ffmpeg.to_owned(), mp3())]);
    kinds.extend(ffmpeg9().map(|ffmpeg| (ffmpeg.clone(), hevc(&ffmpeg))));
    for (ffmpeg, published) in kinds {
        let web = Web::start(&remux(""));
        let played = played_twice(&web, &ffmpeg, &published);
        let frames = Ts::read(&fs::read(&played).expect("a file")).frames.map(|frames| frames.len());
        assert!(frames[0] == 240 || frames[1] > 300, "{frames:?}");
        is_faultless(&played, &published.display().to_string());
    }
}

/// Who comes in the middle, leaves, and comes again; on the stream's shard and elsewhere.
#[test]
fn others_find_no_fault_in_what_a_late_joiner_of_ts_gets() {
    if !have_checkers() {
        return;
    }
    for shards in [1, 4] {
        let web = Web { server: Server::shards(shards, &web::config("", "", &remux(""))) };
        let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
        web.live("s");
        for round in 0..3 {
            let file = web.server.file("joined.ts");
            let mut curl = bounded("curl");
            curl.args(["-sS", "--no-buffer", "-m", "1.7", "-o"]).arg(&file).arg(web.flv_url("/live/s.ts"));
            Running::start(&mut curl).output();
            // It has left in the middle of something.
            let mut joined = fs::read(&file).expect("a file");
            joined.truncate(joined.len() / 188 * 188);
            fs::write(&file, &joined).expect("a file");
            let ts = Ts::read(&joined);
            assert!(ts.frames.iter().all(|frames| frames.len() > 30), "{:?}", ts.frames);
            assert_eq!((ts.maps.len(), ts.breaks.len()), (1, 0));
            is_faultless(&file, &format!("{shards} shards, round {round}"));
        }
        publisher.kill();
    }
}

/// A stream with something wrong is told by whoever is to tell it.
#[test]
fn others_find_the_faults_that_there_are() {
    if !have_checkers() {
        return;
    }
    let web = Web::start(&remux(""));
    let played = fs::read(played_twice(&web, Path::new("ffmpeg"), &avc_aac())).expect("a file");
    let pid = |packet: &[u8]| u16::from_be_bytes([packet[1] & 0x1F, packet[2]]);
    let has_clock = |packet: &[u8]| packet[3] & 0x20 != 0 && packet[4] > 0 && packet[5] & 0x10 != 0;
    let after = |packets: &[Vec<u8>], from: usize, is: &dyn Fn(&[u8]) -> bool| {
        from + packets[from..].iter().position(|packet| is(packet)).expect("such a packet")
    };
    type Change<'a> = (&'a str, &'a dyn Fn(&mut Vec<Vec<u8>>), &'a [fn(&Path) -> Vec<String>]);
    let changes: &[Change<'_>] = &[
        (
            "a packet of video missing",
            &|packets| {
                let at = after(packets, 1000, &|packet| pid(packet) == 0x100 && packet[1] & 0x40 == 0);
                packets.remove(at);
            },
            &[ffprobe, gstreamer],
        ),
        (
            "a table missing",
            &|packets| drop(packets.remove(after(packets, 1000, &|packet| pid(packet) == 0x1000))),
            &[ffprobe, gstreamer],
        ),
        (
            "a clock that jumps by a second",
            &|packets| {
                for packet in packets[2000..].iter_mut().filter(|packet| has_clock(packet)) {
                    let clock = packet[6..12].iter().fold(0, |clock, byte| clock << 8 | u64::from(*byte));
                    packet[6..12].copy_from_slice(&(clock + (90_000 << 15)).to_be_bytes()[2..]);
                }
            },
            &[tsreport],
        ),
        (
            "no clock for 200 ms",
            &|packets| {
                packets[1000..]
                    .iter_mut()
                    .filter(|packet| has_clock(packet))
                    .take(6)
                    .for_each(|packet| packet[5] &= !0x10);
            },
            &[tsreport],
        ),
        ("a program map without tracks", &|packets| packets.insert(1, empty_map()), &[gstreamer]),
    ];
    for (what, change, checkers) in changes {
        let mut packets: Vec<Vec<u8>> = played.chunks(188).map(<[u8]>::to_vec).collect();
        change(&mut packets);
        let file = web.server.file("changed.ts");
        fs::write(&file, packets.concat()).expect("a file");
        assert!(!Ts::read(&packets.concat()).faults.is_empty(), "{what}");
        for (number, checker) in checkers.iter().enumerate() {
            assert!(!checker(&file).is_empty(), "{what}: checker {number}");
        }
    }
}

/// What says that there is a program, and nothing in it.
fn empty_map() -> Vec<u8> {
    let mut packet = vec![0xFF; 188];
    let section = [2, 0xB0, 0x0D, 0, 1, 0xC1, 0, 0, 0xE1, 1, 0xF0, 0, 0x64, 0x2D, 0xB3, 0xB0];
    packet[..5].copy_from_slice(&[0x47, 0x50, 0, 0x1F, 0]);
    packet[5..][..section.len()].copy_from_slice(&section);
    packet
}

/// mpegts.js plays it in Chromium, by HTTP and by WebSocket, and whether it comes before the stream or after.
#[test]
fn mpegts_js_plays_ts() {
    let Some(modules) = node_modules().filter(|_| have("node") && have("chromium") && have("ffmpeg")) else { return };
    let web = Web::start(&remux(""));
    let publisher = publish_on(&avc_aac(), &web.server.url("/live/late"));
    web.live("late");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/play_ts.mjs");
    let mut node = bounded("node");
    node.env("PAGE_MODULES", modules).arg(script).arg(format!("http://{}/", web.http()));
    for name in ["late", "early"] {
        node.args([web.flv_url(&format!("/live/{name}.ts")), format!("ws://{}/live/{name}.ts", web.http())]);
    }
    let player = Running::start(&mut node);
    web.server.wait_for_log("play peer", 4);
    let early = publish_on(&avc_aac(), &web.server.url("/live/early"));
    let said = player.success();
    let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    for number in 0..4 {
        let (before, after) = (&said["before"][number], &said["after"][number]);
        let advanced = after["time"].as_f64().expect("a time") - before["time"].as_f64().expect("a time");
        let frames = after["frames"].as_u64().expect("frames") - before["frames"].as_u64().expect("frames");
        assert_eq!((&after["width"], &after["faults"]), (&640.into(), &Value::Array(Vec::new())), "{said}");
        assert!((1.5..6.0).contains(&advanced) && frames > 30, "{advanced} s, {frames} frames: {said}");
        assert_eq!(after["codecs"][1], "mp4a.40.2", "{said}");
    }
    assert_eq!(said["faults"], Value::Array(Vec::new()), "{said}");
    [publisher, early].into_iter().for_each(Running::kill);
}
