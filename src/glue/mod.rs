//! The server on its executors: one shard per core, connected by the mesh. The only place, with `sys`, that names
//! the runtime on the way of media.
//!
//! listen → `task` → shard → send ring. Everything between two awaits is synchronous and runs on one shard; no
//! lock is taken.

mod outbound;
mod plane;
mod reload;
mod rest;
mod rounds;
mod task;

pub use plane::ReloadReply;

use crate::{
    config::{Config, Listen, Service},
    control::Call,
    core::{self, Shared},
    endpoint,
    mesh::{
        relay,
        ring::{self, ShardWaker},
    },
    stats::ShardStats,
    sys::{ListenError, Listeners, cores},
};
use crossbeam_channel::{Receiver, Sender};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

/// A shard with every endpoint.
type Shard = core::Shard<endpoint::All>;
/// A connection that moves.
type Moved = core::Moved<endpoint::All>;
/// What shards say to each other.
type Message = core::ShardMessage<endpoint::All>;

/// How long the end waits for programs; those that do not end by then are killed.
const PROGRAMS_STOP: Duration = Duration::from_millis(500);

/// The same for leases in the registry.
const REGISTRY_STOP: Duration = Duration::from_millis(500);

/// The same for files of segments and recordings.
const FILES_STOP: Duration = Duration::from_millis(500);

/// What a tag costs each shard that it goes to, in rings that may hold thousands.
const _: () = assert!(ring::slot_bytes::<relay::Message<Message>>() <= 104);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An endpoint cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No thread for page, API and metrics.
    #[error("the thread for the page, the API and metrics: {0}")]
    Plane(std::io::Error),
    /// A shard has no executor or no send ring.
    #[error(
        "shard {shard} on CPU {cpu}: {reason}; corecast needs io_uring (kernel 6.1 or newer, not forbidden by kernel.io_uring_disabled or seccomp)"
    )]
    Shard {
        /// Which.
        shard: usize,
        /// Where.
        cpu: usize,
        /// The system's word.
        reason: String,
    },
}

/// What the server's owner asks of a shard.
#[derive(Debug)]
enum Control {
    /// Accept on a socket.
    Listen(Listen, socket2::Socket),
    /// An endpoint is something else from here on, or nothing.
    Change(Listen, Option<Listen>),
    /// A new configuration has come into force.
    Reconfigure(Arc<Config>),
    /// The control plane wants something.
    Call(Call),
    /// The server drains.
    Drain,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// What is listened on, and where that is in fact. Held while a configuration is changed.
    listening: Mutex<Vec<(Listen, SocketAddr)>>,
    controls: Vec<Sender<Control>>,
    stats: Vec<Arc<ShardStats>>,
    wakers: Arc<[ShardWaker]>,
    ended: Receiver<ShardEnd>,
    reloads: (Sender<ReloadReply>, Receiver<ReloadReply>),
    shards: usize,
}

/// What the server's owner has to do next.
#[derive(Debug)]
pub enum Order<T> {
    /// What the owner waits for.
    Own(T),
    /// Read the configuration anew, and tell how that went.
    Reload(ReloadReply),
    /// Nothing: time is over.
    None,
}

#[derive(Debug)]
enum ShardEnd {
    Started,
    Failed(StartError),
    Stopped,
    Died(usize),
}

impl Server {
    /// Binds, and starts one shard on each of `cpus`.
    ///
    /// # Errors
    /// Any [`StartError`]; nothing runs then.
    pub fn start(config: Config, cpus: &[usize]) -> Result<Self, StartError> {
        let endpoints: Vec<Listen> = config.endpoints().copied().collect();
        let addresses: Vec<SocketAddr> = endpoints.iter().map(|listen| listen.address).collect();
        let listeners = Listeners::bind(&addresses, cpus.len(), &[])?;
        let listening = Mutex::new(endpoints.iter().copied().zip(listeners.addresses().iter().copied()).collect());
        let shared = Arc::new(Shared::new(config));
        let stats: Vec<Arc<ShardStats>> = cpus.iter().map(|_| Arc::default()).collect();
        let meshes = ring::connect(cpus.len());
        let wakers = Arc::clone(meshes[0].wakers());
        let (tell, ended) = crossbeam_channel::unbounded();
        let (controls, obeys): (Vec<_>, Vec<_>) = cpus.iter().map(|_| crossbeam_channel::unbounded()).unzip();
        let server = Self {
            shared,
            listening,
            controls,
            stats,
            wakers,
            ended,
            reloads: crossbeam_channel::unbounded(),
            shards: cpus.len(),
        };
        let wakers = Arc::clone(&server.wakers);
        server.shared.shelf.open(cpus.len(), move |shard| wakers[shard].wake());
        server.need_plane()?;
        server.configure_programs();
        server.listen(&endpoints, listeners);
        let parts = cpus.iter().zip(meshes).zip(obeys).zip(&server.stats);
        for (shard, (((cpu, mesh), obeys), stats)) in parts.enumerate() {
            let (shared, stats, tell) = (Arc::clone(&server.shared), Arc::clone(stats), tell.clone());
            let failed = |reason: String| StartError::Shard { shard, cpu: *cpu, reason };
            let watch = Watch { shard, tell: tell.clone() };
            let main = move || run_shard(watch, shared, mesh, stats, obeys);
            let spawned =
                cores::spawn(&format!("shard-{shard}"), *cpu, main).map_err(|error| failed(error.to_string()));
            if let Err(error) = spawned {
                server.stop();
                return Err(error);
            }
            match server.ended.recv() {
                Ok(ShardEnd::Started) => {}
                Ok(ShardEnd::Failed(error)) => {
                    server.stop();
                    return Err(error);
                }
                Ok(ShardEnd::Stopped | ShardEnd::Died(_)) | Err(_) => {
                    return Err(failed("it ended at once".to_owned()));
                }
            }
        }
        Ok(server)
    }

