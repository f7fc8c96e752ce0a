//! The RTMP handshake, both sides: simple (RTMP 1.0 §5.2) and complex (with digests, as Flash Media
//! Server and Flash Player do it; either schema).
//!
//! A complex C1 or S1 carries a 32-byte HMAC-SHA256 digest at an offset that four of its bytes name.
//! Schema 0 has the 764-byte key block first and the digest block second, schema 1 the reverse.

use fastrand::Rng;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of C1, S1, C2 and S2.
pub const BLOCK_BYTES: usize = 1536;
/// The only version spoken: 3, plain RTMP.
pub const VERSION: u8 = 3;

const DIGEST_BYTES: usize = 32;
const SERVER_VERSION: [u8; 4] = [0x04, 0x05, 0x00, 0x01];
const CLIENT_VERSION: [u8; 4] = [0x80, 0x00, 0x07, 0x02];

/// Why a handshake fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// C0 or S0 is not 3; 6 and 8 would be RTMPE.
    #[error("version {0}, only 3 (plain RTMP) is spoken")]
    Version(u8),
}

/// Which handshake the peers agreed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// Without digests.
    Simple,
    /// With digests; the schema is 0 (key, digest) or 1 (digest, key).
    Complex {
        /// 0 or 1.
        schema: u8,
    },
}

/// What a finished handshake found out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Simple or complex.
    pub scheme: Scheme,
    /// Whether the peer's last block answers ours: an echo, or the digest that the complex form
    /// asks for. A wrong answer is reported and not fatal, since SRS and nginx-rtmp take such
    /// encoders.
    pub echo_matches: bool,
}

/// The server's side.
#[derive(Debug)]
pub struct ServerHandshake {
    rng: Rng,
    received: Vec<u8>,
    s1: Option<(Scheme, Box<[u8; BLOCK_BYTES]>)>,
}

impl ServerHandshake {
    /// Starts with `seed` for the random bytes.
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), received: Vec::new(), s1: None }
    }

    /// Takes from the front of `input` and writes S0, S1 and S2 to `out` when C1 is there; returns
    /// the outcome once C2 is there, and leaves what follows it in `input`.
    ///
    /// # Errors
    /// [`HandshakeError::Version`] as soon as C0 is wrong.
    pub fn receive(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<Option<Outcome>, HandshakeError> {
        if self.s1.is_none() {
            if !gather(&mut self.received, input, 1 + BLOCK_BYTES) {
                return check_version(&self.received).map(|()| None);
            }
            check_version(&self.received)?;
            self.answer(out);
        }
        let Some((scheme, s1)) = &self.s1 else { return Ok(None) };
        if !gather(&mut self.received, input, BLOCK_BYTES) {
            return Ok(None);
        }
        let echo_matches = match scheme {
            Scheme::Simple => self.received[8..] == s1[8..],
            Scheme::Complex { schema } => {
                let digest = read_digest(&s1[..], *schema);
                signs(&self.received, &hmac(&PLAYER_KEY, &digest)) || self.received[8..] == s1[8..]
            }
        };
        Ok(Some(Outcome { scheme: *scheme, echo_matches }))
    }

    fn answer(&mut self, out: &mut Vec<u8>) {
        let c1 = &self.received[1..];
        let mut s1 = random_block(&mut self.rng, SERVER_VERSION);
        let mut s2 = [0; BLOCK_BYTES];
        let scheme = match find_digest(c1, &PLAYER_KEY[..30]) {
            Some((schema, digest)) => {
                place_digest(&mut s1, schema, &SERVER_KEY[..36]);
                s2 = random_block(&mut self.rng, [0; 4]);
                sign(&mut s2, &hmac(&SERVER_KEY, &digest));
                Scheme::Complex { schema }
            }
            None => {
                s1[4..8].fill(0);
                s2.copy_from_slice(c1);
                Scheme::Simple
            }
        };
        out.push(VERSION);
        out.extend_from_slice(&s1);
        out.extend_from_slice(&s2);
        self.s1 = Some((scheme, Box::new(s1)));
        self.received.clear();
    }
}

/// The client's side.
#[derive(Debug)]
pub struct ClientHandshake {
    rng: Rng,
    received: Vec<u8>,
    c1: Box<[u8; BLOCK_BYTES]>,
    scheme: Scheme,
}

