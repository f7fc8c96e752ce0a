//! What an edge fetches: a stream of an origin, by RTMP(S) or HTTP(S)-FLV, published here as if it came in.
//!
//! The shard opens the connection and opens it anew ([`Target`]); here is what is said there.

mod origins;

pub(super) use origins::{by_urls, redirected, targets, url_at};

use crate::{
    core::port::{CloseReason, Context, Output, Peer, Request, Session, Target, Way, Word},
    proto::{
        amf::Value,
        codec::{self, Class},
        flv::{Tag, TagKind},
        http::{
            self, HttpUrl,
            client::{FlvSession, ResponseError},
        },
        rtmp::{
            client::{ClientSession, Event, Role},
            handshake::Scheme,
            server::FORWARDED_BY,
            url::RtmpUrl,
        },
    },
};
use smallvec::SmallVec;
use std::convert::Infallible;

/// The one number of what it publishes.
const ID: u32 = 0;

/// E-RTMP's capsEx: an origin that drains may say so.
const RECONNECTS: f64 = 1.0;

/// One connection to an origin.
#[derive(Debug)]
pub(crate) struct PullSession {
    wire: Wire,
    request: Request,
    queue: SmallVec<[Output<Infallible>; 2]>,
    /// How long an answer may take, in ms, and media that is not there yet.
    patience_ms: u64,
    wait_ms: u64,
    /// It is only asked whether it would.
    asks: bool,
    /// The origin has agreed.
    playing: bool,
    /// Media has come, and its end has not.
    publishing: bool,
    /// Metadata that has come before media.
    metadata: Option<Tag>,
    /// Since when it waits, in ms of the process's clock.
    since_ms: u64,
    position: u64,
}

#[derive(Debug)]
enum Wire {
    Rtmp(Box<ClientSession>),
    Flv(Box<FlvSession>),
}

/// What comes of what the origin says.
enum Said {
    Playing,
    Tag(Tag),
    /// The publish is over there; another one may follow.
    Ended,
}

impl PullSession {
    /// Begins; `None` if the target is no place for it.
    pub(super) fn new(target: &Target, context: &Context<'_>) -> Option<Self> {
        let wire = if origins::is_http(&target.url) {
            let url = HttpUrl::parse(&target.url)?;
            let fields = format!("User-Agent: corecast\r\n{}: {}\r\n", http::FORWARDED_BY, target.path);
            Wire::Flv(Box::new(FlvSession::start(&url, &fields)))
        } else {
            let url = RtmpUrl::parse(&target.url).ok()?;
            let mut rtmp = ClientSession::start(url, Role::Play, Scheme::Simple, fastrand::u64(..))
                .with_property(FORWARDED_BY, Value::string(target.path.clone()))
                .with_property("capsEx", Value::Number(RECONNECTS));
            if target.request.vhost.cluster.names_itself {
                let server = Value::string(concat!("corecast/", env!("CARGO_PKG_VERSION")));
                let id = Value::string(target.path.rsplit(',').next().unwrap_or_default().to_owned());
                let args =
                    [("srs_server", server), ("srs_pid", Value::Number(f64::from(std::process::id()))), ("srs_id", id)];
                rtmp = rtmp.with_property("args", Value::object(args));
            }
            Wire::Rtmp(Box::new(rtmp))
        };
        Some(Self {
            wire,
            request: target.request.clone(),
            queue: SmallVec::new(),
            patience_ms: target.patience_ms,
            wait_ms: target.wait_ms,
            asks: target.way == Way::Ask,
            playing: false,
            publishing: false,
            metadata: None,
            since_ms: context.now_ms,
            position: 0,
        })
    }

    fn next(&mut self, input: &mut &[u8]) -> Result<Option<Said>, CloseReason> {
        match &mut self.wire {
            Wire::Rtmp(rtmp) => loop {
                let event = rtmp.next_event(input).map_err(|error| CloseReason::Protocol(error.to_string()))?;
                return Ok(match event {
                    None => None,
                    Some(Event::Tag(tag)) => Some(Said::Tag(tag)),
                    Some(Event::Playing) => Some(Said::Playing),
                    Some(Event::StreamEof) => Some(Said::Ended),
                    Some(Event::Redirect(url)) => return Err(CloseReason::Redirected(url)),
                    Some(Event::Status { code, error, description }) => match code.as_str() {
                        "NetStream.Play.UnpublishNotify" | "NetStream.Play.Stop" => Some(Said::Ended),
                        "NetConnection.Connect.ReconnectRequest" => return Err(CloseReason::Drained),
                        _ if error => {
                            let told = if description.is_empty() { code } else { format!("{code}: {description}") };
                            return Err(CloseReason::Refused(format!("the origin answers {told}")));
                        }
                        _ => continue,
                    },
                    Some(Event::Publishing) => continue,
                });
            },
            Wire::Flv(flv) => {
                let was_playing = self.playing;
                match flv.next_tag(input) {
                    Ok(Some(tag)) => Ok(Some(Said::Tag(tag))),
                    Ok(None) if !was_playing && flv.is_playing() => Ok(Some(Said::Playing)),
                    Ok(None) => Ok(None),
                    Err(ResponseError::Elsewhere(url)) => Err(CloseReason::Redirected(url)),
                    Err(ResponseError::Ended) => Err(CloseReason::ResponseEnded),
                    Err(ResponseError::Refused(status)) => {
                        Err(CloseReason::Refused(format!("the origin answers {status}")))
                    }
                    Err(error @ (ResponseError::Malformed | ResponseError::Flv(_))) => {
                        Err(CloseReason::Protocol(error.to_string()))
                    }
                }
            }
        }
    }

