//! What the kubelet's port agrees on with its clients (`tlsMinVersion`, `tlsCipherSuites`).

use rustls::crypto::{CryptoProvider, ring};
use rustls::version::{TLS12, TLS13};
use rustls::{ProtocolVersion, SupportedProtocolVersion};

/// Versions as a `KubeletConfiguration` names them, and whether only TLS 1.3 is left then. What is older than 1.2 is not spoken here.
const VERSIONS: [(&str, bool); 4] =
    [("VersionTLS10", false), ("VersionTLS11", false), ("VersionTLS12", false), ("VersionTLS13", true)];
/// Suites that Go has and this program does not: a list that names them beside others is taken without them.
const ELSEWHERE: [&str; 12] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
];

static NEWEST: &[&SupportedProtocolVersion] = &[&TLS13];
static BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Versions and suites of a handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    only_tls13: bool,
    /// Of TLS 1.2's suites just these, by name; those of TLS 1.3 are not chosen, as in Go.
    suites: Option<Vec<String>>,
}

impl Agreed {
    /// Reads the two fields.
    ///
    /// # Errors
    /// A version or suite that nobody knows; upstream's words.
    pub(crate) fn of(version: Option<&str>, suites: &[String]) -> Result<Self, String> {
        let version = version.unwrap_or("VersionTLS12");
        let known = VERSIONS.iter().find(|(name, _)| *name == version);
        let (_, only_tls13) =
            known.ok_or_else(|| format!("unknown tls version {version:?} (tlsMinVersion)"))?;
        let own: Vec<String> = ring::default_provider().cipher_suites.iter().map(name).collect();
        // Go's older names lack the hash.
        let full = |suite: &String| match suite.ends_with("_POLY1305") {
            true => format!("{suite}_SHA256"),
            false => suite.clone(),
        };
        let suites: Vec<String> = suites.iter().map(full).collect();
        if let Some(unknown) = suites.iter().find(|s| !own.contains(s) && !ELSEWHERE.contains(&s.as_str())) {
            return Err(format!("Cipher suite {unknown} not supported or doesn't exist"));
        }
        Ok(Self { only_tls13: *only_tls13, suites: (!suites.is_empty()).then_some(suites) })
    }

    /// The versions, newest first.
    pub(crate) fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        if self.only_tls13 { NEWEST } else { BOTH }
    }

    /// Cryptography with just these suites.
    pub(crate) fn provider(&self) -> CryptoProvider {
        let mut provider = ring::default_provider();
        if let Some(suites) = &self.suites {
            provider.cipher_suites.retain(|suite| {
                suite.version().version == ProtocolVersion::TLSv1_3 || suites.contains(&name(suite))
            });
        }
        provider
    }
}

fn name(suite: &rustls::SupportedCipherSuite) -> String {
    // Those of TLS 1.3 are `TLS13_...` here.
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_is_agreed_on() {
        let suites = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let count = |version: Option<&str>, names: &[&str]| {
            let agreed = Agreed::of(version, &suites(names)).unwrap();
            (agreed.versions().len(), agreed.provider().cipher_suites.len())
        };
        let all = ring::default_provider().cipher_suites.len();
        assert_eq!(count(None, &[]), (2, all));
        assert_eq!(count(Some("VersionTLS13"), &[]), (1, all));
        let one = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA"];
        assert_eq!(count(None, &one), (2, 4), "one of 1.2, the three of 1.3");
        assert_eq!(count(None, &["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"]), (2, 4));
        assert!(Agreed::of(Some("VersionTLS14"), &[]).unwrap_err().contains("unknown tls version"));
        assert!(Agreed::of(None, &suites(&["NONE"])).unwrap_err().contains("not supported or doesn't exist"));
    }
}
