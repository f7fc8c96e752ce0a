//! Who may use the API.

use crate::config::{Auth, HttpApi};
use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Denied {
    pub(super) status: StatusCode,
    pub(super) why: &'static str,
}

const UNAUTHORIZED: Denied =
    Denied { status: StatusCode::UNAUTHORIZED, why: "name and password, or the token, are missing or wrong" };

fn forbidden(why: &'static str) -> Denied {
    Denied { status: StatusCode::FORBIDDEN, why }
}

/// Whether a request may use the API: it has proved who it is, or, where nothing is to be proved, it comes from
/// this machine and from no page of another site.
pub(super) fn check(api: &HttpApi, peer: SocketAddr, headers: &HeaderMap) -> Result<(), Denied> {
    if !api.enabled {
        return Err(forbidden("the API is off: http_api { enabled on; }"));
    }
    if let Some(auth) = &api.auth {
        return if proves(auth, headers) { Ok(()) } else { Err(UNAUTHORIZED) };
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let forwarded = ["forwarded", "x-forwarded-for", "x-real-ip"].iter().any(|name| headers.contains_key(*name));
    if !peer.ip().to_canonical().is_loopback() || forwarded {
        return Err(forbidden("the API answers this machine only, unless http_api has auth { enabled on; ... }"));
    }
    // A name that a stranger's DNS has pointed here (DNS rebinding).
    let host = text("host").unwrap_or_default();
    if !is_own_name(host) {
        return Err(forbidden("without auth the API answers to localhost and addresses only"));
    }
    let foreign = text("sec-fetch-site").is_some_and(|site| matches!(site, "cross-site" | "same-site"));
    if foreign && !api.crossdomain {
        return Err(forbidden("pages of other sites may not use the API (crossdomain)"));
    }
    Ok(())
}

fn is_own_name(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn proves(auth: &Auth, headers: &HeaderMap) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, value) = given.split_once(' ').unwrap_or_default();
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return auth.token.as_ref().is_some_and(|token| same(token.as_bytes(), value.as_bytes()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return false;
    }
    let given = BASE64_STANDARD.decode(value).unwrap_or_default();
    auth.basic.as_ref().is_some_and(|(name, password)| same(format!("{name}:{password}").as_bytes(), &given))
}

/// Compares so that the time it takes tells nothing.
fn same(ours: &[u8], given: &[u8]) -> bool {
    Sha256::digest(ours) == Sha256::digest(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn without_auth_this_machine_alone_may() {
        let api = HttpApi { enabled: true, ..HttpApi::default() };
        let status = |peer: &str, list: &[(&'static str, &'static str)]| {
            check(&api, peer.parse().unwrap(), &headers(list)).err().map_or(200, |denied| denied.status.as_u16())
        };
        assert_eq!(status("127.0.0.1:1", &[("host", "localhost:1985")]), 200);
        assert_eq!(status("[::1]:1", &[("host", "[::1]:1985")]), 200);
        assert_eq!(status("10.0.0.1:1", &[("host", "10.0.0.2")]), 403);
        assert_eq!(status("127.0.0.1:1", &[("host", "evil.example")]), 403);
        assert_eq!(status("127.0.0.1:1", &[("host", "localhost"), ("x-forwarded-for", "1.2.3.4")]), 403);
        assert_eq!(status("127.0.0.1:1", &[("host", "localhost"), ("sec-fetch-site", "cross-site")]), 403);
        assert_eq!(status("127.0.0.1:1", &[("host", "localhost"), ("sec-fetch-site", "same-origin")]), 200);
        assert!(check(&HttpApi::default(), "127.0.0.1:1".parse().unwrap(), &HeaderMap::new()).is_err());
    }

    #[test]
    fn with_auth_everybody_must_prove_it() {
        let auth = Auth { basic: Some(("admin".into(), "pass:word".into())), token: Some("t0ken".into()) };
        let api = HttpApi { enabled: true, auth: Some(auth), ..HttpApi::default() };
        let ok = |value: &'static str| {
            check(&api, "10.0.0.1:1".parse().unwrap(), &headers(&[("authorization", value)])).is_ok()
        };
        assert!(ok("Bearer t0ken") && ok("Basic YWRtaW46cGFzczp3b3Jk") && ok("basic YWRtaW46cGFzczp3b3Jk"));
        for bad in ["Bearer t0keN", "Bearer ", "Basic YWRtaW46", "Basic !!", "Digest x", "t0ken"] {
            assert!(!ok(bad), "{bad}");
        }
        assert!(check(&api, "127.0.0.1:1".parse().unwrap(), &HeaderMap::new()).is_err(), "this machine too");
    }
}
