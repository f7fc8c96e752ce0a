//! What `http_server` serves beside streams: its `dir`, and the page, whose files are embedded.

use super::{
    files,
    reply::{Reply, allow_origins, method_not_allowed, preflight},
};
use crate::config::{Config, Files};
use bytes::Bytes;
use hyper::{Method, Response, StatusCode, header, header::HeaderValue, http::request::Parts};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Path, content.
const FILES: &[(&str, &[u8])] = &[
    ("/index.html", include_bytes!("page/index.html")),
    ("/page/style.css", include_bytes!("page/style.css")),
    ("/page/app.js", include_bytes!("page/app.js")),
    ("/page/charts.js", include_bytes!("page/charts.js")),
    ("/page/player.js", include_bytes!("page/player.js")),
    ("/page/mpegts.js", include_bytes!(concat!(env!("OUT_DIR"), "/mpegts.js"))),
    ("/page/hls.js", include_bytes!(concat!(env!("OUT_DIR"), "/hls.js"))),
    ("/page/dash.js", include_bytes!(concat!(env!("OUT_DIR"), "/dash.js"))),
    ("/page/licences.txt", include_bytes!(concat!(env!("OUT_DIR"), "/licences.txt"))),
];

/// What the page may load: itself, and streams from wherever they are.
const POLICY: &str = "default-src 'self'; connect-src *; media-src blob: *; worker-src 'self' blob:; img-src 'self' data:; frame-ancestors 'self'; base-uri 'none'";

/// Answers with a file.
pub(super) fn respond(head: &Parts, config: &Config) -> Reply {
    let crossdomain = config.http.crossdomain;
    if head.method == Method::OPTIONS && crossdomain {
        return preflight();
    }
    if head.method != Method::GET && head.method != Method::HEAD {
        return method_not_allowed("GET, HEAD");
    }
    let decoded = percent_decode_str(head.uri.path()).decode_utf8_lossy();
    let own = match config.files(&host_of(head), &decoded) {
        Files::In(dir, path) => files::open(dir, path).map(|found| found.respond(&head.headers)),
        Files::Behind(mount) => Some(redirect(mount)),
        Files::Nowhere => None,
    };
    let mut reply = match own {
        Some(reply) => reply,
        None => embedded(head).unwrap_or_else(|| {
            let mut reply = text(StatusCode::NOT_FOUND, "there is nothing here, and no stream of this name\n");
            if crossdomain {
                allow_origins(reply.headers_mut());
            }
            reply
        }),
    };
    let headers = reply.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static("corecast"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// The host name that a request is for, without its port.
fn host_of(head: &Parts) -> String {
    let field = || head.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let host = head.uri.authority().map(|authority| authority.as_str()).or_else(field).unwrap_or_default();
    let name = if host.starts_with('[') { host.split_inclusive(']').next() } else { host.split(':').next() };
    name.unwrap_or_default().to_owned()
}

fn redirect(mount: &str) -> Reply {
    let mut reply = text(StatusCode::FOUND, "");
    if let Ok(value) = HeaderValue::from_str(mount) {
        reply.headers_mut().insert(header::LOCATION, value);
    }
    reply
}

/// A file of the page.
fn embedded(head: &Parts) -> Option<Reply> {
    let path = head.uri.path();
    let page = if matches!(path, "/" | "/page/" | "/page") { "/index.html" } else { path };
    let (path, content) = FILES.iter().find(|(known, _)| *known == page)?;
    let content = Bytes::from_static(content);
    let tag = entity_tag(&content);
    let known = head.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let unchanged = known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag || known.trim() == "*"));
    let mut reply = if unchanged { text(StatusCode::NOT_MODIFIED, "") } else { Response::new(content.into()) };
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    for (name, value) in [(header::CONTENT_TYPE, &*files::content_type(Path::new(path))), (header::ETAG, &*tag)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    Some(reply)
}

fn text(status: StatusCode, text: &'static str) -> Reply {
    let mut reply = Response::new(Bytes::from_static(text.as_bytes()).into());
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}

fn entity_tag(content: &[u8]) -> String {
    format!("\"{}\"", hex::encode(&Sha256::digest(content)[..8]))
}
