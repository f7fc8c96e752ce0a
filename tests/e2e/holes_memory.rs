//! What one peer, or 500, can make the server hold.

use crate::{
    crowd::{Beside, PATIENCE, SHARDS, all_take, at_once, everywhere, ready, taken},
    peer::{AVC_HEADER, Peer},
    server::Server,
    web::Web,
};
use corecast::proto::{
    amf::{Value, amf0},
    rtmp::{
        chunk_writer::header0,
        handshake::Scheme,
        message::{Control, type_id},
    },
};
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// Connections of an attack.
const CONNECTIONS: usize = 500;

/// Writes `bytes` again and again, `total` in all, for `time` at most, as fast as the server takes them; goes on
/// while `more` says so. Ends too if the server closes.
fn flood(socket: &mut TcpStream, bytes: &[u8], total: usize, time: Duration, more: impl Fn() -> bool) -> usize {
    socket.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    let until = Instant::now() + time;
    let mut sent = 0;
    while sent < total && Instant::now() < until && more() {
        // Where the last write has ended, in what is repeated.
        match socket.write(&bytes[sent % bytes.len()..]) {
            Ok(written) => sent += written,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    sent
}

/// Reads and drops what a peer is told, until it is closed.
fn drain(peer: &Peer) -> std::thread::JoinHandle<()> {
    let mut socket = peer.socket.try_clone().expect("a descriptor");
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while matches!(socket.read(&mut buffer), Ok(bytes) if bytes > 0) {}
    })
}

/// Messages of no bytes cost a byte each on the wire: what the server keeps of them is bounded by more than their
/// bodies, though a player does not read, and a stream beside loses nothing.
#[test]
fn a_flood_of_empty_messages_is_bounded() {
    for shards in SHARDS {
        let web = Web::shards(shards, "");
        let beside = Beside::start(web.server.address());
        let stalled = everywhere(&web, shards, "empty", shards);
        let mut publisher = Peer::publish(web.server.address(), "live", "empty");
        publisher.send(4, 8, 1, 0, &[0xAF, 1, 0]);
        publisher.settle();
        let growth = web.server.growth();
        publisher.socket.write_all(&header0(4, 0, 0, 8, 1)).expect("a header");
        let bounded = || growth.mib() < 64;
        let sent = flood(&mut publisher.socket, &[0xC4; 64 << 10], 13 << 20, Duration::from_secs(4), bounded);
        growth.is_below(64, &format!("{shards} shards, {sent} empty messages"));
        beside.assert_whole();
        growth.is_below(64, &format!("{shards} shards, {sent} empty messages, afterwards"));
        drop(stalled);
    }
}

/// The same of one byte each.
#[test]
fn a_flood_of_tiny_messages_is_bounded() {
    for shards in SHARDS {
        let web = Web::shards(shards, "");
        let beside = Beside::start(web.server.address());
        let stalled = everywhere(&web, shards, "tiny", shards);
        let mut publisher = Peer::publish(web.server.address(), "live", "tiny");
        publisher.send(4, 8, 1, 0, &[0xAF, 1, 0]);
        publisher.settle();
        let growth = web.server.growth();
        publisher.socket.write_all(&header0(4, 0, 1, 8, 1)).expect("a header");
        publisher.socket.write_all(&[0x2F]).expect("a body");
        let bounded = || growth.mib() < 128;
        let bytes = [0xC4, 0x2F].repeat(32 << 10);
        let sent = flood(&mut publisher.socket, &bytes, 26 << 20, Duration::from_secs(4), bounded);
        growth.is_below(128, &format!("{shards} shards, {} messages of a byte", sent / 2));
        beside.assert_whole();
        drop(stalled);
    }
}

