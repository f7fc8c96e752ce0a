//! HTTP-FLV and WebSocket-FLV, the player's side, sans I/O: a request, and the tags of its response.

use super::HttpUrl;
use crate::proto::flv::{
    Tag,
    file::{self, FlvError},
};
use bytes::{Buf, Bytes, BytesMut};

/// Most bytes of a response's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// FLV's header and the first back pointer (FLV 10.1 §E.2, §E.3).
const FLV_HEADER_BYTES: usize = 13;
/// Longest chunk.
const CHUNK_BYTES_MAX: usize = 1 << 30;
/// A key that any server must take (RFC 6455 §1.3).
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What is wrong with a response.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// Another status than 200, or 101 of a WebSocket.
    #[error("{0}")]
    Refused(String),
    /// It is to be had there (RFC 9110 §15.4).
    #[error("it is at {0}")]
    Elsewhere(String),
    /// A head, a chunk's header (RFC 9112 §7.1), a frame's (RFC 6455 §5.2) or a back pointer is not as it should be.
    #[error("malformed response")]
    Malformed,
    /// Of a tag.
    #[error("{0}")]
    Flv(#[from] FlvError),
    /// By its last chunk, or a closing frame.
    #[error("the response has ended")]
    Ended,
}

/// What stands around the bytes of FLV.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    Plain,
    Chunked,
    WebSocket,
}

/// One response.
#[derive(Debug)]
pub struct FlvSession {
    output: Vec<u8>,
    /// As received.
    wire: BytesMut,
    framing: Option<Framing>,
    /// Bytes of the present frame that are still to come, and those behind it that say nothing.
    frame: usize,
    behind: usize,
    /// Out of its frames.
    flv: BytesMut,
    header_seen: bool,
    /// No more frames come.
    ended: bool,
}

