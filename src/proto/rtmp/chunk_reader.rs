//! Chunks → messages (RTMP 1.0 §5.3).
//!
//! Memory follows bytes that arrived, never a length that the wire claims: a payload buffer starts
//! at most at [`Limits::reserve_bytes`] and grows by doubling. [`Limits`] bound what all of it takes.

use super::message::Message;
use bytes::Bytes;
use hashbrown::HashMap;

/// Chunk size of each direction until it is set (§5.4.1; seeds' ruling K6).
pub const CHUNK_SIZE_DEFAULT: u32 = 128;
/// A larger chunk size is clamped: no message is longer.
pub const CHUNK_SIZE_MAX: u32 = 0xFF_FFFF;
/// What a chunk stream takes beside its payload: itself, and its place in the index.
pub const CHUNK_STREAM_BYTES: usize = size_of::<ChunkStream>() + 16;
/// Chunk streams that are found by looking at each; real encoders use four to eight.
const UNINDEXED_MAX: usize = 16;

const EXTENDED: u32 = 0xFF_FFFF;
/// Basic header 3, message header 11, extended timestamp 4.
const HEADER_BYTES_MAX: usize = 18;

/// What one connection may make a reader hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Longest message.
    pub message_bytes_max: u32,
    /// Most bytes that chunk streams and their unfinished messages take.
    pub held_bytes_max: usize,
    /// Reserved at most when a message begins, on few chunk streams; on many, as for commands.
    pub reserve_bytes: usize,
}

impl Limits {
    /// For a peer that has not been accepted as a publisher: commands only. A thousand such peers hold 192 MiB
    /// at most.
    pub const COMMANDS: Self = Self { message_bytes_max: 128 << 10, held_bytes_max: 192 << 10, reserve_bytes: 512 };
    /// For a publisher: whatever 24 bits can say, two of the longest at a time, on any chunk stream.
    pub const MEDIA: Self = Self { message_bytes_max: 0xFF_FFFF, held_bytes_max: 40 << 20, reserve_bytes: 16 << 10 };
}

/// Why a peer's chunk stream cannot be read further. Every variant closes the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ChunkError {
    /// A type 2 or 3 chunk on a chunk stream that has had no header yet (§5.3.1.2).
    #[error("csid {csid}: type {fmt} chunk before any type 0")]
    MissingHeader {
        /// The chunk stream.
        csid: u32,
        /// The chunk's type.
        fmt: u8,
    },
    /// A type 0 chunk while a message is unfinished.
    #[error("csid {csid}: type 0 chunk inside a message")]
    HeaderInsideMessage {
        /// The chunk stream.
        csid: u32,
    },
    /// A type 1 chunk that changes the length while a message is unfinished.
    #[error("csid {csid}: message length changes from {from} to {to} inside the message")]
    LengthChanged {
        /// The chunk stream.
        csid: u32,
        /// Announced first, in bytes.
        from: u32,
        /// Announced now, in bytes.
        to: u32,
    },
    /// Longer than [`Limits::message_bytes_max`].
    #[error("csid {csid}: message of {bytes} bytes, limit {bytes_max}")]
    MessageTooLarge {
        /// The chunk stream.
        csid: u32,
        /// Announced, in bytes.
        bytes: u32,
        /// The limit, in bytes.
        bytes_max: u32,
    },
    /// Chunk streams and their unfinished messages take more than [`Limits::held_bytes_max`].
    #[error("{streams} chunk streams and their unfinished messages take {bytes} bytes, limit {bytes_max}")]
    TooManyBytesHeld {
        /// Chunk streams in use.
        streams: usize,
        /// Held, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// A chunk size of 0, or with its highest bit set (§5.4.1).
    #[error("chunk size {0} is outside 1 to 0x7FFFFFFF")]
    ChunkSize(u32),
}

/// A chunk basic header (§5.3.1.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BasicHeader {
    /// 0 to 3: which message header follows.
    pub fmt: u8,
    /// Chunk stream id, 2 to 65599.
    pub csid: u32,
}

