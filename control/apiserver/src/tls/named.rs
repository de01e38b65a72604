//! Certificates by the names that clients ask for. Upstream: `apiserver/pkg/server/dynamiccertificates/named_certificates.go`; how a name
//! is found is Go's `crypto/tls`.

use super::{TlsError, read};
use crate::stream::trusted;
use machinery::names::dns1123_subdomain;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use x509_parser::parse_x509_certificate;

/// A certificate chain and its key, and whom it is shown to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPair {
    /// PEM.
    pub certificates: String,
    /// PEM.
    pub key: String,
    /// Domains, `*` for any first label, and addresses; empty: those of the certificate.
    pub names: Vec<String>,
}

/// Certificates by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(HashMap<String, Arc<CertifiedKey>>);

impl Names {
    /// Earlier pairs go before later ones, names that were given before those of certificates.
    pub(super) fn of(pairs: &[NamedPair]) -> Result<Self, TlsError> {
        let (mut own, mut given) = (HashMap::new(), HashMap::new());
        for pair in pairs.iter().rev() {
            let key = Arc::new(read(&pair.certificates, &pair.key)?);
            let names = match (pair.names.is_empty(), key.cert.first()) {
                (true, Some(first)) => names_of(first),
                _ => Vec::new(),
            };
            own.extend(names.into_iter().map(|name| (name, key.clone())));
            given.extend(pair.names.iter().map(|name| (name.clone(), key.clone())));
        }
        own.extend(given);
        Ok(Self(own))
    }

    /// The certificate of a name, or of the domain it is directly in.
    pub(super) fn of_name(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let wildcard = || name.split_once('.').map(|(_, domain)| format!("*.{domain}"));
        self.0.get(&name).or_else(|| self.0.get(&wildcard()?)).cloned()
    }

    /// The certificate of an address of ours.
    pub(super) fn of_address(&self, ip: IpAddr) -> Option<Arc<CertifiedKey>> {
        self.0.get(&ip.to_canonical().to_string()).cloned()
    }

    pub(super) fn has_addresses(&self) -> bool {
        self.0.keys().any(|name| name.parse::<IpAddr>().is_ok())
    }
}

/// The names a certificate says are its own; its addresses are not looked at, as nobody asks for one by name.
fn names_of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = parse_x509_certificate(certificate) else { return Vec::new() };
    let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let is_domain =
        |name: &&str| *name == "*" || dns1123_subdomain(name.strip_prefix("*.").unwrap_or(name)).is_empty();
    let common = common.filter(|name| name.parse::<IpAddr>().is_err()).filter(is_domain);
    let mut names: Vec<String> = common.map(str::to_owned).collect();
    names.extend(trusted::names(certificate));
    names
}
