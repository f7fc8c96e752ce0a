//! The machine and this process, as /proc has them. What cannot be read is 0.

use crate::sys;
use serde_json::{Map, Value, json};
use std::{
    cell::RefCell,
    fs,
    net::IpAddr,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How long a load is measured at least.
const SAMPLE_TIME: Duration = Duration::from_secs(3);
/// Clock ticks of /proc per second: USER_HZ, 100 on every Linux that we run on.
const TICKS_PER_S: f64 = 100.0;
/// Where /proc/stat has the ticks of a CPU that does nothing.
const IDLE: usize = 3;

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

/// What the process took before anybody came.
static START_BYTES: OnceLock<u64> = OnceLock::new();

/// Takes note of what the process takes before anybody has come.
pub(super) fn note_start() {
    START_BYTES.get_or_init(sys::resident_bytes);
}

/// What the process takes for each connection, beyond its start and the streams' media.
pub(super) fn connection_bytes(media_bytes: u64, connections: u64) -> u64 {
    let start_bytes = START_BYTES.get().copied().unwrap_or(0);
    sys::resident_bytes().saturating_sub(start_bytes + media_bytes).checked_div(connections).unwrap_or(0)
}

/// Loads of process and machine, measured over a few seconds between two questions.
#[derive(Debug)]
pub(super) struct Sampler(RefCell<Sample>);

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    process_ticks: u64,
    system: [u64; 10],
    /// KiB read from disks and written to them.
    paged: [u64; 2],
    /// Of one core.
    process_load: f64,
    /// Share of all cores that was not idle, 0 to 1.
    busy: f64,
    /// KiB/s read and written.
    disk: [u64; 2],
}

impl Default for Sampler {
    fn default() -> Self {
        Self(RefCell::new(Sample {
            at: Instant::now(),
            process_ticks: process_ticks(),
            system: system_ticks(),
            paged: paged_kib(),
            process_load: 0.0,
            busy: 0.0,
            disk: [0; 2],
        }))
    }
}

