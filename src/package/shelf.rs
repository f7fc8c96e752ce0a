//! What is served, by vhost and path, to whichever shard asks; and who waits for what is to come.
//!
//! The locks are held for a look-up. A playlist is one text, replaced as a whole.

use super::{
    files::Writer,
    kept::{Kept, Segment},
    playlist::Window,
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use foldhash::fast::FixedState;
use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

/// Parts of the shelf with a lock each, so that shards seldom meet.
const ROOMS: usize = 16;
/// Visits that are remembered; beyond, nobody new is let in.
pub(super) const VISITS_MAX: usize = 200_000;

/// How exact it is when a playlist was asked for, in ms.
const SEEN_STEP_MS: u64 = 250;
/// A playlist whose stream does not come is forgotten when nobody has asked for so long, in ms, and their number.
const EXPECTED_MS: u64 = 60_000;
const EXPECTED_MAX: usize = 10_000;

/// Something whole: a segment, a part, a header.
#[derive(Debug)]
pub struct Blob {
    /// Its bytes, in order.
    pub chunks: Box<[Bytes]>,
    /// How many.
    pub length: u64,
    /// RFC 9110 §8.3.
    pub content_type: &'static str,
    /// What tells it from others of its name (RFC 9110 §8.8.3), without quotes.
    pub tag: u64,
}

impl Blob {
    /// Of its chunks.
    pub fn new(chunks: impl Into<Box<[Bytes]>>, content_type: &'static str) -> Arc<Self> {
        let chunks = chunks.into();
        let length = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let mut hasher = FixedState::default().build_hasher();
        chunks.iter().for_each(|chunk| hasher.write(chunk));
        Arc::new(Self { chunks, length, content_type, tag: hasher.finish() })
    }
}

/// What lies at a path.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Playlist(Arc<Shown>),
    Blob(Arc<Blob>),
    /// Bytes that a segment has or will have, too.
    Part(Arc<Blob>),
    /// A segment that is being made.
    Growing(Arc<Growing>),
    /// A part that is announced and not there yet.
    Promised(Arc<Shown>),
}

/// What a playlist is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Kind {
    Hls,
    Dash,
}

/// A segment that can be had while it is made.
#[derive(Debug)]
pub struct Growing {
    /// It changes when more has come.
    pub shown: Arc<Shown>,
    /// RFC 9110 §8.3.
    pub content_type: &'static str,
    /// What there is, and whether that is all.
    chunks: Mutex<(Vec<Bytes>, bool)>,
}

impl Growing {
    pub(super) fn new(shown: &Arc<Shown>, content_type: &'static str) -> Arc<Self> {
        Arc::new(Self { shown: Arc::clone(shown), content_type, chunks: Mutex::default() })
    }

    pub(super) fn push(&self, chunk: Bytes) {
        lock(&self.chunks).0.push(chunk);
    }

    pub(super) fn end(&self) {
        lock(&self.chunks).1 = true;
    }

    /// Its chunks behind the first ones, the version of `shown` that they were looked at, and whether there will be no more.
    pub fn after(&self, seen: usize) -> (Vec<Bytes>, u64, bool) {
        let version = self.shown.window().version;
        let chunks = lock(&self.chunks);
        (chunks.0.get(seen..).unwrap_or_default().to_vec(), version, chunks.1)
    }
}

/// A stream's playlist, for as long as it is published, and a while after that.
#[derive(Debug)]
pub struct Shown {
    /// Tells it from all others, for ever.
    pub id: u64,
    /// The stream's.
    pub key: Arc<str>,
    pub(super) kind: Kind,
    /// Its own, behind the vhost.
    path: Mutex<String>,
    window: ArcSwap<Window>,
    live: AtomicBool,
    /// When somebody has asked for it, in ms of the process's clock; of an edge's streams.
    seen_ms: AtomicU64,
    /// Nothing is made of the stream yet: it is to be fetched.
    expected: AtomicBool,
    /// Shards where somebody waits for the next window.
    waits: Box<[AtomicBool]>,
    kept: Mutex<Kept>,
}

