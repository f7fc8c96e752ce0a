//! Streams of one shard, and the relay between a stream's home and its replicas on other shards.
//!
//! Invariants worth naming:
//! * A tag crosses to another shard once, whatever number of players it has there, and only if it
//!   has any ("interested").
//! * A shard subscribes at the home with an id of its own choice; an id is never used again, so what
//!   is on its way for an old subscription cannot reach a new one.
//! * When a ring is full, tags of a stream are left out up to its next keyframe: a gap.

mod due;
mod fetch;
mod guests;
mod idle;
mod linger;
mod message;
mod pause;
mod stream;

pub use due::Timer;
pub use message::{Busy, Message, Received, RelayId, Sent, StreamId};
pub use stream::Stream;

use super::{
    home_of,
    ring::{Cargo, Mesh, ShardWaker},
};
use crate::{
    media::{Clock, Entry, Mix, Replica, Settings, Snapshot, TimeJitter},
    proto::{
        codec::{self, Class},
        flv::Tag,
    },
    stats::ShardStats,
};
use due::Due;
use hashbrown::HashMap;
use slab::Slab;
use std::{collections::VecDeque, sync::Arc};
use stream::{Fetch, Interest};

/// All streams of one shard. `P` names a publisher, `M` is a server's message.
#[derive(Debug)]
pub struct Relay<P, M> {
    mesh: Mesh<Message<M>>,
    streams: Slab<Stream<P>>,
    by_key: HashMap<Arc<str>, StreamId, foldhash::fast::FixedState>,
    serial: u64,
    due: Due,
    /// Live streams of other shards whose last player has left: as of which subscription, and when.
    lingering: VecDeque<(RelayId, u64)>,
    /// Streams that are to be fetched.
    wanted: Vec<(StreamId, bool)>,
    /// The time when it was last told of it, in ms.
    seen_ms: u64,
    /// The stream that is being worked on, should that end in a panic.
    at: Option<StreamId>,
    /// Streams that are published here.
    publishers: u64,
    /// Streams of other shards that are here.
    guests: usize,
    /// Flush interval of streams whose settings have none, in ms.
    pace_ms: u64,
    stats: Arc<ShardStats>,
}

impl<P, M: Cargo> Relay<P, M> {
    /// A shard without streams.
    pub fn new(mesh: Mesh<Message<M>>, stats: Arc<ShardStats>) -> Self {
        mesh.wakers()[mesh.me()].set_eager(true);
        Self {
            mesh,
            streams: Slab::new(),
            by_key: HashMap::default(),
            serial: 0,
            due: Due::default(),
            lingering: VecDeque::new(),
            wanted: Vec::new(),
            seen_ms: 0,
            at: None,
            publishers: 0,
            guests: 0,
            pace_ms: 0,
            stats,
        }
    }

    /// Sets the flush interval of streams whose settings leave it to the shard, in ms.
    pub fn set_pace(&mut self, pace_ms: u64) {
        if pace_ms == self.pace_ms {
            return;
        }
        self.pace_ms = pace_ms;
        self.mesh.wakers()[self.mesh.me()].set_eager(pace_ms == 0);
        for (id, stream) in &mut self.streams {
            if stream.replica.settings().interval_ms().is_none() {
                stream.replica.schedule.set_interval(pace_ms);
                self.due.arm(id, stream, 0);
            }
        }
    }

    /// Takes note of when a stream's members are due, after anything that may have changed that.
    pub fn arm(&mut self, id: StreamId, now_ms: u64) {
        self.seen_ms = self.seen_ms.max(now_ms);
        if let Some(stream) = self.streams.get_mut(id) {
            self.due.arm(id, stream, now_ms);
        }
    }

    /// Takes note of when something of the shard's own is due, in ms.
    pub fn arm_session(&mut self, place: usize, due_ms: u64) {
        self.due.arm_session(place, due_ms);
    }

    /// When the first timer is due, in ms.
    pub fn next_due_ms(&mut self) -> Option<u64> {
        self.due.next_ms(&self.streams)
    }

    /// What has been due for longest at `now_ms`, and since when; [`Self::arm`] a stream again afterwards.
    pub fn take_due(&mut self, now_ms: u64) -> Option<(Timer, u64)> {
        self.seen_ms = self.seen_ms.max(now_ms);
        self.due.take(&mut self.streams, now_ms)
    }

