//! One player: connects, plays, checks or drops what it gets, and perhaps leaves and comes again.

use crate::{
    check::{Checker, Faults},
    clock, connect,
    executor::{Group, Load, TAIL, micros},
    flv::{FlvSession, ResponseError},
    scenario::{self, Players, Url},
    transport::Transport,
};
use corecast::proto::{
    codec::{self, Class},
    flv::{Tag, TagKind},
    rtmp::{
        client::{ClientSession, Event, Role},
        handshake::Scheme,
    },
};
use futures_lite::future;
use glommio::{spawn_local, timer::Timer};
use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    time::{Duration, Instant},
};

/// From connect to `NetStream.Play.Start`.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A player whose join failed comes again so much later, where players come and go.
const RETRY: Duration = Duration::from_secs(1);

/// How far a player is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Media tags of a checked player, bytes of another.
    pub(crate) amount: u64,
    media_ms: Option<u32>,
    at: Instant,
}

/// What a player got within the window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlayerResult {
    pub(crate) stream: usize,
    pub(crate) checked: bool,
    /// Media tags of a checked player, bytes of another: up to [`TAIL`] before the end, and to the end.
    pub(crate) until_mark: u64,
    pub(crate) until_end: u64,
    /// How fast its media went: 1 is as fast as the clock. As it is, and if [`TAIL`] is on its way.
    pub(crate) pace: Option<(f64, f64)>,
    pub(crate) whole: bool,
    pub(crate) alive: bool,
}

/// A player's place in its group; with players that come and go, of one after the other.
pub(crate) struct Player {
    pub(crate) stream: usize,
    checker: Option<RefCell<Checker>>,
    pub(crate) bytes: Cell<u64>,
    /// Bytes at the last look of the main thread.
    pub(crate) looked: Cell<u64>,
    pub(crate) alive: Cell<bool>,
    playing: Cell<bool>,
    started: Cell<bool>,
    connected_at: Cell<Instant>,
    last_read: Cell<Instant>,
    stall: Cell<Duration>,
    pub(crate) begin: Cell<Progress>,
    pub(crate) mark: Cell<Progress>,
}

/// Spawns the players of those groups that `which` picks.
pub(crate) fn spawn_groups(load: &Rc<Load>, which: impl Fn(&Players) -> bool) {
    for at in 0..load.groups.len() {
        if which(&load.groups[at].spec) {
            spawn_local(spawn_group(Rc::clone(load), at)).detach();
        }
    }
}

async fn spawn_group(load: Rc<Load>, at: usize) {
    let spec = &load.groups[at].spec;
    if let Some(after_s) = spec.after_s {
        Timer::new(Duration::from_secs_f64(after_s.max(0.0))).await;
    }
    let started = Instant::now();
    for index in (load.part..spec.count).step_by(load.plan.executors) {
        if spec.rate > 0.0 {
            let due = Duration::from_secs_f64(index as f64 / spec.rate);
            let early = due.saturating_sub(started.elapsed());
            if !early.is_zero() {
                Timer::new(early).await;
            }
        }
        spawn_local(run(Rc::clone(&load), at, index)).detach();
        glommio::yield_if_needed().await;
    }
}

async fn run(load: Rc<Load>, at: usize, index: usize) {
    let group = &load.groups[at];
    let player = Rc::new(Player::new(group, index));
    group.players.borrow_mut().push(Rc::clone(&player));
    while !load.stopping.get() {
        let life = live(&load, group, &player, index);
        let result = match group.spec.stay_s {
            None => life.await,
            Some([least, most]) => {
                let stay = Duration::from_secs_f64(least + (most - least) * fastrand::f64());
                future::or(life, async {
                    Timer::new(stay).await;
                    Ok(())
                })
                .await
            }
        };
        player.leave(group);
        let failed = result.is_err();
        if let Err(failure) = result {
            load.fail(&failure.to_string());
        }
        if group.spec.stay_s.is_none() {
            return;
        }
        if failed {
            Timer::new(RETRY).await;
        }
        player.come_again(group);
    }
}

/// What a player speaks.
enum Session {
    Rtmp(Box<ClientSession>),
    Flv(FlvSession),
}

impl Session {
    fn take_output(&mut self) -> Vec<u8> {
        match self {
            Self::Rtmp(session) => session.take_output(),
            Self::Flv(session) => session.take_output(),
        }
    }
}

impl From<ResponseError> for Failure {
    fn from(error: ResponseError) -> Self {
        match error {
            ResponseError::Refused(status) => Self::Refused(status),
            ResponseError::Malformed | ResponseError::Flv(_) | ResponseError::Ended => Self::Garbage(error.to_string()),
        }
    }
}

/// Why a player's life ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("connect: {}", .0.kind())]
    Connect(io::Error),
    #[error("no answer within {} s", ANSWER_LIMIT.as_secs())]
    NoAnswer,
    #[error("closed before it played ({0})")]
    ClosedBefore(io::ErrorKind),
    #[error("closed while it played ({0})")]
    ClosedWhile(io::ErrorKind),
    #[error("not as it should be: {0}")]
    Garbage(String),
    #[error("refused: {0}")]
    Refused(String),
    #[error("TLS: {0}")]
    Tls(String),
}

