//! What the shard tells the control plane.

use super::{
    Shard,
    connection::Connection,
    messages::Publisher,
    place,
    port::{Endpoints, Session, Sink},
    publish::Publish,
    survey::Walk,
};
use crate::{
    control::{ClientReport, PublishReport, ShardReport, StreamReport},
    mesh::relay::Stream,
};

impl<E: Endpoints> Shard<E> {
    /// A connection by its token.
    pub(super) fn client(&self, token: u64) -> Option<&Connection<E>> {
        let id = place(token);
        self.connections.get(id)?.as_deref().filter(|connection| connection.token(id) == token)
    }

    pub(super) fn client_report(&self, connection: &Connection<E>) -> Option<ClientReport> {
        let now_ms = self.shared.now_ms();
        let (play, publish) = (connection.plays.first(), connection.publishes.first());
        let stream = play.and_then(|play| self.relay.stream(play.stream));
        let lag_ms = play.zip(stream).map_or(0, |(play, stream)| {
            let replica = &stream.replica;
            let waits = replica.log().at(play.subscription.next()).filter(|_| play.subscription.is_following());
            waits.map_or(0, |entry| now_ms.saturating_sub(entry.arrived_ms))
        });
        let key = publish.map(|publish| publish.summary.key.as_str()).or_else(|| stream.map(|stream| &*stream.key))?;
        let kind = match (publish, play) {
            (Some(_), _) => "fmle-publish",
            (None, play) => play.map_or("", |play| play.sink.client_type()),
        };
        let peer = connection.session.peer();
        Some(ClientReport {
            id: connection.client.to_string(),
            key: key.to_owned(),
            ip: connection.named().ip().to_string(),
            tc_url: peer.tc_url.to_owned(),
            page_url: peer.page_url.to_owned(),
            swf_url: peer.swf_url.to_owned(),
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

    /// Adds one stream to what is reported.
    pub(super) fn add_stream(&self, walk: &mut Walk, stream: &Stream<Publisher>) {
        let schedule = &stream.replica.schedule;
        let (players, sum_ms) = &mut walk.players;
        *players += schedule.len() as u64;
        *sum_ms += schedule.len() as u64 * schedule.interval_ms();
        walk.report.media_bytes += stream.replica.bytes() as u64;
        walk.report.streams.push(self.stream_report(stream));
    }

    /// What is reported once everything has been looked at.
    pub(super) fn finish_report(&self, walk: Walk) -> ShardReport {
        let (players, sum_ms) = walk.players;
        ShardReport {
            flush_ms: sum_ms.checked_div(players).unwrap_or(self.stats.pace_ms.value()),
            sends_in_flight: self.ring.in_flight() as u64,
            ring_entries: self.relay.ring_entries() as u64,
            connections: self.connections.len() as u64,
            forwards: self.forward_reports(),
            visits: self.visits.players(),
            ..walk.report
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
            memory_bytes: stream.replica.bytes() as u64,
            flush_ms: stream.replica.schedule.interval_ms(),
            age: stream.sent.age.clone(),
            forwards: Vec::new(),
            fetch: None,
        }
    }

    fn publish_report(&self, connection: &Connection<E>, publish: &Publish) -> PublishReport {
        let summary = &publish.summary;
        let (video, audio) = summary.tracks();
        PublishReport {
            client_id: connection.client.to_string(),
            tc_url: connection.session.peer().tc_url.to_owned(),
            started_ms: summary.started_ms,
            video_frames: summary.video_frames,
            audio_frames: summary.audio_frames,
            received_bytes: summary.bytes,
            received_kbps: connection.received_rate.kbps(self.shared.now_ms(), connection.received_bytes),
            video,
            audio,
        }
    }

    /// A connection's publishes whose streams are at home on another shard.
    pub(super) fn remote_publishes(&self, connection: &Connection<E>) -> impl Iterator<Item = StreamReport> {
        let publishes = connection.publishes.iter().filter(|publish| !publish.is_home());
        publishes.map(move |publish| StreamReport {
            key: publish.summary.key.clone(),
            publish: Some(self.publish_report(connection, publish)),
            ..StreamReport::default()
        })
    }
}
