//! Recordings: what was published, whole, whatever happens to the server or the disk.

use crate::{
    hooks::Hook,
    http_ts::{AVC, HEVC, frames, hashes},
    media::{Running, aac_only, avc_aac, avc_only, ffmpeg9, have, hevc, publish, publish_on},
    server::{Server, eventually},
    web::{Web, config},
};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn files(directory: &Path, end: &str) -> Vec<PathBuf> {
    let list = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = list.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    found.sort();
    found
}

fn web(shards: usize, dvr: &str, hook: &Hook) -> Web {
    let vhost = format!("dvr {{ enabled on; {dvr} }} http_hooks {{ enabled on; on_dvr {}; }}", hook.url);
    Web { server: Server::shards(shards, &config("", "", &vhost)) }
}

/// Frame for frame what was published, each at its time.
fn is_whole(ffmpeg: &Path, recorded: &Path, published: &Path, filters: &[&str]) {
    let of = |file: &Path| frames(&hashes(ffmpeg, file.to_str().expect("a path"), filters).success());
    for (seen, expected) in of(recorded).iter().zip(&of(published)) {
        let hashes = |frames: &[(i64, String)]| frames.iter().map(|frame| frame.1.clone()).collect::<Vec<_>>();
        assert_eq!((seen.len(), hashes(seen)), (expected.len(), hashes(expected)), "{}", recorded.display());
        let late = seen.iter().zip(expected).find(|(seen, expected)| seen.0.abs_diff(expected.0) > 1);
        assert!(late.is_none(), "{}: {late:?}", recorded.display());
    }
}

/// A file for each publish, on every shard, and its name to who wants to know.
#[test]
fn recordings_are_whole() {
    if !have("ffmpeg") || !have("ffprobe") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let record = |ffmpeg: &Path, file: &Path, end: &str, filters: &[&str], shards: usize| {
        let hook = Hook::start(|_| Some("0".to_owned()));
        let place = directory.path().join(format!("{end}{shards}{}", file.file_stem().expect("a name").display()));
        let path = format!("dvr_path {}/[app]/[stream].[timestamp].{end};", place.display());
        let web = web(shards, &path, &hook);
        publish(ffmpeg, file, &web.server.url("/live/s?token=x")).success();
        let told = hook.wait("on_dvr");
        let recorded = PathBuf::from(told["file"].as_str().expect("a file"));
        assert!(recorded.starts_with(place.join("live")) && told["param"] == "?token=x", "{told}");
        assert_eq!((&told["stream"], &told["stream_url"]), (&"s".into(), &"/live/s".into()), "{told}");
        assert!(files(&place.join("live"), ".tmp").is_empty());
        is_whole(ffmpeg, &recorded, file, filters);
        let mut probe = crate::media::bounded("ffprobe");
        probe.args(["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"]).arg(&recorded);
        let duration: f64 = Running::start(&mut probe).success().trim().parse().expect("a duration");
        assert!((3.7..4.3).contains(&duration), "{duration} s");
    };
    let ffmpeg = Path::new("ffmpeg");
    for shards in [1, 2, 4] {
        record(ffmpeg, &avc_aac(), "flv", &AVC, shards);
        record(ffmpeg, &avc_aac(), "mp4", &AVC, shards);
    }
    for end in ["flv", "mp4"] {
        record(ffmpeg, &avc_only(), end, &AVC[..2], 2);
        record(ffmpeg, &aac_only(), end, &[], 2);
    }
    if let Some(ffmpeg) = ffmpeg9() {
        record(&ffmpeg, &hevc(&ffmpeg), "mp4", &HEVC, 2);
    }
}

