//! The machine and this process, as /proc has them. What cannot be read is 0.

use serde_json::{Map, Value, json};
use std::{
    cell::RefCell,
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long a load is measured at least.
const SAMPLE_TIME: Duration = Duration::from_secs(3);
/// Clock ticks of /proc per second: USER_HZ, 100 on every Linux that we run on.
const TICKS_PER_S: f64 = 100.0;

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The number behind `name` in lines such as `name: 1 kB`.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Wall time, in ms since 1970.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Resident memory of this process, in KiB.
pub(super) fn rss_kib() -> u64 {
    field(&read("/proc/self/status"), "VmRSS")
}

/// Loads of process and machine, measured over a few seconds between two questions.
#[derive(Debug)]
pub(super) struct Sampler(RefCell<Sample>);

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    process_ticks: f64,
    system: [f64; 10],
    /// Of one core.
    process_load: f64,
    /// Shares of the last time, as /proc/stat orders them.
    shares: [f64; 10],
}

impl Default for Sampler {
    fn default() -> Self {
        let system = system_ticks();
        let sample = Sample { at: Instant::now(), process_ticks: 0.0, system, process_load: 0.0, shares: [0.0; 10] };
        Self(RefCell::new(Sample { process_ticks: process_ticks(), ..sample }))
    }
}

impl Sampler {
    fn sample(&self) -> Sample {
        let mut last = self.0.borrow_mut();
        let elapsed = last.at.elapsed();
        if elapsed >= SAMPLE_TIME {
            let (process_ticks, system) = (process_ticks(), system_ticks());
            let mut shares = [0.0; 10];
            let all: f64 = system.iter().zip(last.system).map(|(now, then)| now - then).sum();
            for (share, (now, then)) in shares.iter_mut().zip(system.iter().zip(last.system)) {
                *share = if all > 0.0 { (now - then) / all } else { 0.0 };
            }
            let process_load = (process_ticks - last.process_ticks) / TICKS_PER_S / elapsed.as_secs_f64();
            *last = Sample { at: Instant::now(), process_ticks, system, process_load, shares };
        }
        *last
    }

    /// Load of this process, of one core.
    pub(super) fn process_load(&self) -> f64 {
        self.sample().process_load
    }

    /// SRS's `self` of a summary.
    pub(super) fn summary_of_self(&self, uptime_s: u64) -> Value {
        let status = read("/proc/self/status");
        let rss_kib = field(&status, "VmRSS");
        let total = field(&read("/proc/meminfo"), "MemTotal").max(1);
        let arguments: Vec<String> = std::env::args().collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "ppid": field(&status, "PPid"),
            "argv": arguments.join(" "),
            "cwd": std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default(),
            "mem_kbyte": rss_kib,
            "mem_percent": ratio(rss_kib, total),
            "cpu_percent": self.process_load(),
            "srs_uptime": uptime_s,
        })
    }

    /// SRS's `system` of a summary.
    pub(super) fn summary_of_system(&self, sent_bytes: u64, received_bytes: u64, connections: usize) -> Value {
        let memory = read("/proc/meminfo");
        let (total, available) = (field(&memory, "MemTotal"), field(&memory, "MemAvailable"));
        let (swap, swap_free) = (field(&memory, "SwapTotal"), field(&memory, "SwapFree"));
        let numbers =
            |path: &str| -> Vec<f64> { read(path).split_whitespace().map_while(|word| word.parse().ok()).collect() };
        let (load, uptime) = (numbers("/proc/loadavg"), numbers("/proc/uptime"));
        let (all, inner) = (network(|name| name != "lo"), network(|name| name == "lo"));
        let sockets = read("/proc/net/sockstat");
        let socket = |family: &str, name: &str| {
            let line = sockets.lines().find_map(|line| line.strip_prefix(family)).unwrap_or_default();
            let mut words = line.split_whitespace().skip_while(|word| *word != name);
            words.nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
        };
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
        let at = |list: &[f64], at: usize| list.get(at).copied().unwrap_or(0.0);
        json!({
            "cpu_percent": 1.0 - self.sample().shares[3] - self.sample().shares[4],
            "disk_read_KBps": 0,
            "disk_write_KBps": 0,
            "disk_busy_percent": 0,
            "mem_ram_kbyte": total,
            "mem_ram_percent": ratio(total.saturating_sub(available), total),
            "mem_swap_kbyte": swap,
            "mem_swap_percent": ratio(swap.saturating_sub(swap_free), swap),
            "cpus": cpus,
            "cpus_online": cpus,
            "uptime": at(&uptime, 0),
            "ilde_time": at(&uptime, 1),
            "load_1m": at(&load, 0),
            "load_5m": at(&load, 1),
            "load_15m": at(&load, 2),
            "net_sample_time": unix_ms(),
            "net_recv_bytes": all.0,
            "net_send_bytes": all.1,
            "net_recvi_bytes": inner.0,
            "net_sendi_bytes": inner.1,
            "srs_sample_time": unix_ms(),
            "srs_recv_bytes": received_bytes,
            "srs_send_bytes": sent_bytes,
            "conn_sys": socket("TCP:", "alloc"),
            "conn_sys_et": socket("TCP:", "inuse"),
            "conn_sys_tw": socket("TCP:", "tw"),
            "conn_sys_udp": socket("UDP:", "inuse"),
            "conn_srs": connections,
        })
    }

    /// SRS's `system_proc_stats`.
    pub(super) fn system_stats(&self) -> Map<String, Value> {
        let Sample { shares, system, .. } = self.sample();
        let names = ["user", "nice", "sys", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];
        let mut stats: Map<String, Value> =
            names.iter().zip(system).map(|(name, ticks)| ((*name).to_owned(), json!(ticks))).collect();
        stats.insert("percent".to_owned(), json!(1.0 - shares[3] - shares[4]));
        stats
    }

    /// SRS's `self_proc_stats`: /proc/self/stat by name.
    pub(super) fn self_stats(&self) -> Map<String, Value> {
        const NAMES: [&str; 24] = [
            "state",
            "ppid",
            "pgrp",
            "session",
            "tty_nr",
            "tpgid",
            "flags",
            "minflt",
            "cminflt",
            "majflt",
            "cmajflt",
            "utime",
            "stime",
            "cutime",
            "cstime",
            "priority",
            "nice",
            "num_threads",
            "itrealvalue",
            "starttime",
            "vsize",
            "rss",
            "rsslim",
            "startcode",
        ];
        let stat = read("/proc/self/stat");
        let (front, rest) = stat.rsplit_once(')').unwrap_or_default();
        let value = |word: &str| word.parse::<i64>().map_or_else(|_| json!(word), |number| json!(number));
        let mut stats: Map<String, Value> =
            NAMES.iter().zip(rest.split_whitespace()).map(|(name, word)| ((*name).to_owned(), value(word))).collect();
        stats.insert("pid".to_owned(), json!(std::process::id()));
        stats.insert("comm".to_owned(), json!(front.split_once('(').unwrap_or_default().1));
        stats.insert("percent".to_owned(), json!(self.process_load()));
        stats
    }
}

