//! TLS in the kernel: what the send ring sends on such a socket is encrypted on its way, so that players of
//! RTMPS share images as players of RTMP do.

use ktls_core::{
    ConnectionTrafficSecrets, Error, ProtocolVersion, TlsCryptoInfoRx, TlsCryptoInfoTx, setup_tls_params, setup_ulp,
};
use rustls::ExtractedSecrets;
use socket2::{Domain, Socket, Type};
use std::os::fd::{BorrowedFd, RawFd};

/// Whether the kernel has TLS; its module is loaded if this process may do that.
pub fn has_ktls() -> bool {
    let Ok(socket) = Socket::new(Domain::IPV4, Type::STREAM, None) else { return false };
    match setup_ulp(&socket) {
        Ok(()) => true,
        // A kernel with it wants a connection first.
        Err(Error::Ulp(error)) => error.raw_os_error() == Some(libc::ENOTCONN),
        Err(_) => false,
    }
}

/// Prepares a connected socket for [`offload`]; nothing has changed if it fails.
pub(crate) fn prepare(descriptor: RawFd) -> bool {
    // SAFETY: the caller's connection keeps the descriptor open.
    setup_ulp(&unsafe { BorrowedFd::borrow_raw(descriptor) }).is_ok()
}

/// Hands both directions of a connection to the kernel.
///
/// # Errors
/// The kernel does not take the secrets; the connection is of no use any more.
pub(crate) fn offload(
    descriptor: RawFd,
    version: rustls::ProtocolVersion,
    secrets: ExtractedSecrets,
) -> Result<(), Error> {
    // SAFETY: the caller's connection keeps the descriptor open.
    let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let version = ProtocolVersion::from(version);
    let (sent, send) = secrets.tx;
    let (received, receive) = secrets.rx;
    let send = TlsCryptoInfoTx::new(version, ConnectionTrafficSecrets::try_from(send)?, sent)?;
    let receive = TlsCryptoInfoRx::new(version, ConnectionTrafficSecrets::try_from(receive)?, received)?;
    setup_tls_params(&socket, &send, &receive)
}
