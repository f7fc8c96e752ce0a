//! An endpoint that says and writes nothing, for the shard's own tests.

use super::{
    Shard, Shared,
    port::{
        CloseReason, Context, Endpoints, Frame, ImageKey, Output, Peer, Request, Session, Sink, Start, Target, Way,
        Word,
    },
};
use crate::{
    config::{Config, Listen, Origin},
    media::Subscription,
    mesh::ring,
    proto::Write,
};
use std::{net::SocketAddr, os::fd::RawFd, sync::Arc};

#[derive(Debug)]
pub(super) enum Silent {}

#[derive(Debug)]
pub(super) struct SilentSession;

#[derive(Debug)]
pub(super) struct SilentSink;

impl Endpoints for Silent {
    type Session = SilentSession;
    type Sink = SilentSink;

    fn accept(_: Listen, _: &Context<'_>) -> SilentSession {
        SilentSession
    }

    fn targets(_: &Request, _: Option<&[String]>, _: &str) -> Vec<Target> {
        Vec::new()
    }

    fn origins(_: &Request, _: Way, _: bool, _: &str, _: Option<&Origin>) -> Vec<Target> {
        Vec::new()
    }

    fn pulled(_: &Request, _: &[String], _: &str) -> Vec<Target> {
        Vec::new()
    }

    fn url_at(_: &Request, _: &Origin) -> String {
        String::new()
    }

    fn redirected(_: &Target, _: &str) -> Option<Target> {
        None
    }

    fn dial(_: &Target, _: &Context<'_>) -> Option<SilentSession> {
        Some(SilentSession)
    }
}

impl Session for SilentSession {
    type Sink = SilentSink;

    fn receive(&mut self, input: &mut &[u8], _: &Context<'_>) -> Result<(), CloseReason> {
        *input = &[];
        Ok(())
    }

    fn poll(&mut self) -> Option<Output<SilentSink>> {
        None
    }

    fn told(&mut self, _: Word<'_>, _: &Context<'_>) {}

    fn take_output(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn output_len(&self) -> usize {
        0
    }

    fn deadline(&self, _: bool) -> Option<u64> {
        None
    }

    fn timeout(&mut self, _: bool, _: &Context<'_>) -> Option<CloseReason> {
        None
    }

    fn peer(&self) -> Peer<'_> {
        Peer::default()
    }

    fn into_unread(self) -> Vec<u8> {
        Vec::new()
    }
}

impl Sink for SilentSink {
    fn client_type(&self) -> &'static str {
        "silent-play"
    }

    fn share(&self, _: &Subscription) -> Option<ImageKey> {
        None
    }

    fn put_shared<W: Write>(&self, _: Frame<'_>, _: &Subscription, _: &mut W) {}

    fn start<W: Write>(&mut self, _: &Start<'_>, _: &mut W) -> bool {
        true
    }

    fn put<W: Write>(&mut self, _: Frame<'_>, _: &Subscription, _: &mut W) -> bool {
        true
    }

    fn end<W: Write>(&mut self, _: &mut W) -> bool {
        true
    }
}

/// A shard of one, and the default vhost's configuration.
pub(super) fn shard() -> Shard<Silent> {
    let config = Config::parse("test", "listen 127.0.0.1:0; vhost __defaultVhost__ { }").unwrap();
    let mesh = ring::connect(1).remove(0);
    Shard::new(Arc::new(Shared::new(config)), mesh, Arc::default()).unwrap()
}

/// A connection of nobody: it has no descriptor.
pub(super) fn insert(shard: &mut Shard<Silent>) -> usize {
    shard.insert_session(RawFd::MAX, SocketAddr::from(([127, 0, 0, 1], 1)), SilentSession)
}
