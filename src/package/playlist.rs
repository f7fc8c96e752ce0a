//! Media playlists (RFC 8216, and its second edition for low latency), and what they are made from.

use super::names::timestamp;
use std::{collections::VecDeque, fmt::Write, path::PathBuf, sync::Arc};

/// Stands behind every URI, where a visit's query goes.
pub(super) const MARK: char = '\u{1}';
/// Parts are listed of segments that begin so many target durations before the end at most (§4.4.4.9).
const PARTS_TARGETS: u64 = 3;
/// Older segments may be left out of an update beyond so many target durations (§6.2.5.1).
const SKIP_TARGETS: u64 = 6;
/// Bytes of a stream's segments in its playlist, and their number, whatever their times say.
const WINDOW_BYTES_MAX: u64 = 512 << 20;
const SEGMENTS_MAX: usize = 3000;
/// Players stay so many parts behind the end (§4.4.3.8 asks for three at least).
const HOLD_BACK_PARTS: u64 = 3;

/// A part of a segment.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) uri: String,
    pub(super) path: String,
    pub(super) duration_ms: u64,
    /// It begins with a keyframe.
    pub(super) independent: bool,
}

/// A header that segments have in common.
#[derive(Debug)]
pub(super) struct Map {
    pub(super) uri: String,
    pub(super) path: String,
    /// On the disk.
    pub(super) file: Option<PathBuf>,
}

/// What segments are encrypted with.
#[derive(Debug)]
pub(super) struct Key {
    /// Without a visit's query.
    pub(super) uri: String,
    pub(super) path: String,
    /// On the disk.
    pub(super) file: Option<PathBuf>,
    pub(super) iv: [u8; 16],
}

/// A segment, whole or not.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) sequence: u64,
    /// Empty until it is whole.
    pub(super) uri: String,
    pub(super) path: String,
    /// On the disk.
    pub(super) file: Option<PathBuf>,
    pub(super) duration_ms: u64,
    /// It does not follow what went before.
    pub(super) discontinuity: bool,
    /// When its first frame was, in ms since 1970.
    pub(super) at_ms: u64,
    pub(super) bytes: u64,
    pub(super) map: Option<Arc<Map>>,
    pub(super) key: Option<Arc<Key>>,
    pub(super) parts: Vec<Part>,
}

impl Segment {
    /// Its files.
    pub(super) fn files(self) -> impl Iterator<Item = PathBuf> {
        let of_map = self.map.as_ref().and_then(|map| map.file.clone());
        let of_key = self.key.as_ref().and_then(|key| key.file.clone());
        self.file.into_iter().chain(of_map).chain(of_key)
    }
}

/// What a stream's playlist is made from. It outlives a publish.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// In the playlist.
    pub(super) segments: VecDeque<Segment>,
    /// Out of it, and there until a time in ms of the process's clock.
    pub(super) retired: VecDeque<(u64, Segment)>,
    /// The next segment's number.
    pub(super) sequence: u64,
    /// Discontinuities of segments that have left the playlist.
    pub(super) discontinuities: u64,
    /// Paths of the playlist and of headers.
    pub(super) paths: Vec<String>,
    /// The playlist's file, and how long what is there lasts without a publisher, in ms; 0 for ever.
    pub(super) file: Option<PathBuf>,
    pub(super) dispose_ms: u64,
    /// When the publish ended, in ms of the process's clock.
    pub(super) ended_ms: u64,
    pub(super) target_ms: u64,
}

/// A playlist as it is now.
#[derive(Debug, Default)]
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
    /// Which playlist of the stream's it is.
    pub version: u64,
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

    /// Takes a whole segment in, and those out that the window has no room for.
    pub(super) fn push(&mut self, segment: Segment, window_ms: u64, now_ms: u64) {
        self.sequence = segment.sequence + 1;
        self.target_ms = self.target_ms.max(segment.duration_ms.saturating_add(500) / 1000 * 1000);
        self.segments.push_back(segment);
        let total = |of: fn(&Segment) -> u64| -> u64 { self.segments.iter().map(of).sum() };
        let (mut total_ms, mut bytes) = (total(|segment| segment.duration_ms), total(|segment| segment.bytes));
        while self.segments.len() > 1
            && (total_ms > window_ms || bytes > WINDOW_BYTES_MAX || self.segments.len() > SEGMENTS_MAX)
        {
            let Some(old) = self.segments.pop_front() else { break };
            (total_ms, bytes) = (total_ms - old.duration_ms, bytes - old.bytes);
            self.retire(old, now_ms);
        }
    }

    /// The oldest segment whose time out of the playlist is over, or for which there is no room.
    pub(super) fn take_retired(&mut self, now_ms: u64) -> Option<Segment> {
        let bytes: u64 = self.retired.iter().map(|(_, segment)| segment.bytes).sum();
        let over = bytes > WINDOW_BYTES_MAX / 2 || self.retired.len() > SEGMENTS_MAX;
        let due = |(until_ms, _): &(u64, Segment)| over || *until_ms <= now_ms;
        if self.retired.front().is_some_and(due) { self.retired.pop_front().map(|(_, segment)| segment) } else { None }
    }

    /// A segment leaves the playlist; players may still be about to ask for it.
    pub(super) fn retire(&mut self, old: Segment, now_ms: u64) {
        // The first one's counts as soon as it is gone, the next one's is not written.
        self.discontinuities += u64::from(self.segments.front().is_some_and(|next| next.discontinuity));
        self.retired.push_back((now_ms + 2 * self.target_ms.max(old.duration_ms), old));
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
    use super::*;

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
        }
    }

    /// A window slides; discontinuities are counted as they leave it, and a restart goes on where it ended.
    #[test]
    fn windows_slide() {
        let mut kept = Kept { target_ms: 2000, ..Kept::default() };
        let style = Style { fmp4: false, part_ms: None };
        assert_eq!(kept.window(style, None, None).text, "");
        for sequence in 0..6 {
            kept.push(segment(sequence, 2000, sequence == 2), 6000, 0);
        }
        let text = kept.window(style, None, None).text;
        assert_eq!(kept.segments.len(), 3);
        assert!(
            text.contains("#EXT-X-MEDIA-SEQUENCE:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n"),
            "{text}"
        );
        assert!(!text.contains("#EXT-X-DISCONTINUITY\n") && text.ends_with("#EXTINF:2.000,\ns-5.ts\u{1}\n"), "{text}");
        assert_eq!(recover(&text), Some((6, 1)));
        kept.push(segment(6, 2400, true), 6000, 0);
        let text = kept.window(style, None, None).text;
        assert!(text.contains("#EXT-X-DISCONTINUITY\n") && text.contains("#EXT-X-TARGETDURATION:2\n"), "{text}");
        assert_eq!(recover(&text), Some((7, 2)));
        assert_eq!(recover("<html>"), None);
    }
}
