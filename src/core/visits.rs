//! Who plays by one request after the other: bodies that are sent, playlists that are waited for, and visits, which
//! last as long as there are requests.

use super::{
    Outcome, Shard,
    audience::AtEnd,
    budget::Budget,
    connection::{Connection, Turn},
    place,
    port::{Endpoints, Request, Session, Word},
};
use crate::{
    control::{ClientId, ClientReport},
    package::{self, Shown, Visit},
    proto::Write,
    sys::Gather,
};
use hashbrown::HashMap;
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

/// No connection's place.
const NOWHERE: usize = 0xFFFF_FFFF;
/// Most bytes of a body in one send.
const SEND_BYTES_MAX: usize = 256 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Visits {
    /// Connections, by their tokens, that wait for a playlist, by its number.
    waiting: HashMap<u64, Vec<u64>>,
    /// Those who have waited, and are to be told of what.
    woken: VecDeque<(u64, u64)>,
    /// That have begun here.
    here: Vec<Here>,
}

#[derive(Debug)]
struct Here {
    visit: Arc<Visit>,
    /// What is told when it ends.
    on_stop: AtEnd,
    /// What the API has of it, but for its age.
    client: Box<ClientReport>,
    since_ms: u64,
}

impl Visits {
    pub(super) fn is_pending(&self) -> bool {
        !self.woken.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.here.len()
    }

    /// Some of them as clients.
    pub(super) fn clients(&self, skip: usize, count: usize, now_ms: u64) -> impl Iterator<Item = ClientReport> {
        let some = self.here.iter().skip(skip).take(count);
        some.map(move |here| ClientReport { alive_ms: now_ms - here.since_ms, ..(*here.client).clone() })
    }

    /// How many there are of each stream, by its key.
    pub(super) fn players(&self) -> Vec<(String, u64)> {
        let mut counts: HashMap<&str, u64> = HashMap::new();
        self.here.iter().for_each(|here| *counts.entry(&here.client.key).or_default() += 1);
        counts.into_iter().map(|(key, count)| (key.to_owned(), count)).collect()
    }
}

impl<E: Endpoints> Shard<E> {
    /// A visit is allowed; it is over when there have been no requests for long enough.
    pub(super) fn begin_visit(
        &mut self,
        id: usize,
        connection: &mut Connection<E>,
        request: &Request,
        visit: Arc<Visit>,
        kind: &'static str,
    ) -> Outcome {
        let on_stop = self.stop_event(connection, request);
        tracing::debug!(peer = %connection.named(), stream = %request.key, visit = %visit.id, client = kind, "play");
        self.shared.shelf.admit(&visit);
        // No connection's: they come and go.
        self.serial = self.serial.wrapping_add(1);
        let client = ClientId { shard: self.relay.me(), token: super::token(self.serial, NOWHERE) };
        let peer = connection.session.peer();
        let client = Box::new(ClientReport {
            id: client.to_string(),
            key: request.key.clone(),
            ip: connection.named().ip().to_string(),
            tc_url: peer.tc_url.to_owned(),
            page_url: peer.page_url.to_owned(),
            kind,
            ..ClientReport::default()
        });
        let since_ms = self.shared.now_ms();
        self.visits.here.push(Here { visit, on_stop, client, since_ms });
        self.stats.players.add(1);
        self.stats.clients.add(1);
        self.tell_session(id, connection, Word::Opened(request.id))
    }

    /// Ends visits without requests; the first shard removes what is left of streams, too.
    pub(super) fn look_at_visits(&mut self, now_ms: u64) {
        let is_over = |visit: &Visit| now_ms >= visit.seen_ms.load(Ordering::Relaxed) + visit.lasts_ms;
        for Here { visit, on_stop, .. } in
            self.visits.here.extract_if(.., |here| is_over(&here.visit)).collect::<Vec<_>>()
        {
            self.shared.shelf.dismiss(&visit);
            self.tell_end(on_stop);
            self.stats.players.sub(1);
        }
        if self.relay.me() == 0 {
            package::sweep(&self.shared.shelf, &self.shared.writer, now_ms);
        }
    }

    /// A connection waits for a playlist to change.
    pub(super) fn await_change(&mut self, id: usize, connection: &mut Connection<E>, shown: &Shown, version: u64) {
        let token = connection.token(id);
        if shown.wait(self.relay.me(), version) {
            self.visits.woken.push_back((token, shown.id));
            self.wake();
        } else {
            self.visits.waiting.entry(shown.id).or_default().push(token);
        }
    }

    /// Tells those who have waited, as far as a turn goes.
    pub(super) fn tell_of_changes(&mut self) {
        for shown in self.shared.shelf.take_changed(self.relay.me()) {
            let tokens = self.visits.waiting.remove(&shown).into_iter().flatten();
            self.visits.woken.extend(tokens.map(|token| (token, shown)));
        }
        let mut budget = Budget::turn();
        while let Some((token, shown)) = self.visits.woken.pop_front() {
            let id = place(token);
            let is_it = |connection: &&mut Box<Connection<E>>| connection.token(id) == token;
            let there = self.connections.get_mut(id).is_some_and(|place| place.as_mut().filter(is_it).is_some());
            let Some(mut connection) = self.connections.get_mut(id).filter(|_| there).and_then(Option::take) else {
                continue;
            };
            let outcome = self.tell_session(id, &mut connection, Word::Changed(shown));
            if let Outcome::Close(reason) = outcome {
                connection.leaving.get_or_insert(reason);
            }
            connection.wake_answered();
            self.put_back(id, connection);
            self.flush_guarded(id, Turn::Own);
            self.arm_connection(id);
            if budget.spend(1) {
                break;
            }
        }
        if self.visits.is_pending() {
            self.wake();
        }
    }

    /// As much of a connection's body as one send takes, by reference.
    pub(super) fn put_body(&mut self, connection: &mut Connection<E>, out: &mut Gather) {
        while let Some(chunk) = connection.body.front_mut() {
            let room = SEND_BYTES_MAX.saturating_sub(out.len());
            if room == 0 {
                connection.flush_again = true;
                return;
            }
            let part = chunk.split_to(chunk.len().min(room));
            out.share(&part, 0..part.len());
            if chunk.is_empty() {
                connection.body.pop_front();
            }
            if connection.body.is_empty() {
                connection.session.told(Word::Sent, &self.shared.context());
            }
        }
    }
}
