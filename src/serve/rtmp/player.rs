//! What a playing NetStream's chunks need to know.

use super::wire::{self, ChunkStreams, Sink};
use crate::{
    net::Gather,
    proto::{flv::TagKind, rtmp::server::ServerSession},
    stream::{Entry, Headers, Subscription},
};

/// RTMP's part of a player.
#[derive(Debug)]
pub(in crate::serve) struct RtmpWire {
    pub(in crate::serve) streams: ChunkStreams,
    /// Kinds whose next message needs a type 0 header.
    fresh: [bool; 3],
    /// Kinds that the player wants (receiveAudio, receiveVideo).
    wanted: [bool; 3],
    /// `play`'s duration, on the subscription's clock in ms.
    duration_ms: Option<u32>,
}

impl RtmpWire {
    /// With chunk stream set number `set`.
    pub(in crate::serve) fn new(set: usize, duration_ms: Option<u32>) -> Self {
        Self { streams: ChunkStreams::new(set), fresh: [true; 3], wanted: [true; 3], duration_ms }
    }

    /// Obeys receiveAudio and receiveVideo.
    pub(in crate::serve) fn receive(&mut self, kind: TagKind, wanted: bool) {
        self.wanted[kind.index()] = wanted;
        self.fresh[kind.index()] = true;
    }

    /// Whether it gets the bytes that every player at its place gets, but for fresh kinds.
    pub(in crate::serve) fn is_plain(&self) -> bool {
        self.wanted == [true; 3] && self.duration_ms.is_none()
    }

    /// Whether a message of a kind in `kinds` would need a header of its own.
    pub(in crate::serve) fn is_fresh(&self, kinds: [bool; 3]) -> bool {
        (0..3).any(|kind| kinds[kind] && self.fresh[kind])
    }

    /// Writes what stands before media, each with a type 0 header; every kind starts anew after it.
    pub(in crate::serve) fn put_headers(
        &mut self,
        headers: &Headers,
        msid: u32,
        chunk_size: usize,
        timestamp: u32,
        out: &mut Gather,
    ) {
        for entry in headers.iter().filter(|entry| self.wanted[entry.tag.kind.index()]) {
            wire::put_first(out, entry, self.streams, chunk_size, timestamp, msid);
        }
        self.fresh = [true; 3];
    }

    /// Writes an entry, unless it is not wanted; false if it lies beyond what `play` asked for, which the
    /// player is told.
    pub(in crate::serve) fn put(
        &mut self,
        entry: &Entry,
        subscription: &Subscription,
        msid: u32,
        session: &mut ServerSession,
        out: &mut Gather,
    ) -> bool {
        if self.duration_ms.is_some_and(|duration_ms| subscription.is_beyond(entry.time_ms, duration_ms)) {
            session.notify_play_end(msid);
            Sink::copy(out, &session.take_output());
            return false;
        }
        let kind = entry.tag.kind.index();
        if !self.wanted[kind] {
            return true;
        }
        let timeless = entry.time_ms == Entry::BEFORE_MEDIA;
        if timeless || std::mem::take(&mut self.fresh[kind]) {
            let timestamp = subscription.time_of(entry.time_ms);
            wire::put_first(out, entry, self.streams, session.chunk_size(), timestamp, msid);
        } else {
            wire::put_next(out, entry, self.streams, session.chunk_size());
        }
        true
    }
}
