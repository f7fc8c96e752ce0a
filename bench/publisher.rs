//! Publishers: one file, in real time, over and over.

use crate::{
    clock, connect,
    load::Load,
    scenario::{self, Publishers},
    transport::Transport,
};
use corecast::{
    proto::{
        flv::Tag,
        rtmp::{
            client::{ClientSession, Event, Role},
            handshake::Scheme,
        },
    },
    sys::{Ended, Gather, SendBuf, SendRing},
};
use glommio::{spawn_local, timer::Timer};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    net::SocketAddr,
    os::fd::RawFd,
    rc::Rc,
    time::{Duration, Instant},
};

/// How often due tags are sent.
const TICK: Duration = Duration::from_millis(10);
/// The pause between the end of the file and its next round, in ms of its clock.
const ROUND_GAP_MS: u32 = 33;
/// What a publisher may have waiting: beyond it the server is said not to read.
const BACKLOG_BYTES_MAX: usize = 8 << 20;
/// Bytes read at once; a server says little to a publisher.
const SCRATCH_BYTES: usize = 4096;

/// One publisher's connection, fed by its executor's tick.
struct Publisher {
    transport: RefCell<Transport>,
    descriptor: RawFd,
    session: RefCell<ClientSession>,
    clock: bool,
    publishing: Cell<bool>,
    closed: Cell<bool>,
    sending: Cell<bool>,
    waiting: RefCell<Vec<u8>>,
    /// The next tag, and what is added to its time.
    at: Cell<(usize, u32)>,
    began: Cell<Instant>,
}

/// Runs an executor's publishers until the load stops.
pub(crate) async fn run(load: Rc<Load>) {
    let Some(tags) = load.plan.tags.clone() else { return };
    let plan = Rc::clone(&load);
    let groups = plan.plan.scenario.publishers.iter().zip(&plan.plan.publish_to);
    let publishers: Rc<RefCell<Vec<Rc<Publisher>>>> = Rc::default();
    let mut first = load.groups.iter().map(|group| group.spec.count).sum::<usize>();
    for (spec, server) in groups {
        let begin = begin(Rc::clone(&load), spec.clone(), *server, first, Rc::clone(&publishers));
        spawn_local(begin).detach();
        first += spec.count;
    }
    let Ok(mut ring) = SendRing::new() else { return load.fail("no send ring for publishers") };
    let round_ms = tags.iter().map(|tag| tag.timestamp).max().unwrap_or(0) + ROUND_GAP_MS;
    let mut ended = Vec::new();
    while !load.stopping.get() {
        for (index, publisher) in publishers.borrow().iter().enumerate() {
            if !publisher.closed.get() {
                publisher.send_due(&load, &tags, round_ms);
                publisher.push(&mut ring, index as u64);
            }
        }
        ring.pump(&mut ended);
        for Ended { token, whole, .. } in ended.drain(..) {
            let publisher = usize::try_from(token).ok().and_then(|at| publishers.borrow().get(at).cloned());
            if let Some(publisher) = publisher {
                publisher.sending.set(false);
                if !whole {
                    publisher.end(&load, "closed while it published");
                }
            }
        }
        Timer::new(TICK).await;
    }
    for publisher in publishers.borrow().iter().filter(|publisher| !publisher.closed.replace(true)) {
        publisher.session.borrow_mut().close();
        let output = publisher.session.borrow_mut().take_output();
        let mut transport = publisher.transport.borrow_mut();
        // The end of the run: a server that is gone is no fault any more.
        drop(transport.send(&output));
        transport.shutdown();
    }
    load.publishing.set(0);
}

async fn begin(
    load: Rc<Load>,
    spec: Publishers,
    server: SocketAddr,
    first: usize,
    publishers: Rc<RefCell<Vec<Rc<Publisher>>>>,
) {
    let started = Instant::now();
    for index in (load.part..spec.count).step_by(load.plan.executors) {
        if spec.rate > 0.0 {
            let due = Duration::from_secs_f64(index as f64 / spec.rate);
            Timer::new(due.saturating_sub(started.elapsed())).await;
        }
        match open(&spec, index, first, server).await {
            Ok(publisher) => {
                let publisher = Rc::new(publisher);
                publishers.borrow_mut().push(Rc::clone(&publisher));
                spawn_local(listen(publisher, Rc::clone(&load))).detach();
            }
            Err(error) => load.fail(&format!("publisher: {error}")),
        }
    }
}

