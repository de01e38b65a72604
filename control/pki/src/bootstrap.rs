//! Tokens that let a machine join: `id.secret` as kubeadm's, and the join token that also names the cluster's authority.

use crate::certificate::{Certificate, hex};
use crate::{Error, pem};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ring::hmac;
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Namespace of the token secrets.
pub const SECRET_NAMESPACE: &str = "kube-system";
/// Type of the token secrets.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
/// Group every bootstrap token is in.
pub const GROUP: &str = "system:bootstrappers";
/// Group of tokens that join nodes; their client CSRs are approved automatically.
pub const NODE_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

/// A bootstrap token: `[a-z0-9]{6}.[a-z0-9]{16}`.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    id: String,
    secret: String,
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootstrapToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl BootstrapToken {
    /// A new random token.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self { id: random_text(6)?, secret: random_text(16)? })
    }

    /// The public half; names the secret.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The secret half. Never log it.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// `id.secret`. Never log it.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// `bootstrap-token-ID`.
    #[must_use]
    pub fn secret_name(&self) -> String {
        format!("bootstrap-token-{}", self.id)
    }

    /// The string data of the token's secret; without `expiration` it lives until it is deleted.
    #[must_use]
    pub fn secret_data(
        &self,
        description: &str,
        expiration: Option<jiff::Timestamp>,
    ) -> BTreeMap<&'static str, String> {
        let mut data = BTreeMap::from([
            ("auth-extra-groups", NODE_GROUP.to_owned()),
            ("token-id", self.id.clone()),
            ("token-secret", self.secret.clone()),
            ("usage-bootstrap-authentication", "true".to_owned()),
            ("usage-bootstrap-signing", "true".to_owned()),
        ]);
        if !description.is_empty() {
            data.insert("description", description.to_owned());
        }
        if let Some(at) = expiration {
            let whole = jiff::Timestamp::from_second(at.as_second()).unwrap_or(at);
            data.insert("expiration", whole.to_string());
        }
        data
    }

    /// The detached signature (RFC 7515, appendix F) by which `cluster-info` proves that it was published by someone
    /// who knows the token: the value of `jws-kubeconfig-ID`.
    #[must_use]
    pub fn sign(&self, content: &str) -> String {
        let header = BASE64URL.encode(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, self.id));
        let message = format!("{header}.{}", BASE64URL.encode(content));
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        let signature = hmac::sign(&key, message.as_bytes());
        format!("{header}..{}", BASE64URL.encode(signature.as_ref()))
    }

    /// Checks such a signature.
    #[must_use]
    pub fn verify(&self, content: &str, signature: &str) -> bool {
        let Some((header, tag)) = signature.split_once("..") else { return false };
        let Ok(tag) = BASE64URL.decode(tag) else { return false };
        let message = format!("{header}.{}", BASE64URL.encode(content));
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        hmac::verify(&key, message.as_bytes(), &tag).is_ok()
    }
}

impl FromStr for BootstrapToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let well_formed = |part: &str, len| {
            part.len() == len && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        match text.split_once('.') {
            Some((id, secret)) if well_formed(id, 6) && well_formed(secret, 16) => {
                Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
            }
            _ => Err(Error::Token {
                reason: r"the bootstrap token is not of the form \A([a-z0-9]{6})\.([a-z0-9]{16})\z".into(),
            }),
        }
    }
}

/// What the server's authority must hash to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityHash {
    /// A join token's: SHA-256 of the public key, which outlives a renewed certificate, or of one whole certificate.
    Joined(String),
    /// SHA-256 of the public key, as kubeadm's `sha256:...`.
    PublicKey(String),
}

impl AuthorityHash {
    /// Parses kubeadm's `sha256:HEX`, the hash of the public key.
    pub fn parse_public_key(text: &str) -> Result<Self, Error> {
        let digits = text.strip_prefix("sha256:").and_then(sha256_digits);
        digits.map(Self::PublicKey).ok_or_else(|| Error::Token {
            reason: "the CA certificate hash is not of the form sha256: and 64 hexadecimal digits".into(),
        })
    }

    fn matches(&self, cert: &Certificate) -> bool {
        match self {
            Self::Joined(want) => cert.public_key_hash() == *want || cert.hash() == *want,
            Self::PublicKey(want) => cert.public_key_hash() == *want,
        }
    }
}

/// What a machine is given to join: a token and, unless it is a plain kubeadm one, the hash of the cluster's authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// Identifies and authenticates the machine.
    pub token: BootstrapToken,
    /// The authority to trust; `None`: not known yet.
    pub authority: Option<AuthorityHash>,
}

impl JoinToken {
    /// The join token for a cluster with this authority.
    #[must_use]
    pub fn new(token: BootstrapToken, authority: &Certificate) -> Self {
        Self { token, authority: Some(AuthorityHash::Joined(authority.public_key_hash())) }
    }

    /// `K10<hash>::<id>.<secret>`, or the plain token. Never log it.
    #[must_use]
    pub fn expose(&self) -> String {
        match &self.authority {
            Some(AuthorityHash::Joined(hash) | AuthorityHash::PublicKey(hash)) => {
                format!("K10{hash}::{}", self.token.expose())
            }
            None => self.token.expose(),
        }
    }

