//! What a server does to an object before it is created, updated or deleted, per kind.
//!
//! The caller has done what is alike for all kinds: name, uid and creationTimestamp are set before
//! [`prepare_for_create`], as some kinds (jobs) write their uid into their spec. Objects have the stored version's form
//! and are defaulted.

mod app_armor;
mod core;
mod daemon_set;
mod devices;
mod disabled;
mod facts;
mod grace;
mod job;
mod label_keys;
mod pod;
mod reset;
mod service;
mod topology;
mod volume;
mod warnings;

use serde_json::Value;

use self::facts::{Facts, facts};
use super::Resource;
use crate::access::{Fields, Get, copy, object, same, set};
use crate::schema;

pub(crate) use self::pod::{noted_qos_class, qos_class};
pub use self::{
    disabled::pod_spec,
    facts::Dependents,
    grace::{dependents_by_default, grace_period_seconds, orphaning_warning},
    reset::{reset_fields, reset_fields_of_custom},
    warnings::{status_warnings, warnings},
};

/// Makes a new object what its kind's objects start as: no status of the client's, generation 1, generated fields.
pub fn prepare_for_create(resource: &Resource, object: &mut Value) {
    let facts = facts(resource);
    // A pod's own strategy looks at the status that was sent before it makes another.
    if facts.resets_status && (resource.group, resource.kind) != ("", "Pod") {
        set(object, "status", empty_status(resource));
    }
    if facts.counts_from_one {
        set_generation(object, 1);
    }
    disabled::drop(resource, object, &Value::Null);
    match (resource.group, resource.kind) {
        ("", "Namespace") => core::create_namespace(object),
        ("", "PersistentVolume") => volume::create(object),
        ("", "PersistentVolumeClaim") => core::create_claim(object),
        ("", "Pod") => {
            pod::create(object);
            label_keys::merge(object);
            app_armor::copy_annotations(object);
        }
        ("", "Service") => service::create(object),
        ("", "ServiceAccount") => core::clean_secret_references(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => core::record_stored_version(object),
        ("apps", "DaemonSet") => daemon_set::create(object),
        ("batch", "Job") => job::create(object),
        ("discovery.k8s.io", "EndpointSlice") => topology::drop_labels(object, &Value::Null),
        _ => {}
    }
}

/// What the author of a new object is told before [`prepare_for_create`] brings it into today's form.
pub fn warnings_of_outdated(resource: &Resource, object: &Value) -> Vec<String> {
    match (resource.group, resource.kind) {
        ("", "Pod") => app_armor::warnings(object),
        _ => Vec::new(),
    }
}

/// Carries over what an update of the object itself may not change, and counts a change of its spec.
pub fn prepare_for_update(resource: &Resource, new: &mut Value, old: &Value) {
    let facts = facts(resource);
    if facts.resets_status || facts.keeps_status_on_update {
        copy(new, old, "status");
    }
    disabled::drop(resource, new, old);
    match (resource.group, resource.kind) {
        ("", "Namespace") => core::keep_finalizers(new, old),
        ("", "PersistentVolumeClaim") => {
            core::drop_foreign_data_sources(new, old);
            core::normalize_data_sources(new);
        }
        ("", "Service") => service::update(new, old),
        ("", "ServiceAccount") => core::clean_secret_references(new),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => core::record_stored_version(new),
        ("apps", "DaemonSet") => daemon_set::update(new, old),
        ("certificates.k8s.io", "CertificateSigningRequest") => copy(new, old, "spec"),
        ("discovery.k8s.io", "EndpointSlice") => topology::drop_labels(new, old),
        _ => {}
    }
    count_change(&facts, new, old);
}

/// Carries over everything an update of the status may not change.
pub(crate) fn prepare_for_status_update(resource: &Resource, new: &mut Value, old: &Value) {
    let facts = facts(resource);
    copy(new, old, "spec");
    keep_generation(new, old);
    if facts.status_keeps_metadata {
        keep_metadata(
            new,
            old,
            &["labels", "annotations", "finalizers", "ownerReferences", "deletionTimestamp"],
        );
    }
    disabled::drop(resource, new, old);
    match (resource.group, resource.kind) {
        ("", "Pod") => pod::update_status(new, old),
        ("apps", "Deployment") => keep_metadata(new, old, &["labels"]),
        ("certificates.k8s.io", "CertificateSigningRequest") => core::keep_approval(new, old),
        ("resource.k8s.io", "ResourceClaim") => devices::drop_deallocated(new, old),
        _ => {}
    }
}

/// The same for any other subresource that reads and writes the resource's own kind: `finalize`, `approval`,
/// `ephemeralcontainers`, `resize`. Unknown names change nothing.
pub fn prepare_for_subresource_update(resource: &Resource, subresource: &str, new: &mut Value, old: &Value) {
    match (resource.kind, subresource) {
        (_, "status") => prepare_for_status_update(resource, new, old),
        ("Namespace", "finalize") => {
            copy(new, old, "status");
            keep_generation(new, old);
        }
        ("CertificateSigningRequest", "approval") => core::approve(new, old),
        ("Pod", "ephemeralcontainers") => {
            pod::update_ephemeral_containers(new, old);
            count_change(&facts(resource), new, old);
        }
        ("Pod", "resize") => {
            pod::resize(new, old);
            count_change(&facts(resource), new, old);
        }
        _ => {}
    }
}

/// Notes the moment `now` (as it is written) of what a write of this subresource changes, where the kind keeps one.
pub fn note_transition(resource: &Resource, subresource: &str, new: &mut Value, old: &Value, now: &str) {
    if (resource.group, resource.kind, subresource) == ("", "PersistentVolume", "status") {
        volume::note_transition(new, old, now);
    }
}

/// Whether an update of a name nobody has creates it.
pub fn allow_create_on_update(resource: &Resource) -> bool {
    facts(resource).creates_on_update
}

/// Whether an update without a resourceVersion is taken, and overwrites whatever is there.
pub fn allow_unconditional_update(resource: &Resource) -> bool {
    facts(resource).unconditional_update
}

/// Brings an object that passed validation to its one form: lists whose order or repeats mean nothing.
pub fn canonicalize(resource: &Resource, object: &mut Value) {
    // A generated name was not known when the object was defaulted.
    if (resource.group, resource.kind) == ("", "Namespace") {
        core::label_with_name(object);
    }
}

/// A status nobody has written yet: the counts upstream writes even when they are zero, and nothing else.
fn empty_status(resource: &Resource) -> Value {
    let types = schema::builtin();
    let kind = types.named(&resource.storage_api_version(), resource.kind);
    let status = kind.and_then(|id| types.field(id, "status")).and_then(schema::Field::struct_type);
    let empty = Value::Object(Fields::new());
    match status.map(|id| types.normalize(id, empty.clone())) {
        Some(Ok(normalized)) => normalized.value,
        _ => empty,
    }
}

fn count_change(facts: &Facts, new: &mut Value, old: &Value) {
    keep_generation(new, old);
    let Some(watched) = facts.generation else { return };
    if watched.iter().any(|path| !same(new.at(path), old.at(path))) {
        set_generation(new, old.int("metadata.generation").unwrap_or_default() + 1);
    }
}

fn set_generation(object: &mut Value, generation: i64) {
    if let Some(metadata) = self::object(object, "metadata") {
        set(metadata, "generation", generation);
    }
}

fn keep_generation(new: &mut Value, old: &Value) {
    keep_metadata(new, old, &["generation"]);
}

fn keep_metadata(new: &mut Value, old: &Value, keys: &[&str]) {
    if let Some(metadata) = object(new, "metadata") {
        for key in keys {
            copy(metadata, old.at("metadata"), key);
        }
    }
}

/// Everything of the old object but one path and the new resourceVersion and managedFields.
fn only(new: &mut Value, old: &Value, change: impl FnOnce(&mut Value, &Value)) {
    let asked = std::mem::replace(new, old.clone());
    if let Some(metadata) = object(new, "metadata") {
        copy(metadata, asked.at("metadata"), "resourceVersion");
        copy(metadata, asked.at("metadata"), "managedFields");
    }
    change(new, &asked);
}

#[cfg(test)]
mod tests;