    fn take(&mut self, said: Said, now_ms: u64) {
        match said {
            Said::Playing | Said::Tag(_) if self.asks => {
                if !std::mem::replace(&mut self.playing, true) {
                    if let Wire::Rtmp(rtmp) = &mut self.wire {
                        rtmp.close();
                    }
                    self.queue.push(Output::Leave(CloseReason::ResponseEnded));
                }
            }
            Said::Playing => (self.playing, self.since_ms) = (true, now_ms),
            Said::Tag(tag) if tag.kind == TagKind::Script => {
                self.playing = true;
                let metadata = codec::inspect(tag.kind, &tag.body).class == Class::Metadata;
                if self.publishing && !is_for_players_alone(&tag.body) {
                    self.queue.push(Output::Tag(ID, tag));
                } else if metadata {
                    // Nobody publishes before there is media.
                    self.metadata = Some(tag);
                }
            }
            Said::Tag(tag) => {
                self.playing = true;
                if !std::mem::replace(&mut self.publishing, true) {
                    self.queue.push(Output::Publish(Box::new(self.request.clone())));
                    self.queue.extend(self.metadata.take().map(|metadata| Output::Tag(ID, metadata)));
                }
                self.queue.push(Output::Tag(ID, tag));
            }
            Said::Ended => {
                if std::mem::take(&mut self.publishing) {
                    self.since_ms = now_ms;
                    self.queue.push(Output::Close(ID));
                }
            }
        }
    }
}

/// What servers say to players beside the stream: `|RtmpSampleAccess`, in AMF0.
fn is_for_players_alone(body: &[u8]) -> bool {
    body.get(3) == Some(&b'|')
}

impl Session for PullSession {
    type Sink = Infallible;

    fn receive(&mut self, input: &mut &[u8], context: &Context<'_>) -> Result<(), CloseReason> {
        let before = input.len();
        while self.queue.is_empty() {
            match self.next(input) {
                Ok(Some(said)) => self.take(said, context.now_ms),
                Ok(None) => break,
                // The publish is over in good order: players are told.
                Err(CloseReason::ResponseEnded) => {
                    self.take(Said::Ended, context.now_ms);
                    self.queue.push(Output::Leave(CloseReason::ResponseEnded));
                }
                Err(reason) => return Err(reason),
            }
        }
        self.position += (before - input.len()) as u64;
        Ok(())
    }

    fn poll(&mut self) -> Option<Output<Infallible>> {
        if self.queue.is_empty() { None } else { Some(self.queue.remove(0)) }
    }

    fn told(&mut self, word: Word<'_>, _: &Context<'_>) {
        if let Word::PublishRefused(..) = word {
            if let Wire::Rtmp(rtmp) = &mut self.wire {
                rtmp.close();
            }
            self.queue.push(Output::Leave(CloseReason::Unpublished));
        }
    }

    fn take_output(&mut self) -> Vec<u8> {
        match &mut self.wire {
            Wire::Rtmp(rtmp) => rtmp.take_output(),
            Wire::Flv(flv) => flv.take_output(),
        }
    }

    fn output_len(&self) -> usize {
        match &self.wire {
            Wire::Rtmp(rtmp) => rtmp.output_len(),
            Wire::Flv(flv) => flv.output_len(),
        }
    }

    fn deadline(&self, _: bool) -> Option<u64> {
        let most_ms = if self.playing { self.wait_ms } else { self.patience_ms };
        // Media that stops is the publish's matter.
        (!self.publishing).then_some(self.since_ms + most_ms)
    }

    fn timeout(&mut self, busy: bool, context: &Context<'_>) -> Option<CloseReason> {
        self.deadline(busy).filter(|deadline_ms| *deadline_ms <= context.now_ms)?;
        Some(CloseReason::Late(if self.playing {
            format!("the origin has had no media for {} ms", self.wait_ms)
        } else {
            format!("the origin has not answered within {} ms", self.patience_ms)
        }))
    }

    fn peer(&self) -> Peer<'_> {
        Peer { position: self.position, ..Peer::default() }
    }

    fn into_unread(self) -> Vec<u8> {
        Vec::new()
    }
}