    /// This shard.
    pub fn me(&self) -> usize {
        self.mesh.me()
    }

    /// The shard that `key` is at home on.
    pub fn home_of(&self, key: &str) -> usize {
        home_of(key, self.mesh.shards())
    }

    /// The wakers of all shards.
    pub fn wakers(&self) -> &Arc<[ShardWaker]> {
        self.mesh.wakers()
    }

    /// A stream.
    pub fn stream(&self, id: StreamId) -> Option<&Stream<P>> {
        self.streams.get(id)
    }

    /// A stream, to be changed.
    pub fn stream_mut(&mut self, id: StreamId) -> Option<&mut Stream<P>> {
        self.streams.get_mut(id)
    }

    /// Every stream.
    pub fn streams(&self) -> impl Iterator<Item = (StreamId, &Stream<P>)> {
        self.streams.iter()
    }

    /// Streams on this shard.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Sends a server's message.
    pub fn send(&mut self, to: usize, message: M) {
        self.mesh.send(to, Message::Server(message));
    }

    /// The shard that takes messages more slowly than they were sent since this was asked last: who sent them
    /// rests until [`Self::is_full`] is over.
    pub fn take_congested(&mut self) -> Option<usize> {
        self.mesh.take_congested()
    }

    /// The same for tags of streams that are published here: who sends many at a time rests, before any is left out.
    pub fn take_crowded(&mut self) -> Option<usize> {
        self.mesh.take_crowded()
    }

    /// Whether what goes to a shard has to wait.
    pub fn is_full(&mut self, shard: usize) -> bool {
        self.mesh.is_full(shard)
    }

    /// The stream that was being worked on when a panic came.
    pub fn take_broken(&mut self) -> Option<StreamId> {
        self.at.take()
    }

    /// Finds or makes the stream for a player, and subscribes at its home if that is elsewhere.
    /// Call [`Self::release`] when the player has gone.
    pub fn open(&mut self, key: &str, settings: Settings) -> StreamId {
        let id = self.find_or_insert(key, settings);
        let home = self.home_of(key);
        let stream = &mut self.streams[id];
        stream.lingers = false;
        if home != self.mesh.me() && stream.relay.is_none() {
            self.serial += 1;
            let relay = RelayId { slot: id, serial: self.serial };
            stream.relay = Some(relay);
            self.guests += 1;
            let key = Arc::clone(&stream.key);
            self.mesh.send(home, Message::Subscribe { key, settings: Box::new(settings), relay });
        }
        if home == self.mesh.me() {
            self.want(id, false);
        }
        id
    }

    /// Begins a publish on this shard, which must be the stream's home; whoever published it must have been
    /// [`Self::oust`]ed.
    ///
    /// # Errors
    /// [`Busy`] if somebody publishes it already.
    pub fn publish(&mut self, key: &str, settings: Settings, publisher: P) -> Result<StreamId, Busy> {
        debug_assert_eq!(self.home_of(key), self.mesh.me());
        let id = self.find_or_insert(key, settings);
        let stream = &mut self.streams[id];
        if stream.publisher.is_some() {
            return Err(Busy);
        }
        if std::mem::take(&mut stream.held) {
            self.end(id, true);
        }
        let stream = &mut self.streams[id];
        self.publishers += 1;
        stream.publisher = Some(publisher);
        stream.clock = Clock::new(settings.time_jitter, settings.mr_latency_ms.unwrap_or(0));
        stream.mix = settings.mix_correct.then(Mix::default);
        stream.idle_since_ms = None;
        let snapshot = || Snapshot { absolute: settings.time_jitter == TimeJitter::Off, ..Snapshot::default() };
        stream.replica.begin(snapshot());
        for interest in &mut stream.interested {
            interest.gap = false;
            self.mesh.send(interest.shard, Message::Begin { relay: interest.relay, snapshot: Box::new(snapshot()) });
        }
        Ok(id)
    }

    /// Whether somebody publishes a stream of this shard.
    pub fn is_published(&self, key: &str) -> bool {
        self.publisher_of(key).is_some()
    }

    /// Who publishes a stream of this shard.
    pub fn publisher_of(&self, key: &str) -> Option<&P> {
        self.streams.get(*self.by_key.get(key)?)?.publisher.as_ref()
    }

