//! A vhost's `cluster` section.

use super::{DEFAULT_VHOST, explain::Line, section::Section};
use crate::proto::address::split_port;
use std::{fmt, sync::Arc, time::Duration};

/// Where a vhost's streams are fetched from, and publishes are taken to; nowhere unless it is an edge.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cluster {
    /// The vhost is an edge of these; empty if it is none. SRS: `mode remote`, `origin`.
    pub origins: Vec<Origin>,
    /// How streams are fetched. SRS: `protocol`.
    pub protocol: Protocol,
    /// By FLV if the first player takes that. SRS: `follow_client`.
    pub follow_client: bool,
    /// Players and publishers are let in if the origin lets them. SRS: `token_traverse`.
    pub token_traverse: bool,
    /// Template of the vhost's name there. SRS: `vhost`.
    vhost: String,
    /// Origins are told which server this is. SRS: `debug_srs_upnode`.
    pub names_itself: bool,
    /// An origin that says nothing for so long is left, in ms. Ours: `origin_timeout`.
    pub timeout_ms: u64,
    /// A stream is fetched for so long after its last player has left, in ms. Ours: `linger`.
    pub linger_ms: u64,
    /// Servers that are asked for a stream that is not here. SRS: `origin_cluster on`, `coworkers`.
    pub coworkers: Vec<Origin>,
    /// Where servers find who has which stream. Ours: `registry`.
    pub registry: Option<Arc<Registry>>,
    /// RTMP's players are sent to where their stream is, rather than served. Ours: `redirect`.
    pub redirects: bool,
}

/// Redis, as it is used to find streams.
#[derive(Clone, Eq, PartialEq)]
pub struct Registry {
    /// `redis[s]://[user:password@]host[:port][/database]`.
    pub url: String,
    /// What entries are signed with; empty if they are not. Ours: `registry_secret`.
    pub secret: String,
    /// How long a server that says nothing is believed to have its streams. Ours: `registry_lease`.
    pub lease: Duration,
    /// Where others find this server's RTMP. Ours: `announce`.
    pub announce: Option<Origin>,
}

impl fmt::Debug for Registry {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("lease", &self.lease).field("announce", &self.announce).finish_non_exhaustive()
    }
}

/// A server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    /// Name or address, without brackets.
    pub host: String,
    /// As its protocol has it, unless given.
    pub port: Option<u16>,
}

/// How an edge fetches streams.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Protocol {
    /// RTMP.
    #[default]
    Rtmp,
    /// RTMPS. Ours.
    Rtmps,
    /// HTTP-FLV.
    Flv,
    /// HTTPS-FLV.
    Flvs,
}

impl Protocol {
    /// Its port where none is given.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Rtmp => 1935,
            Self::Rtmps | Self::Flvs => 443,
            Self::Flv => 80,
        }
    }

    /// Whether it is inside TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Rtmps | Self::Flvs)
    }
}

impl Origin {
    /// `host[:port]`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (host, port) = split_port(text);
        let port = match port {
            None => None,
            Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
        };
        let good = !host.is_empty() && !host.contains(['/', '?', ' ', '@']);
        good.then(|| Self { host: host.to_owned(), port })
    }
}

