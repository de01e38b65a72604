//! Whether a server is one that a bundle of authorities vouches for: as Go decides, where rustls is stricter.

use pki::tls::AnyPeer;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// Authorities between a server's certificate and the bundle; longer chains are nobody's.
const DEEPEST: usize = 8;

/// Checks chains up to a bundle; a server may also show a certificate that is in the bundle itself, as Go allows.
#[derive(Debug)]
pub(super) struct Bundle {
    chains: Option<Arc<WebPkiServerVerifier>>,
    anchors: Vec<CertificateDer<'static>>,
    signatures: AnyPeer,
}

impl Bundle {
    pub(super) fn new(anchors: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(anchors.iter().cloned());
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok();
        Bundle { chains, anchors, signatures: AnyPeer::default() }
    }

    /// Go lets the certificate of an authority serve that another one made; webpki does not.
    fn verify_authority(
        &self,
        shown: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        in_time(shown, now)?;
        rustls::client::verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
        if !may_serve(shown) {
            return Err(CertificateError::InvalidPurpose.into());
        }
        let read = |der: &CertificateDer<'_>| pki::Certificate::from_der(der).ok();
        let between: Vec<_> =
            others.iter().filter(|der| in_time(der, now).is_ok()).filter_map(read).collect();
        let anchors: Vec<_> = self.anchors.iter().filter_map(read).collect();
        let mut last = read(shown);
        for _ in 0..=DEEPEST {
            let Some(certificate) = last else { break };
            if anchors.iter().any(|anchor| certificate.is_signed_by(anchor)) {
                return Ok(ServerCertVerified::assertion());
            }
            last = between.iter().find(|other| other.is_ca && certificate.is_signed_by(other)).cloned();
        }
        Err(CertificateError::UnknownIssuer.into())
    }
}

impl ServerCertVerifier for Bundle {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.anchors.iter().any(|anchor| anchor.as_ref() == end_entity.as_ref()) {
            let parsed = ParsedCertificate::try_from(end_entity);
            // A certificate of version 1, or an authority's, is no end entity to webpki: its name is read apart.
            match parsed {
                Ok(certificate) => rustls::client::verify_server_name(&certificate, server_name)?,
                Err(_) if super::names(end_entity).any(|name| name == server_name.to_str()) => {}
                Err(e) => return Err(e),
            }
            return in_time(end_entity, now).map(|()| ServerCertVerified::assertion());
        }
        if pki::Certificate::from_der(end_entity).is_ok_and(|certificate| certificate.is_ca) {
            return self.verify_authority(end_entity, intermediates, server_name, now);
        }
        match &self.chains {
            Some(chains) => chains.verify_server_cert(end_entity, intermediates, server_name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(&self.signatures, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(&self.signatures, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(&self.signatures)
    }
}

/// Whether a certificate does not say that it is for something other than servers.
fn may_serve(certificate: &CertificateDer<'_>) -> bool {
    x509_parser::parse_x509_certificate(certificate).is_ok_and(|(_, parsed)| {
        let usage = parsed.extended_key_usage();
        usage.is_ok_and(|usage| usage.is_none_or(|usage| usage.value.server_auth || usage.value.any))
    })
}

fn in_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// `root`; `middle` by root; `direct` and `client` (for clients only) by root and `below` by middle, all three authorities with names; `plain`, no
    /// authority, by middle, and `under` by plain; `stranger` by itself.
    fn certificates() -> HashMap<&'static str, CertificateDer<'static>> {
        let text = include_str!("authorities.pem");
        let mut found = HashMap::new();
        let mut name = "";
        for line in text.lines() {
            match line.trim() {
                "-----BEGIN CERTIFICATE-----" => {
                    let from = text.find(&format!("{name}\n-----BEGIN")).unwrap() + name.len() + 1;
                    let der = pki::pem::certificates(&text.as_bytes()[from..]).unwrap().remove(0);
                    found.insert(name, der);
                }
                word => name = word,
            }
        }
        found
    }

    fn verify(bundle: &[&str], shown: &str, between: &[&str], name: &str) -> Result<(), rustls::Error> {
        let all = certificates();
        let of = |names: &[&str]| names.iter().map(|name| all[name].clone()).collect::<Vec<_>>();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let bundle = Bundle::new(of(bundle), provider);
        bundle.verify_server_cert(&all[shown], &of(between), &name, &[], UnixTime::now()).map(drop)
    }

    #[test]
    fn an_authority_that_another_made_may_serve() {
        for (shown, between) in [("direct", &[][..]), ("below", &["middle"]), ("below", &["plain", "middle"])]
        {
            for name in ["hook.default.svc", "127.0.0.1"] {
                verify(&["root"], shown, between, name).unwrap();
            }
        }
        verify(&["stranger"], "stranger", &[], "hook.default.svc").unwrap();
        verify(&["stranger", "root"], "direct", &[], "127.0.0.1").unwrap();
    }

    #[test]
    fn an_authority_must_not_serve_under_another_name_for_another_purpose_or_by_nobody_known() {
        let other = verify(&["root"], "direct", &[], "other.default.svc").unwrap_err();
        assert!(format!("{other:?}").contains("NotValidForName"), "{other:?}");
        let client = verify(&["root"], "client", &[], "127.0.0.1");
        assert_eq!(client, Err(CertificateError::InvalidPurpose.into()));
        for (bundle, shown, between) in [
            ("stranger", "direct", &[][..]),
            ("root", "stranger", &[]),
            ("root", "below", &[]),
            ("root", "under", &["plain", "middle"]),
        ] {
            let unknown = verify(&[bundle], shown, between, "127.0.0.1");
            assert_eq!(unknown, Err(CertificateError::UnknownIssuer.into()), "{shown} by {bundle}");
        }
    }
}
