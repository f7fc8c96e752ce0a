//! WebSocket (RFC 6455), the server's side: what browsers say, and the frames around what they get.

use std::io::Cursor;
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

pub use tungstenite::handshake::derive_accept_key;

/// Most bytes of a control frame's payload (§5.5).
const CONTROL_BYTES_MAX: u64 = 125;
/// Most bytes of one data frame from a player, who has nothing to say.
const DATA_BYTES_MAX: u64 = 64 << 10;
/// Most bytes of a frame's header from a client: with length and mask.
pub const HEADER_BYTES_MAX: usize = 14;

/// Why a client's bytes are no WebSocket. Every variant closes the connection, with its status code.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WebSocketError {
    /// Reserved bits or opcodes, a fragmented or long control frame (§5.2, §5.5).
    #[error("malformed WebSocket frame")]
    Malformed,
    /// A client's frame must be masked (§5.1).
    #[error("WebSocket frame without a mask")]
    NotMasked,
    /// Over the limit.
    #[error("WebSocket frame of {0} bytes, limit {DATA_BYTES_MAX}")]
    TooLarge(u64),
}

impl WebSocketError {
    /// The status code of the close frame (§7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Self::Malformed | Self::NotMasked => 1002,
            Self::TooLarge(_) => 1009,
        }
    }
}

/// What a client says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Said {
    /// To be answered with a pong of the same payload.
    Ping(Vec<u8>),
    /// It is alive.
    Pong,
    /// It ends the connection.
    Close,
    /// Data, which is dropped.
    Data,
}

/// Reads a client's frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reader {
    /// Payload of a data frame that is still to be dropped.
    drop_bytes: u64,
}

impl Reader {
    /// Reads what comes next from the front of `input`, and takes it; `None` until more is there. What it
    /// leaves in `input` is less than a header and a control frame.
    ///
    /// # Errors
    /// Any [`WebSocketError`].
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Said>, WebSocketError> {
        if self.drop_bytes > 0 {
            let now = usize::try_from(self.drop_bytes).unwrap_or(usize::MAX).min(input.len());
            *input = &input[now..];
            self.drop_bytes -= now as u64;
            if self.drop_bytes > 0 {
                return Ok(None);
            }
        }
        let mut cursor = Cursor::new(*input);
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| WebSocketError::Malformed)? else {
            return Ok(None);
        };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(WebSocketError::Malformed);
        }
        let mask = header.mask.ok_or(WebSocketError::NotMasked)?;
        let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let control = match header.opcode {
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                return Err(WebSocketError::Malformed);
            }
            OpCode::Data(_) if length > DATA_BYTES_MAX => return Err(WebSocketError::TooLarge(length)),
            OpCode::Data(_) => {
                *input = &input[start..];
                self.drop_bytes = length;
                return Ok(Some(Said::Data));
            }
            OpCode::Control(control) => control,
        };
        if length > CONTROL_BYTES_MAX || !header.is_final {
            return Err(WebSocketError::Malformed);
        }
        let end = start + usize::try_from(length).unwrap_or(usize::MAX);
        let Some(payload) = input.get(start..end) else { return Ok(None) };
        let payload: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        *input = &input[end..];
        Ok(Some(match control {
            Control::Ping => Said::Ping(payload),
            Control::Pong => Said::Pong,
            Control::Close | Control::Reserved(_) => Said::Close,
        }))
    }
}

/// The header of a server's binary frame with `length` bytes: at most ten.
pub fn binary_header(length: usize) -> impl AsRef<[u8]> {
    header(OpCode::Data(Data::Binary), length)
}

/// A whole control frame.
fn control(code: Control, payload: &[u8]) -> Vec<u8> {
    [header(OpCode::Control(code), payload.len()).as_ref(), payload].concat()
}

/// A pong (§5.5.3).
pub fn pong(payload: &[u8]) -> Vec<u8> {
    control(Control::Pong, payload)
}

/// A ping (§5.5.2).
pub fn ping() -> Vec<u8> {
    control(Control::Ping, &[])
}

/// A close frame (§5.5.1).
pub fn close(code: u16) -> Vec<u8> {
    control(Control::Close, &code.to_be_bytes())
}

fn header(opcode: OpCode, length: usize) -> smallvec::SmallVec<[u8; HEADER_BYTES_MAX]> {
    let mut bytes = smallvec::SmallVec::new();
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Memory takes whatever is written.
    drop(header.format(length as u64, &mut bytes));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap(), 1, 2, 3, 4];
        frame.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    #[test]
    fn frames_are_read_at_every_split() {
        let wire =
            [masked(0x89, b"hey"), masked(0x82, b"dropped"), masked(0x8A, b""), masked(0x88, &[3, 232])].concat();
        for cut in 0..=wire.len() {
            let (mut reader, mut said, mut kept) = (Reader::default(), Vec::new(), Vec::new());
            for part in [&wire[..cut], &wire[cut..]] {
                kept.extend_from_slice(part);
                let mut input = &kept[..];
                while let Some(message) = reader.read(&mut input).unwrap() {
                    said.push(message);
                }
                kept = input.to_vec();
            }
            assert_eq!(said, [Said::Ping(b"hey".to_vec()), Said::Data, Said::Pong, Said::Close], "cut at {cut}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        let read = |bytes: &[u8]| Reader::default().read(&mut &bytes[..]);
        assert_eq!(read(&[0x82, 1, 0]), Err(WebSocketError::NotMasked));
        assert_eq!(read(&masked(0x09, b"")), Err(WebSocketError::Malformed), "a fragmented ping");
        assert_eq!(read(&masked(0xC2, b"")), Err(WebSocketError::Malformed), "a reserved bit");
        assert_eq!(read(&masked(0x83, b"")), Err(WebSocketError::Malformed), "a reserved opcode");
        let huge = [0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4];
        assert_eq!(read(&huge), Err(WebSocketError::TooLarge(65_537)));
        assert_eq!((WebSocketError::Malformed.code(), WebSocketError::TooLarge(1).code()), (1002, 1009));
    }

    #[test]
    fn frames_are_written() {
        assert_eq!(binary_header(5).as_ref(), [0x82, 5]);
        assert_eq!(binary_header(70_000).as_ref(), [0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
        assert_eq!((pong(b"x"), ping(), close(1000)), (vec![0x8A, 1, b'x'], vec![0x89, 0], vec![0x88, 2, 3, 232]));
    }

    proptest::proptest! {
        /// No input panics, and no input is read for ever.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let (mut reader, mut input) = (Reader::default(), &bytes[..]);
            while let Ok(Some(_)) = reader.read(&mut input) {}
        }
    }
}
