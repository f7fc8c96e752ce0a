//! A player: a subscription, and how it stands on its wire.

use super::{
    http::flv::{self, FlvWire, Framing},
    rtmp::{
        player::RtmpWire,
        wire::{self, ChunkStreams},
    },
    session::Session,
    wire::Sink,
};
use crate::{
    control::hooks,
    net::Gather,
    shard::relay::StreamId,
    stream::{Entry, Headers, Replica, Step, Subscription},
};
use std::{ops::Range, rc::Rc};

/// Most bytes of one send. Beyond 110 KB a send's cost per byte hardly falls; a joiner's GOP goes in
/// several.
pub(in crate::serve) const SEND_BYTES_MAX: usize = 256 << 10;
/// Most entries of one send, so that an iovec list stays within the kernel's 1024.
const SEND_ENTRIES_MAX: u64 = 300;
/// Most images of one flush: players who began at different places share none of FLV's.
const IMAGES_MAX: usize = 8;

/// A NetStream that plays, or a live response.
#[derive(Debug)]
pub(in crate::serve) struct Play {
    /// The NetStream; 0 for a response.
    pub(in crate::serve) msid: u32,
    pub(in crate::serve) stream: StreamId,
    pub(in crate::serve) subscription: Subscription,
    pub(in crate::serve) paused: bool,
    /// The player has been told that it plays.
    pub(in crate::serve) announced: bool,
    pub(in crate::serve) wire: Wire,
    /// Whom to tell when it ends.
    pub(in crate::serve) on_stop: Option<Box<hooks::Event>>,
}

/// What differs by protocol.
#[derive(Debug)]
pub(in crate::serve) enum Wire {
    Rtmp(RtmpWire),
    Flv(Box<FlvWire>),
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
    /// It is over: the duration that `play` asked for, or a response.
    Finished,
    /// Nothing to do now.
    Idle,
    /// There is more than fits one send.
    Full,
}

/// What an image is written as; equal for players who can share it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Format {
    /// Type 1 chunks carry deltas: the same for every clock.
    Rtmp { streams: ChunkStreams, chunk_size: usize },
    /// FLV's times are a player's own: the same for those who began at the same place.
    Flv { framing: Framing, wanted: [bool; 3], base_ms: i64 },
}

impl Format {
    fn put(self, sink: &mut impl Sink, entry: &Entry, subscription: &Subscription) {
        match self {
            Self::Rtmp { streams, chunk_size } => wire::put_next(sink, entry, streams, chunk_size),
            Self::Flv { framing, wanted, .. } if wanted[entry.tag.kind.index()] => {
                flv::put_tag(sink, entry, subscription.time_of(entry.time_ms), framing);
            }
            Self::Flv { .. } => {}
        }
    }
}

/// A shared image of entries, for the members of one flush that stand at the same place.
#[derive(Debug)]
pub(in crate::serve) struct Image {
    stream: StreamId,
    format: Format,
    range: Range<u64>,
    /// The log's end when it was made.
    head: u64,
    newest_ms: i64,
    kinds: [bool; 3],
    bytes: Rc<Vec<u8>>,
}

impl Play {
    pub(in crate::serve) fn new(msid: u32, stream: StreamId, subscription: Subscription, wire: Wire) -> Self {
        // A response says so by its beginning.
        let announced = matches!(wire, Wire::Flv(_));
        Self { msid, stream, subscription, paused: false, announced, wire, on_stop: None }
    }

    /// Whether it uses RTMP's chunk stream set number `set`.
    pub(in crate::serve) fn uses(&self, set: usize) -> bool {
        matches!(&self.wire, Wire::Rtmp(rtmp) if rtmp.streams == ChunkStreams::new(set))
    }

    /// How it could share what comes next; `None` if it gets something of its own.
    fn format(&self, chunk_size: usize) -> Option<Format> {
        if self.paused || !self.announced || !self.subscription.is_following() {
            return None;
        }
        match &self.wire {
            Wire::Rtmp(rtmp) => rtmp.is_plain().then_some(Format::Rtmp { streams: rtmp.streams, chunk_size }),
            Wire::Flv(flv) => {
                let base_ms = self.subscription.base_ms();
                Some(Format::Flv { framing: flv.framing, wanted: flv.wanted, base_ms })
            }
        }
    }

