//! Servers of which one is to be had, tried in turn: which one, when, and what has come of it.

use super::{
    origins::Wish,
    port::{Target, Way},
    splice::Last,
};
use crate::control::{ForwardState, hooks};

/// Pause before the second try, in ms; each further one is twice as long.
const PAUSE_MS_MIN: u64 = 250;
/// Longest pause between two tries, in ms. SRS pauses 3 s.
const PAUSE_MS_MAX: u64 = 4000;
/// A connection that has lasted for so long has been a good one, in ms: the next pause is the first again.
const GOOD_MS: u64 = 10_000;
/// One line of the log per so many failures in a row.
const FAILURES_PER_LINE: u64 = 100;
/// Before it is asked again who has a stream that nobody has, in ms; each further pause is twice as long.
const NOWHERE_MS_MIN: u64 = 1000;

/// Targets of which one is to be had, and how it stands with that.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) key: String,
    pub(super) way: Way,
    /// Of a stream that is fetched.
    pub(super) wish: Option<Box<Wish>>,
    /// None as long as it is not known who has it.
    pub(super) targets: Vec<Target>,
    pub(super) at: usize,
    /// Where the one at hand has sent us.
    pub(super) detour: Option<Box<Target>>,
    pub(super) hops: u32,
    pub(super) state: ForwardState,
    pub(super) since_ms: u64,
    /// When the next try is, in ms.
    pub(super) due_ms: u64,
    /// In a row; of all targets.
    pub(super) failures: u64,
    /// Targets that have failed since the last pause.
    pub(super) tried: usize,
    /// Rounds in which all have refused.
    pub(super) refusals: u64,
    /// It has been had.
    pub(super) served: bool,
    pub(super) retries: u64,
    /// Of connections that have ended.
    pub(super) bytes: u64,
    /// The token of the present one.
    pub(super) connection: Option<u64>,
    pub(super) error: String,
    /// Who asks whether an origin lets somebody play.
    pub(super) reply: Option<async_channel::Sender<hooks::Verdict>>,
    /// The last media, if what comes next is to go on from there.
    pub(super) lost: Option<Last>,
}

impl Outbound {
    pub(super) fn new(targets: Vec<Target>, at: usize, now_ms: u64, due_ms: u64) -> Self {
        Self {
            key: targets.first().map_or_else(String::new, |target| target.request.key.clone()),
            way: targets.first().map_or(Way::Fetch, |target| target.way),
            wish: None,
            targets,
            at,
            detour: None,
            hops: 0,
            state: ForwardState::Connecting,
            since_ms: now_ms,
            due_ms,
            failures: 0,
            tried: 0,
            refusals: 0,
            served: false,
            retries: 0,
            bytes: 0,
            connection: None,
            error: String::new(),
            reply: None,
            lost: None,
        }
    }

    pub(super) fn target(&self) -> Option<&Target> {
        self.detour.as_deref().or_else(|| self.targets.get(self.at))
    }

    /// Where it is, for people.
    pub(super) fn name(&self) -> &str {
        self.target().map_or("", |target| &target.name)
    }

    /// Nobody has it, so far.
    pub(super) fn found_nowhere(&mut self, now_ms: u64) {
        self.enter(ForwardState::Waiting, now_ms);
        self.due_ms = now_ms + (NOWHERE_MS_MIN << self.failures.min(8)).min(PAUSE_MS_MAX);
        self.failures += 1;
        "no server has it".clone_into(&mut self.error);
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn way(&self) -> Way {
        self.way
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, ForwardState::Publishing | ForwardState::Playing)
    }

    /// The next one is `next`; a pause comes first when all have failed. Tells whether all have.
    pub(super) fn failed(&mut self, now_ms: u64, next: usize, error: String) -> bool {
        if self.is_up() {
            self.tried = 0;
            if now_ms.saturating_sub(self.since_ms) >= GOOD_MS {
                self.failures = 0;
            }
        }
        self.tried += 1;
        let all = self.tried >= self.targets.len();
        let mut pause_ms = 0;
        if all {
            pause_ms = (PAUSE_MS_MIN << self.failures.min(8)).min(PAUSE_MS_MAX);
            // Those of one server do not come back all at once.
            pause_ms -= fastrand::u64(0..=pause_ms / 4);
            self.tried = 0;
        }
        let (stream, to) = (self.key(), self.name());
        let what = match self.way() {
            Way::Fetch => "fetch",
            Way::Ask => "token_traverse",
            Way::Forward | Way::Relay => "forward",
        };
        if self.failures.is_multiple_of(FAILURES_PER_LINE) {
            tracing::warn!(%stream, %to, retry_ms = pause_ms, "{what}: {error}");
        } else {
            tracing::debug!(%stream, %to, retry_ms = pause_ms, "{what}: {error}");
        }
        self.failures += u64::from(all);
        self.retries += 1;
        self.detour = None;
        self.at = next;
        self.enter(ForwardState::Waiting, now_ms);
        self.due_ms = now_ms + pause_ms;
        self.error = error;
        all
    }

    pub(super) fn enter(&mut self, state: ForwardState, now_ms: u64) {
        self.state = state;
        self.since_ms = now_ms;
    }
}
