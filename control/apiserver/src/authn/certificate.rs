//! Client certificates: the common name is the user, the organisations are the groups.
//! Upstream: `apiserver/pkg/authentication/request/x509`.
//!
//! TLS itself accepts any certificate whose key the client holds; whether it is one of ours is decided here, so that a
//! unknown client is answered 401 as upstream answers, and the authorities can change while the server runs.

use crate::context::User;
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The authorities client certificates may come from.
#[derive(Clone)]
pub struct Authorities(Arc<dyn ClientCertVerifier>);

/// No authority can be made of what was given.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// The text holds no certificate, or a broken one.
    #[error("read client authorities")]
    Read(#[source] pki::Error),
    /// A certificate cannot be an authority.
    #[error("use client authority")]
    Use(#[source] rustls::Error),
    #[error("build the verifier of client certificates")]
    Build(#[source] rustls::server::VerifierBuilderError),
}

impl Authorities {
    /// What a verifier says of a chain.
    #[must_use]
    pub fn by(verifier: Arc<dyn ClientCertVerifier>) -> Self {
        Authorities(verifier)
    }

    /// Whether these are the same, not just alike.
    fn are(&self, others: &Self) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.0), Arc::as_ptr(&others.0))
    }

    /// Reads PEM certificates.
    pub fn from_pem(text: &str) -> Result<Self, AuthoritiesError> {
        let mut roots = RootCertStore::empty();
        for der in pki::pem::certificates(text.as_bytes()).map_err(AuthoritiesError::Read)? {
            roots.add(CertificateDer::from(der.to_vec())).map_err(AuthoritiesError::Use)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(AuthoritiesError::Build)?;
        Ok(Authorities(verifier))
    }
}

/// The other end of a connection.
#[derive(Default)]
pub struct Peer {
    /// Absent for requests that come through no socket.
    pub address: Option<SocketAddr>,
    /// Its certificates, the leaf first.
    certificates: Vec<CertificateDer<'static>>,
    /// What the authorities said at the first request: chains do not change while a connection lives. Time does, and so may the authorities:
    /// what others have said is not heard any more.
    verified: Mutex<Option<(Authorities, Verdict)>>,
}

type Verdict = Result<Option<Verified>, String>;

#[derive(Clone)]
struct Verified {
    user: User,
    not_after: Timestamp,
}

impl Peer {
    /// A peer that showed these certificates.
    #[must_use]
    pub fn new(address: Option<SocketAddr>, certificates: Vec<CertificateDer<'static>>) -> Self {
        Peer { address, certificates, verified: Mutex::default() }
    }

    /// Who the certificate says it is by other authorities than the usual ones; it is verified again.
    pub(super) fn user_by(&self, authorities: &Authorities, now: Timestamp) -> Result<Option<User>, String> {
        Ok(verify(&self.certificates, authorities, now)?.map(|verified| verified.user))
    }

    fn verdict(&self, authorities: &Authorities, now: Timestamp) -> Verdict {
        let mut verified = self.verified.lock();
        match &*verified {
            Some((by, verdict)) if by.are(authorities) => verdict.clone(),
            _ => {
                let verdict = verify(&self.certificates, authorities, now);
                *verified = Some((authorities.clone(), verdict.clone()));
                verdict
            }
        }
    }

    /// Who the certificate says it is; `None` without a certificate or a common name.
    pub fn user(&self, authorities: &Authorities, now: Timestamp) -> Result<Option<User>, String> {
        match self.verdict(authorities, now)? {
            Some(v) if now > v.not_after => {
                Err("x509: certificate has expired or is not yet valid".to_owned())
            }
            verified => Ok(verified.map(|v| v.user)),
        }
    }
}

fn verify(certificates: &[CertificateDer<'static>], authorities: &Authorities, now: Timestamp) -> Verdict {
    let Some((leaf, intermediates)) = certificates.split_first() else { return Ok(None) };
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    authorities
        .0
        .verify_client_cert(leaf, intermediates, at)
        .map_err(|e| format!("verifying certificate: {e}"))?;
    let certificate = pki::Certificate::from_der(leaf).map_err(|e| format!("reading certificate: {e}"))?;
    if certificate.common_name.is_empty() {
        return Ok(None);
    }
    let id = vec![format!("X509SHA256={}", certificate.hash())];
    let user = User {
        name: certificate.common_name,
        groups: certificate.organizations,
        extra: BTreeMap::from([("authentication.kubernetes.io/credential-id".to_owned(), id)]),
        ..User::default()
    };
    Ok(Some(Verified { user, not_after: certificate.not_after }))
}
