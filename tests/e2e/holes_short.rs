//! Publishes that are over in one write: whoever plays in time gets all of them, on whatever shard.

use crate::{
    crowd::{PATIENCE, SHARDS, all_take, at_once, ready, taken},
    peer::{AVC_HEADER, Peer},
    web::{FlvBody, Web},
};
use corecast::proto::amf::Value;
use std::{net::Shutdown, ops::Range};

/// Players of each stream.
const PLAYERS: usize = 20;
/// Streams of each kind: what is lost is not lost each time.
const ROUNDS: usize = 3;
/// Frames of a publish; keyframes are 0 and 25.
const FRAMES: u32 = 41;
const GOP: u32 = 25;

/// How a publish ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    CloseStream,
    DeleteStream,
    Fin,
}

const ENDINGS: [Ending; 3] = [Ending::CloseStream, Ending::DeleteStream, Ending::Fin];

fn times(frames: Range<u32>) -> Vec<u32> {
    frames.map(|frame| frame * 40).collect()
}

fn publish(peer: &mut Peer, stream: &str) {
    peer.command(1, "publish", 5.0, &[Value::Null, Value::string(stream), Value::string("live")]);
}

fn send_headers(peer: &mut Peer) {
    peer.send(6, 9, 1, 0, AVC_HEADER);
    peer.send(4, 8, 1, 0, &[0xAF, 0, 0x12, 0x10]);
}

fn send_frames(peer: &mut Peer, frames: Range<u32>) {
    frames.for_each(|frame| peer.send_frame(1, frame * 40, frame % GOP == 0, 0));
}

/// Writes what `say` sends with the end behind it.
fn end_with(peer: &mut Peer, ending: Ending, say: impl FnOnce(&mut Peer)) {
    peer.in_one_write(|peer| {
        say(peer);
        match ending {
            Ending::CloseStream => peer.command(1, "closeStream", 0.0, &[Value::Null]),
            Ending::DeleteStream => peer.command(0, "deleteStream", 0.0, &[Value::Null, Value::Number(1.0)]),
            Ending::Fin => {}
        }
    });
    if matches!(ending, Ending::Fin) {
        peer.socket.shutdown(Shutdown::Write).expect("a FIN");
    }
}

/// Does a round with each number of shards and each ending, up to the first that fails; none may.
fn each(vhost: &str, round: impl Fn(&Web, Ending, &str) -> Result<(), String>) {
    let mut failed = Vec::new();
    for shards in SHARDS {
        let web = Web::shards(shards, vhost);
        for ending in ENDINGS {
            let mut names = (0..ROUNDS).map(|at| format!("{ending:?}{at}"));
            let first = names.find_map(|name| Some((round(&web, ending, &name).err()?, name)));
            failed.extend(first.map(|(what, name)| format!("{shards} shards, {name}: {what}")));
        }
    }
    assert!(failed.is_empty(), "{} of 9:\n{}", failed.len(), failed.join("\n"));
}

/// The publish has begun and has had its headers when the players come; its frames and its end come in one
/// write behind the last Play.Start.
#[test]
fn a_short_publish_reaches_whoever_plays_before_its_first_frame() {
    each("", |web, ending, name| {
        let mut publisher = Peer::publish(web.server.address(), "live", name);
        send_headers(&mut publisher);
        publisher.settle();
        let mut players = at_once(web.server.address(), name, PLAYERS);
        end_with(&mut publisher, ending, |peer| send_frames(peer, 0..FRAMES));
        all_take(&mut players, &times(0..FRAMES), 1)
    });
}

/// The same where every tag is flushed as it comes.
#[test]
fn a_short_publish_reaches_whoever_plays_before_its_first_frame_at_min_latency() {
    each("min_latency on;", |web, ending, name| {
        let mut publisher = Peer::publish(web.server.address(), "live", name);
        send_headers(&mut publisher);
        publisher.settle();
        let mut players = at_once(web.server.address(), name, PLAYERS);
        end_with(&mut publisher, ending, |peer| send_frames(peer, 0..FRAMES));
        all_take(&mut players, &times(0..FRAMES), 1)
    });
}

/// Each time a stream is played for the first time on a shard, by one player only: nobody else has subscribed
/// there before.
#[test]
fn a_short_publish_reaches_the_first_player_of_its_shard() {
    each("", |web, ending, name| {
        for at in 0..PLAYERS {
            let name = format!("{name}-{at}");
            let mut publisher = Peer::publish(web.server.address(), "live", &name);
            send_headers(&mut publisher);
            publisher.settle();
            let mut player = Peer::play(web.server.address(), "live", &name);
            end_with(&mut publisher, ending, |peer| send_frames(peer, 0..FRAMES));
            all_take(std::slice::from_mut(&mut player), &times(0..FRAMES), 1)?;
        }
        Ok(())
    });
}

