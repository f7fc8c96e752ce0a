//! Heads of HTTP requests: whole at one place and no other, safe paths, and the same when written anew.
#![no_main]

use corecast::config::{Config, Proxies};
use corecast::proto::http::{Body, FIELDS_MAX, HEAD_BYTES_MAX, Head, HeadError, plain_response, query_value};
use corecast_fuzz::{bound, choice, seeds, within};
use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::{net::Ipv4Addr, sync::LazyLock};

fuzz_target!(init: seeds(heads), |data: &[u8]| {
    let (variant, data) = choice(data);
    let whole = within(bound(data.len()), || Head::read(data));
    // Once it is whole, or refused, it stays so, whatever comes behind.
    let mut decided = None;
    for cut in cuts(data.len(), variant) {
        let part = Head::read(&data[..cut]);
        match (&decided, &part) {
            (None, Ok(None)) => {}
            (None, _) => decided = Some(part),
            (Some(Ok(_)), _) => assert_eq!(Some(&part), decided.as_ref(), "cut at {cut}"),
            (Some(Err(_)), _) => assert!(part.is_err(), "refused and then taken at {cut}"),
        }
    }
    match whole {
        Ok(Some(head)) => check_head(&head, data),
        Ok(None) => assert!(data.len() < HEAD_BYTES_MAX),
        Err(error) => assert!(plain_response(error.status(), "", false, "", "").starts_with(b"HTTP/1.1 ")),
    }
});

static PROXIES: LazyLock<Proxies> = LazyLock::new(|| {
    let text = "listen 1; trusted_proxies 127.0.0.0/8 10.0.0.1 2001:db8::/32; vhost __defaultVhost__ { }";
    Config::parse("proxies", text).expect("a configuration").trusted_proxies
});

/// Each place where a head may be cut, or some of many; the end is the last.
fn cuts(len: usize, variant: u8) -> impl Iterator<Item = usize> {
    let step = 1 + len / 200;
    (0..len).skip(usize::from(variant) % step).step_by(step).chain([len])
}

fn check_head(head: &Head, data: &[u8]) {
    assert!(head.bytes <= data.len().min(HEAD_BYTES_MAX) && data[..head.bytes].ends_with(b"\n"));
    assert!(head.path.starts_with('/') || head.path == "*");
    assert!(!head.path.split('/').any(|level| level == ".."), "{:?}", head.path);
    assert!(!head.path.contains(|c: char| c.is_control() || c == '\\'), "{:?}", head.path);
    assert!(head.is_http11 || head.websocket_key.is_none());
    // Values of the query have no line ends that could get into a log or a header undecoded.
    assert!(!head.query.contains(|c: char| c.is_ascii_control() || c == ' '), "{:?}", head.query);
    assert!(query_value(&head.query, "vhost").is_none_or(|vhost| vhost.is_empty() || head.vhost() == vhost));
    let client = PROXIES.client_of(Ipv4Addr::LOCALHOST.into(), &head.forwarded_for);
    assert!(client.is_none_or(|client| client == client.to_canonical()));
    let written = write(head);
    let mut expected = head.clone();
    expected.bytes = written.len();
    if written.len() <= HEAD_BYTES_MAX {
        assert_eq!(Head::read(&written), Ok(Some(expected)), "{}", String::from_utf8_lossy(&written));
    }
}

/// A head as a client would write it.
fn write(head: &Head) -> Vec<u8> {
    let Head { method, path, query, host, is_http11, keep_alive, body, websocket_key, referer, .. } = head;
    let Head { forwarded_for, forwarded_by, foreign, range, if_none_match, if_range, accepts_gzip, .. } = head;
    let path = if path == "*" {
        "*".to_owned()
    } else {
        utf8_percent_encode(path, NON_ALPHANUMERIC).to_string().replace("%2F", "/")
    };
    let mark = if query.is_empty() { "" } else { "?" };
    let mut text = format!("{method} {path}{mark}{query} HTTP/1.{}\r\n", u8::from(*is_http11));
    if *is_http11 || !host.is_empty() {
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        text.push_str(&format!("Host: {host}\r\n"));
    }
    let mut connection = vec![if *keep_alive { "keep-alive" } else { "close" }];
    if let Some(key) = websocket_key {
        connection.push("upgrade");
        text.push_str(&format!("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"));
    }
    text.push_str(&format!("Connection: {}\r\n", connection.join(", ")));
    match body {
        Body::Length(0) => {}
        Body::Length(bytes) => text.push_str(&format!("Content-Length: {bytes}\r\n")),
        Body::Chunked => text.push_str("Transfer-Encoding: chunked\r\n"),
    }
    if !referer.is_empty() {
        text.push_str(&format!("Referer: {referer}\r\n"));
    }
    if !forwarded_for.is_empty() {
        text.push_str(&format!("X-Forwarded-For: {forwarded_for}\r\n"));
    }
    if !forwarded_by.is_empty() {
        text.push_str(&format!("Corecast-Forwarded-By: {forwarded_by}\r\n"));
    }
    for (name, value) in [("Range", range), ("If-None-Match", if_none_match), ("If-Range", if_range)] {
        if let Some(value) = value {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if *accepts_gzip {
        text.push_str("Accept-Encoding: gzip\r\n");
    }
    if *foreign {
        text.push_str("Sec-Fetch-Site: cross-site\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

fn heads() -> Vec<Vec<u8>> {
    let many = "a: b\r\n".repeat(FIELDS_MAX);
    let heads = [
        "GET /live/a%20b.flv?vhost=v&x=1 HTTP/1.1\r\nHost: Example.COM:8080\r\nReferer: http://p/\r\n\r\nmore"
            .to_owned(),
        "GET http://x/y#z HTTP/1.1\r\nHost: [::1]:80\r\n\r\n".to_owned(),
        "HEAD /a.flv?domain=d HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n".to_owned(),
        "GET /a.flv HTTP/1.1\r\nHost: h\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .to_owned(),
        "GET /a.flv HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 6.6.6.6, [2001:db8::1]:80\r\nX-Forwarded-For: 10.0.0.1\r\n\
         X-Real-IP: 192.0.2.1\r\nOrigin: http://other\r\n\r\n"
            .to_owned(),
        "POST /api/v1/raw HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\n\r\n".to_owned(),
        "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        "GET /%2e%2e/%5c HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\n{many}\r\n"),
    ];
    assert_eq!(Head::read(heads[9].as_bytes()), Err(HeadError::Host));
    heads.iter().map(|head| [&[0], head.as_bytes()].concat()).collect()
}
