//! Certificate signing requests (PKCS#10): made for our own keys, parsed and checked for others'.

use crate::authority::name_of;
use crate::certificate::{all_strings, ip, last_string};
use crate::{Error, node, pem};
use rcgen::{CertificateParams, DistinguishedName, DnType, SanType};
use std::net::IpAddr;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::AttributeTypeAndValue;

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
    /// Subject, as DER, written by what was read.
    pub(crate) subject: Vec<u8>,
    /// SubjectPublicKeyInfo, as DER.
    pub(crate) public_key: Vec<u8>,
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
        // Readers differ in which one they take: nobody is to be certified who is two.
        if info.subject.iter_common_name().nth(1).is_some() {
            return Err(fail("the subject has more than one common name".into()));
        }
        let attribute = |attribute: &AttributeTypeAndValue<'_>| {
            let text =
                attribute.as_str().map_err(|_| fail("an attribute of the subject is no text".into()))?;
            Ok((attribute.attr_type().as_bytes().to_vec(), text.to_owned()))
        };
        let attributes: Vec<_> =
            info.subject.iter_attributes().map(attribute).collect::<Result<_, Error>>()?;
        let mut out = Self {
            common_name: last_string(info.subject.iter_common_name()),
            organizations: all_strings(info.subject.iter_organization()),
            subject: name_of(attributes.iter().map(|(kind, text)| (kind.as_slice(), text.as_str()))),
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
            common_name: node::user(name),
            organization: node::GROUP.into(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::der::{self, tag};
    use crate::{Authority, Certificate};
    use jiff::{SignedDuration, Timestamp};
    use rcgen::{PublicKeyData as _, SigningKey as _};

    const CN: [u8; 3] = [0x55, 4, 3];
    const O: [u8; 3] = [0x55, 4, 10];
    const OU: [u8; 3] = [0x55, 4, 11];

    /// A request for a subject as it is given.
    fn asked(subject: &[u8]) -> Result<CertificateRequest, Error> {
        let key = crate::key::new_key().unwrap();
        let spki = key.subject_public_key_info();
        let info = der::sequence(&[&der::unsigned(&[0]), subject, &spki, &der::tlv(0xa0, &[])]);
        let algorithm = der::sequence(&[&der::oid(&[1, 2, 840, 10045, 4, 3, 2])]);
        let signature = der::bits(&key.sign(&info).unwrap());
        let whole = der::sequence(&[&info, &algorithm, &signature]);
        CertificateRequest::from_pem(&pem::encode("CERTIFICATE REQUEST", &whole))
    }

    #[test]
    fn a_request_of_two_names_must_not_be_signed() {
        let of = |attributes: &[(&[u8], &str)]| asked(&name_of(attributes.iter().copied()));
        let nodes: (&[u8], &str) = (&O, "system:nodes");
        let error = of(&[nodes, (&CN, "system:node:n1"), (&CN, "system:node:n2")]).unwrap_err().to_string();
        assert_eq!(error, "the subject has more than one common name");
        // In one set, as in two.
        let pair = |kind: &[u8], text: &str| {
            der::sequence(&[&der::tlv(tag::OID, kind), &der::tlv(tag::UTF8_STRING, text.as_bytes())])
        };
        let set = der::tlv(tag::SET, &[pair(&CN, "a"), pair(&CN, "b")].concat());
        assert!(asked(&der::sequence(&[&set])).is_err());
        let bytes = der::sequence(&[&der::tlv(tag::OID, &CN), &der::tlv(tag::OCTET_STRING, &[0xff])]);
        assert!(asked(&der::sequence(&[&der::tlv(tag::SET, &bytes)])).is_err(), "no text");
    }

    #[test]
    fn a_subject_that_is_written_in_an_odd_way_must_not_be_copied() {
        let set = |parts: &[(&[u8], u8, &str)]| {
            let pairs: Vec<u8> = parts
                .iter()
                .flat_map(|(kind, form, text)| {
                    der::sequence(&[&der::tlv(tag::OID, kind), &der::tlv(*form, text.as_bytes())])
                })
                .collect();
            der::tlv(tag::SET, &pairs)
        };
        // PrintableString, and two attributes in one set.
        let odd = [set(&[(&O, 0x13, "g"), (&OU, 0x13, "unit")]), set(&[(&CN, 0x13, "alice")])].concat();
        let request = asked(&der::sequence(&[&odd])).unwrap();
        assert_eq!(
            (request.common_name.as_str(), request.organizations.as_slice()),
            ("alice", &["g".to_owned()][..])
        );
        let plain: [(&[u8], &str); 3] = [(&O, "g"), (&OU, "unit"), (&CN, "alice")];
        let now = Timestamp::now();
        let usages = ["client auth".to_owned()];
        let authority = Authority::generate("ca", now).unwrap();
        let signed = authority.sign(&request, &usages, SignedDuration::from_hours(1), now).unwrap();
        let signed = Certificate::from_pem(&signed).unwrap();
        assert_eq!(signed.subject, name_of(plain.into_iter()));
    }
}
