//! HTTP-TS where a stream changes under its players: tracks that come late or never, other codecs, times that jump.

use crate::{
    http_ts::{AVC, HEVC, clean, curls, frames, hashes, remux},
    media::{Running, aac_only, avc_aac, bounded, ffmpeg9, have, hevc, mp3, publish},
    peer::Peer,
    server::{Server, eventually},
    ts::Ts,
    web::{self, Web},
};
use bytes::Bytes;
use corecast::proto::{
    flv::{Tag, TagKind, file},
    rtmp::message::Control,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const H264: u8 = 0x1B;
const H265: u8 = 0x24;
const AAC: u8 = 0x0F;
const MP3: u8 = 0x03;

/// When, and its hash.
type Frame = (i64, String);

fn tags(path: &Path) -> Vec<Tag> {
    file::read_file(fs::read(path).expect("a file").into()).expect("FLV")
}

/// The file of such tags.
fn flv(tags: &[Tag]) -> Vec<u8> {
    let mut out = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    for Tag { kind, timestamp, body } in tags {
        let [_, size @ ..] = (body.len() as u32).to_be_bytes();
        let [high, time @ ..] = timestamp.to_be_bytes();
        out.extend_from_slice(&[[kind.type_id()].as_slice(), &size, &time, &[high, 0, 0, 0], body].concat());
        out.extend_from_slice(&(body.len() as u32 + 11).to_be_bytes());
    }
    out
}

/// Publishes tags, at once or at their times, and ends.
fn publish_tags(web: &Web, tags: &[Tag], in_real_time: bool) {
    let mut peer = Peer::publish(web.server.address(), "live", "s");
    peer.control(Control::SetChunkSize(60_000));
    peer.writer.set_chunk_size(60_000);
    let started = Instant::now();
    for tag in tags {
        if in_real_time {
            std::thread::sleep(Duration::from_millis(tag.timestamp.into()).saturating_sub(started.elapsed()));
        }
        let type_id = tag.kind.type_id();
        peer.send(u32::from(type_id), type_id, 1, tag.timestamp, &tag.body);
    }
    peer.settle();
}

/// What two players get of such tags, who wait for them: the same, without a fault.
fn played(vhost: &str, tags: &[Tag], in_real_time: bool) -> (Ts, Vec<u8>) {
    let web = Web::start(&format!("{} {vhost}", remux("")));
    let (players, files) = curls(&web, "/live/s.ts", 2);
    web.server.wait_for_log("play peer", 2);
    publish_tags(&web, tags, in_real_time);
    players.into_iter().for_each(|player| drop(player.success()));
    let [first, second] = [0, 1].map(|number| fs::read(&files[number]).expect("a file"));
    assert!(first == second);
    let ts = Ts::read(&first);
    assert!(ts.faults.is_empty(), "{:?}", ts.faults);
    (ts, first)
}

/// ffmpeg reading bytes as a file of a name.
fn read_by_ffmpeg(name: &str, bytes: &[u8], filters: &[&str], finish: fn(Running) -> String) -> [Vec<Frame>; 2] {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join(name);
    fs::write(&file, bytes).expect("a file");
    let ffmpeg = ffmpeg9().expect("ffmpeg");
    frames(&finish(hashes(&ffmpeg, file.to_str().expect("a path"), filters)))
}

/// Sound from two seconds on, video from a second on or three, and either never: the program map says what there is, and
/// no frame is missing.
#[test]
fn tracks_of_ts_may_come_late_or_never() {
    if !have("ffmpeg") || !have("curl") || ffmpeg9().is_none() {
        return;
    }
    let all = tags(&avc_aac());
    let is_key = |tag: &Tag| tag.kind == TagKind::Video && tag.body[..2] == [0x17, 1];
    let key_after = |from| all.iter().find(|tag| is_key(tag) && tag.timestamp >= from).expect("a keyframe").timestamp;
    let cases = [
        (TagKind::Audio, 2000, vec![vec![H264], vec![H264, AAC]]),
        (TagKind::Audio, u32::MAX, vec![vec![H264]]),
        (TagKind::Video, key_after(900), vec![vec![AAC], vec![H264, AAC]]),
        (TagKind::Video, key_after(2900), vec![vec![AAC], vec![H264, AAC]]),
        (TagKind::Video, u32::MAX, vec![vec![AAC]]),
    ];
    for (late, from, maps) in cases {
        let is_header = |tag: &&Tag| tag.kind == late && tag.body[1] == 0;
        let mut kept: Vec<Tag> = all.iter().filter(|tag| tag.kind != late || tag.timestamp >= from).cloned().collect();
        if let Some(at) = kept.iter().position(|tag| tag.kind == late) {
            let header = all.iter().find(is_header).expect("a header");
            kept.insert(at, Tag { timestamp: kept[at].timestamp, ..header.clone() });
        }
        let (ts, bytes) = played("", &kept, late == TagKind::Video && from > 2000);
        assert_eq!(ts.maps.iter().map(|map| map.1.clone()).collect::<Vec<_>>(), maps, "{late:?} from {from}");
        assert!(ts.breaks.is_empty(), "{:?}", ts.breaks);
        let filters = if from < u32::MAX {
            &AVC[..]
        } else if late == TagKind::Audio {
            &AVC[..2]
        } else {
            &AVC[2..]
        };
        let seen = read_by_ffmpeg("played.ts", &bytes, filters, clean);
        let expected = read_by_ffmpeg("published.flv", &flv(&kept), filters, clean);
        assert!(expected.iter().map(Vec::len).sum::<usize>() > 100);
        assert_eq!(seen, expected, "{late:?} from {from}");
    }
}

/// A file, the program map's stream types, and ffmpeg's filters.
type Kind = (PathBuf, Vec<u8>, &'static [&'static str]);

