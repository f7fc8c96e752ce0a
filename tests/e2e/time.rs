//! `time_jitter`, `atc`, `atc_auto` and `mix_correct`: exact timestamps, as published and as received.

use crate::{
    media::{bounded, have},
    peer::{AVC_HEADER, Peer},
    server::Server,
};
use corecast::proto::{
    amf::{Value, amf0},
    rtmp::message::Control,
};

/// Times of a publish with a jump of an hour, a step back of 100 ms, one of an hour, and a wrap at 24 bits, 40 ms
/// apart elsewhere.
const PUBLISHED: &[u32] = &[
    5000, 5040, 5080, // as it should be
    3_605_080, 3_605_120, // an hour on
    3_605_020, 3_605_060, 3_605_100, 3_605_140, // 100 ms back
    5180, 5220, // an hour back
    16_777_190, 16_777_214, 24, 64, // up to 2^24 and over it
];
/// What `full` makes of them: a jump becomes 10 ms, a small step back stands still, and the start is 0.
const FULL: &[u32] = &[0, 40, 80, 90, 130, 130, 130, 130, 150, 160, 200, 210, 234, 244, 284];

/// What a player gets, whether it was here first or comes when everything is published.
fn received(play: &str, published: &[u32]) -> Vec<u32> {
    let times = [false, true].map(|late| {
        let server = Server::vhost(&format!("min_latency on; play {{ {play} }}"));
        let mut publisher = Peer::publish(server.address(), "live", "t");
        let join = || Peer::play(server.address(), "live", "t");
        let early = (!late).then(join);
        publisher.send(6, 9, 1, published[0], AVC_HEADER);
        for (at, time) in published.iter().enumerate() {
            publisher.send_frame(1, *time, at == 0, 0);
        }
        publisher.control(Control::PingRequest(1));
        publisher.expect_control(Control::PingResponse(1));
        let mut player = early.unwrap_or_else(join);
        player.expect_frames(published.len()).into_iter().map(|(time, _)| time).collect::<Vec<u32>>()
    });
    assert_eq!(times[0], times[1], "{play}");
    times[0].clone()
}

#[test]
fn time_jitter_full_takes_out_jumps_and_never_goes_back() {
    assert_eq!(received("time_jitter full;", PUBLISHED), FULL);
    assert_eq!(received("", PUBLISHED), FULL, "it is the default");
}

#[test]
fn time_jitter_zero_only_starts_at_zero() {
    let zero: Vec<u32> = PUBLISHED.iter().map(|time| time.wrapping_sub(5000)).collect();
    assert_eq!(received("time_jitter zero;", PUBLISHED), zero);
}

#[test]
fn time_jitter_off_and_atc_are_as_published() {
    for play in ["time_jitter off;", "atc on;", "atc on; time_jitter full;"] {
        assert_eq!(received(play, PUBLISHED), PUBLISHED, "{play}");
    }
}

/// A late joiner with `atc`: times of the GOP as published, its sequence header at the first of them.
#[test]
fn atc_holds_for_late_joiners_too() {
    for (play, first) in [("atc on;", 70_000), ("time_jitter zero;", 0)] {
        let server = Server::vhost(&format!("min_latency on; play {{ {play} }}"));
        let mut publisher = Peer::publish(server.address(), "live", "t");
        publisher.send_gop(1, 69_000, 25);
        publisher.send_gop(1, 70_000, 3);
        server.wait_for_log("publish: AVC", 1);
        crate::server::eventually("the GOP", || {
            let mut player = Peer::play(server.address(), "live", "t");
            let (kind, time, body) = player.expect_media();
            assert_eq!((kind, &body[..2]), (9, &[0x17, 0][..]));
            let times: Vec<u32> = player.expect_frames(4).into_iter().map(|(time, _)| time).collect();
            (time == first && times == [first, first, first + 40, first + 40]).then_some(())
        });
    }
}

