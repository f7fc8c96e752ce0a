//! Notifications: nobody waits for the answer, but none is to be lost.
//!
//! Those of one client to one server form a lane, and are told one after the other. A line is what waits for one URL:
//! the lanes whose first notification goes there. A line that fails rests, and tries one at a time until one arrives.

use super::{
    client::{Client, Origin, until},
    intake::{Charge, Intake},
};
use crate::{config::HookUrl, control::access::ClientId, tls};
use async_channel::Sender;
use bytes::Bytes;
use futures_lite::{FutureExt, future};
use glommio::{spawn_local, timer::Timer};
use hashbrown::HashMap;
use std::{
    cell::RefCell,
    collections::VecDeque,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

/// Calls of one URL at once, and while its server is asked a question.
const CALLS_MAX: usize = 8;
const CALLS_BESIDE_QUESTIONS_MAX: usize = 2;
/// How long one try may take.
const TRY: Duration = Duration::from_secs(10);
/// Pauses of a line that has failed; each is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(16);
/// What has not arrived after so many tries, or so much time, is dropped.
const TRIES_MAX: u32 = 10;
const AGE_MAX: Duration = Duration::from_secs(600);
/// What one takes beside its texts, in bytes: itself, its lane, and the entries that name that.
pub(super) const NOTICE_BYTES: usize = 768;

const _: () = assert!(size_of::<Notice>() + size_of::<Lane>() + 2 * size_of::<LaneKey>() + 128 <= NOTICE_BYTES);

/// One notification to one URL.
pub(super) struct Notice {
    pub(super) action: &'static str,
    pub(super) url: HookUrl,
    pub(super) trust: Option<tls::Connector>,
    pub(super) client: ClientId,
    /// The stream whose publish has ended.
    pub(super) unpublished: Option<String>,
    pub(super) body: Bytes,
    pub(super) since: Instant,
    pub(super) tries: u32,
    pub(super) _charge: Charge,
}

/// The client's notifications to one server.
pub(super) type LaneKey = (u64, ClientId);
type LineKey = (u64, HookUrl);

struct Lane {
    origin: Rc<Origin>,
    /// Never empty between two turns.
    notices: VecDeque<Notice>,
    running: bool,
    /// They are told when the present try has ended.
    watchers: Vec<Sender<bool>>,
}

#[derive(Default)]
struct Line {
    /// Lanes whose first notification goes here; some may have got their turn already.
    ready: VecDeque<LaneKey>,
    running: usize,
    /// In a row.
    failures: u32,
    resting: bool,
}

#[derive(Default)]
struct State {
    lanes: HashMap<LaneKey, Lane>,
    lines: HashMap<LineKey, Line>,
    /// Streams whose end has not been told yet, at each server.
    unpublished: HashMap<(u64, String), LaneKey>,
}

pub(super) struct Notices {
    client: Rc<Client>,
    intake: Arc<Intake>,
    state: RefCell<State>,
}

/// What a try comes to.
enum Tried {
    Arrived,
    /// It was not tried any more.
    TooOld,
    Failed(String),
}

/// A lane's first notification is being told; dropped early, that has failed.
struct Turn {
    notices: Rc<Notices>,
    lane: LaneKey,
    line: LineKey,
    /// It takes a place of its line's.
    counted: bool,
    tried: Tried,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.notices.ended(&self.lane, &self.line, self.counted, &self.tried);
    }
}

/// What a question finds of a lane that it must come behind.
enum Found {
    Nothing,
    /// Its try runs.
    Running(async_channel::Receiver<bool>),
    Turn(Turn),
}

impl Notices {
    pub(super) fn new(client: Rc<Client>, intake: Arc<Intake>) -> Rc<Self> {
        Rc::new(Self { client, intake, state: RefCell::default() })
    }

