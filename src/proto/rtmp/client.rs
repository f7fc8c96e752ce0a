//! The client's half of an RTMP connection, sans-IO: one NetStream that plays or publishes.
//!
//! The load generator, the tests and the relay use it. Feed bytes with
//! [`ClientSession::next_event`], send [`ClientSession::take_output`] after every call.

use super::{
    RtmpError,
    chunk_reader::Limits,
    chunk_writer::ChunkWriter,
    command::{COMMAND_CSID, Command, STREAM_COMMAND_CSID},
    handshake::{ClientHandshake, Scheme},
    inbound::Inbound,
    message::{CONTROL_CSID, Control, Message, type_id},
    url::RtmpUrl,
};
use crate::proto::{
    amf::{Value, amf0},
    codec::CONNECT_FOURCCS,
    flv::{Tag, TagKind},
};

/// What the connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Receives a stream.
    Play,
    /// Sends one.
    Publish,
}

/// What the server said.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `NetStream.Publish.Start`: [`ClientSession::send_tag`] may be used.
    Publishing,
    /// `NetStream.Play.Start`.
    Playing,
    /// Another status, or `_error`.
    Status {
        /// For example `NetStream.Publish.BadName`.
        code: String,
        /// Whether its level is "error".
        error: bool,
        /// For people.
        description: String,
    },
    /// The stream is elsewhere: its URL, or that of its app, as SRS says it in `ex` of a rejection.
    Redirect(String),
    /// User control StreamEOF.
    StreamEof,
    /// A tag.
    Tag(Tag),
}

/// Bytes per chunk that we send.
pub const CHUNK_SIZE: u32 = 60_000;

const CONNECT_TID: f64 = 1.0;
const RELEASE_STREAM_TID: f64 = 2.0;
const FC_PUBLISH_TID: f64 = 3.0;
const CREATE_STREAM_TID: f64 = 4.0;

/// One connection.
#[derive(Debug)]
pub struct ClientSession {
    url: RtmpUrl,
    role: Role,
    handshake: Option<Box<ClientHandshake>>,
    inbound: Inbound,
    writer: ChunkWriter,
    out: Vec<u8>,
    msid: u32,
    /// What `connect` says besides.
    extra: Vec<(&'static str, Value)>,
}

impl ClientSession {
    /// Begins; the first output is the handshake's. `seed` feeds its random bytes.
    pub fn start(url: RtmpUrl, role: Role, scheme: Scheme, seed: u64) -> Self {
        let mut out = Vec::new();
        let handshake = Some(Box::new(ClientHandshake::start(scheme, seed, &mut out)));
        let mut inbound = Inbound::new(0);
        // Who publishes gets answers only.
        if role == Role::Play {
            inbound.chunks.set_limits(Limits::MEDIA);
        }
        Self { url, role, handshake, inbound, writer: ChunkWriter::default(), out, msid: 1, extra: Vec::new() }
    }

    /// Has `connect` say one thing more.
    #[must_use]
    pub fn with_property(mut self, name: &'static str, value: Value) -> Self {
        self.extra.push((name, value));
        self
    }

    /// The message stream id of its NetStream, once it publishes or plays.
    pub fn msid(&self) -> u32 {
        self.msid
    }

    /// Bytes that are to be sent.
    pub fn output_len(&self) -> usize {
        self.out.len()
    }

    /// Bytes understood so far.
    pub fn position(&self) -> u32 {
        self.inbound.received()
    }

    /// What is to be sent, and clears it.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Reads on until the server says something or `input` is empty; takes what it read.
    ///
    /// # Errors
    /// Any [`RtmpError`].
    pub fn next_event(&mut self, input: &mut &[u8]) -> Result<Option<Event>, RtmpError> {
        let before = input.len();
        let event = self.read_event(input);
        if let Some(received) = self.inbound.count(before - input.len()) {
            self.send_control(Control::Acknowledgement(received));
        }
        event
    }

    /// Sends a tag of the published stream; `onMetaData` is wrapped in `@setDataFrame`.
    pub fn send_tag(&mut self, tag: &Tag) {
        const MEDIA_CSID: u32 = 6;
        let csid = MEDIA_CSID + u32::from(tag.kind.type_id() & 1);
        if tag.kind == TagKind::Script {
            let body = set_data_frame(&tag.body);
            self.writer.write(&mut self.out, STREAM_COMMAND_CSID, type_id::DATA_AMF0, self.msid, tag.timestamp, &body);
        } else {
            self.writer.write(&mut self.out, csid, tag.kind.type_id(), self.msid, tag.timestamp, &tag.body);
        }
    }

    /// Ends the publish or play in good order.
    pub fn close(&mut self) {
        if self.role == Role::Publish {
            self.command(0, "FCUnpublish", 6.0, &[Value::Null, Value::string(self.url.stream.clone())]);
        }
        self.command(0, "deleteStream", 7.0, &[Value::Null, Value::Number(f64::from(self.msid))]);
    }

    /// Sends a command on the NetStream, for example `pause`.
    pub fn call(&mut self, name: &str, arguments: &[Value]) {
        self.command(self.msid, name, 0.0, arguments);
    }

