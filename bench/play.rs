//! Many players of one stream, or of several.

use crate::{
    check::{Checker, Faults, Reference},
    connect::{self, Connected},
    process,
};
use anyhow::{Context, bail};
use bytes::Bytes;
use corecast::{
    cores,
    net::{KeepAwake, Receiver},
    proto::{
        flv::{Tag, file},
        rtmp::{
            client::{ClientSession, Event, Role},
            handshake::Scheme,
            url::RtmpUrl,
        },
    },
};
use crossbeam_channel::{Receiver as Channel, Sender};
use glommio::{spawn_local, timer::Timer};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

/// A player's tail that may still be on its way when the run ends: one merged write and more.
const TAIL: Duration = Duration::from_millis(1500);
/// Full rate: at least this share of the stream since the player began.
const FULL_RATE: f64 = 0.99;
const SCRATCH_BYTES: usize = 256 << 10;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Players
    #[arg(short = 'c', default_value_t = 1)]
    clients: usize,
    /// URL; {i} becomes the player's number modulo --streams
    #[arg(short = 'r')]
    url: String,
    /// Streams that {i} counts over
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Measured time in seconds, after all players are connected
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// CPUs to run on [default: all allowed]
    #[arg(long)]
    cpus: Option<String>,
    /// The FLV file that is published in a loop: content is compared with it
    #[arg(short = 'i', value_name = "FILE")]
    file: Option<PathBuf>,
    /// Check the content of every K-th player only; the others drop what they get
    #[arg(long, default_value_t = 1, value_name = "K")]
    check_every: usize,
    /// Report this process's CPU time per delivered GiB, and its memory
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Speak no RTMP, drop whatever comes: the receivers of `floor`
    #[arg(long)]
    raw: bool,
    /// Connects per second; 0 as fast as they go
    #[arg(long, default_value_t = 0)]
    rate: u64,
}

/// What all players of one executor share.
struct Load {
    references: Vec<RefCell<Reference>>,
    scratch: RefCell<Vec<u8>>,
    bytes: Cell<u64>,
    playing: Cell<usize>,
    players: RefCell<Vec<Rc<Player>>>,
    errors: RefCell<HashMap<String, usize>>,
}

struct Player {
    stream: usize,
    checker: Option<RefCell<Checker>>,
    bytes: Cell<u64>,
    alive: Cell<bool>,
}

/// What the main thread asks and the executors answer.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    playing: usize,
    bytes: u64,
}

#[derive(Debug)]
struct Totals {
    /// The least share of its stream that a player got.
    slowest: f64,
    players: usize,
    full_rate: usize,
    checked: usize,
    faults: Faults,
    media_tags: u64,
    errors: HashMap<String, usize>,
}

#[derive(Clone, Copy, Debug)]
enum Ask {
    Sums,
    /// The measured window begins: remember how far everybody is.
    Begin,
    /// [`TAIL`] before its end: likewise.
    Mark,
    Totals,
}

enum Answer {
    Done,
    Sums(Sums),
    Totals(Box<Totals>),
}

