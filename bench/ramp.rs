//! How many players a server carries: the number is raised until one of a hundred falls under full rate.

use crate::{
    options::{Mixed, Options},
    process::descriptors,
    report::{Report, bounds::Bound},
    scenario::Ramp,
};
use anyhow::{Context, bail};
use std::{
    env, fs,
    process::{Command, Stdio, id},
    thread,
    time::{Duration, Instant},
};

/// Part of the players that must be at full rate.
const FULL_PART: f64 = 0.99;
/// Most of its CPUs that the generator may use for a figure to count.
const GENERATOR_PART: f64 = 0.9;
/// Between two runs at least, and at most: connections of the last one close. Beyond what a server carries loopback loses
/// packets, and it learns of some ends late.
const PAUSE: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(45);
/// Descriptors that a server may have more than before.
const DESCRIPTORS_MORE: usize = 20;

/// Tries numbers, greater ones first by half, then in between; the report is of the greatest that held, or of the least
/// one if that does not.
///
/// # Errors
/// A run fails.
pub(crate) fn raise(ramp: Ramp, mixed: &Mixed, options: &Options) -> anyhow::Result<Report> {
    let Ramp { from, to, step } = ramp;
    if from == 0 || step == 0 || from > to {
        bail!("a ramp wants 0 < from <= to and a step");
    }
    let before = options.pid.and_then(descriptors);
    let (mut held, mut best) = (from, attempt(from, mixed, options)?);
    if let Some(why) = fault(&best) {
        println!("not even {from}: {why}");
        return Ok(best);
    }
    // The least number that is known not to hold, and why.
    let mut above: Option<(usize, &str)> = None;
    while let Some(next) = following(held, above.map(|(above, _)| above), to, step) {
        wait_for_ends(options.pid, before);
        let report = attempt(next, mixed, options)?;
        match fault(&report) {
            None => (held, best) = (next, report),
            Some(why) => above = Some((next, why)),
        }
    }
    let bound = above.map_or("more were not tried".to_owned(), |(above, why)| format!("with {above}: {why}"));
    println!("{held} players are at full rate; {bound}");
    Ok(best)
}

/// What must hold of the number that is found.
pub(crate) fn bounds() -> Vec<Bound> {
    ["full-rate=99%", "faults=0"].iter().filter_map(|bound| bound.parse().ok()).collect()
}

/// Why a number does not hold.
fn fault(report: &Report) -> Option<&'static str> {
    let (full, wanted) = report.full_rate();
    let generator = &report.generator;
    if generator.bottleneck.is_some() || generator.cores > GENERATOR_PART * generator.executors as f64 {
        return Some("the generator is full, which tells nothing of the server");
    }
    (FULL_PART * wanted as f64 > full as f64).then_some("more than one in a hundred is under full rate")
}

/// Waits until the server has closed what the last run has left.
fn wait_for_ends(pid: Option<u32>, before: Option<usize>) {
    let since = Instant::now();
    thread::sleep(PAUSE);
    let left = || pid.and_then(descriptors).zip(before).is_some_and(|(now, before)| now > before + DESCRIPTORS_MORE);
    while left() && since.elapsed() < PAUSE_MAX {
        thread::sleep(PAUSE / 4);
    }
}

/// The number to try next; `None` when it is known well enough.
fn following(held: usize, above: Option<usize>, to: usize, step: usize) -> Option<usize> {
    let next = match above {
        None => (held * 3 / 2).min(to),
        Some(above) => held.midpoint(above),
    };
    // In steps, so that two servers are tried with the same numbers.
    let next = if next == to { next } else { next / step * step };
    (next > held && above.is_none_or(|above| next < above)).then_some(next)
}

/// A run in a process of its own, whose connections end with it.
fn attempt(players: usize, mixed: &Mixed, options: &Options) -> anyhow::Result<Report> {
    let json = env::temp_dir().join(format!("corecast-bench-{}.json", id()));
    let mut command = Command::new(env::current_exe()?);
    command.arg("mixed").arg(&mixed.scenario).args(["-r", &mixed.url, "--http", &mixed.http]);
    command.arg("--players").arg(players.to_string()).arg("--json").arg(&json);
    command.arg("--read-every").arg(options.read_every.to_string());
    if let Some(file) = &options.file {
        command.arg("-i").arg(file);
    }
    if let Some(cpus) = &options.cpus {
        command.args(["--cpus", cpus]);
    }
    if let Some(pid) = options.pid {
        command.args(["--pid", &pid.to_string()]);
    }
    // What is not kept is to be found out here.
    let output = command.stdin(Stdio::null()).output()?;
    let text = fs::read_to_string(&json).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    fs::remove_file(&json)?;
    let report: Report = serde_json::from_str(&text)?;
    let (full, wanted) = report.full_rate();
    let (generator, server) = (&report.generator, report.server.map_or(0.0, |usage| usage.cores));
    println!("{players}: {full} of {wanted} at full rate, server {server:.2} cores, generator {:.2}", generator.cores);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_narrowed_down() {
        // A server that carries 4300.
        let (mut held, mut above, mut tried) = (1000, None, vec![1000]);
        while let Some(next) = following(held, above, 12_000, 250) {
            tried.push(next);
            if next <= 4300 { held = next } else { above = Some(next) }
        }
        assert_eq!((held, above), (4250, Some(4500)), "{tried:?}");
        assert!(tried.len() < 12, "{tried:?}");
        assert_eq!((following(12_000, None, 12_000, 250), following(9000, None, 12_000, 250)), (None, Some(12_000)));
    }
}
