//! Allowed CPUs, and one pinned executor on each.

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use std::{future::Future, time::Duration};

/// Entries of an executor's rings.
const RING_DEPTH: usize = 1024;
/// Memory that an executor registers for file I/O, in bytes; glommio's default is 10 MiB.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// How long a task may run before others get their turn; with glommio's 100 ms a timer was 197 ms
/// late.
const PREEMPT: Duration = Duration::from_millis(2);

/// Why CPUs cannot be used.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum CpuError {
    /// Not of the form `2-5,8`.
    #[error("`{0}` is no list of CPUs such as 2-5,8")]
    Syntax(String),
    /// Outside the inherited mask.
    #[error("CPU {0} is not allowed here; the mask of this process is {1}")]
    NotAllowed(usize, String),
    /// The mask cannot be read.
    #[error("the CPU mask of this process cannot be read")]
    NoMask,
}

/// The CPUs to use: the inherited mask (`taskset`, cpuset), narrowed to `list` if given.
///
/// # Errors
/// Any [`CpuError`].
pub fn allowed(list: Option<&str>) -> Result<Vec<usize>, CpuError> {
    let mask: Vec<usize> = core_affinity::get_core_ids().ok_or(CpuError::NoMask)?.iter().map(|core| core.id).collect();
    let Some(list) = list else { return Ok(mask) };
    let wanted = parse_list(list)?;
    match wanted.iter().find(|cpu| !mask.contains(cpu)) {
        Some(cpu) => Err(CpuError::NotAllowed(*cpu, format_list(&mask))),
        None => Ok(wanted),
    }
}

/// Parses `2-5,8`; the result is sorted and without doubles.
///
/// # Errors
/// [`CpuError::Syntax`].
pub fn parse_list(list: &str) -> Result<Vec<usize>, CpuError> {
    const CPUS_MAX: usize = 4096;
    let syntax = || CpuError::Syntax(list.to_owned());
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|cpu| *cpu < CPUS_MAX).ok_or_else(syntax);
    let mut cpus = Vec::new();
    for item in list.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(syntax());
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

/// Formats as `2-5,8`.
pub fn format_list(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    let range =
        |(first, last): &(usize, usize)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

/// Starts an executor pinned to `cpu` and runs what `main` makes there.
///
/// # Errors
/// No thread or no io_uring.
pub fn spawn<F, G, T>(name: &str, cpu: usize, main: G) -> Result<ExecutorJoinHandle<T>, glommio::GlommioError<()>>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .name(name)
        .ring_depth(RING_DEPTH)
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(PREEMPT)
        .spawn(main)
}

/// Starts a thread that runs `main` on an executor of its own, wherever the process may run.
///
/// # Errors
/// No thread or no io_uring.
pub fn spawn_unpinned<F, G, T>(name: &str, main: G) -> Result<ExecutorJoinHandle<T>, glommio::GlommioError<()>>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    LocalExecutorBuilder::new(Placement::Unbound)
        .name(name)
        .ring_depth(RING_DEPTH)
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(PREEMPT)
        .spawn(main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_parse_and_print() {
        assert_eq!(parse_list("2-5,8"), Ok(vec![2, 3, 4, 5, 8]));
        assert_eq!(parse_list("8,2-3,3"), Ok(vec![2, 3, 8]));
        assert_eq!(format_list(&[2, 3, 4, 5, 8]), "2-5,8");
        for bad in ["", "a", "5-2", "1-", "99999"] {
            assert_eq!(parse_list(bad), Err(CpuError::Syntax(bad.to_owned())));
        }
    }

    #[test]
    fn only_cpus_of_the_mask_are_allowed() {
        let mask = allowed(None).unwrap();
        assert_eq!(allowed(Some(&mask[0].to_string())), Ok(vec![mask[0]]));
        assert!(matches!(allowed(Some("4000")), Err(CpuError::NotAllowed(4000, _))));
    }
}
