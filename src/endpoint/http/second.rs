//! HTTP/2 (RFC 9113) for playlists and segments, over the h2 library as a machine without sockets: it reads and writes a
//! [`Pipe`], and is asked again whenever something has come, gone or changed. What else is asked for wants HTTP/1.1, and is told so.

use super::{
    Wanted,
    answers::{AWAIT_MS_MAX, Body, Packaged, Reply, Step},
    pipe::Pipe,
};
use crate::{
    config::Proxies,
    core::port::{CloseReason, Context, HANDSHAKE_MS_MAX, Id, Output, Word},
    package::{Growing, Shown},
    proto::http::Head,
};
use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    server::{Builder, Connection, Handshake, SendResponse},
};
use smallvec::SmallVec;
use std::{
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context as Poller, Poll, Waker},
};

/// What a client begins with (§3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Requests at a time.
const STREAMS_MAX: u32 = 128;
/// Bytes that wait to be understood.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// Of a stream, within the library.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Header fields of a request.
const FIELDS_BYTES_MAX: u32 = 16 << 10;
/// Streams that a client may open and take back before they are looked at.
const RESETS_MAX: usize = 20;
/// A connection without requests, or one that takes nothing of its answers, lasts so long, in ms.
const IDLE_MS_MAX: u64 = 60_000;
/// Fields that say something here.
const FIELDS: [&str; 9] = [
    "range",
    "if-none-match",
    "if-range",
    "accept-encoding",
    "referer",
    "origin",
    "sec-fetch-site",
    "x-forwarded-for",
    "x-real-ip",
];

type Queue = SmallVec<[Output<Wanted>; 1]>;

enum Stage {
    Shaking(Handshake<Pipe, Bytes>),
    Open(Connection<Pipe, Bytes>),
    Over,
}

/// A request.
struct Stream {
    id: Id,
    asked: Packaged,
    respond: SendResponse<Bytes>,
    at: At,
}

/// How it stands with it.
enum At {
    /// Rules and hooks are asked.
    Asking,
    /// What is asked for is to come, by then at the latest, in ms of the process's clock.
    Awaiting(u64),
    Sending(SendStream<Bytes>, VecDeque<Bytes>, Option<(Arc<Growing>, usize)>),
    Done,
}

/// A connection.
pub(super) struct Http2 {
    pipe: Pipe,
    stage: Stage,
    streams: Vec<Stream>,
    next_id: Id,
    /// Questions for rules and hooks, one at a time: which stream's is asked, and those behind it.
    asking: Option<Id>,
    questions: VecDeque<(Id, Output<Wanted>, String)>,
    /// Of who asks: what stands for tcUrl, and the page that the player stands in.
    pub(super) tc_url: String,
    pub(super) page_url: String,
    /// Playlists whose changes are told of.
    awaited: Vec<u64>,
    /// Something is on its way to the peer.
    sending: bool,
    heard_ms: u64,
    /// When something was last taken of an answer.
    moved_ms: u64,
}

impl fmt::Debug for Http2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http2").field("streams", &self.streams.len()).finish_non_exhaustive()
    }
}

impl Http2 {
    pub(super) fn new(context: &Context<'_>) -> Self {
        let pipe = Pipe::default();
        let handshake = Builder::new()
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(FIELDS_BYTES_MAX)
            .max_send_buffer_size(BUFFER_BYTES_MAX)
            .max_pending_accept_reset_streams(RESETS_MAX)
            .handshake(pipe.clone());
        Self {
            pipe,
            stage: Stage::Shaking(handshake),
            streams: Vec::new(),
            next_id: 0,
            asking: None,
            questions: VecDeque::new(),
            tc_url: String::new(),
            page_url: String::new(),
            awaited: Vec::new(),
            sending: false,
            heard_ms: context.now_ms,
            moved_ms: context.now_ms,
        }
    }

