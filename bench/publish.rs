//! Many publishers of one file, in real time, over and over.

use crate::{
    connect::{self, Connected},
    play::read_flv,
};
use anyhow::Context;
use corecast::{
    cores,
    net::{Ended, Gather, KeepAwake, Receiver, SendBuf, SendRing},
    proto::{
        flv::Tag,
        rtmp::{
            client::{ClientSession, Event, Role},
            handshake::Scheme,
            url::RtmpUrl,
        },
    },
};
use glommio::{spawn_local, timer::Timer};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

/// How often due tags are sent.
const TICK: Duration = Duration::from_millis(10);
/// The pause between the end of the file and its next round, in ms of its clock.
const ROUND_GAP_MS: u32 = 33;
/// What a publisher may have waiting before it is said to be slow, in bytes.
const BACKLOG_BYTES_MAX: usize = 8 << 20;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Publishers
    #[arg(short = 'c', default_value_t = 1)]
    clients: usize,
    /// FLV file
    #[arg(short = 'i')]
    file: PathBuf,
    /// URL; {i} becomes the publisher's number, from 0
    #[arg(short = 'r')]
    url: String,
    /// How long, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// CPUs to run on [default: all allowed]
    #[arg(long)]
    cpus: Option<String>,
}

#[derive(Debug, Default)]
struct Counts {
    publishing: AtomicUsize,
    failed: AtomicUsize,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let tags = Arc::new(read_flv(&arguments.file)?);
    let server = connect::resolve(&RtmpUrl::parse(&arguments.url).with_context(|| arguments.url.clone())?)?;
    let cpus = cores::allowed(arguments.cpus.as_deref())?;
    let counts = Arc::new(Counts::default());
    let until = Instant::now() + Duration::from_secs(arguments.seconds);
    let mut executors = Vec::new();
    for (part, cpu) in cpus.iter().enumerate() {
        let mine = (0..arguments.clients).filter(|index| index % cpus.len() == part);
        let connected = mine.map(|index| connect::connect(index, server)).collect::<Result<Vec<_>, _>>();
        let connected = connected.with_context(|| format!("connect to {server}"))?;
        let (tags, counts, url) = (Arc::clone(&tags), Arc::clone(&counts), arguments.url.clone());
        let main = move || serve(connected, tags, counts, url, until);
        executors.push(cores::spawn(&format!("bench-{cpu}"), *cpu, main).map_err(|error| anyhow::anyhow!("{error}"))?);
    }
    let mut announced = false;
    while Instant::now() < until {
        let (publishing, failed) = (counts.publishing.load(Ordering::Relaxed), counts.failed.load(Ordering::Relaxed));
        if !announced && publishing + failed == arguments.clients {
            println!("publishing: {publishing} of {}", arguments.clients);
            announced = true;
        }
        if failed == arguments.clients {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for executor in executors {
        executor.join().map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    let failed = counts.failed.load(Ordering::Relaxed);
    println!("done: {failed} of {} publishers failed", arguments.clients);
    Ok(failed == 0)
}

/// One publisher's connection, fed by its executor's tick.
struct Publisher {
    receiver: RefCell<Receiver>,
    session: RefCell<ClientSession>,
    publishing: Cell<bool>,
    closed: Cell<bool>,
    sending: Cell<bool>,
    waiting: RefCell<Vec<u8>>,
    /// The next tag, and what is added to its time.
    at: Cell<(usize, u32)>,
    began: Cell<Instant>,
}

async fn serve(connected: Vec<Connected>, tags: Arc<Vec<Tag>>, counts: Arc<Counts>, url: String, until: Instant) {
    let (Ok(_awake), Ok(mut ring)) = (KeepAwake::start(), SendRing::new()) else {
        counts.failed.fetch_add(connected.len(), Ordering::Relaxed);
        return;
    };
    let round_ms = tags.iter().map(|tag| tag.timestamp).max().unwrap_or(0) + ROUND_GAP_MS;
    let mut publishers = Vec::new();
    for connected in connected {
        let index = connected.index;
        let Ok(url) = RtmpUrl::parse(&url.replace("{i}", &index.to_string())) else { continue };
        let publisher = Rc::new(Publisher {
            receiver: RefCell::new(connected.receiver()),
            session: RefCell::new(ClientSession::start(url, Role::Publish, Scheme::Simple, index as u64)),
            publishing: Cell::new(false),
            closed: Cell::new(false),
            sending: Cell::new(false),
            waiting: RefCell::default(),
            at: Cell::new((0, 0)),
            began: Cell::new(Instant::now()),
        });
        publishers.push(Rc::clone(&publisher));
        spawn_local(listen(publisher, Arc::clone(&counts))).detach();
    }
    let mut ended = Vec::new();
    while Instant::now() < until {
        for (index, publisher) in publishers.iter().enumerate().filter(|(_, publisher)| !publisher.closed.get()) {
            publisher.send_due(&tags, round_ms);
            publisher.push(&mut ring, index as u64);
        }
        ring.pump(&mut ended);
        for Ended { token, whole, .. } in ended.drain(..) {
            if let Some(publisher) = usize::try_from(token).ok().and_then(|index| publishers.get(index)) {
                publisher.sending.set(false);
                publisher.closed.set(publisher.closed.get() || !whole);
            }
        }
        Timer::new(TICK).await;
    }
    for publisher in publishers.iter().filter(|publisher| !publisher.closed.replace(true)) {
        publisher.session.borrow_mut().close();
        let output = publisher.session.borrow_mut().take_output();
        // The end of the run: a server that is gone is no fault any more.
        publisher.receiver.borrow().send_blocking(&output).ok();
        publisher.receiver.borrow().shutdown();
    }
}

/// Reads what the server says.
async fn listen(publisher: Rc<Publisher>, counts: Arc<Counts>) {
    let mut scratch = vec![0; 4096];
    loop {
        let read = poll_fn(|cx| match publisher.receiver.try_borrow_mut() {
            Ok(mut receiver) => receiver.poll_read(cx, &mut scratch),
            Err(_) => Poll::Ready(Ok(0)),
        })
        .await;
        let good = read.map_err(anyhow::Error::from).and_then(|bytes| publisher.take(&scratch[..bytes], &counts));
        if publisher.closed.get() {
            return;
        }
        if let Err(error) = good {
            eprintln!("publisher: {error:#}");
            publisher.closed.set(true);
            counts.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
}

impl Publisher {
    fn take(&self, mut input: &[u8], counts: &Counts) -> anyhow::Result<()> {
        anyhow::ensure!(!input.is_empty(), "the server closed the connection");
        while let Some(event) = self.session.borrow_mut().next_event(&mut input)? {
            match event {
                Event::Publishing => {
                    self.publishing.set(true);
                    self.began.set(Instant::now());
                    counts.publishing.fetch_add(1, Ordering::Relaxed);
                }
                Event::Status { code, error: true, description } => anyhow::bail!("{code}: {description}"),
                Event::Playing | Event::Status { .. } | Event::StreamEof | Event::Tag(_) => {}
            }
        }
        Ok(())
    }

    /// Writes the tags whose time has come.
    fn send_due(&self, tags: &[Tag], round_ms: u32) {
        if !self.publishing.get() || self.waiting.borrow().len() > BACKLOG_BYTES_MAX {
            return;
        }
        let now_ms = u32::try_from(self.began.get().elapsed().as_millis()).unwrap_or(u32::MAX);
        let (mut at, mut offset) = self.at.get();
        let mut session = self.session.borrow_mut();
        while let Some(tag) = tags.get(at) {
            let timestamp = tag.timestamp.wrapping_add(offset);
            if timestamp > now_ms {
                break;
            }
            session.send_tag(&Tag { timestamp, ..tag.clone() });
            at += 1;
            if at == tags.len() {
                at = 0;
                offset = offset.wrapping_add(round_ms);
            }
        }
        self.at.set((at, offset));
    }

    /// Queues what is to be sent, unless a send is in flight.
    fn push(&self, ring: &mut SendRing, index: u64) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.append(&mut self.session.borrow_mut().take_output());
        if waiting.is_empty() || self.sending.replace(true) {
            return;
        }
        let gather = Gather::new(std::mem::take(&mut waiting));
        ring.push(index, self.receiver.borrow().descriptor(), SendBuf::Gather(Box::new(gather)));
    }
}
