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
    /// Trusts kubelets of `authorities` (any kubelet where there are none, as upstream without
    /// `--kubelet-certificate-authority`), and shows them `certificate`. All PEM.
    pub fn new(authorities: Option<&str>, certificate: &str, key: &str) -> Result<Self, DialerError> {
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
    pub fn replace(
        &self,
        authorities: Option<&str>,
        certificate: &str,
        key: &str,
    ) -> Result<(), DialerError> {
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

fn kubelet_config(
    authorities: Option<&str>,
    certificate: &str,
    key: &str,
) -> Result<ClientConfig, DialerError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(DialerError::Use)?;
    let builder = match authorities {
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            for der in pki::pem::certificates(authorities.as_bytes()).map_err(DialerError::Read)? {
                roots.add(der).map_err(DialerError::Use)?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(pki::tls::AnyPeer::default())),
    };
    let chain = pki::pem::certificates(certificate.as_bytes()).map_err(DialerError::Read)?;
    let key = pki::pem::private_key(key.as_bytes()).map_err(DialerError::Read)?;
    builder.with_client_auth_cert(chain, key).map_err(DialerError::Use)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise, and ends what it spawns"
)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use pki::authority::{Authority, Leaf};
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    /// A kubelet of another authority than ours that takes one connection; its address.
    async fn kubelet(of: &Authority) -> Destination {
        let leaf = Leaf::server("n1", vec!["n1".to_owned()], vec![Ipv4Addr::LOCALHOST.into()]);
        let issued = of.issue(&leaf, Timestamp::now()).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    pki::pem::certificates(issued.cert_pem.as_bytes()).unwrap(),
                    pki::pem::private_key(issued.key_pem.as_bytes()).unwrap(),
                )
                .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
        });
        Destination::kubelet(Ipv4Addr::LOCALHOST.to_string(), port, String::new())
    }

    #[tokio::test]
    async fn without_an_authority_a_kubelet_that_signed_for_itself_must_not_be_refused() {
        let authority = |name: &str| Authority::generate(name, Timestamp::now()).unwrap();
        let (ours, theirs) = (authority("ours"), authority("theirs"));
        let client = ours.issue(&Leaf::client("kube-apiserver", &[]), Timestamp::now()).unwrap();
        let dialer = |of: Option<&str>| Dialer::new(of, &client.cert_pem, &client.key_pem).unwrap();
        assert!(dialer(None).dial(&kubelet(&theirs).await).await.is_ok());
        let (own, other) = (ours.cert_pem(), theirs.cert_pem());
        assert!(dialer(Some(&own)).dial(&kubelet(&theirs).await).await.is_err());
        assert!(dialer(Some(&other)).dial(&kubelet(&theirs).await).await.is_ok());
        let replaced = dialer(Some(&own));
        replaced.replace(None, &client.cert_pem, &client.key_pem).unwrap();
        assert!(replaced.dial(&kubelet(&theirs).await).await.is_ok());
    }
}
