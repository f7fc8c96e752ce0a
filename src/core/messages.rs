//! What shards say to each other besides tags, and what is done with it.

use super::{
    Moved, Shard,
    budget::Budget,
    outbound::Follow,
    place,
    port::{CloseReason, Endpoints},
    told::FileEvents,
};
use crate::{
    media,
    mesh::{
        relay::{Received, Relay, StreamId},
        ring::Cargo,
    },
    proto::flv::Tag,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What crosses between shards besides tags.
#[derive(Debug)]
pub(crate) enum ShardMessage<E: Endpoints> {
    /// A connection comes to its stream's home.
    Adopt(Box<Moved<E>>),
    /// A publisher that cannot move wants to publish.
    Publish {
        key: String,
        begin: Box<(media::Settings, FileEvents)>,
        publisher: Publisher,
        replace: bool,
        follow: Option<Box<Follow>>,
    },
    /// The home's answer.
    Published { home: usize, publisher: Publisher, stream: Option<StreamId> },
    /// A tag of such a publisher.
    Tag { stream: StreamId, publisher: Publisher, tag: Tag },
    /// Its end.
    Unpublish { stream: StreamId, publisher: Publisher },
    /// To a stream's home: somebody wants what is made of it, wherever it is to be fetched from.
    Want { key: String, settings: Box<media::Settings> },
    /// To the shard of a publisher: it has to go.
    Dismiss { publisher: Publisher, reason: CloseReason },
}

impl<E: Endpoints> Cargo for ShardMessage<E> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Tag { tag, .. } => (media::ENTRY_BYTES + tag.body.len()) as u64,
            Self::Adopt(_)
            | Self::Publish { .. }
            | Self::Published { .. }
            | Self::Unpublish { .. }
            | Self::Want { .. }
            | Self::Dismiss { .. } => 0,
        }
    }
}

/// Who publishes a stream: one publish, and no other one of the same NetStream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Publisher {
    pub(super) shard: usize,
    pub(super) connection: u64,
    /// Never used twice on a shard.
    pub(super) publish: u64,
}

impl<E: Endpoints> Shard<E> {
    /// Sends a connection to its stream's home.
    pub(crate) fn send_moved(&mut self, home: usize, moved: Box<Moved<E>>) {
        self.relay.send(home, ShardMessage::Adopt(moved));
    }

    /// Takes in what other shards have sent, as far as the budget goes; what is left wakes the loop again.
    pub(super) fn receive_messages(&mut self, mut budget: Budget) -> Vec<Moved<E>> {
        let mut arrived = Vec::new();
        let mut changed = std::mem::take(&mut self.changed);
        self.relay.drain_overflow();
        loop {
            let received = catch_unwind(AssertUnwindSafe(|| match self.relay.receive(&mut changed) {
                Some(Received::Server(message)) => {
                    self.receive_message(message, &mut changed, &mut arrived);
                    true
                }
                Some(Received::Own) => true,
                None => false,
            }));
            match received {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => self.lose_stream(),
            }
            if budget.spend(1) {
                self.wake();
                break;
            }
        }
        changed.append(&mut self.changed);
        self.changed = changed;
        arrived
    }

    /// A panic over a stream's tag costs that stream: its publisher and those who play it here.
    fn lose_stream(&mut self) {
        self.stats.panics.add(1);
        let Some(id) = self.relay.take_broken() else { return };
        let Some(stream) = self.relay.stream(id) else { return };
        tracing::error!(stream = %stream.key, "a panic over a tag of it: its publisher and players are closed");
        let members: Vec<usize> = stream.replica.schedule.members().map(place).collect();
        let publisher = stream.publisher;
        for member in members {
            self.with(member, |connection| connection.close(CloseReason::Panic));
        }
        if let Some(publisher) = publisher {
            self.dismiss(publisher, CloseReason::Panic);
        }
    }

    fn receive_message(&mut self, message: ShardMessage<E>, changed: &mut Vec<StreamId>, arrived: &mut Vec<Moved<E>>) {
        let publishes = |relay: &Relay<Publisher, ShardMessage<E>>, stream, publisher| {
            relay.stream(stream).is_some_and(|stream| stream.publisher == Some(publisher))
        };
        match message {
            ShardMessage::Adopt(moved) => arrived.push(*moved),
            ShardMessage::Publish { key, begin, publisher, replace, follow } => {
                if replace {
                    self.oust(&key, None);
                }
                let (settings, told) = *begin;
                let stream = self.begin_stream(&key, settings, publisher, told, false).ok();
                changed.extend(stream);
                follow.filter(|_| stream.is_some()).into_iter().for_each(|follow| self.follow(follow));
                let home = self.relay.me();
                self.relay.send(publisher.shard, ShardMessage::Published { home, publisher, stream });
            }
            ShardMessage::Published { home, publisher, stream } => self.published(home, publisher, stream),
            ShardMessage::Tag { stream, publisher, tag } => {
                if publishes(&self.relay, stream, publisher) {
                    self.relay.ingest(stream, tag, self.shared.now_ms());
                    if changed.last() != Some(&stream) {
                        changed.push(stream);
                    }
                }
            }
            ShardMessage::Unpublish { stream, publisher } => {
                if publishes(&self.relay, stream, publisher) {
                    changed.push(stream);
                    self.relay.unpublish(stream);
                }
            }
            ShardMessage::Want { key, settings } => self.relay.want_by_name(&key, *settings),
            ShardMessage::Dismiss { publisher, reason } => self.dismiss(publisher, reason),
        }
    }
}
