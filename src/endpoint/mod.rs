//! Ways in and out of the server: a folder each, and the registry that makes one type of them.
//!
//! An endpoint speaks to the shard in the words of [`crate::core::port`], and to no other endpoint.

mod audio;
mod flv;
mod forward;
mod hls;
mod http;
mod pull;
mod registry;
mod rtmp;
mod ts;

pub(crate) use registry::All;
