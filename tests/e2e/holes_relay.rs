//! What crosses from shard to shard, and how much of it may wait.

use crate::{
    crowd::{PATIENCE, name_at, ready},
    peer::{AVC_HEADER, Peer, command, status_code},
    web::Web,
};
use corecast::proto::{
    amf::Value,
    rtmp::{handshake::Scheme, message::Control},
};
use std::{
    io::Write,
    time::{Duration, Instant},
};

/// Tags of the GOP that is played again and again.
const GOP_TAGS: u32 = 1000;

/// A peer that has played a stream of its own, and a name at home on another shard.
fn apart(web: &Web, shards: usize, stem: &str) -> (Peer, String) {
    let mut peer = Peer::play(web.server.address(), "live", "own");
    let shard = web.shards_of_players("own", 1)[0];
    peer.command(1, "closeStream", 0.0, &[Value::Null]);
    (peer, name_at((shard + 1) % shards, shards, stem))
}

/// Publishes a GOP of [`GOP_TAGS`] frames, and stays.
fn publish_gop(web: &Web, name: &str) -> Peer {
    let mut publisher = Peer::publish(web.server.address(), "live", name);
    publisher.in_one_write(|peer| {
        peer.send(6, 9, 1, 0, AVC_HEADER);
        (0..GOP_TAGS).for_each(|frame| peer.send_frame(1, frame * 40, frame == 0, 100));
    });
    publisher.settle();
    publisher
}

/// Plays of one stream, 90 KB of them, in pieces of `piece` bytes; the answers are read all the while. Returns
/// the last frame that came before an end or silence, and whether the connection was closed.
fn play_again_and_again(peer: &mut Peer, name: &str, piece: usize) -> (Option<u32>, bool) {
    let (mut wire, mut count) = (Vec::new(), 0);
    while wire.len() < 90_000 {
        wire.extend(peer.collected(|peer| peer.command(1, "play", 0.0, &[Value::Null, Value::string(name)])));
        count += 1;
    }
    let mut writer = peer.socket.try_clone().expect("a descriptor");
    let writing = std::thread::spawn(move || {
        wire.chunks(piece).all(|piece| {
            // Its answers are on their way before the next one.
            std::thread::sleep(Duration::from_millis(2));
            writer.write_all(piece).is_ok()
        })
    });
    peer.socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (mut starts, mut last, mut closed) = (0, None, false);
    while last != Some((GOP_TAGS - 1) * 40) || starts < count {
        match peer.try_next() {
            Ok(Some(message)) => {
                let status = command(&message);
                if status.as_ref().and_then(status_code) == Some("NetStream.Play.Start") {
                    starts += 1;
                    last = None;
                }
                if let (9, [_, 1, _, _, _, a, b, c, d, ..]) = (message.type_id, &message.payload[..]) {
                    last = Some(u32::from_be_bytes([*a, *b, *c, *d]));
                }
                peer.media.clear();
            }
            Ok(None) => {
                closed = true;
                break;
            }
            Err(_) => break,
        }
    }
    writing.join().expect("the plays");
    (last, closed)
}

/// A player that plays the same stream again and again has it relayed to its shard a few times at most, and is
/// played to in the end.
#[test]
fn plays_again_and_again_do_not_relay_the_gop_each_time() {
    let mut failed = Vec::new();
    for shards in [2, 4] {
        for piece in [4000, 90_000] {
            let web = Web::shards(shards, "");
            let (mut peer, name) = apart(&web, shards, "again");
            let mut publisher = publish_gop(&web, &name);
            let growth = web.server.growth();
            let (last, closed) = play_again_and_again(&mut peer, &name, piece);
            let mib = growth.mib();
            // Whatever became of that one, the stream is played.
            let mut other = Peer::play(web.server.address(), "live", &name);
            assert_eq!(other.expect_frames(GOP_TAGS as usize).len(), GOP_TAGS as usize);
            publisher.send_frame(1, GOP_TAGS * 40, true, 0);
            drop((publisher, other, peer));
            let (code, totals) = web.server.stop();
            let relayed = totals.value("tags_relayed");
            let plays = last == Some((GOP_TAGS - 1) * 40) && !closed;
            if code != Some(0) || relayed > u64::from(5 * GOP_TAGS) || mib >= 16 || !plays {
                failed.push(format!(
                    "{shards} shards, pieces of {piece}: {relayed} tags relayed, {mib} MiB more, the last play has \
                     {last:?}, closed: {closed}"
                ));
            }
        }
    }
    assert!(failed.is_empty(), "{} of 4:\n{}", failed.len(), failed.join("\n"));
}

