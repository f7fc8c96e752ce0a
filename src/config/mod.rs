//! Configuration in SRS's syntax → typed sections with documented defaults.
//!
//! Files and the environment (`source`) → tokens and directives (`syntax`) → each directive as the table has
//! it (`directives`, `section`) → sections, each fault with its place (`load`, `faults`) → in words again
//! (`explain`).

mod cluster;
mod dash;
mod directives;
mod dvr;
mod environment;
mod explain;
mod faults;
mod files;
mod forward;
mod heartbeat;
mod hls;
mod http;
mod load;
mod mount;
mod old;
mod place;
mod programs;
mod proxies;
mod pull;
mod secrets;
mod section;
mod source;
mod srs;
mod syntax;
mod table;

pub use cluster::{Cluster, Origin, Protocol, Registry};
pub use dash::Dash;
pub use dvr::Dvr;
pub use explain::{Change, Explanation, full};
pub use faults::{Fault, Faults};
pub use files::{Files, HttpStatic};
pub use forward::{Destination, Forward};
pub use heartbeat::Heartbeat;
pub use hls::{Hls, HlsKeys, HlsVariant};
pub use http::{
    Action, Auth, Exporter, HookUrl, Hooks, HttpApi, HttpRemux, HttpServer, Refer, Rule, Security, SignedUrl,
};
pub use programs::{Engine, Ingest, Programs, Transcode};
pub use proxies::Proxies;
pub use pull::Pull;

use crate::tls;
use section::Loader;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What the binary runs with if no file is given: `conf/default.conf`.
pub const DEFAULT: &str = include_str!("../../conf/default.conf");

/// The vhost that answers for host names without one of their own.
pub const DEFAULT_VHOST: &str = "__defaultVhost__";

/// A whole configuration. `conf/full.conf` has every directive with its default.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen for RTMP. SRS: `listen`, at top level or in `rtmp`.
    pub listen: Vec<Listen>,
    /// Most connections over all shards. SRS: `max_connections`.
    pub max_connections: u32,
    /// Who may say for whom it speaks. Ours: `trusted_proxies`.
    pub trusted_proxies: Proxies,
    /// Most bytes that the process may take; 0 for no bound. Ours: `memory_max`.
    pub memory_max: u64,
    /// Most bytes of segments; 0 for no bound. Ours: `hls_memory_max`.
    pub segments_max: u64,
    /// How what many players share is handed to the kernel. Ours: `send_path`.
    pub send_path: SendPath,
    /// How programs run beside streams.
    pub programs: ProgramLimits,
    /// RTMP over TLS.
    pub rtmps: Rtmps,
    /// Live streams and the page by HTTP.
    pub http: HttpServer,
    /// The HTTP API.
    pub api: HttpApi,
    /// Prometheus.
    pub exporter: Exporter,
    /// Whom the server tells that it is there.
    pub heartbeat: Option<Heartbeat>,
    /// By name; never empty.
    pub vhosts: Vec<Arc<Vhost>>,
    /// Where streams of other servers are found. Ours: `registry`.
    pub registry: Option<Arc<Registry>>,
    /// The log.
    pub log: Log,
    /// How SIGQUIT stops.
    pub stop: Stop,
    /// Where the process's number is written. SRS: `pid`.
    pub pid: Option<PathBuf>,
    /// Where relative paths count from, if not from where the process was started. SRS: `work_dir`.
    pub work_dir: Option<PathBuf>,
    /// End when the parent process ends. SRS: `asprocess`.
    pub asprocess: bool,
    /// Reload when a file of the configuration changes. SRS: `inotify_auto_reload`.
    pub auto_reload: bool,
    /// The server's name in API and hooks, if not one of its own making. SRS: `server_id`.
    pub server_id: Option<String>,
}

