//! Prometheus's text format 0.0.4: SRS's names, and ours.

use super::{
    ForwardReport, ForwardState, ShardReport, StreamReport,
    hooks::{Count, Hooks},
    merge, system,
};
use crate::{
    cluster::RegistryState,
    config::Exporter,
    programs,
    stats::{Histogram, ShardStats},
    sys,
};
use std::{
    fmt::{Display, Write},
    sync::Arc,
};

/// Destinations of forward that have figures of their own.
const FORWARDS_MAX: usize = 1000;

/// What is measured.
pub(super) struct Seen<'a> {
    pub(super) exporter: &'a Exporter,
    pub(super) stats: &'a [Arc<ShardStats>],
    pub(super) reports: &'a [ShardReport],
    pub(super) cpu_load: f64,
    pub(super) ids: (&'a str, &'a str),
    pub(super) programs: &'a [programs::Report],
    pub(super) hooks: &'a Hooks,
    /// Bytes of segments that are served, and files that could not be written.
    pub(super) stored: (u64, u64),
    pub(super) registry: Option<RegistryState>,
}

/// The text so far.
struct Text(String);

impl Text {
    /// Begins a metric.
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: impl Display) {
        // A string takes whatever is written.
        _ = writeln!(self.0, "{line}");
    }

    /// A metric with one value.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(format_args!("{name} {value}"));
    }

    /// A metric whose labels say something, and whose value does not.
    fn info(&mut self, name: &str, help: &str, labels: &[(&str, String)]) {
        self.head(name, "gauge", help);
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        self.line(format_args!("{name}{{{}}} 1", labels.join(",")));
    }

    /// A metric with a value per shard.
    fn per_shard<V: Display>(&mut self, name: &str, kind: &str, help: &str, values: impl Iterator<Item = V>) {
        self.head(name, kind, help);
        for (shard, value) in values.enumerate() {
            self.line(format_args!("{name}{{shard=\"{shard}\"}} {value}"));
        }
    }

    fn histogram(&mut self, name: &str, label: &str, seen: &Histogram) {
        for (bound_ms, below) in seen.cumulative() {
            let bound_s = seconds(bound_ms);
            self.line(format_args!("{name}_bucket{{{label},le=\"{bound_s}\"}} {below}"));
        }
        self.line(format_args!("{name}_bucket{{{label},le=\"+Inf\"}} {}", seen.count()));
        self.line(format_args!("{name}_sum{{{label}}} {}", seconds(seen.sum_ms())));
        self.line(format_args!("{name}_count{{{label}}} {}", seen.count()));
    }
}

fn seconds(ms: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years")]
    let seconds = ms as f64 / 1000.0;
    seconds
}

/// A label's value (text format 0.0.4, "Comments, help text, and type information").
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Writes everything.
pub(super) fn write(seen: &Seen<'_>) -> String {
    let mut text = Text(String::with_capacity(16 << 10));
    let streams = merge(seen.reports);
    write_srs(&mut text, seen, streams.len());
    write_shards(&mut text, seen);
    write_refusals(&mut text, seen.stats);
    write_hooks(&mut text, seen.hooks);
    text.head(
        "corecast_memory_bytes",
        "gauge",
        "Memory by kind: media of the streams, segments, the process as a whole.",
    );
    let media: u64 = seen.reports.iter().map(|report| report.media_bytes).sum();
    text.line(format_args!("corecast_memory_bytes{{kind=\"media\"}} {media}"));
    text.line(format_args!("corecast_memory_bytes{{kind=\"process\"}} {}", sys::resident_bytes()));
    let (segments, faults) = seen.stored;
    text.line(format_args!("corecast_memory_bytes{{kind=\"segments\"}} {segments}"));
    let connections: u64 = seen.reports.iter().map(|report| report.connections).sum();
    let help = "What the process takes for each connection, beyond its start and the streams' media.";
    text.one(
        "corecast_connection_memory_bytes",
        "gauge",
        help,
        system::connection_bytes(media + segments, connections),
    );
    let help = "Files of segments and recordings that could not be written, or were left out since the disk is slow.";
    text.one("corecast_file_faults_total", "counter", help, faults);
    let mut streams: Vec<&StreamReport> = streams.values().map(|(report, _)| report).collect();
    streams.sort_by(|a, b| b.players.cmp(&a.players).then_with(|| a.key.cmp(&b.key)));
    write_streams(&mut text, &streams, seen.exporter.top_streams);
    write_forwards(&mut text, &streams);
    if let Some(RegistryState { up, own, known }) = seen.registry {
        text.one("corecast_registry_up", "gauge", "Whether the registry answers.", u8::from(up));
        text.head("corecast_registry_streams", "gauge", "Streams in the registry: of this server, and of others.");
        text.line(format_args!("corecast_registry_streams{{of=\"own\"}} {own}"));
        text.line(format_args!("corecast_registry_streams{{of=\"others\"}} {known}"));
    }
    write_programs(&mut text, seen.programs);
    text.0
}

