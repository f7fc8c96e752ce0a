//! Whether io_uring's sends wait for room on nonblocking sockets, as they do on blocking ones.

use io_uring::{IoUring, opcode, types::Fd};
use std::{
    io,
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::OnceLock,
};

/// Bytes that no socket has room for.
const MORE_THAN_FITS: usize = 8 << 20;

/// Tried once, at the first call.
pub fn waits_on_nonblocking() -> bool {
    static WAITS: OnceLock<bool> = OnceLock::new();
    *WAITS.get_or_init(|| attempt().unwrap_or(false))
}

fn attempt() -> io::Result<bool> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let bytes = vec![0; MORE_THAN_FITS];
    let mut ring = IoUring::new(2)?;
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let send =
        opcode::Send::new(Fd(ours.as_raw_fd()), bytes.as_ptr(), len).flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL);
    // SAFETY: `bytes` lives until the completion, for which this waits below.
    unsafe { ring.submission().push(&send.build()) }.map_err(io::Error::other)?;
    ring.submit()?;
    let waits = ring.completion().next().is_none();
    // Ends the send.
    drop(theirs);
    if waits {
        ring.submit_and_wait(1)?;
    }
    Ok(waits)
}

#[cfg(test)]
mod tests {
    #[test]
    fn sends_wait_on_nonblocking_sockets_here() {
        assert!(super::waits_on_nonblocking());
    }
}
