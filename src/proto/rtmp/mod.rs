//! RTMP 1.0, sans-IO: the server's and the client's half of a connection, and their parts.
//!
//! Bytes → [`chunk_reader`] → [`message`] → [`command`] → [`server`] or [`client`] session → events.
//! Answers go the other way into a byte vector that the caller drains after every call.

pub mod chunk_reader;
pub mod chunk_writer;
pub mod chunks;
pub mod client;
pub mod command;
pub mod handshake;
mod inbound;
pub mod message;
pub mod server;
pub mod url;

/// Why a peer's bytes cannot be read further. Every variant closes the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RtmpError {
    /// See [`handshake::HandshakeError`].
    #[error("handshake: {0}")]
    Handshake(#[from] handshake::HandshakeError),
    /// See [`chunk_reader::ChunkError`].
    #[error("chunk stream: {0}")]
    Chunk(#[from] chunk_reader::ChunkError),
    /// See [`message::MessageError`].
    #[error("message: {0}")]
    Message(#[from] message::MessageError),
    /// See [`command::CommandError`].
    #[error("command: {0}")]
    Command(#[from] command::CommandError),
}
