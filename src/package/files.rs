//! Files, written by a thread of their own: nobody who brings or serves media waits for a disk.

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Bytes that may wait for the disk.
const WAITING_BYTES_MAX: u64 = 256 << 20;
/// Jobs that may.
const JOBS_MAX: usize = 65_536;
/// Between two lines of the log about what goes wrong.
const COMPLAINTS: Duration = Duration::from_secs(10);

#[derive(Debug)]
enum Job {
    /// Written beside its place, and then renamed.
    Put(PathBuf, Vec<Bytes>),
    Remove(PathBuf),
    /// What a file says, if it is there.
    Read(PathBuf, Sender<Option<String>>),
}

/// See the module. It starts with the first job.
#[derive(Debug, Default)]
pub struct Writer {
    jobs: OnceLock<Sender<Job>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    waiting_bytes: AtomicU64,
    failed: AtomicU64,
}

impl Writer {
    /// Files that could not be written, read or removed, and those that were left out since the disk is slow.
    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::Relaxed)
    }

    /// Writes a file, in one step for whoever reads it.
    pub(super) fn put(&self, path: PathBuf, chunks: Vec<Bytes>) {
        let bytes: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if self.counts.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > WAITING_BYTES_MAX {
            self.counts.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if !self.give(Job::Put(path, chunks)) {
            self.counts.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Removes a file.
    pub(super) fn remove(&self, path: PathBuf) {
        self.give(Job::Remove(path));
    }

    /// Reads a small file; the answer comes later.
    pub(super) fn read(&self, path: PathBuf) -> Receiver<Option<String>> {
        let (tell, told) = bounded(1);
        self.give(Job::Read(path, tell));
        told
    }

    fn give(&self, job: Job) -> bool {
        let jobs = self.jobs.get_or_init(|| {
            let (give, take) = bounded(JOBS_MAX);
            let counts = Arc::clone(&self.counts);
            let run = move || write(&take, &counts);
            if let Err(error) = std::thread::Builder::new().name("files".to_owned()).spawn(run) {
                tracing::error!(%error, "no thread for files");
            }
            give
        });
        let given = jobs.try_send(job).is_ok();
        self.counts.failed.fetch_add(u64::from(!given), Ordering::Relaxed);
        given
    }
}

fn write(jobs: &Receiver<Job>, counts: &Counts) {
    let mut complained: Option<Instant> = None;
    for job in jobs {
        let done = match job {
            Job::Put(path, chunks) => {
                let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
                let done = put(&path, &chunks).map_err(|error| (path, error));
                counts.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                done
            }
            Job::Remove(path) => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err((path, error)),
                Ok(()) | Err(_) => Ok(()),
            },
            Job::Read(path, tell) => {
                // Who asked may be gone.
                drop(tell.try_send(fs::read_to_string(path).ok()));
                Ok(())
            }
        };
        let Err((path, error)) = done else { continue };
        counts.failed.fetch_add(1, Ordering::Relaxed);
        if complained.is_none_or(|at| at.elapsed() >= COMPLAINTS) {
            complained = Some(Instant::now());
            tracing::error!(path = %path.display(), %error, failed = counts.failed.load(Ordering::Relaxed), "a file");
        }
    }
}

fn put(path: &Path, chunks: &[Bytes]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let open = || fs::File::create(&beside);
    let mut file = open().or_else(|error| match (error.kind(), path.parent()) {
        (io::ErrorKind::NotFound, Some(directory)) => fs::create_dir_all(directory).and_then(|()| open()),
        _ => Err(error),
    })?;
    let written = chunks.iter().try_for_each(|chunk| file.write_all(chunk)).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // It would only take room.
        drop(fs::remove_file(&beside));
    }
    written
}
