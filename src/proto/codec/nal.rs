//! NAL units of AVC and HEVC: out of their configuration records and access units, in both of the forms that
//! encoders send: behind lengths (ISO 14496-15 §5.3.3, §8.3.3), or as Annex B byte streams (H.264 §B.1).

/// Most NAL units of one access unit: pictures have a few hundred slices at most.
pub const UNITS_MAX: usize = 4096;

/// Most bytes of a setup's parameter sets, which stand before every keyframe: real ones have a few hundred.
pub const PARAMETER_BYTES_MAX: usize = 16 << 10;

/// A codec of NAL units.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Coded {
    /// H.264.
    Avc,
    /// H.265.
    Hevc,
}

impl Coded {
    /// Of a FourCC, `None` for codecs without NAL units.
    pub fn of(fourcc: [u8; 4]) -> Option<Self> {
        match &fourcc {
            b"avc1" => Some(Self::Avc),
            b"hvc1" => Some(Self::Hevc),
            _ => None,
        }
    }

    /// Whether a NAL unit is a parameter set.
    pub fn is_parameter_set(self, nal: &[u8]) -> bool {
        match (self, nal.first()) {
            (Self::Avc, Some(first)) => matches!(first & 0x1F, 7 | 8),
            (Self::Hevc, Some(first)) => matches!(first >> 1 & 0x3F, 32..=34),
            (_, None) => false,
        }
    }

    /// Whether a NAL unit is an access unit delimiter.
    pub fn is_delimiter(self, nal: &[u8]) -> bool {
        match (self, nal.first()) {
            (Self::Avc, Some(first)) => first & 0x1F == 9,
            (Self::Hevc, Some(first)) => first >> 1 & 0x3F == 35,
            (_, None) => false,
        }
    }

    /// An access unit delimiter for any kind of picture (H.264 §7.3.2.4, H.265 §7.3.2.5).
    pub fn delimiter(self) -> &'static [u8] {
        match self {
            Self::Avc => &[0x09, 0xF0],
            Self::Hevc => &[0x46, 0x01, 0x50],
        }
    }
}

/// What a sequence header says: the parameter sets, and how access units are written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setup {
    /// Which codec.
    pub coded: Coded,
    /// In the order of the header.
    pub parameter_sets: Vec<Vec<u8>>,
    /// Bytes of a length, 1 to 4; `None` where units are byte streams.
    length_bytes: Option<usize>,
}

impl Setup {
    /// Reads a sequence header's data, a record or a byte stream; `None` if it is neither, or has no parameter
    /// set, or too many bytes of them.
    pub fn read(coded: Coded, data: &[u8]) -> Option<Self> {
        let record = match coded {
            Coded::Avc => read_avc_record(data),
            Coded::Hevc => read_hevc_record(data),
        };
        let (length_bytes, sets) = match record {
            Some((length_bytes, sets)) => (Some(length_bytes), sets),
            None => (None, annexb(data).collect()),
        };
        let sets = sets.into_iter().filter(|nal| coded.is_parameter_set(nal));
        let parameter_sets: Vec<Vec<u8>> = sets.map(<[u8]>::to_vec).collect();
        let bytes = parameter_sets.iter().map(Vec::len).sum::<usize>();
        (!parameter_sets.is_empty() && bytes <= PARAMETER_BYTES_MAX).then_some(Self {
            coded,
            parameter_sets,
            length_bytes,
        })
    }

    /// The NAL units of an access unit, none of them empty. `None` if it is in neither form, or has too many.
    pub fn units<'a>(&self, unit: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        // Some encoders send a record, and then byte streams.
        let sized = self.length_bytes.and_then(|bytes| sized(unit, bytes));
        let starts = unit.starts_with(&[0, 0, 1]) || unit.starts_with(&[0, 0, 0, 1]);
        let stream = || annexb(unit).take(UNITS_MAX + 1).collect();
        sized.or_else(|| starts.then(stream)).filter(|units: &Vec<_>| units.len() <= UNITS_MAX)
    }
}

/// Lengths and NAL units up to the end; `None` if they do not fit.
fn sized(mut unit: &[u8], length_bytes: usize) -> Option<Vec<&[u8]>> {
    let mut nals = Vec::new();
    while !unit.is_empty() {
        let (length, rest) = unit.split_at_checked(length_bytes)?;
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let (nal, rest) = rest.split_at_checked(length)?;
        if nals.len() > UNITS_MAX {
            break;
        }
        if !nal.is_empty() {
            nals.push(nal);
        }
        unit = rest;
    }
    Some(nals)
}

