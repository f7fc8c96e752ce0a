//! `corecast doctor`: what this machine lacks for many players, each line with its fix.

use corecast::sys::{BACKLOG, ImageFile, SEND_BUFFER_BYTES, SendRing, cores, has_ktls, waits_on_nonblocking};
use std::{fmt, fs};

/// The oldest kernel that has every feature of io_uring that we use.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Descriptors beside connections, generously.
const OTHER_DESCRIPTORS: u64 = 1000;
/// What glommio wants to lock, in bytes.
const MEMLOCK_BYTES: u64 = 512 << 10;
/// What the process takes for a player or a publisher, beside the stream's media: 8000 players are measured with less.
const CONNECTION_BYTES: u64 = 4 << 10;
/// Part of the memory that send buffers of players who do not read may fill.
const BUFFER_SHARE: u64 = 2;

/// How a finding is to be taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Good,
    /// It runs, with less.
    Poor,
    /// It does not run.
    Bad,
}

struct Finding {
    state: State,
    what: String,
    /// What to do.
    fix: Option<String>,
}

impl Finding {
    fn good(what: impl Into<String>) -> Self {
        Self { state: State::Good, what: what.into(), fix: None }
    }

    fn poor(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: State::Poor, what: what.into(), fix: Some(fix.into()) }
    }

    fn bad(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: State::Bad, ..Self::poor(what, fix) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Good => "ok  ",
            State::Poor => "POOR",
            State::Bad => "BAD ",
        };
        write!(f, "{state}  {}", self.what)?;
        self.fix.iter().try_for_each(|fix| write!(f, "\n      -> {fix}"))
    }
}

/// Prints every finding; tells whether the server can run. `connections` is `max_connections`.
pub(crate) fn run(connections: u64, cpus: Option<&str>) -> bool {
    let findings = [
        kernel(),
        io_uring(),
        descriptors(connections),
        locked_memory(),
        mask(cpus),
        quota(),
        at_least("net.core.somaxconn", u64::from(BACKLOG.unsigned_abs()), "a burst of connects is dropped"),
        at_least("net.ipv4.tcp_max_syn_backlog", u64::from(BACKLOG.unsigned_abs()), "a burst of connects is dropped"),
        send_buffer(),
        buffer_memory(connections),
        slow_start(),
        governor(),
        clock_source(),
        receive_queues(),
        kernel_tls(),
        image_file(),
    ];
    findings.iter().for_each(|finding| println!("{finding}"));
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let (poor, bad) = (count(State::Poor), count(State::Bad));
    println!("{} good, {poor} poor, {bad} bad; `scripts/tune` sets most of it", count(State::Good));
    bad == 0
}

/// RTMPS and HTTPS ask for it.
fn kernel_tls() -> Finding {
    if has_ktls() {
        return Finding::good("kTLS: the kernel encrypts for players of RTMPS and HTTPS");
    }
    Finding::poor(
        "the kernel has no TLS: players of RTMPS and HTTPS cost this process about 1.7 times the CPU of plain ones",
        "modprobe tls, or a kernel with CONFIG_TLS",
    )
}

/// What many players share can go as pages of a file.
fn image_file() -> Finding {
    if !waits_on_nonblocking() {
        return Finding::poor(
            "io_uring's sends do not wait on nonblocking sockets: no send_path sendfile",
            "a newer kernel",
        );
    }
    match ImageFile::new() {
        Ok(_) => Finding::good("send_path sendfile: possible"),
        Err(error) => {
            Finding::poor(format!("no file in memory ({error}): no send_path sendfile"), "memfd_create, allowed")
        }
    }
}

fn kernel() -> Finding {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (major, minor) = KERNEL_MIN;
    if version >= KERNEL_MIN {
        return Finding::good(format!("kernel {release}"));
    }
    Finding::bad(format!("kernel {release}: {major}.{minor} is needed"), "install a newer kernel")
}

