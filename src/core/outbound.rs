//! Connections that the server opens by itself: a publish is pushed on to its targets for as long as it lives, a stream
//! is fetched from one of several for as long as it is wanted, and a target that refuses or goes is tried anew. How a
//! socket is opened is not known here: the shard's owner takes [`Errand`]s and asks for the [`Step`]s of each.

use super::{
    Shard,
    attempt::Outbound,
    connection::Connection,
    origins::Wish,
    port::{CloseReason, Endpoints, Request, Session, Target, Way},
};
use crate::{
    cluster::Place,
    control::{ForwardReport, ForwardState, access, hooks},
    tls,
};
use serde_json::Value;
use std::{net::SocketAddr, os::fd::RawFd, time::Duration};

/// A stream whose playlist was asked for is tried to be fetched for so long, in ms.
const ASKED_MS: u64 = 30_000;
/// Servers that a stream may come through, one after the other.
const PATH_MAX: usize = 16;
/// Servers that one may send us on to, one after the other.
const HOPS_MAX: u32 = 3;
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
        /// How long one address may take to answer.
        within: Duration,
    },
    Wait(Duration),
    /// Say [`Shard::located`] with the answer to this.
    Locate(async_channel::Receiver<Option<Place>>),
    /// Nothing any more.
    End,
}

/// A publish that is to be pushed on.
#[derive(Clone, Debug)]
pub(crate) struct Follow {
    request: Request,
    path: String,
    forwards: bool,
    ask: Option<Box<hooks::Event>>,
    /// It is an edge's, and goes to an origin.
    relayed: bool,
}

impl<E: Endpoints> Shard<E> {
    /// This process's mark on a stream that it pushes on or fetches.
    fn mark(&self, key: &str) -> String {
        format!("{}/{}", self.shared.service_id, access::stable_id(key))
    }

    /// A path that comes here, with our mark behind it.
    pub(super) fn path_on(&self, path: &str, key: &str) -> String {
        let mark = self.mark(key);
        if path.is_empty() { mark } else { format!("{path},{mark}") }
    }

