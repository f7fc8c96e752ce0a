//! Fragmented MP4 as CMAF has it (ISO 14496-12, 23000-19), written only: a header that says how tracks are coded, and
//! fragments of samples behind it.
//!
//! Codecs' configuration records go in as publishers sent them.

use bytes::Bytes;

/// How a track is coded.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Coding {
    /// Pictures: the sample entry, its configuration box with what stands in it, and their size in pixels.
    Video {
        /// `avc1` for example.
        entry: [u8; 4],
        /// `avcC` for example.
        record: ([u8; 4], Bytes),
        /// Width and height.
        size: (u16, u16),
    },
    /// Sound: the sample entry, its configuration box, channels, and samples a second.
    Audio {
        /// `mp4a` for example.
        entry: [u8; 4],
        /// `esds` for example, whole but for its size and name.
        record: ([u8; 4], Bytes),
        /// How many.
        channels: u16,
        /// Of the sample entry: up to 65,535.
        rate: u32,
    },
}

/// A track.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Track {
    /// From 1 on.
    pub id: u32,
    /// Units of time in a second.
    pub timescale: u32,
    /// How it is coded.
    pub coding: Coding,
}

/// A sample of a fragment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// In the track's units.
    pub duration: u32,
    /// From decoding to presentation, in the track's units.
    pub composition: i32,
    /// A decoder can begin here.
    pub sync: bool,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A track's part of a fragment.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Its id.
    pub track: u32,
    /// Decoding time of the first sample, in the track's units.
    pub start: u64,
    /// In the order of decoding.
    pub samples: &'a [Sample],
}

/// Writes a box: its size is known when it is filled.
fn put(out: &mut Vec<u8>, name: &[u8; 4], fill: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(name);
    fill(out);
    let size = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&size.to_be_bytes());
}

/// The same with a version and flags.
fn put_full(out: &mut Vec<u8>, name: &[u8; 4], version_flags: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    put(out, name, |out| {
        put_u32(out, version_flags);
        fill(out);
    });
}

fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_zeroes(out: &mut Vec<u8>, count: usize) {
    out.resize(out.len() + count, 0);
}

/// No rotation, no scale.
fn put_matrix(out: &mut Vec<u8>) {
    for value in [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000] {
        put_u32(out, value);
    }
}

/// Writes the header of tracks: file type and movie (§4.3, §8.2).
pub fn put_header(tracks: &[Track], out: &mut Vec<u8>) {
    put_movie(tracks, None, out);
}

/// The same for a file whose length will be known when it is whole; returns where that is to be written, as 64 bits of ms.
pub fn put_file_header(tracks: &[Track], out: &mut Vec<u8>) -> usize {
    let mut length_at = 0;
    put_movie(tracks, Some(&mut length_at), out);
    length_at
}

fn put_movie(tracks: &[Track], length_at: Option<&mut usize>, out: &mut Vec<u8>) {
    put(out, b"ftyp", |out| {
        out.extend_from_slice(b"iso6");
        put_u32(out, 1);
        out.extend_from_slice(b"iso6cmfcmp41");
    });
    put(out, b"moov", |out| {
        put_full(out, b"mvhd", 0, |out| {
            put_zeroes(out, 8);
            put_u32(out, 1000);
            put_u32(out, 0);
            put_u32(out, 0x1_0000);
            put_u16(out, 0x100);
            put_zeroes(out, 10);
            put_matrix(out);
            put_zeroes(out, 24);
            put_u32(out, tracks.iter().map(|track| track.id).max().unwrap_or(0) + 1);
        });
        tracks.iter().for_each(|track| put_track(track, out));
        put(out, b"mvex", |out| {
            if let Some(at) = length_at {
                put_full(out, b"mehd", 0x0100_0000, |out| {
                    *at = out.len();
                    put_zeroes(out, 8);
                });
            }
            for track in tracks {
                put_full(out, b"trex", 0, |out| {
                    put_u32(out, track.id);
                    put_u32(out, 1);
                    put_zeroes(out, 12);
                });
            }
        });
    });
}

