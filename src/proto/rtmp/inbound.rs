//! The receiving half that server and client sessions share: chunks → messages, aggregates split, bytes
//! counted and acknowledged (RTMP 1.0 §5.4.3).

use super::{
    RtmpError,
    chunk_reader::ChunkReader,
    message::{Aggregate, Message, type_id},
};

/// One direction of a connection, after the handshake and during it.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) chunks: ChunkReader,
    aggregate: Option<Box<Aggregate>>,
    /// Bytes received, modulo 2^32, and as last acknowledged.
    received: u32,
    acknowledged: u32,
    /// Bytes after which an acknowledgement is due; 0 for none.
    pub(super) ack_window: u32,
}

impl Inbound {
    /// Acknowledges after `ack_window` bytes until the peer says otherwise.
    pub(super) fn new(ack_window: u32) -> Self {
        Self { chunks: ChunkReader::default(), aggregate: None, received: 0, acknowledged: 0, ack_window }
    }

    /// Bytes received so far, modulo 2^32.
    pub(super) fn received(&self) -> u32 {
        self.received
    }

    /// Counts bytes taken from a connection; returns what to acknowledge, if that is due.
    pub(super) fn count(&mut self, bytes: usize) -> Option<u32> {
        self.received = self.received.wrapping_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        let due = self.ack_window > 0 && self.received.wrapping_sub(self.acknowledged) >= self.ack_window;
        due.then(|| {
            self.acknowledged = self.received;
            self.received
        })
    }

    /// The next message, from an aggregate that has begun or from `input`.
    pub(super) fn next_message(&mut self, input: &mut &[u8]) -> Result<Option<Message>, RtmpError> {
        loop {
            if let Some(aggregate) = &mut self.aggregate {
                match aggregate.next_message()? {
                    // An aggregate within an aggregate would be a way to nest; nobody sends it.
                    Some(message) if message.type_id == type_id::AGGREGATE => continue,
                    Some(message) => return Ok(Some(message)),
                    None => self.aggregate = None,
                }
            }
            match self.chunks.read(input)? {
                Some(message) if message.type_id == type_id::AGGREGATE => {
                    self.aggregate = Some(Box::new(Aggregate::new(message)));
                }
                message => return Ok(message),
            }
        }
    }
}
