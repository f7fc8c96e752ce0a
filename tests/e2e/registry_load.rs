//! The registry under load, by the module that servers use: ten thousand leases, and two servers that race for names.

use crate::{media::have, registry::Redis, server::eventually};
use corecast::{
    cluster::{Announced, Cluster, Place, Sought},
    config::Config,
};
use std::{
    collections::HashMap,
    process::{Command, Stdio},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// Set for the process that is to be killed: the registry's port.
const CHILD: &str = "CORECAST_TEST_REGISTRY";
const STREAMS: usize = 10_000;

/// A server as far as the registry knows it.
fn member(port: u16, name: &str) -> (Arc<Cluster>, Config) {
    let text = format!(
        "listen 1; vhost __defaultVhost__ {{ cluster {{ registry redis://127.0.0.1:{port}; registry_lease 2; announce {name}; }} }}"
    );
    let config = Config::parse("test", &text).expect("a configuration");
    let cluster = Arc::new(Cluster::new(name, "127.0.0.1".to_owned(), None));
    cluster.rtmp_port.store(1935, Ordering::Relaxed);
    cluster.join(config.registry.as_ref().expect("a registry"), None);
    (cluster, config)
}

fn find(member: &(Arc<Cluster>, Config), name: &str) -> Option<Place> {
    let sought = Sought {
        key: format!("__defaultVhost__/live/{name}"),
        vhost: "__defaultVhost__".to_owned(),
        host: "h".to_owned(),
        app: "live".to_owned(),
        stream: name.to_owned(),
    };
    member.0.find(&member.1.vhosts[0], sought).recv_blocking().expect("an answer")
}

fn known(member: &(Arc<Cluster>, Config)) -> usize {
    member.0.registry().expect("a registry").known
}

/// What is killed by the test below.
#[test]
#[ignore = "a part of ten_thousand_leases_end_with_their_server"]
fn a_server_with_ten_thousand_streams() {
    let Ok(port) = std::env::var(CHILD) else { return };
    let server = member(port.parse().expect("a port"), "child");
    let _streams: Vec<Announced> =
        (0..STREAMS).map(|number| server.0.announce(&format!("__defaultVhost__/live/s{number}"), false)).collect();
    std::thread::sleep(Duration::from_secs(60));
}

/// Nothing of a server that is killed is believed one lease later.
#[test]
fn ten_thousand_leases_end_with_their_server() {
    if !have("redis-server") {
        return;
    }
    let redis = Redis::start();
    let watcher = member(redis.port, "watcher");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "registry_load::a_server_with_ten_thousand_streams", "--ignored"])
        .env(CHILD, redis.port.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    eventually("all leases", || (redis.streams() == STREAMS).then_some(()));
    eventually("all known", || (known(&watcher) == STREAMS).then_some(()));
    // They are renewed, too.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((redis.streams(), known(&watcher)), (STREAMS, STREAMS));
    assert_eq!(find(&watcher, "s77").map(|place| place.rtmp.host).as_deref(), Some("child"));
    child.kill().expect("kill");
    child.wait().expect("its end");
    let killed = Instant::now();
    eventually("the leases' end", || (redis.streams() == 0).then_some(()));
    assert!(killed.elapsed() < Duration::from_millis(3000), "{:?}", killed.elapsed());
    assert_eq!(find(&watcher, "s77"), None);
    eventually("their end for others", || (known(&watcher) == 0).then_some(()));
}

/// A hundred thousand publishes of a few names by two servers, Redis emptied in between and lost once: when it is quiet, each name
/// has one publish, and everybody says the same of it within about a lease.
#[test]
fn two_servers_race_for_names() {
    if !have("redis-server") {
        return;
    }
    let mut redis = Redis::start();
    let servers = [member(redis.port, "a"), member(redis.port, "b")];
    let mut held: [HashMap<u32, Announced>; 2] = Default::default();
    let mut random = fastrand::Rng::with_seed(7);
    let lose = |servers: &[(Arc<Cluster>, Config); 2], held: &mut [HashMap<u32, Announced>; 2]| {
        for (server, held) in servers.iter().zip(held) {
            for (key, _) in server.0.take_lost(|_| true) {
                held.remove(&key.rsplit('n').next().expect("a number").parse().expect("a number"));
            }
        }
    };
    for round in 0..100_000_u32 {
        let (side, name) = (random.usize(..2), random.u32(..50));
        if held[side].remove(&name).is_none() {
            let key = format!("__defaultVhost__/live/n{name}");
            held[side].insert(name, servers[side].0.announce(&key, random.bool()));
        }
        match round {
            30_000 => drop(redis.ask("FLUSHALL")),
            60_000 => redis.stop(),
            70_000 => redis.run(),
            _ => {}
        }
        if round % 100 == 0 {
            lose(&servers, &mut held);
            std::thread::sleep(Duration::from_millis(3));
        }
    }
    // Everybody wants every name now.
    for name in 0..50 {
        for (side, server) in servers.iter().enumerate() {
            let key = format!("__defaultVhost__/live/n{name}");
            held[side].entry(name).or_insert_with(|| server.0.announce(&key, false));
        }
    }
    let quiet = Instant::now();
    eventually("one publish of each name", || {
        lose(&servers, &mut held);
        let both = (0..50).filter(|name| held[0].contains_key(name) && held[1].contains_key(name)).count();
        (both == 0).then_some(())
    });
    assert!(quiet.elapsed() < Duration::from_secs(8), "{:?}", quiet.elapsed());
    std::thread::sleep(Duration::from_secs(3));
    lose(&servers, &mut held);
    let mut counts = [0, 0];
    for name in 0..50 {
        let holders = [held[0].contains_key(&name), held[1].contains_key(&name)];
        assert_eq!(holders.iter().filter(|holds| **holds).count(), 1, "n{name}: {holders:?}");
        let holder = usize::from(holders[1]);
        counts[holder] += 1;
        // Each is told of the other's, and of none of its own.
        let other = find(&servers[1 - holder], &format!("n{name}")).map(|place| place.rtmp.host);
        assert_eq!(other.as_deref(), Some(["a", "b"][holder]), "n{name}");
        assert_eq!(find(&servers[holder], &format!("n{name}")), None);
    }
    assert_eq!((redis.streams(), known(&servers[0]), known(&servers[1])), (50, counts[1], counts[0]));
    drop(held);
    eventually("nothing", || (redis.streams() == 0).then_some(()));
}
