//! The physical limit: a bare loop that sends one prebuilt buffer to as many sockets, copied or as pages of a file,
//! with no protocol at all. What a server's CPU per GiB is compared with.

use crate::process;
use anyhow::Context;
use corecast::sys::ImageFile;
use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Sockets
    #[arg(short = 'c', default_value_t = 2000)]
    clients: usize,
    /// Bytes of each send: a server's merged write, such as 331 kB/s x 0.35 s
    #[arg(long, default_value_t = 116_000)]
    bytes: usize,
    /// Time between two sends to a socket, in ms
    #[arg(long, default_value_t = 350)]
    every_ms: u64,
    /// Groups that are served one after the other within that time
    #[arg(long, default_value_t = 7)]
    phases: usize,
    /// Send pages of a file in memory, written once per round, rather than copies
    #[arg(long)]
    sendfile: bool,
    /// How long, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Where the receivers connect to: run `corecast-bench play --raw` against it
    #[arg(long, default_value = "127.0.0.1:19399")]
    listen: SocketAddr,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let listener = TcpListener::bind(arguments.listen).with_context(|| arguments.listen.to_string())?;
    println!("waiting for {} receivers on {}", arguments.clients, arguments.listen);
    let mut sockets: Vec<TcpStream> = Vec::new();
    for socket in listener.incoming().take(arguments.clients) {
        sockets.push(socket?);
    }
    let buffer = vec![0x5A; arguments.bytes];
    let mut file = arguments.sendfile.then(ImageFile::new).transpose()?;
    let phase = Duration::from_millis(arguments.every_ms) / u32::try_from(arguments.phases.max(1))?;
    let group = sockets.len().div_ceil(arguments.phases.max(1));
    let (cpu_before, started) = (process::cpu_seconds(std::process::id())?, Instant::now());
    let mut sent = 0_u64;
    let mut rounds = 0;
    while started.elapsed() < Duration::from_secs(arguments.seconds) {
        let at = rounds % arguments.phases.max(1);
        let place = file.as_mut().and_then(|file| file.put(&buffer));
        for socket in sockets.iter_mut().skip(at * group).take(group) {
            let by_file = file.as_mut().zip(place).map_or(0, |(file, place)| file.send(socket.as_raw_fd(), place));
            socket.write_all(&buffer[by_file..])?;
            sent += buffer.len() as u64;
        }
        if let Some(file) = &mut file {
            file.clear()?;
        }
        rounds += 1;
        std::thread::sleep((phase * u32::try_from(rounds)?).saturating_sub(started.elapsed()));
    }
    let cpu = process::cpu_seconds(std::process::id())? - cpu_before;
    let gib = sent as f64 / f64::from(1 << 30);
    println!(
        "floor:     {cpu:.2} CPU s for {gib:.3} GiB in {:.2} s, {:.3} CPU s/GiB",
        started.elapsed().as_secs_f64(),
        cpu / gib
    );
    Ok(true)
}
