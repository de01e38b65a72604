//! What the front of the server hands to the registry: who asks, for what, with which options.

pub use crate::facts::{Body, BoxError, Request, RequestInfo, Response, User};

use crate::audit::Trail;

/// One request's fixed facts, past authentication.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// What it is about.
    pub info: RequestInfo,
    pub user: User,
    /// Decoded query parameters, in order of appearance.
    pub query: Vec<(String, String)>,
    /// The client's `User-Agent`, for field managers and events.
    pub user_agent: String,
    /// What is to be written of it.
    pub audit: Trail,
}

impl Context {
    /// The first value of a query parameter.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}
