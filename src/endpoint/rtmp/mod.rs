//! RTMP (conformance A to D): the session of a server's connection, and how a stream's entries become chunks.

mod sink;

pub(crate) use sink::RtmpSink;

use crate::{
    config::Vhost,
    core::port::{
        CloseReason, Connect, Context, HANDSHAKE_MS_MAX, IO_MS_MAX, Id, Output, Peer, Request, Session, Word,
    },
    proto::{
        address::{StreamAddress, UrlError},
        flv::Tag,
        rtmp::{
            chunks::ChunkStreams,
            handshake::{Outcome, Scheme},
            server::{Event, Redirect, ServerSession, Settings},
        },
    },
};
use smallvec::SmallVec;

/// One connection.
#[derive(Debug)]
pub(crate) struct RtmpSession {
    rtmp: ServerSession,
    queue: SmallVec<[Output<RtmpSink>; 1]>,
    handshaken: bool,
    /// When the peer last did what is not free.
    heard_ms: u64,
    /// NetStreams that play or want to, and the set of chunk streams that each has.
    sets: SmallVec<[(Id, usize); 1]>,
    /// Bytes per chunk of what plays: the first stream's vhost says it.
    chunk_size: u32,
}

impl RtmpSession {
    pub(super) fn new(context: &Context<'_>) -> Self {
        let settings = context.config().vhosts.first().map(|vhost| settings(vhost)).unwrap_or_default();
        Self {
            rtmp: ServerSession::new(settings, fastrand::u64(..)),
            queue: SmallVec::new(),
            handshaken: false,
            heard_ms: context.now_ms,
            sets: SmallVec::new(),
            chunk_size: settings.chunk_size,
        }
    }

    fn event(&mut self, event: Event, context: &Context<'_>) {
        // What costs a peer nothing does not keep it from being idle.
        if !matches!(event, Event::Pause { .. } | Event::Receive { .. }) {
            self.heard_ms = context.now_ms;
        }
        match event {
            Event::Media { msid, kind, timestamp, body } => {
                self.queue.push(Output::Tag(msid, Tag { kind, timestamp, body }));
            }
            Event::Handshake(outcome) => {
                self.handshaken = true;
                self.queue.push(Output::Ready(note(outcome)));
            }
            Event::Connect => self.connect(context),
            Event::Publish { msid, stream } => match self.request(msid, &stream, context) {
                Ok(request) => self.queue.push(Output::Publish(Box::new(request))),
                Err(why) => self.refuse_publish(msid, &why),
            },
            Event::Play { msid, stream, duration_ms } => match self.request(msid, &stream, context) {
                Ok(request) => {
                    let sink = self.sink(msid, &request, duration_ms);
                    self.queue.push(Output::Play(Box::new(request), sink));
                }
                Err(why) => self.refuse_play(msid, &why),
            },
            Event::Close { msid } => {
                self.sets.retain(|(known, _)| *known != msid);
                self.queue.push(Output::Close(msid));
            }
            Event::Pause { msid, paused } => self.queue.push(Output::Pause(msid, paused)),
            Event::Receive { msid, kind, wanted } => self.queue.push(Output::Want(msid, kind, wanted)),
        }
    }

    fn connect(&mut self, context: &Context<'_>) {
        let address =
            self.rtmp.connect().and_then(|connect| StreamAddress::resolve(&connect.tc_url, &connect.app, "-").ok());
        let found = address.and_then(|address| Some((context.config().vhost(&address.vhost)?.clone(), address.app)));
        match found {
            Some((vhost, app)) => {
                self.rtmp.set_settings(settings(&vhost));
                self.queue.push(Output::Connect(Box::new(Connect { vhost, app })));
            }
            None => self.rtmp.accept_connect(),
        }
    }

    /// Finds out which stream a name means, and whether its vhost answers.
    fn request(&self, msid: Id, stream: &str, context: &Context<'_>) -> Result<Request, String> {
        let (tc_url, app) = self.rtmp.connect().map_or(("", ""), |connect| (&connect.tc_url, &connect.app));
        let address = StreamAddress::resolve(tc_url, app, stream).map_err(|error| error.to_string())?;
        Request::new(msid, address, &context.config())
    }

    fn sink(&mut self, msid: Id, request: &Request, duration_ms: Option<u32>) -> RtmpSink {
        self.sets.retain(|(known, _)| *known != msid);
        if self.sets.is_empty() {
            self.chunk_size = request.vhost.chunk_size;
        }
        let set = (0..).find(|set| self.sets.iter().all(|(_, known)| known != set)).unwrap_or(0);
        self.sets.push((msid, set));
        RtmpSink::new(ChunkStreams::new(set), msid, self.chunk_size as usize, duration_ms)
    }

    fn refuse_publish(&mut self, msid: Id, why: &str) {
        self.rtmp.reject_publish(msid, why);
        self.queue.push(Output::Useless(CloseReason::Refused(format!("publish refused: {why}"))));
    }

