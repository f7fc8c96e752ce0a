//! What HTTP, hooks and access rules have of a configuration.

use super::Listen;
use crate::{proto::http::url::HttpUrl, tls};
use ipnet::IpNet;
use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

/// The `http_server` section; listens nowhere unless enabled.
#[derive(Clone, Debug, Default)]
pub struct HttpServer {
    /// Where, with and without TLS.
    pub listen: Vec<Listen>,
    /// Files that are served. SRS: `dir`.
    pub dir: PathBuf,
    /// Whether pages of other sites may play streams. SRS: `crossdomain`.
    pub crossdomain: bool,
    /// For the endpoints with TLS.
    pub tls: Option<tls::Acceptor>,
    /// Whether HTTP/2 is offered there. Ours: `http2`.
    pub http2: bool,
}

impl HttpServer {
    /// Whether it listens anywhere.
    pub fn enabled(&self) -> bool {
        !self.listen.is_empty()
    }
}

/// The `http_api` section; answers nowhere unless enabled.
#[derive(Clone, Debug, Default)]
pub struct HttpApi {
    /// Whether it answers.
    pub enabled: bool,
    /// Where, with and without TLS; not where the HTTP server is.
    pub listen: Vec<Listen>,
    /// Endpoints of the HTTP server that the file gives to the API too.
    pub shared: Vec<SocketAddr>,
    /// Whether pages of other sites may use it. SRS: `crossdomain`.
    pub crossdomain: bool,
    /// Whether `/api/v1/raw` answers. SRS: `raw_api.enabled`.
    pub raw: bool,
    /// Whether it may reload. SRS: `raw_api.allow_reload`.
    pub allow_reload: bool,
    /// What every request must prove; without it, those that change anything prove the server's own token.
    pub auth: Option<Auth>,
    /// For the endpoints with TLS.
    pub tls: Option<tls::Acceptor>,
}

/// Either of the two is enough.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Auth {
    /// Name and password of HTTP's basic authentication.
    pub basic: Option<(String, String)>,
    /// `Authorization: Bearer TOKEN`.
    pub token: Option<String>,
}

/// The `exporter` section; listens nowhere unless enabled.
#[derive(Clone, Debug, Default)]
pub struct Exporter {
    /// Where.
    pub listen: Vec<Listen>,
    /// SRS: `label`.
    pub label: String,
    /// SRS: `tag`.
    pub tag: String,
    /// Streams with figures of their own. Ours: `top_streams`.
    pub top_streams: usize,
}

/// A vhost's `http_remux` section.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpRemux {
    /// Whether streams are served.
    pub enabled: bool,
    /// The paths' templates, from the first slash on: `/[app]/[stream].flv`; the end says what is served. SRS:
    /// `mount`, with one.
    pub mounts: Vec<String>,
    /// Whether the FLV header may announce audio.
    pub has_audio: bool,
    /// Whether the FLV header may announce video.
    pub has_video: bool,
    /// Whether it announces what the stream has. SRS: `guess_has_av`.
    pub guess_has_av: bool,
    /// Whether tags of a kind that is off are left out.
    pub drop_if_not_match: bool,
    /// How long a request waits for a stream that nobody publishes, in seconds. Ours: `wait_stream`.
    pub wait_stream_s: u32,
    /// Sound that players of AAC and MP3 get at once, in ms. SRS: `fast_cache`.
    pub fast_cache_ms: u32,
}

/// A URL that the server calls.
pub type HookUrl = Arc<HttpUrl>;

/// A vhost's `http_hooks` section; no URLs unless enabled.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hooks {
    /// Asked when somebody connects.
    pub on_connect: Vec<HookUrl>,
    /// Told when a connection ends.
    pub on_close: Vec<HookUrl>,
    /// Asked when somebody publishes.
    pub on_publish: Vec<HookUrl>,
    /// Told when a publish ends.
    pub on_unpublish: Vec<HookUrl>,
    /// Asked when somebody plays.
    pub on_play: Vec<HookUrl>,
    /// Told when a play ends.
    pub on_stop: Vec<HookUrl>,
    /// Told of a segment of HLS.
    pub on_hls: Vec<HookUrl>,
    /// Told of a recording that is whole.
    pub on_dvr: Vec<HookUrl>,
    /// For all URLs of an event together, in ms. Ours: `timeout`.
    pub timeout_ms: u32,
    /// Whether no answer allows. Ours: `on_failure allow`.
    pub fail_open: bool,
    /// Whom https servers must be trusted by; `None` is whom the system trusts. Ours: `hook_ca`.
    pub trust: Option<tls::Connector>,
}

/// What somebody wants of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Bring it.
    Publish,
    /// Get it.
    Play,
}

