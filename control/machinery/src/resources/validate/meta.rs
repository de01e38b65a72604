//! Metadata, for every kind.

use super::cursor::Cursor;
use crate::{access::Get as _, goformat::go_quote, names, resources::Resource, schema::Format};

/// All annotations of an object together, keys and values.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// How objects of a kind may be named; kinds not listed have DNS subdomains for names.
const NAME_RULES: &[(&str, &str, Format)] = &[
    ("", "Namespace", names::dns1123_label),
    ("", "ReplicationController", names::long_name),
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
    ("resource.k8s.io", "DeviceClass", names::long_name),
];

/// Names their kind's own rules judge, or nobody.
fn any_name(_: &str) -> Vec<String> {
    Vec::new()
}

fn name_rule(resource: &Resource) -> Format {
    NAME_RULES
        .iter()
        .find(|(group, kind, _)| *group == resource.group && *kind == resource.kind)
        .map_or(names::dns1123_subdomain, |(_, _, rule)| *rule)
}

pub(super) fn create(resource: &Resource, object: Cursor<'_>) {
    let metadata = object.field("metadata");
    let rule = name_rule(resource);
    let prefix = metadata.field("generateName");
    if !prefix.is_empty() {
        for message in rule(&names::mask_trailing_dash(prefix.str())) {
            prefix.invalid(message);
        }
    }
    let name = metadata.field("name");
    if name.required_with("name or generateName is required") {
        name.format(rule);
    }
    let namespace = metadata.field("namespace");
    match (resource.namespaced, namespace.is_empty()) {
        (true, true) => namespace.missing(""),
        (true, false) => {
            namespace.label();
        }
        (false, false) => namespace.forbidden("not allowed on this type"),
        (false, true) => {}
    }
    metadata.field("generation").not_negative();
    common(metadata);
    kube_finalizers(resource, metadata.field("finalizers"));
}

/// The metadata of an object that is part of another.
pub(super) fn embedded(metadata: Cursor<'_>) {
    metadata.field("name").optional_format(names::path_segment);
    metadata.field("namespace").optional_format(names::dns1123_label);
    common(metadata);
}

fn common(metadata: Cursor<'_>) {
    metadata.field("labels").labels();
    annotations(metadata.field("annotations"));
    owner_references(metadata.field("ownerReferences"));
    finalizers(metadata.field("finalizers"));
}

/// Annotations' keys are qualified names in any case; all together are bounded.
pub(super) fn annotations(annotations: Cursor<'_>) {
    for (key, _) in annotations.entries() {
        for message in names::qualified_name(&key.to_lowercase()) {
            annotations.invalid_value(key, message);
        }
    }
    annotations_size(annotations);
}

pub(super) fn annotations_size(annotations: Cursor<'_>) {
    if annotations.entries().map(|(key, value)| key.len() + value.str().len()).sum::<usize>()
        > ANNOTATIONS_MAX
    {
        annotations.too_long(ANNOTATIONS_MAX);
    }
}

/// Upstream leaves the index out of these paths.
fn owner_references(references: Cursor<'_>) {
    let mut controller: Option<String> = None;
    for reference in references.items() {
        let at = |key: &'static str| reference.field(key).reported_at(references.field(key));
        let (api_version, kind) = (at("apiVersion"), reference.text("kind"));
        if api_version.str().rsplit('/').next().is_none_or(str::is_empty) {
            api_version.invalid("version must not be empty");
        }
        for key in ["kind", "name", "uid"] {
            if at(key).is_empty() {
                at(key).invalid_value("", "must not be empty");
            }
        }
        if (api_version.str(), kind) == ("v1", "Event") {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            reference.reported_at(references).invalid(detail);
        }
        if reference.flag("controller") {
            let this = format!("{kind}/{}", reference.text("name"));
            if let Some(first) = &controller {
                references.invalid(format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and \
                     {this}"
                ));
            } else {
                controller = Some(this);
            }
        }
    }
}

/// The finalizers every kind knows without a domain in front.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Groups whose kinds validate their metadata as apimachinery does, without the rule of finalizers (upstream: their
/// `validation` packages do not call `core/validation.ValidateObjectMeta`); custom resources are of none of the others.
const PLAIN_GROUPS: [&str; 6] = [
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "policy",
];

/// Whether finalizers without a domain in front must be [`STANDARD_FINALIZERS`].
fn has_kube_finalizers(resource: &Resource) -> bool {
    let plain = PLAIN_GROUPS.contains(&resource.group) || (resource.group, resource.kind) == ("", "Event");
    !plain && crate::resources::by_group_resource(resource.group, resource.plural).is_some()
}

/// Finalizers; upstream leaves the index out of their paths.
fn finalizers(finalizers: Cursor<'_>) {
    for finalizer in finalizers.items() {
        finalizer.reported_at(finalizers).qualified();
    }
    let has = |name: &str| finalizers.strs().contains(&name);
    if has("orphan") && has("foregroundDeletion") {
        finalizers.invalid("finalizer orphan and foregroundDeletion cannot be both set");
    }
}

fn kube_finalizers(resource: &Resource, finalizers: Cursor<'_>) {
    if !finalizers.is_empty() && has_kube_finalizers(resource) {
        finalizers.items().for_each(kube_finalizer);
    }
}

fn kube_finalizer(finalizer: Cursor<'_>) {
    if !finalizer.str().contains('/') && !STANDARD_FINALIZERS.contains(&finalizer.str()) {
        finalizer.invalid("name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// A finalizer of a namespace's spec.
pub(super) fn finalizer_name(finalizer: Cursor<'_>) {
    finalizer.qualified();
    kube_finalizer(finalizer);
}

/// What no client may change.
const IMMUTABLE: [&str; 6] =
    ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];

pub(super) fn update(resource: &Resource, object: Cursor<'_>) {
    let metadata = object.field("metadata");
    let finalizers = metadata.field("finalizers");
    if metadata.old.has("deletionTimestamp") {
        let known = finalizers.old_strs();
        let mut extra = finalizers.strs();
        extra.retain(|finalizer| !known.contains(finalizer));
        extra.sort_unstable();
        extra.dedup();
        if !extra.is_empty() {
            let extra: Vec<String> = extra.into_iter().map(go_quote).collect();
            finalizers.forbidden(format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                extra.join(", ")
            ));
        }
    }
    let version = metadata.field("resourceVersion");
    if version.is_empty() {
        version.invalid_value("", "must be specified for an update");
    }
    if metadata.int("generation") < metadata.old.int("generation").unwrap_or_default() {
        metadata.field("generation").invalid("must not be decremented");
    }
    for key in IMMUTABLE {
        metadata.field(key).immutable();
    }
    common(metadata);
    kube_finalizers(resource, finalizers);
}
