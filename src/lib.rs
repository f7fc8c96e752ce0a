#![doc = include_str!("ARCHITECTURE.md")]

pub mod config;
pub mod control;
pub mod cores;
pub mod net;
pub mod proto;
pub mod serve;
pub mod shard;
pub mod stats;
pub mod stream;
pub mod tls;
