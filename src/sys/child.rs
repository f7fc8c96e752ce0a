//! Processes that the server starts.

use std::{os::unix::process::CommandExt, process::Command};

/// Has a command run in a process group of its own, with none of our descriptors but its input and outputs, and end
/// with the thread that starts it.
pub fn bind_to_parent(command: &mut Command) {
    command.process_group(0);
    // SAFETY: both calls are async-signal-safe, and touch nothing of the parent's.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // Where the kernel has no such call, those that we inherited without the flag stay open.
            libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            Ok(())
        });
    }
}

/// Asks a process group that [`bind_to_parent`] made to end, or ends it.
pub fn end_group(leader: u32, at_once: bool) {
    let Ok(group) = libc::pid_t::try_from(leader) else { return };
    // SAFETY: a plain system call; the group's leader is a child of ours that has not been waited for.
    unsafe { libc::kill(-group, if at_once { libc::SIGKILL } else { libc::SIGTERM }) };
}
