//! Instruction counts of the hot functions, by callgrind: `cargo bench`. They are stable on noisy machines
//! where times are not. `scripts/micro` installs the runner that this needs.

#![expect(
    missing_docs,
    unused_qualifications,
    clippy::unwrap_used,
    reason = "the macros write that; a failure is a panic"
)]

use bytes::Bytes;
use corecast::{
    media::{Entry, Replica, Schedule, Settings, Snapshot, Step, Subscription},
    mesh::{
        relay::{Relay, Timer},
        ring::{self as mesh, Cargo, Mesh},
    },
    proto::{
        codec,
        flv::{Tag, TagKind},
        rtmp::{
            chunk_reader::{ChunkReader, Limits},
            chunk_writer::ChunkWriter,
            chunks::{self as wire, ChunkStreams},
        },
    },
    sys::{Gather, SendBuf},
};
use gungraun::prelude::*;
use std::hint::black_box;

/// A second of 720p30 at 2.5 Mbit/s with AAC: 30 video tags of 10 kB, 43 audio tags of 370 bytes.
const VIDEO_BYTES: usize = 10_400;
const AUDIO_BYTES: usize = 370;
const CHUNK_SIZE: usize = 60_000;
const SETTINGS: Settings = Settings::DEFAULT;

fn second() -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut add = |kind, bytes: usize, first: [u8; 2], time_ms: i64| {
        let body: Bytes = first.into_iter().chain((0..=250).cycle()).take(bytes).collect();
        let info = codec::inspect(kind, &body);
        let tag = Tag { kind, timestamp: u32::try_from(time_ms).unwrap(), body };
        entries.push(Entry { tag, info, time_ms, delta_ms: 33, arrived_ms: 0 });
    };
    for frame in 0..30 {
        add(TagKind::Video, VIDEO_BYTES, [if frame == 0 { 0x17 } else { 0x27 }, 1], frame * 33);
        add(TagKind::Audio, AUDIO_BYTES, [0xAF, 1], frame * 33);
        if frame % 2 == 0 {
            add(TagKind::Audio, AUDIO_BYTES, [0xAF, 1], frame * 33 + 20);
        }
    }
    entries
}

fn published() -> (ChunkReader, Vec<u8>) {
    let mut writer = ChunkWriter::default();
    let mut wire = Vec::new();
    writer.set_chunk_size(4096);
    for Entry { tag, .. } in second() {
        writer.write(&mut wire, 6, tag.kind.type_id(), 1, tag.timestamp, &tag.body);
    }
    let mut reader = ChunkReader::default();
    reader.set_limits(Limits::MEDIA);
    reader.set_chunk_size(4096).unwrap();
    (reader, wire)
}

// A second of media in chunks of 4096 bytes, read in pieces of 16 KiB.
#[library_benchmark]
#[bench::second(published())]
fn chunk_reader((mut reader, wire): (ChunkReader, Vec<u8>)) -> usize {
    let mut messages = 0;
    for mut input in wire.chunks(16 << 10) {
        while let Ok(Some(message)) = reader.read(&mut input) {
            messages += black_box(message.payload.len()).min(1);
        }
    }
    messages
}

// The shared image of a second.
#[library_benchmark]
#[bench::second(second())]
fn image(entries: Vec<Entry>) -> Vec<u8> {
    let mut out = Vec::with_capacity(400 << 10);
    entries
        .iter()
        .for_each(|entry| wire::put_next(&mut out, &entry.tag, entry.delta_ms, ChunkStreams::new(0), CHUNK_SIZE));
    out
}

// One player's list of pieces of a second.
#[library_benchmark]
#[bench::second(second())]
fn gather(entries: Vec<Entry>) -> SendBuf {
    let mut out = Gather::default();
    entries
        .iter()
        .for_each(|entry| wire::put_next(&mut out, &entry.tag, entry.delta_ms, ChunkStreams::new(0), CHUNK_SIZE));
    SendBuf::Gather(Box::new(out))
}

fn live() -> Replica {
    let mut replica = Replica::new(SETTINGS, 0, 0);
    (0..1000).for_each(|member| replica.schedule.add(member, 0));
    replica.begin(Snapshot::default());
    replica
}

// A second of tags into the log.
#[library_benchmark]
#[bench::second(live(), second())]
fn log_push(mut replica: Replica, entries: Vec<Entry>) -> Replica {
    entries.into_iter().for_each(|entry| replica.push(entry));
    replica
}

