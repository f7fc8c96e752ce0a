//! HTTP/1.1 (RFC 9112) as far as a live response needs it: request heads, and WebSocket (RFC 6455).
//!
//! A head is read strictly: what two parties could understand differently is refused, so that nothing can be
//! smuggled past whoever stands before or behind.

pub mod client;
pub mod live;
pub mod url;
pub mod websocket;

use percent_encoding::percent_decode_str;
use std::net::SocketAddr;

/// Most bytes of a request's head, its first line included.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// Most header fields of a request.
pub const FIELDS_MAX: usize = 64;

/// Where proxies say whom a request is from: a list, the last one nearest.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// The field by which servers that fetch a stream find that it goes round; ours.
pub const FORWARDED_BY: &str = "corecast-forwarded-by";
/// Most bytes of it that are kept.
const FORWARDED_BY_MAX: usize = 1 << 10;
/// The same of one proxy, in nginx's words.
const REAL_IP: &str = "x-real-ip";

/// Why a request cannot be served. Every variant is answered with its status and closes the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeadError {
    /// No request line and fields of HTTP/1 (RFC 9112 §3, §5).
    #[error("malformed request head")]
    Malformed,
    /// The target is no path of UTF-8, percent-encoded where need be.
    #[error("malformed request target")]
    Target,
    /// A request of HTTP/1.1 without exactly one Host (RFC 9112 §3.2).
    #[error("no Host, or several")]
    Host,
    /// Lengths that contradict each other or are no numbers (RFC 9112 §6.3): request smuggling.
    #[error("ambiguous length of the request's body")]
    Length,
    /// A transfer coding but chunked (RFC 9112 §6.1).
    #[error("transfer coding not supported")]
    Coding,
    /// Over [`HEAD_BYTES_MAX`] or [`FIELDS_MAX`].
    #[error("request head over {HEAD_BYTES_MAX} bytes or {FIELDS_MAX} fields")]
    TooLarge,
}

impl HeadError {
    /// The status of the answer, with its reason phrase.
    pub fn status(self) -> &'static str {
        match self {
            Self::Malformed | Self::Target | Self::Host | Self::Length => "400 Bad Request",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Coding => "501 Not Implemented",
        }
    }
}

/// How long a request's body is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Body {
    /// So many bytes, perhaps none.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// A request's head, as far as it decides what becomes of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Head {
    /// As it stands: methods are case-sensitive.
    pub method: String,
    /// Percent-decoded, from the first slash on.
    pub path: String,
    /// Behind the question mark, as it stands; empty if there is none.
    pub query: String,
    /// Without port and brackets; empty in HTTP/1.0 without Host.
    pub host: String,
    /// HTTP/1.1 rather than 1.0.
    pub is_http11: bool,
    /// Whether the connection outlives the answer.
    pub keep_alive: bool,
    /// What follows the head.
    pub body: Body,
    /// The key of a WebSocket handshake (RFC 6455 §4.2.1).
    pub websocket_key: Option<String>,
    /// Where the request comes from, in the page's words.
    pub referer: String,
    /// Whom the request is from, in a proxy's words: all of `X-Forwarded-For`, else `X-Real-IP`; mostly empty.
    pub forwarded_for: String,
    /// The marks of the servers that ask ([`FORWARDED_BY`]); mostly empty.
    pub forwarded_by: String,
    /// The part of what is there that is wanted (RFC 9110 §14.2), as it stands.
    pub range: Option<String>,
    /// Tags of what the client has (RFC 9110 §13.1.2), and of what `range` is of (§13.1.5), as they stand.
    pub if_none_match: Option<String>,
    /// See there.
    pub if_range: Option<String>,
    /// Whether the answer may be coded by gzip (§12.5.3).
    pub accepts_gzip: bool,
    /// Whether a page of another site has sent it, as far as a browser says.
    pub foreign: bool,
    /// Bytes of the head.
    pub bytes: usize,
}

