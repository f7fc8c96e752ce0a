//! What may wait for hooks, in bytes, and what became of events.

use crate::config::HookUrl;
use hashbrown::HashMap;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Most bytes of questions that wait, of all URLs.
const QUESTION_BYTES_MAX: usize = 64 << 20;
/// The same of notifications: at a KiB each, those of some 100,000 players who leave at once.
const NOTICE_BYTES_MAX: usize = 128 << 20;
/// Whatever the others have, every URL may have so much.
const RESERVE_BYTES: usize = 256 << 10;
/// One line of the log per so much time for each action.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// Every event there is, as SRS calls it.
pub const ACTIONS: [&str; 9] =
    ["on_connect", "on_close", "on_publish", "on_unpublish", "on_play", "on_stop", "on_forward", "on_hls", "on_dvr"];

/// Whether somebody waits for the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Question,
    Notice,
}

#[derive(Debug, Default)]
struct Used {
    /// By URL, so that one that hangs takes no more than half of it.
    lines: HashMap<HookUrl, usize>,
    bytes: usize,
}

impl Used {
    fn take(&mut self, url: &HookUrl, bytes: usize, bytes_max: usize) -> bool {
        let line = self.lines.get(url).copied().unwrap_or(0) + bytes;
        let room = line <= bytes_max / 2 && self.bytes + bytes <= bytes_max;
        if !room && line > RESERVE_BYTES {
            return false;
        }
        self.lines.insert(Arc::clone(url), line);
        self.bytes += bytes;
        true
    }

    fn give(&mut self, url: &HookUrl, bytes: usize) {
        self.bytes -= bytes;
        if let Some(line) = self.lines.get_mut(url) {
            *line -= bytes;
            if *line == 0 {
                self.lines.remove(url);
            }
        }
    }
}

/// Of one action.
#[derive(Debug, Default)]
struct Tally {
    dropped: AtomicU64,
    failed: AtomicU64,
    /// When it was last logged, and how often not since.
    logged: Mutex<Option<(Instant, u64)>>,
}

/// What waits, and what was lost. Touched by shards and the hooks' own thread.
#[derive(Debug, Default)]
pub(super) struct Intake {
    questions: Mutex<Used>,
    notices: Mutex<Used>,
    tallies: [Tally; ACTIONS.len()],
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Intake {
    fn used(&self, kind: Kind) -> MutexGuard<'_, Used> {
        lock(match kind {
            Kind::Question => &self.questions,
            Kind::Notice => &self.notices,
        })
    }

    /// Room for an event that waits for a URL; `None` if there is none.
    pub(super) fn charge(self: &Arc<Self>, kind: Kind, url: &HookUrl, bytes: usize) -> Option<Charge> {
        let bytes_max = match kind {
            Kind::Question => QUESTION_BYTES_MAX,
            Kind::Notice => NOTICE_BYTES_MAX,
        };
        let taken = self.used(kind).take(url, bytes, bytes_max);
        taken.then(|| Charge { intake: Arc::clone(self), kind, url: Arc::clone(url), bytes })
    }

    /// Bytes of what waits.
    pub(super) fn waiting_bytes(&self, kind: Kind) -> usize {
        self.used(kind).bytes
    }

    /// An event has not been told, or not been asked, and never will be.
    pub(super) fn dropped(&self, action: &str, url: Option<&HookUrl>, why: &str) {
        let Some(tally) = self.tally(action) else { return };
        tally.dropped.fetch_add(1, Ordering::Relaxed);
        tally.log(action, url, &format!("{why}; dropped"));
    }

    /// A call had no answer as it should be.
    pub(super) fn failed(&self, action: &str, url: Option<&HookUrl>, why: &str) {
        let Some(tally) = self.tally(action) else { return };
        tally.failed.fetch_add(1, Ordering::Relaxed);
        tally.log(action, url, why);
    }

    /// Each action with how many of its events were dropped, and how many calls failed.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ACTIONS
            .iter()
            .zip(&self.tallies)
            .map(move |(action, tally)| (*action, count(&tally.dropped), count(&tally.failed)))
    }

    fn tally(&self, action: &str) -> Option<&Tally> {
        ACTIONS.iter().position(|known| *known == action).map(|at| &self.tallies[at])
    }
}

impl Tally {
    fn log(&self, action: &str, url: Option<&HookUrl>, why: &str) {
        let mut logged = lock(&self.logged);
        let silent = match &mut *logged {
            Some((since, silent)) if since.elapsed() < LOG_PAUSE => {
                *silent += 1;
                return;
            }
            Some((_, silent)) => *silent,
            None => 0,
        };
        *logged = Some((Instant::now(), 0));
        drop(logged);
        let url = url.map(|url| format!("{url}: ")).unwrap_or_default();
        let more = if silent > 0 { format!(" ({silent} more since the last line)") } else { String::new() };
        tracing::warn!(action, "hook: {url}{why}{more}");
    }
}

/// Room that an event takes as long as it is there.
#[derive(Debug)]
pub(super) struct Charge {
    intake: Arc<Intake>,
    kind: Kind,
    url: HookUrl,
    bytes: usize,
}

impl Charge {
    /// Takes the same room for another URL instead; tells whether there was any.
    pub(super) fn move_to(&mut self, url: &HookUrl) -> bool {
        let Some(other) = self.intake.charge(self.kind, url, self.bytes) else { return false };
        *self = other;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.intake.used(self.kind).give(&self.url, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::url::HttpUrl;

    fn url(name: &str) -> HookUrl {
        Arc::new(HttpUrl::read(&format!("http://{name}/")).unwrap())
    }

    /// One URL takes half of the room at most, all together the whole, and a little is left for each.
    #[test]
    fn a_url_that_hangs_leaves_room_for_others() {
        let intake = Arc::new(Intake::default());
        let fill = |name: &str| {
            let url = url(name);
            std::iter::from_fn(|| intake.charge(Kind::Notice, &url, 64 << 10)).collect::<Vec<_>>()
        };
        let (first, second, third) = (fill("a"), fill("b"), fill("c"));
        assert_eq!((first.len(), second.len(), third.len()), (1024, 1024, 4));
        assert!(intake.charge(Kind::Question, &url("a"), 1).is_some(), "questions have their own");
        let bytes = intake.waiting_bytes(Kind::Notice);
        assert_eq!(bytes, NOTICE_BYTES_MAX + RESERVE_BYTES);
        drop((first, third));
        assert_eq!(intake.waiting_bytes(Kind::Notice), bytes / 2 - RESERVE_BYTES / 2);
        drop(second);
        assert_eq!(intake.waiting_bytes(Kind::Notice), 0);
        assert!(intake.used(Kind::Notice).lines.is_empty());
    }

    #[test]
    fn what_is_lost_is_counted() {
        let intake = Intake::default();
        (0..3).for_each(|_| intake.dropped("on_stop", None, "no room"));
        intake.failed("on_play", None, "status 500");
        let counts: Vec<_> = intake.counts().filter(|(_, dropped, failed)| dropped + failed > 0).collect();
        assert_eq!(counts, [("on_play", 0, 1), ("on_stop", 3, 0)]);
    }
}
