//! Rows B, C, D and G of the specification that only a scripted peer can show. Real clients walk the
//! same ways in `relay` and `clients`.

use crate::{
    peer::{Peer, command, connected, status_code},
    server::{Server, eventually},
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
    io::{Read, Write},
    time::Duration,
};

/// B1, B2: every handshake ends in a session.
#[test]
fn b2_each_handshake_scheme_connects() {
    let server = Server::plain();
    for scheme in [Scheme::Simple, Scheme::Complex { schema: 0 }, Scheme::Complex { schema: 1 }] {
        let mut peer = Peer::handshake(server.address(), scheme);
        peer.connect_app("live", "rtmp://h/live");
        peer.expect_result(1.0);
    }
}

/// B3: the proxy header names the real peer where the listener asks for it, and only there.
#[test]
fn b3_proxy_header_names_the_real_peer() {
    let server = Server::start("listen 127.0.0.1:0 proxy_protocol; listen [::1]:0; vhost __defaultVhost__ { }");
    for (header, real) in [
        (&b"PROXY TCP4 192.0.2.7 127.0.0.1 4660 1935\r\n"[..], "192.0.2.7:4660"),
        (&[0xF3, 0, 4, 192, 0, 2, 9][..], "192.0.2.9:0"),
    ] {
        let mut socket = connected(server.address());
        socket.write_all(header).expect("send");
        let mut peer = Peer::over(socket, Scheme::Simple);
        peer.connect_app("live", "rtmp://h/live");
        peer.expect_result(1.0);
        let msid = peer.create_stream();
        peer.command(msid, "play", 0.0, &[Value::Null, Value::string("x")]);
        peer.expect_status("NetStream.Play.Start");
        server.wait_for_log(&format!("play peer={real}"), 1);
    }
    let mut bare = connected(server.address());
    bare.write_all(&[3; 200]).expect("send");
    assert_eq!(bare.read(&mut [0; 16]).unwrap_or(0), 0, "a header is demanded");
    server.wait_for_log("no proxy header", 1);
    Peer::connect(server.addresses()[1], "live");
}

/// B8: acknowledgements both ways, pings, AMF3 commands and data, aggregates, abort.
#[test]
fn b8_control_messages_are_obeyed() {
    let server = Server::plain();
    let mut player = Peer::play(server.address(), "live", "b8");
    let mut peer = Peer::connect(server.address(), "live");
    peer.control(Control::PingRequest(77));
    peer.expect_control(Control::PingResponse(77));
    peer.control(Control::WindowAckSize(1000));
    let msid = peer.create_stream();
    let publish = [Value::Null, Value::string("b8"), Value::string("live")];
    let body = [&[0][..], &corecast::proto::rtmp::command::Command::encode("publish", 5.0, &publish)].concat();
    peer.send(3, type_id::COMMAND_AMF3, msid, 0, &body);
    peer.expect_status("NetStream.Publish.Start");
    let metadata =
        [Value::string("@setDataFrame"), Value::string("onMetaData"), Value::object([("width", Value::Number(8.0))])];
    peer.send(5, type_id::DATA_AMF3, msid, 0, &[&[0][..], &amf0::encode_all(&metadata)].concat());
    // A message that is given up, on the chunk stream of the next one.
    let mut wire = header0(6, 0, 300, 9, msid).to_vec();
    wire.extend_from_slice(&[0; 128]);
    peer.socket.write_all(&wire).expect("send");
    peer.control(Control::Abort(6));
    let tag = |kind: u8, time: u8, body: &[u8]| {
        let mut tag = vec![kind, 0, 0, body.len() as u8, 0, 0, time, 0, 0, 0, 0];
        tag.extend_from_slice(body);
        tag.extend_from_slice(&[0, 0, 0, 11 + body.len() as u8]);
        tag
    };
    let parts =
        [tag(9, 0, &[0x17, 0, 9]), tag(9, 0, &[0x17, 1, 9]), tag(8, 20, &[0xAF, 1, 9]), tag(9, 40, &[0x27, 1, 9])];
    peer.send(7, type_id::AGGREGATE, msid, 500, &parts.concat());
    let data = player.find("onMetaData", |message| (message.type_id == 18).then(|| message.payload.to_vec()));
    let data = if data.starts_with(b"\x02\x00\x11|Rtmp") {
        player.find("onMetaData", |message| (message.type_id == 18).then(|| message.payload.to_vec()))
    } else {
        data
    };
    assert_eq!(data, amf0::encode_all(&metadata[1..]), "without @setDataFrame and format byte");
    let media: Vec<_> = (0..4).map(|_| player.expect_media()).collect();
    let seen: Vec<_> = media.iter().map(|(kind, time, body)| (*kind, *time, body[0])).collect();
    assert_eq!(seen, [(9, 0, 0x17), (9, 0, 0x17), (8, 20, 0xAF), (9, 40, 0x27)]);
    peer.send(4, 8, msid, 600, &[0xAF; 2000]);
    peer.find("an acknowledgement", |message| {
        matches!(Control::read(message), Ok(Some(Control::Acknowledgement(bytes))) if bytes >= 1000).then_some(())
    });
}

