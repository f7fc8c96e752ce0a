//! The server's binary: command line, signals, exit codes.

mod doctor;

mod log;
mod log_fields;
mod operate;
mod pid;
mod settings;
mod token;
mod watch;

use anyhow::{Context, bail};
use clap::Parser;
use corecast::{
    cluster,
    config::{self, Service},
    glue::Server,
    stats::ShardStats,
    sys::{self, cores},
};
use log::Logging;
use operate::Operation;
use settings::Settings;
use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// corecast: a live media server. One stream, every core.
///
/// Without -c it runs an embedded configuration: RTMP on port 1935 and HTTP on 8080 of IPv4 and IPv6, with a page
/// of the live streams at http://localhost:8080/, the HTTP API on 127.0.0.1:1985, every host name, GOP cache on.
#[derive(Debug, Parser)]
#[command(version, disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file, in SRS's syntax
    #[arg(short, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Take everything from the environment: SRS_LISTEN, SRS_VHOST_PLAY_MW_LATENCY ... (see conf/full.conf);
    /// with -c they override the file
    #[arg(short = 'e', conflicts_with = "config")]
    environment: bool,
    /// Test the configuration and exit: 0 if it is good, 1 if not
    #[arg(short = 't')]
    test: bool,
    /// With -t: print what is in effect, and where each value comes from
    #[arg(long, requires = "test")]
    explain: bool,
    /// Go without directives of SRS that are not supported, with a warning each, rather than refuse them
    #[arg(long, global = true)]
    lenient: bool,
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
    /// Print the servers of the cluster, by its registry, and what is published at each
    Cluster {
        /// Print every stream, not only how many there are
        #[arg(long)]
        streams: bool,
    },
    /// Print every directive with its values, default, variables and effect: conf/full.conf
    Directives,
}

fn main() -> ExitCode {
    sys::disable_huge_pages();
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
    if matches!(arguments.command, Some(Command::Directives)) {
        print!("{}", config::full());
        return Ok(true);
    }
    let doctor = matches!(arguments.command, Some(Command::Doctor));
    let cluster = matches!(arguments.command, Some(Command::Cluster { .. }));
    let cpus = if doctor || cluster { Vec::new() } else { as_tested(cores::allowed(arguments.cpus.as_deref())?) };
    let limit = sys::raise_file_limit().max(sys::file_limit_max());
    let parent = std::os::unix::process::parent_id();
    let mut settings = Settings {
        start: None,
        file: config_file(arguments),
        environment_only: arguments.environment,
        lenient: arguments.lenient,
        // doctor compares by itself.
        descriptors: (!doctor && !cluster).then(|| Settings::descriptors(limit, cpus.len())),
    };
    let loaded = settings.load()?;
    if !loaded.warnings.is_empty() {
        eprintln!("{}", loaded.warnings);
    }
    if let Some(Command::Cluster { streams }) = arguments.command {
        return print_cluster(&loaded.config, streams);
    }
    if doctor {
        return Ok(doctor::run(u64::from(loaded.config.max_connections), arguments.cpus.as_deref()));
    }
    if arguments.test {
        if arguments.explain {
            print!("{}", loaded.explanation);
        } else {
            println!("the configuration is good");
        }
        return Ok(true);
    }
    let watched = loaded.files.iter().map(std::path::absolute).collect::<Result<Vec<_>, _>>()?;
    enter(loaded.config.work_dir.as_deref(), &mut settings)?;
    let logging = Logging::start(&loaded.config.log)?;
    let (tell, signals) = operate::signals().context("signals")?;
    let _pid = loaded.config.pid.as_deref().map(pid::write).transpose()?;
    let server = Server::start(loaded.config.clone(), &cpus)?;
    if loaded.config.asprocess {
        watch::parent(parent, tell.clone())?;
    }
    let mut watching = None;
    if loaded.config.auto_reload {
        watching = Some(watch::files(&watched, tell).context("inotify_auto_reload")?);
    }
    let (explanation, config) = (loaded.explanation, loaded.config);
    let mut operation = Operation { server, settings, explanation, config, logging, token: None, watching };
    operation.keep_token();
    print_banner(&operation.server, &cpus)?;
    let ended = operation.run(&signals);
    log_totals(&operation.server);
    if let Err(shard) = ended {
        bail!("error: shard {shard} died of a panic; the process ends rather than serve with the others alone");
    }
    Ok(true)
}

