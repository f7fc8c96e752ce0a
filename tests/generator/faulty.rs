//! An RTMP server that serves a file in real time, well or badly, to whoever plays.

use bytes::Bytes;
use corecast::proto::{
    codec::{self, Class},
    flv::{Tag, file},
    rtmp::{
        chunk_writer::ChunkWriter,
        server::{Event, ServerSession, Settings},
    },
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// What it does wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Manner {
    /// Nothing.
    Good,
    /// Flips a bit of the middle byte of one video tag.
    FlipsAByte,
    /// Leaves one audio tag out.
    DropsATag,
    /// Gives one media tag a wrong time.
    ShiftsATag,
    /// Sends at half the speed.
    HalfRate,
    /// Refuses to play.
    Refuses,
    /// Closes after a second of media.
    ClosesMidway,
    /// Answers like a web server.
    NoRtmp,
    /// Says nothing.
    Silent,
}

/// The tag at which something goes wrong, counted from the first: a few seconds in.
const FAULT_AT: usize = 260;
/// A round of the file follows the one before it so much later, as the generator publishes it.
const ROUND_GAP_MS: u32 = 33;
/// How long a connection is served.
const SERVICE: Duration = Duration::from_secs(30);

/// Starts one on a free port; it ends with the test's process.
pub(crate) fn start(manner: Manner, flv: &Path) -> SocketAddr {
    let bytes = std::fs::read(flv).expect("a file");
    let tags = Arc::new(file::read_file(Bytes::from(bytes)).expect("an FLV file"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let tags = Arc::clone(&tags);
            // A player that leaves is no fault of the server's.
            thread::spawn(move || serve(socket, manner, &tags).ok());
        }
    });
    address
}

fn serve(mut socket: TcpStream, manner: Manner, tags: &[Tag]) -> std::io::Result<()> {
    if manner == Manner::Silent {
        thread::sleep(SERVICE);
        return Ok(());
    }
    if manner == Manner::NoRtmp {
        return socket.write_all("HTTP/1.1 400 Bad Request\r\n\r\n".repeat(200).as_bytes());
    }
    let mut session = ServerSession::new(Settings::default(), 1);
    let mut buffer = vec![0; 65_536];
    let msid = 'playing: loop {
        let read = socket.read(&mut buffer)?;
        let mut input = &buffer[..read];
        if read == 0 {
            return Ok(());
        }
        while let Some(event) = session.next_event(&mut input).map_err(std::io::Error::other)? {
            match event {
                Event::Connect => session.accept_connect(),
                Event::Play { msid, .. } if manner == Manner::Refuses => {
                    session.reject_play(msid, "NetStream.Play.StreamNotFound", "there is no such stream");
                }
                Event::Play { msid, .. } => {
                    session.accept_play(msid);
                    socket.write_all(&session.take_output())?;
                    break 'playing msid;
                }
                Event::Handshake(_)
                | Event::Publish { .. }
                | Event::Close { .. }
                | Event::Pause { .. }
                | Event::Receive { .. }
                | Event::Media { .. } => {}
            }
        }
        socket.write_all(&session.take_output())?;
    };
    send_media(&mut socket, manner, tags, msid, session.chunk_size())
}

fn send_media(
    socket: &mut TcpStream,
    manner: Manner,
    tags: &[Tag],
    msid: u32,
    chunk_size: usize,
) -> std::io::Result<()> {
    let mut writer = ChunkWriter::default();
    writer.set_chunk_size(u32::try_from(chunk_size).expect("a chunk size"));
    let round_ms = tags.iter().map(|tag| tag.timestamp).max().unwrap_or(0) + ROUND_GAP_MS;
    let began = Instant::now();
    let mut offset_ms = 0;
    let mut number = 0;
    while began.elapsed() < SERVICE {
        for tag in tags {
            let mut timestamp = tag.timestamp + offset_ms;
            let speed = if manner == Manner::HalfRate { 2 } else { 1 };
            let due = Duration::from_millis(u64::from(timestamp) * speed);
            thread::sleep(due.saturating_sub(began.elapsed()));
            number += 1;
            let class = codec::inspect(tag.kind, &tag.body).class;
            let mut body = tag.body.to_vec();
            if manner == Manner::ClosesMidway && timestamp > 1000 {
                return Ok(());
            }
            // Several tags are bad until one of the right class has come.
            if (FAULT_AT..FAULT_AT + 4).contains(&number) {
                match (manner, class) {
                    (Manner::FlipsAByte, Class::InterFrame) => {
                        let middle = body.len() / 2;
                        body[middle] ^= 1;
                    }
                    (Manner::DropsATag, Class::Audio) => continue,
                    (Manner::ShiftsATag, Class::Audio) => timestamp += 1,
                    _ => {}
                }
            }
            let mut out = Vec::new();
            let csid = 8 + u32::from(tag.kind.type_id() & 1);
            writer.write(&mut out, csid, tag.kind.type_id(), msid, timestamp, &body);
            socket.write_all(&out)?;
        }
        offset_ms += round_ms;
    }
    Ok(())
}
