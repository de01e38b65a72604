//! What the registry asks of the front of the server: who a token speaks for, what a user may do, and how to carry a
//! streaming request to a kubelet. The front implements [`Hooks`]; tests use [`AllowAll`].

use crate::context::{Context, Request, RequestInfo, Response, User};
use futures::future::BoxFuture;
use serde_json::Value;

/// An authorizer's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, and why.
    Allow(String),
    /// Denied for good, whatever others say.
    Deny(String),
    /// Nobody allowed it.
    NoOpinion(String),
}

/// What `SelfSubjectRulesReview` answers.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// `authorization.k8s.io/v1` `ResourceRule` objects.
    pub resource_rules: Vec<Value>,
    /// `authorization.k8s.io/v1` `NonResourceRule` objects.
    pub non_resource_rules: Vec<Value>,
    /// Some authorizer could not list its rules.
    pub incomplete: bool,
    /// Why, if anything failed.
    pub evaluation_error: String,
}

/// The caller a reviewed token speaks for.
#[derive(Clone, Debug, Default)]
pub struct Reviewed {
    /// Who it is.
    pub user: User,
    /// Those of the audiences asked for that the token is meant for.
    pub audiences: Vec<String>,
}

/// The front's services to the registry.
pub trait Hooks: Send + Sync + 'static {
    /// Checks a bearer token for `audiences` (empty: the server's own). `Ok(None)`: nobody knows it.
    fn review_token<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Reviewed>, String>>;
    /// May `user` do what `info` describes?
    fn authorize<'a>(&'a self, user: &'a User, info: &'a RequestInfo) -> BoxFuture<'a, Decision>;
    /// Everything `user` may do in `namespace`.
    fn rules<'a>(&'a self, user: &'a User, namespace: &'a str) -> BoxFuture<'a, Rules>;
    /// Signs a service account token with these claims.
    fn sign_token<'a>(&'a self, claims: &'a Value) -> BoxFuture<'a, Result<String, String>>;
    /// Carries out `exec attach portforward log proxy` on `target` (the stored pod, service or node).
    fn connect(&self, context: Context, request: Request, target: Value) -> BoxFuture<'static, Response>;
}

/// Hooks that allow everything, know no token and reach no kubelet.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl Hooks for AllowAll {
    fn review_token<'a>(
        &'a self,
        _: &'a str,
        _: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Reviewed>, String>> {
        Box::pin(async { Ok(None) })
    }

    fn authorize<'a>(&'a self, _: &'a User, _: &'a RequestInfo) -> BoxFuture<'a, Decision> {
        Box::pin(async { Decision::Allow(String::new()) })
    }

    fn rules<'a>(&'a self, _: &'a User, _: &'a str) -> BoxFuture<'a, Rules> {
        Box::pin(async { Rules::default() })
    }

    fn sign_token<'a>(&'a self, _: &'a Value) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async { Err("no service account key is configured".to_owned()) })
    }

    fn connect(&self, _: Context, _: Request, _: Value) -> BoxFuture<'static, Response> {
        Box::pin(async {
            let mut response = Response::default();
            *response.status_mut() = http::StatusCode::NOT_IMPLEMENTED;
            response
        })
    }
}
