//! `play { }`, and what a vhost says to every connection, from outside.

use crate::{
    live::{Live, bursts, median},
    peer::{AVC_HEADER, Peer, connected},
    server::Server,
};
use corecast::proto::rtmp::{handshake::Scheme, message::Control};
use std::{
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

/// The control messages up to the answer to `connect`.
fn controls_at_connect(server: &Server, app: &str) -> Vec<Control> {
    let mut peer = Peer::handshake(server.address(), Scheme::Simple);
    peer.connect_app(app, &format!("rtmp://h/{app}"));
    let mut controls = Vec::new();
    while let Some(message) = peer.next() {
        match Control::read(&message).expect("a message") {
            Some(control) => controls.push(control),
            None => return controls,
        }
    }
    controls
}

/// The global size holds where a vhost has none of its own.
#[test]
fn chunk_size_is_global_and_per_vhost() {
    let server =
        Server::start("listen 127.0.0.1:0; chunk_size 4096; vhost __defaultVhost__ { } vhost own { chunk_size 128; }");
    assert!(controls_at_connect(&server, "live").contains(&Control::SetChunkSize(4096)));
    // 128 is what every connection begins with: nothing is to be said.
    let own = controls_at_connect(&server, "live?vhost=own");
    assert!(!own.iter().any(|control| matches!(control, Control::SetChunkSize(_))), "{own:?}");
    let default = Server::plain();
    assert!(controls_at_connect(&default, "live").contains(&Control::SetChunkSize(60_000)));
}

/// out_ack_size is told, 0 is not; in_ack_size acknowledges to a peer that never asked.
#[test]
fn in_ack_size_and_out_ack_size() {
    let server = Server::start(
        "listen 127.0.0.1:0; vhost __defaultVhost__ { } vhost v { out_ack_size 12345; in_ack_size 10000; } vhost none { out_ack_size 0; }",
    );
    assert!(controls_at_connect(&server, "live").contains(&Control::WindowAckSize(2_500_000)));
    assert!(controls_at_connect(&server, "live?vhost=v").contains(&Control::WindowAckSize(12_345)));
    let none = controls_at_connect(&server, "live?vhost=none");
    assert!(!none.iter().any(|control| matches!(control, Control::WindowAckSize(_))), "{none:?}");
    for (vhost, acknowledged) in [("v", true), ("none", false)] {
        let mut peer = Peer::publish(server.address(), &format!("live?vhost={vhost}"), "a");
        (0..30).for_each(|at| peer.send_frame(1, at * 40, at == 0, 1000));
        peer.control(Control::PingRequest(9));
        let mut seen = false;
        peer.find("PingResponse", |message| match Control::read(message).expect("a message") {
            Some(Control::Acknowledgement(_)) => {
                seen = true;
                None
            }
            Some(Control::PingResponse(9)) => Some(()),
            _ => None,
        });
        assert_eq!(seen, acknowledged, "{vhost}");
    }
}

/// getsockopt on the server's own descriptor agrees with the vhost, for publishers and players.
#[test]
fn tcp_nodelay_is_set_on_the_socket() {
    let server = Server::start("listen 127.0.0.1:0; vhost __defaultVhost__ { } vhost fast { tcp_nodelay on; }");
    for (vhost, nodelay) in [("__defaultVhost__", false), ("fast", true)] {
        let app = format!("live?vhost={vhost}");
        let mut publisher = Peer::publish(server.address(), &app, "n");
        let mut player = Peer::play(server.address(), &app, "n");
        for peer in [&mut publisher, &mut player] {
            peer.control(Control::PingRequest(1));
            peer.expect_control(Control::PingResponse(1));
            assert_eq!(sockets_nodelay(&server, peer), nodelay, "{vhost}");
        }
    }
}

/// TCP_NODELAY of the server's end of a connection, by a copy of its descriptor (pidfd_getfd).
#[expect(unsafe_code, reason = "no library has pidfd_getfd")]
fn sockets_nodelay(server: &Server, peer: &Peer) -> bool {
    let own = |fd: libc::c_long| {
        // SAFETY: the call has just made the descriptor, if it is one.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
    };
    // SAFETY: plain system calls.
    let pidfd = own(unsafe { libc::syscall(libc::SYS_pidfd_open, server.pid(), 0) }).expect("a pidfd");
    let local = peer.socket.local_addr().expect("an address");
    let numbers = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("/proc");
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers {
        // SAFETY: as above.
        let Some(copy) = own(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) }) else {
            continue;
        };
        let socket = socket2::Socket::from(copy);
        let remote = socket.peer_addr().ok().and_then(|address| address.as_socket());
        if remote == Some(local) {
            return socket.tcp_nodelay().expect("getsockopt");
        }
    }
    panic!("the server has no connection with {local}");
}

