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
    package::{self, Shown, Visit},
    proto::Write,
    sys::Gather,
};
use hashbrown::HashMap;
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

/// Most bytes of a body in one send.
const SEND_BYTES_MAX: usize = 256 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Visits {
    /// Connections, by their tokens, that wait for a playlist, by its number.
    waiting: HashMap<u64, Vec<u64>>,
    /// Those who have waited, and are to be told.
    woken: VecDeque<u64>,
    /// That have begun here, with what is told when they end.
    here: Vec<(Arc<Visit>, AtEnd)>,
}

impl Visits {
    pub(super) fn is_pending(&self) -> bool {
        !self.woken.is_empty()
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
    ) -> Outcome {
        let on_stop = self.stop_event(connection, request);
        tracing::debug!(peer = %connection.named(), stream = %request.key, visit = %visit.id, "play by HLS");
        self.shared.shelf.admit(&visit);
        self.visits.here.push((visit, on_stop));
        self.stats.players.add(1);
        self.stats.clients.add(1);
        self.tell_session(id, connection, Word::Opened(request.id))
    }

    /// Ends visits without requests; the first shard removes what is left of streams, too.
    pub(super) fn look_at_visits(&mut self, now_ms: u64) {
        let is_over = |visit: &Visit| now_ms >= visit.seen_ms.load(Ordering::Relaxed) + visit.lasts_ms;
        let (over, here) = std::mem::take(&mut self.visits.here).into_iter().partition(|(visit, _)| is_over(visit));
        self.visits.here = here;
        let over: Vec<(Arc<Visit>, AtEnd)> = over;
        for (visit, on_stop) in over {
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
        connection.awaits = true;
        let token = connection.token(id);
        if shown.wait(self.relay.me(), version) {
            self.visits.woken.push_back(token);
            self.wake();
        } else {
            self.visits.waiting.entry(shown.id).or_default().push(token);
        }
    }

    /// Tells those who have waited, as far as a turn goes.
    pub(super) fn tell_of_changes(&mut self) {
        for shown in self.shared.shelf.take_changed(self.relay.me()) {
            self.visits.woken.extend(self.visits.waiting.remove(&shown).into_iter().flatten());
        }
        let mut budget = Budget::turn();
        while let Some(token) = self.visits.woken.pop_front() {
            let id = place(token);
            let is_it = |connection: &&mut Box<Connection<E>>| connection.token(id) == token && connection.awaits;
            let there = self.connections.get_mut(id).is_some_and(|place| place.as_mut().filter(is_it).is_some());
            let Some(mut connection) = self.connections.get_mut(id).filter(|_| there).and_then(Option::take) else {
                continue;
            };
            connection.awaits = false;
            let outcome = self.tell_session(id, &mut connection, Word::Changed);
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
