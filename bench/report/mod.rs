//! What a run found: as a table, as JSON, as a page.

pub(crate) mod bounds;
pub(crate) mod compare;
mod html;

use crate::{check::Faults, scenario::Players, totals::GroupTotals};
use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs, path::Path};

/// Below so much, CPU per GiB says nothing.
const GIB_MIN: f64 = 0.001;

/// A whole run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) scenario: String,
    /// The window's length.
    pub(crate) seconds: f64,
    pub(crate) publishers: usize,
    pub(crate) publishing: usize,
    pub(crate) groups: Vec<GroupReport>,
    /// Received by players within the window.
    pub(crate) gib: f64,
    pub(crate) gbit_s: f64,
    pub(crate) server: Option<Usage>,
    pub(crate) generator: Generator,
    /// In ms, from the publisher's send to the player's read.
    pub(crate) latency: Option<Summary>,
    /// Percentile and ms.
    pub(crate) latency_curve: Vec<(f64, f64)>,
    /// By kind.
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) timeline: Vec<Sample>,
}

/// A group of players.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct GroupReport {
    pub(crate) name: String,
    pub(crate) count: usize,
    /// Whether all of them should be at full rate.
    pub(crate) wants_full_rate: bool,
    pub(crate) idle: bool,
    pub(crate) playing: usize,
    /// Those who have had a keyframe.
    pub(crate) started: usize,
    pub(crate) full_rate: usize,
    pub(crate) slowest: f64,
    pub(crate) checked: usize,
    pub(crate) media_tags: u64,
    pub(crate) faults: Faults,
    /// From connect to the first keyframe, in ms.
    pub(crate) join: Option<Summary>,
    pub(crate) join_curve: Vec<(f64, f64)>,
    /// Each player's longest time without a byte, in ms.
    pub(crate) stall: Option<Summary>,
    pub(crate) latency: Option<Summary>,
    /// Players by their share of the full rate: percent and players.
    pub(crate) shares: Vec<(f64, u64)>,
}

/// What the server used within the window.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) cores: f64,
    pub(crate) cpu_s_per_gib: f64,
    pub(crate) rss_mib: f64,
    pub(crate) rss_peak_mib: f64,
}

/// What the generator used.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Generator {
    pub(crate) cores: f64,
    pub(crate) executors: usize,
    pub(crate) late_p99_ms: f64,
    /// Why it, and not the server, may have set the limit.
    pub(crate) bottleneck: Option<String>,
}

/// A histogram in few figures, in ms.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) min: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// A point of the timeline.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Sample {
    pub(crate) at_s: f64,
    pub(crate) players: usize,
    pub(crate) slow: usize,
    pub(crate) gbit_s: f64,
    pub(crate) server_cores: Option<f64>,
    pub(crate) server_rss_mib: Option<f64>,
    pub(crate) generator_cores: f64,
}

impl Summary {
    /// `None` of an empty histogram in µs.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let ms = |us: u64| us as f64 / 1000.0;
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            min: ms(histogram.min()),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            max: ms(histogram.max()),
        })
    }

    /// Percentiles to draw: more of them towards 100.
    pub(crate) fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
        if histogram.is_empty() {
            return Vec::new();
        }
        let percentiles = (0..=98).map(f64::from).chain((0..=20).map(|n| 99.0 + f64::from(n) / 20.0));
        percentiles.map(|p| (p, histogram.value_at_quantile(p / 100.0) as f64 / 1000.0)).collect()
    }
}

impl GroupReport {
    pub(crate) fn new(spec: &Players, totals: &GroupTotals) -> Self {
        let metrics = &totals.metrics;
        let share = &metrics.share;
        Self {
            name: spec.name.clone(),
            count: spec.count,
            wants_full_rate: spec.full_rate && !spec.idle && spec.after_s.is_none() && spec.stay_s.is_none(),
            idle: spec.idle,
            playing: totals.playing,
            started: totals.started,
            full_rate: totals.full_rate,
            slowest: if share.is_empty() { 0.0 } else { share.min() as f64 / 1000.0 },
            checked: totals.checked,
            media_tags: totals.media_tags,
            faults: totals.faults,
            join: Summary::of(&metrics.join),
            join_curve: Summary::curve(&metrics.join),
            stall: Summary::of(&metrics.stall),
            latency: Summary::of(&metrics.latency),
            shares: share.iter_recorded().map(|v| (v.value_iterated_to() as f64 / 10.0, v.count_at_value())).collect(),
        }
    }
}

