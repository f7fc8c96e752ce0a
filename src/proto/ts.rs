//! MPEG-2 transport streams (ISO/IEC 13818-1): one program of a video and an audio track, written only.
//!
//! A multiplexer's state that a reader must know who begins in the middle is one number, [`Muxer::note`]: whoever
//! begins there gets [`put_preamble`] first, so that every packet's continuity is right for every reader of the
//! same packets.

use super::Write;

/// Bytes of a packet (§2.4.3.2).
pub const PACKET_BYTES: usize = 188;
const HEADER_BYTES: usize = 4;
const PAYLOAD_BYTES: usize = PACKET_BYTES - HEADER_BYTES;
/// Bytes of an adaptation field with a program clock reference, its length's byte included.
const PCR_FIELD_BYTES: usize = 8;

/// What stands in a packet's header; the place of a continuity counter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pid {
    /// Program association table.
    Pat,
    /// Program map table.
    Pmt,
    /// The video track.
    Video,
    /// The audio track.
    Audio,
}

impl Pid {
    const ALL: [Self; 4] = [Self::Pat, Self::Pmt, Self::Video, Self::Audio];

    /// As ffmpeg numbers them.
    const fn number(self) -> u16 {
        match self {
            Self::Pat => 0,
            Self::Pmt => 0x1000,
            Self::Video => 0x100,
            Self::Audio => 0x101,
        }
    }

    const fn stream_id(self) -> u8 {
        match self {
            Self::Video => 0xE0,
            Self::Audio | Self::Pat | Self::Pmt => 0xC0,
        }
    }
}

/// How a track is coded (§2.4.4.9).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum StreamType {
    /// MPEG audio, MP3 for example.
    MpegAudio = 0x03,
    /// AAC with ADTS headers.
    Aac = 0x0F,
    /// H.264.
    Avc = 0x1B,
    /// H.265.
    Hevc = 0x24,
}

/// Which tracks there are, with a version that changes when they do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Program {
    video: u8,
    audio: u8,
    version: u8,
}

/// The time of something, in ms and in units of the system clock's 90 kHz.
fn ticks(time_ms: i64) -> u64 {
    // 33 bits (§2.4.3.7).
    (time_ms.wrapping_mul(90).cast_unsigned()) & 0x1_FFFF_FFFF
}

/// A frame of a track.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'a> {
    /// Decoding time, in ms.
    pub dts_ms: i64,
    /// Presentation time, in ms.
    pub pts_ms: i64,
    /// A decoder can begin here.
    pub random_access: bool,
    /// The clock's time, to go with it.
    pub pcr_ms: Option<i64>,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// See the module.
#[derive(Debug, Default)]
pub struct Muxer {
    program: Program,
    /// The next continuity counter of each PID.
    counters: [u8; 4],
    /// PIDs whose next packet does not follow the last one.
    broken: [bool; 4],
}

impl Muxer {
    /// Says how a track is coded; `None` for one that is not there. Tells whether that has changed: the tables are
    /// to be written then.
    pub fn set_track(&mut self, pid: Pid, stream_type: Option<StreamType>) -> bool {
        let number = stream_type.map_or(0, |stream_type| stream_type as u8);
        let track = if pid == Pid::Video { &mut self.program.video } else { &mut self.program.audio };
        let changed = *track != number;
        *track = number;
        self.program.version = (self.program.version + u8::from(changed)) % 32;
        changed
    }

    /// What comes does not follow what went before: another publish, another clock.
    pub fn break_off(&mut self) {
        self.broken = [false, false, true, true];
    }

    /// What who begins at the next packet has to know; see [`put_preamble`].
    pub fn note(&self) -> u64 {
        let counters = self.counters.iter().fold(0, |bits, counter| bits << 4 | u64::from(*counter));
        let Program { video, audio, version } = self.program;
        counters << 24 | u64::from(version) << 16 | u64::from(video) << 8 | u64::from(audio)
    }

