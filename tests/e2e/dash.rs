//! DASH: every frame in some segment, on every shard; segments as they grow; periods, files, players that others wrote.

use crate::{
    http_ts::{clean, frames, hashes},
    media::{Running, aac_only, av1, avc_aac, avc_only, bounded, ffmpeg9, have, hevc, publish, publish_on, vp9},
    peer::connected,
    server::{Server, eventually},
    web::{Web, config, get, node_modules, read_answer, read_chunks, read_head, request},
};
use serde_json::Value;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

/// Short segments, of which none is lost.
const SHORT: &str = "enabled on; dash_fragment 1; dash_window_size 100; dash_update_period 1;";

fn web(shards: usize, more: &str) -> Web {
    Web { server: Server::shards(shards, &config("", "", &format!("dash {{ {SHORT} {more} }}"))) }
}

fn mpd(web: &Web) -> String {
    let answer = get(web.http(), "/live/s.mpd");
    assert!(answer.status == 200 && answer.has("content-type: application/dash+xml"), "{answer:?}");
    answer.text()
}

/// An attribute's value in an element's text.
fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    element.split_once(&format!(" {name}=\""))?.1.split('"').next()
}

/// A track of a period, as the MPD has it.
#[derive(Debug)]
struct Listed {
    representation: String,
    init: String,
    media: String,
    first: u64,
    timescale: u64,
    offset: u64,
    /// Start and duration of each segment.
    segments: Vec<(u64, u64)>,
}

impl Listed {
    fn seconds(&self) -> f64 {
        self.segments.iter().map(|(_, duration)| *duration).sum::<u64>() as f64 / self.timescale as f64
    }

    fn uri(&self, number: usize) -> String {
        self.media.replace("$Number$", &(self.first + number as u64).to_string())
    }
}

/// All tracks of all periods.
fn listed(text: &str) -> Vec<Listed> {
    text.split("<Representation")
        .skip(1)
        .map(|part| {
            let template =
                part.split("<SegmentTemplate").nth(1).expect("a template").split("</SegmentTemplate>").next();
            let template = template.expect("its end");
            let number = |name: &str| -> u64 { attribute(template, name).expect(name).parse().expect(name) };
            let mut segments: Vec<(u64, u64)> = Vec::new();
            for element in template.split("<S ").skip(1) {
                let element = format!(" {element}");
                let value = |name: &str| attribute(&element, name).map(|value| value.parse::<u64>().expect(name));
                let after = segments.last().map_or(0, |(start, duration)| start + duration);
                let (start, duration) = (value("t").unwrap_or(after), value("d").expect("a duration"));
                segments.extend((0..=value("r").unwrap_or(0)).map(|more| (start + more * duration, duration)));
            }
            Listed {
                representation: part.split('>').next().expect("attributes").to_owned(),
                init: attribute(template, "initialization").expect("a header").to_owned(),
                media: attribute(template, "media").expect("a name").to_owned(),
                first: number("startNumber"),
                timescale: number("timescale"),
                offset: number("presentationTimeOffset"),
                segments,
            }
        })
        .collect()
}

/// A track's header and segments.
fn download(web: &Web, track: &Listed) -> Vec<u8> {
    let uris = [track.init.clone()].into_iter().chain((0..track.segments.len()).map(|number| track.uri(number)));
    uris.flat_map(|uri| {
        let answer = get(web.http(), &format!("/live/{uri}"));
        assert_eq!(answer.status, 200, "{uri}: {answer:?}");
        answer.body
    })
    .collect()
}

/// What is published is what each track's segments have, frame for frame, each at its time.
fn arrives_whole(ffmpeg: &Path, file: &Path, more: &str, shards: usize) -> String {
    let web = web(shards, more);
    publish(ffmpeg, file, &web.server.url("/live/s")).success();
    let text = eventually("the end of the stream", || {
        let text = mpd(&web);
        listed(&text).iter().all(|track| track.seconds() > 3.8).then_some(text)
    });
    let filters = ["-bsf:v", "null"];
    let expected = frames(&hashes(ffmpeg, file.to_str().expect("a path"), &filters).success());
    let expected: Vec<_> = expected.into_iter().filter(|frames| !frames.is_empty()).collect();
    let tracks = listed(&text);
    assert_eq!(tracks.len(), expected.len(), "{text}");
    for (number, (track, expected)) in tracks.iter().zip(&expected).enumerate() {
        let place = web.server.file(&format!("{number}.mp4"));
        fs::write(&place, download(&web, track)).expect("a file");
        let seen = frames(&clean(hashes(ffmpeg, place.to_str().expect("a path"), &filters)));
        let seen = &seen[0];
        let hashes = |frames: &[(i64, String)]| frames.iter().map(|frame| frame.1.clone()).collect::<Vec<_>>();
        assert_eq!((seen.len(), hashes(seen)), (expected.len(), hashes(expected)), "{}: {text}", file.display());
        // Sound in MP4 has times of whole frames.
        let first = expected[0].0 - seen[0].0;
        let late = seen.iter().zip(expected).find(|(seen, expected)| (seen.0 + first).abs_diff(expected.0) > 1);
        assert!(late.is_none(), "{} {more}: {late:?}", file.display());
        // The list has no gap.
        let gap = track.segments.windows(2).find(|pair| pair[0].0 + pair[0].1 != pair[1].0);
        assert!(gap.is_none() && track.segments[0].0 >= track.offset, "{gap:?}: {text}");
    }
    text
}

