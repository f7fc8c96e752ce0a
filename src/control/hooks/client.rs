//! HTTP/1.1 as a client: a POST to a URL, over connections that are kept for the next one.
//!
//! A connection is used by one call at a time. What waits for a name, a connection or an answer holds up nothing
//! but its own call, and whoever drops a call drops its connection.

use super::wire::Wire;
use crate::{
    proto::http::url::HttpUrl,
    sys::{CpuMask, Lookups, Receiver},
    tls,
};
use async_channel::Sender;
use bytes::Bytes;
use futures_lite::future;
use glommio::{Task, spawn_local, timer::Timer};
use hashbrown::HashMap;
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Incoming, client::conn::http1, header};
use std::{
    cell::{Cell, RefCell},
    error::Error,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Most bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// How long one address may take to answer.
const CONNECT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 3;
/// How long a connection waits for the next call: less than the 5 s after which servers commonly close it.
const IDLE: Duration = Duration::from_secs(4);
/// Connections to one server that wait.
const IDLE_MAX: usize = 16;
/// After so long a name is looked up anew.
const ADDRESS_AGE: Duration = Duration::from_secs(10);
const AGENT: &str = concat!("corecast/", env!("CARGO_PKG_VERSION"));

static LOOKUPS: Lookups = Lookups::new();

/// What a server says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Those who wait until something that is done for all of them is done.
#[derive(Default)]
struct Waiting {
    begun: Cell<bool>,
    waiting: RefCell<Vec<Sender<()>>>,
}

impl Waiting {
    /// Waits; the first one has it begun.
    async fn join(&self, begin: impl FnOnce()) {
        let (tell, told) = async_channel::bounded(1);
        {
            let mut waiting = self.waiting.borrow_mut();
            // Most have given up if it takes long.
            waiting.retain(|sender| !sender.is_closed());
            waiting.push(tell);
        }
        if !self.begun.replace(true) {
            begin();
        }
        // It ends when what was begun drops the sender.
        _ = told.recv().await;
    }

    fn done(&self) {
        self.begun.set(false);
        self.waiting.take();
    }
}

#[derive(Eq, Hash, PartialEq)]
struct OriginKey {
    secure: bool,
    host: String,
    port: u16,
    /// Connections made in one trust are not another's.
    trust: usize,
}

/// One server: scheme, host, port, and whom it is trusted by.
pub(super) struct Origin {
    /// Never used twice.
    pub(super) id: u64,
    host: String,
    port: u16,
    secure: bool,
    trust: Option<tls::Connector>,
    idle: RefCell<Vec<Link>>,
    /// Questions that it is asked now.
    pub(super) questions: Cell<usize>,
    addresses: RefCell<Option<(Instant, Vec<SocketAddr>)>>,
    error: RefCell<String>,
    looking_up: Waiting,
}

/// A connection, and the task that drives it for as long as this is there.
struct Link {
    sender: http1::SendRequest<Full<Bytes>>,
    _task: Task<()>,
    since: Instant,
}

/// Why a call has no answer.
struct Failure {
    text: String,
    /// Nothing of an answer had come.
    unanswered: bool,
}

pub(super) struct Client {
    origins: RefCell<HashMap<OriginKey, Rc<Origin>>>,
    next: Cell<u64>,
    /// Where threads may run that it starts.
    cpus: Option<CpuMask>,
    /// Whom the system trusts; read when first needed.
    system: Rc<System>,
    reaping: Cell<bool>,
}

#[derive(Default)]
struct System {
    found: RefCell<Option<Result<tls::Connector, String>>>,
    reading: Waiting,
}

impl Client {
    pub(super) fn new(cpus: Option<CpuMask>) -> Self {
        Self { origins: RefCell::default(), next: Cell::new(0), cpus, system: Rc::default(), reaping: Cell::new(false) }
    }

    /// The server of a URL.
    pub(super) fn origin(&self, url: &HttpUrl, trust: Option<&tls::Connector>) -> Rc<Origin> {
        let trust = trust.filter(|_| url.secure);
        let (secure, host, port) = (url.secure, url.host.clone(), url.port);
        let key = OriginKey { secure, host, port, trust: trust.map_or(0, tls::Connector::identity) };
        let mut origins = self.origins.borrow_mut();
        if let Some(origin) = origins.get(&key) {
            return Rc::clone(origin);
        }
        origins.retain(|_, origin| origin.is_used());
        self.next.set(self.next.get() + 1);
        let origin = Rc::new(Origin {
            id: self.next.get(),
            host: url.host.clone(),
            port,
            secure,
            trust: trust.cloned(),
            idle: RefCell::default(),
            questions: Cell::new(0),
            addresses: RefCell::default(),
            error: RefCell::default(),
            looking_up: Waiting::default(),
        });
        origins.insert(key, Rc::clone(&origin));
        origin
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// In words, and without anything secret of the URL: nobody answers, or not in HTTP.
    ///
    /// # Cancel safety
    /// Dropped, it leaves nothing behind but a request that may have arrived.
    pub(super) async fn post(
        self: &Rc<Self>,
        origin: &Rc<Origin>,
        url: &HttpUrl,
        body: &Bytes,
    ) -> Result<Answer, String> {
        if let Some(link) = origin.take_idle().await {
            match exchange(link, url, body).await {
                Ok((answer, link)) => {
                    self.keep(origin, link);
                    return Ok(answer);
                }
                // The server has closed it meanwhile, and the others probably too.
                Err(failure) if failure.unanswered => drop(origin.idle.take()),
                Err(failure) => return Err(failure.text),
            }
        }
        let link = self.open(origin).await?;
        let (answer, link) = exchange(link, url, body).await.map_err(|failure| failure.text)?;
        self.keep(origin, link);
        Ok(answer)
    }

    async fn open(&self, origin: &Rc<Origin>) -> Result<Link, String> {
        let addresses = origin.find(self.cpus).await?;
        let mut opened = Err("the name has no address".to_owned());
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            opened = Receiver::connect(address, CONNECT).await.map_err(|error| format!("{address}: {error}"));
            if opened.is_ok() {
                break;
            }
        }
        if opened.is_err() {
            origin.forget_address();
        }
        let session = match (origin.secure, &origin.trust) {
            (false, _) => None,
            (true, Some(trust)) => Some(trust.connect(&origin.host).map_err(|error| error.to_string())?),
            (true, None) => {
                let system = self.system.get(self.cpus).await?;
                Some(system.connect(&origin.host).map_err(|error| error.to_string())?)
            }
        };
        let wire = Wire::new(opened?, session);
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX);
        let (sender, connection) = builder.handshake(wire).await.map_err(|error| chain(&error))?;
        // Its end shows to whoever sends.
        let task = spawn_local(async move { drop(connection.await) });
        Ok(Link { sender, _task: task, since: Instant::now() })
    }

    /// Keeps a connection for the next call.
    fn keep(self: &Rc<Self>, origin: &Origin, link: Link) {
        let mut idle = origin.idle.borrow_mut();
        if link.sender.is_closed() || idle.len() >= IDLE_MAX {
            return;
        }
        idle.push(Link { since: Instant::now(), ..link });
        drop(idle);
        if !self.reaping.replace(true) {
            let client = Rc::clone(self);
            spawn_local(async move {
                while client.reap() {
                    Timer::new(IDLE / 4).await;
                }
                client.reaping.set(false);
            })
            .detach();
        }
    }

    /// Closes what has waited for long enough; tells whether anything waits still.
    fn reap(&self) -> bool {
        let now = Instant::now();
        let mut origins = self.origins.borrow_mut();
        origins.retain(|_, origin| {
            origin.idle.borrow_mut().retain(|link| !link.sender.is_closed() && now < link.since + IDLE);
            origin.is_used()
        });
        origins.values().any(|origin| !origin.idle.borrow().is_empty())
    }
}

