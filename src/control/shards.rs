//! What the control plane asks the shards, and how long it waits for them.

use super::{Call, Server, ShardReport};
use async_channel::{Receiver, Sender};
use futures_lite::future;
use glommio::{sync::Semaphore, timer::Timer};
use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

/// How long a shard may take to answer.
const SHARD_TIME: Duration = Duration::from_secs(2);
/// How long what the shards have reported serves: whoever asks within that time costs them nothing.
pub(super) const REPORT_AGE_MAX: Duration = Duration::from_secs(1);

/// A shard that does not answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("shard {0} does not answer")]
pub(super) struct Silent(usize);

/// Asks one shard.
///
/// # Errors
/// [`Silent`].
pub(super) async fn ask<T>(
    server: &dyn Server,
    shard: usize,
    call: impl FnOnce(Sender<T>) -> Call,
) -> Result<T, Silent> {
    let (reply, answer) = async_channel::bounded(1);
    server.call(shard, call(reply));
    within(SHARD_TIME, answer).await.ok_or(Silent(shard))
}

/// Waits.
pub(super) async fn pause(time: Duration) {
    Timer::new(time).await;
}

/// Waits for an answer.
pub(super) async fn within<T>(limit: Duration, answer: Receiver<T>) -> Option<T> {
    let late = async {
        Timer::new(limit).await;
        None
    };
    future::or(async { answer.recv().await.ok() }, late).await
}

/// What the shards report of themselves.
pub(super) struct Reports {
    /// What has come of the last question, and when.
    latest: RefCell<Option<(Instant, Answer)>>,
    /// One asks, the others wait for what comes of it.
    asking: Semaphore,
}

type Answer = Result<Rc<[ShardReport]>, Silent>;

impl Default for Reports {
    fn default() -> Self {
        Self { latest: RefCell::default(), asking: Semaphore::new(1) }
    }
}

impl Reports {
    /// Every shard's report, made within the last second.
    ///
    /// # Errors
    /// [`Silent`], for as long too: whoever has waited meanwhile does not wait again.
    pub(super) async fn get(&self, server: &dyn Server) -> Answer {
        // The semaphore is never closed.
        let _one = self.asking.acquire_permit(1).await.ok();
        if let Some((at, answer)) = &*self.latest.borrow()
            && at.elapsed() < REPORT_AGE_MAX
        {
            return answer.clone();
        }
        let answer = ask_all(server).await;
        self.latest.replace(Some((Instant::now(), answer.clone())));
        answer
    }
}

async fn ask_all(server: &dyn Server) -> Answer {
    let mut answers = Vec::new();
    for shard in 0..server.stats().len() {
        let (reply, answer) = async_channel::bounded(1);
        server.call(shard, Call::Report(reply));
        answers.push(answer);
    }
    let mut reports = Vec::new();
    for (shard, answer) in answers.into_iter().enumerate() {
        reports.push(within(SHARD_TIME, answer).await.ok_or(Silent(shard))?);
    }
    Ok(reports.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, stats::ShardStats, sys::cores};
    use std::{
        cell::Cell,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    /// Two shards; the second one answers or is silent.
    struct Fake {
        stats: [Arc<ShardStats>; 2],
        asked: Arc<AtomicUsize>,
        silent: bool,
    }

    impl Server for Fake {
        fn config(&self) -> Arc<Config> {
            unreachable!("nobody asks")
        }
        fn call(&self, shard: usize, call: Call) {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if let Call::Report(reply) = call
                && !(self.silent && shard == 1)
            {
                drop(reply.try_send(ShardReport { connections: shard as u64, ..ShardReport::default() }));
            }
        }
        fn stats(&self) -> &[Arc<ShardStats>] {
            &self.stats
        }
        fn reload(&self) -> Receiver<Result<usize, String>> {
            unreachable!("nobody asks")
        }
        fn programs(&self) -> Option<Receiver<Vec<crate::programs::Report>>> {
            None
        }
        fn hooks(&self) -> &crate::control::hooks::Hooks {
            unreachable!("nobody asks for them here")
        }

        fn is_published(&self, _: &str) -> bool {
            false
        }

        fn registry(&self) -> Option<crate::cluster::RegistryState> {
            None
        }

        fn is_packaged(&self, _: &crate::config::Vhost, _: &str) -> bool {
            false
        }

        fn playlists(&self, _: &str) -> [Option<String>; 2] {
            [None, None]
        }

        fn recordings(&self) -> (Vec<crate::package::Recorded>, Vec<String>) {
            (Vec::new(), Vec::new())
        }

        fn record(&self, _: &str, _: bool) -> Option<bool> {
            None
        }

        fn stored(&self) -> (u64, u64) {
            (0, 0)
        }

        fn token(&self) -> &str {
            ""
        }
        fn ids(&self) -> (&str, &str) {
            ("", "")
        }
        fn now_ms(&self) -> u64 {
            0
        }
    }

    /// The answers of a hundred who ask at once and of one who asks after `later`, how often shards were asked, and
    /// how long it took.
    fn ask_together(silent: bool, later: Duration) -> (Vec<Result<Vec<u64>, Silent>>, usize, Duration) {
        let asked = Arc::new(AtomicUsize::new(0));
        let server = Fake { stats: Default::default(), asked: Arc::clone(&asked), silent };
        let main = move || async move {
            let (server, reports) = (Rc::new(server), Rc::new(Reports::default()));
            let start = Instant::now();
            let took = Rc::new(Cell::new(Duration::ZERO));
            let one = || {
                let (server, reports, took) = (Rc::clone(&server), Rc::clone(&reports), Rc::clone(&took));
                glommio::spawn_local(async move {
                    let answer = reports.get(&*server).await;
                    took.set(start.elapsed());
                    answer.map(|reports| reports.iter().map(|report| report.connections).collect())
                })
            };
            let all: Vec<_> = (0..100).map(|_| one()).collect();
            let mut answers = Vec::new();
            for answer in all {
                answers.push(answer.await);
            }
            let took = took.get();
            Timer::new(later).await;
            answers.push(one().await);
            (answers, took)
        };
        let (answers, took) = cores::spawn_unpinned("asking", main).unwrap().join().unwrap().unwrap();
        (answers, asked.load(Ordering::Relaxed), took)
    }

    /// Many who ask cost the shards one walk a second, and wait once for a shard that does not answer.
    #[test]
    fn reports_serve_for_a_second() {
        let (answers, asked, _) = ask_together(false, Duration::ZERO);
        assert!(answers.iter().all(|answer| *answer == Ok(vec![0, 1])), "{answers:?}");
        assert_eq!(asked, 2);
        assert_eq!(ask_together(false, REPORT_AGE_MAX).1, 4);
        let (answers, asked, took) = ask_together(true, Duration::ZERO);
        assert!(answers.iter().all(|answer| *answer == Err(Silent(1))), "{answers:?}");
        assert!(asked == 2 && took < SHARD_TIME * 2, "{asked} {took:?}");
    }
}
