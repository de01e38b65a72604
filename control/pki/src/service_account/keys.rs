//! The keys: RSA (RS256) as kubeadm makes them, ECDSA on P-256 and P-384 (ES256, ES384).

use super::{BASE64URL, Claims, Header, LegacyClaims};
use crate::key::{new_key, parse_key};
use crate::public::Material;
use crate::{Certificate, Error, pem};
use base64::Engine as _;
use rcgen::PublicKeyData as _;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

fn fail(reason: impl Into<String>) -> Error {
    Error::Key { what: "service account".into(), reason: reason.into() }
}

enum Pair {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
}

/// The private key tokens are signed with.
pub struct SigningKey {
    pem: String,
    pair: Pair,
    public: VerifyingKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.public.id).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new ECDSA P-256 key.
    pub fn generate() -> Result<Self, Error> {
        Self::from_pem(&new_key()?.serialize_pem())
    }

    /// Reads a private key, in whichever form.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let key = parse_key("service account", text)?;
        let public = VerifyingKey::from_der(&key.subject_public_key_info())?;
        let der = key.serialized_der();
        let ecdsa =
            |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new()).map(Pair::Ecdsa);
        let pair = match &public.material {
            Material::Rsa { .. } => RsaKeyPair::from_pkcs8(der).map(Pair::Rsa),
            Material::P256(_) => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Material::P384(_) => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
        };
        Ok(Self { pem: text.to_owned(), pair: pair.map_err(|e| fail(e.to_string()))?, public })
    }

    /// The private key as PEM. Never log it.
    #[must_use]
    pub fn to_pem(&self) -> &str {
        &self.pem
    }

    /// The key that verifies what this one signs.
    #[must_use]
    pub fn public(&self) -> &VerifyingKey {
        &self.public
    }

    /// The token for `claims`.
    pub fn sign(&self, claims: &Claims) -> Result<String, Error> {
        self.sign_any(claims)
    }

    /// The token for `claims`, to be kept in a secret.
    pub fn sign_legacy(&self, claims: &LegacyClaims) -> Result<String, Error> {
        self.sign_any(claims)
    }

    fn sign_any(&self, claims: &impl Serialize) -> Result<String, Error> {
        let fail = |reason: String| Error::Sign { what: "service account token", reason };
        let header = Header { alg: self.public.algorithm().into(), kid: self.public.id.clone() };
        let header = serde_json::to_vec(&header).map_err(|e| fail(e.to_string()))?;
        let body = serde_json::to_vec(claims).map_err(|e| fail(e.to_string()))?;
        let message = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(body));
        let signature = self.signature(message.as_bytes()).map_err(|e| fail(e.to_string()))?;
        Ok(format!("{message}.{}", BASE64URL.encode(signature)))
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)?;
                Ok(signature)
            }
            Pair::Ecdsa(pair) => Ok(pair.sign(&SystemRandom::new(), message)?.as_ref().to_vec()),
        }
    }
}

/// A public key tokens are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    /// `kid`: unpadded base64url of the SHA-256 of the key's DER form, as upstream derives it.
    pub id: String,
    der: Vec<u8>,
    material: Material,
}

impl VerifyingKey {
    fn from_der(der: &[u8]) -> Result<Self, Error> {
        let material = Material::from_der(der)
            .ok_or_else(|| fail("an RSA key, or an ECDSA key on P-256 or P-384, is needed"))?;
        Ok(Self { id: BASE64URL.encode(Sha256::digest(der)), der: der.to_vec(), material })
    }

    /// Every key of a file such as `sa.pub`; old keys may follow the current one. As upstream's, the file may hold public
    /// keys, certificates and private keys; what is of no use here is left out.
    ///
    /// # Errors
    /// There is something in it, and nothing of use.
    pub fn list_from_pem(text: &str) -> Result<Vec<Self>, Error> {
        let mut found: Vec<Result<Vec<u8>, Error>> =
            pem::blocks(text, "PUBLIC KEY").into_iter().map(Ok).collect();
        let certificates = pem::blocks(text, "CERTIFICATE");
        found.extend(certificates.iter().map(|der| Ok(Certificate::from_der(der)?.public_key)));
        for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
            found.extend(pem::blocks(text, label).iter().map(|der| {
                let key = parse_key("service account", &pem::encode(label, der))?;
                Ok(key.subject_public_key_info())
            }));
        }
        let (mut keys, mut failed) = (Vec::new(), None);
        for found in found {
            match found.and_then(|der| Self::from_der(&der)) {
                Ok(key) => keys.push(key),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) if keys.is_empty() => Err(error),
            _ => Ok(keys),
        }
    }

    /// The key as PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.der)
    }

    /// How tokens are signed with it: `RS256`, `ES256` or `ES384`.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        self.material.algorithm()
    }

    /// The key as a JSON web key.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let mut jwk = self.material.jwk();
        for (name, value) in [("use", "sig"), ("kid", &self.id), ("alg", self.algorithm())] {
            jwk[name] = value.into();
        }
        jwk
    }

    pub(super) fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        algorithm == self.algorithm() && self.material.verify(algorithm, message, signature)
    }
}
