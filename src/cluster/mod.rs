//! Which server has which stream: what is published here, for others to know, and who is asked for what is not.
//!
//! Nothing of it is on the way of media: a publish is announced when it begins, and a stream that is not here is asked for
//! when somebody wants it, by threads of their own.

mod coworkers;
mod entry;
mod registry;
mod survey;

pub use survey::{Member, survey};

use crate::{
    config::{Origin, Registry, Vhost},
    media::{Entry, Taker},
    sys::CpuMask,
};
use async_channel::Receiver;
use coworkers::Coworkers;
use hashbrown::HashMap;
use registry::Link;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A server that has a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// Its RTMP.
    pub rtmp: Origin,
}

/// What one asks for.
#[derive(Clone, Debug)]
pub struct Sought {
    /// The stream's key.
    pub key: String,
    /// The vhost's name.
    pub vhost: String,
    /// The host that the player asked.
    pub host: String,
    /// The app.
    pub app: String,
    /// The stream's name.
    pub stream: String,
}

/// Where it stands with the registry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RegistryState {
    /// Whether it answers.
    pub up: bool,
    /// Streams that are published here, as others are to know.
    pub own: usize,
    /// Streams of others.
    pub known: usize,
}

/// A publish.
#[derive(Clone, Copy, Debug)]
struct Published {
    count: u64,
    /// When it began, in ms since 1970; of two of one stream the later counts.
    epoch: u64,
    /// It takes the stream over from another server.
    replaces: bool,
}

/// A publish whose stream another server has.
#[derive(Debug)]
struct Lost {
    key: Arc<str>,
    epoch: u64,
    why: String,
}

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    /// This process.
    service: String,
    /// This machine, for others.
    address: String,
    /// Where RTMP is listened for.
    pub rtmp_port: AtomicU16,
    published: Mutex<HashMap<Arc<str>, Published>>,
    lost: Mutex<Vec<Lost>>,
    any_lost: AtomicBool,
    coworkers: Coworkers,
    registry: OnceLock<Option<Link>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    /// Of a process that has this name for others, and that they reach at an address. Threads run on `cpus`.
    pub fn new(service: &str, address: String, cpus: Option<CpuMask>) -> Self {
        Self {
            service: service.to_owned(),
            address,
            rtmp_port: AtomicU16::new(0),
            published: Mutex::default(),
            lost: Mutex::default(),
            any_lost: AtomicBool::new(false),
            coworkers: Coworkers::new(cpus),
            registry: OnceLock::new(),
        }
    }

    /// Begins with a registry; once.
    pub fn join(self: &Arc<Self>, settings: &Arc<Registry>, cpus: Option<CpuMask>) {
        self.registry.get_or_init(|| Link::begin(self, settings, self.service.clone(), cpus));
    }

    fn link(&self) -> Option<&Link> {
        self.registry.get()?.as_ref()
    }

    /// Where it stands with the registry, if there is one.
    pub fn registry(&self) -> Option<RegistryState> {
        let (up, known) = self.link()?.state();
        Some(RegistryState { up, own: lock(&self.published).len(), known })
    }

    /// Nothing is published here any more: has the registry know that, within a time, if it is there.
    pub fn leave(&self, limit: Duration) -> bool {
        self.link().filter(|link| link.state().0).is_none_or(|link| link.leave(limit))
    }

    fn service(&self) -> &str {
        &self.service
    }

    /// A stream is published here, as long as what is returned is there. `replaces` takes it over from another server.
    pub fn announce(self: &Arc<Self>, key: &str, replaces: bool) -> Announced {
        let key = Arc::from(key);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(since.as_millis()).unwrap_or(0);
        {
            let mut published = lock(&self.published);
            let publish = published.entry(Arc::clone(&key)).or_insert(Published { count: 0, epoch: 0, replaces });
            publish.count += 1;
            publish.epoch = now_ms.max(publish.epoch + 1);
            publish.replaces = replaces;
        }
        self.look();
        Announced { cluster: Arc::clone(self), key: Some(key) }
    }

    fn look(&self) {
        self.link().into_iter().for_each(Link::look);
    }

    /// Whether somebody publishes a stream here, by its key.
    pub fn is_published(&self, key: &str) -> bool {
        lock(&self.published).contains_key(key)
    }

    /// Epoch of every publish, and whether it takes streams over.
    fn publishes(&self) -> HashMap<Arc<str>, (u64, bool)> {
        let published = lock(&self.published);
        published.iter().map(|(key, publish)| (Arc::clone(key), (publish.epoch, publish.replaces))).collect()
    }

    /// A publish has to end, since another server has the stream.
    fn lose(&self, key: &Arc<str>, epoch: u64, why: String) {
        lock(&self.lost).push(Lost { key: Arc::clone(key), epoch, why });
        self.any_lost.store(true, Ordering::Release);
    }

    /// Publishes that have to end, and why, of those that are the caller's to end.
    pub fn take_lost(&self, is_mine: impl Fn(&str) -> bool) -> Vec<(Arc<str>, String)> {
        if !self.any_lost.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut lost = lock(&self.lost);
        let mine: Vec<Lost> = lost.extract_if(.., |lost| is_mine(&lost.key)).collect();
        self.any_lost.store(!lost.is_empty(), Ordering::Release);
        drop(lost);
        let published = lock(&self.published);
        let is_it = |lost: &Lost| published.get(&lost.key).is_some_and(|publish| publish.epoch == lost.epoch);
        mine.into_iter().filter(is_it).map(|lost| (lost.key, lost.why)).collect()
    }

    /// Asks who has a stream of a vhost.
    pub fn find(&self, vhost: &Vhost, sought: Sought) -> Receiver<Option<Place>> {
        match self.link().filter(|_| vhost.cluster.registry.is_some()) {
            Some(link) => {
                let (answer, answered) = async_channel::bounded(1);
                link.find(sought.key, answer);
                answered
            }
            None => self.coworkers.ask(&vhost.cluster.coworkers, sought),
        }
    }
}

