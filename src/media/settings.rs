//! How a stream is kept and flushed.

use super::TimeJitter;

/// What a vhost's `play` section, and the part of `publish` that concerns a stream, say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Late joiners start at the newest keyframe. SRS: `gop_cache`.
    pub gop_cache: bool,
    /// A GOP of more tags is not kept. SRS: `gop_cache_max_frames`.
    pub gop_cache_tags_max: u64,
    /// Most media that a subscription may lag, in ms since its arrival. SRS: `queue_length`.
    pub queue_ms_max: u64,
    /// Flush interval in ms; 0 flushes at once, `None` as the shard's load allows. SRS: `mw_latency`.
    pub mw_latency_ms: Option<u64>,
    /// Tags below which a flush may wait once more. SRS: `mw_msgs`.
    pub mw_msgs: u64,
    /// Time in ms between two tags to a player, which go one by one; 0 merges them. SRS:
    /// `send_min_interval`.
    pub send_min_interval_ms: u64,
    /// From the next publish on. SRS: `time_jitter`, `atc`.
    pub time_jitter: TimeJitter,
    /// Metadata may make times absolute. SRS: `atc_auto`.
    pub atc_auto: bool,
    /// Media that is kept for who gets it at once, in ms. SRS: `fast_cache`.
    pub fast_cache_ms: u64,
    /// From the next publish on: audio and video in one order of time. SRS: `mix_correct`.
    pub mix_correct: bool,
    /// Setups that repeat the last one are left out. SRS: `reduce_sequence_header`.
    pub reduce_sequence_header: bool,
    /// Time in ms between two reads of the publisher, if reads are merged. SRS: `mr`, `mr_latency`.
    pub mr_latency_ms: Option<u64>,
    /// Time in ms without players after which the publisher goes; 0 is never. SRS: `kickoff_for_idle`.
    pub kickoff_ms: u64,
    /// It is fetched from elsewhere when it is wanted and nobody publishes it. SRS: `mode remote`.
    pub fetched: bool,
}

impl Settings {
    /// What holds where nothing is said.
    pub const DEFAULT: Self = Self {
        gop_cache: true,
        gop_cache_tags_max: 2500,
        queue_ms_max: 30_000,
        mw_latency_ms: Some(350),
        mw_msgs: 8,
        send_min_interval_ms: 0,
        time_jitter: TimeJitter::Full,
        atc_auto: false,
        fast_cache_ms: 0,
        mix_correct: false,
        reduce_sequence_header: false,
        mr_latency_ms: None,
        kickoff_ms: 0,
        fetched: false,
    };

    /// Whether each player gets one tag at a time.
    pub fn is_one_by_one(&self) -> bool {
        self.send_min_interval_ms > 0
    }

    /// The flush interval in ms; `None` leaves it to the shard's load.
    pub fn interval_ms(&self) -> Option<u64> {
        if self.is_one_by_one() { Some(self.send_min_interval_ms) } else { self.mw_latency_ms }
    }

    /// Tags below which a flush may wait once more.
    pub fn msgs_min(&self) -> u64 {
        if self.is_one_by_one() { 0 } else { self.mw_msgs }
    }
}
