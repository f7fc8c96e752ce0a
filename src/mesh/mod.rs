//! Which shard a stream is at home on, and how tags and calls cross from shard to shard.

pub mod relay;
pub mod ring;
pub mod seats;

/// The home shard of a stream: the shard that its publisher is served on. Only this function knows
/// the rule; there is no directory.
pub fn home_of(key: &str, shards: usize) -> usize {
    usize::try_from(hash_of(key) >> 33).unwrap_or(0) % shards.max(1)
}

fn hash_of(key: &str) -> u64 {
    // FNV-1a: the same in every process, so that the home of a stream can be told from its name.
    let hash = key
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    // Names that differ in their last digit would share their high bits: mix (splitmix64's end).
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_spread_evenly() {
        for shards in [1, 2, 3, 8, 64] {
            let mut streams = vec![0; shards];
            (0..shards * 1000).for_each(|n| streams[home_of(&format!("__defaultVhost__/live/stream{n}"), shards)] += 1);
            assert!(streams.iter().all(|count| (850..1150).contains(count)), "{streams:?}");
        }
    }
}
