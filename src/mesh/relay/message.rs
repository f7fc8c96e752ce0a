//! What crosses from shard to shard.

use crate::{
    media::{Entry, Settings, Snapshot},
    mesh::ring::Cargo,
    stats::{Histogram, Rate},
};
use std::sync::Arc;

/// A stream's place in this shard's table; valid until it is released.
pub type StreamId = usize;

/// A subscription of one shard at another; never used twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RelayId {
    pub(super) slot: usize,
    pub(super) serial: u64,
}

/// What crosses from shard to shard. `M` is what the servers add: a connection that moves.
#[derive(Debug)]
pub enum Message<M> {
    /// To the home: this shard has players of the stream.
    Subscribe {
        /// The stream.
        key: Arc<str>,
        /// How it is kept, should the home not know it yet.
        settings: Box<Settings>,
        /// The sender's id for what comes.
        relay: RelayId,
    },
    /// To the home: no players any more.
    Unsubscribe {
        /// The stream.
        key: Arc<str>,
        /// The id given before.
        relay: RelayId,
        /// What they have got.
        sent: Box<Sent>,
    },
    /// From the home: somebody publishes.
    Begin {
        /// The receiver's id.
        relay: RelayId,
        /// What late joiners need; the tags that follow go on from there.
        snapshot: Box<Snapshot>,
    },
    /// From the home: nobody publishes.
    Absent {
        /// The receiver's id.
        relay: RelayId,
        /// It is being asked for elsewhere.
        asked: bool,
    },
    /// From the home: a tag.
    Tag {
        /// The receiver's id.
        relay: RelayId,
        /// The tag.
        entry: Entry,
    },
    /// From the home: the publish is over.
    End {
        /// The receiver's id.
        relay: RelayId,
        /// Another publisher takes over.
        silent: bool,
    },
    /// For the server.
    Server(M),
}

impl<M: Cargo> Cargo for Message<M> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Tag { entry, .. } => Cargo::bytes(entry),
            Self::Begin { snapshot, .. } => snapshot.entries.iter().map(Cargo::bytes).sum(),
            Self::Server(message) => message.bytes(),
            Self::Subscribe { .. } | Self::Unsubscribe { .. } | Self::Absent { .. } | Self::End { .. } => 0,
        }
    }
}

/// What players of a stream have got from one shard.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Bytes.
    pub bytes: u64,
    /// The same, lately.
    pub rate: Rate,
    /// Times that one was moved to a newer keyframe.
    pub skips: u64,
    /// Age of the oldest tag in each flush of a player.
    pub age: Histogram,
}

/// The name is taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the stream is being published")]
pub struct Busy;

/// What [`super::Relay::receive`] took.
#[derive(Debug)]
pub enum Received<M> {
    /// Something for the server.
    Server(M),
    /// Something that is done.
    Own,
}
