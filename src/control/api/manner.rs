//! How a request wants to be answered: SRS's way, with HTTP's statuses, or as a script for a page (JSONP).

use crate::{
    config::HttpApi,
    control::{
        content::Content,
        reply::{Reply, Wrong, code, failure, json_text, method_not_allowed, wrong},
    },
    proto::http::query_value,
};
use hyper::{Method, StatusCode, header, http::request::Parts};

/// Asks for HTTP's own statuses (RFC 9457).
const PROBLEM: &str = "application/problem+json";
/// Longest name of a function that an answer is handed to.
const CALLBACK_BYTES_MAX: usize = 128;

/// Entries of a list where the request names no `count`, as in SRS.
const COUNT: usize = 10;
/// SRS's greatest integer.
const NUMBER_MAX: usize = i32::MAX as usize;

/// See the module.
pub(super) struct Manner {
    /// Errors have HTTP's statuses; SRS's have 200, and `code` in the body.
    pub(super) statuses: bool,
    /// A script can only GET: its query says what it means.
    pub(super) method: Method,
    callback: Option<String>,
}

impl Manner {
    /// # Errors
    /// A function's name that is none.
    pub(super) fn of(head: &Parts, api: &HttpApi) -> Result<Self, Wrong> {
        let query = head.uri.query().unwrap_or_default();
        let callback = query_value(query, "callback").filter(|name| !name.is_empty() && may_be_script(head, api));
        if callback.as_ref().is_some_and(|name| !is_callback(name)) {
            return Err(wrong(StatusCode::BAD_REQUEST, code::BAD_REQUEST, "callback must be a function's name"));
        }
        let is_script = callback.is_some() && head.method == Method::GET;
        let meant = if is_script { query_value(query, "method") } else { None };
        let method = match meant.as_deref() {
            Some("GET") => Method::GET,
            Some("POST") => Method::POST,
            Some("PUT") => Method::PUT,
            Some("DELETE") => Method::DELETE,
            _ => head.method.clone(),
        };
        let accepted = head.headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let statuses = callback.is_none() && accepted.into_iter().any(|value| value.contains(PROBLEM));
        Ok(Self { statuses, method, callback })
    }

    /// Whether the method only asks.
    pub(super) fn asks(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// `start` and `count` of a list: read as C's `atoi` reads, as SRS does, unless they must be numbers.
    pub(super) fn page(&self, query: &str) -> Result<(usize, usize), Wrong> {
        let strict = self.statuses;
        let number = |name: &str, default: usize, least: usize| {
            let Some(text) = query_value(query, name).filter(|text| strict || !text.is_empty()) else {
                return Ok(default);
            };
            let trimmed = text.trim_start().strip_prefix('+').unwrap_or(text.trim_start());
            let end = trimmed.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(trimmed.len());
            // What is no number is 0; what is too long for one is the greatest.
            let number = if end == 0 { 0 } else { trimmed[..end].parse().unwrap_or(usize::MAX) };
            let is_number = end > 0 && end == text.len() && (least..=NUMBER_MAX).contains(&number);
            if strict && !is_number {
                let why = format!("{name} must be a number from {least} to {NUMBER_MAX}");
                return Err(wrong(StatusCode::BAD_REQUEST, code::BAD_REQUEST, why));
            }
            Ok(number.clamp(least, NUMBER_MAX))
        };
        Ok((number("start", 0, 0)?, number("count", COUNT, 1)?))
    }

    /// The answer to a request that goes wrong.
    pub(super) fn failure(&self, wrong: Wrong) -> Reply {
        let Wrong(status, code, message) = wrong;
        // SRS has no shards that could be silent: whoever watches the server sees it by the status. So is who may not.
        let is_plain = !self.statuses && status != StatusCode::SERVICE_UNAVAILABLE && code != code::FORBIDDEN;
        let mut reply = failure(&Wrong(if is_plain { StatusCode::OK } else { status }, code, message));
        if self.statuses && code != code::FORBIDDEN {
            reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(PROBLEM));
        }
        reply
    }

