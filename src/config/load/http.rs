//! The sections of HTTP, hooks and access rules.

use super::load_tls;
use crate::config::{
    Action, Auth, Exporter, Hooks, HttpApi, HttpRemux, HttpServer, Listen, Refer, Rule, Security, Service, SignedUrl,
    directives::Block,
    explain::Line,
    faults::Fault,
    mount,
    place::Word,
    proxies::read_net,
    section::{Loader, Section},
    syntax::Directive,
};
use crate::tls;
use std::net::{IpAddr, Ipv4Addr};

/// A section that is loaded, with the words that its endpoints come from.
type WithEndpoints<T> = (T, Vec<(Listen, Word)>);

/// The blocks of the top level.
pub(super) struct Blocks {
    server: Vec<Directive>,
    api: Vec<Directive>,
    exporter: Vec<Directive>,
}

impl Blocks {
    pub(super) fn take(top: &mut Section<'_>) -> Self {
        let mut block = |name| top.block(name).unwrap_or_default();
        Self { server: block("http_server"), api: block("http_api"), exporter: block("exporter") }
    }

    pub(super) fn load(
        self,
        loader: &mut Loader,
    ) -> (WithEndpoints<HttpServer>, WithEndpoints<HttpApi>, WithEndpoints<Exporter>) {
        let server = load_server(loader, self.server);
        let mut api = load_api(loader, self.api);
        // On the same port the HTTP server answers for both.
        let shared = |listen: &Listen| {
            server.1.iter().any(|(other, _)| other.address == listen.address && other.address.port() != 0)
        };
        api.0.shared = api.0.listen.iter().filter(|listen| shared(listen)).map(|listen| listen.address).collect();
        api.0.listen.retain(|listen| !shared(listen));
        api.1.retain(|(listen, _)| !shared(listen));
        (server, api, load_exporter(loader, self.exporter))
    }
}

fn load_server(loader: &mut Loader, block: Vec<Directive>) -> WithEndpoints<HttpServer> {
    loader.explained.push(Line::Open("http_server".to_owned()));
    let mut section = Section::new(Block::HttpServer, block, loader);
    let enabled = section.flag("enabled");
    let mut listen = section.listen(Service::Http, false, Ipv4Addr::UNSPECIFIED);
    let dir = section.path("dir").0.into();
    let crossdomain = section.flag("crossdomain");
    let https = section.block("https").unwrap_or_default();
    section.finish();
    let https = Section::new(Block::HttpServerHttps, https, loader);
    let (tls_listen, tls, http2) = load_https(https, enabled, Service::Http, Ipv4Addr::UNSPECIFIED);
    loader.explained.push(Line::Close);
    listen.extend(tls_listen);
    if !enabled {
        return (HttpServer::default(), Vec::new());
    }
    (HttpServer { listen: endpoints(&listen), dir, crossdomain, tls, http2 }, listen)
}

fn load_https(
    mut section: Section<'_>,
    outer: bool,
    service: Service,
    host: Ipv4Addr,
) -> (Vec<(Listen, Word)>, Option<tls::Acceptor>, bool) {
    section.loader.explained.push(Line::Open("https".to_owned()));
    let (enabled, word) = section.flag_at("enabled");
    let listen = section.listen(service, true, host);
    let (_, _, tls) = load_tls(&mut section, outer && enabled, word.as_ref());
    let http2 = service == Service::Http && section.flag("http2");
    section.loader.explained.push(Line::Close);
    section.finish();
    if enabled { (listen, tls, http2) } else { (Vec::new(), None, false) }
}

fn load_api(loader: &mut Loader, block: Vec<Directive>) -> WithEndpoints<HttpApi> {
    loader.explained.push(Line::Open("http_api".to_owned()));
    let mut section = Section::new(Block::HttpApi, block, loader);
    let enabled = section.flag("enabled");
    let crossdomain = section.flag("crossdomain");
    let mut block = |name| section.block(name).unwrap_or_default();
    let (raw_block, auth, https) = (block("raw_api"), block("auth"), block("https"));
    let auth = load_auth(Section::new(Block::HttpApiAuth, auth, section.loader));
    let mut listen = section.listen(Service::Api, false, Ipv4Addr::UNSPECIFIED);
    section.finish();
    loader.explained.push(Line::Open("raw_api".to_owned()));
    let mut section = Section::new(Block::HttpApiRaw, raw_block, loader);
    let (raw, allow_reload) = (section.flag("enabled"), section.flag("allow_reload"));
    section.finish();
    loader.explained.push(Line::Close);
    let https = Section::new(Block::HttpApiHttps, https, loader);
    let (tls_listen, tls, _) = load_https(https, enabled, Service::Api, Ipv4Addr::UNSPECIFIED);
    loader.explained.push(Line::Close);
    listen.extend(tls_listen);
    if !enabled {
        return (HttpApi::default(), Vec::new());
    }
    if auth.is_none() {
        let help = "add `auth { enabled on; username NAME; password WORD; }`, or listen on 127.0.0.1";
        warn_of_open(loader, &listen, "the API's lists", help);
    }
    let shared = Vec::new();
    (HttpApi { enabled, listen: endpoints(&listen), shared, crossdomain, raw, allow_reload, auth, tls }, listen)
}

