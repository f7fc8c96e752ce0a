//! What the API says without asking a shard: what there is, what this is, and what was asked.

use super::model::Version;
use crate::{
    config::{Config, Listen, Service},
    control::{openapi, system},
    proto::{
        address::{authority, split_port},
        http::query_value,
    },
};
use hyper::{Method, header, http::request::Parts};
use serde_json::{Map, Value, json};

/// What lies under the root, `/api/` and `/api/v1/`.
pub(super) fn urls(levels: usize) -> Map<String, Value> {
    match levels {
        0 => [("api".to_owned(), json!("the api root"))].into_iter().collect(),
        1 => [("v1".to_owned(), json!("the api version 1.0"))].into_iter().collect(),
        _ => openapi::NAMES.iter().map(|(name, about)| ((*name).to_owned(), json!(about))).collect(),
    }
}

/// What lies under `/api/v1/tests/`.
pub(super) fn tests() -> Value {
    json!({
        "requests": "show the request info",
        "errors": "always return an error 100",
        "redirects": "always redirect to /api/v1/tests/errors",
    })
}

pub(super) fn version() -> Version {
    let number = |text: &str| text.parse().unwrap_or(0);
    Version {
        major: number(env!("CARGO_PKG_VERSION_MAJOR")),
        minor: number(env!("CARGO_PKG_VERSION_MINOR")),
        revision: number(env!("CARGO_PKG_VERSION_PATCH")),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        product: "corecast",
    }
}

/// Where a stream is published, as SRS's origins tell each other; `origin` is null if it is not here.
pub(super) fn cluster(config: &Config, query: &str, is_published: impl Fn(&str) -> bool) -> Value {
    let text = |name| query_value(query, name).unwrap_or_default();
    let (ip, vhost, app, stream) = (text("ip"), text("vhost"), text("app"), text("stream"));
    let coworker = text("coworker");
    let found = config.vhost(&vhost).filter(|found| is_published(&format!("{}/{app}/{stream}", found.name)));
    let origin = found.map(|found| {
        let listen = config.listen.first().map(|listen| listen.address);
        // Where it listens everywhere, or for itself alone, whoever asks knows it by the better name.
        let own = listen.filter(|listen| !listen.ip().is_unspecified() && !listen.ip().is_loopback());
        let host = own.map_or_else(|| split_port(&coworker).0.to_owned(), |own| own.ip().to_string());
        let api = config.api.listen.first().or(config.http.listen.first()).map_or(0, |api| api.address.port());
        let api = authority(&host, api);
        json!({
            "ip": host,
            "port": listen.map_or(0, |listen| listen.port()),
            "vhost": found.name,
            "api": api,
            "routers": [api],
        })
    });
    json!({ "query": { "ip": ip, "vhost": vhost, "app": app, "stream": stream }, "origin": origin })
}

/// Figures of a moment, as SRS marks them.
pub(super) fn sampled(mut figures: Map<String, Value>) -> Value {
    figures.insert("ok".to_owned(), json!(true));
    figures.insert("sample_time".to_owned(), json!(system::unix_ms()));
    Value::Object(figures)
}

pub(super) fn authors() -> Value {
    json!({ "license": env!("CARGO_PKG_LICENSE"), "contributors": "the corecast authors" })
}

pub(super) fn features(config: &Config) -> Value {
    let on = [
        "ssl",
        "callback",
        "api",
        "httpd",
        "transcode",
        "ingest",
        "stat",
        "complex_send",
        "tcp_nodelay",
        "so_sendbuf",
        "mr",
        "rtmps",
        "http_remux",
        "websocket_flv",
        "http_api",
        "http_hooks",
        "exporter",
        "enhanced_rtmp",
        "forward",
        "hls",
        "dvr",
    ];
    let off = ["hds", "dash", "srt", "rtc", "caster", "edge"];
    let list = on.map(|name| (name, true)).into_iter().chain(off.map(|name| (name, false)));
    let features: Map<String, Value> = list.map(|(name, has)| (name.to_owned(), json!(has))).collect();
    let listen: Vec<Value> = config.endpoints().map(describe).collect();
    let built_s = system::built_s();
    json!({
        "options": "",
        "options2": "",
        "build": system::date(built_s),
        "build2": built_s.to_string(),
        "features": features,
        "listen": listen,
    })
}

/// An endpoint, for whoever makes URLs of it.
fn describe(listen: &Listen) -> Value {
    let service = match listen.service {
        Service::Rtmp => "rtmp",
        Service::Http => "http",
        Service::Api => "api",
        Service::Exporter => "exporter",
    };
    json!({ "service": service, "tls": listen.tls, "ip": listen.address.ip(), "port": listen.address.port() })
}

/// What a request was, for whoever wants to see it; not what it proves itself with.
///
/// SRS means to tell of itself beside the headers, and writes that over them: here is both.
pub(super) fn request(head: &Parts, method: &Method) -> Value {
    let shown = head.headers.iter().filter(|(name, _)| *name != header::AUTHORIZATION);
    let mut headers: Map<String, Value> = shown
        .map(|(name, value)| (name.as_str().to_owned(), json!(String::from_utf8_lossy(value.as_bytes()))))
        .collect();
    let host = headers.get("host").and_then(Value::as_str).unwrap_or_default();
    // Without its port, as SRS has it; colons stand in an IPv6 address too.
    let host = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(name, _)| name);
    let uri = format!("http://{host}{}", head.uri.path());
    let server = [
        ("sigature", json!("corecast")),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("link", json!(env!("CARGO_PKG_REPOSITORY"))),
        ("time", json!(system::unix_ms())),
    ];
    headers.extend(server.map(|(name, value)| (name.to_owned(), value)));
    json!({ "uri": uri, "path": head.uri.path(), "METHOD": method.as_str(), "headers": headers })
}

/// SRS's answer to `rpc=raw`.
pub(super) fn raw_state(config: &Config) -> Value {
    let api = &config.api;
    let may = json!({
        "enabled": api.raw,
        "allow_reload": api.allow_reload,
        "allow_query": false,
        "allow_update": false,
    });
    let listen = api.listen.first().map(|listen| listen.address.to_string()).unwrap_or_default();
    json!({ "enabled": api.enabled, "listen": listen, "crossdomain": api.crossdomain, "raw_api": may })
}
