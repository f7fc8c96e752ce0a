//! Servers that an edge has its streams from, and takes its publishes to: as targets, whatever is spoken there.

use crate::{
    config::{Origin, Protocol},
    core::port::{HANDSHAKE_MS_MAX, IO_MS_MAX, Request, Target, Way},
    proto::{address::authority, http::HttpUrl, rtmp::url::RtmpUrl},
};

/// Origins of one vhost that are tried.
const ORIGINS_MAX: usize = 64;

/// Where a stream of an edge is to be had from, or taken to; or the one server that has it.
pub(crate) fn targets(request: &Request, way: Way, by_flv: bool, path: &str, place: Option<&Origin>) -> Vec<Target> {
    let cluster = &request.vhost.cluster;
    let origins = place.map_or(&*cluster.origins, std::slice::from_ref);
    let protocol = match (way, cluster.protocol) {
        _ if place.is_some() => Protocol::Rtmp,
        (Way::Fetch, Protocol::Rtmp) if cluster.follow_client && by_flv => Protocol::Flv,
        (Way::Fetch | Way::Ask, protocol) => protocol,
        (Way::Forward | Way::Relay, Protocol::Rtmps) => Protocol::Rtmps,
        (Way::Forward | Way::Relay, Protocol::Rtmp | Protocol::Flv | Protocol::Flvs) => Protocol::Rtmp,
    };
    let one = origins.len() == 1;
    let target = |origin: &Origin| {
        let (host, port) = (&origin.host, origin.port.unwrap_or(protocol.default_port()));
        let (scheme, url) = match protocol {
            Protocol::Rtmp => ("rtmp", rtmp_url(request, host, port, false).to_string()),
            Protocol::Rtmps => ("rtmps", rtmp_url(request, host, port, true).to_string()),
            Protocol::Flv => ("http", flv_url(request, "http", host, port)),
            Protocol::Flvs => ("https", flv_url(request, "https", host, port)),
        };
        Target {
            way,
            request: request.clone(),
            host: host.clone(),
            port,
            tls: protocol.is_tls(),
            url,
            name: format!("{scheme}://{}/{}", authority(host, port), request.address.app),
            path: path.to_owned(),
            patience_ms: cluster.timeout_ms.min(HANDSHAKE_MS_MAX),
            // Where there are others, one of them may have it.
            wait_ms: if one { IO_MS_MAX } else { cluster.timeout_ms },
        }
    };
    origins.iter().take(ORIGINS_MAX).map(target).collect()
}

/// Where a stream is fetched from whose URLs are written down.
pub(crate) fn by_urls(request: &Request, urls: &[String], path: &str) -> Vec<Target> {
    let cluster = &request.vhost.cluster;
    let (patience_ms, one) = (cluster.timeout_ms.min(HANDSHAKE_MS_MAX), urls.len() == 1);
    let wait_ms = if one { IO_MS_MAX } else { cluster.timeout_ms };
    let target = |url: &String| {
        let (host, port, tls, path_there) = match HttpUrl::parse(url) {
            Some(http) => (http.host, http.port, http.tls, http.target),
            None => RtmpUrl::parse(url).ok().map(|rtmp| (rtmp.host, rtmp.port, rtmp.tls, format!("/{}", rtmp.app)))?,
        };
        let scheme = url.split("://").next().unwrap_or_default();
        // What may be secret stands in the query, and in names.
        let path_there = path_there.split('?').next().unwrap_or_default();
        Some(Target {
            way: Way::Fetch,
            request: request.clone(),
            name: format!("{scheme}://{}{path_there}", authority(&host, port)),
            host,
            port,
            tls,
            url: url.clone(),
            path: path.to_owned(),
            patience_ms,
            wait_ms,
        })
    };
    urls.iter().take(ORIGINS_MAX).filter_map(target).collect()
}

/// A stream's URL at another server, for a player: its vhost stands in the query.
pub(crate) fn url_at(request: &Request, place: &Origin) -> String {
    let address = &request.address;
    let at = authority(&place.host, place.port.unwrap_or(Protocol::Rtmp.default_port()));
    let url = format!("rtmp://{at}/{}/{}{}", address.app, address.stream, address.param);
    with_vhost(url, request)
}

