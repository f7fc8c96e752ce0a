//! Slows those who guess passwords and tokens.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Addresses that are remembered one by one; all others are taken together.
const ADDRESSES_MAX: usize = 1024;
/// How long a failure counts.
const MEMORY: Duration = Duration::from_secs(60);
/// From one look at a credential to the next after the first failure; twice as long after each more.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Longest wait for a turn.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Stands for all who are not remembered one by one.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Failures of the last minute, by address.
#[derive(Debug, Default)]
pub(super) struct Logins(HashMap<IpAddr, Tries>);

#[derive(Debug)]
struct Tries {
    failures: u32,
    last: Instant,
    /// When the next credential is looked at.
    free: Instant,
}

impl Logins {
    /// How long a credential waits before it is looked at, right or wrong; `None` if too many wait there already.
    pub(super) fn turn(&mut self, address: IpAddr, now: Instant) -> Option<Duration> {
        let key = self.key(address);
        let Some(tries) = self.0.get_mut(&key).filter(|tries| now < tries.last + MEMORY) else {
            return Some(Duration::ZERO);
        };
        let wait = tries.free.saturating_duration_since(now);
        if wait > WAIT_MAX {
            return None;
        }
        tries.free = tries.free.max(now) + pause(tries.failures);
        Some(wait)
    }

    /// A credential was wrong; tells how many were in the last minute.
    pub(super) fn failed(&mut self, address: IpAddr, now: Instant) -> u32 {
        if self.0.len() >= ADDRESSES_MAX {
            self.0.retain(|_, tries| now < tries.last + MEMORY);
        }
        let key = self.key(address);
        let tries = self.0.entry(key).or_insert(Tries { failures: 0, last: now, free: now });
        if now >= tries.last + MEMORY {
            tries.failures = 0;
        }
        tries.failures = tries.failures.saturating_add(1);
        tries.last = now;
        tries.free = tries.free.max(now + pause(tries.failures));
        tries.failures
    }

    /// Whom a failure counts for.
    fn key(&self, address: IpAddr) -> IpAddr {
        let key = household(address);
        if self.0.len() < ADDRESSES_MAX || self.0.contains_key(&key) { key } else { OTHERS }
    }
}

/// What stands for an address where addresses are counted: of IPv6 a whole /64 is one household's.
pub(super) fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

fn pause(failures: u32) -> Duration {
    PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_take_longer_and_longer() {
        let (mut logins, start) = (Logins::default(), Instant::now());
        let [guesser, other]: [IpAddr; 2] = ["2001:db8::1", "192.0.2.1"].map(|address| address.parse().unwrap());
        let (mut now, mut guesses) = (start, 0);
        while now < start + Duration::from_secs(60) {
            now += logins.turn(guesser, now).unwrap();
            guesses = logins.failed(guesser, now);
        }
        assert!((20..50).contains(&guesses), "{guesses} in a minute");
        assert!(logins.turn("2001:db8::2".parse().unwrap(), now) > Some(Duration::ZERO), "the same household");
        assert_eq!(logins.turn(other, now), Some(Duration::ZERO));
        assert_eq!(logins.turn(guesser, now + MEMORY), Some(Duration::ZERO), "it is forgotten");
    }

    #[test]
    fn many_at_once_are_turned_away() {
        let (mut logins, now) = (Logins::default(), Instant::now());
        let address = "192.0.2.1".parse().unwrap();
        for _ in 0..10 {
            logins.failed(address, now);
        }
        let taken = (0..100).filter(|_| logins.turn(address, now).is_some()).count();
        assert!((2..10).contains(&taken), "{taken}");
    }

    #[test]
    fn memory_is_bounded() {
        let (mut logins, now) = (Logins::default(), Instant::now());
        for number in 0..100_000 {
            logins.failed(Ipv4Addr::from_bits(number + 1).into(), now);
        }
        assert!(logins.0.len() <= ADDRESSES_MAX + 1, "{}", logins.0.len());
        let fresh = "203.0.113.9".parse().unwrap();
        assert!(logins.turn(fresh, now) != Some(Duration::ZERO), "those who are not remembered are slowed together");
        logins.failed(fresh, now + MEMORY);
        assert_eq!(logins.0.len(), 1, "what is over makes room");
    }
}
