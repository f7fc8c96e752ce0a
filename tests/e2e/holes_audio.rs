//! Video that is announced and never comes; publishers with many chunk streams.

use crate::{
    crowd::{PATIENCE, SHARDS, taken},
    peer::{AVC_HEADER, Peer},
    web::{FlvBody, Web},
};
use corecast::proto::amf::{Value, amf0};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// A tag of AAC lasts so long, in ms: 43 a second.
const TAG_MS: u32 = 23;
/// Audio must have come by then: 2 s of waiting for video, a flush, and a busy machine.
const AUDIO_MS_MAX: u128 = 4500;

/// How an encoder sends: ms of media from tag to tag, and how many tags at once, how many ms of real time apart.
#[derive(Clone, Copy, Debug)]
struct Pace {
    step_ms: u32,
    burst: u32,
    every_ms: u64,
}

const PACES: [Pace; 3] = [
    Pace { step_ms: TAG_MS, burst: 1, every_ms: TAG_MS as u64 },
    // 40 times faster than real time, by more tags.
    Pace { step_ms: TAG_MS, burst: 40, every_ms: TAG_MS as u64 },
    // The same, by time stamps alone.
    Pace { step_ms: 40 * TAG_MS, burst: 1, every_ms: TAG_MS as u64 },
];

/// Publishes audio, numbered from 0, behind what announces video, until it is told to stop.
fn publish_audio(server: SocketAddr, name: &str, announce: fn(&mut Peer), pace: Pace, stop: &AtomicBool) {
    let mut peer = Peer::publish(server, "live", name);
    announce(&mut peer);
    peer.send(4, 8, 1, 0, &[0xAF, 0, 0x12, 0x10]);
    let started = Instant::now();
    for turn in 0_u32.. {
        std::thread::sleep(Duration::from_millis(u64::from(turn) * pace.every_ms).saturating_sub(started.elapsed()));
        if stop.load(Ordering::Relaxed) {
            return;
        }
        peer.in_one_write(|peer| {
            for tag in turn * pace.burst..(turn + 1) * pace.burst {
                let [a, b, c, d] = tag.to_be_bytes();
                peer.send(4, 8, 1, tag * pace.step_ms, &[0xAF, 1, a, b, c, d]);
            }
        });
    }
}