/// A publish that others may know of.
#[derive(Debug)]
pub struct Announced {
    cluster: Arc<Cluster>,
    key: Option<Arc<str>>,
}

impl Taker for Announced {
    fn take(&mut self, _: &Entry) {}

    fn end(&mut self) {
        let Some(key) = self.key.take() else { return };
        let mut published = lock(&self.cluster.published);
        if let Some(publish) = published.get_mut(&key) {
            publish.count -= 1;
            if publish.count == 0 {
                published.remove(&key);
            }
        }
        drop(published);
        self.cluster.look();
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_known_as_long_as_it_lasts() {
        let cluster = Arc::new(Cluster::new("a", "h".to_owned(), None));
        let mut first = cluster.announce("v/a/s", false);
        let second = cluster.announce("v/a/s", false);
        assert!(cluster.is_published("v/a/s") && !cluster.is_published("v/a/t"));
        first.end();
        drop(first);
        assert!(cluster.is_published("v/a/s"));
        drop(second);
        assert!(!cluster.is_published("v/a/s"));
    }

    #[test]
    fn a_publish_that_is_lost_is_no_later_one() {
        let cluster = Arc::new(Cluster::new("a", "h".to_owned(), None));
        let first = cluster.announce("v/a/s", false);
        let (key, (epoch, _)) = cluster.publishes().into_iter().next().unwrap();
        cluster.lose(&key, epoch, "why".to_owned());
        assert!(cluster.take_lost(|_| false).is_empty());
        assert_eq!(cluster.take_lost(|_| true).len(), 1);
        assert!(cluster.take_lost(|_| true).is_empty());
        cluster.lose(&key, epoch, "why".to_owned());
        drop(first);
        std::thread::sleep(Duration::from_millis(2));
        let _second = cluster.announce("v/a/s", false);
        assert!(cluster.take_lost(|_| true).is_empty());
    }
}