    fn read_event(&mut self, input: &mut &[u8]) -> Result<Option<Event>, RtmpError> {
        if let Some(handshake) = &mut self.handshake {
            if handshake.receive(input, &mut self.out)?.is_none() {
                return Ok(None);
            }
            self.handshake = None;
            self.connect();
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
            return self.handle_control(control);
        }
        if let Some(kind) = TagKind::from_type_id(message.type_id) {
            return Ok(Some(Event::Tag(Tag { kind, timestamp: message.timestamp, body: message.payload })));
        }
        match message.type_id {
            type_id::COMMAND_AMF0 | type_id::COMMAND_AMF3 => return self.handle_command(&Command::read(&message)?),
            _ => {}
        }
        Ok(None)
    }

    fn handle_control(&mut self, control: Control) -> Result<Option<Event>, RtmpError> {
        match control {
            Control::SetChunkSize(bytes) => self.inbound.chunks.set_chunk_size(bytes)?,
            Control::Abort(csid) => self.inbound.chunks.abort(csid),
            Control::WindowAckSize(bytes) => self.inbound.ack_window = bytes,
            Control::PingRequest(timestamp) => self.send_control(Control::PingResponse(timestamp)),
            Control::StreamEof(_) => return Ok(Some(Event::StreamEof)),
            Control::Acknowledgement(_)
            | Control::SetPeerBandwidth(..)
            | Control::StreamBegin(_)
            | Control::SetBufferLength(..)
            | Control::PingResponse(_)
            | Control::OtherEvent(_) => {}
        }
        Ok(None)
    }

    fn handle_command(&mut self, command: &Command) -> Result<Option<Event>, RtmpError> {
        match &*command.name {
            "_result" if command.transaction_id == CONNECT_TID => {
                self.open_net_stream();
                Ok(None)
            }
            "_result" if command.transaction_id == CREATE_STREAM_TID => {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
                let msid = command.argument(1).as_number().unwrap_or(1.0) as u32;
                self.msid = msid;
                self.begin();
                Ok(None)
            }
            // Many servers know neither, and take the publish all the same.
            "_error" if [RELEASE_STREAM_TID, FC_PUBLISH_TID].contains(&command.transaction_id) => Ok(None),
            "onStatus" | "_error" => Ok(Some(status(command.argument(1)))),
            _ => Ok(None),
        }
    }

    fn connect(&mut self) {
        self.send_control(Control::SetChunkSize(CHUNK_SIZE));
        self.writer.set_chunk_size(CHUNK_SIZE);
        let fourccs = CONNECT_FOURCCS.iter().map(|fourcc| Value::string(*fourcc)).collect();
        let mut properties = vec![
            ("app", Value::string(self.url.app.clone())),
            ("flashVer", Value::string("FMLE/3.0 (compatible; corecast)")),
            ("tcUrl", Value::string(self.url.tc_url())),
            ("fourCcList", Value::StrictArray(fourccs)),
        ];
        properties.append(&mut self.extra);
        self.command(
            0,
            "connect",
            CONNECT_TID,
            &[Value::Object(properties.into_iter().map(|(name, value)| (name.into(), value)).collect())],
        );
    }

    fn open_net_stream(&mut self) {
        if self.role == Role::Publish {
            let name = Value::string(self.url.stream.clone());
            self.command(0, "releaseStream", RELEASE_STREAM_TID, &[Value::Null, name.clone()]);
            self.command(0, "FCPublish", FC_PUBLISH_TID, &[Value::Null, name]);
        }
        self.command(0, "createStream", CREATE_STREAM_TID, &[Value::Null]);
    }

    fn begin(&mut self) {
        let name = Value::string(self.url.stream.clone());
        let msid = self.msid;
        match self.role {
            Role::Publish => self.command(msid, "publish", 5.0, &[Value::Null, name, Value::string("live")]),
            Role::Play => {
                self.command(msid, "play", 5.0, &[Value::Null, name, Value::Number(-2000.0)]);
                self.send_control(Control::SetBufferLength(msid, 3000));
            }
        }
    }

    fn command(&mut self, msid: u32, name: &str, tid: f64, arguments: &[Value]) {
        let csid = if msid == 0 { COMMAND_CSID } else { STREAM_COMMAND_CSID + 3 };
        let body = Command::encode(name, tid, arguments);
        self.writer.write(&mut self.out, csid, type_id::COMMAND_AMF0, msid, 0, &body);
    }

    fn send_control(&mut self, control: Control) {
        let (type_id, body) = control.encode();
        self.writer.write(&mut self.out, CONTROL_CSID, type_id, 0, 0, &body);
    }
}

/// Metadata as a publisher sends it: its body behind `@setDataFrame`.
pub fn set_data_frame(body: &[u8]) -> Vec<u8> {
    let mut whole = amf0::encode_all(&[Value::string("@setDataFrame")]);
    whole.extend_from_slice(body);
    whole
}

/// Where a rejection sends its client: `ex.redirect2` is the stream's URL, `ex.redirect` tcUrl's.
fn redirect(info: &Value) -> Option<String> {
    let ex = info.property("ex")?;
    let at = |key| ex.property(key).and_then(Value::as_str).filter(|url| !url.is_empty()).map(str::to_owned);
    at("redirect2").or_else(|| at("redirect"))
}

fn status(info: &Value) -> Event {
    if let Some(url) = redirect(info) {
        return Event::Redirect(url);
    }
    let text = |key| info.property(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    match text("code").as_str() {
        "NetStream.Publish.Start" => Event::Publishing,
        "NetStream.Play.Start" => Event::Playing,
        code => {
            Event::Status { code: code.to_owned(), error: text("level") == "error", description: text("description") }
        }
    }
}
