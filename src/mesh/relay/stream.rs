//! One stream as a shard's table has it, and the shards that want it.

use super::message::{Message, RelayId, Sent};
use crate::{
    media::{Clock, Mix, Replica},
    mesh::ring::{Cargo, Mesh},
    proto::codec::Class,
};
use std::sync::Arc;

/// One stream on this shard.
#[derive(Debug)]
pub struct Stream<P> {
    /// `vhost/app/stream`.
    pub key: Arc<str>,
    /// Log, headers and schedule.
    pub replica: Replica,
    /// Who publishes; on the home shard only.
    pub publisher: Option<P>,
    /// Shards that want the stream; on the home shard only.
    pub(super) interested: Vec<Interest>,
    /// Our subscription at the home; on other shards only.
    pub(super) relay: Option<RelayId>,
    /// The home has said whether somebody publishes; on other shards only.
    pub(super) answered: bool,
    /// Its last player has left, and it stays for a while; on other shards only.
    pub(super) lingers: bool,
    /// When it is due, as the shard's heap has it.
    pub(super) armed_ms: Option<u64>,
    /// What this shard's players have got.
    pub sent: Sent,
    pub(super) clock: Clock,
    pub(super) mix: Option<Mix>,
    /// Since when it is published to nobody, in ms; on the home shard only, if anybody asks.
    pub(super) idle_since_ms: Option<u64>,
    /// Whether it is fetched from elsewhere; on other shards, whether the home is asking for it.
    pub(super) fetch: Fetch,
    /// Its publisher has fetched it, and goes so long after its last player, in ms.
    pub(super) linger_ms: Option<u64>,
    /// Its publisher has gone, and another one will go on where that was.
    pub(super) held: bool,
    /// It is to be there whether anybody plays it or not.
    pub(super) pinned: bool,
}

impl<P> Stream<P> {
    /// Whether nobody plays it, here or elsewhere, or waits for it.
    pub(super) fn is_unseen(&self) -> bool {
        self.replica.schedule.is_empty() && self.interested.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct Interest {
    pub(super) shard: usize,
    pub(super) relay: RelayId,
    pub(super) gap: bool,
}

impl Interest {
    /// After a gap, goes on at a place where decoders can: a keyframe, or any tag of a stream without
    /// video; what setups came meanwhile go first. Tells whether it does.
    pub(super) fn resume<M: Cargo>(&mut self, replica: &Replica, class: Class, mesh: &mut Mesh<Message<M>>) -> bool {
        if class != Class::Keyframe && replica.has_had_keyframe() {
            return false;
        }
        replica
            .headers()
            .iter()
            .all(|entry| mesh.try_send(self.shard, Message::Tag { relay: self.relay, entry: entry.clone() }))
    }
}

/// How it stands with a stream that is fetched.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Fetch {
    /// It is not.
    #[default]
    No,
    /// It is being asked for elsewhere; whether it is there is not known.
    Asked,
    /// It was not there, or nothing has come of it. It is asked for again.
    Missing,
}
