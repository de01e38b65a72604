//! Smaller kinds: namespaces, claims, service accounts, signing requests, custom resource definitions.

use serde_json::{Value, json};

use super::keep_generation;
use crate::access::{Get, copy, entries, existing, object, remove, set};

/// The finalizer a namespace keeps until everything in it is gone.
const NAMESPACE_FINALIZER: &str = "kubernetes";

pub(super) fn create_namespace(namespace: &mut Value) {
    set(namespace, "status", json!({"phase": "Active"}));
    let Some(spec) = object(namespace, "spec") else { return };
    let mut finalizers = spec.items("finalizers").to_vec();
    if !finalizers.iter().any(|f| f == NAMESPACE_FINALIZER) {
        finalizers.push(json!(NAMESPACE_FINALIZER));
    }
    set(spec, "finalizers", finalizers);
}

/// The label other objects' namespace selectors find a namespace by.
pub(super) fn label_with_name(namespace: &mut Value) {
    let name = namespace.text("metadata.name").to_owned();
    if !name.is_empty()
        && let Some(labels) = object(namespace, "metadata").and_then(|metadata| object(metadata, "labels"))
    {
        set(labels, "kubernetes.io/metadata.name", name);
    }
}

pub(super) fn keep_finalizers(new: &mut Value, old: &Value) {
    if let Some(spec) = object(new, "spec") {
        copy(spec, old.at("spec"), "finalizers");
    }
}

pub(super) fn create_claim(claim: &mut Value) {
    set(claim, "status", json!({"phase": "Pending"}));
    drop_foreign_data_sources(claim, &Value::Null);
    normalize_data_sources(claim);
}

/// A claim whose old one (null for a new claim) has no source yet takes none from another namespace (CrossNamespaceVolumeDataSource is
/// off), and by `dataSource` only claims and snapshots; others are dropped in silence, as they ever were.
pub(super) fn drop_foreign_data_sources(claim: &mut Value, old: &Value) {
    let Some(spec) = existing(claim, "spec") else { return };
    if !spec.text("dataSourceRef.namespace").is_empty() && !old.has("spec.dataSourceRef") {
        remove(spec, "dataSourceRef");
    }
    let was_used = old.has("spec.dataSource") || old.has("spec.dataSourceRef");
    let (source, by_reference) = (spec.at("dataSource"), spec.has("dataSourceRef"));
    let known = matches!(
        (source.text("apiGroup"), source.text("kind")),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    );
    if !was_used && !by_reference && !known {
        remove(spec, "dataSource");
    }
}

/// `dataSource` and `dataSourceRef` say the same, unless the reference names a namespace.
pub(super) fn normalize_data_sources(claim: &mut Value) {
    let Some(spec) = existing(claim, "spec") else { return };
    let (source, reference) = (spec.at("dataSource").clone(), spec.at("dataSourceRef").clone());
    match (source.is_object(), reference.is_object()) {
        (true, false) => set(spec, "dataSourceRef", source),
        (false, true) if reference.text("namespace").is_empty() => {
            let mut source = reference;
            remove(&mut source, "namespace");
            set(spec, "dataSource", source);
        }
        _ => {}
    }
}

/// A service account names secrets and no more of them.
pub(super) fn clean_secret_references(account: &mut Value) {
    for secret in entries(account, "secrets") {
        let name = secret.text("name").to_owned();
        *secret = json!({ "name": name });
    }
}

/// The version objects are stored in belongs to those that must be migrated away before it may go.
pub(super) fn record_stored_version(definition: &mut Value) {
    let stored = definition.items("spec.versions").iter().find(|version| version.flag("storage"));
    let Some(name) = stored.map(|version| version.text("name").to_owned()) else { return };
    let Some(status) = object(definition, "status") else { return };
    let mut versions = status.items("storedVersions").to_vec();
    if !versions.iter().any(|version| version == name.as_str()) {
        versions.push(json!(name));
        set(status, "storedVersions", versions);
    }
}

fn is_decision(condition: &Value) -> bool {
    matches!(condition.text("type"), "Approved" | "Denied")
}

/// Who writes a signing request's status does not decide on it.
pub(super) fn keep_approval(new: &mut Value, old: &Value) {
    let mut conditions: Vec<Value> =
        old.items("status.conditions").iter().filter(|c| is_decision(c)).cloned().collect();
    conditions.extend(new.items("status.conditions").iter().filter(|c| !is_decision(c)).cloned());
    if let Some(status) = object(new, "status") {
        if conditions.is_empty() {
            remove(status, "conditions");
        } else {
            set(status, "conditions", conditions);
        }
    }
}

/// Who decides on a signing request does not issue its certificate.
pub(super) fn approve(new: &mut Value, old: &Value) {
    copy(new, old, "spec");
    keep_generation(new, old);
    if let Some(status) = object(new, "status") {
        copy(status, old.at("status"), "certificate");
    }
}
