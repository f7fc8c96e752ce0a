//! Files, written by a thread of their own: nobody who brings or serves media waits for a disk.

use super::recordings::{Entry, Recordings};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::{
    collections::HashMap,
    fs,
    io::{self, Seek, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

/// Bytes that may wait for the disk.
const WAITING_BYTES_MAX: u64 = 256 << 20;
/// Jobs that may.
const JOBS_MAX: usize = 65_536;
/// Between two looks at old recordings.
const PRUNES: Duration = Duration::from_secs(2);
/// Between two lines of the log about what goes wrong.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// A file that grows, beside the place that it has when it is whole.
#[derive(Debug)]
pub(super) struct Log {
    place: PathBuf,
    entry: Arc<Entry>,
    file: Mutex<Option<fs::File>>,
}

impl Log {
    /// Whether it has an end that was not meant.
    pub(super) fn has_failed(&self) -> bool {
        self.entry.failed.load(Ordering::Relaxed)
    }

    fn fail(&self) {
        self.entry.failed.store(true, Ordering::Relaxed);
    }
}

type Done = Box<dyn FnOnce() + Send>;

enum Job {
    /// Written beside its place, and then renamed.
    Put(PathBuf, Vec<Bytes>),
    Remove(PathBuf),
    Append(Arc<Log>, Bytes),
    /// What is written over a place of it, and what is done when it is whole.
    Finish(Arc<Log>, Option<(u64, Bytes)>, Done),
    /// Say that what came before is done.
    Flush(Sender<()>),
    /// What a file says, if it is there.
    Read(PathBuf, Sender<Option<String>>),
    /// Remove old files.
    Prune(Keep),
}

/// Which files are kept.
#[derive(Clone, Debug)]
pub(super) struct Keep {
    /// All that there are.
    pub(super) pattern: String,
    /// Those that are no older.
    pub(super) age: Option<Duration>,
    /// The newest of so many bytes.
    pub(super) bytes: Option<u64>,
}

/// See the module. It starts with the first job.
#[derive(Debug, Default)]
pub struct Writer {
    jobs: OnceLock<Sender<Job>>,
    counts: Arc<Counts>,
    /// What is recorded.
    pub recordings: Recordings,
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

    /// Begins a stream's file that grows.
    pub(super) fn open(&self, place: PathBuf, key: &str, started_ms: u64) -> Arc<Log> {
        let entry = Arc::new(Entry::new(key, &place, started_ms));
        self.recordings.add(&entry);
        Arc::new(Log { place, entry, file: Mutex::new(None) })
    }

    /// Waits until everything so far is written, at most `limit`; tells whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        if self.jobs.get().is_none() {
            return true;
        }
        let (tell, told) = bounded(1);
        self.give(Job::Flush(tell)) && told.recv_timeout(limit).is_ok()
    }

    /// Adds to it, unless something of it is missing already.
    pub(super) fn append(&self, log: &Arc<Log>, chunk: Bytes) {
        let bytes = chunk.len() as u64;
        let fits = self.counts.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= WAITING_BYTES_MAX;
        if log.has_failed() || !fits || !self.give(Job::Append(Arc::clone(log), chunk)) {
            self.counts.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.counts.failed.fetch_add(u64::from(!fits), Ordering::Relaxed);
            log.fail();
        }
    }

    /// It is whole: `patch` is written over a place of it, it gets its name, and `done` is called.
    pub(super) fn finish(&self, log: Arc<Log>, patch: Option<(u64, Bytes)>, done: impl FnOnce() + Send + 'static) {
        self.give(Job::Finish(log, patch, Box::new(done)));
    }

    /// Removes a file.
    pub(super) fn remove(&self, path: PathBuf) {
        self.give(Job::Remove(path));
    }

    /// Removes old files.
    pub(super) fn prune(&self, keep: Keep) {
        self.give(Job::Prune(keep));
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
    let mut pruned = HashMap::new();
    for job in jobs {
        let done = match job {
            Job::Put(path, chunks) => {
                let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
                let done = put(&path, &chunks).map_err(|error| (path, error));
                counts.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                done
            }
            Job::Append(log, chunk) => {
                let done = append(&log, &chunk).map_err(|error| (log.place.clone(), error));
                counts.waiting_bytes.fetch_sub(chunk.len() as u64, Ordering::Relaxed);
                done
            }
            Job::Finish(log, patch, done) => {
                let finished = finish(&log, patch).map_err(|error| (log.place.clone(), error));
                if finished.is_ok() && !log.has_failed() {
                    done();
                }
                finished
            }
            Job::Remove(path) => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err((path, error)),
                Ok(()) | Err(_) => Ok(()),
            },
            Job::Flush(tell) => {
                // Who asked may be gone.
                _ = tell.try_send(());
                Ok(())
            }
            // Many recordings that end at once are one occasion, and the next one comes.
            Job::Prune(keep) if pruned.get(&keep.pattern).is_some_and(|at: &Instant| at.elapsed() < PRUNES) => Ok(()),
            Job::Prune(keep) => {
                let done = prune(&keep).map_err(|error| (PathBuf::from(&keep.pattern), error));
                pruned.insert(keep.pattern, Instant::now());
                done
            }
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

/// A file's name before it is whole.
fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    beside.into()
}

/// Makes a file, and its directory if need be.
fn create(path: &Path) -> io::Result<fs::File> {
    fs::File::create(path).or_else(|error| match (error.kind(), path.parent()) {
        (io::ErrorKind::NotFound, Some(directory)) => {
            fs::create_dir_all(directory).and_then(|()| fs::File::create(path))
        }
        _ => Err(error),
    })
}

fn append(log: &Log, chunk: &[u8]) -> io::Result<()> {
    let mut file = log.file.lock().unwrap_or_else(PoisonError::into_inner);
    if log.has_failed() {
        return Ok(());
    }
    if file.is_none() {
        *file = Some(create(&beside(&log.place)).inspect_err(|_| log.fail())?);
    }
    log.entry.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    file.as_mut().map_or(Ok(()), |file| file.write_all(chunk)).inspect_err(|_| log.fail())
}

fn finish(log: &Log, patch: Option<(u64, Bytes)>) -> io::Result<()> {
    let Some(mut file) = log.file.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
    if let Some((at, bytes)) = patch {
        file.seek(io::SeekFrom::Start(at)).and_then(|_| file.write_all(&bytes))?;
    }
    fs::rename(beside(&log.place), &log.place)?;
    log.entry.whole.store(true, Ordering::Relaxed);
    Ok(())
}

/// Removes old files, the newest one never.
fn prune(keep: &Keep) -> io::Result<()> {
    let mut files = Vec::new();
    for path in glob::glob(&keep.pattern).into_iter().flatten().flatten() {
        let Ok(known) = fs::symlink_metadata(&path) else { continue };
        if known.is_file() {
            files.push((known.modified()?, known.len(), path));
        }
    }
    files.sort();
    let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
    files.pop();
    let too_old = |at: &SystemTime| keep.age.is_some_and(|age| at.elapsed().is_ok_and(|elapsed| elapsed > age));
    for (at, length, path) in files {
        if !too_old(&at) && keep.bytes.is_none_or(|most| bytes <= most) {
            break;
        }
        fs::remove_file(&path)?;
        tracing::info!(file = %path.display(), "an old recording is removed (dvr_keep_days, dvr_keep_size)");
        bytes -= length;
    }
    Ok(())
}

fn put(path: &Path, chunks: &[Bytes]) -> io::Result<()> {
    let beside = beside(path);
    let mut file = create(&beside)?;
    let written = chunks.iter().try_for_each(|chunk| file.write_all(chunk)).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // It would only take room.
        drop(fs::remove_file(&beside));
    }
    written
}