fn io_uring() -> Finding {
    let disabled = read("/proc/sys/kernel/io_uring_disabled").filter(|value| value != "0");
    match SendRing::new() {
        Ok(_) => Finding::good("io_uring, with single issuer and cooperative completion"),
        Err(error) => {
            let fix = match disabled {
                Some(value) => format!("kernel.io_uring_disabled is {value}: sysctl -w kernel.io_uring_disabled=0"),
                None => "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile"
                    .to_owned(),
            };
            Finding::bad(format!("io_uring: {error}"), fix)
        }
    }
}

fn descriptors(connections: u64) -> Finding {
    let needed = connections + OTHER_DESCRIPTORS;
    let (_, hard) = corecast::sys::file_limit();
    if hard >= needed {
        return Finding::good(format!("{hard} descriptors for {connections} connections"));
    }
    let fix = format!(
        "ulimit -Hn {needed}, LimitNOFILE={needed} in the service, or --ulimit nofile={needed} of the container"
    );
    Finding::bad(format!("{hard} descriptors and max_connections {connections} needs {needed}"), fix)
}

fn locked_memory() -> Finding {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory")).unwrap_or_default();
    let soft = line.split_whitespace().next().unwrap_or("unlimited");
    if soft.parse::<u64>().is_ok_and(|bytes| bytes < MEMLOCK_BYTES) {
        return Finding::bad(
            format!("{soft} bytes may be locked, {MEMLOCK_BYTES} are needed"),
            "ulimit -l 8192, or LimitMEMLOCK=8M",
        );
    }
    Finding::good(format!("locked memory: {soft}"))
}

fn mask(cpus: Option<&str>) -> Finding {
    let online = read("/sys/devices/system/cpu/online").unwrap_or_default();
    match cores::allowed(cpus) {
        Ok(allowed) if cores::format_list(&allowed) == online => {
            Finding::good(format!("{} shards, on every CPU", allowed.len()))
        }
        Ok(allowed) => {
            Finding::good(format!("{} shards on CPU {} of {online}", allowed.len(), cores::format_list(&allowed)))
        }
        Err(error) => Finding::bad(error.to_string(), "choose CPUs within the mask that taskset or the service gives"),
    }
}

/// A quota stops whole shards for the rest of its period: players see it as stalls.
fn quota() -> Finding {
    let group = read("/proc/self/cgroup").unwrap_or_default();
    let path = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_owned();
    match read(&format!("/sys/fs/cgroup{path}/cpu.max")) {
        Some(max) if !max.starts_with("max") => Finding::poor(
            format!("a CPU quota of {max} us: shards are stopped when it is used up, which players see as stalls"),
            "give whole CPUs instead: AllowedCPUs= or --cpuset-cpus, and no CPUQuota= or --cpus",
        ),
        _ => Finding::good("no CPU quota"),
    }
}

fn at_least(name: &str, wanted: u64, otherwise: &str) -> Finding {
    match number(name) {
        Some(value) if value < wanted => {
            Finding::poor(format!("{name} is {value}: {otherwise}"), format!("sysctl -w {name}={wanted}"))
        }
        Some(value) => Finding::good(format!("{name} is {value}")),
        None => Finding::good(format!("{name} is not there")),
    }
}

fn send_buffer() -> Finding {
    at_least("net.core.wmem_max", SEND_BUFFER_BYTES as u64, "send buffers are cut to it, far players stall sooner")
}