    /// Writes both tables.
    pub fn put_tables(&mut self, out: &mut Vec<u8>) {
        for pid in [Pid::Pat, Pid::Pmt] {
            let counter = self.count(pid);
            out.extend_from_slice(&table_packet(pid, self.program, counter));
        }
    }

    /// Writes the clock's time alone.
    pub fn put_clock(&mut self, pid: Pid, pcr_ms: i64, out: &mut Vec<u8>) {
        let mut packet = [0xFF; PACKET_BYTES];
        // No payload: the counter stands (§2.4.3.3).
        let counter = self.counters[pid as usize].wrapping_sub(1) & 0x0F;
        packet[..HEADER_BYTES].copy_from_slice(&header(pid, false, 0b10, counter));
        let flags = 0x10 | self.take_broken(pid);
        packet[4] = u8::try_from(PAYLOAD_BYTES - 1).unwrap_or(0);
        packet[5] = flags;
        packet[6..12].copy_from_slice(&clock(pcr_ms));
        out.extend_from_slice(&packet);
    }

    /// Writes a frame as a packetised elementary stream's packet (§2.4.3.6), in packets of its own.
    pub fn put_unit(&mut self, pid: Pid, unit: &Unit<'_>, out: &mut Vec<u8>) {
        let head = pes_header(pid, unit);
        let mut left = head.len() + unit.bytes.len();
        let mut bytes = unit.bytes;
        let mut first = true;
        while left > 0 {
            let field = if first { self.first_field(pid, unit) } else { Vec::new() };
            let room = PAYLOAD_BYTES - field.len();
            let stuffing = room.saturating_sub(left);
            let control = if field.is_empty() && stuffing == 0 { 0b01 } else { 0b11 };
            let counter = self.count(pid);
            out.extend_from_slice(&header(pid, first, control, counter));
            put_field(out, field, stuffing);
            let mut room = room - stuffing;
            left -= room;
            if first {
                out.extend_from_slice(&head);
                room -= head.len();
                first = false;
            }
            let (now, rest) = bytes.split_at(room);
            out.extend_from_slice(now);
            bytes = rest;
        }
    }

    /// The adaptation field of a frame's first packet, its length's byte included; empty if there is none.
    fn first_field(&mut self, pid: Pid, unit: &Unit<'_>) -> Vec<u8> {
        let flags = u8::from(unit.random_access) << 6 | self.take_broken(pid);
        let mut field = Vec::with_capacity(PCR_FIELD_BYTES);
        if let Some(pcr_ms) = unit.pcr_ms {
            field.extend_from_slice(&[7, flags | 0x10]);
            field.extend_from_slice(&clock(pcr_ms));
        } else if flags != 0 {
            field.extend_from_slice(&[1, flags]);
        }
        field
    }

    /// The discontinuity_indicator, if it is due.
    fn take_broken(&mut self, pid: Pid) -> u8 {
        u8::from(std::mem::take(&mut self.broken[pid as usize])) << 7
    }

    fn count(&mut self, pid: Pid) -> u8 {
        let counter = &mut self.counters[pid as usize];
        let now = *counter;
        *counter = (now + 1) & 0x0F;
        now
    }
}

