//! What a playing NetStream's chunks need to know.

use crate::{
    core::port::{Frame, Id, ImageKey, Sink, Start},
    media::{Entry, Subscription},
    proto::{
        Write,
        flv::TagKind,
        rtmp::chunks::{self, ChunkStreams},
    },
};

/// A NetStream that plays.
#[derive(Debug)]
pub(crate) struct RtmpSink {
    streams: ChunkStreams,
    msid: Id,
    chunk_size: usize,
    /// Kinds whose next message needs a type 0 header.
    fresh: [bool; 3],
    /// Kinds that the player wants (receiveAudio, receiveVideo).
    wanted: [bool; 3],
    /// `play`'s duration, on the subscription's clock in ms.
    duration_ms: Option<u32>,
}

impl RtmpSink {
    pub(super) fn new(streams: ChunkStreams, msid: Id, chunk_size: usize, duration_ms: Option<u32>) -> Self {
        Self { streams, msid, chunk_size, fresh: [true; 3], wanted: [true; 3], duration_ms }
    }
}

impl Sink for RtmpSink {
    fn client_type(&self) -> &'static str {
        "rtmp-play"
    }

    fn follows(&self) -> bool {
        true
    }

    /// Type 1 chunks carry deltas: the same for every clock.
    fn share(&self, _: &Subscription) -> Option<ImageKey> {
        let plain = self.wanted == [true; 3] && self.duration_ms.is_none();
        plain.then(|| ImageKey::new(self.streams.number() << 32 | self.chunk_size as u64, 0))
    }

    fn is_fresh(&self, kinds: [bool; 3]) -> bool {
        (0..3).any(|kind| kinds[kind] && self.fresh[kind])
    }

    fn put_shared<W: Write>(&self, frame: Frame<'_>, _: &Subscription, out: &mut W) {
        chunks::put_next(out, &frame.entry.tag, frame.entry.delta_ms, self.streams, self.chunk_size);
    }

    fn want(&mut self, kind: TagKind, wanted: bool) {
        self.wanted[kind.index()] = wanted;
        self.fresh[kind.index()] = true;
    }

    /// Writes what stands before media, each with a type 0 header; every kind starts anew after it.
    fn start<W: Write>(&mut self, start: &Start<'_>, out: &mut W) -> bool {
        let timestamp = start.subscription.resume_time();
        for entry in start.headers.iter().filter(|entry| self.wanted[entry.tag.kind.index()]) {
            chunks::put_first(out, &entry.tag, self.streams, self.chunk_size, timestamp, self.msid);
        }
        self.fresh = [true; 3];
        true
    }

    /// Writes an entry, unless it is not wanted, or lies beyond what `play` asked for.
    fn put<W: Write>(&mut self, frame: Frame<'_>, subscription: &Subscription, out: &mut W) -> bool {
        let entry = frame.entry;
        if self.duration_ms.is_some_and(|duration_ms| subscription.is_beyond(entry.time_ms, duration_ms)) {
            return false;
        }
        let kind = entry.tag.kind.index();
        if !self.wanted[kind] {
            return true;
        }
        let timeless = entry.time_ms == Entry::BEFORE_MEDIA;
        if timeless || std::mem::take(&mut self.fresh[kind]) {
            let timestamp = subscription.time_of(entry.time_ms);
            chunks::put_first(out, &entry.tag, self.streams, self.chunk_size, timestamp, self.msid);
        } else {
            chunks::put_next(out, &entry.tag, entry.delta_ms, self.streams, self.chunk_size);
        }
        true
    }

    /// A NetStream waits for the next publish.
    fn end<W: Write>(&mut self, _: &mut W) -> bool {
        true
    }
}
