//! `publish { }` and what concerns publishers, from outside.

use crate::{
    live::{Live, bursts, median},
    media::{avc_aac, have, publish},
    peer::{AVC_HEADER, Peer, status_code},
    server::Server,
};
use corecast::proto::{
    amf::{Value, amf0},
    rtmp::message::Control,
};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// How long until the server closes, in ms.
fn closed_after(peer: &mut Peer) -> u128 {
    let started = Instant::now();
    peer.until_closed();
    started.elapsed().as_millis()
}

#[test]
fn firstpkt_timeout_cuts_who_sends_no_media() {
    let server = Server::vhost("publish { firstpkt_timeout 1500; normal_timeout 60000; }");
    let mut peer = Peer::publish(server.address(), "live", "f");
    // What is no media does not count.
    peer.control(Control::PingRequest(1));
    let ms = closed_after(&mut peer);
    assert!((1400..=1900).contains(&ms), "{ms} ms");
    server.wait_for_log("no media within 1500 ms of the publish (firstpkt_timeout)", 1);
}

/// R14: a publisher that falls silent frees its name after normal_timeout.
#[test]
fn normal_timeout_cuts_who_falls_silent() {
    let server = Server::vhost("publish { firstpkt_timeout 60000; normal_timeout 1200; }");
    let mut peer = Live::start(server.address(), "live", "n", 40, 25, 0).silence();
    let ms = closed_after(&mut peer);
    assert!((1100..=1600).contains(&ms), "{ms} ms");
    server.wait_for_log("no media for 1200 ms (normal_timeout)", 1);
    drop(Peer::publish(server.address(), "live", "n"));
}

/// The last player leaves and the publisher goes so long after; a new player resets it; likewise if none ever
/// came.
#[test]
fn kickoff_for_idle_counts_from_the_last_player() {
    let server = Server::vhost("publish { kickoff_for_idle 2; }");
    let started = Instant::now();
    let unseen = Live::start(server.address(), "live", "unseen", 40, 25, 0);
    let seen = Live::start(server.address(), "live", "seen", 40, 25, 0);
    let player = Peer::play(server.address(), "live", "seen");
    server.wait_for_log("nobody has played its stream for 2 s (kickoff_for_idle)", 1);
    let ms = started.elapsed().as_millis();
    assert!((1900..=3300).contains(&ms), "none ever came: {ms} ms");
    drop(player);
    std::thread::sleep(Duration::from_millis(1200));
    let player = Peer::play(server.address(), "live", "seen");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(server.log().matches("(kickoff_for_idle)").count(), 1, "the new player has reset it");
    drop(player);
    let started = Instant::now();
    server.wait_for_log("nobody has played its stream for 2 s (kickoff_for_idle)", 2);
    let ms = started.elapsed().as_millis();
    assert!((1900..=3300).contains(&ms), "after the last one: {ms} ms");
    drop((unseen, seen));
}

/// Merged reads: what is published every 40 ms reaches a player without merged writes every 400 ms, and the log
/// says what waits.
#[test]
fn mr_merges_reads() {
    let distance = |inside: &str| {
        let server = Server::vhost(&format!("{inside} play {{ mw_latency 0; mw_msgs 0; gop_cache off; }}"));
        let publisher = Live::start(server.address(), "live", "mr", 40, 25, 0);
        let mut player = Peer::play(server.address(), "live", "mr");
        let distance = median(bursts(&player.expect_frames(60)));
        drop(publisher);
        distance
    };
    let merged = distance("publish { mr on; mr_latency 400; }");
    assert!((360..=480).contains(&merged), "{merged} ms");
    let off = distance("publish { mr off; mr_latency 400; }");
    assert!((30..=60).contains(&off), "{off} ms");
    let realtime = distance("min_latency on; publish { mr on; mr_latency 400; }");
    assert!((30..=60).contains(&realtime), "min_latency turns mr off: {realtime} ms");
}

/// 20 Mbit/s read every 500 ms: nothing is lost or late, whatever the receive buffer.
#[test]
fn mr_keeps_up_with_20_mbit() {
    let server = Server::vhost("publish { mr on; mr_latency 500; } play { mw_latency 0; }");
    let publisher = Live::start(server.address(), "live", "fast", 20, 50, 50_000);
    let mut player = Peer::play(server.address(), "live", "fast");
    let frames = player.expect_frames(200);
    assert!(frames.windows(2).all(|pair| pair[1].0 == pair[0].0 + 20), "every frame");
    let (time, at) = frames[199];
    assert!(at < u128::from(time - frames[0].0) + 1500, "{time} ms of media took {at} ms");
    drop(publisher);
    server.wait_for_log("read every 500 ms", 1);
}

/// The sequence header's size, profile and level are in the log, of both forms, whichever is tried first.
#[test]
fn parse_sps_reads_both_forms() {
    let record = AVC_HEADER.to_vec();
    let (sps, pps) = (&AVC_HEADER[13..39], &AVC_HEADER[42..46]);
    let stream = [&AVC_HEADER[..5], &[0, 0, 0, 1], sps, &[0, 0, 0, 1], pps].concat();
    for first in ["on", "off"] {
        let server = Server::vhost(&format!("publish {{ try_annexb_first {first}; }}"));
        for (at, header) in [&record, &stream].into_iter().enumerate() {
            let mut peer = Peer::publish(server.address(), "live", "s");
            peer.send(6, 9, 1, 0, header);
            peer.send_frame(1, 0, true, 0);
            server.wait_for_log("publish: AVC 640x360 High 3.0", at + 1);
        }
    }
}

