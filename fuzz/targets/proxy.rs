//! Proxy headers: whole at one place and no other, and what a balancer would write is read.
#![no_main]

use corecast::proto::proxy::{ProxyHeader, read};
use corecast_fuzz::{seeds, within};
use libfuzzer_sys::fuzz_target;
use std::net::SocketAddr;

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fuzz_target!(init: seeds(headers), |data: &[u8]| {
    let whole = within(0, || read(data));
    let mut decided = None;
    for cut in (0..data.len()).step_by(1 + data.len() / 300).chain([data.len()]) {
        let part = read(&data[..cut]);
        match (&decided, &part) {
            (None, Ok(None)) => {}
            (None, _) => decided = Some(part),
            (Some(_), _) => assert_eq!(Some(&part), decided.as_ref(), "cut at {cut}"),
        }
    }
    if let Ok(Some(ProxyHeader { peer, bytes })) = whole {
        assert!((1..=data.len()).contains(&bytes));
        assert_eq!(read(&data[..bytes]), Ok(Some(ProxyHeader { peer, bytes })), "it looks beyond its end");
        for header in peer.map(write).into_iter().flatten() {
            assert_eq!(read(&header), Ok(Some(ProxyHeader { peer, bytes: header.len() })));
        }
    }
});

/// Both versions of the PROXY protocol for a peer.
fn write(peer: SocketAddr) -> [Vec<u8>; 2] {
    let port = peer.port().to_be_bytes();
    let v2 = |family: u8, ip: &[u8]| {
        let addresses = [ip, ip, &port, &port].concat();
        let size = u8::try_from(addresses.len()).expect("short");
        [V2_SIGNATURE, &[0x21, family, 0, size], &addresses].concat()
    };
    let (name, v2) = match peer {
        SocketAddr::V4(peer) => ("TCP4", v2(0x11, &peer.ip().octets())),
        SocketAddr::V6(peer) => ("TCP6", v2(0x21, &peer.ip().octets())),
    };
    [format!("PROXY {name} {} {0} {} 1935\r\n", peer.ip(), peer.port()).into_bytes(), v2]
}

fn headers() -> Vec<Vec<u8>> {
    let peers = ["10.1.2.3:4660", "[2001:db8::1]:9"].map(|peer| peer.parse().expect("an address"));
    let mut seeds: Vec<Vec<u8>> = peers.into_iter().flat_map(write).collect();
    seeds.push(b"PROXY UNKNOWN\r\n".to_vec());
    seeds.push(vec![0xF3, 0, 4, 10, 1, 2, 3, 3]);
    seeds.push([V2_SIGNATURE, &[0x20, 0, 0, 0]].concat());
    seeds
}
