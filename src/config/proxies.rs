//! Who is believed when it says for whom it speaks.

use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// The proxies before the server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Proxies(pub(super) Vec<IpNet>);

impl Proxies {
    /// Whether a connection from there may begin with a proxy header. Where none is named, this machine may.
    pub fn may_open(&self, from: IpAddr) -> bool {
        if self.0.is_empty() { from.to_canonical().is_loopback() } else { self.has(from) }
    }

    /// Whom a request is from whose `X-Forwarded-For` is `list`: the last address there that is no proxy of ours.
    /// `None` if `from` is not believed, or says nothing.
    pub fn client_of(&self, from: IpAddr, list: &str) -> Option<IpAddr> {
        if list.is_empty() || !self.has(from) {
            return None;
        }
        let mut client = None;
        for item in list.rsplit(',') {
            // What stands before something that is no address was not written by a proxy of ours.
            let Some(address) = read_address(item.trim()) else { break };
            client = Some(address);
            if !self.has(address) {
                break;
            }
        }
        client
    }

    /// Whether an address is one of theirs.
    pub fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|net| net.contains(&address))
    }
}

/// An address, perhaps with its port.
fn read_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

/// An address or a network.
pub(super) fn read_net(text: &str) -> Option<IpNet> {
    let address = text.parse().map(|address: IpAddr| IpNet::from(address));
    text.parse().or(address).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stranger_is_the_client() {
        let proxies =
            Proxies(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"].iter().filter_map(|net| read_net(net)).collect());
        let client = |from: &str, list: &str| {
            proxies.client_of(from.parse().unwrap(), list).map_or_else(String::new, |client| client.to_string())
        };
        for (from, list, expected) in [
            ("127.0.0.1", "192.0.2.1", "192.0.2.1"),
            ("::ffff:127.0.0.1", "192.0.2.1", "192.0.2.1"),
            ("127.0.0.1", "6.6.6.6, 192.0.2.1", "192.0.2.1"),
            ("127.0.0.1", "6.6.6.6,192.0.2.1, 10.1.2.3", "192.0.2.1"),
            ("10.9.9.9", "192.0.2.1:4711, [2001:db8::1]:80", "192.0.2.1"),
            ("2001:db8::9", "[::ffff:192.0.2.1]", "192.0.2.1"),
            ("127.0.0.1", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
            ("127.0.0.1", "6.6.6.6, unknown, 10.0.0.2", "10.0.0.2"),
            ("127.0.0.1", "unknown", ""),
            ("127.0.0.1", "", ""),
            ("192.0.2.9", "192.0.2.1", ""),
        ] {
            assert_eq!(client(from, list), expected, "{from}: {list}");
        }
        assert_eq!(Proxies::default().client_of("127.0.0.1".parse().unwrap(), "192.0.2.1"), None);
    }

    #[test]
    fn proxy_headers_are_believed_of_proxies() {
        let named = Proxies(vec![read_net("10.0.0.0/8").unwrap()]);
        let may = |proxies: &Proxies, from: &str| proxies.may_open(from.parse().unwrap());
        assert!(may(&named, "::ffff:10.1.1.1") && !may(&named, "127.0.0.1") && !may(&named, "192.0.2.1"));
        assert!(may(&Proxies::default(), "::1") && !may(&Proxies::default(), "10.1.1.1"));
    }
}
