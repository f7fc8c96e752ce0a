//! What a run does: who publishes, who plays, for how long. A file in `bench/scenarios/`, or the
//! command line of `play`, `join` and `churn`.

use anyhow::{Context, bail};
use corecast::{
    proto::{address::UrlError, http::HttpUrl, rtmp::url::RtmpUrl},
    sys,
};
use serde::Deserialize;
use std::{fs, path::Path};

/// Descriptors beside the connections: rings, files, standard streams.
const OTHER_DESCRIPTORS: u64 = 100;
/// Sources of loopback connections, 127.1.x.y; see `connect`.
const LOOPBACK_CONNECTIONS_MAX: usize = 500 * 65_000;

/// A whole run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// Measured time in seconds, after everybody is connected.
    pub(crate) seconds: u64,
    /// The first group of players is raised until it does not hold.
    #[serde(default)]
    pub(crate) ramp: Option<Ramp>,
    #[serde(default)]
    pub(crate) publishers: Vec<Publishers>,
    #[serde(default)]
    pub(crate) players: Vec<Players>,
}

/// `[ramp]` of a scenario file: of which number of players to which the first group is raised.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ramp {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// How exactly the number is wanted.
    pub(crate) step: usize,
}

/// Publishers of one file, in real time, over and over.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Publishers {
    pub(crate) count: usize,
    /// `app/stream`; {i} becomes the publisher's number, from 0.
    #[serde(rename = "stream")]
    pub(crate) url: String,
    /// Connects per second; 0 as fast as they go.
    #[serde(default)]
    pub(crate) rate: f64,
    /// Stamp the sending time into every video tag.
    #[serde(default)]
    pub(crate) clock: bool,
}

/// Players alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Players {
    /// What the report calls them.
    #[serde(default = "unnamed")]
    pub(crate) name: String,
    pub(crate) count: usize,
    /// `app/stream`; {i} becomes the player's number modulo `streams`.
    #[serde(rename = "stream")]
    pub(crate) url: String,
    #[serde(default = "one")]
    pub(crate) streams: usize,
    /// Connects per second; 0 as fast as they go.
    #[serde(default)]
    pub(crate) rate: f64,
    /// Seconds after the measurement's begin at which they come; without it they come before it.
    #[serde(default)]
    pub(crate) after_s: Option<f64>,
    /// The content of every K-th is checked; the others drop what they get. 0 checks nobody.
    #[serde(default = "one")]
    pub(crate) check_every: usize,
    /// They read no faster than this.
    #[serde(default)]
    pub(crate) read_bytes_per_s: Option<u64>,
    /// Each leaves after a time between these, in seconds, and another comes.
    #[serde(default)]
    pub(crate) stay_s: Option<[f64; 2]>,
    /// Each leaves at its first keyframe.
    #[serde(default)]
    pub(crate) leave: bool,
    /// Speak no RTMP, drop whatever comes: the receivers of `floor`.
    #[serde(default)]
    pub(crate) raw: bool,
    /// Nobody publishes what they play: they only wait.
    #[serde(default)]
    pub(crate) idle: bool,
    /// Whether they count where all should be at full rate.
    #[serde(default = "yes")]
    pub(crate) full_rate: bool,
}

fn unnamed() -> String {
    "players".to_owned()
}

fn yes() -> bool {
    true
}

fn one() -> usize {
    1
}

