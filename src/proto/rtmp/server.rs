//! The server's half of an RTMP connection, sans-IO.
//!
//! Feed bytes with [`ServerSession::next_event`] until it returns `None`, answer each event with the
//! method that its documentation names, and send [`ServerSession::take_output`] afterwards.

mod replies;

use super::{
    RtmpError,
    chunk_reader::CHUNK_SIZE_DEFAULT,
    chunk_writer::ChunkWriter,
    command::{self, Command, CommandError, Level},
    handshake::{Outcome, ServerHandshake},
    inbound::Inbound,
    message::{Control, Message, type_id},
};
use crate::proto::{
    amf::{Value, amf0},
    flv::TagKind,
};
use bytes::Bytes;

/// Most NetStreams of one connection.
pub const NET_STREAMS_MAX: usize = 8;
/// Longest URL of `connect`, app and stream name, their queries included, in bytes: tokens may be long.
pub const URL_BYTES_MAX: usize = 4096;
/// What is kept of the texts that a peer says of itself, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;

/// What the server tells every peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Bytes per chunk that we send.
    pub chunk_size: u32,
    /// Our Window Acknowledgement Size in bytes; 0 sends none. SRS: `out_ack_size`.
    pub out_ack_size: u32,
    /// Acknowledge after so many bytes though the peer asks for nothing; 0 waits for the peer's
    /// word. SRS: `in_ack_size`.
    pub in_ack_size: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { chunk_size: 60_000, out_ack_size: 2_500_000, in_ack_size: 0 }
    }
}

/// What `connect` said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connect {
    /// The app, with its query.
    pub app: String,
    /// The URL up to the app.
    pub tc_url: String,
    /// The encoder's or player's name for itself.
    pub flash_ver: String,
    /// The page that the player stands in.
    pub page_url: String,
    /// The Flash program that the player is.
    pub swf_url: String,
    /// The servers that the stream has come through, by their own marks; ours ([`FORWARDED_BY`]).
    pub forwarded_by: String,
    /// 0 or 3.
    pub object_encoding: f64,
    /// Whether the peer sent any field of Enhanced RTMP.
    pub enhanced: bool,
    /// Whether the peer understands a request to connect anew (E-RTMP v2, capsEx Reconnect).
    pub reconnects: bool,
}

/// The property of `connect` by which servers that forward a stream find that it goes round.
pub const FORWARDED_BY: &str = "forwardedBy";

/// What the peer wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The handshake is done.
    Handshake(Outcome),
    /// `connect`: answer with [`ServerSession::accept_connect`] or `reject_connect`.
    Connect,
    /// `publish`: answer with [`ServerSession::accept_publish`] or `reject_publish`.
    Publish {
        /// The NetStream.
        msid: u32,
        /// The stream name, with its query.
        stream: String,
    },
    /// `play`: answer with [`ServerSession::accept_play`] or `reject_play`.
    Play {
        /// The NetStream.
        msid: u32,
        /// The stream name, with its query.
        stream: String,
        /// Stop after so much media, in ms.
        duration_ms: Option<u32>,
    },
    /// The NetStream neither publishes nor plays from here on (closeStream, deleteStream,
    /// FCUnpublish); the connection stays usable. Already answered.
    Close {
        /// The NetStream.
        msid: u32,
    },
    /// `pause`: answer with [`ServerSession::notify_pause`].
    Pause {
        /// The NetStream.
        msid: u32,
        /// Pause, or go on.
        paused: bool,
    },
    /// `receiveAudio` or `receiveVideo`; asks for no answer.
    Receive {
        /// The NetStream.
        msid: u32,
        /// Audio or video.
        kind: TagKind,
        /// Whether the player wants it.
        wanted: bool,
    },
    /// A tag on a NetStream that may or may not publish.
    Media {
        /// The NetStream.
        msid: u32,
        /// Audio, video or script data.
        kind: TagKind,
        /// Milliseconds as published.
        timestamp: u32,
        /// The tag's body; `@setDataFrame` is taken off.
        body: Bytes,
    },
}

/// A redirect to another server (conformance C7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Redirect<'a> {
    /// The tcUrl to connect to.
    pub tc_url: &'a str,
    /// The whole URL, stream included.
    pub url: &'a str,
}

/// One connection.
#[derive(Debug)]
pub struct ServerSession {
    settings: Settings,
    handshake: Option<Box<ServerHandshake>>,
    inbound: Inbound,
    writer: ChunkWriter,
    out: Vec<u8>,
    chunk_size: u32,
    connect: Option<Box<Connect>>,
    connect_transaction: f64,
    net_streams: Vec<NetStream>,
}

#[derive(Debug)]
struct NetStream {
    msid: u32,
    publishing: bool,
}

