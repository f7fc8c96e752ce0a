//! The server's binary: command line, signals, exit codes.

mod doctor;

use anyhow::{Context, bail};
use clap::Parser;
use corecast::{
    config::{Config, DEFAULT},
    cores, net,
    serve::Server,
    stats::ShardStats,
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long shards may take to stop before the process ends without them.
const STOP_LIMIT: Duration = Duration::from_millis(700);
/// Descriptors that a shard needs beside its connections: rings, eventfds, listeners.
const SHARD_DESCRIPTORS: u64 = 32;
/// Log lines that wait for a slow standard error; what is over is dropped and not waited for.
const LOG_LINES_MAX: usize = 16_384;

/// corecast: a live media server. One stream, every core.
///
/// Without -c it runs an embedded configuration: RTMP on port 1935 of IPv4 and IPv6, every host name,
/// GOP cache on.
#[derive(Debug, Parser)]
#[command(version, disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file, in SRS's syntax
    #[arg(short, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Test the configuration and exit: 0 if it is good, 1 if not
    #[arg(short = 't')]
    test: bool,
    /// CPUs to run on, one shard each, such as 2-5,8; within the mask that taskset or the service
    /// manager set [default: that mask]
    #[arg(long, value_name = "LIST", global = true)]
    cpus: Option<String>,
    /// Print the version
    #[arg(short = 'v', short_alias = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say what this machine lacks for many players, with the fix of each; exit code 1 if the server
    /// cannot run
    Doctor,
}

fn main() -> ExitCode {
    net::disable_huge_pages();
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Tells whether all is well.
fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let config = match &arguments.config {
        Some(path) => Config::read(path)?,
        None => Config::parse("embedded", DEFAULT)?,
    };
    if arguments.test {
        println!("the configuration is good");
        return Ok(true);
    }
    if matches!(arguments.command, Some(Command::Doctor)) {
        return Ok(doctor::run(u64::from(config.max_connections), arguments.cpus.as_deref()));
    }
    let cpus = cores::allowed(arguments.cpus.as_deref())?;
    check_file_limit(&config, cpus.len())?;
    let (log, _log_guard) = tracing_appender::non_blocking::NonBlockingBuilder::default()
        .buffered_lines_limit(LOG_LINES_MAX)
        .finish(std::io::stderr());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,corecast=info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(log).with_ansi(false).init();
    let stop = stop_signals().context("signals")?;
    let server = Server::start(config, &cpus)?;
    print_banner(&server, &cpus)?;
    let died = match server.run_until(&stop) {
        Ok(()) => {
            server.stop();
            server.wait(STOP_LIMIT).err()
        }
        Err(shard) => Some(shard),
    };
    log_totals(&server);
    if let Some(shard) = died {
        bail!("error: shard {shard} died of a panic; the process ends rather than serve with the others alone");
    }
    Ok(true)
}

/// Raises the descriptor limit and refuses what cannot work.
fn check_file_limit(config: &Config, shards: usize) -> anyhow::Result<()> {
    let limit = net::raise_file_limit();
    let needed = u64::from(config.max_connections) + SHARD_DESCRIPTORS * shards as u64;
    if needed > limit {
        bail!(
            "error: max_connections {} needs {needed} descriptors and the limit is {limit}: raise it (ulimit -n, LimitNOFILE) or lower max_connections",
            config.max_connections
        );
    }
    Ok(())
}

/// A channel that says when to stop.
fn stop_signals() -> std::io::Result<crossbeam_channel::Receiver<()>> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let (tell, stop) = crossbeam_channel::bounded(1);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.forever().next().is_some() {
            // It fails if the main thread has ended already.
            tell.send(()).ok();
        }
    })?;
    Ok(stop)
}

/// One line with every counter, summed over the shards.
fn log_totals(server: &Server) {
    let sums = ShardStats::sum(server.stats().iter().map(AsRef::as_ref));
    let sums: Vec<String> = sums.iter().map(|(name, value)| format!("{name}={value}")).collect();
    tracing::info!("totals: {}", sums.join(" "));
}

fn print_banner(server: &Server, cpus: &[usize]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "corecast {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "shards:  {} on CPU {}", cpus.len(), cores::format_list(cpus))?;
    for address in server.addresses() {
        writeln!(out, "listen:  {address}")?;
    }
    let port = server.addresses().first().map_or(1935, SocketAddr::port);
    let port = if port == 1935 { String::new() } else { format!(":{port}") };
    writeln!(out, "publish: ffmpeg -re -i FILE -c copy -f flv rtmp://HOST{port}/live/livestream")?;
    writeln!(out, "play:    ffplay rtmp://HOST{port}/live/livestream")?;
    out.flush()
}
