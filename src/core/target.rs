//! Streams that are asked for, and where the server opens connections to by itself for them.

use crate::{
    config::{Config, Vhost},
    proto::address::StreamAddress,
};
use std::sync::Arc;

/// Numbers what one connection plays and publishes: RTMP's message stream id; 0 where there is only one.
pub type Id = u32;

/// A stream that somebody wants to publish or play.
#[derive(Clone, Debug)]
pub struct Request {
    /// The session's number for it.
    pub id: Id,
    /// `vhost/app/stream`.
    pub key: String,
    /// The vhost that has it.
    pub vhost: Arc<Vhost>,
    /// Its name, and what came with it.
    pub address: StreamAddress,
}

impl Request {
    /// Finds the vhost of a stream.
    ///
    /// # Errors
    /// In words: no vhost answers, or it is off.
    pub fn new(id: Id, address: StreamAddress, config: &Config) -> Result<Self, String> {
        let vhost = config.vhost(&address.vhost).ok_or_else(|| format!("vhost {} is not configured", address.vhost))?;
        if !vhost.enabled {
            return Err(format!("vhost {} is off", vhost.name));
        }
        Ok(Self::of(id, address, vhost))
    }

    /// A stream of a vhost.
    pub fn of(id: Id, address: StreamAddress, vhost: &Arc<Vhost>) -> Self {
        Self { id, key: address.key(&vhost.name), vhost: Arc::clone(vhost), address }
    }
}

/// What the server opens a connection for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// A publish is pushed on to others as well. SRS: `forward`.
    Forward,
    /// A publish is taken to an origin.
    Relay,
    /// A stream is fetched from an origin. SRS: `mode remote`.
    Fetch,
    /// An origin is asked whether somebody may play. SRS: `token_traverse`.
    Ask,
}

/// A place that the server opens a connection to by itself, again and again, for as long as a stream is published or
/// wanted.
#[derive(Clone, Debug)]
pub struct Target {
    /// What for.
    pub way: Way,
    /// The stream.
    pub request: Request,
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP's.
    pub port: u16,
    /// Inside TLS, with a certificate for `host`.
    pub tls: bool,
    /// The whole URL, secrets included: what is asked for there.
    pub url: String,
    /// For people, without what may be secret.
    pub name: String,
    /// The marks of the servers that the stream has come through, ours included.
    pub path: String,
    /// How long it may take until something happens, in ms: an answer, media.
    pub patience_ms: u64,
    /// How long media may be waited for that is not there yet, in ms.
    pub wait_ms: u64,
}
