//! HTTP: the session of a connection whose requests are for live streams, over WebSocket too, and for what is packaged
//! of them. Anything else is the
//! control plane's.

mod answers;
mod packaged;
mod pipe;
mod second;
mod talk;

use crate::{
    config::{Config, Proxies, Vhost},
    core::port::{CloseReason, Context, HANDSHAKE_MS_MAX, IO_MS_MAX, Output, Peer, Request, Session, Word},
    package::{Growing, Visit},
    proto::{
        address::StreamAddress,
        http::{
            HEAD_BYTES_MAX, Head, HeadError,
            live::{Format, Framing, Response},
            plain_response, websocket,
        },
    },
};
use answers::Packaged;
use second::{Http2, PREFACE};
use smallvec::SmallVec;
use std::{fmt::Write, sync::Arc, time::SystemTime};

/// Pages of other sites may read the answer.
const CROSSDOMAIN: &str = "Access-Control-Allow-Origin: *\r\n";
/// How long a connection may rest between two requests; nginx's keepalive_timeout is 75 s.
const KEEP_ALIVE_MS_MAX: u64 = 60_000;
/// A WebSocket that has said nothing for so long is asked whether it is there, in ms.
const PING_AFTER_MS: u64 = 25_000;
/// A WebSocket whose client has not said anything by then, though it was asked, is dead.
const PONG_MS_MAX: u64 = 60_000;

/// What somebody wants of a stream: what its sink begins with.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// All of it, in one response.
    Live { format: &'static Format, response: Response, vhost: Arc<Vhost> },
    /// Playlists and segments, in many.
    Visit(Arc<Visit>),
}

