//! A vhost's `hls` section.

use super::{dash::storage_of, explain::Line, section::Section};
use std::path::PathBuf;

/// How streams are cut into segments, and where those are; there if enabled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hls {
    /// Segments are fragments of MP4. SRS: `hls_use_fmp4`.
    pub fmp4: bool,
    /// The length of parts for low latency, in ms; `None` without it. Ours: `hls_ll`, `hls_part`.
    pub part_ms: Option<u64>,
    /// A segment's length, in ms. SRS: `hls_fragment`.
    pub fragment_ms: u64,
    /// EXT-X-TARGETDURATION before there are segments, in ms. SRS: `hls_td_ratio` of it.
    pub target_ms: u64,
    /// A segment without keyframe, or of sound alone, ends after so long, in ms. SRS: `hls_aof_ratio` of it.
    pub overflow_ms: u64,
    /// Length of a playlist, in ms. SRS: `hls_window`.
    pub window_ms: u64,
    /// Sequence numbers go on. SRS: `hls_recover`.
    pub recover: bool,
    /// Segments begin with keyframes. SRS: `hls_wait_keyframe`.
    pub wait_keyframe: bool,
    /// Served from memory. Ours: `hls_storage`.
    pub memory: bool,
    /// Written to files.
    pub disk: bool,
    /// Where files are. SRS: `hls_path`.
    pub path: PathBuf,
    /// Templates of names below it. SRS: `hls_m3u8_file`, `hls_ts_file`, `hls_fmp4_file`, `hls_init_file`.
    pub m3u8_file: String,
    /// Of segments.
    pub segment_file: String,
    /// Of segments that are MP4, whatever the others are.
    pub fmp4_file: String,
    /// Of what segments of MP4 begin with.
    pub init_file: String,
    /// Streams that are variants of another. nginx-rtmp: `hls_variant`.
    pub variants: Vec<HlsVariant>,
    /// What URIs of segments begin with. SRS: `hls_entry_prefix`.
    pub entry_prefix: String,
    /// Files of old segments are removed. SRS: `hls_cleanup`.
    pub cleanup: bool,
    /// All is removed so long after the end of a publish, in ms; 0 is never. SRS: `hls_dispose`.
    pub dispose_ms: u64,
    /// `[timestamp]` is the time in units of `hls_fragment`. SRS: `hls_ts_floor`.
    pub ts_floor: bool,
    /// Players are known by `hls_ctx`, asked for with on_play and counted. SRS: `hls_ctx`.
    pub ctx: bool,
    /// Their segments count too. SRS: `hls_ts_ctx`.
    pub ts_ctx: bool,
    /// Segments of transport streams are encrypted.
    pub keys: Option<HlsKeys>,
    /// URIs of multivariant playlists have no path. SRS: `hls_master_m3u8_path_relative`.
    pub master_relative: bool,
}

/// Variants of streams.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HlsVariant {
    /// The end of their names.
    pub suffix: String,
    /// Bits a second that are said; measured if it is `None`.
    pub bandwidth: Option<u64>,
}

impl HlsVariant {
    fn read(words: &[&str]) -> Option<Self> {
        let (suffix, more) = words.split_first()?;
        let bandwidth = match more {
            [] => None,
            [one] => Some(one.strip_prefix("BANDWIDTH=")?.parse().ok().filter(|bits| *bits > 0)?),
            _ => return None,
        };
        let plain = !suffix.is_empty() && !suffix.contains(['/', '?', '#', '=']);
        plain.then(|| Self { suffix: (*suffix).to_owned(), bandwidth })
    }
}

/// What segments are encrypted with (AES-128).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HlsKeys {
    /// Segments per key. SRS: `hls_fragments_per_key`.
    pub segments: u64,
    /// Template of a key's name. SRS: `hls_key_file`.
    pub file: String,
    /// Where keys are. SRS: `hls_key_file_path`.
    pub path: PathBuf,
    /// What their URIs begin with, a query at the end kept; nothing for where segments are. SRS: `hls_key_url`.
    pub url: String,
}

