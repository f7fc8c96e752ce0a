//! Publishes: begun, fed and ended, at home and elsewhere.

use super::{
    Outcome, Question, Shard, ShardMessage,
    access::Access,
    audience::AtEnd,
    connection::{Connection, Pending, Turn, Wanted, Wish},
    messages::Publisher,
    place,
    port::{CloseReason, Endpoints, Id, Request, Session, Word},
    publish::{Publish, Summary, Target},
    settings::stream_settings,
    splice::{Splice, Tags, Taken},
    told::FileEvents,
};
use crate::{
    config::{Action, Takeover, Vhost},
    media::Settings,
    mesh::relay::{Busy, StreamId},
    programs,
    proto::flv::Tag,
    sys,
};
use std::sync::{Arc, atomic::Ordering};

/// Tries of a publish whose name's publisher may be about to end: longer than a reader rests by itself.
const RETRIES_MAX: usize = 15;
/// The same if that publisher has ended: longer than a reader rests with `mr`.
const RETRIES_AT_END_MAX: usize = 300;

impl<E: Endpoints> Shard<E> {
    /// A publish, before it is known whether it may be.
    pub(super) fn wants_publish(
        &mut self,
        id: usize,
        connection: &mut Connection<E>,
        request: Box<Request>,
    ) -> Outcome {
        if connection.outbound.is_some() {
            // The server's own: nobody is asked.
            return self.publish(id, connection, request, 0);
        }
        if let Some(event) = self.connect_event(connection, &request) {
            connection.wish = Some(Wish::Connect(Box::new(Wanted::Publish(request))));
            return Outcome::Ask { question: Question::Hooks(event), unread: Vec::new() };
        }
        if let Some(why) = self.short_of_memory() {
            self.stats.refused_for_memory.add(1);
            return self.refuse_publish(id, connection, request.id, why);
        }
        match self.access(connection, Action::Publish, &request) {
            _ if self.goes_round(connection, &request.key) => {
                let why = format!("{}: the stream comes from here: its forwards go round", request.key);
                self.refuse_publish(id, connection, request.id, &why)
            }
            Access::Granted => self.publish(id, connection, request, 0),
            Access::Refused(why) => self.refuse_publish(id, connection, request.id, &why),
            Access::Ask(event) => {
                connection.wish = Some(Wish::Publish(request));
                Outcome::Ask { question: Question::Hooks(event), unread: Vec::new() }
            }
        }
    }

    /// Begins a publish, tried so many times before; while its name is taken by a publisher of whom not
    /// everything is read, perhaps its end, it is to be tried again in a moment.
    pub(super) fn publish(
        &mut self,
        id: usize,
        connection: &mut Connection<E>,
        request: Box<Request>,
        tries: usize,
    ) -> Outcome {
        let Request { id: number, ref key, ref vhost, .. } = *request;
        let fetched = connection.outbound.is_some();
        // Hooks are told of what comes in by itself, not of what the server fetches.
        let on_end = if fetched { AtEnd::default() } else { self.unpublish_event(connection, &request) };
        let settings = stream_settings(vhost);
        let told = self.file_events(connection, &request);
        // Whoever publishes here goes before what is fetched, which does without hooks.
        let replace = !fetched && (vhost.publish.takeover == Takeover::Replace || self.relay.has_fetcher(key));
        if connection.publishes.iter().any(|publish| publish.id == number)
            || connection.plays.iter().any(|play| play.id == number)
        {
            return self.refuse_publish(id, connection, number, "the NetStream is in use");
        }
        let home = self.relay.home_of(key);
        self.publish_serial += 1;
        let serial = self.publish_serial;
        let publisher = self.publisher(id, connection, serial);
        let now_ms = self.shared.now_ms();
        let follow = self.follow_of(connection, &request);
        let for_programs = self.for_programs(connection, &request, serial);
        let Request { ref key, ref vhost, .. } = *request;
        let new = |target| {
            let mut new = Publish::new(serial, number, target, key.clone(), now_ms, vhost.publish, on_end);
            new.for_programs = Some(for_programs);
            if fetched {
                new.be_fetched(vhost);
            }
            new
        };
        if home == self.relay.me() {
            if replace {
                self.oust(key, Some((id, connection)));
            }
            let resumed = if fetched { self.relay.resume(key, publisher) } else { None };
            let begun = resumed.map_or_else(|| self.begin_stream(key, settings, publisher, told, fetched), Ok);
            return match begun {
                Ok(stream) => {
                    let mut publish = new(Target::Home(stream));
                    self.begin_fetched(connection, stream, &mut publish, (vhost, resumed.is_some()));
                    self.shared.begin_programs(&mut publish);
                    connection.publishes.push(publish);
                    connection.session.told(Word::Published(number), &self.shared.context());
                    sys::set_nodelay(connection.descriptor, vhost.tcp_nodelay);
                    self.stats.publishers.add(1);
                    self.stats.clients.add(1);
                    self.changed.push(stream);
                    follow.into_iter().for_each(|follow| self.follow(follow));
                    Outcome::Continue
                }
                Err(_) if !fetched && self.publisher_may_end(key, tries) => {
                    connection.pending = Some(Pending::Publish(request));
                    Outcome::Retry { unread: Vec::new() }
                }
                Err(busy) => {
                    self.stats.refused_busy.add(1);
                    self.refuse_publish(id, connection, number, &format!("{key}: {busy}"))
                }
            };
        }
        if connection.plays.is_empty() && connection.publishes.is_empty() {
            connection.pending = Some(Pending::Publish(request));
            return Outcome::Move { home, unread: Vec::new() };
        }
        // The connection is needed here too: its tags go home one by one. It is not read before the home has agreed.
        connection.publishes.push(new(Target::Remote { shard: home, stream: None }));
        let (key, begin) = (key.clone(), Box::new((settings, told)));
        self.relay.send(home, ShardMessage::Publish { key, begin, publisher, replace, follow });
        Outcome::Continue
    }

