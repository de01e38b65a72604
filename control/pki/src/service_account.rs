//! Keys and tokens of service accounts: ES256 JSON web tokens with upstream's bound claims
//! (`pkg/serviceaccount/claims.go`).
//!
//! Whether the account, pod or secret a token is bound to still exists is the API server's question; here a token is
//! checked for its signature, issuer, audience and time.

mod claims;
#[cfg(test)]
mod tests;

pub use claims::{BoundObject, Claims, KubernetesClaims, LegacyClaims};

use crate::key::{new_key, parse_key};
use crate::{Error, pem};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jiff::Timestamp;
use rcgen::PublicKeyData as _;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Clocks may differ by so many seconds (go-jose's default leeway).
const LEEWAY: i64 = 60;
/// Longest token looked at, in bytes.
const LONGEST: usize = 32 * 1024;
/// SubjectPublicKeyInfo of a P-256 key up to the uncompressed point.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// Why a token is not accepted. The texts are upstream's where it has them; none contains the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token of ours at all: another authenticator may know it.
    #[error("not a service account token of this cluster")]
    Foreign,
    /// Three base64url parts of JSON were expected.
    #[error("service account token is malformed: {0}")]
    Malformed(&'static str),
    /// No key of ours made the signature.
    #[error("invalid signature, no keys found")]
    Signature,
    /// Past its `exp`.
    #[error("service account token has expired")]
    Expired,
    /// Before its `nbf`.
    #[error("service account token is not valid yet")]
    NotYetValid,
    /// Issued for others.
    #[error("token audiences {found:?} is invalid for the target audiences {wanted:?}")]
    Audience {
        /// The token's.
        found: Vec<String>,
        /// Ours.
        wanted: Vec<String>,
    },
}

/// The private key tokens are signed with.
pub struct SigningKey {
    pem: String,
    pair: EcdsaKeyPair,
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

    /// Reads a P-256 key (PKCS#8).
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let fail = |reason: String| Error::Key { what: "service account".into(), reason };
        let key = parse_key("service account", text)?;
        let pair = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            key.serialized_der(),
            &SystemRandom::new(),
        )
        .map_err(|e| fail(format!("an ECDSA P-256 key is needed: {e}")))?;
        let public = VerifyingKey::from_der(&key.subject_public_key_info())?;
        Ok(Self { pem: text.to_owned(), pair, public })
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
        let header = serde_json::to_vec(&Header { alg: "ES256".into(), kid: self.public.id.clone() });
        let header = header.map_err(|e| fail(e.to_string()))?;
        let body = serde_json::to_vec(claims).map_err(|e| fail(e.to_string()))?;
        let message = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(body));
        let signature =
            self.pair.sign(&SystemRandom::new(), message.as_bytes()).map_err(|e| fail(e.to_string()))?;
        Ok(format!("{message}.{}", BASE64URL.encode(signature.as_ref())))
    }
}

/// A public key tokens are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    /// `kid`: unpadded base64url of the SHA-256 of the key's DER form, as upstream derives it.
    pub id: String,
    point: Vec<u8>,
}

impl VerifyingKey {
    fn from_der(der: &[u8]) -> Result<Self, Error> {
        match der.strip_prefix(&P256_PREFIX) {
            Some(point) if point.len() == 65 && point[0] == 4 => {
                Ok(Self { id: BASE64URL.encode(Sha256::digest(der)), point: point.to_vec() })
            }
            _ => Err(Error::Key {
                what: "service account".into(),
                reason: "an ECDSA P-256 key is needed".into(),
            }),
        }
    }

    /// Every `PUBLIC KEY` block of a file such as `sa.pub`; old keys may follow the current one.
    pub fn list_from_pem(text: &str) -> Result<Vec<Self>, Error> {
        pem::blocks(text, "PUBLIC KEY").iter().map(|der| Self::from_der(der)).collect()
    }

    /// The key as PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &[&P256_PREFIX[..], &self.point].concat())
    }

    /// The two coordinates, 32 bytes each.
    #[must_use]
    pub fn coordinates(&self) -> (&[u8], &[u8]) {
        self.point[1..].split_at(32)
    }
}

/// An accepted token.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// What it says.
    pub claims: Claims,
    /// The asked audiences it is good for.
    pub audiences: Vec<String>,
}

/// Checks tokens.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// Accepted keys.
    pub keys: Vec<VerifyingKey>,
    /// Accepted issuers; the first is the one new tokens carry.
    pub issuers: Vec<String>,
}

impl Verifier {
    /// Checks signature, issuer, time and that one of `audiences` is the token's.
    pub fn verify(&self, token: &str, audiences: &[String], now: Timestamp) -> Result<Verified, TokenError> {
        let claims: Claims = self.signed(token, |issuer| self.issuers.iter().any(|i| i == issuer))?;
        let audiences = check(&claims, audiences, now)?;
        Ok(Verified { claims, audiences })
    }

    /// Checks signature and issuer of a token kept in a secret, which has neither audience nor end.
    pub fn verify_legacy(&self, token: &str) -> Result<LegacyClaims, TokenError> {
        self.signed(token, |issuer| issuer == LegacyClaims::ISSUER)
    }

    /// The claims of a token by an issuer that is `ours`, signed by a key of ours.
    fn signed<T: serde::de::DeserializeOwned>(
        &self,
        token: &str,
        ours: impl FnOnce(&str) -> bool,
    ) -> Result<T, TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::Foreign);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(body), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Foreign);
        };
        let decode = |part: &str| BASE64URL.decode(part).map_err(|_| TokenError::Foreign);
        let body_bytes = decode(body)?;
        let issuer: Issuer = serde_json::from_slice(&body_bytes).map_err(|_| TokenError::Foreign)?;
        if !ours(&issuer.iss) {
            return Err(TokenError::Foreign);
        }
        let header_fields: Header = serde_json::from_slice(&decode(header)?)
            .map_err(|_| TokenError::Malformed("the header does not parse"))?;
        if header_fields.alg != "ES256" {
            return Err(TokenError::Signature);
        }
        let message = &token[..header.len() + 1 + body.len()];
        let signature = decode(signature).map_err(|_| TokenError::Signature)?;
        // A key id narrows the choice; without one every key is tried, as upstream does.
        let mut candidates =
            self.keys.iter().filter(|key| header_fields.kid.is_empty() || key.id == header_fields.kid);
        let verified = candidates.any(|key| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point)
                .verify(message.as_bytes(), &signature)
                .is_ok()
        });
        if !verified {
            return Err(TokenError::Signature);
        }
        serde_json::from_slice(&body_bytes).map_err(|_| TokenError::Malformed("the claims do not parse"))
    }
}

#[derive(Deserialize)]
struct Issuer {
    #[serde(default)]
    iss: String,
}

/// Audience and time. Gives the audiences token and server share.
fn check(claims: &Claims, wanted: &[String], now: Timestamp) -> Result<Vec<String>, TokenError> {
    let shared: Vec<String> = wanted.iter().filter(|a| claims.aud.contains(a)).cloned().collect();
    if shared.is_empty() {
        return Err(TokenError::Audience { found: claims.aud.clone(), wanted: wanted.to_vec() });
    }
    let now = now.as_second();
    if claims.nbf.is_some_and(|nbf| now.saturating_add(LEEWAY) < nbf) {
        return Err(TokenError::NotYetValid);
    }
    if now.saturating_sub(LEEWAY) > claims.exp {
        return Err(TokenError::Expired);
    }
    Ok(shared)
}
