//! What shards tell of themselves.

use crate::{config::DEFAULT_VHOST, stats::Histogram};
use std::collections::BTreeMap;

/// Ends of a stream's name that its URL does without, as SRS has it.
const SUFFIXES: [&str; 4] = [".flv", ".m3u8", ".mp4", ".ts"];

/// A stream's URL as SRS writes it: the default vhost is not named.
pub fn stream_url(vhost: &str, app: &str, stream: &str) -> String {
    let vhost = if vhost == DEFAULT_VHOST { "" } else { vhost };
    let bare = SUFFIXES.iter().find_map(|suffix| stream.strip_suffix(suffix)).unwrap_or(stream);
    format!("{vhost}/{app}/{bare}")
}

/// What one shard knows.
#[derive(Clone, Debug, Default)]
pub struct ShardReport {
    /// Its streams, published or played there.
    pub streams: Vec<StreamReport>,
    /// Where its publishes are pushed on to.
    pub forwards: Vec<ForwardReport>,
    /// Players of HLS that came in on it, by their stream's key.
    pub visits: Vec<(String, u64)>,
    /// Bytes of media in its streams' logs, and in what is made of them.
    pub media_bytes: u64,
    /// Sends in the kernel.
    pub sends_in_flight: u64,
    /// Entries that wait in its fullest ring to another shard.
    pub ring_entries: u64,
    /// Connections.
    pub connections: u64,
    /// Flush interval of the mean player, or of `mw_latency auto` where there is none, in ms.
    pub flush_ms: u64,
}

/// A server that a publish is pushed on to, or that a stream is fetched from.
#[derive(Clone, Debug)]
pub struct ForwardReport {
    /// `vhost/app/stream`.
    pub key: String,
    /// It is fetched from there.
    pub fetched: bool,
    /// URL of server and app.
    pub to: String,
    /// How it stands.
    pub state: ForwardState,
    /// Since when, in ms of the process's clock.
    pub since_ms: u64,
    /// Bytes sent there, or come from there, over all its connections.
    pub bytes: u64,
    /// Tries after the first.
    pub retries: u64,
    /// Why the last connection ended, or was not made; empty if all is well.
    pub error: String,
}

/// How it stands with a destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ForwardState {
    /// On the way to a publish.
    Connecting,
    /// Media goes there.
    Publishing,
    /// Media comes from there.
    Playing,
    /// Until the next try.
    Waiting,
}

impl ForwardState {
    /// Its word in API and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Publishing => "publishing",
            Self::Playing => "playing",
            Self::Waiting => "waiting",
        }
    }
}

/// One stream on one shard.
#[derive(Clone, Debug, Default)]
pub struct StreamReport {
    /// `vhost/app/stream`.
    pub key: String,
    /// Who publishes it, if that is on this shard.
    pub publish: Option<PublishReport>,
    /// Players on this shard.
    pub players: u64,
    /// Bytes sent to them.
    pub sent_bytes: u64,
    /// The same per second, over 30 s, in kbit/s.
    pub sent_kbps: u64,
    /// Times that one of them was moved to a newer keyframe.
    pub skips: u64,
    /// Bytes that it takes on this shard.
    pub memory_bytes: u64,
    /// Flush interval in ms.
    pub flush_ms: u64,
    /// Age of the oldest tag in each flush of a player, in ms.
    pub age: Histogram,
    /// Where it is pushed on to; in the whole of all shards' parts alone.
    pub forwards: Vec<ForwardReport>,
    /// Where it is fetched from; likewise.
    pub fetch: Option<ForwardReport>,
}

/// A publish.
#[derive(Clone, Debug, Default)]
pub struct PublishReport {
    /// Its client.
    pub client_id: String,
    /// As its `connect` said.
    pub tc_url: String,
    /// Since when, in ms of the process's clock.
    pub started_ms: u64,
    /// Video tags.
    pub video_frames: u64,
    /// Audio tags.
    pub audio_frames: u64,
    /// Bytes of media.
    pub received_bytes: u64,
    /// The same per second, over 30 s, in kbit/s.
    pub received_kbps: u64,
    /// As its sequence header says.
    pub video: Option<VideoReport>,
    /// As its sequence header says.
    pub audio: Option<AudioReport>,
}

