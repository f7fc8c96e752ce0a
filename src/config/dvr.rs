//! A vhost's `dvr` section.

use super::{explain::Line, section::Section};

/// How streams are recorded; there if enabled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dvr {
    /// `app/stream` of those that are; all if there are none. SRS: `dvr_apply`.
    pub apply: Vec<String>,
    /// The length of a file, in ms; `None` is all of a publish. SRS: `dvr_plan`, `dvr_duration`.
    pub segment_ms: Option<u64>,
    /// Files begin with keyframes. SRS: `dvr_wait_keyframe`.
    pub wait_keyframe: bool,
    /// The directory, and the template of names below it. SRS: `dvr_path`.
    pub directory: String,
    /// See there.
    pub file: String,
    /// MP4 rather than FLV, by the path's end.
    pub mp4: bool,
    /// Old recordings are removed: those that are older, in ms, and the oldest beyond so many bytes; 0 keeps all. Ours:
    /// `dvr_keep_days`, `dvr_keep_size`.
    pub keep_ms: u64,
    /// See there.
    pub keep_bytes: u64,
    /// Times as published. SRS: `time_jitter`.
    pub absolute: bool,
}

impl Dvr {
    pub(super) fn load(mut section: Section<'_>) -> Option<Self> {
        section.loader.explained.push(Line::Open("dvr".to_owned()));
        let enabled = section.flag("enabled");
        let apply = section.words("dvr_apply", |name| Some(name.to_owned()));
        let plan = section.choice("dvr_plan").0;
        let (path, word) = section.text("dvr_path");
        let duration_ms = u64::from(section.milliseconds("dvr_duration"));
        let wait_keyframe = section.flag("dvr_wait_keyframe");
        let keep_ms = u64::from(section.milliseconds("dvr_keep_days")) * 24 * 3600;
        let keep_bytes = u64::from(section.milliseconds("dvr_keep_size")) * (1 << 30) / 1000;
        let absolute = section.choice("time_jitter").0 == "off";
        let (directory, mut file) = split(&path);
        if !file.ends_with(".flv") && !file.ends_with(".mp4") {
            file =
                format!("{}/[stream].[timestamp].flv", file.trim_end_matches('/')).trim_start_matches('/').to_owned();
        }
        let tells_apart =
            file.contains("[stream]") && (plan == "session" || file.contains("[timestamp]") || file.contains("[05]"));
        if let Some(word) = word.filter(|_| enabled && !tells_apart) {
            let message = "`dvr_path` does not tell recordings apart: one would take the other's place";
            section.loader.fault(&word, message, "put [stream] and [timestamp] into it");
        }
        section.loader.explained.push(Line::Close);
        section.finish();
        enabled.then(|| Self {
            apply: if apply.iter().any(|name| name == "all") { Vec::new() } else { apply },
            segment_ms: (plan == "segment").then_some(duration_ms),
            wait_keyframe,
            directory,
            mp4: file.ends_with(".mp4"),
            file,
            keep_ms,
            keep_bytes,
            absolute,
        })
    }

    /// Which files are recordings, as a pattern of names.
    pub fn pattern(&self) -> String {
        let mut pattern = glob::Pattern::escape(&self.directory);
        let mut rest = self.file.as_str();
        while let Some((before, (_, after))) =
            rest.split_once('[').map(|(before, word)| (before, word.split_once(']').unwrap_or(("", ""))))
        {
            pattern.push_str(&glob::Pattern::escape(before));
            pattern.push('*');
            rest = after;
        }
        pattern + &glob::Pattern::escape(rest)
    }

    /// Whether a stream is recorded, unless the API is told otherwise.
    pub fn applies(&self, app: &str, stream: &str) -> bool {
        let name = |known: &String| *known == format!("{app}/{stream}");
        self.apply.is_empty() || self.apply.iter().any(name)
    }
}

/// The directory that is always the same, and the rest.
fn split(path: &str) -> (String, String) {
    let fixed = path.find('[').unwrap_or(path.len());
    match path[..fixed].rfind('/') {
        Some(slash) => (path[..=slash].to_owned(), path[slash + 1..].to_owned()),
        None => (String::new(), path.to_owned()),
    }
}
