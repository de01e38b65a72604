//! Between the served versions of a resource and the one version it is kept in.
//!
//! Versions that differ in name only need no more than another `apiVersion`. Two differ in shape: events, which the
//! core group and `events.k8s.io` share, and horizontal pod autoscalers. Secrets have a field that is only ever sent, nodes, pods and
//! templates older fields beside those that replaced them.

mod autoscaling;
mod events;
mod pairs;
mod secrets;

use serde_json::Value;

use super::Resource;
use super::strategy::pod_spec;
use crate::access::{existing, set};

/// Turns an object of a served version into the one that is stored.
pub fn to_storage(resource: &Resource, version: &str, object: &mut Value) {
    match (resource.group, resource.plural, version) {
        ("events.k8s.io", "events", _) => events::to_core(object),
        ("autoscaling", "horizontalpodautoscalers", "v1") => autoscaling::v1_to_v2(object),
        ("autoscaling", "horizontalpodautoscalers", _) => autoscaling::drop_round_trip(object),
        ("apps", "daemonsets", _) => pairs::daemon_set(object),
        ("", "nodes", _) => pairs::node(object),
        ("", "pods", _) => pairs::pod(object),
        ("", "secrets", _) => secrets::fold_string_data(object),
        _ => {}
    }
    if let Some(path) = pod_spec(resource)
        && let Some(spec) = existing(object, path)
    {
        pairs::service_account(spec);
    }
    set(object, "apiVersion", resource.storage_api_version());
}

/// Turns a stored object into one of a served version.
pub fn from_storage(resource: &Resource, version: &str, object: &mut Value) {
    match (resource.group, resource.plural, version) {
        ("events.k8s.io", "events", _) => events::from_core(object),
        ("autoscaling", "horizontalpodautoscalers", "v1") => autoscaling::v2_to_v1(object),
        _ => {}
    }
    set(object, "apiVersion", resource.api_version(version));
}

/// Whether a version's objects are the stored ones byte for byte, so that reads need no conversion.
pub fn is_storage(resource: &Resource, version: &str) -> bool {
    resource.group == resource.storage_group && resource.storage_version == version
}

#[cfg(test)]
mod tests;