    /// Takes one; it is told as soon as may be.
    pub(super) fn push(self: &Rc<Self>, notice: Notice) {
        let origin = self.client.origin(&notice.url, notice.trust.as_ref());
        let (lane, line) = ((origin.id, notice.client), (origin.id, Arc::clone(&notice.url)));
        {
            let state = &mut *self.state.borrow_mut();
            if let Some(stream) = &notice.unpublished {
                state.unpublished.insert((origin.id, stream.clone()), lane);
            }
            let new = || Lane { origin, notices: VecDeque::with_capacity(1), running: false, watchers: Vec::new() };
            let found = state.lanes.entry(lane).or_insert_with(new);
            found.notices.push_back(notice);
            if found.notices.len() > 1 {
                return;
            }
            state.lines.entry(line.clone()).or_default().ready.push_back(lane);
        }
        self.pump(&line);
    }

    /// Begins what may be begun of a line.
    fn pump(self: &Rc<Self>, line: &LineKey) {
        while let Some(turn) = self.next(line) {
            spawn_local(async move {
                // The runtime runs it at once, and its end begins the next one.
                future::yield_now().await;
                // A panic costs its own try.
                drop(AssertUnwindSafe(turn.run()).catch_unwind().await);
            })
            .detach();
        }
        let mut state = self.state.borrow_mut();
        let over = |line: &Line| line.ready.is_empty() && line.running == 0 && !line.resting && line.failures == 0;
        if state.lines.get(line).is_some_and(over) {
            state.lines.remove(line);
        }
    }

    fn next(self: &Rc<Self>, key: &LineKey) -> Option<Turn> {
        let state = &mut *self.state.borrow_mut();
        let line = state.lines.get_mut(key)?;
        loop {
            let lane_key = *line.ready.front()?;
            // A question may have had it told already.
            let lane = state.lanes.get_mut(&lane_key);
            let lane =
                lane.filter(|lane| !lane.running && lane.notices.front().is_some_and(|first| first.url == key.1));
            let Some(lane) = lane else {
                line.ready.pop_front();
                continue;
            };
            let calls_max = match line.failures {
                0 if lane.origin.questions.get() == 0 => CALLS_MAX,
                0 => CALLS_BESIDE_QUESTIONS_MAX,
                _ => 1,
            };
            if line.resting || line.running >= calls_max {
                return None;
            }
            line.ready.pop_front();
            line.running += 1;
            lane.running = true;
            return Some(Turn::new(self, lane_key, key.clone(), true));
        }
    }

    /// Sees to it that what has happened before a question is told before it: to this server, of this client, and of
    /// this stream's publish. What fails does not hold it up twice.
    pub(super) async fn settle(self: &Rc<Self>, origin: u64, client: ClientId, publishes: Option<&str>) {
        let earlier = publishes.and_then(|stream| {
            let state = self.state.borrow();
            state.unpublished.get(&(origin, stream.to_owned())).copied()
        });
        for lane in [Some((origin, client)), earlier].into_iter().flatten() {
            loop {
                let arrived = match self.find(lane) {
                    Found::Nothing => break,
                    Found::Running(ended) => ended.recv().await.unwrap_or(false),
                    Found::Turn(turn) => turn.run().await,
                };
                if !arrived {
                    break;
                }
            }
        }
    }

    fn find(self: &Rc<Self>, key: LaneKey) -> Found {
        let state = &mut *self.state.borrow_mut();
        let Some(lane) = state.lanes.get_mut(&key) else { return Found::Nothing };
        if lane.running {
            let (tell, told) = async_channel::bounded(1);
            lane.watchers.push(tell);
            return Found::Running(told);
        }
        let Some(first) = lane.notices.front() else { return Found::Nothing };
        lane.running = true;
        let line = (key.0, Arc::clone(&first.url));
        Found::Turn(Turn::new(self, key, line, false))
    }

    /// A lane's try has ended.
    fn ended(self: &Rc<Self>, key: &LaneKey, line_key: &LineKey, counted: bool, tried: &Tried) {
        let (pause, next) = self.state.borrow_mut().ended(&self.intake, key, line_key, counted, tried);
        if let Some(pause) = pause {
            let (notices, line) = (Rc::clone(self), line_key.clone());
            spawn_local(async move {
                // Those of one server do not come back all at once.
                Timer::new(pause.mul_f64(1.0 + fastrand::f64() / 4.0)).await;
                notices.rested(&line);
            })
            .detach();
        }
        self.pump(line_key);
        if let Some(next) = next.filter(|next| next != line_key) {
            self.pump(&next);
        }
    }

