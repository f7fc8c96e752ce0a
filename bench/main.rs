//! corecast-bench: the load generator. It speaks RTMP to any server, checks what it gets, and says how
//! many players are at full rate, how late, and at what cost.

mod check;
mod clock;
mod connect;
mod executor;
mod floor;
mod hls;
mod load;
mod options;
mod player;
mod process;
mod publisher;
mod ramp;
mod report;
mod run;
mod scenario;
mod totals;
mod transport;

use clap::{Parser, Subcommand};
use options::Options;
use report::{
    Report,
    bounds::{self, Bound},
    compare,
};
use scenario::Scenario;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load generator for RTMP servers.
///
/// Exit code 0 if what is required holds, 1 if not or if the run fails.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play a stream many times and check every player's content
    Play(options::Play),
    /// Publish a file many times, in real time, over and over
    Publish(options::Publish),
    /// Many players come at once, or one after the other: time to the first keyframe
    Join(options::Join),
    /// Players come and go
    Churn(options::Churn),
    /// A scenario file: publishers and players of several kinds
    Mixed(options::Mixed),
    /// The physical limit: the same bytes to as many sockets by a bare loop of send
    Floor(floor::Arguments),
    /// Results of several servers side by side: ratios with their spread
    Compare(compare::Compare),
}

fn main() -> ExitCode {
    corecast::sys::raise_file_limit();
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("corecast-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let options = &arguments.options;
    match &arguments.command {
        Command::Play(play) => measure("play", play.scenario(), options),
        Command::Publish(publish) => measure("publish", publish.scenario(), options),
        Command::Join(join) => measure("join", join.scenario(), options),
        Command::Churn(churn) => measure("churn", churn.scenario(), options),
        Command::Mixed(mixed) => {
            let name = mixed.scenario.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let mut scenario = Scenario::read(&mixed.scenario, &mixed.url, &mixed.http)?;
            if let (Some(count), Some(group)) = (mixed.players, scenario.players.first_mut()) {
                group.count = count;
            }
            match scenario.ramp.filter(|_| mixed.players.is_none()) {
                Some(ramp) => finish(&ramp::raise(ramp, mixed, options)?, options, ramp::bounds()),
                None => measure(&name, scenario, options),
            }
        }
        Command::Floor(floor) => floor::run(floor),
        Command::Compare(compare) => compare::run(compare).map(|()| true),
    }
}

/// Runs, reports, and tells whether what is required holds.
fn measure(name: &str, scenario: Scenario, options: &Options) -> anyhow::Result<bool> {
    let report = run::run(name, scenario, options)?;
    let usual = bounds::usual(&report);
    finish(&report, options, usual)
}

/// Reports, and tells whether what is required holds: what is `usual` unless the command line says it.
fn finish(report: &Report, options: &Options, usual: Vec<Bound>) -> anyhow::Result<bool> {
    report.print();
    if let Some(path) = &options.json {
        report.write_json(path)?;
    }
    if let Some(path) = &options.report {
        report.write_html(path)?;
    }
    let bounds = if options.require.is_empty() { usual } else { options.require.clone() };
    let faults: Vec<String> = bounds.iter().filter_map(|bound| bound.fault(report)).collect();
    for fault in &faults {
        println!("NOT KEPT:  {fault}");
    }
    Ok(faults.is_empty())
}