/// Another encoder takes the stream over with other codecs: the program map changes, and those who stay get every frame of it.
#[test]
fn ts_goes_on_over_other_codecs() {
    let Some(ffmpeg) = ffmpeg9().filter(|_| have("ffmpeg") && have("curl")) else { return };
    let (avc, hevc): (Kind, Kind) = ((avc_aac(), vec![H264, AAC], &AVC), (hevc(&ffmpeg), vec![H265, AAC], &HEVC));
    let (mp3, sound): (Kind, Kind) = ((mp3(), vec![H264, MP3], &AVC[..2]), (aac_only(), vec![AAC], &AVC[2..]));
    let changes = [(&avc, &hevc), (&hevc, &mp3), (&mp3, &avc), (&avc, &sound), (&sound, &hevc)];
    std::thread::scope(|scope| {
        for (number, (first, second)) in changes.into_iter().enumerate() {
            let ffmpeg = &ffmpeg;
            scope.spawn(move || goes_on_over(ffmpeg, 1 + number % 2, first, second));
        }
    });
}

fn goes_on_over(ffmpeg: &Path, shards: usize, first: &Kind, second: &Kind) {
    let what = format!("{:?} to {:?} on {shards} shards", first.1, second.1);
    let vhost = format!("{} publish {{ takeover replace; }}", remux(""));
    let web = Web { server: Server::shards(shards, &web::config("", "", &vhost)) };
    let (players, files) = curls(&web, "/live/s.ts", 3);
    web.server.wait_for_log("play peer", 3);
    let replaced = publish(ffmpeg, &first.0, &web.server.url("/live/s"));
    let has_begun = |file: &PathBuf| fs::metadata(file).is_ok_and(|file| file.len() > 12_000);
    eventually("the first publish at the players", || files.iter().all(has_begun).then_some(()));
    publish(ffmpeg, &second.0, &web.server.url("/live/s")).success();
    players.into_iter().for_each(|player| drop(player.success()));
    replaced.output();
    let published = fs::read(&second.0).expect("a file");
    let published = read_by_ffmpeg("published.flv", &published, second.2, clean);
    for file in files {
        let bytes = fs::read(&file).expect("a file");
        let ts = Ts::read(&bytes);
        assert!(ts.faults.is_empty(), "{what}: {:?}", ts.faults);
        let split = *ts.breaks.first().expect("a break");
        let before = ts.maps.iter().rfind(|map| map.2 < split).expect("a program map");
        let after = ts.maps.iter().rfind(|map| map.2 > split).expect("another program map");
        assert_eq!((&before.1, &after.1), (&first.1, &second.1), "{what}");
        assert_ne!(before.0, after.0, "{what}: a version of its own");
        assert_eq!(read_by_ffmpeg("second.ts", &bytes[split * 188..], second.2, clean), published, "{what}");
        // The whole of it goes through too, with a word about times.
        let whole = read_by_ffmpeg("whole.ts", &bytes, &[], Running::success);
        let after = |track: usize| ts.frames[track].iter().filter(|at| **at > split).count();
        assert!((0..2).all(|track| whole[track].len() >= after(track)), "{what}");
    }
}

