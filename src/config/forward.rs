//! A vhost's `forward` section.

use super::{HookUrl, explain::Line, section::Section};
use crate::proto::{address::split_port, rtmp::url::default_port};

/// Where every publish of a vhost is pushed on to; nowhere unless enabled.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Forward {
    /// The same stream there. SRS: `destination`.
    pub destinations: Vec<Destination>,
    /// Who is asked where to; goes before `destinations`. SRS: `backend`.
    pub backend: Option<HookUrl>,
}

/// One server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Destination {
    /// RTMPS. Ours.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// 1935, or 443 with TLS, unless given.
    pub port: u16,
}

impl Destination {
    /// `host[:port]`, or with `rtmp://` or `rtmps://` before it.
    pub(super) fn read(text: &str) -> Option<Self> {
        let plain = |text| (false, text);
        let (tls, authority) = match text.strip_prefix("rtmps://") {
            Some(rest) => (true, rest),
            None => text.strip_prefix("rtmp://").map_or_else(|| plain(text), plain),
        };
        let (host, port) = split_port(authority);
        let port = port.map_or(Some(default_port(tls)), |port| port.parse().ok());
        let good = !host.is_empty() && !host.contains(['/', '?', ' ', '@']);
        port.filter(|port| good && *port > 0).map(|port| Self { tls, host: host.to_owned(), port })
    }
}

impl Forward {
    pub(super) fn load(mut section: Section<'_>) -> Self {
        section.loader.explained.push(Line::Open("forward".to_owned()));
        let (enabled, enabled_word) = section.flag_at("enabled");
        let faults = section.loader.faults.len();
        let destinations = section.words("destination", Destination::read);
        let backends = section.words("backend", super::section::url);
        let nowhere = destinations.is_empty() && backends.is_empty() && section.loader.faults.len() == faults;
        if let Some(word) = enabled_word.filter(|_| enabled && nowhere) {
            let help = "add `destination HOST:PORT;` or `backend http://…;`";
            section.loader.fault(&word, "`forward` has neither a `destination` nor a `backend`", help);
        }
        section.loader.explained.push(Line::Close);
        section.finish();
        if !enabled {
            return Self::default();
        }
        Self { destinations, backend: backends.into_iter().next() }
    }

    /// Whether anything is pushed on.
    pub fn is_empty(&self) -> bool {
        self.destinations.is_empty() && self.backend.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_in_every_form() {
        let read = |text| Destination::read(text).map(|found| (found.tls, found.host, found.port));
        assert_eq!(read("10.0.0.1"), Some((false, "10.0.0.1".to_owned(), 1935)));
        assert_eq!(read("[::1]:19350"), Some((false, "::1".to_owned(), 19_350)));
        assert_eq!(read("rtmp://a.b:19"), Some((false, "a.b".to_owned(), 19)));
        assert_eq!(read("rtmps://a.b"), Some((true, "a.b".to_owned(), 443)));
        for bad in ["", ":1935", "a:b", "a:0", "rtmp://a/live", "a/live", "http://a"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
