//! From logs to sockets: who is due, what it gets, and the send ring.

use super::{
    Outcome, SCRATCH_BYTES, Shard,
    budget::Budget,
    connection::{Connection, Turn},
    place,
    play::{Play, Progress, Told},
    play_of,
    port::{CloseReason, Endpoints, Id, Session, Word},
    publish::{Publish, Target},
};
use crate::{
    mesh::relay::StreamId,
    proto::Write,
    sys::{self, Ended, Gather, Place, SendBuf},
    tls,
};
use smallvec::SmallVec;
use std::{
    io::IoSlice,
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll},
};

/// Members of one flush from which an image pays: one copy against that many iovec lists.
const IMAGE_MEMBERS_MIN: usize = 4;
/// Who has sent so much at once may have more.
const RESTLESS_BYTES: usize = 32 << 10;
/// The same where reads are merged: the receive buffer was full.
const RESTLESS_MERGED_BYTES: usize = SCRATCH_BYTES;
/// Bytes that one key of AES-GCM may encrypt: 2^24.5 records of 16 KiB (RFC 8446 §5.5), with some to spare.
const KTLS_BYTES_MAX: u64 = 256 << 30;

impl<E: Endpoints> Shard<E> {
    /// Flushes streams at 0 ms, whose tags go out as they come, as far as a turn goes; others wake the loop if they
    /// are due before it wakes by itself.
    pub(super) fn flush_changed(&mut self) {
        if self.changed.is_empty() {
            return;
        }
        let now_ms = self.shared.now_ms();
        let mut budget = Budget::turn();
        let mut changed = std::mem::take(&mut self.changed);
        for stream in changed.drain(..) {
            let schedule = self.relay.stream(stream).map(|stream| &stream.replica.schedule);
            if schedule.is_some_and(|schedule| schedule.is_immediate()) && !budget.spend(1) {
                self.flush_stream(stream, now_ms, &mut budget);
            }
            self.relay.arm(stream, now_ms);
        }
        // Its capacity stays; what changed meanwhile comes next.
        changed.append(&mut self.changed);
        self.changed = changed;
        if self.relay.next_due_ms().is_some_and(|due_ms| due_ms < self.asleep_until_ms) {
            self.wake();
        }
    }

    /// Flushes the members of a stream that are due, as far as the budget goes.
    pub(super) fn flush_stream(&mut self, id: StreamId, now_ms: u64, budget: &mut Budget) {
        let Some(stream) = self.relay.stream_mut(id) else { return };
        let head = stream.replica.log().head();
        let (msgs, one_by_one) = (stream.replica.settings().msgs_min(), stream.replica.settings().is_one_by_one());
        if !stream.replica.schedule.begin_flush(now_ms, head, msgs) {
            return;
        }
        let done = loop {
            let Some(stream) = self.relay.stream_mut(id) else { break true };
            let Some((member, members)) = stream.replica.schedule.next_member() else { break true };
            let connection = place(member);
            self.flush_guarded(connection, Turn::Due { share: members >= IMAGE_MEMBERS_MIN });
            let holds = self.holds_from(connection, id, play_of(member), now_ms);
            let Some(stream) = self.relay.stream_mut(id) else { break true };
            stream.replica.schedule.flushed(member, holds);
            if one_by_one && holds.is_some_and(|at| at < head) {
                stream.replica.schedule.note_change();
            }
            if budget.spend(1) {
                break false;
            }
        };
        self.images.clear();
        if done && let Some(stream) = self.relay.stream_mut(id) {
            stream.replica.trim();
        }
        self.relay.release(id);
    }

    /// From where a member needs the log; `None` if it is a member no more.
    pub(super) fn holds_from(&self, id: usize, stream: StreamId, play: Id, now_ms: u64) -> Option<u64> {
        let connection = self.connections.get(id)?.as_ref()?;
        let play = connection.plays.iter().find(|known| known.id == play && known.stream == stream)?;
        let replica = &self.relay.stream(stream)?.replica;
        Some(if play.paused { u64::MAX } else { replica.holds_from(&play.subscription, now_ms) })
    }

    pub(super) fn flush_guarded(&mut self, id: usize, turn: Turn) {
        let descriptor = self.with(id, |connection| connection.descriptor);
        let flushed = catch_unwind(AssertUnwindSafe(|| self.flush_connection(id, turn)));
        if let (Err(_), Some(descriptor)) = (flushed, descriptor) {
            // The connection is lost; its task sees its socket shut and cleans up.
            sys::shutdown(descriptor);
        }
    }