/// What a request for a live stream makes of it.
type Live = (&'static Format, Response, Arc<Vhost>);

/// One connection.
#[derive(Debug)]
pub(crate) struct HttpSession {
    formats: &'static [Format],
    state: State,
    queue: SmallVec<[Output<Wanted>; 1]>,
    /// What has come and is not understood yet: a part of a head, what stands behind a live request, or a part
    /// of a WebSocket frame.
    input: Vec<u8>,
    output: Vec<u8>,
    position: u64,
    /// There has been a whole request.
    requested: bool,
    heard_ms: u64,
    crossdomain: bool,
    /// Whether another request may follow the present one.
    keep_alive: bool,
    websocket: Option<websocket::Reader>,
    /// A ping has no answer yet.
    pinged: bool,
    /// What RTMP would call tcUrl.
    tc_url: String,
    /// The page that the player stands in.
    referer: String,
    /// The marks of the servers that ask.
    path: String,
    /// The request for a playlist or a segment that is to be answered.
    asked: Option<Box<Packaged>>,
    /// What it is answered while that is made, and how many chunks have been sent of it.
    growing: Option<(Arc<Growing>, usize)>,
    /// The connection speaks HTTP/2.
    second: Option<Box<Http2>>,
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// A request is to come.
    Head,
    /// It is not decided yet whether this may play. A stream that nobody publishes will be waited for so long, in ms.
    Asked(u64),
    /// The stream's publisher is waited for until then, in ms of the process's clock, or that is over.
    Waiting(u64, bool),
    /// A playlist or a segment was asked for, and it is not decided yet whether it may be.
    Visiting,
    /// It is to come, by then at the latest, in ms of the process's clock.
    Awaiting(u64),
    /// It is sent.
    Sending,
    /// Media is sent. What a WebSocket's client has said before is still to be looked at, or not.
    Playing(bool),
}

impl HttpSession {
    pub(super) fn new(formats: &'static [Format], context: &Context<'_>) -> Self {
        Self {
            formats,
            state: State::Head,
            queue: SmallVec::new(),
            input: Vec::new(),
            output: Vec::new(),
            position: 0,
            requested: false,
            heard_ms: context.now_ms,
            crossdomain: false,
            keep_alive: false,
            websocket: None,
            pinged: false,
            tc_url: String::new(),
            referer: String::new(),
            path: String::new(),
            asked: None,
            growing: None,
            second: None,
        }
    }

    /// Reads the next request's head, if it is whole.
    fn next_request(&mut self, context: &Context<'_>) -> Result<(), HeadError> {
        let Some(head) = Head::read(&self.input)? else { return Ok(()) };
        let config = context.config();
        if self.packaged(&config, &head, context) {
            return Ok(());
        }
        let Some(live) = self.live_request(&config, &head) else {
            self.queue.push(Output::HandOver);
            return Ok(());
        };
        let (request, (format, response, vhost), tc_url) = live;
        self.input.drain(..head.bytes);
        self.position += head.bytes as u64;
        self.crossdomain = config.http.crossdomain;
        let framing = response.framing();
        self.keep_alive = head.keep_alive && framing == Framing::Chunked;
        self.websocket = (framing == Framing::WebSocket).then(websocket::Reader::default);
        (self.tc_url, self.referer, self.path) = (tc_url, head.referer, head.forwarded_by);
        (self.requested, self.heard_ms) = (true, context.now_ms);
        if self.websocket.is_some() && head.foreign && !config.http.crossdomain {
            // No header keeps a page from what a WebSocket brings it.
            self.keep_alive = false;
            self.respond("403 Forbidden", "pages of other sites may not play here (crossdomain)");
            self.finish(context);
            return Ok(());
        }
        if config.trusted_proxies != Proxies::default() {
            self.queue.push(Output::For(head.forwarded_for));
        }
        self.state = State::Asked(1000 * u64::from(vhost.http_remux.wait_stream_s));
        self.queue.push(Output::Play(Box::new(request), Wanted::Live { format, response, vhost }));
        Ok(())
    }

    /// The stream that a head asks for, and its tcUrl; `None` if it is anything else.
    fn live_request(&self, config: &Config, head: &Head) -> Option<(Request, Live, String)> {
        let (vhost, app, stream) = config.live_stream(&head.vhost(), &head.path).filter(|_| head.is_plain_get())?;
        let format = self.formats.iter().find(|format| head.path.ends_with(format.suffix))?;
        let host = if head.host.contains(':') { format!("[{}]", head.host) } else { head.host.clone() };
        let asked = format!("http://{host}/{app}");
        let address = StreamAddress::resolve(&asked, app, &format!("{stream}?{}", head.query)).ok()?;
        // As SRS tells hooks and API.
        let tc_url = format!("rtmp://{}/{app}", vhost.name);
        let framing = match (&head.websocket_key, head.is_http11) {
            (Some(_), _) => Framing::WebSocket,
            (None, true) => Framing::Chunked,
            (None, false) => Framing::Plain,
        };
        let opening = opening(head, framing, format.content_type, config.http.crossdomain);
        let refused = |text| {
            let (date, origins) = (httpdate::fmt_http_date(SystemTime::now()), origins(config.http.crossdomain));
            plain_response("406 Not Acceptable", text, head.keep_alive && framing == Framing::Chunked, &date, origins)
        };
        let refusal = format.refusal.map(refused).unwrap_or_default();
        let response = Response::new(framing, opening, refusal, head.method == "HEAD");
        let request = Request::of(0, address, vhost);
        Some((request, (format, response, Arc::clone(vhost)), tc_url))
    }

    /// What waits unread is bounded.
    fn check_input(&self) -> Result<(), CloseReason> {
        if self.input.len() > HEAD_BYTES_MAX {
            return Err(CloseReason::Protocol("sends more than can be looked at while it plays".to_owned()));
        }
        Ok(())
    }

    /// The end of a response. What was sent behind a live request meanwhile is not waited for: its sender tries
    /// again.
    fn finish(&mut self, context: &Context<'_>) {
        self.state = State::Head;
        self.websocket = None;
        self.pinged = false;
        self.heard_ms = context.now_ms;
        if !self.keep_alive || !self.input.is_empty() {
            self.queue.push(Output::Leave(CloseReason::ResponseEnded));
        }
    }

    /// A response without media.
    fn respond(&mut self, status: &str, text: &str) {
        self.websocket = None;
        // What was sent behind it would never be looked at.
        self.keep_alive &= self.input.is_empty();
        let date = httpdate::fmt_http_date(SystemTime::now());
        let origins = origins(self.crossdomain);
        self.output.extend_from_slice(&plain_response(status, text, self.keep_alive, &date, origins));
    }

    /// When the peer is late, and what that is called.
    fn late_ms(&self, busy: bool) -> Option<(u64, CloseReason)> {
        let request = || CloseReason::Late(format!("no complete request within {} s", HANDSHAKE_MS_MAX / 1000));
        if self.websocket.is_some() {
            let pong = CloseReason::Late(format!("no pong within {} s", PONG_MS_MAX / 1000));
            return Some((self.heard_ms + PONG_MS_MAX, pong));
        }
        // A request that waits for its answer is whole.
        if !self.requested || self.state == State::Head && !self.input.is_empty() {
            return Some((self.heard_ms + HANDSHAKE_MS_MAX, request()));
        }
        (!busy && !self.is_answering()).then_some((self.heard_ms + KEEP_ALIVE_MS_MAX, CloseReason::PeerClosed))
    }
}

impl Session for HttpSession {
    type Sink = Wanted;

    fn receive(&mut self, input: &mut &[u8], context: &Context<'_>) -> Result<(), CloseReason> {
        if let Some(second) = &mut self.second {
            second.receive(input, context, &mut self.queue);
            return Ok(());
        }
        if self.input.is_empty() && !input.is_empty() && self.websocket.is_none() && !self.is_answering() {
            // A head must be whole in time from its first byte on.
            self.heard_ms = context.now_ms;
        }
        if self.is_answering() {
            return Ok(());
        }
        self.input.extend_from_slice(std::mem::take(input));
        match self.state {
            State::Head if !self.requested && self.input.starts_with(PREFACE) => {
                let (mut second, came) = (Http2::new(context), std::mem::take(&mut self.input));
                second.receive(&mut &came[..], context, &mut self.queue);
                self.second = Some(Box::new(second));
                Ok(())
            }
            // The beginning of that, perhaps.
            State::Head if !self.requested && PREFACE.starts_with(&self.input) => Ok(()),
            State::Head if self.queue.is_empty() => {
                if let Err(error) = self.next_request(context) {
                    self.keep_alive = false;
                    self.respond(error.status(), &error.to_string());
                    return Err(CloseReason::Protocol(format!("HTTP: {error}")));
                }
                // What is a part of a head only is bounded by the head's reader.
                if self.state == State::Head { Ok(()) } else { self.check_input() }
            }
            State::Playing(false) => {
                self.receive_frames(context.now_ms);
                self.check_input()
            }
            State::Head
            | State::Asked(_)
            | State::Waiting(..)
            | State::Playing(true)
            | State::Visiting
            | State::Awaiting(_)
            | State::Sending => self.check_input(),
        }
    }

    fn poll(&mut self) -> Option<Output<Wanted>> {
        if self.state == State::Playing(true) {
            self.state = State::Playing(false);
            self.receive_frames(self.heard_ms);
        }
        if self.queue.is_empty() { None } else { Some(self.queue.remove(0)) }
    }

    fn told(&mut self, word: Word<'_>, context: &Context<'_>) {
        if let Some(second) = &mut self.second {
            return second.told(word, context, &mut self.queue);
        }
        match (word, self.state) {
            (Word::Opened(_), State::Asked(wait_ms)) => self.state = State::Waiting(context.now_ms + wait_ms, false),
            (Word::Opened(_), State::Visiting) => self.allowed(context),
            (Word::Changed(_), State::Awaiting(until_ms)) => self.go_on(until_ms, context),
            (Word::Sent, State::Sending) => self.sent(context),
            (Word::PlayRefused(_, why), _) => {
                self.respond("403 Forbidden", why);
                self.finish(context);
            }
            (Word::Busy(_, why), _) => {
                self.respond("503 Service Unavailable", why);
                self.finish(context);
            }
            // A stream that is there and has no picture yet is waited for as long as one that is silent may last.
            (Word::Waits(id, absent), State::Waiting(until_ms, _))
                if context.now_ms >= until_ms + if absent { 0 } else { IO_MS_MAX } =>
            {
                self.respond("404 Not Found", "nobody publishes this stream");
                self.queue.push(Output::Close(id));
                self.finish(context);
            }
            // What has been said before the response's head is answered behind it.
            (Word::Started(..), State::Waiting(..)) => self.state = State::Playing(!self.input.is_empty()),
            (Word::Finished(_), _) => self.finish(context),
            _ => {}
        }
    }

    fn is_answering(&self) -> bool {
        match &self.second {
            Some(second) => second.is_full(),
            None => matches!(self.state, State::Visiting | State::Awaiting(_) | State::Sending),
        }
    }

    fn has_input(&self) -> bool {
        !self.input.is_empty() || self.second.as_ref().is_some_and(|second| second.is_full())
    }

    fn take_output(&mut self) -> Vec<u8> {
        match &mut self.second {
            Some(second) => second.last_words(),
            None => std::mem::take(&mut self.output),
        }
    }

    fn output_len(&self) -> usize {
        self.output.len()
    }

    fn deadline(&self, busy: bool) -> Option<u64> {
        if let Some(second) = &self.second {
            return second.deadline();
        }
        let waits_ms = match self.state {
            State::Waiting(until_ms, false) => Some(until_ms),
            State::Waiting(until_ms, true) => Some(until_ms + IO_MS_MAX),
            State::Awaiting(until_ms) => Some(until_ms),
            State::Head | State::Asked(_) | State::Playing(_) | State::Visiting | State::Sending => None,
        };
        let late_ms = self.late_ms(busy).map(|(late_ms, _)| late_ms);
        waits_ms.into_iter().chain(late_ms).chain(self.ping_ms()).min()
    }

    fn timeout(&mut self, busy: bool, context: &Context<'_>) -> Option<CloseReason> {
        if let Some(second) = &mut self.second {
            return second.timeout(context, &mut self.queue);
        }
        if self.ping_ms().is_some_and(|ping_ms| ping_ms <= context.now_ms) {
            self.pinged = true;
            self.output.extend_from_slice(&websocket::ping());
        }
        if let State::Waiting(until_ms, false) = self.state
            && until_ms <= context.now_ms
        {
            self.state = State::Waiting(until_ms, true);
        }
        if let State::Awaiting(until_ms) = self.state
            && until_ms <= context.now_ms
        {
            self.give_up(context);
        }
        self.late_ms(busy).filter(|(late_ms, _)| *late_ms <= context.now_ms).map(|(_, reason)| reason)
    }

    fn peer(&self) -> Peer<'_> {
        if let Some(second) = &self.second {
            return Peer { tc_url: &second.tc_url, page_url: &second.page_url, ..Peer::default() };
        }
        Peer {
            tc_url: &self.tc_url,
            page_url: &self.referer,
            path: &self.path,
            position: self.position,
            ..Peer::default()
        }
    }

    fn into_unread(self) -> Vec<u8> {
        self.input
    }
}

