//! URLs that the server itself calls.

use crate::proto::address::split_port;
use base64::{Engine, prelude::BASE64_STANDARD};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use std::{fmt, net::Ipv6Addr};

/// What may not stand in a request's target (RFC 9112 §3.2) as it is.
const ESCAPED: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// `http[s]://[name[:password]@]host[:port][/path][?query]`.
///
/// Printed it shows neither name, password nor query: tokens stand there.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct HttpUrl {
    /// Whether it is https.
    pub secure: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// 80, or 443 for https, unless given.
    pub port: u16,
    /// `host[:port]`, for the Host field (RFC 9110 §7.2).
    pub authority: String,
    /// Path and query, from the slash on.
    pub target: String,
    /// The Authorization field that name and password make (RFC 7617).
    pub authorization: Option<String>,
}

impl HttpUrl {
    /// Reads a URL; `None` if it is none of http or https.
    pub fn read(text: &str) -> Option<Self> {
        let (secure, rest) = match text.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("http://")?),
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, authority),
        };
        let (host, port) = split_port(authority);
        let standard = if secure { 443 } else { 80 };
        let port = port.map_or(Some(standard), |port| port.parse().ok()).filter(|port| *port > 0)?;
        let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let bracketed = authority.starts_with('[');
        let named = !bracketed && !host.is_empty() && host.bytes().all(bare);
        if !(named || bracketed && host.parse::<Ipv6Addr>().is_ok()) {
            return None;
        }
        let shown = if named { host.to_owned() } else { format!("[{host}]") };
        let target = target.split('#').next().unwrap_or_default();
        let slash = if target.starts_with('/') { "" } else { "/" };
        Some(Self {
            secure,
            host: host.to_owned(),
            port,
            authority: if port == standard { shown } else { format!("{shown}:{port}") },
            target: format!("{slash}{}", utf8_percent_encode(target, ESCAPED)),
            authorization: user.map(|user| {
                let user = if user.contains(':') { user.to_owned() } else { format!("{user}:") };
                let plain: Vec<u8> = percent_decode_str(&user).collect();
                format!("Basic {}", BASE64_STANDARD.encode(plain))
            }),
        })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        let path = self.target.split('?').next().unwrap_or_default();
        let query = if path.len() < self.target.len() { "?..." } else { "" };
        write!(f, "{scheme}://{}{path}{query}", self.authority)
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_in_every_form() {
        let read = |text| HttpUrl::read(text).map(|url| (url.secure, url.host, url.port, url.authority, url.target));
        let url = |secure, host: &str, port, authority: &str, target: &str| {
            Some((secure, host.to_owned(), port, authority.to_owned(), target.to_owned()))
        };
        assert_eq!(read("http://a.b/c?d=e#f"), url(false, "a.b", 80, "a.b", "/c?d=e"));
        assert_eq!(read("https://a"), url(true, "a", 443, "a", "/"));
        assert_eq!(read("http://127.0.0.1:8085?x"), url(false, "127.0.0.1", 8085, "127.0.0.1:8085", "/?x"));
        assert_eq!(read("https://[::1]:443/"), url(true, "::1", 443, "[::1]", "/"));
        assert_eq!(read("http://a/ü|{x}"), url(false, "a", 80, "a", "/%C3%BC%7C%7Bx%7D"));
        for bad in
            ["", "a", "ftp://a/", "http://", "http:///a", "http://a:0", "http://a:b/", "http://a b/", "http://[x]/"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let url = HttpUrl::read("http://me:p%40ss@host:8085/hook?token=abc").unwrap();
        assert_eq!(url.authorization.as_deref(), Some("Basic bWU6cEBzcw=="));
        assert_eq!((url.to_string(), format!("{url:?}")), {
            let shown = "http://host:8085/hook?...".to_owned();
            (shown.clone(), shown)
        });
    }
}