impl ClientHandshake {
    /// Starts with `seed` for the random bytes and writes C0 and C1 to `out`.
    pub fn start(scheme: Scheme, seed: u64, out: &mut Vec<u8>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut c1 = Box::new(random_block(&mut rng, CLIENT_VERSION));
        match scheme {
            Scheme::Simple => c1[4..8].fill(0),
            Scheme::Complex { schema } => place_digest(&mut c1, schema, &PLAYER_KEY[..30]),
        }
        out.push(VERSION);
        out.extend_from_slice(&c1[..]);
        Self { rng, received: Vec::new(), c1, scheme }
    }

    /// Takes from the front of `input`; once S0, S1 and S2 are there, writes C2 and returns the
    /// outcome. A server that answers a complex C1 simply is followed.
    ///
    /// # Errors
    /// [`HandshakeError::Version`] if S0 is wrong.
    pub fn receive(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<Option<Outcome>, HandshakeError> {
        let whole = gather(&mut self.received, input, 1 + 2 * BLOCK_BYTES);
        check_version(&self.received)?;
        if !whole {
            return Ok(None);
        }
        let (s1, s2) = self.received[1..].split_at(BLOCK_BYTES);
        let complex = match self.scheme {
            Scheme::Simple => None,
            Scheme::Complex { schema } => find_digest(s1, &SERVER_KEY[..36])
                .map(|(server_schema, digest)| (server_schema, digest, read_digest(&self.c1[..], schema))),
        };
        let Some((schema, s1_digest, c1_digest)) = complex else {
            out.extend_from_slice(s1);
            return Ok(Some(Outcome { scheme: Scheme::Simple, echo_matches: s2[8..] == self.c1[8..] }));
        };
        let mut c2 = random_block(&mut self.rng, [0; 4]);
        sign(&mut c2, &hmac(&PLAYER_KEY, &s1_digest));
        out.extend_from_slice(&c2);
        let echo_matches = signs(s2, &hmac(&SERVER_KEY, &c1_digest));
        Ok(Some(Outcome { scheme: Scheme::Complex { schema }, echo_matches }))
    }
}

/// Moves bytes from `input` until `buffer` holds `len`; tells whether it does.
fn gather(buffer: &mut Vec<u8>, input: &mut &[u8], len: usize) -> bool {
    let (head, rest) = input.split_at(input.len().min(len - buffer.len()));
    buffer.extend_from_slice(head);
    *input = rest;
    buffer.len() == len
}

fn check_version(received: &[u8]) -> Result<(), HandshakeError> {
    match received.first() {
        Some(&version) if version != VERSION => Err(HandshakeError::Version(version)),
        _ => Ok(()),
    }
}

fn random_block(rng: &mut Rng, version: [u8; 4]) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    rng.fill(&mut block);
    block[..4].fill(0);
    block[4..8].copy_from_slice(&version);
    block
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; DIGEST_BYTES] {
    hmac_parts(key, &[message])
}

fn hmac_parts(key: &[u8], parts: &[&[u8]]) -> [u8; DIGEST_BYTES] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Where the digest of a block stands under `schema`.
fn digest_offset(block: &[u8], schema: u8) -> usize {
    let base = if schema == 0 { 8 + 764 } else { 8 };
    let sum: usize = block[base..base + 4].iter().map(|byte| usize::from(*byte)).sum();
    base + 4 + sum % (764 - 4 - DIGEST_BYTES)
}

fn read_digest(block: &[u8], schema: u8) -> [u8; DIGEST_BYTES] {
    let at = digest_offset(block, schema);
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(&block[at..at + DIGEST_BYTES]);
    digest
}

/// The digest that the bytes around its place give.
fn compute_digest(block: &[u8], schema: u8, key: &[u8]) -> [u8; DIGEST_BYTES] {
    let at = digest_offset(block, schema);
    hmac_parts(key, &[&block[..at], &block[at + DIGEST_BYTES..]])
}

fn find_digest(block: &[u8], key: &[u8]) -> Option<(u8, [u8; DIGEST_BYTES])> {
    let valid = |schema: &u8| read_digest(block, *schema) == compute_digest(block, *schema, key);
    [0, 1].into_iter().find(valid).map(|schema| (schema, read_digest(block, schema)))
}

fn place_digest(block: &mut [u8; BLOCK_BYTES], schema: u8, key: &[u8]) {
    let digest = compute_digest(block, schema, key);
    let at = digest_offset(block, schema);
    block[at..at + DIGEST_BYTES].copy_from_slice(&digest);
}

