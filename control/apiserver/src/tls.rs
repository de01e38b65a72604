//! The server's end of TLS: certificates that can be replaced while it runs, and client certificates that are asked for
//! but judged later, by [`crate::authn::certificate`].

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
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
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).map_err(TlsError::Use)
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// TLS 1.2 and 1.3, HTTP/2 preferred.
pub fn server_config(certificate: Arc<ServingCertificate>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Use)?
        .with_client_cert_verifier(Arc::new(AnyClient(provider)))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would not show the client's certificate again to a changed set of authorities.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Lets every client in that holds the key of the certificate it shows.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
