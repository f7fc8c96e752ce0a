//! TLS 1.2 and 1.3, sans-IO.
//!
//! An [`Acceptor`] is a key with its certificate, a [`Connector`] whom the system trusts; a [`Session`] is one
//! connection. Bytes of the wire go in with
//! [`Session::receive`]; what is to be sent comes out of [`Session::wrap`] and [`Session::take_output`].

use rustls::{
    CertificateError, CipherSuite, ClientConfig, ClientConnection, Connection, ExtractedSecrets, ProtocolVersion,
    RootCertStore, ServerConfig, ServerConnection,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName,
        pem::{Error as PemError, PemObject},
    },
    server::NoServerSessionStorage,
    sign::CertifiedKey,
};
use std::{
    fmt,
    io::{IoSlice, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Bytes of one TLS record at most, with its header and tag (RFC 8446 §5.2).
const RECORD_BYTES_MAX: usize = 16_384 + 256 + 5;
/// What a record adds to its content, at most.
const RECORD_OVERHEAD: usize = 40;

/// Bytes copied at once: beyond 2112 glibc copies by `rep movsb`, which on AMD's Zen 3 and 4 is several times slower where
/// the destination is not aligned (glibc's bug 30994), as behind a record's header.
const COPY_BYTES: usize = 2048;

/// A key and its certificate, ready to accept connections.
#[derive(Clone)]
pub struct Acceptor(Arc<ServerConfig>);

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

/// Why a key or certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The key's file cannot be read, or holds none.
    #[error("key {}: {}", .0.display(), .1)]
    Key(PathBuf, String),
    /// The certificate's file cannot be read, or holds none.
    #[error("certificate {}: {}", .0.display(), .1)]
    Cert(PathBuf, String),
    /// They do not belong together.
    #[error("key {} does not belong to certificate {}", .0.display(), .1.display())]
    Mismatch(PathBuf, PathBuf),
}

impl LoadError {
    /// Whether the key is to blame, or else the certificate.
    pub fn is_of_key(&self) -> bool {
        matches!(self, Self::Key(..) | Self::Mismatch(..))
    }

    /// What to do.
    pub fn fix(&self) -> String {
        match self {
            // What is there must not be written over.
            Self::Key(path, _) | Self::Cert(path, _) if path.exists() => {
                "name a PEM file that this process may read, without a password".to_owned()
            }
            Self::Key(path, _) => format!("for a test: openssl genrsa -out {} 2048", path.display()),
            Self::Cert(path, _) => format!(
                "for a test: openssl req -new -x509 -key {} -out {} -days 3650 -subj /CN=localhost",
                path.with_extension("key").display(),
                path.display()
            ),
            Self::Mismatch(..) => "name the key that the certificate was made for".to_owned(),
        }
    }
}

impl Acceptor {
    /// Reads both PEM files; the certificate's may hold its chain.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(key: &Path, cert: &Path) -> Result<Self, LoadError> {
        let key_error = |error: String| LoadError::Key(key.to_owned(), error);
        let cert_error = |error: String| LoadError::Cert(cert.to_owned(), error);
        let private = PrivateKeyDer::from_pem_file(key).map_err(|error| key_error(explain(error)))?;
        let chain: Result<Vec<_>, PemError> = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
        let chain = chain.map_err(|error| cert_error(explain(error)))?;
        if chain.is_empty() {
            return Err(cert_error(explain(PemError::NoItemsFound)));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let signing = provider.key_provider.load_private_key(private).map_err(|error| key_error(error.to_string()))?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                return Err(LoadError::Mismatch(key.to_owned(), cert.to_owned()));
            }
            // Of X.509 version 1, as SRS ships one: the library cannot look into it, and serves it all the same.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_))) => {}
            Err(error) => return Err(cert_error(error.to_string())),
        }
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| key_error(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        // RTMP clients do not resume sessions: tickets would only be bytes and memory.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        // For the kernel, where it has TLS.
        config.enable_secret_extraction = true;
        Ok(Self(Arc::new(config)))
    }

    /// The same, with HTTP/2 offered to clients (RFC 9113 §3.2).
    pub fn with_http2(&self) -> Self {
        let mut config = ServerConfig::clone(&self.0);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self(Arc::new(config))
    }

    /// A session for a fresh connection.
    ///
    /// # Errors
    /// rustls's.
    pub fn accept(&self) -> Result<Session, rustls::Error> {
        let mut connection = ServerConnection::new(Arc::clone(&self.0))?;
        // What is written is taken out at once.
        connection.set_buffer_limit(None);
        Ok(Session { connection: connection.into(), records: Follower::default(), stays: false })
    }
}

