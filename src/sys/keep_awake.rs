//! A backstop for wake-ups that get lost (`cores` says how): a thread that is not awake again when it said it would
//! be gets a signal.
//!
//! The signal ends whatever system call the thread sleeps in (EINTR, which glommio takes as a turn of its loop), and
//! costs a thread that is merely late a few microseconds. One thread watches all others, and sends nothing as long as
//! nothing is lost: a signal to every executor every 20 ms would cost each 0.4 % of a CPU while idle.

use std::{
    io,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Least time between two looks at those who are watched, and between two signals to one.
const INTERVAL: Duration = Duration::from_millis(20);
/// Most time, should everybody have promised to sleep long: somebody may promise less meanwhile.
const INTERVAL_MAX: Duration = Duration::from_millis(200);
/// How late a thread may be: it may have waited for its CPU.
const GRACE: Duration = Duration::from_millis(10);
const STACK_BYTES: usize = 64 << 10;

/// Has the thread that promises to be awake watched, until this is dropped.
#[derive(Debug)]
pub struct KeepAwake(Arc<Watched>);

#[derive(Debug)]
struct Watched {
    /// 0 before its first promise.
    thread: AtomicI32,
    /// By when it promised to be awake again, in ms of [`now_ms`].
    due_ms: AtomicU64,
}

/// Who is watched.
struct Watch {
    all: Vec<Weak<Watched>>,
    running: bool,
}

static WATCH: Mutex<Watch> = Mutex::new(Watch { all: Vec::new(), running: false });

fn lock() -> MutexGuard<'static, Watch> {
    WATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl KeepAwake {
    /// For a thread that is to promise. The watching thread, if it does not run yet, may run where the caller may: call
    /// this on a thread that is not pinned.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new() -> io::Result<Self> {
        let watched = Arc::new(Watched { thread: AtomicI32::new(0), due_ms: AtomicU64::new(u64::MAX) });
        let mut watch = lock();
        if !watch.running {
            install_handler();
            std::thread::Builder::new().name("keep-awake".to_owned()).stack_size(STACK_BYTES).spawn(run)?;
            watch.running = true;
        }
        watch.all.push(Arc::downgrade(&watched));
        Ok(Self(watched))
    }

    /// The calling thread will have promised anew `within` this time.
    pub fn promise(&self, within: Duration) {
        // SAFETY: a plain system call without arguments.
        let thread = unsafe { libc::gettid() };
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        self.0.due_ms.store(now_ms().saturating_add(within_ms), Ordering::Relaxed);
        self.0.thread.store(thread, Ordering::Relaxed);
    }
}

impl Watched {
    /// In how many ms it is too late; 0 if it is.
    fn left_ms(&self, now_ms: u64) -> u64 {
        let grace_ms = u64::try_from(GRACE.as_millis()).unwrap_or(0);
        self.due_ms.load(Ordering::Relaxed).saturating_add(grace_ms).saturating_sub(now_ms)
    }

    fn signal(&self) {
        let thread = self.thread.load(Ordering::Relaxed);
        if thread != 0 {
            // SAFETY: signals a thread of this process by its number; one that is gone is an error of the call and
            // nothing more.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGURG) };
        }
    }
}

/// The watching thread: ends when nobody is left.
fn run() {
    let mut pause = INTERVAL;
    loop {
        std::thread::sleep(pause);
        let mut watch = lock();
        watch.all.retain(|watched| watched.strong_count() > 0);
        if watch.all.is_empty() {
            watch.running = false;
            return;
        }
        let now_ms = now_ms();
        pause = INTERVAL_MAX;
        for watched in watch.all.iter().filter_map(Weak::upgrade) {
            let left_ms = watched.left_ms(now_ms);
            if left_ms == 0 {
                watched.signal();
            }
            pause = pause.min(Duration::from_millis(left_ms)).max(INTERVAL);
        }
    }
}

/// An ignored signal ends no system call: SIGURG gets a handler that does nothing.
fn install_handler() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    // SAFETY: all zeroes is a valid sigaction: no flags, so that system calls end with EINTR, and an
    // empty mask. The handler does nothing, which every context allows.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGURG, &raw const action, std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a system call sleeps that would for `longest_ms`.
    fn sleep(longest_ms: i32) -> Duration {
        let started = Instant::now();
        // SAFETY: no descriptors are passed.
        unsafe { libc::poll(std::ptr::null_mut(), 0, longest_ms) };
        started.elapsed()
    }

    /// Who sleeps longer than it promised is woken, again and again; who keeps its promises is left alone.
    #[test]
    fn who_breaks_its_promise_is_woken() {
        let keep_awake = KeepAwake::new().unwrap();
        keep_awake.promise(Duration::from_secs(1000));
        assert!(sleep(300) >= Duration::from_millis(299), "no signal");
        keep_awake.promise(Duration::ZERO);
        for _ in 0..3 {
            assert!(sleep(20_000) < Duration::from_secs(10), "EINTR");
        }
        drop(keep_awake);
        // A signal may be on its way still.
        sleep(50);
        assert!(sleep(300) >= Duration::from_millis(299), "nobody watches any more");
    }
}
