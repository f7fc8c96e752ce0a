//! Origins that know of each other (SRS's `origin_cluster`): who comes to the wrong one is sent on, or served from the right
//! one.

use crate::{
    edge::{players, publish_for, section},
    forward::free_port,
    live::Live,
    media::{bounded, have},
    peer::{Peer, status_code},
    server::{Server, eventually},
    web::{self, FlvBody, Web},
};
use corecast::proto::amf::Value;
use std::time::{Duration, Instant};

/// Two origins of one cluster, on so many shards.
fn origins(shards: usize, vhost: &str) -> [Web; 2] {
    let ports = [free_port(), free_port()];
    ports.map(|port| {
        let other = if port == ports[0] { ports[1] } else { ports[0] };
        let http = "http_server { enabled on; listen 127.0.0.1:0; }";
        let api = format!("http_api {{ enabled on; listen 127.0.0.1:{port}; }} exporter {{ enabled on; listen 127.0.0.1:0; }}");
        let cluster = format!("cluster {{ origin_cluster on; coworkers 127.0.0.1:{other}; linger 1; }}");
        let config = format!(
            "listen 127.0.0.1:{}; {http} {api} vhost __defaultVhost__ {{ http_remux {{ enabled on; }} {cluster} {vhost} }}",
            free_port()
        );
        Web { server: Server::shards(shards, &config) }
    })
}

/// Where a player is sent on to.
fn sent_to(server: &Web, stream: &str) -> String {
    let mut player = Peer::connect(server.server.address(), "live");
    let msid = player.create_stream();
    player.command(msid, "play", 0.0, &[Value::Null, Value::string(stream)]);
    player.find("a redirect", |message| {
        let command = crate::peer::command(message)?;
        let info = command.argument(1);
        (status_code(&command) == Some("NetConnection.Connect.Rejected"))
            .then(|| info.property("ex")?.property("redirect2")?.as_str().map(str::to_owned))?
    })
}

#[test]
fn origins_send_players_to_each_other() {
    for shards in [1, 2, 4] {
        let [here, there] = origins(shards, "");
        let _live = Live::start(here.server.address(), "live", "x", 40, 25, 500);
        here.live("x");
        let api = there.api();
        let answer =
            web::get(here.api(), &format!("/api/v1/clusters?vhost=__defaultVhost__&app=live&stream=x&coworker={api}"));
        let said = answer.json();
        assert_eq!(said["code"], 0);
        assert_eq!(said["data"]["origin"]["port"], here.server.address().port());
        assert_eq!(said["data"]["origin"]["ip"], "127.0.0.1");
        assert_eq!(said["data"]["query"]["stream"], "x");
        let nothing = web::get(there.api(), "/api/v1/clusters?vhost=__defaultVhost__&app=live&stream=x").json();
        assert!(nothing["data"]["origin"].is_null(), "{nothing}");
        for _ in 0..4 {
            let url = format!("rtmp://{}/live/x?token=1", here.server.address());
            assert_eq!(sent_to(&there, "x?token=1"), url);
        }
        Peer::play(here.server.address(), "live", "x").expect_frames(10);
        // An edge is sent on, too, and follows.
        let edge = Web::shards(shards, &section(&[there.server.address()], ""));
        Peer::play(edge.server.address(), "live", "x").expect_frames(30);
        assert_eq!(players(&there, "x"), 0);
        // Nobody has this one; when somebody has, who waits gets it.
        let mut waits = Peer::play(there.server.address(), "live", "late");
        let _late = Live::start(here.server.address(), "live", "late", 40, 25, 500);
        waits.expect_frames(30);
    }
}

/// HTTP's players are served where they come in, by one fetch; so are those of segments.
#[test]
fn origins_serve_each_others_streams() {
    let hls = "hls { enabled on; hls_fragment 1; hls_window 6; }";
    for shards in [1, 4] {
        let [here, there] = origins(shards, hls);
        let live = Live::start(here.server.address(), "live", "x", 40, 25, 500);
        here.live("x");
        let mut bodies: Vec<FlvBody> = (0..4).map(|_| FlvBody::ask_for(there.http(), "/live/x.flv")).collect();
        for body in &mut bodies {
            let mut frames = 0;
            while frames < 30 {
                let (_, _, body) = body.next_tag().expect("a tag").expect("a tag");
                frames += usize::from(body.get(1) == Some(&1));
            }
        }
        eventually("one fetch", || (players(&here, "x") == 1).then_some(()));
        if have("ffprobe") {
            let _segments = publish_for(&here, "s", 60);
            let mut probe = bounded("ffprobe");
            probe
                .args(["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv"])
                .arg(there.flv_url("/live/s.m3u8"));
            let said = String::from_utf8(probe.output().expect("ffprobe").stdout).expect("text");
            assert!(said.contains("h264"), "{said}");
        }
        let asked = Instant::now();
        assert_eq!(web::get(there.http(), "/live/none.flv").status, 404);
        assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
        // A publisher here goes before what is fetched.
        drop(live);
        let mut near = Peer::publish(there.server.address(), "live", "x");
        near.send_gop(1, 0, 25);
        drop(bodies);
    }
}

/// Coworkers that are none cost players nothing but time.
#[test]
fn bad_coworkers_are_passed_over() {
    let port = free_port();
    let cluster = format!(
        "cluster {{ origin_cluster on; coworkers 127.0.0.1:{port} 127.0.0.1:1; }} http_remux {{ enabled on; }}"
    );
    let here = Web::start(&cluster);
    let mut player = Peer::play(here.server.address(), "live", "x");
    assert_eq!(web::get(here.http(), "/live/y.flv").status, 404);
    let mut publisher = Peer::publish(here.server.address(), "live", "x");
    publisher.send_gop(1, 0, 25);
    player.expect_frames(50);
}
