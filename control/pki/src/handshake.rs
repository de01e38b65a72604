//! What a TLS handshake may agree on, by the names that flags and configuration files have for it. Upstream:
//! `component-base/cli/flag/{ciphersuites,curves}_flag.go`.

use rustls::crypto::{CryptoProvider, ring};
use rustls::version::TLS13;
use rustls::{CipherSuite, NamedGroup, ProtocolVersion, SupportedProtocolVersion};
use std::collections::BTreeSet;

/// Versions by Go's names.
const VERSIONS: [(&str, ProtocolVersion); 4] = [
    ("VersionTLS10", ProtocolVersion::TLSv1_0),
    ("VersionTLS11", ProtocolVersion::TLSv1_1),
    ("VersionTLS12", ProtocolVersion::TLSv1_2),
    ("VersionTLS13", ProtocolVersion::TLSv1_3),
];
/// The suites of TLS 1.2 that are here, by Go's names; two of them have an older one.
const SUITES: [(&str, CipherSuite); 8] = [
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];
/// The suites of TLS 1.3, which Go takes and does not choose among.
const SUITES_13: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
/// Suites of Go's that are not here: without forward secrecy, or broken.
const ABSENT: [&str; 16] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];
/// Go's groups by number, and those of them that are here.
const GROUPS: [(u16, Option<NamedGroup>); 7] = [
    (23, Some(NamedGroup::secp256r1)),
    (24, Some(NamedGroup::secp384r1)),
    (25, None),
    (29, Some(NamedGroup::X25519)),
    (4587, None),
    (4588, None),
    (4589, None),
];

static NEWEST: [&SupportedProtocolVersion; 1] = [&TLS13];

/// What a handshake may agree on; all that is known by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// Nothing older than TLS 1.3.
    pub only_tls13: bool,
    /// Of TLS 1.2's suites just these; those of TLS 1.3 are not chosen, as in Go.
    pub suites: Option<Vec<CipherSuite>>,
    /// Key exchanges just in these groups.
    pub groups: Option<Vec<NamedGroup>>,
    /// HTTP/1.1 alone.
    pub no_http2: bool,
}

impl Agreed {
    /// The suites of TLS 1.2 there are.
    #[must_use]
    pub fn known_suites() -> Vec<CipherSuite> {
        let all = ring::default_provider().cipher_suites;
        let old = all.iter().filter(|suite| suite.version().version == ProtocolVersion::TLSv1_2);
        old.map(|suite| suite.suite()).collect()
    }

    /// The groups of key exchanges there are.
    #[must_use]
    pub fn known_groups() -> Vec<NamedGroup> {
        ring::default_provider().kx_groups.iter().map(|group| group.name()).collect()
    }

    /// The versions of TLS.
    #[must_use]
    pub fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        if self.only_tls13 { &NEWEST } else { rustls::DEFAULT_VERSIONS }
    }

    /// Cryptography with just these suites and groups.
    #[must_use]
    pub fn provider(&self) -> CryptoProvider {
        let mut provider = ring::default_provider();
        if let Some(suites) = &self.suites {
            provider.cipher_suites.retain(|suite| {
                suite.version().version == ProtocolVersion::TLSv1_3 || suites.contains(&suite.suite())
            });
        }
        if let Some(groups) = &self.groups {
            provider.kx_groups.retain(|group| groups.contains(&group.name()));
        }
        provider
    }

    /// The protocols above TLS, the preferred one first (ALPN).
    #[must_use]
    pub fn protocols(&self) -> Vec<Vec<u8>> {
        match self.no_http2 {
            true => vec![b"http/1.1".to_vec()],
            false => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        }
    }
}

/// What names stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<T> {
    /// What can be agreed on.
    pub here: Vec<T>,
    /// The names of what Go has, and nobody agrees on here.
    pub absent: Vec<String>,
}