fn write_srs(text: &mut Text, seen: &Seen<'_>, streams: usize) {
    let sum = |counter: fn(&ShardStats) -> u64| -> u64 { seen.stats.iter().map(|stats| counter(stats)).sum() };
    let ((server, service), Exporter { label, tag, .. }) = (seen.ids, seen.exporter);
    text.info("srs_node_uname_info", "What uname says of this machine.", &system::uname());
    let mut build = vec![
        ("server", server.to_owned()),
        ("service", service.to_owned()),
        ("pid", std::process::id().to_string()),
        ("build_date", system::date(system::built_s())),
        ("major", env!("CARGO_PKG_VERSION_MAJOR").to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("code", "corecast".to_owned()),
        ("product", "corecast".to_owned()),
    ];
    let own = [("label", label), ("tag", tag)];
    build.extend(own.into_iter().filter(|(_, set)| !set.is_empty()).map(|(name, set)| (name, set.clone())));
    text.info("srs_build_info", "Which server this is.", &build);
    text.one("srs_cpu_percent", "gauge", "Load of this process, 100 is one core.", seen.cpu_load * 100.0);
    text.one("srs_memory", "gauge", "Resident memory of this process in KiB.", sys::resident_bytes() / 1024);
    text.one("srs_send_bytes_total", "counter", "Bytes sent.", sum(|stats| stats.bytes_sent.value()));
    text.one("srs_receive_bytes_total", "counter", "Bytes received.", sum(|stats| stats.bytes_received.value()));
    text.one("srs_streams", "gauge", "Streams that are published, or waited for.", streams);
    let clients = sum(|stats| stats.players.value() + stats.publishers.value());
    text.one("srs_clients", "gauge", "Publishers and players.", clients);
    text.one("srs_clients_total", "counter", "Publishes and plays so far.", sum(|stats| stats.clients.value()));
    let faults = sum(|stats| stats.closed_by_fault.value());
    text.one("srs_clients_errs_total", "counter", "Connections that ended by a fault.", faults);
}

fn write_shards(text: &mut Text, seen: &Seen<'_>) {
    type Row = (&'static str, &'static str, fn(&ShardStats) -> u64);
    let counters: [Row; 9] = [
        ("corecast_send_bytes_total", "Bytes sent.", |stats| stats.bytes_sent.value()),
        ("corecast_receive_bytes_total", "Bytes received.", |stats| stats.bytes_received.value()),
        ("corecast_sends_total", "Sends handed to the send ring.", |stats| stats.sends.value()),
        ("corecast_send_syscalls_total", "System calls that send.", |stats| stats.send_syscalls.value()),
        ("corecast_tags_sent_total", "Tags handed to the kernel for players.", |stats| stats.tags_sent.value()),
        ("corecast_tags_received_total", "Tags received from publishers.", |stats| stats.tags_received.value()),
        ("corecast_tags_relayed_total", "Tags sent to other shards.", |stats| stats.tags_relayed.value()),
        ("corecast_gaps_total", "Tags left out between shards, a ring being full.", |stats| stats.gaps.value()),
        ("corecast_skips_total", "Times that a player was moved to a newer keyframe.", |stats| stats.skips.value()),
    ];
    for (name, help, value) in counters {
        text.per_shard(name, "counter", help, seen.stats.iter().map(|stats| value(stats)));
    }
    let accepted = seen.stats.iter().map(|stats| stats.accepted.value());
    text.per_shard("corecast_accepts_total", "counter", "Connections accepted.", accepted);
    let gauges: [Row; 2] = [
        ("corecast_players", "Players.", |stats| stats.players.value()),
        ("corecast_publishers", "Publishers.", |stats| stats.publishers.value()),
    ];
    for (name, help, value) in gauges {
        text.per_shard(name, "gauge", help, seen.stats.iter().map(|stats| value(stats)));
    }
    let loads = seen.stats.iter().map(|stats| seconds(stats.busy_permille.value()));
    text.per_shard("corecast_shard_load", "gauge", "Load of the shard's core, 0 to 1.", loads);
    let reports = || seen.reports.iter();
    let intervals = reports().map(|report| seconds(report.flush_ms));
    text.per_shard("corecast_flush_interval_seconds", "gauge", "Flush interval of the mean player.", intervals);
    text.per_shard("corecast_connections", "gauge", "Connections.", reports().map(|report| report.connections));
    let in_flight = reports().map(|report| report.sends_in_flight);
    text.per_shard("corecast_sends_in_flight", "gauge", "Sends in the kernel.", in_flight);
    let entries = reports().map(|report| report.ring_entries);
    text.per_shard("corecast_ring_entries", "gauge", "Entries in the fullest ring to another shard.", entries);
    let name = "corecast_frame_age_seconds";
    text.head(name, "histogram", "Age of the oldest tag of each flush of a player.");
    for (shard, stats) in seen.stats.iter().enumerate() {
        text.histogram(name, &format!("shard=\"{shard}\""), &stats.age.read());
    }
    let name = "corecast_flush_late_seconds";
    text.head(name, "histogram", "How late a stream's flush begins: the shard's ticks under load.");
    for (shard, stats) in seen.stats.iter().enumerate() {
        text.histogram(name, &format!("shard=\"{shard}\""), &stats.late.read());
    }
}

fn write_refusals(text: &mut Text, stats: &[Arc<ShardStats>]) {
    type Row = (&'static str, fn(&ShardStats) -> u64);
    let reasons: [Row; 6] = [
        ("max_connections", |stats| stats.refused.value()),
        ("rule", |stats| stats.refused_by_rule.value()),
        ("hook", |stats| stats.refused_by_hook.value()),
        ("memory", |stats| stats.refused_for_memory.value()),
        ("busy", |stats| stats.refused_busy.value()),
        ("descriptors", |stats| stats.accept_pauses.value()),
    ];
    let name = "corecast_refusals_total";
    text.head(name, "counter", "Connections, publishes and plays that were refused, by reason.");
    for (reason, value) in reasons {
        let sum: u64 = stats.iter().map(|stats| value(stats)).sum();
        text.line(format_args!("{name}{{reason=\"{reason}\"}} {sum}"));
    }
}

fn write_hooks(text: &mut Text, hooks: &Hooks) {
    type Row = (&'static str, &'static str, fn(&Count) -> u64);
    let rows: [Row; 2] = [
        ("corecast_hook_events_dropped_total", "Events that hooks were never told of, or asked.", |count| {
            count.dropped
        }),
        ("corecast_hook_calls_failed_total", "Calls of hooks without a good answer.", |count| count.failed),
    ];
    for (name, help, value) in rows {
        text.head(name, "counter", help);
        for count in hooks.counts() {
            text.line(format_args!("{name}{{action=\"{}\"}} {}", count.action, value(&count)));
        }
    }
    let (questions, notifications) = hooks.waiting_bytes();
    let name = "corecast_hook_waiting_bytes";
    text.head(name, "gauge", "Memory of events that wait for hooks.");
    text.line(format_args!("{name}{{kind=\"question\"}} {questions}"));
    text.line(format_args!("{name}{{kind=\"notification\"}} {notifications}"));
}

/// Figures of those streams that have the most players, and of the rest in one.
fn write_streams(text: &mut Text, streams: &[&StreamReport], top: usize) {
    let (named, rest) = streams.split_at(top.min(streams.len()));
    let mut all: Vec<(String, StreamReport)> =
        named.iter().map(|report| (format!("stream=\"{}\"", escaped(&report.key)), (*report).clone())).collect();
    let mut others = StreamReport::default();
    for report in rest {
        others.players += report.players;
        others.sent_bytes += report.sent_bytes;
        others.skips += report.skips;
        others.memory_bytes += report.memory_bytes;
        others.age.add(&report.age);
        let received = report.publish.as_ref().map_or(0, |publish| publish.received_bytes);
        others.publish.get_or_insert_default().received_bytes += received;
    }
    if !rest.is_empty() {
        all.push(("stream=\"\"".to_owned(), others));
    }
    type Row = (&'static str, &'static str, &'static str, fn(&StreamReport) -> u64);
    let rows: [Row; 5] = [
        ("corecast_stream_players", "gauge", "Players; the stream without a name is all others.", |report| {
            report.players
        }),
        // Streams change places, so that what the others have sent in all may fall.
        ("corecast_stream_sent_bytes", "gauge", "Bytes sent of a stream.", |report| report.sent_bytes),
        ("corecast_stream_received_bytes", "gauge", "Bytes received of a stream.", |report| {
            report.publish.as_ref().map_or(0, |publish| publish.received_bytes)
        }),
        ("corecast_stream_skips", "gauge", "Times that a player was moved to a newer keyframe.", |report| report.skips),
        ("corecast_stream_memory_bytes", "gauge", "Memory of a stream, on all shards.", |report| report.memory_bytes),
    ];
    for (name, kind, help, value) in rows {
        text.head(name, kind, help);
        for (label, report) in &all {
            text.line(format_args!("{name}{{{label}}} {}", value(report)));
        }
    }
    let name = "corecast_stream_frame_age_seconds";
    text.head(name, "histogram", "Age of the oldest tag of each flush of a player of a stream.");
    for (label, report) in &all {
        text.histogram(name, label, &report.age);
    }
}

/// Processes of exec, transcode and ingest, by their state.
fn write_programs(text: &mut Text, programs: &[programs::Report]) {
    let name = "corecast_programs";
    text.head(name, "gauge", "Processes of exec, transcode and ingest, by state.");
    for kind in ["exec", "transcode", "ingest"] {
        for state in [programs::State::Running, programs::State::Waiting, programs::State::TooMany] {
            let count = programs.iter().filter(|program| (program.kind, program.state) == (kind, state)).count();
            text.line(format_args!("{name}{{kind=\"{kind}\",state=\"{}\"}} {count}", state.name()));
        }
    }
}

type ForwardRow = (&'static str, &'static str, fn(&ForwardReport) -> u64);

/// Destinations, and where streams are fetched from: how many by their state, and each of the first ones by its name.
fn write_forwards(text: &mut Text, streams: &[&StreamReport]) {
    let rows: [ForwardRow; 3] = [
        ("corecast_forward_up", "Whether a stream is published at a destination.", |forward| {
            u64::from(forward.state == ForwardState::Publishing)
        }),
        ("corecast_forward_sent_bytes", "Bytes sent to a destination.", |forward| forward.bytes),
        ("corecast_forward_retries", "Tries to publish at a destination after the first.", |forward| forward.retries),
    ];
    let all: Vec<&ForwardReport> = streams.iter().flat_map(|report| &report.forwards).collect();
    let states = [ForwardState::Connecting, ForwardState::Publishing, ForwardState::Waiting];
    write_servers(text, ("corecast_forwards", "Destinations of forward, by state.", "to"), &all, states, rows);
    let rows: [ForwardRow; 3] = [
        ("corecast_fetch_up", "Whether a stream comes from its origin.", |fetch| {
            u64::from(fetch.state == ForwardState::Playing)
        }),
        ("corecast_fetch_received_bytes", "Bytes that have come for a stream from its origins.", |fetch| fetch.bytes),
        ("corecast_fetch_retries", "Tries to fetch a stream after the first.", |fetch| fetch.retries),
    ];
    let all: Vec<&ForwardReport> = streams.iter().filter_map(|report| report.fetch.as_ref()).collect();
    let states = [ForwardState::Connecting, ForwardState::Playing, ForwardState::Waiting];
    write_servers(
        text,
        ("corecast_fetches", "Streams that are fetched from origins, by state.", "from"),
        &all,
        states,
        rows,
    );
}

fn write_servers(
    text: &mut Text,
    (name, help, side): (&str, &str, &str),
    all: &[&ForwardReport],
    states: [ForwardState; 3],
    rows: [ForwardRow; 3],
) {
    text.head(name, "gauge", help);
    for state in states {
        let count = all.iter().filter(|forward| forward.state == state).count();
        text.line(format_args!("{name}{{state=\"{}\"}} {count}", state.name()));
    }
    for (name, help, value) in rows {
        text.head(name, "gauge", help);
        for forward in all.iter().take(FORWARDS_MAX) {
            let (stream, server) = (escaped(&forward.key), escaped(&forward.to));
            text.line(format_args!("{name}{{stream=\"{stream}\",{side}=\"{server}\"}} {}", value(forward)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of more streams than have figures of their own, the rest is one; names cannot break a line.
    #[test]
    fn streams_are_bounded() {
        let stream = |key: &str, players| StreamReport { key: key.to_owned(), players, ..StreamReport::default() };
        let streams =
            vec![stream("v/live/a\"\n", 3), stream("v/live/b", 7), stream("v/live/c", 1), stream("v/live/d", 2)];
        let reports = [ShardReport { streams, ..ShardReport::default() }];
        let exporter = Exporter { top_streams: 2, ..Exporter::default() };
        let stats = [Arc::new(ShardStats::default())];
        stats[0].age.note(4);
        let seen = Seen {
            exporter: &exporter,
            stats: &stats,
            reports: &reports,
            cpu_load: 0.5,
            ids: ("a", "b"),
            programs: &[],
            hooks: &Hooks::default(),
            stored: (0, 0),
            registry: None,
        };
        let text = write(&seen);
        let players: Vec<&str> = text.lines().filter(|line| line.starts_with("corecast_stream_players{")).collect();
        assert_eq!(
            players,
            [
                "corecast_stream_players{stream=\"v/live/b\"} 7",
                "corecast_stream_players{stream=\"v/live/a\\\"\\n\"} 3",
                "corecast_stream_players{stream=\"\"} 3"
            ]
        );
        for line in [
            "corecast_frame_age_seconds_bucket{shard=\"0\",le=\"0.005\"} 1",
            "corecast_frame_age_seconds_sum{shard=\"0\"} 0.004",
            "corecast_refusals_total{reason=\"hook\"} 0",
            "corecast_hook_events_dropped_total{action=\"on_stop\"} 0",
            "srs_streams 4",
            "srs_cpu_percent 50",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