impl Cluster {
    pub(super) fn load(mut section: Section<'_>) -> Self {
        section.loader.explained.push(Line::Open("cluster".to_owned()));
        let (mode, mode_word) = section.choice("mode");
        let remote = mode == "remote";
        let faults = section.loader.faults.len();
        let origins = section.words("origin", Origin::read);
        let sound = section.loader.faults.len() == faults;
        let registry = load_registry(&mut section);
        if let Some(word) = mode_word.as_ref().filter(|_| remote && origins.is_empty() && sound && registry.is_none()) {
            section.loader.fault(word, "an edge has no `origin`", "add `origin HOST[:PORT];`, or a `registry`");
        }
        let protocol = match section.choice("protocol").0.as_str() {
            "rtmps" => Protocol::Rtmps,
            "flv" => Protocol::Flv,
            "flvs" => Protocol::Flvs,
            _ => Protocol::Rtmp,
        };
        let follow_client = section.flag("follow_client");
        let (token_traverse, word) = section.flag_at("token_traverse");
        if let Some(word) = word.filter(|_| token_traverse && matches!(protocol, Protocol::Flv | Protocol::Flvs)) {
            let message = "`token_traverse` asks by RTMP, and the origins are for FLV";
            section.loader.fault(&word, message, "`protocol rtmp;`, with the origins' ports for that");
        }
        let (vhost, _) = section.text("vhost");
        let names_itself = section.flag("debug_srs_upnode");
        let timeout_ms = u64::from(section.milliseconds("origin_timeout"));
        let linger_ms = u64::from(section.milliseconds("linger"));
        let (origin_cluster, word) = section.flag_at("origin_cluster");
        let coworkers = section.words("coworkers", Origin::read);
        if let Some(word) = word.filter(|_| origin_cluster && remote) {
            let message = "`origin_cluster` and `mode remote` contradict each other: this is an edge or an origin";
            section.loader.fault(&word, message, "remove one of the two");
        }
        let redirects = match section.choice("redirect").0.as_str() {
            "on" => true,
            "off" => false,
            _ => registry.is_none(),
        };
        section.loader.explained.push(Line::Close);
        section.finish();
        Self {
            origins: if remote { origins } else { Vec::new() },
            protocol,
            follow_client,
            token_traverse: token_traverse && remote,
            vhost,
            names_itself,
            timeout_ms,
            linger_ms,
            coworkers: if origin_cluster { coworkers } else { Vec::new() },
            registry: registry.map(Arc::new),
            redirects,
        }
    }

    /// Whether streams are fetched from elsewhere.
    pub fn is_edge(&self) -> bool {
        !self.origins.is_empty()
    }

    /// Whether other origins may have what is not here.
    pub fn is_member(&self) -> bool {
        !self.coworkers.is_empty() || self.registry.is_some() && !self.is_edge()
    }

    /// Whether streams that are not published here are to be had from elsewhere.
    pub fn fetches(&self) -> bool {
        self.is_edge() || self.is_member()
    }

    /// The name at the origins of a vhost; `None` for the one that answers everybody.
    pub fn vhost_there(&self, name: &str) -> Option<String> {
        let there = self.vhost.replace("[vhost]", name);
        Some(there).filter(|there| there != DEFAULT_VHOST)
    }
}

fn load_registry(section: &mut Section<'_>) -> Option<Registry> {
    let (url, word) = section.text("registry");
    let good = ["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme));
    if let Some(word) = word.filter(|_| !url.is_empty() && !good) {
        section.loader.fault(&word, "`registry` is no URL of Redis", "write `registry redis://HOST:6379;`");
    }
    let (secret, _) = section.text("registry_secret");
    let lease = Duration::from_millis(u64::from(section.milliseconds("registry_lease")));
    let announce = section.words("announce", Origin::read).into_iter().next();
    good.then_some(Registry { url, secret, lease, announce })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn origins_in_every_form() {
        let read = |text| Origin::read(text).map(|found| (found.host, found.port));
        assert_eq!(read("10.0.0.1"), Some(("10.0.0.1".to_owned(), None)));
        assert_eq!(read("[::1]:19350"), Some(("::1".to_owned(), Some(19_350))));
        for bad in ["", ":1935", "a:b", "a:0", "rtmp://a", "a/live"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_edge_is_one_by_its_mode() {
        let load = |inside: &str| {
            let text = format!("listen 1; vhost a.b {{ cluster {{ {inside} }} }}");
            Config::parse("test", &text).map(|config| config.vhosts[0].cluster.clone())
        };
        assert!(!load("mode local; origin a b:2;").unwrap().is_edge());
        let edge = load("mode remote; origin a b:2; vhost same.[vhost]; protocol flvs;").unwrap();
        assert!(edge.is_edge() && edge.protocol == Protocol::Flvs && edge.timeout_ms == 3000);
        assert_eq!(edge.vhost_there("x").as_deref(), Some("same.x"));
        assert_eq!(load("").unwrap().vhost_there(DEFAULT_VHOST), None);
        for bad in ["mode remote;", "mode remote; origin a/b;", "mode remote; origin a; origin_cluster on;"] {
            assert!(load(bad).is_err(), "{bad}");
        }
    }
}
