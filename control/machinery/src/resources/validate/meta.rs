//! Metadata, for every kind.

use serde_json::Value;

use super::{
    Errors,
    rules::{NOT_NEGATIVE, immutable, label, labels, text},
};
use crate::{
    field::{FieldError, Path},
    goformat::go_quote,
    names,
    resources::{Resource, access::Get},
};

/// All annotations of an object together, keys and values.
const ANNOTATIONS_MAX: usize = 256 * 1024;

type NameRule = fn(&str) -> Vec<String>;

/// How objects of a kind may be named; kinds not listed have DNS subdomains for names.
const NAME_RULES: &[(&str, &str, NameRule)] = &[
    ("", "Namespace", names::dns1123_label),
    ("", "Service", names::dns1123_label),
    ("apiregistration.k8s.io", "APIService", names::path_segment),
    ("apps", "StatefulSet", names::dns1123_label),
    ("certificates.k8s.io", "CertificateSigningRequest", any_name),
    ("certificates.k8s.io", "ClusterTrustBundle", any_name),
    ("coordination.k8s.io", "LeaseCandidate", names::config_map_key),
    ("networking.k8s.io", "IPAddress", super::networking::ip_name),
    ("rbac.authorization.k8s.io", "ClusterRole", names::path_segment),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", names::path_segment),
    ("rbac.authorization.k8s.io", "Role", names::path_segment),
    ("rbac.authorization.k8s.io", "RoleBinding", names::path_segment),
];

/// Names their kind's own rules judge, or nobody.
fn any_name(_: &str) -> Vec<String> {
    Vec::new()
}

fn name_rule(resource: &Resource) -> NameRule {
    NAME_RULES
        .iter()
        .find(|(group, kind, _)| *group == resource.group && *kind == resource.kind)
        .map_or(names::dns1123_subdomain, |(_, _, rule)| *rule)
}

pub(super) fn create(resource: &Resource, object: &Value, errors: &mut Errors) {
    let (path, metadata) = (Path::new("metadata"), object.at("metadata"));
    let rule = name_rule(resource);
    let prefix = metadata.text("generateName");
    if !prefix.is_empty() {
        text(&path.child("generateName"), prefix, rule(&names::mask_trailing_dash(prefix)), errors);
    }
    let name = metadata.text("name");
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name or generateName is required"));
    } else {
        text(&path.child("name"), name, rule(name), errors);
    }
    let (namespace, namespace_path) = (metadata.text("namespace"), path.child("namespace"));
    match (resource.namespaced, namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required(&namespace_path, "")),
        (true, false) => label(&namespace_path, namespace, errors),
        (false, false) => errors.push(FieldError::forbidden(&namespace_path, "not allowed on this type")),
        (false, true) => {}
    }
    if let Some(generation) = metadata.int("generation").filter(|generation| *generation < 0) {
        errors.push(FieldError::invalid(&path.child("generation"), generation, NOT_NEGATIVE));
    }
    common(resource.group.is_empty(), &path, metadata, errors);
}

/// The metadata of an object that is part of another.
pub(super) fn embedded(path: &Path, metadata: &Value, errors: &mut Errors) {
    let (name, namespace) = (metadata.text("name"), metadata.text("namespace"));
    if !name.is_empty() {
        text(&path.child("name"), name, names::path_segment(name), errors);
    }
    if !namespace.is_empty() {
        label(&path.child("namespace"), namespace, errors);
    }
    common(false, path, metadata, errors);
}

fn common(core: bool, path: &Path, metadata: &Value, errors: &mut Errors) {
    labels(&path.child("labels"), metadata.at("labels"), errors);
    annotations(&path.child("annotations"), metadata.at("annotations"), errors);
    owner_references(&path.child("ownerReferences"), metadata, errors);
    finalizers(core, &path.child("finalizers"), metadata, errors);
}

/// Annotations' keys are qualified names in any case; all together are bounded.
pub(super) fn annotations(path: &Path, annotations: &Value, errors: &mut Errors) {
    for key in annotations.as_object().into_iter().flat_map(serde_json::Map::keys) {
        text(path, key, names::qualified_name(&key.to_lowercase()), errors);
    }
    annotations_size(path, annotations, errors);
}

pub(super) fn annotations_size(path: &Path, annotations: &Value, errors: &mut Errors) {
    let annotations = annotations.as_object().into_iter().flatten();
    let size: usize =
        annotations.map(|(key, value)| key.len() + value.as_str().unwrap_or_default().len()).sum();
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_MAX));
    }
}

fn owner_references(path: &Path, metadata: &Value, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for reference in metadata.items("ownerReferences") {
        let (api_version, kind) = (reference.text("apiVersion"), reference.text("kind"));
        if api_version.rsplit('/').next().is_none_or(str::is_empty) {
            errors.push(FieldError::invalid(
                &path.child("apiVersion"),
                api_version,
                "version must not be empty",
            ));
        }
        for key in ["kind", "name", "uid"] {
            if reference.text(key).is_empty() {
                errors.push(FieldError::invalid(&path.child(key), "", "must not be empty"));
            }
        }
        if (api_version, kind) == ("v1", "Event") {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path, reference.clone(), detail));
        }
        if reference.flag("controller") {
            let this = format!("{kind}/{}", reference.text("name"));
            if let Some(first) = &controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and \
                     {this}"
                );
                errors.push(FieldError::invalid(path, metadata.at("ownerReferences").clone(), detail));
            } else {
                controller = Some(this);
            }
        }
    }
}

/// The finalizers every kind knows without a domain in front.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

fn finalizers(core: bool, path: &Path, metadata: &Value, errors: &mut Errors) {
    let list = metadata.items("finalizers");
    for finalizer in list {
        let name = finalizer.as_str().unwrap_or_default();
        text(path, name, names::qualified_name(name), errors);
        // The core group's kinds also know every name that has no domain.
        if core && !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(path, name, detail));
        }
    }
    let has = |name: &str| list.iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(path, metadata.at("finalizers").clone(), detail));
    }
}

/// What a client may not change, whoever it is.
const IMMUTABLE: [&str; 6] =
    ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];

pub(super) fn update(resource: &Resource, new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("metadata");
    let (metadata, before) = (new.at("metadata"), old.at("metadata"));
    if before.has("deletionTimestamp") {
        let known = before.items("finalizers");
        let mut extra: Vec<&str> = metadata
            .items("finalizers")
            .iter()
            .filter(|finalizer| !known.contains(finalizer))
            .filter_map(Value::as_str)
            .collect();
        extra.sort_unstable();
        extra.dedup();
        if !extra.is_empty() {
            let extra: Vec<String> = extra.into_iter().map(go_quote).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                extra.join(", ")
            );
            errors.push(FieldError::forbidden(&path.child("finalizers"), detail));
        }
    }
    if metadata.text("resourceVersion").is_empty() {
        errors.push(FieldError::invalid(
            &path.child("resourceVersion"),
            "",
            "must be specified for an update",
        ));
    }
    let generation = metadata.int("generation").unwrap_or_default();
    if generation < before.int("generation").unwrap_or_default() {
        errors.push(FieldError::invalid(&path.child("generation"), generation, "must not be decremented"));
    }
    for key in IMMUTABLE {
        immutable(&path.child(key), metadata.at(key), before.at(key), errors);
    }
    common(resource.group.is_empty(), &path, metadata, errors);
}
