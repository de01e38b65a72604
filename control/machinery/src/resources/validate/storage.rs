//! Volumes, claims and classes.

use serde_json::Value;

use super::{Errors, pod, quantities, rules, selector};
use crate::{
    field::{FieldError, Path},
    resources::access::{Get, copy, existing, remove, same},
};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

fn access_modes(path: &Path, spec: &Value, errors: &mut Errors) {
    let modes = spec.items("accessModes");
    for mode in modes {
        let mode = mode.as_str().unwrap_or_default();
        if !ACCESS_MODES.contains(&mode) {
            errors.push(FieldError::not_supported(path, mode, &ACCESS_MODES));
        }
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(path, detail));
    }
}

/// Fields of a volume's spec that do not say where its bytes are.
const NOT_SOURCES: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

pub(super) fn persistent_volume(volume: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), volume.at("spec"));
    if spec.items("accessModes").is_empty() {
        errors.push(FieldError::required(&path.child("accessModes"), ""));
    }
    access_modes(&path.child("accessModes"), spec, errors);
    let capacity = spec.fields("capacity");
    if capacity.is_none_or(serde_json::Map::is_empty) {
        errors.push(FieldError::required(&path.child("capacity"), ""));
    }
    if capacity.is_none_or(|amounts| amounts.len() != 1 || !amounts.contains_key("storage")) {
        let value = spec.at("capacity").clone();
        let mut error = FieldError::not_supported(&path.child("capacity"), value, &["storage"]);
        error.detail = "supported values: \"storage\"".to_owned();
        errors.push(error);
    }
    for (name, value) in capacity.into_iter().flatten() {
        let path = path.child("capacity").key(name);
        if let Some(amount) = quantities::amount(&path, value, errors)
            && amount.is_zero()
        {
            errors.push(FieldError::invalid(&path, amount.canonical(), "must be greater than zero"));
        }
    }
    let policies = ["Delete", "Recycle", "Retain"];
    let policy = spec.text("persistentVolumeReclaimPolicy");
    let policy_path = path.child("persistentVolumeReclaimPolicy");
    rules::supported_or_empty(&policy_path, policy, &policies, errors);
    if spec.has("nodeAffinity.required") {
        let path = path.child("nodeAffinity").child("required");
        pod::node_selector(&path, spec.at("nodeAffinity.required"), errors);
    }
    let mut sources = 0;
    for (key, source) in spec.as_object().into_iter().flatten() {
        if NOT_SOURCES.contains(&key.as_str()) || source.is_null() {
            continue;
        }
        sources += 1;
        let path = path.child(key);
        if sources > 1 {
            errors.push(FieldError::forbidden(&path, "may not specify more than 1 volume type"));
            continue;
        }
        match key.as_str() {
            "hostPath" => pod::host_path(&path, source, errors),
            "local" => {
                rules::required(&path.child("path"), source.text("path"), errors);
                if !spec.has("nodeAffinity.required") {
                    let detail = "Local volume requires node affinity";
                    errors.push(FieldError::required(&Path::from("metadata.annotations"), detail));
                }
            }
            "csi" => {
                rules::required(&path.child("driver"), source.text("driver"), errors);
                rules::required(&path.child("volumeHandle"), source.text("volumeHandle"), errors);
            }
            "nfs" => {
                rules::required(&path.child("server"), source.text("server"), errors);
                rules::required(&path.child("path"), source.text("path"), errors);
            }
            _ => {}
        }
    }
    if sources == 0 {
        errors.push(FieldError::required(&path, "must specify a volume type"));
    }
    if spec.text("hostPath.path") == "/" && policy == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden(&policy_path, detail));
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() {
        rules::subdomain(&path.child("storageClassName"), class, errors);
    }
    let modes = ["Block", "Filesystem"];
    rules::supported_or_empty(&path.child("volumeMode"), spec.text("volumeMode"), &modes, errors);
}

