//! Who may use the API.

use crate::{
    config::{Auth, HttpApi, Service},
    proto::http,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::{HeaderMap, StatusCode, header, http::request::Parts};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Denied {
    pub(super) status: StatusCode,
    pub(super) why: &'static str,
}

const UNAUTHORIZED: Denied =
    Denied { status: StatusCode::UNAUTHORIZED, why: "name and password, or the token, are missing or wrong" };
const NEEDS_TOKEN: Denied = Denied {
    status: StatusCode::UNAUTHORIZED,
    why: "what changes anything needs Authorization: Bearer TOKEN, from the file that the log names at the start, or the auth of http_api",
};

fn forbidden(why: &'static str) -> Denied {
    Denied { status: StatusCode::FORBIDDEN, why }
}

/// Where a request has come in, and from whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) service: Service,
    pub(super) peer: SocketAddr,
    /// Our end of the connection.
    pub(super) local: SocketAddr,
}

impl Origin {
    /// Whether the API is here: on endpoints of its own, and on those that the file gives to it and to the HTTP server.
    pub(super) fn has_api(&self, api: &HttpApi) -> bool {
        match self.service {
            Service::Api => true,
            Service::Http => api.shared.iter().any(|shared| self.is_at(*shared)),
            Service::Rtmp | Service::Exporter => false,
        }
    }

    /// Whether the connection came in by an endpoint.
    fn is_at(&self, endpoint: SocketAddr) -> bool {
        let ip = endpoint.ip();
        (endpoint.port() == 0 || endpoint.port() == self.local.port())
            && (ip.is_unspecified() || ip.to_canonical() == self.local.ip().to_canonical())
    }

    /// Whether only this machine can have reached the endpoint.
    fn is_private(&self, api: &HttpApi) -> bool {
        let beyond = |endpoint: &SocketAddr| endpoint.ip().is_unspecified() && self.is_at(*endpoint);
        let mut all = api.listen.iter().map(|listen| listen.address).chain(api.shared.iter().copied());
        self.local.ip().to_canonical().is_loopback() && !all.any(|endpoint| beyond(&endpoint))
    }
}

/// What a request has proved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Proof {
    /// Name and password.
    Name(String),
    /// A token.
    Token,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Token => f.write_str("the token"),
        }
    }
}

/// Who asks, and may read.
#[derive(Debug)]
pub(super) struct Access {
    proof: Option<Proof>,
    foreign: bool,
}

impl Access {
    /// Who it is that may change something: nobody without a credential, and no page of another site by the password
    /// that a browser remembers.
    pub(super) fn to_change(&self) -> Result<&Proof, Denied> {
        match &self.proof {
            None => Err(NEEDS_TOKEN),
            Some(Proof::Name(_)) if self.foreign => Err(forbidden("a page of another site changes nothing")),
            Some(proof) => Ok(proof),
        }
    }
}

/// Whether a request may read what the API has: it has proved who it is where `auth` demands it; else it may as far as the
/// endpoint is reached. `token` is the server's own, which counts where there is no `auth`.
pub(super) fn check(api: &HttpApi, token: &str, from: &Origin, request: &Parts) -> Result<Access, Denied> {
    if !api.enabled {
        return Err(forbidden("the API is off: http_api { enabled on; }"));
    }
    let headers = &request.headers;
    let foreign = is_foreign(request);
    if foreign && !api.crossdomain {
        return Err(forbidden("pages of other sites may not use the API (crossdomain)"));
    }
    let own = Auth { basic: None, token: Some(token.to_owned()).filter(|token| !token.is_empty()) };
    let access = Access { proof: proof(api.auth.as_ref().unwrap_or(&own), headers), foreign };
    if access.proof.is_some() {
        return Ok(access);
    }
    if api.auth.is_some() {
        return Err(UNAUTHORIZED);
    }
    if from.is_private(api) {
        let forwarded = ["forwarded", "x-forwarded-for", "x-real-ip"].iter().any(|name| headers.contains_key(*name));
        if forwarded || !from.peer.ip().to_canonical().is_loopback() {
            return Err(forbidden(
                "here the API answers this machine only, unless http_api has auth { enabled on; ... }",
            ));
        }
        // A name that a stranger's DNS has pointed here (DNS rebinding).
        if !is_own_name(host(request)) {
            return Err(forbidden("without auth the API answers to localhost and addresses only"));
        }
    }
    Ok(access)
}