/// One track comes behind the other by more than frames are ahead of the clock: the clock learns of it and goes on.
#[test]
fn tracks_of_ts_may_lag() {
    if !have("ffmpeg") || !have("curl") {
        return;
    }
    for (late, lag_ms) in [(TagKind::Audio, 100), (TagKind::Audio, 400), (TagKind::Audio, 900), (TagKind::Video, 400)] {
        let what = format!("{late:?}, {lag_ms} ms");
        let mut lagging = tags(&avc_aac());
        let comes_late = |tag: &Tag| tag.kind == late && tag.body[1] == 1;
        lagging.sort_by_key(|tag| tag.timestamp + if comes_late(tag) { lag_ms } else { 0 });
        let web = Web::start(&remux(""));
        let (players, files) = curls(&web, "/live/s.ts", 1);
        web.server.wait_for_log("play peer", 1);
        publish_tags(&web, &lagging, false);
        players.into_iter().for_each(|player| drop(player.success()));
        let bytes = fs::read(&files[0]).expect("a file");
        let ts = Ts::read(&bytes);
        assert!(ts.breaks.is_empty() && ts.frames.each_ref().map(Vec::len) == [120, 174], "{what}: {ts:?}");
        // From tables in the second half on, and the first clock behind them.
        let packets: Vec<&[u8]> = bytes.chunks(188).collect();
        let half = packets.len() / 2;
        let from = half + packets[half..].iter().position(|packet| packet[1..3] == [0x40, 0]).expect("tables");
        let mut faults = Ts::read(&bytes[from * 188..]).faults;
        faults.retain(|fault| !fault.ends_with("clock None"));
        assert!(faults.is_empty(), "{what}: {faults:?}");
    }
}

/// An hour on, an hour back, and over the end of 33 bits, as published and corrected: all frames, and no fault.
#[test]
fn times_of_ts_may_jump() {
    if !have("ffmpeg") || !have("curl") || ffmpeg9().is_none() {
        return;
    }
    let all = tags(&avc_aac());
    // ffmpeg has a word to say about times that jump, and makes others of them.
    let hashes_in = |name: &str, bytes: &[u8]| {
        read_by_ffmpeg(name, bytes, &AVC, Running::success)
            .map(|track| track.into_iter().map(|(_, hash)| hash).collect::<Vec<_>>())
    };
    let expected = hashes_in("published.flv", &flv(&all));
    // 2^33 / 90 ms are two seconds into the last one.
    for (first, second, jumps) in [(0, 3_600_000, true), (3_600_000, 0, true), (95_441_717, 95_441_717, false)] {
        for vhost in ["", "play { time_jitter off; }"] {
            let moved = all.iter().map(|tag| {
                let base = if tag.timestamp >= 2000 { second } else { first };
                Tag { timestamp: tag.timestamp + base, body: Bytes::clone(&tag.body), kind: tag.kind }
            });
            let (ts, bytes) = played(vhost, &moved.collect::<Vec<_>>(), false);
            assert_eq!(!ts.breaks.is_empty(), jumps && !vhost.is_empty(), "{first} {second} {vhost}");
            assert_eq!(hashes_in("played.ts", &bytes), expected, "{first} {second} {vhost}");
        }
    }
}

