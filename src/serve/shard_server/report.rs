//! What the shard tells the control plane.

use super::{CloseReason, Publisher, ShardServer, flush::Turn, peer::Connection, place};
use crate::{
    control::{Call, ClientReport, PublishReport, ShardReport, StreamReport},
    serve::{play::Wire, rtmp::publisher::Publish},
    shard::relay::Stream,
};

impl ShardServer {
    /// Does what the control plane asks for.
    pub(in crate::serve) fn answer(&mut self, call: Call) {
        // Who asked may have given up.
        match call {
            // Its task begins elsewhere.
            Call::TakeBack(_) => {}
            Call::Report(reply) => drop(reply.try_send(self.report())),
            Call::Clients { skip, count, reply } => drop(reply.try_send(self.client_reports(skip, count))),
            Call::Client { id, reply } => {
                let found = self.clients().find(|(_, connection)| connection.client == id);
                drop(reply.try_send(found.and_then(|(_, connection)| self.client_report(connection))));
            }
            Call::Kick { id, reply } => {
                let found = self.clients().find(|(_, connection)| connection.client == id).map(|(id, _)| id);
                if let Some(id) = found {
                    self.with(id, |connection| connection.close(CloseReason::Kicked));
                    self.flush_guarded(id, Turn::Own);
                }
                _ = reply.try_send(found.is_some());
            }
        }
    }

    fn client(&self, token: u64) -> Option<&Connection> {
        let id = place(token);
        self.connections.get(id)?.as_deref().filter(|connection| connection.token(id) == token)
    }

    fn clients(&self) -> impl Iterator<Item = (usize, &Connection)> {
        let connections = self.connections.iter().filter_map(|(id, connection)| Some((id, connection.as_deref()?)));
        connections.filter(|(_, connection)| !connection.plays.is_empty() || !connection.publishes.is_empty())
    }

    fn client_reports(&self, skip: usize, count: usize) -> (Vec<ClientReport>, usize) {
        let page = self.clients().skip(skip).take(count);
        let reports = page.filter_map(|(_, connection)| self.client_report(connection)).collect();
        (reports, self.clients().count())
    }

    fn client_report(&self, connection: &Connection) -> Option<ClientReport> {
        let now_ms = self.shared.now_ms();
        let (play, publish) = (connection.plays.first(), connection.publishes.first());
        let stream = play.and_then(|play| self.relay.stream(play.stream));
        let lag_ms = play.zip(stream).map_or(0, |(play, stream)| {
            let replica = &stream.replica;
            let waits = replica.log().at(play.subscription.next()).filter(|_| play.subscription.is_following());
            waits.map_or(0, |entry| now_ms.saturating_sub(entry.arrived_ms))
        });
        let key = publish.map(|publish| publish.summary.key.as_str()).or_else(|| stream.map(|stream| &*stream.key))?;
        let kind = match (publish, play.map(|play| &play.wire)) {
            (Some(_), _) => "fmle-publish",
            (None, Some(Wire::Flv(_))) => "flv-play",
            (None, _) => "rtmp-play",
        };
        Some(ClientReport {
            id: connection.client.to_string(),
            key: key.to_owned(),
            ip: connection.named().ip().to_string(),
            tc_url: connection.session.tc_url().to_owned(),
            page_url: connection.session.page_url().to_owned(),
            kind,
            publish: publish.is_some(),
            alive_ms: now_ms - connection.started_ms,
            sent_bytes: connection.sent_bytes,
            received_bytes: connection.received_bytes,
            sent_kbps: connection.sent_rate.kbps(now_ms, connection.sent_bytes),
            received_kbps: connection.received_rate.kbps(now_ms, connection.received_bytes),
            skips: connection.plays.iter().map(|play| u64::from(play.subscription.skips())).sum(),
            lag_ms,
        })
    }

    fn report(&self) -> ShardReport {
        let streams = self.relay.streams().map(|(_, stream)| self.stream_report(stream));
        let schedules = || self.relay.streams().map(|(_, stream)| &stream.replica.schedule);
        let players: u64 = schedules().map(|schedule| schedule.len() as u64).sum();
        let weighted: u64 = schedules().map(|schedule| schedule.len() as u64 * schedule.interval_ms()).sum();
        ShardReport {
            flush_ms: weighted.checked_div(players).unwrap_or(self.stats.pace_ms.value()),
            streams: streams.chain(self.remote_publishes()).collect(),
            log_bytes: self.relay.streams().map(|(_, stream)| stream.replica.log().bytes() as u64).sum(),
            sends_in_flight: self.ring.in_flight() as u64,
            ring_entries: self.relay.ring_entries() as u64,
            connections: self.connections.len() as u64,
        }
    }

    fn stream_report(&self, stream: &Stream<Publisher>) -> StreamReport {
        let now_ms = self.shared.now_ms();
        let publish = stream.publisher.as_ref().filter(|publisher| publisher.shard == self.relay.me());
        let publish = publish.and_then(|publisher| {
            let connection = self.client(publisher.connection)?;
            let publish = connection.publishes.iter().find(|publish| publish.serial == publisher.publish)?;
            Some(self.publish_report(connection, publish))
        });
        StreamReport {
            key: stream.key.to_string(),
            publish,
            players: stream.replica.schedule.len() as u64,
            sent_bytes: stream.sent.bytes,
            sent_kbps: stream.sent.rate.kbps(now_ms, stream.sent.bytes),
            skips: stream.sent.skips,
            flush_ms: stream.replica.schedule.interval_ms(),
            age: stream.sent.age.clone(),
        }
    }

    fn publish_report(&self, connection: &Connection, publish: &Publish) -> PublishReport {
        let summary = &publish.summary;
        let (video, audio) = summary.tracks();
        PublishReport {
            client_id: connection.client.to_string(),
            tc_url: connection.session.tc_url().to_owned(),
            started_ms: summary.started_ms,
            frames: summary.frames,
            received_bytes: summary.bytes,
            received_kbps: connection.received_rate.kbps(self.shared.now_ms(), connection.received_bytes),
            video,
            audio,
        }
    }

    /// Publishes whose streams are at home on another shard.
    fn remote_publishes(&self) -> impl Iterator<Item = StreamReport> {
        let publishes = self
            .clients()
            .flat_map(|(_, connection)| connection.publishes.iter().map(move |publish| (connection, publish)));
        publishes.filter(|(_, publish)| !publish.is_home()).map(|(connection, publish)| StreamReport {
            key: publish.summary.key.clone(),
            publish: Some(self.publish_report(connection, publish)),
            ..StreamReport::default()
        })
    }
}
