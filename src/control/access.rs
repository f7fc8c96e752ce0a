//! Signed URLs, and the ids by which clients and streams are known outside.

use crate::{
    config::{Action, DEFAULT_VHOST, SignedUrl},
    proto::http::query_value,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

/// Why a signed URL is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SignatureError {
    /// `expires` or `sign` is not there.
    #[error("the URL is not signed: no expires and sign")]
    Missing,
    /// `expires` has passed, or is no time.
    #[error("the URL's signature has expired")]
    Expired,
    /// Made with another key, or for something else.
    #[error("the URL's signature is wrong")]
    Wrong,
}

/// Checks `?expires=UNIXTIME&sign=HEX` of a stream's URL. What is signed is `play VHOST/app/stream UNIXTIME`, without VHOST
/// for the default one.
///
/// # Errors
/// Any [`SignatureError`].
pub fn check_signature(
    signed: &SignedUrl,
    action: Action,
    (vhost, app, stream): (&str, &str, &str),
    param: &str,
) -> Result<(), SignatureError> {
    let needed = match action {
        Action::Publish => signed.publish,
        Action::Play => signed.play,
    };
    if !needed {
        return Ok(());
    }
    let (Some(expires), Some(sign)) = (query_value(param, "expires"), query_value(param, "sign")) else {
        return Err(SignatureError::Missing);
    };
    let given = hex::decode(sign).map_err(|_| SignatureError::Wrong)?;
    let mac = mac(&signed.key, action, (vhost, app, stream), &expires).ok_or(SignatureError::Wrong)?;
    // Takes the same time whatever differs.
    mac.verify_slice(&given).map_err(|_| SignatureError::Wrong)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if expires.parse::<u64>().is_ok_and(|expires| now <= expires) { Ok(()) } else { Err(SignatureError::Expired) }
}

fn mac(key: &str, action: Action, (vhost, app, stream): (&str, &str, &str), expires: &str) -> Option<Hmac<Sha256>> {
    let vhost = if vhost == DEFAULT_VHOST { "" } else { vhost };
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).ok()?;
    mac.update(format!("{} {vhost}/{app}/{stream} {expires}", action.name()).as_bytes());
    Some(mac)
}

/// Where a client came in: the shard, and its place there. It keeps its id when it moves.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ClientId {
    /// The shard that accepted it.
    pub shard: usize,
    /// Its connection there, and which one in that place.
    pub token: u64,
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.shard, self.token)
    }
}

impl ClientId {
    /// Reads what [`fmt::Display`] writes.
    pub fn read(id: &str) -> Option<Self> {
        let (shard, token) = id.split_once('-')?;
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        (plain(shard) && plain(token)).then_some(())?;
        Some(Self { shard: usize::from_str_radix(shard, 16).ok()?, token: u64::from_str_radix(token, 16).ok()? })
    }
}

/// The id of a stream or vhost: the same as long as its name is.
pub fn stable_id(name: &str) -> String {
    use sha2::Digest;
    format!("vid-{}", hex::encode(&Sha256::digest(name.as_bytes())[..5]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(key: &str, action: Action, expires: &str) -> String {
        hex::encode(mac(key, action, (DEFAULT_VHOST, "live", "s"), expires).unwrap().finalize().into_bytes())
    }

    #[test]
    fn signatures_hold_for_one_thing_until_their_time() {
        let signed = SignedUrl { key: "secret".to_owned(), publish: false, play: true };
        let check = |param: &str| check_signature(&signed, Action::Play, (DEFAULT_VHOST, "live", "s"), param);
        let later = "99999999999";
        let good = sign("secret", Action::Play, later);
        assert_eq!(check(&format!("?a=b&expires={later}&sign={good}")), Ok(()));
        assert_eq!(check(&format!("?expires={later}0&sign={good}")), Err(SignatureError::Wrong));
        assert_eq!(
            check(&format!("?expires=1&sign={}", sign("secret", Action::Play, "1"))),
            Err(SignatureError::Expired)
        );
        for wrong in [
            sign("other", Action::Play, later),
            sign("secret", Action::Publish, later),
            "zz".into(),
            "a".into(),
            String::new(),
        ] {
            assert_eq!(check(&format!("?expires={later}&sign={wrong}")), Err(SignatureError::Wrong), "{wrong}");
        }
        assert_eq!(check("?expires=1"), Err(SignatureError::Missing));
        assert_eq!(
            check_signature(&signed, Action::Publish, (DEFAULT_VHOST, "live", "s"), ""),
            Ok(()),
            "publishers need none"
        );
        let param = format!("?expires={later}&sign={good}");
        for other in [(DEFAULT_VHOST, "live", "t"), (DEFAULT_VHOST, "other", "s"), ("other", "live", "s")] {
            assert_eq!(check_signature(&signed, Action::Play, other, &param), Err(SignatureError::Wrong), "{other:?}");
        }
        let theirs = mac("secret", Action::Play, ("other", "live", "s"), later).unwrap().finalize().into_bytes();
        let param = format!("?expires={later}&sign={}", hex::encode(theirs));
        assert_eq!(check_signature(&signed, Action::Play, ("other", "live", "s"), &param), Ok(()));
    }

    #[test]
    fn ids_are_read_back() {
        let id = ClientId { shard: 11, token: 0x1234_0000_0007 };
        assert_eq!(ClientId::read(&id.to_string()), Some(id));
        for bad in ["", "-", "1", "1-", "g-1", "1-+2", "1-2-3", "999999999999999999999-1"] {
            assert_eq!(ClientId::read(bad), None, "{bad}");
        }
        assert_eq!(stable_id("a"), stable_id("a"));
    }
}
