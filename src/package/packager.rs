//! Cuts a stream into segments and parts, as its entries come.

mod store;
mod wire;

use super::{
    Tell,
    cutter::{Cutter, Lengths, Step},
    files::Writer,
    fragments::Fragments,
    intake::Intake,
    kept::{Key, Map, Segment},
    names::{Words, prefix},
    shelf::{Kind, Shelf, Shown},
    ts::TsRender,
};
use crate::{
    config::Hls,
    media::{Entry, Taker},
};
use bytes::Bytes;
use crossbeam_channel::Receiver;
use std::{fmt, mem, path::Path, sync::Arc};

/// A piece of a transport stream's segment.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes of a fragment whose end does not come.
const FRAGMENT_BYTES_MAX: usize = 32 << 20;

/// Which stream it is.
#[derive(Clone, Debug)]
pub struct Name {
    /// `vhost/app/stream`.
    pub key: String,
    /// The vhost's name.
    pub vhost: String,
    /// The app.
    pub app: String,
    /// The stream.
    pub stream: String,
}

/// Where what is made of streams is put.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// To be served.
    pub shelf: &'a Arc<Shelf>,
    /// To be written.
    pub writer: &'a Arc<Writer>,
    /// Where the HTTP server has its files.
    pub http_dir: &'a Path,
}

/// What a segment's bytes are.
#[derive(Debug)]
enum Wire {
    Ts(Box<TsRender>),
    Mp4(Arc<Map>, Fragments),
}

/// The segment that is being made.
#[derive(Debug)]
struct Open {
    segment: Segment,
    start_ms: i64,
    /// Where the part that is being made begins, and whether with a keyframe.
    part: (i64, bool),
    chunks: Vec<Bytes>,
    /// Of a transport stream.
    buffer: Vec<u8>,
}

/// See the module.
pub struct Packager {
    shelf: Arc<Shelf>,
    writer: Arc<Writer>,
    shown: Arc<Shown>,
    hls: Arc<Hls>,
    name: Name,
    /// What paths of requests begin with, before the names of files.
    prefix: String,
    /// When the process's clock was 0, in ms since 1970.
    since_1970_ms: u64,
    /// Its tracks, as far as they are known.
    intake: Intake,
    cutter: Cutter,
    wire: Option<Wire>,
    open: Option<Open>,
    /// The next segment does not follow the last one.
    breaks: bool,
    /// Time on the wall of a time of the stream, in ms since 1970.
    wall: Option<(u64, i64)>,
    /// What the last run of the server has left on the disk.
    left: Option<Receiver<Option<String>>>,
    /// What segments are encrypted with now.
    key: Option<([u8; 16], Arc<Key>)>,
    /// The path of the part that is announced.
    promised: Option<String>,
    /// Who is told of each segment.
    on_hls: Option<Tell>,
    now_ms: u64,
}

impl fmt::Debug for Packager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packager").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Packager {
    /// A publish begins; `None` if its name cannot be a file's.
    pub fn new(place: Place<'_>, hls: &Arc<Hls>, name: Name, since_1970_ms: u64, on_hls: Option<Tell>) -> Option<Self> {
        let Place { shelf, writer, http_dir } = place;
        let words = Words { vhost: &name.vhost, app: &name.app, stream: &name.stream };
        let prefix = prefix(&hls.path, http_dir);
        let file = words.fill(&hls.m3u8_file, None)?;
        let path = format!("{}/{prefix}{file}", name.vhost);
        let shown = shelf.shown(&Arc::from(name.key.as_str()), Kind::Hls, &path);
        let mut kept = shown.kept();
        let mut left = None;
        if !hls.recover {
            let segments: Vec<Segment> = kept.segments.drain(..).collect();
            segments.into_iter().for_each(|segment| kept.retire(segment, 0));
            (kept.sequence, kept.discontinuities) = (0, 0);
        } else if kept.sequence == 0 && hls.disk {
            left = Some(writer.read(hls.path.join(&file)));
        } else if kept.sequence == 0 {
            // Nothing is left of an earlier run: numbers that it cannot have reached.
            kept.sequence = since_1970_ms / hls.fragment_ms.max(1);
        }
        let breaks = !kept.segments.is_empty();
        kept.target_ms = kept.target_ms.max(hls.target_ms);
        kept.dispose_ms = hls.dispose_ms;
        kept.file = hls.disk.then(|| hls.path.join(&file));
        if !kept.paths.contains(&path) {
            kept.paths.push(path);
        }
        drop(kept);
        Some(Self {
            shelf: Arc::clone(shelf),
            writer: Arc::clone(writer),
            shown,
            hls: Arc::clone(hls),
            intake: Intake::new(&name.key, "HLS"),
            name,
            prefix,
            since_1970_ms,
            cutter: Cutter::new(Lengths {
                fragment: hls.fragment_ms,
                target: hls.target_ms,
                overflow: hls.overflow_ms,
                sound: hls.overflow_ms,
                wait_keyframe: hls.wait_keyframe,
                part: hls.part_ms,
            }),
            wire: None,
            open: None,
            breaks,
            wall: None,
            left,
            key: None,
            promised: None,
            on_hls,
            now_ms: 0,
        })
    }

    fn frame(&mut self, entry: Entry) {
        for step in self.cutter.frame(&self.intake, entry) {
            match step {
                Step::Part(end_ms, time_ms, key) => {
                    self.end_part(end_ms);
                    self.begin_part(time_ms, key);
                }
                Step::Finish(end_ms) => self.finish(end_ms),
                Step::Break => {
                    self.breaks = true;
                    (self.wire, self.wall) = (None, None);
                }
                Step::Begin(time_ms, key) => self.begin(time_ms, key),
                Step::Put(entry) => self.put(&entry),
            }
        }
    }

    fn begin_part(&mut self, time_ms: i64, key: bool) {
        if let Some(open) = &mut self.open {
            open.part = (time_ms, key);
        }
    }
}

