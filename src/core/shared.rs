//! What all shards share; nothing of it is touched on the data path.

use super::{audience::Audience, origins::Origins, port::Context, publish::Publish, told::FileEvents};
use crate::{
    cluster::Cluster,
    config::{Config, Takeover},
    control::{
        self, Handed,
        hooks::{self, Hooks},
    },
    media::Taker,
    mesh::seats::Seats,
    package::{DashPackager, Made, Name, Packager, Place, Recorder, Shelf, Tell, Writer},
    programs::Programs,
    sys::{self, CpuMask},
    tls,
};
use arc_swap::ArcSwap;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    config: ArcSwap<Config>,
    pub(crate) connections: AtomicUsize,
    pub(crate) stopping: AtomicBool,
    draining: AtomicBool,
    /// Who is asked and told of what happens.
    pub(crate) hooks: Hooks,
    /// Tell this process from others, in the API and in hooks.
    pub(crate) server_id: String,
    pub(crate) service_id: String,
    /// What changes by the API need where the file has no `auth`: 64 hexadecimal digits, or nothing, which nobody can prove.
    pub(crate) api_token: String,
    /// Where connections go that ask for anything but media.
    pub(crate) plane: OnceLock<async_channel::Sender<Handed>>,
    /// For connections that the server opens by itself; made when first used.
    pub(crate) connector: OnceLock<Result<tls::Connector, String>>,
    /// Where threads may run that are no shard's.
    pub(crate) cpus: Option<CpuMask>,
    /// What runs beside streams.
    pub(crate) programs: Programs,
    /// Where RTMP is listened for, for programs.
    pub(crate) rtmp_port: AtomicU16,
    /// Whether the kernel has TLS.
    pub(crate) ktls: bool,
    /// Who plays at a stream's home though it came in elsewhere.
    pub(super) seats: Arc<Seats>,
    /// Who is there, for hooks.
    pub(super) audience: Arc<Audience>,
    /// Where edges have their streams from.
    pub(super) origins: Origins,
    /// Which server has which stream.
    pub(crate) cluster: Arc<Cluster>,
    /// Segments of streams, for all shards.
    pub(crate) shelf: Arc<Shelf>,
    /// Who writes files.
    pub(crate) writer: Arc<Writer>,
    started: Instant,
    /// When that was, in ms since 1970.
    since_1970_ms: u64,
}

/// What nobody can guess; empty if the kernel has no randomness.
fn secret() -> String {
    let mut bytes = [0; 32];
    let whole = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if whole == Ok(bytes.len()) { hex::encode(bytes) } else { String::new() }
}

impl Shared {
    pub(crate) fn new(config: Config) -> Self {
        let by_chance = || format!("vid-{:07x}", fastrand::u32(..) & 0xFFF_FFFF);
        let server_id = config.server_id.clone().unwrap_or_else(by_chance);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let service_id = format!("{:08x}", fastrand::u32(..));
        let cpus = CpuMask::of_this_thread();
        let cluster = Arc::new(Cluster::new(&service_id, control::device_ip(), cpus));
        let shelf = Arc::new(Shelf::default());
        shelf.set_limit(config.segments_max);
        Self {
            config: ArcSwap::from_pointee(config),
            connections: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            hooks: Hooks::default(),
            plane: OnceLock::new(),
            connector: OnceLock::new(),
            programs: Programs::new(CpuMask::of_this_thread()),
            rtmp_port: AtomicU16::new(0),
            cpus,
            server_id,
            api_token: secret(),
            service_id,
            cluster,
            ktls: sys::has_ktls(),
            seats: Arc::default(),
            audience: Arc::default(),
            origins: Origins::default(),
            shelf,
            writer: Arc::default(),
            started: Instant::now(),
            since_1970_ms: u64::try_from(since_1970.as_millis()).unwrap_or(0),
        }
    }

    /// The configuration of the moment.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Brings a configuration into force.
    pub(crate) fn set_config(&self, config: Arc<Config>) {
        self.shelf.set_limit(config.segments_max);
        self.config.store(config);
    }

    /// Tells the programs of a publish of it, unless they know.
    pub(super) fn begin_programs(&self, publish: &mut Publish) {
        if let Some(known) = publish.for_programs.take() {
            publish.has_programs = true;
            self.programs.begins(known);
        }
    }

    /// What a session may ask for now.
    pub(crate) fn context(&self) -> Context<'_> {
        Context::new(self.now_ms(), &self.config, &self.shelf)
    }

    /// Who takes a publish of a stream beside its players, by its key, and whom they tell of what they make.
    pub(super) fn takers(&self, key: &str, told: FileEvents, fetched: bool) -> Vec<Box<dyn Taker>> {
        let (vhost, url) = key.split_once('/').unwrap_or((key, ""));
        let (app, stream) = url.rsplit_once('/').unwrap_or(("", url));
        let config = self.config();
        let Some(vhost) = config.vhost_named(vhost) else { return Vec::new() };
        let name = Name { key: key.into(), vhost: vhost.name.clone(), app: app.into(), stream: stream.into() };
        let tell = |event: Option<Box<hooks::Event>>| -> Option<Tell> {
            let (event, hooks) = (event?, self.hooks.clone());
            Some(Arc::new(move |made: Made| {
                let mut event = event.clone();
                made.fields().into_iter().for_each(|(name, value)| event.body.add(name, value));
                hooks.tell(*event);
            }))
        };
        let mut takers: Vec<Box<dyn Taker>> = Vec::new();
        // Others have what has been fetched from where it is published.
        if vhost.cluster.is_member() && !fetched {
            let replaces = vhost.publish.takeover == Takeover::Replace;
            takers.push(Box::new(self.cluster.announce(key, replaces)));
        }
        if let Some(hls) = &vhost.hls {
            let on_hls = tell(told.on_hls);
            let place = Place { shelf: &self.shelf, writer: &self.writer, http_dir: &config.http.dir };
            match Packager::new(place, hls, name.clone(), self.since_1970_ms, on_hls) {
                Some(packager) => takers.push(Box::new(packager)),
                None => tracing::warn!(stream = %key, "no HLS: its name cannot be a file's"),
            }
        }
        if let Some(dash) = &vhost.dash {
            let place = Place { shelf: &self.shelf, writer: &self.writer, http_dir: &config.http.dir };
            match DashPackager::new(place, dash, name.clone(), self.since_1970_ms) {
                Some(packager) => takers.push(Box::new(packager)),
                None => tracing::warn!(stream = %key, "no DASH: its name cannot be a file's"),
            }
        }
        if let Some(dvr) = &vhost.dvr {
            let on_dvr = tell(told.on_dvr);
            takers.push(Box::new(Recorder::new(&self.writer, dvr, name, self.since_1970_ms, on_dvr)));
        }
        takers
    }

    /// Whether no more connections are taken and those that are here come to their end.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From here on it drains.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The process's clock, in ms; the same on every shard.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
