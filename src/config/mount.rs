//! Which stream a path means: `http_remux`'s `mount`.

/// What a path ends in says what is served there.
const SUFFIXES: [&str; 4] = [".flv", ".ts", ".aac", ".mp3"];

/// A template as it stands in a configuration, without `[vhost]`; `None` if it is none.
pub(super) fn read(text: &str) -> Option<String> {
    let template = text.strip_prefix("[vhost]").unwrap_or(text);
    let once = template.matches("[stream]").count() == 1 && template.matches("[app]").count() <= 1;
    let known = SUFFIXES.iter().any(|suffix| template.ends_with(suffix));
    (template.starts_with('/') && once && known).then(|| template.to_owned())
}

/// App and stream that `path` names under a template such as `/[app]/[stream].flv`; `[stream]` is one level,
/// `[app]` may be several.
pub(super) fn find<'p>(template: &'p str, path: &'p str) -> Option<(&'p str, &'p str)> {
    let (before, after) = template.split_once("[stream]")?;
    if let Some((head, middle)) = before.split_once("[app]") {
        let rest = path.strip_prefix(head)?.strip_suffix(after)?;
        let at = rest.rfind(middle)?;
        named(&rest[..at], &rest[at + middle.len()..])
    } else if let Some((middle, tail)) = after.split_once("[app]") {
        let rest = path.strip_prefix(before)?.strip_suffix(tail)?;
        let at = rest.find(middle)?;
        named(&rest[at + middle.len()..], &rest[..at])
    } else {
        let stream = path.strip_prefix(before)?.strip_suffix(after)?;
        named(before.trim_matches('/'), stream)
    }
}

fn named<'p>(app: &'p str, stream: &'p str) -> Option<(&'p str, &'p str)> {
    let levels = |name: &str| !name.is_empty() && name.split('/').all(|level| !level.is_empty());
    (levels(app) && levels(stream) && !stream.contains('/') && !app.contains('?') && !stream.contains('?'))
        .then_some((app, stream))
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn paths_name_streams() {
        let usual = "/[app]/[stream].flv";
        assert_eq!(find(usual, "/live/livestream.flv"), Some(("live", "livestream")));
        assert_eq!(find(usual, "/a/b/c.d.flv"), Some(("a/b", "c.d")));
        for path in ["/live/livestream.ts", "/live/.flv", "/livestream.flv", "/", "//x.flv", "/a//b.flv", "/a?/b.flv"] {
            assert_eq!(find(usual, path), None, "{path}");
        }
        assert_eq!(find("/[stream]/of/[app].flv", "/s/of/live.flv"), Some(("live", "s")));
        assert_eq!(find("/live/[stream].flv", "/live/s.flv"), Some(("live", "s")));
        assert_eq!(find("/x/[app]-[stream].flv", "/x/live-s.flv"), Some(("live", "s")));
    }
}