    /// Sends what a connection has to say and its players have to get, unless a send is in flight.
    pub(super) fn flush_connection(&mut self, id: usize, turn: Turn) {
        let Some(place) = self.connections.get_mut(id) else { return };
        let busy = |connection: &&mut Box<Connection<E>>| connection.sending.is_some() || connection.closing.is_some();
        if let Some(connection) = place.as_mut().filter(busy) {
            connection.flush_again = true;
            return;
        }
        let Some(mut connection) = place.take() else { return };
        self.leave_tls_to_the_kernel(&mut connection);
        let (mut buf, mut place) = self.gather(id, &mut connection, turn).unzip();
        if let Some(tls) = &mut connection.tls {
            (buf, place) = (Some(wrap(tls, buf)), None);
        }
        if let Some(mut buf) = buf.filter(|buf| !buf.is_empty()) {
            connection.send_started_ms = self.shared.now_ms();
            self.stats.sends.add(1);
            let (token, descriptor) = (connection.token(id), connection.descriptor);
            if let (Some(Some(place)), SendBuf::Shared(bytes, from), None) = (place, &mut buf, connection.ktls_bytes) {
                *from = self.images.send(descriptor, place);
                let (sent, whole) = (*from as u64, *from == bytes.len());
                self.stats.bytes_sent.add(sent);
                if whole {
                    self.put_back(id, connection);
                    return self.send_ended(token, true, sent);
                }
                connection.sent_bytes += sent;
            }
            let key = match &mut connection.ktls_bytes {
                None => self.ring.push(token, descriptor, buf),
                Some(bytes) => {
                    *bytes += buf.len() as u64;
                    if *bytes > KTLS_BYTES_MAX {
                        connection.leaving = Some(CloseReason::KeysUsedUp);
                    }
                    self.ring.push_in_pieces(token, descriptor, buf)
                }
            };
            connection.sending = Some(key);
        } else if let Some(reason) = connection.leaving.take() {
            connection.close(reason);
        }
        self.put_back(id, connection);
    }

    /// Has the kernel encrypt what a player of RTMPS gets, so that it can share images, where the kernel has
    /// TLS. Publishers stay: their peers may change keys, which takes a library to follow.
    fn leave_tls_to_the_kernel(&self, connection: &mut Connection<E>) {
        let player = !connection.plays.is_empty() && connection.publishes.is_empty();
        if !self.shared.ktls || !player {
            return;
        }
        let Some(tls) = connection.tls.as_mut().filter(|tls| tls.can_leave()) else { return };
        if !sys::prepare(connection.descriptor) {
            return tls.stay();
        }
        let Some(tls) = connection.tls.take() else { return };
        let handed = tls.into_secrets().map_err(|error| error.to_string()).and_then(|(version, secrets)| {
            sys::offload(connection.descriptor, version, secrets).map_err(|error| error.to_string())
        });
        match handed {
            Ok(()) => connection.ktls_bytes = Some(0),
            Err(error) => connection.close(CloseReason::Ktls(error)),
        }
    }

