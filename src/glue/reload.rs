//! A new configuration for a running server, and the drain before its end.

use super::{Control, Server};
use crate::{
    config::{Config, Listen},
    mesh::ring::ShardWaker,
    sys::{ListenError, Listeners},
};
use std::{
    net::SocketAddr,
    sync::{Arc, MutexGuard, PoisonError},
};

impl Server {
    /// Brings a configuration into force on all shards: endpoints are added and removed, settings apply to
    /// streams and publishers that are here, certificates to connections from now on. Live connections stay,
    /// whatever has become of their endpoint or vhost.
    ///
    /// # Errors
    /// [`ListenError`]: an endpoint that is new cannot be bound. Nothing has changed then.
    pub fn reload(&self, config: Config) -> Result<(), ListenError> {
        let mut listening = self.lock_listening();
        let wanted: Vec<Listen> = config.endpoints().copied().collect();
        let is_known = |listen: &Listen| listening.iter().any(|(known, _)| known == listen);
        let mut added: Vec<Listen> = wanted.iter().filter(|listen| !is_known(listen)).copied().collect();
        let mut changes: Vec<(Listen, Option<Listen>)> = Vec::new();
        for (known, _) in listening.iter().filter(|(known, _)| !wanted.contains(known)) {
            // The same socket may become something else: plain or TLS, with or without a proxy before it.
            let same = added.iter().position(|listen| listen.address == known.address && listen.address.port() != 0);
            changes.push((*known, same.map(|at| added.swap_remove(at))));
        }
        let addresses: Vec<SocketAddr> = added.iter().map(|listen| listen.address).collect();
        let own: Vec<SocketAddr> = listening.iter().map(|(_, address)| *address).collect();
        let listeners = Listeners::bind(&addresses, self.shards, &own)?;
        // Nothing can fail from here on.
        for (from, to) in changes {
            match to {
                Some(to) => listening.iter_mut().filter(|(known, _)| *known == from).for_each(|(known, _)| *known = to),
                None => listening.retain(|(known, _)| *known != from),
            }
            self.tell(|| Control::Change(from, to));
        }
        listening.extend(added.iter().copied().zip(listeners.addresses().iter().copied()));
        let config = Arc::new(config);
        self.shared.set_config(Arc::clone(&config));
        self.tell(|| Control::Reconfigure(Arc::clone(&config)));
        if let Err(error) = self.need_plane() {
            tracing::error!("reload: {error}");
        }
        drop(listening);
        self.configure_programs();
        self.listen(&added, listeners);
        Ok(())
    }

    /// Takes no more connections, asks those that are here to connect elsewhere if they can, and lets the rest
    /// come to their end: players go when their stream has ended.
    pub fn drain(&self) {
        self.shared.drain();
        for (listen, _) in self.lock_listening().drain(..) {
            self.tell(|| Control::Change(listen, None));
        }
        self.tell(|| Control::Drain);
    }

    /// Gives every shard its sockets.
    pub(super) fn listen(&self, endpoints: &[Listen], listeners: Listeners) {
        for (control, sockets) in self.controls.iter().zip(listeners.into_shards()) {
            for (listen, socket) in endpoints.iter().zip(sockets) {
                // A shard that has died has said so.
                drop(control.send(Control::Listen(*listen, socket)));
            }
        }
        self.wakers.iter().for_each(ShardWaker::wake);
    }

    fn tell(&self, what: impl Fn() -> Control) {
        for control in &self.controls {
            drop(control.send(what()));
        }
        self.wakers.iter().for_each(ShardWaker::wake);
    }

    pub(super) fn lock_listening(&self) -> MutexGuard<'_, Vec<(Listen, SocketAddr)>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