    /// Ends a publish; players are told, here and elsewhere.
    pub fn unpublish(&mut self, id: StreamId) {
        self.end(id, false);
        self.release(id);
        if self.streams.get(id).is_some_and(|stream| !stream.is_unseen() || stream.pinned) {
            self.want(id, true);
        }
    }

    /// Ends a publish for another one to take over: players are not told. Returns the publisher.
    pub fn oust(&mut self, key: &str) -> Option<P> {
        self.end(*self.by_key.get(key)?, true)
    }

    fn end(&mut self, id: StreamId, silent: bool) -> Option<P> {
        let rest = self.streams.get_mut(id)?.mix.take().map_or_else(Vec::new, |mut mix| mix.drain());
        rest.into_iter().for_each(|entry| self.deliver(id, entry));
        let stream = self.streams.get_mut(id)?;
        let publisher = stream.publisher.take();
        stream.linger_ms = None;
        self.publishers -= u64::from(publisher.is_some());
        stream.replica.end(silent);
        for interest in &stream.interested {
            self.mesh.send(interest.shard, Message::End { relay: interest.relay, silent });
        }
        publisher
    }

    /// Gives every stream its settings anew, by its key.
    pub fn set_settings(&mut self, settings: impl Fn(&str) -> Option<Settings>) {
        for (id, stream) in &mut self.streams {
            if let Some(settings) = settings(&stream.key) {
                stream.replica.set_settings(settings, self.pace_ms);
                self.due.arm(id, stream, 0);
            }
        }
    }

