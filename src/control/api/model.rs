//! What the API says: SRS's JSON, and figures of ours beside.

use super::ours::{Program, Recording};
use crate::{
    config::{Config, DEFAULT_VHOST},
    control::{
        AudioReport, ClientReport, ForwardReport, StreamReport, VideoReport, access::stable_id, stream_url, system,
    },
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

macro_rules! answers {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Serialize, ToSchema)]
        pub(in crate::control) struct $name {
            /// 0 is good.
            pub(in crate::control) code: u32,
            /// This process's own id.
            pub(in crate::control) server: String,
            /// Another one, for this start of it.
            pub(in crate::control) service: String,
            pub(in crate::control) pid: String,
            $($(#[$field_doc])* pub(in crate::control) $field: $type,)*
        }

        impl $name {
            pub(in crate::control) fn new(ids: (&str, &str), $($field: $type),*) -> Self {
                let (server, service) = (ids.0.to_owned(), ids.1.to_owned());
                Self { code: 0, server, service, pid: std::process::id().to_string(), $($field),* }
            }
        }
    )*};
}

answers! {
    /// Where to go on.
    Urls { #[schema(value_type = Object)] urls: Map<String, Value>, }
    /// The same, with SRS's tests.
    AllUrls { #[schema(value_type = Object)] urls: Map<String, Value>, #[schema(value_type = Object)] tests: Value, }
    /// The version.
    Versions { data: Version, }
    /// Free-form figures under SRS's names.
    Figures { #[schema(value_type = Object)] data: Value, }
    /// Virtual hosts.
    Vhosts { vhosts: Vec<Vhost>, }
    /// One virtual host.
    OneVhost { vhost: Vhost, }
    /// Streams.
    Streams { streams: Vec<Stream>, #[doc = "How many there are in all."] total: usize, }
    /// One stream.
    OneStream { stream: Stream, }
    /// Clients.
    Clients { clients: Vec<Client>, #[doc = "How many there are in all."] total: usize, }
    /// One client.
    OneClient { client: Client, }
    /// Programs. Ours.
    Programs { programs: Vec<Program>, }
    /// Recordings. Ours.
    Recordings { recordings: Vec<Recording>, #[doc = "How many there are in all."] total: usize, }
    /// Shards. Ours.
    Shards { shards: Vec<Shard>, }
    /// What was asked for is done.
    Done {}
    /// What the raw API may, and what a reload has changed.
    Raw {
        #[doc = "Values that differ from before; null unless it has reloaded."] changes: Option<usize>,
        #[schema(value_type = Object)] http_api: Value,
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct Version {
    pub(in crate::control) major: u32,
    pub(in crate::control) minor: u32,
    pub(in crate::control) revision: u32,
    pub(in crate::control) version: String,
    pub(in crate::control) product: &'static str,
}

/// kbit/s over 30 s.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub(in crate::control) struct Kbps {
    pub(in crate::control) recv_30s: u64,
    pub(in crate::control) send_30s: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct Vhost {
    pub(in crate::control) id: String,
    pub(in crate::control) name: String,
    pub(in crate::control) enabled: bool,
    pub(in crate::control) clients: u64,
    pub(in crate::control) streams: u64,
    pub(in crate::control) send_bytes: u64,
    pub(in crate::control) recv_bytes: u64,
    pub(in crate::control) kbps: Kbps,
    pub(in crate::control) hls: Hls,
}

#[derive(Debug, Default, Serialize, ToSchema)]
pub(in crate::control) struct Hls {
    pub(in crate::control) enabled: bool,
    /// Seconds of a segment; not there if it is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::control) fragment: Option<f64>,
}

#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(in crate::control) struct Publish {
    pub(in crate::control) active: bool,
    /// The publisher's client; not there if nobody publishes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::control) cid: Option<String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::control) struct Video {
    pub(in crate::control) codec: String,
    /// `Other` if not known; null for codecs that SRS knows none of.
    pub(in crate::control) profile: Option<String>,
    pub(in crate::control) level: Option<String>,
    pub(in crate::control) width: u32,
    pub(in crate::control) height: u32,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::control) struct Audio {
    pub(in crate::control) codec: String,
    pub(in crate::control) sample_rate: u32,
    pub(in crate::control) channel: u8,
    /// As of video.
    pub(in crate::control) profile: Option<String>,
}

/// Age of the oldest tag of each flush of a player at its send, in ms, since the stream's first player. Ours.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::control) struct FrameAge {
    pub(in crate::control) p50_ms: u64,
    pub(in crate::control) p99_ms: u64,
    /// Flushes of players.
    pub(in crate::control) count: u64,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::control) struct Stream {
    pub(in crate::control) id: String,
    pub(in crate::control) name: String,
    /// The vhost's id.
    pub(in crate::control) vhost: String,
    pub(in crate::control) app: String,
    #[serde(rename = "tcUrl")]
    pub(in crate::control) tc_url: String,
    /// `/app/stream`, behind its vhost's name where it has one.
    pub(in crate::control) url: String,
    /// Path and query of its HTTP-FLV on http_server's ports; null if there is none. Ours.
    pub(in crate::control) flv: Option<String>,
    /// The same of its playlist of HLS. Ours.
    pub(in crate::control) hls: Option<String>,
    /// The same of its MPD. Ours.
    pub(in crate::control) dash: Option<String>,
    /// The server's time, in ms since 1970, as SRS has it.
    pub(in crate::control) live_ms: u64,
    /// When the publish began, in ms since 1970; 0 if nobody publishes. Ours.
    pub(in crate::control) started_ms: u64,
    /// Publisher and players.
    pub(in crate::control) clients: u64,
    /// Players. Ours.
    pub(in crate::control) players: u64,
    /// Tags of audio and video.
    pub(in crate::control) frames: u64,
    pub(in crate::control) audio_frames: u64,
    pub(in crate::control) video_frames: u64,
    pub(in crate::control) send_bytes: u64,
    pub(in crate::control) recv_bytes: u64,
    pub(in crate::control) kbps: Kbps,
    pub(in crate::control) publish: Publish,
    pub(in crate::control) video: Option<Video>,
    pub(in crate::control) audio: Option<Audio>,
    /// Times that a player was moved to a newer keyframe. Ours.
    pub(in crate::control) skips: u64,
    /// Bytes that it takes, on all shards. Ours.
    pub(in crate::control) memory_bytes: u64,
    /// Flush interval of each shard that has the stream, in ms. Ours.
    pub(in crate::control) flush_ms: Vec<u64>,
    pub(in crate::control) frame_age: FrameAge,
    /// Where it is pushed on to. Ours.
    pub(in crate::control) forward: Vec<Forward>,
    /// Where an edge has it from; null if it is none, or the stream is published here.
    pub(in crate::control) fetch: Option<Fetch>,
}

/// Most streams that the page shows.
const PAGE_STREAMS_MAX: usize = 200;

/// What the page shows of a stream; nothing of clients.
#[derive(Debug, Serialize)]
pub(in crate::control) struct PageStream {
    /// `/app/stream`.
    url: String,
    flv: Option<String>,
    hls: Option<String>,
    dash: Option<String>,
    players: u64,
    kbps: Kbps,
    video: Option<Video>,
    audio: Option<Audio>,
}

/// What the page shows.
#[derive(Debug, Serialize)]
pub(in crate::control) struct PageList {
    version: &'static str,
    /// Where RTMP is published to; null if nowhere.
    rtmp_port: Option<u16>,
    /// Streams that are published.
    total: usize,
    /// The first of them.
    streams: Vec<PageStream>,
    shards: Vec<Shard>,
}

impl PageList {
    pub(in crate::control) fn new(config: &Config, streams: &[Stream], shards: Vec<Shard>) -> Self {
        let live = || streams.iter().filter(|stream| stream.publish.active);
        let of_page = |stream: &Stream| {
            let Stream { url, flv, hls, dash, players, kbps, video, audio, .. } = stream.clone();
            PageStream { url, flv, hls, dash, players, kbps, video, audio }
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            rtmp_port: config.listen.first().map(|listen| listen.address.port()),
            total: live().count(),
            streams: live().take(PAGE_STREAMS_MAX).map(of_page).collect(),
            shards,
        }
    }
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::control) struct Forward {
    /// URL of server and app.
    pub(in crate::control) to: String,
    /// `connecting`, `publishing` or `waiting`.
    pub(in crate::control) state: &'static str,
    /// Since when it is so, in ms since 1970.
    pub(in crate::control) since_ms: u64,
    pub(in crate::control) send_bytes: u64,
    /// Tries after the first.
    pub(in crate::control) retries: u64,
    /// Why the last connection ended, or was not made; null if all is well.
    pub(in crate::control) error: Option<String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::control) struct Fetch {
    /// URL of server and app.
    pub(in crate::control) from: String,
    /// `connecting`, `playing` or `waiting`.
    pub(in crate::control) state: &'static str,
    /// Since when it is so, in ms since 1970.
    pub(in crate::control) since_ms: u64,
    pub(in crate::control) recv_bytes: u64,
    /// Tries after the first.
    pub(in crate::control) retries: u64,
    /// Why the last connection ended, or was not made; null if all is well.
    pub(in crate::control) error: Option<String>,
}

impl Stream {
    /// `since_1970_ms` is when the process's clock was 0.
    pub(in crate::control) fn new(
        report: &StreamReport,
        flush_ms: Vec<u64>,
        playlists: [Option<String>; 2],
        since_1970_ms: u64,
        config: &Config,
    ) -> Self {
        let (vhost, url) = report.key.split_once('/').unwrap_or((&report.key, ""));
        let (app, name) = url.rsplit_once('/').unwrap_or(("", url));
        let publish = report.publish.as_ref();
        let video = publish.and_then(|publish| publish.video.clone()).map(|video| {
            let VideoReport { codec, profile, level, width, height } = video;
            Video { profile: video_profile(&codec, profile), level: level_of(&codec, level), codec, width, height }
        });
        let audio = publish.and_then(|publish| publish.audio.clone()).map(|audio| {
            let AudioReport { codec, sample_rate, channels, profile } = audio;
            let profile = known_or(profile, (!matches!(&*codec, "PCMA" | "PCMU")).then_some("Other"));
            Audio { codec, sample_rate, channel: channels, profile }
        });
        let of_vhost = |path: String| format!("{}{}", utf8_percent_encode(&path, NAME), vhost_query(vhost));
        let [hls, dash] = playlists.map(|path| path.filter(|_| config.http.enabled()).map(of_vhost));
        Self {
            id: stable_id(&report.key),
            name: name.to_owned(),
            vhost: stable_id(vhost),
            app: app.to_owned(),
            tc_url: publish.map_or_else(String::new, |publish| publish.tc_url.clone()),
            url: stream_url(vhost, app, name),
            flv: flv_path(config, vhost, app, name),
            hls,
            dash,
            live_ms: system::unix_ms(),
            started_ms: publish.map_or(0, |publish| since_1970_ms + publish.started_ms),
            clients: report.players + u64::from(publish.is_some()),
            players: report.players,
            frames: publish.map_or(0, |publish| publish.audio_frames + publish.video_frames),
            audio_frames: publish.map_or(0, |publish| publish.audio_frames),
            video_frames: publish.map_or(0, |publish| publish.video_frames),
            send_bytes: report.sent_bytes,
            recv_bytes: publish.map_or(0, |publish| publish.received_bytes),
            kbps: Kbps { recv_30s: publish.map_or(0, |publish| publish.received_kbps), send_30s: report.sent_kbps },
            publish: Publish { active: publish.is_some(), cid: publish.map(|publish| publish.client_id.clone()) },
            video,
            audio,
            skips: report.skips,
            memory_bytes: report.memory_bytes,
            flush_ms,
            frame_age: FrameAge {
                p50_ms: report.age.percentile(50),
                p99_ms: report.age.percentile(99),
                count: report.age.count(),
            },
            fetch: report.fetch.as_ref().map(|fetch| Fetch::new(fetch, since_1970_ms)),
            forward: report.forwards.iter().map(|forward| Forward::new(forward, since_1970_ms)).collect(),
        }
    }
}

impl Fetch {
    fn new(report: &ForwardReport, since_1970_ms: u64) -> Self {
        let Forward { to, state, since_ms, send_bytes, retries, error } = Forward::new(report, since_1970_ms);
        Self { from: to, state, since_ms, recv_bytes: send_bytes, retries, error }
    }
}

impl Forward {
    fn new(report: &ForwardReport, since_1970_ms: u64) -> Self {
        Self {
            to: report.to.clone(),
            state: report.state.name(),
            since_ms: since_1970_ms + report.since_ms,
            send_bytes: report.bytes,
            retries: report.retries,
            error: Some(report.error.clone()).filter(|error| !error.is_empty()),
        }
    }
}

fn known_or(text: String, otherwise: Option<&str>) -> Option<String> {
    if text.is_empty() { otherwise.map(str::to_owned) } else { Some(text) }
}

/// What SRS says of a video track whose profile or level is not known.
fn unknown(codec: &str) -> Option<&'static str> {
    (!matches!(codec, "AV1" | "VP9")).then_some("Other")
}

/// A profile in SRS's spelling.
fn video_profile(codec: &str, profile: String) -> Option<String> {
    let spelled = match (codec, &*profile) {
        ("H264", "ConstrainedBaseline") => "Baseline(Constrained)",
        ("H264", "High10") => "High(10)",
        ("H264", "High10Intra") => "High(10+Intra)",
        ("H264", "High422") => "High(422)",
        ("H264", "High422Intra") => "High(422+Intra)",
        ("H264", "High444") => "High(444+Predictive)",
        ("H264", "High444Intra") => "High(444+Intra)",
        // SRS does not look at the flags that tell them from High.
        ("H264", "ProgressiveHigh" | "ConstrainedHigh") => "High",
        ("HEVC", "Main 10") => "Main10",
        _ => return known_or(profile, unknown(codec)),
    };
    Some(spelled.to_owned())
}

/// A level in SRS's spelling: `3`, and not `3.0`.
fn level_of(codec: &str, level: String) -> Option<String> {
    let short = level.strip_suffix(".0").filter(|_| codec != "AV1").map(str::to_owned);
    short.or_else(|| known_or(level, unknown(codec)))
}

/// Where `http_remux` mounts a stream as FLV.
fn flv_path(config: &Config, vhost: &str, app: &str, stream: &str) -> Option<String> {
    let remux = &config.vhost_named(vhost)?.http_remux;
    let encoded = |text: &str| utf8_percent_encode(text, NAME).to_string();
    let mount = remux.mounts.iter().find(|mount| mount.ends_with(".flv"))?;
    let path = mount.replace("[app]", &encoded(app)).replace("[stream]", &encoded(stream));
    (remux.enabled && config.http.enabled()).then(|| format!("{path}{}", vhost_query(vhost)))
}

/// What says a vhost in a URL, where it is not the default one.
fn vhost_query(vhost: &str) -> String {
    if vhost == DEFAULT_VHOST { String::new() } else { format!("?vhost={}", utf8_percent_encode(vhost, NAME)) }
}

/// What stands in a path as it is (RFC 3986 §3.3), levels included.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct Client {
    pub(in crate::control) id: String,
    /// The vhost's id.
    pub(in crate::control) vhost: String,
    /// The stream's id.
    pub(in crate::control) stream: String,
    pub(in crate::control) ip: String,
    #[serde(rename = "pageUrl")]
    pub(in crate::control) page_url: String,
    #[serde(rename = "swfUrl")]
    pub(in crate::control) swf_url: String,
    #[serde(rename = "tcUrl")]
    pub(in crate::control) tc_url: String,
    /// `/app/stream`, behind its vhost's name where it has one.
    pub(in crate::control) url: String,
    pub(in crate::control) name: String,
    #[serde(rename = "type")]
    pub(in crate::control) kind: String,
    pub(in crate::control) publish: bool,
    /// Seconds.
    pub(in crate::control) alive: f64,
    pub(in crate::control) send_bytes: u64,
    pub(in crate::control) recv_bytes: u64,
    pub(in crate::control) kbps: Kbps,
    /// Times that it was moved to a newer keyframe. Ours.
    pub(in crate::control) skips: u64,
    /// How long the next tag for it has been waiting. Ours.
    pub(in crate::control) lag_ms: u64,
}

impl From<ClientReport> for Client {
    fn from(report: ClientReport) -> Self {
        let (vhost, url) = report.key.split_once('/').unwrap_or((&report.key, ""));
        let (app, name) = url.rsplit_once('/').unwrap_or(("", url));
        Self {
            vhost: stable_id(vhost),
            stream: stable_id(&report.key),
            url: stream_url(vhost, app, name),
            name: name.to_owned(),
            id: report.id,
            ip: report.ip,
            page_url: report.page_url,
            swf_url: report.swf_url,
            tc_url: report.tc_url,
            kind: report.kind.to_owned(),
            publish: report.publish,
            #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
            alive: report.alive_ms as f64 / 1000.0,
            send_bytes: report.sent_bytes,
            recv_bytes: report.received_bytes,
            kbps: Kbps { recv_30s: report.received_kbps, send_30s: report.sent_kbps },
            skips: report.skips,
            lag_ms: report.lag_ms,
        }
    }
}

/// One core of the server. Ours.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct Shard {
    pub(in crate::control) shard: usize,
    /// Load of its core, 0 to 1.
    pub(in crate::control) load: f64,
    /// Flush interval of the mean player, or of `mw_latency auto` where there is none, in ms.
    pub(in crate::control) flush_ms: u64,
    pub(in crate::control) connections: u64,
    pub(in crate::control) publishers: u64,
    pub(in crate::control) players: u64,
    pub(in crate::control) send_bytes: u64,
    pub(in crate::control) recv_bytes: u64,
    pub(in crate::control) skips: u64,
    /// Bytes of media in its streams' logs, and in what is made of them.
    pub(in crate::control) media_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_and_levels_are_spelled_as_srs_does() {
        let profile = |codec: &str, profile: &str| video_profile(codec, profile.to_owned());
        let level = |codec: &str, level: &str| level_of(codec, level.to_owned());
        assert_eq!(profile("H264", "ConstrainedBaseline").as_deref(), Some("Baseline(Constrained)"));
        assert_eq!(profile("HEVC", "Main 10").as_deref(), Some("Main10"));
        assert_eq!((profile("H264", "").as_deref(), profile("VP9", "")), (Some("Other"), None));
        assert_eq!((level("H264", "3.0").as_deref(), level("H264", "3.1").as_deref()), (Some("3"), Some("3.1")));
        assert_eq!((level("HEVC", "").as_deref(), level("AV1", "4.0").as_deref()), (Some("Other"), Some("4.0")));
    }
}
