//! A certificate authority: makes leaves with new keys, signs requests for others' keys.

use crate::certificate::Certificate;
use crate::der::{self, tag};
use crate::key::{new_key, parse_key};
use crate::{CertificateRequest, Error, pem};
use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;

/// A day's hours, for the lifetimes below.
const DAY: i64 = 24;
/// How long an authority lives: ten years, as kubeadm's.
pub const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(3650 * DAY);
/// How long a leaf lives: one year, as kubeadm's and the default of the signing controller.
pub const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(365 * DAY);
/// Certificates start this much in the past, so that a machine whose clock is a little behind accepts them at once.
pub const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// What a certificate of ours may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Extended key usage `server auth`.
    Server,
    /// Extended key usage `client auth`.
    Client,
    /// Both extended key usages.
    ServerAndClient,
}

impl Purpose {
    fn usages(self) -> &'static [&'static str] {
        match self {
            Self::Server => &["digital signature", "key encipherment", "server auth"],
            Self::Client => &["digital signature", "key encipherment", "client auth"],
            Self::ServerAndClient => &["digital signature", "key encipherment", "server auth", "client auth"],
        }
    }
}

/// What a leaf certificate is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Subject `CN`.
    pub common_name: String,
    /// Subject `O`, one each.
    pub organizations: Vec<String>,
    /// Subject alternative names of type DNS.
    pub dns_names: Vec<String>,
    /// Subject alternative names of type IP.
    pub ips: Vec<IpAddr>,
    /// Extended key usages.
    pub purpose: Purpose,
    /// Life from now on.
    pub lifetime: SignedDuration,
}

impl Leaf {
    /// A client of the API server: `user` in `groups`.
    #[must_use]
    pub fn client(user: &str, groups: &[&str]) -> Self {
        Self {
            common_name: user.to_owned(),
            organizations: groups.iter().map(|g| (*g).to_owned()).collect(),
            dns_names: Vec::new(),
            ips: Vec::new(),
            purpose: Purpose::Client,
            lifetime: LEAF_LIFE,
        }
    }

    /// A TLS server reached under these names and addresses.
    #[must_use]
    pub fn server(common_name: &str, dns_names: Vec<String>, ips: Vec<IpAddr>) -> Self {
        Self {
            common_name: common_name.to_owned(),
            organizations: Vec::new(),
            dns_names,
            ips,
            purpose: Purpose::Server,
            lifetime: LEAF_LIFE,
        }
    }
}

/// A new certificate and its key, as PEM.
#[derive(Clone)]
pub struct Issued {
    /// Leaf certificate.
    pub cert_pem: String,
    /// Its private key (PKCS#8). Never log it.
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// A certificate with the key that signs in its name.
#[derive(Debug)]
pub struct Authority {
    cert: Certificate,
    key: KeyPair,
}

impl Authority {
    /// A new self-signed authority with an ECDSA P-256 key, alive for [`AUTHORITY_LIFE`].
    pub fn generate(common_name: &str, now: Timestamp) -> Result<Self, Error> {
        Self::with_key(common_name, new_key()?, now)
    }

    /// A self-signed authority around a key that exists: the rest of an interrupted creation, or a renewal.
    pub(crate) fn with_key(common_name: &str, key: KeyPair, now: Timestamp) -> Result<Self, Error> {
        let subject = name(common_name, &[]);
        Self::self_signed(&subject, &[common_name.to_owned()], key, now)
    }

    fn self_signed(subject: &[u8], dns: &[String], key: KeyPair, now: Timestamp) -> Result<Self, Error> {
        let key_id = key_id(&key);
        let extensions = [
            extension(BASIC_CONSTRAINTS, true, &der::sequence(&[&der::tlv(tag::BOOLEAN, &[0xff])])),
            // digitalSignature, keyEncipherment and keyCertSign, as client-go's authorities have
            extension(KEY_USAGE, true, &der::named_bits(&[0, 2, 5])),
            extension(SUBJECT_KEY_ID, false, &der::tlv(tag::OCTET_STRING, &key_id)),
            extension(SUBJECT_ALT_NAME, false, &alt_names(dns, &[])),
        ];
        let der = write(&Contents {
            issuer: subject,
            subject,
            not_before: shift(now, -BACKDATE),
            not_after: shift(now, AUTHORITY_LIFE),
            public_key: &key.subject_public_key_info(),
            extensions: extensions.concat(),
            signing_key: &key,
        })?;
        Ok(Self { cert: Certificate::from_der(&der)?, key })
    }

