//! RTMPS: TLS 1.2 and 1.3 on the server's side, sans-IO.
//!
//! An [`Acceptor`] is a key with its certificate; a [`Session`] is one connection. Bytes of the wire go in with
//! [`Session::receive`]; what is to be sent comes out of [`Session::wrap`] and [`Session::take_output`].

use rustls::{
    ServerConfig, ServerConnection,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
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
        let explain = |error: PemError| {
            if matches!(error, PemError::NoItemsFound) { "it holds none".to_owned() } else { error.to_string() }
        };
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
        Ok(Self(Arc::new(config)))
    }

    /// A session for a fresh connection.
    ///
    /// # Errors
    /// rustls's.
    pub fn accept(&self) -> Result<Session, rustls::Error> {
        let mut connection = ServerConnection::new(Arc::clone(&self.0))?;
        // What is written is taken out at once.
        connection.set_buffer_limit(None);
        Ok(Session(connection))
    }
}

/// One connection.
pub struct Session(ServerConnection);

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("handshaking", &self.0.is_handshaking()).finish()
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
        while !wire.is_empty() {
            let broken = |error: std::io::Error| rustls::Error::General(error.to_string());
            self.0.read_tls(&mut wire).map_err(broken)?;
            let state = self.0.process_new_packets()?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.0.reader().read_exact(&mut plain[start..]).map_err(broken)?;
            if state.peer_has_closed() {
                break;
            }
        }
        Ok(plain)
    }

    /// Whether there is something to be sent.
    pub fn wants_write(&self) -> bool {
        self.0.wants_write()
    }

    /// What TLS itself has to send.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.take(0)
    }

    /// `pieces` as records, behind what TLS itself has to send.
    pub fn wrap(&mut self, pieces: &[IoSlice<'_>]) -> Vec<u8> {
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let (mut at, mut pieces) = (0, pieces.to_vec());
        let mut rest = &mut pieces[..];
        // Without a limit, one write takes everything.
        while at < bytes {
            let Ok(written) = self.0.writer().write_vectored(rest) else { break };
            if written == 0 {
                break;
            }
            at += written;
            IoSlice::advance_slices(&mut rest, written);
        }
        self.take(bytes + bytes.div_ceil(RECORD_BYTES_MAX - RECORD_OVERHEAD) * RECORD_OVERHEAD)
    }

    fn take(&mut self, capacity: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(capacity);
        while self.0.wants_write() {
            if self.0.write_tls(&mut out).is_err() {
                break;
            }
        }
        out
    }
}
