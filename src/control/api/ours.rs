//! What the API says of things that SRS has not.

use crate::{
    control::access::stable_id,
    package::{Recorded, RecordingState},
    programs::Report,
};
use serde::Serialize;
use utoipa::ToSchema;

/// A recording.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::control) struct Recording {
    /// The stream's id.
    pub(in crate::control) stream: String,
    /// `vhost/app/stream`.
    pub(in crate::control) name: String,
    /// Where it is when it is whole; `.tmp` is behind its name before.
    pub(in crate::control) file: String,
    /// `recording`, `done`, or `failed`.
    pub(in crate::control) state: &'static str,
    /// When it began, in ms since 1970.
    pub(in crate::control) started_ms: u64,
    /// What has been written.
    pub(in crate::control) bytes: u64,
}

impl From<Recorded> for Recording {
    fn from(Recorded { key, file, started_ms, bytes, state }: Recorded) -> Self {
        let state = match state {
            RecordingState::Recording => "recording",
            RecordingState::Done => "done",
            RecordingState::Failed => "failed",
        };
        Self { stream: stable_id(&key), name: key, file, state, started_ms, bytes }
    }
}

/// A process that runs beside a stream, or feeds one. Ours.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::control) struct Program {
    /// `exec`, `transcode` or `ingest`.
    pub(in crate::control) kind: &'static str,
    /// `vhost/app/stream`; of an ingest its vhost and name.
    pub(in crate::control) stream: String,
    /// The engine's, or the program.
    pub(in crate::control) name: String,
    /// `running`; `waiting` to be started again; `too_many` others run.
    pub(in crate::control) state: &'static str,
    /// The process's number; 0 if it does not run.
    pub(in crate::control) pid: u32,
    /// Times that it was started again.
    pub(in crate::control) restarts: u64,
    /// Why it last ended, or could not be started.
    pub(in crate::control) error: String,
}

impl Program {
    pub(super) fn new(report: &Report) -> Self {
        Self {
            kind: report.kind,
            stream: report.stream.clone(),
            name: report.name.clone(),
            state: report.state.name(),
            pid: report.pid,
            restarts: report.restarts,
            error: report.error.clone(),
        }
    }
}
