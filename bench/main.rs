//! corecast-bench: the load generator. It speaks RTMP to any server, checks what it gets, and says how
//! many players are at full rate.

mod check;
mod connect;
mod floor;
mod play;
mod process;
mod publish;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load generator for RTMP servers.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play a stream many times and check every player's content
    Play(play::Arguments),
    /// Publish a file many times, in real time, over and over
    Publish(publish::Arguments),
    /// The physical limit: the same bytes to as many sockets by a bare loop of send
    Floor(floor::Arguments),
}

fn main() -> ExitCode {
    corecast::net::raise_file_limit();
    let result = match Arguments::parse().command {
        Command::Play(arguments) => play::run(&arguments),
        Command::Publish(arguments) => publish::run(&arguments),
        Command::Floor(arguments) => floor::run(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("corecast-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