    /// Reads an authority back. Fails when certificate and key do not belong together.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let cert = Certificate::from_pem(cert_pem)?;
        let key = parse_key(&cert.common_name, key_pem)?;
        let fail = |reason: &str| Error::Authority { name: cert.common_name.clone(), reason: reason.into() };
        if !cert.is_ca {
            return Err(fail("the certificate may not sign others (basicConstraints CA is not set)"));
        }
        if key.subject_public_key_info() != cert.public_key {
            return Err(fail("the private key does not match the certificate"));
        }
        Ok(Self { cert, key })
    }

    /// The same key and name with a new life, so that everything issued before stays valid.
    pub fn renewed(&self, now: Timestamp) -> Result<Self, Error> {
        let key = parse_key(&self.cert.common_name, &self.key_pem())?;
        Self::self_signed(&self.cert.subject, &self.cert.dns_names, key, now)
    }

    /// Certificate of the authority itself.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.cert
    }

    /// The certificate as PEM.
    #[must_use]
    pub fn cert_pem(&self) -> String {
        self.cert.to_pem()
    }

    /// The private key as PEM (PKCS#8). Never log it.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Makes a key and a certificate for it.
    pub fn issue(&self, leaf: &Leaf, now: Timestamp) -> Result<Issued, Error> {
        let key = new_key()?;
        let subject = name(&leaf.common_name, &leaf.organizations);
        let mut extensions = usage_extensions(leaf.purpose.usages())?;
        if !leaf.dns_names.is_empty() || !leaf.ips.is_empty() {
            let names = alt_names(&leaf.dns_names, &leaf.ips);
            extensions.extend(extension(SUBJECT_ALT_NAME, false, &names));
        }
        let public_key = key.subject_public_key_info();
        let life = (shift(now, -BACKDATE), shift(now, leaf.lifetime));
        let der = self.write_leaf(&subject, &public_key, life, extensions)?;
        Ok(Issued { cert_pem: pem::encode("CERTIFICATE", &der), key_pem: key.serialize_pem() })
    }

    /// Signs a request for `usages` (names of `certificates.k8s.io/v1` KeyUsage), alive for `ttl` but never longer than
    /// the authority itself. Subject, key and alternative names are the request's. The answer is PEM.
    ///
    /// Upstream: `pkg/controller/certificates/authority` (permissive policy, 5 minutes back, short below 8 hours).
    pub fn sign(
        &self,
        request: &CertificateRequest,
        usages: &[String],
        ttl: SignedDuration,
        now: Timestamp,
    ) -> Result<String, Error> {
        let usages: Vec<&str> = usages.iter().map(String::as_str).collect();
        let mut extensions = usage_extensions(&usages)?;
        let names = request_alt_names(request);
        if !names.is_empty() {
            extensions.extend(extension(SUBJECT_ALT_NAME, false, &der::sequence(&[&names])));
        }
        let life = if ttl < SignedDuration::from_hours(8) { ttl } else { ttl - BACKDATE };
        let end = shift(now, life);
        let span = (shift(now, -BACKDATE), end);
        let der = self.write_leaf(&request.subject, &request.public_key, span, extensions)?;
        Ok(pem::encode("CERTIFICATE", &der))
    }

    fn write_leaf(
        &self,
        subject: &[u8],
        public_key: &[u8],
        (not_before, not_after): (Timestamp, Timestamp),
        mut extensions: Vec<u8>,
    ) -> Result<Vec<u8>, Error> {
        let not_after = not_after.min(self.cert.not_after);
        if not_after <= not_before {
            return Err(Error::Sign {
                what: "certificate",
                reason: format!(
                    "refusing to sign a certificate that expired in the past: NotAfter={not_after}"
                ),
            });
        }
        extensions.extend(extension(BASIC_CONSTRAINTS, true, &der::sequence(&[])));
        if let Some(id) = &self.cert.key_id {
            let authority = der::sequence(&[&der::tlv(0x80, id)]);
            extensions.extend(extension(AUTHORITY_KEY_ID, false, &authority));
        }
        write(&Contents {
            issuer: &self.cert.subject,
            subject,
            not_before,
            not_after,
            public_key,
            extensions,
            signing_key: &self.key,
        })
    }
}

