//! Playlists, segments and parts: one answer per request, from memory.

use super::{HttpSession, State, Wanted, origins};
use crate::{
    config::{Config, Proxies, Vhost},
    core::port::{CloseReason, Context, Output, Request},
    package::{self, Answer, Asked, Blob, Growing, Playlist, Visit},
    proto::{
        address::StreamAddress,
        http::{Head, range},
    },
};
use bytes::Bytes;
use foldhash::fast::FixedState;
use std::{fmt::Write, hash::BuildHasher, sync::Arc, time::SystemTime};

/// How long a request waits for what is to come, in ms: three target durations are usual, and nobody waits for ever.
const AWAIT_MS_MAX: u64 = 30_000;
/// How long whoever stands between may keep what never changes, in seconds.
const CACHED_S: u32 = 3600;

/// A request that is to be answered.
#[derive(Debug)]
pub(super) struct Packaged {
    vhost: Arc<Vhost>,
    host: String,
    path: String,
    query: String,
    range: Option<String>,
    if_none_match: Option<String>,
    if_range: Option<String>,
    accepts_gzip: bool,
    head_only: bool,
    is_http11: bool,
    visit: Option<Arc<Visit>>,
}

impl HttpSession {
    /// Answers a request for something packaged; tells whether it is one.
    pub(super) fn packaged(&mut self, config: &Config, head: &Head, context: &Context<'_>) -> bool {
        let Some(vhost) = config.vhost(&head.vhost()).filter(|vhost| vhost.is_packaged()) else {
            return false;
        };
        if !head.is_plain_get() || head.websocket_key.is_some() {
            return false;
        }
        let (path, query) = (&head.path, &head.query);
        let asked = Asked { vhost, path, query, now_ms: context.now_ms, visit: None };
        let Some(answer) = package::answer(context.shelf, &asked) else { return false };
        self.input.drain(..head.bytes);
        self.position += head.bytes as u64;
        (self.requested, self.heard_ms) = (true, context.now_ms);
        self.crossdomain = config.http.crossdomain;
        self.keep_alive = head.keep_alive;
        self.referer.clone_from(&head.referer);
        self.asked = Some(Box::new(Packaged {
            vhost: Arc::clone(vhost),
            host: head.host.clone(),
            path: path.clone(),
            query: query.clone(),
            range: head.range.clone(),
            if_none_match: head.if_none_match.clone(),
            if_range: head.if_range.clone(),
            accepts_gzip: head.accepts_gzip,
            head_only: head.method == "HEAD",
            is_http11: head.is_http11,
            visit: None,
        }));
        if config.trusted_proxies != Proxies::default() {
            self.queue.push(Output::For(head.forwarded_for.clone()));
        }
        self.give(answer, context.now_ms + AWAIT_MS_MAX, context);
        true
    }

    /// Answers the request at hand, if that can be by now.
    fn answer(&mut self, until_ms: u64, context: &Context<'_>) {
        let Some(asked) = &self.asked else { return };
        let Packaged { vhost, path, query, visit, .. } = &**asked;
        let asked = Asked { vhost, path, query, now_ms: context.now_ms, visit: visit.as_ref() };
        let answer = package::answer(context.shelf, &asked).unwrap_or(Answer::Gone);
        self.give(answer, until_ms, context);
    }

    /// What was waited for has changed.
    pub(super) fn go_on(&mut self, until_ms: u64, context: &Context<'_>) {
        if !self.grow(context) {
            self.answer(until_ms, context);
        }
    }

    /// What was given is sent.
    pub(super) fn sent(&mut self, context: &Context<'_>) {
        if !self.grow(context) {
            self.end_answer(context);
        }
    }

    /// The visit may be.
    pub(super) fn allowed(&mut self, context: &Context<'_>) {
        self.answer(context.now_ms + AWAIT_MS_MAX, context);
    }

    /// What was waited for has not come.
    pub(super) fn give_up(&mut self, context: &Context<'_>) {
        if self.growing.take().is_some() {
            // Only the connection's end can say that this is not all.
            self.queue.push(Output::Leave(CloseReason::ResponseEnded));
            return;
        }
        self.respond("503 Service Unavailable", "what is asked for has not come in time");
        self.end_answer(context);
    }

    /// The answer is on its way: the next request may come, or is there.
    pub(super) fn end_answer(&mut self, context: &Context<'_>) {
        self.asked = None;
        self.state = State::Head;
        self.heard_ms = context.now_ms;
        if !self.keep_alive {
            self.queue.push(Output::Leave(CloseReason::ResponseEnded));
        }
    }

