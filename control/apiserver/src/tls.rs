//! The server's end of TLS: certificates that can be replaced while it runs, and client certificates that are asked for
//! but judged later, by [`crate::authn::certificate`].
//!
//! [`named`]: certificates for those who ask for a name of theirs; [`Agreed`]: what a handshake may agree on.

mod named;

pub use named::NamedPair;
pub use pki::handshake::Agreed;

use arc_swap::ArcSwap;
use named::Names;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::net::IpAddr;
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

/// The serving certificates, replaced as a whole: one for all, and others by the names that clients ask for.
#[derive(Debug)]
pub struct ServingCertificate(ArcSwap<Served>);

#[derive(Clone, Debug)]
struct Served {
    default: Arc<CertifiedKey>,
    names: Names,
}

impl ServingCertificate {
    /// Reads a certificate chain and its key.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Arc<Self>, TlsError> {
        let default = Arc::new(read(certificates, key)?);
        Ok(Arc::new(ServingCertificate(ArcSwap::from_pointee(Served { default, names: Names::default() }))))
    }

    /// Serves with another certificate from the next handshake on.
    pub fn replace(&self, certificates: &str, key: &str) -> Result<(), TlsError> {
        let default = Arc::new(read(certificates, key)?);
        self.0.rcu(|served| Served { default: default.clone(), ..Served::clone(served) });
        Ok(())
    }

    /// Serves with these to those who ask for one of their names, from the next handshake on. The first that has a name has it.
    pub fn replace_named(&self, pairs: &[NamedPair]) -> Result<(), TlsError> {
        let names = Names::of(pairs)?;
        self.0.rcu(|served| Served { names: names.clone(), ..Served::clone(served) });
        Ok(())
    }

    /// Whether some are served by the address that was called, for clients that ask for no name.
    pub(crate) fn has_addresses(&self) -> bool {
        self.0.load().names.has_addresses()
    }
}

fn read(certificates: &str, key: &str) -> Result<CertifiedKey, TlsError> {
    let chain = pki::pem::certificates(certificates.as_bytes()).map_err(TlsError::Read)?;
    let key = pki::pem::private_key(key.as_bytes()).map_err(TlsError::Read)?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(TlsError::Use)
}

/// The certificates as a handshake sees them.
#[derive(Debug)]
struct Resolver {
    served: Arc<ServingCertificate>,
    /// The address of ours that was called.
    called: Option<IpAddr>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let served = self.served.0.load();
        let named = match hello.server_name() {
            Some(name) => served.names.of_name(name),
            None => self.called.and_then(|ip| served.names.of_address(ip)),
        };
        Some(named.unwrap_or_else(|| served.default.clone()))
    }
}

/// The server's end, with what may be agreed on.
pub fn server_config(
    certificate: Arc<ServingCertificate>,
    agreed: &Agreed,
) -> Result<ServerConfig, TlsError> {
    let resolver = Resolver { served: certificate, called: None };
    let mut config = ServerConfig::builder_with_provider(Arc::new(agreed.provider()))
        .with_protocol_versions(agreed.versions())
        .map_err(TlsError::Use)?
        .with_client_cert_verifier(Arc::new(pki::tls::AnyPeer::default()))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = agreed.protocols();
    // A resumed session would not show the client's certificate again to a changed set of authorities.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The end of TLS of a listener.
pub(crate) struct End {
    config: Arc<ServerConfig>,
    served: Arc<ServingCertificate>,
}

impl End {
    pub(crate) fn new(served: Arc<ServingCertificate>, agreed: &Agreed) -> Result<Self, TlsError> {
        Ok(Self { config: Arc::new(server_config(served.clone(), agreed)?), served })
    }

    /// What a connection to this address of ours is accepted with.
    pub(crate) fn acceptor(&self, called: Option<IpAddr>) -> tokio_rustls::TlsAcceptor {
        if !self.served.has_addresses() {
            return self.config.clone().into();
        }
        let mut config = ServerConfig::clone(&self.config);
        config.cert_resolver = Arc::new(Resolver { served: self.served.clone(), called });
        Arc::new(config).into()
    }
}

#[cfg(test)]
mod tests;
