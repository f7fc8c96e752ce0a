//! The system: sockets, the send ring, executors on their cores. The only home of `unsafe`.

#![expect(unsafe_code, reason = "system calls and buffers lent to the kernel; every block says why it is sound")]

mod child;
pub mod cores;
mod cpu_mask;
mod cpu_time;
mod datagrams;
mod image_file;
mod keep_awake;
mod ktls;
mod listen;
mod memory;
mod resolve;
mod send_ring;
mod socket;
mod usage;
mod waiting;

pub use child::{bind_to_parent, end_group};
pub use cpu_mask::CpuMask;
pub use cpu_time::thread_cpu_time;
pub use datagrams::{DATAGRAM_BYTES_MAX, DATAGRAMS_MAX, Datagrams};
pub use image_file::{ImageFile, Place};
pub use keep_awake::KeepAwake;
pub use ktls::has_ktls;
pub(crate) use ktls::{offload, prepare};
pub use listen::{Acceptor, BACKLOG, ListenError, Listeners};
pub use memory::resident_bytes;
pub use resolve::Lookups;
pub use send_ring::{Ended, Gather, Notifier, SendBuf, SendKey, SendRing};
pub use socket::{
    Receiver, SEND_BUFFER_BYTES, disable_huge_pages, file_limit, file_limit_max, raise_file_limit, raise_file_limit_to,
};
pub(crate) use socket::{has_ended, has_unread, set_nodelay, set_nonblocking, shutdown};
pub use usage::{interface_addresses, resource_usage};
pub use waiting::waits_on_nonblocking;
