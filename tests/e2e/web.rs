//! A server with everything that speaks HTTP, and requests by hand.

use crate::{
    media::{Running, bounded},
    peer::connected,
    server::{LIMIT, Server, eventually},
};
use corecast::control::ClientId;
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

/// A server whose addresses are RTMP's, HTTP's, the API's and the exporter's.
pub(crate) struct Web {
    pub(crate) server: Server,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn has(&self, line: &str) -> bool {
        self.head.lines().any(|found| found == line)
    }
}

/// The sections that [`Web`] has beside `more`.
pub(crate) fn config(more: &str, api: &str, vhost: &str) -> String {
    format!(
        "listen 127.0.0.1:0; max_connections 6000; http_server {{ enabled on; listen 127.0.0.1:0; }} \
         http_api {{ enabled on; listen 127.0.0.1:0; {api} }} exporter {{ enabled on; listen 127.0.0.1:0; }} {more} \
         vhost __defaultVhost__ {{ {vhost} }}"
    )
}

impl Web {
    /// With the inside of one vhost.
    pub(crate) fn start(vhost: &str) -> Self {
        Self { server: Server::start(&config("", "", vhost)) }
    }

    /// With so many shards, whatever CPUs there are; streams by HTTP are waited for.
    pub(crate) fn shards(shards: usize, vhost: &str) -> Self {
        let vhost = format!("http_remux {{ enabled on; wait_stream 20; }} {vhost}");
        Self { server: Server::shards(shards, &config("", "", &vhost)) }
    }

    /// Streams by HTTP, which are waited for.
    pub(crate) fn flv() -> Self {
        Self::start("http_remux { enabled on; wait_stream 20; }")
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.server.addresses()[1]
    }

    pub(crate) fn api(&self) -> SocketAddr {
        self.server.addresses()[2]
    }

    pub(crate) fn exporter(&self) -> SocketAddr {
        self.server.addresses()[3]
    }

    pub(crate) fn flv_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http())
    }

    /// GET from the API, which must succeed.
    pub(crate) fn ask(&self, path: &str) -> Value {
        let answer = get(self.api(), path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    /// The shards that those came in on who play the stream of a name, by the ids that the API knows them by.
    fn player_shards(&self, name: &str) -> Vec<usize> {
        let clients = self.ask("/api/v1/clients?count=1000")["clients"].clone();
        let plays = |client: &&Value| client["name"] == name && client["publish"] == false;
        let players = clients.as_array().expect("a list").iter().filter(plays);
        players.map(|client| ClientId::read(client["id"].as_str().expect("an id")).expect("an id").shard).collect()
    }

    /// The same once there are `count` of them: the API's list may be a second old.
    pub(crate) fn shards_of_players(&self, name: &str, count: usize) -> Vec<usize> {
        eventually("the players", || Some(self.player_shards(name)).filter(|shards| shards.len() == count))
    }

    /// A gauge or counter of the exporter, one value per shard.
    pub(crate) fn metric(&self, name: &str) -> Vec<u64> {
        let text = get(self.exporter(), "/metrics").text();
        let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        lines.map(|line| line.rsplit(' ').next().expect("a value").parse().expect("a number")).collect()
    }

    /// Waits for a stream that is published, as the API has it.
    pub(crate) fn live(&self, name: &str) -> Value {
        eventually("a live stream", || {
            let streams = self.ask("/api/v1/streams?count=1000")["streams"].clone();
            let found = streams.as_array()?.iter().find(|stream| stream["name"] == name)?.clone();
            (found["publish"]["active"] == true && found["frames"].as_u64() > Some(10)).then_some(found)
        })
    }
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path, "")
}

/// A request on a connection of its own; `fields` are lines with their ends.
pub(crate) fn request(address: SocketAddr, method: &str, path: &str, fields: &str) -> Answer {
    raw(address, format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n").as_bytes(), method == "HEAD")
}

/// Bytes sent as they are, and what comes of them.
pub(crate) fn raw(address: SocketAddr, bytes: &[u8], headless: bool) -> Answer {
    let mut socket = connected(address);
    drop(socket.write_all(bytes));
    read_answer(&mut socket, headless).unwrap_or_else(|| panic!("no answer to {}", String::from_utf8_lossy(bytes)))
}

/// The next response of a connection: by its length, or the head alone; `None` if it closes.
pub(crate) fn read_answer(socket: &mut TcpStream, headless: bool) -> Option<Answer> {
    let head = read_head(socket)?;
    let head = head.to_lowercase();
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; if headless { 0 } else { length.unwrap_or(0) }];
    socket.read_exact(&mut body).ok()?;
    Some(Answer { status, head, body })
}

