//! The control plane's thread: takes connections from the shards, and gives live ones back.

use super::{
    Call, Handed, Server, api,
    auth::Origin,
    connection::{End, Gate, Shared},
    content::Content,
    heartbeat::Heartbeats,
    logins::household,
    system,
};
use crate::{
    config::Service,
    proto::http::{Head, plain_response},
    sys::{Receiver, cores},
};
use async_channel::Sender;
use bytes::Bytes;
use futures_lite::future::{self, FutureExt};
use glommio::{spawn_local, timer::Timer};
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use socket2::SockRef;
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, hash_map::Entry},
    convert::Infallible,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// Most connections that the page, the API and the exporter have at once, each of its own, so that none keeps another
/// from being seen.
const PAGE_MAX: usize = 256;
const API_MAX: usize = 256;
const EXPORTER_MAX: usize = 32;
/// All of them; they are not among `max_connections`, so that operators see a server that is full.
pub const CONNECTIONS_MAX: usize = PAGE_MAX + API_MAX + EXPORTER_MAX;
/// One address has at most this part of them, unless it is this machine or one of `trusted_proxies`.
const ADDRESS_PART: usize = 4;

/// Starts the thread; connections are sent to it.
///
/// # Errors
/// No thread or no io_uring.
pub fn start(server: impl Server) -> std::io::Result<Sender<Handed>> {
    let (give, take) = async_channel::bounded::<Handed>(CONNECTIONS_MAX);
    system::note_start();
    let main = move || async move {
        let plane =
            Rc::new(Plane { api: api::Api::new(Box::new(server)), counts: RefCell::default(), next: Cell::new(0) });
        let beating = Rc::clone(&plane);
        spawn_local(async move {
            let mut heartbeats = Heartbeats::default();
            loop {
                Timer::new(heartbeats.look(&beating.api)).await;
            }
        })
        .detach();
        while let Ok(handed) = take.recv().await {
            if let Some(counted) = Counted::new(&plane, &handed) {
                spawn_local(async move {
                    // A panic costs its own connection.
                    if AssertUnwindSafe(serve(counted, handed)).catch_unwind().await.is_err() {
                        tracing::error!("a panic in a connection of the page or the API; please report this");
                    }
                })
                .detach();
            } else {
                tracing::warn!(peer = %handed.peer, service = ?handed.service, "closed: too many connections for this");
            }
        }
    };
    cores::spawn_unpinned("control", main)?;
    Ok(give)
}

struct Plane {
    api: api::Api,
    /// Connections of a service, and those of a household.
    counts: RefCell<HashMap<(Service, Option<IpAddr>), usize>>,
    /// The shard that the next live connection goes to.
    next: Cell<usize>,
}

/// Counts a connection as long as it is there.
struct Counted {
    plane: Rc<Plane>,
    counts: [(Service, Option<IpAddr>); 2],
}

impl Counted {
    /// Takes a place; `None` if the service or the address has no more.
    fn new(plane: &Rc<Plane>, handed: &Handed) -> Option<Self> {
        let ip = handed.peer.ip();
        let (service, most) = match handed.service {
            Service::Rtmp | Service::Http => (Service::Http, PAGE_MAX),
            Service::Api => (Service::Api, API_MAX),
            Service::Exporter => (Service::Exporter, EXPORTER_MAX),
        };
        let known = ip.to_canonical().is_loopback() || plane.api.config().trusted_proxies.has(ip);
        let counts = [(service, None), (service, Some(household(ip)))];
        let mut all = plane.counts.borrow_mut();
        let full = |count, most| all.get(count).is_some_and(|now| *now >= most);
        if full(&counts[0], most) || !known && full(&counts[1], most / ADDRESS_PART) {
            return None;
        }
        for count in counts {
            *all.entry(count).or_default() += 1;
        }
        Some(Self { plane: Rc::clone(plane), counts })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.plane.counts.borrow_mut();
        for count in &self.counts {
            if let Entry::Occupied(mut entry) = all.entry(*count) {
                *entry.get_mut() -= 1;
                if *entry.get() == 0 {
                    entry.remove();
                }
            }
        }
    }
}