/// Messages that claim 256 KiB on as many chunk streams as there may be, and have sent one byte each: memory
/// follows what has come.
#[test]
fn unfinished_messages_hold_what_has_come_of_them() {
    for chunk_streams in [64, 7000] {
        let server = Server::plain();
        let mut wire = Vec::new();
        let (kind, body) = Control::SetChunkSize(1).encode();
        corecast::proto::rtmp::chunk_writer::ChunkWriter::plain().write(&mut wire, 2, kind, 0, 0, &body);
        for csid in 4..4 + chunk_streams {
            wire.extend_from_slice(&header0(csid, 0, 256 << 10, type_id::COMMAND_AMF0, 0));
            wire.push(2);
        }
        drop(Peer::connect(server.address(), "live"));
        let growth = server.growth();
        let mut peers = Vec::new();
        while peers.len() < CONNECTIONS && growth.mib() < 100 {
            let mut peer = Peer::connect(server.address(), "live");
            // One that has more chunk streams than it may is closed.
            drop(peer.socket.write_all(&wire));
            peers.push(peer);
        }
        growth.is_below(100, &format!("{} connections of {chunk_streams} chunk streams", peers.len()));
        // What is on its way.
        peers.iter_mut().for_each(|peer| {
            peer.socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
            drop(peer.try_next());
        });
        growth.is_below(100, &format!("{} connections of {chunk_streams} chunk streams", peers.len()));
        drop(Peer::connect(server.address(), "live"));
    }
}

/// A stream's setups are kept for late joiners: metadata and one of each track and type, but not many MiB each.
#[test]
fn setups_of_many_mib_are_bounded() {
    for script in [false, true] {
        let web = Web::shards(2, "publish { parse_sps off; }");
        let beside = Beside::start(web.server.address());
        let mut publisher = Peer::publish(web.server.address(), "live", "setups");
        publisher.control(Control::SetChunkSize(0xFF_FFFF));
        publisher.writer.set_chunk_size(0xFF_FFFF);
        publisher.send(6, 9, 1, 0, AVC_HEADER);
        publisher.send_frame(1, 0, true, 0);
        publisher.settle();
        let growth = web.server.growth();
        let padding = vec![7; 15 << 20];
        let bodies = 40;
        for number in 0..bodies {
            // A publisher that is closed for it does no harm any more.
            let sent = if script {
                let name = amf0::encode_all(&[Value::string("onMetaData")]);
                let long = amf0::encode_all(&[Value::string(format!("k{number}"))]);
                let body = [&name[..], &[8, 0, 0, 0, 1], &long[1..], &[12, 0, 0xF0, 0, 0], &padding, &[0, 0, 9]];
                publisher.try_send(5, 18, 1, 0, &body.concat())
            } else {
                // Multitrack, one track, SequenceStart.
                publisher.try_send(6, 9, 1, 0, &[&[0x96, 0x00][..], b"zzzz", &[number], &padding].concat())
            };
            if sent.is_err() || growth.mib() >= 160 {
                break;
            }
        }
        growth.is_below(160, if script { "metadata" } else { "sequence headers" });
        beside.assert_whole();
        growth.is_below(160, if script { "metadata, afterwards" } else { "sequence headers, afterwards" });
    }
}