/// One endpoint.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Listen {
    /// `1935` means 0.0.0.0:1935.
    pub address: SocketAddr,
    /// Every connection must begin with a proxy header (0xF3, PROXY v1 or v2) that names the real
    /// peer. Ours: the word `proxy_protocol` in a `listen` directive.
    pub proxy_protocol: bool,
    /// Whether it comes inside TLS.
    pub tls: bool,
    /// What is spoken there.
    pub service: Service,
}

/// What an endpoint speaks.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Service {
    /// RTMP.
    Rtmp,
    /// Live streams, the page, and the API for those who may.
    Http,
    /// The API.
    Api,
    /// Prometheus's `/metrics`.
    Exporter,
}

/// The `rtmps` section; listens nowhere unless enabled.
#[derive(Clone, Debug, Default)]
pub struct Rtmps {
    /// Where.
    pub listen: Vec<Listen>,
    /// PEM file.
    pub key: PathBuf,
    /// PEM file.
    pub cert: PathBuf,
    /// Key and certificate as they were read; there if enabled.
    pub tls: Option<tls::Acceptor>,
}

/// Where the log goes, and how much.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Log {
    /// `None` is standard error. SRS: `srs_log_tank`, `srs_log_file`.
    pub file: Option<PathBuf>,
    /// SRS: `srs_log_level`.
    pub level: LogLevel,
}

/// SRS's levels, from the most words to the least.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogLevel {
    /// Every message.
    Verbose,
    /// Every connection.
    Info,
    /// Publishes and faults.
    Trace,
    /// Faults.
    Warn,
    /// What ends the process.
    Error,
}

/// How the server drains.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stop {
    /// SIGTERM drains too. SRS: `force_grace_quit`.
    pub forced: bool,
    /// Time in ms for which new connections are still accepted. SRS: `grace_start_wait`.
    pub start_wait_ms: u32,
    /// Time in seconds for which connections are served on at most. Ours: `grace_drain_limit`.
    pub drain_limit_s: u32,
    /// Time in ms that the process stays after the last connection. SRS: `grace_final_wait`.
    pub final_wait_ms: u32,
}

/// A virtual host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Vhost {
    /// The host name that picks it, or `__defaultVhost__`.
    pub name: String,
    /// Whether it answers at all. SRS: `enabled`.
    pub enabled: bool,
    /// TCP_NODELAY. SRS: `tcp_nodelay`.
    pub tcp_nodelay: bool,
    /// Flush at once unless `mw_latency` is given. SRS: `min_latency`.
    pub min_latency: bool,
    /// Bytes per chunk sent, 128 to 65536. SRS: `chunk_size`.
    pub chunk_size: u32,
    /// Acknowledge after so many bytes; 0 waits for the peer's word. SRS: `in_ack_size`.
    pub in_ack_size: u32,
    /// Window Acknowledgement Size in bytes; 0 sends none. SRS: `out_ack_size`.
    pub out_ack_size: u32,
    /// For publishers.
    pub publish: Publish,
    /// For players.
    pub play: Play,
    /// Where its publishes are pushed on to.
    pub forward: Forward,
    /// Whether it is an edge, and of whom.
    pub cluster: Cluster,
    /// Streams that are fetched as long as the server runs. Ours: `pull`.
    pub pulls: Vec<Pull>,
    /// Programs that run beside its streams.
    pub programs: Arc<Programs>,
    /// Segments, if they are made.
    pub hls: Option<Arc<Hls>>,
    /// The same for DASH. SRS: `dash`.
    pub dash: Option<Arc<Dash>>,
    /// Recordings, if they are made.
    pub dvr: Option<Arc<Dvr>>,
    /// HTTP-FLV and WebSocket-FLV.
    pub http_remux: HttpRemux,
    /// Files of its own.
    pub http_static: Option<HttpStatic>,
    /// Who is asked and told of what happens.
    pub hooks: Hooks,
    /// Who may, by address.
    pub security: Security,
    /// Who may, by the page that they stand in.
    pub refer: Refer,
    /// Who may, by a signature in the URL; `None` asks for none.
    pub signed_url: Option<SignedUrl>,
}

