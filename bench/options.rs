//! The command line, and the scenarios that it makes.

use crate::{
    report::bounds::Bound,
    scenario::{Players, Publishers, Scenario},
};
use clap::Args;
use std::path::PathBuf;

/// What every run takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// FLV file that is published in a loop: content is compared with it
    #[arg(short = 'i', value_name = "FILE", global = true)]
    pub(crate) file: Option<PathBuf>,
    /// CPUs to run on, such as 2-5,8 [default: all allowed]
    #[arg(long, global = true)]
    pub(crate) cpus: Option<String>,
    /// The server's process: report its CPU time per delivered GiB, and its memory
    #[arg(long, value_name = "PID", global = true)]
    pub(crate) pid: Option<u32>,
    /// Who drops what it gets reads so often, in ms: a reader that wakes for every packet is what costs a
    /// generator most. Checked players read at once
    #[arg(long, default_value_t = 40, value_name = "MS", global = true)]
    pub(crate) read_every: u64,
    /// Write the result as JSON
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) json: Option<PathBuf>,
    /// Write the result as a page with plots
    #[arg(long, value_name = "FILE.html", global = true)]
    pub(crate) report: Option<PathBuf>,
    /// Bounds that must hold, such as full-rate=99%,p99=400ms,faults=0; exit code 1 if one does not.
    /// Known: full-rate, playing (%), faults, failures (counts), p50, p95, p99, max (latency), join-p50, join-p99,
    /// join-max, stall-max (us, ms or s), cpu-per-gib (s), cores, rss (MiB) [default: full-rate=100%,faults=0]
    #[arg(long, value_name = "BOUNDS", value_delimiter = ',', global = true)]
    pub(crate) require: Vec<Bound>,
}

/// `play`
#[derive(Clone, Debug, Args)]
pub(crate) struct Play {
    /// Players
    #[arg(short = 'c', default_value_t = 1)]
    clients: usize,
    /// URL: rtmp or rtmps, or http, https, ws or wss with a path that ends in .flv; {i} becomes the player's
    /// number modulo --streams
    #[arg(short = 'r')]
    url: String,
    /// Streams that {i} counts over
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Measured time in seconds, after all players are connected
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Check the content of every K-th player only; the others drop what they get
    #[arg(long, default_value_t = 1, value_name = "K")]
    check_every: usize,
    /// Connects per second; 0 as fast as they go
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// The players read no faster than this
    #[arg(long, value_name = "BYTES_PER_S")]
    throttle: Option<u64>,
    /// Only so many of them are throttled
    #[arg(long, value_name = "N", requires = "throttle")]
    throttled: Option<usize>,
    /// Nobody publishes: the players only wait
    #[arg(long)]
    idle: bool,
    /// Speak no RTMP, drop whatever comes: the receivers of `floor`
    #[arg(long)]
    raw: bool,
}

/// `publish`
#[derive(Clone, Debug, Args)]
pub(crate) struct Publish {
    /// Publishers
    #[arg(short = 'c', default_value_t = 1)]
    clients: usize,
    /// URL, rtmp or rtmps; {i} becomes the publisher's number, from 0
    #[arg(short = 'r')]
    url: String,
    /// How long, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Connects per second; 0 as fast as they go
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Stamp the sending time into the video, so that `play` measures the latency
    #[arg(long)]
    clock: bool,
}

