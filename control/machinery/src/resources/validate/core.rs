//! The core group's smaller kinds.

use serde_json::Value;

use super::{Errors, address, quantities, rules};
use crate::{
    field::{FieldError, Path},
    goformat::go_quote,
    names,
    resources::access::{Fields, Get, same},
};

/// What fits in a config map or secret, all values together.
const SIZE_MAX: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";

/// Bytes of a base64 text once decoded.
fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

pub(super) fn config_map(map: &Value, errors: &mut Errors) {
    let mut size = 0;
    let binary = map.fields("binaryData");
    for (key, value) in map.fields("data").into_iter().flatten() {
        let path = Path::new("data").key(key);
        rules::text(&path, key, names::config_map_key(key), errors);
        if binary.is_some_and(|binary| binary.contains_key(key)) {
            errors.push(FieldError::invalid(&path, key.as_str(), "duplicate of key present in binaryData"));
        }
        size += value.as_str().unwrap_or_default().len();
    }
    for (key, value) in binary.into_iter().flatten() {
        rules::text(&Path::new("binaryData").key(key), key, names::config_map_key(key), errors);
        size += decoded_len(value.as_str().unwrap_or_default());
    }
    if size > SIZE_MAX {
        // Upstream's path here has an empty name, which prints as brackets.
        errors.push(FieldError::too_long(&Path::new("[]"), SIZE_MAX));
    }
}

pub(super) fn config_map_update(new: &Value, old: &Value, errors: &mut Errors) {
    frozen(new, old, &["data", "binaryData"], errors);
}

/// Once an object is declared immutable, neither that nor its data changes back.
fn frozen(new: &Value, old: &Value, keys: &[&str], errors: &mut Errors) {
    if !old.flag("immutable") {
        return;
    }
    if !new.flag("immutable") {
        errors.push(FieldError::forbidden(&Path::new("immutable"), FROZEN));
    }
    for key in keys {
        if !same(new.at(key), old.at(key)) {
            errors.push(FieldError::forbidden(&Path::new(*key), FROZEN));
        }
    }
}

pub(super) fn secret(secret: &Value, errors: &mut Errors) {
    let path = Path::new("data");
    let empty = Fields::new();
    let data = secret.fields("data").unwrap_or(&empty);
    let mut size = 0;
    for (key, value) in data {
        rules::text(&path.key(key), key, names::config_map_key(key), errors);
        size += decoded_len(value.as_str().unwrap_or_default());
    }
    if size > SIZE_MAX {
        errors.push(FieldError::too_long(&path, SIZE_MAX));
    }
    let mut needs = |key: &str| {
        if !data.contains_key(key) {
            errors.push(FieldError::required(&path.key(key), ""));
        }
    };
    match secret.text("type") {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            let name = secret.fields("metadata.annotations").and_then(|a| a.get(key)).and_then(Value::as_str);
            if name.is_none_or(str::is_empty) {
                let path = Path::new("metadata").child("annotations").key(key);
                errors.push(FieldError::required(&path, ""));
            }
        }
        "kubernetes.io/dockercfg" => docker(&path, data, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => docker(&path, data, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if !data.contains_key("username") && !data.contains_key("password") => {
            needs("username");
            needs("password");
        }
        "kubernetes.io/ssh-auth" => {
            let empty = data.get("ssh-privatekey").and_then(Value::as_str).is_none_or(str::is_empty);
            if empty {
                errors.push(FieldError::required(&path.key("ssh-privatekey"), ""));
            }
        }
        "kubernetes.io/tls" => {
            needs("tls.crt");
            needs("tls.key");
        }
        _ => {}
    }
}

fn docker(path: &Path, data: &Fields, key: &str, errors: &mut Errors) {
    use base64::Engine as _;
    let path = path.key(key);
    let Some(text) = data.get(key).and_then(Value::as_str) else {
        errors.push(FieldError::required(&path, ""));
        return;
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<Fields>(&bytes) {
        errors.push(FieldError::invalid(&path, "<secret contents redacted>", error.to_string()));
    }
}

pub(super) fn secret_update(new: &Value, old: &Value, errors: &mut Errors) {
    rules::immutable(&Path::new("type"), new.at("type"), old.at("type"), errors);
    frozen(new, old, &["data"], errors);
}

pub(super) fn namespace_create(namespace: &Value, errors: &mut Errors) {
    for finalizer in namespace.items("spec.finalizers") {
        finalizer_name(&Path::from("spec.finalizers"), finalizer, errors);
    }
}

fn finalizer_name(path: &Path, finalizer: &Value, errors: &mut Errors) {
    let name = finalizer.as_str().unwrap_or_default();
    rules::qualified(path, name, errors);
    if !name.contains('/') && !["kubernetes", "orphan", "foregroundDeletion"].contains(&name) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path, name, detail));
    }
}

