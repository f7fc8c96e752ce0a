//! Publishes: begun, fed and ended, at home and elsewhere.

use super::{
    CloseReason, Outcome, Publisher, ShardMessage, ShardServer,
    access::{Access, Found, Wish},
    flush::Turn,
    peer::Connection,
    place, stream_settings,
};
use crate::{
    config::{Action, Takeover},
    net,
    proto::flv::Tag,
    serve::rtmp::publisher::{Publish, Summary, Target},
    shard::relay::StreamId,
};

/// Tries of a publish whose name's publisher may be about to end: longer than a reader rests by itself.
const RETRIES_MAX: usize = 15;
/// The same if that publisher has ended: longer than a reader rests with `mr`.
const RETRIES_AT_END_MAX: usize = 300;

impl ShardServer {
    /// A `publish`, before it is known whether it may be.
    pub(super) fn wants_publish(
        &mut self,
        id: usize,
        connection: &mut Connection,
        msid: u32,
        stream: String,
    ) -> Outcome {
        match self.wants(connection, Action::Publish, &stream) {
            Access::Granted => self.publish(id, connection, msid, &stream, 0),
            Access::Refused(why) => refuse_publish(connection, msid, why),
            Access::Ask(event) => Outcome::Ask { wish: Wish::Publish { msid, stream }, event, unread: Vec::new() },
        }
    }

