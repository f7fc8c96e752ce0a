//! Publishers that stay on their shard, at home elsewhere: what belongs to which publish, and who publishes.

use crate::{
    crowd::{PATIENCE, SHARDS, name_at, ready},
    peer::{AVC_HEADER, Peer, command, status_code},
    server::eventually,
    web::Web,
};
use corecast::proto::amf::Value;
use std::{
    io::Write,
    time::{Duration, Instant},
};

/// The NetStream that publishes; number 1 plays, so that the connection does not move home.
const MSID: u32 = 2;

/// A peer that plays a stream of its own, with a second NetStream, and the shard that it is on.
fn anchored(web: &Web, own: &str) -> (Peer, usize) {
    let mut peer = Peer::play(web.server.address(), "live", own);
    assert_eq!(peer.create_stream(), MSID);
    (peer, web.shards_of_players(own, 1)[0])
}

/// A name that is at home on another shard than `shard`, if there is another.
fn remote(shard: usize, shards: usize, stem: &str, which: usize) -> String {
    let other = if shards > 1 { 1 + which % (shards - 1) } else { 0 };
    name_at((shard + other) % shards, shards, stem)
}

fn publish(peer: &mut Peer, msid: u32, stream: &str) {
    peer.command(msid, "publish", 5.0, &[Value::Null, Value::string(stream), Value::string("live")]);
}

/// A picture that anybody can start with; whether the server is still there to take it.
fn send_picture(peer: &mut Peer, msid: u32, number: u32) -> bool {
    let bytes = peer.collected(|peer| {
        peer.send(6, 9, msid, number, AVC_HEADER);
        peer.send_frame(msid, number, true, 0);
    });
    peer.socket.write_all(&bytes).is_ok()
}

/// What the publisher wrote into the next frame; `None` if there is none for a moment.
fn next_frame(player: &mut Peer) -> Option<u32> {
    player.socket.set_read_timeout(Some(Duration::from_millis(5))).expect("a timeout");
    loop {
        let message = player.try_next().ok()??;
        if let (9, [_, 1, _, _, _, a, b, c, d, ..]) = (message.type_id, &message.payload[..]) {
            return Some(u32::from_be_bytes([*a, *b, *c, *d]));
        }
    }
}

/// The answer to a publish.
fn answer(peer: &mut Peer) -> Option<String> {
    peer.socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    loop {
        let command = command(&peer.try_next().ok()??);
        if let Some(code) = command.as_ref().and_then(status_code) {
            return Some(code.to_owned());
        }
    }
}

/// Everybody has gone, and the counters know.
fn counts_end_at_zero(web: Web) {
    let gone = |name: &str| web.metric(name).iter().all(|count| *count == 0);
    let until = Instant::now() + PATIENCE;
    while !(gone("corecast_publishers") && gone("corecast_players")) {
        let counts = [web.metric("corecast_publishers"), web.metric("corecast_players")];
        assert!(Instant::now() < until, "publishers and players of each shard: {counts:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    let (code, totals) = web.server.stop();
    assert_eq!((code, totals.value("publishers"), totals.value("players"), totals.value("panics")), (Some(0), 0, 0, 0));
}

/// A name published and left within one write is free, and what is published behind it under another name is
/// that one's alone.
#[test]
fn a_publish_left_in_the_same_write_frees_its_name_and_leaves_the_next_its_media() {
    for shards in SHARDS {
        let web = Web::shards(shards, "min_latency on;");
        let (mut peer, shard) = anchored(&web, "own");
        for round in 0..50_usize {
            let number = round as u32;
            let said = format!("{shards} shards, round {round}");
            let a = remote(shard, shards, &format!("a{round}-"), round);
            let b = remote(shard, shards, &format!("b{round}-"), round / 2);
            let mut player_of_a = Peer::play(web.server.address(), "live", &a);
            let mut player_of_b = Peer::play(web.server.address(), "live", &b);
            peer.in_one_write(|peer| {
                publish(peer, MSID, &a);
                peer.command(MSID, "closeStream", 0.0, &[Value::Null]);
                publish(peer, MSID, &b);
            });
            let until = Instant::now() + PATIENCE;
            let seen = loop {
                assert!(Instant::now() < until, "{said}: B has no media; A has {:?}", next_frame(&mut player_of_a));
                assert!(send_picture(&mut peer, MSID, number), "{said}: the publisher is closed");
                if let Some(seen) = next_frame(&mut player_of_b) {
                    break seen;
                }
            };
            assert_eq!(seen, number, "{said}: B's media");
            let mut other = ready(web.server.address());
            publish(&mut other, 1, &a);
            assert_eq!(answer(&mut other).as_deref(), Some("NetStream.Publish.Start"), "{said}: A is free");
            assert!(send_picture(&mut other, 1, 1000 + number), "{said}: who publishes A stays");
            let first = eventually("A's media", || next_frame(&mut player_of_a));
            assert_eq!(first, 1000 + number, "{said}: A's media is A's");
            peer.command(MSID, "closeStream", 0.0, &[Value::Null]);
        }
        drop(peer);
        counts_end_at_zero(web);
    }
}

/// `takeover replace`: one that is about to be replaced closes and publishes anew at that moment. Whichever of
/// the two was later has the stream and keeps it.
#[test]
fn a_takeover_does_not_end_a_later_publish_of_who_was_replaced() {
    for shards in SHARDS {
        let web = Web::shards(shards, "min_latency on; publish { takeover replace; }");
        for round in 0..12_usize {
            let said = format!("{shards} shards, round {round}");
            let (mut first, shard) = anchored(&web, &format!("own{round}"));
            let name = remote(shard, shards, &format!("s{round}-"), round);
            let mut player = Peer::play(web.server.address(), "live", &name);
            publish(&mut first, MSID, &name);
            assert_eq!(answer(&mut first).as_deref(), Some("NetStream.Publish.Start"), "{said}");
            let mut second = ready(web.server.address());
            let takes = second.collected(|peer| publish(peer, 1, &name));
            let again = first.collected(|peer| {
                peer.command(MSID, "closeStream", 0.0, &[Value::Null]);
                publish(peer, MSID, &name);
            });
            // Each of them first in half of the rounds.
            if round % 2 == 0 {
                second.socket.write_all(&takes).expect("send");
                first.socket.write_all(&again).expect("send");
            } else {
                first.socket.write_all(&again).expect("send");
                second.socket.write_all(&takes).expect("send");
            }
            let until = Instant::now() + PATIENCE;
            for number in 0.. {
                assert!(Instant::now() < until, "{said}: nobody publishes any more");
                send_picture(&mut first, MSID, 1_000_000 + number);
                send_picture(&mut second, 1, 2_000_000 + number);
                // One that is to be dismissed has been by then.
                if next_frame(&mut player).is_some_and(|seen| seen % 1_000_000 >= 5) {
                    break;
                }
            }
        }
        counts_end_at_zero(web);
    }
}
