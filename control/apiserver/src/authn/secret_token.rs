//! Service account tokens kept in secrets: good while the secret holds them and the account lives.
//! Upstream: `pkg/serviceaccount/legacy.go`.

use super::service_account::user;
use crate::context::User;
use crate::objects::{Lookup, text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use machinery::goformat::go_quote;
use pki::service_account::LegacyClaims;
use serde_json::Value;

/// On a secret whose token was not used for long: since when it is not accepted.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// On a secret: the day its token was used last, in UTC.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

/// The account behind `token`, whose signature is ours and which says `claims`; whether secret and account are there is not looked for
/// where that may stay `unseen`.
pub async fn identify(
    claims: &LegacyClaims,
    token: &str,
    objects: &dyn Lookup,
    now: Timestamp,
    unseen: bool,
) -> Result<User, String> {
    let LegacyClaims { namespace, secret, account, account_uid, sub, .. } = claims;
    let needed = [
        (sub, "sub"),
        (namespace, "namespace"),
        (secret, "secretName"),
        (account, "serviceAccountName"),
        (account_uid, "serviceAccountUID"),
    ];
    if let Some((_, name)) = needed.into_iter().find(|(value, _)| value.is_empty()) {
        return Err(format!("{name} claim is missing"));
    }
    let user = user(namespace, account, account_uid);
    if *sub != user.name {
        return Err("sub claim is invalid".to_owned());
    }
    if unseen {
        return Ok(user);
    }
    let deleted = |object: &Value| object.pointer("/metadata/deletionTimestamp").is_some();
    let found = objects.get("", "secrets", namespace, secret).await.filter(|secret| !deleted(secret));
    let Some(found) = found else { return Err("Token has been invalidated".to_owned()) };
    if STANDARD.decode(text(&found, "/data/token")).ok().as_deref() != Some(token.as_bytes()) {
        return Err("Token does not match server's copy".to_owned());
    }
    let there = objects.get("", "serviceaccounts", namespace, account).await;
    let there = there.ok_or_else(|| format!("serviceaccounts {} not found", go_quote(account)))?;
    if deleted(&there) {
        return Err(format!("ServiceAccount {namespace}/{account} has been deleted"));
    }
    let uid = text(&there, "/metadata/uid");
    if uid != account_uid {
        return Err(format!("ServiceAccount UID ({uid}) does not match claim ({account_uid})"));
    }
    note_use(&found, objects, now).await;
    if !label(&found, INVALID_SINCE).is_empty() {
        return Err(format!(
            "the token in secret {namespace}/{secret} for service account {namespace}/{account} has been marked invalid. \
             Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' \
             label from the secret to temporarily allow use of this token"
        ));
    }
    Ok(user)
}

fn label<'a>(secret: &'a Value, name: &str) -> &'a str {
    secret.pointer("/metadata/labels").and_then(|l| l.get(name)).and_then(Value::as_str).unwrap_or_default()
}

/// Writes the day, once a day; tomorrow's is left, as clocks of several servers differ.
async fn note_use(secret: &Value, objects: &dyn Lookup, now: Timestamp) {
    let day = |at: Timestamp| at.strftime("%Y-%m-%d").to_string();
    let today = day(now);
    let tomorrow = now.saturating_add(SignedDuration::from_hours(24)).map(day).unwrap_or_default();
    let last = label(secret, LAST_USED);
    if last != today && last != tomorrow {
        objects.label_secret(secret, LAST_USED, &today).await;
    }
}