/// With a GOP cache the first picture is a keyframe, at once; without one a joiner gets the newest data.
#[test]
fn gop_cache_on_and_off() {
    for (play, keyframe) in [("", true), ("gop_cache off;", false)] {
        let server = Server::vhost(&format!("play {{ {play} }}"));
        let publisher = Live::start(server.address(), "live", "g", 20, 200, 0);
        std::thread::sleep(Duration::from_millis(600));
        let mut player = Peer::play(server.address(), "live", "g");
        let started = Instant::now();
        let frame = std::iter::from_fn(|| Some(player.expect_media().2)).find(|body| body[1] == 1).expect("a frame");
        assert_eq!(frame[0] == 0x17, keyframe, "{play}");
        assert!(!keyframe || started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
        drop(publisher);
    }
}

/// A GOP over the limit is not kept: a joiner gets the newest data, and the log stays small.
#[test]
fn gop_cache_max_frames_bounds_a_stream_without_keyframes() {
    let server = Server::vhost("play { gop_cache_max_frames 10; }");
    let publisher = Live::start(server.address(), "live", "g", 5, 1_000_000, 100_000);
    std::thread::sleep(Duration::from_millis(500));
    let before = server.rss_kib();
    std::thread::sleep(Duration::from_secs(2));
    let mut player = Peer::play(server.address(), "live", "g");
    assert_eq!(player.expect_frames(1).len(), 1);
    assert_eq!(player.keyframes, 0);
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more after 40 MB of frames");
    drop(publisher);
}

/// A player that stalls for longer than queue_length loses whole GOPs and goes on at a keyframe; one that
/// stalls for less loses nothing.
#[test]
fn queue_length_drops_whole_gops() {
    for (queue_s, stall_ms, loses) in [(2, 5000, true), (20, 3000, false)] {
        let server = Server::vhost(&format!("play {{ queue_length {queue_s}; mw_latency 100; }}"));
        let publisher = Live::start(server.address(), "live", "q", 20, 25, 60_000);
        let mut player = Peer::play(server.address(), "live", "q");
        player.expect_frames(10);
        std::thread::sleep(Duration::from_millis(stall_ms));
        let already = player.media.len();
        let frames = player.expect_frames(300);
        let gap = frames.windows(2).position(|pair| pair[1].0 != pair[0].0 + 20);
        assert_eq!(gap.is_some(), loses, "queue_length {queue_s}: {gap:?}");
        if let Some(gap) = gap {
            let (before, after) = (frames[gap].0, frames[gap + 1].0);
            let lost_ms = after - before;
            // It had what fits the buffers, and was moved when it read again.
            assert!((2000..=5500).contains(&lost_ms), "{lost_ms} ms");
            assert_eq!(after % 500, 0, "goes on at a keyframe");
            let frame =
                player.media[already..].iter().find(|message| message.timestamp == after && message.payload[1] == 1);
            assert_eq!(frame.expect("the frame").payload[0], 0x17);
        }
        drop(publisher);
    }
}

/// Flush by time: bursts as far apart as mw_latency; 0 and min_latency flush each tag; K5: an explicit value
/// goes before min_latency; several vhosts beside each other.
#[test]
fn mw_latency_sets_the_distance_of_flushes() {
    let server = Server::start(
        "listen 127.0.0.1:0; \
         vhost a { play { mw_latency 500; mw_msgs 0; } } \
         vhost b { play { mw_latency 0; mw_msgs 0; } } \
         vhost c { min_latency on; } \
         vhost d { min_latency on; play { mw_latency 250; } } \
         vhost e { }",
    );
    let vhosts = [("a", 450, 550), ("b", 15, 60), ("c", 15, 60), ("d", 200, 300), ("e", 320, 380)];
    let running: Vec<_> =
        vhosts.map(|(vhost, ..)| Live::start(server.address(), &format!("live?vhost={vhost}"), "m", 20, 25, 0)).into();
    for (vhost, least, most) in vhosts {
        let mut player = Peer::play(server.address(), &format!("live?vhost={vhost}"), "m");
        player.expect_frames(60);
        let distance = median(bursts(&player.expect_frames(150)));
        assert!((least..=most).contains(&distance), "{vhost}: {distance} ms");
    }
    drop(running);
}

/// Flush by count: too few messages wait for a second interval, and no longer.
#[test]
fn mw_msgs_waits_once_for_more() {
    for (msgs, least, most) in [(0, 170, 240), (50, 370, 440)] {
        let server = Server::vhost(&format!("play {{ mw_latency 200; mw_msgs {msgs}; gop_cache off; }}"));
        let publisher = Live::start(server.address(), "live", "m", 40, 25, 0);
        let mut player = Peer::play(server.address(), "live", "m");
        player.expect_frames(10);
        let distance = median(bursts(&player.expect_frames(60)));
        assert!((least..=most).contains(&distance), "mw_msgs {msgs}: {distance} ms");
        drop(publisher);
    }
}

/// One message at a time, so far apart, though they were published at once; a fraction is rounded up.
#[test]
fn send_min_interval_sends_one_by_one() {
    for (interval, ms) in [("40", 40), ("29.5", 30)] {
        let server = Server::vhost(&format!("play {{ send_min_interval {interval}; }}"));
        let mut publisher = Peer::publish(server.address(), "live", "i");
        let mut players: Vec<Peer> = (0..6).map(|_| Peer::play(server.address(), "live", "i")).collect();
        publisher.send(6, 9, 1, 0, AVC_HEADER);
        (0..30).for_each(|frame| publisher.send_frame(1, frame, frame == 0, 0));
        for player in &mut players[..1] {
            let frames = player.expect_frames(30);
            let distances: Vec<u128> = frames.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
            let distance = median(distances.clone());
            assert!((ms - 3..=ms + 8).contains(&distance), "{interval}: {distances:?}");
            assert!(frames[29].1 >= 28 * ms, "{frames:?}");
        }
        // The others had the same.
        players[1..].iter_mut().for_each(|player| drop(player.expect_frames(30)));
    }
}

/// Sequence headers that say the same again are left out; one that says something else passes.
#[test]
fn reduce_sequence_header_drops_repeats_only() {
    let mut other = AVC_HEADER.to_vec();
    other[8] = 0x1F;
    let headers = |play: &str| {
        let server = Server::vhost(&format!("min_latency on; play {{ {play} }}"));
        let mut publisher = Peer::publish(server.address(), "live", "r");
        let mut player = Peer::play(server.address(), "live", "r");
        for (at, header) in [AVC_HEADER, AVC_HEADER, AVC_HEADER, &other, &other, AVC_HEADER].into_iter().enumerate() {
            publisher.send(6, 9, 1, at as u32 * 40, header);
            publisher.send_frame(1, at as u32 * 40, true, 0);
        }
        player.expect_frames(6);
        player
            .media
            .iter()
            .filter(|message| message.payload[1] == 0)
            .map(|message| message.payload[8])
            .collect::<Vec<_>>()
    };
    assert_eq!(headers(""), [0x1E, 0x1E, 0x1E, 0x1F, 0x1F, 0x1E]);
    assert_eq!(headers("reduce_sequence_header on;"), [0x1E, 0x1F, 0x1E]);
}

/// max_connections counts every protocol and every shard: RTMPS connections too, TLS or not yet.
#[test]
fn max_connections_counts_every_protocol() {
    let directory = tempfile::tempdir().expect("a directory");
    let rtmps = crate::rtmps::section(directory.path(), "127.0.0.1:0");
    let server = Server::start(&format!("listen 127.0.0.1:0; max_connections 4; {rtmps} vhost __defaultVhost__ {{ }}"));
    let plain: Vec<_> = (0..2).map(|_| Peer::play(server.address(), "live", "x")).collect();
    let secure: Vec<_> = (0..2).map(|_| connected(server.addresses()[1])).collect();
    crate::server::eventually("four connections", || {
        let mut fifth = connected(server.address());
        (std::io::Read::read(&mut fifth, &mut [0; 16]).unwrap_or(0) == 0).then_some(())
    });
    server.wait_for_log("a connection is refused", 1);
    drop((plain, secure));
}