/// Everything in one write: publish, headers, frames, end.
#[test]
fn a_publish_in_one_write_reaches_whoever_waits() {
    each("", |web, ending, name| {
        let mut publisher = ready(web.server.address());
        let mut players = at_once(web.server.address(), name, PLAYERS);
        end_with(&mut publisher, ending, |peer| {
            publish(peer, name);
            send_headers(peer);
            send_frames(peer, 0..FRAMES);
        });
        all_take(&mut players, &times(0..FRAMES), 1)
    });
}

/// The same twice in one write: both publishes, each with its end.
#[test]
fn two_publishes_in_one_write_reach_whoever_waits() {
    each("", |web, ending, name| {
        let mut publisher = ready(web.server.address());
        let mut players = at_once(web.server.address(), name, PLAYERS);
        end_with(&mut publisher, ending, |peer| {
            publish(peer, name);
            send_headers(peer);
            send_frames(peer, 0..FRAMES);
            peer.command(1, "closeStream", 0.0, &[Value::Null]);
            publish(peer, name);
            send_headers(peer);
            send_frames(peer, 0..FRAMES);
        });
        all_take(&mut players, &[times(0..FRAMES), times(0..FRAMES)].concat(), 2)?;
        let backward = players.iter().filter(|player| player.backward > 0).count();
        if backward == 0 { Ok(()) } else { Err(format!("time steps back for {backward} players")) }
    });
}

/// Who joins in the middle gets everything from the newest keyframe on, though the rest comes in one write at
/// once.
#[test]
fn who_joins_in_the_middle_gets_the_newest_gop_to_its_end() {
    each("", |web, ending, name| {
        let mut first = Peer::play(web.server.address(), "live", name);
        let mut publisher = Peer::publish(web.server.address(), "live", name);
        publisher.in_one_write(|peer| {
            send_headers(peer);
            send_frames(peer, 0..31);
        });
        first.expect_frames(31);
        let mut players = at_once(web.server.address(), name, PLAYERS);
        end_with(&mut publisher, ending, |peer| send_frames(peer, 31..FRAMES));
        let rest = taken(&mut first, 1);
        if (&rest.frames, rest.ends) != (&times(31..FRAMES), 1) {
            return Err(format!("who was there before gets {rest:?}"));
        }
        all_take(&mut players, &times(GOP..FRAMES), 1)
    });
}

/// The frames of a live response up to its end; without an end if it breaks off.
fn taken_by_http(body: &mut FlvBody) -> (Vec<u32>, bool) {
    body.set_patience(PATIENCE);
    let mut frames = Vec::new();
    loop {
        match body.next_tag() {
            Ok(Some((9, _, tag))) if tag.get(1) == Some(&1) => {
                frames.push(u32::from_be_bytes(*tag[5..].first_chunk().expect("a frame")));
            }
            Ok(Some(_)) => {}
            Ok(None) => return (frames, true),
            Err(_) => return (frames, false),
        }
    }
}

/// Waiting responses of a stream, known to their shards.
fn wait_by_http(web: &Web, name: &str) -> Vec<FlvBody> {
    let path = format!("/live/{name}.flv");
    let bodies = (0..PLAYERS).map(|_| FlvBody::ask_for(web.http(), &path)).collect();
    web.shards_of_players(name, PLAYERS);
    bodies
}

fn all_take_by_http(mut bodies: Vec<FlvBody>) -> Result<(), String> {
    let got: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = bodies.iter_mut().map(|body| scope.spawn(|| taken_by_http(body))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a player")).collect()
    });
    let wrong: Vec<_> = got.iter().filter(|got| **got != (times(0..FRAMES), true)).collect();
    let Some((frames, ended)) = wrong.first() else { return Ok(()) };
    Err(format!(
        "{} of {} are not whole; the first has {} frames, ended: {ended}",
        wrong.len(),
        got.len(),
        frames.len()
    ))
}

/// By HTTP-FLV: who waits gets every frame, and the response ends.
#[test]
fn a_publish_in_one_write_reaches_waiting_http_players() {
    each("", |web, ending, name| {
        let mut publisher = ready(web.server.address());
        let bodies = wait_by_http(web, name);
        end_with(&mut publisher, ending, |peer| {
            publish(peer, name);
            send_headers(peer);
            send_frames(peer, 0..FRAMES);
        });
        all_take_by_http(bodies)
    });
}

/// The same where the publish has had its headers before they came.
#[test]
fn a_short_publish_reaches_http_players_who_came_before_its_first_frame() {
    each("", |web, ending, name| {
        let mut publisher = Peer::publish(web.server.address(), "live", name);
        send_headers(&mut publisher);
        publisher.settle();
        let bodies = wait_by_http(web, name);
        end_with(&mut publisher, ending, |peer| send_frames(peer, 0..FRAMES));
        all_take_by_http(bodies)
    });
}