/// The number of an audio tag that is no header.
fn number(body: &[u8]) -> Option<u32> {
    match body {
        [0xAF, 1, a, b, c, d] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

/// The first audio tags of an RTMP player, and when the first came.
fn first_by_rtmp(peer: &mut Peer, started: Instant) -> Result<(Vec<u32>, u128), String> {
    peer.socket.set_read_timeout(Some(2 * PATIENCE)).expect("a timeout");
    let mut numbers = Vec::new();
    let mut first_ms = 0;
    while numbers.len() < 10 {
        let message = peer.try_next().map_err(|_| format!("{} tags in {:?}", numbers.len(), started.elapsed()))?;
        let message = message.ok_or("closed")?;
        if let Some(number) = number(&message.payload).filter(|_| message.type_id == 8) {
            if numbers.is_empty() {
                first_ms = started.elapsed().as_millis();
            }
            numbers.push(number);
        }
    }
    Ok((numbers, first_ms))
}

/// The same by HTTP-FLV.
fn first_by_http(body: &mut FlvBody, started: Instant) -> Result<(Vec<u32>, u128), String> {
    body.set_patience(2 * PATIENCE);
    let mut numbers = Vec::new();
    let mut first_ms = 0;
    while numbers.len() < 10 {
        let tag = body.next_tag().map_err(|_| format!("{} tags in {:?}", numbers.len(), started.elapsed()))?;
        let (kind, _, tag) = tag.ok_or("the response has ended")?;
        if let Some(number) = number(&tag).filter(|_| kind == 8) {
            if numbers.is_empty() {
                first_ms = started.elapsed().as_millis();
            }
            numbers.push(number);
        }
    }
    Ok((numbers, first_ms))
}

/// Players who wait have every tag within the time, and one that comes later has what is new at once.
fn plays_at(web: &Web, name: &str, announce: fn(&mut Peer), pace: Pace) -> Result<(), String> {
    let server = web.server.address();
    let mut waiting: Vec<Peer> = (0..4).map(|_| Peer::play(server, "live", name)).collect();
    let mut bodies: Vec<FlvBody> = (0..4).map(|_| FlvBody::ask_for(web.http(), &format!("/live/{name}.flv"))).collect();
    web.shards_of_players(name, 8);
    let stop = Arc::new(AtomicBool::new(false));
    let (told, stream) = (Arc::clone(&stop), name.to_owned());
    let started = Instant::now();
    let publisher = std::thread::spawn(move || publish_audio(server, &stream, announce, pace, &told));
    let outcome = std::thread::scope(|scope| {
        let rtmp = waiting.iter_mut().map(|peer| scope.spawn(move || ("RTMP", first_by_rtmp(peer, started))));
        let http = bodies.iter_mut().map(|body| scope.spawn(move || ("HTTP-FLV", first_by_http(body, started))));
        let threads: Vec<_> = rtmp.chain(http).collect();
        for thread in threads {
            let (protocol, first) = thread.join().expect("a player");
            let (numbers, ms) = first.map_err(|error| format!("{protocol}, {pace:?}: {error}"))?;
            if ms > AUDIO_MS_MAX || numbers != (0..10).collect::<Vec<_>>() {
                return Err(format!("{protocol}, {pace:?}: {numbers:?} after {ms} ms"));
            }
        }
        let mut late = Peer::play(server, "live", name);
        let (numbers, ms) = first_by_rtmp(&mut late, Instant::now()).map_err(|error| format!("late: {error}"))?;
        let follows = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
        if follows && ms < 1500 { Ok(()) } else { Err(format!("late, {pace:?}: {numbers:?} after {ms} ms")) }
    });
    stop.store(true, Ordering::Relaxed);
    publisher.join().expect("the publisher");
    outcome
}

/// At every pace, with each number of shards, all beside each other.
fn audio_plays_behind(announce: fn(&mut Peer)) {
    let failed: Vec<String> = std::thread::scope(|scope| {
        let servers: Vec<_> = SHARDS
            .iter()
            .map(|&shards| {
                scope.spawn(move || {
                    let web = Web::shards(shards, "");
                    let web = &web;
                    std::thread::scope(|scope| {
                        let streams: Vec<_> = (0..PACES.len())
                            .map(|at| scope.spawn(move || plays_at(web, &format!("pace{at}"), announce, PACES[at])))
                            .collect();
                        let outcomes = streams.into_iter().filter_map(|stream| stream.join().expect("a stream").err());
                        outcomes.map(|what| format!("{shards} shards, {what}")).collect::<Vec<_>>()
                    })
                })
            })
            .collect();
        servers.into_iter().flat_map(|server| server.join().expect("a server")).collect()
    });
    assert!(failed.is_empty(), "{} of 9:\n{}", failed.len(), failed.join("\n"));
}

/// Metadata announces video, and only audio comes: players hear it soon, whoever they are.
#[test]
fn audio_plays_though_the_metadata_announces_video() {
    audio_plays_behind(|peer| {
        let number = |key: &str, value: f64| (key.into(), Value::Number(value));
        let properties = vec![
            number("width", 640.0),
            number("height", 360.0),
            number("framerate", 25.0),
            number("videocodecid", 7.0),
            number("audiocodecid", 10.0),
        ];
        let values = [Value::string("@setDataFrame"), Value::string("onMetaData"), Value::EcmaArray(properties)];
        peer.send(5, 18, 1, 0, &amf0::encode_all(&values));
    });
}

/// The same where video has sent its sequence header, and never a frame.
#[test]
fn audio_plays_though_a_video_header_came_and_no_frame() {
    audio_plays_behind(|peer| peer.send(6, 9, 1, 0, AVC_HEADER));
}

/// An encoder that uses 100 chunk streams, or 300, for its audio: everything arrives, and it is not cut.
#[test]
fn hundreds_of_chunk_streams_carry_a_publish() {
    for shards in SHARDS {
        let web = Web::shards(shards, "");
        for streams in [100_u32, 300] {
            let name = format!("csids{streams}");
            let mut player = Peer::play(web.server.address(), "live", &name);
            let mut publisher = Peer::publish(web.server.address(), "live", &name);
            let total = 3 * streams;
            for tag in 0..total {
                let [a, b, c, d] = tag.to_be_bytes();
                let sent = publisher.try_send(4 + tag % streams, 8, 1, tag * TAG_MS, &[0xAF, 1, a, b, c, d]);
                assert!(sent.is_ok(), "{shards} shards, {streams} chunk streams: closed at {tag}");
            }
            publisher.send(4, 8, 1, total * TAG_MS, &[0xAF, 2]);
            drop(publisher);
            let got = taken(&mut player, 1);
            let numbers: Vec<u32> = player.media.iter().filter_map(|message| number(&message.payload)).collect();
            assert!(
                numbers == (0..total).collect::<Vec<_>>() && got.ends == 1,
                "{shards} shards, {streams} chunk streams: {} of {total} tags, {} ends; {}",
                numbers.len(),
                got.ends,
                web.server.log().lines().rfind(|line| line.contains("closed:")).unwrap_or_default()
            );
        }
    }
}
