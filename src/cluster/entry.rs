//! What the registry says of a stream: one line of text, signed where there is a secret.

use super::Place;
use crate::config::Origin;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The first word of an entry of this kind.
const VERSION: &str = "v1";
/// Longest entry that is looked at.
const ENTRY_BYTES_MAX: usize = 1024;
/// What stands for a signature where there is no secret.
const UNSIGNED: &str = "-";

/// A server's claim on a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    /// When the publish began there, in ms since 1970: of two claims the higher one counts.
    pub(super) epoch: u64,
    /// The process.
    pub(super) service: String,
    pub(super) place: Place,
}

/// What an entry may be that is no good.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum EntryError {
    #[error("an entry of another version")]
    Version,
    #[error("no entry of ours")]
    Malformed,
    #[error("an entry with a wrong signature")]
    Forged,
}

impl Entry {
    /// As it stands in the registry under a stream's key.
    pub(super) fn write(&self, key: &str, secret: &str) -> String {
        let claim = self.claim();
        let sign = match mac(secret, key, &claim) {
            Some(mac) => hex::encode(mac.finalize().into_bytes()),
            None => UNSIGNED.to_owned(),
        };
        format!("{claim} {sign}")
    }

    fn claim(&self) -> String {
        let Self { epoch, service, place: Place { rtmp: Origin { host, port } } } = self;
        format!("{VERSION} {epoch} {service} {host} {}", port.unwrap_or(0))
    }

    /// Reads one.
    ///
    /// # Errors
    /// Any [`EntryError`].
    pub(super) fn read(key: &str, text: &str, secret: &str) -> Result<Self, EntryError> {
        if text.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::Malformed);
        }
        let words: Vec<&str> = text.split(' ').collect();
        let [VERSION, epoch, service, host, port, sign] = words[..] else {
            let another = words[0].strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
            return Err(if another && words[0] != VERSION { EntryError::Version } else { EntryError::Malformed });
        };
        let number = |text: &str| text.parse::<u64>().map_err(|_| EntryError::Malformed);
        let port = u16::try_from(number(port)?).ok().filter(|port| *port > 0);
        let entry = Self {
            epoch: number(epoch)?,
            service: service.to_owned(),
            place: Place { rtmp: Origin { host: host.to_owned(), port } },
        };
        if host.is_empty() || host.contains(['/', '@', '?']) || port.is_none() {
            return Err(EntryError::Malformed);
        }
        if let Some(mac) = mac(secret, key, &entry.claim()) {
            // Takes the same time whatever differs.
            let given = hex::decode(sign).map_err(|_| EntryError::Forged)?;
            mac.verify_slice(&given).map_err(|_| EntryError::Forged)?;
        }
        Ok(entry)
    }
}

fn mac(secret: &str, key: &str, claim: &str) -> Option<Hmac<Sha256>> {
    if secret.is_empty() {
        return None;
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(key.as_bytes());
    // No key has this in it.
    mac.update(b"\n");
    mac.update(claim.as_bytes());
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let place = Place { rtmp: Origin { host: "10.0.0.1".to_owned(), port: Some(1935) } };
        Entry { epoch: 1_700_000_000_000, service: "0a1b2c3d".to_owned(), place }
    }

    #[test]
    fn entries_are_read_as_written() {
        for secret in ["", "s"] {
            let text = entry().write("v/a/s", secret);
            assert_eq!(Entry::read("v/a/s", &text, secret), Ok(entry()));
        }
        // Without a secret nobody looks at signatures.
        assert_eq!(Entry::read("v/a/s", &entry().write("v/a/s", "s"), ""), Ok(entry()));
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        let text = entry().write("v/a/s", "s");
        assert_eq!(Entry::read("v/a/other", &text, "s"), Err(EntryError::Forged));
        assert_eq!(Entry::read("v/a/s", &text, "t"), Err(EntryError::Forged));
        assert_eq!(Entry::read("v/a/s", &text.replace("10.0.0.1", "10.0.0.2"), "s"), Err(EntryError::Forged));
        assert_eq!(Entry::read("v/a/s", &entry().write("v/a/s", ""), "s"), Err(EntryError::Forged));
        assert_eq!(Entry::read("v/a/s", "v2 whatever", ""), Err(EntryError::Version));
        let long = "x".repeat(5000);
        for bad in [
            "",
            " ",
            "v1",
            "v1 1 b h 0 -",
            "v1 x b h 1 -",
            "v1 1 b h/x 1 -",
            "v1 1 b  1 -",
            "vx 1",
            "v1 1 b h 70000 -",
            &long,
        ] {
            assert_eq!(Entry::read("v/a/s", bad, ""), Err(EntryError::Malformed), "{bad}");
        }
    }
}