async fn serve(counted: Counted, handed: Handed) {
    let plane = Rc::clone(&counted.plane);
    let Handed { descriptor, peer, tls, ktls_bytes, unread, service } = handed;
    let local = SockRef::from(&descriptor).local_addr().ok().and_then(|local| local.as_socket());
    let Some(local) = local else { return };
    let from = Origin { service, peer, local };
    let receiver = Receiver::adopt(descriptor, peer);
    let looking = Rc::clone(&plane);
    let is_live = move |head: &Head| {
        let config = looking.api.config();
        let host = head.vhost();
        let packaged = || config.vhost(&host).is_some_and(|vhost| looking.api.is_packaged(vhost, &head.path));
        let is_media = || config.live_stream(&host, &head.path).is_some() || packaged();
        service == Service::Http && head.is_plain_get() && is_media()
    };
    let gate = Gate::new(receiver, tls, unread, is_live);
    let shared = gate.shared();
    let (asking, answering) = (Rc::clone(&plane), Rc::clone(&shared));
    let answer = service_fn(move |request| Box::pin(respond(Rc::clone(&asking), Rc::clone(&answering), from, request)));
    let mut http = http1::Builder::new().half_close(false).max_buf_size(64 << 10).serve_connection(gate, answer);
    let served = poll_fn(|cx| http.poll_without_shutdown(cx));
    let late = watch(Rc::clone(&shared));
    let in_time = future::or(async { served.await.is_ok() }, async {
        late.await;
        false
    })
    .await;
    let gate = http.into_parts().io;
    match shared.end() {
        End::Live if in_time => {
            let Ok(descriptor) = gate.receiver.duplicate() else { return gate.receiver.shutdown() };
            let handed = Handed { descriptor, peer, tls: gate.tls, ktls_bytes, unread: gate.unread, service };
            let shard = plane.next.get() % plane.api.shards();
            plane.next.set(shard + 1);
            plane.api.call(shard, Call::TakeBack(Box::new(handed)));
        }
        End::Refused(error) if in_time => refuse(gate.receiver, gate.tls, error.status(), &error.to_string()).await,
        End::Body if in_time => {
            let text = "send no body, or a short one with its length";
            refuse(gate.receiver, gate.tls, "413 Content Too Large", text).await;
        }
        End::Live | End::Refused(_) | End::Body | End::Closed => gate.receiver.shutdown(),
    }
}

/// Says why, and closes.
async fn refuse(mut receiver: Receiver, tls: Option<Box<crate::tls::Session>>, status: &str, text: &str) {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    let mut bytes = plain_response(status, text, false, &date, "");
    if let Some(mut tls) = tls {
        bytes = tls.wrap(&[std::io::IoSlice::new(&bytes)]);
    }
    let send = async {
        let mut sent = 0;
        while sent < bytes.len() {
            match poll_fn(|cx| receiver.poll_write(cx, &bytes[sent..])).await {
                Ok(now) if now > 0 => sent += now,
                Ok(_) | Err(_) => return,
            }
        }
    };
    let late = async {
        Timer::new(Duration::from_secs(1)).await;
    };
    future::or(send, late).await;
    receiver.shutdown();
}

/// Ready when the connection is late with something.
async fn watch(shared: Rc<Shared>) {
    loop {
        let left = shared.deadline().saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        Timer::new(left.min(Duration::from_secs(5))).await;
    }
}

async fn respond(
    plane: Rc<Plane>,
    shared: Rc<Shared>,
    from: Origin,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let (head, _) = request.into_parts();
    let client = plane.api.config().trusted_proxies.client_of(from.peer.ip(), &shared.forwarded_for());
    let from = Origin { peer: client.map_or(from.peer, |ip| SocketAddr::new(ip, 0)), ..from };
    let response = plane.api.respond(&from, &head).await;
    Ok(response.map(|body| Answer { body, shared }))
}

/// A body that says when it has been taken.
struct Answer {
    body: Content,
    shared: Rc<Shared>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.shared.answered();
    }
}
