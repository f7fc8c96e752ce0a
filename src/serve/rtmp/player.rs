//! A NetStream that plays: a subscription, and what its chunks need to know.

use super::wire::{self, ChunkStreams, Sink};
use crate::{
    net::Gather,
    proto::{flv::TagKind, rtmp::server::ServerSession},
    shard::relay::StreamId,
    stream::{Entry, Headers, Replica, Step, Subscription},
};
use std::{ops::Range, rc::Rc};

/// Most bytes of one send. Beyond 110 KB a send's cost per byte hardly falls; a joiner's GOP goes in
/// several.
pub(in crate::serve) const SEND_BYTES_MAX: usize = 256 << 10;
/// Most entries of one send, so that an iovec list stays within the kernel's 1024.
const SEND_ENTRIES_MAX: u64 = 300;

/// One playing NetStream.
#[derive(Debug)]
pub(in crate::serve) struct Play {
    pub(in crate::serve) msid: u32,
    pub(in crate::serve) stream: StreamId,
    pub(in crate::serve) subscription: Subscription,
    pub(in crate::serve) paused: bool,
    streams: ChunkStreams,
    /// Kinds whose next message needs a type 0 header.
    fresh: [bool; 3],
    /// Kinds that the player wants (receiveAudio, receiveVideo).
    wanted: [bool; 3],
    /// `play`'s duration, on the subscription's clock in ms.
    duration_ms: Option<u32>,
}

/// What [`Play::step`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::serve) enum Progress {
    /// Took so many tags; there may be more to do.
    Took(u64),
    /// Media of a publish begins.
    Started,
    /// Was moved to a newer keyframe.
    Skipped,
    /// Was told the end of a publish.
    Ended,
    /// Another publisher has taken over.
    Replaced,
    /// The duration that `play` asked for is over; the NetStream plays no more.
    Finished,
    /// Nothing to do now.
    Idle,
    /// There is more than fits one send.
    Full,
}

/// A shared image of entries, for the members of one flush that stand at the same place.
#[derive(Debug)]
pub(in crate::serve) struct Image {
    stream: StreamId,
    streams: ChunkStreams,
    chunk_size: usize,
    range: Range<u64>,
    /// The log's end when it was made.
    head: u64,
    newest_ms: i64,
    kinds: [bool; 3],
    pub(in crate::serve) bytes: Rc<Vec<u8>>,
}

impl Play {
    pub(in crate::serve) fn new(
        msid: u32,
        stream: StreamId,
        subscription: Subscription,
        set: usize,
        duration_ms: Option<u32>,
    ) -> Self {
        let streams = ChunkStreams::new(set);
        Self { msid, stream, subscription, paused: false, streams, fresh: [true; 3], wanted: [true; 3], duration_ms }
    }

    /// Whether it uses chunk stream set number `set`.
    pub(in crate::serve) fn uses(&self, set: usize) -> bool {
        self.streams == ChunkStreams::new(set)
    }

    /// Obeys receiveAudio and receiveVideo.
    pub(in crate::serve) fn receive(&mut self, kind: TagKind, wanted: bool) {
        self.wanted[index(kind)] = wanted;
        self.fresh[index(kind)] = true;
    }

    /// Whether it gets the bytes that every player at its place gets, but for fresh kinds.
    fn is_plain(&self) -> bool {
        !self.paused && self.wanted == [true; 3] && self.duration_ms.is_none() && self.subscription.is_following()
    }

    /// Whether a message of a kind in `kinds` would need a header of its own.
    fn is_fresh(&self, kinds: [bool; 3]) -> bool {
        (0..3).any(|kind| kinds[kind] && self.fresh[kind])
    }

