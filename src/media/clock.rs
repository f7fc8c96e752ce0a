//! A publisher's timestamps → the log's time, once for all players (`time_jitter`).

use crate::proto::flv::TagKind;

/// A step beyond this, either way, is a jump, in ms.
const JUMP_MS: i64 = 250;
/// What a jump becomes, in ms.
const JUMP_BECOMES_MS: i64 = 10;
/// What the lead of media is worth less after each ms of real time, in µs: an encoder's clock may be slow.
const LEAD_FADES_US: i64 = 1;

/// How times are corrected. SRS: `time_jitter`, `atc`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TimeJitter {
    /// Jumps are taken out and no track goes back; players start at 0.
    #[default]
    Full,
    /// As published, but players start at 0.
    Zero,
    /// As published.
    Off,
}

/// The clock of one publish.
///
/// A step of more than 250 ms is a jump, unless that much time has passed in reality too, since the step before or in
/// all: a stream of one picture a second, or a pause, keeps its distances, however its arrivals wobble. A jump moves both tracks' clocks by the same amount, so
/// that they stay together; SRS, which corrects each message by itself, lets them drift apart.
#[derive(Debug, Default)]
pub struct Clock {
    jitter: TimeJitter,
    /// Time that arrivals may be late by, since reads are merged, in ms.
    slack_ms: i64,
    /// The newest timestamp as it came, and unwrapped.
    unwrapped: Option<(u32, i64)>,
    /// What is added to published time.
    offset_ms: i64,
    /// The newest media: its time, and when it came.
    newest: Option<(i64, u64)>,
    /// The most that media has been ahead of real time, as time less arrival in µs: what has come without delay.
    lead_us: i64,
    /// The newest time of audio and video.
    tracks: [Option<i64>; 2],
}

impl Clock {
    /// The clock of a publish that begins.
    pub fn new(jitter: TimeJitter, slack_ms: u64) -> Self {
        Self { jitter, slack_ms: slack_ms.cast_signed(), ..Self::default() }
    }

    /// From here on, times are as published.
    pub fn set_absolute(&mut self) {
        self.jitter = TimeJitter::Off;
        self.offset_ms = 0;
    }

    /// The log's time of a tag. Setups and script data, whose own clock means little, are not `media`.
    pub fn time(&mut self, kind: TagKind, media: bool, timestamp: u32, now_ms: u64) -> i64 {
        let published = self.unwrap(timestamp);
        let track = match kind {
            TagKind::Audio if media => 0,
            TagKind::Video if media => 1,
            TagKind::Audio | TagKind::Video | TagKind::Script => return published + self.offset_ms,
        };
        let mut time_ms = published + self.offset_ms;
        if self.jitter == TimeJitter::Full {
            if let Some((newest_ms, came_ms)) = self.newest
                && self.jumps(track, time_ms, newest_ms, came_ms, now_ms)
            {
                time_ms = newest_ms + JUMP_BECOMES_MS;
                self.offset_ms = time_ms - published;
            }
            time_ms = self.tracks[track].map_or(time_ms, |last_ms| time_ms.max(last_ms));
        }
        let lead_us = (time_ms - now_ms.cast_signed()).saturating_mul(1000);
        let passed_ms = self.newest.map(|(_, came_ms)| now_ms.saturating_sub(came_ms).cast_signed());
        self.lead_us = passed_ms.map_or(lead_us, |passed_ms| lead_us.max(self.lead_us - passed_ms * LEAD_FADES_US));
        self.newest = Some((time_ms, now_ms));
        self.tracks[track] = Some(time_ms);
        time_ms
    }

    /// Whether `time_ms` is neither near the newest media nor near its own track's, and goes back, or on by more
    /// than real time has, since the newest came and in all. A track begins where it likes.
    fn jumps(&self, track: usize, time_ms: i64, newest_ms: i64, came_ms: u64, now_ms: u64) -> bool {
        let step_ms = time_ms - newest_ms;
        let own = self.tracks[track].is_none_or(|last_ms| (time_ms - last_ms).abs() <= JUMP_MS);
        let passed_ms = now_ms.saturating_sub(came_ms).cast_signed();
        let most_ms = JUMP_MS + self.slack_ms;
        let ahead = step_ms - passed_ms > most_ms && time_ms - now_ms.cast_signed() - self.lead_us / 1000 > most_ms;
        step_ms.abs() > JUMP_MS && !own && (step_ms < 0 || ahead)
    }

