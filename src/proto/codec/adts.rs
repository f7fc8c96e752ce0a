//! ADTS, AAC's frames in a stream (ISO 14496-3 §1.A.3): the header of each, out of an AudioSpecificConfig.

/// Bytes of a header without checksum.
pub const HEADER_BYTES: usize = 7;
/// Longest frame, its header included: 13 bits.
pub const FRAME_BYTES_MAX: usize = 0x1FFF;

/// What all frames' headers say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Adts {
    profile: u8,
    rate: u8,
    channels: u8,
}

impl Adts {
    /// Reads an AudioSpecificConfig (§1.6.2.1); `None` for what ADTS cannot say: object types over 4, but for
    /// HE-AAC's, which stand for the LC below them; rates and channels without a number.
    pub fn read(config: &[u8]) -> Option<Self> {
        let &[first, second] = config.first_chunk()?;
        let word = u16::from_be_bytes([first, second]);
        let bits = |shift: u16, mask: u16| u8::try_from(word >> shift & mask).unwrap_or(0);
        let (object, rate, channels) = (bits(11, 0x1F), bits(7, 0x0F), bits(3, 0x0F));
        let object = match object {
            5 | 29 => 2,
            object @ 1..=4 => object,
            _ => return None,
        };
        (rate < 13 && (1..=7).contains(&channels)).then_some(Self { profile: object - 1, rate, channels })
    }

    /// The header of a frame of so many bytes; `None` if it is too long, or empty.
    pub fn header(self, bytes: usize) -> Option<[u8; HEADER_BYTES]> {
        let bytes = Some(bytes + HEADER_BYTES).filter(|total| bytes > 0 && *total <= FRAME_BYTES_MAX)?;
        let part = |shift: usize, mask: usize| u8::try_from(bytes >> shift & mask).unwrap_or(0);
        Some([
            0xFF,
            // MPEG-4, no checksum.
            0xF1,
            self.profile << 6 | self.rate << 2 | self.channels >> 2,
            self.channels << 6 | part(11, 3),
            part(3, 0xFF),
            // Fullness 0x7FF: variable rate.
            part(0, 7) << 5 | 0x1F,
            0xFC,
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_become_headers() {
        let lc = Adts::read(&[0x12, 0x10]).unwrap();
        assert_eq!(lc, Adts { profile: 1, rate: 4, channels: 2 });
        assert_eq!(lc.header(100), Some([0xFF, 0xF1, 0x50, 0x80, 0x0D, 0x7F, 0xFC]));
        assert_eq!((lc.header(0), lc.header(FRAME_BYTES_MAX - 6)), (None, None));
        assert_eq!(Adts::read(&[0x2B, 0x11, 0x88]).unwrap().profile, 1, "HE-AAC");
        for nothing in [&[][..], &[0x12], &[0xF9, 0x50], &[0x17, 0x90], &[0x12, 0x00]] {
            assert_eq!(Adts::read(nothing), None, "{nothing:?}");
        }
    }
}