    fn refuse_play(&mut self, msid: Id, why: &str) {
        self.sets.retain(|(known, _)| *known != msid);
        let missing = why == UrlError::EmptyStream.to_string();
        let code = if missing { "NetStream.Play.StreamNotFound" } else { "NetStream.Play.Failed" };
        self.rtmp.reject_play(msid, code, why);
        self.queue.push(Output::Useless(CloseReason::Refused(format!("play refused: {why}"))));
    }
}

impl Session for RtmpSession {
    type Sink = RtmpSink;

    fn receive(&mut self, input: &mut &[u8], context: &Context<'_>) -> Result<(), CloseReason> {
        while self.queue.is_empty() {
            match self.rtmp.next_event(input) {
                Ok(Some(event)) => self.event(event, context),
                Ok(None) => break,
                Err(error) => return Err(CloseReason::Protocol(error.to_string())),
            }
        }
        Ok(())
    }

    fn poll(&mut self) -> Option<Output<RtmpSink>> {
        if self.queue.is_empty() { None } else { Some(self.queue.remove(0)) }
    }

    fn told(&mut self, word: Word<'_>, context: &Context<'_>) {
        match word {
            Word::Connected => {
                self.heard_ms = context.now_ms;
                self.rtmp.accept_connect();
            }
            Word::Published(msid) => self.rtmp.accept_publish(msid),
            Word::PublishRefused(msid, why) => {
                self.heard_ms = context.now_ms;
                self.refuse_publish(msid, why);
            }
            Word::Opened(_) => self.rtmp.set_chunk_size(self.chunk_size),
            Word::Playing(msid) => self.rtmp.accept_play(msid),
            Word::PlayRefused(msid, why) | Word::Busy(msid, why) => {
                self.heard_ms = context.now_ms;
                self.refuse_play(msid, why);
            }
            Word::Elsewhere(msid, url) => {
                self.heard_ms = context.now_ms;
                self.sets.retain(|(known, _)| *known != msid);
                let tc_url = url.rsplit_once('/').map_or(url, |(tc_url, _)| tc_url);
                self.rtmp.redirect(msid, Redirect { tc_url, url });
                self.queue.push(Output::Useless(CloseReason::Redirected(url.to_owned())));
            }
            Word::Started(msid, again) => {
                if again {
                    self.rtmp.notify_publish(msid);
                }
            }
            Word::Ended(msid) => self.rtmp.notify_unpublish(msid),
            Word::Finished(msid) => {
                self.heard_ms = context.now_ms;
                self.sets.retain(|(known, _)| *known != msid);
                self.rtmp.notify_play_end(msid);
            }
            Word::Paused(msid, paused) => self.rtmp.notify_pause(msid, paused),
            Word::Drain => self.rtmp.request_reconnect(),
            Word::Waits(..) | Word::Sent | Word::Changed(_) => {}
        }
    }

    fn take_output(&mut self) -> Vec<u8> {
        self.rtmp.take_output()
    }

    fn output_len(&self) -> usize {
        self.rtmp.output_len()
    }

    fn deadline(&self, busy: bool) -> Option<u64> {
        if self.handshaken {
            (!busy).then_some(self.heard_ms + IO_MS_MAX)
        } else {
            Some(self.heard_ms + HANDSHAKE_MS_MAX)
        }
    }

    fn timeout(&mut self, busy: bool, context: &Context<'_>) -> Option<CloseReason> {
        self.deadline(busy).filter(|deadline_ms| *deadline_ms <= context.now_ms)?;
        Some(if self.handshaken {
            CloseReason::Idle
        } else {
            CloseReason::Late(format!("no complete handshake within {} s", HANDSHAKE_MS_MAX / 1000))
        })
    }

    fn peer(&self) -> Peer<'_> {
        let position = u64::from(self.rtmp.position());
        self.rtmp.connect().map_or(Peer { position, ..Peer::default() }, |connect| Peer {
            tc_url: &connect.tc_url,
            page_url: &connect.page_url,
            swf_url: &connect.swf_url,
            agent: &connect.flash_ver,
            path: &connect.forwarded_by,
            position,
        })
    }

    fn into_unread(self) -> Vec<u8> {
        Vec::new()
    }
}

fn settings(vhost: &Vhost) -> Settings {
    let Vhost { chunk_size, in_ack_size, out_ack_size, .. } = *vhost;
    Settings { chunk_size, out_ack_size, in_ack_size }
}

fn note(outcome: Outcome) -> &'static str {
    match (outcome.scheme, outcome.echo_matches) {
        (Scheme::Complex { .. }, true) => ", complex",
        (Scheme::Complex { .. }, false) => ", complex, its echo is another",
        (Scheme::Simple, true) => ", simple",
        (Scheme::Simple, false) => ", simple, its echo is another",
    }
}
