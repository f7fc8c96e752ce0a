//! The registry: Redis, where each server holds a lease on every stream that is published at it, and finds who has others.
//!
//! One thread speaks to Redis, and one listens for what others announce. Redis may be lost, hang, or come back empty:
//! what runs goes on, who asks meanwhile is answered from what was last known, and leases are claimed anew when it is
//! there. Of two claims on one stream the one whose publish began later counts; the other's publish ends.

use super::{
    Cluster, Place,
    entry::{Entry, EntryError},
    lock,
};
use crate::{
    config::{Origin, Registry},
    sys::CpuMask,
};
use async_channel::Sender;
use hashbrown::HashMap;
use redis::{Client, Connection, RedisResult};
use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

/// What keys and the channel begin with.
pub(super) const PREFIX: &str = "corecast:stream:";
const CHANNEL: &str = "corecast:changes";
/// How long Redis may take to take a connection, and to answer.
pub(super) const TIME_MAX: Duration = Duration::from_secs(1);
/// Before it is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// Questions and announcements that wait; publishes are looked through anyway at every renewal.
const JOBS_MAX: usize = 10_000;
/// Leases that are renewed by one call.
const BATCH: usize = 200;
/// All entries are read again so much later, for each of them, at the soonest: a thousand a second and server.
const SWEEP_PER_ENTRY: Duration = Duration::from_millis(1);
/// Keys of one step of a scan.
const SCAN: usize = 1000;
/// Streams of others that are remembered.
const KNOWN_MAX: usize = 1_000_000;

/// Claims or renews leases. Of each key: what is to stand there, its epoch, and whether it goes before lower ones. Answers with
/// what stands there instead, or nothing.
const CLAIM: &str = "
local out = {}
for i, key in ipairs(KEYS) do
  local value, epoch, force = ARGV[3 * i], tonumber(ARGV[3 * i + 1]), ARGV[3 * i + 2] == '1'
  local there = redis.call('GET', key)
  local other = there and there ~= value and tonumber(string.match(there, '^v1 (%d+) '))
  if not there or there == value or (force and other and other < epoch) then
    redis.call('SET', key, value, 'PX', ARGV[1])
    if there ~= value then redis.call('PUBLISH', ARGV[2], key .. '\\n' .. value) end
    out[i] = ''
  else
    out[i] = there
  end
end
return out";
/// Gives a lease up, if it is held still.
const RELEASE: &str = "
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', ARGV[2], KEYS[1] .. '\\n')
end
return 1";

/// What the thread has to do.
#[derive(Debug)]
pub(super) enum Job {
    Find(String, Sender<Option<Place>>),
    /// A publish has begun, or has ended.
    Look,
    /// Give up what is not published any more, and say so.
    Leave(mpsc::Sender<()>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    jobs: mpsc::SyncSender<Job>,
    /// Streams of others, as they were last known.
    known: Arc<Mutex<HashMap<String, Entry>>>,
    up: Arc<AtomicBool>,
}

/// A lease.
#[derive(Debug)]
struct Lease {
    epoch: u64,
    value: String,
    /// It has been ours.
    held: bool,
    /// Since when another one holds it.
    contested: Option<Instant>,
}

struct Worker {
    cluster: Weak<Cluster>,
    settings: Arc<Registry>,
    service: String,
    client: Client,
    connection: Option<Connection>,
    retry: Instant,
    leases: HashMap<Arc<str>, Lease>,
    known: Arc<Mutex<HashMap<String, Entry>>>,
    up: Arc<AtomicBool>,
    renew: Instant,
    resync: Instant,
    /// It has been said that it is not there, and that somebody writes what is no entry.
    missed: bool,
    /// See there.
    warned: bool,
}

impl Link {
    /// Begins; `None` if it cannot, which is in the log.
    pub(super) fn begin(
        cluster: &Arc<Cluster>,
        settings: &Arc<Registry>,
        service: String,
        cpus: Option<CpuMask>,
    ) -> Option<Self> {
        // Its TLS asks for the process's.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let client = match Client::open(settings.url.as_str()) {
            Ok(client) => client,
            Err(error) => {
                tracing::error!("registry: {error}");
                return None;
            }
        };
        let (jobs, receiver) = mpsc::sync_channel(JOBS_MAX);
        let (known, up) = (Arc::<Mutex<HashMap<String, Entry>>>::default(), Arc::<AtomicBool>::default());
        let now = Instant::now();
        let worker = Worker {
            cluster: Arc::downgrade(cluster),
            settings: Arc::clone(settings),
            service,
            client: client.clone(),
            connection: None,
            retry: now,
            leases: HashMap::new(),
            known: Arc::clone(&known),
            up: Arc::clone(&up),
            renew: now,
            resync: now,
            missed: false,
            warned: false,
        };
        let listener = (Arc::downgrade(cluster), Arc::clone(&known), Arc::clone(settings));
        let on = |run: Box<dyn FnOnce() + Send>| {
            let body = move || {
                cpus.inspect(CpuMask::apply);
                run();
            };
            std::thread::Builder::new().name("registry".to_owned()).spawn(body)
        };
        let begun = on(Box::new(move || worker.run(&receiver)));
        let begun = begun.and_then(|_| on(Box::new(move || listen(&client, &listener.0, &listener.1, &listener.2))));
        begun.inspect_err(|error| tracing::error!(%error, "registry: no thread")).ok()?;
        Some(Self { jobs, known, up })
    }

