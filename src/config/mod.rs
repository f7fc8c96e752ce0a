//! Configuration in SRS's syntax → typed sections with documented defaults.
//!
//! Text → tokens and directives (`syntax`) → sections, each fault with its place (`load`).

mod load;
mod syntax;

pub use load::{Fault, Faults};

use std::{fmt, net::SocketAddr, path::Path};

/// What the binary runs with if no file is given: `conf/default.conf`.
pub const DEFAULT: &str = include_str!("../../conf/default.conf");

/// The vhost that answers for host names without one of their own.
pub const DEFAULT_VHOST: &str = "__defaultVhost__";

/// A whole configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Where to listen for RTMP. SRS: `listen`, at top level or in `rtmp`. No default.
    pub listen: Vec<Listen>,
    /// Most connections over all shards. SRS: `max_connections`. Default: 1000.
    pub max_connections: u32,
    /// By name; the first one of equal names is an error.
    pub vhosts: Vec<Vhost>,
}

/// One endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listen {
    /// `1935` means 0.0.0.0:1935.
    pub address: SocketAddr,
    /// Every connection must begin with a proxy header (0xF3, PROXY v1 or v2) that names the real
    /// peer. Ours: the word `proxy_protocol` in a `listen` directive. Default: off.
    pub proxy_protocol: bool,
}

/// A virtual host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Vhost {
    /// The host name that picks it, or `__defaultVhost__`.
    pub name: String,
    /// Whether it answers at all. SRS: `enabled`. Default: on.
    pub enabled: bool,
    /// TCP_NODELAY. SRS: `tcp_nodelay`. Default: off.
    pub tcp_nodelay: bool,
    /// Flush at once unless `mw_latency` is given. SRS: `min_latency`. Default: off.
    pub min_latency: bool,
    /// Bytes per chunk sent, 128 to 65536. SRS: `chunk_size`. Default: the global one, 60000.
    pub chunk_size: u32,
    /// For players.
    pub play: Play,
}

/// A vhost's `play` section.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Play {
    /// Late joiners start at the newest keyframe. SRS: `gop_cache`. Default: on.
    pub gop_cache: bool,
    /// Tags beyond which a GOP is not kept. SRS: `gop_cache_max_frames`. Default: 2500.
    pub gop_cache_max_frames: u32,
    /// Most media that one player may lag, in seconds, before it is moved to the newest keyframe.
    /// SRS: `queue_length`. Default: 30.
    pub queue_length_s: u32,
    /// Flush interval in ms; 0 flushes each tag at once. SRS: `mw_latency`. Ours: `auto` (`None`) follows
    /// the load of the core, from at once to 350. Default: 350, with `min_latency` 0.
    pub mw_latency_ms: Option<u32>,
    /// Tags below which a flush waits for one interval more, up to 128. SRS: `mw_msgs`. Default: 8,
    /// with `min_latency` or `mw_latency auto` 0.
    pub mw_msgs: u32,
}

/// Bytes per chunk where nothing is said.
pub const CHUNK_SIZE_DEFAULT: u32 = 60_000;

impl Config {
    /// Reads a configuration's text; `name` stands in error messages.
    ///
    /// # Errors
    /// Every fault of the text, with its place.
    pub fn parse(name: &str, text: &str) -> Result<Self, Faults> {
        load::load(text).map_err(|faults| Faults::new(name, text, faults))
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// The file cannot be read, or [`Self::parse`]'s.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let text = std::fs::read_to_string(path).map_err(|error| ReadError::Io(path.display().to_string(), error))?;
        Self::parse(&path.display().to_string(), &text).map_err(ReadError::Faults)
    }

    /// The vhost for a host name: its own, else the default one; `None` if neither is there.
    pub fn vhost(&self, host: &str) -> Option<&Vhost> {
        let named = |name: &str| self.vhosts.iter().find(|vhost| vhost.name == name);
        named(host).or_else(|| named(DEFAULT_VHOST))
    }
}

/// Why a configuration file cannot be used.
#[derive(Debug)]
pub enum ReadError {
    /// It cannot be read.
    Io(String, std::io::Error),
    /// It has faults.
    Faults(Faults),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "error: {path}: {error}"),
            Self::Faults(faults) => faults.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}
