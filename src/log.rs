//! The log: lines to standard error or to a file that can be opened anew, never waited for.

use crate::log_fields::SafeFields;
use anyhow::Context;
use corecast::config::{Log, LogLevel};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Log lines that wait for a slow disk or terminal; what is over is dropped and not waited for.
const LINES_MAX: usize = 16_384;

/// Keeps the log going; what waits is written when it is dropped.
#[derive(Debug)]
pub(crate) struct Logging {
    reopen: Arc<AtomicBool>,
    _guard: WorkerGuard,
}

impl Logging {
    /// Starts the log.
    pub(crate) fn start(log: &Log) -> anyhow::Result<Self> {
        let reopen = Arc::new(AtomicBool::new(false));
        let builder = NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX);
        let (writer, guard) = match &log.file {
            None => builder.finish(io::stderr()),
            Some(path) => {
                let file = open(path).with_context(|| format!("error: the log {} cannot be opened", path.display()))?;
                builder.finish(LogFile { file, path: path.clone(), reopen: Arc::clone(&reopen) })
            }
        };
        let (all, ours) = match log.level {
            LogLevel::Verbose => (Level::TRACE, Level::TRACE),
            LogLevel::Info => (Level::WARN, Level::DEBUG),
            LogLevel::Trace => (Level::WARN, Level::INFO),
            LogLevel::Warn => (Level::WARN, Level::WARN),
            LogLevel::Error => (Level::ERROR, Level::ERROR),
        };
        let named = std::env::var("RUST_LOG").ok().filter(|named| !named.is_empty());
        let levels = named.and_then(|named| named.parse().ok());
        let levels = levels.unwrap_or_else(|| {
            Targets::new().with_default(all).with_target("corecast", ours).with_target("h2", Level::WARN)
        });
        tracing_subscriber::registry()
            .with(levels)
            .with(fmt::layer().fmt_fields(SafeFields).with_writer(writer))
            .init();
        Ok(Self { reopen, _guard: guard })
    }

    /// Has the file opened anew, for a log rotation that has renamed it.
    pub(crate) fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
        tracing::info!("the log is opened anew");
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

struct LogFile {
    file: File,
    path: PathBuf,
    reopen: Arc<AtomicBool>,
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.reopen.swap(false, Ordering::Relaxed) {
            match open(&self.path) {
                Ok(file) => self.file = file,
                // The old file still takes lines.
                Err(error) => writeln!(self.file, "the log {} cannot be opened anew: {error}", self.path.display())?,
            }
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
