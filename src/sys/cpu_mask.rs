//! The CPUs that a thread may run on.

use std::mem::{size_of, zeroed};

/// A thread's mask, to be given to others: threads inherit that of the thread that starts them, and a shard's is one CPU.
#[derive(Clone, Copy, Debug)]
pub struct CpuMask(libc::cpu_set_t);

impl CpuMask {
    /// The calling thread's; `None` on a machine with more CPUs than the type has (1024).
    pub fn of_this_thread() -> Option<Self> {
        // SAFETY: all zeroes is the empty set.
        let mut set: libc::cpu_set_t = unsafe { zeroed() };
        // SAFETY: `set` is valid for writing as many bytes as are said; 0 is the calling thread.
        let read = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        (read == 0).then_some(Self(set))
    }

    /// Lets the calling thread run on these CPUs; it stays as it is if none of them is there any more.
    pub fn apply(&self) {
        // SAFETY: the set is valid for reading as many bytes as are said; 0 is the calling thread.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.0) };
    }
}
