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
    sync::{Arc, Mutex, PoisonError},
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

/// How often it is looked whether the configuration has other files by now.
const LIST_MS: i64 = 1000;

/// The files that are watched.
#[derive(Debug)]
pub(crate) struct Watched(Arc<Mutex<Vec<PathBuf>>>);

impl Watched {
    /// A reload has read these.
    pub(crate) fn set(&self, files: Vec<PathBuf>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }
}

/// `inotify_auto_reload`: sends SIGHUP when one of the files is written or replaced.
///
/// # Errors
/// No thread, or a directory that cannot be watched.
pub(crate) fn files(files: &[PathBuf], tell: crossbeam_channel::Sender<i32>) -> io::Result<Watched> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let mut known = files.to_vec();
    let mut all = add(&watch, files)?;
    let list = Arc::new(Mutex::new(known.clone()));
    let watched = Watched(Arc::clone(&list));
    let look = move || {
        loop {
            let now = list.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if now != known {
                // What cannot be watched is there for the next reload that somebody asks for.
                match add(&watch, &now) {
                    Ok(files) => all = files,
                    Err(error) => tracing::warn!(%error, "inotify_auto_reload"),
                }
                known = now;
            }
            if !changed(&watch, &all, LIST_MS) {
                continue;
            }
            for _ in 0..STEPS_MAX {
                if !changed(&watch, &all, QUIET_MS) {
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

/// Waits for events, for so many ms; tells whether one was of `files`.
fn changed(watch: &OwnedFd, files: &[PathBuf], limit_ms: i64) -> bool {
    let limit = Timespec { tv_sec: limit_ms / 1000, tv_nsec: limit_ms % 1000 * 1_000_000 };
    // A signal's end of it is as good as an event.
    let _ = poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&limit));
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watch, &mut buffer);
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
