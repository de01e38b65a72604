//! TLS to servers that objects name, with the authorities those objects bring: webhooks and aggregated APIs.
//!
//! Failures are described in the words of Go's `net` and `crypto/tls`, since they end up in messages clients match on.

mod bundle;

use super::dial::Connection;
use bundle::Bundle;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pki::tls::AnyPeer;
use rustls::client::danger::ServerCertVerifier;
use rustls::{CertificateError, ClientConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io;
use std::sync::{Arc, LazyLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Why a bundle of authorities is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// No certificate in it.
    #[error("unable to load root certificates: unable to parse bytes as PEM block")]
    Unreadable,
    /// rustls does not take it.
    #[error("use the certificates")]
    Use(#[source] rustls::Error),
}

/// Whose certificate is shown to the other end.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The machine's own authorities, read once: what Go trusts where no bundle is given.
static SYSTEM: LazyLock<Vec<CertificateDer<'static>>> =
    LazyLock::new(|| rustls_native_certs::load_native_certs().certs);

/// Trusts servers of `bundle` (PEM; the machine's authorities where empty), or any if `unverified`.
pub fn config(
    bundle: &[u8],
    unverified: bool,
    identity: Option<Identity>,
) -> Result<Arc<ClientConfig>, BundleError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = if unverified {
        Arc::new(AnyPeer::default())
    } else {
        let anchors = if bundle.is_empty() {
            SYSTEM.clone()
        } else {
            pki::pem::certificates(bundle).map_err(|_| BundleError::Unreadable)?
        };
        Arc::new(Bundle::new(anchors, provider.clone()))
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(BundleError::Use)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(BundleError::Use)?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// One question on a connection that lives no longer than it: the answer's code, and its body of at most `longest` bytes.
///
/// # Errors
/// What went wrong, in words.
pub async fn exchange<B>(
    stream: Box<dyn Connection>,
    question: http::Request<B>,
    longest: usize,
) -> Result<(u16, Bytes), String>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let words = |e: hyper::Error| if e.is_incomplete_message() { "EOF".to_owned() } else { e.to_string() };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let exchange = async {
        let response = sender.send_request(question).await.map_err(words)?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), longest).collect().await;
        Ok((code, body.map_err(|e| e.to_string())?.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(e) => Err(words(e)),
        },
    }
}

/// Connects to `host:port` and shakes hands with who proves to be `name`; the error is Go's text.
pub async fn connect(
    host: &str,
    port: u16,
    name: &str,
    config: Arc<ClientConfig>,
) -> Result<Box<dyn Connection>, String> {
    let at = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let dialing = |e: &io::Error| format!("dial tcp {at}: {}", go_error(e));
    let stream = TcpStream::connect((host, port)).await.map_err(|e| dialing(&e))?;
    stream.set_nodelay(true).map_err(|e| dialing(&e))?;
    let server = ServerName::try_from(name.to_owned())
        .map_err(|_| format!("tls: failed to verify certificate: x509: invalid server name {name}"))?;
    match TlsConnector::from(config).connect(server, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(e) => Err(tls_error(&e, name)),
    }
}

/// An IO error as Go words it.
#[must_use]
pub fn go_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ if error.raw_os_error().is_none() && error.to_string().contains("lookup") => {
            "lookup: no such host".to_owned()
        }
        _ => error.to_string(),
    }
}

fn tls_error(error: &io::Error, name: &str) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let x509 = |why: &str| format!("tls: failed to verify certificate: x509: {why}");
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                x509("certificate signed by unknown authority")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                x509("certificate has expired or is not yet valid")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                x509("certificate has expired or is not yet valid")
            }
            CertificateError::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
                let names: Vec<&str> = presented.iter().map(|p| inner_name(p)).collect();
                x509(&format!("certificate is valid for {}, not {name}", names.join(", ")))
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                x509(&format!("certificate is not valid for any names, but wanted to match {name}"))
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                x509("certificate specifies an incompatible key usage")
            }
            other => x509(&format!("{other:?}")),
        },
        Some(rustls::Error::InvalidMessage(_)) => {
            "http: server gave HTTP response to HTTPS client".to_owned()
        }
        Some(other) => format!("remote error: tls: {other}"),
        None => go_error(error),
    }
}

/// `DnsName("a.b")` as rustls shows a presented name: the name.
fn inner_name(shown: &str) -> &str {
    shown.split_once('"').and_then(|(_, rest)| rest.split_once('"')).map_or(shown, |(name, _)| name)
}

/// The DNS names a certificate is for.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> impl Iterator<Item = String> + use<> {
    use x509_parser::extensions::GeneralName;
    let mut names = Vec::new();
    if let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate)
        && let Ok(Some(alternatives)) = parsed.subject_alternative_name()
    {
        for name in &alternatives.value.general_names {
            if let GeneralName::DNSName(dns) = name {
                names.push((*dns).to_owned());
            }
        }
    }
    names.into_iter()
}