    /// Takes what has come, as far as there is room for it.
    pub(super) fn receive(&mut self, input: &mut &[u8], context: &Context<'_>, queue: &mut Queue) {
        if self.is_full() {
            return;
        }
        self.heard_ms = context.now_ms;
        self.pipe.lock().input.extend_from_slice(mem::take(input));
        self.drive(context, queue);
        self.ask_next(queue);
    }

    /// Whether what has come is more than can be looked at now.
    pub(super) fn is_full(&self) -> bool {
        self.pipe.lock().input.len() >= INPUT_BYTES_MAX
    }

    pub(super) fn told(&mut self, word: Word<'_>, context: &Context<'_>, queue: &mut Queue) {
        match word {
            Word::Sent => self.sending = false,
            Word::Changed(shown) => {
                self.awaited.retain(|known| *known != shown);
                for at in 0..self.streams.len() {
                    if let At::Awaiting(until_ms) = self.streams[at].at {
                        self.look(at, until_ms, context, queue);
                    }
                }
            }
            Word::Opened(id) => self.answered(id, None, context, queue),
            Word::PlayRefused(id, why) => self.answered(id, Some(((403, "Forbidden"), why)), context, queue),
            Word::Busy(id, why) => self.answered(id, Some(((503, "Service Unavailable"), why)), context, queue),
            Word::Drain => {
                if let Stage::Open(connection) = &mut self.stage {
                    connection.graceful_shutdown();
                }
            }
            Word::Connected
            | Word::Published(_)
            | Word::PublishRefused(..)
            | Word::Playing(_)
            | Word::Elsewhere(..)
            | Word::Waits(..)
            | Word::Started(..)
            | Word::Ended(_)
            | Word::Finished(_)
            | Word::Paused(..) => return,
        }
        self.drive(context, queue);
    }

    /// When something is to be done.
    pub(super) fn deadline(&self) -> Option<u64> {
        let awaiting = self.streams.iter().filter_map(|stream| match stream.at {
            At::Awaiting(until_ms) => Some(until_ms),
            At::Asking | At::Sending(..) | At::Done => None,
        });
        awaiting.chain(self.late_ms()).min()
    }

    /// When the connection is of no use any more.
    fn late_ms(&self) -> Option<u64> {
        let sends = self.streams.iter().any(|stream| matches!(stream.at, At::Sending(..)));
        match &self.stage {
            Stage::Shaking(_) => Some(self.heard_ms + HANDSHAKE_MS_MAX),
            Stage::Open(_) | Stage::Over if sends => Some(self.moved_ms + IDLE_MS_MAX),
            Stage::Open(_) | Stage::Over if self.streams.is_empty() => {
                Some(self.heard_ms.max(self.moved_ms) + IDLE_MS_MAX)
            }
            Stage::Open(_) | Stage::Over => None,
        }
    }

    pub(super) fn timeout(&mut self, context: &Context<'_>, queue: &mut Queue) -> Option<CloseReason> {
        if self.late_ms().is_some_and(|late_ms| late_ms <= context.now_ms) {
            let why = format!("nothing is asked for or taken for {} s", IDLE_MS_MAX / 1000);
            return Some(CloseReason::Late(why));
        }
        for at in 0..self.streams.len() {
            if matches!(self.streams[at].at, At::Awaiting(until_ms) if until_ms <= context.now_ms) {
                let step = self.streams[at].asked.dressed(Reply::late());
                self.take(at, step, 0, queue);
            }
        }
        self.drive(context, queue);
        None
    }