#[test]
fn dash_arrives_whole() {
    if !have("ffmpeg") {
        return;
    }
    let ffmpeg = Path::new("ffmpeg");
    for shards in [1, 2, 4] {
        let text = arrives_whole(ffmpeg, &avc_aac(), "", shards);
        let tracks = listed(&text);
        assert!(tracks[0].segments.len() == 4 && tracks[1].segments.len() == 4, "one for each GOP: {text}");
        let has = |track: &Listed, name: &str, value: &str| attribute(&track.representation, name) == Some(value);
        assert!(has(&tracks[0], "codecs", "avc1.64001e") && has(&tracks[0], "width", "640"), "{text}");
        assert!(has(&tracks[1], "codecs", "mp4a.40.2") && has(&tracks[1], "audioSamplingRate", "44100"), "{text}");
    }
    arrives_whole(ffmpeg, &avc_aac(), "dash_ll on;", 2);
    arrives_whole(ffmpeg, &avc_only(), "", 2);
    arrives_whole(ffmpeg, &aac_only(), "", 2);
    let Some(ffmpeg) = ffmpeg9() else { return };
    for (file, codecs) in [(hevc(&ffmpeg), "hvc1."), (av1(&ffmpeg), "av01."), (vp9(&ffmpeg), "vp09.00.")] {
        let text = arrives_whole(&ffmpeg, &file, "", 2);
        assert!(text.contains(&format!("codecs=\"{codecs}")), "{text}");
    }
}

/// With low latency the next segment can be asked for before it begins, on whatever shard: it comes in chunks, as it is made, and
/// is what the whole one is later.
#[test]
fn segments_come_as_they_grow() {
    if !have("ffmpeg") {
        return;
    }
    for shards in [1, 2, 4] {
        let web = web(shards, "dash_ll on;");
        let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
        let tracks = eventually("segments", || {
            let answer = get(web.http(), "/live/s.mpd");
            let tracks = listed(&answer.text());
            (answer.status == 200 && tracks.len() == 2 && tracks[0].segments.len() > 2).then_some(tracks)
        });
        let path = format!("/live/{}", tracks[0].uri(tracks[0].segments.len() - 1));
        let address = web.http();
        let players: Vec<_> = (0..6)
            .map(|_| {
                let path = path.clone();
                thread::spawn(move || {
                    let mut socket = connected(address);
                    let again = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
                    socket.write_all(again.as_bytes()).expect("a request");
                    let head = read_head(&mut socket).expect("a head").to_lowercase();
                    assert!(head.starts_with("http/1.1 200") && head.contains("transfer-encoding: chunked"), "{head}");
                    let grown = read_chunks(&mut socket);
                    // The same connection gets it whole.
                    socket.write_all(again.as_bytes()).expect("a request");
                    (grown, read_answer(&mut socket, false).expect("an answer").body)
                })
            })
            .collect();
        // Who knows no chunks waits for all of it.
        let old = crate::web::raw(address, format!("GET {path} HTTP/1.0\r\nHost: h\r\n\r\n").as_bytes(), false);
        let whole = get(address, &path).body;
        assert!(whole.len() > 10_000 && old.body == whole, "{} {}", old.body.len(), whole.len());
        let fragments = whole.windows(4).filter(|name| name == b"moof").count();
        assert!(fragments >= 4, "{fragments} chunks of 200 ms in 1 s");
        for player in players {
            let (grown, again) = player.join().expect("a player");
            assert!(grown == whole && again == whole, "{} {} {}", grown.len(), again.len(), whole.len());
        }
        // A segment that never comes is waited for until the stream's end.
        let path = format!("/live/{}", listed(&mpd(&web))[0].uri(listed(&mpd(&web))[0].segments.len() - 1));
        let late = thread::spawn(move || {
            let mut socket = connected(address);
            socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).expect("a request");
            read_head(&mut socket)
        });
        publisher.kill();
        let head = late.join().expect("no panic").expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 404"), "{head}");
    }
}