async fn live(load: &Load, group: &Group, player: &Player, index: usize) -> Result<(), Failure> {
    player.connected_at.set(Instant::now());
    let receiver = connect::connect(group.first + index, group.server).await.map_err(Failure::Connect)?;
    let spec = &group.spec;
    let template = spec.url.replace("{i}", &player.stream.to_string());
    let Ok(url) = scenario::parse(&template) else { return Err(Failure::Refused("a bad URL".to_owned())) };
    let tls = scenario::is_tls(&template).then_some(url.host().0);
    let mut transport = Transport::new(receiver, tls).map_err(|error| Failure::Tls(error.to_string()))?;
    if spec.raw {
        player.start(group, None);
        return drop_all(load, player, spec, &mut transport).await;
    }
    let mut session = match url {
        Url::Rtmp(url) => Session::Rtmp(Box::new(ClientSession::start(url, Role::Play, Scheme::Simple, index as u64))),
        Url::Flv(url) => Session::Flv(FlvSession::start(&url)),
    };
    transport.send(&session.take_output()).map_err(|error| player.closed(error))?;
    loop {
        let most = spec.read_bytes_per_s.map_or(usize::MAX, read_at_most);
        let receive = async {
            let taken = transport.receive(&load.scratch, most, |bytes| take(load, group, player, &mut session, bytes));
            taken.await.map_err(|error| player.closed(error))?
        };
        if player.playing.get() {
            receive.await?;
        } else {
            let late = async {
                Timer::new(ANSWER_LIMIT.saturating_sub(player.connected_at.get().elapsed())).await;
                Err(Failure::NoAnswer)
            };
            future::or(receive, late).await?;
        }
        let output = session.take_output();
        if !output.is_empty() {
            transport.send(&output).map_err(|error| player.closed(error))?;
        }
        if spec.leave && player.started.get() {
            return Ok(());
        }
        if player.started.get() && player.checker.is_none() && transport.is_plain() {
            return drop_all(load, player, spec, &mut transport).await;
        }
        keep_pace(player, spec).await;
        if player.started.get() && player.checker.is_none() {
            // TLS must be read, but as seldom as plain bytes are dropped.
            load.rest().await;
        }
        glommio::yield_if_needed().await;
    }
}

/// Drops whatever comes, at the least cost.
async fn drop_all(load: &Load, player: &Player, spec: &Players, transport: &mut Transport) -> Result<(), Failure> {
    loop {
        let bytes = match spec.read_bytes_per_s {
            None => transport.discard().await,
            Some(rate) => transport.receive(&load.scratch, read_at_most(rate), <[u8]>::len).await,
        };
        player.count(load, bytes.map_err(|error| player.closed(error))?);
        keep_pace(player, spec).await;
        load.rest().await;
        glommio::yield_if_needed().await;
    }
}

/// A slow reader reads a tenth of a second's bytes at once.
fn read_at_most(rate: u64) -> usize {
    usize::try_from(rate / 10).unwrap_or(usize::MAX).max(1)
}

async fn keep_pace(player: &Player, spec: &Players) {
    let Some(rate) = spec.read_bytes_per_s else { return };
    let due = Duration::from_secs_f64(player.bytes.get() as f64 / rate.max(1) as f64);
    let elapsed = player.connected_at.get().elapsed();
    if due > elapsed {
        Timer::new(due - elapsed).await;
    }
}

/// Gives received bytes to a player.
fn take(load: &Load, group: &Group, player: &Player, session: &mut Session, mut input: &[u8]) -> Result<(), Failure> {
    player.count(load, input.len());
    let session = match session {
        Session::Rtmp(session) => session,
        Session::Flv(session) => {
            while let Some(tag) = session.next_tag(&mut input)? {
                player.play(group);
                player.tag(load, group, &tag);
            }
            if session.is_playing() {
                player.play(group);
            }
            return Ok(());
        }
    };
    loop {
        let event = session.next_event(&mut input).map_err(|error| Failure::Garbage(kind_of(&error.to_string())))?;
        match event {
            None => return Ok(()),
            Some(Event::Playing) => player.play(group),
            Some(Event::Tag(tag)) => player.tag(load, group, &tag),
            Some(Event::Status { code, error: true, .. }) => return Err(Failure::Refused(code)),
            Some(Event::Publishing | Event::StreamEof | Event::Status { .. }) => {}
        }
    }
}

/// An error's text without its numbers, so that equal ones count as one.
fn kind_of(text: &str) -> String {
    let mut kind = String::new();
    for c in text.chars() {
        match (c.is_ascii_digit(), kind.ends_with('N')) {
            (true, true) => {}
            (true, false) => kind.push('N'),
            (false, _) => kind.push(c),
        }
    }
    kind
}

