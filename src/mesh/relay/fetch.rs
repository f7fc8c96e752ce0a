//! Streams of an edge: whoever wants one that nobody publishes here has it fetched from elsewhere.

use super::{Fetch, Interest, Message, Relay, StreamId};
use crate::{
    media::{Entry, Settings, Snapshot, TimeJitter},
    mesh::ring::Cargo,
    proto::{codec, flv::Tag},
};
use std::sync::Arc;

impl<P, M: Cargo> Relay<P, M> {
    /// Whether it is known that nobody publishes a stream.
    pub fn is_absent(&self, id: StreamId) -> bool {
        self.is_settled(id)
            && self.streams.get(id).is_none_or(|stream| !stream.replica.is_live() && stream.fetch != Fetch::Asked)
    }

    /// Whether a stream's home knows that it is wanted here, and has said whether somebody publishes it.
    pub fn is_settled(&self, id: StreamId) -> bool {
        self.streams.get(id).is_none_or(|stream| stream.relay.is_none() || stream.answered)
    }

    /// Takes note of it that a stream is wanted that is at home here, if it is one to be fetched; `again` if its publisher
    /// here has just gone.
    pub(super) fn want(&mut self, id: StreamId, again: bool) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let fetched = stream.replica.settings().fetched || stream.pinned;
        if fetched && stream.publisher.is_none() && stream.fetch == Fetch::No {
            stream.fetch = Fetch::Asked;
            self.wanted.push((id, again));
        }
    }

    /// Has a stream fetched for somebody who reads no log of it.
    pub fn want_by_name(&mut self, key: &str, settings: Settings) {
        let id = self.find_or_insert(key, settings);
        self.want(id, false);
    }

    /// Streams that are to be fetched from now on, and whether their publishers here have just gone.
    pub fn take_wanted(&mut self) -> Vec<(StreamId, bool)> {
        std::mem::take(&mut self.wanted)
    }

    /// Whether a stream is still to be fetched.
    pub fn is_fetched(&self, key: &str) -> bool {
        self.by_key.get(key).is_some_and(|id| self.streams[*id].fetch != Fetch::No)
    }

    /// Whether somebody plays a stream that is at home here, or waits for it.
    pub fn is_watched(&self, key: &str) -> bool {
        self.by_key.get(key).is_some_and(|id| !self.streams[*id].is_unseen() || self.streams[*id].pinned)
    }

    /// Whoever publishes a stream here has fetched it; it goes when nobody has played the stream for so long, in ms.
    pub fn set_linger(&mut self, id: StreamId, linger_ms: u64) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.linger_ms = Some(linger_ms);
        }
    }

    /// Whether a stream's publisher has fetched it.
    pub fn has_fetcher(&self, key: &str) -> bool {
        self.by_key.get(key).is_some_and(|id| {
            let stream = &self.streams[*id];
            stream.publisher.is_some() && stream.linger_ms.is_some()
        })
    }

    /// A stream could not be had from anywhere, so far.
    pub fn fetch_failed(&mut self, key: &str) {
        let Some(&id) = self.by_key.get(key) else { return };
        let stream = &mut self.streams[id];
        if stream.fetch != Fetch::Asked || stream.publisher.is_some() {
            return;
        }
        stream.fetch = Fetch::Missing;
        stream.replica.schedule.note_change();
        stream.replica.schedule.hurry();
        for interest in &stream.interested {
            self.mesh.send(interest.shard, Message::Absent { relay: interest.relay, asked: false });
        }
        self.due.arm(id, &mut self.streams[id], self.seen_ms);
    }

    /// A stream is not fetched any more. Who has had media of it is told that it has ended, unless it is published here.
    pub fn end_fetch(&mut self, key: &str) {
        let Some(&id) = self.by_key.get(key) else { return };
        let stream = &mut self.streams[id];
        stream.fetch = Fetch::No;
        stream.held = false;
        if stream.publisher.is_none() {
            stream.replica.begin(Snapshot::default());
            stream.replica.end(false);
            for Interest { shard, relay, .. } in &stream.interested {
                self.mesh.send(*shard, Message::Begin { relay: *relay, snapshot: Box::default() });
                self.mesh.send(*shard, Message::End { relay: *relay, silent: false });
            }
            self.release(id);
        }
    }

    /// Ends a publish that somebody else will go on with: players are not told. Where times are as published, they are the
    /// encoder's whoever sends it, and the stream is held as it is for [`Self::resume`].
    pub fn interrupt(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        if stream.replica.settings().time_jitter == TimeJitter::Off && stream.replica.is_live() {
            self.publishers -= u64::from(stream.publisher.take().is_some());
            (stream.linger_ms, stream.held) = (None, true);
        } else {
            self.end(id, true);
        }
        self.release(id);
    }

    /// Goes on with a stream that is held, as if its publisher had never gone.
    pub fn resume(&mut self, key: &str, publisher: P) -> Option<StreamId> {
        let id = *self.by_key.get(key)?;
        let stream = &mut self.streams[id];
        if !std::mem::take(&mut stream.held) || stream.publisher.is_some() {
            return None;
        }
        stream.publisher = Some(publisher);
        self.publishers += 1;
        Some(id)
    }

    /// Begins a publish anew whose times do not follow what was there: players go on at its first keyframe.
    pub fn begin_anew(&mut self, id: StreamId) {
        // Its end forgets that it is fetched.
        let linger_ms = self.streams.get(id).and_then(|stream| stream.linger_ms);
        let Some(publisher) = self.end(id, true) else { return };
        let Some((key, settings)) =
            self.streams.get(id).map(|stream| (Arc::clone(&stream.key), *stream.replica.settings()))
        else {
            return;
        };
        // The name has just become free.
        if self.publish(&key, settings, publisher).is_ok() {
            self.streams[id].linger_ms = linger_ms;
        }
    }

    /// Whether a tag is a setup that the stream has already.
    pub fn repeats(&self, id: StreamId, tag: &Tag) -> bool {
        let info = codec::inspect(tag.kind, &tag.body);
        let entry = Entry { tag: tag.clone(), info, time_ms: 0, delta_ms: 0, arrived_ms: 0 };
        self.streams.get(id).is_some_and(|stream| stream.replica.headers().repeats(&entry))
    }

    /// A stream is to be there whether anybody plays it or not, or not any more.
    pub fn pin(&mut self, key: &str, settings: Settings, pinned: bool) {
        if !pinned && !self.by_key.contains_key(key) {
            return;
        }
        let id = self.find_or_insert(key, settings);
        self.streams[id].pinned = pinned;
        if pinned {
            self.want(id, false);
        } else {
            self.release(id);
        }
    }

    /// How a stream is kept, by its key.
    pub fn settings_of(&self, key: &str) -> Option<Settings> {
        self.by_key.get(key).map(|id| *self.streams[*id].replica.settings())
    }

    /// Streams that are pinned here, by their keys.
    pub fn pinned(&self) -> Vec<Arc<str>> {
        self.streams.iter().filter(|(_, stream)| stream.pinned).map(|(_, stream)| Arc::clone(&stream.key)).collect()
    }
}