/// `join`
#[derive(Clone, Debug, Args)]
pub(crate) struct Join {
    /// Players that come
    #[arg(short = 'c', default_value_t = 1000)]
    clients: usize,
    /// URL; {i} becomes the player's number modulo --streams
    #[arg(short = 'r')]
    url: String,
    /// Streams that {i} counts over
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Players that are there before, and must lose nothing
    #[arg(long, default_value_t = 0)]
    bystanders: usize,
    /// Connects per second; 0 as fast as they go
    #[arg(long, default_value_t = 0.0)]
    rate: f64,
    /// Each leaves at its first keyframe
    #[arg(long)]
    leave: bool,
    /// Measured time in seconds; they come in its second second
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// `churn`
#[derive(Clone, Debug, Args)]
pub(crate) struct Churn {
    /// Players at a time
    #[arg(short = 'c', default_value_t = 100)]
    clients: usize,
    /// URL; {i} becomes the player's number modulo --streams
    #[arg(short = 'r')]
    url: String,
    /// Streams that {i} counts over
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Players that stay, and must lose nothing
    #[arg(long, default_value_t = 1)]
    bystanders: usize,
    /// Each stays for a time between these, in seconds
    #[arg(long, value_name = "LEAST-MOST", default_value = "0.5-3", value_parser = parse_range)]
    stay: (f64, f64),
    /// Measured time in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

fn parse_range(text: &str) -> Result<(f64, f64), String> {
    let ends = text.split_once('-').unwrap_or((text, text));
    match (ends.0.parse(), ends.1.parse()) {
        (Ok(least), Ok(most)) if least >= 0.0 && least <= most => Ok((least, most)),
        _ => Err("a range such as 0.5-3 is wanted".to_owned()),
    }
}

/// `mixed`
#[derive(Clone, Debug, Args)]
pub(crate) struct Mixed {
    /// Scenario file, such as bench/scenarios/hot-stream.toml
    pub(crate) scenario: PathBuf,
    /// The server, such as rtmp://localhost:1935; the scenario has the streams
    #[arg(short = 'r')]
    pub(crate) url: String,
    /// The same for streams that end in .flv, such as http://localhost:8080 or ws://localhost:8080
    #[arg(long, default_value = "http://localhost:8080", value_name = "URL")]
    pub(crate) http: String,
    /// Raise no number of players: the first group has so many
    #[arg(long, value_name = "N")]
    pub(crate) players: Option<usize>,
}

/// A group of players with nothing special about it.
fn players(name: &str, count: usize, url: &str, streams: usize) -> Players {
    Players {
        name: name.to_owned(),
        count,
        url: url.to_owned(),
        streams,
        rate: 0.0,
        after_s: None,
        check_every: 1,
        read_bytes_per_s: None,
        stay_s: None,
        leave: false,
        raw: false,
        idle: false,
        full_rate: true,
    }
}

impl Play {
    pub(crate) fn scenario(&self) -> Scenario {
        let Self { rate, check_every, raw, idle, throttle, .. } = *self;
        let slow = throttle.map_or(0, |_| self.throttled.unwrap_or(self.clients).min(self.clients));
        let group = |name, count| Players {
            rate,
            check_every: if raw { 0 } else { check_every },
            raw,
            idle,
            full_rate: !idle,
            ..players(name, count, &self.url, self.streams)
        };
        let throttled = Players { read_bytes_per_s: throttle, ..group("throttled", slow) };
        let groups = [group("players", self.clients - slow), throttled];
        Scenario {
            seconds: self.seconds,
            ramp: None,
            publishers: Vec::new(),
            players: groups.into_iter().filter(|group| group.count > 0).collect(),
        }
    }
}

impl Publish {
    pub(crate) fn scenario(&self) -> Scenario {
        let Self { clients: count, rate, clock, .. } = *self;
        let publishers = vec![Publishers { count, url: self.url.clone(), rate, clock }];
        Scenario { seconds: self.seconds, ramp: None, publishers, players: Vec::new() }
    }
}

impl Join {
    pub(crate) fn scenario(&self) -> Scenario {
        let bystanders = players("bystanders", self.bystanders, &self.url, self.streams);
        let joiners = Players {
            rate: self.rate,
            after_s: Some(1.0),
            check_every: 0,
            leave: self.leave,
            full_rate: false,
            ..players("joiners", self.clients, &self.url, self.streams)
        };
        let groups = [bystanders, joiners].into_iter().filter(|group| group.count > 0);
        Scenario { seconds: self.seconds, ramp: None, publishers: Vec::new(), players: groups.collect() }
    }
}

impl Churn {
    pub(crate) fn scenario(&self) -> Scenario {
        let bystanders = players("bystanders", self.bystanders, &self.url, self.streams);
        let comers = Players {
            rate: 2000.0,
            stay_s: Some([self.stay.0, self.stay.1]),
            full_rate: false,
            ..players("come and go", self.clients, &self.url, self.streams)
        };
        let groups = [bystanders, comers].into_iter().filter(|group| group.count > 0);
        Scenario { seconds: self.seconds, ramp: None, publishers: Vec::new(), players: groups.collect() }
    }
}