    /// Begins a publish of a stream that is at home here, and whatever takes it beside its players.
    pub(super) fn begin_stream(
        &mut self,
        key: &str,
        settings: Settings,
        publisher: Publisher,
        told: FileEvents,
        fetched: bool,
    ) -> Result<StreamId, Busy> {
        let id = self.relay.publish(key, settings, publisher)?;
        if let Some(stream) = self.relay.stream_mut(id) {
            stream.replica.set_takers(self.shared.takers(key, told, fetched));
        }
        Ok(id)
    }

    /// What programs are to know of a publish.
    fn for_programs(&self, connection: &Connection<E>, request: &Request, serial: u64) -> Box<programs::Publish> {
        let (peer, address) = (connection.session.peer(), &request.address);
        Box::new(programs::Publish {
            id: (self.relay.me(), serial),
            vhost: request.vhost.name.clone(),
            app: address.app.clone(),
            stream: address.stream.clone(),
            param: address.param.clone(),
            tc_url: peer.tc_url.to_owned(),
            page_url: peer.page_url.to_owned(),
            swf_url: peer.swf_url.to_owned(),
            port: self.shared.rtmp_port.load(Ordering::Relaxed),
            programs: Arc::clone(&request.vhost.programs),
        })
    }

    /// The programs of a publish are to end.
    pub(super) fn end_programs(&self, publish: &Publish) {
        if publish.has_programs {
            self.shared.programs.ends((self.relay.me(), publish.serial));
        }
    }

    pub(super) fn refuse_publish(
        &mut self,
        id: usize,
        connection: &mut Connection<E>,
        publish: Id,
        why: &str,
    ) -> Outcome {
        self.tell_session(id, connection, Word::PublishRefused(publish, why))
    }

    /// Whether a stream's publisher may end within a few moments: it has said something that is not read, or
    /// its end is there and waits for its reader, who may rest for as long as `mr_latency`.
    fn publisher_may_end(&self, key: &str, tries: usize) -> bool {
        let Some(publisher) = self.relay.publisher_of(key).filter(|publisher| publisher.shard == self.relay.me())
        else {
            return false;
        };
        let connection = self.connections.get(place(publisher.connection)).and_then(Option::as_deref);
        connection.is_some_and(|Connection { descriptor, .. }| {
            tries < RETRIES_MAX && sys::has_unread(*descriptor)
                || tries < RETRIES_AT_END_MAX && sys::has_ended(*descriptor)
        })
    }

