//! What operators have of the server beside media: the API, metrics, the page, hooks, access rules.
//!
//! It runs on a thread of its own, beside the shards: they hand over connections that ask for anything but
//! media, and answer calls about what they know between two rounds. Nothing here is on their way.

pub mod access;
mod api;
mod assets;
mod auth;
mod connection;
mod content;
mod files;
mod heartbeat;
pub mod hooks;
mod logins;
mod metrics;
mod openapi;
mod plane;
mod reply;
mod report;
mod shards;
mod system;

pub use access::ClientId;
pub(crate) use heartbeat::device_ip;
pub use plane::{CONNECTIONS_MAX, start};
pub(in crate::control) use report::merge;
pub use report::{
    AudioReport, ClientReport, ForwardReport, ForwardState, PublishReport, ShardReport, StreamReport, VideoReport,
    stream_url,
};

use crate::{
    cluster::RegistryState,
    config::{Config, Service, Vhost},
    package::Recorded,
    programs,
    stats::ShardStats,
    tls,
};
use async_channel::{Receiver, Sender};
use std::{net::SocketAddr, os::fd::OwnedFd, sync::Arc};

/// An HTTP connection on its way between a shard and the control plane.
#[derive(Debug)]
pub struct Handed {
    /// The socket.
    pub descriptor: OwnedFd,
    /// The real peer, where a proxy has named it.
    pub peer: SocketAddr,
    /// What its bytes are wrapped in.
    pub tls: Option<Box<tls::Session>>,
    /// The kernel wraps them; bytes that it has sent so.
    pub ktls_bytes: Option<u64>,
    /// Bytes read and not yet understood, out of their wrapping.
    pub unread: Vec<u8>,
    /// Where it came in.
    pub service: Service,
}

/// What the control plane wants of a shard.
#[derive(Debug)]
pub enum Call {
    /// The connection has asked for a live stream.
    TakeBack(Box<Handed>),
    /// What the shard knows of its streams and of itself.
    Report(Sender<ShardReport>),
    /// Clients from the `skip`th on, at most `count`, and how many there are.
    Clients {
        /// How many to leave out.
        skip: usize,
        /// How many to tell of.
        count: usize,
        /// The answer.
        reply: Sender<(Vec<ClientReport>, usize)>,
    },
    /// One client, by its id.
    Client {
        /// Which.
        id: ClientId,
        /// The answer.
        reply: Sender<Option<ClientReport>>,
    },
    /// Disconnect one client; tells whether it was there.
    Kick {
        /// Which.
        id: ClientId,
        /// The answer.
        reply: Sender<bool>,
    },
}

/// The server, as the control plane sees it.
pub trait Server: Send + 'static {
    /// The configuration of the moment.
    fn config(&self) -> Arc<Config>;
    /// Asks a shard.
    fn call(&self, shard: usize, call: Call);
    /// Every shard's counters.
    fn stats(&self) -> &[Arc<ShardStats>];
    /// Asks for the configuration to be read anew; the answer is the number of changes, or the faults.
    fn reload(&self) -> Receiver<Result<usize, String>>;
    /// What runs beside streams; `None` if nothing ever did.
    fn programs(&self) -> Option<Receiver<Vec<programs::Report>>>;
    /// Whether somebody publishes a stream here, by its key, of a vhost that others ask for streams.
    fn is_published(&self, key: &str) -> bool;
    /// Whether shards serve a segment or a playlist at a path of a vhost.
    fn is_packaged(&self, vhost: &Vhost, path: &str) -> bool;
    /// Where a stream's playlists of HLS and DASH are, by its key: paths of its vhost.
    fn playlists(&self, key: &str) -> [Option<String>; 2];
    /// Recordings of now and of late, the newest first; streams that can be recorded, by their keys.
    fn recordings(&self) -> (Vec<Recorded>, Vec<String>);
    /// Has a stream recorded, or no more; `None` if it cannot be, else whether that is new.
    fn record(&self, key: &str, on: bool) -> Option<bool>;
    /// Bytes of segments that are served, and files that could not be written.
    fn stored(&self) -> (u64, u64);
    /// What tells this process from others: SRS's `server` and `service`.
    fn ids(&self) -> (&str, &str);
    /// What changes must prove where there is no `auth`; empty if nobody can.
    fn token(&self) -> &str;
    /// Where it stands with the registry, if there is one.
    fn registry(&self) -> Option<RegistryState>;
    /// Who calls hooks.
    fn hooks(&self) -> &hooks::Hooks;
    /// The process's clock, in ms.
    fn now_ms(&self) -> u64;
}