/// Files of a length, each from a keyframe on: together they have everything.
#[test]
fn segments_have_everything() {
    if !have("ffmpeg") {
        return;
    }
    for end in ["flv", "mp4"] {
        let directory = tempfile::tempdir().expect("a directory");
        let hook = Hook::start(|_| Some("0".to_owned()));
        let path = directory.path().display();
        let dvr = format!(
            "dvr_plan segment; dvr_duration 1; dvr_apply live/s other/s; dvr_path {path}/[stream].[2006].[timestamp].{end};"
        );
        let web = web(2, &dvr, &hook);
        let second = publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/t"));
        publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/s")).success();
        second.success();
        let recorded = eventually("all files", || Some(files(directory.path(), end)).filter(|files| files.len() == 4));
        assert!(recorded.iter().all(|file| file.file_name().expect("a name").to_string_lossy().starts_with("s.20")));
        let of = |file: &Path| frames(&hashes(Path::new("ffmpeg"), file.to_str().expect("a path"), &AVC).success());
        let expected = of(&avc_aac());
        let parts: Vec<_> = recorded.iter().map(|file| of(file)).collect();
        for track in 0..2 {
            let seen: Vec<&String> = parts.iter().flat_map(|part| part[track].iter().map(|frame| &frame.1)).collect();
            let expected: Vec<&String> = expected[track].iter().map(|frame| &frame.1).collect();
            assert_eq!((seen.len(), seen), (expected.len(), expected), "{end}, track {track}");
        }
    }
}

/// What is on the disk when the server is killed plays, but for the last second.
#[test]
fn a_killed_server_leaves_a_recording() {
    if !have("ffmpeg") {
        return;
    }
    for end in ["flv", "mp4"] {
        let directory = tempfile::tempdir().expect("a directory");
        let hook = Hook::start(|_| Some("0".to_owned()));
        let web = web(1, &format!("dvr_path {}/[stream].[timestamp].{end};", directory.path().display()), &hook);
        let publisher = publish(Path::new("ffmpeg"), &avc_aac(), &web.server.url("/live/s"));
        let growing = || files(directory.path(), ".tmp").into_iter().next();
        let file = eventually("two seconds", || {
            growing().filter(|file| fs::metadata(file).is_ok_and(|metadata| metadata.len() > 150_000))
        });
        web.server.signal("-KILL");
        drop(publisher.output());
        let left = directory.path().join(format!("left.{end}"));
        fs::copy(&file, &left).expect("a copy");
        let said = hashes(Path::new("ffmpeg"), left.to_str().expect("a path"), &AVC).output();
        let seen = frames(&String::from_utf8_lossy(&said.stdout));
        let expected = frames(&hashes(Path::new("ffmpeg"), avc_aac().to_str().expect("a path"), &AVC).success());
        assert!(seen[0].len() >= 45, "{end}: {} pictures", seen[0].len());
        let same = |track: usize| seen[track].iter().zip(&expected[track]).all(|(seen, expected)| seen.1 == expected.1);
        assert!(same(0) && same(1), "{end}");
    }
}

/// A disk that takes nothing is said once in a while, and costs nobody's picture.
#[test]
fn a_disk_that_takes_nothing_stops_no_stream() {
    if !have("ffmpeg") {
        return;
    }
    let hook = Hook::start(|_| Some("0".to_owned()));
    let web = web(2, "dvr_path /dev/null/[stream].[timestamp].flv;", &hook);
    let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
    web.server.wait_for_log("path=/dev/null/s.", 1);
    web.live("s");
    publisher.kill();
    assert!(hook.all().is_empty());
}

/// A server that is stopped ends its recordings, and tells of them.
#[test]
fn a_stop_ends_recordings() {
    if !have("ffmpeg") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let hook = Hook::start(|_| Some("0".to_owned()));
    let web = web(2, &format!("dvr_path {}/[stream].[timestamp].mp4;", directory.path().display()), &hook);
    let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
    web.live("s");
    assert_eq!(web.server.stop().0, Some(0));
    publisher.kill();
    let told = hook.wait("on_dvr");
    assert!(Path::new(told["file"].as_str().expect("a file")).exists() && files(directory.path(), ".tmp").is_empty());
}
