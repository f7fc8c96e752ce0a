//! One task per connection: it reads, the shard does the rest. Accepting, moving to another shard, closing.

use super::{
    Moved, Shard,
    rest::{Rest, TICK_MS},
};
use crate::{
    config::{Listen, Service},
    control::{Handed, hooks},
    core::{Outcome, Question, SCRATCH_BYTES, Taken, port::CloseReason},
    sys::{Acceptor, Receiver},
};
use futures_lite::future;
use glommio::{spawn_local, timer::Timer};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

/// How long accept pauses when descriptors are exhausted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two tries of a publish whose name may be about to be free.
const RETRY: Duration = Duration::from_millis(10);
/// Between two looks whether what a connection waits for on another shard has come.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// How long a connection that is to be closed may take to send its last words.
const DRAIN: Duration = Duration::from_secs(1);

/// A shard and its receive buffer. Borrowed between awaits only.
pub(super) struct Local {
    pub(super) shard: RefCell<Shard>,
    scratch: RefCell<Box<[u8]>>,
    rest: Rest,
}

impl Local {
    pub(super) fn new(shard: Shard) -> Self {
        let scratch = RefCell::new(vec![0; SCRATCH_BYTES].into());
        Self { shard: RefCell::new(shard), scratch, rest: Rest::default() }
    }
}

/// One listening socket of this shard.
pub(super) struct Endpoint {
    pub(super) acceptor: Acceptor,
    /// What the configuration says of it now; `None` when it is to be closed.
    pub(super) listen: Cell<Option<Listen>>,
}

pub(super) async fn accept(local: Rc<Local>, endpoint: Rc<Endpoint>) {
    loop {
        let accepted = endpoint.acceptor.accept().await;
        let Some(listen) = endpoint.listen.get() else { return };
        let accepted = match accepted {
            Ok(stream) => Receiver::new(stream),
            Err(error) => Err(error),
        };
        match accepted {
            Ok(receiver) => {
                let tls = match listen.tls.then(|| local.shard.borrow().tls_session(listen.service)) {
                    None => None,
                    Some(Some(session)) => Some(session),
                    // RTMPS has just been switched off.
                    Some(None) => {
                        receiver.shutdown();
                        continue;
                    }
                };
                if matches!(listen.service, Service::Api | Service::Exporter) {
                    let peer = receiver.peer();
                    let taken = Taken { peer, tls: tls.map(Box::new), ktls_bytes: None, unread: Vec::new() };
                    hand_over(&local, receiver, taken, listen.service);
                } else if local.shard.borrow().admit() {
                    let (descriptor, peer) = (receiver.descriptor(), receiver.peer());
                    let id = local.shard.borrow_mut().insert(descriptor, peer, listen, tls);
                    let run = run(Rc::clone(&local), receiver, id, Outcome::Continue);
                    spawn_local(run).detach();
                } else {
                    receiver.shutdown();
                }
            }
            Err(error) if is_exhausted(&error) => {
                local.shard.borrow().accept_paused(&error);
                Timer::new(ACCEPT_PAUSE).await;
            }
            // The peer gave up between its SYN and our accept.
            Err(error) => tracing::debug!(%error, "accept"),
        }
        glommio::yield_if_needed().await;
    }
}

/// Whether descriptors or memory are short, rather than this one connection broken.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

pub(super) async fn adopt(local: Rc<Local>, moved: Moved) {
    let Moved { descriptor, peer, state, unread } = moved;
    let receiver = Receiver::adopt(descriptor, peer);
    let id = local.shard.borrow_mut().insert_moved(receiver.descriptor(), peer, state);
    let outcome = go_on(&local, id, unread).await;
    run(local, receiver, id, outcome).await;
}

