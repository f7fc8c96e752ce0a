//! What a request for a playlist or a segment is answered.

use super::{
    MARK,
    files::Writer,
    mpd::NOW,
    names::{Words, encoded, timestamp},
    playlist::Window,
    shelf::{Blob, Growing, Item, Kind, Shelf, Shown, Visit},
    variants::{self, Variant},
};
use crate::{config::Vhost, proto::http::query_value};
use bytes::Bytes;
use std::{fmt::Write, sync::Arc};

/// Longest name of a visit that a player brings itself.
const CTX_BYTES_MAX: usize = 64;
/// Segments beyond the newest that a reload may wait for (RFC 8216bis §6.2.5.2).
const AHEAD_MAX: u64 = 2;
/// What playlists are (RFC 8216 §4; ISO 23009-1, annex C).
const M3U8: &str = "application/vnd.apple.mpegurl";
const MPD: &str = "application/dash+xml";
/// A visit is over after so many windows without a request, as with SRS.
const VISIT_WINDOWS: u64 = 2;

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The vhost, by the request's host.
    pub vhost: &'a Vhost,
    /// Decoded, from the first slash on.
    pub path: &'a str,
    /// As it stands.
    pub query: &'a str,
    /// The process's clock, in ms.
    pub now_ms: u64,
    /// The visit that the request has been allowed as.
    pub visit: Option<&'a Arc<Visit>>,
}

/// What it is answered.
#[derive(Debug)]
pub enum Answer {
    /// A playlist.
    Playlist(Playlist),
    /// A segment, a part or a header.
    Blob(Arc<Blob>),
    /// A segment that is being made.
    Growing(Arc<Growing>),
    /// It is to be asked again, as this visit, when the playlist changes, which is of this version.
    Later(Arc<Shown>, u64, Option<Arc<Visit>>),
    /// It may be answered if this visit is allowed: of the stream of a key.
    Ask(Arc<Visit>, Arc<str>),
    /// There are too many visits.
    Full,
    /// It contradicts itself.
    Bad(&'static str),
    /// It is not there, or no more.
    Gone,
}

/// The text of a playlist.
#[derive(Debug)]
pub struct Playlist {
    /// As it is.
    pub text: Bytes,
    /// RFC 9110 §8.3.
    pub content_type: &'static str,
    /// It is the same for as long as it lasts.
    pub lasts: bool,
    /// Others get the same one.
    window: Option<Arc<Window>>,
}

impl Playlist {
    fn of(text: Bytes, content_type: &'static str) -> Self {
        Self { text, content_type, lasts: false, window: None }
    }

    /// Whether others get the same one.
    pub fn is_shared(&self) -> bool {
        self.window.is_some()
    }

    /// The same by gzip, where that is there for all.
    pub fn gzip(&self) -> Option<Bytes> {
        self.window.as_ref().map(|window| window.gzip())
    }
}

/// Whether something lies at a path of a vhost.
pub fn is_there(shelf: &Shelf, vhost: &Vhost, path: &str) -> bool {
    shelf.find(&format!("{}{path}", vhost.name)).is_some() || !variants::of(shelf, vhost, path).is_empty()
}

/// The stream that is to be fetched since a request is for its playlist, by its key; `None` if there is none, or it is there
/// already. Of an edge. What is asked for first is waited for from then on.
pub fn to_fetch(shelf: &Shelf, asked: &Asked<'_>) -> Option<Arc<str>> {
    // Segments are asked for much more often.
    if !asked.path.ends_with(".m3u8") && !asked.path.ends_with(".mpd") {
        return None;
    }
    let path = format!("{}{}", asked.vhost.name, asked.path);
    let shown = match shelf.find(&path) {
        Some(Item::Playlist(shown)) => shown,
        Some(_) => return None,
        None => {
            let (kind, app, stream) = playlist_of(asked.vhost, asked.path)?;
            let key = Arc::from(format!("{}/{app}/{stream}", asked.vhost.name));
            shelf.expect(&key, kind, &path)?
        }
    };
    shown.see(asked.now_ms);
    (!shown.is_live() || shown.window().text.is_empty()).then(|| Arc::clone(&shown.key))
}

/// Whether a path is one where a stream's playlist would be.
pub fn is_playlist(vhost: &Vhost, path: &str) -> bool {
    playlist_of(vhost, path).is_some()
}

/// Which stream's playlist a path would be, as the vhost names them.
fn playlist_of<'a>(vhost: &Vhost, path: &'a str) -> Option<(Kind, &'a str, &'a str)> {
    let (app, file) = path.strip_prefix('/')?.rsplit_once('/')?;
    let (kind, template, stream) = match (&vhost.hls, &vhost.dash) {
        (Some(hls), _) if file.ends_with(".m3u8") => (Kind::Hls, &hls.m3u8_file, file.strip_suffix(".m3u8")?),
        (_, Some(dash)) if file.ends_with(".mpd") => (Kind::Dash, &dash.mpd_file, file.strip_suffix(".mpd")?),
        _ => return None,
    };
    // The vhost may stand before the app.
    let app =
        if template.starts_with("[vhost]/") { app.strip_prefix(vhost.name.as_str())?.strip_prefix('/')? } else { app };
    let words = Words { vhost: &vhost.name, app, stream };
    let named = words.fill(template, None)?;
    (named == path.trim_start_matches('/')).then_some((kind, app, stream))
}

