//! RTMP messages: types, protocol control (RTMP 1.0 §5.4, §6.2), aggregates (§7.1.6).

use bytes::{Buf, Bytes};

/// A message that a chunk stream carried whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// The chunk stream that it came on; means nothing beyond its connection.
    pub csid: u32,
    /// Milliseconds, absolute, modulo 2^32.
    pub timestamp: u32,
    /// See [`type_id`].
    pub type_id: u8,
    /// The NetStream; 0 is the NetConnection.
    pub message_stream_id: u32,
    /// The body.
    pub payload: Bytes,
}

/// Message type ids (§5.4, §7.1).
pub mod type_id {
    /// Set Chunk Size.
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Abort Message.
    pub const ABORT: u8 = 2;
    /// Acknowledgement.
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// User Control.
    pub const USER_CONTROL: u8 = 4;
    /// Window Acknowledgement Size.
    pub const WINDOW_ACK_SIZE: u8 = 5;
    /// Set Peer Bandwidth.
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Audio.
    pub const AUDIO: u8 = 8;
    /// Video.
    pub const VIDEO: u8 = 9;
    /// Data, AMF3.
    pub const DATA_AMF3: u8 = 15;
    /// Command, AMF3.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data, AMF0.
    pub const DATA_AMF0: u8 = 18;
    /// Command, AMF0.
    pub const COMMAND_AMF0: u8 = 20;
    /// Aggregate.
    pub const AGGREGATE: u8 = 22;
}

/// The chunk stream of protocol control messages (§5.4).
pub const CONTROL_CSID: u32 = 2;

/// Why a control message or an aggregate is not one. Every variant closes the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MessageError {
    /// Shorter than its type asks for.
    #[error("type {type_id} message of only {bytes} bytes")]
    TooShort {
        /// The message's type.
        type_id: u8,
        /// Its length.
        bytes: usize,
    },
    /// A message inside an aggregate reaches beyond its end.
    #[error("aggregate message whose parts exceed it")]
    BadAggregate,
}

/// A protocol control or user control message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Control {
    /// Bytes of the chunks that follow.
    SetChunkSize(u32),
    /// The chunk stream whose unfinished message is void.
    Abort(u32),
    /// Bytes received so far, modulo 2^32.
    Acknowledgement(u32),
    /// Bytes after which the peer wants an acknowledgement.
    WindowAckSize(u32),
    /// Output window in bytes, and the limit type (2 = dynamic).
    SetPeerBandwidth(u32, u8),
    /// User control event 0: the NetStream has data.
    StreamBegin(u32),
    /// User control event 1: the NetStream has ended.
    StreamEof(u32),
    /// User control event 3: the NetStream, and the buffer length in ms.
    SetBufferLength(u32, u32),
    /// User control event 6: a timestamp to be returned.
    PingRequest(u32),
    /// User control event 7.
    PingResponse(u32),
    /// A user control event that asks for nothing.
    OtherEvent(u16),
}

impl Control {
    /// Reads a message of types 1 to 6; `None` for other types.
    ///
    /// # Errors
    /// [`MessageError::TooShort`].
    pub fn read(message: &Message) -> Result<Option<Self>, MessageError> {
        let type_id = message.type_id;
        let too_short = MessageError::TooShort { type_id, bytes: message.payload.len() };
        let number = |at: usize| {
            let bytes = message.payload.get(at..).and_then(|rest| rest.first_chunk());
            bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or(too_short)
        };
        Ok(Some(match type_id {
            type_id::SET_CHUNK_SIZE => Self::SetChunkSize(number(0)?),
            type_id::ABORT => Self::Abort(number(0)?),
            type_id::ACKNOWLEDGEMENT => Self::Acknowledgement(number(0)?),
            type_id::WINDOW_ACK_SIZE => Self::WindowAckSize(number(0)?),
            // Some encoders leave the limit type out.
            type_id::SET_PEER_BANDWIDTH => {
                Self::SetPeerBandwidth(number(0)?, message.payload.get(4).copied().unwrap_or(2))
            }
            type_id::USER_CONTROL => {
                let event = message.payload.first_chunk().map(|event| u16::from_be_bytes(*event)).ok_or(too_short)?;
                match event {
                    0 => Self::StreamBegin(number(2)?),
                    1 => Self::StreamEof(number(2)?),
                    3 => Self::SetBufferLength(number(2)?, number(6)?),
                    6 => Self::PingRequest(number(2)?),
                    7 => Self::PingResponse(number(2)?),
                    other => Self::OtherEvent(other),
                }
            }
            _ => return Ok(None),
        }))
    }

