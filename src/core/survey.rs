//! Questions of the control plane, answered beside everything else: what takes a walk over all streams or
//! connections is done in slices, one per round of the shard's loop.

use super::{
    Shard,
    connection::{Connection, Turn},
    place,
    port::{CloseReason, Endpoints},
};
use crate::{
    control::{Call, ClientId, ClientReport, ShardReport},
    mesh::relay::StreamId,
};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long such a walk may keep other work of the shard waiting, per round.
const SLICE: Duration = Duration::from_millis(2);
/// Streams or connections between two looks at the clock.
const BATCH: usize = 32;
/// How long a list of who is a client serves: all pages of it that are asked for within that time.
const CLIENTS_AGE_MS_MAX: u64 = 1000;

/// What is asked and not answered yet.
#[derive(Debug, Default)]
pub(super) struct Survey {
    asked: VecDeque<Call>,
    /// For the first of them.
    walk: Option<Walk>,
    /// The connections that published or played at a time in ms, by their tokens.
    clients: Option<(u64, Vec<u64>)>,
}

/// How far a walk is, and what it has found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Streams that are still to be looked at.
    pub(super) streams: Vec<StreamId>,
    /// Where it goes on among connections.
    place: usize,
    pub(super) report: ShardReport,
    /// Players, and the sum of their flush intervals in ms.
    pub(super) players: (u64, u64),
    clients: Vec<u64>,
    found: Option<usize>,
}

impl Survey {
    pub(super) fn is_pending(&self) -> bool {
        !self.asked.is_empty()
    }
}

/// Whether nobody waits for the answer any more.
fn is_given_up(call: &Call) -> bool {
    match call {
        Call::TakeBack(_) => false,
        Call::Report(reply) => reply.is_closed(),
        Call::Clients { reply, .. } => reply.is_closed(),
        Call::Client { reply, .. } => reply.is_closed(),
        Call::Kick { reply, .. } => reply.is_closed(),
    }
}

impl<E: Endpoints> Shard<E> {
    /// Takes a question of the control plane; what is known at once is answered at once.
    pub(crate) fn answer(&mut self, call: Call) {
        match call {
            // Its task begins elsewhere.
            Call::TakeBack(_) => {}
            Call::Client { id, .. } | Call::Kick { id, .. } if self.place_of(id).is_some() => {
                let place = self.place_of(id);
                self.answer_found(call, place);
            }
            Call::Report(_) | Call::Clients { .. } | Call::Client { .. } | Call::Kick { .. } => {
                self.survey.asked.push_back(call);
            }
        }
    }

    /// Goes on with what is not answered yet, for one slice.
    pub(super) fn go_on_answering(&mut self) {
        if self.survey.is_pending() {
            self.answer_until(Instant::now() + SLICE);
        }
    }

    fn answer_until(&mut self, until: Instant) {
        while let Some(call) = self.survey.asked.pop_front() {
            let walk = match self.survey.walk.take() {
                Some(walk) => walk,
                None if is_given_up(&call) => continue,
                None => self.begin_walk(&call),
            };
            if let Some((call, walk)) = self.go_on_with(call, walk, until) {
                self.survey.asked.push_front(call);
                self.survey.walk = Some(walk);
            }
            if Instant::now() >= until {
                return;
            }
        }
    }

    fn begin_walk(&self, call: &Call) -> Walk {
        let mut walk = Walk::default();
        if matches!(call, Call::Report(_)) {
            walk.streams = self.relay.streams().map(|(id, _)| id).collect();
        }
        walk
    }

    /// Walks on until the answer is there, or time is over: then returns what is left to do.
    fn go_on_with(&mut self, call: Call, mut walk: Walk, until: Instant) -> Option<(Call, Walk)> {
        match call {
            Call::TakeBack(_) => None,
            Call::Report(_) if !self.survey_streams(&mut walk, until) || !self.survey_publishes(&mut walk, until) => {
                Some((call, walk))
            }
            Call::Report(reply) => {
                let report = self.finish_report(walk);
                // Who asked meanwhile has not asked in vain. Who asked may have given up.
                self.survey.asked.retain(|call| match call {
                    Call::Report(reply) => reply.try_send(report.clone()).is_err(),
                    Call::TakeBack(_) | Call::Clients { .. } | Call::Client { .. } | Call::Kick { .. } => true,
                });
                drop(reply.try_send(report));
                None
            }
            Call::Clients { .. } if !self.survey_clients(&mut walk, until) => Some((call, walk)),
            Call::Clients { skip, count, reply } => {
                drop(reply.try_send(self.page_of_clients(skip, count)));
                None
            }
            Call::Client { id, .. } | Call::Kick { id, .. } => {
                let found = &mut walk.found;
                let done = self.visit(&mut walk.place, until, |place, connection| {
                    if is_client(connection) && connection.client == id {
                        *found = Some(place);
                    }
                });
                if !done && walk.found.is_none() {
                    return Some((call, walk));
                }
                self.answer_found(call, walk.found);
                None
            }
        }
    }

