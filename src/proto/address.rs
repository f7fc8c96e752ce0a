//! Which stream a peer means: vhost, app and stream from tcUrl, app and stream name (conformance D).

/// The vhost that answers for host names without one of their own.
pub const DEFAULT_VHOST: &str = "__defaultVhost__";
/// The app of a URL without one.
pub const DEFAULT_APP: &str = "__defaultApp__";
/// Longest app and stream name together; they become keys, file names and log fields.
pub const NAME_BYTES_MAX: usize = 512;

/// Why a name is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UrlError {
    /// No stream name.
    #[error("the stream name is empty")]
    EmptyStream,
    /// See [`NAME_BYTES_MAX`].
    #[error("app and stream name have {0} bytes, limit {NAME_BYTES_MAX}")]
    TooLong(usize),
    /// A `..` level, a backslash or a control character: names become paths.
    #[error("the name has a `..` level, a backslash or a control character")]
    Unsafe,
    /// Not `rtmp://host[:port]/app/stream`.
    #[error("not an rtmp:// URL with app and stream")]
    NotRtmp,
}

/// A stream's full name, and the query that came with it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StreamAddress {
    /// What picks the vhost: `?vhost=`, `?domain=`, `...vhost...V`, else tcUrl's host.
    pub vhost: String,
    /// The app, possibly of several levels.
    pub app: String,
    /// The stream name.
    pub stream: String,
    /// The query without the vhost, `?` included; for hooks and tokens.
    pub param: String,
}

impl StreamAddress {
    /// Applies the rules D1 to D6 to what `connect` and `publish` or `play` said. The app is what tcUrl says, as
    /// SRS has it; `app` counts only where there is no tcUrl.
    ///
    /// # Errors
    /// Any [`UrlError`] but `NotRtmp`.
    pub fn resolve(tc_url: &str, app: &str, stream: &str) -> Result<Self, UrlError> {
        let (authority, app) = split_tc_url(tc_url).unwrap_or(("", app));
        let (app, app_query) = split_query(app);
        let (stream, stream_query) = split_query(stream);
        let mut address = Self { vhost: split_port(authority).0.to_owned(), ..Self::default() };
        let mut params: Vec<&str> = Vec::new();
        for item in [app_query, stream_query].into_iter().flat_map(|query| query.split(['&', '?'])) {
            match item.split_once('=') {
                Some(("vhost" | "domain", "" | DEFAULT_VHOST)) => {}
                Some(("vhost" | "domain", vhost)) => vhost.clone_into(&mut address.vhost),
                None if item.starts_with("vhost...") => item["vhost...".len()..].clone_into(&mut address.vhost),
                _ if item.is_empty() || params.contains(&item) => {}
                _ => params.push(item),
            }
        }
        if !params.is_empty() {
            address.param = format!("?{}", params.join("&"));
        }
        let levels = app.split('/').chain(stream.split('/'));
        let mut path: Vec<&str> = levels.filter(|level| !level.is_empty() && *level != "_definst_").collect();
        if stream.trim_matches('/').is_empty() {
            return Err(UrlError::EmptyStream);
        }
        address.stream = path.pop().ok_or(UrlError::EmptyStream)?.to_owned();
        address.app = if path.is_empty() { DEFAULT_APP.to_owned() } else { path.join("/") };
        address.check()?;
        Ok(address)
    }

    /// The key of the stream within a server whose configuration calls the vhost `vhost`.
    pub fn key(&self, vhost: &str) -> String {
        format!("{vhost}/{}/{}", self.app, self.stream)
    }

    fn check(&self) -> Result<(), UrlError> {
        let bytes = self.app.len() + self.stream.len();
        if bytes > NAME_BYTES_MAX {
            return Err(UrlError::TooLong(bytes));
        }
        let unsafe_name = |name: &str| {
            name.split('/').any(|level| level == "..") || name.contains(|c: char| c == '\\' || c.is_control())
        };
        if unsafe_name(&self.app) || unsafe_name(&self.stream) {
            return Err(UrlError::Unsafe);
        }
        Ok(())
    }
}

/// Splits off the query, in SRS's old `...name...value` form too; `?` and `&` both separate.
fn split_query(text: &str) -> (&str, &str) {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    match path.split_once("...vhost...") {
        // `vhost...V`, which `resolve` reads as an item of the query.
        Some((head, _)) => (head, &path[head.len() + 3..]),
        None => (path, query),
    }
}

