//! Streams that are variants of one another, by the ends of their names (nginx-rtmp's `hls_variant`).

use super::shelf::{Item, Kind, Shelf, Shown};
use crate::config::{Hls, Vhost};
use std::sync::Arc;

/// One of them.
#[derive(Debug)]
pub(super) struct Variant {
    /// Its playlist's, from the first slash on.
    pub(super) path: String,
    pub(super) shown: Arc<Shown>,
    /// Bits a second, where the configuration says so.
    pub(super) bandwidth: Option<u64>,
}

/// The variants that there are of the stream whose playlist a path would be.
pub(super) fn of(shelf: &Shelf, vhost: &Vhost, path: &str) -> Vec<Variant> {
    let Some(hls) = vhost.hls.as_ref().filter(|hls| !hls.variants.is_empty()) else { return Vec::new() };
    // What stands behind the stream's name.
    let end = hls.m3u8_file.rsplit_once("[stream]").map_or("", |(_, end)| end);
    let Some(stem) = path.strip_suffix(end).filter(|_| !end.is_empty()) else { return Vec::new() };
    let find = |suffix: &str| match shelf.find(&format!("{}{stem}{suffix}{end}", vhost.name)) {
        Some(Item::Playlist(shown)) if shown.kind == Kind::Hls => Some((format!("{stem}{suffix}{end}"), shown)),
        _ => None,
    };
    let found = hls.variants.iter().filter_map(|variant| Some((find(&variant.suffix)?, variant.bandwidth)));
    found.map(|((path, shown), bandwidth)| Variant { path, shown, bandwidth }).collect()
}

/// The key of the stream that a variant is of.
pub(super) fn key(variant: &Arc<str>, hls: &Hls) -> Arc<str> {
    let stem = hls.variants.iter().find_map(|known| variant.strip_suffix(known.suffix.as_str()));
    stem.map_or_else(|| Arc::clone(variant), Arc::from)
}
