//! Tokens that issuers outside sign: OpenID Connect. Upstream: `apiserver/plugin/pkg/authenticator/token/oidc`, whose texts these are.
//!
//! A token of an issuer's URL is that issuer's: verified by its keys ([`keys`]), for one of its audiences, in its time. What its
//! claims make of its bearer is said by names of claims or by expressions ([`mapping`]); rules on claims and on the user may refuse him.

pub mod keys;
pub mod mapping;

use crate::context::User;
use jiff::Timestamp;
use keys::Keys;
use machinery::admission::Evaluator;
use mapping::{Mapping, Rule};
use pki::jwk::Token;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How far ahead of our clock an issuer's may be, in seconds (go-oidc's leeway for `nbf`).
const LEEWAY: i64 = 300;
/// Every algorithm that is verified here.
pub const ALGORITHMS: [&str; 8] = ["ES256", "ES384", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];

/// An issuer, and what its tokens mean.
pub struct Issuer {
    /// `iss` of its tokens.
    pub url: String,
    /// Its tokens are for one of these.
    pub audiences: Vec<String>,
    /// How they may be signed.
    pub algorithms: Vec<String>,
    /// Its keys.
    pub keys: Arc<dyn Keys>,
    /// Who the bearer is.
    pub mapping: Mapping,
    /// Claims that must be there, and be these texts.
    pub required: BTreeMap<String, String>,
    /// What must hold of the claims.
    pub claim_rules: Vec<Rule>,
    /// What must hold of the user.
    pub user_rules: Vec<Rule>,
}

/// Several issuers, each with a URL of its own.
#[derive(Default)]
pub struct Issuers(pub Vec<Issuer>);

impl Issuers {
    /// The bearer of a token; `None` where no issuer of these has made it.
    ///
    /// # Errors
    /// One has, and the token is not to be accepted.
    pub async fn user(&self, text: &str, now: Timestamp) -> Result<Option<User>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let Some(token) = Token::read(text) else { return Ok(None) };
        let named = match token.claims.get("iss").and_then(Value::as_str) {
            Some("accounts.google.com") => "https://accounts.google.com",
            Some(named) => named,
            None => return Ok(None),
        };
        match self.0.iter().find(|issuer| issuer.url == named) {
            Some(issuer) => issuer.user(&token, now).await.map(Some),
            None => Ok(None),
        }
    }
}

impl Issuer {
    async fn user(&self, token: &Token, now: Timestamp) -> Result<User, String> {
        let verified = |e: String| format!("oidc: verify token: {e}");
        self.check(&token.claims, now).map_err(verified)?;
        if !self.algorithms.contains(&token.algorithm) {
            let (given, wanted) = (&token.algorithm, &self.algorithms);
            return Err(verified(format!(
                "oidc: id token signed with unsupported algorithm, expected {wanted:?} got {given:?}"
            )));
        }
        let known = self.keys.known().await?;
        if !known.verify(token) && !self.keys.fresh(&known).await?.verify(token) {
            return Err(verified(
                "failed to verify signature: failed to verify id token signature".to_owned(),
            ));
        }
        let claims = Value::Object(token.claims.clone());
        let user = self.mapping.user(&token.claims, &claims)?;
        self.judge(&token.claims, &claims, &user)?;
        Ok(user)
    }

    /// Audience and time.
    fn check(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<(), String> {
        let audiences: Vec<&str> = match claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !self.audiences.iter().any(|ours| audiences.contains(&ours.as_str())) {
            return Err(format!("oidc: expected audience in {:?} got {audiences:?}", self.audiences));
        }
        // Numbers of seconds may have a fraction.
        #[allow(clippy::cast_possible_truncation, reason = "a second is exact enough, and a float saturates")]
        let time = |name: &str| claims.get(name).and_then(Value::as_f64).map(|seconds| seconds as i64);
        let expires = time("exp").unwrap_or(0);
        if expires < now.as_second() {
            let shown = Timestamp::from_second(expires).map(|at| at.to_string()).unwrap_or_default();
            return Err(format!("oidc: token is expired (Token Expiry: {shown})"));
        }
        match time("nbf") {
            Some(begins) if now.as_second().saturating_add(LEEWAY) < begins => {
                Err(format!("oidc: current time {now} before the nbf (not before) time: {begins}"))
            }
            _ => Ok(()),
        }
    }

    /// What the rules say of claims and user.
    fn judge(&self, claims: &Map<String, Value>, value: &Value, user: &User) -> Result<(), String> {
        for (name, wanted) in &self.required {
            match claims.get(name) {
                None => return Err(format!("oidc: required claim {name} not present in ID token")),
                Some(Value::String(given)) if given == wanted => {}
                Some(Value::String(given)) => {
                    return Err(format!(
                        "oidc: required claim {name} value does not match. Got = {given}, want = {wanted}"
                    ));
                }
                Some(_) => return Err(format!("oidc: parse claim {name}: it is no text")),
            }
        }
        let mut evaluator = Evaluator::default();
        evaluator.bind("claims", value);
        mapping::hold(&self.claim_rules, &mut evaluator)
            .map_err(|e| format!("oidc: error evaluating claim validation expression: {e}"))?;
        if self.user_rules.is_empty() {
            return Ok(());
        }
        let mut evaluator = Evaluator::default();
        let User { name, uid, groups, extra } = user;
        let user = serde_json::json!({"username": name, "uid": uid, "groups": groups, "extra": extra});
        evaluator.bind("user", &user);
        mapping::hold(&self.user_rules, &mut evaluator)
            .map_err(|e| format!("oidc: error evaluating user info validation rule: {e}"))
    }
}

#[cfg(test)]
mod tests;