impl Head {
    /// Reads a head from the front of `input`; `None` until it is whole.
    ///
    /// # Errors
    /// Any [`HeadError`].
    pub fn read(input: &[u8]) -> Result<Option<Self>, HeadError> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        let bytes = match request.parse(&input[..input.len().min(HEAD_BYTES_MAX)]) {
            Ok(httparse::Status::Complete(bytes)) => bytes,
            Ok(httparse::Status::Partial) if input.len() < HEAD_BYTES_MAX => return Ok(None),
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
            Err(_) => return Err(HeadError::Malformed),
        };
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
            return Err(HeadError::Malformed);
        };
        let is_http11 = version == 1;
        let fields = Fields(request.headers);
        let host = fields.host(is_http11)?;
        let body = fields.body()?;
        let (path, query) = split_target(target)?;
        let says = |word| fields.has("connection", word);
        let keep_alive = if is_http11 { !says("close") } else { says("keep-alive") };
        let upgrades = says("upgrade") && fields.has("upgrade", "websocket");
        // No other version has ever been one (RFC 6455 §4.1).
        let is_13 = fields.one("sec-websocket-version") == Some("13");
        let key = fields.one("sec-websocket-key").filter(|_| is_http11 && upgrades && is_13);
        let referer = fields.one("referer").unwrap_or_default().to_owned();
        let origin = fields.all("origin").next().map(|origin| std::str::from_utf8(origin).unwrap_or_default());
        let foreign = is_foreign(fields.one("sec-fetch-site"), origin, fields.one("host").unwrap_or_default());
        Ok(Some(Self {
            method: method.to_owned(),
            path,
            query,
            host,
            is_http11,
            keep_alive,
            body,
            websocket_key: key.map(str::to_owned),
            referer,
            forwarded_for: fields.forwarded_for(),
            forwarded_by: fields
                .one(FORWARDED_BY)
                .filter(|path| path.len() <= FORWARDED_BY_MAX)
                .unwrap_or_default()
                .to_owned(),
            range: fields.one("range").map(str::to_owned),
            if_none_match: fields.one("if-none-match").map(str::to_owned),
            if_range: fields.one("if-range").map(str::to_owned),
            accepts_gzip: fields.has("accept-encoding", "gzip"),
            foreign,
            bytes,
        }))
    }
}

impl Head {
    /// The host name that picks the vhost: the query's `vhost` or `domain`, else Host.
    pub fn vhost(&self) -> String {
        let mut named = ["vhost", "domain"].into_iter().filter_map(|name| query_value(&self.query, name));
        named.find(|vhost| !vhost.is_empty()).unwrap_or_else(|| self.host.clone())
    }

    /// Whether it could ask for a live stream: GET or HEAD without a body.
    pub fn is_plain_get(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD") && self.body == Body::Length(0)
    }
}

/// Whether a page of another site has sent a request, by its `Sec-Fetch-Site`, else by its `Origin` and Host. Whatever is no
/// browser has neither, and is not foreign.
pub fn is_foreign(site: Option<&str>, origin: Option<&str>, host: &str) -> bool {
    match (site, origin) {
        (Some(site), _) => matches!(site, "cross-site" | "same-site"),
        (None, None) => false,
        (None, Some(origin)) => !origin.split_once("://").is_some_and(|(_, name)| name.eq_ignore_ascii_case(host)),
    }
}

/// A whole response with a line of text, at `date`. `more` are header lines, each with its line end.
pub fn plain_response(status: &str, text: &str, keep_alive: bool, date: &str, more: &str) -> Vec<u8> {
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let length = text.len() + 1;
    format!(
        "HTTP/1.1 {status}\r\nServer: corecast\r\nDate: {date}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: {connection}\r\n{more}\r\n{text}\n"
    )
    .into_bytes()
}

