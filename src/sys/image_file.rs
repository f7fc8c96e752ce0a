//! Images of which the kernel takes pages rather than copies: `sendfile` from a file in memory.
//!
//! What the kernel has taken and the peer has not acknowledged still lies in pages of the file, and these must never
//! change. So no place of the file is written twice: between two uses its pages are dropped (a hole is punched over
//! the whole file, so that no page, however large, is zeroed in part), and whoever still sends from them keeps them.
//! Held like that is no more than the sockets' buffers may hold anyway.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, RawFd},
        unix::fs::FileExt,
    },
};

/// Of the file, in bytes: a few flushes' images at once. A multiple of a huge page.
const FILE_BYTES: u64 = 4 << 20;
/// Each image begins at a multiple of so many bytes: on a page of its own, of 4 to 64 KiB.
const ALIGN_BYTES: u64 = 64 << 10;

/// The file of a shard.
#[derive(Debug)]
pub struct ImageFile {
    file: File,
    used: u64,
    syscalls: u64,
}

/// Where an image stands in the file; until [`ImageFile::clear`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    offset: u64,
    len: usize,
}

impl ImageFile {
    /// An empty file.
    ///
    /// # Errors
    /// The machine has no files in memory, or refuses one.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a plain system call, with a string that ends with 0.
        let descriptor = unsafe { libc::memfd_create(c"corecast-images".as_ptr(), libc::MFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open and owned by nobody else.
        let file = unsafe { File::from_raw_fd(descriptor) };
        file.set_len(FILE_BYTES)?;
        let mut new = Self { file, used: 1, syscalls: 0 };
        // Whether a hole can be punched shows here already.
        new.clear()?;
        Ok(new)
    }

    /// Writes an image; `None` if there is no room, or no memory.
    pub fn put(&mut self, bytes: &[u8]) -> Option<Place> {
        let place = Place { offset: self.used, len: bytes.len() };
        let end = place.offset.checked_add(bytes.len() as u64).filter(|end| *end <= FILE_BYTES)?;
        self.used = end.next_multiple_of(ALIGN_BYTES);
        self.file.write_all_at(bytes, place.offset).ok()?;
        Some(place)
    }

    /// Hands to a nonblocking socket as much of an image as it has room for; returns how many bytes. A socket that is
    /// over takes none.
    pub fn send(&mut self, descriptor: RawFd, place: Place) -> usize {
        let Ok(mut offset) = libc::off_t::try_from(place.offset) else { return 0 };
        self.syscalls += 1;
        // SAFETY: a plain system call; `offset` is valid for writing.
        let sent = unsafe { libc::sendfile(descriptor, self.file.as_raw_fd(), &raw mut offset, place.len) };
        usize::try_from(sent).unwrap_or(0)
    }

    /// Begins anew: no place is valid any more, and what the kernel has taken stays as it is.
    ///
    /// # Errors
    /// The pages cannot be dropped: the file must not be used any more.
    pub fn clear(&mut self) -> io::Result<()> {
        if self.used == 0 {
            return Ok(());
        }
        self.syscalls += 1;
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let len = libc::off_t::try_from(FILE_BYTES).unwrap_or(libc::off_t::MAX);
        // SAFETY: a plain system call.
        if unsafe { libc::fallocate(self.file.as_raw_fd(), mode, 0, len) } != 0 {
            return Err(io::Error::last_os_error());
        }
        self.used = 0;
        Ok(())
    }

    /// System calls since the last time that this was asked.
    pub fn take_syscalls(&mut self) -> u64 {
        std::mem::take(&mut self.syscalls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        os::unix::net::UnixStream,
        time::Duration,
    };

    /// The byte at a position of what is sent.
    fn byte(position: u64) -> u8 {
        let [a, b, c, d, ..] = position.to_le_bytes();
        a ^ b ^ c.wrapping_mul(31) ^ d.wrapping_mul(57)
    }

    fn bytes(from: u64, len: usize) -> Vec<u8> {
        (from..from + len as u64).map(byte).collect()
    }

    /// A peer reads late while the file is used over and over, with images of all sizes: not one byte is another's.
    /// `IMAGE_FILE_BYTES` says how many are sent; a thousand millions have been.
    #[test]
    fn pages_in_flight_never_change() {
        let total: u64 = std::env::var("IMAGE_FILE_BYTES").map_or(100_000_000, |bytes| bytes.parse().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let reader = std::thread::spawn(move || {
            let (mut buffer, mut position, mut random) = (vec![0; 70_001], 0, fastrand::Rng::with_seed(1));
            loop {
                // Now and then everything between is full, and has to wait while the file goes on.
                if random.u8(..) == 0 {
                    std::thread::sleep(Duration::from_millis(3));
                }
                let read = peer.read(&mut buffer).unwrap();
                if read == 0 {
                    return position;
                }
                assert!(
                    buffer[..read] == bytes(position, read),
                    "altered between {position} and {}",
                    position + read as u64
                );
                position += read as u64;
            }
        });
        let (mut file, mut random) = (ImageFile::new().unwrap(), fastrand::Rng::with_seed(2));
        let (mut position, mut by_file) = (0, 0);
        while position < total {
            for _ in 0..random.u8(1..5) {
                let image = bytes(position, random.usize(1..300_000));
                let place = file.put(&image).unwrap();
                ours.set_nonblocking(true).unwrap();
                let sent = file.send(ours.as_raw_fd(), place);
                ours.set_nonblocking(false).unwrap();
                by_file += sent as u64;
                // The rest, as the send ring does it.
                ours.write_all(&image[sent..]).unwrap();
                position += image.len() as u64;
            }
            file.clear().unwrap();
        }
        drop(ours);
        assert_eq!(reader.join().unwrap(), position);
        assert!(by_file > total / 10, "{by_file} of {position} bytes by the file");
    }

    /// What does not fit is refused, and a socket that is over takes nothing.
    #[test]
    fn what_does_not_fit_is_copied_instead() {
        let mut file = ImageFile::new().unwrap();
        assert_eq!(file.put(&vec![0; (4 << 20) + 1]), None);
        let places: Vec<_> = std::iter::from_fn(|| file.put(&[1; 100_000])).collect();
        assert_eq!(places.len() as u64, FILE_BYTES / (2 * ALIGN_BYTES));
        let (ours, peer) = UnixStream::pair().unwrap();
        drop(peer);
        assert_eq!(file.send(ours.as_raw_fd(), places[0]), 0);
        file.clear().unwrap();
        assert!(file.put(&[1; 100_000]).is_some());
    }
}