    fn gather(&mut self, id: usize, connection: &mut Connection<E>, turn: Turn) -> Option<(SendBuf, Option<Place>)> {
        let now_ms = self.shared.now_ms();
        self.announce_plays(connection);
        let own = connection.session.take_output();
        if connection.leaving.is_some() {
            // Its last words, and no more of what it plays.
            return Some((SendBuf::Gather(Box::new(Gather::new(own))), None));
        }
        if let ([play], Turn::Due { share: true }, true) = (&mut connection.plays[..], turn, own.is_empty()) {
            let replica = &self.relay.stream(play.stream)?.replica;
            if let Some(((bytes, place), tags)) = play.take_image(replica, &mut self.images, now_ms) {
                self.stats.tags_sent.add(tags);
                let age_ms = play.age_ms(replica, now_ms, tags);
                let sent = bytes.len() as u64;
                // The end of a publish, or more than fits, follows when this is sent.
                let more = play.subscription.next() < replica.log().head() && !replica.settings().is_one_by_one();
                connection.flush_again = more || !replica.is_live();
                let stream = play.stream;
                self.note_sent(stream, sent, 0, age_ms);
                return Some((SendBuf::Shared(bytes, 0), place));
            }
        }
        let mut out = Gather::new(own);
        self.put_body(connection, &mut out);
        let mut finished: SmallVec<[Id; 1]> = SmallVec::new();
        let Connection { plays, session, leaving, flush_again, .. } = connection;
        for play in plays.iter_mut().filter(|play| play.announced) {
            let Some(stream) = self.relay.stream(play.stream) else { continue };
            let one_by_one = stream.replica.settings().is_one_by_one();
            if one_by_one && turn == Turn::Own {
                // One tag each time that it is due, and none in between.
                continue;
            }
            let (before, following) = (out.len(), play.subscription.is_following());
            let (mut age_ms, mut skips) = (None, 0);
            let shared = &self.shared;
            let id = play.id;
            let mut tell = |told: Told, out: &mut Gather| {
                let word = match told {
                    Told::Started(again) => Word::Started(id, again),
                    Told::Ended => Word::Ended(id),
                    Told::Finished => Word::Finished(id),
                };
                session.told(word, &shared.context());
                if session.output_len() > 0 {
                    out.copy(&session.take_output());
                }
            };
            loop {
                match play.step(&stream.replica, &mut tell, &mut out, now_ms) {
                    Progress::Took(tags) => {
                        self.stats.tags_sent.add(tags);
                        if tags > 0 && following && age_ms.is_none() {
                            age_ms = play.age_ms(&stream.replica, now_ms, tags);
                        }
                        if tags > 0 && one_by_one {
                            break;
                        }
                    }
                    Progress::Ended if self.shared.is_draining() => *leaving = Some(CloseReason::Drained),
                    Progress::Ended | Progress::Replaced => {}
                    Progress::Skipped => {
                        self.stats.skips.add(1);
                        skips += 1;
                    }
                    Progress::Finished => {
                        finished.push(play.id);
                        break;
                    }
                    Progress::Full => {
                        *flush_again = true;
                        break;
                    }
                    Progress::Idle => break,
                }
            }
            self.note_sent(play.stream, (out.len() - before) as u64, skips, age_ms);
        }
        // Between two flushes of its group the log must not be cut behind what a player still needs.
        for play in plays.iter().filter(|play| !play.paused) {
            if let Some(stream) = self.relay.stream_mut(play.stream) {
                let holds = stream.replica.holds_from(&play.subscription, now_ms);
                stream.replica.schedule.hold(holds);
            }
        }
        for play in finished {
            self.close_service(id, connection, play);
            if self.shared.is_draining() {
                connection.leaving.get_or_insert(CloseReason::Drained);
            }
        }
        self.tell_who_waits(connection);
        self.drain_session(id, connection, &mut out);
        Some((SendBuf::Gather(Box::new(out)), None))
    }

    /// Tells players that they play whose streams' homes know of them: nothing that comes after that is missed.
    fn announce_plays(&mut self, connection: &mut Connection<E>) {
        for play in connection.plays.iter_mut().filter(|play| !play.announced) {
            if self.relay.is_settled(play.stream) {
                play.announced = true;
                connection.session.told(Word::Playing(play.id), &self.shared.context());
            }
        }
    }

    /// Tells players that nothing has come for them yet.
    fn tell_who_waits(&self, connection: &mut Connection<E>) {
        let waiting = connection.plays.iter().filter(|play| !play.begun);
        let absent = |play: &Play<E::Sink>| (play.id, self.relay.is_absent(play.stream));
        for (play, absent) in waiting.map(absent).collect::<SmallVec<[_; 1]>>() {
            connection.session.told(Word::Waits(play, absent), &self.shared.context());
        }
    }

    /// Does what a session says to what it was told, and sends what it says to its peer.
    fn drain_session(&mut self, id: usize, connection: &mut Connection<E>, out: &mut Gather) {
        while let Some(output) = connection.session.poll() {
            if let Outcome::Close(reason) = self.act(id, connection, output) {
                connection.leaving.get_or_insert(reason);
            }
        }
        if connection.session.output_len() > 0 {
            out.copy(&connection.session.take_output());
        }
        connection.flush_again |= !connection.body.is_empty();
        connection.wake_answered();
    }

    fn note_sent(&mut self, stream: StreamId, bytes: u64, skips: u64, age_ms: Option<u64>) {
        let Some(stream) = self.relay.stream_mut(stream) else { return };
        stream.sent.bytes += bytes;
        stream.sent.skips += skips;
        if let Some(age_ms) = age_ms {
            stream.sent.age.note(age_ms);
            self.stats.age.note(age_ms);
        }
    }