    pub(super) fn find(&self, key: String, answer: Sender<Option<Place>>) {
        if let Err(mpsc::TrySendError::Full(Job::Find(key, answer))) = self.jobs.try_send(Job::Find(key, answer)) {
            drop(answer.try_send(self.last_known(&key)));
        }
    }

    /// Something is published, or no more.
    pub(super) fn look(&self) {
        // A job that waits already does it, too.
        drop(self.jobs.try_send(Job::Look));
    }

    /// Gives up what is not published any more; tells whether that was possible within a time.
    pub(super) fn leave(&self, limit: Duration) -> bool {
        let (done, left) = mpsc::channel();
        self.jobs.try_send(Job::Leave(done)).is_ok() && left.recv_timeout(limit).is_ok()
    }

    fn last_known(&self, key: &str) -> Option<Place> {
        lock(&self.known).get(key).map(|entry| entry.place.clone())
    }

    /// Whether Redis answers, and how many streams of others are known.
    pub(super) fn state(&self) -> (bool, usize) {
        (self.up.load(Ordering::Relaxed), lock(&self.known).len())
    }
}

impl Worker {
    fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        loop {
            let due = self.renew.min(self.resync);
            match jobs.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Job::Find(key, answer)) => self.find(&key, &answer),
                Ok(Job::Look) => self.renew = Instant::now(),
                Ok(Job::Leave(done)) => {
                    self.renew();
                    // Whoever waits may have given up.
                    _ = done.send(());
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return self.give_all_up(),
            }
            if self.cluster.strong_count() == 0 {
                return self.give_all_up();
            }
            if Instant::now() >= self.renew {
                self.renew();
            }
            if Instant::now() >= self.resync {
                self.resync();
            }
        }
    }

    /// Does something with Redis, if it is there.
    fn with<T>(&mut self, work: impl FnOnce(&mut Connection) -> RedisResult<T>) -> Option<T> {
        if self.connection.is_none() {
            if Instant::now() < self.retry {
                return None;
            }
            let opened = self.client.get_connection_with_timeout(TIME_MAX).and_then(|connection| {
                connection.set_read_timeout(Some(TIME_MAX))?;
                connection.set_write_timeout(Some(TIME_MAX))?;
                Ok(connection)
            });
            match opened {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => {
                    self.lose(&error);
                    return None;
                }
            }
        }
        match work(self.connection.as_mut()?) {
            Ok(done) => {
                if !self.up.swap(true, Ordering::Relaxed) {
                    tracing::info!("registry: it answers");
                    // What it has lost is announced anew.
                    (self.renew, self.resync) = (Instant::now(), Instant::now());
                }
                Some(done)
            }
            Err(error) => {
                self.connection = None;
                self.lose(&error);
                None
            }
        }
    }

    fn lose(&mut self, error: &redis::RedisError) {
        self.retry = Instant::now() + PAUSE;
        if self.up.swap(false, Ordering::Relaxed) || !std::mem::replace(&mut self.missed, true) {
            tracing::warn!("registry: {error}; what runs goes on, and who asks is told what was last known");
        }
    }

    fn find(&mut self, key: &str, answer: &Sender<Option<Place>>) {
        if answer.is_closed() {
            return;
        }
        let stored = format!("{PREFIX}{key}");
        let found = self.with(|redis| redis::cmd("GET").arg(&stored).query::<Option<String>>(redis));
        let place = match found {
            None => lock(&self.known).get(key).map(|entry| entry.place.clone()),
            Some(text) => {
                let entry = text.and_then(|text| self.read(key, &text)).filter(|entry| entry.service != self.service);
                note(&self.known, key, entry.clone());
                entry.map(|entry| entry.place)
            }
        };
        // Whoever asked may have gone.
        drop(answer.try_send(place));
    }

    fn read(&mut self, key: &str, text: &str) -> Option<Entry> {
        Entry::read(key, text, &self.settings.secret).inspect_err(|error| self.doubt(key, *error)).ok()
    }

    fn doubt(&mut self, key: &str, error: EntryError) {
        if self.warned {
            tracing::debug!(stream = %key, "registry: {error}");
        } else {
            self.warned = true;
            tracing::warn!(stream = %key, "registry: {error}; it is passed over, and the next ones without a word");
        }
    }

    /// Claims what is published here, renews what is held, and gives up what is not published any more.
    fn renew(&mut self) {
        self.renew = Instant::now() + self.settings.lease / 3;
        let Some(cluster) = self.cluster.upgrade() else { return };
        let published = cluster.publishes();
        let place = Place { rtmp: cluster.own_place(&self.settings) };
        let gone: Vec<(Arc<str>, Lease)> = self
            .leases
            .extract_if(|key, lease| published.get(key).is_none_or(|(epoch, _)| *epoch != lease.epoch))
            .collect();
        for (key, lease) in gone {
            self.release(&key, &lease.value);
        }
        for (key, (epoch, _)) in &published {
            self.leases.entry_ref(key).or_insert_with(|| Lease {
                epoch: *epoch,
                value: Entry { epoch: *epoch, service: self.service.clone(), place: place.clone() }
                    .write(key, &self.settings.secret),
                held: false,
                contested: None,
            });
        }
        let keys: Vec<Arc<str>> = self.leases.keys().map(Arc::clone).collect();
        for keys in keys.chunks(BATCH) {
            let mut claim = redis::cmd("EVAL");
            claim.arg(CLAIM).arg(keys.len());
            for key in keys {
                claim.arg(format!("{PREFIX}{key}"));
            }
            claim.arg(milliseconds(self.settings.lease)).arg(CHANNEL);
            for key in keys {
                let lease = &self.leases[key];
                let replaces = published.get(key).is_some_and(|(_, replaces)| *replaces);
                let force = lease.held || replaces;
                claim.arg(&lease.value).arg(lease.epoch).arg(u8::from(force));
            }
            let Some(answers) = self.with(|redis| claim.query::<Vec<String>>(redis)) else { return };
            for (key, there) in keys.iter().zip(answers) {
                self.claimed(&cluster, key, &there);
            }
        }
    }

    /// What has come of a claim: nothing stands in its way, or this does.
    fn claimed(&mut self, cluster: &Cluster, key: &Arc<str>, there: &str) {
        let other = if there.is_empty() { None } else { self.read(key, there) };
        let lease_time = self.settings.lease;
        let stored = format!("{PREFIX}{key}");
        let Some(lease) = self.leases.get_mut(key) else { return };
        if there.is_empty() {
            (lease.held, lease.contested) = (true, None);
            return;
        }
        let Some(other) = other.filter(|other| other.service != self.service) else {
            // Nobody's, or what this process held before.
            let value = lease.value.clone();
            let millis = milliseconds(lease_time);
            let set = redis::cmd("SET").arg(&stored).arg(&value).arg("PX").arg(millis).to_owned();
            if self.with(|redis| set.query::<()>(redis)).is_some()
                && let Some(lease) = self.leases.get_mut(key)
            {
                lease.held = true;
            }
            return;
        };
        // Who claims first waits for one lease: the other one may be dead, and its lease with it by then.
        let since = *lease.contested.get_or_insert_with(Instant::now);
        if lease.held || since.elapsed() > lease_time {
            let at = other.place.rtmp.host.clone();
            cluster.lose(key, lease.epoch, format!("{at} has the stream (registry)"));
            self.leases.remove(key);
            note(&self.known, key, Some(other));
        }
    }

    fn release(&mut self, key: &str, value: &str) {
        let release =
            redis::cmd("EVAL").arg(RELEASE).arg(1).arg(format!("{PREFIX}{key}")).arg(value).arg(CHANNEL).to_owned();
        self.with(|redis| release.query::<()>(redis));
    }

    fn give_all_up(mut self) {
        for (key, lease) in std::mem::take(&mut self.leases) {
            self.release(&key, &lease.value);
        }
    }

    /// Learns all that stands there.
    fn resync(&mut self) {
        self.resync = Instant::now() + self.settings.lease / 2;
        let (mut cursor, mut known) = (0, HashMap::new());
        loop {
            let Some((next, found)) = self.with(|redis| scan(redis, cursor)) else { return };
            for (key, value) in found {
                let Some(key) = key.strip_prefix(PREFIX) else { continue };
                let entry = self.read(key, &value).filter(|entry| entry.service != self.service);
                if let Some(entry) = entry.filter(|_| known.len() < KNOWN_MAX) {
                    known.insert(key.to_owned(), entry);
                }
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        // Who is asked for a stream asks Redis: this is for when that is not there. All servers read all entries.
        let sweep = SWEEP_PER_ENTRY * u32::try_from(known.len()).unwrap_or(u32::MAX);
        self.resync = self.resync.max(Instant::now() + sweep);
        *lock(&self.known) = known;
    }
}

/// Some of what stands there, from a place on; where to go on, 0 at the end.
pub(super) fn scan(redis: &mut Connection, cursor: u64) -> RedisResult<(u64, Vec<(String, String)>)> {
    let mut scan = redis::cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(format!("{PREFIX}*")).arg("COUNT").arg(SCAN);
    let (next, keys) = scan.query::<(u64, Vec<String>)>(redis)?;
    if keys.is_empty() {
        return Ok((next, Vec::new()));
    }
    let values = redis::cmd("MGET").arg(&keys).query::<Vec<Option<String>>>(redis)?;
    // What has gone meanwhile is not there.
    Ok((next, keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect()))
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn note(known: &Mutex<HashMap<String, Entry>>, key: &str, entry: Option<Entry>) {
    let mut known = lock(known);
    match entry {
        Some(entry) if known.len() < KNOWN_MAX || known.contains_key(key) => drop(known.insert(key.to_owned(), entry)),
        Some(_) => {}
        None => drop(known.remove(key)),
    }
}

/// Hears what others announce. All of it is found without, only later.
fn listen(client: &Client, cluster: &Weak<Cluster>, known: &Mutex<HashMap<String, Entry>>, settings: &Registry) {
    while cluster.strong_count() > 0 {
        let heard = hear(client, cluster, known, settings);
        if let Err(error) = heard {
            tracing::debug!("registry: {error}");
        }
        std::thread::sleep(PAUSE);
    }
}

fn hear(
    client: &Client,
    cluster: &Weak<Cluster>,
    known: &Mutex<HashMap<String, Entry>>,
    settings: &Registry,
) -> RedisResult<()> {
    let mut connection = client.get_connection_with_timeout(TIME_MAX)?;
    let mut channel = connection.as_pubsub();
    channel.subscribe(CHANNEL)?;
    channel.set_read_timeout(Some(TIME_MAX))?;
    while let Some(cluster) = cluster.upgrade() {
        let message: String = match channel.get_message() {
            Ok(message) => message.get_payload()?,
            Err(error) if error.is_timeout() => continue,
            Err(error) => return Err(error),
        };
        let Some((key, value)) = message.split_once('\n') else { continue };
        let Some(key) = key.strip_prefix(PREFIX) else { continue };
        match Entry::read(key, value, &settings.secret) {
            Ok(entry) if entry.service != cluster.service() => {
                note(known, key, Some(entry));
                // It may be one that is published here, too.
                if cluster.is_published(key) {
                    cluster.look();
                }
            }
            Ok(_) => {}
            Err(_) if value.is_empty() => note(known, key, None),
            Err(_) => {}
        }
    }
    Ok(())
}

impl Cluster {
    /// Where others find this server.
    fn own_place(&self, settings: &Registry) -> Origin {
        let port = self.rtmp_port.load(Ordering::Relaxed);
        match &settings.announce {
            Some(place) => Origin { host: place.host.clone(), port: Some(place.port.unwrap_or(port)) },
            None => Origin { host: self.address.clone(), port: Some(port) },
        }
    }
}