impl FlvSession {
    /// Asks for a URL; `fields` are more lines of the request's head, each with its end.
    pub fn start(url: &HttpUrl, fields: &str) -> Self {
        let mut output = format!("GET {} HTTP/1.1\r\nHost: {}\r\n{fields}", url.target, url.authority);
        if url.websocket {
            output.push_str("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
            output.push_str(&format!("Sec-WebSocket-Key: {WEBSOCKET_KEY}\r\n"));
        }
        output.push_str("\r\n");
        Self {
            output: output.into_bytes(),
            wire: BytesMut::new(),
            framing: None,
            frame: 0,
            behind: 0,
            flv: BytesMut::new(),
            header_seen: false,
            ended: false,
        }
    }

    /// What is to be sent, and clears it.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Bytes of it.
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Whether the server has agreed.
    pub fn is_playing(&self) -> bool {
        self.framing.is_some()
    }

    /// The next tag; takes `input` in.
    ///
    /// # Errors
    /// Any [`ResponseError`]; `Ended` when all tags are taken.
    pub fn next_tag(&mut self, input: &mut &[u8]) -> Result<Option<Tag>, ResponseError> {
        match self.take_tag(input)? {
            None if self.ended => Err(ResponseError::Ended),
            found => Ok(found),
        }
    }

    fn take_tag(&mut self, input: &mut &[u8]) -> Result<Option<Tag>, ResponseError> {
        self.wire.extend_from_slice(input);
        *input = &[];
        if self.framing.is_none() {
            self.read_head()?;
        }
        loop {
            // What is whole comes before what is wrong behind it.
            match self.read_tag()? {
                None if self.unframe()? => {}
                found => return Ok(found),
            }
        }
    }

    fn read_tag(&mut self) -> Result<Option<Tag>, ResponseError> {
        if !self.header_seen {
            if self.flv.len() < FLV_HEADER_BYTES {
                return Ok(None);
            }
            if !self.flv.starts_with(b"FLV\x01") {
                return Err(FlvError::Signature.into());
            }
            self.flv.advance(FLV_HEADER_BYTES);
            self.header_seen = true;
        }
        // A tag is whole when its back pointer is there too.
        let Some(&[_, l0, l1, l2, ..]) = self.flv.first_chunk::<11>() else { return Ok(None) };
        let size = 11 + u32::from_be_bytes([0, l0, l1, l2]) as usize + 4;
        if self.flv.len() < size {
            return Ok(None);
        }
        let mut whole: Bytes = self.flv.split_to(size).freeze();
        let pointer = whole.slice(size - 4..).get_u32() as usize;
        if pointer + 4 != size {
            return Err(ResponseError::Malformed);
        }
        Ok(file::read_tag(&mut whole)?)
    }

    fn read_head(&mut self) -> Result<(), ResponseError> {
        let within = &self.wire[..self.wire.len().min(HEAD_BYTES_MAX)];
        let Some(end) = within.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            return if self.wire.len() >= HEAD_BYTES_MAX { Err(ResponseError::Malformed) } else { Ok(()) };
        };
        let whole = String::from_utf8_lossy(&self.wire.split_to(end + 4)).into_owned();
        let head = whole.to_ascii_lowercase();
        let status = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
        self.framing = Some(match status.as_str() {
            "101" => Framing::WebSocket,
            "200" if head.contains("transfer-encoding: chunked") => Framing::Chunked,
            "200" => Framing::Plain,
            "301" | "302" | "303" | "307" | "308" => {
                let field = whole.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
                });
                return Err(field.map_or(ResponseError::Malformed, ResponseError::Elsewhere));
            }
            _ => return Err(ResponseError::Refused(format!("status {status}"))),
        });
        Ok(())
    }

    /// Takes more of what has come out of its frame, or begins the next one; tells whether there is any.
    fn unframe(&mut self) -> Result<bool, ResponseError> {
        let now = self.frame.min(self.wire.len());
        if now > 0 {
            self.flv.extend_from_slice(&self.wire.split_to(now));
            self.frame -= now;
            return Ok(true);
        }
        if self.wire.is_empty() || self.ended {
            return Ok(false);
        }
        let behind = self.behind.min(self.wire.len());
        self.wire.advance(behind);
        self.behind -= behind;
        if self.behind > 0 || self.wire.is_empty() {
            return Ok(false);
        }
        let header = match self.framing {
            None => None,
            Some(Framing::Plain) => Some((0, self.wire.len(), 0)),
            Some(Framing::Chunked) => self.chunk_header()?,
            Some(Framing::WebSocket) => self.message_header()?,
        };
        let Some((header, frame, behind)) = header else { return Ok(false) };
        self.wire.advance(header);
        (self.frame, self.behind) = (frame, behind);
        Ok(true)
    }

    /// Bytes of the header, of the chunk, and behind it.
    fn chunk_header(&mut self) -> Result<Option<(usize, usize, usize)>, ResponseError> {
        let Some(end) = self.wire.windows(2).take(20).position(|bytes| bytes == b"\r\n") else {
            return if self.wire.len() > 20 { Err(ResponseError::Malformed) } else { Ok(None) };
        };
        let digits = std::str::from_utf8(&self.wire[..end]).map_err(|_| ResponseError::Malformed)?;
        match usize::from_str_radix(digits, 16).map_err(|_| ResponseError::Malformed)? {
            0 => {
                self.ended = true;
                Ok(None)
            }
            CHUNK_BYTES_MAX.. => Err(ResponseError::Malformed),
            size => Ok(Some((end + 2, size, 2))),
        }
    }

    fn message_header(&mut self) -> Result<Option<(usize, usize, usize)>, ResponseError> {
        let [first, second, rest @ ..] = &self.wire[..] else { return Ok(None) };
        let (header, size) = match second {
            126 => match rest.first_chunk::<2>() {
                Some(length) => (4, usize::from(u16::from_be_bytes(*length))),
                None => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(length) => (10, usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX)),
                None => return Ok(None),
            },
            128.. => return Err(ResponseError::Malformed),
            length => (2, usize::from(*length)),
        };
        match first {
            0x82 => Ok(Some((header, size, 0))),
            0x89 => {
                // A ping: an empty pong under a mask of zeroes.
                self.output.extend_from_slice(&[0x8A, 0x80, 0, 0, 0, 0]);
                Ok(Some((header, 0, size)))
            }
            0x8A => Ok(Some((header, 0, size))),
            0x88 => {
                self.ended = true;
                Ok(None)
            }
            _ => Err(ResponseError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLV: &[u8] = b"FLV\x01\x05\0\0\0\x09\0\0\0\0\x09\0\0\x02\0\0\x05\0\0\0\0\x17\x01\0\0\0\x0D\x08\0\0\x01\0\0\x06\0\0\0\0\xAF\0\0\0\x0C";

    fn tags(head: &str, body: &[u8], cut: usize) -> (Vec<u32>, Option<ResponseError>) {
        let url = HttpUrl::parse("http://h/a.flv").unwrap();
        let mut session = FlvSession::start(&url, "");
        let wire = [head.as_bytes(), body].concat();
        let (mut seen, cut) = (Vec::new(), cut.min(wire.len()));
        for mut part in [&wire[..cut], &wire[cut..]] {
            loop {
                match session.next_tag(&mut part) {
                    Ok(Some(tag)) => seen.push(tag.timestamp),
                    Ok(None) => break,
                    Err(error) => return (seen, Some(error)),
                }
            }
        }
        (seen, None)
    }

    /// The same tags come out of every framing, however the bytes are cut.
    #[test]
    fn tags_are_read_at_every_split() {
        let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        let chunks = [chunk(&FLV[..20]), chunk(&FLV[20..])].concat();
        let message = |bytes: &[u8]| [&[0x82, u8::try_from(bytes.len()).unwrap()], bytes].concat();
        let messages = [message(&FLV[..20]), vec![0x89, 0], message(&FLV[20..])].concat();
        for cut in 0..200 {
            assert_eq!(tags("HTTP/1.1 200 OK\r\n\r\n", FLV, cut).0, [5, 6]);
            assert_eq!(tags("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &chunks, cut).0, [5, 6], "{cut}");
            assert_eq!(tags("HTTP/1.1 101 S\r\n\r\n", &messages, cut).0, [5, 6], "{cut}");
        }
        let ended = [&chunks[..], b"0\r\n\r\n"].concat();
        let (seen, error) = tags("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &ended, 0);
        assert!(matches!(error, Some(ResponseError::Ended)) && seen == [5, 6], "{seen:?} {error:?}");
        let moved = tags("HTTP/1.1 302 Found\r\nlocation: http://A/b?C\r\n\r\n", b"", 0).1;
        assert!(matches!(moved, Some(ResponseError::Elsewhere(at)) if at == "http://A/b?C"));
        assert!(matches!(tags("HTTP/1.1 404 No\r\n\r\n", b"", 0).1, Some(ResponseError::Refused(_))));
    }
}
