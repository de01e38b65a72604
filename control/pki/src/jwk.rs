//! JSON web tokens and keys of others: what OpenID Connect's issuers sign with (RFC 7515, 7517, 7518).
//!
//! RSA (PKCS #1 and PSS) and ECDSA on P-256 and P-384; keys of other kinds are left out.

use crate::public::{Material, stripped};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde_json::{Map, Value};

/// Longest token looked at, in bytes.
const LONGEST: usize = 64 * 1024;

/// A token that is read, and not verified: nothing in it is to be believed yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// How it says it is signed.
    pub algorithm: String,
    /// With which key; may be empty.
    pub key: String,
    /// What it says.
    pub claims: Map<String, Value>,
    /// It names extensions that must be understood (RFC 7515, `crit`); none is.
    critical: bool,
    signed: String,
    signature: Vec<u8>,
}

impl Token {
    /// Reads a compact token; `None` where it is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, body) = signed.split_once('.').filter(|(_, body)| !body.contains('.'))?;
        let decode = |part: &str| BASE64URL.decode(part).ok();
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        let word = |name: &str| header[name].as_str().unwrap_or_default().to_owned();
        Some(Self {
            algorithm: word("alg"),
            key: word("kid"),
            critical: header.get("crit").is_some(),
            claims: serde_json::from_slice(&decode(body)?).ok()?,
            signed: signed.to_owned(),
            signature: decode(signature)?,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    id: String,
    /// The only algorithm it is for; empty: any that fits.
    algorithm: String,
    material: Material,
}

/// The keys of an issuer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// Those of a key set that are known here and made for signatures.
    #[must_use]
    pub fn of(set: &Value) -> Self {
        Self(set["keys"].as_array().into_iter().flatten().filter_map(key).collect())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the keys has made the token's signature.
    #[must_use]
    pub fn verify(&self, token: &Token) -> bool {
        let fits = |key: &&Key| {
            (token.key.is_empty() || key.id == token.key)
                && (key.algorithm.is_empty() || key.algorithm == token.algorithm)
        };
        !token.critical && self.0.iter().filter(fits).any(|key| key.verify(token))
    }
}

impl Key {
    fn verify(&self, token: &Token) -> bool {
        self.material.verify(&token.algorithm, token.signed.as_bytes(), &token.signature)
    }
}

fn key(jwk: &Value) -> Option<Key> {
    let word = |name: &str| jwk[name].as_str().unwrap_or_default();
    if !matches!(word("use"), "" | "sig") {
        return None;
    }
    let number =
        |name: &str| BASE64URL.decode(word(name).trim_end_matches('=')).ok().filter(|n| !n.is_empty());
    let point = |length: usize| {
        let mut point = vec![4];
        for name in ["x", "y"] {
            let number = number(name).filter(|number| number.len() <= length)?;
            point.resize(point.len() + length - number.len(), 0);
            point.extend(number);
        }
        Some(point)
    };
    let material = match (word("kty"), word("crv")) {
        ("RSA", _) => Material::Rsa { n: stripped(&number("n")?), e: stripped(&number("e")?) },
        ("EC", "P-256") => Material::P256(point(32)?),
        ("EC", "P-384") => Material::P384(point(48)?),
        _ => return None,
    };
    Some(Key { id: word("kid").to_owned(), algorithm: word("alg").to_owned(), material })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service_account::{Claims, SigningKey};
    use serde_json::json;

    fn signed() -> (Value, String) {
        let key = SigningKey::generate().unwrap();
        let claims: Claims = serde_json::from_value(json!({
            "iss": "https://issuer", "sub": "s", "aud": ["a"], "exp": 1, "iat": 1, "nbf": 1, "jti": "",
            "kubernetes.io": {"namespace": "n", "serviceaccount": {"name": "n", "uid": "u"}},
        }))
        .unwrap();
        (crate::openid::key_set(std::slice::from_ref(key.public())), key.sign(&claims).unwrap())
    }

    #[test]
    fn a_token_must_not_pass_by_another_key_or_another_algorithm() {
        let (set, text) = signed();
        let token = Token::read(&text).unwrap();
        assert_eq!(
            (token.algorithm.as_str(), token.claims["iss"].as_str()),
            ("ES256", Some("https://issuer"))
        );
        assert!(KeySet::of(&set).verify(&token));
        let (other, _) = signed();
        assert!(!KeySet::of(&other).verify(&token), "another key");
        let nameless = Token { key: String::new(), ..token.clone() };
        assert!(KeySet::of(&set).verify(&nameless) && !KeySet::of(&other).verify(&nameless));
        for algorithm in ["none", "HS256", "RS256", "ES384"] {
            let token = Token { algorithm: algorithm.to_owned(), ..token.clone() };
            assert!(!KeySet::of(&set).verify(&token), "{algorithm}");
        }
        assert!(!KeySet::of(&set).verify(&Token { critical: true, ..token.clone() }), "not understood");
        let mut changed = token;
        changed.signed.push('x');
        assert!(!KeySet::of(&set).verify(&changed));
    }

    #[test]
    fn what_is_no_token_and_no_key_is_left_out() {
        for text in ["", "a.b", "a.b.c.d", "e30.e30", "e30.W10.e30", "{}"] {
            assert_eq!(Token::read(text), None, "{text}");
        }
        let (mut set, _) = signed();
        set["keys"][0]["use"] = json!("enc");
        assert!(KeySet::of(&set).is_empty());
        for jwk in [
            json!({}),
            json!({"kty": "EC", "crv": "P-521"}),
            json!({"kty": "RSA", "n": "!"}),
            json!({"kty": "oct"}),
        ] {
            assert!(KeySet::of(&json!({"keys": [jwk]})).is_empty());
        }
    }

    /// A key and a signature made by openssl.
    #[test]
    fn rsa_signatures_are_verified() {
        let case: Value = serde_json::from_str(include_str!("../tests/data/rs256.json")).unwrap();
        let token = Token::read(case["token"].as_str().unwrap()).unwrap();
        assert_eq!(token.claims["sub"], "alice");
        assert!(KeySet::of(&case["keys"]).verify(&token));
        let ps = Token::read(case["pss"].as_str().unwrap()).unwrap();
        assert_eq!(ps.algorithm, "PS256");
        assert!(KeySet::of(&case["keys"]).verify(&ps));
        let mixed = Token { algorithm: "RS256".to_owned(), ..ps };
        assert!(!KeySet::of(&case["keys"]).verify(&mixed));
    }
}
