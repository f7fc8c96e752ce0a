//! A player: a subscription, and the sink that puts what it gets on a wire.

use super::{
    audience::AtEnd,
    images::{Images, Share},
    port::{Frame, Id, Sink, Start},
};
use crate::{
    media::{Entry, Headers, Reader, Rendition, Replica, Step, Subscription},
    mesh::{relay::StreamId, seats::Seat},
    sys::Gather,
};
use bytes::Bytes;
use std::ops::Range;

/// Most bytes of one send. Beyond 110 KB a send's cost per byte hardly falls; a joiner's GOP goes in
/// several.
const SEND_BYTES_MAX: usize = 256 << 10;
/// Most entries of one send, so that an iovec list stays within the kernel's 1024.
const SEND_ENTRIES_MAX: u64 = 300;

/// What plays on a connection.
#[derive(Debug)]
pub(super) struct Play<S> {
    /// The session's number for it.
    pub(super) id: Id,
    pub(super) stream: StreamId,
    pub(super) subscription: Subscription,
    pub(super) paused: bool,
    /// Its session has been told that it plays.
    pub(super) announced: bool,
    /// Media of a publish has begun.
    pub(super) begun: bool,
    pub(super) sink: S,
    /// Of what its sink has made of the stream.
    pub(super) reader: Option<Reader>,
    /// Whom to tell when it ends.
    pub(super) on_stop: AtEnd,
    /// Held where it came in elsewhere.
    pub(super) seat: Option<Seat>,
}

/// What [`Play::step`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// Took so many tags; there may be more to do.
    Took(u64),
    /// Was moved to a newer keyframe.
    Skipped,
    /// Has come to the end of a publish, and waits for another one.
    Ended,
    /// Another publisher has taken over.
    Replaced,
    /// It is over.
    Finished,
    /// Nothing to do now.
    Idle,
    /// There is more than fits one send.
    Full,
}

/// What a play has its connection's session told, before what it writes next.
pub(super) type Tell<'a> = &'a mut dyn FnMut(Told, &mut Gather);

/// See [`Tell`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Told {
    /// Media begins, after media of an earlier publish or not.
    Started(bool),
    /// The publish is over.
    Ended,
    /// The play is over.
    Finished,
}

impl<S: Sink> Play<S> {
    pub(super) fn new(id: Id, stream: StreamId, subscription: Subscription, sink: S) -> Self {
        Self {
            id,
            stream,
            subscription,
            paused: false,
            announced: false,
            begun: false,
            sink,
            on_stop: AtEnd::default(),
            reader: None,
            seat: None,
        }
    }

    /// Takes the shared image of what comes next, if there is one to take: from `images`, or a new
    /// one. Returns it with the number of tags.
    pub(super) fn take_image(&mut self, replica: &Replica, images: &mut Images, now_ms: u64) -> Option<(Share, u64)> {
        if self.paused || !self.announced || !self.subscription.is_following() {
            return None;
        }
        let key = self.sink.share(&self.subscription)?;
        let head = replica.log().head();
        let next = self.subscription.next();
        if let Some(at) = images.find(self.stream, next, head, key) {
            let image = images.get(at);
            if self.sink.is_fresh(image.kinds) {
                return None;
            }
            // Its range was found by a member at the same place, under the same limits.
            let tags = image.range.end - next;
            self.subscription.advance(image.range.end, image.newest_ms);
            return Some((images.share(at), tags));
        }
        if images.is_full() {
            return None;
        }
        // Anything but plain entries (a start, a skip, an end) goes the long way.
        let mut trial = self.subscription.clone();
        let Step::Entries(range) = replica.step(&mut trial, now_ms) else { return None };
        let frames = Frames::new(replica, &self.sink);
        let range = frames.fitting(range);
        let (mut kinds, mut timeless) = ([false; 3], false);
        let mut size = 0;
        for frame in frames.range(range.clone()) {
            kinds[frame.entry.tag.kind.index()] = true;
            timeless |= frame.entry.time_ms == Entry::BEFORE_MEDIA;
            size += frame.bytes.len() + 64;
        }
        if timeless || self.sink.is_fresh(kinds) {
            return None;
        }
        let mut bytes = Vec::with_capacity(size + size / 64);
        let mut newest_ms = i64::MIN;
        for frame in frames.range(range.clone()) {
            self.sink.put_shared(frame, &trial, &mut bytes);
            newest_ms = newest_ms.max(frame.entry.time_ms);
        }
        let tags = range.end - range.start;
        self.subscription = trial;
        self.subscription.advance(range.end, newest_ms);
        Some((images.add(self.stream, key, (range, head), (newest_ms, kinds), bytes), tags))
    }