/// A publisher that stays on another shard than its stream's home sends 200 MB as fast as it is read, and the
/// home has players that do not read: what waits between is bounded. Who reads gets whole GOPs up to the last frame:
/// as many as it is quick enough for.
#[test]
fn a_remote_publisher_waits_for_its_home() {
    const FRAMES: u32 = 2000;
    let mut failed = Vec::new();
    for shards in [2, 4] {
        let web = Web::shards(shards, "");
        let mut publisher = Peer::play(web.server.address(), "live", "own");
        assert_eq!(publisher.create_stream(), 2);
        let shard = web.shards_of_players("own", 1)[0];
        let home = (shard + 1) % shards;
        let name = name_at(home, shards, "fast");
        let mut reading = ready(web.server.address());
        reading.command(1, "play", 0.0, &[Value::Null, Value::string(&*name)]);
        reading.expect_status("NetStream.Play.Start");
        // Until some of them have come to the home.
        let mut slow = Vec::new();
        while slow.len() < 10 || !web.shards_of_players(&name, slow.len() + 1).contains(&home) {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
            socket.set_recv_buffer_size(4096).expect("a small window");
            socket.connect(&web.server.address().into()).expect("connect");
            let mut peer = Peer::over(socket.into(), Scheme::Simple);
            peer.connect_app("live", "rtmp://127.0.0.1/live");
            peer.expect_result(1.0);
            peer.create_stream();
            peer.command(1, "play", 0.0, &[Value::Null, Value::string(&*name)]);
            slow.push(peer);
        }
        publisher.command(2, "publish", 5.0, &[Value::Null, Value::string(&*name), Value::string("live")]);
        publisher.expect_status("NetStream.Publish.Start");
        publisher.control(Control::SetChunkSize(200_000));
        publisher.writer.set_chunk_size(200_000);
        publisher.send(6, 9, 2, 0, AVC_HEADER);
        publisher.settle();
        let growth = web.server.growth();
        let (mut seen, sent, took) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut seen: Vec<u32> = Vec::new();
                reading.socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                while seen.last() != Some(&((FRAMES - 1) * 40))
                    && let Ok(Some(message)) = reading.try_next()
                {
                    if let (9, [_, 1, _, _, _, a, b, c, d, ..]) = (message.type_id, &message.payload[..]) {
                        seen.push(u32::from_be_bytes([*a, *b, *c, *d]));
                    }
                    reading.media.clear();
                }
                seen
            });
            let started = Instant::now();
            let mut sent = 0;
            while sent < FRAMES
                && growth.mib() < 300
                && publisher.try_send_frame(2, sent * 40, sent % 25 == 0, 100_000).is_ok()
            {
                sent += 1;
            }
            let took = started.elapsed();
            (reader.join().expect("the reader"), sent, took)
        });
        let mib = growth.mib();
        let first = seen.first().copied();
        seen.dedup();
        let whole = seen.last() == Some(&((FRAMES - 1) * 40))
            && seen.windows(2).all(|pair| pair[1] == pair[0] + 40 || pair[1] > pair[0] && pair[1] % 1000 == 0);
        if mib >= 150 || sent < FRAMES || !whole {
            failed.push(format!(
                "{shards} shards: {mib} MiB more, {sent} frames sent in {took:?}, {} received from {first:?} on",
                seen.len()
            ));
        }
        drop(slow);
    }
    assert!(failed.is_empty(), "{} of 2:\n{}", failed.len(), failed.join("\n"));
}
