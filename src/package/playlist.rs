//! Media playlists (RFC 8216, and its second edition for low latency), and what they are made from.

use super::{
    MARK,
    kept::{Kept, Key, Map, Segment},
    names::timestamp,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use std::{
    fmt::Write,
    io::Write as _,
    sync::{Arc, OnceLock},
};

/// Parts are listed of segments that begin so many target durations before the end at most (§4.4.4.9).
const PARTS_TARGETS: u64 = 3;
/// Older segments may be left out of an update beyond so many target durations (§6.2.5.1).
const SKIP_TARGETS: u64 = 6;
/// Players stay so many parts behind the end (§4.4.3.8 asks for three at least).
const HOLD_BACK_PARTS: u64 = 3;

/// A playlist as it is now.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// The text; empty before there is a segment. URIs end in [`MARK`].
    pub text: String,
    /// The same without the older segments (`_HLS_skip`), if that may be asked for.
    pub delta: Option<String>,
    /// The segment that is being made, and how many parts of it there are.
    pub newest: (u64, u32),
    /// EXT-X-TARGETDURATION, in ms.
    pub target_ms: u64,
    /// Whether a reload may ask to be answered later.
    pub blocking: bool,
    /// Bits a second: of the largest segment, and of all.
    pub bandwidth: (u64, u64),
    /// CODECS and RESOLUTION of a multivariant playlist; perhaps empty.
    pub attributes: String,
    /// When the process's clock was 0, in ms since 1970; of an MPD.
    pub since_1970_ms: u64,
    /// Which playlist of the stream's it is.
    pub version: u64,
    /// The text without anybody's query, made when it is first asked for; and the same by gzip.
    pub(super) shared: OnceLock<Bytes>,
    pub(super) gzip: OnceLock<Bytes>,
}

impl Window {
    /// The text without anybody's query.
    pub(super) fn shared(&self) -> Bytes {
        self.shared.get_or_init(|| self.text.replace(MARK, "").into()).clone()
    }

    /// The same by gzip (RFC 1952).
    pub(super) fn gzip(&self) -> Bytes {
        let coded = self.gzip.get_or_init(|| {
            let mut coder = GzEncoder::new(Vec::with_capacity(1024), Compression::fast());
            // A vector takes whatever is written.
            _ = coder.write_all(&self.shared());
            coder.finish().unwrap_or_default().into()
        });
        coded.clone()
    }
}

/// What a playlist says beside its segments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Fragments of MP4 rather than a transport stream.
    pub(super) fmp4: bool,
    /// The length of parts in ms, for low latency.
    pub(super) part_ms: Option<u64>,
}

pub(super) fn seconds(ms: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
    let seconds = ms as f64 / 1000.0;
    seconds
}

impl Kept {
    /// The playlist, with the segment that is being made, and the part that comes next.
    pub(super) fn window(&self, style: Style, open: Option<&Segment>, next_part: Option<&str>) -> Window {
        let mut window = Window {
            newest: (self.sequence, open.map_or(0, |open| u32::try_from(open.parts.len()).unwrap_or(u32::MAX))),
            target_ms: self.target_ms,
            blocking: style.part_ms.is_some(),
            bandwidth: self.bandwidth(),
            ..Window::default()
        };
        let low_latency = style.part_ms.is_some();
        if self.segments.is_empty() && !(low_latency && open.is_some_and(|open| !open.parts.is_empty())) {
            return window;
        }
        window.text = self.text(style, open, next_part, 0);
        if low_latency {
            let skipped = self.skippable();
            window.delta = (skipped > 0).then(|| self.text(style, open, next_part, skipped));
        }
        window
    }

    /// Segments that an update may leave out.
    fn skippable(&self) -> usize {
        let mut left_ms = SKIP_TARGETS * self.target_ms;
        let mut kept = 0;
        for segment in self.segments.iter().rev() {
            if left_ms == 0 {
                break;
            }
            left_ms = left_ms.saturating_sub(segment.duration_ms);
            kept += 1;
        }
        self.segments.len() - kept
    }

    fn bandwidth(&self) -> (u64, u64) {
        let rate = |bytes: u64, ms: u64| (bytes * 8000).checked_div(ms).unwrap_or(0);
        let most = self.segments.iter().map(|segment| rate(segment.bytes, segment.duration_ms)).max().unwrap_or(0);
        let (bytes, ms) =
            self.segments.iter().fold((0, 0), |(bytes, ms), segment| (bytes + segment.bytes, ms + segment.duration_ms));
        (most, rate(bytes, ms))
    }

