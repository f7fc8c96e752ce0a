//! What a run must keep: `--require full-rate=99%,p99=400ms`.

use super::Report;
use std::str::FromStr;

/// One bound.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bound {
    what: What,
    /// Percent, ms, MiB or a count, after `what`.
    limit: f64,
    text: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum What {
    FullRate,
    Faults,
    Failures,
    Playing,
    Latency(Figure),
    Join(Figure),
    StallMax,
    CpuPerGib,
    Cores,
    Rss,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Figure {
    P50,
    P95,
    P99,
    Max,
}

const KNOWN: &[(&str, What)] = &[
    ("full-rate", What::FullRate),
    ("faults", What::Faults),
    ("failures", What::Failures),
    ("playing", What::Playing),
    ("p50", What::Latency(Figure::P50)),
    ("p95", What::Latency(Figure::P95)),
    ("p99", What::Latency(Figure::P99)),
    ("max", What::Latency(Figure::Max)),
    ("join-p50", What::Join(Figure::P50)),
    ("join-p99", What::Join(Figure::P99)),
    ("join-max", What::Join(Figure::Max)),
    ("stall-max", What::StallMax),
    ("cpu-per-gib", What::CpuPerGib),
    ("cores", What::Cores),
    ("rss", What::Rss),
];

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("a bound has the form name=limit")?;
        let Some((_, what)) = KNOWN.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = KNOWN.iter().map(|(known, _)| *known).collect();
            return Err(format!("`{name}` is no bound; known are {}", known.join(", ")));
        };
        let units: &[(&str, f64)] = match what {
            What::FullRate | What::Playing => &[("%", 1.0)],
            What::Faults | What::Failures | What::Cores => &[("", 1.0)],
            What::Latency(_) | What::Join(_) | What::StallMax => &[("us", 0.001), ("ms", 1.0), ("s", 1000.0)],
            What::CpuPerGib => &[("s", 1.0)],
            What::Rss => &[("MiB", 1.0)],
        };
        let number = |(unit, factor): &(&str, f64)| Some(value.strip_suffix(unit)?.parse::<f64>().ok()? * factor);
        let limit = units.iter().find_map(number).filter(|limit| limit.is_finite() && *limit >= 0.0);
        let units: Vec<String> = units.iter().map(|(unit, _)| format!("N{unit}")).collect();
        let limit = limit.ok_or_else(|| format!("`{value}`: {name} wants {}", units.join(" or ")))?;
        Ok(Self { what: *what, limit, text: text.to_owned() })
    }
}

/// What holds if nothing is said.
pub(crate) fn usual(report: &Report) -> Vec<Bound> {
    let mut bounds = vec!["faults=0"];
    if report.full_rate().1 > 0 {
        bounds.push("full-rate=100%");
    } else {
        bounds.extend(["failures=0", "playing=100%"].iter().take(if report.groups.is_empty() { 1 } else { 2 }));
    }
    bounds.iter().filter_map(|bound| bound.parse().ok()).collect()
}

impl Bound {
    /// What is wrong, if it does not hold.
    pub(crate) fn fault(&self, report: &Report) -> Option<String> {
        let Some(found) = self.found(report) else {
            return Some(format!("{}: not measured", self.text));
        };
        let holds =
            if matches!(self.what, What::FullRate | What::Playing) { found >= self.limit } else { found <= self.limit };
        (!holds).then(|| {
            format!("{}: it is {}", self.text, format!("{found:.3}").trim_end_matches('0').trim_end_matches('.'))
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a run")]
    fn found(&self, report: &Report) -> Option<f64> {
        let worst = |values: Vec<f64>| values.into_iter().reduce(f64::max);
        match self.what {
            What::FullRate => {
                let (full, wanted) = report.full_rate();
                (wanted > 0).then(|| 100.0 * full as f64 / wanted as f64)
            }
            What::Playing => {
                let sums = report
                    .groups
                    .iter()
                    .fold((0, 0), |(up, all), group| (up + group.playing.max(group.started), all + group.count));
                (sums.1 > 0).then(|| 100.0 * sums.0 as f64 / sums.1 as f64)
            }
            What::Faults => Some(report.faults() as f64),
            What::Failures => Some(report.failed() as f64),
            What::Latency(figure) => report.latency.map(|summary| figure.of(&summary)),
            What::Join(figure) => {
                worst(report.groups.iter().filter_map(|group| group.join).map(|join| figure.of(&join)).collect())
            }
            What::StallMax => {
                let wanted = report.groups.iter().filter(|group| group.wants_full_rate);
                worst(wanted.filter_map(|group| group.stall).map(|stall| stall.max).collect())
            }
            What::CpuPerGib => report.server.map(|usage| usage.cpu_s_per_gib),
            What::Cores => report.server.map(|usage| usage.cores),
            What::Rss => report.server.map(|usage| usage.rss_peak_mib),
        }
    }
}

impl Figure {
    fn of(self, summary: &super::Summary) -> f64 {
        match self {
            Self::P50 => summary.p50,
            Self::P95 => summary.p95,
            Self::P99 => summary.p99,
            Self::Max => summary.max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_have_units_and_explain_themselves() {
        let limit = |text: &str| text.parse::<Bound>().map(|bound| bound.limit);
        assert_eq!(limit("full-rate=99%"), Ok(99.0));
        assert_eq!((limit("p99=400ms"), limit("p99=0.4s"), limit("join-p50=900us")), (Ok(400.0), Ok(400.0), Ok(0.9)));
        assert!(limit("p99=400").unwrap_err().contains("Nus or Nms or Ns"));
        assert!(limit("p98=1ms").unwrap_err().contains("known are full-rate"));
        assert!(limit("p99").is_err() && limit("p99=-1ms").is_err() && limit("rss=nanMiB").is_err());
    }
}