impl Vhost {
    /// Whether there may be playlists and segments of its streams.
    pub fn is_packaged(&self) -> bool {
        self.enabled && (self.hls.is_some() || self.dash.is_some())
    }
}

/// A vhost's `publish` section.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Publish {
    /// Time in ms between two reads, if reads are merged. SRS: `mr`, `mr_latency`.
    pub mr_latency_ms: Option<u32>,
    /// Most time in ms before the first media. SRS: `firstpkt_timeout`.
    pub firstpkt_timeout_ms: u32,
    /// Most time in ms without media afterwards. SRS: `normal_timeout`.
    pub normal_timeout_ms: u32,
    /// Whether sequence headers are read, and must be good. SRS: `parse_sps`.
    pub parse_sps: bool,
    /// Which form a sequence header is tried as first. SRS: `try_annexb_first`.
    pub try_annexb_first: bool,
    /// Time in seconds without players after which a publisher goes; 0 is never. SRS: `kickoff_for_idle`.
    pub kickoff_for_idle_s: u32,
    /// Who wins a name. Ours: `takeover`.
    pub takeover: Takeover,
}

/// What becomes of a publish whose stream is being published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Takeover {
    /// It is refused.
    Reject,
    /// It takes the stream over, and its players; the other one is disconnected.
    Replace,
}

/// What holds for all programs of all vhosts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProgramLimits {
    /// Most at once. Ours: `programs_max`.
    pub count_max: u32,
    /// Where ffmpeg's output goes. SRS: `ff_log_dir`.
    pub log_dir: Option<PathBuf>,
    /// ffmpeg's `-loglevel`. SRS: `ff_log_level`.
    pub log_level: String,
}

/// How what many players share is handed to the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SendPath {
    /// Copied.
    Copy,
    /// As pages of a file in memory where it is large enough, copied otherwise.
    Sendfile,
}

/// How times are corrected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TimeJitter {
    /// Players start at 0, jumps are taken out, no track goes back.
    Full,
    /// Players start at 0.
    Zero,
    /// As published. `atc on` means this too.
    Off,
}

/// A vhost's `play` section.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Play {
    /// Late joiners start at the newest keyframe. SRS: `gop_cache`.
    pub gop_cache: bool,
    /// Tags beyond which a GOP is not kept. SRS: `gop_cache_max_frames`.
    pub gop_cache_max_frames: u32,
    /// Most media that one player may lag, in seconds, before it is moved to the newest keyframe.
    /// SRS: `queue_length`.
    pub queue_length_s: u32,
    /// SRS: `time_jitter` and `atc`.
    pub time_jitter: TimeJitter,
    /// Audio and video in one order of time. SRS: `mix_correct`.
    pub mix_correct: bool,
    /// Metadata may turn `atc` on. SRS: `atc_auto`.
    pub atc_auto: bool,
    /// Flush interval in ms; 0 flushes each tag at once. SRS: `mw_latency`. Ours: `auto` (`None`) follows
    /// the load of the core, from at once to 350.
    pub mw_latency_ms: Option<u32>,
    /// Tags below which a flush waits for one interval more, up to 128. SRS: `mw_msgs`.
    pub mw_msgs: u32,
    /// Time in ms between two messages to a player, which go one by one; 0 merges them. SRS:
    /// `send_min_interval`.
    pub send_min_interval_ms: u32,
    /// Sequence headers that repeat the last one are left out. SRS: `reduce_sequence_header`.
    pub reduce_sequence_header: bool,
}

/// What to load a configuration from.
#[derive(Clone, Debug, Default)]
pub struct Input<'a> {
    /// A file, or else a text with a name, or else the environment alone.
    pub file: Option<&'a Path>,
    /// Name and text.
    pub text: Option<(&'a str, &'a str)>,
    /// Where includes count from, and `work_dir`; the working directory if nothing is said.
    pub directory: Option<&'a Path>,
    /// Variables of the environment; those of SRS override the file.
    pub variables: Vec<(String, String)>,
    /// To compare with `max_connections`.
    pub descriptors: Option<Descriptors>,
    /// Go without what SRS has and we do not, with a warning each.
    pub lenient: bool,
}