/// Writes what stands before the packets that follow a note: the tables, and if the reader has had others
/// `before`, that all counters jump. Without tracks there are no tables: they come with the first frame, and some
/// readers stay with the first that they see.
pub fn put_preamble(note: u64, before: bool, out: &mut impl Write) {
    let byte = |shift: u32| u8::try_from(note >> shift & 0xFF).unwrap_or(0);
    let program = Program { video: byte(8), audio: byte(0), version: byte(16) & 0x1F };
    // The last packet before the next one.
    let counter = |pid: Pid| (byte(24 + 4 * (3 - pid as u32)) & 0x0F).wrapping_sub(1) & 0x0F;
    for pid in Pid::ALL {
        let table = matches!(pid, Pid::Pat | Pid::Pmt) && program.video | program.audio > 0;
        if before {
            // Says so by itself, without payload (§2.4.3.5): then its counter is what the last one's was.
            let mut packet = [0xFF; PACKET_BYTES];
            let last = if table { counter(pid).wrapping_sub(1) & 0x0F } else { counter(pid) };
            packet[..HEADER_BYTES].copy_from_slice(&header(pid, false, 0b10, last));
            packet[4] = u8::try_from(PAYLOAD_BYTES - 1).unwrap_or(0);
            packet[5] = 0x80;
            out.copy(&packet);
        }
        if table {
            out.copy(&table_packet(pid, program, counter(pid)));
        }
    }
}

/// A packet's header: `control` says whether an adaptation field (2) and a payload (1) follow.
fn header(pid: Pid, start: bool, control: u8, counter: u8) -> [u8; HEADER_BYTES] {
    let [high, low] = pid.number().to_be_bytes();
    [0x47, u8::from(start) << 6 | high, low, control << 4 | counter]
}

/// Writes an adaptation field with so many bytes more.
fn put_field(out: &mut Vec<u8>, mut field: Vec<u8>, stuffing: usize) {
    if field.is_empty() && stuffing == 0 {
        return;
    }
    if field.is_empty() {
        // A field of one byte is a length of 0; longer ones have flags.
        field.push(0);
        if stuffing > 1 {
            field.push(0);
        }
        field.resize(stuffing, 0xFF);
    } else {
        field.resize(field.len() + stuffing, 0xFF);
    }
    field[0] = u8::try_from(field.len() - 1).unwrap_or(0);
    out.extend_from_slice(&field);
}

/// A program clock reference without its extension (§2.4.3.5).
fn clock(pcr_ms: i64) -> [u8; 6] {
    let [.., b0, b1, b2, b3, b4, b5] = (ticks(pcr_ms) << 15 | 0x7E00).to_be_bytes();
    [b0, b1, b2, b3, b4, b5]
}

/// Up to the frame's bytes: times always, decoding's only if it is another.
fn pes_header(pid: Pid, unit: &Unit<'_>) -> Vec<u8> {
    let reordered = unit.dts_ms != unit.pts_ms;
    let times = if reordered { 10 } else { 5 };
    let length = 3 + times + unit.bytes.len();
    // 0 where it does not fit: allowed for video only (§2.4.3.7).
    let [high, low] = u16::try_from(length).unwrap_or(0).to_be_bytes();
    let flags = if reordered { 0xC0 } else { 0x80 };
    let mut head = vec![0, 0, 1, pid.stream_id(), high, low, 0x84, flags, u8::try_from(times).unwrap_or(0)];
    head.extend_from_slice(&timestamp(if reordered { 3 } else { 2 }, ticks(unit.pts_ms)));
    if reordered {
        head.extend_from_slice(&timestamp(1, ticks(unit.dts_ms)));
    }
    head
}

/// 33 bits between marker bits (§2.4.3.6).
fn timestamp(prefix: u8, ticks: u64) -> [u8; 5] {
    let bits = |shift: u32, mask: u64| u8::try_from(ticks >> shift & mask).unwrap_or(0);
    [prefix << 4 | bits(30, 7) << 1 | 1, bits(22, 0xFF), bits(15, 0x7F) << 1 | 1, bits(7, 0xFF), bits(0, 0x7F) << 1 | 1]
}