/// C1: the answers to connect, in an order that OBS can read: no reply over 128 bytes before
/// SetChunkSize.
#[test]
fn c1_connect_is_answered_in_order() {
    let server = Server::plain();
    let mut peer = Peer::handshake(server.address(), Scheme::Simple);
    let object = Value::object([("app", Value::string("live")), ("objectEncoding", Value::Number(3.0))]);
    peer.command(0, "connect", 1.0, &[object]);
    let messages: Vec<_> = (0..5).map(|_| peer.next().expect("an answer")).collect();
    let types: Vec<_> = messages.iter().map(|message| message.type_id).collect();
    assert_eq!(types, [5, 6, 1, 20, 20]);
    assert_eq!(Control::read(&messages[0]), Ok(Some(Control::WindowAckSize(2_500_000))));
    assert_eq!(Control::read(&messages[1]), Ok(Some(Control::SetPeerBandwidth(2_500_000, 2))));
    assert_eq!(Control::read(&messages[2]), Ok(Some(Control::SetChunkSize(60_000))));
    let result = command(&messages[3]).expect("_result");
    assert_eq!(status_code(&result), Some("NetConnection.Connect.Success"));
    assert!(result.argument(0).property("fmsVer").is_some() && result.argument(0).property("capabilities").is_some());
    assert_eq!(result.argument(1).property("objectEncoding"), Some(&Value::Number(3.0)));
    assert!(result.argument(1).property("fourCcList").is_none(), "nobody asked for E-RTMP");
    assert_eq!(&*command(&messages[4]).expect("onBWDone").name, "onBWDone");
}

/// G1: a peer that speaks E-RTMP is told what the server can.
#[test]
fn g1_enhanced_capabilities_are_answered() {
    let server = Server::plain();
    for field in [
        ("fourCcList", Value::StrictArray(vec![Value::string("*")])),
        ("videoFourCcInfoMap", Value::object([("hvc1", Value::Number(7.0))])),
        ("capsEx", Value::Number(15.0)),
    ] {
        let mut peer = Peer::handshake(server.address(), Scheme::Simple);
        peer.command(0, "connect", 1.0, &[Value::object([("app", Value::string("live")), field])]);
        let result = peer.expect_result(1.0);
        for at in [0, 1] {
            let Some(Value::StrictArray(list)) = result.argument(at).property("fourCcList") else {
                panic!("fourCcList")
            };
            assert!(list.contains(&Value::string("hvc1")) && list.contains(&Value::string("Opus")));
            let forward = result.argument(at).property("videoFourCcInfoMap").and_then(|map| map.property("*"));
            assert_eq!(forward, Some(&Value::Number(4.0)), "Forward");
            let caps = result.argument(at).property("capsEx").and_then(Value::as_number).expect("capsEx") as u32;
            assert_eq!(caps & 0b1110, 0b1110, "Multitrack, ModEx, NanoOffset");
        }
    }
}

/// C2: the FMLE and OBS way, step by step; the connection stays usable after FCUnpublish, deleteStream
/// and closeStream.
#[test]
fn c2_fmle_publishes_and_publishes_again() {
    let server = Server::plain();
    let mut peer = Peer::connect(server.address(), "live");
    for (round, end) in ["FCUnpublish", "deleteStream", "closeStream"].into_iter().enumerate() {
        let name = Value::string("c2");
        peer.command(0, "releaseStream", 2.5, &[Value::Null, name.clone()]);
        peer.expect_result(2.5);
        peer.command(0, "FCPublish", 3.0, &[Value::Null, name.clone()]);
        peer.expect_result(3.0);
        peer.expect_command("onFCPublish");
        let msid = peer.create_stream();
        peer.command(msid, "publish", 5.0, &[Value::Null, name.clone(), Value::string("live")]);
        peer.expect_status("NetStream.Publish.Start");
        peer.send_gop(msid, 0, 3);
        match end {
            "FCUnpublish" => {
                peer.command(0, end, 6.0, &[Value::Null, name]);
                peer.expect_command("onFCUnpublish");
                peer.expect_result(6.0);
                peer.expect_status("NetStream.Unpublish.Success");
            }
            "deleteStream" => peer.command(0, end, 7.0, &[Value::Null, Value::Number(f64::from(msid))]),
            _ => peer.command(msid, end, 0.0, &[Value::Null]),
        }
        server.wait_for_log("unpublish", round + 1);
    }
}