fn explain(error: PemError) -> String {
    if let PemError::Io(error) = &error {
        return error.to_string();
    }
    if matches!(error, PemError::NoItemsFound) { "it holds none".to_owned() } else { error.to_string() }
}

/// Opens connections to servers whose certificates are trusted.
#[derive(Clone)]
pub struct Connector(Arc<ClientConfig>);

/// The same one, not one of the same making.
impl PartialEq for Connector {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Connector {}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Reads the system's certificates, or those that SSL_CERT_FILE or SSL_CERT_DIR name.
    ///
    /// # Errors
    /// In words: there are none.
    pub fn new() -> Result<Self, String> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (good, _) = roots.add_parsable_certificates(found.certs);
        if good == 0 {
            let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
            return Err(format!(
                "no certificates of authorities are found{why}; install ca-certificates, or set SSL_CERT_FILE"
            ));
        }
        Self::trusting(roots)
    }

    /// Trusts the authorities of a PEM file alone.
    ///
    /// # Errors
    /// In words: it cannot be read, or holds no authority's certificate.
    pub fn with_authorities(path: &Path) -> Result<Self, String> {
        let found: Result<Vec<_>, PemError> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        let found = found.map_err(explain)?;
        let mut roots = RootCertStore::empty();
        for certificate in found {
            roots.add(certificate).map_err(|error| format!("a certificate of no authority: {error}"))?;
        }
        if roots.is_empty() {
            return Err(explain(PemError::NoItemsFound));
        }
        Self::trusting(roots)
    }

    /// Tells this one's trust from that of others, as long as it is there.
    pub fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn trusting(roots: RootCertStore) -> Result<Self, String> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| error.to_string())?;
        Ok(Self(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
    }

    /// A session with a server that must be `host`, a name or an address.
    ///
    /// # Errors
    /// It is no name; or rustls's.
    pub fn connect(&self, host: &str) -> Result<Session, rustls::Error> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut connection = ClientConnection::new(Arc::clone(&self.0), name)?;
        connection.set_buffer_limit(None);
        // What a server says beside the stream, tickets for example, is the library's to understand.
        Ok(Session { connection: connection.into(), records: Follower::default(), stays: true })
    }
}

/// One connection.
pub struct Session {
    connection: Connection,
    records: Follower,
    stays: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("handshaking", &self.connection.is_handshaking()).finish()
    }
}

impl Session {
    /// Takes bytes of the wire; returns what they say. An alert or an answer may wait in the output
    /// afterwards, in case of an error too.
    ///
    /// # Errors
    /// The peer breaks TLS.
    pub fn receive(&mut self, mut wire: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut plain = Vec::new();
        self.records.pass(wire);
        while !wire.is_empty() {
            let broken = |error: std::io::Error| rustls::Error::General(error.to_string());
            self.connection.read_tls(&mut wire).map_err(broken)?;
            let state = self.connection.process_new_packets()?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.connection.reader().read_exact(&mut plain[start..]).map_err(broken)?;
            if state.peer_has_closed() {
                break;
            }
        }
        Ok(plain)
    }

