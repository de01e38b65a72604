//! What a certificate says, and when it must be renewed.

use crate::{Error, pem};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The parts of a certificate that Kubernetes reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// DER of the whole certificate.
    pub der: Vec<u8>,
    /// Start of its life.
    pub not_before: Timestamp,
    /// End of its life.
    pub not_after: Timestamp,
    /// Subject `CN`, the user name of a client; the last of several.
    pub common_name: String,
    /// Every subject `O`, the groups of a client.
    pub organizations: Vec<String>,
    /// DNS names it serves.
    pub dns_names: Vec<String>,
    /// Subject alternative names of type IP.
    pub ips: Vec<IpAddr>,
    /// May sign other certificates.
    pub is_ca: bool,
    /// Subject, as DER.
    pub subject: Vec<u8>,
    /// SubjectPublicKeyInfo, as DER.
    pub public_key: Vec<u8>,
    /// Subject key identifier, where present.
    pub key_id: Option<Vec<u8>>,
}

impl Certificate {
    /// Reads the first certificate of a PEM text.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let list = pem::certificates(text.as_bytes())?;
        match list.first() {
            Some(first) => Self::from_der(first),
            None => Err(Error::Pem { what: "certificate".into(), kind: "CERTIFICATE" }),
        }
    }

    /// Reads every certificate of a PEM text.
    pub fn list_from_pem(text: &str) -> Result<Vec<Self>, Error> {
        pem::certificates(text.as_bytes())?.iter().map(|der| Self::from_der(der)).collect()
    }

    /// Reads a DER certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let fail = |reason: String| Error::Certificate { reason };
        let (rest, cert) = X509Certificate::from_der(der).map_err(|e| fail(e.to_string()))?;
        if !rest.is_empty() {
            return Err(fail("trailing bytes".into()));
        }
        let time = |t: x509_parser::time::ASN1Time| {
            Timestamp::from_second(t.timestamp()).map_err(|e| fail(e.to_string()))
        };
        let mut out = Self {
            der: der.to_vec(),
            not_before: time(cert.validity().not_before)?,
            not_after: time(cert.validity().not_after)?,
            common_name: last_string(cert.subject().iter_common_name()),
            organizations: all_strings(cert.subject().iter_organization()),
            dns_names: Vec::new(),
            ips: Vec::new(),
            is_ca: cert.is_ca(),
            subject: cert.subject().as_raw().to_vec(),
            public_key: cert.public_key().raw.to_vec(),
            key_id: None,
        };
        for extension in cert.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    for name in &names.general_names {
                        match name {
                            GeneralName::DNSName(dns) => out.dns_names.push((*dns).to_owned()),
                            GeneralName::IPAddress(bytes) => out.ips.extend(ip(bytes)),
                            _ => {}
                        }
                    }
                }
                ParsedExtension::SubjectKeyIdentifier(id) => out.key_id = Some(id.0.to_vec()),
                _ => {}
            }
        }
        Ok(out)
    }

    /// The certificate as PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.der)
    }

    /// Lower-case hex SHA-256 of the whole certificate.
    #[must_use]
    pub fn hash(&self) -> String {
        hex(&Sha256::digest(&self.der))
    }

    /// Lower-case hex SHA-256 of the public key: the part after `K10` of a join token, kubeadm's `--discovery-token-ca-cert-hash sha256:...`.
    #[must_use]
    pub fn public_key_hash(&self) -> String {
        hex(&Sha256::digest(&self.public_key))
    }

    /// True when the certificate is for this private key.
    #[must_use]
    pub fn has_key(&self, key_pem: &str) -> bool {
        crate::key::parse_key(&self.common_name, key_pem)
            .is_ok_and(|key| rcgen::PublicKeyData::subject_public_key_info(&key) == self.public_key)
    }

    /// True when `authority` made the signature.
    #[must_use]
    pub fn is_signed_by(&self, authority: &Self) -> bool {
        let (Ok((_, cert)), Ok((_, issuer))) =
            (X509Certificate::from_der(&self.der), X509Certificate::from_der(&authority.der))
        else {
            return false;
        };
        cert.verify_signature(Some(issuer.public_key())).is_ok()
    }

    /// True while `now` lies in its life, ends included.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// The moment two thirds of its life are over.
    #[must_use]
    pub fn renewal_time(&self) -> Timestamp {
        let (start, end) = (self.not_before.as_second(), self.not_after.as_second());
        let at = start + (end - start).max(0) / 3 * 2 + (end - start).max(0) % 3 * 2 / 3;
        Timestamp::from_second(at).unwrap_or(self.not_after)
    }
}

/// True from the moment two thirds of the certificate's life are over, and for one whose life has not begun
/// (the clock was wrong when it was made).
#[must_use]
pub fn needs_renewal(cert: &Certificate, now: Timestamp) -> bool {
    now >= cert.renewal_time() || now < cert.not_before
}

pub(crate) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Of several, the last, as Go has it.
pub(crate) fn last_string<'a>(
    values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> String {
    values.last().and_then(|v| v.as_str().ok()).unwrap_or_default().to_owned()
}

pub(crate) fn all_strings<'a>(
    values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
) -> Vec<String> {
    values.filter_map(|v| v.as_str().ok()).map(str::to_owned).collect()
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
