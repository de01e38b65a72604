//! Environment variables, and the references to a pod's own fields that volumes share with them.

use serde_json::Value;

use super::{quantities, rules};
use crate::{
    field::{FieldError, Path},
    names,
    resources::{access::Get, validate::Errors},
};

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// What a volume's file may show: what changes with the pod, not with its place.
pub(super) const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const ENV_SOURCES: [&str; 5] =
    ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

pub(super) fn variables(path: &Path, variables: &[Value], errors: &mut Errors) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        let name = variable.text("name");
        if rules::required(&path.child("name"), name, errors) {
            rules::text(&path.child("name"), name, names::env_var_name(name), errors);
        }
        if !variable.has("valueFrom") {
            continue;
        }
        let (path, from) = (path.child("valueFrom"), variable.at("valueFrom"));
        let mut sources = 0;
        for source in ENV_SOURCES.iter().filter(|source| from.has(source)) {
            sources += 1;
            let (path, reference) = (path.child(source), from.at(source));
            match *source {
                "fieldRef" => field_ref(&path, reference, ENV_FIELDS, errors),
                "resourceFieldRef" => resource_field_ref(&path, reference, false, errors),
                "fileKeyRef" => {
                    for key in ["key", "volumeName", "path"] {
                        rules::required(&path.child(key), reference.text(key), errors);
                    }
                }
                _ => key_ref(&path, reference, errors),
            }
        }
        let detail = if sources == 0 {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        } else if !variable.text("value").is_empty() {
            "may not be specified when `value` is not empty"
        } else if sources > 1 {
            "may not have more than one field specified at a time"
        } else {
            continue;
        };
        errors.push(FieldError::invalid(&path, "", detail));
    }
}

pub(super) fn field_ref(path: &Path, reference: &Value, allowed: &[&str], errors: &mut Errors) {
    if !rules::required(&path.child("apiVersion"), reference.text("apiVersion"), errors) {
        return;
    }
    let field = reference.text("fieldPath");
    if !rules::required(&path.child("fieldPath"), field, errors) {
        return;
    }
    if let Some((parent, subscript)) = field.strip_suffix("']").and_then(|f| f.split_once("['")) {
        match parent {
            "metadata.annotations" => rules::qualified(path, &subscript.to_lowercase(), errors),
            "metadata.labels" => rules::qualified(path, subscript, errors),
            _ => errors.push(FieldError::invalid(path, parent, "does not support subscript")),
        }
        return;
    }
    let known = ENV_FIELDS.contains(&field) || VOLUME_FIELDS.contains(&field);
    if !known {
        let detail = format!("error converting fieldPath: field label not supported: {field}");
        errors.push(FieldError::invalid(&path.child("fieldPath"), field, detail));
    } else if !allowed.contains(&field) {
        errors.push(FieldError::not_supported(&path.child("fieldPath"), field, allowed));
    }
}

const MEMORY_DIVISORS: &[&str] =
    &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub(super) fn resource_field_ref(path: &Path, reference: &Value, in_volume: bool, errors: &mut Errors) {
    let resource = reference.text("resource");
    let huge = ["requests.hugepages-", "limits.hugepages-"].iter().any(|prefix| resource.starts_with(prefix));
    if in_volume && reference.text("containerName").is_empty() {
        errors.push(FieldError::required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(&path.child("resource"), ""));
    } else if !RESOURCE_FIELDS.contains(&resource) && !huge {
        errors.push(FieldError::not_supported(&path.child("resource"), resource, RESOURCE_FIELDS));
    }
    let Some(divisor) = quantities::parse(reference.at("divisor")).filter(|divisor| !divisor.is_zero())
    else {
        return;
    };
    let divisor = divisor.canonical();
    let amounts = MEMORY_DIVISORS.join(", ");
    let detail = match resource {
        "limits.cpu" | "requests.cpu" if !["1m", "1"].contains(&divisor.as_str()) => {
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
        }
        "limits.cpu" | "requests.cpu" => return,
        _ if MEMORY_DIVISORS.contains(&divisor.as_str()) => return,
        "limits.memory" | "requests.memory" => {
            format!("only divisor's values {amounts} are supported with the memory resource")
        }
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => {
            format!("only divisor's values {amounts} are supported with the local ephemeral storage resource")
        }
        _ if huge => format!("only divisor's values {amounts} are supported with the hugepages resource"),
        _ => return,
    };
    errors.push(FieldError::invalid(&path.child("divisor"), resource, detail));
}

fn key_ref(path: &Path, reference: &Value, errors: &mut Errors) {
    rules::subdomain(&path.child("name"), reference.text("name"), errors);
    let key = reference.text("key");
    if rules::required(&path.child("key"), key, errors) {
        rules::text(&path.child("key"), key, names::config_map_key(key), errors);
    }
}

pub(super) fn sources(path: &Path, sources: &[Value], errors: &mut Errors) {
    for (index, source) in sources.iter().enumerate() {
        let item = path.index(index);
        let prefix = source.text("prefix");
        if !prefix.is_empty() {
            rules::text(&item.child("prefix"), prefix, names::env_var_name(prefix), errors);
        }
        let mut found = 0;
        for key in ["configMapRef", "secretRef"] {
            if source.has(key) {
                found += 1;
                let (path, name) = (item.child(key).child("name"), source.at(key).text("name"));
                if rules::required(&path, name, errors) {
                    rules::text(
                        &path,
                        name,
                        names::dns1123_subdomain(&names::mask_trailing_dash(name)),
                        errors,
                    );
                }
            }
        }
        let detail = match found {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(FieldError::invalid(path, "", detail));
    }
}