impl Origin {
    fn is_used(self: &Rc<Self>) -> bool {
        Rc::strong_count(self) > 1 || !self.idle.borrow().is_empty()
    }

    /// The connection that was used last, if it is still good.
    async fn take_idle(&self) -> Option<Link> {
        loop {
            let mut link = self.idle.borrow_mut().pop()?;
            if link.sender.ready().await.is_ok() {
                return Some(link);
            }
        }
    }

    /// Its addresses. What was found once is used while the name is looked up anew.
    async fn find(self: &Rc<Self>, cpus: Option<CpuMask>) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        let known = self.addresses.borrow().clone();
        let old = known.as_ref().is_none_or(|(since, _)| since.elapsed() >= ADDRESS_AGE);
        match known {
            Some((_, addresses)) => {
                if old && !self.looking_up.begun.get() {
                    let origin = Rc::clone(self);
                    spawn_local(async move {
                        let looking = Rc::clone(&origin);
                        origin.looking_up.join(|| looking.look_up(cpus)).await;
                    })
                    .detach();
                }
                Ok(addresses)
            }
            None => {
                self.looking_up.join(|| self.look_up(cpus)).await;
                let found = self.addresses.borrow().as_ref().map(|(_, addresses)| addresses.clone());
                found.ok_or_else(|| self.error.borrow().clone())
            }
        }
    }

    fn look_up(self: &Rc<Self>, cpus: Option<CpuMask>) {
        let origin = Rc::clone(self);
        spawn_local(async move {
            match LOOKUPS.find(cpus, &origin.host, origin.port).await {
                Ok(found) => *origin.addresses.borrow_mut() = Some((Instant::now(), found)),
                Err(error) => *origin.error.borrow_mut() = format!("{}: {error}", origin.host),
            }
            origin.looking_up.done();
        })
        .detach();
    }

    /// Nobody answers there: it is looked up anew with the next call.
    fn forget_address(&self) {
        self.addresses.take();
    }
}