/// So much of a time in ms.
fn part_of(ms: u64, thousandths: u32) -> u64 {
    ms * u64::from(thousandths) / 1000
}

impl Hls {
    pub(super) fn load(mut section: Section<'_>) -> Option<Self> {
        section.loader.explained.push(Line::Open("hls".to_owned()));
        let enabled = section.flag("enabled");
        let use_fmp4 = section.flag("hls_use_fmp4");
        let low_latency = section.choice("hls_ll").0;
        let part_ms = u64::from(section.number("hls_part"));
        let fragment_ms = u64::from(section.milliseconds("hls_fragment"));
        let (td_ratio, aof_ratio) = (section.milliseconds("hls_td_ratio"), section.milliseconds("hls_aof_ratio"));
        let window_ms = u64::from(section.milliseconds("hls_window"));
        let recover = section.flag("hls_recover");
        let wait_keyframe = section.flag("hls_wait_keyframe");
        let (storage, _) = section.choice("hls_storage");
        let (path, path_word) = section.path("hls_path");
        let (memory, disk) = storage_of(&storage, path_word.is_some());
        let mut name = |directive: &'static str, required: &[&str]| {
            let (text, word) = section.text(directive);
            let lacking = required.iter().find(|needed| !text.contains(**needed));
            if let (Some(lacking), Some(word)) = (lacking, word) {
                let message =
                    format!("`{directive}` has no {lacking}: files of several streams or segments would be one");
                section.loader.fault(&word, message, format!("put {lacking} into it"));
            }
            text
        };
        let m3u8_file = name("hls_m3u8_file", &["[stream]"]);
        let ts_file = name("hls_ts_file", &["[stream]"]);
        let fmp4_file = name("hls_fmp4_file", &["[stream]"]);
        let init_file = name("hls_init_file", &["[stream]"]);
        let key_file = name("hls_key_file", &["[stream]"]);
        let variants = section.rules("hls_variant", HlsVariant::read);
        let entry_prefix = section.text("hls_entry_prefix").0;
        let fmp4 = use_fmp4 || low_latency == "on";
        let (keys_on, keys_word) = section.flag_at("hls_keys");
        let (key_path, key_path_word) = section.path("hls_key_file_path");
        let keys = HlsKeys {
            segments: u64::from(section.number("hls_fragments_per_key")),
            file: key_file,
            path: if key_path_word.is_some() { key_path.into() } else { PathBuf::from(&path) },
            url: section.text("hls_key_url").0,
        };
        if let Some(word) = keys_word.filter(|_| keys_on && (use_fmp4 || low_latency == "on")) {
            let message = "`hls_keys` encrypts transport streams; with fragments of MP4 it does not yet".to_owned();
            section.loader.unsupported(&word, message, "remove one of the two");
        }
        let loaded = Self {
            fmp4,
            part_ms: (low_latency == "on" || low_latency == "auto" && fmp4).then_some(part_ms),
            fragment_ms,
            target_ms: part_of(fragment_ms, td_ratio).div_ceil(1000) * 1000,
            overflow_ms: part_of(fragment_ms, aof_ratio.max(1000)),
            window_ms,
            recover,
            wait_keyframe,
            memory,
            disk,
            path: path.into(),
            m3u8_file,
            segment_file: ts_file,
            fmp4_file,
            init_file,
            variants,
            entry_prefix,
            cleanup: section.flag("hls_cleanup"),
            dispose_ms: u64::from(section.milliseconds("hls_dispose")),
            ts_floor: section.flag("hls_ts_floor"),
            ctx: section.flag("hls_ctx"),
            ts_ctx: section.flag("hls_ts_ctx"),
            keys: Some(keys).filter(|_| keys_on),
            master_relative: section.flag("hls_master_m3u8_path_relative"),
        };
        section.loader.explained.push(Line::Close);
        section.finish();
        enabled.then_some(loaded)
    }
}
