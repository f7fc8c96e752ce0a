//! The file with the token that changes by the API need where the configuration has no `auth`.

use anyhow::{Context, bail};
use rustix::{
    fs::{Access, CWD, FlockOperation, Mode, OFlags, access, fchmod, fcntl_lock, openat},
    io::Errno,
    process::geteuid,
};
use std::{
    env,
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io::Write,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process,
};

/// The file; it is there, and locked, as long as this is.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl TokenFile {
    /// Writes the token to `api-PORT.token` in the runtime directory, for this user's eyes alone; a server that is there
    /// keeps its own.
    ///
    /// # Errors
    /// There is no such directory, or no file can be had in it.
    pub(crate) fn write(token: &str, port: u16) -> anyhow::Result<Self> {
        let directory = directory()?;
        let first = directory.join(format!("api-{port}.token"));
        // Another server's, which listens elsewhere on the same port.
        let second = directory.join(format!("api-{port}-{}.token", process::id()));
        let (path, mut file) = match lock(&first)? {
            Some(file) => (first, file),
            None => match lock(&second)? {
                Some(file) => (second, file),
                None => bail!("{}: a server holds it", second.display()),
            },
        };
        file.set_len(0).and_then(|()| writeln!(file, "{token}")).with_context(|| path.display().to_string())?;
        Ok(Self { path, _file: file })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        // Without it the file stays with a token of nobody.
        drop(fs::remove_file(&self.path));
    }
}

/// A file that only this user can read, locked; `None` if a server holds it.
fn lock(path: &Path) -> anyhow::Result<Option<File>> {
    let shown = path.display();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let own = Mode::RUSR | Mode::WUSR;
    loop {
        let file = File::from(openat(CWD, path, flags, own).with_context(|| shown.to_string())?);
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => return Ok(None),
            Err(error) => bail!("{shown}: {error}"),
        }
        let metadata = file.metadata().with_context(|| shown.to_string())?;
        if metadata.nlink() == 0 {
            // The server that held it has just removed it.
            continue;
        }
        if !metadata.is_file() || metadata.uid() != geteuid().as_raw() || metadata.nlink() > 1 {
            bail!("{shown}: it is no file of this user's alone; remove it");
        }
        fchmod(&file, own).with_context(|| shown.to_string())?;
        return Ok(Some(file));
    }
}

/// systemd's `RuntimeDirectory`, the user's, the system's, or one of this user's for what is temporary.
fn directory() -> anyhow::Result<PathBuf> {
    let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(given) = named("RUNTIME_DIRECTORY") {
        let first: OsString = given.to_string_lossy().split(':').next().unwrap_or_default().into();
        return Ok(first.into());
    }
    if let Some(user) = named("XDG_RUNTIME_DIR") {
        return private(PathBuf::from(user).join("corecast"));
    }
    let system = PathBuf::from("/run/corecast");
    match private(system.clone()) {
        Ok(system) if access(&system, Access::WRITE_OK | Access::EXEC_OK).is_ok() => Ok(system),
        Ok(_) | Err(_) => private(env::temp_dir().join(format!("corecast-{}", geteuid().as_raw()))),
    }
}

/// A directory of this user's alone, which is made if it is not there.
fn private(path: PathBuf) -> anyhow::Result<PathBuf> {
    let shown = path.display();
    match DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => bail!("{shown}: {error}"),
    }
    let metadata = fs::symlink_metadata(&path).with_context(|| shown.to_string())?;
    if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        bail!("{shown}: it is no directory that this user alone can write to");
    }
    Ok(path)
}
