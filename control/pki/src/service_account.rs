//! Keys and tokens of service accounts: signed JSON web tokens with upstream's bound claims
//! (`pkg/serviceaccount/claims.go`).
//!
//! Whether the account, pod or secret a token is bound to still exists is the API server's question; here a token is
//! checked for its signature, issuer, audience and time.

mod claims;
mod keys;
#[cfg(test)]
mod tests;

pub use claims::{BoundObject, Claims, KubernetesClaims, LegacyClaims};
pub use keys::{SigningKey, VerifyingKey};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Clocks may differ by so many seconds (go-jose's default leeway).
const LEEWAY: i64 = 60;
/// Longest token looked at, in bytes.
const LONGEST: usize = 32 * 1024;
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
    /// None of its audiences is accepted.
    #[error("token audiences {found:?} is invalid for the target audiences {wanted:?}")]
    Audience {
        /// Audiences of the token.
        found: Vec<String>,
        /// Audiences accepted here.
        wanted: Vec<String>,
    },
}

/// An accepted token.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Decoded payload.
    pub claims: Claims,
    /// The asked audiences it is good for.
    pub audiences: Vec<String>,
}

/// Checks signature, issuer, audience and lifetime of tokens.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// Keys a signature may be from.
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
        let message = &token[..header.len() + 1 + body.len()];
        let signature = decode(signature).map_err(|_| TokenError::Signature)?;
        // A key id narrows the choice; without one every key is tried, as upstream does.
        let mut candidates =
            self.keys.iter().filter(|key| header_fields.kid.is_empty() || key.id == header_fields.kid);
        let verified = candidates.any(|key| key.verify(&header_fields.alg, message.as_bytes(), &signature));
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