/// A broken SPS ends the publish with a reason; `parse_sps off` takes it, and the size is the metadata's.
#[test]
fn parse_sps_off_tolerates_a_broken_sps() {
    let mut broken = AVC_HEADER.to_vec();
    broken[14..39].fill(0xFF);
    let server =
        Server::start("listen 127.0.0.1:0; vhost __defaultVhost__ { } vhost off { publish { parse_sps off; } }");
    let mut strict = Peer::publish(server.address(), "live", "s");
    strict.send(6, 9, 1, 0, &broken);
    strict.expect_status("NetStream.Publish.BadName");
    strict.until_closed();
    server.wait_for_log("broken sequence parameter set", 1);
    server.wait_for_log("`parse_sps off` takes it", 1);
    let mut lax = Peer::publish(server.address(), "live", "s?vhost=off");
    let object = Value::EcmaArray(vec![("width".into(), Value::Number(64.0)), ("height".into(), Value::Number(48.0))]);
    lax.send(5, 18, 1, 0, &amf0::encode_all(&[Value::string("onMetaData"), object]));
    lax.send(6, 9, 1, 0, &broken);
    lax.send_frame(1, 0, true, 0);
    server.wait_for_log("publish: AVC 64x48", 1);
}

/// `takeover replace`: the newcomer has the stream, the old one is cut, and players go on without a word of
/// an end, time too. `reject` is the default.
#[test]
fn takeover_replaces_the_publisher_and_keeps_the_players() {
    let server = Server::vhost("min_latency on; publish { takeover replace; }");
    let mut first = Peer::publish(server.address(), "live", "t");
    let mut players: Vec<Peer> = (0..8).map(|_| Peer::play(server.address(), "live", "t")).collect();
    first.send_gop(1, 0, 5);
    for player in &mut players {
        assert_eq!(player.expect_frames(10)[9].0, 160);
    }
    let mut second = Peer::publish(server.address(), "live", "t");
    let refused = first.until_closed();
    assert!(refused.iter().any(|message| {
        crate::peer::command(message).is_some_and(|command| status_code(&command) == Some("NetStream.Publish.BadName"))
    }));
    server.wait_for_log("another publisher has taken its stream over (takeover replace)", 1);
    second.send_gop(1, 700_000, 5);
    for player in &mut players {
        let mut seen = Vec::new();
        while seen.len() < 10 {
            let message = player.next().expect("open");
            assert!(crate::peer::command(&message).is_none(), "no word of it");
            if matches!(message.type_id, 8 | 9) && message.payload[1] == 1 {
                seen.push(message.timestamp);
            }
        }
        assert_eq!((seen[0], seen[9]), (180, 340), "{seen:?}");
    }
    drop(second);
    players.iter_mut().for_each(|player| drop(player.expect_status("NetStream.Play.UnpublishNotify")));
}

/// A connection that plays a live stream beside the one that is taken from it is closed all the same.
#[test]
fn takeover_closes_a_connection_that_plays_too() {
    let server = Server::vhost("min_latency on; publish { takeover replace; }");
    let other = Live::start(server.address(), "live", "other", 10, 25, 1000);
    let mut first = Peer::publish(server.address(), "live", "t");
    let msid = first.create_stream();
    first.command(msid, "play", 0.0, &[Value::Null, Value::string("other")]);
    first.expect_status("NetStream.Play.Start");
    first.expect_frames(5);
    let _second = Peer::publish(server.address(), "live", "t");
    let started = Instant::now();
    first.until_closed();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    drop(other);
}

/// A name is free at once when its publisher ends by FIN or by RST.
#[test]
fn takeover_reject_frees_a_dead_publishers_name_at_once() {
    let server = Server::plain();
    for (round, reset) in [(1, false), (2, true)] {
        let publisher = Peer::publish(server.address(), "live", "d");
        if reset {
            socket2::SockRef::from(&publisher.socket).set_linger(Some(Duration::ZERO)).expect("linger");
        }
        drop(publisher);
        let started = Instant::now();
        drop(Peer::publish(server.address(), "live", "d"));
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        server.wait_for_log("unpublish", 2 * round);
    }
}

/// The same where the dead one's reader rests: as soon as it has read the end.
#[test]
fn takeover_waits_for_a_resting_reader() {
    let server = Server::vhost("publish { mr on; mr_latency 1500; }");
    let publisher = Live::start(server.address(), "live", "d", 40, 25, 0);
    server.wait_for_log("publish: AVC", 1);
    let started = Instant::now();
    let mut refused = Peer::connect(server.address(), "live");
    let msid = refused.create_stream();
    refused.command(msid, "publish", 5.0, &[Value::Null, Value::string("d"), Value::string("live")]);
    refused.expect_status("NetStream.Publish.BadName");
    assert!(started.elapsed() < Duration::from_millis(700), "one that lives is refused: {:?}", started.elapsed());
    drop(publisher.silence());
    let started = Instant::now();
    drop(Peer::publish(server.address(), "live", "d"));
    assert!(started.elapsed() < Duration::from_millis(3500), "{:?}", started.elapsed());
}

/// A4: an encoder in a shell loop, with players that stay: every publish succeeds.
#[test]
fn a4_the_seeds_loop_publishes_every_time() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::plain();
    let mut player = Peer::play(server.address(), "live", "livestream");
    for round in 1..=3 {
        publish(Path::new("ffmpeg"), &avc_aac(), &server.url("/live/livestream")).success();
        player.expect_status("NetStream.Play.UnpublishNotify");
        assert!(player.keyframes >= 3 * round && player.backward == 0, "{} {}", player.keyframes, player.backward);
    }
}