fn put_track(track: &Track, out: &mut Vec<u8>) {
    let (size, handler) = match track.coding {
        Coding::Video { size, .. } => (size, b"vide"),
        Coding::Audio { .. } => ((0, 0), b"soun"),
    };
    let is_sound = handler == b"soun";
    put(out, b"trak", |out| {
        // Enabled, in the movie.
        put_full(out, b"tkhd", 3, |out| {
            put_zeroes(out, 8);
            put_u32(out, track.id);
            put_zeroes(out, 16);
            put_u16(out, 0);
            put_u16(out, 0);
            put_u16(out, if is_sound { 0x100 } else { 0 });
            put_u16(out, 0);
            put_matrix(out);
            put_u32(out, u32::from(size.0) << 16);
            put_u32(out, u32::from(size.1) << 16);
        });
        put(out, b"mdia", |out| {
            put_full(out, b"mdhd", 0, |out| {
                put_zeroes(out, 8);
                put_u32(out, track.timescale);
                put_u32(out, 0);
                // "und".
                put_u16(out, 0x55C4);
                put_u16(out, 0);
            });
            put_full(out, b"hdlr", 0, |out| {
                put_u32(out, 0);
                out.extend_from_slice(handler);
                put_zeroes(out, 13);
            });
            put(out, b"minf", |out| {
                if is_sound {
                    put_full(out, b"smhd", 0, |out| put_zeroes(out, 4));
                } else {
                    put_full(out, b"vmhd", 1, |out| put_zeroes(out, 8));
                }
                put(out, b"dinf", |out| {
                    put_full(out, b"dref", 0, |out| {
                        put_u32(out, 1);
                        // In this file.
                        put_full(out, b"url ", 1, |_| {});
                    });
                });
                put(out, b"stbl", |out| {
                    put_full(out, b"stsd", 0, |out| {
                        put_u32(out, 1);
                        put_entry(&track.coding, out);
                    });
                    put_full(out, b"stts", 0, |out| put_u32(out, 0));
                    put_full(out, b"stsc", 0, |out| put_u32(out, 0));
                    put_full(out, b"stsz", 0, |out| put_zeroes(out, 8));
                    put_full(out, b"stco", 0, |out| put_u32(out, 0));
                });
            });
        });
    });
}

/// A sample entry (§12.1.3, §12.2.3).
fn put_entry(coding: &Coding, out: &mut Vec<u8>) {
    match coding {
        Coding::Video { entry, record, size } => put(out, entry, |out| {
            put_zeroes(out, 6);
            put_u16(out, 1);
            put_zeroes(out, 16);
            put_u16(out, size.0);
            put_u16(out, size.1);
            // 72 dpi.
            put_u32(out, 0x48_0000);
            put_u32(out, 0x48_0000);
            put_u32(out, 0);
            put_u16(out, 1);
            put_zeroes(out, 32);
            put_u16(out, 0x18);
            put_u16(out, 0xFFFF);
            put(out, &record.0, |out| out.extend_from_slice(&record.1));
        }),
        Coding::Audio { entry, record, channels, rate } => put(out, entry, |out| {
            put_zeroes(out, 6);
            put_u16(out, 1);
            put_zeroes(out, 8);
            put_u16(out, *channels);
            put_u16(out, 16);
            put_u32(out, 0);
            put_u32(out, if *rate > 0xFFFF { 0 } else { rate << 16 });
            put(out, &record.0, |out| out.extend_from_slice(&record.1));
        }),
    }
}

/// What stands in an `esds` box (ISO 14496-1 §7.2.6.5): an elementary stream of an object type, with what its decoder
/// begins with.
pub fn elementary_stream(object_type: u8, setup: &[u8]) -> Vec<u8> {
    let descriptor = |tag: u8, body: &[u8]| {
        let length = body.len();
        let part = |shift: usize| u8::try_from(length >> shift & 0x7F).unwrap_or(0);
        let mut out = vec![tag, part(21) | 0x80, part(14) | 0x80, part(7) | 0x80, part(0)];
        out.extend_from_slice(body);
        out
    };
    // Audio, and unknown rates.
    let mut decoder = vec![object_type, 0x15];
    put_zeroes(&mut decoder, 11);
    if !setup.is_empty() {
        decoder.extend_from_slice(&descriptor(5, setup));
    }
    let mut stream = vec![0, 0, 0];
    stream.extend_from_slice(&descriptor(4, &decoder));
    stream.extend_from_slice(&descriptor(6, &[2]));
    let mut out = vec![0; 4];
    out.extend_from_slice(&descriptor(3, &stream));
    out
}

