//! Connections that the server opens by itself: a publish is pushed on to its targets for as long as it lives,
//! and a target that refuses or goes is tried anew. How a socket is opened is not known here: the shard's owner
//! takes [`Errand`]s and asks for the [`Step`]s of each.

use super::{
    Shard,
    connection::Connection,
    port::{CloseReason, Endpoints, Request, Session, Target},
};
use crate::{
    control::{ForwardReport, ForwardState, access, hooks},
    tls,
};
use serde_json::Value;
use std::{net::SocketAddr, os::fd::RawFd, time::Duration};

/// Pause before the second try, in ms; each further one is twice as long.
const PAUSE_MS_MIN: u64 = 250;
/// Longest pause between two tries, in ms. SRS pauses 3 s.
const PAUSE_MS_MAX: u64 = 4000;
/// A connection that has lasted for so long has been a good one, in ms: the next pause is the first again.
const GOOD_MS: u64 = 10_000;
/// Servers that a stream may come through, one after the other.
const PATH_MAX: usize = 16;
/// One line of the log per so many failures in a row.
const FAILURES_PER_LINE: u64 = 100;

/// What the shard's owner has to do for it.
#[derive(Debug)]
pub(crate) enum Errand {
    /// Ask where a publish is pushed on to, until there is an answer ([`Shard::answered`]).
    Ask(Box<hooks::Event>, Box<Follow>),
    /// See to a target: [`Shard::next_step`] says what is to be done, until it says [`Step::End`].
    Dial(usize),
}

/// What is to be done about a target.
#[derive(Debug)]
pub(crate) enum Step {
    /// Open a connection, and [`Shard::insert_outbound`] it, or say [`Shard::not_dialed`].
    Dial {
        host: String,
        port: u16,
    },
    Wait(Duration),
    /// Nothing any more.
    End,
}

/// A publish that is to be pushed on.
#[derive(Clone, Debug)]
pub(crate) struct Follow {
    request: Request,
    path: String,
    ask: Option<Box<hooks::Event>>,
}

/// A target, and how it stands with it.
#[derive(Debug)]
pub(super) struct Outbound {
    target: Box<Target>,
    state: ForwardState,
    since_ms: u64,
    /// When the next try is, in ms.
    due_ms: u64,
    /// In a row.
    failures: u64,
    retries: u64,
    /// Of connections that have ended.
    sent_bytes: u64,
    /// The token of the present one.
    connection: Option<u64>,
    error: String,
}

impl Outbound {
    fn failed(&mut self, now_ms: u64, error: String) {
        let lasted_ms = now_ms.saturating_sub(self.since_ms);
        if self.state == ForwardState::Publishing && lasted_ms >= GOOD_MS {
            self.failures = 0;
        }
        let pause_ms = (PAUSE_MS_MIN << self.failures.min(8)).min(PAUSE_MS_MAX);
        // Those of one server do not come back all at once.
        let pause_ms = pause_ms - fastrand::u64(0..=pause_ms / 4);
        let (stream, to) = (&self.target.request.key, &self.target.name);
        if self.failures.is_multiple_of(FAILURES_PER_LINE) {
            tracing::warn!(%stream, %to, retry_ms = pause_ms, "forward: {error}");
        } else {
            tracing::debug!(%stream, %to, retry_ms = pause_ms, "forward: {error}");
        }
        self.failures += 1;
        self.retries += 1;
        self.enter(ForwardState::Waiting, now_ms);
        self.due_ms = now_ms + pause_ms;
        self.error = error;
    }

    fn enter(&mut self, state: ForwardState, now_ms: u64) {
        self.state = state;
        self.since_ms = now_ms;
    }
}

impl<E: Endpoints> Shard<E> {
    /// This process's mark on a stream that it pushes on.
    fn mark(&self, key: &str) -> String {
        format!("{}/{}", self.shared.service_id, access::stable_id(key))
    }

    /// Whether a stream that comes by a path may be published here, or goes round.
    pub(super) fn goes_round(&self, connection: &Connection<E>, key: &str) -> bool {
        let path = connection.session.peer().path;
        if path.is_empty() {
            return false;
        }
        let mark = self.mark(key);
        path.split(',').count() >= PATH_MAX || path.split(',').any(|other| other == mark)
    }

    /// What is to be done once a publish has begun; `None` if nothing.
    pub(super) fn follow_of(&self, connection: &Connection<E>, request: &Request) -> Option<Box<Follow>> {
        let forward = &request.vhost.forward;
        if forward.is_empty() {
            return None;
        }
        let ask = forward.backend.as_ref().and_then(|url| self.forward_event(connection, request, url));
        let path = connection.session.peer().path;
        let mark = self.mark(&request.key);
        let path = if path.is_empty() { mark } else { format!("{path},{mark}") };
        Some(Box::new(Follow { request: Request { id: 0, ..request.clone() }, path, ask }))
    }

    /// A publish has begun here.
    pub(super) fn follow(&mut self, mut follow: Box<Follow>) {
        match follow.ask.take() {
            Some(event) => {
                self.errands.push(Errand::Ask(event, follow));
                self.wake();
            }
            None => self.push_on(&follow, None),
        }
    }

