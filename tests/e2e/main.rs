//! The server from outside: real encoders and players, hostile peers, thousands of connections.
//!
//! `tests/README.md` maps the rows of the specification to these tests.

#![expect(clippy::expect_used, clippy::cast_possible_truncation, reason = "a test fails by a panic")]

mod access;
mod api;
mod api_fields;
mod bad_input;
mod clients;
mod cluster;
mod commands;
mod conf;
mod crowd;
mod dash;
mod directives;
mod dvr;
mod edge;
mod edge_faults;
mod forward;
mod forward_bad;
mod hls;
mod hls_http;
mod holes_audio;
mod holes_identity;
mod holes_memory;
mod holes_relay;
mod holes_short;
mod holes_url;
mod holes_websocket;
mod hook_crowd;
mod hook_fields;
mod hooks;
mod http2;
mod http_bad;
mod http_flv;
mod http_static;
mod http_ts;
mod http_ts_changes;
mod http_ts_checks;
mod live;
mod many_shards;
mod media;
mod memory;
mod operation;
mod page;
mod peer;
mod play;
mod process;
mod programs;
mod publish;
mod refer;
mod registry;
mod registry_load;
mod relay;
mod reload;
mod rtmps;
mod send_path;
mod server;
mod stop;
mod time;
mod ts;
mod web;