    /// Hands queued sends to the kernel and goes on with connections whose sends have ended, as far as a turn goes.
    pub(crate) fn pump(&mut self) {
        let mut budget = Budget::turn();
        let mut ended = std::mem::take(&mut self.ended);
        loop {
            self.ring.pump(&mut ended);
            if ended.is_empty() && self.refills.is_empty() {
                break;
            }
            for Ended { token, whole, bytes } in ended.drain(..) {
                self.stats.bytes_sent.add(bytes as u64);
                self.send_ended(token, whole, bytes as u64);
            }
            let mut spent = false;
            while !spent && let Some(id) = self.refills.pop_front() {
                self.refill(id);
                spent = budget.spend(1);
            }
            if spent {
                self.ring.pump(&mut ended);
                self.wake();
                break;
            }
        }
        self.ended = ended;
        self.file_syscalls += self.images.take_syscalls();
        self.stats.send_syscalls.set(self.ring.syscalls() + self.file_syscalls);
    }

    pub(super) fn send_ended(&mut self, token: u64, whole: bool, bytes: u64) {
        let id = place(token);
        let Some(connection) = self.connections.get_mut(id).and_then(Option::as_deref_mut) else { return };
        if connection.token(id) != token {
            return;
        }
        connection.sending = None;
        connection.sent_bytes += bytes;
        if !whole {
            // The socket was shut, by us or the peer; the task's read sees it and closes.
            connection.close(CloseReason::PeerClosed);
        } else if connection.flush_again || connection.has_words() || connection.leaving.is_some() {
            connection.flush_again = false;
            connection.refilling = true;
            self.refills.push_back(id);
            return;
        }
        connection.wake_drained();
    }

    /// Sends what a connection has beyond its last send.
    fn refill(&mut self, id: usize) {
        if self.with(id, |connection| std::mem::take(&mut connection.refilling)) != Some(true) {
            return;
        }
        self.flush_guarded(id, Turn::Own);
        self.with(id, Connection::wake_drained);
    }

    /// How long a connection that has just read `bytes` may rest before it reads again, in ms.
    pub(crate) fn read_pause_ms(&self, id: usize, bytes: usize) -> u64 {
        let connection = self.connections.get(id).and_then(Option::as_deref);
        let Some(connection) = connection.filter(|connection| connection.plays.is_empty()) else { return 0 };
        let merged = connection.publishes.iter().any(|publish| publish.settings.mr_latency_ms.is_some());
        if bytes >= if merged { RESTLESS_MERGED_BYTES } else { RESTLESS_BYTES } {
            return 0;
        }
        let pause_ms = |publish: &Publish| match publish.target {
            Target::Home(stream) => self.relay.read_pause_ms(stream),
            Target::Remote { .. } => publish.settings.mr_latency_ms.map_or(0, u64::from),
        };
        connection.publishes.iter().map(pause_ms).min().unwrap_or(0)
    }

    /// Ready when a connection's request is answered, or never will be.
    pub(crate) fn poll_answered(&mut self, id: usize, cx: &Context<'_>) -> Poll<()> {
        let Some(connection) = self.connections.get_mut(id).and_then(Option::as_deref_mut) else {
            return Poll::Ready(());
        };
        if !connection.session.is_answering() || connection.closing.is_some() || connection.leaving.is_some() {
            return Poll::Ready(());
        }
        connection.drained = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ready when nothing of the connection is in flight or waits.
    pub(crate) fn poll_drained(&mut self, id: usize, cx: &Context<'_>) -> Poll<()> {
        let Some(connection) = self.connections.get_mut(id).and_then(Option::as_deref_mut) else {
            return Poll::Ready(());
        };
        if !connection.is_sending() {
            return Poll::Ready(());
        }
        connection.drained = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Puts what is to be sent into TLS, behind what TLS itself has to say.
fn wrap(tls: &mut tls::Session, buf: Option<SendBuf>) -> SendBuf {
    let wire = match &buf {
        None => tls.take_output(),
        Some(SendBuf::Shared(bytes, from)) => tls.wrap(&[IoSlice::new(&bytes[*from..])]),
        Some(SendBuf::Own(bytes)) => tls.wrap(&[IoSlice::new(bytes)]),
        // Not on a connection.
        Some(SendBuf::Datagrams(_)) => Vec::new(),
        Some(SendBuf::Gather(gather)) => tls.wrap(&gather.pieces().map(IoSlice::new).collect::<Vec<_>>()),
    };
    SendBuf::Own(wire)
}