/// Another publish is another period, later on the same clock, and with a header of its own; numbers go on. What is served is on
/// the disk, too, until nobody has published for long.
#[test]
fn periods_and_files() {
    if !have("ffmpeg") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let more = format!("dash_path {}; dash_dispose 2;", directory.path().display());
    let web = web(2, &more);
    for file in [avc_aac(), avc_only()] {
        publish(Path::new("ffmpeg"), &file, &web.server.url("/live/s")).success();
    }
    let text = eventually("both", || Some(mpd(&web)).filter(|text| text.matches("<Period").count() == 2));
    let tracks = listed(&text);
    assert_eq!(tracks.len(), 3, "{text}");
    assert_eq!(tracks[2].first, tracks[0].first + tracks[0].segments.len() as u64, "{text}");
    assert_ne!(tracks[2].init, tracks[0].init);
    let starts: Vec<f64> = text
        .split("<Period")
        .skip(1)
        .map(|period| {
            attribute(period, "start").and_then(|start| start[2..].strip_suffix('S')?.parse().ok()).expect("s")
        })
        .collect();
    let first = tracks[0].seconds();
    assert!(starts[0] < 0.5 && starts[1] > starts[0] + first - 0.5, "{starts:?} {first}: {text}");
    let live = directory.path().join("live");
    let written = eventually("the MPD's file", || {
        fs::read_to_string(live.join("s.mpd")).ok().filter(|text| text.matches("<Period").count() == 2)
    });
    assert!(listed(&written).iter().zip(&tracks).all(|(one, other)| one.segments == other.segments), "{written}");
    for track in &tracks {
        for uri in [track.init.clone(), track.uri(0)] {
            let file = fs::read(live.join(&uri)).unwrap_or_else(|error| panic!("{uri}: {error}"));
            assert_eq!(get(web.http(), &format!("/live/{uri}")).body, file, "{uri}");
        }
    }
    eventually("that all is removed", || (get(web.http(), "/live/s.mpd").status == 404).then_some(()));
    let left = |place: &Path| -> Vec<PathBuf> {
        fs::read_dir(place).map(|list| list.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
    };
    eventually("no files", || (left(&live.join("s")).is_empty() && !live.join("s.mpd").exists()).then_some(()));
    // Nothing of it is anybody else's.
    let answer = request(web.http(), "GET", "/live/../../etc/passwd.mpd", "");
    assert!(matches!(answer.status, 400 | 404), "{answer:?}");
}

/// GStreamer plays without a fault; dash.js and Shaka Player do in Chromium, without a stall; with low latency dash.js is
/// two seconds behind at most.
#[test]
fn others_play_dash() {
    let tools = ["ffmpeg", "ffprobe", "gst-launch-1.0", "node", "chromium"];
    let Some(modules) = node_modules().filter(|_| tools.iter().all(|tool| have(tool))) else { return };
    for (more, players) in [("", &["dash.js", "shaka"][..]), ("dash_ll on;", &["dash.js"])] {
        let web = web(2, more);
        let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
        eventually("segments", || {
            let tracks = listed(&get(web.http(), "/live/s.mpd").text());
            tracks.first().is_some_and(|track| track.segments.len() > 3).then_some(())
        });
        let url = web.flv_url("/live/s.mpd");
        // ffmpeg's demuxer loses its place when it reads an MPD anew, its own muxer's too: it is asked what there is.
        let mut ffprobe = bounded("ffprobe");
        ffprobe.args(["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", &url]);
        let mut gstreamer = Command::new("timeout");
        gstreamer.args([
            "-k",
            "3",
            "-s",
            "INT",
            "10",
            "gst-launch-1.0",
            "souphttpsrc",
            &format!("location={url}"),
            "!",
        ]);
        gstreamer.args(["dashdemux", "!", "decodebin", "!", "fakesink", "sync=true"]);
        let (ffprobe, gstreamer) = (Running::start(&mut ffprobe), Running::start(&mut gstreamer));
        let said = ffprobe.success();
        assert!(said.contains("h264") && said.contains("aac"), "{more}: {said}");
        let output = gstreamer.output();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains("ERROR") && said.contains("PLAYING"), "{more}: {said}");
        for player in players {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/play_dash.mjs");
            let mut node = bounded("node");
            node.env("PAGE_MODULES", &modules).arg(script).arg(format!("http://{}/", web.http()));
            let said = Running::start(node.args([&url, "8", player])).success();
            let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
            let number = |when: &str, name: &str| said[when][name].as_f64().unwrap_or_else(|| panic!("{name}: {said}"));
            let played = number("after", "time") - number("before", "time");
            assert!((7.6..8.8).contains(&played), "{player} {more} {said}");
            assert!(number("after", "frames") - number("before", "frames") > 200.0, "{player} {more} {said}");
            assert_eq!(said["after"]["faults"], Value::Array(Vec::new()), "{player} {more} {said}");
            assert_eq!(number("after", "stalls"), 0.0, "{player} {more} {said}");
            assert!(more.is_empty() || number("after", "latency") < 2.2, "{player} {said}");
            let durations = said["read"]["segments"][0]["durations"].as_array().expect("a list");
            assert!(
                durations.len() > 3 && durations.iter().all(|s| (0.9..1.1).contains(&s.as_f64().expect("s"))),
                "{said}"
            );
        }
        publisher.kill();
    }
}
