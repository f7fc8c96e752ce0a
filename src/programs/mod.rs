//! Programs that run beside streams: `exec`, `transcode`, `ingest`.
//!
//! One thread starts them, looks after them and ends them; a shard tells it of publishes and goes on. It is started by the
//! first of them, and remembers those that are there: a reload acts on them too.

mod command;
mod supervisor;

use crate::{
    config::{self, Config},
    sys::CpuMask,
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    time::Duration,
};

/// A publish, as programs know it.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Tells it from others of this process: its shard, and the publish's number there.
    pub id: (usize, u64),
    /// The vhost's name.
    pub vhost: String,
    /// The app.
    pub app: String,
    /// The stream.
    pub stream: String,
    /// The query, with its `?`.
    pub param: String,
    /// As the publisher said it.
    pub tc_url: String,
    /// The same.
    pub page_url: String,
    /// The same.
    pub swf_url: String,
    /// Where RTMP is listened for.
    pub port: u16,
    /// What the vhost runs.
    pub programs: Arc<config::Programs>,
}

/// What a program does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// It runs.
    Running,
    /// It has ended, or could not be started, and is started again in a while.
    Waiting,
    /// Others are in its place.
    TooMany,
}

impl State {
    /// In the API and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::TooMany => "too_many",
        }
    }
}

/// A program, for the API.
#[derive(Clone, Debug)]
pub struct Report {
    /// `exec`, `transcode` or `ingest`.
    pub kind: &'static str,
    /// `vhost/app/stream`; of an ingest its vhost and name.
    pub stream: String,
    /// The engine's name, or the program.
    pub name: String,
    /// Now.
    pub state: State,
    /// The process's number; 0 if there is none.
    pub pid: u32,
    /// Times that it was started again.
    pub restarts: u64,
    /// Why it does not run.
    pub error: String,
}

enum Word {
    Begins(Box<Publish>),
    Ends((usize, u64)),
    Configuration(Arc<Config>, u16),
    Report(async_channel::Sender<Vec<Report>>),
    Stop(Sender<()>),
}

/// Hands words to the thread that looks after programs.
#[derive(Debug, Default)]
pub struct Programs {
    thread: Mutex<Option<Sender<Word>>>,
    /// Where programs may run.
    cpus: Option<CpuMask>,
}

impl Programs {
    /// With programs on these CPUs.
    pub fn new(cpus: Option<CpuMask>) -> Self {
        Self { thread: Mutex::default(), cpus }
    }

    /// A configuration is in force; RTMP is listened for on `port`.
    pub fn configure(&self, config: &Arc<Config>, port: u16) {
        let any = |vhost: &Arc<config::Vhost>| *vhost.programs != config::Programs::default();
        if config.vhosts.iter().any(any) || self.is_running() {
            self.tell(Word::Configuration(Arc::clone(config), port));
        }
    }

    /// A publish has begun.
    pub fn begins(&self, publish: Box<Publish>) {
        self.tell(Word::Begins(publish));
    }

    /// And has ended.
    pub fn ends(&self, id: (usize, u64)) {
        if self.is_running() {
            self.tell(Word::Ends(id));
        }
    }

    /// What runs; `None` if nothing ever did.
    pub fn report(&self) -> Option<async_channel::Receiver<Vec<Report>>> {
        let (reply, answer) = async_channel::bounded(1);
        self.is_running().then(|| self.tell(Word::Report(reply)))?;
        Some(answer)
    }

    /// Asks all programs to end, and waits for that at most for `limit`; those that are left end with the process.
    pub fn stop(&self, limit: Duration) {
        let Some(words) = self.lock().take() else { return };
        let (done, wait) = channel();
        if words.send(Word::Stop(done)).is_ok() {
            wait.recv_timeout(limit).ok();
        }
    }

    fn is_running(&self) -> bool {
        self.lock().is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Sender<Word>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, word: Word) {
        let mut thread = self.lock();
        if thread.is_none() {
            let (words, receiver) = channel();
            let cpus = self.cpus;
            let spawned = std::thread::Builder::new().name("programs".to_owned()).spawn(move || {
                if let Some(cpus) = &cpus {
                    cpus.apply();
                }
                supervisor::run(&receiver);
            });
            match spawned {
                Ok(_) => *thread = Some(words),
                Err(error) => return tracing::error!(%error, "programs: no thread"),
            }
        }
        if let Some(words) = &*thread {
            drop(words.send(word));
        }
    }
}
