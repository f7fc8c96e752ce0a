//! Exactness: what ffmpeg publishes, ffmpeg plays, packet for packet.

use crate::{
    media::{self, avc_aac, avc_large, ffmpeg9, have, packets, packets_of_file, play_hashes, publish, track},
    peer::Peer,
    server::Server,
};
use std::path::Path;

/// Publishes `file` to a player that waits for it; every packet and time distance must arrive.
fn relays_exactly(server: &Server, ffmpeg: &Path, file: &Path) {
    let url = server.url("/live/exact");
    let player = play_hashes(ffmpeg, &url);
    server.wait_for_log("play peer", 1);
    publish(ffmpeg, file, &url).success();
    let played = packets(&player.success());
    let published = packets_of_file(ffmpeg, file);
    assert!(published.len() > 100, "{} packets", published.len());
    for number in [0, 1] {
        let (played, published) = (track(&played, number), track(&published, number));
        assert_eq!(played.len(), published.len(), "packets of track {number}");
        assert_eq!(played, published, "track {number}");
    }
}

fn with_chunk_size(bytes: u32, file: &Path) {
    let config = format!("listen 127.0.0.1:0; chunk_size {bytes}; vhost __defaultVhost__ {{ }}");
    let server = Server::start(&config);
    if have("ffmpeg") {
        relays_exactly(&server, Path::new("ffmpeg"), file);
    }
}

/// B7: chunk size 128, whole relay.
#[test]
fn b7_ffmpeg_to_ffmpeg_at_chunk_size_128() {
    with_chunk_size(128, &avc_aac());
}

#[test]
fn ffmpeg_to_ffmpeg_at_chunk_size_4096() {
    with_chunk_size(4096, &avc_aac());
}

#[test]
fn ffmpeg_to_ffmpeg_at_chunk_size_60000() {
    with_chunk_size(60_000, &avc_large());
}

/// 0 ms: every tag is flushed as it comes, to players on both shards.
#[test]
fn ffmpeg_to_ffmpeg_at_min_latency() {
    let server = Server::start("listen 127.0.0.1:0; vhost __defaultVhost__ { min_latency on; tcp_nodelay on; }");
    if have("ffmpeg") {
        relays_exactly(&server, Path::new("ffmpeg"), &avc_aac());
    }
}

/// G9: HEVC by Enhanced RTMP.
#[test]
fn g9_hevc_by_enhanced_rtmp() {
    if let Some(ffmpeg) = ffmpeg9() {
        relays_exactly(&Server::plain(), &ffmpeg, &media::hevc(&ffmpeg));
    }
}

/// G9: AV1 by Enhanced RTMP.
#[test]
fn g9_av1_by_enhanced_rtmp() {
    if let Some(ffmpeg) = ffmpeg9() {
        relays_exactly(&Server::plain(), &ffmpeg, &media::av1(&ffmpeg));
    }
}

/// Video alone and audio alone are streams like any other.
#[test]
fn video_only_and_audio_only_streams() {
    if !have("ffmpeg") {
        return;
    }
    for file in [media::avc_only(), media::aac_only()] {
        let server = Server::plain();
        let url = server.url("/live/one");
        let player = play_hashes(Path::new("ffmpeg"), &url);
        server.wait_for_log("play peer", 1);
        publish(Path::new("ffmpeg"), &file, &url).success();
        assert_eq!(packets(&player.success()), packets_of_file(Path::new("ffmpeg"), &file), "{}", file.display());
    }
}

/// A late joiner starts at a keyframe, at time 0, and misses nothing from there to the end.
#[test]
fn late_joiner_gets_a_whole_tail() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::plain();
    let url = server.url("/live/late");
    let publisher = publish(Path::new("ffmpeg"), &avc_aac(), &url);
    server.wait_for_log("publish: AVC", 1);
    let player = play_hashes(Path::new("ffmpeg"), &url);
    publisher.success();
    let played = packets(&player.success());
    let published = packets_of_file(Path::new("ffmpeg"), &avc_aac());
    let hashes = |packets: &[media::Packet]| packets.iter().map(|packet| packet.2.clone()).collect::<Vec<_>>();
    for number in [0, 1] {
        let (played, published) = (hashes(&track(&played, number)), hashes(&track(&published, number)));
        assert!(played.len() > 20, "{} packets", played.len());
        assert_eq!(published[published.len() - played.len()..], played, "track {number}");
        if number == 0 {
            assert_eq!((published.len() - played.len()) % 30, 0, "starts at a keyframe");
        }
    }
}

/// A4: republish in a loop succeeds every time, and a player who stays goes on; StreamEOF and
/// UnpublishNotify come after the last tag (C9).
#[test]
fn c9_republish_keeps_players() {
    if !have("ffmpeg") {
        return;
    }
    let server = Server::plain();
    let url = server.url("/live/again");
    let mut waiting = Peer::play(server.address(), "live", "again");
    for round in 1..=3 {
        publish(Path::new("ffmpeg"), &avc_aac(), &url).success();
        waiting.expect_status("NetStream.Play.UnpublishNotify");
        server.wait_for_log("unpublish", round);
    }
    let sounds = track(&packets_of_file(Path::new("ffmpeg"), &avc_aac()), 1).len();
    let got = waiting.media.iter().filter(|message| message.type_id == 8 && message.payload[1] == 1).count();
    assert_eq!((got, waiting.backward), (3 * sounds, 0), "audio of three rounds, time never steps back");
    assert!(waiting.keyframes >= 3 * 4);
}

/// An encoder that comes back the moment it has gone, by whatever end, is not refused as busy.
#[test]
fn a_name_is_free_as_soon_as_its_publisher_has_ended() {
    let server = Server::plain();
    for round in 0..20 {
        let mut peer = Peer::publish(server.address(), "live", "again");
        peer.send_gop(1, round * 1000, 5);
        if round % 2 == 0 {
            peer.command(1, "deleteStream", 0.0, &[]);
        }
        drop(peer);
    }
}