    /// A line may go on.
    fn rested(self: &Rc<Self>, key: &LineKey) {
        if let Some(line) = self.state.borrow_mut().lines.get_mut(key) {
            line.resting = false;
            if line.ready.is_empty() && line.running == 0 {
                line.failures = 0;
            }
        }
        self.pump(key);
    }
}

impl State {
    /// Returns how long the line is to rest, if it is, and the line that the lane waits in now.
    fn ended(
        &mut self,
        intake: &Intake,
        key: &LaneKey,
        line_key: &LineKey,
        counted: bool,
        tried: &Tried,
    ) -> (Option<Duration>, Option<LineKey>) {
        let line = self.lines.entry(line_key.clone()).or_default();
        line.running -= usize::from(counted);
        let Some(lane) = self.lanes.get_mut(key) else { return (None, None) };
        let Some(first) = lane.notices.front_mut() else { return (None, None) };
        lane.running = false;
        let mut pause = None;
        let done = match tried {
            Tried::Arrived => {
                line.failures = 0;
                true
            }
            Tried::TooOld => true,
            Tried::Failed(why) => {
                first.tries += 1;
                intake.failed(first.action, Some(&first.url), why);
                pause = line.fail();
                first.tries >= TRIES_MAX
            }
        };
        let arrived = matches!(tried, Tried::Arrived);
        if done && !arrived {
            intake.dropped(first.action, Some(&first.url), &format!("not told after {} tries", first.tries));
        }
        // Who watches may be gone.
        lane.watchers.drain(..).for_each(|watcher| _ = watcher.try_send(arrived));
        if done {
            self.take_first(key);
        }
        let Some(first) = self.lanes.get(key).and_then(|lane| lane.notices.front()) else {
            self.lanes.remove(key);
            return (pause, None);
        };
        let next = (key.0, Arc::clone(&first.url));
        self.lines.entry(next.clone()).or_default().ready.push_back(*key);
        (pause, Some(next))
    }

    /// A lane's first notification is done with.
    fn take_first(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let Some(stream) = lane.notices.pop_front().and_then(|first| first.unpublished) else { return };
        let again = lane.notices.iter().any(|notice| notice.unpublished.as_ref() == Some(&stream));
        let stream = (key.0, stream);
        if !again && self.unpublished.get(&stream) == Some(key) {
            self.unpublished.remove(&stream);
        }
    }
}

impl Line {
    /// Returns how long it is to rest, unless it rests already.
    fn fail(&mut self) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        let pause = (PAUSE_MIN * (1 << (self.failures - 1).min(6))).min(PAUSE_MAX);
        (!std::mem::replace(&mut self.resting, true)).then_some(pause)
    }
}

impl Turn {
    fn new(notices: &Rc<Notices>, lane: LaneKey, line: LineKey, counted: bool) -> Self {
        let tried = Tried::Failed("the question behind it could not wait".to_owned());
        Self { notices: Rc::clone(notices), lane, line, counted, tried }
    }

    /// Tells the notification; tells whether it has arrived.
    async fn run(mut self) -> bool {
        let (origin, body, old) = {
            let state = self.notices.state.borrow();
            let Some(lane) = state.lanes.get(&self.lane) else { return false };
            let Some(first) = lane.notices.front() else { return false };
            (Rc::clone(&lane.origin), first.body.clone(), first.since.elapsed() >= AGE_MAX)
        };
        if old {
            self.tried = Tried::TooOld;
            return false;
        }
        let client = Rc::clone(&self.notices.client);
        let answer = until(Instant::now() + TRY, client.post(&origin, &self.line.1, &body)).await;
        self.tried = match answer {
            None => Tried::Failed(format!("no answer within {} s", TRY.as_secs())),
            Some(Err(why)) => Tried::Failed(why),
            // The server is there, but cannot take it now.
            Some(Ok(answer)) if answer.status >= 500 || matches!(answer.status, 408 | 429) => {
                Tried::Failed(format!("status {}", answer.status))
            }
            Some(Ok(_)) => Tried::Arrived,
        };
        matches!(self.tried, Tried::Arrived)
    }
}