/// What lies at a request's path; `None` if nothing does.
pub fn answer(shelf: &Shelf, asked: &Asked<'_>) -> Option<Answer> {
    let item = shelf.find(&format!("{}{}", asked.vhost.name, asked.path));
    let ctx = query_value(asked.query, "hls_ctx").filter(|ctx| !ctx.is_empty());
    let shown = match item {
        Some(Item::Playlist(shown)) => Some(shown),
        Some(Item::Blob(blob) | Item::Part(blob)) => {
            // Whoever asks for segments is still there.
            ctx.and_then(|ctx| shelf.visit(&ctx, asked.now_ms));
            return Some(Answer::Blob(blob));
        }
        Some(Item::Growing(growing)) => return Some(Answer::Growing(growing)),
        Some(Item::Promised(shown)) if shown.is_live() => {
            let version = shown.window().version;
            return Some(Answer::Later(shown, version, None));
        }
        Some(Item::Promised(_)) => return Some(Answer::Gone),
        None => None,
    };
    if let Some(shown) = shown.as_ref().filter(|shown| shown.kind == Kind::Dash) {
        return Some(mpd(asked, shown));
    }
    let hls = asked.vhost.hls.as_ref()?;
    let own = shown.map(|shown| Variant { path: asked.path.to_owned(), shown, bandwidth: None });
    let single = own.as_ref().map(|own| (Arc::clone(&own.shown), own.shown.window()));
    // Without names for players a stream's own playlist is all that stands at its path.
    let variants: Vec<Variant> = match &own {
        Some(_) if !hls.ctx || ctx.is_some() => Vec::new(),
        Some(_) | None => variants::of(shelf, asked.vhost, asked.path),
    };
    let variants: Vec<Variant> = own.into_iter().chain(variants).collect();
    let first = Arc::clone(&variants.first()?.shown);
    let is_over = |variant: &Variant| variant.shown.window().text.is_empty() && !variant.shown.is_live();
    if variants.iter().all(is_over) {
        return Some(Answer::Gone);
    }
    if !hls.ctx {
        return Some(match single {
            Some((shown, window)) => media(asked, &shown, &window, None),
            None => multivariant(asked, &variants, None, hls.master_relative),
        });
    }
    let known = match (asked.visit, &ctx) {
        (Some(visit), _) => Some(visit.see(asked.now_ms)),
        (None, Some(ctx)) => shelf.visit(ctx, asked.now_ms),
        (None, None) => None,
    };
    let Some(visit) = known else {
        let plain = |ctx: &String| ctx.len() <= CTX_BYTES_MAX && ctx.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let id = ctx.filter(plain).unwrap_or_else(new_id);
        let lasts_ms = VISIT_WINDOWS * hls.window_ms;
        let visit = shelf.welcome(&id, lasts_ms, asked.now_ms);
        let key = if single.is_some() { Arc::clone(&first.key) } else { variants::key(&first.key, hls) };
        return Some(visit.map_or(Answer::Full, |visit| Answer::Ask(visit, key)));
    };
    Some(match single {
        Some((shown, window)) if ctx.is_some() => media(asked, &shown, &window, Some((&visit, hls.ts_ctx))),
        _ => multivariant(asked, &variants, Some(&visit), hls.master_relative),
    })
}

fn mpd(asked: &Asked<'_>, shown: &Arc<Shown>) -> Answer {
    let window = shown.window();
    if window.text.is_empty() {
        return if shown.is_live() { Answer::Later(Arc::clone(shown), window.version, None) } else { Answer::Gone };
    }
    let now = timestamp(window.since_1970_ms + asked.now_ms);
    let text = window.text.replace(MARK, &query_of(asked, None)).replace(NOW, &now);
    Answer::Playlist(Playlist::of(text.into(), MPD))
}

/// Eight letters and digits, as SRS has them.
fn new_id() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(8).collect()
}

