//! Recordings: what was published, whole, whatever happens to the server or the disk.

use crate::{
    hooks::Hook,
    http_ts::{AVC, HEVC, frames, hashes},
    media::{Running, aac_only, avc_aac, avc_only, ffmpeg9, have, hevc, publish, publish_on},
    server::{Server, eventually},
    web::{Web, config, request},
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

/// `dvr_apply none` records who the API is told of, from a keyframe on and until it is told again, and it lists them; whoever has
/// not proved who it is changes nothing.
#[test]
fn the_api_records() {
    if !have("ffmpeg") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let hook = Hook::start(|_| Some("0".to_owned()));
    let dvr = format!(
        "dvr {{ enabled on; dvr_apply none; dvr_path {}/[stream].[timestamp].mp4; }}",
        directory.path().display()
    );
    let vhost = format!("{dvr} http_hooks {{ enabled on; on_dvr {}; }}", hook.url);
    let auth = "auth { enabled on; username u; password p; }";
    let web = Web { server: Server::shards(2, &config("", auth, &vhost)) };
    let as_user = "Authorization: Basic dTpw\r\nAccept: application/problem+json\r\n";
    let call = |method: &str, path: &str| request(web.api(), method, path, as_user);
    let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
    let id = eventually("the stream", || {
        let streams = call("GET", "/api/v1/streams").json();
        streams["streams"][0]["id"].as_str().map(str::to_owned)
    });
    let path = format!("/api/v1/recordings/{id}");
    assert_eq!(call("GET", "/api/v1/recordings").json()["total"], 0);
    assert_eq!(request(web.api(), "POST", &path, "Accept: application/problem+json\r\n").status, 401);
    assert_eq!(call("POST", "/api/v1/recordings/vid-0000000").status, 404);
    for round in 1..=2_usize {
        assert_eq!((call("POST", &path).status, call("POST", &path).status), (200, 200));
        eventually("bytes", || {
            let list = call("GET", &path).json();
            let newest = &list["recordings"][0];
            let is_on = list["total"] == round && newest["state"] == "recording" && newest["stream"] == id.as_str();
            (is_on && newest["bytes"].as_u64() > Some(100_000)).then_some(())
        });
        assert_eq!(call("DELETE", &path).status, 200);
        let done = eventually("its end", || {
            let newest = call("GET", "/api/v1/recordings").json()["recordings"][0].clone();
            (newest["state"] == "done").then_some(newest)
        });
        let file = PathBuf::from(done["file"].as_str().expect("a file"));
        let bytes = fs::metadata(&file).expect("a file").len();
        assert_eq!(done["bytes"].as_u64(), Some(bytes), "{done}");
        hook.wait("on_dvr");
        let seen = frames(&hashes(Path::new("ffmpeg"), file.to_str().expect("a path"), &AVC).success());
        assert!(seen[0].len() > 25 && seen[1].len() > 40, "{} {}", seen[0].len(), seen[1].len());
    }
    publisher.kill();
    eventually("that nothing can be recorded", || (call("POST", &path).status == 404).then_some(()));
}

/// Old recordings are removed as `dvr_keep_size` says, never the newest, and no file that is none of them.
#[test]
fn old_recordings_are_removed() {
    if !have("ffmpeg") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let live = directory.path().join("live");
    fs::create_dir_all(&live).expect("a directory");
    for other in ["other.txt", "s.mp4", "s.1.mp4.tmp"] {
        fs::write(live.join(other), vec![0; 100_000]).expect("a file");
    }
    let hook = Hook::start(|_| Some("0".to_owned()));
    let path = format!("dvr_path {}/[app]/[stream].[timestamp].mp4;", directory.path().display());
    // 1.07 MB: of files of 90 kB each eleven.
    let more = format!("{path} dvr_plan segment; dvr_duration 1; dvr_keep_size 0.001;");
    let web = web(2, &more, &hook);
    let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
    web.server.wait_for_log("an old recording is removed", 3);
    publisher.kill();
    let left = files(&live, ".mp4");
    let bytes: u64 = left.iter().filter_map(|file| Some(fs::metadata(file).ok()?.len())).sum();
    assert!((8..18).contains(&left.len()) && bytes < 1_500_000, "{left:?} {bytes}");
    assert!(["other.txt", "s.mp4", "s.1.mp4.tmp"].iter().all(|other| live.join(other).exists()), "{left:?}");
}
