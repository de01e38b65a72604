//! Keys as far as telling whether they belong together: the kinds that Go's `tls` knows, in the forms it reads (PKCS #8, PKCS #1, SEC 1).

use rustls::crypto::ring::sign::any_supported_type;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use x509_parser::asn1_rs::{Any, FromDer as _};
use x509_parser::x509::SubjectPublicKeyInfo;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
/// Parts of a SEC 1 key: its curve, and its public point.
const PARAMETERS: u8 = 0xa0;
const PUBLIC: u8 = 0xa1;

/// Object identifiers as they are encoded (RFC 8017, 5480, 8410).
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const X25519: &[u8] = &[0x2b, 0x65, 0x6e];
/// P-224, P-256, P-384 and P-521; Go knows no others.
const CURVES: [&[u8]; 4] = [
    &[0x2b, 0x81, 4, 0, 33],
    &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
    &[0x2b, 0x81, 4, 0, 34],
    &[0x2b, 0x81, 4, 0, 35],
];

/// What is public of a key: the modulus without leading zeros, or the point; none where only its owner's library could tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Rsa(Vec<u8>),
    Curve(Option<Vec<u8>>),
    Ed25519(Option<Vec<u8>>),
}

impl Key {
    /// The key a certificate is for; none of a kind that Go does not compare.
    ///
    /// # Errors
    /// Go's words for what it cannot read.
    pub(super) fn public(info: &SubjectPublicKeyInfo<'_>) -> Result<Option<Self>, &'static str> {
        let bits: &[u8] = &info.subject_public_key.data;
        let algorithm = info.algorithm.algorithm.as_bytes();
        if algorithm == RSA {
            let numbers = value(bits).filter(|(tag, ..)| *tag == SEQUENCE);
            let modulus = numbers.and_then(|(_, content, _)| integer(content));
            return modulus.map(|(n, _)| Some(Self::Rsa(n))).ok_or("x509: invalid RSA public key");
        }
        if algorithm == EC {
            let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            return match curve.is_some_and(|curve| CURVES.contains(&curve.as_bytes())) {
                true => Ok(Some(Self::Curve(Some(bits.to_vec())))),
                false => Err("x509: unsupported elliptic curve"),
            };
        }
        Ok((algorithm == ED25519).then(|| Self::Ed25519(Some(bits.to_vec()))))
    }

    /// The key in the content of a block.
    ///
    /// # Errors
    /// Go's words for what it cannot read.
    pub(super) fn private(der: &[u8]) -> Result<Self, &'static str> {
        if pkcs8(der).is_some_and(|(algorithm, ..)| algorithm == X25519) {
            return Err("tls: found unknown private key type in PKCS#8 wrapping");
        }
        wrapped(der)
            .or_else(|| pkcs1(der))
            .or_else(|| sec1(der, None))
            .ok_or("tls: failed to parse private key")
    }

    /// What is wrong with the pair of a certificate's key and this one.
    pub(super) fn mismatch(&self, public: &Self) -> Option<&'static str> {
        let same = match (self, public) {
            (Self::Rsa(own), Self::Rsa(other)) => own == other,
            (Self::Curve(own), Self::Curve(other)) | (Self::Ed25519(own), Self::Ed25519(other)) => {
                own.is_none() || own == other
            }
            _ => return Some("tls: private key type does not match public key type"),
        };
        (!same).then_some("tls: private key does not match public key")
    }
}

/// The algorithm of a PKCS #8 key, its parameters and its content (RFC 5958).
fn pkcs8(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (_, rest) = integer(of(SEQUENCE, der)?.0)?;
    let (algorithm, rest) = of(SEQUENCE, rest)?;
    let (name, parameters) = of(OID, algorithm)?;
    Some((name, parameters, of(OCTET_STRING, rest)?.0))
}

fn wrapped(der: &[u8]) -> Option<Key> {
    let (algorithm, parameters, content) = pkcs8(der)?;
    if algorithm == RSA {
        return pkcs1(content);
    }
    if algorithm == EC {
        return sec1(content, Some(of(OID, parameters)?.0));
    }
    let seed = of(OCTET_STRING, content)?.0;
    (algorithm == ED25519 && seed.len() == 32)
        .then(|| Key::Ed25519(derived(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)))))
}

/// The modulus behind the version (RFC 8017, A.1.2).
fn pkcs1(der: &[u8]) -> Option<Key> {
    let (version, rest) = integer(of(SEQUENCE, der)?.0)?;
    let (modulus, rest) = integer(rest)?;
    integer(rest)?;
    (version.is_empty() && !modulus.is_empty()).then_some(Key::Rsa(modulus))
}

/// A point's key (RFC 5915), on the curve that it names itself or its wrapping does.
fn sec1(der: &[u8], curve: Option<&[u8]>) -> Option<Key> {
    let (_, rest) = integer(of(SEQUENCE, der)?.0)?;
    let (_, mut rest) = of(OCTET_STRING, rest)?;
    let (mut named, mut point) = (None, None);
    while let Some((tag, content, behind)) = value(rest) {
        match tag {
            PARAMETERS => named = of(OID, content).map(|(curve, _)| curve),
            // The first byte counts bits that are not used.
            PUBLIC => point = of(BIT_STRING, content).and_then(|(bits, _)| Some(bits.get(1..)?.to_vec())),
            _ => {}
        }
        rest = behind;
    }
    CURVES
        .contains(&curve.or(named)?)
        .then(|| Key::Curve(point.or_else(|| derived(&PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der))))))
}