/// One line where strangers can read.
fn warn_of_open(loader: &mut Loader, listen: &[(Listen, Word)], what: &str, help: &str) {
    let Some((_, word)) = listen.iter().find(|(listen, _)| !listen.address.ip().is_loopback()) else { return };
    let message = format!("whoever reaches this port may read {what}");
    loader.warnings.push(Fault::new(word, message).help(help));
}

fn load_auth(mut section: Section<'_>) -> Option<Auth> {
    section.loader.explained.push(Line::Open("auth".to_owned()));
    let (enabled, enabled_word) = section.flag_at("enabled");
    let (username, _) = section.text("username");
    let (password, _) = section.text("password");
    let (token, _) = section.text("token");
    let (kind, _) = section.choice("type");
    section.loader.explained.push(Line::Close);
    let auth = Auth {
        basic: (kind != "bearer" && !username.is_empty() && !password.is_empty()).then_some((username, password)),
        token: (kind != "basic" && !token.is_empty()).then_some(token),
    };
    if let Some(word) = enabled_word.filter(|_| enabled && auth.basic.is_none() && auth.token.is_none()) {
        let help = match kind.as_str() {
            "basic" => "add `username` and `password`",
            "bearer" => "add `token`",
            _ => "add `username` and `password`, or `token`",
        };
        section.loader.fault(&word, "`auth` has nothing to compare with", help);
    }
    section.finish();
    enabled.then_some(auth)
}

fn load_exporter(loader: &mut Loader, block: Vec<Directive>) -> WithEndpoints<Exporter> {
    loader.explained.push(Line::Open("exporter".to_owned()));
    let mut section = Section::new(Block::Exporter, block, loader);
    let enabled = section.flag("enabled");
    let listen = section.listen(Service::Exporter, false, Ipv4Addr::UNSPECIFIED);
    let (label, _) = section.text("label");
    let (tag, _) = section.text("tag");
    let top_streams = section.number("top_streams") as usize;
    section.finish();
    loader.explained.push(Line::Close);
    if !enabled {
        return (Exporter::default(), Vec::new());
    }
    warn_of_open(loader, &listen, "the metrics", "listen on 127.0.0.1, or keep the port behind a firewall");
    (Exporter { listen: endpoints(&listen), label, tag, top_streams }, listen)
}

fn endpoints(listen: &[(Listen, Word)]) -> Vec<Listen> {
    listen.iter().map(|(listen, _)| *listen).collect()
}

/// The blocks of a vhost.
pub(super) struct VhostBlocks {
    remux: Vec<Directive>,
    hooks: Vec<Directive>,
    security: Vec<Directive>,
    refer: Vec<Directive>,
    signed_url: Vec<Directive>,
}

impl VhostBlocks {
    pub(super) fn take(vhost: &mut Section<'_>) -> Self {
        let mut block = |name| vhost.block(name).unwrap_or_default();
        Self {
            remux: block("http_remux"),
            hooks: block("http_hooks"),
            security: block("security"),
            refer: block("refer"),
            signed_url: block("signed_url"),
        }
    }

    pub(super) fn load(self, loader: &mut Loader) -> (HttpRemux, Hooks, Security, Refer, Option<SignedUrl>) {
        (
            load_remux(Section::new(Block::HttpRemux, self.remux, loader)),
            load_hooks(Section::new(Block::HttpHooks, self.hooks, loader)),
            load_security(Section::new(Block::Security, self.security, loader)),
            load_refer(Section::new(Block::Refer, self.refer, loader)),
            load_signed_url(Section::new(Block::SignedUrl, self.signed_url, loader)),
        )
    }
}

