//! What the registry asks of an object's metadata, tolerant of any shape: a missing or mistyped member reads as empty.

use machinery::access::Get as _;
use machinery::object;
use serde_json::Value;

pub(crate) use machinery::object::{name, namespace};

pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    object::finalizers(object).collect()
}

/// True once a delete was asked for.
pub(crate) fn deleting(object: &Value) -> bool {
    object.has("metadata.deletionTimestamp")
}

/// The time as `metav1.Time` writes it: UTC, whole seconds.
pub(crate) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