impl Sampler {
    fn sample(&self) -> Sample {
        let mut last = self.0.borrow_mut();
        let elapsed = last.at.elapsed();
        if elapsed >= SAMPLE_TIME {
            let (process_ticks, system, paged) = (process_ticks(), system_ticks(), paged_kib());
            // Without guest_nice, as SRS counts.
            let all: u64 = system.iter().zip(last.system).take(9).map(|(now, then)| now.saturating_sub(then)).sum();
            let idle = system[IDLE].saturating_sub(last.system[IDLE]);
            let ticks = process_ticks.saturating_sub(last.process_ticks);
            let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            let rate = |at: usize| paged[at].saturating_sub(last.paged[at]) * 1000 / elapsed_ms;
            *last = Sample {
                at: Instant::now(),
                process_ticks,
                system,
                paged,
                process_load: ticks as f64 / TICKS_PER_S / elapsed.as_secs_f64(),
                busy: if all == 0 { 0.0 } else { 1.0 - ratio(idle, all) },
                disk: [rate(0), rate(1)],
            };
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
        let used = sys::resource_usage();
        let peak_kib = used.iter().find(|(name, _)| *name == "ru_maxrss").map_or(0, |(_, kib)| kib.unsigned_abs());
        let total = field(&read("/proc/meminfo"), "MemTotal");
        let arguments: Vec<String> = std::env::args().collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "ppid": field(&status, "PPid"),
            "argv": arguments.join(" "),
            "cwd": std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default(),
            "mem_kbyte": peak_kib,
            "mem_percent": ratio(peak_kib, total),
            "cpu_percent": self.process_load(),
            "srs_uptime": uptime_s,
        })
    }

    /// SRS's `system` of a summary.
    pub(super) fn summary_of_system(&self, sent_bytes: u64, received_bytes: u64, clients: u64) -> Value {
        let Sample { busy, disk, .. } = self.sample();
        let memory = Memory::read();
        let numbers =
            |path: &str| -> Vec<f64> { read(path).split_whitespace().map_while(|word| word.parse().ok()).collect() };
        let (load, uptime) = (numbers("/proc/loadavg"), numbers("/proc/uptime"));
        let public: Vec<String> =
            sys::interface_addresses().into_iter().filter(|(_, ip)| is_public(*ip)).map(|(name, _)| name).collect();
        let is_outer = |name: &str| public.iter().any(|found| found == name);
        let (outer, inner) = (network(is_outer), network(|name| !is_outer(name)));
        let sockets = read("/proc/net/sockstat");
        let socket = |family: &str, name: &str| {
            let line = sockets.lines().find_map(|line| line.strip_prefix(family)).unwrap_or_default();
            let mut words = line.split_whitespace().skip_while(|word| *word != name);
            words.nth(1).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
        };
        let at = |list: &[f64], at: usize| list.get(at).copied().unwrap_or(0.0);
        json!({
            "cpu_percent": busy,
            "disk_read_KBps": disk[0],
            "disk_write_KBps": disk[1],
            // SRS measures the disks that `stats` names, which by default are none.
            "disk_busy_percent": 0.0,
            "mem_ram_kbyte": memory.total,
            "mem_ram_percent": memory.ram_share(),
            "mem_swap_kbyte": memory.swap_total,
            "mem_swap_percent": memory.swap_share(),
            "cpus": cpus(),
            "cpus_online": cpus_in(&read("/sys/devices/system/cpu/online")),
            "uptime": at(&uptime, 0),
            "ilde_time": at(&uptime, 1),
            "load_1m": at(&load, 0),
            "load_5m": at(&load, 1),
            "load_15m": at(&load, 2),
            "net_sample_time": unix_ms(),
            "net_recv_bytes": outer.0,
            "net_send_bytes": outer.1,
            "net_recvi_bytes": inner.0,
            "net_sendi_bytes": inner.1,
            "srs_sample_time": unix_ms(),
            "srs_recv_bytes": received_bytes,
            "srs_send_bytes": sent_bytes,
            "conn_sys": socket("TCP:", "alloc") + socket("TCP:", "tw"),
            "conn_sys_et": established(&read("/proc/net/snmp")),
            "conn_sys_tw": socket("TCP:", "tw"),
            "conn_sys_udp": socket("UDP:", "inuse"),
            "conn_srs": clients,
        })
    }

    /// SRS's `system_proc_stats`, in clock ticks.
    pub(super) fn system_stats(&self) -> Map<String, Value> {
        let Sample { busy, system, .. } = self.sample();
        let names = ["user", "nice", "sys", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"];
        let mut stats: Map<String, Value> =
            names.iter().zip(system).map(|(name, ticks)| ((*name).to_owned(), json!(ticks))).collect();
        stats.insert("percent".to_owned(), json!(busy));
        stats
    }

    /// SRS's `self_proc_stats`: /proc/self/stat by name.
    pub(super) fn self_stats(&self) -> Map<String, Value> {
        const NAMES: &str = "state ppid pgrp session tty_nr tpgid flags minflt cminflt majflt cmajflt utime stime cutime \
                             cstime priority nice num_threads itrealvalue starttime vsize rss rsslim startcode endcode \
                             startstack kstkesp kstkeip signal blocked sigignore sigcatch wchan nswap cnswap exit_signal \
                             processor rt_priority policy delayacct_blkio_ticks guest_time cguest_time";
        let stat = read("/proc/self/stat");
        let (front, rest) = stat.rsplit_once(')').unwrap_or_default();
        // SRS's integers have a sign: no limit is -1.
        let number = |word: &str| word.parse().or_else(|_| word.parse::<u64>().map(u64::cast_signed));
        let value = |word: &str| number(word).map_or_else(|_| json!(word), |number| json!(number));
        let words = NAMES.split_whitespace().zip(rest.split_whitespace());
        let mut stats: Map<String, Value> = words.map(|(name, word)| (name.to_owned(), value(word))).collect();
        stats.insert("pid".to_owned(), json!(std::process::id()));
        stats.insert("comm".to_owned(), json!(format!("({})", front.split_once('(').unwrap_or_default().1)));
        stats.insert("percent".to_owned(), json!(self.process_load()));
        stats
    }
}