/// Goes on with a publish or a play, and with what was read behind it. A name whose publisher has just ended
/// is free as soon as that one's task has read so.
async fn go_on(local: &Rc<Local>, id: usize, unread: Vec<u8>) -> Outcome {
    let mut tries = 0;
    loop {
        match guarded(|| local.shard.borrow_mut().resume_pending(id, tries)) {
            Outcome::Retry { .. } => {
                tries += 1;
                Timer::new(RETRY).await;
            }
            Outcome::Continue => return Outcome::Later { unread },
            outcome @ (Outcome::Later { .. }
            | Outcome::Move { .. }
            | Outcome::Ask { .. }
            | Outcome::HandOver
            | Outcome::Close(_)) => return outcome,
        }
    }
}

/// Goes on with what a connection has sent, when others have had their turn and other shards have taken what they
/// were sent for it.
async fn later(local: &Rc<Local>, id: usize, unread: Vec<u8>) -> Outcome {
    glommio::executor().yield_now().await;
    poll_fn(|cx| local.shard.borrow_mut().poll_answered(id, cx)).await;
    while !local.shard.borrow_mut().may_go_on(id) {
        Timer::new(LOOK_AGAIN).await;
    }
    guarded(|| local.shard.borrow_mut().receive_unread(id, &unread))
}

pub(super) async fn run(local: Rc<Local>, mut receiver: Receiver, id: usize, mut outcome: Outcome) {
    let mut read = 0;
    loop {
        let mut rested = match outcome {
            Outcome::Continue => {
                let pause_ms = local.shard.borrow().read_pause_ms(id, read);
                rest(&local, pause_ms).await
            }
            Outcome::Later { unread } => {
                outcome = Box::pin(later(&local, id, unread)).await;
                continue;
            }
            Outcome::Move { home, unread } => {
                Box::pin(drained(&local, id)).await;
                let Some(state) = local.shard.borrow_mut().take_for_move(id) else {
                    outcome = Outcome::Close(CloseReason::RepliesUnread);
                    continue;
                };
                match receiver.duplicate() {
                    Ok(descriptor) => {
                        let peer = receiver.peer();
                        let moved = Moved { descriptor, peer, state, unread };
                        drop(receiver);
                        local.shard.borrow_mut().send_moved(home, Box::new(moved));
                    }
                    Err(error) => {
                        tracing::warn!(peer = %receiver.peer(), "closed: a connection cannot move to its stream's home shard: {error}");
                        receiver.shutdown();
                        local.shard.borrow().forget_moved();
                    }
                }
                return;
            }
            Outcome::Retry { unread } => {
                outcome = Box::pin(go_on(&local, id, unread)).await;
                continue;
            }
            Outcome::Ask { question, unread } => {
                outcome = Box::pin(ask(&local, id, question, unread)).await;
                continue;
            }
            Outcome::HandOver => {
                Box::pin(drained(&local, id)).await;
                let Some(taken) = local.shard.borrow_mut().take_to_hand_over(id) else {
                    outcome = Outcome::Close(CloseReason::RepliesUnread);
                    continue;
                };
                local.shard.borrow().forget_moved();
                hand_over(&local, receiver, taken, Service::Http);
                return;
            }
            Outcome::Close(reason) => {
                if catch_unwind(AssertUnwindSafe(|| local.shard.borrow_mut().end_service(id))).is_err() {
                    // The connection was lost on the way: what names it is cleaned up.
                    local.shard.borrow_mut().end_service(id);
                }
                if reason.may_have_last_words() {
                    Box::pin(drained(&local, id)).await;
                }
                receiver.shutdown();
                local.shard.borrow_mut().remove(id, &reason, receiver);
                return;
            }
        };
        glommio::yield_if_needed().await;
        outcome = poll_fn(|cx| {
            let mut scratch = local.scratch.borrow_mut();
            let found = if std::mem::take(&mut rested) { receiver.read_now(&mut scratch).transpose() } else { None };
            match found.map_or_else(|| receiver.poll_read(cx, &mut scratch), Poll::Ready) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(0)) => Poll::Ready(Outcome::Close(CloseReason::PeerClosed)),
                Poll::Ready(Ok(bytes)) => {
                    read = bytes;
                    Poll::Ready(guarded(|| local.shard.borrow_mut().receive(id, &scratch[..bytes])))
                }
                Poll::Ready(Err(error)) => Poll::Ready(Outcome::Close(CloseReason::Io(error.kind()))),
            }
        })
        .await;
    }
}

