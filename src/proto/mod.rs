//! Protocols as values: bytes in, values out, and back. No sockets, clock, runtime or configuration.

pub mod amf;
pub mod codec;
pub mod flv;
pub mod http;
pub mod rtmp;
