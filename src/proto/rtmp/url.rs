//! The URL of a stream, as RTMP's clients take it.

use crate::proto::address::{UrlError, split_port};
use std::fmt;

/// RTMP's port.
pub const DEFAULT_PORT: u16 = 1935;
/// RTMPS's port.
pub const DEFAULT_TLS_PORT: u16 = 443;

/// A whole RTMP URL, as a client takes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RtmpUrl {
    /// `rtmps://`.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// 1935, or 443 with TLS, unless given.
    pub port: u16,
    /// Everything between host and stream, its query included.
    pub app: String,
    /// The stream name and its query.
    pub stream: String,
}

impl RtmpUrl {
    /// Parses `rtmp[s]://host[:port]/app[/more]/stream[?query]`: the last `/` splits the stream.
    ///
    /// # Errors
    /// [`UrlError::NotRtmp`].
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let plain = url.strip_prefix("rtmp://").map(|rest| (false, rest));
        let (tls, rest) = plain.or_else(|| Some((true, url.strip_prefix("rtmps://")?))).ok_or(UrlError::NotRtmp)?;
        let (authority, path) = rest.split_once('/').ok_or(UrlError::NotRtmp)?;
        let (host, port) = split_port(authority);
        let port = port.map_or(Ok(default_port(tls)), str::parse).map_err(|_| UrlError::NotRtmp)?;
        let (app, stream) = path.rsplit_once('/').unwrap_or(("", path));
        if host.is_empty() || stream.is_empty() {
            return Err(UrlError::NotRtmp);
        }
        Ok(Self { tls, host: host.to_owned(), port, app: app.to_owned(), stream: stream.to_owned() })
    }

    /// What `connect` sends as tcUrl.
    pub fn tc_url(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{}://{host}:{}/{}", if self.tls { "rtmps" } else { "rtmp" }, self.port, self.app)
    }
}

/// Where RTMP is found on a host if nothing else is said.
pub fn default_port(tls: bool) -> u16 {
    if tls { DEFAULT_TLS_PORT } else { DEFAULT_PORT }
}

impl fmt::Display for RtmpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tc_url(), self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d1_plain_url() {
        let url = RtmpUrl::parse("rtmp://h/live/livestream").unwrap();
        assert_eq!((&*url.host, url.port, &*url.app, &*url.stream), ("h", 1935, "live", "livestream"));
        assert_eq!(url.tc_url(), "rtmp://h:1935/live");
        let v6 = RtmpUrl::parse("rtmp://[::1]:19350/a/b/c?d=e").unwrap();
        assert_eq!((&*v6.host, v6.port, &*v6.app, &*v6.stream), ("::1", 19350, "a/b", "c?d=e"));
        assert_eq!(v6.to_string(), "rtmp://[::1]:19350/a/b/c?d=e");
        let tls = RtmpUrl::parse("rtmps://h/a/b").unwrap();
        assert_eq!((tls.tls, tls.port, &*tls.tc_url()), (true, 443, "rtmps://h:443/a"));
        for bad in ["http://h/live/x", "rtmp://h", "rtmp:///live/x", "rtmp://h:port/live/x", "rtmp://h/live/"] {
            assert_eq!(RtmpUrl::parse(bad), Err(UrlError::NotRtmp));
        }
    }
}
