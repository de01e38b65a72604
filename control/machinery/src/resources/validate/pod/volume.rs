//! Volumes of a pod.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    container::{descending, no_backsteps},
    env::{VOLUME_FIELDS, field_ref, resource_field_ref},
    quantities, rules,
};
use crate::{
    field::{FieldError, Path},
    resources::{
        access::Get,
        validate::{Errors, classes, meta, storage, volume_source},
    },
};

/// Checks volumes, and gives those with a name of their own by it.
pub(super) fn volumes<'s>(
    path: &Path,
    volumes: &'s [Value],
    errors: &mut Errors,
) -> BTreeMap<&'s str, &'s Value> {
    let mut found = BTreeMap::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let before = errors.len();
        let name = volume.text("name");
        source(&path, volume, errors);
        if rules::required(&path.child("name"), name, errors) {
            let valid = errors.len();
            rules::label(&path.child("name"), name, errors);
            if errors.len() == valid && found.contains_key(name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
        }
        if errors.len() == before {
            found.insert(name, volume);
        }
    }
    found
}

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

fn source(path: &Path, volume: &Value, errors: &mut Errors) {
    let mut found = false;
    for (kind, source) in volume.as_object().into_iter().flatten() {
        if kind == "name" || source.is_null() {
            continue;
        }
        let (whole, path) = (path, path.child(kind));
        if found {
            errors.push(FieldError::forbidden(&path, "may not specify more than 1 volume type"));
            continue;
        }
        found = true;
        match kind.as_str() {
            "emptyDir" => {
                let limit = quantities::parse(source.at("sizeLimit"));
                if limit.is_some_and(|limit| limit.sign() < 0) {
                    let detail = "SizeLimit field must be a valid resource quantity";
                    errors.push(FieldError::forbidden(&path.child("sizeLimit"), detail));
                }
            }
            "hostPath" => host_path(&path, source, errors),
            "secret" => {
                rules::required(&path.child("secretName"), source.text("secretName"), errors);
                mode(&path.child("defaultMode"), source.at("defaultMode"), errors);
                items(&path.child("items"), source.items("items"), errors);
            }
            "configMap" => {
                rules::required(&path.child("name"), source.text("name"), errors);
                mode(&path.child("defaultMode"), source.at("defaultMode"), errors);
                items(&path.child("items"), source.items("items"), errors);
            }
            "persistentVolumeClaim" => {
                rules::required(&path.child("claimName"), source.text("claimName"), errors);
            }
            "downwardAPI" => {
                mode(&path.child("defaultMode"), source.at("defaultMode"), errors);
                downward_files(&path, source, errors);
            }
            "projected" => projected(&path, source, errors),
            "csi" => {
                classes::driver_name(&path.child("driver"), source.text("driver"), errors);
                if source.has("nodePublishSecretRef") {
                    let name = source.text("nodePublishSecretRef.name");
                    if name.is_empty() {
                        let path = path.child("nodePublishSecretRef").child("name");
                        errors.push(FieldError::required(&path, ""));
                    } else {
                        rules::subdomain(&path.child("name"), name, errors);
                    }
                }
            }
            "image" => {
                rules::required(&path.child("reference"), source.text("reference"), errors);
                let policies = ["Always", "IfNotPresent", "Never"];
                rules::one_of(&path.child("pullPolicy"), source.text("pullPolicy"), &policies, errors);
            }
            "ephemeral" => claim_template(&path.child("volumeClaimTemplate"), source, errors),
            _ => volume_source::in_pod(whole, kind, source, errors),
        }
    }
    if !found {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

/// The claim a pod brings along: labels and annotations, and what it wants.
fn claim_template(path: &Path, source: &Value, errors: &mut Errors) {
    let template = source.at("volumeClaimTemplate");
    if template.is_null() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let (metadata, metadata_path) = (template.at("metadata"), path.child("metadata"));
    meta::annotations(&metadata_path.child("annotations"), metadata.at("annotations"), errors);
    rules::labels(&metadata_path.child("labels"), metadata.at("labels"), errors);
    for (key, value) in metadata.as_object().into_iter().flatten() {
        if !["annotations", "labels", "creationTimestamp"].contains(&key.as_str()) && !value.is_null() {
            errors.push(FieldError::forbidden(&metadata_path.child(key), "cannot be set"));
        }
    }
    let lenient = template.has("spec.dataSource.apiGroup") || template.has("spec.dataSourceRef.apiGroup");
    storage::claim_spec(&path.child("spec"), template.at("spec"), lenient, errors);
}

/// A path on the node, as pods and persistent volumes name it.
pub(in crate::resources::validate) fn host_path(path: &Path, source: &Value, errors: &mut Errors) {
    let value = source.text("path");
    if rules::required(&path.child("path"), value, errors) {
        no_backsteps(&path.child("path"), value, errors);
    }
    let kind = source.text("type");
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("type"), kind, HOST_PATH_TYPES));
    }
}