/// Signs C2 or S2: its last 32 bytes are the digest of the others.
fn sign(block: &mut [u8; BLOCK_BYTES], key: &[u8]) {
    let (body, digest) = block.split_at_mut(BLOCK_BYTES - DIGEST_BYTES);
    digest.copy_from_slice(&hmac(key, body));
}

fn signs(block: &[u8], key: &[u8]) -> bool {
    let (body, digest) = block.split_at(BLOCK_BYTES - DIGEST_BYTES);
    digest == hmac(key, body)
}

/// "Genuine Adobe Flash Media Server 001" and the 32 bytes that both keys share.
const SERVER_KEY: [u8; 68] = join(b"Genuine Adobe Flash Media Server 001");
/// "Genuine Adobe Flash Player 001" and the same.
const PLAYER_KEY: [u8; 62] = join(b"Genuine Adobe Flash Player 001");

const SHARED_KEY: [u8; 32] = [
    0xF0, 0xEE, 0xC2, 0x4A, 0x80, 0x68, 0xBE, 0xE8, 0x2E, 0x00, 0xD0, 0xD1, 0x02, 0x9E, 0x7E, 0x57, 0x6E, 0xEC, 0x5D,
    0x2D, 0x29, 0x80, 0x6F, 0xAB, 0x93, 0xB8, 0xE6, 0x36, 0xCF, 0xEB, 0x31, 0xAE,
];

const fn join<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut key = [0; N];
    let mut at = 0;
    while at < N {
        key[at] = if at < text.len() { text[at] } else { SHARED_KEY[at - text.len()] };
        at += 1;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs both sides against each other, `step` bytes at a time; returns both outcomes.
    fn run(scheme: Scheme, step: usize) -> (Outcome, Outcome) {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut client = ClientHandshake::start(scheme, 7, &mut to_server);
        let mut server = ServerHandshake::new(8);
        let (mut server_done, mut client_done) = (None, None);
        for _ in 0..20_000 {
            let sent: Vec<u8> = to_server.drain(..step.min(to_server.len())).collect();
            server_done = server_done.or(server.receive(&mut &sent[..], &mut to_client).unwrap());
            let sent: Vec<u8> = to_client.drain(..step.min(to_client.len())).collect();
            client_done = client_done.or(client.receive(&mut &sent[..], &mut to_server).unwrap());
            if let (Some(server_done), Some(client_done)) = (server_done, client_done) {
                return (server_done, client_done);
            }
        }
        panic!("no end with {scheme:?} at {step} bytes a step");
    }

    /// B1: C0 = 3, C1 of 1536 bytes, S2 echoes C1, C2 is checked against S1.
    #[test]
    fn b1_simple_handshake_at_every_step_size() {
        for step in [1, 2, 3, 1535, 1536, 1537, 5000] {
            let done = Outcome { scheme: Scheme::Simple, echo_matches: true };
            assert_eq!(run(Scheme::Simple, step), (done, done));
        }
        let mut server = ServerHandshake::new(1);
        let mut out = Vec::new();
        let c0c1: Vec<u8> = [3, 0, 0, 0, 0, 0, 0, 0, 0].into_iter().chain((0..1528).map(|n| (n % 251) as u8)).collect();
        assert_eq!(server.receive(&mut &c0c1[..], &mut out), Ok(None));
        assert_eq!((out.len(), &out[1 + BLOCK_BYTES..]), (3073, &c0c1[1..]), "S2 echoes C1");
        let outcome = server.receive(&mut &[9; BLOCK_BYTES][..], &mut out).unwrap().unwrap();
        assert!(!outcome.echo_matches, "a C2 that does not echo S1 is noticed");
    }

    /// B2: digests, both schemas, both sides; each side checks the other's.
    #[test]
    fn b2_complex_handshake_in_both_schemas() {
        for schema in [0, 1] {
            for step in [1, 700, 5000] {
                let done = Outcome { scheme: Scheme::Complex { schema }, echo_matches: true };
                assert_eq!(run(Scheme::Complex { schema }, step), (done, done));
            }
        }
    }

    #[test]
    fn a_wrong_version_is_refused_at_its_byte() {
        for version in [0, 6, 8, b'G', 0x16] {
            let mut server = ServerHandshake::new(1);
            let refused = server.receive(&mut &[version][..], &mut Vec::new());
            assert_eq!(refused, Err(HandshakeError::Version(version)));
        }
    }
}