impl System {
    async fn get(self: &Rc<Self>, cpus: Option<CpuMask>) -> Result<tls::Connector, String> {
        let known = self.found.borrow().clone();
        if let Some(Ok(connector)) = known {
            return Ok(connector);
        }
        self.reading.join(|| self.read(cpus)).await;
        self.found.borrow().clone().unwrap_or_else(|| Err("the system's certificates cannot be read".to_owned()))
    }

    /// Reads files, on a thread of its own.
    fn read(self: &Rc<Self>, cpus: Option<CpuMask>) {
        let (tell, told) = async_channel::bounded(1);
        let thread = std::thread::Builder::new().name("certificates".to_owned()).spawn(move || {
            if let Some(cpus) = cpus {
                cpus.apply();
            }
            // Who asked may be gone.
            drop(tell.try_send(tls::Connector::new()));
        });
        let system = Rc::clone(self);
        spawn_local(async move {
            let found = match thread {
                Ok(_) => told.recv().await.map_err(|error| error.to_string()).flatten(),
                Err(error) => Err(error.to_string()),
            };
            *system.found.borrow_mut() = Some(found);
            system.reading.done();
        })
        .detach();
    }
}

/// One request and its answer.
async fn exchange(mut link: Link, url: &HttpUrl, body: &Bytes) -> Result<(Answer, Link), Failure> {
    let unanswered = |text: String| Failure { text, unanswered: true };
    let mut request = Request::post(&url.target)
        .header(header::HOST, &url.authority)
        .header(header::USER_AGENT, AGENT)
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(authorization) = &url.authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let request = request.body(Full::new(body.clone())).map_err(|_| unanswered("the URL is none".to_owned()))?;
    let response = link.sender.send_request(request).await.map_err(|error| unanswered(chain(&error)))?;
    let status = response.status().as_u16();
    let body = read_body(response.into_body()).await.map_err(|text| Failure { text, unanswered: false })?;
    Ok((Answer { status, body }, link))
}

async fn read_body(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| chain(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > ANSWER_BYTES_MAX {
            return Err(format!("an answer of more than {ANSWER_BYTES_MAX} bytes"));
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes)
}

/// An error with what it comes from.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// Waits for something, but not for longer than until then.
pub(super) async fn until<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    let late = async {
        Timer::new(deadline.saturating_duration_since(Instant::now())).await;
        None
    };
    future::or(async { Some(work.await) }, late).await
}
