//! A scripted RTMP peer: says what a test wants, shows every message that comes.

use crate::server::LIMIT;
use corecast::proto::{
    amf::Value,
    rtmp::{
        chunk_reader::{ChunkReader, Limits},
        chunk_writer::ChunkWriter,
        command::Command,
        handshake::{ClientHandshake, Scheme},
        message::{Control, Message, type_id},
    },
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

/// x264's sequence header for 640x360, High, level 3.0.
pub(crate) const AVC_HEADER: &[u8] = b"\x17\0\0\0\0\x01\x64\0\x1e\xff\xe1\0\x1a\x67\x64\0\x1e\xac\xd9\x40\xa0\x2f\xf9\x70\x11\0\0\x03\0\x01\0\0\x03\0\x3c\x0f\x16\x2d\x96\x01\0\x04\x68\xef\x8f\xcb";

pub(crate) struct Peer {
    pub(crate) socket: TcpStream,
    reader: ChunkReader,
    pub(crate) writer: ChunkWriter,
    received: Vec<u8>,
    acknowledged: usize,
    /// Keyframes among the media that has been passed over.
    pub(crate) keyframes: usize,
    /// Media messages whose time stepped back within their track.
    pub(crate) backward: usize,
    newest: [u32; 2],
    /// Media messages passed over.
    pub(crate) media: Vec<Message>,
    /// What waits for the end of [`Self::collected`].
    held: Option<Vec<u8>>,
}

impl Peer {
    /// Connects and shakes hands.
    pub(crate) fn handshake(server: SocketAddr, scheme: Scheme) -> Self {
        Self::over(connected(server), scheme)
    }

    /// Shakes hands on a connection.
    pub(crate) fn over(mut socket: TcpStream, scheme: Scheme) -> Self {
        let mut out = Vec::new();
        let mut handshake = ClientHandshake::start(scheme, 1, &mut out);
        socket.write_all(&out).expect("C0 and C1");
        out.clear();
        let mut buffer = [0; 4096];
        let mut rest = Vec::new();
        let outcome = loop {
            let bytes = socket.read(&mut buffer).expect("S0, S1 and S2");
            assert!(bytes > 0, "closed in the handshake");
            let mut input = &buffer[..bytes];
            if let Some(outcome) = handshake.receive(&mut input, &mut out).expect("a handshake") {
                rest.extend_from_slice(input);
                break outcome;
            }
        };
        assert!(outcome.echo_matches && outcome.scheme == scheme, "{outcome:?}");
        socket.write_all(&out).expect("C2");
        let mut reader = ChunkReader::default();
        reader.set_limits(Limits::MEDIA);
        Self {
            socket,
            reader,
            writer: ChunkWriter::default(),
            received: rest,
            acknowledged: 0,
            keyframes: 0,
            backward: 0,
            newest: [0; 2],
            media: Vec::new(),
            held: None,
        }
    }

    /// Connects to `app`.
    pub(crate) fn connect(server: SocketAddr, app: &str) -> Self {
        let mut peer = Self::handshake(server, Scheme::Simple);
        peer.connect_app(app, &format!("rtmp://{server}/{app}"));
        peer.expect_result(1.0);
        peer
    }

    pub(crate) fn connect_app(&mut self, app: &str, tc_url: &str) {
        let object = Value::object([("app", Value::string(app)), ("tcUrl", Value::string(tc_url))]);
        self.command(0, "connect", 1.0, &[object]);
    }

    /// Connects, creates a NetStream and plays.
    pub(crate) fn play(server: SocketAddr, app: &str, stream: &str) -> Self {
        let mut peer = Self::connect(server, app);
        let msid = peer.create_stream();
        peer.command(msid, "play", 0.0, &[Value::Null, Value::string(stream)]);
        peer.expect_status("NetStream.Play.Start");
        peer
    }

    /// Connects, creates a NetStream and publishes.
    pub(crate) fn publish(server: SocketAddr, app: &str, stream: &str) -> Self {
        let mut peer = Self::connect(server, app);
        let msid = peer.create_stream();
        peer.command(msid, "publish", 5.0, &[Value::Null, Value::string(stream), Value::string("live")]);
        peer.expect_status("NetStream.Publish.Start");
        peer
    }

    pub(crate) fn create_stream(&mut self) -> u32 {
        self.command(0, "createStream", 2.0, &[Value::Null]);
        let result = self.expect_result(2.0);
        result.argument(1).as_number().expect("a NetStream's id") as u32
    }

    pub(crate) fn command(&mut self, msid: u32, name: &str, tid: f64, arguments: &[Value]) {
        self.send(3, type_id::COMMAND_AMF0, msid, 0, &Command::encode(name, tid, arguments));
    }

    pub(crate) fn control(&mut self, control: Control) {
        let (type_id, body) = control.encode();
        self.send(2, type_id, 0, 0, &body);
    }

    pub(crate) fn send(&mut self, csid: u32, type_id: u8, msid: u32, timestamp: u32, body: &[u8]) {
        self.try_send(csid, type_id, msid, timestamp, body).expect("send");
    }

    pub(crate) fn try_send(
        &mut self,
        csid: u32,
        type_id: u8,
        msid: u32,
        timestamp: u32,
        body: &[u8],
    ) -> std::io::Result<()> {
        let mut out = self.held.take();
        let held = out.is_some();
        let bytes = out.get_or_insert_default();
        self.writer.write(bytes, csid, type_id, msid, timestamp, body);
        if held {
            self.held = out;
            return Ok(());
        }
        self.socket.write_all(bytes)
    }

    /// The bytes of what `say` sends, which are not sent.
    pub(crate) fn collected(&mut self, say: impl FnOnce(&mut Self)) -> Vec<u8> {
        self.held = Some(Vec::new());
        say(self);
        self.held.take().unwrap_or_default()
    }

    /// What `say` sends goes in one write.
    pub(crate) fn in_one_write(&mut self, say: impl FnOnce(&mut Self)) {
        let bytes = self.collected(say);
        self.socket.write_all(&bytes).expect("send");
    }

    /// Waits until the server has done all that was sent before.
    pub(crate) fn settle(&mut self) {
        self.control(Control::PingRequest(7));
        self.expect_control(Control::PingResponse(7));
    }

    /// A video frame of a few bytes, or of `padding` more.
    pub(crate) fn send_frame(&mut self, msid: u32, time: u32, key: bool, padding: usize) {
        self.try_send_frame(msid, time, key, padding).expect("send");
    }

    /// The same on a connection that the server may have closed.
    pub(crate) fn try_send_frame(&mut self, msid: u32, time: u32, key: bool, padding: usize) -> std::io::Result<()> {
        let [a, b, c, d] = time.to_be_bytes();
        let head = [if key { 0x17 } else { 0x27 }, 1, 0, 0, 0, a, b, c, d];
        self.try_send(6, 9, msid, time, &[&head[..], &vec![7; padding]].concat())
    }

    /// One GOP: sequence headers, a keyframe, `frames - 1` inter frames of 40 ms, audio beside each.
    pub(crate) fn send_gop(&mut self, msid: u32, start_ms: u32, frames: u32) {
        self.send(6, 9, msid, start_ms, AVC_HEADER);
        self.send(4, 8, msid, start_ms, &[0xAF, 0, 0x12, 0x10]);
        for frame in 0..frames {
            let time = start_ms + frame * 40;
            let [a, b, c, d] = time.to_be_bytes();
            self.send(6, 9, msid, time, &[if frame == 0 { 0x17 } else { 0x27 }, 1, 0, 0, 0, a, b, c, d]);
            self.send(4, 8, msid, time, &[0xAF, 1, a, b, c, d]);
        }
    }

    /// The next message; `None` if the server closes.
    pub(crate) fn next(&mut self) -> Option<Message> {
        self.try_next().unwrap_or_else(|error| panic!("no message within {LIMIT:?}: {error}"))
    }

    /// The same; an error if nothing comes within the socket's time.
    pub(crate) fn try_next(&mut self) -> std::io::Result<Option<Message>> {
        let mut buffer = [0; 16 << 10];
        loop {
            let mut input = &self.received[..];
            let message = self.reader.read(&mut input).expect("chunks");
            let taken = self.received.len() - input.len();
            self.received.drain(..taken);
            if let Some(message) = message {
                if let Ok(Some(Control::SetChunkSize(bytes))) = Control::read(&message) {
                    self.reader.set_chunk_size(bytes).expect("a chunk size");
                }
                self.note_media(&message);
                return Ok(Some(message));
            }
            match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(bytes) => {
                    self.acknowledged += bytes;
                    self.received.extend_from_slice(&buffer[..bytes]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn note_media(&mut self, message: &Message) {
        if let (8 | 9, [first, second, ..]) = (message.type_id, &message.payload[..]) {
            let track = usize::from(message.type_id == 9);
            self.backward += usize::from(message.timestamp < self.newest[track]);
            self.newest[track] = message.timestamp;
            self.keyframes += usize::from(message.type_id == 9 && first >> 4 == 1 && *second != 0);
            self.media.push(message.clone());
        }
    }

    /// Passes messages over until `wanted` likes one.
    pub(crate) fn find<T>(&mut self, what: &str, mut wanted: impl FnMut(&Message) -> Option<T>) -> T {
        loop {
            let message = self.next().unwrap_or_else(|| panic!("closed before {what}"));
            if let Some(found) = wanted(&message) {
                return found;
            }
        }
    }

    pub(crate) fn expect_command(&mut self, name: &str) -> Command {
        self.find(name, |message| command(message).filter(|command| &*command.name == name))
    }

    pub(crate) fn expect_result(&mut self, tid: f64) -> Command {
        self.find("_result", |message| {
            command(message).filter(|command| &*command.name == "_result" && command.transaction_id == tid)
        })
    }

    pub(crate) fn expect_status(&mut self, code: &str) -> Command {
        self.find(code, |message| command(message).filter(|command| status_code(command) == Some(code)))
    }

    pub(crate) fn expect_control(&mut self, wanted: Control) {
        self.find(&format!("{wanted:?}"), |message| {
            (Control::read(message).expect("a control message") == Some(wanted)).then_some(())
        });
    }

    /// The times of the next `count` frames of audio and video, setups left out, and how many ms after this
    /// call each came.
    pub(crate) fn expect_frames(&mut self, count: usize) -> Vec<(u32, u128)> {
        let started = std::time::Instant::now();
        let mut frames = Vec::new();
        while frames.len() < count {
            let (_, time, body) = self.expect_media();
            if body[1] == 1 {
                frames.push((time, started.elapsed().as_millis()));
            }
        }
        frames
    }

    /// The next media message: type, time, body.
    pub(crate) fn expect_media(&mut self) -> (u8, u32, Vec<u8>) {
        self.find("media", |message| {
            matches!(message.type_id, 8 | 9).then(|| (message.type_id, message.timestamp, message.payload.to_vec()))
        })
    }

    /// Everything until the server closes.
    pub(crate) fn until_closed(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

pub(crate) fn connected(server: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(server).expect("connect");
    socket.set_read_timeout(Some(LIMIT)).expect("a timeout");
    socket.set_nodelay(true).expect("no delay");
    socket
}

pub(crate) fn command(message: &Message) -> Option<Command> {
    matches!(message.type_id, 17 | 20).then(|| Command::read(message).expect("a command"))
}

pub(crate) fn status_code(command: &Command) -> Option<&str> {
    command.argument(1).property("code")?.as_str()
}
