//! Public keys that tokens are verified with, and the signatures made by them (RFC 7518).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The curves, by their object identifiers (RFC 5480, 2.1.1.1).
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";

/// What a signature is checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Material {
    /// Big-endian numbers without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    P384(Vec<u8>),
}

impl Material {
    /// Reads a SubjectPublicKeyInfo; `None` for other kinds of keys.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        let (rest, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        match info.parsed().ok()? {
            PublicKey::RSA(key) => Some(Self::Rsa { n: stripped(key.modulus), e: stripped(key.exponent) }),
            PublicKey::EC(point) => {
                let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
                let uncompressed = |length: usize| {
                    Some(point.data().to_vec()).filter(|data| data.len() == 1 + 2 * length && data[0] == 4)
                };
                // Other curves' points are as long.
                match curve.to_id_string().as_str() {
                    P256 => uncompressed(32).map(Self::P256),
                    P384 => uncompressed(48).map(Self::P384),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// How upstream signs with such a key.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RS256",
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
        }
    }

    /// The members of a JSON web key that hold it.
    pub(crate) fn jwk(&self) -> Value {
        let (curve, point) = match self {
            Self::Rsa { n, e } => {
                return json!({"kty": "RSA", "n": BASE64URL.encode(n), "e": BASE64URL.encode(e)});
            }
            Self::P256(point) => ("P-256", point),
            Self::P384(point) => ("P-384", point),
        };
        let (x, y) = point[1..].split_at(point.len() / 2);
        json!({"kty": "EC", "crv": curve, "x": BASE64URL.encode(x), "y": BASE64URL.encode(y)})
    }

    /// Whether the key made the signature, by an algorithm that fits it.
    pub(crate) fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let by_point = |algorithm: &'static dyn VerificationAlgorithm, point: &[u8]| {
            UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
        };
        match (self, algorithm) {
            (Self::Rsa { n, e }, algorithm) => rsa(algorithm).is_some_and(|parameters| {
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }),
            (Self::P256(point), "ES256") => by_point(&ECDSA_P256_SHA256_FIXED, point),
            (Self::P384(point), "ES384") => by_point(&ECDSA_P384_SHA384_FIXED, point),
            _ => false,
        }
    }
}

/// A big-endian number as `ring` wants it.
pub(crate) fn stripped(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|byte| *byte == 0).collect()
}

fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &RSA_PSS_2048_8192_SHA256,
        "PS384" => &RSA_PSS_2048_8192_SHA384,
        "PS512" => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::der;

    fn info(curve: &[u64], point: &[u8]) -> Vec<u8> {
        let algorithm = der::sequence(&[&der::oid(&[1, 2, 840, 10045, 2, 1]), &der::oid(curve)]);
        der::sequence(&[&algorithm, &der::bits(point)])
    }

    #[test]
    fn a_point_of_another_curve_must_not_be_taken_for_one_of_ours() {
        let point = |first: u8, length: usize| [vec![first], vec![1; length]].concat();
        let (p256, p384) = ([1, 2, 840, 10045, 3, 1, 7], [1, 3, 132, 0, 34]);
        assert_eq!(Material::from_der(&info(&p256, &point(4, 64))), Some(Material::P256(point(4, 64))));
        assert_eq!(Material::from_der(&info(&p384, &point(4, 96))), Some(Material::P384(point(4, 96))));
        // secp256k1 and brainpoolP256r1, brainpoolP384r1; and points that are not of their curve's form.
        assert_eq!(Material::from_der(&info(&[1, 3, 132, 0, 10], &point(4, 64))), None);
        assert_eq!(Material::from_der(&info(&[1, 3, 36, 3, 3, 2, 8, 1, 1, 7], &point(4, 64))), None);
        assert_eq!(Material::from_der(&info(&[1, 3, 36, 3, 3, 2, 8, 1, 1, 11], &point(4, 96))), None);
        assert_eq!(Material::from_der(&info(&p256, &point(4, 96))), None);
        assert_eq!(Material::from_der(&info(&p256, &point(2, 64))), None);
    }
}