impl BasicHeader {
    /// Reads a basic header from the front of `input`; returns it and its length in bytes.
    ///
    /// Returns `None` until the whole header has arrived. Never fails: every first byte is valid.
    pub fn read(input: &[u8]) -> Option<(Self, usize)> {
        let (&first, rest) = input.split_first()?;
        let (csid, len) = match first & 0x3F {
            0 => (64 + u32::from(*rest.first()?), 2),
            1 => (64 + u32::from(u16::from_le_bytes(*rest.first_chunk()?)), 3),
            csid => (u32::from(csid), 1),
        };
        Some((Self { fmt: first >> 6, csid }, len))
    }
}

/// Reads one direction of a connection.
#[derive(Debug)]
pub struct ChunkReader {
    chunk_size: usize,
    limits: Limits,
    streams: Vec<ChunkStream>,
    /// Where each chunk stream stands, once they are many.
    index: HashMap<u32, usize, foldhash::fast::FixedState>,
    /// A chunk header of which only a part has arrived.
    head: [u8; HEADER_BYTES_MAX],
    head_len: usize,
    /// The chunk stream whose chunk payload is being read, and what the chunk still lacks.
    body: Option<(usize, usize)>,
    held_bytes: usize,
}

/// What a chunk stream remembers (§5.3.1.2), and its unfinished message.
#[derive(Debug)]
struct ChunkStream {
    csid: u32,
    timestamp: u32,
    /// The timestamp field of the last header: absolute after type 0, else a delta.
    field: u32,
    extended: bool,
    length: u32,
    type_id: u8,
    message_stream_id: u32,
    /// Whether a message has begun and lacks bytes.
    open: bool,
    payload: Vec<u8>,
}

/// A whole chunk header.
struct ChunkHead {
    fmt: u8,
    at: Option<usize>,
    csid: u32,
    field: u32,
    extended: bool,
    length: u32,
    type_id: u8,
    message_stream_id: u32,
    bytes: usize,
}

impl Default for ChunkReader {
    fn default() -> Self {
        Self {
            chunk_size: CHUNK_SIZE_DEFAULT as usize,
            limits: Limits::COMMANDS,
            streams: Vec::new(),
            index: HashMap::default(),
            head: [0; HEADER_BYTES_MAX],
            head_len: 0,
            body: None,
            held_bytes: 0,
        }
    }
}