struct Executor {
    work: Sender<Connected>,
    ask: Sender<Ask>,
    answers: Channel<Answer>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let url = RtmpUrl::parse(&arguments.url).with_context(|| arguments.url.clone())?;
    let server = connect::resolve(&url)?;
    let tags = arguments.file.as_ref().map(read_flv).transpose()?.map(Arc::new);
    let cpus = cores::allowed(arguments.cpus.as_deref())?;
    let executors: Vec<Executor> =
        cpus.iter().map(|cpu| start(*cpu, arguments, tags.clone())).collect::<Result<_, _>>()?;
    let started = Instant::now();
    let mut refused = 0;
    for index in 0..arguments.clients {
        match connect::connect(index, server) {
            Ok(connected) => {
                executors[index % executors.len()].work.send(connected).context("an executor has ended")?
            }
            Err(error) => {
                refused += 1;
                if refused == 1 {
                    eprintln!("connect: {error}");
                }
            }
        }
        if arguments.rate > 0 {
            let due = Duration::from_secs_f64((index + 1) as f64 / arguments.rate as f64);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }
    let playing = wait_for_players(&executors, arguments.clients - refused)?;
    println!("connected: {} of {} playing after {:.2} s", playing, arguments.clients, started.elapsed().as_secs_f64());
    let report = measure(arguments, &executors)?;
    Ok(print(arguments, &report, refused))
}

/// Waits until everybody who is connected plays; gives up when nobody new does for five seconds.
fn wait_for_players(executors: &[Executor], expected: usize) -> anyhow::Result<usize> {
    let (mut playing, mut since) = (0, Instant::now());
    loop {
        let now = ask_sums(executors)?.playing;
        if now > playing {
            (playing, since) = (now, Instant::now());
        }
        if playing >= expected || since.elapsed() > Duration::from_secs(5) {
            return Ok(playing);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Report {
    totals: Totals,
    bytes: u64,
    seconds: f64,
    cpu_seconds: Option<f64>,
    rss_kib: Option<u64>,
}

fn measure(arguments: &Arguments, executors: &[Executor]) -> anyhow::Result<Report> {
    let cpu = || arguments.pid.map(process::cpu_seconds).transpose();
    // Every player has got the GOP that it began with: what comes now comes in real time.
    std::thread::sleep(TAIL);
    ask_all(executors, Ask::Begin)?;
    let (cpu_before, bytes_before, started) = (cpu()?, ask_sums(executors)?.bytes, Instant::now());
    let total = Duration::from_secs(arguments.seconds);
    std::thread::sleep(total.saturating_sub(TAIL));
    ask_all(executors, Ask::Mark)?;
    std::thread::sleep(total.saturating_sub(started.elapsed()));
    let bytes = ask_sums(executors)?.bytes - bytes_before;
    let seconds = started.elapsed().as_secs_f64();
    let cpu_seconds = cpu()?.zip(cpu_before).map(|(after, before)| after - before);
    let mut totals = Totals::default();
    for answer in ask_all(executors, Ask::Totals)? {
        if let Answer::Totals(part) = answer {
            totals.add(&part);
        }
    }
    Ok(Report { totals, bytes, seconds, cpu_seconds, rss_kib: arguments.pid.map(process::rss_kib).transpose()? })
}

fn print(arguments: &Arguments, report: &Report, refused: usize) -> bool {
    let Report { totals, bytes, seconds, .. } = report;
    let gib = *bytes as f64 / f64::from(1 << 30);
    println!(
        "full rate: {} of {} players, the slowest at {:.0} %",
        totals.full_rate,
        arguments.clients,
        totals.slowest.min(1.0) * 100.0
    );
    println!(
        "content:   {} players checked, {} media tags, {} faults",
        totals.checked,
        totals.media_tags,
        totals.faults.total()
    );
    if totals.faults.total() > 0 {
        println!("           {:?}", totals.faults);
    }
    println!("received:  {gib:.3} GiB in {seconds:.2} s, {:.3} Gbit/s", *bytes as f64 * 8e-9 / seconds);
    if let Some(cpu) = report.cpu_seconds {
        println!(
            "server:    {cpu:.2} CPU s, {:.3} CPU s/GiB, RSS {} KiB",
            cpu / gib.max(1e-9),
            report.rss_kib.unwrap_or(0)
        );
    }
    for (error, count) in &totals.errors {
        println!("error:     {count} x {error}");
    }
    if refused > 0 {
        println!("error:     {refused} x connect refused");
    }
    totals.full_rate == arguments.clients && totals.faults.total() == 0
}

fn ask_all(executors: &[Executor], ask: Ask) -> anyhow::Result<Vec<Answer>> {
    executors.iter().try_for_each(|executor| executor.ask.send(ask))?;
    Ok(executors.iter().map(|executor| executor.answers.recv()).collect::<Result<_, _>>()?)
}

fn ask_sums(executors: &[Executor]) -> anyhow::Result<Sums> {
    let mut sums = Sums::default();
    for answer in ask_all(executors, Ask::Sums)? {
        if let Answer::Sums(part) = answer {
            sums.playing += part.playing;
            sums.bytes += part.bytes;
        }
    }
    Ok(sums)
}

pub(crate) fn read_flv(path: &PathBuf) -> anyhow::Result<Vec<Tag>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let tags = file::read_file(Bytes::from(bytes)).with_context(|| path.display().to_string())?;
    if tags.len() < 2 {
        bail!("{}: no tags", path.display());
    }
    Ok(tags)
}

fn start(cpu: usize, arguments: &Arguments, tags: Option<Arc<Vec<Tag>>>) -> anyhow::Result<Executor> {
    let (work, connections) = crossbeam_channel::unbounded();
    let (ask, asked) = crossbeam_channel::unbounded();
    let (answer, answers) = crossbeam_channel::unbounded();
    let arguments = arguments.clone();
    cores::spawn(&format!("bench-{cpu}"), cpu, move || serve(arguments, tags, connections, asked, answer))
        .map_err(|error| anyhow::anyhow!("CPU {cpu}: {error}"))?;
    Ok(Executor { work, ask, answers })
}

/// An executor's main: takes connections in, answers questions.
async fn serve(
    arguments: Arguments,
    tags: Option<Arc<Vec<Tag>>>,
    connections: Channel<Connected>,
    asked: Channel<Ask>,
    answer: Sender<Answer>,
) {
    let Ok(_awake) = KeepAwake::start() else { return };
    let reference = || tags.as_ref().map_or_else(Reference::default, |tags| Reference::of_file(tags));
    let load = Rc::new(Load {
        references: (0..arguments.streams).map(|_| RefCell::new(reference())).collect(),
        scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
        bytes: Cell::new(0),
        playing: Cell::new(0),
        players: RefCell::new(Vec::new()),
        errors: RefCell::new(HashMap::new()),
    });
    let (mut begin, mut marks) = (Vec::new(), Vec::new());
    loop {
        for connected in connections.try_iter() {
            spawn_local(play(Rc::clone(&load), arguments.clone(), connected)).detach();
        }
        while let Ok(ask) = asked.try_recv() {
            let answered = match ask {
                Ask::Sums => Answer::Sums(Sums { playing: load.playing.get(), bytes: load.bytes.get() }),
                Ask::Begin => {
                    begin = load.marks();
                    Answer::Done
                }
                Ask::Mark => {
                    marks = load.marks();
                    Answer::Done
                }
                Ask::Totals => Answer::Totals(Box::new(load.totals(&begin, &marks))),
            };
            if answer.send(answered).is_err() {
                return;
            }
        }
        Timer::new(Duration::from_millis(5)).await;
    }
}

async fn play(load: Rc<Load>, arguments: Arguments, connected: Connected) {
    let index = connected.index;
    let stream = index % arguments.streams;
    let checked = !arguments.raw && index.is_multiple_of(arguments.check_every.max(1));
    let player = Rc::new(Player {
        stream,
        checker: checked.then(RefCell::default),
        bytes: Cell::new(0),
        alive: Cell::new(true),
    });
    load.players.borrow_mut().push(Rc::clone(&player));
    let mut receiver = connected.receiver();
    let result = if arguments.raw {
        load.playing.set(load.playing.get() + 1);
        discard(&load, &player, &mut receiver).await
    } else {
        let url = arguments.url.replace("{i}", &stream.to_string());
        receive(&load, &player, &mut receiver, &url, index).await
    };
    player.alive.set(false);
    if let Err(error) = result {
        *load.errors.borrow_mut().entry(error.to_string()).or_default() += 1;
    }
    receiver.shutdown();
}

async fn receive(load: &Load, player: &Player, receiver: &mut Receiver, url: &str, index: usize) -> anyhow::Result<()> {
    let url = RtmpUrl::parse(url)?;
    let mut session = ClientSession::start(url, Role::Play, Scheme::Simple, index as u64);
    receiver.send_blocking(&session.take_output())?;
    loop {
        let playing = poll_fn(|cx| {
            let mut scratch = load.scratch.borrow_mut();
            match receiver.poll_read(cx, &mut scratch) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(0)) => Poll::Ready(Err(anyhow::anyhow!("the server closed the connection"))),
                Poll::Ready(Ok(bytes)) => Poll::Ready(load.take(player, &mut session, &scratch[..bytes])),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            }
        })
        .await?;
        let output = session.take_output();
        if !output.is_empty() {
            receiver.send_blocking(&output)?;
        }
        if playing && player.checker.is_none() {
            return discard(load, player, receiver).await;
        }
        glommio::yield_if_needed().await;
    }
}

/// Drops whatever comes, at the least cost.
async fn discard(load: &Load, player: &Player, receiver: &mut Receiver) -> anyhow::Result<()> {
    loop {
        let bytes = poll_fn(|cx| receiver.poll_discard(cx)).await?;
        if bytes == 0 {
            bail!("the server closed the connection");
        }
        load.count(player, bytes);
        glommio::yield_if_needed().await;
    }
}

impl Load {
    fn count(&self, player: &Player, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
        player.bytes.set(player.bytes.get() + bytes as u64);
    }

