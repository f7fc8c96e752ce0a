//! WebSocket frames of a client: the same at every split, little left over, and frames of our own making.
#![no_main]

use corecast::proto::http::websocket::{
    HEADER_BYTES_MAX, Reader, Said, WebSocketError, binary_header, close, ping, pong,
};
use corecast_fuzz::{assert_same, assert_taken, choice, seeds, splits, within};
use libfuzzer_sys::fuzz_target;

/// Payload of a control frame (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: usize = 125;

fuzz_target!(init: seeds(frames), |data: &[u8]| {
    let (variant, wire) = choice(data);
    assert_same(&splits(wire, u64::from(variant)).map(|pieces| read(&pieces)));
    // A ping's payload comes back as it was.
    let payload = &wire[..wire.len().min(CONTROL_BYTES_MAX)];
    let frame = masked(0x89, payload);
    let mut input = &frame[..];
    assert_eq!(Reader::default().read(&mut input), Ok(Some(Said::Ping(payload.to_vec()))));
    assert!(input.is_empty());
    for (frame, first, payload) in
        [(pong(payload), 0x8A, payload), (ping(), 0x89, &[][..]), (close(u16::from(variant)), 0x88, &[0, variant])]
    {
        assert_eq!(frame, [&[first, u8::try_from(payload.len()).expect("short")], payload].concat());
    }
    let length = usize::from(variant) << (wire.len() % 24);
    assert_eq!(length_of(binary_header(length).as_ref()), length);
});

/// Reads pieces as a connection does, which keeps what is left of each.
fn read(pieces: &[&[u8]]) -> (Vec<Said>, Option<WebSocketError>) {
    let (mut reader, mut said, mut kept) = (Reader::default(), Vec::new(), Vec::new());
    for piece in pieces {
        kept.extend_from_slice(piece);
        let mut input = &kept[..];
        loop {
            let before = input;
            // A control frame's payload is all that it holds.
            let next = within(CONTROL_BYTES_MAX, || reader.read(&mut input));
            assert_taken(before, input);
            match next {
                Ok(Some(next)) => said.push(next),
                Ok(None) => break,
                Err(error) => {
                    assert!(matches!(error.code(), 1002 | 1009));
                    return (said, Some(error));
                }
            }
        }
        assert!(input.len() < HEADER_BYTES_MAX + CONTROL_BYTES_MAX, "{} bytes are left", input.len());
        kept = input.to_vec();
    }
    (said, None)
}

/// A client's frame with a payload of up to 125 bytes.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).expect("short"), 1, 2, 3, 4];
    frame.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The length that a server's header says (§5.2).
fn length_of(header: &[u8]) -> usize {
    assert_eq!(header[0], 0x82);
    let long = header[2..].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    match (header[1], header.len()) {
        (short @ 0..126, 2) => usize::from(short),
        (126, 4) | (127, 10) => long,
        other => panic!("{other:?}"),
    }
}

fn frames() -> Vec<Vec<u8>> {
    let long = [&[0, 0x82, 0xFE, 1, 0, 1, 2, 3, 4][..], &[7; 256]].concat();
    let all = [masked(0x89, b"hey"), masked(0x82, b"dropped"), masked(0x8A, b""), masked(0x88, &[3, 232])].concat();
    let huge = vec![0, 0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4];
    vec![long, [&[9], &all[..]].concat(), huge, [&[0], &masked(0x09, b"")[..]].concat(), vec![0, 0x82, 1, 0]]
}
