//! Who sent this request? Client certificates, bearer tokens of three kinds, or nobody in particular.
//!
//! - [`certificate`]: x509 client certificates
//! - [`secret_token`]: service account tokens kept in secrets
//! - [`service_account`]: tokens signed by the cluster's key, and what they are bound to
//! - [`jwt`]: tokens that others sign; [`token_webhook`]: tokens that a service outside knows
//! - [`bootstrap_token`]: secrets that let a machine join; [`static_token`]: a fixed list
//! - [`request_header`]: what a proxy in front says; [`header_text`]: how
//! - [`bearer`]: where a request carries its token; [`review`]: TokenReview
//!
//! As upstream: every authenticator is asked, the first success wins; a failed credential is never taken for none.

pub mod bearer;
pub mod bootstrap_token;
pub mod certificate;
pub(crate) mod header_text;
pub mod jwt;
pub mod request_header;
pub mod review;
mod secret_token;
pub mod service_account;
pub mod static_token;
pub mod token_webhook;

pub use certificate::Peer;

use crate::context::User;
pub use crate::facts::AUTHENTICATED;
use crate::objects::Lookup;
use arc_swap::{ArcSwap, ArcSwapOption};
use http::request::Parts;
use jiff::Timestamp;
use std::sync::Arc;

/// Group of callers without credentials.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user nobody proved to be.
pub const ANONYMOUS: &str = "system:anonymous";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub user: User,
    /// For which of the asked audiences it is good.
    pub audiences: Vec<String>,
    /// What the audit log is to say of the credential.
    pub notes: Notes,
}