struct Fields<'a>(&'a [httparse::Header<'a>]);

impl Fields<'_> {
    fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    fn one(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.all(name).next()?).ok().map(str::trim)
    }

    /// Whether a list has a word (RFC 9110 §5.6.1), in whatever case.
    fn has(&self, name: &str, word: &str) -> bool {
        let mut words = self.all(name).flat_map(|value| value.split(|byte| *byte == b','));
        words.any(|item| item.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    }

    fn forwarded_for(&self) -> String {
        let text = |list| std::str::from_utf8(list).unwrap_or("?").trim();
        let list: Vec<&str> = self.all(FORWARDED_FOR).map(text).collect();
        if list.is_empty() { self.one(REAL_IP).unwrap_or_default().to_owned() } else { list.join(",") }
    }

    fn host(&self, required: bool) -> Result<String, HeadError> {
        match (self.all("host").count(), self.one("host")) {
            (0, _) if !required => Ok(String::new()),
            (1, Some(host)) => {
                let host = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                    Some((v6, _)) => v6,
                    None => host.split(':').next().unwrap_or_default(),
                };
                let plain = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
                if host.chars().all(plain) { Ok(host.to_ascii_lowercase()) } else { Err(HeadError::Host) }
            }
            _ => Err(HeadError::Host),
        }
    }

    fn body(&self) -> Result<Body, HeadError> {
        let coded = self.all("transfer-encoding").count();
        let lengths = self.all("content-length").count();
        match (coded, lengths) {
            (0, 0) => Ok(Body::Length(0)),
            (0, 1) => {
                let digits = self.one("content-length").filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                digits.and_then(|digits| digits.parse().ok()).map(Body::Length).ok_or(HeadError::Length)
            }
            (1, 0) if self.one("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) => {
                Ok(Body::Chunked)
            }
            (1, 0) => Err(HeadError::Coding),
            _ => Err(HeadError::Length),
        }
    }
}

/// Path, decoded, and query of a request's target (RFC 9112 §3.2): in origin form, or in absolute form.
fn split_target(target: &str) -> Result<(String, String), HeadError> {
    let origin = match target.strip_prefix("http://").or_else(|| target.strip_prefix("https://")) {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    let origin = origin.split('#').next().unwrap_or_default();
    let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
    if !path.starts_with('/') && path != "*" {
        return Err(HeadError::Target);
    }
    let path = percent_decode_str(path).decode_utf8().map_err(|_| HeadError::Target)?;
    if path.contains(|c: char| c.is_control() || c == '\\') || path.split('/').any(|level| level == "..") {
        return Err(HeadError::Target);
    }
    Ok((path.into_owned(), query.to_owned()))
}

/// The bytes of `length` that a `Range` wants, as from and up to (RFC 9110 §14.1.2), empty if there are none such; `None`
/// is all, where it wants several parts or cannot be read.
pub fn range(text: &str, length: u64) -> Option<(u64, u64)> {
    let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
    let (from, to) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(length)),
        (Ok(first), Err(_)) if last.is_empty() => (first, length),
        (Err(_), Ok(suffix)) if first.is_empty() => (length.saturating_sub(suffix), length),
        _ => return None,
    };
    Some((from.min(to), to))
}

/// The value of `name` in a query, decoded; the first one if there are several.
pub fn query_value(query: &str, name: &str) -> Option<String> {
    let mut items = form_urlencoded::parse(query.trim_start_matches('?').as_bytes());
    items.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
}

/// An `http://`, `https://`, `ws://` or `wss://` URL, as a client takes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpUrl {
    /// Host and port as they stand.
    pub authority: String,
    /// Host name or address, without brackets.
    pub host: String,
    /// 80, or 443 with TLS, unless given.
    pub port: u16,
    /// Path and query.
    pub target: String,
    /// `ws://` or `wss://`.
    pub websocket: bool,
    /// `https://` or `wss://`.
    pub tls: bool,
}