    fn text(&self, style: Style, open: Option<&Segment>, next_part: Option<&str>, skipped: usize) -> String {
        let version = match (style.fmp4, style.part_ms) {
            (_, Some(_)) => 9,
            (true, None) => 7,
            (false, None) => 3,
        };
        let mut out = String::with_capacity(4096);
        // A string takes whatever is written.
        let first = self.segments.front().or(open).map_or(self.sequence, |segment| segment.sequence);
        _ = writeln!(out, "#EXTM3U\n#EXT-X-VERSION:{version}");
        if let Some(part_ms) = style.part_ms {
            let (hold_back, skip) = (seconds(part_ms * HOLD_BACK_PARTS), seconds(self.target_ms * SKIP_TARGETS));
            _ = writeln!(
                out,
                "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={hold_back:.3},CAN-SKIP-UNTIL={skip:.3}\n\
                 #EXT-X-PART-INF:PART-TARGET={:.3}",
                seconds(part_ms)
            );
        }
        _ = writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-TARGETDURATION:{}", self.target_ms / 1000);
        if self.discontinuities > 0 {
            _ = writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", self.discontinuities);
        }
        if skipped > 0 {
            _ = writeln!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}");
        }
        // From where on parts are listed.
        let mut parts_ms = PARTS_TARGETS * self.target_ms;
        let mut with_parts = self.segments.len();
        while style.part_ms.is_some() && with_parts > 0 && parts_ms > 0 {
            with_parts -= 1;
            parts_ms = parts_ms.saturating_sub(self.segments[with_parts].duration_ms);
        }
        let (mut map, mut key): (Option<&Arc<Map>>, Option<&Arc<Key>>) = (None, None);
        for (at, segment) in self.segments.iter().chain(open.filter(|_| style.part_ms.is_some())).enumerate() {
            let new_map = segment.map.as_ref().filter(|new| map.is_none_or(|old| old.uri != new.uri));
            map = segment.map.as_ref().or(map);
            if at < skipped {
                continue;
            }
            if segment.discontinuity && (at > 0 || skipped > 0) {
                out.push_str("#EXT-X-DISCONTINUITY\n");
            }
            if let Some(map) = new_map {
                _ = writeln!(out, "#EXT-X-MAP:URI=\"{}{MARK}\"", map.uri);
            }
            if let Some(new) = segment.key.as_ref().filter(|new| key.is_none_or(|old| !Arc::ptr_eq(old, new))) {
                key = Some(new);
                let iv = new.iv.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
                _ = writeln!(out, "#EXT-X-KEY:METHOD=AES-128,URI=\"{}\",IV=0x{iv}", new.uri);
            }
            let whole = !segment.uri.is_empty();
            if whole || !segment.parts.is_empty() {
                _ = writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", timestamp(segment.at_ms));
            }
            for part in segment.parts.iter().filter(|_| style.part_ms.is_some() && at >= with_parts) {
                let independent = if part.independent { ",INDEPENDENT=YES" } else { "" };
                let duration = seconds(part.duration_ms);
                _ = writeln!(out, "#EXT-X-PART:DURATION={duration:.3},URI=\"{}{MARK}\"{independent}", part.uri);
            }
            if whole {
                _ = writeln!(out, "#EXTINF:{:.3},\n{}{MARK}", seconds(segment.duration_ms), segment.uri);
            }
        }
        if let Some(next) = next_part.filter(|_| style.part_ms.is_some()) {
            _ = writeln!(out, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{next}{MARK}\"");
        }
        out
    }
}

/// What an older playlist on the disk says of what comes next: its number, and discontinuities so far.
pub(super) fn recover(text: &str) -> Option<(u64, u64)> {
    let number = |tag: &str| text.lines().find_map(|line| line.strip_prefix(tag)?.trim().parse::<u64>().ok());
    let first = text.starts_with("#EXTM3U").then(|| number("#EXT-X-MEDIA-SEQUENCE:"))??;
    let lines = |tag: &str| text.lines().filter(|line| line.starts_with(tag)).count() as u64;
    let gone = number("#EXT-X-DISCONTINUITY-SEQUENCE:").unwrap_or(0);
    let before = lines("#EXT-X-DISCONTINUITY") - lines("#EXT-X-DISCONTINUITY-SEQUENCE");
    Some((first + lines("#EXTINF:"), gone + before))
}

#[cfg(test)]
mod tests {
    use super::{super::kept::Wanted, *};

    fn segment(sequence: u64, duration_ms: u64, discontinuity: bool) -> Segment {
        Segment {
            sequence,
            uri: format!("s-{sequence}.ts"),
            path: String::new(),
            file: None,
            duration_ms,
            discontinuity,
            at_ms: 0,
            bytes: 1000,
            map: None,
            key: None,
            parts: Vec::new(),
            pieces: Vec::new(),
            period: None,
        }
    }

    /// A window slides; discontinuities are counted as they leave it, and a restart goes on where it ended.
    #[test]
    fn windows_slide() {
        let mut kept = Kept { target_ms: 2000, ..Kept::default() };
        let style = Style { fmp4: false, part_ms: None };
        let wanted = Wanted { ms: 6000, segments: 0 };
        assert_eq!(kept.window(style, None, None).text, "");
        for sequence in 0..6 {
            kept.push(segment(sequence, 2000, sequence == 2), wanted, 0);
        }
        let text = kept.window(style, None, None).text;
        assert_eq!(kept.segments.len(), 3);
        assert!(
            text.contains("#EXT-X-MEDIA-SEQUENCE:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n"),
            "{text}"
        );
        assert!(!text.contains("#EXT-X-DISCONTINUITY\n") && text.ends_with("#EXTINF:2.000,\ns-5.ts\u{1}\n"), "{text}");
        assert_eq!(recover(&text), Some((6, 1)));
        kept.push(segment(6, 2400, true), wanted, 0);
        let text = kept.window(style, None, None).text;
        assert!(text.contains("#EXT-X-DISCONTINUITY\n") && text.contains("#EXT-X-TARGETDURATION:2\n"), "{text}");
        assert_eq!(recover(&text), Some((7, 2)));
        assert_eq!(recover("<html>"), None);
    }
}
