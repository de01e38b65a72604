//! The two documents by which others verify service account tokens: OpenID discovery and the key set.

use crate::service_account::VerifyingKey;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Where the discovery document is served.
pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
/// Where the key set is served, with content type `application/jwk-set+json`.
pub const KEYS_PATH: &str = "/openid/v1/jwks";

/// The discovery document of `issuer`, its `keys` at `jwks_uri`.
#[must_use]
pub fn configuration(issuer: &str, jwks_uri: &str, keys: &[VerifyingKey]) -> Value {
    let algorithms: BTreeSet<&str> = keys.iter().map(VerifyingKey::algorithm).collect();
    json!({
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    })
}

/// The JSON web key set.
#[must_use]
pub fn key_set(keys: &[VerifyingKey]) -> Value {
    json!({ "keys": keys.iter().map(VerifyingKey::jwk).collect::<Vec<Value>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service_account::SigningKey;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    #[test]
    fn a_stranger_verifies_a_token_by_the_key_set() {
        let key = SigningKey::generate().unwrap();
        let token = key.sign(&crate::service_account::Claims::default()).unwrap();
        let set = key_set(&[key.public().clone()]);
        let part = |name: &str| BASE64URL.decode(set["keys"][0][name].as_str().unwrap()).unwrap();
        let point = [vec![4], part("x"), part("y")].concat();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let signature = BASE64URL.decode(signature).unwrap();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        assert!(public.verify(message.as_bytes(), &signature).is_ok());
    }
}