fn mode(path: &Path, value: &Value, errors: &mut Errors) {
    if let Some(mode) = value.as_i64().filter(|mode| !(0..=0o777).contains(mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(path, mode, detail));
    }
}

fn items(path: &Path, items: &[Value], errors: &mut Errors) {
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        rules::required(&path.child("key"), item.text("key"), errors);
        file_path(&path.child("path"), item.text("path"), errors);
        mode(&path.child("mode"), item.at("mode"), errors);
    }
}

/// Where a file goes inside its volume; names starting with two dots are the writer's own.
fn file_path(path: &Path, value: &str, errors: &mut Errors) {
    if !rules::required(path, value, errors) {
        return;
    }
    descending(path, value, errors);
    if value.starts_with("..") && !value.starts_with("../") {
        errors.push(FieldError::invalid(path, value, "must not start with '..'"));
    }
}

fn downward_files(path: &Path, source: &Value, errors: &mut Errors) {
    for item in source.items("items") {
        file_path(&path.child("path"), item.text("path"), errors);
        match (item.has("fieldRef"), item.has("resourceFieldRef")) {
            (true, both) => {
                field_ref(&path.child("fieldRef"), item.at("fieldRef"), VOLUME_FIELDS, errors);
                if both {
                    let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                    errors.push(FieldError::invalid(path, "resource", detail));
                }
            }
            (false, true) => {
                let path = path.child("resourceFieldRef");
                resource_field_ref(&path, item.at("resourceFieldRef"), true, errors);
            }
            (false, false) => {
                errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required"));
            }
        }
        mode(&path.child("mode"), item.at("mode"), errors);
    }
}

fn projected(path: &Path, source: &Value, errors: &mut Errors) {
    mode(&path.child("defaultMode"), source.at("defaultMode"), errors);
    let mut paths = BTreeSet::new();
    for (index, source) in source.items("sources").iter().enumerate() {
        let item = path.child("sources").index(index);
        let mut found = false;
        for (kind, source) in source.as_object().into_iter().flatten().filter(|(_, source)| !source.is_null())
        {
            let path = item.child(kind);
            if found {
                let detail = "may not specify more than 1 volume type per source";
                errors.push(FieldError::forbidden(&path, detail));
                continue;
            }
            found = true;
            match kind.as_str() {
                "secret" | "configMap" => {
                    rules::required(&path.child("name"), source.text("name"), errors);
                    items(&path.child("items"), source.items("items"), errors);
                }
                "downwardAPI" => downward_files(&path, source, errors),
                "serviceAccountToken" => token(&path, source, errors),
                "clusterTrustBundle" | "podCertificate" => {}
                _ => continue,
            }
            let own = source.at("path").as_str();
            let listed = source.items("items").iter().map(|item| item.text("path"));
            for file in own.into_iter().chain(listed).filter(|file| !file.is_empty()) {
                if !paths.insert(file) {
                    let detail = "conflicting duplicate paths";
                    errors.push(FieldError::invalid(&path.child("path"), file, detail));
                }
            }
        }
        if !found {
            errors.push(FieldError::required(&item, "must specify a volume type"));
        }
    }
}

fn token(path: &Path, source: &Value, errors: &mut Errors) {
    rules::token_seconds(&path.child("expirationSeconds"), source.at("expirationSeconds"), errors);
    file_path(&path.child("path"), source.text("path"), errors);
}
