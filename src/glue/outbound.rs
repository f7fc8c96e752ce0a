//! Connections that a shard opens by itself: names are looked up, sockets opened, and tried anew.

use super::task::{Local, run};
use crate::{
    control::hooks,
    core::{Errand, Follow, Outcome, Step},
    sys::{CpuMask, Lookups, Receiver},
};
use glommio::{spawn_local, timer::Timer};
use std::{io, rc::Rc, time::Duration};

/// How long one address may take to answer at most.
const CONNECT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 3;
/// Before a question is asked again that got no good answer.
const ASK_AGAIN: Duration = Duration::from_secs(3);

static LOOKUPS: Lookups = Lookups::new();

/// Sees to what has come up.
pub(super) fn see_to(local: &Rc<Local>, errands: Vec<Errand>) {
    for errand in errands {
        let local = Rc::clone(local);
        match errand {
            Errand::Ask(event, follow) => spawn_local(see_to_question(local, *event, follow)).detach(),
            Errand::Dial(id) => spawn_local(see_to_target(local, id)).detach(),
        };
    }
}

/// Asks where a publish is pushed on to, until there is a good answer.
async fn see_to_question(local: Rc<Local>, event: hooks::Event, follow: Box<Follow>) {
    loop {
        let answer = local.shard.borrow().shared().hooks.ask(event.clone());
        let data = match answer.recv().await {
            Ok(hooks::Verdict::Allowed(data)) => Some(data),
            Ok(hooks::Verdict::Refused(_)) | Err(_) => None,
        };
        if local.shard.borrow_mut().answered(&follow, data.as_ref()) {
            return;
        }
        Timer::new(ASK_AGAIN).await;
    }
}

/// Connects to a target again and again, for as long as that is wanted.
async fn see_to_target(local: Rc<Local>, id: usize) {
    loop {
        let step = local.shard.borrow_mut().next_step(id);
        match step {
            Step::End => return,
            Step::Wait(pause) => {
                Timer::new(pause).await;
            }
            Step::Locate(answer) => {
                let place = answer.recv().await.ok().flatten();
                local.shard.borrow_mut().located(id, place);
            }
            Step::Dial { host, port, within } => {
                let cpus = local.shard.borrow().shared().cpus;
                let opened = dial(cpus, &host, port, within.min(CONNECT)).await.map_err(|error| error.to_string());
                let begun = opened.and_then(|receiver| {
                    let (descriptor, peer) = (receiver.descriptor(), receiver.peer());
                    let place = local.shard.borrow_mut().insert_outbound(id, descriptor, peer)?;
                    Ok((receiver, place))
                });
                match begun {
                    Ok((receiver, place)) => {
                        // Nothing has been read; it is the session that speaks first.
                        let outcome = Outcome::Later { unread: Vec::new() };
                        Box::pin(run(Rc::clone(&local), receiver, place, outcome)).await;
                    }
                    Err(error) => local.shard.borrow_mut().not_dialed(id, error),
                }
            }
        }
    }
}

async fn dial(cpus: Option<CpuMask>, host: &str, port: u16, within: Duration) -> io::Result<Receiver> {
    let addresses = LOOKUPS.find(cpus, host, port).await?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses.into_iter().take(ADDRESSES_MAX) {
        match Receiver::connect(address, within).await {
            Ok(receiver) => return Ok(receiver),
            Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(last)
}
