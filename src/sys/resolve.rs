//! Names into addresses.

use super::CpuMask;
use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Most names that one user of [`Lookups`] looks up at once.
const LOOKUPS_MAX: usize = 16;

/// Those that run, of one kind of user: names that nobody answers for are in the way of nobody else's.
#[derive(Debug, Default)]
pub struct Lookups(AtomicUsize);

impl Lookups {
    /// None runs.
    pub const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Finds a host's addresses. The system's resolver blocks, so that it has a thread of its own for each name, on
    /// `cpus`.
    ///
    /// # Errors
    /// The resolver's; too many names are looked up at once; no thread.
    pub async fn find(&'static self, cpus: Option<CpuMask>, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        if self.0.fetch_add(1, Ordering::Relaxed) >= LOOKUPS_MAX {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "too many names are looked up"));
        }
        let (tell, told) = async_channel::bounded(1);
        let name: Arc<str> = host.into();
        let thread = std::thread::Builder::new().name("resolve".to_owned()).spawn(move || {
            if let Some(cpus) = cpus {
                cpus.apply();
            }
            let found = (&*name, port).to_socket_addrs().map(Iterator::collect);
            self.0.fetch_sub(1, Ordering::Relaxed);
            // Who asked may be gone.
            drop(tell.try_send(found));
        });
        if let Err(error) = thread {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return Err(error);
        }
        told.recv().await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
    }
}
