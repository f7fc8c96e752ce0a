//! HTTP: request heads of a connection until one asks for a live stream, which then plays.

pub(in crate::serve) mod flv;

use crate::{
    config::{Config, Vhost},
    proto::{
        http::{HEAD_BYTES_MAX, Head, HeadError, plain_response, websocket},
        rtmp::url::StreamAddress,
    },
};
use flv::Framing;
use std::{fmt::Write, sync::Arc, time::SystemTime};

/// Pages of other sites may read the answer.
const CROSSDOMAIN: &str = "Access-Control-Allow-Origin: *\r\n";

/// One HTTP connection that plays, or may.
#[derive(Debug, Default)]
pub(in crate::serve) struct HttpSession {
    pub(in crate::serve) state: State,
    /// What has come and is not understood yet: a part of a head, what stands behind a live request, or a part
    /// of a WebSocket frame.
    pub(in crate::serve) input: Vec<u8>,
    pub(in crate::serve) output: Vec<u8>,
    /// Bytes understood.
    pub(in crate::serve) position: u64,
    crossdomain: bool,
    /// Whether another request may follow the present one.
    pub(in crate::serve) keep_alive: bool,
    pub(in crate::serve) websocket: Option<websocket::Reader>,
    /// What RTMP would call tcUrl.
    pub(in crate::serve) tc_url: String,
    /// The page that the player stands in.
    pub(in crate::serve) referer: String,
    /// A ping has no answer yet.
    pub(in crate::serve) pinged: bool,
}

/// What an HTTP connection is at.
#[derive(Debug, Default)]
pub(in crate::serve) enum State {
    /// A request is to come.
    #[default]
    Head,
    /// Somebody is asked whether this may play.
    Asked,
    /// The stream's publisher is waited for until then, in ms of the process's clock.
    Waiting(u64),
    /// Media is sent.
    Playing,
}

/// A request for a live stream.
#[derive(Clone, Debug)]
pub(in crate::serve) struct LiveRequest {
    pub(in crate::serve) vhost: Arc<Vhost>,
    pub(in crate::serve) address: StreamAddress,
    pub(in crate::serve) framing: Framing,
    pub(in crate::serve) head_only: bool,
    /// The head of the response, should there be something to play.
    pub(in crate::serve) opening: Vec<u8>,
}

/// What the next bytes of a connection are.
#[derive(Debug)]
pub(in crate::serve) enum Request {
    /// Not a whole head yet.
    Incomplete,
    /// A live stream.
    Live(Box<LiveRequest>),
    /// Anything else.
    Other,
}

impl HttpSession {
    /// Reads the next request's head and takes it if it is for a live stream.
    ///
    /// # Errors
    /// The request cannot be served, and its connection cannot be read further.
    pub(in crate::serve) fn next_request(&mut self, config: &Config) -> Result<Request, HeadError> {
        let Some(head) = Head::read(&self.input)? else { return Ok(Request::Incomplete) };
        let live = LiveRequest::of(config, &head);
        let Some((live, tc_url)) = live else { return Ok(Request::Other) };
        (self.tc_url, self.referer) = (tc_url, head.referer);
        self.input.drain(..head.bytes);
        self.crossdomain = config.http.crossdomain;
        self.position += head.bytes as u64;
        self.keep_alive = head.keep_alive && live.framing == Framing::Chunked;
        self.websocket = (live.framing == Framing::WebSocket).then(websocket::Reader::default);
        Ok(Request::Live(Box::new(live)))
    }

    /// Whether what waits unread is more than there may be.
    pub(in crate::serve) fn is_overrun(&self) -> bool {
        self.input.len() > HEAD_BYTES_MAX
    }

    /// The end of a response; tells whether another request may follow. What was sent behind a live request
    /// meanwhile is not waited for: its sender tries again.
    pub(in crate::serve) fn finish(&mut self) -> bool {
        self.state = State::Head;
        self.websocket = None;
        self.pinged = false;
        self.keep_alive && self.input.is_empty()
    }

    /// A response without media.
    pub(in crate::serve) fn respond(&mut self, status: &str, text: &str) {
        // What was sent behind it would never be looked at.
        self.keep_alive &= self.input.is_empty();
        let date = httpdate::fmt_http_date(SystemTime::now());
        let origins = if self.crossdomain { CROSSDOMAIN } else { "" };
        self.output.extend_from_slice(&plain_response(status, text, self.keep_alive, &date, origins));
    }
}

impl LiveRequest {
    /// The stream that a head asks for, and its tcUrl; `None` if it is anything else.
    fn of(config: &Config, head: &Head) -> Option<(Self, String)> {
        let (vhost, app, stream) = config.live_stream(&head.vhost(), &head.path).filter(|_| head.is_plain_get())?;
        let head_only = head.method == "HEAD";
        let tc_url = format!(
            "http://{}/{app}",
            if head.host.contains(':') { format!("[{}]", head.host) } else { head.host.clone() }
        );
        let address = StreamAddress::resolve(&tc_url, app, &format!("{stream}?{}", head.query)).ok()?;
        let framing = match (&head.websocket_key, head.is_http11) {
            (Some(_), _) => Framing::WebSocket,
            (None, true) => Framing::Chunked,
            (None, false) => Framing::Plain,
        };
        let opening = opening(head, framing, config.http.crossdomain);
        Some((Self { vhost: Arc::clone(vhost), address, framing, head_only, opening }, tc_url))
    }
}

/// The head of a live response.
fn opening(head: &Head, framing: Framing, crossdomain: bool) -> Vec<u8> {
    let mut text = String::with_capacity(256);
    if let Some(key) = &head.websocket_key {
        let accept = websocket::derive_accept_key(key.as_bytes());
        text.push_str(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        );
        text.push_str(&accept);
        text.push_str("\r\n");
    } else {
        text.push_str("HTTP/1.1 200 OK\r\nContent-Type: video/x-flv\r\nCache-Control: no-cache, no-store\r\nAccept-Ranges: none\r\n");
        match framing {
            Framing::Chunked => text.push_str("Transfer-Encoding: chunked\r\n"),
            Framing::Plain | Framing::WebSocket => {}
        }
        if !head.keep_alive || framing == Framing::Plain {
            text.push_str("Connection: close\r\n");
        }
    }
    if crossdomain {
        text.push_str(CROSSDOMAIN);
    }
    // A string takes whatever is written.
    _ = write!(text, "Server: corecast\r\nDate: {}\r\n\r\n", httpdate::fmt_http_date(SystemTime::now()));
    text.into_bytes()
}
