//! What an audio tag says of the sound: rate, channels, profile.

/// The sound as a tag has it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sound {
    /// Hz.
    pub sample_rate: u32,
    /// 0 where the header leaves it to the stream.
    pub channels: u8,
    /// `LC` for example; empty where there are none.
    pub profile: &'static str,
}

/// Reads an audio tag's body: AAC's AudioSpecificConfig (ISO 14496-3 §1.6.2.1) and Opus's header (RFC 7845 §5.1) of
/// a sequence header, or the flags of FLV's other codecs (FLV 10.1 §E.4.2.1). `None` if it says nothing.
pub fn read_sound(body: &[u8]) -> Option<Sound> {
    let (&first, rest) = body.split_first()?;
    match first >> 4 {
        10 => rest.strip_prefix(&[0]).and_then(read_aac),
        9 => match rest.split_first_chunk::<4>()? {
            (b"mp4a", config) if first & 0x0F == 0 => read_aac(config),
            (b"Opus", head) if first & 0x0F == 0 => {
                Some(Sound { sample_rate: 48_000, channels: *head.get(9).unwrap_or(&0), profile: "" })
            }
            _ => None,
        },
        // Numbered Opus has no rate; the others' flags count.
        13 => None,
        _ => {
            const RATES: [u32; 4] = [5512, 11_025, 22_050, 44_100];
            let sample_rate = RATES[usize::from(first >> 2 & 3)];
            Some(Sound { sample_rate, channels: 1 + (first & 1), profile: "" })
        }
    }
}

fn read_aac(config: &[u8]) -> Option<Sound> {
    const RATES: [u32; 13] =
        [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350];
    let word: u64 = config.iter().chain([0; 8].iter()).take(8).fold(0, |word, byte| word << 8 | u64::from(*byte));
    (config.len() >= 2).then_some(())?;
    let mut left = 64;
    let mut bits = |count: u32| {
        left -= count;
        (word >> left) & ((1 << count) - 1)
    };
    let object = match bits(5) {
        31 => 32 + bits(6),
        object => object,
    };
    let sample_rate = match bits(4) {
        15 => u32::try_from(bits(24)).ok().filter(|rate| (1..=192_000).contains(rate))?,
        index => *RATES.get(usize::try_from(index).ok()?)?,
    };
    let channels = match u8::try_from(bits(4)).ok()? {
        7 => 8,
        channels @ 0..=6 => channels,
        _ => return None,
    };
    let profile = match object {
        1 => "Main",
        2 => "LC",
        3 => "SSR",
        4 => "LTP",
        5 => "HE",
        29 => "HEv2",
        42 => "xHE",
        _ => "",
    };
    Some(Sound { sample_rate, channels, profile })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(body: &[u8]) -> Option<(u32, u8, &'static str)> {
        read_sound(body).map(|sound| (sound.sample_rate, sound.channels, sound.profile))
    }

    #[test]
    fn sounds_are_read() {
        assert_eq!(seen(&[0xAF, 0, 0x12, 0x10]), Some((44_100, 2, "LC")));
        assert_eq!(seen(&[0xAF, 0, 0x2B, 0x11, 0x88]), Some((24_000, 2, "HE")));
        assert_eq!(seen(&[0x90, b'm', b'p', b'4', b'a', 0x11, 0x88]), Some((48_000, 1, "LC")));
        assert_eq!(seen(b"\x90OpusOpusHead\x01\x02"), Some((48_000, 2, "")));
        assert_eq!(seen(&[0x2F]), Some((44_100, 2, "")), "MP3");
        for nothing in [&[][..], &[0xAF], &[0xAF, 1, 0x12, 0x10], &[0xAF, 0, 0x12], &[0xAF, 0, 0x17, 0xFF], &[0x91, 1]]
        {
            assert_eq!(seen(nothing), None, "{nothing:?}");
        }
    }

    proptest::proptest! {
        /// No body panics.
        #[test]
        fn any_bytes(body in proptest::collection::vec(proptest::num::u8::ANY, 0..16)) {
            read_sound(&body);
            read_sound(&[&[0xAF, 0], &body[..]].concat());
        }
    }
}