    /// Visits connections, from a place on; tells whether all have been visited when time is over.
    fn visit(&self, place: &mut usize, until: Instant, mut look: impl FnMut(usize, &Connection<E>)) -> bool {
        let end = self.connections.capacity();
        while *place < end {
            for place in *place..end.min(*place + BATCH) {
                if let Some(connection) = self.connections.get(place).and_then(Option::as_deref) {
                    look(place, connection);
                }
            }
            *place += BATCH;
            if Instant::now() >= until {
                break;
            }
        }
        *place >= end
    }

    fn survey_streams(&self, walk: &mut Walk, until: Instant) -> bool {
        while !walk.streams.is_empty() {
            let rest = walk.streams.len().saturating_sub(BATCH);
            for id in walk.streams.split_off(rest) {
                // It may have gone since.
                if let Some(stream) = self.relay.stream(id) {
                    self.add_stream(walk, stream);
                }
            }
            if Instant::now() >= until {
                break;
            }
        }
        walk.streams.is_empty()
    }

    /// Adds publishes whose streams are at home on another shard.
    fn survey_publishes(&self, walk: &mut Walk, until: Instant) -> bool {
        let streams = &mut walk.report.streams;
        self.visit(&mut walk.place, until, |_, connection| streams.extend(self.remote_publishes(connection)))
    }

    /// Sees to it that it is known who is a client.
    fn survey_clients(&mut self, walk: &mut Walk, until: Instant) -> bool {
        let now_ms = self.shared.now_ms();
        if self.survey.clients.as_ref().is_some_and(|(at_ms, _)| now_ms < at_ms + CLIENTS_AGE_MS_MAX) {
            return true;
        }
        let clients = &mut walk.clients;
        let done = self.visit(&mut walk.place, until, |place, connection| {
            if is_client(connection) {
                clients.push(connection.token(place));
            }
        });
        if done {
            self.survey.clients = Some((now_ms, std::mem::take(clients)));
        }
        done
    }

    fn page_of_clients(&self, skip: usize, count: usize) -> (Vec<ClientReport>, usize) {
        let Some((_, clients)) = &self.survey.clients else { return (Vec::new(), 0) };
        let page = clients.iter().skip(skip).take(count);
        let left = count - page.len();
        let connections = page.filter_map(|token| self.client_report(self.client(*token)?));
        let visits = self.visits.clients(skip.saturating_sub(clients.len()), left, self.shared.now_ms());
        (connections.chain(visits).collect(), clients.len() + self.visits.len())
    }

    /// Where a client that came in here still is.
    fn place_of(&self, id: ClientId) -> Option<usize> {
        let connection = self.client(id.token).filter(|connection| connection.client == id && is_client(connection));
        connection.map(|_| place(id.token))
    }

    fn answer_found(&mut self, call: Call, found: Option<usize>) {
        match call {
            Call::Client { reply, .. } => {
                let connection = found.and_then(|id| self.connections.get(id)?.as_deref());
                drop(reply.try_send(connection.and_then(|connection| self.client_report(connection))));
            }
            Call::Kick { reply, .. } => {
                if let Some(id) = found {
                    self.with(id, |connection| connection.close(CloseReason::Kicked));
                    self.flush_connection(id, Turn::Own);
                }
                _ = reply.try_send(found.is_some());
            }
            Call::TakeBack(_) | Call::Report(_) | Call::Clients { .. } => {}
        }
    }
}

fn is_client<E: Endpoints>(connection: &Connection<E>) -> bool {
    !connection.plays.is_empty() || !connection.publishes.is_empty()
}

#[cfg(test)]
mod tests;
