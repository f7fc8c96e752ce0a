//! Answers of the control plane, and how it says what is wrong.

use super::{auth::Denied, content::Content, shards::Silent};
use bytes::Bytes;
use hyper::{HeaderMap, Response, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

/// SRS's numbers of what goes wrong.
pub(super) mod code {
    /// Of SRS's test.
    pub(in crate::control) const TEST: u32 = 100;
    pub(in crate::control) const FORBIDDEN: u32 = 1000;
    pub(in crate::control) const NO_SUCH_PATH: u32 = 1001;
    pub(in crate::control) const BAD_REQUEST: u32 = 1002;
    pub(in crate::control) const BUSY: u32 = 1003;
    pub(in crate::control) const RAW_DISABLED: u32 = 1061;
    pub(in crate::control) const RAW_FAILED: u32 = 1060;
    pub(in crate::control) const NO_VHOST: u32 = 2014;
    pub(in crate::control) const NO_STREAM: u32 = 2048;
    pub(in crate::control) const NO_CLIENT: u32 = 2049;
}

pub(super) type Reply = Response<Content>;

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct Failure {
    /// SRS's number of it.
    pub(in crate::control) code: u32,
    /// In words.
    pub(in crate::control) message: String,
}

/// A request that goes wrong.
pub(super) struct Wrong(pub(super) StatusCode, pub(super) u32, pub(super) String);

impl From<Silent> for Wrong {
    fn from(silent: Silent) -> Self {
        wrong(StatusCode::SERVICE_UNAVAILABLE, code::BUSY, silent.to_string())
    }
}

impl From<Denied> for Wrong {
    fn from(denied: Denied) -> Self {
        wrong(denied.status, code::FORBIDDEN, denied.why)
    }
}

pub(super) fn wrong(status: StatusCode, code: u32, message: impl Into<String>) -> Wrong {
    Wrong(status, code, message.into())
}

pub(super) fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Content::from(body.into()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::SERVER, header::HeaderValue::from_static("corecast"));
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    reply
}

pub(super) fn json_text(status: StatusCode, text: String) -> Reply {
    reply(status, "application/json", text)
}

pub(super) fn failure(Wrong(status, code, message): &Wrong) -> Reply {
    let text = serde_json::to_string(&Failure { code: *code, message: message.clone() }).unwrap_or_default();
    let mut reply = json_text(*status, text);
    if *status == StatusCode::UNAUTHORIZED {
        let challenge = header::HeaderValue::from_static("Basic realm=\"corecast\", charset=\"UTF-8\"");
        reply.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    reply
}

pub(super) fn method_not_allowed(allow: &'static str) -> Reply {
    let mut reply = failure(&wrong(StatusCode::METHOD_NOT_ALLOWED, code::BAD_REQUEST, format!("allowed: {allow}")));
    reply.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allow));
    reply
}

/// SRS's answer to whoever is to go elsewhere.
pub(super) fn redirect(to: &str, query: &str) -> Reply {
    let to = if query.is_empty() { to.to_owned() } else { format!("{to}?{query}") };
    let mut reply = reply(StatusCode::MOVED_PERMANENTLY, "text/plain; charset=utf-8", format!("Redirect to {to}"));
    if let Ok(to) = header::HeaderValue::from_str(&to) {
        reply.headers_mut().insert(header::LOCATION, to);
    }
    reply
}

pub(super) fn allow_origins(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, header::HeaderValue::from_static("*"));
}

pub(super) fn preflight() -> Reply {
    let mut reply = reply(StatusCode::OK, "text/plain", Bytes::new());
    let headers = reply.headers_mut();
    allow_origins(headers);
    let methods = header::HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    // The asterisk does not stand for Authorization.
    let wanted = header::HeaderValue::from_static("Authorization, *");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, header::HeaderValue::from_static("86400"));
    reply
}
