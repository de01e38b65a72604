//! An issuer's keys: found by its discovery document when they are first needed, asked for again when a token is by none of them.
//!
//! What wakes it: tokens. What it reads: the discovery document, once; the key set. What it promises: one question is under way at a
//! time, and an issuer that does not answer is left alone for a while: anybody can send tokens in its name.

use crate::stream::trusted;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pki::jwk::KeySet;
use rustls::ClientConfig;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long an issuer may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one that failed is not asked again, as upstream's initialisation.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
/// How old a key set is at least when it is asked for again.
const AFTER_ANSWER: Duration = Duration::from_secs(1);
/// Bytes of a document.
const LONGEST: usize = 1 << 20;

/// Where keys come from.
pub trait Keys: Send + Sync {
    /// The keys that are known; the first time, they are asked for.
    fn known(&self) -> BoxFuture<'_, Result<Arc<KeySet>, String>>;

    /// Newer keys than those, as far as there are.
    fn fresh<'a>(&'a self, old: &'a Arc<KeySet>) -> BoxFuture<'a, Result<Arc<KeySet>, String>>;
}

/// An issuer on the network.
pub struct Remote {
    issuer: String,
    /// Where the discovery document is.
    discovery: String,
    tls: Arc<ClientConfig>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where the keys are.
    place: Option<String>,
    keys: Option<(Instant, Arc<KeySet>)>,
    failed: Option<(Instant, String)>,
}

impl Remote {
    /// The issuer of this URL, whose discovery document may be somewhere else; `authorities` (PEM) sign its certificate, or the
    /// machine's do.
    ///
    /// # Errors
    /// The authorities are none.
    pub fn new(
        issuer: &str,
        discovery: Option<&str>,
        authorities: Option<&str>,
    ) -> Result<Self, trusted::BundleError> {
        let usual = || format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let tls = trusted::config(authorities.unwrap_or_default().as_bytes(), false, None)?;
        let discovery = discovery.map_or_else(usual, str::to_owned);
        Ok(Self { issuer: issuer.to_owned(), discovery, tls, state: Mutex::default() })
    }

    /// The keys of `state`, asked for where they are older than `age`.
    async fn keys(&self, state: &mut State, age: Duration) -> Result<Arc<KeySet>, String> {
        if let Some((at, keys)) = &state.keys
            && at.elapsed() < age
        {
            return Ok(keys.clone());
        }
        if let Some((at, error)) = &state.failed
            && at.elapsed() < AFTER_FAILURE
        {
            // Keys that were right are right still.
            let known = state.keys.as_ref().map(|(_, keys)| keys.clone());
            return known.ok_or_else(|| error.clone());
        }
        match self.ask(&mut state.place).await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                state.keys = Some((Instant::now(), keys.clone()));
                state.failed = None;
                Ok(keys)
            }
            Err(error) => {
                tracing::error!(issuer = self.issuer, error, "read an issuer's keys");
                let error = format!("oidc: authenticator not initialized: {error}");
                state.failed = Some((Instant::now(), error.clone()));
                let known = state.keys.as_ref().map(|(_, keys)| keys.clone());
                known.ok_or(error)
            }
        }
    }

    async fn ask(&self, place: &mut Option<String>) -> Result<KeySet, String> {
        let found = match place.clone() {
            Some(found) => found,
            None => {
                let document = self.get(&self.discovery).await?;
                let named = document["issuer"].as_str().unwrap_or_default();
                if named != self.issuer {
                    return Err(format!(
                        "oidc: issuer did not match the issuer returned by provider, expected {:?} got {named:?}",
                        self.issuer
                    ));
                }
                let found = document["jwks_uri"].as_str().unwrap_or_default();
                if found.is_empty() {
                    return Err("provider did not return JWKS URL".to_owned());
                }
                place.insert(found.to_owned()).clone()
            }
        };
        Ok(KeySet::of(&self.get(&found).await?))
    }

    async fn get(&self, url: &str) -> Result<Value, String> {
        let said = |e: String| format!("Get {url:?}: {e}");
        let asked = tokio::time::timeout(PATIENCE, self.fetch(url)).await;
        let (code, body) =
            asked.unwrap_or_else(|_| Err("context deadline exceeded".to_owned())).map_err(said)?;
        if code != 200 {
            return Err(said(format!("the answer is {code}")));
        }
        serde_json::from_slice(&body).map_err(|e| said(e.to_string()))
    }

    async fn fetch(&self, url: &str) -> Result<(u16, Bytes), String> {
        let uri: http::Uri = url.parse().map_err(|e: http::uri::InvalidUri| e.to_string())?;
        if uri.scheme_str() != Some("https") {
            return Err("URL scheme must be https".to_owned());
        }
        let authority = uri.authority().ok_or("the URL names no host")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(443);
        let stream = trusted::connect(host, port, host, self.tls.clone()).await?;
        let words = |e: hyper::Error| e.to_string();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let request = http::Request::get(path)
            .header(HOST, authority.as_str())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, "kube-apiserver")
            .body(Empty::<Bytes>::new())
            .map_err(|e| e.to_string())?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(words)?;
            let code = response.status().as_u16();
            let body = Limited::new(response.into_body(), LONGEST).collect().await;
            Ok((code, body.map_err(|e| e.to_string())?.to_bytes()))
        };
        tokio::pin!(exchange);
        // The connection lives no longer than the question.
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            ended = connection => match ended {
                Ok(()) => exchange.await,
                Err(e) => Err(words(e)),
            },
        }
    }
}

impl Keys for Remote {
    fn known(&self) -> BoxFuture<'_, Result<Arc<KeySet>, String>> {
        Box::pin(async move { self.keys(&mut *self.state.lock().await, Duration::MAX).await })
    }

    fn fresh<'a>(&'a self, old: &'a Arc<KeySet>) -> BoxFuture<'a, Result<Arc<KeySet>, String>> {
        Box::pin(async move {
            let mut state = self.state.lock().await;
            // Another token may have asked meanwhile.
            match &state.keys {
                Some((_, keys)) if !Arc::ptr_eq(keys, old) => Ok(keys.clone()),
                _ => self.keys(&mut state, AFTER_ANSWER).await,
            }
        })
    }
}
