//! Names of files, out of templates such as `[app]/[stream]-[seq].ts`.

use std::{
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What a template's words stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'a> {
    pub(super) vhost: &'a str,
    pub(super) app: &'a str,
    pub(super) stream: &'a str,
}

/// What they stand for in the name of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) sequence: u64,
    pub(super) duration_ms: u64,
    /// In ms since 1970.
    pub(super) at_ms: u64,
    /// `[timestamp]`; SRS has another clock for it under `hls_ts_floor`.
    pub(super) timestamp: u64,
}

impl Words<'_> {
    /// The name; `None` if it leads out of its directory.
    pub(super) fn fill(&self, template: &str, moment: Option<Moment>) -> Option<String> {
        let mut name = template.to_owned();
        if let Some(Moment { sequence, duration_ms, at_ms, timestamp }) = moment {
            let at = UNIX_EPOCH + Duration::from_millis(at_ms);
            let [year, month, day, hour, minute, second] = date(at);
            for (word, value) in [
                ("[seq]", sequence.to_string()),
                ("[duration]", duration_ms.to_string()),
                ("[timestamp]", timestamp.to_string()),
                ("[2006]", format!("{year:04}")),
                ("[01]", format!("{month:02}")),
                ("[02]", format!("{day:02}")),
                ("[15]", format!("{hour:02}")),
                ("[04]", format!("{minute:02}")),
                ("[05]", format!("{second:02}")),
                ("[999]", format!("{:03}", at_ms % 1000)),
            ] {
                name = name.replace(word, &value);
            }
        }
        // Last, since they are the publisher's words.
        let mut out = String::with_capacity(name.len() + 32);
        let mut rest = name.as_str();
        while let Some(at) = rest.find('[') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let known = [("[vhost]", self.vhost), ("[app]", self.app), ("[stream]", self.stream)];
            let (word, value) = known.into_iter().find(|(word, _)| rest.starts_with(word)).unwrap_or(("[", "["));
            out.push_str(value);
            rest = &rest[word.len()..];
        }
        out.push_str(rest);
        let name = out.trim_start_matches("./").trim_matches('/').to_owned();
        let plain =
            |level: &str| !level.is_empty() && !matches!(level, "." | "..") && !level.contains(['\0', '\n', '\r']);
        name.split('/').all(plain).then_some(name)
    }
}

/// Year, month, day, hour, minute and second of a time, UTC.
pub(super) fn date(at: SystemTime) -> [u64; 6] {
    let since_s = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (since_s / 86_400, since_s % 86_400);
    // Days since 0000-03-01, in eras of 400 years (H. Hinnant's algorithm for the proleptic Gregorian calendar).
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    [year, month, day, second / 3600, second / 60 % 60, second % 60]
}

/// A time as playlists have it (RFC 3339), with ms.
pub(super) fn timestamp(at_ms: u64) -> String {
    let [year, month, day, hour, minute, second] = date(UNIX_EPOCH + Duration::from_millis(at_ms));
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", at_ms % 1000)
}

pub(super) fn content_type(mp4: bool, video: bool) -> &'static str {
    match (mp4, video) {
        (false, _) => "video/MP2T",
        (true, true) => "video/mp4",
        (true, false) => "audio/mp4",
    }
}

/// Where files below one directory are for requests that mean those below another: nothing, or `hls/`.
pub(super) fn prefix(path: &Path, http_dir: &Path) -> String {
    let plain = |path: &Path| path.components().filter(|part| *part != Component::CurDir).collect::<PathBuf>();
    let (path, http_dir) = (plain(path), plain(http_dir));
    match path.strip_prefix(&http_dir) {
        Ok(rest) if !rest.as_os_str().is_empty() => format!("{}/", rest.to_string_lossy()),
        Ok(_) | Err(_) => String::new(),
    }
}

/// A path as a URI has it.
pub(super) fn encoded(path: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'/')
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~')
        .remove(b'=');
    percent_encoding::utf8_percent_encode(path, KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_where_they_belong() {
        let moment = Moment { sequence: 7, duration_ms: 2000, at_ms: 1_709_210_096_789, timestamp: 5 };
        let words = Words { vhost: "v", app: "live", stream: "s[app]" };
        let filled = words.fill("[vhost]/[app]/[stream]-[seq]-[2006][01][02]-[15][04][05].[999]-[x].ts", Some(moment));
        assert_eq!(filled.as_deref(), Some("v/live/s[app]-7-20240229-123456.789-[x].ts"));
        assert_eq!(timestamp(moment.at_ms), "2024-02-29T12:34:56.789Z");
        for (app, stream) in
            [("..", "s"), ("a/../b", "s"), ("a", "../../s"), ("a//b", "s"), ("a", "x/./y"), ("a", "\n")]
        {
            assert_eq!(Words { vhost: "v", app, stream }.fill("[app]/[stream].ts", None), None, "{app} {stream}");
        }
    }
}
