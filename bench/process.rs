//! CPU time and memory of a process, from /proc.

use anyhow::Context;
use std::fs;

/// Clock ticks per second of /proc/PID/stat; 100 on every Linux that we know (sysconf _SC_CLK_TCK).
const TICKS_PER_SECOND: f64 = 100.0;

/// utime + stime of `pid` in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name may hold spaces; fields 14 and 15 count from behind it.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).with_context(|| path.clone());
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// Descriptors that `pid` has; `None` if they are not ours to see.
pub(crate) fn descriptors(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// Resident memory of `pid` in KiB.
pub(crate) fn rss_kib(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).with_context(|| path.clone())?;
    line.trim().trim_end_matches("kB").trim().parse().context(path)
}
