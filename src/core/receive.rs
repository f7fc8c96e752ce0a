//! What peers send, and what comes of it.

use super::{
    Outcome, Question, SCRATCH_BYTES, Shard, ShardMessage,
    access::Access,
    audience::AtEnd,
    budget::Budget,
    connection::{Connection, Pending, Turn, Wanted, Wish},
    member,
    origins::Wish as Asked,
    play::Play,
    port::{CloseReason, Connect, Endpoints, Id, Output, Request, Session, Sink, Word},
    publish::Publish,
    settings::stream_settings,
};
use crate::{
    config::Action,
    mesh::{relay::StreamId, seats::Seat},
    proto::proxy,
    sys,
};
use std::{borrow::Cow, sync::Arc};

/// Messages, and bytes, that a publisher may send at a time, though another shard is behind with its stream.
const MESSAGES_AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = SCRATCH_BYTES;

/// Replies that may wait while a peer does not read.
const REPLY_BYTES_MAX: usize = 256 << 10;

impl<E: Endpoints> Shard<E> {
    /// Feeds received bytes to a connection and does what its peer wants.
    pub(crate) fn receive(&mut self, id: usize, bytes: &[u8]) -> Outcome {
        self.stats.bytes_received.add(bytes.len() as u64);
        self.work_on(id, |shard, connection| shard.receive_wire(id, connection, bytes))
    }

    /// Goes on with bytes of a connection that were read before, out of their wrapping.
    pub(crate) fn receive_unread(&mut self, id: usize, bytes: &[u8]) -> Outcome {
        self.work_on(id, |shard, connection| shard.receive_plain(id, connection, bytes))
    }

    /// Works on a connection, and sends what comes of it.
    pub(super) fn work_on(
        &mut self,
        id: usize,
        work: impl FnOnce(&mut Self, &mut Connection<E>) -> Outcome,
    ) -> Outcome {
        let Some(mut connection) = self.connections.get_mut(id).and_then(Option::take) else {
            return Outcome::Close(CloseReason::PeerClosed);
        };
        // What others have sent is not this connection's to wait for.
        self.relay.take_congested();
        self.relay.take_crowded();
        let outcome = work(self, &mut connection);
        let replies_unread = connection.session.output_len() > REPLY_BYTES_MAX;
        self.put_back(id, connection);
        self.flush_guarded(id, Turn::Own);
        self.arm_connection(id);
        self.flush_changed();
        self.pump();
        if replies_unread { Outcome::Close(CloseReason::RepliesUnread) } else { outcome }
    }

    pub(super) fn put_back(&mut self, id: usize, connection: Box<Connection<E>>) {
        if let Some(place) = self.connections.get_mut(id) {
            *place = Some(connection);
        }
    }

    /// What stands on the wire: a proxy's header, then TLS or the session's bytes.
    fn receive_wire(&mut self, id: usize, connection: &mut Connection<E>, bytes: &[u8]) -> Outcome {
        let header;
        let mut input = bytes;
        if let Some(mut waiting) = connection.proxy.take() {
            if !self.shared.config().trusted_proxies.may_open(connection.peer.ip()) {
                let why = "a proxy header from an address that is not in trusted_proxies";
                return Outcome::Close(CloseReason::Protocol(why.to_owned()));
            }
            waiting.extend_from_slice(bytes);
            header = waiting;
            match proxy::read(&header) {
                Ok(Some(read)) => {
                    connection.real_peer = read.peer;
                    input = &header[read.bytes..];
                }
                Ok(None) => {
                    connection.proxy = Some(header);
                    return Outcome::Continue;
                }
                Err(error) => return Outcome::Close(CloseReason::Protocol(error.to_string())),
            }
        }
        let plain = match connection.tls.as_mut().map(|tls| tls.receive(input)) {
            None => Cow::Borrowed(input),
            Some(Ok(plain)) => Cow::Owned(plain),
            Some(Err(error)) => return Outcome::Close(error.into()),
        };
        // Here alone: what is left unread comes to `receive_plain` again.
        connection.received_bytes += plain.len() as u64;
        self.receive_plain(id, connection, &plain)
    }