/// C3: Flash, Haivision, and calls that only want an answer.
#[test]
fn c3_variants() {
    let server = Server::plain();
    let mut flash = Peer::publish(server.address(), "live", "flash");
    flash.command(0, "_checkbw", 9.0, &[Value::Null]);
    flash.expect_result(9.0);
    flash.command(0, "getStreamLength", 10.0, &[Value::Null, Value::string("flash")]);
    assert_eq!(flash.expect_result(10.0).argument(1), &Value::Number(0.0));
    let mut haivision = Peer::connect(server.address(), "live");
    let msid = haivision.create_stream();
    haivision.command(0, "FCPublish", 3.0, &[Value::Null, Value::string("haivision")]);
    haivision.expect_command("onFCPublish");
    haivision.command(msid, "publish", 4.0, &[Value::Null, Value::string("haivision")]);
    haivision.expect_status("NetStream.Publish.Start");
}

/// C4: the answers to play, then metadata, sequence headers, GOP.
#[test]
fn c4_play_is_answered_in_order() {
    let server = Server::plain();
    let mut publisher = Peer::publish(server.address(), "live", "c4");
    let metadata =
        amf0::encode_all(&[Value::string("onMetaData"), Value::object([("videocodecid", Value::Number(7.0))])]);
    publisher.send(5, 18, 1, 0, &metadata);
    publisher.send_gop(1, 1000, 30);
    server.wait_for_log("publish: AVC", 1);
    let mut peer = Peer::connect(server.address(), "live");
    let msid = peer.create_stream();
    peer.command(msid, "play", 3.0, &[Value::Null, Value::string("c4"), Value::Number(-2000.0)]);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "9 inter") {
        let message = peer.next().expect("a message");
        seen.push(match message.type_id {
            4 => format!("{:?}", Control::read(&message).expect("control").expect("control")),
            20 => status_code(&command(&message).expect("a command")).unwrap_or("?").to_owned(),
            18 => String::from_utf8_lossy(&message.payload[3..10]).into_owned(),
            kind => {
                assert_eq!(message.message_stream_id, msid);
                let what = match (message.payload[0] >> 4, message.payload[1]) {
                    (_, 0) => "header",
                    (1, _) => "key",
                    (2, _) => "inter",
                    _ => "sound",
                };
                format!("{kind} {what}")
            }
        });
    }
    let expected = ["StreamBegin(1)", "NetStream.Play.Reset", "NetStream.Play.Start", "|RtmpSa", "onMetaD"];
    assert_eq!(seen[..5], expected);
    // The publish's first GOP is whole in the log, so its own sequence headers come from there.
    assert_eq!(seen[5..], ["9 header", "8 header", "9 key", "8 sound", "9 inter"]);
}

