//! One executor's part of the load: its players and publishers, and the questions of the main thread.

use crate::{
    load::{Group, GroupResults, Load, Metrics, Plan, Sums, micros},
    player, publisher,
};
use anyhow::Context;
use corecast::sys::cores;
use crossbeam_channel::{Receiver as Channel, Sender};
use glommio::{spawn_local, timer::Timer};
use hdrhistogram::Histogram;
use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

/// How often questions are looked for; its lateness says whether the executor keeps up.
const TICK: Duration = Duration::from_millis(5);
/// What the main thread asks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    /// Players come.
    Join,
    /// How it goes.
    Sums,
    /// The measured window begins: remember how far everybody is.
    Begin,
    /// [`crate::load::TAIL`] before its end: likewise.
    Mark,
    /// Its end.
    Totals,
    /// Publishers say goodbye.
    Stop,
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
