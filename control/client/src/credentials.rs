//! A client that has no credentials (yet): what its requests fail with, and how that is told from a server that cannot be reached.

use crate::Error;
use std::error::Error as StdError;

/// There are no credentials to speak to the API server with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Missing(
    /// Whose, and how to give them.
    pub String,
);

impl Error {
    /// Why the API server will not show this to us, as we are: no credentials, or credentials that may not. `None` where it is only out of
    /// reach.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let mut next: Option<&(dyn StdError + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(missing) = error.downcast_ref::<Missing>() {
                return Some(missing.to_string());
            }
            next = error.source();
        }
        matches!(self.code(), Some(401 | 403)).then(|| supervise::chain(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_credentials_are_told_from_a_server_out_of_reach() {
        let of = |source| Error::List { path: "/api/v1/nodes".to_owned(), source: Box::new(source) };
        let missing = of(kube::Error::Service(Box::new(Missing("no credentials of the proxy".to_owned()))));
        assert_eq!(missing.refusal().as_deref(), Some("no credentials of the proxy"));
        let unreachable = of(kube::Error::Service(Box::new(std::io::Error::other("connection refused"))));
        assert_eq!(unreachable.refusal(), None);
        let status = |code: u16| {
            let status =
                kube::core::Status { message: "no".to_owned(), code, ..kube::core::Status::default() };
            of(kube::Error::Api(Box::new(status)))
        };
        assert!(status(403).refusal().is_some_and(|text| text.contains("/api/v1/nodes")));
        assert_eq!(status(503).refusal(), None);
    }
}