/// Whether a request may read the page's list of streams: it names no client, and is everybody's who reaches the page unless
/// `auth` closes what the API has.
pub(super) fn check_page(api: &HttpApi, request: &Parts) -> Result<(), Denied> {
    if !api.enabled {
        return Err(forbidden("streams are listed with http_api { enabled on; }"));
    }
    if is_foreign(request) {
        return Err(forbidden("the list is for the page alone"));
    }
    match &api.auth {
        Some(auth) if proof(auth, &request.headers).is_none() => Err(UNAUTHORIZED),
        Some(_) | None => Ok(()),
    }
}

/// Whether a page of another site has sent a request. Whatever is no browser says nothing of it.
pub(super) fn is_foreign(request: &Parts) -> bool {
    let origin = request.headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    http::is_foreign(text(&request.headers, "sec-fetch-site"), origin, host(request))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn host(request: &Parts) -> &str {
    let authority = request.uri.authority().map(|authority| authority.as_str());
    authority.or_else(|| text(&request.headers, "host")).unwrap_or_default()
}

fn is_own_name(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn proof(auth: &Auth, headers: &HeaderMap) -> Option<Proof> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, value) = given.split_once(' ').unwrap_or_default();
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return auth.token.as_ref().filter(|token| same(token.as_bytes(), value.as_bytes())).map(|_| Proof::Token);
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let given = BASE64_STANDARD.decode(value).unwrap_or_default();
    let (name, password) = auth.basic.as_ref()?;
    same(format!("{name}:{password}").as_bytes(), &given).then(|| Proof::Name(name.clone()))
}