    /// Goes on with what brought a connection here, or with a publish that is tried again.
    pub(crate) fn resume_pending(&mut self, id: usize, tries: usize) -> Outcome {
        self.work_on(id, |shard, connection| match connection.pending.take() {
            Some(Pending::Publish(request)) => shard.publish(id, connection, request, tries),
            Some(Pending::Play(request, sink, seat)) => shard.begin_play(id, connection, &request, sink, Some(seat)),
            None => Outcome::Continue,
        })
    }

    fn publisher(&self, id: usize, connection: &Connection<E>, serial: u64) -> Publisher {
        Publisher { shard: self.relay.me(), connection: connection.token(id), publish: serial }
    }

    /// Ends a publish; players are not told if it goes on from elsewhere.
    pub(super) fn end_publish(&mut self, id: usize, connection: &Connection<E>, mut publish: Publish, goes_on: bool) {
        let publisher = self.publisher(id, connection, publish.serial);
        match publish.target {
            Target::Home(stream) => {
                if self.relay.stream(stream).is_some_and(|stream| stream.publisher == Some(publisher)) {
                    self.changed.push(stream);
                    if goes_on {
                        self.relay.interrupt(stream);
                    } else {
                        self.relay.unpublish(stream);
                    }
                }
            }
            Target::Remote { shard, stream: Some(stream) } => {
                self.relay.send(shard, ShardMessage::Unpublish { stream, publisher });
            }
            // Not yet answered: the answer finds nobody and is given back then.
            Target::Remote { stream: None, .. } => return,
        }
        self.stats.publishers.sub(1);
        self.tell_end(std::mem::take(&mut publish.on_end));
        self.end_programs(&publish);
        if publish.summary.finish() {
            log_publish(connection, &publish.summary);
        }
        let Summary { key, started_ms, bytes, tags, .. } = &*publish.summary;
        let seconds = (self.shared.now_ms() - started_ms) / 1000;
        tracing::info!(stream = %key, peer = %connection.named(), seconds, bytes, tags, "unpublish");
    }

    /// A tag has come.
    pub(super) fn media(&mut self, id: usize, connection: &mut Connection<E>, number: Id, tag: Tag) -> Outcome {
        let token = connection.token(id);
        let Some(publish) = connection.publishes.iter_mut().find(|publish| publish.id == number) else {
            return Outcome::Continue;
        };
        if publish.splice.is_some() {
            return self.media_spliced(id, connection, number, tag);
        }
        self.stats.tags_received.add(1);
        // The clock was looked at when the tag came.
        let now_ms = connection.heard_ms;
        let report = match publish.count(&tag, now_ms) {
            Ok(report) => report,
            Err(error) => {
                connection.session.told(Word::PublishRefused(number, &error.to_string()), &self.shared.context());
                return Outcome::Close(CloseReason::Refused(format!(
                    "sequence header: {error}; `parse_sps off` takes it"
                )));
            }
        };
        match publish.target {
            Target::Home(stream) => {
                self.relay.ingest(stream, tag, now_ms);
                self.note_change(stream);
            }
            Target::Remote { shard, stream: Some(stream) } => {
                let publisher = Publisher { shard: self.relay.me(), connection: token, publish: publish.serial };
                self.relay.send(shard, ShardMessage::Tag { stream, publisher, tag });
            }
            Target::Remote { stream: None, .. } => {}
        }
        if report && let Some(publish) = connection.publishes.iter().find(|publish| publish.id == number) {
            log_publish(connection, &publish.summary);
        }
        Outcome::Continue
    }

    /// A publish has begun of what the server has fetched by itself, if it is that.
    fn begin_fetched(
        &mut self,
        connection: &Connection<E>,
        stream: StreamId,
        publish: &mut Publish,
        (vhost, resumed): (&Vhost, bool),
    ) {
        let Some(id) = connection.outbound else { return };
        self.relay.set_linger(stream, vhost.cluster.linger_ms);
        let last = self.outbound.get_mut(id).and_then(|outbound| outbound.lost.take());
        let by = if resumed { Splice::by_time } else { Splice::by_burst };
        publish.times = last.map_or([None; 2], |last| last.times);
        publish.splice = last.map(|last| Box::new(by(last)));
        self.outbound_flows(id);
    }