async fn open(spec: &Publishers, index: usize, first: usize, server: SocketAddr) -> anyhow::Result<Publisher> {
    let receiver =
        connect::connect(first + index, server).await.map_err(|error| anyhow::anyhow!("connect: {}", error.kind()))?;
    let template = spec.url.replace("{i}", &index.to_string());
    let url = scenario::parse_rtmp(&template)?;
    let tls = scenario::is_tls(&template).then(|| url.host.clone());
    let mut transport = Transport::new(receiver, tls.as_deref())?;
    let mut session = ClientSession::start(url, Role::Publish, Scheme::Simple, index as u64);
    transport.send(&session.take_output())?;
    Ok(Publisher {
        descriptor: transport.descriptor(),
        transport: RefCell::new(transport),
        session: RefCell::new(session),
        clock: spec.clock,
        publishing: Cell::new(false),
        closed: Cell::new(false),
        sending: Cell::new(false),
        waiting: RefCell::default(),
        at: Cell::new((0, 0)),
        began: Cell::new(Instant::now()),
    })
}

/// Reads what the server says.
async fn listen(publisher: Rc<Publisher>, load: Rc<Load>) {
    let mut scratch = vec![0; SCRATCH_BYTES];
    loop {
        let received = poll_fn(|cx| {
            let mut transport = publisher.transport.borrow_mut();
            transport.poll_receive(cx, &mut scratch, SCRATCH_BYTES, &mut |bytes| publisher.take(bytes, &load))
        })
        .await;
        let taken = received.map_err(|error| format!("closed ({})", error.kind())).and_then(|taken| taken);
        if publisher.closed.get() {
            return;
        }
        if let Err(reason) = taken {
            return publisher.end(&load, &reason);
        }
    }
}

impl Publisher {
    fn take(&self, mut input: &[u8], load: &Load) -> Result<(), String> {
        loop {
            let event = self.session.borrow_mut().next_event(&mut input);
            match event.map_err(|error| format!("not RTMP: {error}"))? {
                None => return Ok(()),
                Some(Event::Publishing) => {
                    self.publishing.set(true);
                    self.began.set(Instant::now());
                    load.publishing.set(load.publishing.get() + 1);
                }
                Some(Event::Status { code, error: true, description }) => {
                    return Err(format!("refused: {code}: {description}"));
                }
                Some(Event::Redirect(url)) => return Err(format!("refused: sent to {url}")),
                Some(Event::Playing | Event::Status { .. } | Event::StreamEof | Event::Tag(_)) => {}
            }
        }
    }

    fn end(&self, load: &Load, reason: &str) {
        if !self.closed.replace(true) {
            load.fail(&format!("publisher: {reason}"));
            if self.publishing.replace(false) {
                load.publishing.set(load.publishing.get() - 1);
            }
        }
    }

    /// Writes the tags whose time has come.
    fn send_due(&self, load: &Load, tags: &[Tag], round_ms: u32) {
        if !self.publishing.get() {
            return;
        }
        if self.waiting.borrow().len() > BACKLOG_BYTES_MAX {
            return self.end(load, "the server does not read");
        }
        let now_ms = u32::try_from(self.began.get().elapsed().as_millis()).unwrap_or(u32::MAX);
        let (mut at, mut offset) = self.at.get();
        let mut session = self.session.borrow_mut();
        while let Some(tag) = tags.get(at) {
            let timestamp = tag.timestamp.wrapping_add(offset);
            if timestamp > now_ms {
                break;
            }
            let body = if self.clock { clock::stamp(tag) } else { tag.body.clone() };
            session.send_tag(&Tag { timestamp, body, kind: tag.kind });
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
        let output = self.session.borrow_mut().take_output();
        let mut waiting = self.waiting.borrow_mut();
        if !output.is_empty() {
            waiting.extend_from_slice(&output);
        }
        if waiting.is_empty() || self.sending.get() {
            return;
        }
        self.sending.set(true);
        // TLS into memory does not fail.
        let bytes = self.transport.borrow_mut().wrap(std::mem::take(&mut waiting)).unwrap_or_default();
        let gather = Gather::new(bytes);
        ring.push(index, self.descriptor, SendBuf::Gather(Box::new(gather)));
    }
}
