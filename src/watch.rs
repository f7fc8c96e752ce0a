//! What the process looks at beside its signals: the files of its configuration, and its parent.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
};
use signal_hook::consts::{SIGHUP, SIGINT};
use std::{
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, process::parent_id},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Between two reloads at least, however often the files change.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);
/// Files are read when nothing has happened to them for so long: editors write in several steps.
const QUIET_MS: i64 = 150;
/// Most steps that are waited for.
const STEPS_MAX: usize = 20;
/// How often the parent is looked for.
const PARENT_PAUSE: Duration = Duration::from_millis(250);
/// What Kubernetes replaces when a mounted ConfigMap changes.
const MOUNTED: &[u8] = b"..data";

/// The files that are watched, and what links among them lead to.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    watch: Arc<OwnedFd>,
    files: Arc<Mutex<Vec<PathBuf>>>,
}

impl Watched {
    /// A reload has read these: they are watched from now on.
    ///
    /// # Errors
    /// A directory that cannot be watched.
    pub(crate) fn set(&self, files: &[PathBuf]) -> io::Result<()> {
        // Before events of them are asked about.
        let mut watched = self.lock();
        *watched = add(&self.watch, files)?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for events, for so many ms; tells whether one was of a file.
    fn changed(&self, limit_ms: Option<i64>) -> bool {
        let limit = limit_ms.map(|ms| Timespec { tv_sec: 0, tv_nsec: ms * 1_000_000 });
        // A signal's end of it is as good as an event.
        let _ = poll(&mut [PollFd::new(&self.watch, PollFlags::IN)], limit.as_ref());
        let files = self.lock();
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.watch, &mut buffer);
        let mut found = false;
        while let Ok(event) = events.next() {
            // The kernel has dropped events, and one of ours may have been among them.
            found |= event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW);
            let name = event.file_name().map(|name| name.to_bytes());
            found |= name.is_some_and(|name| {
                name == MOUNTED || files.iter().any(|file| file.file_name().map(OsStr::as_bytes) == Some(name))
            });
        }
        found
    }
}

/// `inotify_auto_reload`: sends SIGHUP when one of the files is written or replaced.
///
/// # Errors
/// No thread, or a directory that cannot be watched.
pub(crate) fn files(files: &[PathBuf], tell: crossbeam_channel::Sender<i32>) -> io::Result<Watched> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let watched = Watched { watch: Arc::new(watch), files: Arc::default() };
    watched.set(files)?;
    let watching = watched.clone();
    let look = move || {
        loop {
            if !watching.changed(None) {
                continue;
            }
            for _ in 0..STEPS_MAX {
                if !watching.changed(Some(QUIET_MS)) {
                    break;
                }
            }
            tracing::info!("a file of the configuration has changed: reload (inotify_auto_reload)");
            // It fails if the main thread has ended already.
            if tell.send(SIGHUP).is_err() {
                return;
            }
            thread::sleep(RELOAD_PAUSE);
        }
    };
    thread::Builder::new().name("files".to_owned()).spawn(look).map(|_| watched)
}

/// Watches the directories of files, and of those that links among them lead to; returns all of these.
fn add(watch: &OwnedFd, files: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let real = files.iter().filter_map(|file| file.canonicalize().ok());
    let all: Vec<PathBuf> = files.iter().cloned().chain(real).collect();
    let flags = inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::CLOSE_WRITE
        | inotify::WatchFlags::CREATE
        | inotify::WatchFlags::MOVED_TO;
    for directory in all.iter().filter_map(|file| file.parent()) {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        inotify::add_watch(watch, directory, flags)?;
    }
    Ok(all)
}

/// `asprocess`: sends SIGINT when `parent` is not the parent any more.
///
/// # Errors
/// No thread.
pub(crate) fn parent(parent: u32, tell: crossbeam_channel::Sender<i32>) -> io::Result<()> {
    let look = move || {
        while parent_id() == parent {
            thread::sleep(PARENT_PAUSE);
        }
        tracing::info!("the parent process {parent} has ended: so does this one (asprocess)");
        let _ = tell.send(SIGINT);
    };
    thread::Builder::new().name("parent".to_owned()).spawn(look).map(drop)
}
