//! Playlists, segments and parts: one answer per request, from memory; as values, whatever HTTP's version is.

use super::Wanted;
use crate::{
    config::{Config, Vhost},
    core::port::{Context, Id, Output, Request},
    package::{self, Answer, Asked, Blob, Growing, Playlist, Shelf, Shown, Visit},
    proto::{
        address::StreamAddress,
        http::{Head, range},
    },
};
use bytes::Bytes;
use foldhash::fast::FixedState;
use std::{hash::BuildHasher, sync::Arc, time::SystemTime};

/// How long a request waits for what is to come, in ms: three target durations are usual, and nobody waits for ever.
pub(super) const AWAIT_MS_MAX: u64 = 30_000;
/// How long whoever stands between may keep what never changes.
const CACHED: &str = "max-age=3600";

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
    crossdomain: bool,
    pub(super) head_only: bool,
    pub(super) is_http11: bool,
    visit: Option<Arc<Visit>>,
    /// A stream that is to be fetched for it, by its key.
    fetch: Option<Arc<str>>,
    /// It has been, and is not once more.
    fetched: bool,
}

/// What comes of it.
#[derive(Debug)]
pub(super) enum Step {
    /// It is answered.
    Reply(Reply),
    /// It is to be looked at again when a playlist changes, which is of this version.
    Later(Arc<Shown>, u64),
    /// It may be answered if this visit is allowed, of the stream of a key.
    Ask(Arc<Visit>, Arc<str>),
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    /// Its number and its reason.
    pub(super) status: (u16, &'static str),
    /// Names in lower case, for the second version's sake.
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) body: Body,
}

/// What stands in it.
#[derive(Debug)]
pub(super) enum Body {
    /// Nothing; a status without any.
    None,
    /// So many bytes; none are sent of it in answer to HEAD.
    Whole(u64, Vec<Bytes>),
    /// As much as comes.
    Growing(Arc<Growing>),
}

