//! Where the configuration comes from, so that a reload finds it again.

use corecast::{
    config::{Config, DEFAULT, Descriptors, Faults, Input, Loaded},
    sys,
};
use std::path::PathBuf;

/// Descriptors that a shard needs beside its connections: rings, eventfds, listeners.
const SHARD_DESCRIPTORS: u64 = 32;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where the process was started, if it has changed its directory since: includes count from there.
    pub(crate) start: Option<PathBuf>,
    /// A file.
    pub(crate) file: Option<PathBuf>,
    /// The environment alone.
    pub(crate) environment_only: bool,
    /// Go without what is not supported.
    pub(crate) lenient: bool,
    /// What the process may have open; `None` does not compare.
    pub(crate) descriptors: Option<Descriptors>,
}

impl Settings {
    /// What a process with so many shards may have open.
    pub(crate) fn descriptors(limit: u64, shards: usize) -> Descriptors {
        Descriptors { limit, own: SHARD_DESCRIPTORS * shards as u64 }
    }

    /// Loads the configuration.
    ///
    /// # Errors
    /// Its faults.
    pub(crate) fn load(&self) -> Result<Loaded, Faults> {
        let text = match (&self.file, self.environment_only) {
            (Some(_), _) => None,
            (None, true) => Some(("environment only", "")),
            (None, false) => Some(("embedded", DEFAULT)),
        };
        let text_of = |value: std::ffi::OsString| value.into_string().ok();
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((text_of(name)?, text_of(value)?))).collect();
        let loaded = Config::load(&Input {
            directory: self.start.as_deref(),
            file: self.file.as_deref(),
            text,
            variables,
            descriptors: self.descriptors,
            lenient: self.lenient,
        })?;
        if let Some(Descriptors { own, .. }) = self.descriptors {
            sys::raise_file_limit_to(u64::from(loaded.config.max_connections) + own);
        }
        Ok(loaded)
    }
}
