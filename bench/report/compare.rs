//! Several runs of several servers, side by side: medians of ratios, with their spread.

use super::{Report, right_align, table};
use anyhow::{Context, bail};
use clap::Args;
use std::{fs, path::PathBuf};

/// `compare`
#[derive(Clone, Debug, Args)]
pub(crate) struct Compare {
    /// Directory with NAME.ROUND.json of every server and round, as --json writes them
    directory: PathBuf,
    /// What the others are divided by
    #[arg(long, default_value = "corecast")]
    base: String,
}

type Figure = (&'static str, usize, fn(&Report) -> Option<f64>);

/// What is compared: name, digits, value.
const FIGURES: &[Figure] = &[
    ("players", 0, |report| Some(report.full_rate().1 as f64).filter(|players| *players > 0.0)),
    ("CPU s/GiB", 3, |report| report.server.filter(|_| report.gib > 0.01).map(|usage| usage.cpu_s_per_gib)),
    ("cores", 3, |report| report.server.map(|usage| usage.cores)),
    ("Gbit/s", 2, |report| (report.gib > 0.01).then_some(report.gbit_s)),
    ("full rate %", 1, |report| {
        let (full, wanted) = report.full_rate();
        (wanted > 0).then(|| 100.0 * full as f64 / wanted as f64)
    }),
    ("RSS MiB", 1, |report| report.server.map(|usage| usage.rss_peak_mib)),
    ("latency p50 ms", 1, |report| report.latency.map(|latency| latency.p50)),
    ("latency p95 ms", 1, |report| report.latency.map(|latency| latency.p95)),
    ("latency p99 ms", 1, |report| report.latency.map(|latency| latency.p99)),
    ("join p50 ms", 2, |report| join(report).map(|join| join.p50)),
    ("join p99 ms", 2, |report| join(report).map(|join| join.p99)),
    ("join max ms", 1, |report| join(report).map(|join| join.max)),
    ("faults", 0, |report| Some(report.faults() as f64)),
    ("failures", 0, |report| Some(report.failed() as f64)),
];

/// The group that comes last is the one whose joins matter.
fn join(report: &Report) -> Option<super::Summary> {
    report.groups.iter().rev().find_map(|group| group.join)
}

pub(crate) fn run(arguments: &Compare) -> anyhow::Result<()> {
    let runs = read(arguments)?;
    let base = runs.iter().find(|(name, _)| *name == arguments.base);
    let Some((_, base)) = base else { bail!("no result of {}", arguments.base) };
    let mut header = vec!["median (least to most)".to_owned()];
    for (name, reports) in &runs {
        header.push(format!("{name}, {} runs", reports.len()));
        if *name != arguments.base {
            header.push(format!("{} / {name}", arguments.base));
        }
    }
    let mut table = table(&header.iter().map(String::as_str).collect::<Vec<_>>());
    for (figure, digits, value) in FIGURES {
        let values =
            |reports: &[(u32, Report)]| reports.iter().filter_map(|(_, report)| value(report)).collect::<Vec<_>>();
        if values(base).is_empty() {
            continue;
        }
        let mut row = vec![(*figure).to_owned()];
        for (name, reports) in &runs {
            row.push(spread(values(reports), *digits));
            if *name != arguments.base {
                let pairs = base.iter().filter_map(|(round, ours)| {
                    let (_, theirs) = reports.iter().find(|(other, _)| other == round)?;
                    Some(value(ours)? / value(theirs).filter(|theirs| *theirs > 0.0)?)
                });
                row.push(spread(pairs.collect(), 2));
            }
        }
        table.add_row(row);
    }
    println!("{}", right_align(table));
    for (name, reports) in &runs {
        for (round, report) in reports {
            if let Some(bottleneck) = &report.generator.bottleneck {
                println!("warning: {name}, round {round}: the generator was the bottleneck: {bottleneck}");
            }
            for (kind, count) in &report.failures {
                println!("failure: {name}, round {round}: {count} x {kind}");
            }
        }
    }
    Ok(())
}

/// Every server with its rounds, ours first.
type Runs = Vec<(String, Vec<(u32, Report)>)>;

fn read(arguments: &Compare) -> anyhow::Result<Runs> {
    let mut runs: Runs = Vec::new();
    let directory = &arguments.directory;
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        let Some(stem) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")) else { continue };
        let Some((name, round)) = stem.rsplit_once('.') else { continue };
        let round = round.parse().with_context(|| path.display().to_string())?;
        let report = serde_json::from_str(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())?;
        match runs.iter_mut().find(|(known, _)| known == name) {
            Some((_, reports)) => reports.push((round, report)),
            None => runs.push((name.to_owned(), vec![(round, report)])),
        }
    }
    runs.sort_by_key(|(name, _)| (*name != arguments.base, name.clone()));
    Ok(runs)
}

/// `median (least to most)`.
fn spread(mut values: Vec<f64>, digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (values.first(), values.last()) else { return "-".to_owned() };
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
    if values.len() == 1 {
        format!("{median:.digits$}")
    } else {
        format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_has_its_spread() {
        assert_eq!(spread(vec![3.0, 1.0, 2.0], 1), "2.0 (1.0 to 3.0)");
        assert_eq!(spread(vec![1.0, 2.0], 2), "1.50 (1.00 to 2.00)");
        assert_eq!((spread(vec![5.0], 0), spread(vec![], 0)), ("5".to_owned(), "-".to_owned()));
    }
}
