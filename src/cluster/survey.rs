//! What stands in the registry, for people.

use super::{
    entry::Entry,
    registry::{PREFIX, TIME_MAX, scan},
};
use crate::{config::Registry, proto::address::authority};
use redis::Client;
use std::collections::BTreeMap;

/// A server, and what is published at it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Where its RTMP is.
    pub at: String,
    /// The process.
    pub service: String,
    /// Streams by their keys, with when each began, in ms since 1970.
    pub streams: Vec<(String, u64)>,
}

/// Every server that has a stream, by its address; and how many entries are no good.
///
/// # Errors
/// Redis's, in words.
pub fn survey(settings: &Registry) -> Result<(Vec<Member>, usize), String> {
    let in_words = |error: redis::RedisError| error.to_string();
    // Its TLS asks for the process's.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let client = Client::open(settings.url.as_str()).map_err(in_words)?;
    let mut connection = client.get_connection_with_timeout(TIME_MAX).map_err(in_words)?;
    connection.set_read_timeout(Some(TIME_MAX)).map_err(in_words)?;
    let (mut members, mut bad, mut cursor) = (BTreeMap::<(String, String), Vec<(String, u64)>>::new(), 0, 0);
    loop {
        let (next, found) = scan(&mut connection, cursor).map_err(in_words)?;
        for (key, value) in found {
            let Some(key) = key.strip_prefix(PREFIX) else { continue };
            match Entry::read(key, &value, &settings.secret) {
                Ok(Entry { epoch, service, place }) => {
                    let at = authority(&place.rtmp.host, place.rtmp.port.unwrap_or(0));
                    members.entry((at, service)).or_default().push((key.to_owned(), epoch));
                }
                Err(_) => bad += 1,
            }
        }
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    let member = |((at, service), mut streams): ((String, String), Vec<(String, u64)>)| {
        streams.sort();
        Member { at, service, streams }
    };
    Ok((members.into_iter().map(member).collect(), bad))
}