/// What `connect` says is kept as long as the connection lasts: not 100 KiB of it.
#[test]
fn long_strings_of_connect_are_not_kept() {
    let long = "x".repeat(100 << 10);
    let kept = |properties: &dyn Fn(&Server) -> Vec<(&'static str, String)>| {
        let server = Server::plain();
        drop(Peer::connect(server.address(), "live"));
        let growth = server.growth();
        let mut peers = Vec::new();
        while peers.len() < CONNECTIONS && growth.mib() < 40 {
            let mut peer = Peer::handshake(server.address(), Scheme::Simple);
            let properties = properties(&server).into_iter().map(|(key, value)| (key.into(), Value::string(value)));
            peer.command(0, "connect", 1.0, &[Value::Object(properties.collect())]);
            // Accepted, refused or closed.
            peer.socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            while let Ok(Some(message)) = peer.try_next() {
                if matches!(message.type_id, type_id::COMMAND_AMF0) {
                    break;
                }
            }
            peers.push(peer);
        }
        (growth.mib(), peers.len())
    };
    let url = |server: &Server| server.url("/live");
    type Properties<'a> = &'a dyn Fn(&Server) -> Vec<(&'static str, String)>;
    let cases: [(&str, Properties<'_>); 4] = [
        ("flashVer and pageUrl", &|server| {
            let plain = [("app", "live".to_owned()), ("tcUrl", url(server))];
            plain.into_iter().chain([("flashVer", long.clone()), ("pageUrl", long.clone())]).collect()
        }),
        ("app", &|server| vec![("app", long.clone()), ("tcUrl", url(server))]),
        ("tcUrl", &|server| vec![("app", "live".to_owned()), ("tcUrl", format!("{}?{long}", url(server)))]),
        ("others", &|server| {
            let plain = [("app", "live".to_owned()), ("tcUrl", url(server))];
            plain.into_iter().chain([("swfUrl", long.clone()), ("capsEx", long.clone())]).collect()
        }),
    ];
    let failed: Vec<String> = cases
        .iter()
        .map(|(what, properties)| (what, kept(properties)))
        .filter(|(_, (mib, _))| *mib >= 40)
        .map(|(what, (mib, connections))| format!("{what}: {mib} MiB for {connections} connections"))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// 20,000 publishes of nothing, while players of that name wait on every shard: nothing adds up, and the stream
/// that comes then is played.
#[test]
fn publishes_of_nothing_do_not_add_up() {
    for shards in SHARDS {
        let web = Web::shards(shards, "");
        let mut players = everywhere(&web, shards, "nothing", 2 * shards);
        let mut publisher = ready(web.server.address());
        let drained = drain(&publisher);
        let growth = web.server.growth();
        let turns = publisher.collected(|peer| {
            for _ in 0..50 {
                peer.command(1, "publish", 5.0, &[Value::Null, Value::string("nothing"), Value::string("live")]);
                peer.command(1, "closeStream", 0.0, &[Value::Null]);
            }
        });
        let total = 400 * turns.len();
        let sent = flood(&mut publisher.socket, &turns, total, 2 * PATIENCE, || growth.mib() < 32);
        let said = format!("{shards} shards, {} publishes", 50 * sent / turns.len());
        growth.is_below(32, &said);
        assert_eq!(sent, total, "{said}: closed: {}", web.server.log().lines().last().unwrap_or_default());
        publisher.socket.shutdown(std::net::Shutdown::Write).expect("a FIN");
        drained.join().expect("the end");
        growth.is_below(32, &said);
        let mut real = Peer::publish(web.server.address(), "live", "nothing");
        players.extend(at_once(web.server.address(), "nothing", 1));
        real.send(6, 9, 1, 0, AVC_HEADER);
        (0..41).for_each(|frame| real.send_frame(1, frame * 40, frame % 25 == 0, 0));
        drop(real);
        let frames: Vec<u32> = (0..41).map(|frame| frame * 40).collect();
        // Ends of publishes that had nothing may be told or not; that of the real one is.
        let got: Vec<_> = players.iter_mut().map(|player| taken_to(player, &frames)).collect();
        assert!(got.iter().all(|got| *got), "{said}: {got:?}");
        growth.is_below(32, &format!("{said}, afterwards"));
    }
}

/// Whether a player gets these frames, and an end behind them.
fn taken_to(player: &mut Peer, frames: &[u32]) -> bool {
    let mut seen = Vec::new();
    loop {
        let got = taken(player, 1);
        seen.extend(got.frames);
        if seen.len() >= frames.len() || got.ends == 0 {
            return seen == frames && got.ends == 1;
        }
    }
}

/// A stream of empty messages and then of real ones: what is bounded is not broken.
#[test]
fn a_few_empty_messages_harm_no_stream() {
    let web = Web::shards(2, "");
    let mut players = at_once(web.server.address(), "few", 4);
    let mut publisher = Peer::publish(web.server.address(), "live", "few");
    publisher.send(6, 9, 1, 0, AVC_HEADER);
    for frame in 0..41 {
        publisher.send_frame(1, frame * 40, frame % 25 == 0, 0);
        publisher.send(4, 8, 1, frame * 40, &[]);
    }
    drop(publisher);
    let frames: Vec<u32> = (0..41).map(|frame| frame * 40).collect();
    assert_eq!(all_take(&mut players, &frames, 1), Ok(()));
}
