//! `http_static`: files of a vhost, beside `http_server`'s `dir`.

use super::{Config, DEFAULT_VHOST, explain::Line, section::Section};
use std::path::{Path, PathBuf};

/// A vhost's `http_static` section, where it is enabled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpStatic {
    /// The host name that it answers for; `None` is every one that has no files of its own.
    pub host: Option<String>,
    /// What its paths begin with: `/`, or `/vod/`. SRS: `mount`, behind the host.
    pub prefix: String,
    /// Where the files are. SRS: `dir`.
    pub dir: PathBuf,
}

impl HttpStatic {
    pub(super) fn load(mut section: Section<'_>, vhost: &str) -> Option<Self> {
        section.loader.explained.push(Line::Open("http_static".to_owned()));
        let enabled = section.flag("enabled");
        let (mount, word) = section.text("mount");
        let dir = section.path("dir").0.replace("[vhost]", vhost).into();
        let read = Self::read(&mount, vhost);
        if let (None, Some(word)) = (&read, word) {
            let help = "for example `[vhost]/`, `[vhost]/vod` or `/vod`";
            section.loader.fault(&word, format!("`{mount}` is no place for files"), help);
        }
        section.loader.explained.push(Line::Close);
        section.finish();
        read.filter(|_| enabled).map(|(host, prefix)| Self { host, prefix, dir })
    }

    /// Host and prefix of a mount.
    fn read(mount: &str, vhost: &str) -> Option<(Option<String>, String)> {
        let (host, path) = mount.split_at(mount.find('/')?);
        let host = match host {
            "" => None,
            "[vhost]" => Some(vhost),
            named => Some(Some(named).filter(|host| !host.contains(['[', ']']))?),
        };
        let levels = path.split('/').filter(|level| !level.is_empty());
        let plain = levels.clone().all(|level| !level.starts_with('.') && !level.contains(['[', ']', '?']));
        let prefix = levels.fold("/".to_owned(), |prefix, level| prefix + level + "/");
        plain.then(|| (host.filter(|host| *host != DEFAULT_VHOST).map(str::to_ascii_lowercase), prefix))
    }
}

/// Where a request's file is looked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Files<'a> {
    /// Under a directory, by the rest of the path.
    In(&'a Path, &'a str),
    /// It names a mount without the slash at its end, which is this one.
    Behind(&'a str),
    /// Nowhere: the host has files of its own, and none under this path.
    Nowhere,
}

impl Config {
    /// Where the file is that a request means by host name and decoded path: the longest mount that it is under, of its own
    /// host's if that has any, or else `http_server`'s `dir`.
    pub fn files<'a>(&'a self, host: &str, path: &'a str) -> Files<'a> {
        let host = host.to_ascii_lowercase();
        let all = || self.vhosts.iter().filter(|vhost| vhost.enabled).filter_map(|vhost| vhost.http_static.as_ref());
        let own = all().any(|mount| mount.host.as_deref() == Some(&host));
        let mounts = || all().filter(|mount| mount.host.as_deref() == own.then_some(host.as_str()));
        let under = mounts().filter_map(|mount| Some((mount, path.strip_prefix(mount.prefix.as_str())?)));
        if let Some((mount, rest)) = under.max_by_key(|(mount, _)| mount.prefix.len()) {
            return Files::In(&mount.dir, rest);
        }
        if let Some(mount) = mounts().find(|mount| mount.prefix.strip_suffix('/') == Some(path)) {
            return Files::Behind(&mount.prefix);
        }
        if own { Files::Nowhere } else { Files::In(&self.http.dir, path) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_srs_s() {
        let text = "listen 1; http_server { enabled on; dir root; }
            vhost __defaultVhost__ { http_static { enabled on; mount [vhost]/vod; dir d/[vhost]; } }
            vhost A.example { http { enabled on; dir d/[vhost]; } }
            vhost b.example { http_static { enabled on; mount [vhost]/x/y/; dir b; } }
            vhost c.example { http_static { enabled on; mount /x; dir c; } }
            vhost off.example { enabled off; http_static { enabled on; mount /; dir off; } }";
        let config = Config::parse("x", text).unwrap();
        let found = |host: &str, path: &'static str| match config.files(host, path) {
            Files::In(dir, rest) => format!("{} {rest}", dir.display()),
            Files::Behind(prefix) => format!("-> {prefix}"),
            Files::Nowhere => "nowhere".to_owned(),
        };
        assert_eq!(found("h", "/vod/a/b.mp4"), "d/__defaultVhost__ a/b.mp4");
        assert_eq!((found("h", "/vod"), found("h", "/vodka")), ("-> /vod/".into(), "root /vodka".into()));
        assert_eq!(found("a.example", "/vod/a"), "d/A.example vod/a");
        assert_eq!((found("b.example", "/x/y/z"), found("b.example", "/x/z")), ("b z".into(), "nowhere".into()));
        assert_eq!(found("h", "/x/z"), "c z");
        for mount in ["[vhost]", "x[vhost]/", "/../x", "/[app]/"] {
            let text = format!("listen 1; vhost v {{ http_static {{ mount {mount}; }} }}");
            assert!(Config::parse("x", &text).is_err(), "{mount}");
        }
    }
}
