//! The loop of a shard: what its owner asks, what has come from other shards, who is due.

use super::{
    Control, Shard, outbound,
    task::{Endpoint, Local, accept, adopt, take_back},
};
use crate::{control::Call, sys::Acceptor};
use crossbeam_channel::TryRecvError;
use futures_lite::future;
use glommio::{spawn_local, timer::Timer};
use std::{
    cell::Cell,
    future::poll_fn,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Runs a shard until the server stops.
pub(super) async fn run_shard(server: Shard, control: crossbeam_channel::Receiver<Control>) {
    let notifier = server.notifier();
    let shared = Arc::clone(server.shared());
    let wakers = Arc::clone(server.wakers());
    let me = server.index();
    let local = Rc::new(Local::new(server));
    let mut endpoints: Vec<Rc<Endpoint>> = Vec::new();
    let reaper = Rc::clone(&local);
    spawn_local(async move {
        while notifier.wait().await.is_ok() {
            reaper.shard.borrow_mut().pump();
        }
    })
    .detach();
    while !shared.stopping.load(Ordering::Acquire) {
        obey(&local, &control, &mut endpoints);
        let wait_ms = local.shard.borrow_mut().sleep_ms();
        let woken = poll_fn(|cx| wakers[me].poll(cx));
        if wait_ms > 0 {
            let timer = async {
                Timer::new(Duration::from_millis(wait_ms)).await;
            };
            future::or(woken, timer).await;
        } else {
            // Others get their turn between two rounds, however busy the shard is.
            glommio::executor().yield_now().await;
        }
        let (arrived, errands) = {
            let mut shard = local.shard.borrow_mut();
            (shard.turn(), shard.take_errands())
        };
        outbound::see_to(&local, errands);
        for moved in arrived {
            spawn_local(adopt(Rc::clone(&local), moved)).detach();
        }
    }
    local.shard.borrow_mut().shut_down();
}

/// Does what the server's owner has asked for since the last look.
fn obey(local: &Rc<Local>, control: &crossbeam_channel::Receiver<Control>, endpoints: &mut Vec<Rc<Endpoint>>) {
    loop {
        match control.try_recv() {
            Ok(Control::Listen(listen, socket)) => {
                let endpoint = Rc::new(Endpoint { acceptor: Acceptor::new(socket), listen: Cell::new(Some(listen)) });
                endpoints.push(Rc::clone(&endpoint));
                spawn_local(accept(Rc::clone(local), endpoint)).detach();
            }
            Ok(Control::Change(from, to)) => {
                endpoints.iter().filter(|endpoint| endpoint.listen.get() == Some(from)).for_each(|endpoint| {
                    endpoint.listen.set(to);
                    if to.is_none() {
                        endpoint.acceptor.close();
                    }
                });
                endpoints.retain(|endpoint| endpoint.listen.get().is_some());
            }
            Ok(Control::Reconfigure(config)) => local.shard.borrow_mut().reconfigure(&config),
            Ok(Control::Call(Call::TakeBack(handed))) => {
                spawn_local(take_back(Rc::clone(local), *handed)).detach();
            }
            Ok(Control::Call(call)) => local.shard.borrow_mut().answer(call),
            Ok(Control::Drain) => local.shard.borrow_mut().drain(),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
        }
    }
}