impl HttpUrl {
    /// Parses a URL; `None` if it is no such thing.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (websocket, tls) = match scheme {
            "http" => (false, false),
            "https" => (false, true),
            "ws" => (true, false),
            "wss" => (true, true),
            _ => return None,
        };
        let usual = if tls { 443 } else { 80 };
        let slash = rest.find('/')?;
        let (authority, target) = rest.split_at(slash);
        let (host, port) = match authority.parse::<SocketAddr>() {
            Ok(address) => (address.ip().to_string(), address.port()),
            Err(_) => match authority.split_once(':') {
                Some((host, port)) => (host.to_owned(), port.parse().ok()?),
                None => (authority.to_owned(), usual),
            },
        };
        let (authority, target) = (authority.to_owned(), target.to_owned());
        (!host.is_empty()).then_some(Self { authority, host, port, target, websocket, tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Head>, HeadError> {
        Head::read(text.as_bytes())
    }

    fn good(text: &str) -> Head {
        read(text).unwrap().unwrap()
    }

    #[test]
    fn heads_are_read_at_every_split() {
        let text =
            "GET /live/a%20b.flv?vhost=v&x=1 HTTP/1.1\r\nHost: Example.COM:8080\r\nReferer: http://p/\r\n\r\nmore";
        let whole = text.len() - 4;
        for cut in 0..whole {
            assert_eq!(read(&text[..cut]), Ok(None), "cut at {cut}");
        }
        let head = good(text);
        assert_eq!(
            (head.method.as_str(), head.path.as_str(), head.query.as_str()),
            ("GET", "/live/a b.flv", "vhost=v&x=1")
        );
        assert_eq!((head.host.as_str(), head.bytes, head.keep_alive), ("example.com", whole, true));
        assert_eq!(query_value(&head.query, "vhost").as_deref(), Some("v"));
        assert_eq!(good("GET http://x/y HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").host, "::1");
        assert!(
            !good("GET / HTTP/1.0\r\n\r\n").keep_alive
                && !good("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").keep_alive
        );
    }

    /// A word of a list is all that stands between two commas.
    #[test]
    fn lists_are_of_words() {
        let keeps = |connection: &str| {
            good(&format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: {connection}\r\n\r\n")).keep_alive
        };
        assert!(keeps("x-close") && keeps("closed, upgrade") && keeps("") && keeps("\u{e9}"));
        assert!(!keeps("close") && !keeps("upgrade ,\tCLOSE"));
        let upgrades = "Upgrade: websocket-2\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: k==";
        let head = good(&format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\n{upgrades}\r\n\r\n"));
        assert_eq!(head.websocket_key, None);
    }

    #[test]
    fn websocket_handshakes_are_known() {
        let head = good(
            "GET /a.flv HTTP/1.1\r\nHost: h\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: k==\r\n\r\n",
        );
        assert_eq!(head.websocket_key.as_deref(), Some("k=="));
    }

    /// What two parties could read differently.
    #[test]
    fn ambiguous_requests_are_refused() {
        let with = |fields: &str| read(&format!("POST /x HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
        for fields in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(with(fields), Err(HeadError::Length), "{fields}");
        }
        assert_eq!(with("Transfer-Encoding: gzip, chunked\r\n"), Err(HeadError::Coding));
        assert_eq!(with("Host: other\r\n"), Err(HeadError::Host));
        assert_eq!(with("X: a\r\n b\r\n"), Err(HeadError::Malformed), "a folded line");
        assert_eq!(with("X : a\r\n"), Err(HeadError::Malformed), "a space before the colon");
        assert_eq!(read("GET / HTTP/1.1\r\n\r\n"), Err(HeadError::Host));
        assert_eq!(read("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Err(HeadError::Malformed));
        for target in ["/../etc/passwd", "/a/%2e%2e/b", "/a%5cb", "/%00", "/%ff.flv", "nothing"] {
            assert_eq!(read(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")), Err(HeadError::Target), "{target}");
        }
    }

    #[test]
    fn heads_have_limits() {
        let line = format!("GET /{} HTTP/1.1\r\n", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(read(&line), Err(HeadError::TooLarge));
        let fields = "a: b\r\n".repeat(FIELDS_MAX + 1);
        assert_eq!(read(&format!("GET / HTTP/1.1\r\n{fields}\r\n")), Err(HeadError::TooLarge));
    }

    #[test]
    fn urls_of_clients() {
        let url = HttpUrl::parse("http://[::1]:8080/live/a.flv?b=c").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.target.as_str()), ("::1", 8080, "/live/a.flv?b=c"));
        assert!(HttpUrl::parse("ws://h/a").unwrap().websocket);
        assert_eq!(HttpUrl::parse("wss://h/a").map(|url| (url.port, url.tls)), Some((443, true)));
        for bad in ["rtmp://h/a", "http://h", "http:///a", "http://h:port/a"] {
            assert_eq!(HttpUrl::parse(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        /// No input panics.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            drop(Head::read(&bytes));
            drop(Head::read(&[b"GET /a?b HTTP/1.1\r\nHost: h\r\n", &bytes[..], b"\r\n\r\n"].concat()));
        }
    }
}
