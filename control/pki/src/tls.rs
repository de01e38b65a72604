//! TLS peers whose certificates are judged later, by what is so at the time, or not at all.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Accepts any peer that holds the key of the certificate it shows, whoever issued that.
///
/// As a server's view of its clients: a certificate is asked for, not demanded, and a stranger gets as far as a 401. As a
/// client's view of a server: for those who asked for encryption and nothing more, as upstream's probes and pod proxies do.
#[derive(Debug)]
pub struct AnyPeer(WebPkiSupportedAlgorithms);

impl Default for AnyPeer {
    fn default() -> Self {
        AnyPeer(rustls::crypto::ring::default_provider().signature_verification_algorithms)
    }
}

/// The signature checks, which both traits name alike.
macro_rules! holds_the_key {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls12_signature(message, certificate, signature, &self.0)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, certificate, signature, &self.0)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_schemes()
        }
    };
}

impl ClientCertVerifier for AnyPeer {
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

    holds_the_key!();
}

/// A server's view of clients, whose chains are judged anew each time: the leaf first, at a moment.
pub struct Judge<F>(WebPkiSupportedAlgorithms, F);

impl<F> Judge<F>
where
    F: Fn(&[CertificateDer<'_>], UnixTime) -> Result<(), rustls::Error>,
{
    /// One that judges by `judge`.
    pub fn new(judge: F) -> Self {
        Judge(AnyPeer::default().0, judge)
    }
}

impl<F> std::fmt::Debug for Judge<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Judge")
    }
}

impl<F> ClientCertVerifier for Judge<F>
where
    F: Fn(&[CertificateDer<'_>], UnixTime) -> Result<(), rustls::Error> + Send + Sync,
{
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(leaf).chain(intermediates).cloned().collect();
        (self.1)(&chain, now).map(|()| ClientCertVerified::assertion())
    }

    holds_the_key!();
}

impl ServerCertVerifier for AnyPeer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    holds_the_key!();
}