    fn give(&mut self, answer: Answer, until_ms: u64, context: &Context<'_>) {
        match answer {
            Answer::Playlist(playlist) => self.give_playlist(&playlist, context),
            Answer::Blob(blob) => self.give_blob(&blob, context),
            Answer::Growing(growing) => self.give_growing(growing, until_ms, context),
            Answer::Later(shown, version, visit) => {
                if let Some(asked) = &mut self.asked {
                    asked.visit = visit.or(asked.visit.take());
                }
                self.state = State::Awaiting(until_ms);
                self.queue.push(Output::Await(shown, version));
            }
            Answer::Ask(visit, key) => self.ask(visit, &key, context),
            Answer::Full => self.refuse("503 Service Unavailable", "too many players", context),
            Answer::Bad(why) => self.refuse("400 Bad Request", why, context),
            Answer::Gone => self.refuse("404 Not Found", "nobody publishes this stream", context),
        }
    }

    fn refuse(&mut self, status: &str, why: &str, context: &Context<'_>) {
        self.respond(status, why);
        self.end_answer(context);
    }

    /// Asks whether a visit may be.
    fn ask(&mut self, visit: Arc<Visit>, key: &str, context: &Context<'_>) {
        let Some(asked) = &mut self.asked else { return };
        let (app, stream) = key.split_once('/').and_then(|(_, url)| url.rsplit_once('/')).unwrap_or(("", key));
        let host = if asked.host.contains(':') { format!("[{}]", asked.host) } else { asked.host.clone() };
        let address =
            StreamAddress::resolve(&format!("http://{host}/{app}"), app, &format!("{stream}?{}", asked.query));
        self.tc_url = format!("rtmp://{}/{app}", asked.vhost.name);
        let Ok(address) = address else { return self.refuse("404 Not Found", "no such stream", context) };
        let request = Request::of(0, address, &asked.vhost);
        asked.visit = Some(Arc::clone(&visit));
        self.state = State::Visiting;
        self.queue.push(Output::Play(Box::new(request), Wanted::Visit(visit)));
    }

    fn give_playlist(&mut self, playlist: &Playlist, context: &Context<'_>) {
        let Some(asked) = &self.asked else { return };
        let cache = if playlist.lasts { format!("max-age={CACHED_S}") } else { "no-cache".to_owned() };
        let coded = asked.accepts_gzip.then(|| playlist.gzip()).flatten();
        let mut more = String::new();
        if coded.is_some() {
            more.push_str("Content-Encoding: gzip\r\n");
        }
        if playlist.is_shared() {
            more.push_str("Vary: Accept-Encoding\r\n");
        }
        let text = coded.unwrap_or_else(|| playlist.text.clone());
        let tag = entity_tag(FixedState::default().hash_one(&text));
        if asked.has(&tag) {
            return self.give_nothing(&tag, &cache, context);
        }
        let head_only = asked.head_only;
        _ = write!(more, "ETag: {tag}\r\n");
        let head = self.head_of("200 OK", playlist.content_type, Some(text.len() as u64), &cache, &more);
        self.output.extend_from_slice(head.as_bytes());
        if head_only {
            self.end_answer(context);
        } else {
            self.send(vec![text]);
        }
    }

    /// The client has it (RFC 9110 §15.4.5).
    fn give_nothing(&mut self, tag: &str, cache: &str, context: &Context<'_>) {
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        let head = format!(
            "HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\nCache-Control: {cache}\r\nConnection: {connection}\r\n{}Server: corecast\r\nDate: {}\r\n\r\n",
            origins(self.crossdomain),
            httpdate::fmt_http_date(SystemTime::now())
        );
        self.output.extend_from_slice(head.as_bytes());
        self.end_answer(context);
    }