/// Annotations of the audit log.
pub type Notes = Vec<(&'static str, String)>;

/// What the authenticator needs to know. Absent parts recognise nobody.
#[derive(Default)]
pub struct Config {
    /// Who may say in headers who a caller is.
    pub front_proxies: Option<request_header::FrontProxies>,
    /// Authorities of client certificates.
    pub client_authorities: Option<certificate::Authorities>,
    /// Verifies service account tokens.
    pub service_accounts: Option<pki::service_account::Verifier>,
    /// Audiences of the API server itself; by convention its issuers.
    pub api_audiences: Vec<String>,
    /// Accept bootstrap tokens (Secrets of type `bootstrap.kubernetes.io/token`).
    pub bootstrap_tokens: bool,
    /// Tokens with a fixed user, without expiry.
    pub static_tokens: static_token::StaticTokens,
    /// Let requests without credentials in as [`ANONYMOUS`].
    pub anonymous: bool,
    /// Only for these paths; for all where there is none.
    pub anonymous_paths: Vec<String>,
    /// Issuers of tokens outside.
    pub issuers: jwt::Issuers,
    /// Who is asked about tokens that nobody here knows.
    pub webhook: Option<token_webhook::TokenWebhook>,
    /// Believe service account tokens that are kept in secrets although nobody looks whether they still are.
    pub unseen_secrets: bool,
}

pub struct Authenticator {
    front_proxies: ArcSwapOption<request_header::FrontProxies>,
    authorities: ArcSwapOption<certificate::Authorities>,
    service_accounts: Option<service_account::Tokens>,
    api_audiences: Vec<String>,
    bootstrap_tokens: bool,
    static_tokens: static_token::StaticTokens,
    anonymous: bool,
    anonymous_paths: Vec<String>,
    issuers: ArcSwap<jwt::Issuers>,
    webhook: Option<token_webhook::TokenWebhook>,
    unseen_secrets: bool,
    objects: Arc<dyn Lookup>,
}

/// No identity: answered 401 `Unauthorized`. The text is for the log.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to authenticate the request: {0}")]
pub struct Unauthenticated(pub String);

impl Authenticator {
    /// Recognises callers by `config`, reading what tokens are bound to from `objects`.
    #[must_use]
    pub fn new(config: Config, objects: Arc<dyn Lookup>) -> Self {
        Authenticator {
            front_proxies: ArcSwapOption::new(config.front_proxies.map(Arc::new)),
            authorities: ArcSwapOption::new(config.client_authorities.map(Arc::new)),
            service_accounts: config.service_accounts.map(service_account::Tokens::new),
            api_audiences: config.api_audiences,
            bootstrap_tokens: config.bootstrap_tokens,
            static_tokens: config.static_tokens,
            anonymous: config.anonymous,
            anonymous_paths: config.anonymous_paths,
            issuers: ArcSwap::from_pointee(config.issuers),
            webhook: config.webhook,
            unseen_secrets: config.unseen_secrets,
            objects,
        }
    }

    /// Replaces the authorities of client certificates, on open connections as well.
    pub fn set_client_authorities(&self, authorities: certificate::Authorities) {
        self.authorities.store(Some(Arc::new(authorities)));
    }

    /// Replaces the issuers of tokens outside.
    pub fn set_issuers(&self, issuers: jwt::Issuers) {
        self.issuers.store(Arc::new(issuers));
    }

    /// Replaces the authorities of the proxies in front, if any are believed at all.
    pub fn set_front_authorities(&self, authorities: &certificate::Authorities) {
        self.front_proxies.rcu(|known| {
            let known = known.as_deref()?.clone();
            Some(Arc::new(request_header::FrontProxies { authorities: authorities.clone(), ..known }))
        });
    }

    /// The user of a request. Removes the credentials from it, so that no backend sees them; `notes` get what the audit log is to say.
    pub async fn authenticate(
        &self,
        peer: &Peer,
        parts: &mut Parts,
        now: Timestamp,
        notes: &mut Notes,
    ) -> Result<User, Unauthenticated> {
        let mut failures = Vec::new();
        let token = bearer::take(&mut parts.headers);
        if let Some(proxies) = self.front_proxies.load_full() {
            match proxies.user(peer, &mut parts.headers, now) {
                Ok(Some(user)) => return Ok(with_group(user)),
                Ok(None) => {}
                Err(e) => failures.push(e),
            }
        }
        if let Some(authorities) = self.authorities.load_full() {
            match peer.user(&authorities, now) {
                Ok(Some(user)) => return Ok(with_group(user)),
                Ok(None) => {}
                Err(e) => failures.push(e),
            }
        }
        if let Some(token) = token {
            match self.authenticate_token(&token, &self.api_audiences, now).await {
                Ok(Some(identity)) => {
                    notes.extend(identity.notes);
                    return Ok(identity.user);
                }
                Ok(None) => failures.push("invalid bearer token".to_owned()),
                Err(e) => failures.extend(["invalid bearer token".to_owned(), e]),
            }
        }
        match failures.is_empty() {
            true if self.lets_in(parts.uri.path()) => Ok(anonymous()),
            true => Err(Unauthenticated("no credentials provided".to_owned())),
            false => Err(Unauthenticated(crate::authz::aggregate(&failures))),
        }
    }

    /// Whether anybody may ask for a path.
    fn lets_in(&self, path: &str) -> bool {
        let paths = &self.anonymous_paths;
        self.anonymous && (paths.is_empty() || paths.iter().any(|open| open == path))
    }

    /// The identity behind a token that is good for one of `audiences` (empty: the API server's own). `Ok(None)` where
    /// nobody knows the token; an error where somebody does, and refuses it. TokenReview answers by this, too.
    pub async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Option<Identity>, String> {
        let audiences = if audiences.is_empty() { &self.api_audiences } else { audiences };
        // Tokens that say nothing of audiences are meant for the API server.
        let unbound = |user| {
            let audiences: Vec<String> =
                audiences.iter().filter(|a| self.api_audiences.contains(a)).cloned().collect();
            (self.api_audiences.is_empty() || !audiences.is_empty()).then(|| Identity {
                user: with_group(user),
                audiences,
                notes: Notes::new(),
            })
        };
        if let Some(user) = self.static_tokens.user(token) {
            return Ok(unbound(user));
        }
        // As upstream: one who refuses a token leaves it to the others to know it.
        let mut refusals = Vec::new();
        match self.service_account(token, audiences, now).await {
            Ok(Some(identity)) => return Ok(Some(identity)),
            Ok(None) => {}
            Err(refusal) => refusals.push(refusal),
        }
        if self.bootstrap_tokens
            && let Some(user) = bootstrap_token::identify(token, &*self.objects, now).await
        {
            return Ok(unbound(user));
        }
        let issuers = self.issuers.load_full();
        match Box::pin(issuers.user(token, now)).await {
            Ok(Some(user)) => return Ok(unbound(user)),
            Ok(None) => {}
            Err(refusal) => refusals.push(refusal),
        }
        if let Some(webhook) = &self.webhook {
            match webhook.identify(token, audiences, &self.api_audiences).await {
                Ok(Some(identity)) => {
                    return Ok(Some(Identity { user: with_group(identity.user), ..identity }));
                }
                Ok(None) => {}
                Err(refusal) => refusals.push(refusal),
            }
        }
        if refusals.is_empty() { Ok(None) } else { Err(crate::authz::aggregate(&refusals)) }
    }

    /// The service account behind a token of this cluster's.
    async fn service_account(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Option<Identity>, String> {
        let Some(tokens) = &self.service_accounts else { return Ok(None) };
        if let Some(identity) = tokens.identify(token, audiences, &*self.objects, now).await? {
            return Ok(Some(Identity { user: with_group(identity.user), ..identity }));
        }
        let Some(claims) = tokens.legacy(token)? else { return Ok(None) };
        let (user, notes) =
            secret_token::identify(&claims, token, &*self.objects, now, self.unseen_secrets).await?;
        let own: Vec<String> = audiences.iter().filter(|a| self.api_audiences.contains(a)).cloned().collect();
        if own.is_empty() && !self.api_audiences.is_empty() {
            return Err(service_account::wrong_audience(&self.api_audiences, audiences));
        }
        Ok(Some(Identity { user: with_group(user), audiences: own, notes }))
    }
}

/// The user of requests without credentials.
#[must_use]
pub fn anonymous() -> User {
    User { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..User::default() }
}

fn with_group(mut user: User) -> User {
    if !user.groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    user
}

#[cfg(test)]
mod tests;
