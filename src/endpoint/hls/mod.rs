//! HLS: a player that asks for playlists and segments, one after the other. What it is given lies on the shelf
//! ([`crate::package`]); here it is a client, for rules, hooks and counts.

use crate::{
    core::port::{Frame, ImageKey, Sink, Start},
    media::Subscription,
    package::Visit,
    proto::Write,
};
use std::sync::Arc;

/// A visit.
#[derive(Debug)]
pub(crate) struct HlsSink(Arc<Visit>);

impl HlsSink {
    pub(super) fn new(visit: Arc<Visit>) -> Self {
        Self(visit)
    }
}

impl Sink for HlsSink {
    fn client_type(&self) -> &'static str {
        "hls-play"
    }

    fn visit(&self) -> Option<&Arc<Visit>> {
        Some(&self.0)
    }

    fn share(&self, _: &Subscription) -> Option<ImageKey> {
        None
    }

    fn put_shared<W: Write>(&self, _: Frame<'_>, _: &Subscription, _: &mut W) {}

    fn start<W: Write>(&mut self, _: &Start<'_>, _: &mut W) -> bool {
        false
    }

    fn end<W: Write>(&mut self, _: &mut W) -> bool {
        false
    }
}