impl Scenario {
    /// Reads a scenario file; its streams are under `base`, such as `rtmp://localhost`, and those that end in
    /// `.flv` or `.m3u8` under `http`.
    pub(crate) fn read(path: &Path, base: &str, http: &str) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut scenario: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let (base, http) = (base.trim_end_matches('/'), http.trim_end_matches('/'));
        let urls = scenario.publishers.iter_mut().map(|group| &mut group.url);
        for url in urls.chain(scenario.players.iter_mut().map(|group| &mut group.url)) {
            let base = if url.ends_with(".flv") || is_playlist(url) { http } else { base };
            *url = format!("{base}/{}", url.trim_start_matches('/'));
        }
        Ok(scenario)
    }

    /// Finds out before the run what cannot work.
    pub(crate) fn check(&self, has_file: bool) -> anyhow::Result<()> {
        let connections = self.connections();
        let limit = sys::raise_file_limit();
        if connections as u64 + OTHER_DESCRIPTORS > limit {
            bail!(
                "{connections} connections need {} descriptors and the limit is {limit}: raise it (ulimit -n {}), \
                 or share the load among several runs",
                connections as u64 + OTHER_DESCRIPTORS,
                connections as u64 + OTHER_DESCRIPTORS
            );
        }
        if !self.publishers.is_empty() && !has_file {
            bail!("publishers need a file: -i FILE.flv");
        }
        if connections == 0 {
            bail!("nobody publishes and nobody plays");
        }
        for players in &self.players {
            if players.streams == 0 || players.stay_s.is_some_and(|[least, most]| !(least <= most && least >= 0.0)) {
                bail!("players of {}: streams must be 1 or more, stay_s two times in order", players.url);
            }
        }
        let urls = self.publishers.iter().map(|group| (&group.url, group.count));
        for (url, count) in urls.chain(self.players.iter().map(|group| (&group.url, group.count))) {
            let url = parse(url)?;
            let host = url.host().0;
            let loopback = matches!(host, "localhost" | "127.0.0.1");
            let ports = ports();
            if !loopback && count > ports || loopback && count > LOOPBACK_CONNECTIONS_MAX {
                bail!(
                    "{count} connections to {} need as many local ports and there are {ports}: widen \
                     net.ipv4.ip_local_port_range, or run from several addresses",
                    host
                );
            }
        }
        Ok(())
    }

    /// The most connections at one time.
    fn connections(&self) -> usize {
        let publishers = self.publishers.iter().map(|group| group.count).sum::<usize>();
        publishers + self.players.iter().map(|group| group.count).sum::<usize>()
    }
}

/// Where a URL leads, and in which protocol.
#[derive(Clone, Debug)]
pub(crate) enum Url {
    /// `rtmps` too.
    Rtmp(RtmpUrl),
    /// HTTP-FLV or WebSocket-FLV.
    Flv(HttpUrl),
}

impl Url {
    pub(crate) fn host(&self) -> (&str, u16) {
        match self {
            Self::Rtmp(url) => (&url.host, url.port),
            Self::Flv(url) => (&url.host, url.port),
        }
    }
}

/// Whether a URL is a playlist's.
pub(crate) fn is_playlist(url: &str) -> bool {
    url.split('?').next().is_some_and(|path| path.ends_with(".m3u8"))
}

/// A URL of a scenario, {i} and all.
pub(crate) fn parse(url: &str) -> anyhow::Result<Url> {
    if let Some(http) = HttpUrl::parse(url) {
        return Ok(Url::Flv(http));
    }
    parse_rtmp(url).map(Url::Rtmp)
}

/// The same for those that publish; `rtmps` is `rtmp` here.
pub(crate) fn parse_rtmp(url: &str) -> anyhow::Result<RtmpUrl> {
    let plain = match url.strip_prefix("rtmps://") {
        Some(rest) => with_port(rest),
        None => url.to_owned(),
    };
    RtmpUrl::parse(&plain).map_err(|error: UrlError| anyhow::anyhow!("{url}: {error}"))
}

/// RTMPS's port is 443, as ffmpeg has it.
fn with_port(rest: &str) -> String {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if has_port { "" } else { ":443" };
    format!("rtmp://{authority}{port}/{path}")
}

/// Whether a URL wants TLS.
pub(crate) fn is_tls(url: &str) -> bool {
    ["rtmps://", "https://", "wss://"].iter().any(|scheme| url.starts_with(scheme))
}

/// How many local ports there are for one address.
fn ports() -> usize {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range.split_whitespace().filter_map(|end| end.parse::<usize>().ok());
    ends.next().zip(ends.next()).map_or(28_000, |(first, last)| last.saturating_sub(first) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every scenario of the box can be read.
    #[test]
    fn the_scenarios_of_the_box_are_good() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/scenarios");
        let mut read = 0;
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.extension().is_some_and(|extension| extension == "toml") {
                Scenario::read(&entry, "rtmp://localhost", "http://localhost:8080").unwrap().check(true).unwrap();
                read += 1;
            }
        }
        assert!(read >= 5);
    }

    #[test]
    fn rtmps_has_a_port_of_its_own() {
        let port = |url: &str| parse(url).unwrap().host().1;
        assert_eq!(port("rtmps://host/live/s"), 443);
        assert_eq!(port("rtmps://[::1]:1443/live/s"), 1443);
        assert_eq!(port("rtmp://host/live/s"), 1935);
        assert_eq!((port("http://host/live/s.flv"), port("wss://host:8088/live/s.flv")), (80, 8088));
        assert!(parse_rtmp("http://host/live/s").is_err() && parse("ftp://host/live/s").is_err());
    }
}