impl ChunkReader {
    /// Reads until a message is whole or `input` is empty, and takes what it read from `input`.
    ///
    /// # Errors
    /// Any [`ChunkError`]; the reader must not be used afterwards.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Message>, ChunkError> {
        loop {
            let (at, left) = match self.body {
                Some(body) => body,
                None => match self.read_header(input)? {
                    Some(body) => body,
                    None => return Ok(None),
                },
            };
            let (taken, rest) = input.split_at(left.min(input.len()));
            *input = rest;
            self.append(at, taken)?;
            if taken.len() < left {
                self.body = Some((at, left - taken.len()));
                return Ok(None);
            }
            self.body = None;
            let stream = &mut self.streams[at];
            if stream.payload.len() == stream.length as usize {
                self.held_bytes -= stream.payload.capacity();
                return Ok(Some(stream.finish()));
            }
        }
    }

    /// Obeys the peer's Set Chunk Size (§5.4.1); the new size holds from the next chunk on.
    ///
    /// # Errors
    /// [`ChunkError::ChunkSize`] outside 1 to 0x7FFFFFFF.
    pub fn set_chunk_size(&mut self, bytes: u32) -> Result<(), ChunkError> {
        if bytes == 0 || bytes > 0x7FFF_FFFF {
            return Err(ChunkError::ChunkSize(bytes));
        }
        self.chunk_size = bytes.min(CHUNK_SIZE_MAX) as usize;
        Ok(())
    }

    /// Obeys the peer's Abort Message (§5.4.2): forgets what has come of `csid`'s message.
    pub fn abort(&mut self, csid: u32) {
        if let Some(at) = self.find(csid) {
            let stream = &mut self.streams[at];
            self.held_bytes -= stream.payload.capacity();
            stream.payload = Vec::new();
            stream.open = false;
        }
    }

    /// Changes the limits, when a peer becomes a publisher.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Bytes that chunk streams and their unfinished messages take.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn find(&self, csid: u32) -> Option<usize> {
        if self.streams.len() <= UNINDEXED_MAX {
            return self.streams.iter().position(|stream| stream.csid == csid);
        }
        self.index.get(&csid).copied()
    }

    /// A chunk stream that is used for the first time.
    fn insert(&mut self, csid: u32) -> Result<usize, ChunkError> {
        self.hold(CHUNK_STREAM_BYTES)?;
        self.streams.push(ChunkStream::new(csid));
        let at = self.streams.len() - 1;
        if at == UNINDEXED_MAX {
            self.index = self.streams.iter().enumerate().map(|(at, stream)| (stream.csid, at)).collect();
        } else if at > UNINDEXED_MAX {
            self.index.insert(csid, at);
        }
        Ok(at)
    }

    /// Counts bytes that are about to be taken.
    fn hold(&mut self, bytes: usize) -> Result<(), ChunkError> {
        self.held_bytes += bytes;
        let bytes_max = self.limits.held_bytes_max;
        if self.held_bytes > bytes_max {
            let streams = self.streams.len();
            return Err(ChunkError::TooManyBytesHeld { streams, bytes: self.held_bytes, bytes_max });
        }
        Ok(())
    }

    /// Reads a chunk header, through `head` if it comes in pieces; returns the chunk stream and the
    /// bytes of payload that the chunk carries.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<(usize, usize)>, ChunkError> {
        if self.head_len == 0
            && let Some(head) = self.parse(input)?
        {
            *input = &input[head.bytes..];
            return self.open(&head).map(Some);
        }
        // A header is at most 18 bytes, so this loop is short. What was read to look ahead may be a whole one.
        loop {
            let gathered = self.head;
            if let Some(head) = self.parse(&gathered[..self.head_len])? {
                let ahead = &gathered[head.bytes..self.head_len];
                self.head_len = 0;
                return self.open_with_lookahead(&head, ahead).map(Some);
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
            *input = rest;
            self.head[self.head_len] = byte;
            self.head_len += 1;
        }
    }

    /// Opens a chunk of which up to four payload bytes were read as a possible extended timestamp.
    fn open_with_lookahead(&mut self, head: &ChunkHead, ahead: &[u8]) -> Result<(usize, usize), ChunkError> {
        let (at, left) = self.open(head)?;
        let own = left.min(ahead.len());
        self.append(at, &ahead[..own])?;
        // What belongs to the next chunk waits as the start of its header.
        let over = &ahead[own..];
        self.head[..over.len()].copy_from_slice(over);
        self.head_len = over.len();
        Ok((at, left - own))
    }

    fn parse(&self, input: &[u8]) -> Result<Option<ChunkHead>, ChunkError> {
        let Some((BasicHeader { fmt, csid }, basic)) = BasicHeader::read(input) else { return Ok(None) };
        let at = self.find(csid);
        let last = at.map(|at| &self.streams[at]);
        if last.is_none() && fmt >= 2 {
            return Err(ChunkError::MissingHeader { csid, fmt });
        }
        let message_header = [11, 7, 3, 0][usize::from(fmt)];
        let Some(fields) = input.get(basic..basic + message_header) else { return Ok(None) };
        let mut head = ChunkHead {
            fmt,
            at,
            csid,
            field: last.map_or(0, |last| last.field),
            extended: last.is_some_and(|last| last.extended),
            length: last.map_or(0, |last| last.length),
            type_id: last.map_or(0, |last| last.type_id),
            message_stream_id: last.map_or(0, |last| last.message_stream_id),
            bytes: basic + message_header,
        };
        if let Some(&[a, b, c]) = fields.first_chunk() {
            head.field = u32::from_be_bytes([0, a, b, c]);
            head.extended = head.field == EXTENDED;
        }
        if let Some(&[_, _, _, a, b, c, type_id]) = fields.first_chunk() {
            head.length = u32::from_be_bytes([0, a, b, c]);
            head.type_id = type_id;
        }
        if let Some(&[.., a, b, c, d]) = fields.first_chunk::<11>() {
            head.message_stream_id = u32::from_le_bytes([a, b, c, d]);
        }
        if head.extended {
            let Some(&field) = input.get(head.bytes..).and_then(|rest| rest.first_chunk()) else {
                return Ok(None);
            };
            let field = u32::from_be_bytes(field);
            // Not every peer repeats the extended timestamp in type 3 chunks (§5.3.1.3 says to): the
            // four bytes are one only if they say what the message's header said.
            let repeated = fmt != 3 || last.is_some_and(|last| last.field == field);
            if repeated {
                head.field = field;
                head.bytes += 4;
            }
        }
        Ok(Some(head))
    }

    /// Begins or continues a message with a whole header; returns the chunk stream and the bytes of
    /// payload in this chunk.
    fn open(&mut self, head: &ChunkHead) -> Result<(usize, usize), ChunkError> {
        let csid = head.csid;
        let at = match head.at {
            Some(at) => at,
            None => self.insert(csid)?,
        };
        let stream = &mut self.streams[at];
        if stream.open {
            if head.fmt == 0 {
                return Err(ChunkError::HeaderInsideMessage { csid });
            }
            if head.length != stream.length {
                return Err(ChunkError::LengthChanged { csid, from: stream.length, to: head.length });
            }
        } else {
            let bytes_max = self.limits.message_bytes_max;
            if head.length > bytes_max {
                return Err(ChunkError::MessageTooLarge { csid, bytes: head.length, bytes_max });
            }
            stream.begin(head);
        }
        let left = stream.length as usize - stream.payload.len();
        Ok((at, left.min(self.chunk_size)))
    }

    fn append(&mut self, at: usize, bytes: &[u8]) -> Result<(), ChunkError> {
        let stream = &self.streams[at];
        let (capacity, needed) = (stream.payload.capacity(), stream.payload.len() + bytes.len());
        if needed > capacity {
            let length = stream.length as usize;
            // Room ahead is for few: a byte on each of many chunk streams must not take a page each.
            let few = self.streams.len() <= UNINDEXED_MAX;
            let reserve = if few { self.limits.reserve_bytes } else { Limits::COMMANDS.reserve_bytes };
            let wanted = needed.max(capacity * 2).max(reserve).min(length);
            self.hold(wanted - capacity)?;
            let payload = &mut self.streams[at].payload;
            payload.reserve_exact(wanted - payload.len());
            // What the allocator gave beyond.
            self.held_bytes += payload.capacity() - wanted;
        }
        self.streams[at].payload.extend_from_slice(bytes);
        Ok(())
    }
}

impl ChunkStream {
    fn new(csid: u32) -> Self {
        Self {
            csid,
            timestamp: 0,
            field: 0,
            extended: false,
            length: 0,
            type_id: 0,
            message_stream_id: 0,
            open: false,
            payload: Vec::new(),
        }
    }

    /// Takes a message's header over. Type 3 repeats the last field as a delta, after a type 0 too
    /// (§5.3.1.2.4; ffmpeg and SRS do the same).
    fn begin(&mut self, head: &ChunkHead) {
        self.field = head.field;
        self.extended = head.extended;
        self.length = head.length;
        self.type_id = head.type_id;
        self.message_stream_id = head.message_stream_id;
        self.timestamp = if head.fmt == 0 { head.field } else { self.timestamp.wrapping_add(head.field) };
        self.open = true;
    }

    fn finish(&mut self) -> Message {
        self.open = false;
        Message {
            csid: self.csid,
            timestamp: self.timestamp,
            type_id: self.type_id,
            message_stream_id: self.message_stream_id,
            payload: Bytes::from(std::mem::take(&mut self.payload)),
        }
    }
}

#[cfg(test)]
mod tests;
