//! A connection's bytes, plain or through TLS.

use corecast::sys::Receiver;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, Read, Write},
    os::fd::RawFd,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

/// One connection.
#[derive(Debug)]
pub(crate) struct Transport {
    receiver: Receiver,
    tls: Option<Box<ClientConnection>>,
}

impl Transport {
    /// Takes a connected socket over; `tls` names the server if TLS is wanted. Its certificate is not
    /// verified: this is a load generator.
    pub(crate) fn new(receiver: Receiver, tls: Option<&str>) -> io::Result<Self> {
        let session = |name: &str| {
            let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
            let mut session = ClientConnection::new(config(), name).map_err(io::Error::other)?;
            session.set_buffer_limit(None);
            Ok::<_, io::Error>(Box::new(session))
        };
        Ok(Self { receiver, tls: tls.map(session).transpose()? })
    }

    /// Whether bytes can be dropped unread.
    pub(crate) fn is_plain(&self) -> bool {
        self.tls.is_none()
    }

    /// The descriptor, for a send ring.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.receiver.descriptor()
    }

    /// Ends both directions.
    pub(crate) fn shutdown(&self) {
        self.receiver.shutdown();
    }

    /// Sends a few bytes, waiting for room.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.receiver.send_blocking(bytes),
            Some(tls) => {
                tls.writer().write_all(bytes)?;
                self.receiver.send_blocking(&take_tls(tls)?)
            }
        }
    }

    /// What stands on the wire for `bytes`.
    pub(crate) fn wrap(&mut self, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        match &mut self.tls {
            None => Ok(bytes),
            Some(tls) => {
                tls.writer().write_all(&bytes)?;
                take_tls(tls)
            }
        }
    }

    /// Waits for bytes and gives them to `take`; `most` bounds a read.
    ///
    /// # Errors
    /// The socket's, TLS's, and `UnexpectedEof` at the end.
    pub(crate) async fn receive<T>(
        &mut self,
        scratch: &RefCell<Vec<u8>>,
        most: usize,
        mut take: impl FnMut(&[u8]) -> T,
    ) -> io::Result<T> {
        poll_fn(|cx| self.poll_receive(cx, &mut scratch.borrow_mut(), most, &mut take)).await
    }

    /// Like [`Self::receive`], for who shares it between tasks.
    pub(crate) fn poll_receive<T>(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        most: usize,
        take: &mut impl FnMut(&[u8]) -> T,
    ) -> Poll<io::Result<T>> {
        let most = most.min(scratch.len());
        loop {
            let read = match self.receiver.poll_read(cx, &mut scratch[..most]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(read)) => &scratch[..read],
            };
            let Some(tls) = &mut self.tls else { return Poll::Ready(Ok(take(read))) };
            let plain = decrypt(tls, read)?;
            if tls.wants_write() {
                self.receiver.send_blocking(&take_tls(tls)?)?;
            }
            if !plain.is_empty() {
                return Poll::Ready(Ok(take(&plain)));
            }
        }
    }

    /// Waits for bytes of a plain connection and drops them at the least cost; returns how many.
    pub(crate) async fn discard(&mut self) -> io::Result<usize> {
        match poll_fn(|cx| self.receiver.poll_discard(cx)).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => Ok(bytes),
        }
    }
}

fn decrypt(tls: &mut ClientConnection, mut read: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    while !read.is_empty() {
        tls.read_tls(&mut read)?;
        let state = tls.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let start = plain.len();
        plain.resize(start + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut plain[start..])?;
    }
    Ok(plain)
}

fn take_tls(tls: &mut ClientConnection) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut out)?;
    }
    Ok(out)
}

fn config() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let make = || {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let accept = Arc::new(AcceptAny(Arc::clone(&provider)));
        let builder = ClientConfig::builder_with_provider(provider);
        let versions = builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
        let Ok(builder) = versions else { unreachable!("the provider has suites for both versions") };
        Arc::new(builder.dangerous().with_custom_certificate_verifier(accept).with_no_client_auth())
    };
    Arc::clone(CONFIG.get_or_init(make))
}

/// Takes any certificate; signatures are checked, since their cost is part of the load.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