/// The oldest version that is spoken, by its name; older ones than TLS 1.2 never are.
///
/// # Errors
/// Nobody knows it; upstream's words.
pub fn oldest(name: &str) -> Result<ProtocolVersion, String> {
    let found = VERSIONS.iter().find(|(known, _)| *known == name);
    found.map(|(_, version)| *version).ok_or_else(|| format!("unknown tls version {name:?}"))
}

/// Suites by name.
///
/// # Errors
/// Nobody knows one of them; upstream's words.
pub fn suites(names: &[String]) -> Result<Named<CipherSuite>, String> {
    let mut named = Named { here: Vec::new(), absent: Vec::new() };
    for name in names {
        match SUITES.iter().find(|(known, _)| known == name) {
            Some((_, suite)) => named.here.push(*suite),
            None if SUITES_13.contains(&name.as_str()) => {}
            None if ABSENT.contains(&name.as_str()) => named.absent.push(name.clone()),
            None => return Err(format!("Cipher suite {name} not supported or doesn't exist")),
        }
    }
    Ok(named)
}

/// Groups of key exchanges by number.
///
/// # Errors
/// One is named twice, or none of Go's; upstream's words.
pub fn groups(numbers: &[i32]) -> Result<Named<NamedGroup>, String> {
    let (mut named, mut seen) = (Named { here: Vec::new(), absent: Vec::new() }, BTreeSet::new());
    for number in numbers {
        let Some(id) = u16::try_from(*number).ok().filter(|id| *id > 0) else {
            return Err(format!("curve preference {number} is out of range (must be 1-65535)"));
        };
        if !seen.insert(id) {
            return Err(format!("duplicate curve preference {id}"));
        }
        match GROUPS.iter().find(|(known, _)| *known == id) {
            Some((_, Some(group))) => named.here.push(*group),
            Some((_, None)) => named.absent.push(id.to_string()),
            None => return Err(format!("curve preference {id} is not supported by the current Go version")),
        }
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_suite_and_group_of_the_tables_is_here() {
        let (suites, groups) = (Agreed::known_suites(), Agreed::known_groups());
        assert!(SUITES.iter().all(|(_, suite)| suites.contains(suite)));
        assert!(GROUPS.iter().filter_map(|(_, group)| *group).all(|group| groups.contains(&group)));
    }

    #[test]
    fn what_nobody_knows_must_not_be_taken_for_no_bound() {
        assert_eq!(oldest("TLS13").unwrap_err(), "unknown tls version \"TLS13\"");
        assert_eq!(suites(&owned(&["AES"])).unwrap_err(), "Cipher suite AES not supported or doesn't exist");
        assert_eq!(
            groups(&[7]).unwrap_err(),
            "curve preference 7 is not supported by the current Go version"
        );
        assert_eq!(
            groups(&[70_000]).unwrap_err(),
            "curve preference 70000 is out of range (must be 1-65535)"
        );
        assert_eq!(groups(&[29, 29]).unwrap_err(), "duplicate curve preference 29");
    }

    #[test]
    fn only_what_is_named_is_agreed_on() {
        let named = suites(&owned(&[
            "TLS_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
            "TLS_RSA_WITH_AES_128_CBC_SHA",
        ]))
        .unwrap();
        assert_eq!(named.here, [CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256]);
        assert_eq!(named.absent, ["TLS_RSA_WITH_AES_128_CBC_SHA"]);
        let agreed =
            Agreed { suites: Some(named.here), only_tls13: true, no_http2: true, ..Agreed::default() };
        assert_eq!(agreed.provider().cipher_suites.len(), 4, "one of 1.2, the three of 1.3");
        assert_eq!((agreed.versions().len(), agreed.protocols().len()), (1, 1));
        let all = Agreed::default();
        assert_eq!((all.versions().len(), all.protocols().len()), (2, 2));
        assert_eq!(groups(&[4588, 29]).unwrap().here, [NamedGroup::X25519]);
    }
}