const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const SUBJECT_KEY_ID: &[u64] = &[2, 5, 29, 14];
const AUTHORITY_KEY_ID: &[u64] = &[2, 5, 29, 35];

/// Everything a certificate holds before it is signed.
struct Contents<'a> {
    issuer: &'a [u8],
    subject: &'a [u8],
    not_before: Timestamp,
    not_after: Timestamp,
    public_key: &'a [u8],
    extensions: Vec<u8>,
    signing_key: &'a KeyPair,
}

fn write(contents: &Contents<'_>) -> Result<Vec<u8>, Error> {
    let mut serial = [0u8; 16];
    getrandom::fill(&mut serial).map_err(|e| Error::Random(e.to_string()))?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let algorithm = signature_algorithm(contents.signing_key)?;
    let body = der::sequence(&[
        &der::tlv(0xa0, &der::unsigned(&[2])),
        &der::unsigned(&serial),
        &algorithm,
        contents.issuer,
        &der::sequence(&[&der::time(contents.not_before), &der::time(contents.not_after)]),
        contents.subject,
        contents.public_key,
        &der::tlv(0xa3, &der::sequence(&[&contents.extensions])),
    ]);
    let signature = contents
        .signing_key
        .sign(&body)
        .map_err(|e| Error::Sign { what: "certificate", reason: e.to_string() })?;
    Ok(der::sequence(&[&body, &algorithm, &der::bits(&signature)]))
}

/// Signature algorithms of the keys an authority may have (kubeadm makes RSA ones).
fn signature_algorithm(key: &KeyPair) -> Result<Vec<u8>, Error> {
    let plain = |arcs: &[u64]| der::sequence(&[&der::oid(arcs)]);
    let of = key.algorithm();
    if of == &rcgen::PKCS_ECDSA_P256_SHA256 {
        Ok(plain(&[1, 2, 840, 10045, 4, 3, 2]))
    } else if of == &rcgen::PKCS_ECDSA_P384_SHA384 {
        Ok(plain(&[1, 2, 840, 10045, 4, 3, 3]))
    } else if of == &rcgen::PKCS_ED25519 {
        Ok(plain(&[1, 3, 101, 112]))
    } else if of == &rcgen::PKCS_RSA_SHA256 {
        Ok(der::sequence(&[&der::oid(&[1, 2, 840, 113_549, 1, 1, 11]), &[5, 0]]))
    } else {
        Err(Error::Sign { what: "certificate", reason: format!("unsupported key algorithm {of:?}") })
    }
}

/// An RDNSequence: each `O`, then `CN`, as Go writes them.
fn name(common_name: &str, organizations: &[String]) -> Vec<u8> {
    const ORGANIZATION: &[u8] = &[0x55, 4, 10];
    const COMMON_NAME: &[u8] = &[0x55, 4, 3];
    let organizations = organizations.iter().map(|name| (ORGANIZATION, name.as_str()));
    name_of(organizations.chain((!common_name.is_empty()).then_some((COMMON_NAME, common_name))))
}

/// An RDNSequence of attributes, each by the content of its object identifier and its text.
pub(crate) fn name_of<'a>(attributes: impl Iterator<Item = (&'a [u8], &'a str)>) -> Vec<u8> {
    let attribute = |(kind, text): (&[u8], &str)| {
        let pair = der::sequence(&[&der::tlv(tag::OID, kind), &der::tlv(tag::UTF8_STRING, text.as_bytes())]);
        der::tlv(tag::SET, &pair)
    };
    der::sequence(&[&attributes.flat_map(attribute).collect::<Vec<u8>>()])
}