impl ServerSession {
    /// A fresh connection; `seed` feeds the handshake's random bytes.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            handshake: Some(Box::new(ServerHandshake::new(seed))),
            inbound: Inbound::new(settings.in_ack_size),
            writer: ChunkWriter::plain(),
            out: Vec::new(),
            chunk_size: CHUNK_SIZE_DEFAULT,
            connect: None,
            connect_transaction: 1.0,
            net_streams: Vec::new(),
        }
    }

    /// What `connect` said; empty before it.
    pub fn connect(&self) -> Option<&Connect> {
        self.connect.as_deref()
    }

    /// Bytes received so far, modulo 2^32, for error messages.
    pub fn position(&self) -> u32 {
        self.inbound.received()
    }

    /// What is to be sent, and clears it.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Bytes that wait in the output.
    pub fn output_len(&self) -> usize {
        self.out.len()
    }

    /// Reads on until the peer wants something or `input` is empty; takes what it read.
    ///
    /// # Errors
    /// Any [`RtmpError`]: send the output, then close.
    pub fn next_event(&mut self, input: &mut &[u8]) -> Result<Option<Event>, RtmpError> {
        let before = input.len();
        let event = self.read_event(input);
        let due = self.inbound.count(before - input.len());
        if let Some(received) = due.filter(|_| self.connect.is_some()) {
            self.send_control(Control::Acknowledgement(received));
        }
        event
    }

    fn read_event(&mut self, input: &mut &[u8]) -> Result<Option<Event>, RtmpError> {
        if let Some(handshake) = &mut self.handshake {
            let Some(outcome) = handshake.receive(input, &mut self.out)? else { return Ok(None) };
            self.handshake = None;
            return Ok(Some(Event::Handshake(outcome)));
        }
        while let Some(message) = self.inbound.next_message(input)? {
            if let Some(event) = self.handle(message)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn handle(&mut self, message: Message) -> Result<Option<Event>, RtmpError> {
        if let Some(control) = Control::read(&message)? {
            self.handle_control(control)?;
            return Ok(None);
        }
        let msid = message.message_stream_id;
        let media = |kind, body| Event::Media { msid, kind, timestamp: message.timestamp, body };
        Ok(match message.type_id {
            type_id::AUDIO => Some(media(TagKind::Audio, message.payload)),
            type_id::VIDEO => Some(media(TagKind::Video, message.payload)),
            type_id::DATA_AMF0 | type_id::DATA_AMF3 => script_body(&message).map(|body| media(TagKind::Script, body)),
            type_id::COMMAND_AMF0 | type_id::COMMAND_AMF3 => self.handle_command(&message)?,
            // Shared objects and unknown types are skipped, as SRS does.
            _ => None,
        })
    }

    fn handle_control(&mut self, control: Control) -> Result<(), RtmpError> {
        match control {
            Control::SetChunkSize(bytes) => self.inbound.chunks.set_chunk_size(bytes)?,
            Control::Abort(csid) => self.inbound.chunks.abort(csid),
            Control::WindowAckSize(bytes) => self.inbound.ack_window = bytes,
            Control::PingRequest(timestamp) => self.send_control(Control::PingResponse(timestamp)),
            Control::Acknowledgement(_)
            | Control::SetPeerBandwidth(..)
            | Control::StreamBegin(_)
            | Control::StreamEof(_)
            | Control::SetBufferLength(..)
            | Control::PingResponse(_)
            | Control::OtherEvent(_) => {}
        }
        Ok(())
    }

    fn handle_command(&mut self, message: &Message) -> Result<Option<Event>, RtmpError> {
        let command = Command::read(message)?;
        let msid = message.message_stream_id;
        if &*command.name == "connect" {
            return self.handle_connect(&command).map(Some);
        }
        if self.connect.is_none() {
            return Err(CommandError::NotConnected.into());
        }
        let tid = command.transaction_id;
        let flag = |at: usize| command.argument(at).as_bool().unwrap_or(true);
        Ok(match &*command.name {
            "createStream" => {
                let msid = self.create_net_stream()?;
                self.send_result(tid, &[Value::Null, Value::Number(f64::from(msid))]);
                None
            }
            "FCPublish" => {
                self.send_result(tid, &[Value::Null, Value::Undefined]);
                self.send_fc_status("onFCPublish", "NetStream.Publish.Start", "Started publishing stream.");
                None
            }
            "FCUnpublish" => {
                self.send_fc_status("onFCUnpublish", "NetStream.Unpublish.Success", "Stop publishing stream.");
                self.send_result(tid, &[Value::Null, Value::Undefined]);
                self.close_the_publishing_net_stream()
            }
            "FCSubscribe" => {
                self.send_fc_status("onFCSubscribe", "NetStream.Play.Start", "Started playing stream.");
                None
            }
            "getStreamLength" => {
                self.send_result(tid, &[Value::Null, Value::Number(0.0)]);
                None
            }
            "publish" => {
                self.ensure_net_stream(msid)?;
                Some(Event::Publish { msid, stream: url_text("stream name", command.argument(1))? })
            }
            "play" => {
                self.ensure_net_stream(msid)?;
                let duration_ms = command.argument(3).as_number().filter(|seconds| *seconds > 0.0);
                let stream = url_text("stream name", command.argument(1))?;
                Some(Event::Play { msid, stream, duration_ms: duration_ms.map(milliseconds) })
            }
            "pause" => Some(Event::Pause { msid, paused: flag(1) }),
            "receiveAudio" => Some(Event::Receive { msid, kind: TagKind::Audio, wanted: flag(1) }),
            "receiveVideo" => Some(Event::Receive { msid, kind: TagKind::Video, wanted: flag(1) }),
            "closeStream" => self.close_net_stream(msid),
            "deleteStream" => {
                let msid = command.argument(1).as_number().map_or(msid, message_stream_id);
                let event = self.close_net_stream(msid);
                self.net_streams.retain(|stream| stream.msid != msid);
                event
            }
            "_result" | "_error" | "onStatus" => None,
            // releaseStream, _checkbw and whatever else wants an answer gets an empty one.
            _ if tid > 0.0 => {
                self.send_result(tid, &[Value::Null, Value::Undefined]);
                None
            }
            _ => None,
        })
    }

    fn handle_connect(&mut self, command: &Command) -> Result<Event, RtmpError> {
        if self.connect.is_some() {
            return Err(CommandError::ConnectedTwice.into());
        }
        let object = command.argument(0);
        let url = |key| url_text(key, object.property(key).unwrap_or(&Value::Undefined));
        let text = |key| {
            let text = object.property(key).and_then(Value::as_str).unwrap_or_default();
            let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|at| text.is_char_boundary(*at));
            text[..end.unwrap_or(0)].to_owned()
        };
        let enhanced = ["fourCcList", "videoFourCcInfoMap", "audioFourCcInfoMap", "capsEx"];
        self.connect_transaction = command.transaction_id;
        self.connect = Some(Box::new(Connect {
            app: url("app")?,
            tc_url: url("tcUrl")?,
            flash_ver: text("flashVer"),
            page_url: text("pageUrl"),
            swf_url: text("swfUrl"),
            forwarded_by: text(FORWARDED_BY),
            object_encoding: object.property("objectEncoding").and_then(Value::as_number).unwrap_or(0.0),
            enhanced: enhanced.iter().any(|key| object.property(key).is_some()),
            reconnects: object
                .property("capsEx")
                .and_then(Value::as_number)
                .is_some_and(|caps| message_stream_id(caps) & 1 != 0),
        }));
        Ok(Event::Connect)
    }

    /// Bytes per chunk that we send now.
    pub fn chunk_size(&self) -> usize {
        self.chunk_size as usize
    }

    /// Changes what [`Self::accept_connect`] will tell the peer, when the vhost is known.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
        if self.inbound.ack_window == 0 {
            self.inbound.ack_window = settings.in_ack_size;
        }
    }

    fn create_net_stream(&mut self) -> Result<u32, CommandError> {
        let free = (1..).find(|msid| self.net_streams.iter().all(|stream| stream.msid != *msid)).unwrap_or(1);
        self.ensure_net_stream(free)?;
        Ok(free)
    }

    /// Some peers publish on a NetStream that they never created; it is created then.
    fn ensure_net_stream(&mut self, msid: u32) -> Result<(), CommandError> {
        if self.net_streams.iter().any(|stream| stream.msid == msid) {
            return Ok(());
        }
        if self.net_streams.len() >= NET_STREAMS_MAX {
            return Err(CommandError::TooManyNetStreams(NET_STREAMS_MAX));
        }
        self.net_streams.push(NetStream { msid, publishing: false });
        Ok(())
    }

    fn close_net_stream(&mut self, msid: u32) -> Option<Event> {
        let stream = self.net_streams.iter_mut().find(|stream| stream.msid == msid)?;
        if std::mem::take(&mut stream.publishing) {
            self.send_status(msid, Level::Status, "NetStream.Unpublish.Success", "Stream is now unpublished.");
        }
        Some(Event::Close { msid })
    }

    /// FCUnpublish comes on the NetConnection: the NetStream that publishes is meant.
    fn close_the_publishing_net_stream(&mut self) -> Option<Event> {
        let mut publishing = self.net_streams.iter().filter(|stream| stream.publishing).map(|stream| stream.msid);
        let only = publishing.next();
        if publishing.next().is_some() {
            // Which of several is meant, deleteStream will tell.
            return None;
        }
        self.close_net_stream(only?)
    }
}

/// The text of a URL or name; empty if it is none.
fn url_text(what: &'static str, value: &Value) -> Result<String, CommandError> {
    let text = value.as_str().unwrap_or_default();
    if text.len() > URL_BYTES_MAX {
        return Err(CommandError::TextTooLong { what, bytes: text.len(), bytes_max: URL_BYTES_MAX });
    }
    Ok(text.to_owned())
}

/// A data message's body as a script tag has it: without the format byte of type 15 and without
/// `@setDataFrame`. `None` for what is no script data, and for `@clearDataFrame`.
fn script_body(message: &Message) -> Option<Bytes> {
    let body = command::body(message);
    let (name, rest) = amf0::decode_one(body).ok()?;
    match name.as_str()? {
        "@setDataFrame" => Some(message.payload.slice_ref(rest)),
        "@clearDataFrame" => None,
        _ => Some(message.payload.slice_ref(body)),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
fn milliseconds(seconds: f64) -> u32 {
    (seconds * 1000.0) as u32
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
fn message_stream_id(number: f64) -> u32 {
    number as u32
}

#[cfg(test)]
mod tests;