    /// The authorities in `ca_pem`, when one of them is the one the token names.
    pub fn check_authority(&self, ca_pem: &str) -> Result<(), Error> {
        let Some(wanted) = &self.authority else {
            return Err(Error::Token {
                reason: "the token does not name the cluster's authority; give its hash as well".into(),
            });
        };
        let mut found = Vec::new();
        for der in pem::certificates(ca_pem.as_bytes())? {
            let cert = Certificate::from_der(&der)?;
            if wanted.matches(&cert) {
                return Ok(());
            }
            found.push(cert.public_key_hash());
        }
        Err(Error::Token {
            reason: format!(
                "the server's certificate authority (public key sha256 {}) is not the one the token names; \
                 this is another cluster, or someone is in between",
                found.join(", ")
            ),
        })
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let Some(rest) = text.strip_prefix("K10") else {
            return Ok(Self { token: text.parse()?, authority: None });
        };
        let malformed = || Error::Token {
            reason: "the join token is not of the form K10<64 hexadecimal digits>::<id>.<secret>".into(),
        };
        let (hash, token) = rest.split_once("::").ok_or_else(malformed)?;
        let hash = sha256_digits(hash).ok_or_else(malformed)?;
        Ok(Self { token: token.parse()?, authority: Some(AuthorityHash::Joined(hash)) })
    }
}

fn sha256_digits(text: &str) -> Option<String> {
    (text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())).then(|| text.to_ascii_lowercase())
}

/// Uniform text of lower-case letters and digits.
fn random_text(len: usize) -> Result<String, Error> {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut out = String::with_capacity(len);
    while out.len() < len {
        let mut byte = [0u8; 1];
        getrandom::fill(&mut byte).map_err(|e| Error::Random(e.to_string()))?;
        // 252 is the largest multiple of 36 in a byte; what lies above would favour the first letters.
        if byte[0] < 252 {
            out.push(char::from(ALPHABET[usize::from(byte[0] % 36)]));
        }
    }
    Ok(out)
}

/// The lower-case hex SHA-256 of some bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Authority;
    use proptest::prelude::*;

    #[test]
    fn a_join_token_trusts_its_own_cluster_only() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let ours = Authority::generate("kubernetes", now).unwrap();
        let theirs = Authority::generate("kubernetes", now).unwrap();
        let token = JoinToken::new(BootstrapToken::generate().unwrap(), ours.certificate());
        let read: JoinToken = token.expose().parse().unwrap();
        assert_eq!(read, token);
        assert!(read.check_authority(&ours.cert_pem()).is_ok());
        let refused = read.check_authority(&theirs.cert_pem()).unwrap_err().to_string();
        assert!(refused.contains("another cluster"), "{refused}");

        let plain: JoinToken = "abcdef.0123456789abcdef".parse().unwrap();
        assert!(plain.check_authority(&ours.cert_pem()).is_err());
        let hash = format!("sha256:{}", ours.certificate().public_key_hash());
        let kubeadm = JoinToken { authority: Some(AuthorityHash::parse_public_key(&hash).unwrap()), ..plain };
        assert!(kubeadm.check_authority(&ours.cert_pem()).is_ok());
        assert!(kubeadm.check_authority(&theirs.cert_pem()).is_err());
    }

    #[test]
    fn a_join_token_outlives_a_renewed_certificate() {
        let (then, now) = ("2026-01-01T00:00:00Z".parse().unwrap(), "2033-01-01T00:00:00Z".parse().unwrap());
        let old = Authority::generate("kubernetes", then).unwrap();
        let renewed = old.renewed(now).unwrap();
        assert_ne!(old.certificate().hash(), renewed.certificate().hash());
        let token = JoinToken::new(BootstrapToken::generate().unwrap(), old.certificate());
        assert!(token.expose().parse::<JoinToken>().unwrap().check_authority(&renewed.cert_pem()).is_ok());
        // Tokens that hash the certificate, as were given out before, are good for that certificate.
        let text = format!("K10{}::abcdef.0123456789abcdef", old.certificate().hash());
        let held: JoinToken = text.parse().unwrap();
        assert!(held.check_authority(&old.cert_pem()).is_ok());
        assert!(held.check_authority(&renewed.cert_pem()).is_err());
    }

    #[test]
    fn malformed_tokens_are_refused_without_being_repeated() {
        for bad in
            ["", "abcdef", "ABCDEF.0123456789abcdef", "abcdef.short", "K10zz::abcdef.0123456789abcdef", "K10"]
        {
            let error = bad.parse::<JoinToken>().unwrap_err().to_string();
            assert!(bad.len() < 6 || !error.contains(bad), "{error}");
        }
    }

    #[test]
    fn cluster_info_is_signed_by_the_token() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        let other: BootstrapToken = "abcdef.0123456789abcdeg".parse().unwrap();
        let signature = token.sign("apiVersion: v1");
        assert!(signature.starts_with("eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9.."));
        assert!(token.verify("apiVersion: v1", &signature));
        assert!(!token.verify("apiVersion: v2", &signature));
        assert!(!other.verify("apiVersion: v1", &signature));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,100}") {
            let _ = text.parse::<JoinToken>();
        }
    }
}
