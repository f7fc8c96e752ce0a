//! What concerns connections and streams from outside their own doing: a publisher that has to go, a new
//! configuration, the drain before the end.

use super::{
    Shard, ShardMessage,
    connection::{Connection, Turn},
    messages::Publisher,
    place,
    play::Play,
    port::{CloseReason, Endpoints, Id, Session, Word},
    settings::stream_settings,
};
use crate::config::Config;

/// Players of segments ask for playlists that often at least, in ms.
const ASKED_EACH_MS: u64 = 15_000;

impl<E: Endpoints> Shard<E> {
    /// Takes a stream from its publisher, for another one to take over; `newcomer` is the connection in hand.
    pub(super) fn oust(&mut self, key: &str, newcomer: Option<(usize, &mut Connection<E>)>) {
        let Some(publisher) = self.relay.oust(key) else { return };
        tracing::info!(stream = %key, "another publisher takes over");
        match newcomer {
            Some((id, connection)) if self.is_connection(&publisher, id, connection) => {
                self.take_publish(connection, publisher);
            }
            Some(_) | None => self.dismiss(publisher, CloseReason::Replaced),
        }
    }

    /// Takes a publish out whose stream is another one's already; its number, if it is still there.
    fn take_publish(&mut self, connection: &mut Connection<E>, publisher: Publisher) -> Option<Id> {
        let at = connection.publishes.iter().position(|publish| publish.serial == publisher.publish)?;
        let mut publish = connection.publishes.remove(at);
        self.stats.publishers.sub(1);
        self.tell_end(std::mem::take(&mut publish.on_end));
        self.end_programs(&publish);
        Some(publish.id)
    }

    /// Disconnects a publisher, wherever it is, unless it has ended by itself meanwhile.
    pub(super) fn dismiss(&mut self, publisher: Publisher, reason: CloseReason) {
        let Publisher { shard, connection: token, publish: serial } = publisher;
        if shard != self.relay.me() {
            return self.relay.send(shard, ShardMessage::Dismiss { publisher, reason });
        }
        let id = place(token);
        let Some(mut connection) = self.connections.get_mut(id).and_then(Option::take) else { return };
        let publish = if !self.is_connection(&publisher, id, &connection) {
            None
        } else if matches!(reason, CloseReason::Replaced) {
            self.take_publish(&mut connection, publisher)
        } else {
            connection.publishes.iter().find(|publish| publish.serial == serial).map(|publish| publish.id)
        };
        if let Some(publish) = publish {
            connection.session.told(Word::PublishRefused(publish, &reason.to_string()), &self.shared.context());
            connection.leaving = Some(reason);
        }
        self.put_back(id, connection);
        if publish.is_some() {
            self.flush_guarded(id, Turn::Own);
        }
    }

    fn is_connection(&self, publisher: &Publisher, id: usize, connection: &Connection<E>) -> bool {
        publisher.shard == self.relay.me() && publisher.connection == connection.token(id)
    }

    /// Disconnects publishers whose streams other servers have.
    pub(super) fn end_lost(&mut self) {
        let (relay, me) = (&self.relay, self.relay.me());
        for (key, why) in self.shared.cluster.take_lost(|key| relay.home_of(key) == me) {
            let publisher = self.relay.publisher_of(&key).copied().filter(|_| !self.relay.has_fetcher(&key));
            if let Some(publisher) = publisher {
                tracing::warn!(stream = %key, "the publish ends: {why}");
                self.dismiss(publisher, CloseReason::Refused(why));
            }
        }
    }

    /// Disconnects publishers whom nobody has wanted to see for as long as their vhosts say; returns when the next
    /// one's time will have come.
    pub(super) fn kick_unseen(&mut self, now_ms: u64) -> u64 {
        let (late, mut next_ms) = self.relay.publishers_to_kick(now_ms);
        for (key, publisher, kickoff_ms) in late {
            // Of what is made of it there may be players.
            let fetched = self.relay.has_fetcher(&key);
            if fetched && self.is_wanted(&key, kickoff_ms.max(ASKED_EACH_MS), now_ms) {
                next_ms = next_ms.min(now_ms + ASKED_EACH_MS / 10);
                continue;
            }
            let seconds = u32::try_from(kickoff_ms / 1000).unwrap_or(u32::MAX);
            self.dismiss(publisher, CloseReason::Unseen(seconds));
        }
        next_ms
    }

    /// Takes a new configuration over, for what is here already.
    pub(crate) fn reconfigure(&mut self, config: &Config) {
        let vhost = |key: &str| config.vhost_named(key.split('/').next()?);
        self.relay.set_settings(|key| vhost(key).map(|vhost| stream_settings(vhost)));
        for (_, connection) in &mut self.connections {
            let Some(connection) = connection.as_deref_mut() else { continue };
            for publish in &mut connection.publishes {
                if let Some(vhost) = vhost(&publish.summary.key) {
                    publish.settings = vhost.publish;
                    if connection.outbound.is_some() {
                        publish.be_fetched(vhost);
                    }
                }
            }
        }
        self.pin_pulls(config);
        // What has become due, or is due sooner.
        self.housekeeping_ms = 0;
        self.wake();
    }

    /// The server drains: asks those who understand it to connect anew, which will be elsewhere.
    pub(crate) fn drain(&mut self) {
        let ids: Vec<usize> = self.connections.iter().map(|(id, _)| id).collect();
        for id in ids {
            let Some(connection) = self.connections.get_mut(id).and_then(Option::as_deref_mut) else { continue };
            let live =
                |play: &Play<E::Sink>| self.relay.stream(play.stream).is_some_and(|stream| stream.replica.is_live());
            if !connection.plays.iter().any(live) && connection.publishes.is_empty() {
                // Nothing comes any more that it could wait for.
                connection.leaving = Some(CloseReason::Drained);
            } else {
                connection.session.told(Word::Drain, &self.shared.context());
            }
            self.flush_guarded(id, Turn::Own);
        }
        self.pump();
    }
}
