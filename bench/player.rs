//! One player: connects, plays, checks or drops what it gets, and perhaps leaves and comes again.

use crate::{
    connect,
    hls::HlsSession,
    load::{Group, Load, Player},
    scenario::{self, Players, Url},
    transport::Transport,
};
use corecast::proto::{
    http::client::{FlvSession, ResponseError},
    rtmp::{
        client::{ClientSession, Event, Role},
        handshake::Scheme,
    },
};
use futures_lite::future;
use glommio::{spawn_local, timer::Timer};
use std::{
    io,
    rc::Rc,
    time::{Duration, Instant},
};

/// From connect to `NetStream.Play.Start`.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A player whose join failed comes again so much later, where players come and go.
const RETRY: Duration = Duration::from_secs(1);

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
    Hls(Box<HlsSession>),
}

impl Session {
    fn take_output(&mut self) -> Vec<u8> {
        match self {
            Self::Rtmp(session) => session.take_output(),
            Self::Flv(session) => session.take_output(),
            Self::Hls(session) => session.take_output(),
        }
    }
}

impl From<ResponseError> for Failure {
    fn from(error: ResponseError) -> Self {
        match error {
            ResponseError::Refused(status) => Self::Refused(status),
            ResponseError::Elsewhere(_) | ResponseError::Malformed | ResponseError::Flv(_) | ResponseError::Ended => {
                Self::Garbage(error.to_string())
            }
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
        Url::Flv(url) if scenario::is_playlist(&template) => Session::Hls(Box::new(HlsSession::start(&url))),
        Url::Flv(url) => Session::Flv(FlvSession::start(&url, "User-Agent: corecast-bench\r\n")),
    };
    transport.send(&session.take_output()).map_err(|error| closed(player, error))?;
    loop {
        let most = spec.read_bytes_per_s.map_or(usize::MAX, read_at_most);
        let receive = async {
            let taken = transport.receive(&load.scratch, most, |bytes| take(load, group, player, &mut session, bytes));
            taken.await.map_err(|error| closed(player, error))?
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
        let hls = match &mut session {
            Session::Hls(session) => Some(session.take_pause()),
            Session::Rtmp(_) | Session::Flv(_) => None,
        };
        if let Some(pause) = hls.flatten() {
            Timer::new(pause).await;
        }
        let output = session.take_output();
        if !output.is_empty() {
            transport.send(&output).map_err(|error| closed(player, error))?;
        }
        if spec.leave && player.started.get() {
            return Ok(());
        }
        if hls.is_some() {
            glommio::yield_if_needed().await;
            continue;
        }
        if player.started.get() && !player.is_checked() && transport.is_plain() {
            return drop_all(load, player, spec, &mut transport).await;
        }
        keep_pace(player, spec).await;
        if player.started.get() && !player.is_checked() {
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
        player.count(load, bytes.map_err(|error| closed(player, error))?);
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
        Session::Hls(session) => {
            session.receive(input)?;
            if session.is_playing() && !player.playing.get() {
                player.start(group, Some(player.connected_at.get()));
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
            Some(Event::Redirect(url)) => return Err(Failure::Refused(format!("sent to {url}"))),
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

fn closed(player: &Player, error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::InvalidData {
        return Failure::Tls(error.to_string());
    }
    if player.playing.get() { Failure::ClosedWhile(error.kind()) } else { Failure::ClosedBefore(error.kind()) }
}