    /// Takes a publisher's tag in, and passes it on to every shard that wants it.
    pub fn ingest(&mut self, id: StreamId, tag: Tag, now_ms: u64) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        self.at = Some(id);
        let info = codec::inspect(tag.kind, &tag.body);
        if info.class == Class::Metadata
            && stream.replica.settings().atc_auto
            && codec::read_metadata(&tag.body).absolute_time
        {
            stream.clock.set_absolute();
        }
        let media = matches!(info.class, Class::Keyframe | Class::InterFrame | Class::Audio);
        let time_ms = stream.clock.time(tag.kind, media, tag.timestamp, now_ms);
        let entry = Entry { tag, info, time_ms, delta_ms: 0, arrived_ms: now_ms };
        match &mut stream.mix {
            None => self.deliver(id, entry),
            Some(mix) => mix.push(entry).into_iter().for_each(|entry| self.deliver(id, entry)),
        }
        self.at = None;
    }

    fn deliver(&mut self, id: StreamId, entry: Entry) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.replica.settings().reduce_sequence_header && stream.replica.headers().repeats(&entry) {
            return;
        }
        for interest in &mut stream.interested {
            if interest.gap && !interest.resume(&stream.replica, entry.info.class, &mut self.mesh) {
                continue;
            }
            let sent = self.mesh.try_send(interest.shard, Message::Tag { relay: interest.relay, entry: entry.clone() });
            self.stats.tags_relayed.add(u64::from(sent));
            self.stats.gaps.add(u64::from(!sent));
            interest.gap = !sent;
            let at_once = match stream.replica.settings().interval_ms() {
                Some(interval_ms) => interval_ms == 0,
                None => self.mesh.wakers()[interest.shard].is_eager(),
            };
            if sent && at_once {
                self.mesh.wake(interest.shard);
            }
        }
        stream.replica.push(entry);
    }

    /// Takes the next message from another shard in; streams that it changes are added to `changed`.
    pub fn receive(&mut self, changed: &mut Vec<StreamId>) -> Option<Received<M>> {
        if let Some((from, message)) = self.mesh.receive() {
            match message {
                Message::Subscribe { key, settings, relay } => self.subscribed(from, &key, *settings, relay),
                Message::Unsubscribe { key, relay, sent } => self.unsubscribed(from, &key, relay, &sent),
                Message::Begin { relay, snapshot } => self.on_replica(relay, changed, |replica| {
                    replica.begin(*snapshot);
                    // Who waits for an answer has it now.
                    replica.schedule.hurry();
                    // Its tags wait in the ring for this shard's tick.
                    replica.schedule.set_polled(true);
                }),
                Message::Absent { relay, asked } => {
                    if let Some(stream) = self.streams.get_mut(relay.slot).filter(|stream| stream.relay == Some(relay))
                    {
                        stream.fetch = if asked { Fetch::Asked } else { Fetch::No };
                    }
                    self.on_replica(relay, changed, |replica| {
                        // Who waits for an answer has it now.
                        replica.schedule.note_change();
                        replica.schedule.hurry();
                    });
                    self.forget_if_lingers(relay);
                }
                Message::Tag { relay, entry } => {
                    self.on_replica(relay, changed, |replica| replica.push(entry));
                }
                Message::End { relay, silent } => {
                    self.on_replica(relay, changed, |replica| {
                        replica.end(silent);
                        replica.schedule.set_polled(false);
                    });
                    self.forget_if_lingers(relay);
                }
                Message::Server(message) => return Some(Received::Server(message)),
            }
            return Some(Received::Own);
        }
        None
    }

    /// Entries that wait in the fullest ring to another shard.
    pub fn ring_entries(&self) -> usize {
        self.mesh.entries()
    }

    /// Takes note of what was sent so far, and has those looked at again who wait for video that does not come.
    pub fn look_over(&mut self, now_ms: u64) {
        self.mesh.shrink();
        for (id, stream) in &mut self.streams {
            stream.sent.rate.look(now_ms, stream.sent.bytes);
            if !stream.replica.schedule.is_empty() && stream.replica.expects_video_only() {
                stream.replica.schedule.note_change();
                self.due.arm(id, stream, now_ms);
            }
        }
    }

    /// Moves what waits for room in other shards' rings there.
    pub fn drain_overflow(&mut self) {
        self.mesh.drain_overflow();
    }

    /// Whether messages wait for room in another shard's ring.
    pub fn is_blocked(&self) -> bool {
        self.mesh.is_blocked()
    }

    fn on_replica(&mut self, relay: RelayId, changed: &mut Vec<StreamId>, change: impl FnOnce(&mut Replica)) {
        let current = |stream: &&mut Stream<P>| stream.relay == Some(relay);
        if let Some(stream) = self.streams.get_mut(relay.slot).filter(current) {
            self.at = Some(relay.slot);
            stream.answered = true;
            change(&mut stream.replica);
            self.at = None;
            if changed.last() != Some(&relay.slot) {
                changed.push(relay.slot);
            }
        }
    }

    fn subscribed(&mut self, shard: usize, key: &Arc<str>, settings: Settings, relay: RelayId) {
        let id = self.find_or_insert(key, settings);
        let stream = &mut self.streams[id];
        if stream.replica.is_live() {
            let snapshot = Box::new(stream.replica.snapshot());
            self.stats.tags_relayed.add(snapshot.entries.len() as u64);
            self.mesh.send(shard, Message::Begin { relay, snapshot });
        } else {
            let fetched = stream.replica.settings().fetched && stream.publisher.is_none();
            let asked = stream.fetch == Fetch::Asked || fetched && stream.fetch == Fetch::No;
            self.mesh.send(shard, Message::Absent { relay, asked });
        }
        stream.interested.push(Interest { shard, relay, gap: false });
        self.want(id, false);
    }

    fn unsubscribed(&mut self, shard: usize, key: &str, relay: RelayId, sent: &Sent) {
        if let Some(&id) = self.by_key.get(key) {
            let total = &mut self.streams[id].sent;
            total.bytes += sent.bytes;
            total.skips += sent.skips;
            total.age.add(&sent.age);
            self.streams[id].interested.retain(|interest| (interest.shard, interest.relay) != (shard, relay));
            self.note_idle(id);
            self.release(id);
        }
    }

    fn find_or_insert(&mut self, key: &str, settings: Settings) -> StreamId {
        if let Some(&id) = self.by_key.get(key) {
            return id;
        }
        let key: Arc<str> = Arc::from(key);
        let number = self.streams.vacant_key() as u64;
        let id = self.streams.insert(Stream {
            key: Arc::clone(&key),
            replica: Replica::new(settings, self.pace_ms, number),
            publisher: None,
            interested: Vec::new(),
            relay: None,
            answered: false,
            lingers: false,
            armed_ms: None,
            sent: Sent::default(),
            clock: Clock::default(),
            mix: None,
            idle_since_ms: None,
            fetch: Fetch::No,
            linger_ms: None,
            held: false,
            pinned: false,
        });
        self.by_key.insert(key, id);
        id
    }
}

#[cfg(test)]
mod tests;
