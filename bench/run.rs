//! A run from the main thread: start, wait for everybody, measure, sum up.

use crate::{
    clock, connect,
    executor::{Answer, Ask, Executor},
    load::{GroupResults, Metrics, Plan, Sums, TAIL},
    options::Options,
    process,
    report::{Generator, GroupReport, Report, Sample, Summary, Usage},
    scenario::{self, Scenario},
    totals::GroupTotals,
};
use anyhow::{Context, bail};
use bytes::Bytes;
use corecast::{
    proto::flv::{Tag, file},
    sys::cores,
};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Nobody new for so long: those who are missing will not come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two points of the timeline.
const SAMPLE: Duration = Duration::from_millis(500);
/// The generator is the bottleneck when its executors use more of their CPUs than this.
const BUSY_MAX: f64 = 0.93;
/// … or are late by more than this at p99.
const LATE_MS_MAX: f64 = 100.0;

/// Runs a scenario and reports it.
pub(crate) fn run(name: &str, scenario: Scenario, options: &Options) -> anyhow::Result<Report> {
    scenario.check(options.file.is_some())?;
    let tags = options.file.as_deref().map(read_flv).transpose()?.map(Arc::new);
    if scenario.publishers.iter().any(|group| group.clock) && !tags.as_ref().is_some_and(|tags| clock::can_stamp(tags))
    {
        bail!("--clock stamps H.264 video and the file has none");
    }
    let address = |url: &String| connect::resolve(&scenario::parse(url)?);
    let publish_to = scenario.publishers.iter().map(|group| address(&group.url)).collect::<Result<_, _>>()?;
    let play_from = scenario.players.iter().map(|group| address(&group.url)).collect::<Result<_, _>>()?;
    let cpus = cores::allowed(options.cpus.as_deref())?;
    let read_every = Duration::from_millis(options.read_every);
    let plan = Arc::new(Plan { scenario, tags, publish_to, play_from, executors: cpus.len(), read_every });
    let start = |(part, cpu): (usize, &usize)| Executor::start(*cpu, part, &plan);
    let executors: Vec<Executor> = cpus.iter().enumerate().map(start).collect::<Result<_, _>>()?;
    let mut run = Run {
        name: name.to_owned(),
        plan,
        executors,
        pid: options.pid,
        progress: progress_bar(),
        timeline: Vec::new(),
        last: None,
        began: Instant::now(),
    };
    let report = run.execute();
    run.progress.finish_and_clear();
    // Publishers say goodbye, whatever happened.
    let stopped = Executor::ask_all(&run.executors, Ask::Stop);
    let report = report?;
    stopped?;
    Ok(report)
}

struct Run {
    name: String,
    plan: Arc<Plan>,
    executors: Vec<Executor>,
    pid: Option<u32>,
    progress: ProgressBar,
    timeline: Vec<Sample>,
    /// Time, bytes, CPU of the server and of us at the last sample.
    last: Option<(Instant, u64, f64, f64)>,
    began: Instant,
}

/// CPU and bytes at a moment.
struct Moment {
    at: Instant,
    bytes: u64,
    server_s: f64,
    own_s: f64,
}

impl Run {
    fn execute(&mut self) -> anyhow::Result<Report> {
        let publishers = self.plan.scenario.publishers.iter().map(|group| group.count).sum::<usize>();
        if publishers > 0 {
            let up = self.wait_for(publishers, |sums| sums.publishing)?;
            self.say(&format!("publishing: {} of {publishers}", up.publishing));
            if up.publishing == 0 {
                bail!("nobody publishes: {}", list(&up));
            }
        }
        let early = |group: &&scenario::Players| group.after_s.is_none();
        let players: usize = self.plan.scenario.players.iter().filter(early).map(|group| group.count).sum();
        let idle: usize = self.plan.scenario.players.iter().filter(|group| group.idle).map(|group| group.count).sum();
        if players > 0 {
            let since = Instant::now();
            Executor::ask_all(&self.executors, Ask::Join)?;
            let up = self.wait_for(players, |sums| sums.started.max(sums.playing.min(idle)))?;
            let seconds = since.elapsed().as_secs_f64();
            self.say(&format!("playing: {} of {players} after {seconds:.2} s", up.started.max(up.playing.min(idle))));
            if up.playing == 0 {
                bail!("nobody plays: {}", list(&up));
            }
            // Every player has got the GOP that it began with: what comes now comes in real time.
            self.wait(TAIL)?;
        }
        let before = self.moment()?;
        Executor::ask_all(&self.executors, Ask::Begin)?;
        let total = Duration::from_secs(self.plan.scenario.seconds);
        self.wait(total.saturating_sub(TAIL))?;
        Executor::ask_all(&self.executors, Ask::Mark)?;
        self.wait(total.saturating_sub(before.at.elapsed()))?;
        let after = self.moment()?;
        let mut parts: Vec<Vec<GroupResults>> = vec![Vec::new(); self.plan.scenario.players.len()];
        let mut late = Metrics::default().latency;
        for answer in Executor::ask_all(&self.executors, Ask::Totals)? {
            if let Answer::Totals(results, part_late) = answer {
                parts.iter_mut().zip(results).for_each(|(group, part)| group.push(part));
                late.add(part_late).ok();
            }
        }
        let groups = parts.iter().map(|parts| GroupTotals::new(parts)).collect();
        let sums = Executor::sums(&self.executors)?;
        self.report(&before, &after, groups, &late, sums)
    }