pub(super) fn persistent_volume_update(new: &Value, old: &Value, errors: &mut Errors) {
    let source = |object: &Value| {
        let mut spec = object.at("spec").clone();
        for key in NOT_SOURCES {
            remove(&mut spec, key);
        }
        spec
    };
    if !same(&source(new), &source(old)) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        errors.push(FieldError::forbidden(&Path::from("spec.persistentvolumesource"), detail));
    }
    let path = Path::new("spec").child("volumeMode");
    rules::immutable(&path, new.at("spec.volumeMode"), old.at("spec.volumeMode"), errors);
    if old.has("spec.nodeAffinity") {
        let path = Path::new("spec").child("nodeAffinity");
        rules::immutable(&path, new.at("spec.nodeAffinity"), old.at("spec.nodeAffinity"), errors);
    }
}

pub(super) fn claim(claim: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), claim.at("spec"));
    if spec.items("accessModes").is_empty() {
        errors.push(FieldError::required(&path.child("accessModes"), "at least 1 access mode is required"));
    }
    if spec.has("selector") {
        selector::label_selector(&path.child("selector"), spec.at("selector"), errors);
    }
    access_modes(&path.child("accessModes"), spec, errors);
    let storage = path.child("resources").key("storage");
    match spec.at("resources.requests.storage") {
        Value::Null => errors.push(FieldError::required(&storage, "")),
        value => {
            if let Some(amount) = quantities::amount(&storage, value, errors)
                && amount.is_zero()
            {
                errors.push(FieldError::invalid(&storage, amount.canonical(), "must be greater than zero"));
            }
        }
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() {
        rules::subdomain(&path.child("storageClassName"), class, errors);
    }
    let modes = ["Block", "Filesystem"];
    rules::supported_or_empty(&path.child("volumeMode"), spec.text("volumeMode"), &modes, errors);
}

pub(super) fn claim_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let (spec, before) = (new.at("spec"), old.at("spec"));
    let mut allowed = spec.clone();
    // Binding sets the volume's name once; a bound claim may grow.
    if before.text("volumeName").is_empty() {
        copy(&mut allowed, before, "volumeName");
    }
    if !before.has("storageClassName") {
        copy(&mut allowed, before, "storageClassName");
    }
    copy(&mut allowed, before, "volumeAttributesClassName");
    let (size, old_size) = (spec.at("resources.requests.storage"), before.at("resources.requests.storage"));
    let bound = old.text("status.phase") == "Bound";
    if bound && let Some(requests) = existing(&mut allowed, "resources.requests") {
        copy(requests, before.at("resources.requests"), "storage");
    }
    if !same(&allowed, before) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                      bound claims";
        errors.push(FieldError::forbidden(&path, detail));
    }
    if bound
        && let (Some(size), Some(old_size)) = (quantities::parse(size), quantities::parse(old_size))
        && size < old_size
    {
        let detail = "field can not be less than previous value";
        errors
            .push(FieldError::forbidden(&path.child("resources").child("requests").child("storage"), detail));
    }
}

pub(super) fn storage_class(class: &Value, errors: &mut Errors) {
    let provisioner = class.text("provisioner");
    if rules::required(&Path::new("provisioner"), provisioner, errors) {
        rules::qualified(&Path::new("provisioner"), &provisioner.to_lowercase(), errors);
    }
    for key in class.fields("parameters").into_iter().flatten().map(|(key, _)| key) {
        if key.is_empty() {
            let detail = "field can not be empty.";
            errors.push(FieldError::invalid(&Path::new("parameters"), "", detail));
        }
    }
    let policies = ["Delete", "Retain"];
    let policy = class.text("reclaimPolicy");
    rules::supported_or_empty(&Path::new("reclaimPolicy"), policy, &policies, errors);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    rules::one_of(&Path::new("volumeBindingMode"), class.text("volumeBindingMode"), &modes, errors);
}

pub(super) fn storage_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    for (key, detail) in [
        ("parameters", "updates to parameters are forbidden."),
        ("provisioner", "updates to provisioner are forbidden."),
        ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
    ] {
        if !same(new.at(key), old.at(key)) {
            errors.push(FieldError::forbidden(&Path::new(key), detail));
        }
    }
    let key = "volumeBindingMode";
    rules::immutable(&Path::new(key), new.at(key), old.at(key), errors);
}