    /// Goes on with everything as far as it goes.
    fn drive(&mut self, context: &Context<'_>, queue: &mut Queue) {
        let mut poller = Poller::from_waker(Waker::noop());
        loop {
            let mut moved = false;
            for stream in &mut self.streams {
                moved |= stream.pump(&mut poller, &mut self.awaited, queue);
            }
            if moved {
                self.moved_ms = context.now_ms;
            }
            self.streams.retain(|stream| !matches!(stream.at, At::Done));
            match &mut self.stage {
                Stage::Shaking(handshake) => match Pin::new(handshake).poll(&mut poller) {
                    Poll::Ready(Ok(connection)) => {
                        self.stage = Stage::Open(connection);
                        moved = true;
                    }
                    Poll::Ready(Err(error)) => return self.end(&error.to_string(), queue),
                    Poll::Pending => {}
                },
                Stage::Open(connection) => match connection.poll_accept(&mut poller) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        self.accept(&request, respond, context, queue);
                        moved = true;
                    }
                    Poll::Ready(Some(Err(error))) => return self.end(&error.to_string(), queue),
                    Poll::Ready(None) => return self.end("", queue),
                    Poll::Pending => {}
                },
                Stage::Over => return,
            }
            if !moved {
                break;
            }
        }
        if !self.sending {
            let output = mem::take(&mut self.pipe.lock().output);
            if !output.is_empty() {
                self.sending = true;
                queue.push(Output::Body(vec![output.into()]));
            }
        }
    }

    /// The connection is over: what the library says last is all that is still sent.
    fn end(&mut self, why: &str, queue: &mut Queue) {
        self.stage = Stage::Over;
        self.streams.clear();
        let reason =
            if why.is_empty() { CloseReason::PeerClosed } else { CloseReason::Protocol(format!("HTTP/2: {why}")) };
        queue.push(Output::Leave(reason));
    }

    /// What is to be sent though the connection is left.
    pub(super) fn last_words(&mut self) -> Vec<u8> {
        if matches!(self.stage, Stage::Over) { mem::take(&mut self.pipe.lock().output) } else { Vec::new() }
    }

    /// A request: it is read as one of HTTP/1.1 would be.
    fn accept(
        &mut self,
        request: &http::Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        context: &Context<'_>,
        queue: &mut Queue,
    ) {
        let config = context.config();
        let head = request.body().is_end_stream().then(|| head_of(request)).flatten();
        let Some((asked, step)) = head.as_ref().and_then(|head| Packaged::read(&config, head, context)) else {
            // Live streams, the page and the API (§7).
            return respond.send_reset(Reason::HTTP_1_1_REQUIRED);
        };
        if let Some(head) = head {
            self.page_url = head.referer;
            if config.trusted_proxies != Proxies::default() {
                queue.push(Output::For(head.forwarded_for));
            }
        }
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        self.streams.push(Stream { id, asked, respond, at: At::Asking });
        self.take(self.streams.len() - 1, step, context.now_ms + AWAIT_MS_MAX, queue);
    }

    fn look(&mut self, at: usize, until_ms: u64, context: &Context<'_>, queue: &mut Queue) {
        let step = self.streams[at].asked.look(context);
        self.take(at, step, until_ms, queue);
    }

    fn take(&mut self, at: usize, step: Step, until_ms: u64, queue: &mut Queue) {
        let stream = &mut self.streams[at];
        queue.extend(stream.asked.take_fetch());
        match step {
            Step::Reply(reply) => stream.give(reply),
            Step::Later(shown, version) => {
                stream.at = At::Awaiting(until_ms);
                await_change(&mut self.awaited, &shown, version, queue);
            }
            Step::Ask(visit, key) => {
                stream.at = At::Asking;
                match stream.asked.question(stream.id, visit, &key) {
                    Some((question, tc_url)) => self.questions.push_back((stream.id, question, tc_url)),
                    None => stream.refuse((404, "Not Found"), "no such stream"),
                }
            }
        }
    }

    /// Asks the next question, unless one is being asked.
    fn ask_next(&mut self, queue: &mut Queue) {
        if self.asking.is_none()
            && let Some((id, question, tc_url)) = self.questions.pop_front()
        {
            (self.asking, self.tc_url) = (Some(id), tc_url);
            queue.push(question);
        }
    }

    fn answered(
        &mut self,
        id: Id,
        refused: Option<((u16, &'static str), &str)>,
        context: &Context<'_>,
        queue: &mut Queue,
    ) {
        self.asking.take_if(|asked| *asked == id);
        if let Some(at) = self.streams.iter().position(|stream| stream.id == id) {
            match refused {
                None => self.look(at, context.now_ms + AWAIT_MS_MAX, context, queue),
                Some((status, why)) => self.streams[at].refuse(status, why),
            }
        }
        self.ask_next(queue);
    }
}

/// Has a change of a playlist told, unless it is.
fn await_change(awaited: &mut Vec<u64>, shown: &Arc<Shown>, version: u64, queue: &mut Queue) {
    if !awaited.contains(&shown.id) {
        awaited.push(shown.id);
        queue.push(Output::Await(Arc::clone(shown), version));
    }
}

impl Stream {
    fn refuse(&mut self, status: (u16, &'static str), why: &str) {
        if let Step::Reply(reply) = self.asked.dressed(Reply::refusal(status, why)) {
            self.give(reply);
        }
    }

    fn give(&mut self, Reply { status, fields, body }: Reply) {
        let mut response = http::Response::builder().status(status.0);
        for (name, value) in fields {
            response = response.header(name, value);
        }
        let (length, chunks, growing) = match body {
            Body::None => (None, Vec::new(), None),
            Body::Whole(length, chunks) => (Some(length), chunks, None),
            Body::Growing(growing) => (None, Vec::new(), Some((growing, 0))),
        };
        if let Some(length) = length {
            response = response.header("content-length", length);
        }
        let nothing = self.asked.head_only || chunks.is_empty() && growing.is_none();
        // A stream that was taken back has no answer.
        let sent = response.body(()).ok().and_then(|response| self.respond.send_response(response, nothing).ok());
        self.at = match sent {
            Some(send) if !nothing => At::Sending(send, chunks.into(), growing),
            Some(_) | None => At::Done,
        };
    }

    /// Sends as much as the peer's windows have room for; tells whether that is anything.
    fn pump(&mut self, poller: &mut Poller<'_>, awaited: &mut Vec<u64>, queue: &mut Queue) -> bool {
        let At::Sending(send, body, growing) = &mut self.at else {
            if !matches!(self.at, At::Done) && self.respond.poll_reset(poller).is_ready() {
                self.at = At::Done;
            }
            return false;
        };
        let mut moved = false;
        loop {
            if body.is_empty()
                && let Some((source, seen)) = growing
            {
                let (chunks, version, over) = source.after(*seen);
                *seen += chunks.len();
                body.extend(chunks);
                if over {
                    *growing = None;
                } else if body.is_empty() {
                    await_change(awaited, &source.shown, version, queue);
                    return moved;
                }
            }
            let Some(front) = body.front_mut() else {
                // The end comes by itself where all was there before it was known.
                _ = send.send_data(Bytes::new(), true);
                self.at = At::Done;
                return true;
            };
            send.reserve_capacity(front.len().min(BUFFER_BYTES_MAX));
            let mut room = send.capacity();
            if room == 0 {
                match send.poll_capacity(poller) {
                    Poll::Ready(Some(Ok(granted))) => room = granted,
                    Poll::Ready(Some(Err(_)) | None) => {
                        self.at = At::Done;
                        return true;
                    }
                    Poll::Pending => {}
                }
            }
            if room == 0 {
                return moved;
            }
            let part = front.split_to(room.min(front.len()));
            if front.is_empty() {
                body.pop_front();
            }
            let last = body.is_empty() && growing.is_none();
            moved = true;
            if send.send_data(part, last).is_err() || last {
                self.at = At::Done;
                return true;
            }
        }
    }
}

/// A request's head, read as strictly as one of HTTP/1.1.
fn head_of(request: &http::Request<RecvStream>) -> Option<Head> {
    let uri = request.uri();
    let host = uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = host.or_else(|| request.headers().get(http::header::HOST).map(http::HeaderValue::as_bytes))?;
    let path = uri.path_and_query()?.as_str();
    let mut text = format!("{} {path} HTTP/1.1\r\nhost: ", request.method()).into_bytes();
    text.extend_from_slice(host);
    for name in FIELDS {
        for value in request.headers().get_all(name) {
            text.extend_from_slice(b"\r\n");
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
        }
    }
    text.extend_from_slice(b"\r\n\r\n");
    Head::read(&text).ok().flatten()
}