    /// Waits until `count` of `what` are there, or nobody new for [`PATIENCE`].
    fn wait_for(&mut self, count: usize, what: impl Fn(&Sums) -> usize) -> anyhow::Result<Sums> {
        let (mut most, mut since) = (0, Instant::now());
        loop {
            let sums = Executor::sums(&self.executors)?;
            let now = what(&sums);
            if now > most {
                (most, since) = (now, Instant::now());
            }
            let failed: u64 = sums.failures.values().sum();
            if now >= count || since.elapsed() > PATIENCE || failed >= count as u64 && now == 0 {
                return Ok(sums);
            }
            self.progress.set_message(format!("{now} of {count} are up"));
            self.progress.tick();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Lets time pass, and takes samples.
    fn wait(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(SAMPLE));
            if left >= SAMPLE / 2 {
                self.sample()?;
            }
        }
    }

    fn sample(&mut self) -> anyhow::Result<()> {
        let sums = Executor::sums(&self.executors)?;
        let moment = self.moment_of(sums.bytes)?;
        let now = (moment.at, moment.bytes, moment.server_s, moment.own_s);
        if let Some((at, bytes, server_s, own_s)) = self.last.replace(now) {
            let seconds = (now.0 - at).as_secs_f64();
            let sample = Sample {
                at_s: self.began.elapsed().as_secs_f64(),
                players: sums.started,
                slow: sums.slow,
                gbit_s: (now.1 - bytes) as f64 * 8e-9 / seconds,
                server_cores: self.pid.map(|_| (now.2 - server_s) / seconds),
                server_rss_mib: self.pid.map(process::rss_kib).transpose()?.map(|kib| kib as f64 / 1024.0),
                generator_cores: (now.3 - own_s) / seconds,
            };
            self.progress.set_message(sample.line());
            self.progress.tick();
            self.timeline.push(sample);
        }
        Ok(())
    }

    fn moment(&self) -> anyhow::Result<Moment> {
        self.moment_of(Executor::sums(&self.executors)?.bytes)
    }

    fn moment_of(&self, bytes: u64) -> anyhow::Result<Moment> {
        let server_s = self.pid.map_or(Ok(0.0), process::cpu_seconds)?;
        let own_s = process::cpu_seconds(std::process::id())?;
        Ok(Moment { at: Instant::now(), bytes, server_s, own_s })
    }

    fn say(&self, line: &str) {
        self.progress.suspend(|| println!("{line}"));
    }

    fn report(
        &self,
        before: &Moment,
        after: &Moment,
        groups: Vec<GroupTotals>,
        late: &Histogram<u64>,
        sums: Sums,
    ) -> anyhow::Result<Report> {
        let scenario = &self.plan.scenario;
        let seconds = (after.at - before.at).as_secs_f64();
        let gib = (after.bytes - before.bytes) as f64 / f64::from(1 << 30);
        let rss = self.timeline.iter().filter_map(|sample| sample.server_rss_mib);
        let server_s = after.server_s - before.server_s;
        let usage = |pid| {
            Ok::<_, anyhow::Error>(Usage {
                cpu_s: server_s,
                cores: server_s / seconds,
                cpu_s_per_gib: server_s / gib.max(1e-9),
                rss_mib: process::rss_kib(pid)? as f64 / 1024.0,
                rss_peak_mib: rss.clone().fold(0.0, f64::max),
            })
        };
        let generator = self.generator(after.own_s - before.own_s, seconds, late);
        let reports = scenario.players.iter().zip(&groups).map(|(spec, totals)| GroupReport::new(spec, totals));
        let mut latency = Metrics::default().latency;
        groups.iter().for_each(|group| _ = latency.add(&group.metrics.latency).ok());
        Ok(Report {
            scenario: self.name.clone(),
            seconds,
            publishers: scenario.publishers.iter().map(|group| group.count).sum(),
            publishing: sums.publishing,
            groups: reports.collect(),
            gib,
            gbit_s: gib * 8.0 * 1.073_741_824 / seconds,
            server: self.pid.map(usage).transpose()?,
            generator,
            latency: Summary::of(&latency),
            latency_curve: Summary::curve(&latency),
            failures: sums.failures,
            timeline: self.timeline.clone(),
        })
    }

    fn generator(&self, own_s: f64, seconds: f64, late: &Histogram<u64>) -> Generator {
        let executors = self.executors.len();
        let cores = own_s / seconds;
        let late_p99_ms = late.value_at_quantile(0.99) as f64 / 1000.0;
        let bottleneck = if cores > BUSY_MAX * executors as f64 {
            Some(format!("it used {cores:.2} of its {executors} CPUs"))
        } else if late_p99_ms > LATE_MS_MAX {
            Some(format!("its timers were {late_p99_ms:.0} ms late at p99"))
        } else {
            None
        };
        Generator { cores, executors, late_p99_ms, bottleneck }
    }
}

fn list(sums: &Sums) -> String {
    let list: Vec<String> = sums.failures.iter().map(|(kind, count)| format!("{count} x {kind}")).collect();
    if list.is_empty() { "no answer".to_owned() } else { list.join(", ") }
}

fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar
}

fn read_flv(path: &Path) -> anyhow::Result<Vec<Tag>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let tags = file::read_file(Bytes::from(bytes)).with_context(|| path.display().to_string())?;
    if tags.len() < 2 {
        bail!("{}: no tags", path.display());
    }
    Ok(tags)
}
