//! What a definition declares, as its outline and its compiled form both have it.

use super::jsonpath::JsonPath;
use crate::access::Get as _;
use serde_json::Value;

/// How objects come from one version to another.
#[derive(Clone, Debug, PartialEq)]
pub enum Conversion {
    /// Another `apiVersion`, nothing else.
    None,
    /// Somebody is asked: `spec.conversion.webhook`.
    Webhook(Value),
}

/// The scale subresource's paths: `.spec.replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Path of the desired replica count.
    pub spec_replicas: String,
    /// Path of the observed replica count.
    pub status_replicas: String,
    /// The selector in its text form; none where pods cannot be selected.
    pub selector: Option<String>,
}

/// A field that may be selected by.
#[derive(Clone, Debug)]
pub struct Selectable {
    /// As a selector names it: `spec.host`.
    pub name: &'static str,
    /// Where the value is.
    pub path: JsonPath,
}

/// Why a definition cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unserved {
    /// Its names are not accepted yet.
    #[error("the names of {0} are not accepted")]
    Names(String),
    /// No version is marked as stored.
    #[error("{0} has no storage version")]
    Storage(String),
    /// Too many definitions came and went.
    #[error("too many names of custom resources are known to serve {0}")]
    Full(String),
}

/// The condition of a definition.
#[must_use]
pub(crate) fn condition<'a>(crd: &'a Value, kind: &str) -> Option<&'a Value> {
    crd.items("status.conditions").iter().find(|c| c.text("type") == kind)
}

/// Whether a condition is there and true.
#[must_use]
pub fn is_true(crd: &Value, kind: &str) -> bool {
    condition(crd, kind).is_some_and(|c| c.text("status") == "True")
}
