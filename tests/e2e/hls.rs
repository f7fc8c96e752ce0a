//! HLS: every frame in some segment, on every shard; low latency; visits, files, keys.

use crate::{
    hooks::Hook,
    http_ts::{AVC, HEVC, clean, frames, hashes},
    media::{Running, aac_only, av1, avc_aac, avc_only, bounded, ffmpeg9, have, hevc, mp3, publish, publish_on, vp9},
    server::{Server, eventually},
    web::{Answer, Web, config, get, node_modules},
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Short segments, of which none is lost.
const SHORT: &str = "enabled on; hls_fragment 1; hls_window 100;";

fn vhost(more: &str) -> String {
    format!("hls {{ {more} {SHORT} }}")
}

pub(crate) fn web(shards: usize, more: &str) -> Web {
    Web { server: Server::shards(shards, &config("", "", &vhost(more))) }
}

pub(crate) fn playlist(web: &Web, path: &str) -> String {
    let answer = get(web.http(), path);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.text()
}

/// What stands behind a tag.
fn tags<'a>(text: &'a str, tag: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| line.strip_prefix(tag))
}

/// A quoted attribute.
fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_once(&format!("{name}=\""))?.1.split('"').next()
}

/// URIs of segments.
pub(crate) fn segments(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// Everything that a playlist under `/live/` names, one after the other; segments as they are, or by their parts.
fn download(web: &Web, text: &str) -> Vec<u8> {
    let mut all = Vec::new();
    let mut fetch = |uri: &str| {
        let answer = get(web.http(), &format!("/live/{uri}"));
        assert_eq!(answer.status, 200, "{uri}: {answer:?}");
        all.extend_from_slice(&answer.body);
    };
    tags(text, "#EXT-X-MAP:").take(1).for_each(|map| fetch(attribute(map, "URI").expect("a header")));
    segments(text).into_iter().for_each(&mut fetch);
    all
}

/// What is published is what the segments have, frame for frame, each at its time.
fn arrives_whole(ffmpeg: &Path, file: &Path, more: &str, filters: &[&str], shards: usize) -> String {
    let web = web(shards, &format!("hls_ctx off; {more}"));
    publish(ffmpeg, file, &web.server.url("/live/s")).success();
    let text = eventually("the end of the stream", || {
        let text = playlist(&web, "/live/s.m3u8");
        let total: f64 =
            tags(&text, "#EXTINF:").map(|line| line.trim_end_matches(',').parse::<f64>().expect("s")).sum();
        (total > 3.8).then_some(text)
    });
    eprintln!("{} {more}: {} segments", file.display(), segments(&text).len());
    let end = if text.contains("#EXT-X-MAP:") { "mp4" } else { "ts" };
    let place = web.server.file(&format!("whole.{end}"));
    fs::write(&place, download(&web, &text)).expect("a file");
    let seen = frames(&clean(hashes(ffmpeg, place.to_str().expect("a path"), filters)));
    let expected = frames(&hashes(ffmpeg, file.to_str().expect("a path"), filters).success());
    for (seen, expected) in seen.iter().zip(&expected) {
        let hashes = |frames: &[(i64, String)]| frames.iter().map(|frame| frame.1.clone()).collect::<Vec<_>>();
        assert_eq!((seen.len(), hashes(seen)), (expected.len(), hashes(expected)), "{}: {text}", file.display());
        // Sound in MP4 has times of whole frames.
        let late = seen.iter().zip(expected).find(|(seen, expected)| seen.0.abs_diff(expected.0) > 1);
        assert!(late.is_none(), "{} {more}: {late:?}", file.display());
    }
    check(&text);
    text
}

/// Rules of RFC 8216 that every playlist keeps.
fn check(text: &str) {
    let number = |tag| tags(text, tag).next().map(|number| number.parse::<f64>().expect("a number"));
    let target = number("#EXT-X-TARGETDURATION:").expect("a target duration");
    for line in tags(text, "#EXTINF:") {
        let duration: f64 = line.split(',').next().expect("a duration").parse().expect("a duration");
        assert!(duration.round() <= target, "{duration} of {target}: {text}");
    }
    assert!(text.starts_with("#EXTM3U\n") && number("#EXT-X-MEDIA-SEQUENCE:").is_some(), "{text}");
    assert!(!text.contains('\u{1}'), "{text}");
}

#[test]
fn hls_by_transport_streams_arrives_whole() {
    if !have("ffmpeg") {
        return;
    }
    let ffmpeg = Path::new("ffmpeg");
    for shards in [1, 2, 4] {
        let text = arrives_whole(ffmpeg, &avc_aac(), "", &AVC, shards);
        assert_eq!(segments(&text).len(), 4, "one for each GOP: {text}");
    }
    arrives_whole(ffmpeg, &avc_only(), "", &AVC[..2], 2);
    arrives_whole(ffmpeg, &mp3(), "", &AVC[..2], 2);
    arrives_whole(ffmpeg, &aac_only(), "hls_aof_ratio 1;", &AVC[2..], 2);
    if let Some(ffmpeg) = ffmpeg9() {
        arrives_whole(&ffmpeg, &hevc(&ffmpeg), "", &HEVC, 2);
    }
}

#[test]
fn hls_by_mp4_arrives_whole() {
    if !have("ffmpeg") {
        return;
    }
    let (ffmpeg, mp4) = (Path::new("ffmpeg"), "hls_use_fmp4 on;");
    for shards in [1, 2, 4] {
        arrives_whole(ffmpeg, &avc_aac(), mp4, &AVC, shards);
    }
    arrives_whole(ffmpeg, &avc_only(), mp4, &AVC[..2], 2);
    arrives_whole(ffmpeg, &aac_only(), "hls_use_fmp4 on; hls_aof_ratio 1;", &[], 2);
    arrives_whole(ffmpeg, &mp3(), "hls_use_fmp4 on; hls_ll off;", &AVC[..2], 2);
    let Some(ffmpeg) = ffmpeg9() else { return };
    arrives_whole(&ffmpeg, &hevc(&ffmpeg), mp4, &HEVC, 2);
    // No transport stream has it.
    for file in [av1(&ffmpeg), vp9(&ffmpeg)] {
        let text = arrives_whole(&ffmpeg, &file, "", &[], 2);
        assert!(text.contains("#EXT-X-MAP:"), "{text}");
    }
}

/// Parts of a segment are the segment; they are as long as they say, and each but the last of a segment nearly as long as
/// may be.
#[test]
fn parts_sum_to_segments() {
    if !have("ffmpeg") {
        return;
    }
    let text = arrives_whole(Path::new("ffmpeg"), &avc_aac(), "hls_use_fmp4 on; hls_fragment 2;", &AVC, 2);
    let target: f64 = tags(&text, "#EXT-X-PART-INF:PART-TARGET=").next().expect("a target").parse().expect("s");
    let (mut parts, mut whole) = (Vec::new(), 0);
    for line in text.lines() {
        if let Some(part) = line.strip_prefix("#EXT-X-PART:DURATION=") {
            parts.push(part.split(',').next().expect("s").parse::<f64>().expect("s"));
        } else if let Some(duration) = line.strip_prefix("#EXTINF:") {
            let duration: f64 = duration.trim_end_matches(',').parse().expect("s");
            assert!((parts.iter().sum::<f64>() - duration).abs() < 0.01, "{parts:?} of {duration}");
            let short = parts[..parts.len() - 1].iter().find(|part| !(0.85 * target..=target).contains(*part));
            assert!(short.is_none(), "{parts:?} of {target}");
            parts.clear();
            whole += 1;
        }
    }
    assert_eq!(whole, 2, "{text}");
}

/// A reload that waits is answered as soon as what it asks for is there, on whatever shard; so is a part that is announced.
/// What cannot come is refused, and the end of the publish answers those who wait.
#[test]
fn reloads_wait_on_every_shard() {
    if !have("ffmpeg") {
        return;
    }
    for shards in [1, 2, 4] {
        let web = web(shards, "hls_use_fmp4 on; hls_ctx off; hls_fragment 2;");
        let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
        let text = eventually("parts", || {
            let answer = get(web.http(), "/live/s.m3u8");
            Some(answer.text()).filter(|text| answer.status == 200 && segments(text).len() > 1)
        });
        check(&text);
        let first: u64 = tags(&text, "#EXT-X-MEDIA-SEQUENCE:").next().expect("a number").parse().expect("a number");
        let next = first + segments(&text).len() as u64 + 1;
        let wait = |query: String| {
            let address = web.http();
            thread::spawn(move || {
                let started = Instant::now();
                (get(address, &format!("/live/s.m3u8?{query}")), started.elapsed())
            })
        };
        let waiting: Vec<_> = (0..12).map(|part| wait(format!("_HLS_msn={next}&_HLS_part={}", part % 4))).collect();
        for (number, waiting) in waiting.into_iter().enumerate() {
            let (answer, _) = waiting.join().expect("an answer");
            let part = format!("-{next}.{}.m4s\"", number % 4);
            assert!(answer.status == 200 && answer.text().contains(&part), "{shards} shards, {part}: {answer:?}");
            assert!(answer.head.contains("cache-control: max-age=3600"), "{}", answer.head);
        }
        // The part that is announced, on many connections at once.
        let text = playlist(&web, "/live/s.m3u8");
        let hint = tags(&text, "#EXT-X-PRELOAD-HINT:").next().and_then(|hint| attribute(hint, "URI")).expect("a hint");
        let address = web.http();
        let parts: Vec<_> = (0..8)
            .map(|_| {
                let path = format!("/live/{hint}");
                thread::spawn(move || get(address, &path))
            })
            .collect();
        let parts: Vec<Answer> = parts.into_iter().map(|part| part.join().expect("an answer")).collect();
        assert!(parts.iter().all(|part| part.status == 200 && part.body == parts[0].body), "{parts:?}");
        assert_eq!(&parts[0].body[4..8], b"moof");
        for bad in ["_HLS_msn=-1", "_HLS_msn=x", "_HLS_part=1", "_HLS_msn=1&_HLS_part=y", "_HLS_msn=99999999999999"] {
            assert_eq!(get(web.http(), &format!("/live/s.m3u8?{bad}")).status, 400, "{bad}");
        }
        // An update without the older segments says how many.
        let delta = eventually("older segments", || {
            let delta = playlist(&web, "/live/s.m3u8?_HLS_skip=YES");
            delta.contains("#EXT-X-SKIP:SKIPPED-SEGMENTS=").then_some(delta)
        });
        assert!(!delta.contains("#EXT-X-MAP:"), "{delta}");
        let text = playlist(&web, "/live/s.m3u8");
        let first: u64 = tags(&text, "#EXT-X-MEDIA-SEQUENCE:").next().expect("a number").parse().expect("a number");
        let last = wait(format!("_HLS_msn={}", first + segments(&text).len() as u64 + 1));
        thread::sleep(Duration::from_millis(200));
        publisher.kill();
        let (answer, waited) = last.join().expect("an answer");
        assert!(answer.status == 200 && waited < Duration::from_secs(4), "{waited:?}: {answer:?}");
        let text = playlist(&web, "/live/s.m3u8");
        assert!(!text.contains("PRELOAD-HINT") && get(web.http(), "/live/nobody.m3u8").status == 404, "{text}");
    }
}

/// Another publish goes on in the same playlist: numbers go on, and what does not follow says so, with a header of its own
/// where it is coded otherwise.
#[test]
fn a_republish_goes_on() {
    if !have("ffmpeg") {
        return;
    }
    for more in ["", "hls_use_fmp4 on;"] {
        let web = web(2, &format!("hls_ctx off; {more}"));
        for file in [avc_aac(), avc_only()] {
            publish(Path::new("ffmpeg"), &file, &web.server.url("/live/s")).success();
        }
        let text = eventually("both", || Some(playlist(&web, "/live/s.m3u8")).filter(|text| segments(text).len() >= 8));
        assert_eq!(text.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{text}");
        let maps: Vec<&str> = tags(&text, "#EXT-X-MAP:").collect();
        assert!(
            maps.is_empty() == more.is_empty() && (maps.is_empty() || maps.len() == 2 && maps[0] != maps[1]),
            "{text}"
        );
        let numbers: Vec<u64> = segments(&text)
            .iter()
            .map(|uri| uri.split(['-', '.']).nth(1).expect("a number").parse().expect("a number"))
            .collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
        check(&text);
    }
}

/// Players are asked for by hooks and told of when they have gone, by their requests.
#[test]
fn visits_are_clients() {
    if !have("ffmpeg") {
        return;
    }
    let hooks = Hook::start(|event| Some(if event["param"] == "?secret=no" { "1" } else { "0" }.to_owned()));
    let urls = format!("http_hooks {{ enabled on; on_play {0}; on_stop {0}; }}", hooks.url);
    let vhost = format!("hls {{ enabled on; hls_fragment 1; hls_window 1; }} {urls}");
    let web = Web { server: Server::shards(2, &config("", "", &vhost)) };
    let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
    let master = eventually("a playlist", || {
        let answer = get(web.http(), "/live/s.m3u8?secret=yes");
        Some(answer.text()).filter(|_| answer.status == 200)
    });
    assert!(master.contains("CODECS=\"avc1.") && master.contains("RESOLUTION=640x360"), "{master}");
    let path = segments(&master)[0].to_owned();
    assert!(path.starts_with("/live/s.m3u8?hls_ctx=") && path.ends_with("&secret=yes"), "{path}");
    let played = hooks.wait("on_play");
    assert_eq!((&played["stream"], &played["param"]), (&"s".into(), &"?secret=yes".into()), "{played}");
    let media = playlist(&web, &path);
    let ctx = path.split(['=', '&']).nth(1).expect("a visit");
    assert!(segments(&media).iter().all(|uri| uri.ends_with(&format!(".ts?hls_ctx={ctx}"))), "{media}");
    let clients = || web.ask("/api/v1/clients?count=100")["clients"].as_array().expect("a list").clone();
    let visit = eventually("a client", || clients().into_iter().find(|client| client["type"] == "hls-play"));
    assert!(visit["name"] == "s" && visit["publish"] == false && visit["alive"].as_f64() < Some(60.0), "{visit}");
    assert!(web.live("s")["clients"].as_u64() >= Some(2));
    // A player may bring a name of its own; who may not play is refused.
    assert!(segments(&playlist(&web, "/live/s.m3u8?hls_ctx=mine")).iter().all(|uri| uri.ends_with("hls_ctx=mine")));
    assert_eq!(get(web.http(), "/live/s.m3u8?secret=no").status, 403);
    let stopped = hooks.wait("on_stop");
    assert_eq!(stopped["stream"], "s", "{stopped}");
    publisher.kill();
}

/// Files are written under SRS's names, old ones are removed, a restart goes on with the number, and all goes when nobody
/// publishes any more.
#[test]
fn files_are_srs_s() {
    if !have("ffmpeg") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let hook = Hook::start(|_| Some("0".to_owned()));
    let vhost = format!(
        "hls {{ enabled on; hls_fragment 1; hls_window 2; hls_dispose 1; hls_ctx off; hls_path {}; \
         hls_ts_file [app]/[stream]/[2006]-[seq]-[duration].ts; }} http_hooks {{ enabled on; on_hls {}; }}",
        directory.path().display(),
        hook.url
    );
    let live = directory.path().join("live");
    let names = |place: &Path| -> Vec<PathBuf> {
        fs::read_dir(place).map(|list| list.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
    };
    let mut last = 0;
    for round in 0..2 {
        let web = Web { server: Server::shards(2, &config("", "", &vhost)) };
        let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
        let text = eventually("segments", || {
            let text = fs::read_to_string(live.join("s.m3u8")).ok()?;
            let first: u64 = tags(&text, "#EXT-X-MEDIA-SEQUENCE:").next()?.parse().ok()?;
            (first >= last + 3).then_some(text)
        });
        check(&text);
        for uri in segments(&text) {
            let file = fs::read(live.join(uri)).unwrap_or_else(|error| panic!("{uri}: {error}"));
            assert!(file.len() > 188 && file.len().is_multiple_of(188), "{uri}");
            assert_eq!(get(web.http(), &format!("/live/{uri}")).body, file, "{uri}");
        }
        let told = hook.wait("on_hls");
        let (file, url) = (told["file"].as_str().expect("a file"), told["url"].as_str().expect("a URL"));
        assert!(Path::new(file).starts_with(&live) && file.ends_with(url) && url.starts_with("live/s/"), "{told}");
        assert!(told["m3u8_url"] == "live/s.m3u8" && told["seq_no"] == 0 && told["stream_url"] == "/live/s", "{told}");
        assert!(told["duration"].as_f64().is_some_and(|duration| (0.9..1.2).contains(&duration)), "{told}");
        let kept = names(&live.join("s"));
        assert!(kept.len() <= 8 && kept.iter().all(|name| name.extension().is_some_and(|end| end == "ts")), "{kept:?}");
        last = tags(&text, "#EXT-X-MEDIA-SEQUENCE:").next().expect("a number").parse().expect("a number");
        if round == 1 {
            publisher.kill();
            eventually("that all is removed", || (!live.join("s.m3u8").exists()).then_some(()));
            let left = segments(&text).into_iter().find(|uri| live.join(uri).exists());
            assert!(left.is_none() && get(web.http(), "/live/s.m3u8").status == 404, "{left:?}");
        }
    }
}

/// What is encrypted is read by ffmpeg with the key that the playlist names.
#[test]
fn segments_are_encrypted() {
    if !have("ffmpeg") {
        return;
    }
    let web = web(2, "hls_ctx off; hls_keys on; hls_fragments_per_key 2;");
    publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/s")).success();
    let text = playlist(&web, "/live/s.m3u8");
    assert!((2..=3).contains(&tags(&text, "#EXT-X-KEY:METHOD=AES-128,URI=").count()), "{text}");
    let key = tags(&text, "#EXT-X-KEY:").next().and_then(|key| attribute(key, "URI")).expect("a key");
    assert_eq!(get(web.http(), &format!("/live/{key}")).body.len(), 16);
    // Whole, as a stored stream.
    let stored = web.server.file("stored.m3u8");
    let base = format!("http://{}/live/", web.http());
    let stored_text: String = format!("{text}#EXT-X-ENDLIST\n")
        .lines()
        .map(|line| match line {
            line if !line.starts_with('#') => format!("{base}{line}\n"),
            line => format!("{}\n", line.replace("URI=\"", &format!("URI=\"{base}"))),
        })
        .collect();
    fs::write(&stored, stored_text).expect("a file");
    let mut command = bounded("ffmpeg");
    command.args(["-v", "error", "-protocol_whitelist", "file,http,tcp,crypto", "-allowed_extensions", "ALL", "-i"]);
    command.arg(&stored).args(["-map", "0", "-c", "copy"]).args(AVC).args(["-f", "framehash", "-hash", "md5", "-"]);
    let seen = frames(&Running::start(&mut command).success());
    let expected = frames(&hashes(Path::new("ffmpeg"), avc_aac().to_str().expect("a path"), &AVC).success());
    assert_eq!(seen[0].len(), expected[0].len());
    assert!(seen[0].iter().zip(&expected[0]).all(|(seen, expected)| seen.1 == expected.1));
}

/// Several players that others wrote play for a while, without a fault.
#[test]
fn others_play_hls() {
    if !have("ffmpeg") || !have("ffprobe") || !have("gst-launch-1.0") {
        return;
    }
    for more in ["", "hls_use_fmp4 on;"] {
        let web = web(2, more);
        let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
        eventually("segments", || {
            let master = get(web.http(), "/live/s.m3u8").text();
            let path = segments(&master).first().map(|path| (*path).to_owned())?;
            (segments(&get(web.http(), &path).text()).len() > 3).then_some(())
        });
        let url = web.flv_url("/live/s.m3u8");
        let mut ffmpeg = bounded("ffmpeg");
        ffmpeg.args(["-v", "error", "-i", &url, "-t", "6", "-f", "null", "-"]);
        let mut gstreamer = Command::new("timeout");
        gstreamer.args([
            "-k",
            "3",
            "-s",
            "INT",
            "12",
            "gst-launch-1.0",
            "souphttpsrc",
            &format!("location={url}"),
            "!",
        ]);
        gstreamer.args(["hlsdemux", "!", "decodebin", "!", "fakesink", "sync=true"]);
        let (ffmpeg, gstreamer) = (Running::start(&mut ffmpeg), Running::start(&mut gstreamer));
        let output = ffmpeg.output();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{more}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let output = gstreamer.output();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains("ERROR") && said.contains("PLAYING"), "{more}: {said}");
        publisher.kill();
    }
}

/// hls.js plays in Chromium without a stall; with low latency it loads parts, and is a second behind at most.
#[test]
fn hls_js_plays() {
    let Some(modules) = node_modules().filter(|_| have("node") && have("chromium") && have("ffmpeg")) else { return };
    for (more, seconds) in [("hls_use_fmp4 on;", 12), ("", 8)] {
        let web = Web { server: Server::shards(2, &config("", "", &format!("hls {{ {more} {SHORT} }}"))) };
        let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
        eventually("segments", || {
            let master = get(web.http(), "/live/s.m3u8").text();
            let path = segments(&master).first().map(|path| (*path).to_owned())?;
            (segments(&get(web.http(), &path).text()).len() > 3).then_some(())
        });
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/play_hls.mjs");
        let mut node = bounded("node");
        node.env("PAGE_MODULES", &modules).arg(script).arg(format!("http://{}/", web.http()));
        node.arg(web.flv_url("/live/s.m3u8")).arg(seconds.to_string());
        let said = Running::start(&mut node).success();
        let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        let number = |when: &str, name: &str| said[when][name].as_f64().unwrap_or_else(|| panic!("{name}: {said}"));
        let (played, seconds) = (number("after", "time") - number("before", "time"), f64::from(seconds));
        assert!((0.95 * seconds..1.1 * seconds).contains(&played), "{said}");
        assert!(number("after", "frames") - number("before", "frames") > 25.0 * seconds, "{said}");
        assert_eq!(said["after"]["faults"], Value::Array(Vec::new()), "{said}");
        assert_eq!(number("after", "parts") > 10.0, !more.is_empty(), "{said}");
        assert!(more.is_empty() || number("after", "latency") < 1.5, "{said}");
        let target = number("read", "targetDuration");
        let durations = said["read"]["durations"].as_array().expect("a list");
        assert!(durations.len() > 3 && durations.iter().all(|s| s.as_f64().expect("s").round() <= target), "{said}");
        publisher.kill();
    }
}
