//! Where subscriptions start.
//!
//! Who was here before a publish's first media gets all of it from its first keyframe on, though the publish may
//! be over by then; who came later starts at the newest keyframe; without a GOP cache at the newest data.

use super::{End, Epoch, KEYFRAME_WAIT_TAGS_MAX, Replica, TRACK_LAG_MS_MAX};
use crate::{
    media::{Entry, Headers, Step, Subscription, cursor::State},
    proto::flv::TagKind,
};
use std::ops::Range;

impl Replica {
    /// What a subscription does that has had nothing of the publish at hand: publishes that have come and gone
    /// since it looked last come first.
    pub(super) fn step_waiting<'a>(&'a self, subscription: &mut Subscription, now_ms: u64) -> Step<'a> {
        subscription.epoch = subscription.epoch.max(self.ends_dropped);
        while let Some(end) = self.ends.get(subscription.epoch - self.ends_dropped) {
            if let Some((next, headers)) = self.start_in(end, subscription) {
                let start_ms = self.start_time(next..end.at, None);
                return start(subscription, next, headers, start_ms, end.absolute, now_ms);
            }
            subscription.epoch += 1;
            // Another publisher took over, and has gone too.
            if subscription.untold && !end.silent {
                subscription.untold = false;
                return Step::End { silent: false };
            }
        }
        let Some((next, headers)) = self.start_of(subscription, now_ms) else { return Step::Wait };
        let start_ms = self.start_time(next..self.log.head(), Some(&self.epoch));
        start(subscription, next, headers, start_ms, self.epoch.absolute, now_ms)
    }

    /// Where the log must be kept for a subscription that waits; `u64::MAX` if late joiners' start will do.
    pub(super) fn waits_at(&self, subscription: &Subscription) -> u64 {
        let ended = self.ends.iter().skip(subscription.epoch.saturating_sub(self.ends_dropped));
        if let Some((index, _)) = ended.filter_map(|end| self.start_in(end, subscription)).next() {
            return index;
        }
        if self.live && self.is_early(subscription) {
            return self.epoch.start.as_ref().map_or(self.epoch.first, |mark| mark.index);
        }
        u64::MAX
    }

    /// Whether late joiners wait for video that was announced, or for a keyframe of it.
    pub fn awaits_video(&self, now_ms: u64) -> bool {
        let epoch = &self.epoch;
        self.live
            && epoch.expects_video
            && !epoch.keyframe_seen
            && self.epoch_tags() <= KEYFRAME_WAIT_TAGS_MAX
            && (epoch.inter_frame_seen || !epoch.is_waited_out(now_ms))
    }

    /// Whether nothing but audio has come of a publish that announced video: who waits for it is looked at again
    /// though no tag comes.
    pub fn expects_video_only(&self) -> bool {
        let Epoch { expects_video, keyframe_seen, inter_frame_seen, media, .. } = &self.epoch;
        self.live && *expects_video && !keyframe_seen && !inter_frame_seen && media.is_some()
    }

    /// Whether a subscription was here before the present publish's first media, of which all is there.
    fn is_early(&self, subscription: &Subscription) -> bool {
        let before = self.epoch.media.is_none_or(|(index, ..)| subscription.next <= index);
        let from = self.epoch.start.as_ref().map_or(self.epoch.first, |mark| mark.index);
        before && self.log.first() <= from
    }

    /// Where a subscription starts in a publish that is over, if it was there and has had nothing of it.
    fn start_in<'a>(&self, end: &'a End, subscription: &Subscription) -> Option<(u64, &'a Headers)> {
        let early = subscription.next <= end.media;
        let mark = if early { end.start.as_ref() } else { end.mark.as_ref() };
        let mark = mark.filter(|mark| mark.index >= self.log.first() && mark.index < end.at)?;
        Some((mark.index, &mark.headers))
    }

    /// Where a subscription starts in the present publish. `None` while that is not known.
    fn start_of(&self, subscription: &Subscription, now_ms: u64) -> Option<(u64, &Headers)> {
        let epoch = &self.epoch;
        if !self.live || self.epoch_tags() == 0 && !epoch.keyframe_seen {
            return None;
        }
        let early = self.is_early(subscription);
        if subscription.burst_ms > 0 && !early && epoch.media.is_some() {
            return Some((self.burst_start(subscription.burst_ms), &self.headers));
        }
        let newest = self.mark.as_ref().filter(|_| self.settings.gop_cache || early);
        if let Some(mark) = epoch.start.as_ref().filter(|_| early).or(newest) {
            return Some((mark.index, &mark.headers));
        }
        if self.awaits_video(now_ms) {
            return None;
        }
        // Metadata alone does not say whether there will be video.
        if epoch.media.is_none() && !epoch.keyframe_seen {
            return None;
        }
        Some(if early && !epoch.keyframe_seen {
            (epoch.first, &epoch.headers)
        } else {
            (self.log.head(), &self.headers)
        })
    }

    /// The earliest time that a subscription starting at `range` will see: tracks interleave, so the first tag
    /// need not be the earliest. A track of the publish `at_hand` with nothing in the range goes on from its last
    /// tag.
    fn start_time(&self, range: Range<u64>, at_hand: Option<&Epoch>) -> i64 {
        let mut first: [Option<i64>; 3] = [None; 3];
        let timed = |entry: &&Entry| entry.time_ms != Entry::BEFORE_MEDIA && entry.tag.kind != TagKind::Script;
        for entry in self.log.range(range).filter(timed) {
            let seen = &mut first[entry.tag.kind.index()];
            // A track's own first: later ones may step back.
            seen.get_or_insert(entry.time_ms);
            if first[0].is_some() && first[1].is_some() {
                break;
            }
        }
        let newest_ms = at_hand.and_then(Epoch::newest_media_ms).unwrap_or(0);
        let from = first.iter().flatten().copied().min().unwrap_or(newest_ms);
        let last = |kind: usize| at_hand.and_then(|epoch| epoch.newest_ms[kind]);
        let behind = (0..2).filter(|kind| first[*kind].is_none()).filter_map(last);
        behind.filter(|time| from - time < TRACK_LAG_MS_MAX).chain([from]).min().unwrap_or(from)
    }
}

fn start<'a>(
    subscription: &mut Subscription,
    next: u64,
    headers: &'a Headers,
    start_ms: i64,
    absolute: bool,
    now_ms: u64,
) -> Step<'a> {
    let again = subscription.newest_ms >= 0 && !subscription.untold;
    subscription.next = next;
    subscription.since_ms = now_ms;
    subscription.begin(start_ms, absolute);
    subscription.state = State::Playing;
    Step::Start { headers, again }
}