/// Authority and app of `rtmp://host:port/app`; the app with its query, and empty if there is none.
fn split_tc_url(url: &str) -> Option<(&str, &str)> {
    let (_, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Some((&rest[..end], rest[end..].trim_start_matches('/')))
}

/// `host:port` as it stands in a URL.
pub fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Splits `host:port`, `[v6]:port`.
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(tc_url: &str, app: &str, stream: &str) -> (String, String, String, String) {
        let StreamAddress { vhost, app, stream, param } = StreamAddress::resolve(tc_url, app, stream).unwrap();
        (vhost, app, stream, param)
    }

    fn named(vhost: &str, app: &str, stream: &str, param: &str) -> (String, String, String, String) {
        (vhost.into(), app.into(), stream.into(), param.into())
    }

    #[test]
    fn d2_host_name_picks_the_vhost() {
        let expected = named("demo.example.com", "live", "livestream", "");
        assert_eq!(resolve("rtmp://demo.example.com:1935/live", "live", "livestream"), expected);
        assert_eq!(resolve("rtmp://[::1]:1935/live", "live", "s").0, "::1");
    }

    #[test]
    fn d4_vhost_and_domain_in_the_query_and_the_rest_kept() {
        for query in ["?vhost=v", "?domain=v"] {
            let stream = format!("s{query}&token=1");
            assert_eq!(resolve("rtmp://h/live", "live", &stream), named("v", "live", "s", "?token=1"));
        }
        assert_eq!(resolve("rtmp://h/live?a=1", "live?a=1", "s?b=2"), named("h", "live", "s", "?a=1&b=2"));
        assert_eq!(resolve("rtmp://h/live", "live", "s?vhost="), named("h", "live", "s", ""));
    }

    #[test]
    fn d5_fmle_forms() {
        for app in ["live?vhost=v", "live...vhost...v"] {
            assert_eq!(resolve(&format!("rtmp://h/{app}"), app, "stream"), named("v", "live", "stream", ""));
        }
    }

    #[test]
    fn d6_definst_levels_and_the_default_app() {
        assert_eq!(resolve("rtmp://h/live/_definst_", "live/_definst_", "s"), named("h", "live", "s", ""));
        let levels = named("h", "a/b", "c", "");
        assert_eq!(resolve("rtmp://h/a", "a", "b/c"), levels);
        assert_eq!(resolve("rtmp://h/a/b", "a/b", "c"), levels);
        assert_eq!(resolve("rtmp://h/", "", "s"), named("h", "__defaultApp__", "s", ""));
    }

    /// SRS takes the app from tcUrl, and does not look at the property `app`; some clients send none.
    #[test]
    fn the_app_is_what_tc_url_says() {
        let url = |tc_url: &str, app: &str| {
            let (vhost, app, ..) = resolve(tc_url, app, "s");
            format!("{vhost}/{app}")
        };
        assert_eq!(url("rtmp://h/live", ""), "h/live");
        assert_eq!(url("rtmp://h/live", "other"), "h/live");
        assert_eq!(url("rtmp://h:1935/live/", "other?vhost=v"), "h/live");
        assert_eq!(url("rtmp://h/a/b?vhost=v", ""), "v/a/b");
        assert_eq!(url("rtmp://h/live...vhost...v", ""), "v/live");
        assert_eq!(url("rtmp://h?vhost=v", ""), "v/__defaultApp__");
        assert_eq!(url("rtmp://h", "live"), "h/__defaultApp__");
        assert_eq!(url("rtmp://[::1]:1935/live", ""), "::1/live");
        assert_eq!(url("rtmp://h/live?vhost=__defaultVhost__", ""), "h/live");
        assert_eq!(url("", "live"), "/live");
    }

    #[test]
    fn d7_vhosts_keep_their_streams_apart() {
        let address = StreamAddress::resolve("rtmp://h/live", "live", "s").unwrap();
        assert_ne!(address.key("a"), address.key("b"));
    }

    #[test]
    fn bad_names_are_refused() {
        let refused =
            |app: &str, stream: &str| StreamAddress::resolve(&format!("rtmp://h/{app}"), app, stream).unwrap_err();
        assert_eq!(refused("live", ""), UrlError::EmptyStream);
        assert_eq!(refused("live", "?token=1"), UrlError::EmptyStream);
        assert_eq!(refused("live", &"x".repeat(4096)), UrlError::TooLong(4100));
        for name in ["../etc", "a/../b", "..", "a\\b", "a\nb", "a\0b"] {
            assert_eq!(refused("live", name), UrlError::Unsafe, "{name:?}");
        }
    }
}
