//! HTTP hooks: a POST with SRS's JSON, on a thread of their own beside the shards and the control plane.
//!
//! A shard hands an event over and goes on. Questions (`on_publish`, whose answer somebody waits for) have their answer
//! within their timeout. Notifications (`on_unpublish`) arrive, after pauses and further tries if need be, and in the
//! order of each client's events. What waits is bounded in bytes, for each URL and in all; one URL that hangs is in the
//! way of no other, and notifications are in no question's.

mod client;
mod event;
mod intake;
mod notices;
mod questions;
mod wire;

pub use event::{Body, Event, Verdict};
pub use intake::ACTIONS;

use crate::sys::{CpuMask, cores};
use async_channel::{Receiver, Sender};
use client::Client;
use intake::{Intake, Kind};
use notices::{NOTICE_BYTES, Notice, Notices};
use questions::{QUESTION_BYTES, Question, Questions};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Between two looks whether everything is told.
const LOOK: Duration = Duration::from_millis(5);

enum Job {
    Ask(Box<Question>),
    Tell(Box<Notice>),
}

/// What has come to the thread. Though that end early, nobody waits for ever.
struct Jobs(Receiver<Job>);

impl Drop for Jobs {
    fn drop(&mut self) {
        self.0.close();
        while self.0.try_recv().is_ok() {}
    }
}

#[derive(Default)]
struct Inner {
    intake: Arc<Intake>,
    /// To the thread; made when first needed.
    jobs: Mutex<Option<Sender<Job>>>,
    /// Where it may run: a shard that starts it is pinned.
    cpus: Option<CpuMask>,
}

/// What became of the events of one action.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Count {
    /// As SRS calls it.
    pub action: &'static str,
    /// Events that were never told, or asked for want of room.
    pub dropped: u64,
    /// Calls without an answer as it should be.
    pub failed: u64,
}

/// Calls hooks, on the CPUs of the thread that made it. Clones share everything.
#[derive(Clone)]
pub struct Hooks(Arc<Inner>);

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

impl Default for Hooks {
    fn default() -> Self {
        Self(Arc::new(Inner { cpus: CpuMask::of_this_thread(), ..Inner::default() }))
    }
}

impl Hooks {
    /// Asks all URLs of an event; the verdict comes within its timeout, however they behave.
    pub fn ask(&self, mut event: Event) -> Receiver<Verdict> {
        let (answer, verdict) = async_channel::bounded(1);
        let body = std::mem::take(&mut event.body).finish();
        let (intake, deadline) = (Arc::clone(&self.0.intake), Instant::now() + event.timeout);
        let texts = body.len() + event.publishes.as_ref().map_or(0, String::len);
        let charge = event.urls.first().map(|url| intake.charge(Kind::Question, url, QUESTION_BYTES + texts));
        let mut question = Box::new(Question { event, body, deadline, answer: Some(answer), charge: None, intake });
        match charge {
            Some(Some(charge)) => {
                question.charge = Some(charge);
                self.push(Job::Ask(question));
            }
            Some(None) => {
                let url = question.event.urls.first().cloned();
                self.0.intake.dropped(question.event.action, url.as_ref(), "too many events wait");
                question.fail(url.as_ref(), "too many events wait");
            }
            None => question.decide(Verdict::Allowed(serde_json::Value::Null)),
        }
        verdict
    }

    /// Tells an event; nobody waits for it.
    pub fn tell(&self, event: Event) {
        let Event { action, urls, trust, client, publishes, body, .. } = event;
        let body = body.finish();
        let bytes = NOTICE_BYTES + body.len() + 2 * publishes.as_ref().map_or(0, String::len);
        for url in urls {
            let Some(charge) = self.0.intake.charge(Kind::Notice, &url, bytes) else {
                self.0.intake.dropped(action, Some(&url), "too many events wait");
                continue;
            };
            let (trust, unpublished, body) = (trust.clone(), publishes.clone(), body.clone());
            let since = Instant::now();
            self.push(Job::Tell(Box::new(Notice {
                action,
                url,
                trust,
                client,
                unpublished,
                body,
                since,
                tries: 0,
                _charge: charge,
            })));
        }
    }

    /// What became of the events of each action.
    pub fn counts(&self) -> impl Iterator<Item = Count> {
        self.0.intake.counts().map(|(action, dropped, failed)| Count { action, dropped, failed })
    }

    /// Bytes of events that wait: questions, and notifications.
    pub fn waiting_bytes(&self) -> (usize, usize) {
        let intake = &self.0.intake;
        (intake.waiting_bytes(Kind::Question), intake.waiting_bytes(Kind::Notice))
    }

    /// Waits until everything is told, for `limit` at most; tells whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            let waits = self.waiting_bytes().1 > 0;
            if !waits || Instant::now() >= until {
                return !waits;
            }
            std::thread::sleep(LOOK);
        }
    }

    fn push(&self, job: Job) {
        let mut jobs = self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let job = match &*jobs {
            // What waits in it is bounded by what is charged.
            Some(sender) => match sender.try_send(job) {
                Ok(()) => return,
                // The thread has ended, by a panic.
                Err(error) => error.into_inner(),
            },
            None => job,
        };
        match start(Arc::clone(&self.0.intake), self.0.cpus) {
            Ok(sender) => {
                drop(sender.try_send(job));
                *jobs = Some(sender);
            }
            Err(error) => {
                tracing::error!("hooks: no thread: {error}");
                if let Job::Tell(notice) = job {
                    self.0.intake.dropped(notice.action, Some(&notice.url), "no thread");
                }
            }
        }
    }
}

/// Starts the thread.
fn start(intake: Arc<Intake>, cpus: Option<CpuMask>) -> Result<Sender<Job>, String> {
    let (give, take) = async_channel::unbounded();
    let jobs = Jobs(take);
    let main = move || async move {
        let client = Rc::new(Client::new(cpus));
        let notices = Notices::new(Rc::clone(&client), intake);
        let questions = Questions::new(client, Rc::clone(&notices));
        while let Ok(job) = jobs.0.recv().await {
            let begin = || match job {
                Job::Ask(question) => questions.ask(*question),
                Job::Tell(notice) => notices.push(*notice),
            };
            // A panic costs its own event.
            if catch_unwind(AssertUnwindSafe(begin)).is_err() {
                tracing::error!("a panic in hooks; please report this");
            }
            glommio::yield_if_needed().await;
        }
    };
    // Every thread that the executor starts inherits its CPUs from the one that it is started on.
    let starter = move || {
        if let Some(cpus) = &cpus {
            cpus.apply();
        }
        if let Err(error) = cores::spawn_unpinned("hooks", main) {
            tracing::error!("hooks: no executor: {error}");
        }
    };
    std::thread::Builder::new().name("hooks".to_owned()).spawn(starter).map_err(|error| error.to_string())?;
    Ok(give)
}

#[cfg(test)]
mod tests;
