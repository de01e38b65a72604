//! TLS of the port: files that may be replaced while it runs, and client certificates that are asked for but judged later.
//!
//! A handshake looks at the files' identity (inode, size, time) and reads them again when it changed: a renewed
//! certificate is one rename away from being served, and nothing has to be told. A file that cannot be used leaves the
//! one before in use.

use parking_lot::Mutex;
use pki::handshake::Agreed;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Paths of certificate, key and authorities; replaced files are read again.
#[derive(Clone, Debug)]
pub struct Files {
    /// The serving certificate and its chain.
    pub certificate: PathBuf,
    /// Its key; may be the same file.
    pub key: PathBuf,
    /// The authorities of client certificates; without it, none is accepted.
    pub client_ca: Option<PathBuf>,
}

/// A file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be looked at.
    #[error("read {}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// It is no PEM, or holds nothing of the kind.
    #[error("read PEM of {}", .path.display())]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    /// Key and certificate do not fit, or a certificate cannot be an authority.
    #[error("use {}", .path.display())]
    Use { path: PathBuf, source: rustls::Error },
    /// No verifier can be made of the authorities.
    #[error("use authorities of {}", .path.display())]
    Authorities { path: PathBuf, source: rustls::server::VerifierBuilderError },
}

type Stamp = Vec<(u64, u64, i64, i64)>;

/// Something read from files, and read again after they changed.
struct Reloading<T> {
    paths: Vec<PathBuf>,
    read: fn(&[PathBuf]) -> Result<T, Error>,
    current: Mutex<(Stamp, Arc<T>)>,
}

impl<T> std::fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloading").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl<T> Reloading<T> {
    fn new(paths: Vec<PathBuf>, read: fn(&[PathBuf]) -> Result<T, Error>) -> Result<Self, Error> {
        let current = (stamp(&paths)?, Arc::new(read(&paths)?));
        Ok(Self { paths, read, current: Mutex::new(current) })
    }

    fn current(&self) -> Arc<T> {
        let mut current = self.current.lock();
        if let Ok(now) = stamp(&self.paths)
            && now != current.0
        {
            match (self.read)(&self.paths) {
                Ok(fresh) => *current = (now, Arc::new(fresh)),
                // Not stamped: half of a pair of files may be new, and the other half come any moment.
                Err(error) => {
                    tracing::warn!(error = ?error, "changed certificate is unusable; the last one stays")
                }
            }
        }
        current.1.clone()
    }
}

fn stamp(paths: &[PathBuf]) -> Result<Stamp, Error> {
    let look = |path: &PathBuf| {
        let found = std::fs::metadata(path).map_err(|source| Error::Read { path: path.clone(), source })?;
        Ok((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    paths.iter().map(look).collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let failed = |source| Error::Pem { path: path.to_owned(), source };
    CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(failed)
}

fn read_pair(paths: &[PathBuf]) -> Result<CertifiedKey, Error> {
    let (certificate, key_path) = (&paths[0], &paths[1]);
    let text = std::fs::read(key_path).map_err(|source| Error::Read { path: key_path.clone(), source })?;
    let key = PrivateKeyDer::from_pem_slice(&text);
    let key = key.map_err(|source| Error::Pem { path: key_path.clone(), source })?;
    CertifiedKey::from_der(certificates(certificate)?, key, &ring::default_provider())
        .map_err(|source| Error::Use { path: certificate.clone(), source })
}

fn read_authorities(paths: &[PathBuf]) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let path = &paths[0];
    let mut roots = RootCertStore::empty();
    for authority in certificates(path)? {
        roots.add(authority).map_err(|source| Error::Use { path: path.clone(), source })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
        .build()
        .map_err(|source| Error::Authorities { path: path.clone(), source })
}

/// The authorities of client certificates.
#[derive(Clone, Debug)]
pub struct Authorities(Arc<Reloading<Arc<dyn ClientCertVerifier>>>);

impl Authorities {
    /// Reads a PEM file, and again when it is replaced.
    pub fn new(path: &Path) -> Result<Self, Error> {
        Ok(Self(Arc::new(Reloading::new(vec![path.to_owned()], read_authorities)?)))
    }

    /// Whether a chain, leaf first, leads to one of them.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), rustls::Error> {
        let Some((leaf, rest)) = chain.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        self.0.current().verify_client_cert(leaf, rest, now).map(|_| ())
    }
}

#[derive(Debug)]
struct Serving(Reloading<CertifiedKey>);

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

/// The server's end, with what may be agreed on.
pub fn server_config(files: &Files, agreed: &Agreed) -> Result<ServerConfig, Error> {
    let serving = Serving(Reloading::new(vec![files.certificate.clone(), files.key.clone()], read_pair)?);
    let failed = |source| Error::Use { path: files.certificate.clone(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(agreed.provider()))
        .with_protocol_versions(agreed.versions())
        .map_err(failed)?
        // A stranger is answered 401, not cut off.
        .with_client_cert_verifier(Arc::new(pki::tls::AnyPeer::default()))
        .with_cert_resolver(Arc::new(serving));
    config.alpn_protocols = agreed.protocols();
    // A resumed session would not show the client's certificate again to a changed set of authorities.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
