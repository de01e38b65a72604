//! What the registry asks of the front of the server: answers to reviews, what a user may do, and how to carry a
//! streaming request to a kubelet. The front implements [`Hooks`]; tests use `AllowAll`.

#[cfg(test)]
mod allow_all;

#[cfg(test)]
pub(crate) use allow_all::AllowAll;

use crate::authz::rbac::PolicyRule;
use crate::context::{Context, Request, RequestInfo, Response, User};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use machinery::status::Status;
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, and why.
    Allow(String),
    /// Denied for good, whatever others say.
    Deny(String),
    /// Nobody allowed it.
    NoOpinion(String),
}

/// The front's services to the registry.
pub trait Hooks: Send + Sync + 'static {
    /// Answers a review of `authentication.k8s.io` or `authorization.k8s.io` (decoded and pruned) that `user` posted,
    /// to `namespace` where it is a namespaced one: the same object with its status filled in.
    fn review<'a>(
        &'a self,
        kind: &'a str,
        review: Value,
        user: &'a User,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<Value, Status>>;
    /// May `user` do what `info` describes?
    fn authorize<'a>(&'a self, user: &'a User, info: &'a RequestInfo) -> BoxFuture<'a, Decision>;
    /// The same for a request that is narrowed to a field selector; one that does not parse narrows nothing.
    fn authorize_narrowed<'a>(
        &'a self,
        user: &'a User,
        info: &'a RequestInfo,
        _fields: &'a str,
    ) -> BoxFuture<'a, Decision> {
        self.authorize(user, info)
    }
    /// The same for who cannot wait, as expressions: a thread is blocked where an authorizer outside is asked, or the answer is its failure.
    fn authorize_now(&self, user: &User, info: &RequestInfo, fields: &str) -> Decision {
        let decided = self.authorize_narrowed(user, info, fields).now_or_never();
        decided.unwrap_or_else(|| Decision::NoOpinion(String::new()))
    }
    /// Every role's rule `user` holds in `namespace` (in all, where empty), and which roles could not be read.
    fn rules_of(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>);
    /// Whether the server's health check of this name passes; `None` where it has none.
    fn passes(&self, _check: &str) -> Option<bool> {
        None
    }
    /// What a part of the control plane says of itself that is a program of its own; `None` for one that is not.
    fn ask_neighbour<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, Option<Result<String, String>>> {
        std::future::ready(None).boxed()
    }
    /// Carries out `exec attach portforward log proxy` on `target` (the stored pod, service or node).
    fn connect(&self, context: Context, request: Request, target: Value) -> BoxFuture<'static, Response>;
}

/// Where the server's own tasks say what is wrong with an object: events.
pub trait Record: Send + Sync + 'static {
    /// `component` did `action` because of `reason`, about which `note` says more.
    fn warn(
        &self,
        component: &'static str,
        about: &Value,
        reason: &'static str,
        action: &'static str,
        note: String,
    );
}