/// The public half of a key that does not say it, where the cryptographic library knows its kind.
fn derived(key: &PrivateKeyDer<'_>) -> Option<Vec<u8>> {
    let signer = any_supported_type(key).ok()?;
    let info = signer.public_key()?;
    let (_, info) = SubjectPublicKeyInfo::from_der(info.as_ref()).ok()?;
    Some(info.subject_public_key.data.to_vec())
}

/// A value's first byte, which is its tag's, its content and what is behind it (X.690).
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (behind, any) = Any::from_der(der).ok()?;
    Some((*der.first()?, any.data, behind))
}

/// The content of a value with this tag, and what is behind it.
fn of(wanted: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    value(der).filter(|(tag, ..)| *tag == wanted).map(|(_, content, behind)| (content, behind))
}

/// A number that is not negative, big-endian and without leading zeros, and what is behind it.
fn integer(der: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (bytes, behind) = of(INTEGER, der)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.first().is_some_and(|first| first & 0x80 == 0).then(|| (bytes[zeros..].to_vec(), behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const P521: &[u8] = CURVES[3];
    const SECP256K1: &[u8] = &[0x2b, 0x81, 4, 0, 10];

    fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82][..], &length, &content].concat()
    }

    /// A modulus of so many bytes.
    fn rsa(size: usize) -> Vec<u8> {
        let modulus = [&[0][..], &vec![0xc1; size]].concat();
        let number = |bytes: &[u8]| tlv(INTEGER, &[bytes]);
        tlv(SEQUENCE, &[&number(&[0]), &number(&modulus), &number(&[1, 0, 1])])
    }

    fn point(curve: &[u8], point: &[u8]) -> Vec<u8> {
        let parameters = tlv(PARAMETERS, &[&tlv(OID, &[curve])]);
        let public = tlv(PUBLIC, &[&tlv(BIT_STRING, &[&[0], point])]);
        tlv(SEQUENCE, &[&tlv(INTEGER, &[&[1]]), &tlv(OCTET_STRING, &[&[7; 66]]), &parameters, &public])
    }

    fn wrap(algorithm: &[u8], parameters: &[u8], content: &[u8]) -> Vec<u8> {
        let algorithm = tlv(SEQUENCE, &[&tlv(OID, &[algorithm]), parameters]);
        tlv(SEQUENCE, &[&tlv(INTEGER, &[&[0]]), &algorithm, &tlv(OCTET_STRING, &[content])])
    }

    fn public(algorithm: &[u8], parameters: &[u8], bits: &[u8]) -> Result<Option<Key>, &'static str> {
        let algorithm = tlv(SEQUENCE, &[&tlv(OID, &[algorithm]), parameters]);
        let info = tlv(SEQUENCE, &[&algorithm, &tlv(BIT_STRING, &[&[0], bits])]);
        Key::public(&SubjectPublicKeyInfo::from_der(&info).unwrap().1)
    }

    #[test]
    fn keys_that_this_library_cannot_use_must_not_pass_for_any_certificate() {
        // Too short for the library, and a curve it does not have.
        let short = Key::private(&rsa(64)).unwrap();
        assert_eq!(Key::private(&wrap(RSA, &[], &rsa(64))), Ok(short.clone()));
        let large = Key::private(&point(P521, &[4, 1])).unwrap();
        assert_eq!(Key::private(&wrap(EC, &tlv(OID, &[P521]), &point(P521, &[4, 1]))), Ok(large.clone()));
        let of_short = public(RSA, &[], &rsa_public(64)).unwrap().unwrap();
        let of_large = public(EC, &tlv(OID, &[P521]), &[4, 1]).unwrap().unwrap();
        assert_eq!((short.mismatch(&of_short), large.mismatch(&of_large)), (None, None));
        let unlike = Some("tls: private key type does not match public key type");
        assert_eq!((short.mismatch(&of_large), large.mismatch(&of_short)), (unlike, unlike));
        let other = Some("tls: private key does not match public key");
        assert_eq!(Key::private(&rsa(65)).unwrap().mismatch(&of_short), other);
        assert_eq!(Key::private(&point(P521, &[4, 2])).unwrap().mismatch(&of_large), other);
    }

    /// What a certificate says of [`rsa`]'s key.
    fn rsa_public(size: usize) -> Vec<u8> {
        let modulus = [&[0][..], &vec![0xc1; size]].concat();
        tlv(SEQUENCE, &[&tlv(INTEGER, &[&modulus]), &tlv(INTEGER, &[&[1, 0, 1]])])
    }

    #[test]
    fn kinds_that_go_does_not_know_are_told_in_its_words() {
        let unknown = "tls: failed to parse private key";
        // Ed448, RSA by PSS, a curve of others: wrapped and not.
        for odd in [
            wrap(&[0x2b, 0x65, 0x71], &[], &[4, 1, 1]),
            wrap(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10], &[], &rsa(256)),
            wrap(EC, &tlv(OID, &[SECP256K1]), &point(SECP256K1, &[4, 1])),
            point(SECP256K1, &[4, 1]),
            rsa(64)[..40].to_vec(),
            Vec::new(),
        ] {
            assert_eq!(Key::private(&odd), Err(unknown));
        }
        let agreement = wrap(X25519, &[], &[4, 1, 1]);
        assert_eq!(Key::private(&agreement), Err("tls: found unknown private key type in PKCS#8 wrapping"));
        assert_eq!(public(&[0x2b, 0x65, 0x71], &[], &[1]), Ok(None));
        assert_eq!(public(EC, &tlv(OID, &[SECP256K1]), &[4, 1]), Err("x509: unsupported elliptic curve"));
    }
}