    /// Begins a publish, tried so many times before; while its name is taken by a publisher of whom not
    /// everything is read, perhaps its end, it is to be tried again in a moment.
    pub(super) fn publish(
        &mut self,
        id: usize,
        connection: &mut Connection,
        msid: u32,
        stream: &str,
        tries: usize,
    ) -> Outcome {
        let found = match self.resolve(connection, stream) {
            Ok(found) => found,
            Err(error) => return refuse_publish(connection, msid, error),
        };
        let on_end = self.hook_event(connection, "on_unpublish", &found.vhost.hooks.on_unpublish, &found);
        let Found { key, vhost, .. } = found;
        let settings = stream_settings(&vhost);
        let replace = vhost.publish.takeover == Takeover::Replace;
        if connection.publishes.iter().any(|publish| publish.msid == msid)
            || connection.plays.iter().any(|play| play.msid == msid)
        {
            return refuse_publish(connection, msid, "the NetStream is in use".to_owned());
        }
        let home = self.relay.home_of(&key);
        let now_ms = self.shared.now_ms();
        self.publish_serial += 1;
        let serial = self.publish_serial;
        let publisher = self.publisher(id, connection, serial);
        let new = |target, key| Publish::new(serial, msid, target, key, now_ms, vhost.publish, on_end);
        if home == self.relay.me() {
            if replace {
                self.oust(&key, Some((id, connection)));
            }
            return match self.relay.publish(&key, settings, publisher) {
                Ok(stream) => {
                    connection.session.say(|session| session.accept_publish(msid));
                    connection.publishes.push(new(Target::Home(stream), key));
                    net::set_nodelay(connection.descriptor, vhost.tcp_nodelay);
                    self.stats.publishers.add(1);
                    self.changed.push(stream);
                    Outcome::Continue
                }
                Err(_) if self.publisher_may_end(&key, tries) => {
                    Outcome::Retry { msid, stream: stream.to_owned(), unread: Vec::new() }
                }
                Err(busy) => {
                    self.stats.refused_busy.add(1);
                    refuse_publish(connection, msid, format!("{key}: {busy}"))
                }
            };
        }
        if connection.plays.is_empty() && connection.publishes.is_empty() {
            return Outcome::Move { home, msid, stream: stream.to_owned(), unread: Vec::new() };
        }
        // The connection is needed here too: its tags go home one by one. It is not read before the home has agreed.
        connection.publishes.push(new(Target::Remote { shard: home, stream: None }, key.clone()));
        self.relay.send(home, ShardMessage::Publish { key, settings, publisher, replace });
        Outcome::Continue
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
            tries < RETRIES_MAX && net::has_unread(*descriptor)
                || tries < RETRIES_AT_END_MAX && net::has_ended(*descriptor)
        })
    }

    /// Goes on with the `publish` that brought a connection here, or that is tried again.
    pub(in crate::serve) fn resume_publish(&mut self, id: usize, msid: u32, stream: &str, tries: usize) -> Outcome {
        let Some(mut connection) = self.connections.get_mut(id).and_then(Option::take) else {
            return Outcome::Close(CloseReason::PeerClosed);
        };
        let outcome = self.publish(id, &mut connection, msid, stream, tries);
        self.put_back(id, connection);
        self.flush_guarded(id, Turn::Own);
        self.flush_changed();
        self.pump();
        outcome
    }

    fn publisher(&self, id: usize, connection: &Connection, serial: u64) -> Publisher {
        Publisher { shard: self.relay.me(), connection: connection.token(id), publish: serial }
    }

    pub(super) fn end_publish(&mut self, id: usize, connection: &Connection, mut publish: Publish) {
        let publisher = self.publisher(id, connection, publish.serial);
        match publish.target {
            Target::Home(stream) => {
                if self.relay.stream(stream).is_some_and(|stream| stream.publisher == Some(publisher)) {
                    self.changed.push(stream);
                    self.relay.unpublish(stream);
                }
            }
            Target::Remote { shard, stream: Some(stream) } => {
                self.relay.send(shard, ShardMessage::Unpublish { stream, publisher });
            }
            // Not yet answered: the answer finds nobody and is given back then.
            Target::Remote { stream: None, .. } => return,
        }
        self.stats.publishers.sub(1);
        self.tell(publish.on_end.take());
        if publish.summary.finish() {
            log_publish(connection, &publish.summary);
        }
        let Summary { key, started_ms, bytes, tags, .. } = &*publish.summary;
        let seconds = (self.shared.now_ms() - started_ms) / 1000;
        tracing::info!(stream = %key, peer = %connection.named(), seconds, bytes, tags, "unpublish");
    }

    pub(super) fn media(&mut self, id: usize, connection: &mut Connection, msid: u32, tag: Tag) -> Outcome {
        let token = connection.token(id);
        let Some(publish) = connection.publishes.iter_mut().find(|publish| publish.msid == msid) else {
            return Outcome::Continue;
        };
        self.stats.tags_received.add(1);
        // The clock was looked at when the tag came.
        let now_ms = connection.heard_ms;
        let report = match publish.count(&tag, now_ms) {
            Ok(report) => report,
            Err(error) => {
                connection.session.say(|session| session.reject_publish(msid, &error.to_string()));
                return Outcome::Close(error.into());
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
        if report && let Some(publish) = connection.publishes.iter().find(|publish| publish.msid == msid) {
            log_publish(connection, &publish.summary);
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
        let Some(connection) = self.connections.get_mut(id).and_then(Option::as_deref_mut) else { return false };
        let current = connection.token(id) == publisher.connection;
        let mut publishes = connection.publishes.iter_mut();
        let Some(publish) = publishes.find(|publish| current && publish.serial == publisher.publish) else {
            return false;
        };
        let msid = publish.msid;
        match (&mut publish.target, stream) {
            (Target::Remote { stream: target, .. }, Some(_)) => {
                *target = stream;
                connection.session.say(|session| session.accept_publish(msid));
                self.stats.publishers.add(1);
            }
            (Target::Remote { .. } | Target::Home(_), _) => {
                connection.publishes.retain(|publish| publish.serial != publisher.publish);
                connection.session.say(|session| session.reject_publish(msid, "the stream is being published"));
                self.stats.refused_busy.add(1);
                tracing::warn!(peer = %connection.named(), "publish refused: the stream is being published");
            }
        }
        true
    }
}

pub(super) fn refuse_publish(connection: &mut Connection, msid: u32, error: String) -> Outcome {
    connection.session.say(|session| session.reject_publish(msid, &error));
    connection.unless_in_service(CloseReason::PublishRefused(error))
}

/// The one line of a publish: who, which codecs, what size.
fn log_publish(connection: &Connection, summary: &Summary) {
    let encoder = connection.session.connect().map_or("", |connect| connect.flash_ver.as_str());
    tracing::info!(stream = %summary.key, peer = %connection.named(), encoder, "publish: {summary}");
}
