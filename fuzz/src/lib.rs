//! What the fuzz targets share: memory that is counted, inputs cut in pieces, seeds, and the bytes of sessions.
//!
//! A target fails by a panic. Every target asserts what its decoder promises: see `tests/README.md`.

pub mod conversation;
pub mod stream;

use cap::Cap;
use corecast::proto::rtmp::chunk_reader::{CHUNK_STREAM_BYTES, Limits};
use std::{alloc::System, fmt::Debug, fs, path::Path, process};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Beside twice the input, what a decoder may hold.
const OWN_BYTES_MAX: usize = 64 << 10;

/// What a decoder may hold of `input_bytes` that have come.
pub const fn bound(input_bytes: usize) -> usize {
    2 * input_bytes + OWN_BYTES_MAX
}

/// What a side of a connection may hold of `input_bytes` that have come as chunks. A chunk stream takes space of its
/// own, and needs 9 bytes at least: a type 1 header, and one of payload. What it is said to hold may be half of what it
/// holds while a list grows.
pub fn chunks_bound(input_bytes: usize, limits: Limits) -> usize {
    let streams = input_bytes.div_ceil(9);
    2 * (2 * input_bytes + streams * (CHUNK_STREAM_BYTES + limits.reserve_bytes)) + OWN_BYTES_MAX
}

/// Bytes that are allocated now.
pub fn allocated() -> usize {
    MEMORY.allocated()
}

/// Runs `decode`, and ends the process when it allocates more than `bytes_max` at a time.
pub fn within<T>(bytes_max: usize, decode: impl FnOnce() -> T) -> T {
    assert!(MEMORY.set_limit(MEMORY.allocated() + bytes_max).is_ok());
    let decoded = decode();
    assert!(MEMORY.set_limit(usize::MAX).is_ok());
    decoded
}

/// Takes the first byte of an input, which chooses among variants.
pub fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// The same bytes whole, one by one, and in pieces of random sizes.
pub fn splits(bytes: &[u8], seed: u64) -> [Vec<&[u8]>; 3] {
    [vec![bytes], bytes.chunks(1).collect(), pieces(bytes, seed)]
}

/// Pieces of random sizes, many of them small.
pub fn pieces(mut bytes: &[u8], seed: u64) -> Vec<&[u8]> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let most = [3, 40, 400, 4000][random.usize(..4)];
        let (piece, rest) = bytes.split_at(random.usize(1..=most).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Checks that a decoder took bytes from the front of `before`, so that none can come twice.
pub fn assert_taken(before: &[u8], after: &[u8]) {
    assert!(after.len() <= before.len() && after.as_ptr_range().end == before.as_ptr_range().end, "bytes come twice");
}

/// Checks that every way to cut an input gave the same.
pub fn assert_same<T: Debug + PartialEq>(runs: &[T]) {
    for run in runs {
        assert_eq!(*run, runs[0], "it depends on where the input is cut");
    }
}

/// Writes a target's seeds if it was started for that, into the directory that `CORECAST_FUZZ_SEEDS` names.
pub fn seeds<S: AsRef<[u8]>>(seeds: impl FnOnce() -> Vec<S>) {
    let Ok(directory) = std::env::var("CORECAST_FUZZ_SEEDS") else { return };
    for (at, seed) in seeds().iter().enumerate() {
        let path = Path::new(&directory).join(format!("seed-{at:03}"));
        if let Err(error) = fs::write(&path, seed) {
            eprintln!("{}: {error}", path.display());
            process::exit(1);
        }
    }
    process::exit(0);
}
