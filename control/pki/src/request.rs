//! Certificate signing requests (PKCS#10): made for our own keys, parsed and checked for others'.

use crate::certificate::{all_strings, first_string, ip};
use crate::{Error, pem};
use rcgen::{CertificateParams, DistinguishedName, DnType, SanType};
use std::net::IpAddr;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer as _;

/// A parsed request whose signature proves possession of the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateRequest {
    /// Subject `CN`.
    pub common_name: String,
    /// Every subject `O`.
    pub organizations: Vec<String>,
    /// Subject alternative names of type DNS.
    pub dns_names: Vec<String>,
    /// Subject alternative names of type IP.
    pub ips: Vec<IpAddr>,
    /// Subject alternative names of type email.
    pub emails: Vec<String>,
    /// Subject alternative names of type URI.
    pub uris: Vec<String>,
    /// Subject, as DER.
    pub(crate) subject: Vec<u8>,
    /// SubjectPublicKeyInfo, as DER.
    pub(crate) public_key: Vec<u8>,
    /// Value of the alternative names extension, as DER.
    pub(crate) alt_names: Option<Vec<u8>>,
}

impl CertificateRequest {
    /// Parses the PEM text of `spec.request` and verifies its signature. Error texts are upstream's.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let fail = |reason: String| Error::Request { reason };
        let der = pem::blocks(text, "CERTIFICATE REQUEST")
            .into_iter()
            .next()
            .ok_or_else(|| fail("PEM block type must be CERTIFICATE REQUEST".into()))?;
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|e| fail(e.to_string()))?;
        if !rest.is_empty() {
            return Err(fail("asn1: syntax error: trailing data".into()));
        }
        request
            .verify_signature()
            .map_err(|e| fail(format!("unable to verify certificate request signature: {e}")))?;
        let info = &request.certification_request_info;
        let mut out = Self {
            common_name: first_string(info.subject.iter_common_name()),
            organizations: all_strings(info.subject.iter_organization()),
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            ..Self::default()
        };
        for attribute in info.iter_attributes() {
            let x509_parser::cri_attributes::ParsedCriAttribute::ExtensionRequest(asked) =
                attribute.parsed_attribute()
            else {
                continue;
            };
            for extension in asked.extensions.iter().filter(|e| e.oid == OID_X509_EXT_SUBJECT_ALT_NAME) {
                let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                    return Err(fail("x509: invalid subject alternative names".into()));
                };
                out.alt_names = Some(extension.value.to_vec());
                for name in &names.general_names {
                    match name {
                        GeneralName::DNSName(dns) => out.dns_names.push((*dns).to_owned()),
                        GeneralName::RFC822Name(mail) => out.emails.push((*mail).to_owned()),
                        GeneralName::URI(uri) => out.uris.push((*uri).to_owned()),
                        GeneralName::IPAddress(bytes) => out.ips.push(ip(bytes).ok_or_else(|| {
                            fail(format!("x509: cannot parse IP address of length {}", bytes.len()))
                        })?),
                        _ => {}
                    }
                }
            }
        }
        Ok(out)
    }
}

/// What we ask a signer for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Subject `CN`, such as `system:node:worker-1`.
    pub common_name: String,
    /// Subject `O`, such as `system:nodes`; empty for none.
    pub organization: String,
    /// Subject alternative names of type DNS.
    pub dns_names: Vec<String>,
    /// Subject alternative names of type IP.
    pub ips: Vec<IpAddr>,
}

impl Subject {
    /// The subject every kubelet certificate has: `system:node:NAME` in `system:nodes`.
    #[must_use]
    pub fn node(name: &str) -> Self {
        Self {
            common_name: format!("system:node:{name}"),
            organization: "system:nodes".into(),
            dns_names: Vec::new(),
            ips: Vec::new(),
        }
    }

    /// A user in no group.
    #[must_use]
    pub fn user(name: &str) -> Self {
        Self {
            common_name: name.to_owned(),
            organization: String::new(),
            dns_names: Vec::new(),
            ips: Vec::new(),
        }
    }

    /// A request for this subject signed by `key_pem` (made by [`new_key`]), as PEM.
    pub fn request(&self, key_pem: &str) -> Result<String, Error> {
        let fail = |e: rcgen::Error| Error::Sign { what: "certificate request", reason: e.to_string() };
        let key = crate::key::parse_key(&self.common_name, key_pem)?;
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        if !self.organization.is_empty() {
            subject.push(DnType::OrganizationName, self.organization.clone());
        }
        subject.push(DnType::CommonName, self.common_name.clone());
        params.distinguished_name = subject;
        for name in &self.dns_names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(fail)?));
        }
        params.subject_alt_names.extend(self.ips.iter().copied().map(SanType::IpAddress));
        params.serialize_request(&key).and_then(|csr| csr.pem()).map_err(fail)
    }
}

/// A new ECDSA P-256 private key as PEM (PKCS#8).
pub fn new_key() -> Result<String, Error> {
    Ok(crate::key::new_key()?.serialize_pem())
}

/// The lower-case hex SHA-256 of the public half of a private key.
pub fn key_digest(key_pem: &str) -> Result<String, Error> {
    let key = crate::key::parse_key("private key", key_pem)?;
    Ok(crate::bootstrap::digest(&rcgen::PublicKeyData::subject_public_key_info(&key)))
}
