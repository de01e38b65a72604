//! Tokens that a service outside knows: TokenReviews over HTTP. Upstream: `apiserver/plugin/pkg/authenticator/token/webhook`, kept as
//! `apiserver/pkg/authentication/token/cache` keeps answers.
//!
//! What the service said of a token is kept for a while, be it that nobody is behind it; its failures are not.

use super::{Identity, Notes};
use crate::authz::webhook::{Failure, Reviewer, ask};
use crate::context::User;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const KIND: &str = "TokenReview";
/// Answers that are kept at once, as upstream.
const MOST: usize = 4096;

/// A token and the audiences it was shown for, never in clear.
type Key = [u8; 32];

/// Whom the service names, if anybody.
type Said = Option<Identity>;

/// The authenticator.
pub struct TokenWebhook {
    reviewer: Arc<dyn Reviewer>,
    /// `authentication.k8s.io/v1` or `authentication.k8s.io/v1beta1`.
    api_version: &'static str,
    kept_for: Duration,
    kept: Mutex<Kept>,
}

/// Answers, oldest first: all end after the same time.
#[derive(Default)]
struct Kept {
    answers: HashMap<Key, (Instant, Said)>,
    order: VecDeque<(Instant, Key)>,
}

/// The `status` of a review.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: Option<bool>,
    user: Option<Named>,
    audiences: Option<Vec<String>>,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    username: Option<String>,
    uid: Option<String>,
    groups: Option<Vec<String>>,
    extra: Option<BTreeMap<String, Vec<String>>>,
}

impl From<Named> for User {
    fn from(named: Named) -> Self {
        User {
            name: named.username.unwrap_or_default(),
            uid: named.uid.unwrap_or_default(),
            groups: named.groups.unwrap_or_default(),
            extra: named.extra.unwrap_or_default(),
        }
    }
}

impl TokenWebhook {
    /// Asks `reviewer`, in the form of `v1` or of `v1beta1`, and keeps what it says; zero: not at all.
    #[must_use]
    pub fn new(reviewer: Arc<dyn Reviewer>, v1: bool, kept_for: Duration) -> Self {
        let api_version = if v1 { "authentication.k8s.io/v1" } else { "authentication.k8s.io/v1beta1" };
        TokenWebhook { reviewer, api_version, kept_for, kept: Mutex::default() }
    }

    /// Whom the service names for `token`, shown for `wanted`. What it says of no audience is said for the API server's `own`.
    pub(super) async fn identify(
        &self,
        token: &str,
        wanted: &[String],
        own: &[String],
    ) -> Result<Option<Identity>, String> {
        let key = key(token, wanted);
        if let Some(said) = self.kept.lock().get(&key) {
            return Ok(said);
        }
        let mut spec = json!({"token": token});
        if !wanted.is_empty() {
            spec["audiences"] = json!(wanted);
        }
        let review = json!({
            "apiVersion": self.api_version, "kind": KIND, "metadata": {}, "spec": spec, "status": {"user": {}},
        });
        let answer = ask(&*self.reviewer, &review).await.and_then(|answer| self.status(&answer));
        let status = answer.map_err(|failure| {
            tracing::error!(error = failure.text, "Failed to make webhook authenticator request");
            failure.text
        })?;
        let said = judge(status, wanted, own)?;
        if !self.kept_for.is_zero() {
            self.kept.lock().keep(key, self.kept_for, said.clone());
        }
        Ok(said)
    }

    /// Of an answer; one that is no review is none.
    fn status(&self, answer: &Value) -> Result<Status, Failure> {
        let wrong = |what: String| {
            let text = format!("the answer of an authentication webhook is no {KIND}: {what}");
            Failure { text, passing: false }
        };
        let Value::Object(fields) = answer else { return Err(wrong("it is no object".to_owned())) };
        for (name, wanted) in [("kind", KIND), ("apiVersion", self.api_version)] {
            match fields.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::String(given)) if given.is_empty() || given == wanted => {}
                Some(given) => return Err(wrong(format!("its {name} is {given}"))),
            }
        }
        match fields.get("status") {
            None | Some(Value::Null) => Ok(Status::default()),
            Some(status @ Value::Object(_)) => Status::deserialize(status).map_err(|e| wrong(e.to_string())),
            Some(_) => Err(wrong("its status is no object".to_owned())),
        }
    }
}

/// What a status comes to. Audiences are looked at first: what is said for others is said of nobody here.
fn judge(status: Status, wanted: &[String], own: &[String]) -> Result<Said, String> {
    let named = status.audiences.filter(|named| !named.is_empty());
    let got = named.as_deref().unwrap_or(own);
    let audiences: Vec<String> = wanted.iter().filter(|audience| got.contains(audience)).cloned().collect();
    if audiences.is_empty() && !wanted.is_empty() {
        return Ok(None);
    }
    if status.authenticated != Some(true) {
        let error = status.error.filter(|error| !error.is_empty());
        return error.map_or(Ok(None), Err);
    }
    Ok(Some(Identity { user: status.user.unwrap_or_default().into(), audiences, notes: Notes::new() }))
}

fn key(token: &str, audiences: &[String]) -> Key {
    let mut digest = Sha256::new_with_prefix(token.len().to_le_bytes()).chain_update(token);
    for audience in audiences {
        digest.update(audience.len().to_le_bytes());
        digest.update(audience);
    }
    digest.finalize().into()
}

impl Kept {
    fn get(&self, key: &Key) -> Option<Said> {
        let (until, said) = self.answers.get(key)?;
        (*until > Instant::now()).then(|| said.clone())
    }

    fn keep(&mut self, key: Key, time: Duration, said: Said) {
        let now = Instant::now();
        while let Some((until, first)) =
            self.order.front().copied().filter(|(until, _)| *until <= now || self.order.len() >= MOST)
        {
            self.order.pop_front();
            // One that was told anew is in the queue a second time.
            if self.answers.get(&first).is_some_and(|(kept, _)| *kept == until) {
                self.answers.remove(&first);
            }
        }
        let until = now + time;
        self.answers.insert(key, (until, said));
        self.order.push_back((until, key));
    }
}

#[cfg(test)]
mod tests;
