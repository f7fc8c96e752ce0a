//! Datagrams to one peer, handed over with one operation: the kernel cuts them (UDP_SEGMENT, udp(7)).

use socket2::SockAddr;
use std::net::SocketAddr;

/// Most datagrams of one operation (the kernel's UDP_MAX_SEGMENTS).
pub const DATAGRAMS_MAX: usize = 64;
/// Most bytes of one operation: what one UDP packet could be, which the kernel makes of it at first.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Room for one control message with a `u16`.
// SAFETY: the macro computes a size.
const CONTROL_BYTES: usize = unsafe { libc::CMSG_SPACE(2) } as usize;

/// One or several, all as long as the first but the last, which may be shorter.
#[derive(Debug)]
pub struct Datagrams {
    bytes: Vec<u8>,
    segment: u16,
    to: SockAddr,
    control: Control,
    iovec: libc::iovec,
    header: libc::msghdr,
}

/// Aligned as control messages must be.
#[derive(Debug)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

impl Datagrams {
    /// `bytes` to `to` as datagrams of `segment` bytes; `None` if the kernel would not take so much at once.
    pub fn new(to: SocketAddr, bytes: Vec<u8>, segment: u16) -> Option<Box<Self>> {
        let count = bytes.len().checked_div(usize::from(segment))?;
        if bytes.is_empty() || bytes.len() > DATAGRAM_BYTES_MAX || count >= DATAGRAMS_MAX {
            return None;
        }
        let iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: all zeroes is a valid msghdr: no name, no pieces, no control data.
        let header = unsafe { std::mem::zeroed() };
        Some(Box::new(Self { bytes, segment, to: to.into(), control: Control([0; CONTROL_BYTES]), iovec, header }))
    }

    /// Bytes of all.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Fixes the addresses; it must not move afterwards.
    pub(super) fn seal(&mut self) -> *const libc::msghdr {
        self.iovec = libc::iovec { iov_base: self.bytes.as_mut_ptr().cast(), iov_len: self.bytes.len() };
        self.header.msg_name = self.to.as_ptr().cast_mut().cast();
        self.header.msg_namelen = self.to.len();
        self.header.msg_iov = &raw mut self.iovec;
        self.header.msg_iovlen = 1;
        if self.bytes.len() > usize::from(self.segment) {
            self.header.msg_control = self.control.0.as_mut_ptr().cast();
            self.header.msg_controllen = CONTROL_BYTES;
            // SAFETY: the header names room for one control message, which lies where this points.
            unsafe {
                let control = libc::CMSG_FIRSTHDR(&raw const self.header);
                (*control).cmsg_level = libc::SOL_UDP;
                (*control).cmsg_type = libc::UDP_SEGMENT;
                (*control).cmsg_len = libc::CMSG_LEN(2) as usize;
                libc::CMSG_DATA(control).cast::<u16>().write_unaligned(self.segment);
            }
        }
        &raw const self.header
    }
}

#[cfg(test)]
mod tests {
    use super::{super::send_ring::*, *};
    use std::{net::UdpSocket, os::fd::AsRawFd, time::Duration};

    /// One operation, many datagrams, from a socket that several peers share.
    #[test]
    fn one_operation_is_many_datagrams() {
        let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (ours, peers) = (socket(), [socket(), socket()]);
        let mut ring = SendRing::new().unwrap();
        let sent: Vec<u8> = (0..=250).cycle().take(5 * 1200 + 7).collect();
        for (token, peer) in (0..).zip(&peers) {
            let datagrams = Datagrams::new(peer.local_addr().unwrap(), sent.clone(), 1200).unwrap();
            ring.push(token, ours.as_raw_fd(), SendBuf::Datagrams(datagrams));
        }
        let mut ended = Vec::new();
        while ended.len() < 2 {
            ring.pump(&mut ended);
        }
        assert!(ended.iter().all(|ended| ended.whole && ended.bytes == sent.len()), "{ended:?}");
        assert_eq!(ring.syscalls(), 1, "both with one system call");
        for peer in &peers {
            peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut buffer = [0; 2000];
            for segment in sent.chunks(1200) {
                let (bytes, from) = peer.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..bytes], from), (segment, ours.local_addr().unwrap()));
            }
        }
        let to = ours.local_addr().unwrap();
        assert!(Datagrams::new(to, vec![0; 100], 0).is_none());
        assert!(Datagrams::new(to, vec![0; 64 * 100 + 1], 100).is_none());
        assert!(Datagrams::new(to, vec![0; 65_508], 1400).is_none());
    }
}
