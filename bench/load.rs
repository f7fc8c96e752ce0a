//! What the tasks of one executor share: its groups of players, and what each of them has got.

use crate::{
    check::{Checker, Faults, Reference},
    clock,
    scenario::{self, Players, Scenario},
};
use corecast::proto::{
    codec::{self, Class},
    flv::{Tag, TagKind},
};
use hdrhistogram::Histogram;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

/// A player's tail that may still be on its way when the run ends: one merged write and more.
pub(crate) const TAIL: Duration = Duration::from_millis(1500);
const SCRATCH_BYTES: usize = 256 << 10;
/// Over which time a player is found slow.
const SLOW_WINDOW: Duration = Duration::from_secs(2);
/// Kinds of failure that are told apart.
const FAILURE_KINDS_MAX: usize = 32;

/// What every executor works on.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    /// The published file.
    pub(crate) tags: Option<Arc<Vec<Tag>>>,
    pub(crate) publish_to: Vec<SocketAddr>,
    pub(crate) play_from: Vec<SocketAddr>,
    pub(crate) executors: usize,
    /// See [`Load::rest`].
    pub(crate) read_every: Duration,
}

/// How far a player is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Media tags of a checked player, bytes of another.
    pub(crate) amount: u64,
    media_ms: Option<u32>,
    at: Instant,
}

/// What a player got within the window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlayerResult {
    pub(crate) stream: usize,
    pub(crate) checked: bool,
    /// Media tags of a checked player, bytes of another: up to [`TAIL`] before the end, and to the end.
    pub(crate) until_mark: u64,
    pub(crate) until_end: u64,
    /// How fast its media went: 1 is as fast as the clock. As it is, and if [`TAIL`] is on its way.
    pub(crate) pace: Option<(f64, f64)>,
    pub(crate) whole: bool,
    pub(crate) alive: bool,
}

/// A player's place in its group; with players that come and go, of one after the other.
pub(crate) struct Player {
    pub(crate) stream: usize,
    checker: Option<RefCell<Checker>>,
    pub(crate) bytes: Cell<u64>,
    /// Bytes at the last look of the main thread.
    pub(crate) looked: Cell<u64>,
    pub(crate) alive: Cell<bool>,
    pub(crate) playing: Cell<bool>,
    pub(crate) started: Cell<bool>,
    pub(crate) connected_at: Cell<Instant>,
    pub(crate) last_read: Cell<Instant>,
    stall: Cell<Duration>,
    pub(crate) begin: Cell<Progress>,
    pub(crate) mark: Cell<Progress>,
}

/// How it goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) publishing: usize,
    pub(crate) playing: usize,
    pub(crate) started: usize,
    pub(crate) bytes: u64,
    /// Players that got less than half of what the best one of their group got since the last look.
    pub(crate) slow: usize,
    pub(crate) failures: BTreeMap<String, u64>,
}

/// What a group of players got on one executor.
#[derive(Clone, Debug)]
pub(crate) struct GroupResults {
    pub(crate) players: Vec<PlayerResult>,
    pub(crate) playing: usize,
    pub(crate) started: usize,
    pub(crate) media_tags: u64,
    pub(crate) faults: Faults,
    pub(crate) metrics: Metrics,
}

/// Histograms, in µs; `share` in 1/1000 of the full rate.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) latency: Histogram<u64>,
    pub(crate) join: Histogram<u64>,
    pub(crate) stall: Histogram<u64>,
    pub(crate) share: Histogram<u64>,
}

impl Default for Metrics {
    fn default() -> Self {
        // One minute in µs, three digits: the bounds are constants that the crate accepts.
        let Ok(empty) = Histogram::new_with_bounds(1, 60_000_000, 3) else { unreachable!("constant bounds") };
        Self { latency: empty.clone(), join: empty.clone(), stall: empty.clone(), share: empty }
    }
}

impl Metrics {
    pub(crate) fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.latency, &other.latency),
            (&mut self.join, &other.join),
            (&mut self.stall, &other.stall),
            (&mut self.share, &other.share),
        ];
        for (sum, part) in pairs {
            // Equal bounds always add.
            sum.add(part).ok();
        }
    }
}

/// What all tasks of one executor share.
pub(crate) struct Load {
    pub(crate) plan: Arc<Plan>,
    pub(crate) part: usize,
    pub(crate) scratch: RefCell<Vec<u8>>,
    pub(crate) bytes: Cell<u64>,
    pub(crate) publishing: Cell<usize>,
    pub(crate) measuring: Cell<bool>,
    pub(crate) stopping: Cell<bool>,
    pub(crate) groups: Vec<Group>,
    failures: RefCell<BTreeMap<String, u64>>,
    resting: RefCell<Vec<Waker>>,
    /// Counts the times that those who rest were woken.
    rests: Cell<u64>,
}