    /// Makes a script of an answer if it was asked for as one.
    pub(super) fn dress(&self, reply: Reply) -> Reply {
        let Some(callback) = &self.callback else { return reply };
        match reply.into_parts() {
            (head, Content::Whole(body)) => {
                let text = format!("{callback}({})", String::from_utf8_lossy(&body));
                let mut script = json_text(head.status, text);
                let kind = header::HeaderValue::from_static("text/javascript; charset=utf-8");
                script.headers_mut().insert(header::CONTENT_TYPE, kind);
                script
            }
            (head, content @ Content::File(..)) => Reply::from_parts(head, content),
        }
    }
}

/// SRS's rule.
fn is_callback(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.len() <= CALLBACK_BYTES_MAX && name.bytes().all(fits)
}

/// Whether a page may have answers as scripts. Browsers run a script of any site, with the name and password that
/// they know for it: so the page must be this server's own, or all may and nothing is to be proved.
fn may_be_script(head: &Parts, api: &HttpApi) -> bool {
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let is_own = match (text("sec-fetch-site"), text("referer"), text("host")) {
        (Some(site), ..) => site == "same-origin",
        (None, Some(page), Some(host)) => {
            page.split_once("://").is_some_and(|(_, rest)| rest.split('/').next() == Some(host))
        }
        (None, ..) => false,
    };
    is_own || (api.crossdomain && api.auth.is_none())
}

/// What one may do with a path.
#[derive(Clone, Copy)]
pub(super) enum Methods {
    Get,
    /// SRS looks at no method here.
    Any,
    Delete,
    Change,
}

/// The answer to a method that is not for a path.
pub(super) fn refusal(manner: &Manner, methods: Methods) -> Option<Reply> {
    let fits = match methods {
        Methods::Get => false,
        Methods::Any => matches!(manner.method, Method::POST | Method::PUT),
        Methods::Delete => manner.method == Method::DELETE,
        Methods::Change => matches!(manner.method, Method::POST | Method::DELETE),
    };
    let allow = match methods {
        Methods::Get => "GET, HEAD",
        Methods::Any => "GET, HEAD, POST, PUT",
        Methods::Delete => "GET, HEAD, DELETE",
        Methods::Change => "GET, HEAD, POST, DELETE",
    };
    (!fits && !manner.asks()).then(|| method_not_allowed(allow))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Auth;

    fn manner(query: &str, fields: &[(&str, &str)], api: &HttpApi) -> Result<Manner, Wrong> {
        let mut request = hyper::Request::get(format!("/api/v1/versions?{query}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        Manner::of(&request.body(()).unwrap().into_parts().0, api)
    }

    #[test]
    fn scripts_are_for_own_pages_or_for_all() {
        let own = HttpApi::default();
        let all = HttpApi { crossdomain: true, ..HttpApi::default() };
        let proved = HttpApi { auth: Some(Auth { basic: None, token: None }), ..all.clone() };
        let page = |site| [("sec-fetch-site", site)];
        let is_script = |fields: &[(&str, &str)], api| {
            manner("callback=f", fields, api).is_ok_and(|manner| manner.callback.is_some())
        };
        assert!(
            is_script(&page("same-origin"), &own) && !is_script(&page("cross-site"), &own) && !is_script(&[], &own)
        );
        assert!(is_script(&page("cross-site"), &all) && is_script(&[], &all));
        assert!(is_script(&page("same-origin"), &proved) && !is_script(&page("cross-site"), &proved));
        assert!(is_script(&[("host", "h:8080"), ("referer", "http://h:8080/console/")], &proved));
        assert!(!is_script(&[("host", "h:8080"), ("referer", "http://evil/h:8080/")], &proved));
    }

    #[test]
    fn a_script_says_its_method_and_nothing_else_does() {
        let all = HttpApi { crossdomain: true, ..HttpApi::default() };
        let method = |query: &str| manner(query, &[], &all).ok().map(|manner| manner.method);
        assert_eq!(method("callback=a.b_c-1&method=DELETE"), Some(Method::DELETE));
        assert_eq!((method("method=DELETE"), method("callback=f&method=X")), (Some(Method::GET), Some(Method::GET)));
        assert_eq!((method("callback=f()"), method(&format!("callback={}", "f".repeat(200)))), (None, None));
        assert!(manner("", &[("accept", "text/html, application/problem+json;q=0.5")], &all).is_ok_and(|m| m.statuses));
    }
}