fn followed() -> (Replica, Vec<Subscription>) {
    let mut replica = live();
    let mut cursors: Vec<Subscription> = (0..1000).map(|_| replica.subscribe()).collect();
    second().into_iter().for_each(|entry| replica.push(entry));
    // Past the start, where every player has steps of its own.
    for cursor in &mut cursors {
        black_box(replica.step(cursor, 0));
    }
    (replica, cursors)
}

// A thousand cursors that follow.
#[library_benchmark]
#[bench::thousand(followed())]
fn cursors((replica, mut cursors): (Replica, Vec<Subscription>)) -> Vec<Subscription> {
    for cursor in &mut cursors {
        if let Step::Entries(range) = replica.step(cursor, 0) {
            cursor.advance(range.end, 990);
        }
    }
    cursors
}

// A flush of a thousand members, group by group.
#[library_benchmark]
#[bench::thousand(live())]
fn schedule(mut replica: Replica) -> u64 {
    let mut flushed = 0;
    let schedule: &mut Schedule = &mut replica.schedule;
    for tick in 1..=7 {
        schedule.note_change();
        if schedule.begin_flush(tick * 50, tick * 10, 0) {
            while let Some((member, _)) = schedule.next_member() {
                schedule.flushed(member, Some(tick * 10));
                flushed += black_box(member).min(1);
            }
        }
    }
    flushed
}

fn meshed() -> (Vec<Mesh<Entry>>, Vec<Entry>) {
    (mesh::connect(2), second())
}

// A second of tags from one shard to another.
#[library_benchmark]
#[bench::second(meshed())]
fn ring((mut meshes, entries): (Vec<Mesh<Entry>>, Vec<Entry>)) -> (Vec<Mesh<Entry>>, usize) {
    let mut received = 0;
    for entry in entries {
        meshes[0].try_send(1, entry);
        received += usize::from(meshes[1].receive().is_some());
    }
    (meshes, received)
}

// The same, where one of 128 shards sends: nobody looks at the others' rings.
#[library_benchmark]
#[bench::second((mesh::connect(128), second()))]
fn ring_of_many((mut meshes, entries): (Vec<Mesh<Entry>>, Vec<Entry>)) -> (Vec<Mesh<Entry>>, usize) {
    let mut received = 0;
    for entry in entries {
        meshes[100].try_send(1, entry);
        received += usize::from(meshes[1].receive().is_some());
        received += usize::from(meshes[1].receive().is_some());
    }
    (meshes, received)
}

struct Nothing;

impl Cargo for Nothing {
    fn bytes(&self) -> u64 {
        0
    }
}

/// So many streams with a player each; ten of them are due.
fn streams(count: usize) -> Relay<u32, Nothing> {
    let mut relay = Relay::new(mesh::connect(1).remove(0), Default::default());
    for number in 0..count {
        let id = relay.publish(&format!("v/live/{number}"), SETTINGS, 0).unwrap();
        relay.stream_mut(id).unwrap().replica.schedule.add(1, 0);
        let due_ms = if number % (count / 10) == 0 { 1000 } else { 2000 + number as u64 % 350 };
        relay.arm(id, due_ms);
    }
    relay
}

// A turn of a shard, of whose streams ten are due.
#[library_benchmark]
#[bench::of_50(streams(50))]
#[bench::of_5000(streams(5000))]
fn turn(mut relay: Relay<u32, Nothing>) -> (Relay<u32, Nothing>, usize) {
    let mut flushed = 0;
    while let Some((timer, _)) = relay.take_due(1000) {
        let Timer::Flush(id) = timer else { continue };
        let schedule = &mut relay.stream_mut(id).unwrap().replica.schedule;
        schedule.begin_flush(1000, 8, 0);
        while let Some((member, _)) = schedule.next_member() {
            schedule.flushed(member, Some(8));
            flushed += 1;
        }
        schedule.note_change();
        relay.arm(id, 1000);
    }
    black_box(relay.next_due_ms());
    assert_eq!(flushed, 10);
    (relay, flushed)
}

library_benchmark_group!(
    name = hot,
    benchmarks = [chunk_reader, image, gather, log_push, cursors, schedule, ring, ring_of_many, turn]
);

main!(library_benchmark_groups = hot);