    /// 32-bit time → time that goes on over 2^32: steps of up to 2^31 either way are followed.
    fn unwrap(&mut self, timestamp: u32) -> i64 {
        let time_ms = match self.unwrapped {
            None => i64::from(timestamp),
            Some((last, time_ms)) => time_ms + i64::from(timestamp.wrapping_sub(last).cast_signed()),
        };
        self.unwrapped = Some((timestamp, time_ms));
        time_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of alternating audio and video that come at once.
    fn times(jitter: TimeJitter, published: &[u32]) -> Vec<i64> {
        let mut clock = Clock::new(jitter, 0);
        let kinds = [TagKind::Audio, TagKind::Video].into_iter().cycle();
        published.iter().zip(kinds).map(|(timestamp, kind)| clock.time(kind, true, *timestamp, 0)).collect()
    }

    /// A jump costs both tracks the same 10 ms; a small step back stands still; the rest is as published.
    #[test]
    fn full_takes_jumps_out_and_never_goes_back() {
        let jump = [1000, 1010, 1020, 1030, 900_000, 900_010, 900_020, 900_030];
        assert_eq!(times(TimeJitter::Full, &jump), [1000, 1010, 1020, 1030, 1040, 1050, 1060, 1070]);
        let back = [500_000, 500_010, 500_020, 500_030, 40, 50, 60, 70];
        assert_eq!(
            times(TimeJitter::Full, &back),
            [500_000, 500_010, 500_020, 500_030, 500_040, 500_050, 500_060, 500_070]
        );
        let small = [1000, 1000, 1040, 1040, 940, 1080, 980, 1120, 1060, 1160];
        assert_eq!(times(TimeJitter::Full, &small), [1000, 1000, 1040, 1040, 1040, 1080, 1040, 1120, 1060, 1160]);
        let wrap = [0xFF_FFF0, 0xFF_FFF8, 0, 8, 16, 24];
        let at = 0xFF_FFF8;
        assert_eq!(times(TimeJitter::Full, &wrap), [at - 8, at, at + 10, at + 18, at + 26, at + 34]);
    }

    #[test]
    fn zero_and_off_leave_everything_as_published() {
        let published = [1000, 1010, 900_000, 10, 20];
        for jitter in [TimeJitter::Zero, TimeJitter::Off] {
            assert_eq!(times(jitter, &published), [1000, 1010, 900_000, 10, 20]);
        }
        assert_eq!(times(TimeJitter::Zero, &[u32::MAX, 9]), [i64::from(u32::MAX), i64::from(u32::MAX) + 10]);
    }

    /// B6, R5: time goes on over 2^32 ms.
    #[test]
    fn b6_time_wraps_without_a_step() {
        let mut clock = Clock::new(TimeJitter::Zero, 0);
        let times = [u32::MAX - 20, u32::MAX, 19, 10, 40].map(|time| clock.time(TagKind::Video, true, time, 0));
        let start = i64::from(u32::MAX - 20);
        assert_eq!(times, [0, 20, 40, 31, 61].map(|step| start + step));
    }

    /// What really took so long is no jump: one picture a second, and a pause.
    #[test]
    fn real_pauses_stay() {
        let mut clock = Clock::new(TimeJitter::Full, 0);
        let mut at = |timestamp, now_ms| clock.time(TagKind::Video, true, timestamp, now_ms);
        assert_eq!([at(0, 5000), at(1000, 6010), at(2000, 6990), at(8000, 13_100)], [0, 1000, 2000, 8000]);
        assert_eq!(at(9000, 13_110), 8010);
    }

    /// Arrivals may wobble by more than a jump: what has gone by in all counts.
    #[test]
    fn late_arrivals_are_no_jumps() {
        for arrivals in
            [[0, 1300, 2000, 3000, 4400, 5000], [0, 1000, 2600, 3000, 4000, 5900], [0, 400, 2900, 3000, 4000, 5000]]
        {
            let mut clock = Clock::new(TimeJitter::Full, 0);
            let times =
                (0..6).zip(arrivals).map(|(second, now_ms)| clock.time(TagKind::Video, true, second * 1000, now_ms));
            let seen: Vec<i64> = times.collect();
            let early = arrivals[1] == 400;
            // The first step is all that is known of a stream's pace: 600 ms too early is a jump then.
            let expected = if early { [0, 10, 1010, 2010, 3010, 4010] } else { [0, 1000, 2000, 3000, 4000, 5000] };
            assert_eq!(seen, expected, "{arrivals:?}");
        }
        // A jump of 900 ms in a stream of a second's steps is one still.
        let mut clock = Clock::new(TimeJitter::Full, 0);
        let mut at = |timestamp, now_ms| clock.time(TagKind::Video, true, timestamp, now_ms);
        assert_eq!([at(0, 0), at(1000, 1300), at(2000, 2000), at(3900, 3000)], [0, 1000, 2000, 2010]);
    }

    /// A track that begins later, or lags, is not pulled to the other.
    #[test]
    fn tracks_may_be_apart() {
        let mut clock = Clock::new(TimeJitter::Full, 0);
        for at in (0..3000).step_by(40) {
            assert_eq!(clock.time(TagKind::Video, true, at, 0), i64::from(at));
            if at >= 1000 {
                assert_eq!(clock.time(TagKind::Audio, true, at - 400, 0), i64::from(at) - 400);
            }
        }
    }
}
