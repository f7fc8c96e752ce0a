//! What concerns connections and streams from outside their own doing: a publisher that has to go, a new
//! configuration, the drain before the end.

use super::{CloseReason, Publisher, ShardMessage, ShardServer, flush::Turn, peer::Connection, place, stream_settings};
use crate::{config::Config, control::hooks, serve::play::Play};

/// Takes a publish whose stream is another one's already; returns whom to tell.
fn take_publish(connection: &mut Connection, msid: u32) -> Option<Box<hooks::Event>> {
    let at = connection.publishes.iter().position(|publish| publish.msid == msid)?;
    connection.publishes.remove(at).on_end.take()
}

impl ShardServer {
    /// Takes a stream from its publisher, for another one to take over; `newcomer` is the connection in hand.
    pub(super) fn oust(&mut self, key: &str, newcomer: Option<(usize, &mut Connection)>) {
        let Some(publisher) = self.relay.oust(key) else { return };
        tracing::info!(stream = %key, "another publisher takes over");
        match newcomer {
            Some((id, connection)) if publisher == self.publisher(id, connection, publisher.msid) => {
                let on_end = take_publish(connection, publisher.msid);
                self.tell(on_end);
                self.stats.publishers.sub(1);
            }
            Some(_) | None => self.dismiss(publisher, CloseReason::Replaced),
        }
    }

    /// Disconnects a publisher, wherever it is.
    pub(super) fn dismiss(&mut self, publisher: Publisher, reason: CloseReason) {
        let Publisher { shard, connection: token, msid } = publisher;
        if shard != self.relay.me() {
            return self.relay.send(shard, ShardMessage::Dismiss { publisher, reason });
        }
        let id = place(token);
        let Some(connection) = self.connections.get_mut(id).and_then(Option::as_deref_mut) else { return };
        if connection.token(id) != token {
            return;
        }
        if matches!(reason, CloseReason::Replaced) {
            // The stream is another one's already.
            let on_end = take_publish(connection, msid);
            self.stats.publishers.sub(1);
            self.tell(on_end);
        }
        let Some(connection) = self.connections.get_mut(id).and_then(Option::as_deref_mut) else { return };
        connection.session.say(|session| session.reject_publish(msid, &reason.to_string()));
        connection.leaving = Some(reason);
        self.flush_connection(id, Turn::Own);
    }

    /// Disconnects publishers whom nobody has wanted to see for as long as their vhosts say.
    pub(super) fn kick_unseen(&mut self, now_ms: u64) {
        for (publisher, kickoff_ms) in self.relay.publishers_to_kick(now_ms) {
            let seconds = u32::try_from(kickoff_ms / 1000).unwrap_or(u32::MAX);
            self.dismiss(publisher, CloseReason::Unseen(seconds));
        }
    }

    /// Takes a new configuration over, for what is here already.
    pub(in crate::serve) fn reconfigure(&mut self, config: &Config) {
        let vhost = |key: &str| config.vhost_named(key.split('/').next()?);
        self.relay.set_settings(|key| vhost(key).map(|vhost| stream_settings(vhost)));
        for (_, connection) in &mut self.connections {
            let Some(connection) = connection.as_deref_mut() else { continue };
            for publish in &mut connection.publishes {
                if let Some(vhost) = vhost(&publish.summary.key) {
                    publish.settings = vhost.publish;
                }
            }
        }
        // What has become due, or is due sooner.
        self.housekeeping_ms = 0;
        self.asleep_until_ms = 0;
    }

    /// The server drains: asks those who understand it to connect anew, which will be elsewhere.
    pub(in crate::serve) fn drain(&mut self) {
        let ids: Vec<usize> = self.connections.iter().map(|(id, _)| id).collect();
        for id in ids {
            let Some(connection) = self.connections.get_mut(id).and_then(Option::as_deref_mut) else { continue };
            let live = |play: &Play| self.relay.stream(play.stream).is_some_and(|stream| stream.replica.is_live());
            if !connection.plays.iter().any(live) && connection.publishes.is_empty() {
                // Nothing comes any more that it could wait for.
                connection.leaving = Some(CloseReason::Drained);
            } else {
                connection.session.say(|session| session.request_reconnect());
            }
            self.flush_connection(id, Turn::Own);
        }
        self.pump();
    }
}
