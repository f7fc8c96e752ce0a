//! Handshakes: ours with ours when bytes on the way change, at every split, and with strangers.
#![no_main]

use corecast::proto::rtmp::handshake::{ClientHandshake, HandshakeError, Outcome, Scheme, ServerHandshake};
use corecast_fuzz::{
    assert_same, assert_taken, bound, choice,
    conversation::{self, HANDSHAKE_BYTES, SEED},
    seeds, splits, within,
};
use libfuzzer_sys::fuzz_target;

type Result = std::result::Result<Option<Outcome>, HandshakeError>;

fuzz_target!(init: seeds(changes), |data: &[u8]| {
    let (variant, changes) = choice(data);
    let scheme = [Scheme::Simple, Scheme::Complex { schema: 0 }, Scheme::Complex { schema: 1 }]
        [usize::from(variant & 3).min(2)];
    let (to_server, to_client) = conversation::handshake(scheme);
    for (wire, is_server) in [(&to_server, true), (&to_client, false)] {
        // What comes is ours where the changes have zeros, and longer or shorter than it should be.
        let len = if variant & 4 == 0 { wire.len() } else { changes.len() };
        let at = |list: &[u8], at: usize| list.get(at).copied().unwrap_or(0);
        let wire: Vec<u8> = (0..len).map(|byte| at(wire, byte) ^ at(changes, byte)).collect();
        let changed = changes.iter().any(|byte| *byte != 0) || wire.len() < HANDSHAKE_BYTES;
        check(&wire, is_server, scheme, changed, variant);
    }
});

fn check(wire: &[u8], is_server: bool, scheme: Scheme, changed: bool, variant: u8) {
    let runs = splits(wire, u64::from(variant)).map(|pieces| {
        let mut out = Vec::new();
        // A hasher, both blocks and what is sent: nothing grows with the input.
        let result = within(bound(0), || run(&pieces, is_server, scheme, &mut out));
        (result, out)
    });
    assert_same(&runs);
    let [((result, taken), out), ..] = runs;
    match result {
        Ok(Some(outcome)) => {
            assert_eq!((taken, out.len()), (HANDSHAKE_BYTES, HANDSHAKE_BYTES));
            assert!(changed || outcome == Outcome { scheme, echo_matches: true }, "{outcome:?}");
        }
        Ok(None) => assert!(taken == wire.len() && taken < HANDSHAKE_BYTES, "it waits for more than there is"),
        Err(HandshakeError::Version(version)) => assert_eq!(wire.first(), Some(&version)),
    }
}

/// Feeds pieces to a side; gives its result and the bytes that it took.
fn run(pieces: &[&[u8]], is_server: bool, scheme: Scheme, out: &mut Vec<u8>) -> (Result, usize) {
    let mut server = ServerHandshake::new(SEED);
    let mut client = ClientHandshake::start(scheme, SEED, &mut Vec::new());
    if !is_server {
        drop(ClientHandshake::start(scheme, SEED, out));
    }
    let mut taken = 0;
    for piece in pieces {
        let mut input = *piece;
        let result = if is_server { server.receive(&mut input, out) } else { client.receive(&mut input, out) };
        assert_taken(piece, input);
        taken += piece.len() - input.len();
        match result {
            Ok(None) => assert!(input.is_empty(), "bytes are left though it is not done"),
            // How much of a refused version's bytes were looked at does not matter.
            Err(_) => return (result, 0),
            Ok(Some(_)) => return (result, taken),
        }
    }
    (Ok(None), taken)
}

fn changes() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..3).map(|scheme| [&[scheme][..], &[0; 16]].concat()).collect();
    // Cut, longer, another version, a digest that does not fit.
    seeds.push([&[4][..], &[0; 1000]].concat());
    seeds.push([&[5][..], &[0; HANDSHAKE_BYTES + 20]].concat());
    seeds.push(vec![6, 5, 0, 0]);
    seeds.push([&[1][..], &[0; 1000], &[1]].concat());
    seeds
}
