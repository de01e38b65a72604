//! CustomResourceDefinitions between `v1` and `v1beta1`, in which upstream still stores them: what all versions have in common stands once.
//!
//! Upstream: `apiextensions/{v1,v1beta1}/conversion.go` and `v1beta1/defaults.go`.

use serde_json::{Map, Value, json};

/// The version at rest.
pub(super) const V1BETA1: &str = "apiextensions.k8s.io/v1beta1";
const V1: &str = "apiextensions.k8s.io/v1";

/// What may stand at a version or, the same for all, at the spec, by its names there and there.
const SHARED: [(&str, &str); 4] = [
    ("subresources", "subresources"),
    ("schema", "validation"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

/// From `v1`.
pub(super) fn to_v1beta1(object: &mut Value) {
    object["apiVersion"] = V1BETA1.into();
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    // Without it, v1beta1 means true.
    spec.entry("preserveUnknownFields").or_insert(false.into());
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut)
        && let Some(Value::Object(webhook)) = conversion.remove("webhook")
    {
        rename(webhook, conversion, "clientConfig", "webhookClientConfig");
    }
    let Some(Value::Array(mut versions)) = spec.remove("versions") else { return };
    for version in &mut versions {
        rename_paths(version.get_mut("additionalPrinterColumns"), "jsonPath", "JSONPath");
    }
    if let Some(name) = versions.first().and_then(|v| v.get("name")).cloned() {
        spec.insert("version".to_owned(), name);
    }
    for (at_version, at_spec) in SHARED {
        let first = versions.first().and_then(|v| v.get(at_version)).cloned();
        if versions.iter().any(|v| v.get(at_version) != first.as_ref()) {
            continue;
        }
        versions.iter_mut().filter_map(Value::as_object_mut).for_each(|v| _ = v.remove(at_version));
        if let Some(first) = first {
            spec.insert(at_spec.to_owned(), first);
        }
    }
    spec.insert("versions".to_owned(), versions.into());
}

/// To `v1`, with what `v1beta1` means where it says nothing.
pub(super) fn to_v1(object: &mut Value) {
    object["apiVersion"] = V1.into();
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if spec.remove("preserveUnknownFields") != Some(Value::Bool(false)) {
        spec.insert("preserveUnknownFields".to_owned(), true.into());
    }
    if spec.get("scope").and_then(Value::as_str).unwrap_or_default().is_empty() {
        spec.insert("scope".to_owned(), "Namespaced".into());
    }
    if let Some(conversion) = spec.get_mut("conversion").and_then(Value::as_object_mut) {
        let mut webhook = Map::new();
        for (old, new) in [
            ("webhookClientConfig", "clientConfig"),
            ("conversionReviewVersions", "conversionReviewVersions"),
        ] {
            if let Some(value) = conversion.remove(old) {
                webhook.insert(new.to_owned(), value);
            }
        }
        if conversion.get("strategy").and_then(Value::as_str) == Some("Webhook") {
            webhook.entry("conversionReviewVersions").or_insert(json!(["v1beta1"]));
        }
        if !webhook.is_empty() {
            conversion.insert("webhook".to_owned(), webhook.into());
        }
    }
    let version = spec.remove("version");
    let mut versions = match spec.remove("versions") {
        Some(Value::Array(versions)) if !versions.is_empty() => versions,
        _ => version.map(|name| json!({"name": name, "served": true, "storage": true})).into_iter().collect(),
    };
    for (at_version, at_spec) in SHARED {
        let Some(shared) = spec.remove(at_spec) else { continue };
        for version in versions.iter_mut().filter_map(Value::as_object_mut) {
            version.insert(at_version.to_owned(), shared.clone());
        }
    }
    for version in &mut versions {
        rename_paths(version.get_mut("additionalPrinterColumns"), "JSONPath", "jsonPath");
    }
    spec.insert("versions".to_owned(), versions.into());
}

/// Moves everything of `from` to `to`, `old` under the name `new`.
fn rename(from: Map<String, Value>, to: &mut Map<String, Value>, old: &str, new: &str) {
    to.extend(from.into_iter().map(|(name, value)| (if name == old { new.to_owned() } else { name }, value)));
}

fn rename_paths(columns: Option<&mut Value>, old: &str, new: &str) {
    for column in columns.and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
    {
        if let Some(path) = column.remove(old) {
            column.insert(new.to_owned(), path);
        }
    }
}