fn load_remux(mut section: Section<'_>) -> HttpRemux {
    section.loader.explained.push(Line::Open("http_remux".to_owned()));
    let enabled = section.flag("enabled");
    let mounts = section.words("mount", mount::read);
    let mut remux = HttpRemux {
        enabled,
        mounts,
        has_audio: section.flag("has_audio"),
        has_video: section.flag("has_video"),
        guess_has_av: section.flag("guess_has_av"),
        drop_if_not_match: section.flag("drop_if_not_match"),
        wait_stream_s: section.number("wait_stream"),
        fast_cache_ms: section.milliseconds("fast_cache"),
    };
    // It costs memory, and is for sound alone.
    if !remux.mounts.iter().any(|mount| mount.ends_with(".aac") || mount.ends_with(".mp3")) {
        remux.fast_cache_ms = 0;
    }
    section.loader.explained.push(Line::Close);
    section.finish();
    remux
}

fn load_hooks(mut section: Section<'_>) -> Hooks {
    section.loader.explained.push(Line::Open("http_hooks".to_owned()));
    let enabled = section.flag("enabled");
    let mut urls = |name| {
        let urls = section.words(name, super::super::section::url);
        if enabled { urls } else { Vec::new() }
    };
    let hooks = Hooks {
        on_connect: urls("on_connect"),
        on_close: urls("on_close"),
        on_publish: urls("on_publish"),
        on_unpublish: urls("on_unpublish"),
        on_play: urls("on_play"),
        on_stop: urls("on_stop"),
        on_hls: urls("on_hls"),
        on_dvr: urls("on_dvr"),
        timeout_ms: section.number("timeout"),
        fail_open: section.choice("on_failure").0 == "allow",
        trust: load_trust(&mut section, enabled),
    };
    section.loader.explained.push(Line::Close);
    section.finish();
    hooks
}

fn load_trust(section: &mut Section<'_>, wanted: bool) -> Option<tls::Connector> {
    let (path, word) = section.path("hook_ca");
    let word = word.filter(|_| wanted && !path.is_empty())?;
    match tls::Connector::with_authorities(&section.loader.work_dir.join(&path)) {
        Ok(connector) => Some(connector),
        Err(error) => {
            let help = "name a PEM file with the authority's certificate that the hooks' servers are signed by";
            section.loader.fault(&word, format!("hook_ca {path}: {error}"), help);
            None
        }
    }
}

fn load_security(mut section: Section<'_>) -> Security {
    section.loader.explained.push(Line::Open("security".to_owned()));
    let enabled = section.flag("enabled");
    let allow = section.rules("allow", read_rule);
    let deny = section.rules("deny", read_rule);
    section.loader.explained.push(Line::Close);
    section.finish();
    Security { enabled, allow, deny }
}

fn load_refer(mut section: Section<'_>) -> Refer {
    section.loader.explained.push(Line::Open("refer".to_owned()));
    let enabled = section.flag("enabled");
    let mut domains = |name| section.words(name, read_domain);
    let refer = Refer { enabled, all: domains("all"), publish: domains("publish"), play: domains("play") };
    section.loader.explained.push(Line::Close);
    section.finish();
    refer
}

/// A host name, in lower case; it is compared with those of pages, which have no path and no port then.
fn read_domain(text: &str) -> Option<String> {
    let plain = !text.is_empty() && !text.contains(['/', ':', '*', '?']) || text.parse::<IpAddr>().is_ok();
    plain.then(|| text.trim_start_matches('.').to_ascii_lowercase()).filter(|name| !name.is_empty())
}

fn read_rule(words: &[&str]) -> Option<Rule> {
    let [action, whom] = words else { return None };
    let action = match *action {
        "publish" => Action::Publish,
        "play" => Action::Play,
        _ => return None,
    };
    if *whom == "all" {
        return Some((action, None));
    }
    read_net(whom).map(|net| (action, Some(net)))
}

fn load_signed_url(mut section: Section<'_>) -> Option<SignedUrl> {
    section.loader.explained.push(Line::Open("signed_url".to_owned()));
    let (enabled, enabled_word) = section.flag_at("enabled");
    let (key, _) = section.text("key");
    let signed = SignedUrl { key, publish: section.flag("publish"), play: section.flag("play") };
    if let Some(word) = enabled_word.filter(|_| enabled && signed.key.is_empty()) {
        section.loader.fault(&word, "`signed_url` has no `key`", "add `key SECRET;`");
    }
    section.loader.explained.push(Line::Close);
    section.finish();
    enabled.then_some(signed)
}