    fn receive_plain(&mut self, id: usize, connection: &mut Connection<E>, mut input: &[u8]) -> Outcome {
        let mut budget = Budget::turn();
        let (many, mut messages) = (input.len() >= BYTES_AT_ONCE, 0);
        loop {
            if connection.leaving.is_some() || connection.closing.is_some() {
                // It is closed as soon as it has been told why.
                return Outcome::Continue;
            }
            let before = input.len();
            let context = self.shared.context();
            connection.heard_ms = context.now_ms;
            if let Err(reason) = connection.session.receive(&mut input, &context) {
                return Outcome::Close(reason);
            }
            let mut any = false;
            while let Some(output) = connection.session.poll() {
                any = true;
                match self.act(id, connection, output) {
                    Outcome::Continue | Outcome::Later { .. } => {}
                    Outcome::Move { home, .. } => return Outcome::Move { home, unread: input.to_vec() },
                    Outcome::Retry { .. } => return Outcome::Retry { unread: input.to_vec() },
                    Outcome::Ask { question, .. } => return Outcome::Ask { question, unread: input.to_vec() },
                    Outcome::HandOver => return Outcome::HandOver,
                    Outcome::Close(reason) => return Outcome::Close(reason),
                }
            }
            let answers = connection.session.is_answering();
            if answers && (!input.is_empty() || connection.session.has_input()) {
                return Outcome::Later { unread: input.to_vec() };
            }
            if !any && input.len() == before {
                return Outcome::Continue;
            }
            messages += 1;
            connection.congested = self.relay.take_congested().or(connection.congested);
            if many || messages >= MESSAGES_AT_ONCE {
                connection.congested = self.relay.take_crowded().or(connection.congested);
            }
            if self.has_to_wait(connection) || budget.spend(1) {
                return Outcome::Later { unread: input.to_vec() };
            }
        }
    }

    /// Whether other shards have to take or answer something before more of a connection is read.
    fn has_to_wait(&mut self, connection: &mut Connection<E>) -> bool {
        if connection.closing.is_some() || connection.leaving.is_some() {
            return false;
        }
        let relay = &mut self.relay;
        connection.congested.take_if(|shard| !relay.is_full(*shard));
        connection.session.is_answering() && connection.session.has_input()
            || connection.congested.is_some()
            || connection.publishes.iter().any(Publish::is_pending)
    }

    /// Whether a connection goes on that had to wait.
    pub(crate) fn may_go_on(&mut self, id: usize) -> bool {
        let Some(mut connection) = self.connections.get_mut(id).and_then(Option::take) else { return true };
        let waits = self.has_to_wait(&mut connection);
        self.put_back(id, connection);
        !waits
    }

    /// Does what a session says.
    pub(super) fn act(&mut self, id: usize, connection: &mut Connection<E>, output: Output<E::Sink>) -> Outcome {
        match output {
            Output::Tag(publish, tag) => return self.media(id, connection, publish, tag),
            Output::Ready(note) => tracing::debug!(peer = %connection.named(), "handshake{note}"),
            Output::Connect(connect) => return self.wants_connection(connection, &connect),
            Output::Publish(request) => return self.wants_publish(id, connection, request),
            Output::Play(request, sink) => return self.wants_play(id, connection, request, sink),
            Output::Close(what) => self.close_service(id, connection, what),
            Output::Pause(play, paused) => {
                if let Some(found) = connection.plays.iter_mut().find(|known| known.id == play) {
                    found.paused = paused;
                    connection.session.told(Word::Paused(play, paused), &self.shared.context());
                }
            }
            Output::Want(play, kind, wanted) => {
                if let Some(found) = connection.plays.iter_mut().find(|known| known.id == play) {
                    found.sink.want(kind, wanted);
                }
            }
            Output::For(list) => {
                let from = connection.real_peer.unwrap_or(connection.peer).ip();
                connection.forwarded = self.shared.config().trusted_proxies.client_of(from, &list);
            }
            Output::Body(chunks) => connection.body.extend(chunks),
            Output::Await(shown, version) => self.await_change(id, connection, &shown, version),
            Output::Fetch(request) => self.fetch_for(connection, *request),
            Output::HandOver => return Outcome::HandOver,
            Output::Useless(reason) => {
                if connection.plays.is_empty() && connection.publishes.is_empty() {
                    return Outcome::Close(reason);
                }
            }
            Output::Leave(reason) => connection.leaving = connection.leaving.take().or(Some(reason)),
        }
        Outcome::Continue
    }