/// Waits for others' word on what a connection wants, and goes on with it, and with what was read behind it.
async fn ask(local: &Rc<Local>, id: usize, question: Question, unread: Vec<u8>) -> Outcome {
    let answer = match question {
        Question::Hooks(event) => local.shard.borrow().shared().hooks.ask(*event),
        Question::Origin(answer) => answer,
        Question::Place(answer) => {
            let place = answer.recv().await.ok().flatten();
            return behind(guarded(|| local.shard.borrow_mut().resume_place(id, place)), unread);
        }
    };
    let verdict = answer.recv().await.unwrap_or_else(|_| hooks::Verdict::Refused("no answer".to_owned()));
    behind(guarded(|| local.shard.borrow_mut().resume_wish(id, verdict)), unread)
}

/// Goes on with what was read behind what has been decided.
fn behind(outcome: Outcome, unread: Vec<u8>) -> Outcome {
    match outcome {
        Outcome::Move { home, .. } => Outcome::Move { home, unread },
        Outcome::Retry { .. } => Outcome::Retry { unread },
        Outcome::Ask { question, .. } => Outcome::Ask { question, unread },
        Outcome::Continue => Outcome::Later { unread },
        outcome @ (Outcome::Later { .. } | Outcome::HandOver | Outcome::Close(_)) => outcome,
    }
}

/// Gives a connection to the control plane.
fn hand_over(local: &Rc<Local>, receiver: Receiver, taken: Taken, service: Service) {
    let Taken { peer, tls, ktls_bytes, unread } = taken;
    let handed = receiver.duplicate().ok();
    let handed = handed.map(|descriptor| Handed { descriptor, peer, tls, ktls_bytes, unread, service });
    let shared = Arc::clone(local.shard.borrow().shared());
    let given = handed.zip(shared.plane.get()).is_some_and(|(handed, plane)| plane.try_send(handed).is_ok());
    if !given {
        tracing::warn!(peer = %receiver.peer(), "closed: too many connections for the page and the API");
        receiver.shutdown();
    }
}

/// Takes a connection back from the control plane, which has read a live request on it.
pub(super) async fn take_back(local: Rc<Local>, handed: Handed) {
    let Handed { descriptor, peer, tls, ktls_bytes, unread, .. } = handed;
    let receiver = Receiver::adopt(descriptor, peer);
    if !local.shard.borrow().admit() {
        return receiver.shutdown();
    }
    let id = local.shard.borrow_mut().insert_handed(receiver.descriptor(), peer, tls, ktls_bytes);
    let outcome = guarded(|| local.shard.borrow_mut().receive_unread(id, &unread));
    run(local, receiver, id, outcome).await;
}

/// Lets a reader rest for `pause_ms`, so that its next read finds more; tells whether it has.
async fn rest(local: &Rc<Local>, pause_ms: u64) -> bool {
    let Some(until) = local.rest.until(pause_ms) else { return false };
    if local.rest.begin_ticking() {
        let ticking = Rc::clone(local);
        spawn_local(async move {
            loop {
                Timer::new(Duration::from_millis(TICK_MS)).await;
                if !ticking.rest.tick() {
                    return;
                }
            }
        })
        .detach();
    }
    poll_fn(|cx| local.rest.poll(until, cx)).await;
    true
}

/// Waits until what the connection has to say is sent, for at most [`DRAIN`].
async fn drained(local: &Rc<Local>, id: usize) {
    let sent = poll_fn(|cx| local.shard.borrow_mut().poll_drained(id, cx));
    let late = async {
        Timer::new(DRAIN).await;
    };
    future::or(sent, late).await;
}

/// A panic in a connection's code costs that connection only.
fn guarded(run: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(Outcome::Close(CloseReason::Panic))
}