fn alt_names(dns: &[String], ips: &[IpAddr]) -> Vec<u8> {
    der::sequence(&[&texts(0x82, dns), &addresses(ips)])
}

/// What of a request's alternative names was read; other kinds are nobody's here.
fn request_alt_names(request: &CertificateRequest) -> Vec<u8> {
    let CertificateRequest { dns_names, emails, ips, uris, .. } = request;
    [texts(0x82, dns_names), texts(0x81, emails), addresses(ips), texts(0x86, uris)].concat()
}

fn texts(tag: u8, all: &[String]) -> Vec<u8> {
    all.iter().flat_map(|text| der::tlv(tag, text.as_bytes())).collect()
}

fn addresses(ips: &[IpAddr]) -> Vec<u8> {
    let one = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => der::tlv(0x87, &v4.octets()),
        IpAddr::V6(v6) => der::tlv(0x87, &v6.octets()),
    };
    ips.iter().flat_map(one).collect()
}

fn extension(arcs: &[u64], critical: bool, value: &[u8]) -> Vec<u8> {
    let flag = if critical { der::tlv(tag::BOOLEAN, &[0xff]) } else { Vec::new() };
    der::sequence(&[&der::oid(arcs), &flag, &der::tlv(tag::OCTET_STRING, value)])
}

/// RFC 7093 method 1: the first 160 bits of the key's SHA-256.
fn key_id(key: &KeyPair) -> Vec<u8> {
    Sha256::digest(key.public_key_raw())[..20].to_vec()
}

/// A moment `by` away, held inside what a certificate can say.
fn shift(from: Timestamp, by: SignedDuration) -> Timestamp {
    from.saturating_add(by).unwrap_or(from)
}

/// The usage names of `certificates.k8s.io/v1`, the bit of KeyUsage each stands for.
const KEY_USAGES: &[(&str, u8)] = &[
    ("signing", 0),
    ("digital signature", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// The usage names that are extended key usages.
const EXTENDED_USAGES: &[(&str, &[u64])] = &[
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113_730, 4, 1]),
];

fn usage_extensions(usages: &[&str]) -> Result<Vec<u8>, Error> {
    let mut bits: Vec<u8> = Vec::new();
    let mut extended: Vec<&[u64]> = Vec::new();
    let mut unknown: Vec<&str> = Vec::new();
    for usage in usages {
        if let Some((_, bit)) = KEY_USAGES.iter().find(|(name, _)| name == usage) {
            bits.push(*bit);
        } else if let Some((_, arcs)) = EXTENDED_USAGES.iter().find(|(name, _)| name == usage) {
            if !extended.contains(arcs) {
                extended.push(arcs);
            }
        } else {
            unknown.push(usage);
        }
    }
    if !unknown.is_empty() {
        return Err(Error::Sign {
            what: "certificate",
            reason: format!("unrecognized usage values: {unknown:?}"),
        });
    }
    let mut out = Vec::new();
    if !bits.is_empty() {
        out.extend(extension(KEY_USAGE, true, &der::named_bits(&bits)));
    }
    if !extended.is_empty() {
        extended.sort_unstable();
        let oids: Vec<u8> = extended.iter().flat_map(|arcs| der::oid(arcs)).collect();
        out.extend(extension(EXTENDED_KEY_USAGE, false, &der::sequence(&[&oids])));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_common_names_another_than_gos_must_not_be_the_user() {
        let now = Timestamp::now();
        let authority = Authority::generate("ca", now).unwrap();
        let subject = name_of([(&[0x55, 4, 3][..], "first"), (&[0x55, 4, 3][..], "last")].into_iter());
        let key = new_key().unwrap().subject_public_key_info();
        let span = (shift(now, -BACKDATE), shift(now, LEAF_LIFE));
        let der = authority.write_leaf(&subject, &key, span, Vec::new()).unwrap();
        assert_eq!(Certificate::from_der(&der).unwrap().common_name, "last");
    }
}
