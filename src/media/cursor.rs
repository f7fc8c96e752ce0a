//! A cursor in a stream's log. Everything that leaves the server holds one.

use super::{Entry, Headers};
use std::ops::Range;

/// A republish goes on so long after the last tag before it, in ms.
const REPUBLISH_GAP_MS: i64 = 20;

/// Where a subscription stands, and how log time maps to its own.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub(super) state: State,
    /// The next entry to take.
    pub(super) next: u64,
    /// Ends of publishes that it has been told.
    pub(super) epoch: usize,
    /// Log time that is this subscription's 0.
    base_ms: i64,
    /// Log time that its duration counts from.
    origin_ms: i64,
    /// The newest time that it was given, own clock; a republish goes on after it.
    pub(super) newest_ms: i64,
    /// When it was put where it started or landed: a GOP that was old already is no lag of its own.
    pub(super) since_ms: u64,
    /// How often it fell behind by more than the queue length.
    pub(super) skips: u32,
    /// It was not told of the last end: another publisher took over.
    pub(super) untold: bool,
    /// Media that it gets at once, in ms; 0 begins where others do.
    pub(super) burst_ms: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// For a publisher, or for the first keyframe of one.
    Waiting,
    /// Takes entries.
    Playing,
    /// Fell behind with no newer keyframe in the log: waits for the next one.
    AwaitingKeyframe,
}

/// What a subscription does next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Nothing yet.
    Wait,
    /// Media begins: give these first, at the subscription's time 0 or where it stands.
    Start {
        /// As of the start's place in the log.
        headers: &'a Headers,
        /// Whether the subscription has had media of an earlier publish.
        again: bool,
    },
    /// It fell behind and has been moved: the next entry is not the successor of the last one. Setups
    /// may have changed on the way: give these first.
    Skipped {
        /// As of the new place.
        headers: &'a Headers,
    },
    /// Entries to give now; tell [`Subscription::advance`] how far.
    Entries(Range<u64>),
    /// The publish is over and everything of it has been taken.
    End {
        /// Another publisher has taken over, and media goes on.
        silent: bool,
    },
}

impl Subscription {
    /// At the next entry `next`, after so many ends of publishes.
    pub(super) fn new(next: u64, epoch: usize) -> Self {
        Self {
            state: State::Waiting,
            next,
            epoch,
            base_ms: 0,
            origin_ms: 0,
            newest_ms: -1,
            since_ms: 0,
            skips: 0,
            untold: false,
            burst_ms: 0,
        }
    }

    /// The same, with so much media at once, in ms, where the stream has kept it.
    pub fn with_burst(self, burst_ms: u64) -> Self {
        Self { burst_ms, ..self }
    }

    /// Media begins at log time `start_ms`: at 0 or where the last publish ended, or, if time is `absolute`,
    /// at what it is.
    pub(super) fn begin(&mut self, start_ms: i64, absolute: bool) {
        if absolute {
            (self.base_ms, self.origin_ms) = (0, start_ms);
            self.newest_ms = start_ms - REPUBLISH_GAP_MS;
        } else {
            self.base_ms = start_ms - self.resume_ms();
            self.origin_ms = self.base_ms;
        }
    }

    /// The next entry to take.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Log time that is its 0: subscriptions with the same see the same times.
    pub fn base_ms(&self) -> i64 {
        self.base_ms
    }

    /// Whether it takes entries one after the other, and waits for nothing.
    pub fn is_following(&self) -> bool {
        self.state == State::Playing
    }

    /// The time on its own clock that media goes on at after a republish; 0 at the first start.
    pub fn resume_time(&self) -> u32 {
        truncate(self.resume_ms())
    }

    pub(super) fn resume_ms(&self) -> i64 {
        if self.newest_ms >= 0 { self.newest_ms + REPUBLISH_GAP_MS } else { 0 }
    }

    /// Whether an entry lies beyond the first `duration_ms`.
    pub fn is_beyond(&self, time_ms: i64, duration_ms: u32) -> bool {
        time_ms != Entry::BEFORE_MEDIA && time_ms - self.origin_ms >= i64::from(duration_ms)
    }

    /// When it was put where it started or landed, in ms of the process's clock.
    pub fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// How often it was moved to a newer keyframe.
    pub fn skips(&self) -> u32 {
        self.skips
    }

    /// An entry's time on this subscription's clock, in ms, from 0.
    pub fn time_of(&self, time_ms: i64) -> u32 {
        if time_ms == Entry::BEFORE_MEDIA {
            return self.resume_time();
        }
        truncate((time_ms - self.base_ms).max(0))
    }

    /// Everything before `next` has been taken, the newest of it at log time `newest_ms`.
    pub fn advance(&mut self, next: u64, newest_ms: i64) {
        self.next = next;
        if newest_ms > Entry::BEFORE_MEDIA {
            self.newest_ms = self.newest_ms.max(newest_ms - self.base_ms);
        }
    }
}

/// Time as RTMP and FLV carry it: modulo 2^32.
#[expect(clippy::cast_possible_truncation, reason = "the wrap is meant")]
pub(super) const fn truncate(time_ms: i64) -> u32 {
    time_ms.cast_unsigned() as u32
}