/// C5: pause and go on, receiveAudio and receiveVideo, duration, closeStream and play again.
#[test]
fn c5_players_commands() {
    let server =
        Server::start("listen 127.0.0.1:0; vhost __defaultVhost__ { min_latency on; play { time_jitter zero; } }");
    let mut publisher = Peer::publish(server.address(), "live", "c5");
    let mut player = Peer::play(server.address(), "live", "c5");
    publisher.send_gop(1, 0, 5);
    (0..12).for_each(|_| drop(player.expect_media()));
    player.command(1, "pause", 0.0, &[Value::Null, Value::Boolean(true), Value::Number(0.0)]);
    player.expect_status("NetStream.Pause.Notify");
    player.expect_control(Control::StreamEof(1));
    publisher.send_gop(1, 1000, 5);
    player.command(1, "pause", 0.0, &[Value::Null, Value::Boolean(false), Value::Number(0.0)]);
    player.expect_status("NetStream.Unpause.Notify");
    player.expect_control(Control::StreamBegin(1));
    let frames = std::iter::from_fn(|| Some(player.expect_media())).filter(|(.., body)| body[1] == 1);
    let times: Vec<u32> = frames.take(10).map(|(_, time, _)| time).collect();
    assert!(times.iter().all(|time| *time >= 1000), "what came in the pause comes after it: {times:?}");
    player.command(1, "receiveAudio", 0.0, &[Value::Null, Value::Boolean(false)]);
    player.control(Control::PingRequest(1));
    player.expect_control(Control::PingResponse(1));
    publisher.send_gop(1, 2000, 5);
    assert!((0..6).all(|_| player.expect_media().0 == 9), "video only");
    player.command(1, "receiveAudio", 0.0, &[Value::Null, Value::Boolean(true)]);
    player.command(1, "receiveVideo", 0.0, &[Value::Null, Value::Boolean(false)]);
    player.control(Control::PingRequest(2));
    player.expect_control(Control::PingResponse(2));
    publisher.send_gop(1, 3000, 5);
    let sound: Vec<_> = (0..6).map(|_| player.expect_media()).collect();
    assert!(sound.iter().all(|(kind, ..)| *kind == 8), "audio only");
    assert_eq!(sound[1].1, 3000, "its time goes on");
    player.command(1, "closeStream", 0.0, &[Value::Null]);
    let arguments = [Value::Null, Value::string("c5"), Value::Number(-2.0), Value::Number(0.1)];
    player.command(1, "play", 0.0, &arguments);
    player.expect_status("NetStream.Play.Start");
    player.expect_status("NetStream.Play.Stop");
    let newest = player.media.last().expect("media").timestamp;
    assert!(newest < 100, "a duration of 100 ms ends before {newest} ms");
}

/// C6: one publisher per stream; an empty name is refused; the name is free when the publisher goes.
#[test]
fn c6_second_publisher_and_empty_name_are_refused() {
    let server = Server::plain();
    let first = Peer::publish(server.address(), "live", "c6");
    for name in ["c6", "", "?token=1", "../c6", &"x".repeat(4096)] {
        let mut second = Peer::connect(server.address(), "live");
        let msid = second.create_stream();
        second.command(msid, "publish", 5.0, &[Value::Null, Value::string(name), Value::string("live")]);
        let status = second.expect_status("NetStream.Publish.BadName");
        assert_eq!(status.argument(1).property("level"), Some(&Value::string("error")));
        assert!(second.until_closed().is_empty(), "then it is closed");
    }
    server.wait_for_log("publish refused", 5);
    drop(first);
    server.wait_for_log("unpublish", 1);
    Peer::publish(server.address(), "live", "c6");
}

/// A play of nothing is told so.
#[test]
fn a_play_of_nothing_is_refused() {
    let server = Server::plain();
    for (name, code) in [("", "NetStream.Play.StreamNotFound"), ("a/../b", "NetStream.Play.Failed")] {
        let mut peer = Peer::connect(server.address(), "live");
        let msid = peer.create_stream();
        peer.command(msid, "play", 0.0, &[Value::Null, Value::string(name)]);
        peer.expect_status(code);
        assert!(peer.until_closed().is_empty());
    }
}

/// C8, K7: one connection publishes two streams, wherever their homes are, and plays both.
#[test]
fn c8_several_net_streams_of_one_connection() {
    let server = Server::plain();
    for pair in 0..4 {
        let names = [format!("c8-{pair}-a"), format!("c8-{pair}-b")];
        let mut peer = Peer::connect(server.address(), "live");
        let mut player = Peer::connect(server.address(), "live");
        for (at, name) in names.iter().enumerate() {
            let number = at as u32 + 1;
            assert_eq!((peer.create_stream(), player.create_stream()), (number, number));
            player.command(number, "play", 0.0, &[Value::Null, Value::string(name.as_str())]);
            player.expect_status("NetStream.Play.Start");
            peer.command(number, "publish", 0.0, &[Value::Null, Value::string(name.as_str()), Value::string("live")]);
            peer.expect_status("NetStream.Publish.Start");
        }
        peer.send_gop(1, 0, 25);
        peer.send_gop(2, 5000, 25);
        eventually("both streams", || {
            player.expect_media();
            let of = |msid| player.media.iter().filter(|message| message.message_stream_id == msid).count();
            ((of(1), of(2)) == (52, 52)).then_some(())
        });
        let mut second = Peer::connect(server.address(), "live");
        let msid = second.create_stream();
        second.command(msid, "publish", 0.0, &[Value::Null, Value::string(names[1].as_str())]);
        second.expect_status("NetStream.Publish.BadName");
        // The same names as refused NetStreams of a connection that stays.
        let third = peer.create_stream();
        peer.command(third, "publish", 0.0, &[Value::Null, Value::string(names[0].as_str())]);
        peer.expect_status("NetStream.Publish.BadName");
        drop(peer);
        server.wait_for_log("unpublish", 2 * (pair + 1));
        player.expect_status("NetStream.Play.UnpublishNotify");
        player.expect_status("NetStream.Play.UnpublishNotify");
    }
}