/// SRS's `rusages`, as far as Linux fills them in.
pub(super) fn rusages() -> Map<String, Value> {
    let stat = read("/proc/self/stat");
    let words: Vec<&str> = stat.rsplit_once(')').unwrap_or_default().1.split_whitespace().collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let status = read("/proc/self/status");
    let entries = [
        ("ru_utime", number(11) * 10),
        ("ru_stime", number(12) * 10),
        ("ru_maxrss", field(&status, "VmHWM")),
        ("ru_minflt", number(7)),
        ("ru_majflt", number(9)),
        ("ru_nvcsw", field(&status, "voluntary_ctxt_switches")),
        ("ru_nivcsw", field(&status, "nonvoluntary_ctxt_switches")),
    ];
    entries.map(|(name, value)| (name.to_owned(), json!(value))).into_iter().collect()
}

/// SRS's `meminfos`, in KiB.
pub(super) fn meminfos() -> Map<String, Value> {
    let memory = read("/proc/meminfo");
    let names = [
        ("MemActive", "Active"),
        ("MemTotal", "MemTotal"),
        ("MemFree", "MemFree"),
        ("Buffers", "Buffers"),
        ("Cached", "Cached"),
        ("SwapTotal", "SwapTotal"),
        ("SwapFree", "SwapFree"),
    ];
    let mut infos: Map<String, Value> =
        names.iter().map(|(name, source)| ((*name).to_owned(), json!(field(&memory, source)))).collect();
    let (total, available) = (field(&memory, "MemTotal"), field(&memory, "MemAvailable"));
    let (swap, free) = (field(&memory, "SwapTotal"), field(&memory, "SwapFree"));
    infos.insert("RealInUse".to_owned(), json!(total.saturating_sub(available)));
    infos.insert("NotInUse".to_owned(), json!(available));
    infos.insert("percent_ram".to_owned(), json!(ratio(total.saturating_sub(available), total)));
    infos.insert("percent_swap".to_owned(), json!(ratio(swap.saturating_sub(free), swap)));
    infos
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn process_ticks() -> f64 {
    let stat = read("/proc/self/stat");
    let words = stat.rsplit_once(')').unwrap_or_default().1.split_whitespace();
    words.skip(11).take(2).filter_map(|word| word.parse::<f64>().ok()).sum()
}

fn system_ticks() -> [f64; 10] {
    let stat = read("/proc/stat");
    let mut ticks = [0.0; 10];
    let words = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    for (tick, word) in ticks.iter_mut().zip(words) {
        *tick = word.parse().unwrap_or(0.0);
    }
    ticks
}

/// Bytes received and sent by interfaces.
fn network(which: impl Fn(&str) -> bool) -> (u64, u64) {
    let (mut received, mut sent) = (0, 0);
    for line in read("/proc/net/dev").lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let words: Vec<u64> = rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        if which(name.trim()) {
            received += words.first().copied().unwrap_or(0);
            sent += words.get(8).copied().unwrap_or(0);
        }
    }
    (received, sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_read() {
        let sampler = Sampler::default();
        assert!(rss_kib() > 100 && meminfos()["MemTotal"].as_u64() > Some(1000));
        assert_eq!(sampler.self_stats()["pid"], json!(std::process::id()));
        assert!(sampler.system_stats()["idle"].as_f64() > Some(0.0));
        assert!(rusages()["ru_maxrss"].as_u64() > Some(100));
        let summary = sampler.summary_of_system(1, 2, 3);
        assert!(summary["mem_ram_kbyte"].as_u64() > Some(1000) && summary["conn_srs"] == json!(3));
    }
}
