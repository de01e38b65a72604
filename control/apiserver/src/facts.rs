//! Who asks for what, and the messages that say it.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use std::collections::BTreeMap;

/// Everybody who proved to be someone.
pub const AUTHENTICATED: &str = "system:authenticated";

/// Any error a body stream may end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A request or response body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
/// A request as it travels through the filters.
pub type Request = http::Request<Body>;
/// A finished or streaming answer.
pub type Response = http::Response<Body>;

/// Authenticated caller, before or after impersonation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `system:serviceaccount:ns:name`, `system:node:n1`, `alice`, `system:anonymous`.
    pub name: String,
    /// Unique id, where the authenticator knows one.
    pub uid: String,
    /// Groups, `system:authenticated` or `system:unauthenticated` among them.
    pub groups: Vec<String>,
    /// What else the authenticator knows, such as `authentication.kubernetes.io/pod-name`.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What a request is about, from its method, path and query (upstream: `apiserver/pkg/endpoints/request`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// False for `/healthz`, `/version`, `/apis` and their like.
    pub is_resource: bool,
    /// The decoded path.
    pub path: String,
    /// `get list watch create update patch delete deletecollection`, or the lower-case method for non-resources.
    pub verb: String,
    /// `api` or `apis`.
    pub api_prefix: String,
    /// API group, empty for core.
    pub group: String,
    pub version: String,
    /// Namespace, empty for cluster scope or all namespaces. For the resource `namespaces` itself: its name.
    pub namespace: String,
    /// Plural resource name.
    pub resource: String,
    /// `status`, `scale`, `exec`, ... or empty.
    pub subresource: String,
    /// Object name, or empty.
    pub name: String,
    /// Path segments from the resource on (proxy paths follow name and subresource).
    pub parts: Vec<String>,
}

impl RequestInfo {
    /// What somebody would ask of a group's objects in any version, for those who judge a write by what its author may do beside it.
    pub(crate) fn any_version(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            is_resource: true,
            verb: verb.to_owned(),
            api_prefix: "apis".to_owned(),
            group: group.to_owned(),
            version: "*".to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Self::default()
        }
    }
}
