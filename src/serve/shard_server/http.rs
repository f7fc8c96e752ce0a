//! HTTP connections: requests for live streams, and what their senders say while they play.

use super::{
    CloseReason, Outcome, ShardServer,
    access::{Access, Found, Wish},
    member,
    peer::Connection,
    stream_settings,
};
use crate::{
    config::Action,
    net,
    proto::http::websocket::{self, Said, WebSocketError},
    serve::{
        http::{HttpSession, LiveRequest, Request, State, flv::FlvWire},
        play::{Play, Wire},
        session::Session,
    },
};

/// A WebSocket that has said nothing for so long is asked whether it is there, in ms.
const PING_AFTER_MS: u64 = 25_000;

impl ShardServer {
    /// Takes in what an HTTP client sends, and does what it asks for.
    pub(super) fn receive_http(&mut self, id: usize, connection: &mut Connection, bytes: &[u8]) -> Outcome {
        let now_ms = self.shared.now_ms();
        let Session::Http(http) = &mut connection.session else { return Outcome::Continue };
        let first = http.input.is_empty();
        http.input.extend_from_slice(bytes);
        if http.websocket.is_some() {
            if matches!(http.state, State::Playing) {
                self.receive_frames(connection);
            }
            return overrun(connection);
        }
        if first {
            // A head must be whole in time from its first byte on.
            connection.heard_ms = now_ms;
        }
        loop {
            let Session::Http(http) = &mut connection.session else { return Outcome::Continue };
            if !matches!(http.state, State::Head) || connection.leaving.is_some() {
                return overrun(connection);
            }
            let config = self.shared.config();
            let live = match http.next_request(&config) {
                Ok(Request::Incomplete) => return Outcome::Continue,
                Ok(Request::Other) => return Outcome::HandOver,
                Ok(Request::Live(live)) => live,
                Err(error) => {
                    http.keep_alive = false;
                    http.respond(error.status(), &error.to_string());
                    return Outcome::Close(CloseReason::Http(error));
                }
            };
            connection.handshaken = true;
            connection.heard_ms = now_ms;
            match self.want_live(id, connection, live) {
                Outcome::Continue => {}
                outcome @ (Outcome::Later { .. }
                | Outcome::Move { .. }
                | Outcome::Retry { .. }
                | Outcome::Ask { .. }
                | Outcome::HandOver
                | Outcome::Close(_)) => return outcome,
            }
        }
    }

    fn want_live(&mut self, id: usize, connection: &mut Connection, live: Box<LiveRequest>) -> Outcome {
        let found =
            Found { key: live.address.key(&live.vhost.name), vhost: live.vhost.clone(), address: live.address.clone() };
        let refused = match self.access(connection, Action::Play, &found) {
            Access::Granted => None,
            Access::Refused(why) => Some(why),
            Access::Ask(event) => {
                if let Session::Http(http) = &mut connection.session {
                    http.state = State::Asked;
                }
                connection.asking = true;
                return Outcome::Ask { wish: Wish::Live(live), event, unread: Vec::new() };
            }
        };
        self.resume_live(id, connection, *live, refused)
    }

    /// Plays, or says why not.
    pub(super) fn resume_live(
        &mut self,
        id: usize,
        connection: &mut Connection,
        live: LiveRequest,
        refused: Option<String>,
    ) -> Outcome {
        let now_ms = self.shared.now_ms();
        let LiveRequest { vhost, address, framing, head_only, opening, .. } = live;
        let key = address.key(&vhost.name);
        if let Some(why) = refused {
            tracing::debug!(peer = %connection.named(), stream = %key, "403: {why}");
            self.stats.refused_by_rule.add(1);
            return respond(connection, "403 Forbidden", &why);
        }
        #[cfg(test)]
        assert!(!key.ends_with("/panic"), "a test asked for a panic");
        let settings = stream_settings(&vhost);
        net::set_nodelay(connection.descriptor, vhost.tcp_nodelay);
        let until_ms = now_ms + 1000 * u64::from(vhost.http_remux.wait_stream_s);
        let found = Found { key, vhost: vhost.clone(), address };
        let on_stop = self.hook_event(connection, "on_stop", &vhost.hooks.on_stop, &found);
        let stream = self.relay.open(&found.key, settings);
        let Some(opened) = self.relay.stream_mut(stream) else { return Outcome::Continue };
        let subscription = opened.replica.subscribe();
        opened.replica.schedule.add(member(id, 0), opened.replica.holds_from(&subscription, now_ms));
        let wire = Wire::Flv(Box::new(FlvWire::new(framing, opening, vhost, head_only)));
        let mut play = Play::new(0, stream, subscription, wire);
        play.on_stop = on_stop;
        connection.plays.push(play);
        if let Session::Http(http) = &mut connection.session {
            http.state = State::Waiting(until_ms);
        }
        self.stats.players.add(1);
        tracing::debug!(peer = %connection.named(), stream = %found.key, ?framing, "play");
        // The shard's loop learns of the stream's flush times.
        self.relay.arm(stream, now_ms);
        self.wake();
        Outcome::Continue
    }