impl Action {
    /// Its word in rules and signatures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Play => "play",
        }
    }
}

/// Whom a rule means: what they want, and from where; `None` is everywhere.
pub type Rule = (Action, Option<IpNet>);

/// A vhost's `security` section; no rules unless enabled.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Security {
    /// Whether the rules count.
    pub enabled: bool,
    /// Who may.
    pub allow: Vec<Rule>,
    /// Who may not.
    pub deny: Vec<Rule>,
}

impl Security {
    /// Whether somebody at `address` may: an allow matches and no deny does; where there are denies alone, no
    /// deny does.
    pub fn allows(&self, action: Action, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let matches = |(what, net): &&Rule| *what == action && net.is_none_or(|net| net.contains(&address));
        let of_action = |rules: &[Rule]| rules.iter().any(|(what, _)| *what == action);
        let allowed = self.allow.iter().any(|rule| matches(&rule));
        let denied = self.deny.iter().any(|rule| matches(&rule));
        !self.enabled || !denied && (allowed || !of_action(&self.allow) && of_action(&self.deny))
    }
}

/// A vhost's `refer` section: pages that may have its streams in them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Refer {
    /// Whether the lists count.
    pub enabled: bool,
    /// Host names for publishers and players, in lower case; an empty list is everybody's.
    pub all: Vec<String>,
    /// For publishers, beside `all`.
    pub publish: Vec<String>,
    /// For players, beside `all`.
    pub play: Vec<String>,
}

impl Refer {
    /// Whether who comes from `page`, a URL, may: its host is one of the list's, or under one. SRS compares the ends of
    /// names alone, so that `evilexample.com` passes for `example.com`; here whole labels count.
    pub fn allows(&self, action: Action, page: &str) -> bool {
        let list = match action {
            Action::Publish => &self.publish,
            Action::Play => &self.play,
        };
        let host = host_of(page).to_ascii_lowercase();
        let is_in = |list: &Vec<String>| {
            let under = |name: &String| host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
            list.is_empty() || list.iter().any(|name| host == *name || under(name))
        };
        !self.enabled || is_in(&self.all) && is_in(list)
    }
}

/// The host of a page's URL, which may lack its scheme.
fn host_of(page: &str) -> &str {
    let rest = page.split_once("://").map_or(page, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or_default().trim_end_matches('.'),
    }
}

/// A vhost's `signed_url` section.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SignedUrl {
    /// What URLs are signed with.
    pub key: String,
    /// Whether publishers need it.
    pub publish: bool,
    /// Whether players need it.
    pub play: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_srs_s() {
        let net = |text: &str| Some(text.parse().unwrap());
        let play = |security: &Security, address: &str| security.allows(Action::Play, address.parse().unwrap());
        let mut security = Security::default();
        assert!(play(&security, "1.2.3.4"), "off");
        security.enabled = true;
        assert!(!play(&security, "1.2.3.4"), "nobody is allowed");
        security.deny = vec![(Action::Play, net("10.0.0.0/8"))];
        assert!(play(&security, "1.2.3.4") && !play(&security, "10.1.2.3") && !play(&security, "::ffff:10.1.2.3"));
        assert!(!security.allows(Action::Publish, "1.2.3.4".parse().unwrap()), "no rule for publishers");
        security.allow = vec![(Action::Play, net("1.2.3.4/32")), (Action::Play, net("10.0.0.1/32"))];
        assert!(play(&security, "1.2.3.4") && !play(&security, "1.2.3.5"));
        assert!(!play(&security, "10.0.0.1"), "deny goes before allow");
    }

    #[test]
    fn pages_are_compared_by_whole_names() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let mut refer = Refer { all: names(&["example.com", "::1"]), ..Refer::default() };
        assert!(refer.allows(Action::Play, ""), "off");
        refer.enabled = true;
        for page in [
            "http://example.com",
            "https://www.Example.com:80/a?b",
            "example.com/x",
            "http://[::1]:8/",
            "http://a.example.com./",
        ] {
            assert!(refer.allows(Action::Play, page), "{page}");
        }
        for page in [
            "",
            "http://",
            "http://example.com.evil",
            "http://evilexample.com",
            "http://example.com@evil.org/",
            "http://evil.org/example.com",
            "http://evil.org?x.example.com",
            "http://evil.org#.example.com",
        ] {
            assert!(!refer.allows(Action::Play, page), "{page}");
        }
        refer.publish = names(&["studio.example.com"]);
        assert!(
            refer.allows(Action::Publish, "http://studio.example.com/")
                && !refer.allows(Action::Publish, "http://example.com/")
        );
        assert!(refer.allows(Action::Play, "http://example.com/"));
    }
}