/// A table in a packet of its own (§2.4.4).
fn table_packet(pid: Pid, program: Program, counter: u8) -> [u8; PACKET_BYTES] {
    const PROGRAM_NUMBER: [u8; 2] = [0, 1];
    let mut section = Vec::with_capacity(64);
    let version = 0xC1 | program.version << 1;
    let [pmt_high, pmt_low] = Pid::Pmt.number().to_be_bytes();
    if pid == Pid::Pat {
        section.extend_from_slice(&[0, 0xB0, 0, 0, 1, 0xC1, 0, 0]);
        section.extend_from_slice(&PROGRAM_NUMBER);
        section.extend_from_slice(&[0xE0 | pmt_high, pmt_low]);
    } else {
        let clock = if program.video > 0 { Pid::Video } else { Pid::Audio };
        let [high, low] = clock.number().to_be_bytes();
        section.extend_from_slice(&[2, 0xB0, 0]);
        section.extend_from_slice(&PROGRAM_NUMBER);
        section.extend_from_slice(&[version, 0, 0, 0xE0 | high, low, 0xF0, 0]);
        for (stream_type, pid) in [(program.video, Pid::Video), (program.audio, Pid::Audio)] {
            if stream_type > 0 {
                let [high, low] = pid.number().to_be_bytes();
                section.extend_from_slice(&[stream_type, 0xE0 | high, low, 0xF0, 0]);
            }
        }
    }
    // What follows the length, the checksum included.
    section[2] = u8::try_from(section.len() - 3 + 4).unwrap_or(0);
    let sum = checksum(&section);
    section.extend_from_slice(&sum.to_be_bytes());
    let mut packet = [0xFF; PACKET_BYTES];
    packet[..HEADER_BYTES].copy_from_slice(&header(pid, true, 0b01, counter));
    // The section begins at once.
    packet[HEADER_BYTES] = 0;
    packet[HEADER_BYTES + 1..][..section.len()].copy_from_slice(&section);
    packet
}