    /// A tag has come of what goes on where another origin was lost.
    fn media_spliced(&mut self, id: usize, connection: &mut Connection<E>, number: Id, tag: Tag) -> Outcome {
        let now_ms = connection.heard_ms;
        let found = connection.publishes.iter_mut().find(|publish| publish.id == number);
        let Some(publish) = found else { return Outcome::Continue };
        let Some(mut splice) = publish.splice.take() else { return Outcome::Continue };
        publish.hear(now_ms);
        let target = publish.target;
        let Taken { tags, done, anew } = splice.take(tag, now_ms);
        if let (true, Target::Home(stream)) = (anew, target) {
            self.relay.begin_anew(stream);
            let key = self.relay.stream(stream).map(|stream| stream.key.to_string());
            let wish = connection.outbound.and_then(|id| self.outbound.get(id)?.wish.clone());
            let told = wish.map_or_else(FileEvents::default, |wish| self.file_events(connection, &wish.request));
            let takers = key.map(|key| self.shared.takers(&key, told, true));
            if let Some((stream, takers)) = self.relay.stream_mut(stream).zip(takers) {
                stream.replica.set_takers(takers);
            }
        }
        let goes_on = |tag: &Tag| match target {
            Target::Home(stream) => !splice.is_by_time() || anew || !self.relay.repeats(stream, tag),
            Target::Remote { .. } => true,
        };
        let tags: Tags = tags.into_iter().filter(goes_on).collect();
        for tag in tags {
            if let Outcome::Close(reason) = self.media(id, connection, number, tag) {
                return Outcome::Close(reason);
            }
        }
        if let Some(publish) = connection.publishes.iter_mut().find(|publish| publish.id == number && !done) {
            publish.splice = Some(splice);
        }
        Outcome::Continue
    }

    pub(super) fn note_change(&mut self, stream: StreamId) {
        if self.changed.last() != Some(&stream) {
            self.changed.push(stream);
        }
    }

    /// The home's answer to a publisher that stayed here.
    pub(super) fn published(&mut self, home: usize, publisher: Publisher, stream: Option<StreamId>) {
        let id = place(publisher.connection);
        if !self.answer_publisher(id, publisher, stream) {
            // It has ended meanwhile.
            let give_back = |stream| ShardMessage::Unpublish { stream, publisher };
            stream.into_iter().for_each(|stream| self.relay.send(home, give_back(stream)));
        }
        self.flush_guarded(id, Turn::Own);
    }

    /// Tells whether the publisher is still there.
    fn answer_publisher(&mut self, id: usize, publisher: Publisher, stream: Option<StreamId>) -> bool {
        let Some(mut connection) = self.connections.get_mut(id).and_then(Option::take) else { return false };
        let current = connection.token(id) == publisher.connection;
        let mut publishes = connection.publishes.iter_mut();
        let found = publishes.find(|publish| current && publish.serial == publisher.publish);
        let there = match (found, stream) {
            (None, _) => false,
            (Some(publish @ Publish { target: Target::Remote { .. }, .. }), Some(_)) => {
                let Target::Remote { shard, .. } = publish.target else { return false };
                publish.target = Target::Remote { shard, stream };
                let number = publish.id;
                self.shared.begin_programs(publish);
                connection.session.told(Word::Published(number), &self.shared.context());
                self.stats.publishers.add(1);
                self.stats.clients.add(1);
                true
            }
            (Some(publish), _) => {
                let number = publish.id;
                connection.publishes.retain(|publish| publish.serial != publisher.publish);
                // It is needed here for something else, so that it stays.
                connection
                    .session
                    .told(Word::PublishRefused(number, "the stream is being published"), &self.shared.context());
                self.stats.refused_busy.add(1);
                tracing::warn!(peer = %connection.named(), "publish refused: the stream is being published");
                true
            }
        };
        self.put_back(id, connection);
        there
    }
}

/// The one line of a publish: who, which codecs, what size.
fn log_publish<E: Endpoints>(connection: &Connection<E>, summary: &Summary) {
    let encoder = connection.session.peer().agent;
    tracing::info!(stream = %summary.key, peer = %connection.named(), encoder, "publish: {summary}");
}
