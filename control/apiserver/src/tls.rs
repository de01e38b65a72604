//! The server's end of TLS: certificates that can be replaced while it runs, and client certificates that are asked for
//! but judged later, by [`crate::authn::certificate`].

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// A certificate cannot be served with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The PEM text is broken.
    #[error("read serving certificate")]
    Read(#[source] pki::Error),
    /// Key and certificate do not fit, or are of a kind we cannot use.
    #[error("use serving certificate")]
    Use(#[source] rustls::Error),
}

/// The serving certificate, replaced as a whole.
#[derive(Debug)]
pub struct ServingCertificate(ArcSwap<CertifiedKey>);

impl ServingCertificate {
    /// Reads a certificate chain and its key.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(ServingCertificate(ArcSwap::from_pointee(read(certificates, key)?))))
    }

    /// Serves with another certificate from the next handshake on.
    pub fn replace(&self, certificates: &str, key: &str) -> Result<(), TlsError> {
        self.0.store(Arc::new(read(certificates, key)?));
        Ok(())
    }
}

fn read(certificates: &str, key: &str) -> Result<CertifiedKey, TlsError> {
    let chain = pki::pem::certificates(certificates.as_bytes()).map_err(TlsError::Read)?;
    let key = pki::pem::private_key(key.as_bytes()).map_err(TlsError::Read)?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(TlsError::Use)
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// TLS 1.2 and 1.3, HTTP/2 preferred.
pub fn server_config(certificate: Arc<ServingCertificate>) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Use)?
        .with_client_cert_verifier(Arc::new(pki::tls::AnyPeer::default()))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would not show the client's certificate again to a changed set of authorities.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