/// CRC-32 of sections (annex A).
fn checksum(section: &[u8]) -> u32 {
    section.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte) << 24, |sum, _| sum << 1 ^ if sum >> 31 == 1 { 0x04C1_1DB7 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each PID's counters, as a reader checks them (§2.4.3.3): payloads count, a discontinuity may jump.
    fn check(stream: &[u8]) -> usize {
        let mut last: std::collections::HashMap<u16, u8> = std::collections::HashMap::new();
        assert_eq!(stream.len() % PACKET_BYTES, 0);
        for packet in stream.chunks(PACKET_BYTES) {
            assert_eq!(packet[0], 0x47);
            let pid = u16::from_be_bytes([packet[1] & 0x1F, packet[2]]);
            let (control, counter) = (packet[3] >> 4 & 3, packet[3] & 0x0F);
            let jumps = control & 2 != 0 && packet[4] > 0 && packet[5] & 0x80 != 0;
            if control & 2 != 0 {
                assert!(usize::from(packet[4]) < PAYLOAD_BYTES + usize::from(control == 2));
            }
            let expected = last.get(&pid).map(|last| (last + (control & 1)) & 0x0F);
            assert!(jumps || expected.is_none_or(|expected| expected == counter), "{pid:x}");
            last.insert(pid, counter);
        }
        stream.len() / PACKET_BYTES
    }

    fn unit(bytes: &[u8], pcr_ms: Option<i64>) -> Unit<'_> {
        Unit { dts_ms: 40, pts_ms: 80, random_access: pcr_ms.is_some(), pcr_ms, bytes }
    }

    /// Frames of every length come out as they went in, whatever stuffing that takes.
    #[test]
    fn units_of_every_length() {
        for length in (0..600).chain([65_530, 70_000]) {
            for pcr_ms in [None, Some(7)] {
                let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
                let (mut muxer, mut stream) = (Muxer::default(), Vec::new());
                muxer.put_unit(Pid::Video, &unit(&bytes, pcr_ms), &mut stream);
                check(&stream);
                let payload: Vec<u8> = stream
                    .chunks(PACKET_BYTES)
                    .flat_map(|packet| {
                        let field = if packet[3] & 0x20 != 0 { 1 + usize::from(packet[4]) } else { 0 };
                        packet[HEADER_BYTES + field..].to_vec()
                    })
                    .collect();
                assert_eq!(payload[19..], bytes, "{length}");
                assert_eq!(payload[..4], [0, 0, 1, 0xE0]);
                let said = usize::from(u16::from_be_bytes([payload[4], payload[5]]));
                assert_eq!(said, if length + 13 > 65_535 { 0 } else { length + 13 });
            }
        }
    }

    /// Who begins anywhere has right counters, and so has who jumps there.
    #[test]
    fn every_joiner_s_counters_are_right() {
        let mut muxer = Muxer::default();
        muxer.set_track(Pid::Video, Some(StreamType::Avc));
        muxer.set_track(Pid::Audio, Some(StreamType::Aac));
        let mut pieces = Vec::new();
        for number in 0..40 {
            let (note, mut piece) = (muxer.note(), Vec::new());
            if number % 7 == 0 {
                muxer.put_tables(&mut piece);
            }
            muxer.put_unit(Pid::Video, &unit(&[9; 400], Some(number)), &mut piece);
            muxer.put_clock(Pid::Video, number, &mut piece);
            if number % 3 == 0 {
                muxer.put_unit(Pid::Audio, &unit(&[8; 100], None), &mut piece);
            }
            pieces.push((note, piece));
        }
        for from in 0..40 {
            let mut stream = Vec::new();
            put_preamble(pieces[from].0, false, &mut stream);
            pieces[from..].iter().for_each(|(_, piece)| stream.extend_from_slice(piece));
            check(&stream);
            assert_eq!(stream[1..3], [0x40, 0], "tables come first");
            for to in 0..40 {
                let mut jump = stream.clone();
                put_preamble(pieces[to].0, true, &mut jump);
                pieces[to..].iter().for_each(|(_, piece)| jump.extend_from_slice(piece));
                check(&jump);
            }
        }
    }

    /// Nobody is told of a program without tracks; who was there before is told that counters jump.
    #[test]
    fn no_tracks_no_tables() {
        let mut muxer = Muxer::default();
        for _ in 0..3 {
            let mut stream = Vec::new();
            put_preamble(muxer.note(), false, &mut stream);
            assert!(stream.is_empty());
            put_preamble(muxer.note(), true, &mut stream);
            assert!(check(&stream) == 4 && stream.chunks(PACKET_BYTES).all(|packet| packet[3] & 0x10 == 0));
            muxer.set_track(Pid::Video, Some(StreamType::Avc));
            muxer.put_tables(&mut stream);
            muxer.put_unit(Pid::Video, &unit(&[9; 400], Some(0)), &mut stream);
            check(&stream);
            muxer.set_track(Pid::Video, None);
        }
    }

    /// What ffmpeg writes for one program of H.264: the checksum is right.
    #[test]
    fn tables_have_their_checksums() {
        let packet = table_packet(Pid::Pat, Program::default(), 0);
        assert_eq!(packet[5..21], [0, 0xB0, 0x0D, 0, 1, 0xC1, 0, 0, 0, 1, 0xF0, 0, 0x2A, 0xB1, 0x04, 0xB2]);
        let mut muxer = Muxer::default();
        assert!(
            muxer.set_track(Pid::Video, Some(StreamType::Avc)) && !muxer.set_track(Pid::Video, Some(StreamType::Avc))
        );
        let packet = table_packet(Pid::Pmt, muxer.program, 0);
        let length = 3 + usize::from(packet[7]);
        assert_eq!(checksum(&packet[5..][..length]), 0);
    }

    /// Times go round at 33 bits, forward and below 0.
    #[test]
    fn times_go_round() {
        assert_eq!((ticks(0), ticks(1), ticks(-1)), (0, 90, (1 << 33) - 90));
        // 95,443,718 ms are 28 ticks more than 2^33.
        assert_eq!(ticks(95_443_718), 28);
    }
}