/// Bytes up to the empty line.
pub(crate) fn read_head(socket: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Ok(_) => return None,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("no head within {LIMIT:?}: {error}; so far {}", String::from_utf8_lossy(&head)),
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// The body of a chunked response that is read to its end.
pub(crate) fn read_chunks(socket: &mut TcpStream) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("a chunk's size");
            line.push(byte[0]);
        }
        let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).expect("a size");
        let mut chunk = vec![0; size + 2];
        socket.read_exact(&mut chunk).expect("a chunk");
        assert!(chunk.ends_with(b"\r\n"));
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// The tags of a live response, as they come.
pub(crate) struct FlvBody {
    socket: TcpStream,
    body: Vec<u8>,
    started: bool,
}

impl FlvBody {
    /// Asks for a stream.
    pub(crate) fn ask_for(address: SocketAddr, path: &str) -> Self {
        let mut socket = connected(address);
        socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).expect("a request");
        Self { socket, body: Vec::new(), started: false }
    }

    /// How long a tag may take.
    pub(crate) fn set_patience(&self, patience: Duration) {
        self.socket.set_read_timeout(Some(patience)).expect("a timeout");
    }

    /// The next tag: type, time, body; `None` at the response's end, an error if it breaks off or nothing comes.
    pub(crate) fn next_tag(&mut self) -> std::io::Result<Option<(u8, u32, Vec<u8>)>> {
        if !std::mem::replace(&mut self.started, true) {
            let head = self.line_up_to(b"\r\n\r\n")?;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
        loop {
            if self.body.starts_with(b"FLV") && self.body.len() >= 13 {
                self.body.drain(..13);
            }
            if let [kind, a, b, c, t1, t2, t3, t0, _, _, _, rest @ ..] = &self.body[..] {
                let size = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if rest.len() >= size + 4 {
                    let tag = (*kind, u32::from_be_bytes([*t0, *t1, *t2, *t3]), rest[..size].to_vec());
                    self.body.drain(..11 + size + 4);
                    return Ok(Some(tag));
                }
            }
            let size = self.line_up_to(b"\r\n")?;
            let size = usize::from_str_radix(size.trim(), 16).expect("a chunk's size");
            let mut chunk = vec![0; size + 2];
            self.socket.read_exact(&mut chunk)?;
            if size == 0 {
                return Ok(None);
            }
            self.body.extend_from_slice(&chunk[..size]);
        }
    }

    fn line_up_to(&mut self, end: &[u8]) -> std::io::Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(end) {
            self.socket.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}

/// Node's modules, as scripts/check fetches them.
pub(crate) fn node_modules() -> Option<PathBuf> {
    tool("page/node_modules/puppeteer-core").map(|path| path.join("../.."))
}

/// Something below `.tools`, as scripts/check makes it.
pub(crate) fn tool(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools").join(path);
    let skip = std::env::var_os("CORECAST_SKIP_MISSING_TOOLS").is_some();
    assert!(path.exists() || skip, "{} is missing: run scripts/check", path.display());
    path.exists().then_some(path)
}

/// node's `ws` writing a WebSocket's binary messages to a file, until it is closed in good order.
pub(crate) fn websocket(modules: &Path, url: &str, file: &Path) -> Running {
    let script = "const { WebSocket } = require('ws'); const fs = require('fs'); const [url, file] = process.argv.slice(1);\
                  const out = fs.createWriteStream(file); const socket = new WebSocket(url);\
                  socket.on('message', (data, binary) => { if (!binary) process.exit(3); out.write(data); });\
                  socket.on('ping', () => {}); socket.on('error', (error) => { console.error(error); process.exit(2); });\
                  socket.on('close', (code) => out.end(() => process.exit(code === 1000 ? 0 : 1)));";
    let mut node = bounded("node");
    Running::start(node.current_dir(modules).args(["-e", script, url]).arg(file))
}