    /// Starts the control plane if there is something for it to do and it does not run.
    fn need_plane(&self) -> Result<(), StartError> {
        let config = self.shared.config();
        let needed = config.heartbeat.is_some() || config.endpoints().any(|listen| listen.service != Service::Rtmp);
        if !needed || self.shared.plane.get().is_some() {
            return Ok(());
        }
        self.start_plane(self.reloads.0.clone()).map_err(StartError::Plane)
    }

    /// The endpoints that are listened on, and their addresses in fact.
    pub fn listening(&self) -> Vec<(Listen, SocketAddr)> {
        self.lock_listening().clone()
    }

    /// What changes by the API must prove where there is no `auth`; empty if nobody can.
    pub fn api_token(&self) -> &str {
        &self.shared.api_token
    }

    /// Connections of all shards.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Every shard's counters.
    pub fn stats(&self) -> &[Arc<ShardStats>] {
        &self.stats
    }

    /// Asks every shard to stop: connections are closed, no more are accepted.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.wakers.iter().for_each(ShardWaker::wake);
    }

    /// Waits until hooks have been told of everything, at most `limit`; tells whether they have.
    pub fn tell_hooks(&self, limit: Duration) -> bool {
        self.shared.hooks.flush(limit)
    }

    /// Waits until all shards have stopped, at most `limit`.
    ///
    /// # Errors
    /// The number of a shard that died, which makes the others useless; the caller ends the process.
    pub fn wait(&self, limit: Duration) -> Result<bool, usize> {
        let until = Instant::now() + limit;
        let mut stopped = 0;
        while stopped < self.shards {
            match self.ended.recv_deadline(until) {
                Ok(ShardEnd::Stopped) => stopped += 1,
                Ok(ShardEnd::Died(shard)) => return Err(shard),
                Ok(ShardEnd::Started | ShardEnd::Failed(_)) => {}
                Err(_) => return Ok(false),
            }
        }
        if !self.shared.writer.flush(FILES_STOP) {
            tracing::warn!("files: not everything could be written before the end");
        }
        if !self.shared.cluster.leave(REGISTRY_STOP) {
            tracing::warn!("registry: not everything could be given up before the end; leases end by themselves");
        }
        self.shared.programs.stop(PROGRAMS_STOP);
        Ok(true)
    }

    /// Tells what runs beside streams of the configuration in force.
    fn configure_programs(&self) {
        let listening = self.lock_listening();
        let rtmp = listening.iter().find(|(listen, _)| listen.service == Service::Rtmp && !listen.tls);
        let port = rtmp.map_or(0, |(_, address)| address.port());
        drop(listening);
        self.shared.rtmp_port.store(port, Ordering::Relaxed);
        self.shared.cluster.rtmp_port.store(port, Ordering::Relaxed);
        if let Some(registry) = &self.shared.config().registry {
            self.shared.cluster.join(registry, self.shared.cpus);
        }
        self.shared.programs.configure(&self.shared.config(), port);
    }

    /// Waits at most `limit` for what comes `from` the owner's side, or from the API.
    ///
    /// # Errors
    /// The number of a shard that died, which makes the others useless; the caller ends the process.
    pub fn next<T>(&self, from: &Receiver<T>, limit: Duration) -> Result<Order<T>, usize> {
        crossbeam_channel::select! {
            recv(from) -> found => Ok(found.map_or(Order::None, Order::Own)),
            recv(self.reloads.1) -> reply => Ok(reply.map_or(Order::None, Order::Reload)),
            recv(self.ended) -> end => match end {
                Ok(ShardEnd::Died(shard)) => Err(shard),
                Ok(ShardEnd::Started | ShardEnd::Failed(_) | ShardEnd::Stopped) | Err(_) => Ok(Order::None),
            },
            default(limit) => Ok(Order::None),
        }
    }
}

/// Tells the server's owner when a shard's thread ends by a panic.
struct Watch {
    shard: usize,
    tell: Sender<ShardEnd>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let end = if std::thread::panicking() { ShardEnd::Died(self.shard) } else { ShardEnd::Stopped };
        // Nobody listens any more if the server is gone.
        drop(self.tell.send(end));
    }
}

async fn run_shard(
    watch: Watch,
    shared: Arc<Shared>,
    mesh: ring::Mesh<relay::Message<Message>>,
    stats: Arc<ShardStats>,
    obeys: Receiver<Control>,
) {
    let shard = watch.shard;
    match Shard::new(shared, mesh, stats) {
        Ok(server) => {
            drop(watch.tell.send(ShardEnd::Started));
            rounds::run_shard(server, obeys).await;
        }
        Err(error) => {
            let failed = StartError::Shard { shard, cpu: shard, reason: error.to_string() };
            drop(watch.tell.send(ShardEnd::Failed(failed)));
        }
    }
}

#[cfg(test)]
mod tests;
