//! What is made of a stream's entries for readers of one kind.

use super::Replica;
use crate::media::{Headers, Kind, LOG_BYTES_MAX, Reader, Rendition, Taker};

impl Replica {
    /// What is made of the entries, if somebody reads it.
    pub fn rendition(&self, kind: &Kind) -> Option<&Rendition> {
        self.renditions.iter().find(|rendition| rendition.is(kind))
    }

    /// One more reads a rendition, which is made from here on if nobody has, for as long as somebody keeps a
    /// [`Reader`] of it.
    pub fn attach(&mut self, kind: &'static Kind) -> Reader {
        let known = self.renditions.iter().position(|rendition| rendition.is(kind));
        let at = known.unwrap_or_else(|| {
            let (first, headers) = self.joiners_start();
            let mut rendition = Rendition::new(kind, first, headers);
            for entry in self.log.range(first..self.log.head()) {
                rendition.push(entry);
                rendition.bound(LOG_BYTES_MAX);
            }
            self.renditions.push(rendition);
            self.renditions.len() - 1
        });
        self.renditions[at].reader()
    }

    /// Who takes the publish that has begun, from its first entry on.
    pub fn set_takers(&mut self, takers: Vec<Box<dyn Taker>>) {
        self.takers = takers;
    }

    /// The server stops: who takes the publish has had all of it.
    pub fn end_takers(&mut self) {
        self.takers.drain(..).for_each(|mut taker| taker.end());
    }

    /// Drops renditions that nobody reads any more.
    pub fn drop_unread(&mut self) {
        self.renditions.retain(Rendition::is_read);
    }

    /// The earliest place that one who comes now may start at, and what stands before it.
    fn joiners_start(&self) -> (u64, &Headers) {
        match &self.mark {
            _ if self.settings.fast_cache_ms > 0 => (self.log.first(), &self.headers),
            _ if self.live && self.log.first() <= self.epoch.first => (self.epoch.first, &self.epoch.headers),
            Some(mark) if self.live => (mark.index, &mark.headers),
            Some(_) | None => (self.log.head(), &self.headers),
        }
    }

    pub(super) fn trim_renditions(&mut self) {
        let first = self.log.first();
        self.renditions.iter_mut().for_each(|rendition| rendition.trim(first));
    }

    /// Whether what is made of the log takes more than the log may.
    pub(super) fn is_rendered_over(&self) -> bool {
        self.rendered_bytes() > LOG_BYTES_MAX
    }

    fn rendered_bytes(&self) -> usize {
        self.renditions.iter().map(Rendition::bytes).sum()
    }

    /// Bytes that the stream takes on this shard: its log, its headers, and what is made of the log.
    pub fn bytes(&self) -> usize {
        self.log.bytes() + self.headers.bytes() + self.rendered_bytes()
    }
}