/// Samples that depend on no other, and those that do (§8.8.3.1).
const SYNC_FLAGS: u32 = 0x0200_0000;
const OTHER_FLAGS: u32 = 0x0101_0000;

/// Writes a fragment: what its samples are, and their bytes (§8.8.4 to §8.8.12).
pub fn put_fragment(sequence: u32, runs: &[Run<'_>], out: &mut Vec<u8>) {
    let start = out.len();
    let samples = runs.iter().flat_map(|run| run.samples);
    let (count, bytes) = samples.fold((0, 0), |(count, bytes), sample| (count + 1, bytes + sample.bytes.len()));
    out.reserve(bytes + overhead(runs.len(), count));
    let mut offsets = Vec::new();
    put(out, b"moof", |out| {
        put_full(out, b"mfhd", 0, |out| put_u32(out, sequence));
        for run in runs {
            put(out, b"traf", |out| {
                // Offsets count from this fragment.
                put_full(out, b"tfhd", 0x2_0000, |out| put_u32(out, run.track));
                put_full(out, b"tfdt", 0x0100_0000, |out| out.extend_from_slice(&run.start.to_be_bytes()));
                // Offset; duration, size, flags and composition of each; signed compositions.
                put_full(out, b"trun", 0x0100_0F01, |out| {
                    put_u32(out, u32::try_from(run.samples.len()).unwrap_or(u32::MAX));
                    offsets.push(out.len());
                    put_u32(out, 0);
                    for sample in run.samples {
                        put_u32(out, sample.duration);
                        put_u32(out, u32::try_from(sample.bytes.len()).unwrap_or(u32::MAX));
                        put_u32(out, if sample.sync { SYNC_FLAGS } else { OTHER_FLAGS });
                        put_u32(out, sample.composition.cast_unsigned());
                    }
                });
            });
        }
    });
    put(out, b"mdat", |out| {
        for (run, at) in runs.iter().zip(offsets) {
            let offset = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
            out[at..at + 4].copy_from_slice(&offset.to_be_bytes());
            run.samples.iter().for_each(|sample| out.extend_from_slice(&sample.bytes));
        }
    });
}

/// Bytes of a fragment beside those of its samples, at most.
fn overhead(runs: usize, samples: usize) -> usize {
    8 + 16 + 8 + runs * (8 + 16 + 20 + 20) + samples * 16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Boxes as `(name, content)`.
    fn boxes(mut bytes: &[u8]) -> Vec<(String, &[u8])> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let size = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
            found.push((String::from_utf8(bytes[4..8].to_vec()).unwrap(), &bytes[8..size]));
            bytes = &bytes[size..];
        }
        found
    }

    #[test]
    fn a_fragment_says_where_its_samples_are() {
        let sample = |text: &'static [u8], sync| Sample {
            duration: 3000,
            composition: -5,
            sync,
            bytes: Bytes::from_static(text),
        };
        let (video, audio) = ([sample(b"key", true), sample(b"inter", false)], [sample(b"sound", true)]);
        let runs = [Run { track: 1, start: 7, samples: &video }, Run { track: 2, start: 1 << 40, samples: &audio }];
        let mut out = Vec::new();
        put_fragment(9, &runs, &mut out);
        assert!(out.len() <= overhead(2, 3) + 13);
        let top = boxes(&out);
        assert_eq!(top.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["moof", "mdat"]);
        for (run, (_, traf)) in runs.iter().zip(boxes(top[0].1).into_iter().skip(1)) {
            let parts = boxes(traf);
            let trun = parts[2].1;
            let offset = u32::from_be_bytes(trun[8..12].try_into().unwrap()) as usize;
            let bytes: Vec<u8> = run.samples.iter().flat_map(|sample| sample.bytes.to_vec()).collect();
            assert_eq!(&out[offset..offset + bytes.len()], bytes);
            assert_eq!(parts[1].1[4..], run.start.to_be_bytes());
        }
    }
}
