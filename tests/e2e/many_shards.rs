//! More shards than CPUs: what a large machine's shards do to each other.

use crate::{
    crowd::{all_take, everywhere, name_at},
    media::{avc_aac, have, packets, packets_of_file, play_hashes, publish, track},
    peer::{AVC_HEADER, Peer},
    server::Server,
    web::{FlvBody, Web},
};
use std::path::Path;

const SHARDS: usize = 16;
const FRAMES: u32 = 1200;

/// Streams at home on the first, a middle and the last of sixteen shards, each with players on all of them, who get
/// every frame and the end; tags cross once per shard.
#[test]
fn players_on_sixteen_shards_get_everything() {
    let web = Web::shards(SHARDS, "");
    let names: Vec<String> = [0, 7, SHARDS - 1].iter().map(|home| name_at(*home, SHARDS, "many")).collect();
    let mut players: Vec<_> = names.iter().map(|name| everywhere(&web, SHARDS, name, 2 * SHARDS)).collect();
    let mut publishers: Vec<Peer> =
        names.iter().map(|name| Peer::publish(web.server.address(), "live", name)).collect();
    publishers.iter_mut().for_each(|publisher| publisher.send(6, 9, 1, 0, AVC_HEADER));
    let times: Vec<u32> = (0..FRAMES).map(|frame| frame * 40).collect();
    // In turn, so that every shard's rings have all streams at once.
    for part in times.chunks(100) {
        for publisher in &mut publishers {
            publisher
                .in_one_write(|peer| part.iter().for_each(|time| peer.send_frame(1, *time, time % 2000 == 0, 500)));
        }
    }
    publishers.iter_mut().for_each(Peer::settle);
    drop(publishers);
    for players in &mut players {
        all_take(players, &times, 1).expect("all frames, and the end");
    }
    let (_, totals) = web.server.stop();
    let tags = 3 * (u64::from(FRAMES) + 1) * (SHARDS as u64 - 1);
    assert_eq!((totals.value("tags_relayed"), totals.value("gaps")), (tags, 0));
}

/// Streams of one player each: from so many on, those that came in elsewhere are played at their streams' homes, by RTMP
/// and HTTP, and miss nothing. A stream of many is played on both shards all the same.
#[test]
fn players_of_cold_streams_go_home() {
    const STREAMS: u64 = 600;
    // Per shard, of the other one's.
    const KEPT: u64 = 64;
    let web = Web::shards(2, "");
    let server = web.server.address();
    let publish = |name: &str| {
        let mut publisher = Peer::publish(server, "live", name);
        publisher.send(6, 9, 1, 0, AVC_HEADER);
        publisher
    };
    let times: Vec<u32> = (0..25).map(|frame| frame * 40).collect();
    let send = |publisher: &mut Peer| {
        publisher.in_one_write(|peer| times.iter().for_each(|time| peer.send_frame(1, *time, *time == 0, 700)));
    };
    let names: Vec<String> = (0..STREAMS).map(|number| format!("cold{number}")).collect();
    let mut publishers: Vec<Peer> = names.iter().map(|name| publish(name)).collect();
    publishers.iter_mut().for_each(Peer::settle);
    let mut players: Vec<Peer> = names.iter().map(|name| Peer::play(server, "live", name)).collect();
    let mut bodies: Vec<FlvBody> =
        names[570..].iter().map(|name| FlvBody::ask_for(web.http(), &format!("/live/{name}.flv"))).collect();
    let mut hot_players: Vec<Peer> = (0..40).map(|_| Peer::play(server, "live", "hot")).collect();
    publishers.push(publish("hot"));
    publishers.iter_mut().for_each(send);
    for body in &mut bodies {
        let video = |body: &mut FlvBody| body.next_tag().expect("a tag").expect("no end").0 == 9;
        while !video(body) {}
    }
    drop(bodies);
    publishers.iter_mut().for_each(Peer::settle);
    drop(publishers);
    all_take(&mut hot_players, &times, 1).expect("all of the hot stream");
    all_take(&mut players, &times, 1).expect("all of the cold streams");
    let (_, totals) = web.server.stop();
    let (relayed, tags) = (totals.value("tags_relayed"), times.len() as u64 + 1);
    // A few more or less, should two streams share their seats.
    assert!((2 * KEPT * tags..=(2 * KEPT + 10) * tags).contains(&relayed), "{relayed} of {tags} each");
    assert_eq!((totals.value("gaps"), totals.value("panics")), (0, 0));
}

/// A real publisher and real players, eight shards.
#[test]
fn ffmpeg_to_many_ffmpegs_on_eight_shards() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::shards(8, "listen 127.0.0.1:0; vhost __defaultVhost__ { }");
    let (ffmpeg, file, url) = (Path::new("ffmpeg"), avc_aac(), server.url("/live/many"));
    let players: Vec<_> = (0..12).map(|_| play_hashes(ffmpeg, &url)).collect();
    server.wait_for_log("play peer", players.len());
    publish(ffmpeg, &file, &url).success();
    let published = packets_of_file(ffmpeg, &file);
    for player in players {
        let played = packets(&player.success());
        for number in [0, 1] {
            assert_eq!(track(&played, number), track(&published, number), "track {number}");
        }
    }
}