    /// Tells a session something, and does what it says to that.
    pub(super) fn tell_session(&mut self, id: usize, connection: &mut Connection<E>, word: Word<'_>) -> Outcome {
        connection.session.told(word, &self.shared.context());
        while let Some(output) = connection.session.poll() {
            match self.act(id, connection, output) {
                Outcome::Continue => {}
                outcome @ (Outcome::Later { .. }
                | Outcome::Move { .. }
                | Outcome::Retry { .. }
                | Outcome::Ask { .. }
                | Outcome::HandOver
                | Outcome::Close(_)) => return outcome,
            }
        }
        Outcome::Continue
    }

    /// A connection. As SRS has it, hooks are asked when it is known what for: with its first stream.
    fn wants_connection(&mut self, connection: &mut Connection<E>, connect: &Connect) -> Outcome {
        connection.unasked = connection.outbound.is_none();
        connection.on_close = self.close_event(connection, &connect.vhost, &connect.app);
        connection.session.told(Word::Connected, &self.shared.context());
        Outcome::Continue
    }

    /// A play, before it is known whether it may be.
    pub(super) fn wants_play(
        &mut self,
        id: usize,
        connection: &mut Connection<E>,
        request: Box<Request>,
        sink: E::Sink,
    ) -> Outcome {
        if let Some(outbound) = connection.outbound {
            // The server's own: nobody is asked.
            return match self.outbound_may_play(outbound, &request.key) {
                true => self.begin_play(id, connection, &request, sink, None),
                false => Outcome::Close(CloseReason::Unpublished),
            };
        }
        if let Some(why) = self.short_of_memory() {
            self.stats.refused_for_memory.add(1);
            return self.tell_session(id, connection, Word::Busy(request.id, why));
        }
        if let Some(event) = self.connect_event(connection, &request) {
            connection.wish = Some(Wish::Connect(Box::new(Wanted::Play(request, sink))));
            return Outcome::Ask { question: Question::Hooks(event), unread: Vec::new() };
        }
        if request.vhost.cluster.fetches() && self.goes_round(connection, &request.key) {
            let why = format!("{}: it is wanted from here: edges that fetch from each other", request.key);
            return self.refuse_play(id, connection, &request, &why);
        }
        match self.access(connection, Action::Play, &request) {
            Access::Granted => self.play_if_origin_allows(connection, id, request, sink),
            Access::Refused(why) => self.refuse_play(id, connection, &request, &why),
            Access::Ask(event) => {
                connection.wish = Some(Wish::Play(request, sink));
                Outcome::Ask { question: Question::Hooks(event), unread: Vec::new() }
            }
        }
    }

    pub(super) fn refuse_play(
        &mut self,
        id: usize,
        connection: &mut Connection<E>,
        request: &Request,
        why: &str,
    ) -> Outcome {
        tracing::debug!(peer = %connection.named(), stream = %request.key, "play refused: {why}");
        self.tell_session(id, connection, Word::PlayRefused(request.id, why))
    }

    /// A play, here or where the stream is at home.
    pub(super) fn play(
        &mut self,
        id: usize,
        connection: &mut Connection<E>,
        request: Box<Request>,
        sink: E::Sink,
    ) -> Outcome {
        if let Some(visit) = sink.visit() {
            let visit = Arc::clone(visit);
            return self.begin_visit(id, connection, &request, visit, sink.client_type());
        }
        let free = !connection.stays && connection.plays.is_empty() && connection.publishes.is_empty();
        if free
            && let Some(home) = self.relay.better_home(&request.key)
            && let Some(seat) = self.shared.seats.take(&request.key)
        {
            connection.pending = Some(Pending::Play(request, sink, seat));
            return Outcome::Move { home, unread: Vec::new() };
        }
        self.begin_play(id, connection, &request, sink, None)
    }