/// C9: who waits gets the stream from its first keyframe, is told its end, and waits again.
#[test]
fn c9_waiting_player_is_served_and_told() {
    let server = Server::plain();
    let mut player = Peer::play(server.address(), "live", "c9");
    let mut publisher = Peer::publish(server.address(), "live", "c9");
    publisher.send_gop(1, 70_000, 25);
    let (kind, time, body) = player.expect_media();
    assert_eq!((kind, time, body[1]), (9, 0, 0), "the sequence header, at 0");
    drop(publisher);
    player.expect_status("NetStream.Play.UnpublishNotify");
    player.expect_control(Control::StreamEof(1));
    assert_eq!(player.media.len(), 52, "to the last tag");
    let mut publisher = Peer::publish(server.address(), "live", "c9");
    publisher.send_gop(1, 0, 25);
    player.expect_control(Control::StreamBegin(1));
    player.expect_status("NetStream.Play.PublishNotify");
    let (_, time, _) = player.expect_media();
    assert!(time > 960, "time goes on at {time}");
}

/// D2, D3, D4, D5, D7: vhosts by host name, by query, unknown, off; and their streams are apart.
#[test]
fn d3_vhosts() {
    let server =
        Server::start("listen 127.0.0.1:0; vhost a.example { } vhost b.example { } vhost off.example { enabled off; }");
    let play = |tc_url: &str, app: &str, stream: &str| {
        let mut peer = Peer::handshake(server.address(), Scheme::Simple);
        peer.connect_app(app, tc_url);
        peer.expect_result(1.0);
        let msid = peer.create_stream();
        peer.command(msid, "play", 0.0, &[Value::Null, Value::string(stream)]);
        peer.find("an answer to play", |message| {
            let code = status_code(&command(message)?)?.to_owned();
            (code != "NetStream.Play.Reset").then_some(code)
        })
    };
    for (tc_url, app, stream, key) in [
        ("rtmp://a.example/live", "live", "d2", "a.example/live/d2"),
        ("rtmp://10.0.0.1/live", "live", "d4?vhost=b.example&token=1", "b.example/live/d4"),
        ("rtmp://10.0.0.1/live", "live", "d4?domain=a.example", "a.example/live/d4"),
        ("rtmp://h/live?vhost=a.example", "live?vhost=a.example", "d5", "a.example/live/d5"),
        ("rtmp://h/live...vhost...b.example", "live...vhost...b.example", "d5", "b.example/live/d5"),
        ("rtmp://b.example/live/_definst_", "live/_definst_", "d6", "b.example/live/d6"),
    ] {
        assert_eq!(play(tc_url, app, stream), "NetStream.Play.Start", "{tc_url} {stream}");
        server.wait_for_log(&format!("stream={key}"), 1);
    }
    for host in ["unknown.example", "off.example"] {
        assert_eq!(play(&format!("rtmp://{host}/live"), "live", "d3"), "NetStream.Play.Failed", "{host}");
    }
    server.wait_for_log("vhost unknown.example is not configured", 1);
    server.wait_for_log("vhost off.example is off", 1);
    // D7: the same name in two vhosts is two streams.
    for host in ["a.example", "b.example"] {
        let mut peer = Peer::handshake(server.address(), Scheme::Simple);
        peer.connect_app("live", &format!("rtmp://{host}/live"));
        peer.expect_result(1.0);
        let msid = peer.create_stream();
        peer.command(msid, "publish", 0.0, &[Value::Null, Value::string("d7")]);
        peer.expect_status("NetStream.Publish.Start");
        std::mem::forget(peer);
    }
}