    /// The message's type and body.
    pub fn encode(&self) -> (u8, Vec<u8>) {
        let plain = |type_id, number: u32| (type_id, number.to_be_bytes().to_vec());
        let event = |kind: u16, numbers: &[u32]| {
            let mut body = kind.to_be_bytes().to_vec();
            numbers.iter().for_each(|number| body.extend_from_slice(&number.to_be_bytes()));
            (type_id::USER_CONTROL, body)
        };
        match *self {
            Self::SetChunkSize(bytes) => plain(type_id::SET_CHUNK_SIZE, bytes),
            Self::Abort(csid) => plain(type_id::ABORT, csid),
            Self::Acknowledgement(bytes) => plain(type_id::ACKNOWLEDGEMENT, bytes),
            Self::WindowAckSize(bytes) => plain(type_id::WINDOW_ACK_SIZE, bytes),
            Self::SetPeerBandwidth(bytes, limit) => {
                let (type_id, mut body) = plain(type_id::SET_PEER_BANDWIDTH, bytes);
                body.push(limit);
                (type_id, body)
            }
            Self::StreamBegin(msid) => event(0, &[msid]),
            Self::StreamEof(msid) => event(1, &[msid]),
            Self::SetBufferLength(msid, ms) => event(3, &[msid, ms]),
            Self::PingRequest(timestamp) => event(6, &[timestamp]),
            Self::PingResponse(timestamp) => event(7, &[timestamp]),
            Self::OtherEvent(kind) => event(kind, &[0]),
        }
    }
}

/// The messages inside an aggregate, each an FLV tag with its back pointer (§7.1.6). The first one
/// has the aggregate's own timestamp, the others keep their distance to it.
#[derive(Debug)]
pub struct Aggregate {
    outer: Message,
    rest: Bytes,
    offset: Option<u32>,
}

impl Aggregate {
    /// Begins to split `outer`, a message of type 22.
    pub fn new(outer: Message) -> Self {
        let rest = outer.payload.clone();
        Self { outer, rest, offset: None }
    }

    /// The next message.
    ///
    /// # Errors
    /// [`MessageError::BadAggregate`].
    pub fn next_message(&mut self) -> Result<Option<Message>, MessageError> {
        const TAG_HEADER_BYTES: usize = 11;
        if self.rest.is_empty() {
            return Ok(None);
        }
        let Some(&[type_id, l0, l1, l2, t0, t1, t2, t3, ..]) = self.rest.first_chunk::<TAG_HEADER_BYTES>() else {
            return Err(MessageError::BadAggregate);
        };
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let timestamp = u32::from_be_bytes([t3, t0, t1, t2]);
        self.rest.advance(TAG_HEADER_BYTES);
        if self.rest.len() < length {
            return Err(MessageError::BadAggregate);
        }
        // A copy: a part that is kept must not keep the whole.
        let payload = Bytes::copy_from_slice(&self.rest.split_to(length));
        // The back pointer; a last one may be missing.
        self.rest.advance(self.rest.len().min(4));
        let offset = *self.offset.get_or_insert(self.outer.timestamp.wrapping_sub(timestamp));
        Ok(Some(Message { type_id, timestamp: timestamp.wrapping_add(offset), payload, ..self.outer.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(type_id: u8, payload: Vec<u8>) -> Message {
        Message { csid: 2, timestamp: 0, type_id, message_stream_id: 0, payload: payload.into() }
    }

    /// B8: every control message survives a round trip; a cut one is an error.
    #[test]
    fn b8_control_messages_round_trip() {
        let controls = [
            Control::SetChunkSize(60_000),
            Control::Abort(7),
            Control::Acknowledgement(u32::MAX),
            Control::WindowAckSize(2_500_000),
            Control::SetPeerBandwidth(2_500_000, 2),
            Control::StreamBegin(1),
            Control::StreamEof(1),
            Control::SetBufferLength(1, 3000),
            Control::PingRequest(123),
            Control::PingResponse(123),
        ];
        for control in controls {
            let (type_id, body) = control.encode();
            assert_eq!(Control::read(&message(type_id, body.clone())), Ok(Some(control)));
            let cut = body[..2].to_vec();
            assert!(Control::read(&message(type_id, cut)).is_err(), "{control:?}");
        }
        assert_eq!(Control::read(&message(9, Vec::new())), Ok(None));
    }

    /// B8: an aggregate splits into its tags, with its own time as the first one's.
    #[test]
    fn b8_aggregate_splits() {
        let tag = |type_id: u8, timestamp: u8, body: &[u8; 5]| {
            let mut tag = vec![type_id, 0, 0, 5, 0, 0, timestamp, 0, 0, 0, 0];
            tag.extend_from_slice(body);
            tag.extend_from_slice(&[0, 0, 0, 16]);
            tag
        };
        let body = [tag(8, 10, b"audio"), tag(9, 33, b"video")].concat();
        let outer = Message { timestamp: 1000, message_stream_id: 1, ..message(22, body.clone()) };
        let mut aggregate = Aggregate::new(outer.clone());
        let first = aggregate.next_message().unwrap().unwrap();
        let second = aggregate.next_message().unwrap().unwrap();
        assert_eq!((first.type_id, first.timestamp, &first.payload[..]), (8, 1000, &b"audio"[..]));
        assert_eq!((second.type_id, second.timestamp, second.message_stream_id), (9, 1023, 1));
        assert_eq!(aggregate.next_message(), Ok(None));
        for cut in [1, 10, 12] {
            let mut cut_short = Aggregate::new(message(22, body[..cut].to_vec()));
            assert_eq!(cut_short.next_message(), Err(MessageError::BadAggregate));
        }
    }
}
