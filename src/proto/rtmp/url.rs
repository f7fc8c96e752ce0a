//! The URL of a stream, as RTMP's clients take it.

use crate::proto::address::{UrlError, split_port};
use std::fmt;

/// RTMP's port.
pub const DEFAULT_PORT: u16 = 1935;

/// A whole RTMP URL, as a client takes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RtmpUrl {
    /// Host name or address, without brackets.
    pub host: String,
    /// 1935 unless given.
    pub port: u16,
    /// Everything between host and stream, its query included.
    pub app: String,
    /// The stream name and its query.
    pub stream: String,
}

impl RtmpUrl {
    /// Parses `rtmp://host[:port]/app[/more]/stream[?query]`: the last `/` splits the stream.
    ///
    /// # Errors
    /// [`UrlError::NotRtmp`].
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let rest = url.strip_prefix("rtmp://").ok_or(UrlError::NotRtmp)?;
        let (authority, path) = rest.split_once('/').ok_or(UrlError::NotRtmp)?;
        let (host, port) = split_port(authority);
        let port = port.map_or(Ok(DEFAULT_PORT), str::parse).map_err(|_| UrlError::NotRtmp)?;
        let (app, stream) = path.rsplit_once('/').unwrap_or(("", path));
        if host.is_empty() || stream.is_empty() {
            return Err(UrlError::NotRtmp);
        }
        Ok(Self { host: host.to_owned(), port, app: app.to_owned(), stream: stream.to_owned() })
    }

    /// What `connect` sends as tcUrl.
    pub fn tc_url(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("rtmp://{host}:{}/{}", self.port, self.app)
    }
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
        for bad in ["http://h/live/x", "rtmp://h", "rtmp:///live/x", "rtmp://h:port/live/x", "rtmp://h/live/"] {
            assert_eq!(RtmpUrl::parse(bad), Err(UrlError::NotRtmp));
        }
    }
}