/// SRS's `rusages`.
pub(super) fn rusages() -> Map<String, Value> {
    sys::resource_usage().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

/// SRS's `meminfos`, in KiB.
pub(super) fn meminfos() -> Map<String, Value> {
    let memory = Memory::read();
    let entries = [
        ("percent_ram", json!(memory.ram_share())),
        ("percent_swap", json!(memory.swap_share())),
        ("MemActive", json!(memory.active())),
        ("RealInUse", json!(memory.in_use())),
        ("NotInUse", json!(memory.total - memory.in_use())),
        ("MemTotal", json!(memory.total)),
        ("MemFree", json!(memory.free)),
        ("Buffers", json!(memory.buffers)),
        ("Cached", json!(memory.cached)),
        ("SwapTotal", json!(memory.swap_total)),
        ("SwapFree", json!(memory.swap_free)),
    ];
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// /proc/meminfo, in KiB, as SRS reckons with it.
struct Memory {
    total: u64,
    free: u64,
    buffers: u64,
    cached: u64,
    swap_total: u64,
    swap_free: u64,
}

impl Memory {
    fn read() -> Self {
        let text = read("/proc/meminfo");
        Self {
            total: field(&text, "MemTotal"),
            free: field(&text, "MemFree"),
            buffers: field(&text, "Buffers"),
            cached: field(&text, "Cached"),
            swap_total: field(&text, "SwapTotal"),
            swap_free: field(&text, "SwapFree"),
        }
    }

    fn active(&self) -> u64 {
        self.total.saturating_sub(self.free)
    }

    fn in_use(&self) -> u64 {
        self.active().saturating_sub(self.buffers + self.cached)
    }

    fn ram_share(&self) -> f64 {
        ratio(self.in_use(), self.total)
    }

    fn swap_share(&self) -> f64 {
        ratio(self.swap_total.saturating_sub(self.swap_free), self.swap_total)
    }
}

/// What `uname` says: names and values.
pub(super) fn uname() -> [(&'static str, String); 5] {
    let kernel = |name: &str| read(&format!("/proc/sys/kernel/{name}")).trim().to_owned();
    [
        ("sysname", kernel("ostype")),
        ("nodename", kernel("hostname")),
        ("release", kernel("osrelease")),
        ("version", kernel("version")),
        ("machine", std::env::consts::ARCH.to_owned()),
    ]
}

/// When this program was built, in seconds since 1970: its file's time. 0 if that is not known.
pub(super) fn built_s() -> u64 {
    static BUILT_S: OnceLock<u64> = OnceLock::new();
    let modified = || std::env::current_exe().and_then(fs::metadata).and_then(|file| file.modified());
    let seconds = || modified().ok()?.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
    *BUILT_S.get_or_init(|| seconds().unwrap_or(0))
}

/// `2025-11-18 10:00:00` of seconds since 1970, in UTC.
pub(super) fn date(seconds: u64) -> String {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut days, rest, mut year, mut month) = (seconds / 86_400, seconds % 86_400, 1970, 1);
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    for length in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hours, minutes) = (rest / 3600, rest / 60 % 60);
    format!("{year}-{month:02}-{:02} {hours:02}:{minutes:02}:{:02}", days + 1, rest % 60)
}

/// Whether SRS takes an address for one of the internet.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !(ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified()),
        IpAddr::V6(ip) => {
            let local = ip.is_unicast_link_local() || ip.is_unique_local();
            !(ip.is_loopback() || local || ip.is_unspecified() || ip.is_multicast())
        }
    }
}

/// CPUs that there are, whoever may use them.
fn cpus() -> u64 {
    let names = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let is_cpu = |name: String| name.strip_prefix("cpu").is_some_and(|number| number.parse::<u32>().is_ok());
    names.filter(|entry| is_cpu(entry.file_name().to_string_lossy().into_owned())).count() as u64
}

/// How many CPUs a list such as `0-3,8` names.
fn cpus_in(list: &str) -> u64 {
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<u64>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    list.trim().split(',').filter_map(count).sum()
}

/// `CurrEstab` of /proc/net/snmp's two lines of TCP.
fn established(snmp: &str) -> u64 {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut both = names.split_whitespace().zip(values.split_whitespace());
    both.find(|(name, _)| *name == "CurrEstab").and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn process_ticks() -> u64 {
    let stat = read("/proc/self/stat");
    let words = stat.rsplit_once(')').unwrap_or_default().1.split_whitespace();
    words.skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum()
}

fn paged_kib() -> [u64; 2] {
    let text = read("/proc/vmstat");
    ["pgpgin ", "pgpgout "].map(|name| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    })
}

fn system_ticks() -> [u64; 10] {
    let stat = read("/proc/stat");
    let mut ticks = [0; 10];
    let words = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    for (tick, word) in ticks.iter_mut().zip(words) {
        *tick = word.parse().unwrap_or(0);
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
        assert!(meminfos()["MemTotal"].as_u64() > Some(1000));
        assert_eq!(sampler.self_stats()["pid"], json!(std::process::id()));
        assert_eq!(sampler.self_stats().len(), 45, "what SRS has of it, and the load");
        assert!(sampler.system_stats()["idle"].as_u64() > Some(0));
        assert!(rusages()["ru_maxrss"].as_u64() > Some(100) && rusages().len() == 16);
        let summary = sampler.summary_of_system(1, 2, 3);
        assert!(summary["mem_ram_kbyte"].as_u64() > Some(1000) && summary["conn_srs"] == json!(3));
        assert!(summary["cpus"].as_u64() >= summary["cpus_online"].as_u64(), "{summary}");
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!((cpus_in("0-3,8\n"), cpus_in("0\n"), cpus_in("")), (5, 1, 0));
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: RtoMin CurrEstab InSegs\nTcp: 200 17 4\n";
        assert_eq!(established(snmp), 17);
        let public = ["8.8.8.8", "2001:db8::1", "10.1.2.3", "127.0.0.1", "172.16.0.1", "fe80::1", "::1"];
        assert_eq!(public.map(|ip| is_public(ip.parse().unwrap())), [true, true, false, false, false, false, false]);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00:00");
        assert_eq!(date(951_868_799), "2000-02-29 23:59:59");
        assert_eq!(date(1_763_460_061), "2025-11-18 10:01:01");
        assert_eq!(date(1_798_761_599), "2026-12-31 23:59:59");
    }
}