    /// Takes the shared image of what comes next, if there is one to take: from `images`, or a new
    /// one. Returns it with the number of tags.
    pub(in crate::serve) fn take_image(
        &mut self,
        replica: &Replica,
        chunk_size: usize,
        images: &mut Vec<Image>,
        now_ms: u64,
    ) -> Option<(Rc<Vec<u8>>, u64)> {
        if !self.is_plain() {
            return None;
        }
        let head = replica.log().head();
        let next = self.subscription.next();
        let fits = |image: &&Image| {
            image.stream == self.stream
                && image.range.start == next
                && image.head == head
                && image.streams == self.streams
                && image.chunk_size == chunk_size
        };
        if let Some(image) = images.iter().find(fits) {
            if self.is_fresh(image.kinds) {
                return None;
            }
            // Its range was found by a member at the same place, under the same limits.
            let tags = image.range.end - next;
            self.subscription.advance(image.range.end, image.newest_ms);
            return Some((Rc::clone(&image.bytes), tags));
        }
        // Anything but plain entries (a start, a skip, an end) goes the long way.
        let mut trial = self.subscription.clone();
        let Step::Entries(range) = replica.step(&mut trial, now_ms) else { return None };
        let range = fitting(replica, range);
        let (mut kinds, mut timeless) = ([false; 3], false);
        let mut size = 0;
        for entry in replica.log().range(range.clone()) {
            kinds[index(entry.tag.kind)] = true;
            timeless |= entry.time_ms == Entry::BEFORE_MEDIA;
            size += entry.tag.body.len() + 64;
        }
        if timeless || self.is_fresh(kinds) {
            return None;
        }
        let mut bytes = Vec::with_capacity(size + size / 64);
        let mut newest_ms = i64::MIN;
        for entry in replica.log().range(range.clone()) {
            wire::put_next(&mut bytes, entry, self.streams, chunk_size);
            newest_ms = newest_ms.max(entry.time_ms);
        }
        let tags = range.end - range.start;
        self.subscription = trial;
        self.subscription.advance(range.end, newest_ms);
        let bytes = Rc::new(bytes);
        images.push(Image {
            stream: self.stream,
            streams: self.streams,
            chunk_size,
            range,
            head,
            newest_ms,
            kinds,
            bytes: Rc::clone(&bytes),
        });
        Some((bytes, tags))
    }

    /// Does the next thing and writes it to `out`.
    pub(in crate::serve) fn step(
        &mut self,
        replica: &Replica,
        session: &mut ServerSession,
        out: &mut Gather,
        now_ms: u64,
    ) -> Progress {
        if self.paused {
            return Progress::Idle;
        }
        let chunk_size = session.chunk_size();
        match replica.step(&mut self.subscription, now_ms) {
            Step::Wait => Progress::Idle,
            Step::Start { headers, again } => {
                if again {
                    session.notify_publish(self.msid);
                    Sink::copy(out, &session.take_output());
                }
                self.put_headers(headers, chunk_size, out);
                Progress::Started
            }
            Step::Skipped { headers } => {
                self.put_headers(headers, chunk_size, out);
                Progress::Skipped
            }
            Step::End { silent: true } => Progress::Replaced,
            Step::End { silent: false } => {
                session.notify_unpublish(self.msid);
                Sink::copy(out, &session.take_output());
                Progress::Ended
            }
            Step::Entries(_) if out.len() >= SEND_BYTES_MAX => Progress::Full,
            Step::Entries(range) => self.put(replica, range, session, out),
        }
    }

    /// Writes what stands before media, each with a type 0 header; every kind starts anew after it.
    fn put_headers(&mut self, headers: &Headers, chunk_size: usize, out: &mut Gather) {
        let timestamp = self.subscription.resume_time();
        for entry in headers.iter().filter(|entry| self.wanted[index(entry.tag.kind)]) {
            wire::put_first(out, entry, self.streams, chunk_size, timestamp, self.msid);
        }
        self.fresh = [true; 3];
    }

    fn put(&mut self, replica: &Replica, range: Range<u64>, session: &mut ServerSession, out: &mut Gather) -> Progress {
        let chunk_size = session.chunk_size();
        let range = fitting(replica, range);
        let mut newest_ms = i64::MIN;
        for entry in replica.log().range(range.clone()) {
            let timestamp = self.subscription.time_of(entry.time_ms);
            if self.duration_ms.is_some_and(|duration_ms| self.subscription.is_beyond(entry.time_ms, duration_ms)) {
                session.notify_play_end(self.msid);
                Sink::copy(out, &session.take_output());
                return Progress::Finished;
            }
            newest_ms = newest_ms.max(entry.time_ms);
            let kind = index(entry.tag.kind);
            if !self.wanted[kind] {
                continue;
            }
            let timeless = entry.time_ms == Entry::BEFORE_MEDIA;
            if timeless || std::mem::take(&mut self.fresh[kind]) {
                wire::put_first(out, entry, self.streams, chunk_size, timestamp, self.msid);
            } else {
                wire::put_next(out, entry, self.streams, chunk_size);
            }
        }
        self.subscription.advance(range.end, newest_ms);
        Progress::Took(range.end - range.start)
    }
}

/// As much of `range` as one send takes; at least one entry.
fn fitting(replica: &Replica, range: Range<u64>) -> Range<u64> {
    let entries_max = if replica.settings().is_one_by_one() { 1 } else { SEND_ENTRIES_MAX };
    let mut bytes = 0;
    let mut end = range.start;
    for entry in replica.log().range(range.start..range.end.min(range.start + entries_max)) {
        bytes += entry.tag.body.len();
        if bytes > SEND_BYTES_MAX && end > range.start {
            break;
        }
        end += 1;
    }
    range.start..end
}

fn index(kind: TagKind) -> usize {
    match kind {
        TagKind::Audio => 0,
        TagKind::Video => 1,
        TagKind::Script => 2,
    }
}