/// A group of players on one executor.
pub(crate) struct Group {
    pub(crate) spec: Players,
    pub(crate) server: SocketAddr,
    /// Its first player's number among all players of the run: for source addresses.
    pub(crate) first: usize,
    /// One per stream; with a file only the first.
    pub(crate) references: Vec<RefCell<Reference>>,
    pub(crate) metrics: RefCell<Metrics>,
    pub(crate) players: RefCell<Vec<Rc<Player>>>,
    pub(crate) playing: Cell<usize>,
    pub(crate) started: Cell<usize>,
    /// Of players that have left.
    pub(crate) past: Cell<(u64, Faults)>,
    slow: Cell<(Instant, usize)>,
}

/// Saturated, as the histograms are.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Load {
    pub(crate) fn new(plan: Arc<Plan>, part: usize) -> Self {
        let mut first = 0;
        let mut groups = Vec::new();
        for (spec, server) in plan.scenario.players.iter().zip(&plan.play_from) {
            let references = match &plan.tags {
                Some(tags) => vec![RefCell::new(Reference::of_file(tags))],
                None => (0..spec.streams).map(|_| RefCell::default()).collect(),
            };
            groups.push(Group {
                spec: spec.clone(),
                server: *server,
                first,
                references,
                metrics: RefCell::default(),
                players: RefCell::default(),
                playing: Cell::new(0),
                started: Cell::new(0),
                past: Cell::default(),
                slow: Cell::new((Instant::now(), 0)),
            });
            first += spec.count;
        }
        Self {
            plan,
            part,
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            bytes: Cell::new(0),
            publishing: Cell::new(0),
            measuring: Cell::new(false),
            stopping: Cell::new(false),
            groups,
            failures: RefCell::default(),
            resting: RefCell::default(),
            rests: Cell::new(0),
        }
    }

    /// Waits for the next common moment of reading, [`Plan::read_every`] after the last one.
    pub(crate) async fn rest(&self) {
        if self.plan.read_every.is_zero() {
            return;
        }
        let now = self.rests.get();
        poll_fn(|cx| {
            if self.rests.get() != now {
                return Poll::Ready(());
            }
            self.resting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    pub(crate) fn wake_resting(&self) {
        self.rests.set(self.rests.get() + 1);
        self.resting.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// Counts a failure by its kind.
    pub(crate) fn fail(&self, kind: &str) {
        let mut failures = self.failures.borrow_mut();
        let known = failures.contains_key(kind) || failures.len() < FAILURE_KINDS_MAX;
        *failures.entry(if known { kind } else { "other" }.to_owned()).or_default() += 1;
    }

    pub(crate) fn each_player(&self, change: impl Fn(&Player)) {
        self.groups.iter().for_each(|group| group.players.borrow().iter().for_each(|player| change(player)));
    }

    pub(crate) fn sums(&self) -> Sums {
        Sums {
            publishing: self.publishing.get(),
            playing: self.groups.iter().map(|group| group.playing.get()).sum(),
            started: self.groups.iter().map(|group| group.started.get()).sum(),
            bytes: self.bytes.get(),
            slow: self.groups.iter().map(Group::slow).sum(),
            failures: self.failures.borrow().clone(),
        }
    }
}

impl Group {
    /// Counts those who fell behind within the last [`SLOW_WINDOW`]: several merged writes.
    fn slow(&self) -> usize {
        let (since, slow) = self.slow.get();
        if since.elapsed() < SLOW_WINDOW {
            return slow;
        }
        let slow = self.fallen_behind();
        self.slow.set((Instant::now(), slow));
        slow
    }

    fn fallen_behind(&self) -> usize {
        let players = self.players.borrow();
        let gained: Vec<u64> = players.iter().map(|player| player.bytes.get() - player.looked.get()).collect();
        players.iter().for_each(|player| player.looked.set(player.bytes.get()));
        let best = gained.iter().copied().max().unwrap_or(0);
        gained.iter().filter(|gained| **gained < best / 2).count()
    }

    /// What each player got, and what all of them did together.
    pub(crate) fn results(&self) -> GroupResults {
        let players = self.players.borrow();
        let (past_tags, past_faults) = self.past.get();
        let mut results = GroupResults {
            players: players.iter().map(|player| player.result()).collect(),
            playing: self.playing.get(),
            started: self.started.get(),
            media_tags: past_tags,
            faults: past_faults,
            metrics: self.metrics.borrow().clone(),
        };
        for player in players.iter() {
            results.metrics.stall.saturating_record(micros(player.longest_stall()));
            results.media_tags += player.media_tags();
            results.faults.add(&player.faults());
        }
        results
    }
}

impl Player {
    pub(crate) fn new(group: &Group, index: usize) -> Self {
        let spec = &group.spec;
        let looks = !spec.raw && !scenario::is_playlist(&spec.url);
        let checked = looks && spec.check_every > 0 && index.is_multiple_of(spec.check_every);
        let now = Instant::now();
        let nothing = Progress { amount: 0, media_ms: None, at: now };
        Self {
            stream: index % spec.streams,
            checker: checked.then(RefCell::default),
            bytes: Cell::new(0),
            looked: Cell::new(0),
            alive: Cell::new(true),
            playing: Cell::new(false),
            started: Cell::new(false),
            connected_at: Cell::new(now),
            last_read: Cell::new(now),
            stall: Cell::default(),
            begin: Cell::new(nothing),
            mark: Cell::new(nothing),
        }
    }

    /// Whether its media is compared.
    pub(crate) fn is_checked(&self) -> bool {
        self.checker.is_some()
    }

    pub(crate) fn progress(&self) -> Progress {
        let checker = self.checker.as_ref().map(RefCell::borrow);
        Progress {
            amount: checker.as_ref().map_or(self.bytes.get(), |checker| checker.media_tags),
            media_ms: checker.and_then(|checker| checker.newest_ms()),
            at: Instant::now(),
        }
    }

    /// What it got since the window's begin.
    pub(crate) fn result(&self) -> PlayerResult {
        let (begin, mark, now) = (self.begin.get(), self.mark.get(), self.progress());
        let media_ms = now.media_ms.zip(begin.media_ms).map(|(now, begin)| now.wrapping_sub(begin));
        let wall = now.at.saturating_duration_since(begin.at);
        let pace = |media_ms: u32, wall: Duration| f64::from(media_ms) / 1000.0 / wall.as_secs_f64().max(0.001);
        PlayerResult {
            stream: self.stream,
            checked: self.checker.is_some(),
            until_mark: mark.amount.saturating_sub(begin.amount),
            until_end: now.amount.saturating_sub(begin.amount),
            pace: media_ms.map(|media_ms| (pace(media_ms, wall), pace(media_ms, wall.saturating_sub(TAIL)))),
            whole: self.faults().total() == 0,
            alive: self.alive.get(),
        }
    }

    pub(crate) fn faults(&self) -> Faults {
        self.checker.as_ref().map(|checker| checker.borrow().faults).unwrap_or_default()
    }

    pub(crate) fn media_tags(&self) -> u64 {
        self.checker.as_ref().map_or(0, |checker| checker.borrow().media_tags)
    }

    /// The longest time without a byte within the window.
    pub(crate) fn longest_stall(&self) -> Duration {
        let since = self.last_read.get().max(self.begin.get().at);
        self.stall.get().max(since.elapsed())
    }

    pub(crate) fn count(&self, load: &Load, bytes: usize) {
        load.bytes.set(load.bytes.get() + bytes as u64);
        self.bytes.set(self.bytes.get() + bytes as u64);
        if load.measuring.get() && self.started.get() {
            let now = Instant::now();
            let since = self.last_read.replace(now).max(self.begin.get().at);
            self.stall.set(self.stall.get().max(now - since));
        }
    }

    pub(crate) fn play(&self, group: &Group) {
        if !self.playing.replace(true) {
            group.playing.set(group.playing.get() + 1);
        }
    }

    /// Its picture begins: at the first keyframe, or with audio alone. `first` is when it connected.
    pub(crate) fn start(&self, group: &Group, connected_at: Option<Instant>) {
        self.play(group);
        if !self.started.replace(true) {
            group.started.set(group.started.get() + 1);
            if let Some(connected_at) = connected_at {
                group.metrics.borrow_mut().join.saturating_record(micros(connected_at.elapsed()));
            }
        }
    }

    pub(crate) fn tag(&self, load: &Load, group: &Group, tag: &Tag) {
        if !self.started.get() {
            let class = codec::inspect(tag.kind, &tag.body).class;
            let reference = load.plan.tags.as_deref();
            let has_video = reference.is_none_or(|tags| tags.iter().any(|tag| tag.kind == TagKind::Video));
            if class == Class::Keyframe || class == Class::Audio && !has_video {
                self.start(group, Some(self.connected_at.get()));
            }
        }
        let Some(checker) = &self.checker else { return };
        let stream = if group.references.len() == 1 { 0 } else { self.stream };
        checker.borrow_mut().tag(tag, &mut group.references[stream].borrow_mut());
        if load.measuring.get()
            && tag.kind == TagKind::Video
            && let (Some(sent_us), ..) = clock::split(&tag.body)
        {
            let latency = clock::now_us().saturating_sub(sent_us);
            group.metrics.borrow_mut().latency.saturating_record(latency);
        }
    }

    pub(crate) fn leave(&self, group: &Group) {
        self.alive.set(false);
        if self.playing.replace(false) {
            group.playing.set(group.playing.get() - 1);
        }
        if self.started.replace(false) && !group.spec.leave {
            group.started.set(group.started.get() - 1);
        }
    }

    pub(crate) fn come_again(&self, group: &Group) {
        if let Some(checker) = &self.checker {
            let Checker { media_tags, faults, .. } = checker.take();
            let (past_tags, mut past_faults) = group.past.get();
            past_faults.add(&faults);
            group.past.set((past_tags + media_tags, past_faults));
        }
        self.alive.set(true);
    }
}