    fn give_blob(&mut self, blob: &Arc<Blob>, context: &Context<'_>) {
        let Some(asked) = &self.asked else { return };
        let (tag, cache) = (entity_tag(blob.tag), format!("max-age={CACHED_S}"));
        if asked.has(&tag) {
            return self.give_nothing(&tag, &cache, context);
        }
        // A part of what is there no more is of no use: then it is all.
        let wanted = asked.range.as_deref().filter(|_| asked.if_range.as_ref().is_none_or(|known| *known == tag));
        let (wanted, head_only) = (wanted.and_then(|text| range(text, blob.length)), asked.head_only);
        let (from, to) = wanted.unwrap_or((0, blob.length));
        let (status, more) = match wanted {
            None => ("200 OK", "Accept-Ranges: bytes\r\n".to_owned()),
            Some(_) if from < to => {
                ("206 Partial Content", format!("Content-Range: bytes {from}-{}/{}\r\n", to - 1, blob.length))
            }
            Some(_) => ("416 Range Not Satisfiable", format!("Content-Range: bytes */{}\r\n", blob.length)),
        };
        let more = format!("{more}ETag: {tag}\r\n");
        let head = self.head_of(status, blob.content_type, Some(to - from), &cache, &more);
        self.output.extend_from_slice(head.as_bytes());
        if head_only || from == to {
            return self.end_answer(context);
        }
        self.send(part_of(&blob.chunks, from, to));
    }

    /// A segment that is being made: what there is of it at once, the rest as it comes.
    fn give_growing(&mut self, growing: Arc<Growing>, until_ms: u64, context: &Context<'_>) {
        let Some(asked) = &self.asked else { return };
        if !asked.is_http11 {
            // It has no way to end one response but its length.
            let (_, version, _) = growing.after(0);
            self.state = State::Awaiting(until_ms);
            return self.queue.push(Output::Await(Arc::clone(&growing.shown), version));
        }
        let head_only = asked.head_only;
        let head = self.head_of("200 OK", growing.content_type, None, &format!("max-age={CACHED_S}"), "");
        self.output.extend_from_slice(head.as_bytes());
        if head_only {
            return self.end_answer(context);
        }
        self.growing = Some((growing, 0));
        self.grow(context);
    }

    /// Sends what has come of a segment that is being made, or waits for more; tells whether there is one.
    fn grow(&mut self, context: &Context<'_>) -> bool {
        let Some((growing, seen)) = &mut self.growing else { return false };
        let (chunks, version, over) = growing.after(*seen);
        *seen += chunks.len();
        if chunks.is_empty() && !over {
            self.state = State::Awaiting(context.now_ms + AWAIT_MS_MAX);
            self.queue.push(Output::Await(Arc::clone(&growing.shown), version));
            return true;
        }
        let mut body = Vec::with_capacity(3 * chunks.len() + 1);
        for chunk in chunks {
            body.push(format!("{:x}\r\n", chunk.len()).into());
            body.extend([chunk, Bytes::from_static(b"\r\n")]);
        }
        if over {
            body.push(Bytes::from_static(b"0\r\n\r\n"));
            self.growing = None;
        }
        self.send(body);
        true
    }

    fn send(&mut self, chunks: Vec<Bytes>) {
        self.state = State::Sending;
        self.queue.push(Output::Body(chunks));
    }

    fn head_of(&self, status: &str, content_type: &str, length: Option<u64>, cache: &str, more: &str) -> String {
        let mut head = String::with_capacity(384);
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        let length = length
            .map_or_else(|| "Transfer-Encoding: chunked".to_owned(), |length| format!("Content-Length: {length}"));
        // A string takes whatever is written.
        _ = write!(
            head,
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{length}\r\nCache-Control: {cache}\r\n\
             Connection: {connection}\r\n{more}{}Server: corecast\r\nDate: {}\r\n\r\n",
            origins(self.crossdomain),
            httpdate::fmt_http_date(SystemTime::now())
        );
        head
    }
}

impl Packaged {
    /// Whether the client says that it has what a tag is of.
    fn has(&self, tag: &str) -> bool {
        let is_it = |known: &str| known.trim_start_matches("W/") == tag || known == "*";
        self.if_none_match.as_ref().is_some_and(|known| known.split(',').map(str::trim).any(is_it))
    }
}

/// RFC 9110 §8.8.3.
fn entity_tag(of: u64) -> String {
    format!("\"{of:016x}\"")
}

/// Bytes of chunks from a place to another, by reference.
fn part_of(chunks: &[Bytes], from: u64, to: u64) -> Vec<Bytes> {
    let mut at = 0;
    let mut found = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let end = at + chunk.len() as u64;
        if end > from && at < to {
            let place = |place: u64| usize::try_from(place.saturating_sub(at)).unwrap_or(usize::MAX).min(chunk.len());
            found.push(chunk.slice(place(from)..place(to)));
        }
        at = end;
    }
    found
}
