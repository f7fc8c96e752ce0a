//! What a WebSocket's client says while it plays, and what it is asked.

use super::{HttpSession, PING_AFTER_MS, State};
use crate::{
    core::port::{CloseReason, Output},
    proto::http::websocket::{self, Said, WebSocketError},
};

impl HttpSession {
    /// A WebSocket's client has said something. Only once the connection is one: what is said before waits.
    pub(super) fn receive_frames(&mut self, now_ms: u64) {
        let Some(reader) = &mut self.websocket else { return };
        let mut rest = &self.input[..];
        let ended: Option<Result<(), WebSocketError>> = loop {
            match reader.read(&mut rest) {
                Ok(None) => break None,
                Ok(Some(said)) => {
                    self.heard_ms = now_ms;
                    self.pinged = false;
                    match said {
                        Said::Ping(payload) => self.output.extend_from_slice(&websocket::pong(&payload)),
                        Said::Pong | Said::Data => {}
                        Said::Close => break Some(Ok(())),
                    }
                }
                Err(error) => break Some(Err(error)),
            }
        };
        let left = rest.len();
        self.position += (self.input.len() - left) as u64;
        self.input.drain(..self.input.len() - left);
        // A close frame would stand in the middle of a message only if a send could end there: none does.
        match ended {
            None => {}
            Some(Ok(())) => {
                self.output.extend_from_slice(&websocket::close(1000));
                self.queue.push(Output::Leave(CloseReason::PeerClosed));
            }
            Some(Err(error)) => {
                self.output.extend_from_slice(&websocket::close(error.code()));
                self.queue.push(Output::Leave(CloseReason::Protocol(error.to_string())));
            }
        }
    }

    /// When a ping is due, if one is.
    pub(super) fn ping_ms(&self) -> Option<u64> {
        let silent = self.websocket.is_some() && matches!(self.state, State::Playing(_)) && !self.pinged;
        silent.then_some(self.heard_ms + PING_AFTER_MS)
    }
}
