//! The protocol of a connection.

use super::http::HttpSession;
use crate::proto::rtmp::server::{Connect, ServerSession};

/// What a connection speaks.
#[derive(Debug)]
pub(in crate::serve) enum Session {
    Rtmp(ServerSession),
    Http(HttpSession),
}

impl Session {
    /// What is to be sent, beside what plays.
    pub(in crate::serve) fn take_output(&mut self) -> Vec<u8> {
        match self {
            Self::Rtmp(session) => session.take_output(),
            Self::Http(session) => std::mem::take(&mut session.output),
        }
    }

    /// Bytes of it.
    pub(in crate::serve) fn output_len(&self) -> usize {
        match self {
            Self::Rtmp(session) => session.output_len(),
            Self::Http(session) => session.output.len(),
        }
    }

    /// Bytes understood so far, for the log.
    pub(in crate::serve) fn position(&self) -> u64 {
        match self {
            Self::Rtmp(session) => u64::from(session.position()),
            Self::Http(session) => session.position,
        }
    }

    /// Bytes of an RTMP chunk.
    pub(in crate::serve) fn chunk_size(&self) -> usize {
        match self {
            Self::Rtmp(session) => session.chunk_size(),
            Self::Http(_) => 0,
        }
    }

    /// What RTMP's `connect` said.
    pub(in crate::serve) fn connect(&self) -> Option<&Connect> {
        match self {
            Self::Rtmp(session) => session.connect(),
            Self::Http(_) => None,
        }
    }

    /// The URL up to the app.
    pub(in crate::serve) fn tc_url(&self) -> &str {
        match self {
            Self::Rtmp(session) => session.connect().map_or("", |connect| &connect.tc_url),
            Self::Http(session) => &session.tc_url,
        }
    }

    /// The page that the player stands in.
    pub(in crate::serve) fn page_url(&self) -> &str {
        match self {
            Self::Rtmp(session) => session.connect().map_or("", |connect| &connect.page_url),
            Self::Http(session) => &session.referer,
        }
    }

    /// Says something in RTMP; HTTP has no words for it.
    pub(in crate::serve) fn say(&mut self, words: impl FnOnce(&mut ServerSession)) {
        if let Self::Rtmp(session) = self {
            words(session);
        }
    }
}
