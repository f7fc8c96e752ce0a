//! Responses of HTTP-FLV and WebSocket-FLV, as an edge reads its origin's: the same tags at every split, and no more held than
//! has come.
#![no_main]

use corecast::proto::http::{HttpUrl, client::FlvSession};
use corecast_fuzz::{assert_same, bound, choice, seeds, splits, within};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds(responses), |data: &[u8]| {
    let (variant, wire) = choice(data);
    let websocket = variant & 1 == 1;
    assert_same(&splits(wire, u64::from(variant)).map(|pieces| read(&pieces, websocket)));
});

/// Kind, time and length of every tag, and how it ends.
fn read(pieces: &[&[u8]], websocket: bool) -> (Vec<(u8, u32, usize)>, Option<String>) {
    let url = HttpUrl::parse(if websocket { "ws://h/a.flv" } else { "http://h/a.flv" }).expect("a URL");
    let (mut session, mut tags, mut came) = (FlvSession::start(&url, ""), Vec::new(), 0);
    session.take_output();
    for piece in pieces {
        came += piece.len();
        let mut input = *piece;
        loop {
            match within(bound(came), || session.next_tag(&mut input)) {
                Ok(Some(tag)) => tags.push((tag.kind.type_id(), tag.timestamp, tag.body.len())),
                Ok(None) => break,
                Err(error) => return (tags, Some(error.to_string())),
            }
            assert!(input.is_empty());
        }
        // Pongs: six bytes for two that have come.
        assert!(session.output_len() <= 3 * came);
    }
    (tags, None)
}

fn responses() -> Vec<Vec<u8>> {
    let flv = b"FLV\x01\x05\0\0\0\x09\0\0\0\0\x09\0\0\x02\0\0\x05\0\0\0\0\x17\x01\0\0\0\x0D\x08\0\0\x01\0\0\x06\0\0\0\0\xAF\0\0\0\x0C";
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let message = |bytes: &[u8]| [&[0x82, u8::try_from(bytes.len()).expect("short")], bytes].concat();
    vec![
        [b"\0HTTP/1.1 200 OK\r\n\r\n", &flv[..]].concat(),
        [
            b"\0HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            &chunk(&flv[..20])[..],
            &chunk(&flv[20..]),
            b"0\r\n\r\n",
        ]
        .concat(),
        [b"\x01HTTP/1.1 101 S\r\n\r\n", &message(&flv[..20])[..], &[0x89, 0], &message(&flv[20..]), &[0x88, 0]]
            .concat(),
        b"\0HTTP/1.1 302 Found\r\nLocation: http://a/b\r\n\r\n".to_vec(),
        b"\0HTTP/1.1 404 Not Found\r\n\r\n".to_vec(),
    ]
}
