//! Allowed CPUs, and one pinned executor on each.
//!
//! glommio 0.9 loses wake-ups. Its `run` polls for events, which makes tasks runnable, and arms the preempt timer; if
//! the thread is off its CPU for longer than that timer just then, it finds that it should yield before it has run
//! anything, takes that for having nothing to do, and sleeps with runnable tasks until a timer or a socket stirs. So
//! every executor has guards: timers of which one is always armed (`guard`). Behind them stands a signal
//! ([`KeepAwake`]), which alone is there before anything has run.

use super::KeepAwake;
use glommio::{LocalExecutorBuilder, Placement, spawn_local, timer::Timer};
use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::mpsc,
    task::Poll,
    thread::{self, JoinHandle},
    time::Duration,
};

/// Entries of an executor's rings.
const RING_DEPTH: usize = 1024;
/// Memory that an executor registers for file I/O, in bytes; glommio's default is 10 MiB.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// How long a task may run before others get their turn. Beside one task that always has something to do, a timer is
/// 3 ms late on average, beside four 11 ms; with 10 ms it would be 20 and 51.
const PREEMPT: Duration = Duration::from_millis(2);
/// How long a lost wake-up may last while there is something to do. Guards nearer than [`PREEMPT`] would leave no room
/// for one, but would have to be a few ms apart: every executor would use 1 to 2 % of its CPU for them.
const GUARD: Duration = Duration::from_millis(20);
/// The same for an executor that does nothing but guard itself, at tens of microseconds each time.
const GUARD_IDLE: Duration = Duration::from_millis(160);
/// Guards that are armed at once, in multiples of the first one's time: those that are due when a wake-up gets lost get
/// lost with it.
const GUARDS: [u32; 3] = [1, 2, 4];

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

/// Starts an executor pinned to `cpu` and runs what `main` makes there; the thread's result is `None` after an error.
///
/// # Errors
/// No thread or no io_uring.
pub fn spawn<F, G, T>(name: &str, cpu: usize, main: G) -> io::Result<JoinHandle<Option<T>>>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    spawn_at(Placement::Fixed(cpu), PREEMPT, name, main)
}

/// Starts a thread that runs `main` on an executor of its own, wherever the process may run.
///
/// # Errors
/// No thread or no io_uring.
pub fn spawn_unpinned<F, G, T>(name: &str, main: G) -> io::Result<JoinHandle<Option<T>>>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    spawn_at(Placement::Unbound, PREEMPT, name, main)
}

fn spawn_at<F, G, T>(at: Placement, preempt: Duration, name: &str, main: G) -> io::Result<JoinHandle<Option<T>>>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let keep_awake = KeepAwake::new()?;
    let (tell, told) = mpsc::sync_channel(1);
    let run = move || {
        let builder = LocalExecutorBuilder::new(at).ring_depth(RING_DEPTH).io_memory(IO_MEMORY_BYTES);
        let made = builder.preempt_timer(preempt).make().map_err(|error| error.to_string());
        // Whoever started it waits.
        let (executor, outcome) = match made {
            Ok(executor) => (Some(executor), Ok(())),
            Err(error) => (None, Err(error)),
        };
        drop(tell.send(outcome));
        // The very first run may get lost, before there is a guard.
        keep_awake.promise(GUARD);
        let guarded = async move {
            let guard = spawn_local(guard(keep_awake));
            let result = main().await;
            guard.cancel().await;
            result
        };
        executor.map(|executor| executor.run(guarded))
    };
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
    match told.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(_) => Err(io::Error::other("its thread has ended")),
    }
}

/// Has the executor wake once per [`GUARD`], or more seldom as long as nothing happens: an executor that goes to sleep
/// arms the timer that is due next, whatever it has forgotten to run.
async fn guard(keep_awake: KeepAwake) {
    let mut pause = GUARD;
    loop {
        keep_awake.promise(pause);
        let mut timers = GUARDS.map(|times| Timer::new(pause * times));
        poll_fn(|cx| {
            let ready = timers.iter_mut().map(|timer| Pin::new(timer).poll(cx).is_ready());
            // All of them, so that all are armed.
            if ready.fold(false, |any, ready| any | ready) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        // Since the last time, this task among them.
        let ran = glommio::executor().executor_stats().tasks_executed();
        pause = if ran > 2 { GUARD } else { (pause * 2).min(GUARD_IDLE) };
    }
}

/// Has a thread beside the executor's do what may wait for a disk; one thing at a time.
pub async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    glommio::executor().spawn_blocking(work).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

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

    /// A timer that expires before anything has run opens glommio's gap every time, so that nothing ever runs.
    #[test]
    fn glommio_still_needs_guards() {
        // A kernel that is slow to expire the timer lets a run through now and then.
        for _ in 0..20 {
            let (tell, told) = mpsc::channel();
            thread::spawn(move || {
                let executor = LocalExecutorBuilder::new(Placement::Unbound)
                    .ring_depth(32)
                    .io_memory(IO_MEMORY_BYTES)
                    .preempt_timer(Duration::from_nanos(1))
                    .make()
                    .unwrap();
                executor.run(async {});
                tell.send(()).unwrap();
            });
            if told.recv_timeout(Duration::from_secs(2)).is_err() {
                return;
            }
        }
        panic!("glommio is mended: remove the guards, and src/sys/keep_awake.rs");
    }

    /// The same gap, when not even a guard has run: a timer is found with which the first run of some executors gets lost,
    /// and of none that is watched from its start.
    #[test]
    fn executors_start_though_their_first_run_is_lost() {
        let lost = |preempt: Duration, watched: bool| {
            let starts = |_: &usize| {
                let (tell, told) = mpsc::channel();
                let main = move || async move { tell.send(()).unwrap() };
                if watched {
                    spawn_at(Placement::Unbound, preempt, "watched", main).unwrap();
                } else {
                    let builder = LocalExecutorBuilder::new(Placement::Unbound).ring_depth(32);
                    let builder = builder.io_memory(IO_MEMORY_BYTES).preempt_timer(preempt);
                    thread::spawn(move || builder.make().unwrap().run(main()));
                }
                // Who is watched tries again every 20 ms, and on a busy machine one try after the other may be lost.
                let patience = Duration::from_millis(if watched { 10_000 } else { 500 });
                told.recv_timeout(patience).is_err()
            };
            (0..10).filter(starts).count()
        };
        for preempt in [5, 10, 15, 20, 30, 50, 80].map(Duration::from_micros) {
            if (1..10).contains(&lost(preempt, false)) {
                assert_eq!(lost(preempt, true), 0, "{preempt:?}");
                return;
            }
        }
    }

    /// Times that the calling thread has gone to sleep.
    fn sleeps() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse().unwrap()
    }

    /// An executor wakes every 20 ms where something happens, and a few times a second where nothing does.
    #[test]
    fn guards_wake_every_executor() {
        let per_second = |tick: Duration| {
            let main = move || async move {
                let (start, before, mut own) = (Instant::now(), sleeps(), 0);
                while start.elapsed() < Duration::from_secs(2) {
                    Timer::new(tick).await;
                    own += 1;
                }
                (sleeps() - before).saturating_sub(own) / 2
            };
            spawn_unpinned("guarded", main).unwrap().join().unwrap().unwrap()
        };
        let idle = per_second(Duration::from_secs(2));
        assert!((3..20).contains(&idle), "{idle} sleeps per second");
        let busy = per_second(Duration::from_millis(7));
        assert!(busy > 20, "{busy} sleeps per second");
    }
}