    /// Takes the answer to where a publish is pushed on to; `None` if that is not good. Tells whether the question is
    /// done with.
    pub(crate) fn answered(&mut self, follow: &Follow, data: Option<&Value>) -> bool {
        if !self.relay.is_published(&follow.request.key) {
            return true;
        }
        let urls = data.and_then(|data| match data.get("urls") {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(urls) => urls.as_array()?.iter().map(|url| url.as_str().map(str::to_owned)).collect(),
        });
        let Some(urls) = urls else { return false };
        self.push_on(follow, Some(&urls));
        true
    }

    fn push_on(&mut self, follow: &Follow, urls: Option<&[String]>) {
        let now_ms = self.shared.now_ms();
        for target in E::targets(&follow.request, urls, &follow.path) {
            // One that is there already goes on, over a takeover or a quick republish.
            let same = |outbound: &Outbound| {
                outbound.target.url == target.url && outbound.target.request.key == target.request.key
            };
            if self.outbound.iter().any(|(_, outbound)| same(outbound)) {
                continue;
            }
            let id = self.outbound.insert(Outbound {
                target: Box::new(target),
                state: ForwardState::Connecting,
                since_ms: now_ms,
                due_ms: now_ms,
                failures: 0,
                retries: 0,
                sent_bytes: 0,
                connection: None,
                error: String::new(),
            });
            self.errands.push(Errand::Dial(id));
        }
        if !self.errands.is_empty() {
            self.wake();
        }
    }

    /// What has come up since this was asked last.
    pub(crate) fn take_errands(&mut self) -> Vec<Errand> {
        std::mem::take(&mut self.errands)
    }

    /// What is to be done about a target now.
    pub(crate) fn next_step(&mut self, id: usize) -> Step {
        let now_ms = self.shared.now_ms();
        let Some(outbound) = self.outbound.get_mut(id) else { return Step::End };
        if !self.relay.is_published(&outbound.target.request.key) {
            self.outbound.remove(id);
            return Step::End;
        }
        if now_ms < outbound.due_ms {
            return Step::Wait(Duration::from_millis(outbound.due_ms - now_ms));
        }
        outbound.enter(ForwardState::Connecting, now_ms);
        Step::Dial { host: outbound.target.host.clone(), port: outbound.target.port }
    }

    /// A target cannot be reached.
    pub(crate) fn not_dialed(&mut self, id: usize, error: String) {
        let now_ms = self.shared.now_ms();
        if let Some(outbound) = self.outbound.get_mut(id) {
            outbound.failed(now_ms, error);
        }
    }

    /// Takes a connection to a target in; returns its place.
    ///
    /// # Errors
    /// There is nothing to be done with it, and why.
    pub(crate) fn insert_outbound(&mut self, id: usize, descriptor: RawFd, peer: SocketAddr) -> Result<usize, String> {
        let outbound = self.outbound.get(id).ok_or("it is not wanted any more")?;
        let session = E::dial(&outbound.target, &self.shared.context()).ok_or("no such place")?;
        let tls = match outbound.target.tls {
            true => Some(self.connector()?.connect(&outbound.target.host).map_err(|error| format!("TLS: {error}"))?),
            false => None,
        };
        if !self.admit() {
            return Err("max_connections".to_owned());
        }
        let place = self.insert_session(descriptor, peer, session);
        let token = self.with(place, |connection| {
            connection.tls = tls.map(Box::new);
            connection.outbound = Some(id);
            connection.token(place)
        });
        self.outbound[id].connection = token;
        Ok(place)
    }

    fn connector(&self) -> Result<&tls::Connector, String> {
        self.shared.connector.get_or_init(tls::Connector::new).as_ref().map_err(Clone::clone)
    }

    /// A connection to a target plays its stream.
    pub(super) fn outbound_plays(&mut self, id: usize) {
        let now_ms = self.shared.now_ms();
        if let Some(outbound) = self.outbound.get_mut(id) {
            outbound.enter(ForwardState::Publishing, now_ms);
            outbound.error.clear();
            tracing::info!(stream = %outbound.target.request.key, to = %outbound.target.name, "forward");
        }
    }

    /// A connection to a target has ended.
    pub(super) fn outbound_ended(&mut self, id: usize, reason: &CloseReason, sent_bytes: u64) {
        let now_ms = self.shared.now_ms();
        let Some(outbound) = self.outbound.get_mut(id) else { return };
        outbound.connection = None;
        outbound.sent_bytes += sent_bytes;
        if matches!(reason, CloseReason::Unpublished) {
            // Another publish, if there is one already, is not to wait.
            outbound.due_ms = now_ms;
        } else {
            outbound.failed(now_ms, reason.to_string());
        }
    }

    /// What the control plane is told of the targets.
    pub(super) fn forward_reports(&self) -> Vec<ForwardReport> {
        let report = |outbound: &Outbound| ForwardReport {
            key: outbound.target.request.key.clone(),
            to: outbound.target.name.clone(),
            state: outbound.state,
            since_ms: outbound.since_ms,
            sent_bytes: outbound.sent_bytes
                + outbound.connection.and_then(|token| self.client(token)).map_or(0, |open| open.sent_bytes),
            retries: outbound.retries,
            error: outbound.error.clone(),
        };
        self.outbound.iter().map(|(_, outbound)| report(outbound)).collect()
    }
}