/// A body of H.264 whose NAL units are a byte stream, with an empty one in front.
fn as_byte_stream(body: &[u8]) -> Bytes {
    let (head, mut units) = body.split_at(5);
    let mut out = [head, &[0, 0, 0, 1]].concat();
    while let Some((length, rest)) = units.split_first_chunk() {
        let (unit, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        out.extend_from_slice(&[&[0, 0, 1], unit].concat());
        units = rest;
    }
    out.into()
}

/// Byte streams behind a record, and empty NAL units among others: every picture is what it was.
#[test]
fn ts_has_pictures_of_byte_streams_and_empty_units() {
    if !have("ffmpeg") || !have("curl") || ffmpeg9().is_none() {
        return;
    }
    let all = tags(&avc_aac());
    let expected = read_by_ffmpeg("published.flv", &flv(&all), &AVC, clean);
    let with_empty = |body: &[u8]| [&body[..5], &[0; 4], &body[5..], &[0; 4]].concat().into();
    for change in [as_byte_stream, with_empty] {
        let is_frame = |tag: &Tag| tag.kind == TagKind::Video && tag.body[1] == 1;
        let changed = all
            .iter()
            .map(|tag| Tag { body: if is_frame(tag) { change(&tag.body) } else { tag.body.clone() }, ..*tag });
        let (_, bytes) = played("", &changed.collect::<Vec<_>>(), false);
        assert_eq!(read_by_ffmpeg("played.ts", &bytes, &AVC, clean), expected);
    }
}

/// A sequence header without parameter sets, which `parse_sps off` lets in, costs HTTP-TS its pictures up to the next one;
/// sound goes on, and who plays FLV gets what was published.
#[test]
fn ts_goes_on_without_parameter_sets() {
    if !have("ffmpeg") || !have("curl") || ffmpeg9().is_none() {
        return;
    }
    let all = tags(&avc_aac());
    let is_key = |tag: &&Tag| tag.kind == TagKind::Video && tag.body[..2] == [0x17, 1] && tag.timestamp > 900;
    let key = all.iter().position(|tag| is_key(&tag)).expect("a keyframe");
    let header = all.iter().position(|tag| tag.kind == TagKind::Video).expect("a header");
    let mut published = all.clone();
    published[header].body = Bytes::from_static(b"\x17\0\0\0\0\x01\x64\0\x1E\xFF\xE0\0");
    published.insert(key, Tag { timestamp: all[key].timestamp, ..all[header].clone() });
    let web = Web::start(&format!("{} publish {{ parse_sps off; }}", remux("")));
    let (ts_players, ts_files) = curls(&web, "/live/s.ts", 1);
    web.server.wait_for_log("play peer", 1);
    let flv_file = web.server.file("s.flv");
    let mut curl = bounded("curl");
    let flv_player = Running::start(curl.args(["-sSf", "-o"]).arg(&flv_file).arg(web.flv_url("/live/s.flv")));
    web.server.wait_for_log("play peer", 2);
    publish_tags(&web, &published, false);
    ts_players.into_iter().chain([flv_player]).for_each(|player| drop(player.success()));
    let bytes = fs::read(&ts_files[0]).expect("a file");
    let ts = Ts::read(&bytes);
    assert!(ts.faults.is_empty(), "{:?}", ts.faults);
    let carried: Vec<Tag> = all
        .iter()
        .enumerate()
        .filter(|(at, tag)| tag.kind != TagKind::Video || *at == header || *at >= key)
        .map(|(_, tag)| tag.clone())
        .collect();
    let seen = read_by_ffmpeg("played.ts", &bytes, &AVC, clean);
    assert_eq!(seen, read_by_ffmpeg("published.flv", &flv(&carried), &AVC, clean));
    let media = |tags: &[Tag]| -> Vec<Bytes> {
        tags.iter().filter(|tag| tag.kind != TagKind::Script).map(|tag| tag.body.clone()).collect()
    };
    assert_eq!(media(&tags(&flv_file)), media(&published));
    assert_eq!(web.metric("corecast_panics_total").iter().sum::<u64>(), 0);
}
