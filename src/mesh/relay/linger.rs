//! Streams that nobody needs any more: forgotten at once, or after a while.

use super::{Message, Relay, RelayId, StreamId};
use crate::mesh::ring::Cargo;

/// How long a stream stays on a shard that its last player has left, in ms: who plays again at once costs
/// nothing.
const LINGER_MS: u64 = 1000;
/// Most streams that stay so; the first one goes first.
const LINGER_MAX: usize = 64;

impl<P, M: Cargo> Relay<P, M> {
    /// Forgets the stream if nobody needs it any more; one of another shard stays for a while, unless it is known
    /// that nobody publishes it.
    pub fn release(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.publisher.is_some() || !stream.is_unseen() || stream.lingers || stream.pinned {
            return;
        }
        match stream.relay {
            Some(relay) if stream.replica.is_live() || !stream.answered => {
                stream.lingers = true;
                self.lingering.push_back((relay, self.seen_ms));
                if self.lingering.len() > LINGER_MAX {
                    self.forget_first_lingering();
                }
            }
            Some(_) | None => self.forget(id),
        }
    }

    /// Forgets streams that nobody has come back to.
    pub fn forget_lingering(&mut self, now_ms: u64) {
        while self.lingering.front().is_some_and(|(_, since_ms)| since_ms + LINGER_MS <= now_ms) {
            self.forget_first_lingering();
        }
    }

    /// When the next of them is to be forgotten, in ms.
    pub fn next_linger_ms(&self) -> Option<u64> {
        self.lingering.front().map(|(_, since_ms)| since_ms + LINGER_MS)
    }

    fn forget_first_lingering(&mut self) {
        let Some((relay, _)) = self.lingering.pop_front() else { return };
        // It may have been played again, and left again: then it stands here another time.
        let again = self.lingering.iter().any(|(other, _)| *other == relay);
        let stream = self.streams.get(relay.slot).filter(|stream| stream.relay == Some(relay));
        if stream.is_some_and(|stream| stream.lingers) && !again {
            self.forget(relay.slot);
        }
    }

    pub(super) fn forget(&mut self, id: StreamId) {
        let Some(mut stream) = self.streams.try_remove(id) else { return };
        if stream.held {
            stream.replica.end_takers();
        }
        self.by_key.remove(&stream.key);
        if let Some(relay) = stream.relay {
            self.guests -= 1;
            let home = self.home_of(&stream.key);
            let sent = Box::new(stream.sent);
            self.mesh.send(home, Message::Unsubscribe { key: stream.key, relay, sent });
        }
    }

    /// There is nothing to come back to when nobody publishes.
    pub(super) fn forget_if_lingers(&mut self, relay: RelayId) {
        let stream = self.streams.get(relay.slot).filter(|stream| stream.relay == Some(relay));
        if stream.is_some_and(|stream| stream.lingers) {
            self.lingering.retain(|(other, _)| *other != relay);
            self.forget(relay.slot);
        }
    }
}
