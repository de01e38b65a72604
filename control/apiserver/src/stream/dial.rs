//! Connections to kubelets, pods and services.

use super::destination::{Destination, Trust};
use arc_swap::ArcSwap;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Time to connect and to shake hands.
const LONGEST: Duration = Duration::from_secs(30);

/// Either kind of connection.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Makes connections; knows the certificates to show and to trust.
pub struct Dialer {
    kubelet: ArcSwap<ClientConfig>,
    unverified: Arc<ClientConfig>,
}

/// No dialer can be made of these certificates.
#[derive(Debug, thiserror::Error)]
pub enum DialerError {
    /// Broken PEM.
    #[error("read the kubelet client's certificates")]
    Read(#[source] pki::Error),
    #[error("use the kubelet client's certificates")]
    Use(#[source] rustls::Error),
}

impl Dialer {
    /// Trusts kubelets of `authorities`, and shows them `certificate`. All PEM.
    pub fn new(authorities: &str, certificate: &str, key: &str) -> Result<Self, DialerError> {
        // Who asks for `https:` to a pod or service wants its encryption; upstream checks no more.
        let unverified =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(DialerError::Use)?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(pki::tls::AnyPeer::default()))
                .with_no_client_auth();
        let kubelet = ArcSwap::from_pointee(kubelet_config(authorities, certificate, key)?);
        Ok(Dialer { kubelet, unverified: Arc::new(unverified) })
    }

    /// Uses other certificates from the next connection on.
    pub fn replace(&self, authorities: &str, certificate: &str, key: &str) -> Result<(), DialerError> {
        self.kubelet.store(Arc::new(kubelet_config(authorities, certificate, key)?));
        Ok(())
    }

    /// Opens a connection, over TLS where the destination asks for it.
    pub async fn dial(&self, destination: &Destination) -> io::Result<Box<dyn Connection>> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "i/o timeout");
        tokio::time::timeout(LONGEST, self.connect(destination)).await.map_err(late)?
    }

    async fn connect(&self, destination: &Destination) -> io::Result<Box<dyn Connection>> {
        let stream = TcpStream::connect((destination.host.as_str(), destination.port)).await?;
        stream.set_nodelay(true)?;
        let config = match destination.trust {
            Trust::Plain => return Ok(Box::new(stream)),
            Trust::Kubelet => self.kubelet.load_full(),
            Trust::Unverified => self.unverified.clone(),
        };
        let name = ServerName::try_from(destination.host.clone())
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        Ok(Box::new(TlsConnector::from(config).connect(name, stream).await?))
    }
}

fn kubelet_config(authorities: &str, certificate: &str, key: &str) -> Result<ClientConfig, DialerError> {
    let mut roots = RootCertStore::empty();
    for der in pki::pem::certificates(authorities.as_bytes()).map_err(DialerError::Read)? {
        roots.add(der).map_err(DialerError::Use)?;
    }
    let chain = pki::pem::certificates(certificate.as_bytes()).map_err(DialerError::Read)?;
    let key = pki::pem::private_key(key.as_bytes()).map_err(DialerError::Read)?;
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(DialerError::Use)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(DialerError::Use)
}
