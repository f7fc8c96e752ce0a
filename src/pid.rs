//! The file with the process's number.

use anyhow::{Context, bail};
use rustix::{
    fs::{CWD, FlockOperation, Mode, OFlags, fcntl_lock, openat},
    io::Errno,
    process::geteuid,
};
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::Duration,
};

/// How often a lock is tried for, 50 ms apart: the server before this one may be on its way out.
const TRIES: usize = 30;

/// Writes the process's number, as whoever stops SRS by its file expects it. The file is locked for as long as it is held, as
/// SRS locks it.
///
/// # Errors
/// The file cannot be written, is somebody else's, or another server's.
pub(crate) fn write(path: &Path) -> anyhow::Result<File> {
    let shown = path.display();
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("pid {shown}: its directory cannot be made"))?;
    }
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(CWD, path, flags, Mode::from_raw_mode(0o644)) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => bail!("pid {shown}: it is a symbolic link; name the file itself"),
        Err(error) => {
            let owner = fs::symlink_metadata(path).map(|file| format!(", which belongs to user {}", file.uid()));
            bail!("pid {shown}{}: {error}; remove it, or name another file", owner.unwrap_or_default());
        }
    };
    let metadata = file.metadata().with_context(|| format!("pid {shown}"))?;
    let own = geteuid().as_raw();
    if !metadata.is_file() {
        bail!("pid {shown}: it is no file; name another");
    }
    if metadata.uid() != own {
        let owner = metadata.uid();
        bail!("pid {shown}: it belongs to user {owner}, and this is user {own}; remove it, or name another file");
    }
    lock(&file).with_context(|| format!("pid {shown}: a server holds it; stop that one, or name another file"))?;
    file.set_len(0).and_then(|()| writeln!(&file, "{}", std::process::id())).with_context(|| format!("pid {shown}"))?;
    Ok(file)
}

fn lock(file: &File) -> rustix::io::Result<()> {
    for _ in 1..TRIES {
        match fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN | Errno::ACCESS) => thread::sleep(Duration::from_millis(50)),
            outcome => return outcome,
        }
    }
    fcntl_lock(file, FlockOperation::NonBlockingLockExclusive)
}