impl Report {
    /// Players at full rate, and those who should be.
    pub(crate) fn full_rate(&self) -> (usize, usize) {
        let wanted = self.groups.iter().filter(|group| group.wants_full_rate);
        wanted.fold((0, 0), |(full, all), group| (full + group.full_rate, all + group.count))
    }

    pub(crate) fn faults(&self) -> u64 {
        self.groups.iter().map(|group| group.faults.total()).sum()
    }

    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// All that a person at a terminal wants to know.
    pub(crate) fn print(&self) {
        if self.publishers > 0 {
            println!("publishing at the end: {} of {}", self.publishing, self.publishers);
        }
        if !self.groups.is_empty() {
            let (full, wanted) = self.full_rate();
            let slowest = self.groups.iter().filter(|group| group.wants_full_rate).map(|group| group.slowest);
            let slowest = slowest.fold(1.0, f64::min) * 100.0;
            if wanted > 0 {
                println!("full rate: {full} of {wanted} players, the slowest at {slowest:.0} %");
            }
            println!("{}", self.group_table());
            println!("{}", self.time_table());
            println!("received:  {:.3} GiB in {:.2} s, {:.3} Gbit/s", self.gib, self.seconds, self.gbit_s);
        }
        for group in self.groups.iter().filter(|group| group.faults.total() > 0) {
            println!("faults:    {}: {:?}", group.name, group.faults);
        }
        if let Some(usage) = &self.server {
            let Usage { cpu_s, cores, cpu_s_per_gib, rss_mib, rss_peak_mib } = usage;
            let per_gib = if self.gib > GIB_MIN { format!(", {cpu_s_per_gib:.3} CPU s/GiB") } else { String::new() };
            println!(
                "server:    {cpu_s:.2} CPU s = {cores:.3} cores{per_gib}, RSS {rss_mib:.1} MiB (at most {rss_peak_mib:.1})"
            );
        }
        let Generator { cores, executors, late_p99_ms, bottleneck } = &self.generator;
        println!("generator: {cores:.3} of {executors} CPUs, timers {late_p99_ms:.1} ms late at p99");
        if let Some(bottleneck) = bottleneck {
            println!("warning:   the generator was the bottleneck: {bottleneck}; give it more CPUs or less to do");
        }
        for (kind, count) in &self.failures {
            println!("failure:   {count} x {kind}");
        }
    }

    fn group_table(&self) -> Table {
        let mut table = table(&[
            "players",
            "wanted",
            "playing",
            "with picture",
            "full rate",
            "slowest",
            "checked",
            "tags",
            "faults",
        ]);
        for group in &self.groups {
            table.add_row([
                group.name.clone(),
                group.count.to_string(),
                group.playing.to_string(),
                group.started.to_string(),
                if group.wants_full_rate { group.full_rate.to_string() } else { "-".to_owned() },
                if group.wants_full_rate { format!("{:.0} %", group.slowest * 100.0) } else { "-".to_owned() },
                group.checked.to_string(),
                group.media_tags.to_string(),
                group.faults.total().to_string(),
            ]);
        }
        right_align(table)
    }

    fn time_table(&self) -> Table {
        let mut table = table(&["ms", "count", "min", "p50", "p90", "p95", "p99", "max"]);
        let mut add = |name: String, summary: Option<Summary>| {
            if let Some(Summary { count, min, p50, p90, p95, p99, max }) = summary {
                let figures = [min, p50, p90, p95, p99, max].map(|ms| format!("{ms:.1}"));
                table.add_row([name, count.to_string()].into_iter().chain(figures));
            }
        };
        for group in &self.groups {
            add(format!("{}: join", group.name), group.join);
            add(format!("{}: latency", group.name), group.latency);
            add(format!("{}: longest stall", group.name), group.stall.filter(|_| group.wants_full_rate));
        }
        right_align(table)
    }

    pub(crate) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text).with_context(|| path.display().to_string())
    }

    pub(crate) fn write_html(&self, path: &Path) -> anyhow::Result<()> {
        fs::write(path, html::page(self)?).with_context(|| path.display().to_string())
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header.iter().copied());
    table
}

/// Figures to the right, names to the left.
fn right_align(mut table: Table) -> Table {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

impl Sample {
    /// The live line.
    pub(crate) fn line(&self) -> String {
        let server = self.server_cores.map(|cores| format!(", server {cores:.2} cores")).unwrap_or_default();
        let rss = self.server_rss_mib.map(|mib| format!(" {mib:.0} MiB")).unwrap_or_default();
        let Self { players, slow, gbit_s, .. } = self;
        format!("{players} players with picture, {slow} slow, {gbit_s:.2} Gbit/s{server}{rss}")
    }
}