/// What holds for every node. Upstream has the taints below `metadata`.
pub(super) fn node(node: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("metadata").child("taints"), node.at("spec"));
    let taints = spec.items("taints");
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        rules::qualified(&path.child("key"), taint.text("key"), errors);
        let value = taint.text("value");
        let messages = names::label_value(value);
        if !messages.is_empty() {
            errors.push(FieldError::invalid(&path.child("value"), value, messages.join(";")));
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        rules::one_of(&path.child("effect"), taint.text("effect"), &effects, errors);
        let id = |taint: &Value| (taint.text("key").to_owned(), taint.text("effect").to_owned());
        if taints.iter().take(index).any(|other| id(other) == id(taint)) {
            let mut error = FieldError::duplicate(&path, taint.clone());
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
    for key in ["capacity", "allocatable"] {
        for (name, value) in node.at("status").fields(key).into_iter().flatten() {
            quantities::integral(&Path::new("status").child(key).child(name), name, value, errors);
        }
    }
    let features: Vec<&str> =
        node.items("status.declaredFeatures").iter().filter_map(Value::as_str).collect();
    declared_features(&Path::from("status.declaredFeatures"), &features, errors);
}

fn declared_features(path: &Path, features: &[&str], errors: &mut Errors) {
    for (index, feature) in features.iter().enumerate() {
        if let Some(detail) = feature_name(feature) {
            errors.push(FieldError::invalid(&path.index(index), *feature, detail));
        }
        if let Some(next) = features.get(index + 1) {
            let path = path.index(index + 1);
            if next == feature {
                errors.push(FieldError::duplicate(&path, *next));
            } else if next < feature {
                errors.push(FieldError::invalid(&path, *next, "list must be sorted alphabetically"));
            }
        }
    }
}

/// What is wrong with a feature's name: `MyFeature` or `MyFeature/mySubFeature`.
fn feature_name(name: &str) -> Option<String> {
    let quoted = go_quote(name);
    if name.len() > 253 {
        return Some(format!("invalid feature name {quoted}: must be no more than 253 characters"));
    }
    let segment = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
    let valid = name.starts_with(|c: char| c.is_ascii_uppercase()) && name.split('/').all(segment);
    (!valid).then(|| {
        format!(
            "invalid feature name {quoted}: must start with an UpperCamelCase segment, with subsequent segments \
             separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters \
             and slashes"
        )
    })
}

/// The ranges of a new node's pods: one of each family at most.
pub(super) fn node_create(node: &Value, errors: &mut Errors) {
    let ranges: Vec<&str> = node.items("spec.podCIDRs").iter().filter_map(Value::as_str).collect();
    let path = Path::from("spec.podCIDRs");
    for (index, range) in ranges.iter().enumerate() {
        address::cidr(&path.index(index), range, &[], errors);
    }
    let sixes = ranges.iter().filter(|range| range.contains(':')).count();
    if ranges.len() > 2 || (ranges.len() == 2 && sixes != 1) {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid(&path, node.at("spec.podCIDRs").clone(), detail));
    }
}

pub(super) fn node_status(new: &Value, old: &Value, errors: &mut Errors) {
    node(new, errors);
    node_update(new, old, errors);
}

pub(super) fn node_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let addresses = new.items("status.addresses");
    for (index, address) in addresses.iter().enumerate() {
        if addresses.iter().take(index).any(|other| other == address) {
            errors.push(FieldError::duplicate(&Path::from("status.addresses").index(index), address.clone()));
        }
    }
    let (ranges, before) = (new.items("spec.podCIDRs"), old.items("spec.podCIDRs"));
    let detail = "node updates may not change podCIDR except from \"\" to valid";
    if !before.is_empty() && ranges.len() != before.len() {
        errors.push(FieldError::forbidden(&path.child("podCIDRs"), detail));
    } else {
        for _ in ranges.iter().zip(before).filter(|(new, old)| new != old) {
            errors.push(FieldError::forbidden(&path.child("podCIDRs"), detail));
        }
    }
    let id = old.text("spec.providerID");
    if !id.is_empty() && new.text("spec.providerID") != id {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.push(FieldError::forbidden(&path.child("providerID"), detail));
    }
    if new.text("spec.externalID") != old.text("spec.externalID") {
        errors.push(FieldError::forbidden(&path.child("externalID"), "may not be updated"));
    }
}

/// What a namespace's phase may be is whether it is being deleted.
pub(super) fn namespace_status(new: &Value, _old: &Value, errors: &mut Errors) {
    let path = Path::from("status.Phase");
    let phase = new.text("status.phase");
    let (wanted, detail) = if new.has("metadata.deletionTimestamp") {
        ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
    } else {
        ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
    };
    if phase != wanted {
        errors.push(FieldError::invalid(&path, phase, detail));
    }
}

pub(super) fn namespace_finalize(new: &Value, _old: &Value, errors: &mut Errors) {
    for (index, finalizer) in new.items("spec.finalizers").iter().enumerate() {
        finalizer_name(&Path::from("spec.finalizers").index(index), finalizer, errors);
    }
}
