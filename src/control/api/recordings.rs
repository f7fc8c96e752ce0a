//! Recordings: what is and was recorded, and who is to be. Ours.

use super::{
    Api, Caller,
    manner::Manner,
    model::{Done, Recordings},
    ok,
    ours::Recording,
};
use crate::control::{
    access::stable_id,
    reply::{Reply, Wrong, code, wrong},
};
use hyper::{Method, StatusCode};

impl Api {
    /// Recordings, the newest first; of one stream by its id, or its beginning (POST) and end (DELETE).
    pub(super) fn recordings(
        &self,
        caller: &Caller,
        manner: &Manner,
        query: &str,
        id: Option<&str>,
    ) -> Result<Reply, Wrong> {
        let ids = self.server.ids();
        let (list, streams) = self.server.recordings();
        let Some(id) = id.filter(|_| !manner.asks()) else {
            let (start, count) = manner.page(query)?;
            let all: Vec<Recording> = list.into_iter().map(Recording::from).collect();
            let wanted = |recording: &&Recording| id.is_none_or(|id| recording.stream == id);
            let total = all.iter().filter(wanted).count();
            if let Some(id) = id.filter(|id| total == 0 && !streams.iter().any(|key| stable_id(key) == *id)) {
                return Err(wrong(StatusCode::NOT_FOUND, code::NO_STREAM, format!("no such stream: {id}")));
            }
            let page = all.iter().filter(wanted).skip(start).take(count).cloned().collect();
            return Ok(ok(&Recordings::new(ids, page, total)));
        };
        let by = caller.access.to_change()?;
        let on = manner.method != Method::DELETE;
        let key = streams.iter().find(|key| stable_id(key) == id);
        let changed = key.and_then(|key| self.server.record(key, on));
        match (key, changed) {
            (Some(key), Some(changed)) => {
                if changed {
                    tracing::info!(peer = %caller.peer, %by, stream = %key, on, "API: a recording");
                }
                Ok(ok(&Done::new(ids)))
            }
            _ => {
                let why = "no such stream is published, or its vhost's dvr is off";
                Err(wrong(StatusCode::NOT_FOUND, code::NO_STREAM, why))
            }
        }
    }
}