impl Player {
    fn new(group: &Group, index: usize) -> Self {
        let spec = &group.spec;
        let checked = !spec.raw && spec.check_every > 0 && index.is_multiple_of(spec.check_every);
        let now = Instant::now();
        let nothing = Progress { amount: 0, media_ms: None, at: now };
        Self {
            stream: index % spec.streams,
            checker: checked.then(RefCell::default),
            bytes: Cell::new(0),
            looked: Cell::new(0),
            alive: Cell::new(true),
            playing: Cell::new(false),
            started: Cell::new(false),
            connected_at: Cell::new(now),
            last_read: Cell::new(now),
            stall: Cell::default(),
            begin: Cell::new(nothing),
            mark: Cell::new(nothing),
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        let checker = self.checker.as_ref().map(RefCell::borrow);
        Progress {
            amount: checker.as_ref().map_or(self.bytes.get(), |checker| checker.media_tags),
            media_ms: checker.and_then(|checker| checker.newest_ms()),
            at: Instant::now(),
        }
    }

    /// What it got since the window's begin.
    pub(crate) fn result(&self) -> PlayerResult {
        let (begin, mark, now) = (self.begin.get(), self.mark.get(), self.progress());
        let media_ms = now.media_ms.zip(begin.media_ms).map(|(now, begin)| now.wrapping_sub(begin));
        let wall = now.at.saturating_duration_since(begin.at);
        let pace = |media_ms: u32, wall: Duration| f64::from(media_ms) / 1000.0 / wall.as_secs_f64().max(0.001);
        PlayerResult {
            stream: self.stream,
            checked: self.checker.is_some(),
            until_mark: mark.amount.saturating_sub(begin.amount),
            until_end: now.amount.saturating_sub(begin.amount),
            pace: media_ms.map(|media_ms| (pace(media_ms, wall), pace(media_ms, wall.saturating_sub(TAIL)))),
            whole: self.faults().total() == 0,
            alive: self.alive.get(),
        }
    }

    pub(crate) fn faults(&self) -> Faults {
        self.checker.as_ref().map(|checker| checker.borrow().faults).unwrap_or_default()
    }

    pub(crate) fn media_tags(&self) -> u64 {
        self.checker.as_ref().map_or(0, |checker| checker.borrow().media_tags)
    }

    /// The longest time without a byte within the window.
    pub(crate) fn longest_stall(&self) -> Duration {
        let since = self.last_read.get().max(self.begin.get().at);
        self.stall.get().max(since.elapsed())
    }

    fn count(&self, load: &Load, bytes: usize) {
        load.bytes.set(load.bytes.get() + bytes as u64);
        self.bytes.set(self.bytes.get() + bytes as u64);
        if load.measuring.get() && self.started.get() {
            let now = Instant::now();
            let since = self.last_read.replace(now).max(self.begin.get().at);
            self.stall.set(self.stall.get().max(now - since));
        }
    }

    fn play(&self, group: &Group) {
        if !self.playing.replace(true) {
            group.playing.set(group.playing.get() + 1);
        }
    }

    /// Its picture begins: at the first keyframe, or with audio alone. `first` is when it connected.
    fn start(&self, group: &Group, connected_at: Option<Instant>) {
        self.play(group);
        if !self.started.replace(true) {
            group.started.set(group.started.get() + 1);
            if let Some(connected_at) = connected_at {
                group.metrics.borrow_mut().join.saturating_record(micros(connected_at.elapsed()));
            }
        }
    }

    fn tag(&self, load: &Load, group: &Group, tag: &Tag) {
        if !self.started.get() {
            let class = codec::inspect(tag.kind, &tag.body).class;
            let reference = load.plan.tags.as_deref();
            let has_video = reference.is_none_or(|tags| tags.iter().any(|tag| tag.kind == TagKind::Video));
            if class == Class::Keyframe || class == Class::Audio && !has_video {
                self.start(group, Some(self.connected_at.get()));
            }
        }
        let Some(checker) = &self.checker else { return };
        let stream = if group.references.len() == 1 { 0 } else { self.stream };
        checker.borrow_mut().tag(tag, &mut group.references[stream].borrow_mut());
        if load.measuring.get()
            && tag.kind == TagKind::Video
            && let (Some(sent_us), ..) = clock::split(&tag.body)
        {
            let latency = clock::now_us().saturating_sub(sent_us);
            group.metrics.borrow_mut().latency.saturating_record(latency);
        }
    }

    fn closed(&self, error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::InvalidData {
            return Failure::Tls(error.to_string());
        }
        if self.playing.get() { Failure::ClosedWhile(error.kind()) } else { Failure::ClosedBefore(error.kind()) }
    }

    fn leave(&self, group: &Group) {
        self.alive.set(false);
        if self.playing.replace(false) {
            group.playing.set(group.playing.get() - 1);
        }
        if self.started.replace(false) && !group.spec.leave {
            group.started.set(group.started.get() - 1);
        }
    }

    fn come_again(&self, group: &Group) {
        if let Some(checker) = &self.checker {
            let Checker { media_tags, faults, .. } = checker.take();
            let (past_tags, mut past_faults) = group.past.get();
            past_faults.add(&faults);
            group.past.set((past_tags + media_tags, past_faults));
        }
        self.alive.set(true);
    }
}