/// `atc_auto` obeys the metadata; without it the metadata says nothing.
#[test]
fn atc_auto_follows_the_metadata() {
    for (play, first) in [("atc_auto on;", 9000), ("", 0)] {
        let server = Server::vhost(&format!("min_latency on; play {{ {play} }}"));
        let mut publisher = Peer::publish(server.address(), "live", "t");
        let mut player = Peer::play(server.address(), "live", "t");
        let metadata = Value::EcmaArray(vec![
            ("videocodecid".into(), Value::Number(7.0)),
            ("bravo_atc".into(), Value::string("true")),
        ]);
        let body = amf0::encode_all(&[Value::string("@setDataFrame"), Value::string("onMetaData"), metadata]);
        publisher.send(5, 18, 1, 0, &body);
        publisher.send(6, 9, 1, 9000, AVC_HEADER);
        (0..5).for_each(|frame| publisher.send_frame(1, 9000 + frame * 40, frame == 0, 0));
        let times: Vec<u32> = player.expect_frames(5).into_iter().map(|(time, _)| time).collect();
        assert_eq!(times, [0, 40, 80, 120, 160].map(|time| first + time), "{play}");
    }
}

/// `mix_correct`: tracks that come one behind the other leave in one order of time; without it, as they came.
#[test]
fn mix_correct_merges_audio_and_video_in_order() {
    let order = |play: &str| {
        let server = Server::vhost(&format!("min_latency on; play {{ atc on; {play} }}"));
        let mut publisher = Peer::publish(server.address(), "live", "t");
        let mut player = Peer::play(server.address(), "live", "t");
        publisher.send(6, 9, 1, 0, AVC_HEADER);
        publisher.send(4, 8, 1, 0, &[0xAF, 0, 0x12, 0x10]);
        // Four pictures, then the sound beside them.
        for start in (0..1200).step_by(160) {
            (0..4).for_each(|frame| publisher.send_frame(1, start + frame * 40, start == 0 && frame == 0, 0));
            (0..8).for_each(|frame| publisher.send(4, 8, 1, start + frame * 20, &[0xAF, 1, 0]));
        }
        player.expect_frames(72).into_iter().map(|(time, _)| time).collect::<Vec<u32>>()
    };
    let is_ordered = |times: &[u32]| times.windows(2).all(|pair| pair[0] <= pair[1]);
    assert!(!is_ordered(&order("")), "as published");
    let mixed = order("mix_correct on;");
    assert!(is_ordered(&mixed), "{mixed:?}");
}

/// What rtmpdump writes down of a stream that jumps: with `full` no time is lost or doubled.
#[test]
fn rtmpdump_sees_corrected_times() {
    if !have("rtmpdump") || !have("ffprobe") {
        return;
    }
    let server = Server::vhost("min_latency on;");
    let mut publisher = Peer::publish(server.address(), "live", "t");
    let file = server.file("dump.flv");
    let mut dump = bounded("rtmpdump");
    let url = server.url("/live/t");
    let running = crate::media::Running::start(dump.args(["-q", "--live", "-r", &url, "-o"]).arg(&file));
    server.wait_for_log("play peer", 1);
    publisher.send(6, 9, 1, PUBLISHED[0], AVC_HEADER);
    PUBLISHED.iter().enumerate().for_each(|(at, time)| publisher.send_frame(1, *time, at == 0, 4000));
    // It may leave the end of what it has not written yet.
    crate::server::eventually("the file", || {
        (std::fs::metadata(&file).ok()?.len() > 4000 * (PUBLISHED.len() as u64 - 1)).then_some(())
    });
    publisher.command(1, "FCUnpublish", 6.0, &[Value::Null, Value::string("t")]);
    drop(running.output());
    let mut probe = bounded("ffprobe");
    probe.args(["-v", "quiet", "-show_entries", "packet=dts", "-of", "csv=p=0"]).arg(&file);
    let times = crate::media::Running::start(&mut probe).output();
    let times: Vec<u32> = String::from_utf8_lossy(&times.stdout)
        .lines()
        .filter_map(|line| line.trim_end_matches(',').parse().ok())
        .collect();
    assert_eq!(times, FULL);
}