    /// Age of the oldest of the last `tags` that it took, in ms since that came and it was there to get it.
    pub(super) fn age_ms(&self, replica: &Replica, now_ms: u64, tags: u64) -> Option<u64> {
        let oldest = replica.log().at(self.subscription.next().checked_sub(tags)?)?;
        Some(now_ms.saturating_sub(oldest.arrived_ms.max(self.subscription.since_ms())))
    }

    /// Does the next thing and writes it to `out`.
    pub(super) fn step(&mut self, replica: &Replica, tell: Tell<'_>, out: &mut Gather, now_ms: u64) -> Progress {
        if self.paused {
            return Progress::Idle;
        }
        match replica.step(&mut self.subscription, now_ms) {
            Step::Wait => Progress::Idle,
            Step::Start { headers, again } => {
                self.begun = true;
                tell(Told::Started(again), out);
                let more = self.start(replica, headers, again, out);
                self.progress(more, Progress::Took(0), tell, out)
            }
            Step::Skipped { headers } => {
                let more = self.start(replica, headers, true, out);
                self.progress(more, Progress::Skipped, tell, out)
            }
            Step::End { silent: true } => Progress::Replaced,
            Step::End { silent: false } => {
                let more = self.sink.end(out);
                if more {
                    tell(Told::Ended, out);
                }
                self.progress(more, Progress::Ended, tell, out)
            }
            Step::Entries(_) if out.len() >= SEND_BYTES_MAX => Progress::Full,
            Step::Entries(range) => {
                let frames = Frames::new(replica, &self.sink);
                let range = frames.fitting(range);
                let (mut newest_ms, mut more) = (i64::MIN, true);
                for frame in frames.range(range.clone()) {
                    more = self.sink.put(frame, &self.subscription, out);
                    if !more {
                        break;
                    }
                    newest_ms = newest_ms.max(frame.entry.time_ms);
                }
                let tags = range.end - range.start;
                if more {
                    self.subscription.advance(range.end, newest_ms);
                }
                self.progress(more, Progress::Took(tags), tell, out)
            }
        }
    }

    fn progress(&self, more: bool, done: Progress, tell: Tell<'_>, out: &mut Gather) -> Progress {
        if more {
            return done;
        }
        tell(Told::Finished, out);
        Progress::Finished
    }

    fn start(&mut self, replica: &Replica, headers: &Headers, again: bool, out: &mut Gather) -> bool {
        let rendition = self.sink.rendition().and_then(|kind| replica.rendition(kind));
        let note = rendition.map_or(0, |rendition| rendition.note(self.subscription.next()));
        let start = Start { replica, headers, subscription: &self.subscription, again, note };
        self.sink.start(&start, out)
    }
}

/// What stands for an entry that was never rendered.
static NOTHING: Bytes = Bytes::new();

/// A stream's entries as a sink reads them.
struct Frames<'a> {
    replica: &'a Replica,
    /// Of a sink that reads one, whether there is one or not.
    rendition: Option<Option<&'a Rendition>>,
}

impl<'a> Frames<'a> {
    fn new<S: Sink>(replica: &'a Replica, sink: &S) -> Self {
        Self { replica, rendition: sink.rendition().map(|kind| replica.rendition(kind)) }
    }

    fn range(&self, range: Range<u64>) -> impl Iterator<Item = Frame<'a>> {
        let (first, rendition) = (range.start, self.rendition);
        self.replica.log().range(range).zip(first..).map(move |(entry, index)| {
            let piece = |rendition: &'a Rendition| rendition.at(index).map_or(&NOTHING, |piece| &piece.bytes);
            let bytes = rendition.map_or(&entry.tag.body, |rendition| rendition.map_or(&NOTHING, piece));
            Frame { entry, bytes }
        })
    }

    /// As much of `range` as one send takes; at least one entry.
    fn fitting(&self, range: Range<u64>) -> Range<u64> {
        let entries_max = if self.replica.settings().is_one_by_one() { 1 } else { SEND_ENTRIES_MAX };
        let mut bytes = 0;
        let mut end = range.start;
        for frame in self.range(range.start..range.end.min(range.start + entries_max)) {
            bytes += frame.bytes.len();
            if bytes > SEND_BYTES_MAX && end > range.start {
                break;
            }
            end += 1;
        }
        range.start..end
    }
}
