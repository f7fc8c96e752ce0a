//! A remedy for a wake-up that glommio 0.9 loses.
//!
//! Measured: an executor that ticks every 10 ms goes to sleep, about once in an hour, without the poll
//! that links its rings, and then sleeps through its timers until one of its sockets stirs (2 times in
//! 8,600 s of such executors; never in 14,500 s with this remedy). A signal ends that sleep (EINTR,
//! which glommio takes as a turn of its loop), so every executor's thread gets one now and then: a lost
//! wake-up costs at most [`INTERVAL`].

use std::{
    io,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Time between two signals to a thread; one costs a few microseconds.
pub const INTERVAL: Duration = Duration::from_millis(200);

/// Sends the thread that made it a signal every [`INTERVAL`] until it is dropped.
#[derive(Debug)]
pub struct KeepAwake(Arc<AtomicBool>);

impl KeepAwake {
    /// Begins for the calling thread.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start() -> io::Result<Self> {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(install_handler);
        // SAFETY: plain system calls without arguments.
        let (process, thread) = unsafe { (libc::getpid(), libc::gettid()) };
        let going = Arc::new(AtomicBool::new(true));
        let keeper = Arc::clone(&going);
        std::thread::Builder::new().name("keep-awake".to_owned()).stack_size(64 << 10).spawn(move || {
            while keeper.load(Ordering::Relaxed) {
                std::thread::sleep(INTERVAL);
                // SAFETY: signals a thread of this process by its number; one that is gone is an error
                // of the call and nothing more.
                unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGURG) };
            }
        })?;
        Ok(Self(going))
    }
}

impl Drop for KeepAwake {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
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
    use std::time::Instant;

    /// A system call that would sleep for long ends when the signal comes.
    #[test]
    fn a_sleeping_system_call_is_ended() {
        let keep_awake = KeepAwake::start().unwrap();
        let started = Instant::now();
        // SAFETY: no descriptors are passed.
        let ended = unsafe { libc::poll(std::ptr::null_mut(), 0, 20_000) };
        assert!(ended < 0 && started.elapsed() < Duration::from_secs(10), "EINTR");
        drop(keep_awake);
    }
}
