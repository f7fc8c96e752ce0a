//! The server from outside: real encoders and players, hostile peers, thousands of connections.
//!
//! `tests/README.md` maps the rows of the specification to these tests.

#![expect(clippy::expect_used, clippy::cast_possible_truncation, reason = "a test fails by a panic")]

mod bad_input;
mod clients;
mod commands;
mod media;
mod operation;
mod peer;
mod relay;
mod server;
