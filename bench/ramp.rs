//! How many players a server carries: the number is raised until one of a hundred falls under full rate.

use crate::{
    options::{Mixed, Options},
    process::descriptors,
    report::Report,
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

/// What a number of players came to.
enum Outcome {
    Held(Report),
    /// Players fell under full rate.
    Fell(Report),
    /// The generator had too much to do for this to mean anything.
    Unknown(Report),
}

/// Tries numbers, greater ones first by half, then in between; the report is of the greatest that held.
///
/// # Errors
/// A run fails; the least number does not hold.
pub(crate) fn raise(ramp: Ramp, mixed: &Mixed, options: &Options) -> anyhow::Result<Report> {
    let Ramp { from, to, step } = ramp;
    if from == 0 || step == 0 || from > to {
        bail!("a ramp wants 0 < from <= to and a step");
    }
    let mut held: Option<(usize, Report)> = None;
    // The least number that is known not to hold, and whether the generator is why.
    let mut above: Option<(usize, bool)> = None;
    let mut next = from;
    let before = options.pid.and_then(descriptors);
    loop {
        match attempt(next, mixed, options)? {
            Outcome::Held(report) => held = Some((next, report)),
            Outcome::Fell(report) if held.is_none() => return Ok(report),
            Outcome::Unknown(report) if held.is_none() => return Ok(report),
            Outcome::Fell(_) => above = Some((next, false)),
            Outcome::Unknown(_) => above = Some((next, true)),
        }
        let Some(most) = held.as_ref().map(|(most, _)| *most) else { continue };
        let Some(found) = following(most, above.map(|(above, _)| above), to, step) else { break };
        next = found;
        wait_for_ends(options.pid, before);
    }
    let Some((most, report)) = held else { bail!("nothing held") };
    let cores = report.server.map_or(0.0, |usage| usage.cores);
    let bound = match above {
        Some((above, false)) => format!("{above} do not: more than one in a hundred is under full rate"),
        Some((above, true)) => {
            format!("with {above} the generator is full: no figure of how many; the server used {cores:.2} cores")
        }
        None => "more were not tried".to_owned(),
    };
    println!("{most} players are at full rate; {bound}");
    Ok(report)
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
fn attempt(players: usize, mixed: &Mixed, options: &Options) -> anyhow::Result<Outcome> {
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
    let busy = generator.cores > GENERATOR_PART * generator.executors as f64;
    Ok(if full as f64 >= FULL_PART * wanted as f64 && !busy && generator.bottleneck.is_none() {
        Outcome::Held(report)
    } else if busy || generator.bottleneck.is_some() {
        Outcome::Unknown(report)
    } else {
        Outcome::Fell(report)
    })
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