    pub(super) fn begin_play(
        &mut self,
        id: usize,
        connection: &mut Connection<E>,
        request: &Request,
        sink: E::Sink,
        seat: Option<Seat>,
    ) -> Outcome {
        connection.stays = true;
        let Request { id: play, key, vhost, .. } = request;
        let on_stop = match connection.outbound {
            Some(outbound) => {
                self.outbound_flows(outbound);
                AtEnd::default()
            }
            None => self.stop_event(connection, request),
        };
        // A second play under the same number replaces the first one (RTMP 1.0 §7.2.2.1).
        self.close_service(id, connection, *play);
        #[cfg(test)]
        assert!(!key.ends_with("/panic"), "a test asked for a panic");
        let stream = self.relay.open(key, stream_settings(vhost));
        self.note_wish(connection, request, &sink, stream);
        let Some(found) = self.relay.stream_mut(stream) else { return Outcome::Continue };
        let now_ms = self.shared.now_ms();
        let subscription = found.replica.subscribe().with_burst(sink.burst_ms());
        let reader = sink.rendition().map(|kind| found.replica.attach(kind));
        found.replica.schedule.add(member(id, *play), found.replica.holds_from(&subscription, now_ms));
        sys::set_nodelay(connection.descriptor, vhost.tcp_nodelay);
        tracing::debug!(peer = %connection.named(), stream = %key, client = sink.client_type(), wrapping = sink.wrapping(), "play");
        let mut new = Play::new(*play, stream, subscription, sink);
        (new.on_stop, new.seat, new.reader) = (on_stop, seat, reader);
        connection.plays.push(new);
        self.stats.players.add(1);
        self.stats.clients.add(1);
        let outcome = self.tell_session(id, connection, Word::Opened(*play));
        // The shard's loop learns of the stream's flush times.
        self.relay.arm(stream, now_ms);
        self.wake();
        outcome
    }

    /// Takes note of how a stream was asked for that may be to be fetched.
    fn note_wish(&self, connection: &Connection<E>, request: &Request, sink: &E::Sink, stream: StreamId) {
        let live = self.relay.stream(stream).is_some_and(|stream| stream.replica.is_live());
        if request.vhost.cluster.fetches() && !live {
            let path = connection.session.peer().path.to_owned();
            let by_flv = sink.takes_flv();
            self.shared.origins.wish(Asked { request: request.clone(), path, by_flv });
        }
    }

    /// Somebody wants what is made of a stream.
    fn fetch_for(&mut self, connection: &Connection<E>, request: Request) {
        let (key, settings) = (request.key.clone(), stream_settings(&request.vhost));
        let path = connection.session.peer().path.to_owned();
        self.shared.origins.wish(Asked { request, path, by_flv: false });
        let home = self.relay.home_of(&key);
        if home == self.relay.me() {
            self.relay.want_by_name(&key, settings);
            self.wake();
        } else {
            self.relay.send(home, ShardMessage::Want { key, settings: Box::new(settings) });
        }
    }

    pub(super) fn close_service(&mut self, id: usize, connection: &mut Connection<E>, what: Id) {
        if let Some(at) = connection.plays.iter().position(|play| play.id == what) {
            let play = connection.plays.remove(at);
            self.end_play(id, play);
        }
        if let Some(at) = connection.publishes.iter().position(|publish| publish.id == what) {
            let publish = connection.publishes.remove(at);
            self.end_publish(id, connection, publish, false);
        }
    }

    pub(super) fn end_play(&mut self, id: usize, mut play: Play<E::Sink>) {
        self.tell_end(std::mem::take(&mut play.on_stop));
        if let Some(stream) = self.relay.stream_mut(play.stream) {
            stream.replica.schedule.remove(member(id, play.id));
            if play.reader.take().is_some() {
                stream.replica.drop_unread();
            }
        }
        self.relay.note_idle(play.stream);
        self.relay.release(play.stream);
        self.stats.players.sub(1);
    }
}