fn origins(crossdomain: bool) -> &'static str {
    if crossdomain { CROSSDOMAIN } else { "" }
}

/// The head of a live response.
fn opening(head: &Head, framing: Framing, content_type: &str, crossdomain: bool) -> Vec<u8> {
    let mut text = String::with_capacity(256);
    // A string takes whatever is written.
    if let Some(key) = &head.websocket_key {
        let accept = websocket::derive_accept_key(key.as_bytes());
        text.push_str("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        _ = write!(text, "Sec-WebSocket-Accept: {accept}\r\n");
    } else {
        _ = write!(text, "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n");
        text.push_str("Cache-Control: no-cache, no-store\r\nAccept-Ranges: none\r\n");
        if framing == Framing::Chunked {
            text.push_str("Transfer-Encoding: chunked\r\n");
        }
        if !head.keep_alive || framing == Framing::Plain {
            text.push_str("Connection: close\r\n");
        }
    }
    text.push_str(origins(crossdomain));
    _ = write!(text, "Server: corecast\r\nDate: {}\r\n\r\n", httpdate::fmt_http_date(SystemTime::now()));
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::Shelf;
    use arc_swap::ArcSwap;

    const FORMATS: &[Format] = &[Format { suffix: ".flv", content_type: "video/x-flv", refusal: None }];

    /// Nothing of a WebSocket is sent before its 101: no ping, however long it waits, and no pong.
    #[test]
    fn a_websocket_that_waits_says_nothing() {
        let text = "listen 127.0.0.1:0; vhost __defaultVhost__ { http_remux { enabled on; wait_stream 100; } }";
        let config = ArcSwap::from_pointee(Config::parse("test", text).unwrap());
        let shelf = Shelf::default();
        let at = |now_ms| Context::new(now_ms, &config, &shelf);
        let mut session = HttpSession::new(FORMATS, &at(0));
        let head = b"GET /live/s.flv HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let ping = [0x89, 0x80, 1, 2, 3, 4];
        session.receive(&mut &head[..], &at(0)).unwrap();
        let Some(Output::Play(request, Wanted::Live { response, .. })) = session.poll() else { panic!("a play") };
        assert_eq!((&*request.key, response.framing()), ("__defaultVhost__/live/s", Framing::WebSocket));
        session.told(Word::Opened(0), &at(0));
        session.receive(&mut &ping[..], &at(10)).unwrap();
        assert!(session.timeout(true, &at(26_000)).is_none());
        session.told(Word::Waits(0, true), &at(26_000));
        assert!(session.poll().is_none() && session.output_len() == 0);
        session.told(Word::Started(0, false), &at(26_000));
        assert_eq!(session.output_len(), 0, "what is said now would stand before the 101");
        // Once it plays, it is answered.
        assert!(session.poll().is_none());
        assert_eq!(session.take_output().len(), 2, "a pong");
        assert!(session.timeout(true, &at(26_000 + PING_AFTER_MS)).is_none());
        assert_eq!(session.take_output(), websocket::ping());
        assert!(session.timeout(true, &at(26_000 + PONG_MS_MAX)).is_some());
    }

    /// Who waits for a stream that nobody publishes is told so in time, and no earlier.
    #[test]
    fn a_missing_stream_is_waited_for() {
        let text = "listen 127.0.0.1:0; vhost __defaultVhost__ { http_remux { enabled on; wait_stream 3; } }";
        let config = ArcSwap::from_pointee(Config::parse("test", text).unwrap());
        let shelf = Shelf::default();
        let at = |now_ms| Context::new(now_ms, &config, &shelf);
        let mut session = HttpSession::new(FORMATS, &at(0));
        session.receive(&mut &b"GET /live/s.flv HTTP/1.1\r\nHost: h\r\n\r\n"[..], &at(0)).unwrap();
        assert!(matches!(session.poll(), Some(Output::Play(..))));
        session.told(Word::Opened(0), &at(0));
        for (now_ms, absent, answered) in [(100, true, false), (3000, false, false), (3001, true, true)] {
            assert_eq!(session.deadline(true), Some(if now_ms > 3000 { 3000 + IO_MS_MAX } else { 3000 }));
            assert!(session.timeout(true, &at(now_ms)).is_none());
            session.told(Word::Waits(0, absent), &at(now_ms));
            assert_eq!(session.output_len() > 0, answered, "{now_ms}");
        }
        assert!(matches!(session.poll(), Some(Output::Close(0))) && session.poll().is_none());
        assert!(session.take_output().starts_with(b"HTTP/1.1 404"));
    }
}
