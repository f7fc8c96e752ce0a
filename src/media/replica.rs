//! One stream on one shard.

mod rendered;
mod start;

use super::{
    Entry, HEADERS_BYTES_MAX, Headers, Log, Rendition, Schedule, Settings, Step, Subscription, Taker,
    cursor::{State, truncate},
};
use crate::proto::{
    codec::{self, Class},
    flv::TagKind,
};
use std::collections::VecDeque;

/// How many tags a subscription waits for the first keyframe of a publish before it takes what
/// comes: a stream with intra refresh has none.
pub const KEYFRAME_WAIT_TAGS_MAX: u64 = 500;

/// A track whose last tag is older than this does not hold a joiner's clock back, in ms.
const TRACK_LAG_MS_MAX: i64 = 1000;

/// How long audio waits for video that was announced, in ms of media or of real time, whichever is over
/// first.
const VIDEO_WAIT_MS_MAX: u64 = 2000;

/// Most ends of publishes that a log remembers.
const ENDS_MAX: usize = 64;

/// A stream's log on one shard, with what late joiners need. See the module's invariants.
#[derive(Debug)]
pub struct Replica {
    settings: Settings,
    /// Who is flushed when.
    pub schedule: Schedule,
    log: Log,
    headers: Headers,
    live: bool,
    /// Where each finished publish ended. `ends_dropped` were dropped.
    ends: VecDeque<End>,
    ends_dropped: usize,
    epoch: Epoch,
    /// Where a late joiner starts, and what it needs there.
    mark: Option<Mark>,
    newest_keyframe: Option<u64>,
    renditions: Vec<Rendition>,
    takers: Vec<Box<dyn Taker>>,
}

/// A place in a stream's log to follow it from, and what came since.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// As of the place.
    pub headers: Headers,
    /// From the place on.
    pub entries: Vec<Entry>,
    /// Whether the publish has had a keyframe before it.
    pub keyframe_seen: bool,
    /// Whether subscriptions see times as published.
    pub absolute: bool,
}

/// The end of a publish, and what those may still have of it who were there and had nothing yet.
#[derive(Clone, Debug)]
struct End {
    /// The index after its last entry.
    at: u64,
    /// Another publisher has taken over: players need not know.
    silent: bool,
    absolute: bool,
    /// Who stands before this index was here before its first media.
    media: u64,
    /// Where those start.
    start: Option<Mark>,
    /// Where those start who came later.
    mark: Option<Mark>,
}

#[derive(Clone, Debug)]
struct Mark {
    index: u64,
    headers: Headers,
}

/// What is known of the publish at hand.
#[derive(Debug, Default)]
struct Epoch {
    first: u64,
    headers: Headers,
    keyframe_seen: bool,
    inter_frame_seen: bool,
    /// Its first media: index, time, arrival.
    media: Option<(u64, i64, u64)>,
    /// Where those start who were here before its media: its first keyframe.
    start: Option<Mark>,
    expects_video: bool,
    absolute: bool,
    /// Time of the newest tag of each kind.
    newest_ms: [Option<i64>; 3],
}

impl Epoch {
    /// The newest time of audio or video.
    fn newest_media_ms(&self) -> Option<i64> {
        self.newest_ms[..2].iter().flatten().copied().max()
    }

    /// Whether one track has waited for the other for as long as a person would.
    fn is_waited_out(&self, now_ms: u64) -> bool {
        let newest_ms = self.newest_media_ms();
        self.media.zip(newest_ms).is_some_and(|((_, time_ms, arrived_ms), newest_ms)| {
            newest_ms.saturating_sub(time_ms) >= VIDEO_WAIT_MS_MAX.cast_signed()
                || now_ms.saturating_sub(arrived_ms) >= VIDEO_WAIT_MS_MAX
        })
    }
}

impl Replica {
    /// A stream that nobody publishes yet. `pace_ms` is the shard's flush interval where the settings
    /// have none; `number` tells streams of a shard apart.
    pub fn new(settings: Settings, pace_ms: u64, number: u64) -> Self {
        Self {
            settings,
            schedule: Schedule::new(settings.interval_ms().unwrap_or(pace_ms), number),
            log: Log::default(),
            headers: Headers::default(),
            live: false,
            ends: VecDeque::new(),
            ends_dropped: 0,
            epoch: Epoch::default(),
            mark: None,
            newest_keyframe: None,
            renditions: Vec::new(),
            takers: Vec::new(),
        }
    }

