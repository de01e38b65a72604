//! The core group's smaller kinds.

use serde_json::Value;

use super::{Errors, quantities, rules};
use crate::{
    field::{FieldError, Path},
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

pub(super) fn namespace(namespace: &Value, errors: &mut Errors) {
    let path = Path::new("spec").child("finalizers");
    for finalizer in namespace.items("spec.finalizers") {
        let name = finalizer.as_str().unwrap_or_default();
        rules::qualified(&path, name, errors);
        if !name.contains('/') && name != "kubernetes" {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(&path, name, detail));
        }
    }
}

pub(super) fn node(node: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), node.at("spec"));
    let taints = spec.items("taints");
    for (index, taint) in taints.iter().enumerate() {
        let path = path.child("taints").index(index);
        rules::qualified(&path.child("key"), taint.text("key"), errors);
        let value = taint.text("value");
        let messages = names::label_value(value);
        if !messages.is_empty() {
            errors.push(FieldError::invalid(&path.child("value"), value, messages.join(";")));
        }
        let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
        rules::one_of(&path.child("effect"), taint.text("effect"), &effects, errors);
        let id = |taint: &Value| (taint.text("key").to_owned(), taint.text("effect").to_owned());
        if taints.iter().take(index).any(|other| id(other) == id(taint)) {
            errors.push(FieldError::duplicate(&path, taint.clone()));
        }
    }
    let ranges = spec.items("podCIDRs");
    for (index, range) in ranges.iter().enumerate() {
        rules::cidr(&path.child("podCIDRs").index(index), range.as_str().unwrap_or_default(), errors);
    }
    let six = ranges.iter().filter(|range| range.as_str().is_some_and(|r| r.contains(':'))).count();
    if ranges.len() > 2 || (ranges.len() == 2 && six != 1) {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid(&path.child("podCIDRs"), spec.at("podCIDRs").clone(), detail));
    }
    for key in ["capacity", "allocatable"] {
        for (name, value) in node.at("status").fields(key).into_iter().flatten() {
            quantities::integral(&Path::new("status").child(key).key(name), name, value, errors);
        }
    }
}

pub(super) fn node_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let ranges = old.items("spec.podCIDRs");
    if !ranges.is_empty() && !same(new.at("spec.podCIDRs"), old.at("spec.podCIDRs")) {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(FieldError::forbidden(&path.child("podCIDRs"), detail));
    }
    let id = old.text("spec.providerID");
    if !id.is_empty() && new.text("spec.providerID") != id {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.push(FieldError::forbidden(&path.child("providerID"), detail));
    }
}

pub(super) fn limit_range(range: &Value, errors: &mut Errors) {
    let limits_path = Path::new("spec").child("limits");
    let mut seen = Vec::new();
    for (index, item) in range.items("spec.limits").iter().enumerate() {
        let path = limits_path.index(index);
        let kind = item.text("type");
        if seen.contains(&kind) {
            errors.push(FieldError::duplicate(&path.child("type"), kind));
        }
        seen.push(kind);
        if !kind.contains('/') {
            let kinds = ["Container", "PersistentVolumeClaim", "Pod"];
            rules::one_of(&path.child("type"), kind, &kinds, errors);
        }
        if kind == "Pod" {
            for key in ["default", "defaultRequest"] {
                if item.fields(key).is_some_and(|list| !list.is_empty()) {
                    let detail = "may not be specified when `type` is 'Pod'";
                    errors.push(FieldError::forbidden(&path.child(key), detail));
                }
            }
        }
        if kind == "PersistentVolumeClaim" && !item.has("min") && !item.has("max") {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            errors.push(FieldError::required(&limits_path, detail));
        }
        bounds(&path, item, errors);
    }
}

/// Each list of amounts, and the list its amounts may not exceed.
const ORDERED: [(&str, &str, &str, &str); 5] = [
    ("min", "max", "min value", "max value"),
    ("min", "defaultRequest", "min value", "default request value"),
    ("defaultRequest", "max", "default request value", "max value"),
    ("defaultRequest", "default", "default request value", "default limit value"),
    ("default", "max", "default value", "max value"),
];

fn bounds(path: &Path, item: &Value, errors: &mut Errors) {
    for key in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        for (name, value) in item.fields(key).into_iter().flatten() {
            quantities::amount(&path.child(key).key(name), value, errors);
        }
    }
    for (low, high, low_text, high_text) in ORDERED {
        for (name, value) in item.fields(low).into_iter().flatten() {
            let upper = item.fields(high).and_then(|list| list.get(name)).and_then(quantities::parse);
            if let (Some(value), Some(upper)) = (quantities::parse(value), upper)
                && value > upper
            {
                let (value, upper) = (value.canonical(), upper.canonical());
                // The wrong side is the default where there is one.
                let blamed = if (low, high) == ("min", "defaultRequest") { high } else { low };
                let detail = format!("{low_text} {value} is greater than {high_text} {upper}");
                let shown = if blamed == low { value } else { upper };
                errors.push(FieldError::invalid(&path.child(blamed).key(name), shown, detail));
            }
        }
    }
}

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

pub(super) fn resource_quota(quota: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    for (name, value) in quota.fields("spec.hard").into_iter().flatten() {
        let path = path.child("hard").key(name);
        rules::qualified(&path, name, errors);
        quantities::integral(&path, name, value, errors);
    }
    let scopes = quota.items("spec.scopes");
    for scope in scopes {
        let scope = scope.as_str().unwrap_or_default();
        if !SCOPES.contains(&scope) {
            let detail = "unsupported scope";
            errors.push(FieldError::invalid(&path.child("scopes"), quota.at("spec.scopes").clone(), detail));
        }
    }
    for (a, b) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if scopes.iter().any(|scope| scope == a) && scopes.iter().any(|scope| scope == b) {
            let detail = "conflicting scopes";
            errors.push(FieldError::invalid(&path.child("scopes"), quota.at("spec.scopes").clone(), detail));
        }
    }
}

pub(super) fn resource_quota_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec").child("scopes");
    rules::immutable(&path, new.at("spec.scopes"), old.at("spec.scopes"), errors);
}

/// An event lives where what it is about lives; what lives nowhere has its events in `default`.
pub(super) fn event(event: &Value, errors: &mut Errors) {
    let (about, own) = (event.text("involvedObject.namespace"), event.text("metadata.namespace"));
    let path = Path::new("involvedObject").child("namespace");
    let fits = if about.is_empty() { own == "default" || own == "kube-system" } else { about == own };
    if !fits {
        errors.push(FieldError::invalid(&path, about, "does not match event.namespace"));
    }
    // Only events of the newer API carry a time of their own, and those must say who reports.
    if !event.text("eventTime").is_empty() {
        for key in ["reportingComponent", "reportingInstance", "action", "reason"] {
            let shown = if key == "reportingComponent" { "reportingController" } else { key };
            rules::required(&Path::new(shown), event.text(key), errors);
        }
        let controller = event.text("reportingComponent");
        if !controller.is_empty() {
            rules::qualified(&Path::new("reportingController"), controller, errors);
        }
    }
}
