//! A transport stream taken apart as ISO 13818-1 says, by nothing of the server's: what a receiver would object to.

use std::collections::HashMap;

const PACKET: usize = 188;
const PMT: u16 = 0x1000;
/// Pictures, sound.
const TRACKS: [u16; 2] = [0x100, 0x101];
const CLOCK: u64 = 1 << 33;
/// Most between two clocks (§2.7.2) and between two tables (TR 101 290), in units of 90 kHz.
const CLOCKS_APART: u64 = 9000;
const TABLES_APART: u64 = 45_000;

#[derive(Debug, Default)]
pub(crate) struct Ts {
    pub(crate) faults: Vec<String>,
    /// Each program map that is another than the last one: its version, its stream types, and the packet it is in.
    pub(crate) maps: Vec<(u8, Vec<u8>, usize)>,
    /// The first packet of each frame of both tracks.
    pub(crate) frames: [Vec<usize>; 2],
    /// The packets that say that they do not follow the last of their PID.
    pub(crate) breaks: Vec<usize>,
    counters: HashMap<u16, u8>,
    clock: Option<u64>,
    /// Where the program map says that the clock is.
    clock_pid: Option<u16>,
    tables: Option<u64>,
}

/// `to` less `from`, where both go round at 33 bits.
fn apart(from: u64, to: u64) -> u64 {
    to.wrapping_sub(from) % CLOCK
}

impl Ts {
    pub(crate) fn read(stream: &[u8]) -> Self {
        let mut ts = Self::default();
        if !stream.len().is_multiple_of(PACKET) {
            ts.fault(0, format!("{} bytes", stream.len()));
        }
        stream.chunks_exact(PACKET).enumerate().for_each(|(at, packet)| ts.packet(at, packet));
        ts
    }

    fn fault(&mut self, at: usize, what: impl AsRef<str>) {
        self.faults.push(format!("packet {at}: {}", what.as_ref()));
    }

    fn packet(&mut self, at: usize, packet: &[u8]) {
        let pid = u16::from_be_bytes([packet[1] & 0x1F, packet[2]]);
        if packet[0] != 0x47 || !([0, PMT].contains(&pid) || TRACKS.contains(&pid)) {
            return self.fault(at, "is none of the stream");
        }
        let (has_field, has_payload) = (packet[3] & 0x20 != 0, packet[3] & 0x10 != 0);
        let field_len = if has_field { 1 + usize::from(packet[4]) } else { 0 };
        let flags = if field_len > 1 { packet[5] } else { 0 };
        let Some(payload) = packet.get(4 + field_len..).filter(|payload| payload.is_empty() != has_payload) else {
            return self.fault(at, "an adaptation field that does not fit");
        };
        let breaks = flags & 0x80 != 0;
        self.breaks.extend(breaks.then_some(at));
        let counter = packet[3] & 0x0F;
        if let Some(last) = self.counters.insert(pid, counter)
            && !breaks
            && counter != (last + u8::from(has_payload)) & 0x0F
        {
            self.fault(at, format!("PID {pid:#x}: counter {counter} after {last}"));
        }
        if flags & 0x10 != 0 {
            let base = packet[6..10].iter().fold(0, |base, byte| base << 8 | u64::from(*byte));
            if self.clock_pid.is_some_and(|clock_pid| clock_pid != pid) {
                self.fault(at, format!("a clock on PID {pid:#x}"));
            }
            self.clock(at, base << 1 | u64::from(packet[10] >> 7), breaks);
        }
        let starts = packet[1] & 0x40 != 0;
        match pid {
            0 | PMT => self.section(at, pid, payload),
            _ if starts => self.unit(at, pid, payload),
            _ => {}
        }
    }

    fn clock(&mut self, at: usize, now: u64, breaks: bool) {
        if let Some(last) = self.clock.replace(now).filter(|_| !breaks)
            && (now == last || apart(last, now) > CLOCKS_APART)
        {
            self.fault(at, format!("clock {now} after {last}"));
        }
        if breaks {
            self.tables = Some(now);
        }
        if self.tables.is_some_and(|tables| apart(tables, now) > TABLES_APART) {
            self.fault(at, "no tables for half a second");
        }
    }

    fn section(&mut self, at: usize, pid: u16, payload: &[u8]) {
        if payload.is_empty() {
            return;
        }
        let section = &payload[1 + usize::from(payload[0])..];
        let section = &section[..3 + usize::from(section[2])];
        if crc(section) != 0 {
            self.fault(at, "a table's checksum");
        }
        if pid != PMT {
            return;
        }
        self.tables = self.clock;
        let clock_pid = u16::from_be_bytes([section[8] & 0x1F, section[9]]);
        self.clock_pid = Some(clock_pid);
        let tracks: Vec<(u8, u16)> = section[12..section.len() - 4]
            .chunks_exact(5)
            .map(|track| (track[0], u16::from_be_bytes([track[1] & 0x1F, track[2]])))
            .collect();
        if !tracks.iter().any(|(_, pid)| *pid == clock_pid) {
            self.fault(at, format!("a program map of {tracks:?} whose clock is on {clock_pid:#x}"));
        }
        let (version, types) = (section[5] >> 1 & 0x1F, tracks.iter().map(|track| track.0).collect::<Vec<_>>());
        match self.maps.last() {
            Some((last, known, _)) if *last == version && *known == types => {}
            Some((last, ..)) if *last == version => self.fault(at, "another program map of the same version"),
            _ => self.maps.push((version, types, at)),
        }
    }

    fn unit(&mut self, at: usize, pid: u16, payload: &[u8]) {
        let track = usize::from(pid == TRACKS[1]);
        self.frames[track].push(at);
        if self.maps.is_empty() {
            self.fault(at, "media before tables");
        }
        let time = |at: usize| {
            let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(|byte| u64::from(payload[at + byte]));
            (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1
        };
        if payload[..3] != [0, 0, 1] || payload[7] & 0x80 == 0 {
            return self.fault(at, "a frame without a head or a time");
        }
        let shown = time(9);
        let decoded = if payload[7] & 0x40 != 0 { time(14) } else { shown };
        // Ten seconds ahead is nonsense too.
        if self.clock.is_none_or(|clock| [shown, decoded].iter().any(|time| apart(clock, *time) > 900_000)) {
            self.fault(at, format!("PID {pid:#x}: shown {shown}, decoded {decoded}, clock {:?}", self.clock));
        }
    }
}

/// Annex A; 0 of a section with its checksum.
fn crc(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)) {
        let carry = sum >> 31 ^ u32::from(bit);
        sum = (sum << 1) ^ (0x04C1_1DB7 * carry);
    }
    sum
}