    /// Whether there is something to be sent.
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// What TLS itself has to send.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.take(0)
    }

    /// `pieces` as records, behind what TLS itself has to send.
    pub fn wrap(&mut self, pieces: &[IoSlice<'_>]) -> Vec<u8> {
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut small: Vec<IoSlice<'_>> =
            pieces.iter().flat_map(|piece| piece.chunks(COPY_BYTES)).map(IoSlice::new).collect();
        let (mut at, mut rest) = (0, &mut small[..]);
        // Without a limit, one write takes everything.
        while at < bytes {
            let Ok(written) = self.connection.writer().write_vectored(rest) else { break };
            if written == 0 {
                break;
            }
            at += written;
            IoSlice::advance_slices(&mut rest, written);
        }
        self.take(bytes + bytes.div_ceil(RECORD_BYTES_MAX - RECORD_OVERHEAD) * RECORD_OVERHEAD)
    }

    /// Whether the kernel can go on from here: the handshake is over, nothing waits to be sent, no record has
    /// come in part, and the cipher is one that it knows.
    pub fn can_leave(&self) -> bool {
        let suite = self.connection.negotiated_cipher_suite().map(|suite| suite.suite());
        let known = matches!(
            suite,
            Some(
                CipherSuite::TLS13_AES_128_GCM_SHA256
                    | CipherSuite::TLS13_AES_256_GCM_SHA384
                    | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
                    | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
                    | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                    | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            )
        );
        known
            && !self.stays
            && !self.connection.is_handshaking()
            && !self.connection.wants_write()
            && self.records.are_whole()
    }

    /// The kernel does not take it: never ask again.
    pub fn stay(&mut self) {
        self.stays = true;
    }

    /// What the kernel needs to go on.
    ///
    /// # Errors
    /// rustls's; the connection is of no use any more.
    pub fn into_secrets(self) -> Result<(ProtocolVersion, ExtractedSecrets), rustls::Error> {
        let version = self.connection.protocol_version().unwrap_or(ProtocolVersion::TLSv1_3);
        Ok((version, self.connection.dangerous_extract_secrets()?))
    }

    fn take(&mut self, capacity: usize) -> Vec<u8> {
        let mut out = Records(Vec::with_capacity(capacity));
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut out).is_err() {
                break;
            }
        }
        out.0
    }
}

/// Takes records that are to be sent.
struct Records(Vec<u8>);

impl Write for Records {
    fn write(&mut self, record: &[u8]) -> std::io::Result<usize> {
        record.chunks(COPY_BYTES).for_each(|piece| self.0.extend_from_slice(piece));
        Ok(record.len())
    }

    fn write_vectored(&mut self, records: &[IoSlice<'_>]) -> std::io::Result<usize> {
        records.iter().map(|record| self.write(record)).sum()
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Follows the records of a stream of bytes, by their headers (RFC 8446 §5.1).
#[derive(Debug, Default)]
struct Follower {
    header: [u8; 5],
    header_bytes: usize,
    /// What is still to come of the record at hand.
    left: usize,
}

impl Follower {
    fn pass(&mut self, mut wire: &[u8]) {
        while let Some((&first, rest)) = wire.split_first() {
            if self.left > 0 {
                let taken = self.left.min(wire.len());
                self.left -= taken;
                wire = &wire[taken..];
                continue;
            }
            self.header[self.header_bytes] = first;
            self.header_bytes += 1;
            wire = rest;
            if self.header_bytes == self.header.len() {
                self.header_bytes = 0;
                self.left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
            }
        }
    }

    /// Whether the last record has come whole.
    fn are_whole(&self) -> bool {
        self.header_bytes == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_followed_at_every_split() {
        let wire = [&[22, 3, 1, 0, 3, 1, 2, 3][..], &[23, 3, 3, 0, 0], &[23, 3, 3, 1, 0], &[9; 256]].concat();
        let whole: Vec<usize> = vec![0, 8, 13, wire.len()];
        for split in 0..=wire.len() {
            let mut records = Follower::default();
            records.pass(&wire[..split]);
            assert_eq!(records.are_whole(), whole.contains(&split), "{split}");
            records.pass(&wire[split..]);
            assert!(records.are_whole());
        }
    }
}