/// What all players together could fill if none of them read.
fn buffer_memory(connections: u64) -> Finding {
    const PAGE_BYTES: u64 = 4096;
    let total_kib = read("/proc/meminfo").and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse::<u64>().ok()
    });
    let tcp_mem = read("/proc/sys/net/ipv4/tcp_mem").unwrap_or_default();
    let limit_bytes =
        tcp_mem.split_whitespace().nth(2).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES;
    let worst_bytes = connections * 2 * SEND_BUFFER_BYTES as u64;
    let mib = |bytes: u64| bytes >> 20;
    let total_bytes = total_kib.unwrap_or(0) << 10;
    if worst_bytes > total_bytes / BUFFER_SHARE {
        return Finding::poor(
            format!(
                "if all {connections} players stalled at once, their send buffers would want {} MiB of {} MiB, for 30 s",
                mib(worst_bytes),
                mib(total_bytes)
            ),
            "lower max_connections to what you serve, or keep net.ipv4.tcp_mem as the bound",
        );
    }
    if worst_bytes > limit_bytes {
        let pages = worst_bytes / PAGE_BYTES;
        return Finding::poor(
            format!(
                "net.ipv4.tcp_mem stops at {} MiB, {connections} players may want {} MiB",
                mib(limit_bytes),
                mib(worst_bytes)
            ),
            format!("sysctl -w net.ipv4.tcp_mem=\"{} {} {pages}\"", pages / 2, pages / 4 * 3),
        );
    }
    Finding::good(format!(
        "memory: {} KiB for each player and publisher, and for a stream its last GOP, 0.6 MiB for 2 s of 2.5 Mbit/s; send \
         buffers at most {} MiB of {} MiB",
        CONNECTION_BYTES >> 10,
        mib(worst_bytes),
        mib(total_bytes)
    ))
}

/// A flush every 350 ms is an idle connection to TCP, which then begins slowly again and again.
fn slow_start() -> Finding {
    match number("net.ipv4.tcp_slow_start_after_idle") {
        Some(1) => Finding::poor(
            "net.ipv4.tcp_slow_start_after_idle is on: every merged write to a far player begins slowly",
            "sysctl -w net.ipv4.tcp_slow_start_after_idle=0",
        ),
        _ => Finding::good("no slow start after idle"),
    }
}

fn governor() -> Finding {
    match read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") {
        Some(governor) if governor != "performance" => Finding::poor(
            format!("CPU governor {governor}: bursts begin on a slow clock"),
            "cpupower frequency-set -g performance",
        ),
        Some(governor) => Finding::good(format!("CPU governor {governor}")),
        None => Finding::good("no CPU governor (a virtual machine)"),
    }
}

fn clock_source() -> Finding {
    let source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource").unwrap_or_default();
    if matches!(&*source, "hpet" | "acpi_pm" | "jiffies") {
        return Finding::poor(
            format!("clock source {source}: reading the time is a slow call"),
            "boot with clocksource=tsc",
        );
    }
    Finding::good(format!("clock source {source}"))
}

/// One receive queue without RPS does all of a box's receiving on one CPU.
fn receive_queues() -> Finding {
    let shards = cores::allowed(None).map_or(1, |cpus| cpus.len());
    let Ok(devices) = fs::read_dir("/sys/class/net") else { return Finding::good("no network devices to see") };
    let mut narrow = Vec::new();
    for device in devices.flatten().filter(|device| device.path().join("device").exists()) {
        let queues: Vec<_> = fs::read_dir(device.path().join("queues")).into_iter().flatten().flatten().collect();
        let receive = queues.iter().filter(|queue| queue.file_name().to_string_lossy().starts_with("rx-"));
        let steered = |path: std::path::PathBuf| {
            fs::read_to_string(path).is_ok_and(|mask| mask.trim().chars().any(|digit| !matches!(digit, '0' | ',')))
        };
        let (count, rps) =
            receive.fold((0, false), |(count, rps), queue| (count + 1, rps || steered(queue.path().join("rps_cpus"))));
        if count < shards && !rps {
            narrow.push(format!("{} ({count})", device.file_name().to_string_lossy()));
        }
    }
    if narrow.is_empty() {
        return Finding::good("receive queues");
    }
    Finding::poor(
        format!("fewer receive queues than shards, and no RPS: {}", narrow.join(", ")),
        "scripts/tune --apply spreads their work over the shards' CPUs",
    )
}

fn number(name: &str) -> Option<u64> {
    read(&format!("/proc/sys/{}", name.replace('.', "/")))?.parse().ok()
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}