/// Compares so that the time it takes tells nothing.
fn same(ours: &[u8], given: &[u8]) -> bool {
    Sha256::digest(ours) == Sha256::digest(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Listen;

    fn request(list: &[(&'static str, &str)]) -> Parts {
        let mut request = hyper::Request::new(()).into_parts().0;
        for (name, value) in list {
            request.headers.insert(*name, value.parse().unwrap());
        }
        request
    }

    fn api(listen: &str, shared: &[&str]) -> HttpApi {
        let listen =
            Listen { address: listen.parse().unwrap(), service: Service::Api, tls: false, proxy_protocol: false };
        let shared = shared.iter().map(|address| address.parse().unwrap()).collect();
        HttpApi { enabled: true, listen: vec![listen], shared, ..HttpApi::default() }
    }

    fn from(peer: &str, local: &str) -> Origin {
        Origin { service: Service::Api, peer: peer.parse().unwrap(), local: local.parse().unwrap() }
    }

    fn status(api: &HttpApi, from: &Origin, list: &[(&'static str, &str)]) -> u16 {
        check(api, "own", from, &request(list)).err().map_or(200, |denied| denied.status.as_u16())
    }

    #[test]
    fn without_auth_the_endpoint_says_who_may_read() {
        let (own, open) = (api("127.0.0.1:1985", &[]), api("0.0.0.0:1985", &[]));
        let here = from("127.0.0.1:1", "127.0.0.1:1985");
        assert_eq!(status(&own, &here, &[("host", "localhost:1985")]), 200);
        assert_eq!(status(&own, &from("[::1]:1", "[::1]:1985"), &[("host", "[::1]:1985")]), 200);
        assert_eq!(status(&open, &from("10.0.0.1:1", "10.0.0.2:1985"), &[("host", "srs.example")]), 200);
        for list in
            [[("host", "evil.example"), ("accept", "*/*")], [("host", "localhost"), ("x-forwarded-for", "1.2.3.4")]]
        {
            assert_eq!((status(&own, &here, &list), status(&open, &here, &list)), (403, 200), "{list:?}");
        }
        for api in [&own, &open] {
            for (list, expected) in [
                (("sec-fetch-site", "cross-site"), 403),
                (("sec-fetch-site", "same-origin"), 200),
                (("origin", "http://localhost"), 200),
                (("origin", "http://localhost.evil.example"), 403),
                (("origin", "null"), 403),
            ] {
                assert_eq!(status(api, &here, &[("host", "localhost"), list]), expected, "{list:?}");
            }
        }
        assert!(check(&HttpApi::default(), "own", &here, &request(&[])).is_err());
    }

    #[test]
    fn changes_need_a_credential_everywhere() {
        let here = from("127.0.0.1:1", "127.0.0.1:1985");
        let change = |api: &HttpApi, token: &str, list: &[(&'static str, &str)]| {
            let access = check(api, token, &here, &request(list));
            access.and_then(|access| access.to_change().cloned()).map_err(|denied| denied.status.as_u16())
        };
        let mut api = api("127.0.0.1:1985", &[]);
        let local = ("host", "localhost");
        assert_eq!(change(&api, "own", &[local]), Err(401), "being here is no proof");
        assert_eq!(change(&api, "own", &[local, ("authorization", "Bearer other")]), Err(401));
        assert_eq!(change(&api, "own", &[local, ("authorization", "Bearer own")]), Ok(Proof::Token));
        assert_eq!(change(&api, "", &[local, ("authorization", "Bearer ")]), Err(401), "there is no token");
        api.auth = Some(Auth { basic: Some(("admin".into(), "a b".into())), token: Some("t0ken".into()) });
        let by_name = ("authorization", "Basic YWRtaW46YSBi");
        assert_eq!(change(&api, "own", &[by_name]), Ok(Proof::Name("admin".into())));
        assert_eq!(change(&api, "own", &[("authorization", "Bearer own")]), Err(401), "the file's counts");
        api.crossdomain = true;
        let foreign = ("origin", "http://evil.example");
        assert_eq!(change(&api, "own", &[by_name, foreign]), Err(403), "browsers remember it");
        assert_eq!(change(&api, "own", &[("authorization", "Bearer t0ken"), foreign]), Ok(Proof::Token));
    }

    #[test]
    fn with_auth_everybody_must_prove_it() {
        let auth = Auth { basic: Some(("admin".into(), "pass:word".into())), token: Some("t0ken".into()) };
        let api = HttpApi { auth: Some(auth), ..api("0.0.0.0:1985", &[]) };
        let ok = |value: &str| status(&api, &from("10.0.0.1:1", "10.0.0.2:1985"), &[("authorization", value)]) == 200;
        assert!(ok("Bearer t0ken") && ok("Basic YWRtaW46cGFzczp3b3Jk") && ok("basic YWRtaW46cGFzczp3b3Jk"));
        for bad in ["Bearer t0keN", "Bearer ", "Basic YWRtaW46", "Basic !!", "Digest x", "t0ken"] {
            assert!(!ok(bad), "{bad}");
        }
        assert_eq!(status(&api, &from("127.0.0.1:1", "127.0.0.1:1985"), &[]), 401, "this machine too");
        let foreign = [("authorization", "Bearer t0ken"), ("sec-fetch-site", "same-site")];
        assert_eq!(status(&api, &from("10.0.0.1:1", "10.0.0.2:1985"), &foreign), 403);
    }

    #[test]
    fn the_http_server_has_the_api_where_both_are_on_one_endpoint() {
        let api = api("127.0.0.1:1985", &["0.0.0.0:8080", "127.0.0.1:8081"]);
        let has = |service, local: &str| {
            Origin { service, peer: "10.0.0.1:1".parse().unwrap(), local: local.parse().unwrap() }.has_api(&api)
        };
        assert!(has(Service::Http, "10.0.0.2:8080") && has(Service::Http, "127.0.0.1:8081"));
        assert!(!has(Service::Http, "10.0.0.2:8081") && !has(Service::Http, "127.0.0.1:80"));
        assert!(has(Service::Api, "127.0.0.1:1985") && !has(Service::Exporter, "10.0.0.2:8080"));
    }
}
