//! A stream's entries as a publisher's chunks.

use crate::{
    core::port::{Frame, Id, ImageKey, Sink, Start},
    media::{Entry, Subscription},
    proto::{
        Write,
        codec::Class,
        flv::{Tag, TagKind},
        rtmp::{
            chunks::{self, ChunkStreams},
            client::{CHUNK_SIZE, set_data_frame},
        },
    },
};

/// A NetStream that publishes at a destination.
#[derive(Debug)]
pub(crate) struct ForwardSink {
    msid: Id,
    /// Kinds whose next message needs a type 0 header.
    fresh: [bool; 3],
}

/// Not those that the client's commands use.
const SET: usize = 1;

impl ForwardSink {
    pub(super) fn new(msid: Id) -> Self {
        Self { msid, fresh: [true; 3] }
    }
}

/// The tag as a publisher sends it; only metadata differs.
fn published(entry: &Entry) -> Tag {
    let mut tag = entry.tag.clone();
    if entry.info.class == Class::Metadata {
        tag.body = set_data_frame(&tag.body).into();
    }
    tag
}

impl Sink for ForwardSink {
    fn client_type(&self) -> &'static str {
        "forward"
    }

    fn share(&self, _: &Subscription) -> Option<ImageKey> {
        Some(ImageKey::new(0, 0))
    }

    fn is_fresh(&self, kinds: [bool; 3]) -> bool {
        (0..3).any(|kind| kinds[kind] && self.fresh[kind])
    }

    fn put_shared<W: Write>(&self, frame: Frame<'_>, _: &Subscription, out: &mut W) {
        let streams = ChunkStreams::new(SET);
        if frame.entry.tag.kind == TagKind::Script {
            return chunks::put_next(out, &published(frame.entry), frame.entry.delta_ms, streams, CHUNK_SIZE as usize);
        }
        chunks::put_next(out, &frame.entry.tag, frame.entry.delta_ms, streams, CHUNK_SIZE as usize);
    }

    /// Writes what stands before media, each with a type 0 header; every kind starts anew after it.
    fn start<W: Write>(&mut self, start: &Start<'_>, out: &mut W) -> bool {
        let timestamp = start.subscription.resume_time();
        for entry in start.headers.iter() {
            let streams = ChunkStreams::new(SET);
            chunks::put_first(out, &published(entry), streams, CHUNK_SIZE as usize, timestamp, self.msid);
        }
        self.fresh = [true; 3];
        true
    }

    fn put<W: Write>(&mut self, frame: Frame<'_>, subscription: &Subscription, out: &mut W) -> bool {
        let entry = frame.entry;
        let timeless = entry.time_ms == Entry::BEFORE_MEDIA;
        if timeless || std::mem::take(&mut self.fresh[entry.tag.kind.index()]) {
            let timestamp = subscription.time_of(entry.time_ms);
            let streams = ChunkStreams::new(SET);
            chunks::put_first(out, &published(entry), streams, CHUNK_SIZE as usize, timestamp, self.msid);
        } else {
            self.put_shared(frame, subscription, out);
        }
        true
    }

    /// The destination is told, and the next publish has a connection of its own.
    fn end<W: Write>(&mut self, _: &mut W) -> bool {
        false
    }
}
