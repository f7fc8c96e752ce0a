//! What `http_server` serves beside streams: its `dir`, and the page, whose files are embedded.

use super::{
    files,
    reply::{Reply, allow_origins, method_not_allowed, preflight},
};
use crate::config::HttpServer;
use bytes::Bytes;
use http_body_util::Full;
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
];

/// What the page may load: itself, and streams from wherever they are.
const POLICY: &str = "default-src 'self'; connect-src *; media-src blob: *; worker-src 'self' blob:; img-src 'self' data:; frame-ancestors 'self'; base-uri 'none'";

/// Answers with a file.
pub(super) fn respond(head: &Parts, server: &HttpServer) -> Reply {
    let crossdomain = server.crossdomain;
    if head.method == Method::OPTIONS && crossdomain {
        return preflight();
    }
    if head.method != Method::GET && head.method != Method::HEAD {
        return method_not_allowed("GET, HEAD");
    }
    let path = head.uri.path();
    let embedded = || {
        let page = if matches!(path, "/" | "/page/" | "/page") { "/index.html" } else { path };
        let (path, content) = FILES.iter().find(|(known, _)| *known == page)?;
        Some((files::content_type(Path::new(path)), Bytes::from_static(content)))
    };
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let own = files::read(&server.dir, &decoded);
    let is_ours = own.is_none();
    let Some((content_type, content)) = own.or_else(embedded) else {
        let mut reply = text(StatusCode::NOT_FOUND, "there is nothing here, and no stream of this name\n");
        if crossdomain {
            allow_origins(reply.headers_mut());
        }
        return reply;
    };
    let tag = entity_tag(&content);
    let known = head.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let unchanged = known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag || known.trim() == "*"));
    let mut reply = if unchanged { text(StatusCode::NOT_MODIFIED, "") } else { Response::new(Full::new(content)) };
    let headers = reply.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static("corecast"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if is_ours {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    }
    for (name, value) in [(header::CONTENT_TYPE, &*content_type), (header::ETAG, &*tag)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    reply
}

fn text(status: StatusCode, text: &'static str) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    reply
}

fn entity_tag(content: &[u8]) -> String {
    format!("\"{}\"", hex::encode(&Sha256::digest(content)[..8]))
}
