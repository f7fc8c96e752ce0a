//! The server as its control plane sees it.

use super::{Control, Server};
use crate::{
    cluster::RegistryState,
    config::{Config, Vhost},
    control::{self, Call, hooks::Hooks},
    core::Shared,
    mesh::ring::ShardWaker,
    package::{self, Recorded},
    programs,
    stats::ShardStats,
};
use async_channel::Receiver;
use crossbeam_channel::Sender;
use std::sync::Arc;

/// Where the outcome of a reload goes: the number of changes, or the faults.
pub type ReloadReply = async_channel::Sender<Result<usize, String>>;

struct Handle {
    shared: Arc<Shared>,
    controls: Vec<Sender<Control>>,
    wakers: Arc<[ShardWaker]>,
    stats: Vec<Arc<ShardStats>>,
    reloads: Sender<ReloadReply>,
}

impl Server {
    /// Starts the control plane's thread.
    ///
    /// # Errors
    /// No thread or no io_uring.
    pub(super) fn start_plane(&self, reloads: Sender<ReloadReply>) -> std::io::Result<()> {
        let plane = control::start(Handle {
            shared: Arc::clone(&self.shared),
            controls: self.controls.clone(),
            wakers: Arc::clone(&self.wakers),
            stats: self.stats.clone(),
            reloads,
        })?;
        // It is set once, here.
        drop(self.shared.plane.set(plane));
        Ok(())
    }
}

impl control::Server for Handle {
    fn config(&self) -> Arc<Config> {
        self.shared.config()
    }

    fn call(&self, shard: usize, call: Call) {
        if let (Some(control), Some(waker)) = (self.controls.get(shard), self.wakers.get(shard)) {
            // A shard that has died has said so.
            drop(control.send(Control::Call(call)));
            waker.wake();
        }
    }

    fn stats(&self) -> &[Arc<ShardStats>] {
        &self.stats
    }

    fn reload(&self) -> Receiver<Result<usize, String>> {
        let (reply, answer) = async_channel::bounded(1);
        // Without an owner who listens, nobody answers.
        drop(self.reloads.send(reply));
        answer
    }

    fn programs(&self) -> Option<Receiver<Vec<programs::Report>>> {
        self.shared.programs.report()
    }

    fn registry(&self) -> Option<RegistryState> {
        self.shared.cluster.registry()
    }

    fn is_published(&self, key: &str) -> bool {
        self.shared.cluster.is_published(key)
    }

    fn is_packaged(&self, vhost: &Vhost, path: &str) -> bool {
        let may_come = || vhost.cluster.fetches() && package::is_playlist(vhost, path);
        vhost.is_packaged() && (package::is_there(&self.shared.shelf, vhost, path) || may_come())
    }

    fn playlists(&self, key: &str) -> [Option<String>; 2] {
        self.shared.shelf.playlists(key)
    }

    fn recordings(&self) -> (Vec<Recorded>, Vec<String>) {
        let recordings = &self.shared.writer.recordings;
        (recordings.list(), recordings.streams())
    }

    fn record(&self, key: &str, on: bool) -> Option<bool> {
        self.shared.writer.recordings.set(key, on)
    }

    fn stored(&self) -> (u64, u64) {
        (self.shared.shelf.bytes(), self.shared.writer.failed())
    }

    fn ids(&self) -> (&str, &str) {
        (&self.shared.server_id, &self.shared.service_id)
    }

    fn token(&self) -> &str {
        &self.shared.api_token
    }

    fn hooks(&self) -> &Hooks {
        &self.shared.hooks
    }

    fn now_ms(&self) -> u64 {
        self.shared.now_ms()
    }
}