    /// Whether entries of these kinds need something of its own.
    fn is_fresh(&self, kinds: [bool; 3]) -> bool {
        matches!(&self.wire, Wire::Rtmp(rtmp) if rtmp.is_fresh(kinds))
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
        let format = self.format(chunk_size)?;
        let head = replica.log().head();
        let next = self.subscription.next();
        let fits = |image: &&Image| {
            image.stream == self.stream && image.range.start == next && image.head == head && image.format == format
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
        if images.len() >= IMAGES_MAX {
            return None;
        }
        // Anything but plain entries (a start, a skip, an end) goes the long way.
        let mut trial = self.subscription.clone();
        let Step::Entries(range) = replica.step(&mut trial, now_ms) else { return None };
        let range = fitting(replica, range);
        let (mut kinds, mut timeless) = ([false; 3], false);
        let mut size = 0;
        for entry in replica.log().range(range.clone()) {
            kinds[entry.tag.kind.index()] = true;
            timeless |= entry.time_ms == Entry::BEFORE_MEDIA;
            size += entry.tag.body.len() + 64;
        }
        if timeless || self.is_fresh(kinds) {
            return None;
        }
        let mut bytes = Vec::with_capacity(size + size / 64);
        let mut newest_ms = i64::MIN;
        for entry in replica.log().range(range.clone()) {
            format.put(&mut bytes, entry, &trial);
            newest_ms = newest_ms.max(entry.time_ms);
        }
        let tags = range.end - range.start;
        self.subscription = trial;
        self.subscription.advance(range.end, newest_ms);
        let bytes = Rc::new(bytes);
        images.push(Image { stream: self.stream, format, range, head, newest_ms, kinds, bytes: Rc::clone(&bytes) });
        Some((bytes, tags))
    }

    /// Age of the oldest of the last `tags` that it took, in ms since that came and it was there to get it.
    pub(in crate::serve) fn age_ms(&self, replica: &Replica, now_ms: u64, tags: u64) -> Option<u64> {
        let oldest = replica.log().at(self.subscription.next().checked_sub(tags)?)?;
        Some(now_ms.saturating_sub(oldest.arrived_ms.max(self.subscription.since_ms())))
    }

    /// Does the next thing and writes it to `out`.
    pub(in crate::serve) fn step(
        &mut self,
        replica: &Replica,
        session: &mut Session,
        out: &mut Gather,
        now_ms: u64,
    ) -> Progress {
        if self.paused {
            return Progress::Idle;
        }
        match replica.step(&mut self.subscription, now_ms) {
            Step::Wait => Progress::Idle,
            Step::Start { headers, again } => {
                match (&mut self.wire, &mut *session) {
                    (Wire::Rtmp(_), Session::Rtmp(session)) if again => {
                        session.notify_publish(self.msid);
                        Sink::copy(out, &session.take_output());
                    }
                    (Wire::Flv(flv), _) => {
                        if flv.begin(replica, headers, &self.subscription, out) {
                            return Progress::Finished;
                        }
                    }
                    (Wire::Rtmp(_), _) => {}
                }
                self.put_headers(headers, session.chunk_size(), out);
                Progress::Started
            }
            Step::Skipped { headers } => {
                self.put_headers(headers, session.chunk_size(), out);
                Progress::Skipped
            }
            Step::End { silent: true } => Progress::Replaced,
            Step::End { silent: false } => match (&mut self.wire, session) {
                (Wire::Rtmp(_), Session::Rtmp(session)) => {
                    session.notify_unpublish(self.msid);
                    Sink::copy(out, &session.take_output());
                    Progress::Ended
                }
                (Wire::Flv(flv), _) => {
                    flv.end(out);
                    Progress::Finished
                }
                (Wire::Rtmp(_), Session::Http(_)) => Progress::Ended,
            },
            Step::Entries(_) if out.len() >= SEND_BYTES_MAX => Progress::Full,
            Step::Entries(range) => self.put(replica, range, session, out),
        }
    }

    /// Writes what stands before media.
    fn put_headers(&mut self, headers: &Headers, chunk_size: usize, out: &mut Gather) {
        let timestamp = self.subscription.resume_time();
        match &mut self.wire {
            Wire::Rtmp(rtmp) => rtmp.put_headers(headers, self.msid, chunk_size, timestamp, out),
            Wire::Flv(flv) => headers.iter().for_each(|entry| flv.put(entry, timestamp, out)),
        }
    }

    fn put(&mut self, replica: &Replica, range: Range<u64>, session: &mut Session, out: &mut Gather) -> Progress {
        let range = fitting(replica, range);
        let mut newest_ms = i64::MIN;
        for entry in replica.log().range(range.clone()) {
            match (&mut self.wire, &mut *session) {
                (Wire::Rtmp(rtmp), Session::Rtmp(session)) => {
                    if !rtmp.put(entry, &self.subscription, self.msid, session, out) {
                        return Progress::Finished;
                    }
                }
                (Wire::Flv(flv), _) => flv.put(entry, self.subscription.time_of(entry.time_ms), out),
                (Wire::Rtmp(_), Session::Http(_)) => {}
            }
            newest_ms = newest_ms.max(entry.time_ms);
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