/// G4, G5, G9: multitrack, ModEx and unknown FourCCs go through untouched, and late joiners get every
/// track's sequence header.
#[test]
fn g9_extended_bodies_pass_untouched() {
    // Bodies of our own make, whose sequence headers say nothing.
    let server = Server::start("listen 127.0.0.1:0; vhost __defaultVhost__ { publish { parse_sps off; } }");
    let mut publisher = Peer::publish(server.address(), "live", "g9");
    let body = |head: &[u8], fourcc: &[u8; 4], rest: &[u8]| [head, fourcc, rest].concat();
    let headers =
        [body(&[0x90], b"hvc1", &[1, 2, 3]), body(&[0x96, 0x00], b"av01", &[1, 7, 7]), body(&[0x90], b"zzzz", &[9])];
    let frames = [
        body(&[0x97, 2, 1, 2, 3, 0x01], b"hvc1", &[0, 0, 0, 5]),
        body(&[0xA6, 0x01], b"av01", &[1, 6]),
        body(&[0xA1], b"zzzz", &[8]),
    ];
    let old_gop = body(&[0x91], b"hvc1", &[0, 0, 0, 4]);
    headers.iter().chain([&old_gop]).for_each(|body| publisher.send(6, 9, 1, 0, body));
    frames.iter().for_each(|body| publisher.send(6, 9, 1, 40, body));
    publisher.control(Control::PingRequest(1));
    publisher.expect_control(Control::PingResponse(1));
    let mut player = Peer::play(server.address(), "live", "g9");
    let got: Vec<Vec<u8>> = (0..5).map(|_| player.expect_media().2).collect();
    // hvc1 and zzzz share the slot of track 0: the newer one counts.
    let expected = [&headers[2], &headers[1], &frames[0], &frames[1], &frames[2]];
    assert_eq!(got.iter().collect::<Vec<_>>(), expected);
}

/// B9: half a handshake is closed in 10 s, an idle session in 30 s; measured, not slept for.
#[test]
fn b9_half_open_handshakes_and_idle_sessions_are_closed() {
    let server = Server::plain();
    let started = std::time::Instant::now();
    let mut half = connected(server.address());
    half.write_all(&[3, 0, 0]).expect("send");
    let mut idle = Peer::connect(server.address(), "live");
    idle.socket.set_read_timeout(Some(Duration::from_secs(45))).expect("a timeout");
    half.set_read_timeout(Some(Duration::from_secs(45))).expect("a timeout");
    assert_eq!(half.read(&mut [0; 16]).unwrap_or(0), 0);
    let half_open = started.elapsed().as_secs();
    assert!((9..=13).contains(&half_open), "{half_open} s");
    // One byte a second is no message.
    let mut dripping = idle.socket.try_clone().expect("a second handle");
    std::thread::spawn(move || {
        while dripping.write_all(&[0x01]).is_ok() {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    assert!(idle.until_closed().iter().all(|message| message.type_id != 9));
    let idle_for = started.elapsed().as_secs();
    assert!((29..=34).contains(&idle_for), "{idle_for} s");
    server.wait_for_log("no complete handshake", 1);
    server.wait_for_log("nothing published or played", 1);
}

/// B9 during service: a player that does not read is cut when a send takes over 30 s, a publisher that
/// sends nothing after normal_timeout.
#[test]
fn b9_stalled_player_and_silent_publisher_are_cut() {
    let server = Server::plain();
    let mut publisher = Peer::publish(server.address(), "live", "b9");
    publisher.socket.set_read_timeout(Some(Duration::from_secs(45))).expect("a timeout");
    let stalled = Peer::play(server.address(), "live", "b9");
    socket2::SockRef::from(&stalled.socket).set_recv_buffer_size(4096).expect("a small window");
    publisher.control(Control::SetChunkSize(60_000));
    publisher.writer.set_chunk_size(60_000);
    publisher.send_gop(1, 0, 5);
    let frame = [&[0x27, 1, 0, 0, 0][..], &vec![7; 50_000]].concat();
    (0..200).for_each(|at| publisher.send(6, 9, 1, 200 + at * 40, &frame));
    let started = std::time::Instant::now();
    publisher.until_closed();
    let silent = started.elapsed().as_millis();
    assert!((4900..=6000).contains(&silent), "{silent} ms");
    server.wait_for_log("no media for 5000 ms (normal_timeout)", 1);
    server.wait_for_log("does not read: a send took over 30 s", 1);
    drop(stalled);
}
