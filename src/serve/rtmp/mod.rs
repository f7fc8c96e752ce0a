//! RTMP on a shard: what a session's events do, and how a stream's entries become chunks.

pub(super) mod player;
pub(super) mod publisher;
pub mod wire;