    /// A WebSocket's client has said something. Only once the connection is one: what is said before waits.
    pub(super) fn receive_frames(&mut self, connection: &mut Connection) {
        let now_ms = self.shared.now_ms();
        let Session::Http(http) = &mut connection.session else { return };
        let HttpSession { input, websocket: Some(reader), output, pinged, position, .. } = http else { return };
        let mut rest = &input[..];
        let mut ended: Option<Result<(), WebSocketError>> = None;
        loop {
            match reader.read(&mut rest) {
                Ok(None) => break,
                Ok(Some(said)) => {
                    connection.heard_ms = now_ms;
                    *pinged = false;
                    match said {
                        Said::Ping(payload) => output.extend_from_slice(&websocket::pong(&payload)),
                        Said::Pong | Said::Data => {}
                        Said::Close => {
                            ended = Some(Ok(()));
                            break;
                        }
                    }
                }
                Err(error) => {
                    ended = Some(Err(error));
                    break;
                }
            }
        }
        let left = rest.len();
        *position += (input.len() - left) as u64;
        input.drain(..input.len() - left);
        // A close frame would stand in the middle of a message only if a send could end there: none does.
        match ended {
            None => {}
            Some(Ok(())) => {
                http.output.extend_from_slice(&websocket::close(1000));
                connection.leaving = Some(CloseReason::PeerClosed);
            }
            Some(Err(error)) => {
                http.output.extend_from_slice(&websocket::close(error.code()));
                connection.leaving = Some(CloseReason::WebSocket(error));
            }
        }
    }

    /// The answer to a request whose stream is not there, once that is sure and has been waited out; `true` if
    /// it is given.
    pub(super) fn answer_missing(&self, connection: &mut Connection, now_ms: u64) -> bool {
        let Session::Http(http) = &mut connection.session else { return false };
        let State::Waiting(until_ms) = http.state else { return false };
        let missing = connection.plays.iter().any(|play| self.relay.is_absent(play.stream));
        // A stream that is there and has no picture yet is waited for as long as one that is silent may last.
        let late = now_ms >= until_ms + if missing { 0 } else { super::peer::IO_MS_MAX };
        if !late {
            return false;
        }
        http.websocket = None;
        http.respond("404 Not Found", "nobody publishes this stream");
        true
    }

    /// Asks WebSockets that have been silent for long whether they are there; says who has something to send
    /// or to be told.
    pub(super) fn look_over_http(connection: &mut Connection, now_ms: u64) -> bool {
        let Session::Http(http) = &mut connection.session else { return false };
        let playing = matches!(http.state, State::Playing);
        if playing && http.websocket.is_some() && !http.pinged && now_ms >= connection.heard_ms + PING_AFTER_MS {
            http.pinged = true;
            http.output.extend_from_slice(&websocket::ping());
            return true;
        }
        matches!(http.state, State::Waiting(until_ms) if now_ms >= until_ms)
    }
}

/// What stands behind a live request, or in an unfinished frame, is bounded.
fn overrun(connection: &Connection) -> Outcome {
    match &connection.session {
        Session::Http(http) if http.is_overrun() => Outcome::Close(CloseReason::TooMuchUnread),
        Session::Http(_) | Session::Rtmp(_) => Outcome::Continue,
    }
}

/// Answers without media; the connection goes on if it may.
fn respond(connection: &mut Connection, status: &str, text: &str) -> Outcome {
    if let Session::Http(http) = &mut connection.session {
        http.state = State::Head;
        http.websocket = None;
        http.respond(status, text);
        if !http.keep_alive {
            connection.leaving = Some(CloseReason::ResponseEnded);
        }
    }
    Outcome::Continue
}
