//! A vhost's `dash` section.

use super::{explain::Line, section::Section};
use std::path::PathBuf;

/// How streams are cut into segments for DASH, and where those are; there if enabled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dash {
    /// A segment's length, in ms. SRS: `dash_fragment`.
    pub fragment_ms: u64,
    /// How often players look at the MPD, in ms. SRS: `dash_update_period`.
    pub update_ms: u64,
    /// Segments that are listed, and for so long at least, in ms. SRS: `dash_window_size`, `dash_timeshift`.
    pub window: usize,
    /// See there.
    pub timeshift_ms: u64,
    /// Segments can be had while they are made, in chunks of so many ms. Ours: `dash_ll`, `dash_part`.
    pub part_ms: Option<u64>,
    /// Served from memory. Ours: `dash_storage`.
    pub memory: bool,
    /// Written to files.
    pub disk: bool,
    /// Where files are. SRS: `dash_path`.
    pub path: PathBuf,
    /// Template of the MPD's name below it. SRS: `dash_mpd_file`.
    pub mpd_file: String,
    /// Files of old segments are removed. SRS: `dash_cleanup`.
    pub cleanup: bool,
    /// All is removed so long after the end of a publish, in ms; 0 is never. SRS: `dash_dispose`.
    pub dispose_ms: u64,
}

impl Dash {
    pub(super) fn load(mut section: Section<'_>) -> Option<Self> {
        section.loader.explained.push(Line::Open("dash".to_owned()));
        let enabled = section.flag("enabled");
        let fragment_ms = u64::from(section.milliseconds("dash_fragment"));
        let update_ms = u64::from(section.milliseconds("dash_update_period"));
        let timeshift_ms = u64::from(section.milliseconds("dash_timeshift"));
        let window = section.number("dash_window_size");
        let low_latency = section.flag("dash_ll");
        let part_ms = u64::from(section.number("dash_part"));
        let storage = section.choice("dash_storage").0;
        let (path, path_word) = section.path("dash_path");
        let (memory, disk) = storage_of(&storage, path_word.is_some());
        let (mpd_file, word) = section.text("dash_mpd_file");
        if let Some(word) = word.filter(|_| !mpd_file.contains("[stream]")) {
            let message = "`dash_mpd_file` has no [stream]: files of several streams would be one";
            section.loader.fault(&word, message, "put [stream] into it");
        }
        let loaded = Self {
            fragment_ms,
            update_ms,
            window: usize::try_from(window).unwrap_or(usize::MAX),
            timeshift_ms,
            part_ms: low_latency.then_some(part_ms),
            memory,
            disk,
            path: path.into(),
            mpd_file,
            cleanup: section.flag("dash_cleanup"),
            dispose_ms: u64::from(section.milliseconds("dash_dispose")),
        };
        section.loader.explained.push(Line::Close);
        section.finish();
        enabled.then_some(loaded)
    }
}

/// Whether segments are served from memory, and whether they are files, by the word and whether a path is given.
pub(super) fn storage_of(word: &str, has_path: bool) -> (bool, bool) {
    match word {
        "auto" => (true, has_path),
        "disk" => (false, true),
        "both" => (true, true),
        _ => (true, false),
    }
}
