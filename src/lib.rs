#![doc = include_str!("ARCHITECTURE.md")]

pub mod cluster;
pub mod config;
pub mod control;
pub mod core;
pub mod endpoint;
pub mod glue;
pub mod media;
pub mod mesh;
pub mod package;
pub mod programs;
pub mod proto;
pub mod stats;
pub mod sys;
pub mod tls;