    /// How the stream is kept.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes how the stream is kept, its clock at the next publish.
    pub fn set_settings(&mut self, settings: Settings, pace_ms: u64) {
        self.settings = settings;
        self.schedule.set_interval(settings.interval_ms().unwrap_or(pace_ms));
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The newest metadata and setups.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Whether somebody publishes.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Whether the present publish has had a keyframe.
    pub fn has_had_keyframe(&self) -> bool {
        self.epoch.keyframe_seen
    }

    /// A publish begins, or is joined late at a snapshot of the home shard's replica.
    pub fn begin(&mut self, snapshot: Snapshot) {
        let Snapshot { headers, entries, keyframe_seen, absolute } = snapshot;
        self.live = true;
        self.mark = None;
        self.newest_keyframe = None;
        self.epoch = Epoch {
            first: self.log.head(),
            expects_video: announces_video(&headers),
            headers: headers.clone(),
            keyframe_seen,
            absolute,
            ..Epoch::default()
        };
        self.renditions.iter_mut().for_each(|rendition| rendition.begin(&headers));
        self.headers = headers;
        // Whoever waits has a right to the first tag.
        self.schedule.hold(self.epoch.first);
        self.schedule.note_change();
        entries.into_iter().for_each(|entry| self.push(entry));
    }

    /// The publish is over; subscriptions take what is left and are told, unless it is `silent`.
    pub fn end(&mut self, silent: bool) {
        if !std::mem::take(&mut self.live) {
            return;
        }
        self.newest_keyframe = None;
        self.end_takers();
        let (at, mark, epoch) = (self.log.head(), self.mark.take(), std::mem::take(&mut self.epoch));
        self.schedule.note_change();
        let again = self.ends.back().is_some_and(|end| end.at == at && end.silent == silent);
        if again {
            // A publish of nothing, after another end: there is nothing more to tell.
            return;
        }
        let media = epoch.media.map_or(at, |(index, ..)| index);
        let whole = || Mark { index: epoch.first, headers: epoch.headers };
        let start = epoch.start.or_else(|| (media < at).then(whole));
        let held = [&start, &mark].into_iter().flatten().map(|mark| mark.index).min();
        self.schedule.hold(held.unwrap_or(u64::MAX));
        let mark = mark.filter(|_| self.settings.gop_cache);
        self.ends.push_back(End { at, silent, absolute: epoch.absolute, media, start, mark });
        if self.ends.len() > ENDS_MAX {
            self.forget_end();
        }
        self.bound_ends();
    }

    fn forget_end(&mut self) {
        self.ends.pop_front();
        self.ends_dropped += 1;
    }

    /// What ended publishes hold of metadata and setups is bounded together; the oldest go.
    fn bound_ends(&mut self) {
        let bytes = |end: &End| [&end.start, &end.mark].into_iter().flatten().map(|mark| mark.headers.bytes()).sum();
        let mut left = HEADERS_BYTES_MAX;
        for end in self.ends.iter_mut().rev() {
            let taken: usize = bytes(end);
            match left.checked_sub(taken) {
                Some(rest) => left = rest,
                None => (end.start, end.mark) = (None, None),
            }
        }
    }

    /// Appends a tag; its distance to the last of its kind is set here.
    pub fn push(&mut self, mut entry: Entry) {
        #[cfg(test)]
        assert!(!entry.tag.body.ends_with(b"a test asks for a panic"), "a test asked for a panic");
        let class = entry.info.class;
        if class == Class::Metadata {
            let metadata = codec::read_metadata(&entry.tag.body);
            self.epoch.expects_video |= metadata.has_video;
            self.epoch.absolute |= self.settings.atc_auto && metadata.absolute_time;
        }
        self.set_time(&mut entry);
        self.headers.update(&entry);
        self.epoch.expects_video |= match class {
            Class::Header { .. } | Class::Keyframe | Class::InterFrame => entry.tag.kind == TagKind::Video,
            Class::Metadata | Class::Audio | Class::Data => false,
        };
        let media = matches!(class, Class::Keyframe | Class::InterFrame | Class::Audio);
        let (time_ms, arrived_ms) = (entry.time_ms, entry.arrived_ms);
        self.renditions.iter_mut().for_each(|rendition| rendition.push(&entry));
        self.takers.iter_mut().for_each(|taker| taker.take(&entry));
        let index = self.log.push(entry);
        if media && self.epoch.media.is_none() {
            self.epoch.media = Some((index, time_ms, arrived_ms));
        }
        self.schedule.note_change();
        match class {
            Class::Keyframe => self.mark_keyframe(index, arrived_ms),
            Class::InterFrame => self.epoch.inter_frame_seen = true,
            Class::Metadata | Class::Header { .. } | Class::Audio | Class::Data => {}
        }
        if self.mark.as_ref().is_some_and(|mark| self.log.head() - mark.index > self.settings.gop_cache_tags_max) {
            self.mark = None;
        }
        if self.schedule.is_empty() || self.log.is_over() || self.is_rendered_over() {
            self.trim();
        }
    }

    /// Media has its own time. Setups and script data have it only if it lies near the media's: many
    /// encoders send them with 0 at any time. Before all media they have none. Absolute time is as
    /// published, whatever it is.
    fn set_time(&mut self, entry: &mut Entry) {
        let kind = entry.tag.kind.index();
        let own = match entry.info.class {
            _ if self.epoch.absolute => Some(entry.time_ms),
            Class::Keyframe | Class::InterFrame | Class::Audio => Some(entry.time_ms),
            Class::Metadata | Class::Header { .. } | Class::Data => {
                let near = |media: i64| {
                    entry.time_ms != Entry::BEFORE_MEDIA
                        && entry.time_ms.abs_diff(media) <= TRACK_LAG_MS_MAX.unsigned_abs()
                };
                self.epoch.newest_media_ms().map(|media| if near(media) { entry.time_ms } else { media })
            }
        };
        let Some(time_ms) = own else {
            entry.time_ms = Entry::BEFORE_MEDIA;
            return;
        };
        let last = self.epoch.newest_ms[kind].unwrap_or(time_ms);
        // A setup must not turn its track's clock back.
        let media = matches!(entry.info.class, Class::Keyframe | Class::InterFrame | Class::Audio);
        entry.time_ms = if media || self.epoch.absolute { time_ms } else { time_ms.max(last) };
        entry.delta_ms = truncate(entry.time_ms.wrapping_sub(last));
        self.epoch.newest_ms[kind] = Some(entry.time_ms);
    }

    /// Tags that stand before a publish's first keyframe belong to its first GOP, unless inter frames
    /// are among them, or more than anybody waits for: a player who waited gets everything.
    fn mark_keyframe(&mut self, index: u64, now_ms: u64) {
        self.newest_keyframe = Some(index);
        let first_gop = !self.epoch.keyframe_seen
            && !self.epoch.inter_frame_seen
            && !self.epoch.is_waited_out(now_ms)
            && self.log.first() <= self.epoch.first;
        let mark = if first_gop {
            Mark { index: self.epoch.first, headers: self.epoch.headers.clone() }
        } else {
            Mark { index, headers: self.headers.clone() }
        };
        if !std::mem::replace(&mut self.epoch.keyframe_seen, true) {
            self.epoch.start = Some(mark.clone());
            // Whoever waited for the publish sees its first picture now, not at the next tick.
            self.schedule.hurry();
        }
        self.mark = Some(mark);
    }

    /// Drops what neither a late joiner nor a flushed subscription needs.
    pub fn trim(&mut self) {
        let waits_for_keyframe = self.live && !self.epoch.keyframe_seen && self.epoch_tags() <= KEYFRAME_WAIT_TAGS_MAX;
        let joiners = match &self.mark {
            Some(mark) if self.settings.gop_cache => mark.index,
            _ if waits_for_keyframe => self.epoch.first,
            _ => self.log.head(),
        };
        self.log.trim(joiners.min(self.schedule.oldest()).min(self.burst_start(self.settings.fast_cache_ms)));
        self.trim_renditions();
        // A small entry may make a large piece.
        while self.is_rendered_over() && self.log.first() < self.log.head() {
            self.log.trim(self.log.first() + 1);
            self.trim_renditions();
        }
        if self.mark.as_ref().is_some_and(|mark| mark.index < self.log.first()) {
            self.mark = None;
        }
        while self.ends.front().is_some_and(|end| end.at < self.log.first()) && self.ends.len() > 1 {
            self.forget_end();
        }
    }

    /// Gives up what is kept for late joiners, who wait for the next keyframe then; returns the bytes that it was.
    pub fn give_up(&mut self) -> usize {
        let before = self.log.bytes();
        self.mark = None;
        self.log.trim(self.log.head().min(self.schedule.oldest()));
        self.trim_renditions();
        before - self.log.bytes()
    }

    /// Where the last `burst_ms` of the publish begin, as far as they are kept; the log's end for none.
    fn burst_start(&self, burst_ms: u64) -> u64 {
        let head = self.log.head();
        let Some(newest_ms) = self.epoch.newest_media_ms().filter(|_| burst_ms > 0) else { return head };
        let first = self.epoch.first.max(self.log.first());
        let oldest_ms = newest_ms.saturating_sub_unsigned(burst_ms);
        let within = |entry: &Entry| entry.time_ms != Entry::BEFORE_MEDIA && entry.time_ms >= oldest_ms;
        let skipped = self.log.range(first..head).position(within);
        skipped.map_or(head, |skipped| first + skipped as u64)
    }

    /// What another shard needs to follow from a late joiner's start on.
    pub fn snapshot(&self) -> Snapshot {
        let (headers, from, keyframe_seen) = match &self.mark {
            Some(mark) if self.settings.gop_cache => (&mark.headers, mark.index, false),
            _ if !self.epoch.keyframe_seen && self.log.first() <= self.epoch.first => {
                (&self.epoch.headers, self.epoch.first, false)
            }
            _ => (&self.headers, self.log.head(), self.epoch.keyframe_seen),
        };
        let from = from.min(self.burst_start(self.settings.fast_cache_ms));
        let entries = self.log.range(from..self.log.head()).cloned().collect();
        Snapshot { headers: headers.clone(), entries, keyframe_seen, absolute: self.epoch.absolute }
    }

    /// A subscription that begins now.
    pub fn subscribe(&self) -> Subscription {
        Subscription::new(self.log.head(), self.ends_dropped + self.ends.len())
    }

    /// Where the log must be kept for a subscription. Not for one that lags by more than it may: it will be
    /// moved to a newer keyframe, however long its present send takes.
    pub fn holds_from(&self, subscription: &Subscription, now_ms: u64) -> u64 {
        let waits_since = |entry: &Entry| entry.arrived_ms.max(subscription.since_ms);
        let too_long = |entry: &Entry| now_ms.saturating_sub(waits_since(entry)) > self.settings.queue_ms_max;
        let gone = subscription.next < self.log.first();
        if subscription.state == State::Playing && (gone || self.log.at(subscription.next).is_some_and(too_long)) {
            return u64::MAX;
        }
        if subscription.state == State::Waiting { self.waits_at(subscription) } else { subscription.next }
    }

    /// Decides what `subscription` does next; call until it says `Wait`, or after each `Entries`.
    pub fn step<'a>(&'a self, subscription: &mut Subscription, now_ms: u64) -> Step<'a> {
        if subscription.state == State::Waiting {
            return self.step_waiting(subscription, now_ms);
        }
        let end = subscription.epoch.checked_sub(self.ends_dropped).map(|at| self.ends.get(at));
        let limit = match end {
            Some(Some(end)) => end.at,
            Some(None) => self.log.head(),
            // Its end was forgotten: nothing of its publish is left.
            None => subscription.next,
        };
        let over = !matches!(end, Some(None));
        if subscription.next >= limit {
            if !over {
                return Step::Wait;
            }
            subscription.epoch = (subscription.epoch + 1).max(self.ends_dropped);
            subscription.state = State::Waiting;
            subscription.untold = matches!(end, Some(Some(End { silent: true, .. })));
            return Step::End { silent: subscription.untold };
        }
        let trimmed = subscription.next < self.log.first();
        if subscription.state == State::Playing && !over && (trimmed || self.lags(subscription, now_ms)) {
            subscription.skips += 1;
            subscription.next += 1;
            subscription.state = State::AwaitingKeyframe;
        }
        if subscription.state == State::AwaitingKeyframe {
            let landing = self.landing(subscription.next);
            subscription.next = landing.unwrap_or(limit).min(limit);
            return match landing {
                _ if over => self.step(subscription, now_ms),
                None => Step::Wait,
                Some(index) => {
                    subscription.state = State::Playing;
                    subscription.since_ms = now_ms;
                    Step::Skipped { headers: self.headers_at(index) }
                }
            };
        }
        if trimmed {
            // The rest of a publish that is over: what of it is left.
            subscription.skips += 1;
            subscription.next = self.log.first().min(limit);
            return Step::Skipped { headers: &self.headers };
        }
        Step::Entries(subscription.next..limit)
    }

    /// Whether what it takes next has waited longer than the queue may, counted from its own beginning.
    fn lags(&self, subscription: &Subscription, now_ms: u64) -> bool {
        let waits_since = |entry: &Entry| entry.arrived_ms.max(subscription.since_ms);
        let entry = self.log.at(subscription.next);
        entry.is_none_or(|entry| now_ms.saturating_sub(waits_since(entry)) > self.settings.queue_ms_max)
    }

    /// Where a subscription at `next` goes on that fell behind: at the newest keyframe; a stream
    /// without video at its end. `None` until a keyframe comes.
    fn landing(&self, next: u64) -> Option<u64> {
        let keyframe = self.newest_keyframe.filter(|keyframe| *keyframe >= next.max(self.log.first()));
        keyframe.or_else(|| (!self.epoch.keyframe_seen).then(|| self.log.head()))
    }

    /// The headers as of `index`, if it is where late joiners start; else the newest.
    fn headers_at(&self, index: u64) -> &Headers {
        self.mark.as_ref().filter(|mark| mark.index == index).map_or(&self.headers, |mark| &mark.headers)
    }

    fn epoch_tags(&self) -> u64 {
        self.log.head() - self.epoch.first
    }
}

/// Whether metadata or a video setup says that video will come.
fn announces_video(headers: &Headers) -> bool {
    headers.has(TagKind::Video)
        || headers.metadata().is_some_and(|entry| codec::read_metadata(&entry.tag.body).has_video)
}

#[cfg(test)]
mod tests;
