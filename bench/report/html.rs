//! One page with plots, nothing beside it.

use super::{Report, Sample, Summary};
use anyhow::anyhow;
use plotters::prelude::*;
use std::fmt::Write;

const SIZE: (u32, u32) = (620, 320);
const COLOURS: [RGBColor; 4] =
    [RGBColor(0x1F, 0x6F, 0xB4), RGBColor(0xD9, 0x5F, 0x0E), RGBColor(0x2C, 0x8C, 0x4A), RGBColor(0x7B, 0x4F, 0xA0)];

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1280px;padding:0 1em;color:#222}\
h1{font-size:1.4em}h2{font-size:1.05em;margin:0 0 .3em}section{display:grid;grid-template-columns:repeat(auto-fit,\
minmax(480px,1fr));gap:1.5em}figure{margin:0}h2 span{font-weight:normal;font-size:.9em;margin-left:1.2em}svg{width:100%;height:auto}table{border-collapse:collapse;margin:1em 0}\
td,th{padding:.2em .9em;border-bottom:1px solid #ddd;text-align:right}td:first-child,th:first-child{text-align:left}\
.warning{background:#fff3cd;padding:.5em 1em}";

/// A named line.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// The whole page.
pub(super) fn page(report: &Report) -> anyhow::Result<String> {
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>{name}</title><style>{STYLE}</style><h1>corecast-bench: {name}</h1>",
        name = escape(&report.scenario)
    );
    let (full, wanted) = report.full_rate();
    write!(
        page,
        "<p>{full} of {wanted} players at full rate, {} faults, {:.2} Gbit/s over {:.1} s.</p>",
        report.faults(),
        report.gbit_s,
        report.seconds
    )?;
    if let Some(usage) = &report.server {
        write!(
            page,
            "<p>Server: {:.3} cores, {:.3} CPU s/GiB, RSS {:.1} MiB.</p>",
            usage.cores, usage.cpu_s_per_gib, usage.rss_peak_mib
        )?;
    }
    if let Some(bottleneck) = &report.generator.bottleneck {
        write!(page, "<p class=warning>The generator was the bottleneck: {}.</p>", escape(bottleneck))?;
    }
    times(&mut page, report)?;
    for (kind, count) in &report.failures {
        write!(page, "<p class=warning>{count} × {}</p>", escape(kind))?;
    }
    page.push_str("<section>");
    let mut figure = |title: &str, x: &str, y: &str, lines: Vec<Line>| {
        if lines.iter().any(|line| !line.points.is_empty()) {
            let lines: Vec<Line> = lines.into_iter().filter(|line| !line.points.is_empty()).collect();
            let (legend, plot) = (legend(&lines), plot(x, y, &lines)?);
            write!(page, "<figure><h2>{title}{legend}</h2>{plot}</figure>")?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let latency = vec![Line { name: "latency".to_owned(), points: report.latency_curve.clone() }];
    figure("Latency, publisher to player", "percentile", "ms", latency)?;
    let joins = report.groups.iter().map(|group| Line { name: group.name.clone(), points: group.join_curve.clone() });
    figure("Connect to first keyframe", "percentile of joins", "ms", joins.collect())?;
    let over_time = |name: &str, value: fn(&Sample) -> Option<f64>| Line {
        name: name.to_owned(),
        points: report.timeline.iter().filter_map(|sample| Some((sample.at_s, value(sample)?))).collect(),
    };
    figure("Received by players", "s", "Gbit/s", vec![over_time("players", |sample| Some(sample.gbit_s))])?;
    let cores = vec![
        over_time("server", |sample| sample.server_cores),
        over_time("generator", |sample| Some(sample.generator_cores)),
    ];
    figure("CPU", "s", "cores", cores)?;
    figure("Memory of the server", "s", "MiB", vec![over_time("RSS", |sample| sample.server_rss_mib)])?;
    let players = vec![
        over_time("with picture", |sample| Some(sample.players as f64)),
        over_time("slow", |sample| Some(sample.slow as f64)),
    ];
    figure("Players", "s", "players", players)?;
    let expected = report.groups.iter().filter(|group| group.wants_full_rate);
    let shares = expected.map(|group| Line { name: group.name.clone(), points: cumulate(&group.shares) });
    figure("Players by their rate", "% of full rate", "players up to it", shares.collect())?;
    page.push_str("</section></html>\n");
    Ok(page)
}

/// From counts to "so many up to here".
fn cumulate(shares: &[(f64, u64)]) -> Vec<(f64, f64)> {
    let mut sum = 0;
    let mut points = vec![(0.0, 0.0)];
    for (share, count) in shares {
        points.push((*share, sum as f64));
        sum += count;
        points.push((*share, sum as f64));
    }
    if shares.is_empty() { Vec::new() } else { points }
}

fn times(page: &mut String, report: &Report) -> anyhow::Result<()> {
    page.push_str("<table><tr><th>ms<th>count<th>min<th>p50<th>p90<th>p95<th>p99<th>max");
    let mut row = |name: String, summary: Option<Summary>| {
        if let Some(Summary { count, min, p50, p90, p95, p99, max }) = summary {
            write!(page, "<tr><td>{}<td>{count}", escape(&name))?;
            [min, p50, p90, p95, p99, max].iter().try_for_each(|ms| write!(page, "<td>{ms:.1}"))?;
        }
        Ok::<_, anyhow::Error>(())
    };
    for group in &report.groups {
        row(format!("{}: join", group.name), group.join)?;
        row(format!("{}: latency", group.name), group.latency)?;
        row(format!("{}: longest stall", group.name), group.stall.filter(|_| group.wants_full_rate))?;
    }
    page.push_str("</table>");
    Ok(())
}

/// The lines' names in their colours, beside the title, where they cover nothing.
fn legend(lines: &[Line]) -> String {
    let mut legend = String::new();
    for (line, RGBColor(r, g, b)) in lines.iter().zip(COLOURS.iter().cycle()).filter(|_| lines.len() > 1) {
        legend.push_str(&format!("<span style='color:rgb({r},{g},{b})'>&#9644; {}</span>", escape(&line.name)));
    }
    legend
}

fn plot(x: &str, y: &str, lines: &[Line]) -> anyhow::Result<String> {
    let mut svg = String::new();
    let failed = |error: String| anyhow!("plot: {error}");
    {
        let points = || lines.iter().flat_map(|line| &line.points);
        let x_min = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
        let x_max = points().map(|point| point.0).fold(x_min + 1.0, f64::max);
        let y_max = points().map(|point| point.1).fold(0.0, f64::max).max(0.001) * 1.08;
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(|error| failed(error.to_string()))?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(68)
            .build_cartesian_2d(x_min..x_max, 0.0..y_max)
            .map_err(|error| failed(error.to_string()))?;
        chart
            .configure_mesh()
            .x_desc(x)
            .y_desc(y)
            .x_labels(9)
            .y_labels(7)
            .x_label_formatter(&|value| round(*value, x_max - x_min))
            .y_label_formatter(&|value| round(*value, y_max))
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(0xDD, 0xDD, 0xDD))
            .axis_desc_style(("sans-serif", 15))
            .label_style(("sans-serif", 13))
            .draw()
            .map_err(|error| failed(error.to_string()))?;
        for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            let series = LineSeries::new(line.points.iter().copied(), colour.stroke_width(2));
            chart.draw_series(series).map_err(|error| failed(error.to_string()))?;
        }
        area.present().map_err(|error| failed(error.to_string()))?;
    }
    Ok(svg)
}

/// A label with as many digits as its axis needs.
fn round(value: f64, span: f64) -> String {
    match span {
        span if span >= 20.0 => format!("{value:.0}"),
        span if span >= 2.0 => format!("{value:.1}"),
        span if span >= 0.2 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