/// The same stream where a target has sent us; `None` if that is no URL of its protocol.
pub(crate) fn redirected(target: &Target, url: &str) -> Option<Target> {
    let again = |host: &str, port, tls, url: String, name: String| Target {
        host: host.to_owned(),
        port,
        tls,
        url,
        name,
        ..target.clone()
    };
    // A path alone is of the same server (RFC 9110 §10.2.2).
    let absolute = if is_http(&target.url) && url.starts_with('/') && !url.starts_with("//") {
        let scheme = if target.tls { "https" } else { "http" };
        format!("{scheme}://{}{url}", authority(&target.host, target.port))
    } else {
        url.to_owned()
    };
    let url = absolute.as_str();
    if let Some(http) = HttpUrl::parse(url).filter(|_| is_http(&target.url)) {
        let scheme = if http.tls { "https" } else { "http" };
        let name = format!("{scheme}://{}/{}", authority(&http.host, http.port), target.request.address.app);
        return Some(again(&http.host, http.port, http.tls, url.to_owned(), name));
    }
    let known = RtmpUrl::parse(&target.url).ok()?;
    let mut found = RtmpUrl::parse(url).ok()?;
    // It may be the app's alone.
    let whole = if found.app.is_empty() { found.stream.clone() } else { format!("{}/{}", found.app, found.stream) };
    if whole == known.app.split('?').next().unwrap_or_default() {
        (found.app, found.stream) = (known.app.clone(), known.stream.clone());
    }
    // A vhost goes on by tcUrl's host, and tokens in the query.
    if !found.stream.contains('?')
        && let Some((_, query)) = known.stream.split_once('?')
    {
        found.stream = format!("{}?{query}", found.stream);
    }
    let scheme = if found.tls { "rtmps" } else { "rtmp" };
    let name = format!("{scheme}://{}/{}", authority(&found.host, found.port), target.request.address.app);
    let (host, port, tls) = (found.host.clone(), found.port, found.tls);
    Some(again(&host, port, tls, found.to_string(), name))
}

pub(super) fn is_http(url: &str) -> bool {
    url.starts_with("http")
}

/// As SRS has it: a vhost stands as tcUrl's host.
fn rtmp_url(request: &Request, host: &str, port: u16, tls: bool) -> RtmpUrl {
    let host = request.vhost.cluster.vhost_there(&request.vhost.name).unwrap_or_else(|| host.to_owned());
    let (app, stream) = (request.address.app.clone(), format!("{}{}", request.address.stream, request.address.param));
    RtmpUrl { tls, host, port, app, stream }
}

fn flv_url(request: &Request, scheme: &str, host: &str, port: u16) -> String {
    let address = &request.address;
    let url = format!("{scheme}://{}/{}/{}.flv{}", authority(host, port), address.app, address.stream, address.param);
    with_vhost(url, request)
}

fn with_vhost(mut url: String, request: &Request) -> String {
    let param = &request.address.param;
    let vhost = request.vhost.cluster.vhost_there(&request.vhost.name);
    if let Some(vhost) = vhost.filter(|_| !param.contains("vhost=")) {
        url.push_str(if param.contains('?') { "&vhost=" } else { "?vhost=" });
        url.push_str(&vhost);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, proto::address::StreamAddress};
    use std::sync::Arc;

    fn request(vhost: &str, cluster: &str) -> Request {
        let text = format!("listen 1935; vhost {vhost} {{ cluster {{ mode remote; {cluster} }} }}");
        let config = Config::parse("test", &text).unwrap();
        let address = StreamAddress::resolve("rtmp://h/live", "live", "x?token=1").unwrap();
        Request::of(0, address, &Arc::clone(&config.vhosts[0]))
    }

    fn urls(request: &Request, way: Way, by_flv: bool) -> Vec<String> {
        targets(request, way, by_flv, "", None).into_iter().map(|target| target.url).collect()
    }

    #[test]
    fn the_same_stream_at_every_origin() {
        let edge = request("__defaultVhost__", "origin a b:19;");
        assert_eq!(urls(&edge, Way::Fetch, true), ["rtmp://a:1935/live/x?token=1", "rtmp://b:19/live/x?token=1"]);
        let edge = request("v.com", "origin a [::1]:8080; protocol flv; vhost up.[vhost];");
        let fetched =
            ["http://a:80/live/x.flv?token=1&vhost=up.v.com", "http://[::1]:8080/live/x.flv?token=1&vhost=up.v.com"];
        assert_eq!(urls(&edge, Way::Fetch, false), fetched);
        assert_eq!(urls(&edge, Way::Relay, false)[0], "rtmp://up.v.com:1935/live/x?token=1");
        let edge = request("v.com", "origin a; follow_client on;");
        assert_eq!(urls(&edge, Way::Fetch, true), ["http://a:80/live/x.flv?token=1&vhost=v.com"]);
        assert_eq!(urls(&edge, Way::Fetch, false), ["rtmp://v.com:1935/live/x?token=1"]);
    }

    #[test]
    fn redirects_name_the_stream_or_its_app() {
        let edge = request("v.com", "origin a;");
        let target = targets(&edge, Way::Fetch, false, "", None).remove(0);
        for url in ["rtmp://b:19/live/x?token=1", "rtmp://b:19/live/x", "rtmp://b:19/live"] {
            let found = redirected(&target, url).unwrap();
            assert_eq!((&*found.host, found.port, &*found.url), ("b", 19, "rtmp://b:19/live/x?token=1"), "{url}");
        }
        assert!(redirected(&target, "http://b/live/x.flv").is_none());
        let edge = request("v.com", "origin a; protocol flv;");
        let target = targets(&edge, Way::Fetch, false, "", None).remove(0);
        let found = redirected(&target, "https://b/y.flv?z").unwrap();
        assert_eq!((&*found.host, found.port, found.tls, &*found.url), ("b", 443, true, "https://b/y.flv?z"));
        assert_eq!(redirected(&target, "/z.flv").map(|found| found.url).as_deref(), Some("http://a:80/z.flv"));
        assert!(redirected(&target, "//b/z.flv").is_none() && redirected(&target, "").is_none());
    }
}