/// The NAL units of a byte stream, none of them empty.
pub fn annexb(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let start = |data: &[u8]| data.windows(3).position(|bytes| bytes == [0, 0, 1]);
    let mut rest = start(data).map(|at| &data[at + 3..]);
    std::iter::from_fn(move || {
        loop {
            let found = rest?;
            let end = start(found);
            rest = end.map(|at| &found[at + 3..]);
            let nal = &found[..end.unwrap_or(found.len())];
            // A fourth byte of the next start code is not of this one.
            if let Some(last) = nal.iter().rposition(|byte| *byte != 0) {
                return Some(&nal[..=last]);
            }
        }
    })
}

type Record<'a> = (usize, Vec<&'a [u8]>);

fn read_avc_record(record: &[u8]) -> Option<Record<'_>> {
    let (&[1, _, _, _, lengths, count], mut rest) = record.split_first_chunk()? else { return None };
    let mut sets = Vec::new();
    for _ in 0..count & 0x1F {
        sets.push(take_sized(&mut rest)?);
    }
    let (&count, mut rest) = rest.split_first()?;
    for _ in 0..count {
        sets.push(take_sized(&mut rest)?);
    }
    Some((usize::from(lengths & 3) + 1, sets))
}

fn read_hevc_record(record: &[u8]) -> Option<Record<'_>> {
    const LENGTHS_AT: usize = 21;
    let (&[lengths, arrays], mut rest) = record.get(LENGTHS_AT..)?.split_first_chunk()?;
    if record[0] != 1 {
        return None;
    }
    let mut sets = Vec::new();
    for _ in 0..arrays {
        let (&[_, high, low], after) = rest.split_first_chunk()?;
        rest = after;
        for _ in 0..u16::from_be_bytes([high, low]) {
            sets.push(take_sized(&mut rest)?);
        }
    }
    Some((usize::from(lengths & 3) + 1, sets))
}

/// A NAL unit behind its 16-bit length.
fn take_sized<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = data.split_first_chunk()?;
    let (nal, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    *data = rest;
    Some(nal)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: &[u8] = &[0x67, 1, 2];
    const PPS: &[u8] = &[0x68, 3];

    fn record() -> Vec<u8> {
        [&[1, 0x64, 0, 0x1E, 0xFF, 0xE1, 0, 3][..], SPS, &[1, 0, 2], PPS].concat()
    }

    #[test]
    fn setups_in_both_forms() {
        let stream = [&[0, 0, 0, 1][..], SPS, &[0, 0, 1], PPS].concat();
        for (data, length_bytes) in [(record(), Some(4)), (stream, None)] {
            let setup = Setup::read(Coded::Avc, &data).unwrap();
            assert_eq!((setup.parameter_sets, setup.length_bytes), (vec![SPS.to_vec(), PPS.to_vec()], length_bytes));
        }
        for nothing in [&[][..], &[1], &record()[..9], &[1, 0x64, 0, 0x1E, 0xFF, 0xE0, 0]] {
            assert_eq!(Setup::read(Coded::Avc, nothing), None, "{nothing:?}");
        }
    }

    /// Byte streams behind a record, and empty NAL units, are what some encoders send.
    #[test]
    fn access_units_in_both_forms() {
        let setup = Setup::read(Coded::Avc, &record()).unwrap();
        let nals = [&[0x65, 9, 9][..], &[0x06, 5]];
        assert_eq!(setup.units(&[0, 0, 0, 3, 0x65, 9, 9, 0, 0, 0, 0, 0, 0, 0, 2, 6, 5]).unwrap(), nals);
        assert_eq!(setup.units(&[0, 0, 0, 1, 0x65, 9, 9, 0, 0, 1, 6, 5]).unwrap(), nals);
        assert_eq!(setup.units(&[0, 0, 0, 9, 0x65]), None);
        assert_eq!(setup.units(&[]).unwrap(), Vec::<&[u8]>::new());
    }

    proptest::proptest! {
        /// Nothing panics, and no NAL unit is empty.
        #[test]
        fn any_bytes(data in proptest::collection::vec(0..4_u8, 0..60), unit in proptest::collection::vec(0..4_u8, 0..60)) {
            for coded in [Coded::Avc, Coded::Hevc] {
                if let Some(setup) = Setup::read(coded, &data) {
                    proptest::prop_assert!(setup.parameter_sets.iter().all(|nal| !nal.is_empty()));
                }
            }
            let setup = Setup::read(Coded::Avc, &record()).unwrap();
            if let Some(nals) = setup.units(&unit) {
                proptest::prop_assert!(nals.iter().all(|nal| !nal.is_empty()));
            }
        }
    }
}