/// A video track.
#[derive(Clone, Debug, Default)]
pub struct VideoReport {
    /// In SRS's spelling, `H264` for example.
    pub codec: String,
    /// `High` for example; empty if not known.
    pub profile: String,
    /// `3.1` for example; empty if not known.
    pub level: String,
    /// Pixels; 0 if not known.
    pub width: u32,
    /// Pixels; 0 if not known.
    pub height: u32,
}

/// An audio track.
#[derive(Clone, Debug, Default)]
pub struct AudioReport {
    /// In SRS's spelling, `AAC` for example.
    pub codec: String,
    /// Hz; 0 if not known.
    pub sample_rate: u32,
    /// 0 if not known.
    pub channels: u8,
    /// `LC` for example; empty if not known.
    pub profile: String,
}

/// A connection that publishes or plays.
#[derive(Clone, Debug, Default)]
pub struct ClientReport {
    /// By which it is known outside.
    pub id: String,
    /// `vhost/app/stream`.
    pub key: String,
    /// Its address.
    pub ip: String,
    /// As it said.
    pub tc_url: String,
    /// As it said.
    pub page_url: String,
    /// As it said.
    pub swf_url: String,
    /// In SRS's words, `rtmp-play` for example.
    pub kind: &'static str,
    /// Whether it publishes.
    pub publish: bool,
    /// Since when it is connected, in ms.
    pub alive_ms: u64,
    /// In all.
    pub sent_bytes: u64,
    /// In all.
    pub received_bytes: u64,
    /// Over 30 s.
    pub sent_kbps: u64,
    /// Over 30 s.
    pub received_kbps: u64,
    /// Times that it was moved to a newer keyframe.
    pub skips: u64,
    /// How long the next tag for it has been waiting, in ms.
    pub lag_ms: u64,
}

/// One report per stream of all shards' parts of it, by key, with the flush intervals.
pub(super) fn merge(reports: &[ShardReport]) -> BTreeMap<&str, (StreamReport, Vec<u64>)> {
    let mut merged: BTreeMap<&str, (StreamReport, Vec<u64>)> = BTreeMap::new();
    for part in reports.iter().flat_map(|report| &report.streams) {
        let (whole, flush) = merged.entry(&part.key).or_default();
        whole.key.clone_from(&part.key);
        whole.publish = whole.publish.take().or_else(|| part.publish.clone());
        whole.players += part.players;
        whole.sent_bytes += part.sent_bytes;
        whole.sent_kbps += part.sent_kbps;
        whole.skips += part.skips;
        whole.memory_bytes += part.memory_bytes;
        whole.age.add(&part.age);
        flush.push(part.flush_ms);
    }
    for (key, players) in reports.iter().flat_map(|report| &report.visits) {
        if let Some((whole, _)) = merged.get_mut(key.as_str()) {
            whole.players += players;
        }
    }
    for forward in reports.iter().flat_map(|report| &report.forwards) {
        if let Some((whole, _)) = merged.get_mut(&*forward.key) {
            if forward.fetched {
                whole.fetch = Some(forward.clone());
                continue;
            }
            // A reader of the log like any other; people count players.
            whole.players = whole.players.saturating_sub(u64::from(forward.state == ForwardState::Publishing));
            whole.forwards.push(forward.clone());
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_srs_s() {
        assert_eq!(stream_url(DEFAULT_VHOST, "live", "s"), "/live/s");
        assert_eq!(stream_url("a.b", "live/x", "s.flv"), "a.b/live/x/s");
        assert_eq!(stream_url("a.b", "live", "s.exe_1"), "a.b/live/s.exe_1");
    }
}
