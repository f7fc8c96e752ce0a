//! Messages → chunks (RTMP 1.0 §5.3).

use super::chunk_reader::CHUNK_SIZE_DEFAULT;
use smallvec::SmallVec;

const EXTENDED: u32 = 0xFF_FFFF;

/// The bytes of a chunk header: at most 18.
pub type HeaderBytes = SmallVec<[u8; 24]>;

/// A type 0 chunk's header (§5.3.1.2.1): everything, with an absolute `timestamp`.
pub fn header0(csid: u32, timestamp: u32, length: usize, type_id: u8, message_stream_id: u32) -> HeaderBytes {
    let mut header = basic_header(0, csid);
    put_fields(&mut header, timestamp, length, type_id);
    header.extend_from_slice(&message_stream_id.to_le_bytes());
    put_extended(&mut header, timestamp);
    header
}

/// A type 1 chunk's header (§5.3.1.2.2): the chunk stream's message stream, a `delta` in ms.
pub fn header1(csid: u32, delta: u32, length: usize, type_id: u8) -> HeaderBytes {
    let mut header = basic_header(1, csid);
    put_fields(&mut header, delta, length, type_id);
    put_extended(&mut header, delta);
    header
}

/// A type 3 chunk's header inside a message; `field` is what the message's own header said, and
/// is repeated if it was extended (§5.3.1.3).
pub fn header3(csid: u32, field: u32) -> HeaderBytes {
    let mut header = basic_header(3, csid);
    put_extended(&mut header, field);
    header
}

fn basic_header(fmt: u8, csid: u32) -> HeaderBytes {
    let mut header = HeaderBytes::new();
    let low = fmt << 6;
    match csid {
        0..64 => header.push(low | csid.to_le_bytes()[0]),
        64..320 => header.extend_from_slice(&[low, (csid - 64).to_le_bytes()[0]]),
        _ => {
            let [a, b, ..] = (csid - 64).to_le_bytes();
            header.extend_from_slice(&[low | 1, a, b]);
        }
    }
    header
}

fn put_fields(header: &mut HeaderBytes, time: u32, length: usize, type_id: u8) {
    header.extend_from_slice(&time.min(EXTENDED).to_be_bytes()[1..]);
    header.extend_from_slice(&u32::try_from(length).unwrap_or(EXTENDED).to_be_bytes()[1..]);
    header.push(type_id);
}

fn put_extended(header: &mut HeaderBytes, field: u32) {
    if field >= EXTENDED {
        header.extend_from_slice(&field.to_be_bytes());
    }
}

/// Writes one direction of a connection.
#[derive(Debug)]
pub struct ChunkWriter {
    chunk_size: usize,
    compress: bool,
    streams: Vec<ChunkStream>,
}

/// What was said last on a chunk stream.
#[derive(Debug)]
struct ChunkStream {
    csid: u32,
    timestamp: u32,
    delta: Option<u32>,
    length: usize,
    type_id: u8,
    message_stream_id: u32,
}

impl Default for ChunkWriter {
    /// A writer that uses the shortest header that says enough.
    fn default() -> Self {
        Self { chunk_size: CHUNK_SIZE_DEFAULT as usize, compress: true, streams: Vec::new() }
    }
}

impl ChunkWriter {
    /// A writer that uses type 0 headers only and remembers nothing; for commands, which are few.
    pub fn plain() -> Self {
        Self { compress: false, ..Self::default() }
    }

    /// Sets the size of the chunks that follow; the caller has told the peer.
    pub fn set_chunk_size(&mut self, bytes: u32) {
        self.chunk_size = bytes.max(1) as usize;
    }

    /// Writes a message to `out`.
    pub fn write(
        &mut self,
        out: &mut Vec<u8>,
        csid: u32,
        type_id: u8,
        message_stream_id: u32,
        timestamp: u32,
        payload: &[u8],
    ) {
        let (header, field) = self.header(csid, type_id, message_stream_id, timestamp, payload.len());
        out.extend_from_slice(&header);
        let mut chunks = payload.chunks(self.chunk_size);
        out.extend_from_slice(chunks.next().unwrap_or_default());
        let continuation = header3(csid, field);
        for chunk in chunks {
            out.extend_from_slice(&continuation);
            out.extend_from_slice(chunk);
        }
    }

    /// The header, and its timestamp field.
    fn header(
        &mut self,
        csid: u32,
        type_id: u8,
        message_stream_id: u32,
        timestamp: u32,
        length: usize,
    ) -> (HeaderBytes, u32) {
        if !self.compress {
            return (header0(csid, timestamp, length, type_id, message_stream_id), timestamp);
        }
        let known = self.streams.iter().position(|stream| stream.csid == csid);
        let mut next = ChunkStream { csid, timestamp, delta: None, length, type_id, message_stream_id };
        let Some(last) = known.map(|at| &mut self.streams[at]) else {
            self.streams.push(next);
            return (header0(csid, timestamp, length, type_id, message_stream_id), timestamp);
        };
        let delta = timestamp.wrapping_sub(last.timestamp);
        // Time that steps back needs an absolute timestamp; so does another message stream.
        let encoded = if last.message_stream_id != message_stream_id || delta >= 0x8000_0000 {
            (header0(csid, timestamp, length, type_id, message_stream_id), timestamp)
        } else {
            next.delta = Some(delta);
            let header = if last.length != length || last.type_id != type_id {
                header1(csid, delta, length, type_id)
            } else if last.delta == Some(delta) {
                header3(csid, delta)
            } else {
                header2(csid, delta)
            };
            (header, delta)
        };
        *last = next;
        encoded
    }
}

/// A type 2 chunk's header (§5.3.1.2.3): a delta alone.
fn header2(csid: u32, delta: u32) -> HeaderBytes {
    let mut header = basic_header(2, csid);
    header.extend_from_slice(&delta.min(EXTENDED).to_be_bytes()[1..]);
    put_extended(&mut header, delta);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B4: the writer uses all four message headers, and extends what does not fit 24 bits.
    #[test]
    fn b4_headers_shrink_as_messages_repeat() {
        let mut writer = ChunkWriter::default();
        let mut sizes = Vec::new();
        for (timestamp, payload) in
            [(0, &b"ab"[..]), (40, b"abc"), (80, b"abc"), (121, b"abc"), (121 + 0xFF_FFFF, b"abc")]
        {
            let mut out = Vec::new();
            writer.write(&mut out, 6, 9, 1, timestamp, payload);
            sizes.push((out[0] >> 6, out.len() - payload.len()));
        }
        assert_eq!(sizes, [(0, 12), (1, 8), (3, 1), (2, 4), (2, 8)]);
    }
}