    /// Gives received bytes to a player; tells whether it plays.
    fn take(&self, player: &Player, session: &mut ClientSession, bytes: &[u8]) -> anyhow::Result<bool> {
        self.count(player, bytes.len());
        let mut input = bytes;
        let mut playing = false;
        while let Some(event) = session.next_event(&mut input)? {
            match event {
                Event::Playing => {
                    playing = true;
                    self.playing.set(self.playing.get() + 1);
                }
                Event::Tag(tag) => {
                    if let Some(checker) = &player.checker {
                        let mut reference = self.references[player.stream].borrow_mut();
                        let mut checker = checker.borrow_mut();
                        checker.tag(&tag, &mut reference);
                    }
                }
                Event::Status { code, error: true, .. } => bail!("the server says {code}"),
                Event::Publishing | Event::StreamEof | Event::Status { .. } => {}
            }
        }
        Ok(playing)
    }

    /// For each player, media tags (or bytes) so far.
    fn marks(&self) -> Vec<u64> {
        self.players.borrow().iter().map(|player| player.progress()).collect()
    }

    /// Full rate: from the window's begin to its end a player got what the best one of its stream got
    /// from the begin to [`TAIL`] before the end, and missed nothing.
    fn totals(&self, begin: &[u64], marks: &[u64]) -> Totals {
        let players = self.players.borrow();
        let mut totals = Totals { players: players.len(), errors: self.errors.borrow().clone(), ..Totals::default() };
        let mut best: HashMap<(usize, bool), u64> = HashMap::new();
        for (player, (begin, mark)) in players.iter().zip(begin.iter().zip(marks)) {
            let gained = best.entry((player.stream, player.checker.is_some())).or_default();
            *gained = (*gained).max(mark - begin);
        }
        for (player, begin) in players.iter().zip(begin) {
            let best = best.get(&(player.stream, player.checker.is_some())).copied().unwrap_or(0);
            let full = (player.progress() - begin) as f64 >= best as f64 * FULL_RATE;
            let whole = player.checker.as_ref().is_none_or(|checker| checker.borrow().faults.total() == 0);
            totals.full_rate += usize::from(full && whole && best > 0 && player.alive.get());
            let share = (player.progress() - begin) as f64 / best.max(1) as f64;
            totals.slowest = totals.slowest.min(share);
            if let Some(checker) = &player.checker {
                let checker = checker.borrow();
                totals.checked += 1;
                totals.media_tags += checker.media_tags;
                totals.faults.add(&checker.faults);
            }
        }
        totals
    }
}

impl Player {
    fn progress(&self) -> u64 {
        self.checker.as_ref().map_or(self.bytes.get(), |checker| checker.borrow().media_tags)
    }
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            slowest: f64::INFINITY,
            players: 0,
            full_rate: 0,
            checked: 0,
            faults: Faults::default(),
            media_tags: 0,
            errors: HashMap::new(),
        }
    }
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.slowest = self.slowest.min(other.slowest);
        self.players += other.players;
        self.full_rate += other.full_rate;
        self.checked += other.checked;
        self.media_tags += other.media_tags;
        self.faults.add(&other.faults);
        for (error, count) in &other.errors {
            *self.errors.entry(error.clone()).or_default() += count;
        }
    }
}
