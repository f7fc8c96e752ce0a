//! What a load balancer puts before the handshake to name the real peer: SRS's `0xF3` header, and the
//! PROXY protocol, versions 1 and 2 (HAProxy). Read only on listeners that ask for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest version 1 line, its CR LF included (PROXY protocol §2.1).
const V1_BYTES_MAX: usize = 107;
/// Longest version 2 body that we skip; addresses of both families and their TLVs stay far below.
const V2_BYTES_MAX: usize = 2048;
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Why the bytes are no proxy header.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no proxy header (0xF3, PROXY v1 or v2) where the listener demands one")]
pub struct ProxyError;

/// A proxy header's meaning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProxyHeader {
    /// The real peer; `None` if the balancer speaks for itself (LOCAL, UNKNOWN).
    pub peer: Option<SocketAddr>,
    /// Bytes of the header.
    pub bytes: usize,
}

/// Reads a header from the front of `input`; `None` until it is whole.
///
/// # Errors
/// [`ProxyError`] as soon as the bytes cannot become a header.
pub fn read(input: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    match input.first() {
        None => Ok(None),
        Some(0xF3) => Ok(read_f3(input)),
        Some(b'P') => read_v1(input),
        Some(_) => read_v2(input),
    }
}

/// `0xF3`, a 16-bit size, and an IPv4 address in its first four bytes.
fn read_f3(input: &[u8]) -> Option<ProxyHeader> {
    let size = usize::from(u16::from_be_bytes(*input.get(1..)?.first_chunk()?));
    let body = input.get(3..3 + size)?;
    let peer = body.first_chunk::<4>().map(|ip| SocketAddr::new(IpAddr::V4(Ipv4Addr::from(*ip)), 0));
    Some(ProxyHeader { peer, bytes: 3 + size })
}

fn read_v1(input: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    let Some(end) = input.iter().take(V1_BYTES_MAX).position(|byte| *byte == b'\n') else {
        let possible = input.len() < V1_BYTES_MAX && b"PROXY ".iter().zip(input).all(|(a, b)| a == b);
        return if possible { Ok(None) } else { Err(ProxyError) };
    };
    let line = std::str::from_utf8(&input[..end]).map_err(|_| ProxyError)?;
    let mut words = line.trim_end_matches('\r').split(' ');
    if words.next() != Some("PROXY") {
        return Err(ProxyError);
    }
    let bytes = end + 1;
    match words.next() {
        Some("UNKNOWN") => Ok(Some(ProxyHeader { peer: None, bytes })),
        Some("TCP4" | "TCP6") => {
            let ip: IpAddr = words.next().and_then(|ip| ip.parse().ok()).ok_or(ProxyError)?;
            let port: u16 = words.nth(1).and_then(|port| port.parse().ok()).ok_or(ProxyError)?;
            Ok(Some(ProxyHeader { peer: Some(SocketAddr::new(ip, port)), bytes }))
        }
        _ => Err(ProxyError),
    }
}

fn read_v2(input: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    if V2_SIGNATURE.iter().zip(input).any(|(a, b)| a != b) {
        return Err(ProxyError);
    }
    let Some(&[command, family, high, low]) = input.get(12..).and_then(|rest| rest.first_chunk()) else {
        return Ok(None);
    };
    let size = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 || size > V2_BYTES_MAX {
        return Err(ProxyError);
    }
    let Some(body) = input.get(16..16 + size) else { return Ok(None) };
    let peer = if command & 0x0F == 0 { None } else { v2_peer(family, body) };
    Ok(Some(ProxyHeader { peer, bytes: 16 + size }))
}

fn v2_peer(family: u8, body: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| body.get(at..)?.first_chunk().map(|port| u16::from_be_bytes(*port));
    match family >> 4 {
        1 => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(*body.first_chunk::<4>()?)), port(8)?)),
        2 => Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(*body.first_chunk::<16>()?)), port(32)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B3: each form at every split, then what is no header.
    #[test]
    fn b3_every_form_at_every_split() {
        let mut v2 = V2_SIGNATURE.to_vec();
        v2.extend_from_slice(&[0x21, 0x11, 0, 12, 10, 1, 2, 3, 127, 0, 0, 1, 0x12, 0x34, 0x07, 0x8F]);
        let peer = "10.1.2.3:4660".parse().ok();
        let forms = [
            (b"PROXY TCP4 10.1.2.3 127.0.0.1 4660 1935\r\n".to_vec(), peer),
            (b"PROXY TCP6 ::1 ::2 9 1935\r\n".to_vec(), "[::1]:9".parse().ok()),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (v2, peer),
            (vec![0xF3, 0, 4, 10, 1, 2, 3], "10.1.2.3:0".parse().ok()),
        ];
        for (form, peer) in forms {
            for cut in 0..form.len() {
                assert_eq!(read(&form[..cut]), Ok(None), "{form:?} cut at {cut}");
            }
            let mut with_more = form.clone();
            with_more.push(3);
            assert_eq!(read(&with_more), Ok(Some(ProxyHeader { peer, bytes: form.len() })));
        }
        for bad in [&b"\x03\x00"[..], b"PROXX", b"PROXY TCP4 nonsense\n", b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0"] {
            assert_eq!(read(bad), Err(ProxyError));
        }
        assert_eq!(read(&[b'P'; 200]), Err(ProxyError));
    }
}