/// The configuration file; SRS's variable goes before `-c`.
fn config_file(arguments: &Arguments) -> Option<PathBuf> {
    let variable = std::env::var_os("SRS_CONFIG_FILE").filter(|file| !file.is_empty() && !arguments.environment);
    variable.map(PathBuf::from).or_else(|| arguments.config.clone())
}

/// `work_dir`: changes the directory, from which all relative paths but those of the configuration's files count.
fn enter(work_dir: Option<&std::path::Path>, settings: &mut Settings) -> anyhow::Result<()> {
    let Some(work_dir) = work_dir else { return Ok(()) };
    settings.start = Some(std::env::current_dir().context("the working directory")?);
    settings.file = settings.file.as_ref().map(std::path::absolute).transpose()?;
    std::env::set_current_dir(work_dir).with_context(|| format!("work_dir {}", work_dir.display()))
}

/// For tests, which must see what several shards do to each other on whatever machine: with `CORECAST_TEST_SHARDS=4`
/// there are four, pinned to `cpus` by turns.
fn as_tested(cpus: Vec<usize>) -> Vec<usize> {
    let shards = std::env::var("CORECAST_TEST_SHARDS").ok().and_then(|shards| shards.parse().ok());
    match shards {
        Some(shards @ 1..=128) => cpus.into_iter().cycle().take(shards).collect(),
        _ => cpus,
    }
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
    let listening = server.listening();
    for (listen, address) in &listening {
        let speaks = match (listen.service, listen.tls) {
            (Service::Rtmp, false) => "",
            (Service::Rtmp, true) => " rtmps",
            (Service::Http, false) => " http",
            (Service::Http, true) => " https",
            (Service::Api, _) => " api",
            (Service::Exporter, _) => " metrics",
        };
        writeln!(out, "listen:  {address}{speaks}")?;
    }
    let port_of = |address: &SocketAddr, usual| {
        if address.port() == usual { String::new() } else { format!(":{}", address.port()) }
    };
    if let Some((_, address)) = listening.iter().find(|(listen, _)| listen.service == Service::Http && !listen.tls) {
        writeln!(out, "page:    http://HOST{}/", port_of(address, 80))?;
    }
    let rtmp = listening.iter().find(|(listen, _)| listen.service == Service::Rtmp);
    let Some((listen, address)) = rtmp else { return out.flush() };
    let (scheme, usual) = if listen.tls { ("rtmps", 443) } else { ("rtmp", 1935) };
    let port = port_of(address, usual);
    writeln!(out, "publish: ffmpeg -re -i FILE -c copy -f flv {scheme}://HOST{port}/live/livestream")?;
    writeln!(out, "play:    ffplay {scheme}://HOST{port}/live/livestream")?;
    out.flush()
}

/// The servers that the registry knows; tells whether all that stands there is good.
fn print_cluster(config: &config::Config, streams: bool) -> anyhow::Result<bool> {
    let Some(registry) = &config.registry else { bail!("the configuration has no `registry`") };
    let (members, bad) = cluster::survey(registry).map_err(|error| anyhow::anyhow!("the registry: {error}"))?;
    println!("{:<32} {:<10} {:>8}", "RTMP", "SERVICE", "STREAMS");
    for member in &members {
        println!("{:<32} {:<10} {:>8}", member.at, member.service, member.streams.len());
        for (key, _) in member.streams.iter().filter(|_| streams) {
            println!("    {key}");
        }
    }
    let count: usize = members.iter().map(|member| member.streams.len()).sum();
    println!("{} servers, {count} streams", members.len());
    if bad > 0 {
        println!("{bad} entries are no good: another version's, or signed with another secret");
    }
    Ok(bad == 0)
}