impl Reply {
    fn new(status: (u16, &'static str), content_type: &str, cache: &str, body: Body) -> Self {
        let fields = vec![("content-type", content_type.to_owned()), ("cache-control", cache.to_owned())];
        Self { status, fields, body }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Says what is wrong.
    pub(super) fn refusal(status: (u16, &'static str), why: &str) -> Self {
        let text = Bytes::from(format!("{why}\n"));
        Self::new(status, "text/plain; charset=utf-8", "no-cache", Body::Whole(text.len() as u64, vec![text]))
    }

    /// What was waited for has not come.
    pub(super) fn late() -> Self {
        Self::refusal((503, "Service Unavailable"), "what is asked for has not come in time")
    }
}

impl Packaged {
    /// A request for something packaged, and what comes of it now; `None` if it is none.
    pub(super) fn read(config: &Config, head: &Head, context: &Context<'_>) -> Option<(Self, Step)> {
        let vhost = config.vhost(&head.vhost()).filter(|vhost| vhost.is_packaged())?;
        if !head.is_plain_get() || head.websocket_key.is_some() {
            return None;
        }
        let (path, query) = (&head.path, &head.query);
        let asked = Asked { vhost, path, query, now_ms: context.now_ms, visit: None };
        let (answer, fetch) = answer(context.shelf, &asked, true);
        let answer = answer?;
        let mut packaged = Self {
            vhost: Arc::clone(vhost),
            host: head.host.clone(),
            path: head.path.clone(),
            query: head.query.clone(),
            range: head.range.clone(),
            if_none_match: head.if_none_match.clone(),
            if_range: head.if_range.clone(),
            accepts_gzip: head.accepts_gzip,
            crossdomain: config.http.crossdomain,
            head_only: head.method == "HEAD",
            is_http11: head.is_http11,
            visit: None,
            fetch,
            fetched: false,
        };
        let step = packaged.step(answer);
        Some((packaged, step))
    }

    /// What comes of it now.
    pub(super) fn look(&mut self, context: &Context<'_>) -> Step {
        let Self { vhost, path, query, visit, fetched, .. } = self;
        let asked = Asked { vhost, path, query, now_ms: context.now_ms, visit: visit.as_ref() };
        let (answer, fetch) = answer(context.shelf, &asked, !*fetched);
        self.fetch = fetch;
        self.step(answer.unwrap_or(Answer::Gone))
    }

    /// The stream that is to be fetched for it, once.
    pub(super) fn take_fetch(&mut self) -> Option<Output<Wanted>> {
        let key = self.fetch.take()?;
        self.fetched = true;
        Some(Output::Fetch(Box::new(self.request(0, &key)?)))
    }

    /// The stream of a key, as it is asked for.
    fn request(&self, id: Id, key: &str) -> Option<Request> {
        let (app, stream) = key.split_once('/').and_then(|(_, url)| url.rsplit_once('/')).unwrap_or(("", key));
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let address = StreamAddress::resolve(&format!("http://{host}/{app}"), app, &format!("{stream}?{}", self.query));
        Some(Request::of(id, address.ok()?, &self.vhost))
    }

    fn step(&mut self, answer: Answer) -> Step {
        match answer {
            Answer::Playlist(playlist) => self.dressed(self.playlist(&playlist)),
            Answer::Blob(blob) => self.dressed(self.blob(&blob)),
            // It has no way to end one response but its length.
            Answer::Growing(growing) if !self.is_http11 => {
                let (_, version, _) = growing.after(0);
                Step::Later(Arc::clone(&growing.shown), version)
            }
            Answer::Growing(growing) => {
                let content_type = growing.content_type;
                self.dressed(Reply::new((200, "OK"), content_type, CACHED, Body::Growing(growing)))
            }
            Answer::Later(shown, version, visit) => {
                self.visit = visit.or(self.visit.take());
                Step::Later(shown, version)
            }
            Answer::Ask(visit, key) => {
                self.visit = Some(Arc::clone(&visit));
                Step::Ask(visit, key)
            }
            Answer::Full => self.refused((503, "Service Unavailable"), "too many players"),
            Answer::Bad(why) => self.refused((400, "Bad Request"), why),
            Answer::Gone => self.refused((404, "Not Found"), "nobody publishes this stream"),
        }
    }

    fn refused(&self, status: (u16, &'static str), why: &str) -> Step {
        self.dressed(Reply::refusal(status, why))
    }

    /// With what every answer has.
    pub(super) fn dressed(&self, mut reply: Reply) -> Step {
        if self.crossdomain {
            reply = reply.with("access-control-allow-origin", "*");
        }
        let date = httpdate::fmt_http_date(SystemTime::now());
        Step::Reply(reply.with("server", "corecast").with("date", date))
    }

    /// What is asked of rules and hooks, and what stands for tcUrl; `None` if there can be no such stream.
    pub(super) fn question(&self, id: Id, visit: Arc<Visit>, key: &str) -> Option<(Output<Wanted>, String)> {
        let request = self.request(id, key)?;
        let tc_url = format!("rtmp://{}/{}", self.vhost.name, request.address.app);
        Some((Output::Play(Box::new(request), Wanted::Visit(visit)), tc_url))
    }

    fn playlist(&self, playlist: &Playlist) -> Reply {
        let cache = if playlist.lasts { CACHED } else { "no-cache" };
        let coded = self.accepts_gzip.then(|| playlist.gzip()).flatten();
        let is_coded = coded.is_some();
        let text = coded.unwrap_or_else(|| playlist.text.clone());
        let tag = entity_tag(FixedState::default().hash_one(&text));
        if self.has(&tag) {
            return unchanged(tag, cache);
        }
        let body = Body::Whole(text.len() as u64, vec![text]);
        let mut reply = Reply::new((200, "OK"), playlist.content_type, cache, body).with("etag", tag);
        if is_coded {
            reply = reply.with("content-encoding", "gzip");
        }
        if playlist.is_shared() { reply.with("vary", "Accept-Encoding") } else { reply }
    }

    fn blob(&self, blob: &Arc<Blob>) -> Reply {
        let tag = entity_tag(blob.tag);
        if self.has(&tag) {
            return unchanged(tag, CACHED);
        }
        // A part of what is there no more is of no use: then it is all.
        let wanted = self.range.as_deref().filter(|_| self.if_range.as_ref().is_none_or(|known| *known == tag));
        let wanted = wanted.and_then(|text| range(text, blob.length));
        let (from, to) = wanted.unwrap_or((0, blob.length));
        let length = blob.length;
        let (status, field) = match wanted {
            None => ((200, "OK"), ("accept-ranges", "bytes".to_owned())),
            Some(_) if from < to => {
                ((206, "Partial Content"), ("content-range", format!("bytes {from}-{}/{length}", to - 1)))
            }
            Some(_) => ((416, "Range Not Satisfiable"), ("content-range", format!("bytes */{length}"))),
        };
        let body = Body::Whole(to - from, part_of(&blob.chunks, from, to));
        Reply::new(status, blob.content_type, CACHED, body).with(field.0, field.1).with("etag", tag)
    }

    /// Whether the client says that it has what a tag is of.
    fn has(&self, tag: &str) -> bool {
        let is_it = |known: &str| known.trim_start_matches("W/") == tag || known == "*";
        self.if_none_match.as_ref().is_some_and(|known| known.split(',').map(str::trim).any(is_it))
    }
}

/// What a request is answered, and a stream that is to be fetched for it: none while others decide whether it may be.
fn answer(shelf: &Shelf, asked: &Asked<'_>, may_fetch: bool) -> (Option<Answer>, Option<Arc<str>>) {
    let fetch = (may_fetch && asked.vhost.cluster.fetches()).then(|| package::to_fetch(shelf, asked)).flatten();
    let answer = package::answer(shelf, asked);
    let may = matches!(answer, Some(Answer::Playlist(_) | Answer::Later(..) | Answer::Gone));
    (answer, fetch.filter(|_| may))
}

/// The client has it (RFC 9110 §15.4.5).
fn unchanged(tag: String, cache: &str) -> Reply {
    let fields = vec![("etag", tag), ("cache-control", cache.to_owned())];
    Reply { status: (304, "Not Modified"), fields, body: Body::None }
}

/// RFC 9110 §8.8.3.
fn entity_tag(of: u64) -> String {
    format!("\"{of:016x}\"")
}

/// Bytes of chunks from a place to another, by reference.
fn part_of(chunks: &[Bytes], from: u64, to: u64) -> Vec<Bytes> {
    let (mut at, mut found) = (0, Vec::with_capacity(chunks.len()));
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
