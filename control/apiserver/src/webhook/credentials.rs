//! How this server proves itself to webhooks, where it does.

use crate::stream::trusted::Identity;
use http::HeaderValue;

/// What one webhook is shown.
#[derive(Default)]
pub struct Credential {
    /// A certificate, with its key.
    pub identity: Option<Identity>,
    /// A token or password, as `Authorization` says it.
    pub authorization: Option<HeaderValue>,
}

/// Knows what each webhook is shown.
pub trait Credentials: std::fmt::Debug + Send + Sync {
    /// What is shown to `host:port`, a Service's host being `name.namespace.svc`.
    ///
    /// # Errors
    /// In words: it cannot be read.
    fn shown(&self, host: &str, port: u16) -> Result<Credential, String>;
}