    /// Whether a stream that comes or is wanted by a path goes round.
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
        // What has been fetched is there already.
        let relayed = request.vhost.cluster.is_edge() && connection.outbound.is_none();
        if forward.is_empty() && !relayed {
            return None;
        }
        let ask = forward.backend.as_ref().and_then(|url| self.forward_event(connection, request, url));
        let path = self.path_on(connection.session.peer().path, &request.key);
        let request = Request { id: 0, ..request.clone() };
        Some(Box::new(Follow { request, path, forwards: !forward.is_empty(), ask, relayed }))
    }

    /// A publish has begun here.
    pub(super) fn follow(&mut self, mut follow: Box<Follow>) {
        if std::mem::take(&mut follow.relayed) {
            let targets = E::origins(&follow.request, Way::Relay, false, &follow.path, None);
            self.see_to(targets);
        }
        match follow.ask.take() {
            Some(event) => {
                self.errands.push(Errand::Ask(event, follow));
                self.wake();
            }
            None if follow.forwards => self.push_on(&follow, None),
            None => {}
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
        for target in E::targets(&follow.request, urls, &follow.path) {
            self.see_to(vec![target]);
        }
    }

    /// Has a stream fetched, so much later, unless it is already.
    pub(super) fn fetch(&mut self, wish: Wish, pause_ms: u64) {
        if !self.fetches.insert(wish.request.key.clone()) {
            return;
        }
        let now_ms = self.shared.now_ms();
        let targets = self.targets_of(&wish);
        let at = self.shared.origins.first(&targets, now_ms);
        let key = wish.request.key.clone();
        let begun = Outbound::new(targets, at, now_ms, now_ms + pause_ms);
        self.insert_targets(Outbound { key, wish: Some(Box::new(wish)), ..begun });
    }

    /// Sees to it that one of the targets is had, from now on.
    fn see_to(&mut self, targets: Vec<Target>) {
        let Some(first) = targets.first() else { return };
        // One that is there already goes on, over a takeover or a quick republish.
        let same = |outbound: &Outbound| {
            let url = outbound.targets.first().map(|known| &known.url);
            (outbound.way, url, &outbound.key) == (first.way, Some(&first.url), &first.request.key)
        };
        if self.outbound.iter().any(|(_, outbound)| same(outbound)) {
            return;
        }
        let now_ms = self.shared.now_ms();
        let at = if targets.len() > 1 { self.shared.origins.first(&targets, now_ms) } else { 0 };
        self.insert_targets(Outbound::new(targets, at, now_ms, now_ms));
    }

    fn insert_targets(&mut self, outbound: Outbound) {
        let id = self.outbound.insert(outbound);
        self.errands.push(Errand::Dial(id));
        self.wake();
    }

    /// Asks an origin whether somebody may play.
    pub(super) fn ask_origin(&mut self, request: &Request, path: &str) -> async_channel::Receiver<hooks::Verdict> {
        let (reply, answer) = async_channel::bounded(1);
        let path = self.path_on(path, &request.key);
        let targets = E::origins(&Request { id: 0, ..request.clone() }, Way::Ask, false, &path, None);
        let now_ms = self.shared.now_ms();
        let at = self.shared.origins.first(&targets, now_ms);
        if !targets.is_empty() {
            self.insert_targets(Outbound { reply: Some(reply), ..Outbound::new(targets, at, now_ms, now_ms) });
        }
        answer
    }

    /// What has come up since this was asked last.
    pub(crate) fn take_errands(&mut self) -> Vec<Errand> {
        self.fetch_wanted();
        std::mem::take(&mut self.errands)
    }

    /// What is to be done about a target now.
    pub(crate) fn next_step(&mut self, id: usize) -> Step {
        let now_ms = self.shared.now_ms();
        let Some(outbound) = self.outbound.get(id) else { return Step::End };
        let (key, way) = (outbound.key().to_owned(), outbound.way());
        let published = self.relay.is_published(&key);
        let wanted = match way {
            Way::Forward => published,
            // What comes from an origin is not taken there.
            Way::Relay => published && !self.relay.has_fetcher(&key),
            Way::Ask => outbound.reply.as_ref().is_some_and(|reply| !reply.is_closed()),
            Way::Fetch => self.relay.is_fetched(&key) && !published && self.is_wanted(&key, ASKED_MS, now_ms),
        };
        if !wanted {
            self.outbound.remove(id);
            if way == Way::Fetch {
                self.fetches.remove(&key);
                self.relay.end_fetch(&key);
                self.shared.shelf.give_up(&key);
            }
            return Step::End;
        }
        let outbound = &mut self.outbound[id];
        if now_ms < outbound.due_ms {
            return Step::Wait(Duration::from_millis(outbound.due_ms - now_ms));
        }
        outbound.enter(ForwardState::Connecting, now_ms);
        let Some(Target { host, port, patience_ms, .. }) = outbound.target() else {
            let wish = outbound.wish.clone();
            return wish.map_or(Step::End, |wish| Step::Locate(self.locate(&wish)));
        };
        Step::Dial { host: host.clone(), port: *port, within: Duration::from_millis(*patience_ms) }
    }

    /// A target cannot be reached.
    pub(crate) fn not_dialed(&mut self, id: usize, error: String) {
        self.outbound_failed(id, error, true);
    }

    /// Takes a connection to a target in; returns its place.
    ///
    /// # Errors
    /// There is nothing to be done with it, and why.
    pub(crate) fn insert_outbound(&mut self, id: usize, descriptor: RawFd, peer: SocketAddr) -> Result<usize, String> {
        let outbound = self.outbound.get(id).ok_or("it is not wanted any more")?;
        let target = outbound.target().ok_or("it is not known where")?;
        let session = E::dial(target, &self.shared.context()).ok_or("no such place")?;
        let tls = match target.tls {
            true => Some(self.connector()?.connect(&target.host).map_err(|error| format!("TLS: {error}"))?),
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

    /// Media flows on a connection that was opened to a target.
    pub(super) fn outbound_flows(&mut self, id: usize) {
        let now_ms = self.shared.now_ms();
        let Some(outbound) = self.outbound.get_mut(id) else { return };
        (outbound.served, outbound.refusals, outbound.hops) = (true, 0, 0);
        outbound.error.clear();
        let (stream, to) = (outbound.key(), outbound.name());
        let state = match outbound.way() {
            Way::Fetch => {
                tracing::info!(%stream, from = %to, "fetch");
                ForwardState::Playing
            }
            Way::Forward | Way::Relay | Way::Ask => {
                tracing::info!(%stream, %to, "forward");
                ForwardState::Publishing
            }
        };
        self.outbound[id]
            .targets
            .get(self.outbound[id].at)
            .into_iter()
            .for_each(|target| self.shared.origins.note_success(target));
        self.outbound[id].enter(state, now_ms);
    }

    /// A connection that was opened to a target has ended.
    pub(super) fn outbound_ended(&mut self, id: usize, reason: &CloseReason, connection: &Connection<E>) {
        let now_ms = self.shared.now_ms();
        let Some(outbound) = self.outbound.get_mut(id) else { return };
        outbound.connection = None;
        let fetches = outbound.way() == Way::Fetch;
        outbound.bytes += if fetches { connection.received_bytes } else { connection.sent_bytes };
        if let CloseReason::Refused(why) = reason
            && let Some(reply) = outbound.reply.take()
        {
            // Whoever asked may have gone.
            drop(reply.try_send(hooks::Verdict::Refused(why.clone())));
        } else if let Some(reply) = outbound.reply.take_if(|_| matches!(reason, CloseReason::ResponseEnded)) {
            drop(reply.try_send(hooks::Verdict::Allowed(Value::Null)));
        } else if matches!(reason, CloseReason::Unpublished | CloseReason::Unseen(_) | CloseReason::Replaced) {
            // Another publish, if there is one already, is not to wait; nor who plays again.
            outbound.enter(ForwardState::Waiting, now_ms);
            (outbound.due_ms, outbound.lost) = (now_ms, None);
        } else if let CloseReason::Redirected(url) = reason {
            self.outbound_sent_on(id, url);
        } else {
            let refused = matches!(reason, CloseReason::Refused(_));
            let fault = !refused && !matches!(reason, CloseReason::ResponseEnded);
            self.outbound_failed(id, reason.to_string(), fault);
            if refused {
                self.outbound_refused(id, reason);
            }
        }
    }

    /// The target at hand says where else it is.
    fn outbound_sent_on(&mut self, id: usize, url: &str) {
        let now_ms = self.shared.now_ms();
        let Some(outbound) = self.outbound.get_mut(id) else { return };
        let known = outbound.target().filter(|_| outbound.hops < HOPS_MAX);
        match known.and_then(|target| E::redirected(target, url)) {
            Some(target) => {
                outbound.hops += 1;
                tracing::debug!(stream = %outbound.key(), to = %target.name, "sent elsewhere");
                outbound.detour = Some(Box::new(target));
                outbound.due_ms = now_ms;
            }
            None => {
                outbound.hops = 0;
                self.outbound_failed(id, format!("it sends us to {url}, which is no use"), false);
            }
        }
    }

    /// The target at hand will not do: on to the next. It is to blame, or there is just nothing to be had.
    fn outbound_failed(&mut self, id: usize, error: String, to_blame: bool) {
        let now_ms = self.shared.now_ms();
        let Some(outbound) = self.outbound.get_mut(id) else { return };
        let count = outbound.targets.len();
        if let Some(target) = outbound.targets.get(outbound.at).filter(|_| to_blame) {
            self.shared.origins.note_failure(target, now_ms);
        }
        let next =
            if count > 1 { self.shared.origins.next(&outbound.targets, (outbound.at + 1) % count, now_ms) } else { 0 };
        let all = outbound.failed(now_ms, next, error);
        if let Some(reply) = outbound.reply.take_if(|_| all) {
            drop(reply.try_send(hooks::Verdict::Refused(format!("no origin can be asked: {}", outbound.error))));
        }
        if outbound.way() != Way::Fetch {
            return;
        }
        let key = outbound.key().to_owned();
        // Who has it is asked anew where that is not written down.
        let wish = outbound.wish.clone();
        let located = wish.is_some_and(|wish| self.is_located(&wish));
        let Some(outbound) = self.outbound.get_mut(id) else { return };
        if located {
            outbound.targets.clear();
        }
        if all {
            self.relay.fetch_failed(&key);
            self.shared.shelf.give_up(&key);
        }
        // Somebody has asked since with another token, perhaps.
        if let Some(wish) = self.shared.origins.take_wish(&key) {
            let targets = self.targets_of(&wish);
            if targets.len() == count && !located {
                self.outbound[id].targets = targets;
            }
            self.outbound[id].wish = Some(Box::new(wish));
        }
    }

    /// What the control plane is told of the targets.
    pub(super) fn forward_reports(&self) -> Vec<ForwardReport> {
        let report = |outbound: &Outbound| {
            let fetched = outbound.way() == Way::Fetch;
            let open = outbound.connection.and_then(|token| self.client(token));
            ForwardReport {
                key: outbound.key().to_owned(),
                fetched,
                to: outbound.name().to_owned(),
                state: outbound.state,
                since_ms: outbound.since_ms,
                bytes: outbound.bytes
                    + open.map_or(0, |open| if fetched { open.received_bytes } else { open.sent_bytes }),
                retries: outbound.retries,
                error: outbound.error.clone(),
            }
        };
        let asked = |(_, outbound): &(usize, &Outbound)| outbound.way() != Way::Ask;
        self.outbound.iter().filter(asked).map(|(_, outbound)| report(outbound)).collect()
    }
}