/// What the process may have open.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    /// In all (RLIMIT_NOFILE).
    pub limit: u64,
    /// Beside those of connections.
    pub own: u64,
}

/// A configuration with what is to be said of it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Each value with its origin.
    pub explanation: Explanation,
    /// What was left out.
    pub warnings: Faults,
    /// The files that it stands in.
    pub files: Vec<PathBuf>,
}

impl Config {
    /// Reads a configuration's text alone; `name` stands in error messages.
    ///
    /// # Errors
    /// Every fault of the text, with its place.
    pub fn parse(name: &str, text: &str) -> Result<Self, Faults> {
        Self::load(&Input { text: Some((name, text)), ..Input::default() }).map(|loaded| loaded.config)
    }

    /// Loads a configuration.
    ///
    /// # Errors
    /// Every fault of it, with its place.
    pub fn load(input: &Input<'_>) -> Result<Loaded, Faults> {
        let directory = input.directory.map(Path::to_path_buf).unwrap_or_default();
        let mut loader = Loader { lenient: input.lenient, directory, ..Loader::default() };
        let mut directives = Vec::new();
        if let Some(path) = input.file {
            match source::read(path) {
                Ok(text) => {
                    let source = loader.sources.add(path.display().to_string(), text);
                    loader.files.push(path.to_path_buf());
                    directives = loader.read(Some(path), source);
                }
                Err(error) => {
                    let fault = Fault::nowhere(format!("{}: {error}", path.display()));
                    let utf8 = error.kind() == std::io::ErrorKind::InvalidData;
                    loader.faults.push(fault.help(if utf8 {
                        "save it as UTF-8"
                    } else {
                        "check the path and its rights"
                    }));
                }
            }
        } else if let Some((name, text)) = input.text {
            let source = loader.sources.add(name, text);
            directives = loader.read(None, source);
        }
        if !loader.faults.is_empty() && loader.sources.0.is_empty() {
            return Err(Faults::new(loader.sources, loader.faults, false));
        }
        old::modernise(&mut directives, &mut loader.warnings);
        environment::take(&mut loader, &input.variables);
        let config = load::load(&mut loader, directives, input.descriptors);
        let Loader { sources, faults, warnings, explained, files, .. } = loader;
        if !faults.is_empty() {
            return Err(Faults::new(sources, faults, false));
        }
        let warnings = Faults::new(sources, warnings, true);
        Ok(Loaded { config, explanation: Explanation(explained), warnings, files })
    }

    /// The vhost for a host name: its own, else the default one; `None` if neither is there.
    pub fn vhost(&self, host: &str) -> Option<&Arc<Vhost>> {
        self.vhost_named(host).or_else(|| self.vhost_named(DEFAULT_VHOST))
    }

    /// The vhost, app and stream of a live request, by its host name and decoded path; `None` if it is no such
    /// thing.
    pub fn live_stream<'a>(&'a self, host: &str, path: &'a str) -> Option<(&'a Arc<Vhost>, &'a str, &'a str)> {
        let vhost = self.vhost(host).filter(|vhost| vhost.enabled && vhost.http_remux.enabled)?;
        let (app, stream) = vhost.http_remux.mounts.iter().find_map(|mount| mount::find(mount, path))?;
        Some((vhost, app, stream))
    }

    /// The vhost of exactly this name.
    pub fn vhost_named(&self, name: &str) -> Option<&Arc<Vhost>> {
        self.vhosts.iter().find(|vhost| vhost.name == name)
    }

    /// All endpoints, RTMP's first.
    pub fn endpoints(&self) -> impl Iterator<Item = &Listen> {
        let http = self.http.listen.iter().chain(&self.api.listen).chain(&self.exporter.listen);
        self.listen.iter().chain(&self.rtmps.listen).chain(http)
    }
}
