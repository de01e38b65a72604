//! Bootstrap tokens: `id.secret`, kept in a secret of `kube-system`.
//! Upstream: `plugin/pkg/auth/authenticator/token/bootstrap`.

use crate::context::User;
use crate::objects::{Lookup, text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use pki::bootstrap::{BootstrapToken, GROUP, SECRET_NAMESPACE, SECRET_TYPE};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Whose token it is; `None` for every token that is not a live bootstrap token, as upstream tells no reasons.
pub async fn identify(token: &str, objects: &dyn Lookup, now: Timestamp) -> Option<User> {
    let token: BootstrapToken = token.parse().ok()?;
    let secret = objects.get("", "secrets", SECRET_NAMESPACE, &token.secret_name()).await?;
    match check(&token, &secret, now) {
        Ok(groups) => {
            Some(User { name: format!("system:bootstrap:{}", token.id()), groups, ..User::default() })
        }
        Err(reason) => {
            tracing::debug!(id = token.id(), reason, "bootstrap token refused");
            None
        }
    }
}

/// The groups of a token, where its secret agrees. Pure.
fn check(token: &BootstrapToken, secret: &Value, now: Timestamp) -> Result<Vec<String>, &'static str> {
    let data = |key: &str| {
        STANDARD
            .decode(text(secret, &format!("/data/{key}")))
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_default()
    };
    if secret.pointer("/metadata/deletionTimestamp").is_some() {
        return Err("the secret is being deleted");
    }
    if text(secret, "/type") != SECRET_TYPE {
        return Err("the secret has another type");
    }
    // Hashes are compared, so that timing tells nothing of the secret.
    if Sha256::digest(data("token-secret")) != Sha256::digest(token.secret()) {
        return Err("the secret does not match");
    }
    if data("token-id") != token.id() {
        return Err("the token id does not match");
    }
    let expiration = data("expiration");
    if !expiration.is_empty() {
        match expiration.parse::<Timestamp>() {
            Ok(at) if now < at => {}
            Ok(_) => return Err("expired"),
            Err(_) => return Err("the expiration does not parse"),
        }
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err("not meant for authentication");
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in data("auth-extra-groups").split(',').filter(|g| !g.is_empty()) {
        if !is_bootstrap_group(group) {
            return Err("a group is not one of system:bootstrappers");
        }
        if !groups.iter().any(|g| g == group) {
            groups.push(group.to_owned());
        }
    }
    Ok(groups)
}

/// `system:bootstrappers:` and at most 256 of `[a-z0-9:-]`, the last one no punctuation.
fn is_bootstrap_group(group: &str) -> bool {
    group.strip_prefix("system:bootstrappers:").is_some_and(|rest| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        rest.len() <= 256
            && rest.bytes().all(|b| plain(b) || b == b':' || b == b'-')
            && rest.bytes().last().is_some_and(plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(token: &BootstrapToken, change: &[(&str, &str)]) -> Value {
        let mut data: serde_json::Map<String, Value> = token
            .secret_data("", None)
            .into_iter()
            .map(|(k, v)| (k.to_owned(), STANDARD.encode(v).into()))
            .collect();
        for (key, value) in change {
            data.insert((*key).to_owned(), STANDARD.encode(value).into());
        }
        json!({"type": SECRET_TYPE, "data": data})
    }

    #[test]
    fn a_token_is_good_only_while_its_secret_says_so() {
        let token = BootstrapToken::generate().unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let groups = check(&token, &secret(&token, &[]), now).unwrap();
        assert_eq!(groups, ["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token"]);
        assert!(check(&token, &secret(&token, &[("expiration", "2026-01-01T00:00:01Z")]), now).is_ok());
        for bad in [
            ("expiration", "2026-01-01T00:00:00Z"),
            ("expiration", "soon"),
            ("token-secret", "0123456789abcdef"),
            ("token-id", "abcdef"),
            ("usage-bootstrap-authentication", "false"),
            ("auth-extra-groups", "system:masters"),
            ("auth-extra-groups", "system:bootstrappers:x:"),
        ] {
            assert!(check(&token, &secret(&token, &[bad]), now).is_err(), "{bad:?}");
        }
        let mut other = secret(&token, &[]);
        other["type"] = "Opaque".into();
        assert!(check(&token, &other, now).is_err());
    }
}
