//! Who calls: a client certificate of the cluster's authority, or a bearer token the API server knows.

use super::cache::Cache;
use super::config::Authentication;
use super::tls::Authorities;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::Api;
use kube::api::PostParams;
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Tokens whose reviews are kept.
const MOST_TOKENS: usize = 4096;
/// How long the API server may take for a review.
pub(super) const REVIEW_PATIENCE: Duration = Duration::from_secs(10);
const AUTHENTICATED: &str = "system:authenticated";

/// Who calls, as a certificate or a TokenReview says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct User {
    /// As roles name it.
    pub name: String,
    /// Its UID, where it has one.
    pub uid: String,
    /// What it belongs to, as roles name it.
    pub groups: Vec<String>,
    /// Whatever else the API server knows of it.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Nobody in particular.
    pub fn is_anonymous(&self) -> bool {
        self.name == "system:anonymous"
    }

    fn anonymous() -> Self {
        let groups = vec!["system:unauthenticated".to_owned()];
        Self { name: "system:anonymous".to_owned(), groups, ..Self::default() }
    }

    /// The caller, who is known by now.
    pub fn authenticated(mut self) -> Self {
        if !self.groups.iter().any(|group| group == AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }
}

impl From<UserInfo> for User {
    fn from(info: UserInfo) -> Self {
        Self {
            name: info.username.unwrap_or_default(),
            uid: info.uid.unwrap_or_default(),
            groups: info.groups.unwrap_or_default(),
            extra: info.extra.unwrap_or_default(),
        }
    }
}

/// Tells callers apart by certificate and by token.
pub struct Authenticator {
    settings: Authentication,
    authorities: Option<Authorities>,
    client: Option<kube::Client>,
    tokens: Cache<[u8; 32], Option<User>>,
}

impl Authenticator {
    /// One that believes certificates of `authorities` and asks `client` about tokens.
    pub fn new(
        settings: Authentication,
        authorities: Option<Authorities>,
        client: Option<kube::Client>,
    ) -> Self {
        Self { settings, authorities, client, tokens: Cache::new(MOST_TOKENS) }
    }

    /// The caller; `None` is answered 401.
    pub async fn user(&self, chain: &[CertificateDer<'static>], headers: &HeaderMap) -> Option<User> {
        if let Some(user) = self.of_certificate(chain) {
            return Some(user);
        }
        match bearer(headers) {
            Some(token) if self.settings.tokens => self.of_token(token).await,
            // A token nobody looks at is no reason to call its bearer anonymous.
            Some(_) => None,
            None => self.settings.anonymous.then(User::anonymous),
        }
    }

    fn of_certificate(&self, chain: &[CertificateDer<'static>]) -> Option<User> {
        let leaf = chain.first()?;
        if let Err(error) = self.authorities.as_ref()?.verify(chain, UnixTime::now()) {
            tracing::debug!(%error, "client certificate is not accepted");
            return None;
        }
        subject(leaf)
    }

    async fn of_token(&self, token: &str) -> Option<User> {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.tokens.get(&key, Instant::now()) {
            return known;
        }
        let client = self.client.clone()?;
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(client);
        let parameters = PostParams::default();
        let answer = match tokio::time::timeout(REVIEW_PATIENCE, api.create(&parameters, &review)).await {
            Ok(Ok(answer)) => answer,
            // Not kept: the API server may be back at the next request.
            Ok(Err(error)) => {
                tracing::warn!(%error, "review a token");
                return None;
            }
            Err(_) => {
                tracing::warn!("review a token: no answer");
                return None;
            }
        };
        let status = answer.status.unwrap_or_default();
        if let Some(error) = status.error.filter(|e| !e.is_empty()) {
            tracing::debug!(error, "token is not accepted");
        }
        let user = if status.authenticated == Some(true) { status.user } else { None };
        let user = user.map(|info| User::from(info).authenticated());
        self.tokens.put(key, user.clone(), self.settings.cache, Instant::now());
        user
    }
}

/// Common name and organisations; `None` without a common name.
fn subject(leaf: &CertificateDer<'_>) -> Option<User> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    let user = User { name, groups, ..User::default() };
    (!user.name.is_empty()).then(|| user.authenticated())
}

/// The bearer token of a request, read as upstream reads it.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_tokens_are_found() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer abc"), Some("abc".to_owned()));
        assert_eq!(of("bearer  abc "), Some("abc".to_owned()));
        for none in ["Basic abc", "Bearer", "Bearer ", "abc"] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
