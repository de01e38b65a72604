//! Service account tokens: signed by the cluster's key, and good while what they are bound to lives.
//! Upstream: `pkg/serviceaccount/{jwt,claims}.go`.

use super::{Identity, Notes};
use crate::context::User;
use crate::objects::{Lookup, text};
use jiff::{SignedDuration, Timestamp};
use machinery::goformat::go_quote;
use pki::service_account::{BoundObject, Claims, LegacyClaims, TokenError, Verifier};
use serde_json::Value;
use std::collections::BTreeMap;

/// What is deleted stays good for so long: clocks differ.
const LEEWAY: SignedDuration = SignedDuration::from_mins(1);
const INVALIDATED: &str = "service account token has been invalidated";

/// Recognises service account tokens.
pub struct Tokens(Verifier);

impl Tokens {
    /// Accepts what `verifier` accepts.
    #[must_use]
    pub fn new(verifier: Verifier) -> Self {
        Tokens(verifier)
    }

    /// The identity of a token; `None` for one that is not this cluster's.
    pub async fn identify(
        &self,
        token: &str,
        audiences: &[String],
        objects: &dyn Lookup,
        now: Timestamp,
    ) -> Result<Option<Identity>, String> {
        let verified = match self.0.verify(token, audiences, now) {
            Ok(verified) => verified,
            Err(TokenError::Foreign) => return Ok(None),
            Err(TokenError::Audience { found, wanted }) => return Err(wrong_audience(&found, &wanted)),
            Err(e) => return Err(e.to_string()),
        };
        let user = check(&verified.claims, objects, now).await?;
        Ok(Some(Identity { user, audiences: verified.audiences, notes: stale(&verified.claims, now) }))
    }
}

impl Tokens {
    /// What a token kept in a secret says; `None` for one that is none of this cluster's.
    pub(super) fn legacy(&self, token: &str) -> Result<Option<LegacyClaims>, String> {
        match self.0.verify_legacy(token) {
            Ok(claims) => Ok(Some(claims)),
            Err(TokenError::Foreign) => Ok(None),
            Err(e) => Err(e.to_string()),
        }
    }
}

/// A token that was not issued for those who ask.
pub(super) fn wrong_audience(found: &[String], wanted: &[String]) -> String {
    let (found, wanted) = (go_list(found), go_list(wanted));
    format!("token audiences {found} is invalid for the target audiences {wanted}")
}

/// Go's `%q` of a list of strings.
fn go_list(items: &[String]) -> String {
    format!("[{}]", items.iter().map(|i| go_quote(i)).collect::<Vec<_>>().join(" "))
}

async fn check(claims: &Claims, objects: &dyn Lookup, now: Timestamp) -> Result<User, String> {
    let k = &claims.kubernetes;
    let account = &k.serviceaccount;
    let name = format!("system:serviceaccount:{}:{}", k.namespace, account.name);
    if claims.sub != name {
        return Err("sub claim is missing or does not name the service account".to_owned());
    }
    let found = objects
        .get("", "serviceaccounts", &k.namespace, &account.name)
        .await
        .ok_or_else(|| format!("serviceaccounts {} not found", go_quote(&account.name)))?;
    if is_deleted(&found, now) {
        return Err(format!("service account {}/{} has been deleted", k.namespace, account.name));
    }
    let uid = text(&found, "/metadata/uid");
    if uid != account.uid {
        return Err(format!("service account UID ({uid}) does not match claim ({})", account.uid));
    }
    let bound = Bound { objects, now };
    if let Some(secret) = &k.secret {
        bound.check(secret, "secrets", &k.namespace, "secret", "service account secret").await?;
    }
    let mut extra = BTreeMap::new();
    let mut say = |key: &str, value: String| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        }
    };
    if let Some(pod) = &k.pod {
        bound.check(pod, "pods", &k.namespace, "pod", "service account pod").await?;
        say("pod-name", pod.name.clone());
        say("pod-uid", pod.uid.clone());
    }
    if let Some(node) = &k.node {
        // A pod's node is only informative; a token bound to a node dies with it.
        if k.pod.is_none() {
            bound.check(node, "nodes", "", "node", "service account node").await?;
        }
        say("node-name", node.name.clone());
        say("node-uid", node.uid.clone());
    }
    if !claims.jti.is_empty() {
        say("credential-id", format!("JTI={}", claims.jti));
    }
    Ok(User { extra, ..user(&k.namespace, &account.name, &account.uid) })
}

/// What is said of a token whose client should have read another by now.
fn stale(claims: &Claims, now: Timestamp) -> Notes {
    let over = claims.kubernetes.warnafter.filter(|at| *at != 0).map(|at| now.as_second() - at);
    let text = |over| format!("subject: {}, seconds after warning threshold: {over}", claims.sub);
    let note = |over| ("authentication.k8s.io/stale-token", text(over));
    over.filter(|over| *over > 0).map(note).into_iter().collect()
}

/// A service account as a user.
pub(super) fn user(namespace: &str, name: &str, uid: &str) -> User {
    User {
        groups: vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")],
        name: format!("system:serviceaccount:{namespace}:{name}"),
        uid: uid.to_owned(),
        ..User::default()
    }
}

struct Bound<'a> {
    objects: &'a dyn Lookup,
    now: Timestamp,
}

impl Bound<'_> {
    async fn check(
        &self,
        claim: &BoundObject,
        resource: &str,
        namespace: &str,
        kind: &str,
        role: &str,
    ) -> Result<(), String> {
        let Some(found) = self.objects.get("", resource, namespace, &claim.name).await else {
            return Err(INVALIDATED.to_owned());
        };
        if is_deleted(&found, self.now) {
            return Err(INVALIDATED.to_owned());
        }
        let uid = text(&found, "/metadata/uid");
        if uid != claim.uid {
            return Err(format!("{kind} UID ({uid}) does not match {role} ref claim ({})", claim.uid));
        }
        Ok(())
    }
}

fn is_deleted(object: &Value, now: Timestamp) -> bool {
    text(object, "/metadata/deletionTimestamp")
        .parse::<Timestamp>()
        .is_ok_and(|at| now.checked_sub(LEEWAY).is_ok_and(|limit| at < limit))
}
