//! Service account tokens for pods, asked for by TokenRequest and renewed at four fifths of their life.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;

/// Tokens older than this are renewed even if they live longer.
const OLDEST: SignedDuration = SignedDuration::from_hours(24);
/// How many tokens are remembered.
const REMEMBERED: usize = 4096;

/// A token that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This kubelet runs without an API server.
    #[error("there is no API server")]
    NoApi,
    /// The API server refused.
    #[error("serviceaccounts/{account} token: {source}")]
    Request { account: String, source: Box<kube::Error> },
    /// The answer holds no token.
    #[error("serviceaccounts/{account} token: empty answer")]
    Empty { account: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    pod: String,
    audience: Option<String>,
    seconds: i64,
}

#[derive(Clone)]
struct Token {
    text: Arc<str>,
    renew_at: Timestamp,
    expires: Timestamp,
}

/// A shared handle to the tokens of this node's pods.
#[derive(Clone)]
pub struct Tokens {
    client: Option<kube::Client>,
    known: Arc<Mutex<HashMap<Key, Token>>>,
}

impl Tokens {
    pub fn new(client: Option<kube::Client>) -> Self {
        Self { client, known: Arc::default() }
    }

    /// A token for a pod's service account; a failed renewal is no error while the old one is good.
    pub async fn get(&self, pod: &Pod, audience: Option<&str>, seconds: i64) -> Result<Arc<str>, Error> {
        self.get_with_end(pod, audience, seconds).await.map(|(text, _)| text)
    }

    /// The same, with the end of its life.
    pub async fn get_with_end(
        &self,
        pod: &Pod,
        audience: Option<&str>,
        seconds: i64,
    ) -> Result<(Arc<str>, Timestamp), Error> {
        let audience = audience.filter(|a| !a.is_empty()).map(str::to_owned);
        let key = Key { pod: crate::pod::uid(pod).to_owned(), audience, seconds };
        let now = Timestamp::now();
        let known = self.known.lock().get(&key).cloned();
        if let Some(token) = &known
            && now < token.renew_at
        {
            return Ok((Arc::clone(&token.text), token.expires));
        }
        match (self.request(pod, &key, now).await, known) {
            (Ok(token), _) => {
                let mut all = self.known.lock();
                if all.len() >= REMEMBERED {
                    all.retain(|_, token| now < token.expires);
                }
                let given = (Arc::clone(&token.text), token.expires);
                all.insert(key, token);
                Ok(given)
            }
            (Err(error), Some(token)) if now < token.expires => {
                tracing::warn!(%error, pod = key.pod, "token not renewed, the old one is still good");
                Ok((token.text, token.expires))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// When the first of a pod's tokens wants renewing.
    pub fn renew_at(&self, uid: &str) -> Option<Timestamp> {
        let known = self.known.lock();
        known.iter().filter(|(key, _)| key.pod == uid).map(|(_, token)| token.renew_at).min()
    }

    /// Forgets a pod's tokens.
    pub fn forget(&self, uid: &str) {
        self.known.lock().retain(|key, _| key.pod != uid);
    }

    async fn request(&self, pod: &Pod, key: &Key, now: Timestamp) -> Result<Token, Error> {
        let client = self.client.clone().ok_or(Error::NoApi)?;
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(key.audience.iter().cloned().collect()),
                expiration_seconds: Some(key.seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            }),
            ..Default::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(client, crate::pod::namespace(pod));
        let answer = api.create_token_request(account, &PostParams::default(), &request).await;
        let answer = answer
            .map_err(|source| Error::Request { account: account.to_owned(), source: Box::new(source) })?;
        let empty = || Error::Empty { account: account.to_owned() };
        let status = answer.status.ok_or_else(empty)?;
        let text = status.token.filter(|token| !token.is_empty()).ok_or_else(empty)?;
        let expires = status.expiration_timestamp.ok_or_else(empty)?.0;
        let life = expires.duration_since(now);
        let renew = (life / 5 * 4).min(OLDEST);
        Ok(Token { text: text.into(), renew_at: now.checked_add(renew).unwrap_or(expires), expires })
    }
}