impl Open {
    fn take_buffer(&mut self) {
        if !self.buffer.is_empty() {
            self.chunks.push(mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES)).into());
        }
    }
}

impl Taker for Packager {
    fn take(&mut self, entry: &Entry) {
        self.now_ms = entry.arrived_ms;
        let frames = self.intake.take(entry);
        if self.intake.take_change() {
            self.cutter.change();
        }
        frames.into_iter().for_each(|frame| self.frame(frame));
    }

    fn end(&mut self) {
        self.intake.release().into_iter().for_each(|frame| self.frame(frame));
        self.finish(self.cutter.end_ms());
        let shown = Arc::clone(&self.shown);
        let mut kept = shown.kept();
        // A publish without media does not turn it back.
        kept.ended_ms = kept.ended_ms.max(self.now_ms);
        shown.set_live(false);
        // Who waits for more is answered with what there is.
        self.show(&kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        package::{Answer, Asked, answer},
        proto::{
            codec::inspect,
            flv::{Tag, TagKind},
        },
    };

    const AVC: &[u8] = b"\x17\0\0\0\0\x01\x64\0\x1e\xff\xe1\0\x1a\x67\x64\0\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x11\0\0\x03\0\x01\0\0\x03\0\x3c\x0f\x16\x2d\x96\x01\0\x04\x68\xef\x8f\xcb";

    /// Publishes frames, each a keyframe or not at a time in ms, and of so many bytes; returns the shelf and the playlist.
    fn published(hls: &str, frames: &[(bool, i64, usize)]) -> (Arc<Shelf>, String) {
        let text = format!("listen 1; vhost v {{ hls {{ enabled on; hls_ctx off; {hls} }} }}");
        let config = Config::parse("x", &text).unwrap();
        let (shelf, writer): (Arc<Shelf>, Arc<Writer>) = Default::default();
        shelf.open(1, |_| {});
        let name = Name { key: "v/a/s".into(), vhost: "v".into(), app: "a".into(), stream: "s".into() };
        let place = Place { shelf: &shelf, writer: &writer, http_dir: Path::new("x") };
        let vhost = &config.vhosts[0];
        let mut packager = Packager::new(place, vhost.hls.as_ref().unwrap(), name, 0, None).unwrap();
        let mut take = |body: Vec<u8>, time_ms: i64| {
            let tag = Tag { kind: TagKind::Video, timestamp: 0, body: body.into() };
            let info = inspect(tag.kind, &tag.body);
            packager.take(&Entry { tag, info, time_ms, delta_ms: 0, arrived_ms: 0 });
        };
        take(AVC.to_vec(), Entry::BEFORE_MEDIA);
        for (key, time_ms, bytes) in frames {
            let mut body = vec![if *key { 0x17 } else { 0x27 }, 1, 0, 0, 0];
            body.extend_from_slice(&u32::try_from(*bytes).unwrap().to_be_bytes());
            body.push(if *key { 0x65 } else { 0x41 });
            body.resize(body.len() + bytes - 1, 7);
            take(body, *time_ms);
        }
        packager.end();
        let asked = Asked { vhost, path: "/a/s.m3u8", query: "", now_ms: 0, visit: None };
        let text = match answer(&shelf, &asked) {
            Some(Answer::Playlist(playlist)) => String::from_utf8(playlist.text.to_vec()).unwrap(),
            _ => String::new(),
        };
        (shelf, text)
    }

    fn durations(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix("#EXTINF:")).collect()
    }

    /// Times that stand still, keyframes that never come, come with each frame or each minute: segments are bounded all the
    /// same, and none is longer than the playlist says.
    #[test]
    fn odd_streams_are_bounded() {
        for hls in ["", "hls_use_fmp4 on;"] {
            let still: Vec<_> = (0..150).map(|_| (true, 0, 1 << 20)).collect();
            let (shelf, text) = published(hls, &still);
            assert!(durations(&text).len() >= 2 && shelf.bytes() < 200 << 20, "{} bytes, {text}", shelf.bytes());
            let never: Vec<_> = (0..2000).map(|number| (false, number * 40, 100)).collect();
            assert_eq!(durations(&published(hls, &never).1), ["21.000,", "21.000,", "18.000,"], "after 500 frames");
            let each: Vec<_> = (0..500).map(|number| (true, number * 40, 100)).collect();
            assert_eq!(durations(&published(hls, &each).1), ["10.000,", "10.000,"]);
            let seldom: Vec<_> = (0..3000).map(|number| (number % 1500 == 0, number * 40, 100)).collect();
            let (_, text) = published(&format!("{hls} hls_window 1000;"), &seldom);
            assert!(
                durations(&text).iter().all(|duration| duration.trim_end_matches(',').parse::<f64>().unwrap() <= 21.0),
                "{text}"
            );
            assert!(text.contains("#EXT-X-TARGETDURATION:21\n"), "{text}");
            let jumps: Vec<_> = (0..50).map(|number| (true, number % 2 * 3_600_000 + number * 40, 100)).collect();
            let (_, text) = published(hls, &jumps);
            assert!(text.matches("#EXT-X-DISCONTINUITY\n").count() > 10, "{text}");
        }
        // A keyframe early rather than longer than the target.
        let gops: Vec<_> = (0..1000).map(|number| (number % 100 == 0, number * 40, 100)).collect();
        let (_, text) = published("", &gops);
        assert_eq!(durations(&text), ["8.000,", "8.000,", "8.000,", "8.000,", "8.000,"], "{text}");
    }
}
