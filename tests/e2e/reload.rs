//! SIGHUP: a new configuration under live connections, or none.

use crate::{
    live::{Live, bursts, median},
    peer::Peer,
    server::Server,
};
use corecast::proto::rtmp::{handshake::Scheme, message::Control};
use std::net::{SocketAddr, TcpStream};

/// E5: a file that cannot be parsed, or an address that cannot be bound, changes nothing and says why.
#[test]
fn e5_a_broken_reload_changes_nothing() {
    let config = "listen 127.0.0.1:0; vhost __defaultVhost__ { chunk_size 4096; }";
    let server = Server::start(config);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address");
    let chunk_size = || {
        let mut peer = Peer::handshake(server.address(), Scheme::Simple);
        peer.connect_app("live", "rtmp://h/live");
        peer.find("SetChunkSize", |message| match Control::read(message).expect("a message") {
            Some(Control::SetChunkSize(bytes)) => Some(bytes),
            _ => None,
        })
    };
    for (broken, why) in [
        (
            "listen 127.0.0.1:0; vhost __defaultVhost__ { chunk_size 200; play { gop_cahce on; } }".to_owned(),
            "did you mean `gop_cache`?",
        ),
        (
            format!("listen 127.0.0.1:0 {taken}; vhost __defaultVhost__ {{ chunk_size 200; }}"),
            "is in use by another process",
        ),
        ("listen 127.0.0.1:0; include nowhere.conf;".to_owned(), "`nowhere.conf` does not exist"),
    ] {
        let said = server.reload(&broken);
        assert!(said.contains("nothing has changed") && said.contains(why), "{said}");
        assert_eq!(chunk_size(), 4096);
    }
    let said = server.reload(&config.replace("4096", "8192"));
    assert!(said.contains("vhost __defaultVhost__: chunk_size: 4096 -> 8192, acts for connections"), "{said}");
    assert_eq!(chunk_size(), 8192);
}

/// What can change live does: flush interval, timeouts, vhosts, limits; and the log says what, and when it acts.
#[test]
fn a_reload_acts_on_live_streams() {
    let server = Server::start("listen 127.0.0.1:0; vhost __defaultVhost__ { play { mw_latency 500; mw_msgs 0; } }");
    let publisher = Live::start(server.address(), "live", "r", 20, 25, 0);
    let mut players: Vec<Peer> = (0..4).map(|_| Peer::play(server.address(), "live", "r")).collect();
    players[0].expect_frames(60);
    let distance = median(bursts(&players[0].expect_frames(150)));
    assert!((450..=550).contains(&distance), "{distance} ms");
    let said = server.reload(
        "listen 127.0.0.1:0; max_connections 5; \
         vhost __defaultVhost__ { publish { normal_timeout 1000; } play { mw_latency 100; mw_msgs 0; time_jitter off; } } \
         vhost new { }",
    );
    for text in [
        "play: mw_latency: 500 -> 100, acts at once",
        "time_jitter: full -> off, acts at the next publish",
        "max_connections: 1000 -> 5, acts at once",
        "vhost new: enabled: nothing -> on",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    players[0].expect_frames(60);
    let distance = median(bursts(&players[0].expect_frames(150)));
    assert!((80..=130).contains(&distance), "{distance} ms");
    // Five are here; the sixth is refused, though the vhost is there.
    server.wait_for_log("play peer", 4);
    let mut sixth = crate::peer::connected(server.address());
    assert_eq!(std::io::Read::read(&mut sixth, &mut [0; 16]).unwrap_or(0), 0);
    drop(players.pop());
    crate::server::eventually("room", || (server.log().matches("closed:").count() > 0).then_some(()));
    drop(Peer::play(server.address(), "live?vhost=new", "x"));
    let mut silent = publisher.silence();
    let started = std::time::Instant::now();
    silent.until_closed();
    assert!((900..=1500).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
}

/// Endpoints come and go under live connections; one may change what it is.
#[test]
fn a_reload_adds_and_removes_endpoints() {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports: Vec<u16> = (25_000..28_000).filter(free).take(2).collect();
    let [one, two] = [0, 1].map(|at| SocketAddr::from(([127, 0, 0, 1], ports[at])));
    let vhost = "vhost __defaultVhost__ { min_latency on; }";
    let server = Server::start(&format!("listen {one}; {vhost}"));
    let publisher = Live::start(one, "live", "l", 20, 25, 0);
    let mut player = Peer::play(one, "live", "l");
    player.expect_frames(5);
    server.reload(&format!("listen {one} {two}; {vhost}"));
    let mut other = Peer::play(two, "live", "l");
    other.expect_frames(5);
    server.reload(&format!("listen {two}; {vhost}"));
    crate::server::eventually("the first is closed", || TcpStream::connect(one).is_err().then_some(()));
    player.expect_frames(50);
    // The same socket, now with a proxy's header before every connection.
    server.reload(&format!("listen {two} proxy_protocol; {vhost}"));
    let mut proxied = crate::peer::connected(two);
    std::io::Write::write_all(&mut proxied, b"PROXY TCP4 192.0.2.9 10.0.0.1 4000 1935\r\n").expect("send");
    let mut proxied = Peer::over(proxied, Scheme::Simple);
    proxied.connect_app("live", "rtmp://h/live");
    proxied.expect_result(1.0);
    server.wait_for_log("192.0.2.9:4000", 1);
    // On all interfaces, beside the one that is there: no clash with ourselves.
    server.reload(&format!("listen {}; {vhost}", two.port()));
    drop(Peer::connect(two, "live"));
    other.expect_frames(50);
    drop(publisher);
}
