//! Tags as RTMP chunks, as a stream's readers get them.
//!
//! Everything after a player's first message of each kind is the same for all players, whenever they
//! joined: type 1 headers carry deltas, and no message stream id. Only the first message of a kind
//! (and the first after a skip) needs a type 0 header of the player's own.

use super::chunk_writer::{HeaderBytes, header0, header1, header3};
use crate::proto::{
    Write,
    flv::{Tag, TagKind},
};
use bytes::Bytes;

/// Which chunk streams a NetStream's media uses: a connection with several NetStreams needs a set for
/// each, since type 1 headers refer to the last message of their chunk stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChunkStreams(u32);

impl ChunkStreams {
    /// The set number `set`, below 8; ids stay below 64, so that basic headers are one byte.
    pub fn new(set: usize) -> Self {
        const FIRST: u32 = 8;
        Self(FIRST + 3 * u32::try_from(set).unwrap_or(0))
    }

    /// Tells sets apart.
    pub fn number(self) -> u64 {
        u64::from(self.0)
    }

    fn of(self, kind: TagKind) -> u32 {
        self.0
            + match kind {
                TagKind::Audio => 0,
                TagKind::Video => 1,
                TagKind::Script => 2,
            }
    }
}

/// Writes a tag, `delta_ms` after the last one of its kind, as every reader gets it that has had one of its kind before.
pub fn put_next(out: &mut impl Write, tag: &Tag, delta_ms: u32, streams: ChunkStreams, chunk_size: usize) {
    let csid = streams.of(tag.kind);
    let header = header1(csid, delta_ms, tag.body.len(), tag.kind.type_id());
    put(out, &tag.body, header, csid, delta_ms, chunk_size);
}

/// Writes a tag as a reader's first of its kind, at `timestamp` on the reader's clock.
pub fn put_first(out: &mut impl Write, tag: &Tag, streams: ChunkStreams, chunk_size: usize, timestamp: u32, msid: u32) {
    let csid = streams.of(tag.kind);
    let header = header0(csid, timestamp, tag.body.len(), tag.kind.type_id(), msid);
    put(out, &tag.body, header, csid, timestamp, chunk_size);
}

fn put(out: &mut impl Write, body: &Bytes, header: HeaderBytes, csid: u32, field: u32, chunk_size: usize) {
    out.copy(&header);
    out.share(body, 0..body.len().min(chunk_size));
    let mut at = chunk_size;
    if at >= body.len() {
        return;
    }
    let continuation = header3(csid, field);
    while at < body.len() {
        let end = body.len().min(at + chunk_size);
        out.copy(&continuation);
        out.share(body, at..end);
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rtmp::chunk_reader::{ChunkReader, Limits};

    fn tag(len: usize) -> Tag {
        Tag { kind: TagKind::Video, timestamp: 0, body: (0..=250).cycle().take(len).collect() }
    }

    /// The shared image read behind two players' own first messages gives each its own clock.
    #[test]
    fn one_image_serves_players_of_any_start() {
        for chunk_size in [128, 4096, 60_000] {
            let streams = ChunkStreams::new(0);
            let first = tag(70_000);
            let mut image = Vec::new();
            for (len, delta_ms) in [(10, 33), (200_000, 40), (0, 0), (5000, 0x0100_0000)] {
                put_next(&mut image, &tag(len), delta_ms, streams, chunk_size);
            }
            for start in [0, 1000, 0x00FF_FFFF] {
                let mut wire = Vec::new();
                put_first(&mut wire, &first, streams, chunk_size, start, 1);
                wire.extend_from_slice(&image);
                let mut reader = ChunkReader::default();
                reader.set_limits(Limits::MEDIA);
                reader.set_chunk_size(u32::try_from(chunk_size).unwrap()).unwrap();
                let mut input = &wire[..];
                let mut seen = Vec::new();
                while let Some(message) = reader.read(&mut input).unwrap() {
                    assert_eq!((message.message_stream_id, message.type_id), (1, 9));
                    seen.push((message.timestamp - start, message.payload.len()));
                }
                assert_eq!(seen, [(0, 70_000), (33, 10), (73, 200_000), (73, 0), (0x0100_0049, 5000)]);
            }
        }
    }
}
