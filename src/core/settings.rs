//! What a vhost's section means to streams.

use crate::{
    config::{self, Vhost},
    media,
};

pub(super) fn stream_settings(vhost: &Vhost) -> media::Settings {
    let (play, publish) = (&vhost.play, &vhost.publish);
    media::Settings {
        gop_cache: play.gop_cache,
        gop_cache_tags_max: u64::from(play.gop_cache_max_frames),
        queue_ms_max: u64::from(play.queue_length_s) * 1000,
        mw_latency_ms: play.mw_latency_ms.map(u64::from),
        mw_msgs: u64::from(play.mw_msgs),
        send_min_interval_ms: u64::from(play.send_min_interval_ms),
        time_jitter: match play.time_jitter {
            config::TimeJitter::Full => media::TimeJitter::Full,
            config::TimeJitter::Zero => media::TimeJitter::Zero,
            config::TimeJitter::Off => media::TimeJitter::Off,
        },
        atc_auto: play.atc_auto,
        fast_cache_ms: u64::from(vhost.http_remux.fast_cache_ms),
        mix_correct: play.mix_correct,
        reduce_sequence_header: play.reduce_sequence_header,
        mr_latency_ms: publish.mr_latency_ms.map(u64::from),
        kickoff_ms: u64::from(publish.kickoff_for_idle_s) * 1000,
        fetched: vhost.cluster.fetches(),
    }
}