/// The stream and its variants, for this visit, as far as there is something of them.
fn multivariant(asked: &Asked<'_>, variants: &[Variant], visit: Option<&Arc<Visit>>, relative: bool) -> Answer {
    let mut out = String::with_capacity(256);
    // A string takes whatever is written.
    _ = writeln!(out, "#EXTM3U\n#EXT-X-VERSION:3");
    let mut some = false;
    for Variant { path, shown, bandwidth } in variants {
        let window = shown.window();
        if window.text.is_empty() {
            continue;
        }
        some = true;
        let (most, average) = window.bandwidth;
        let (most, average) = bandwidth.map_or((most, average), |said| (said, average.min(said)));
        _ = writeln!(
            out,
            "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={}{}",
            most.max(1),
            average.max(1),
            window.attributes
        );
        let path = if relative { path.rsplit('/').next().unwrap_or_default() } else { path };
        let visit = visit.map(|visit| format!("hls_ctx={}", visit.id));
        let query: Vec<&str> =
            visit.as_deref().into_iter().chain(Some(asked.query)).filter(|part| !part.is_empty()).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        _ = writeln!(out, "{}{mark}{}", encoded(path), query.join("&"));
    }
    match variants.first() {
        Some(first) if !some => {
            let version = first.shown.window().version;
            Answer::Later(Arc::clone(&first.shown), version, visit.map(Arc::clone))
        }
        _ => Answer::Playlist(Playlist::of(out.into(), M3U8)),
    }
}

/// The media playlist, at once or when it has what is asked for.
fn media(asked: &Asked<'_>, shown: &Arc<Shown>, window: &Arc<Window>, visit: Option<(&Arc<Visit>, bool)>) -> Answer {
    let later = || Answer::Later(Arc::clone(shown), window.version, visit.map(|(visit, _)| Arc::clone(visit)));
    if window.text.is_empty() {
        return later();
    }
    let number = |name| query_value(asked.query, name).map(|text| text.parse::<u64>());
    let (sequence, part) = match (number("_HLS_msn"), number("_HLS_part")) {
        _ if !window.blocking => (None, None),
        (Some(Err(_)), _) | (_, Some(Err(_))) => return Answer::Bad("_HLS_msn or _HLS_part is no number"),
        (None, Some(_)) => return Answer::Bad("_HLS_part without _HLS_msn"),
        (sequence, part) => (sequence.and_then(Result::ok), part.and_then(Result::ok)),
    };
    if let Some(sequence) = sequence {
        let (newest, parts) = window.newest;
        if sequence > newest + AHEAD_MAX {
            return Answer::Bad("_HLS_msn is too far ahead");
        }
        let is_there = newest > sequence || newest == sequence && part.is_some_and(|part| u64::from(parts) > part);
        if !is_there && shown.is_live() {
            return later();
        }
    }
    let skips =
        window.blocking && query_value(asked.query, "_HLS_skip").is_some_and(|skip| skip == "YES" || skip == "v2");
    let delta = window.delta.as_ref().filter(|_| skips);
    let query = query_of(asked, visit.filter(|(_, marks)| *marks).map(|(visit, _)| &**visit));
    let playlist = if query.is_empty() && delta.is_none() {
        Playlist { window: Some(Arc::clone(window)), ..Playlist::of(window.shared(), M3U8) }
    } else {
        Playlist::of(delta.unwrap_or(&window.text).replace(MARK, &query).into(), M3U8)
    };
    Answer::Playlist(Playlist { lasts: sequence.is_some(), ..playlist })
}

/// What URIs in a playlist end in: who asks, and which vhost, where the request's own query had to say that.
fn query_of(asked: &Asked<'_>, visit: Option<&Visit>) -> String {
    let visit = visit.map(|visit| format!("hls_ctx={}", visit.id));
    let named = ["vhost", "domain"].into_iter().filter_map(|name| query_value(asked.query, name));
    let vhost = { named }.find(|vhost| !vhost.is_empty()).map(|vhost| format!("vhost={}", encoded(&vhost)));
    let parts: Vec<String> = visit.into_iter().chain(vhost).collect();
    // Of MPDs they stand in XML.
    if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) }
}

/// Removes what nobody has published for long.
pub fn sweep(shelf: &Shelf, writer: &Writer, now_ms: u64) {
    shelf.forget_unasked(now_ms);
    let is_over = |shown: &Arc<Shown>| {
        let kept = shown.kept();
        kept.dispose_ms > 0 && now_ms >= kept.ended_ms + kept.dispose_ms
    };
    for shown in shelf.forget(is_over) {
        let mut kept = shown.kept();
        let retired: Vec<_> = kept.retired.drain(..).map(|(_, segment)| segment).collect();
        for segment in retired.into_iter().chain(std::mem::take(&mut kept.segments)) {
            shelf.drop_segment(&mut kept, segment, Some(writer));
        }
        kept.paths.drain(..).for_each(|path| shelf.remove(&path));
        kept.file.take().into_iter().for_each(|file| writer.remove(file));
        tracing::info!(stream = %shown.key, "what is left of its segments is removed (hls_dispose, dash_dispose)");
    }
}
