//! One executor's part of the load: its players and publishers, and the questions of the main thread.

use crate::{
    check::{Faults, Reference},
    player::{self, Player, PlayerResult},
    publisher,
    scenario::{Players, Scenario},
};
use anyhow::Context;
use corecast::{cores, proto::flv::Tag};
use crossbeam_channel::{Receiver as Channel, Sender};
use glommio::{spawn_local, timer::Timer};
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
/// How often questions are looked for; its lateness says whether the executor keeps up.
const TICK: Duration = Duration::from_millis(5);
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

/// What the main thread asks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    /// Players come.
    Join,
    /// How it goes.
    Sums,
    /// The measured window begins: remember how far everybody is.
    Begin,
    /// [`TAIL`] before its end: likewise.
    Mark,
    /// Its end.
    Totals,
    /// Publishers say goodbye.
    Stop,
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

pub(crate) enum Answer {
    Done,
    Sums(Sums),
    Totals(Vec<GroupResults>, Histogram<u64>),
}

/// The main thread's end.
#[derive(Debug)]
pub(crate) struct Executor {
    ask: Sender<Ask>,
    answers: Channel<Answer>,
}

impl Executor {
    /// Starts number `part` of the plan's executors on `cpu`.
    pub(crate) fn start(cpu: usize, part: usize, plan: &Arc<Plan>) -> anyhow::Result<Self> {
        let (ask, asked) = crossbeam_channel::unbounded();
        let (answer, answers) = crossbeam_channel::unbounded();
        let plan = Arc::clone(plan);
        cores::spawn(&format!("bench-{cpu}"), cpu, move || serve(plan, part, asked, answer))
            .map_err(|error| anyhow::anyhow!("CPU {cpu}: {error}"))?;
        Ok(Self { ask, answers })
    }

    /// Asks all, then waits for all.
    pub(crate) fn ask_all(executors: &[Self], ask: Ask) -> anyhow::Result<Vec<Answer>> {
        executors.iter().try_for_each(|executor| executor.ask.send(ask))?;
        executors.iter().map(|executor| executor.answers.recv().context("an executor has ended")).collect()
    }

    pub(crate) fn sums(executors: &[Self]) -> anyhow::Result<Sums> {
        let mut sums = Sums::default();
        for answer in Self::ask_all(executors, Ask::Sums)? {
            if let Answer::Sums(part) = answer {
                sums.publishing += part.publishing;
                sums.playing += part.playing;
                sums.started += part.started;
                sums.bytes += part.bytes;
                sums.slow += part.slow;
                for (kind, count) in part.failures {
                    *sums.failures.entry(kind).or_default() += count;
                }
            }
        }
        Ok(sums)
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

async fn serve(plan: Arc<Plan>, part: usize, asked: Channel<Ask>, answer: Sender<Answer>) {
    let load = Rc::new(Load::new(plan, part));
    spawn_local(publisher::run(Rc::clone(&load))).detach();
    let mut late = Metrics::default().latency;
    let mut due = Instant::now();
    let mut read_at = due;
    loop {
        if Instant::now() >= read_at {
            load.wake_resting();
            read_at = Instant::now() + load.plan.read_every;
        }
        while let Ok(ask) = asked.try_recv() {
            let answered = match ask {
                Ask::Sums => Answer::Sums(load.sums()),
                Ask::Join => {
                    player::spawn_groups(&load, |spec| spec.after_s.is_none());
                    Answer::Done
                }
                Ask::Begin => {
                    load.each_player(|player| player.begin.set(player.progress()));
                    load.measuring.set(true);
                    late.reset();
                    player::spawn_groups(&load, |spec| spec.after_s.is_some());
                    Answer::Done
                }
                Ask::Mark => {
                    load.each_player(|player| player.mark.set(player.progress()));
                    Answer::Done
                }
                Ask::Totals => {
                    load.measuring.set(false);
                    Answer::Totals(load.groups.iter().map(Group::results).collect(), late.clone())
                }
                Ask::Stop => {
                    load.stopping.set(true);
                    while load.publishing.get() > 0 {
                        Timer::new(TICK).await;
                    }
                    Answer::Done
                }
            };
            if answer.send(answered).is_err() {
                return;
            }
        }
        late.saturating_record(micros(due.elapsed()));
        due = Instant::now() + TICK;
        Timer::new(TICK).await;
    }
}

/// Saturated, as the histograms are.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Load {
    fn new(plan: Arc<Plan>, part: usize) -> Self {
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

    fn wake_resting(&self) {
        self.rests.set(self.rests.get() + 1);
        self.resting.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// Counts a failure by its kind.
    pub(crate) fn fail(&self, kind: &str) {
        let mut failures = self.failures.borrow_mut();
        let known = failures.contains_key(kind) || failures.len() < FAILURE_KINDS_MAX;
        *failures.entry(if known { kind } else { "other" }.to_owned()).or_default() += 1;
    }

    fn each_player(&self, change: impl Fn(&Player)) {
        self.groups.iter().for_each(|group| group.players.borrow().iter().for_each(|player| change(player)));
    }

    fn sums(&self) -> Sums {
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
    fn results(&self) -> GroupResults {
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