impl Shown {
    /// The playlist as it is now.
    pub fn window(&self) -> Arc<Window> {
        self.window.load_full()
    }

    /// Whether the stream is published.
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// Has a shard told when the playlist changes; tells whether it has changed since `version`.
    pub fn wait(&self, shard: usize, version: u64) -> bool {
        self.waits[shard].store(true, Ordering::SeqCst);
        self.window.load().version != version
    }

    /// Takes note of it that somebody asks. It is written a few times a second at most, however many ask.
    pub(super) fn see(&self, now_ms: u64) {
        if now_ms > self.seen_ms.load(Ordering::Relaxed) + SEEN_STEP_MS {
            self.seen_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    pub(super) fn set_live(&self, live: bool) {
        self.live.store(live, Ordering::Release);
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who plays by one request after the other.
#[derive(Debug)]
pub struct Visit {
    /// `hls_ctx` of its requests.
    pub id: String,
    /// It is over when there has been no request for so long, in ms.
    pub lasts_ms: u64,
    /// When the last one was, in ms of the process's clock.
    pub seen_ms: AtomicU64,
}

impl Visit {
    /// There is a request of it now.
    pub(super) fn see(self: &Arc<Self>, now_ms: u64) -> Arc<Self> {
        self.seen_ms.store(now_ms, Ordering::Relaxed);
        Arc::clone(self)
    }
}

/// A shard's list of playlists that have changed.
#[derive(Debug, Default)]
struct Door {
    some: AtomicBool,
    changed: Mutex<Vec<u64>>,
}

type Streams = HashMap<(Arc<str>, Kind), Arc<Shown>>;
type Wake = Box<dyn Fn(usize) + Send + Sync>;

/// See the module.
#[derive(Default)]
pub struct Shelf {
    rooms: [RwLock<HashMap<Box<str>, Item, FixedState>>; ROOMS],
    streams: Mutex<Streams>,
    visits: Mutex<HashMap<Box<str>, Arc<Visit>>>,
    doors: OnceLock<(Box<[Door]>, Wake)>,
    serial: AtomicU64,
    /// Streams that are to be fetched.
    expected: AtomicUsize,
    bytes: AtomicU64,
    /// Most of them; 0 for no bound.
    limit: AtomicU64,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A path as its vhost's requests name it.
fn below_vhost(path: &str) -> String {
    path.split_once('/').map_or_else(String::new, |(_, path)| format!("/{path}"))
}

impl Shelf {
    /// How many shards there are, and how one is woken; once, before anything is served.
    pub fn open(&self, shards: usize, wake: impl Fn(usize) + Send + Sync + 'static) {
        self.doors.get_or_init(|| ((0..shards).map(|_| Door::default()).collect(), Box::new(wake)));
    }

    /// Playlists that have changed for which a shard has waited.
    pub fn take_changed(&self, shard: usize) -> Vec<u64> {
        let Some(door) = self.doors.get().and_then(|(doors, _)| doors.get(shard)) else { return Vec::new() };
        if !door.some.swap(false, Ordering::SeqCst) {
            return Vec::new();
        }
        std::mem::take(&mut *lock(&door.changed))
    }

    /// Where a published stream's playlists of HLS and DASH are, below its vhost.
    pub fn playlists(&self, key: &str) -> [Option<String>; 2] {
        let streams = lock(&self.streams);
        let key: Arc<str> = Arc::from(key);
        [Kind::Hls, Kind::Dash].map(|kind| {
            let shown = streams.get(&(Arc::clone(&key), kind)).filter(|shown| shown.is_live())?;
            Some(lock(&shown.path).clone())
        })
    }

    /// Most bytes of segments there may be; 0 for no bound.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes of segments.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn room(&self, path: &str) -> &RwLock<HashMap<Box<str>, Item, FixedState>> {
        let hash = FixedState::default().hash_one(path);
        &self.rooms[usize::try_from(hash >> 32).unwrap_or(0) % ROOMS]
    }

    /// What lies at a path of a vhost.
    pub(super) fn find(&self, path: &str) -> Option<Item> {
        self.room(path).read().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    pub(super) fn put(&self, path: &str, item: Item) {
        if let Item::Blob(blob) = &item {
            self.bytes.fetch_add(blob.length, Ordering::Relaxed);
        }
        let old = self.room(path).write().unwrap_or_else(PoisonError::into_inner).insert(path.into(), item);
        self.gone(old);
    }

    pub(super) fn remove(&self, path: &str) {
        let old = self.room(path).write().unwrap_or_else(PoisonError::into_inner).remove(path);
        self.gone(old);
    }

    /// Removes what is announced, unless it is there by now.
    pub(super) fn withdraw(&self, path: &str) {
        let mut room = self.room(path).write().unwrap_or_else(PoisonError::into_inner);
        if matches!(room.get(path), Some(Item::Promised(_))) {
            room.remove(path);
        }
    }

    /// Serves those segments no more whose time out of the playlist is over; their files go too, where that is wished for.
    /// Where there is no room for what is kept, the playlist gets shorter.
    pub(super) fn drop_retired(&self, kept: &mut Kept, writer: Option<&Writer>, now_ms: u64) {
        let limit = self.limit.load(Ordering::Relaxed);
        if limit > 0 && self.bytes() > limit {
            kept.shorten();
        }
        while let Some(old) = kept.take_retired(now_ms) {
            self.drop_segment(kept, old, writer);
        }
    }

    /// A segment is gone, and what no other has.
    pub(super) fn drop_segment(&self, kept: &mut Kept, old: Segment, writer: Option<&Writer>) {
        for (path, file) in old.into_things() {
            self.remove(&path);
            kept.paths.retain(|other| *other != path);
            if let (Some(file), Some(writer)) = (file, writer) {
                writer.remove(file);
            }
        }
    }

    fn gone(&self, item: Option<Item>) {
        if let Some(Item::Blob(blob)) = item {
            self.bytes.fetch_sub(blob.length, Ordering::Relaxed);
        }
    }

    /// The playlist of a stream that is published from now on, at a path of its vhost.
    pub(super) fn shown(&self, key: &Arc<str>, kind: Kind, path: &str) -> Arc<Shown> {
        let mut streams = lock(&self.streams);
        let shown = streams.entry((Arc::clone(key), kind)).or_insert_with(|| self.new_shown(key, kind));
        let shown = Arc::clone(shown);
        *lock(&shown.path) = below_vhost(path);
        // Before anybody can take it for one that is over.
        shown.set_live(true);
        if shown.expected.swap(false, Ordering::Relaxed) {
            self.expected.fetch_sub(1, Ordering::Relaxed);
        }
        drop(streams);
        self.put(path, Item::Playlist(Arc::clone(&shown)));
        shown
    }

    /// The playlist of a stream that is to be fetched: whoever asks for it waits. `None` if there are too many such streams.
    pub(super) fn expect(&self, key: &Arc<str>, kind: Kind, path: &str) -> Option<Arc<Shown>> {
        let mut streams = lock(&self.streams);
        if let Some(shown) = streams.get(&(Arc::clone(key), kind)) {
            // It has just begun, or has been here.
            return Some(Arc::clone(shown));
        }
        if self.expected.load(Ordering::Relaxed) >= EXPECTED_MAX {
            return None;
        }
        let shown = self.new_shown(key, kind);
        *lock(&shown.path) = below_vhost(path);
        shown.set_live(true);
        shown.expected.store(true, Ordering::Relaxed);
        self.expected.fetch_add(1, Ordering::Relaxed);
        streams.insert((Arc::clone(key), kind), Arc::clone(&shown));
        self.put(path, Item::Playlist(Arc::clone(&shown)));
        Some(shown)
    }

    fn new_shown(&self, key: &Arc<str>, kind: Kind) -> Arc<Shown> {
        let shards = self.doors.get().map_or(0, |(doors, _)| doors.len());
        Arc::new(Shown {
            id: self.serial.fetch_add(1, Ordering::Relaxed),
            key: Arc::clone(key),
            kind,
            path: Mutex::default(),
            window: ArcSwap::default(),
            live: AtomicBool::new(false),
            seen_ms: AtomicU64::new(0),
            expected: AtomicBool::new(false),
            waits: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            kept: Mutex::default(),
        })
    }

    /// A stream does not come: whoever waits for its playlists is told.
    pub fn give_up(&self, key: &str) {
        self.forget_expected(|shown| *shown.key == *key);
    }

    /// Forgets playlists whose streams have not come, and that nobody asks for any more.
    pub(super) fn forget_unasked(&self, now_ms: u64) {
        self.forget_expected(|shown| now_ms >= shown.seen_ms.load(Ordering::Relaxed) + EXPECTED_MS);
    }

    fn forget_expected(&self, is_it: impl Fn(&Shown) -> bool) {
        let mut gone = Vec::new();
        lock(&self.streams).retain(|_, shown| {
            let goes = shown.expected.load(Ordering::Relaxed) && is_it(shown);
            if goes {
                gone.push(Arc::clone(shown));
            }
            !goes
        });
        self.expected.fetch_sub(gone.len(), Ordering::Relaxed);
        for shown in gone {
            shown.set_live(false);
            let vhost = shown.key.split('/').next().unwrap_or_default();
            self.remove(&format!("{vhost}{}", lock(&shown.path)));
            self.touch(&shown);
        }
    }

    /// When a stream's playlists were last asked for, in ms; of an edge's streams.
    pub fn seen_ms(&self, key: &str) -> u64 {
        let streams = lock(&self.streams);
        let key: Arc<str> = Arc::from(key);
        let seen = |kind| Some(streams.get(&(Arc::clone(&key), kind))?.seen_ms.load(Ordering::Relaxed));
        [Kind::Hls, Kind::Dash].into_iter().filter_map(seen).max().unwrap_or(0)
    }

    /// Replaces a playlist, and has those told who wait.
    pub(super) fn show(&self, shown: &Shown, mut window: Window) {
        window.version = shown.window.load().version + 1;
        shown.window.store(Arc::new(window));
        let Some((doors, wake)) = self.doors.get() else { return };
        for (shard, waits) in shown.waits.iter().enumerate() {
            if waits.swap(false, Ordering::SeqCst) {
                lock(&doors[shard].changed).push(shown.id);
                doors[shard].some.store(true, Ordering::SeqCst);
                wake(shard);
            }
        }
    }

    /// Has those told who wait: what a playlist is of has changed, and its text has not.
    pub(super) fn touch(&self, shown: &Shown) {
        self.show(shown, Window::clone(&shown.window()));
    }

    /// Streams that are published no more, with what is to be done about each.
    pub(super) fn forget(&self, mut is_over: impl FnMut(&Arc<Shown>) -> bool) -> Vec<Arc<Shown>> {
        let mut over = Vec::new();
        lock(&self.streams).retain(|_, shown| {
            let gone = !shown.is_live() && is_over(shown);
            if gone {
                over.push(Arc::clone(shown));
            }
            !gone
        });
        over
    }

    /// Somebody's visit, if there is one of that name; it is seen now.
    pub(super) fn visit(&self, id: &str, now_ms: u64) -> Option<Arc<Visit>> {
        lock(&self.visits).get(id).map(|visit| visit.see(now_ms))
    }

    /// A new visit; `None` if there are too many.
    pub(super) fn welcome(&self, id: &str, lasts_ms: u64, now_ms: u64) -> Option<Arc<Visit>> {
        let visit = Arc::new(Visit { id: id.to_owned(), lasts_ms, seen_ms: AtomicU64::new(now_ms) });
        Some(visit).filter(|_| lock(&self.visits).len() < VISITS_MAX)
    }

    /// A visit has been allowed.
    pub fn admit(&self, visit: &Arc<Visit>) {
        lock(&self.visits).insert(visit.id.as_str().into(), Arc::clone(visit));
    }

    /// A visit is over.
    pub fn dismiss(&self, visit: &Visit) {
        lock(&self.visits).remove(visit.id.as_str());
    }
}
