//! What the kubelet's port agrees on with its clients (`tlsMinVersion`, `tlsCipherSuites`).

use pki::handshake::{self, Agreed};
use rustls::ProtocolVersion;

/// Reads the two fields. Suites that Go has and this program does not are never agreed on; a list that names them beside others is taken
/// without them.
///
/// # Errors
/// A version or suite that nobody knows; upstream's words.
pub(crate) fn agreed(version: Option<&str>, suites: &[String]) -> Result<Agreed, String> {
    let oldest = handshake::oldest(version.unwrap_or("VersionTLS12"));
    let oldest = oldest.map_err(|why| format!("{why} (tlsMinVersion)"))?;
    let named = handshake::suites(suites)?;
    Ok(Agreed {
        only_tls13: oldest == ProtocolVersion::TLSv1_3,
        suites: (!suites.is_empty()).then_some(named.here),
        ..Agreed::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_is_agreed_on() {
        let suites = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let count = |version: Option<&str>, names: &[&str]| {
            let agreed = agreed(version, &suites(names)).unwrap();
            (agreed.versions().len(), agreed.provider().cipher_suites.len())
        };
        let all = Agreed::default().provider().cipher_suites.len();
        assert_eq!(count(None, &[]), (2, all));
        assert_eq!(count(Some("VersionTLS13"), &[]), (1, all));
        let one = ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA"];
        assert_eq!(count(None, &one), (2, 4), "one of 1.2, the three of 1.3");
        assert_eq!(count(None, &["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"]), (2, 4));
        assert!(agreed(Some("VersionTLS14"), &[]).unwrap_err().contains("unknown tls version"));
        assert!(agreed(None, &suites(&["NONE"])).unwrap_err().contains("not supported or doesn't exist"));
    }
}
