//! The kinds of storage that pods and persistent volumes name alike: what each of them cannot do without.

use serde_json::Value;

use super::{Errors, classes, pod, rules};
use crate::{
    field::{FieldError, Path},
    names,
    resources::access::Get,
};

/// What must be there, by kind.
const REQUIRED: &[(&str, &[&str])] = &[
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("nfs", &["server", "path"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("rbd", &["monitors", "image"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("storageos", &["volumeName"]),
    ("vsphereVolume", &["volumePath"]),
];

/// Kinds whose secret must have a name (and in a persistent volume, for those marked, a namespace).
const WITH_SECRET: &[(&str, bool)] = &[("cinder", true), ("iscsi", false), ("storageos", true)];

/// A kind of storage a pod names; those of Kubernetes' own are judged where pods are.
pub(super) fn in_pod(path: &Path, kind: &str, source: &Value, errors: &mut Errors) {
    common(&shown(path, kind), kind, source, false, errors);
}

/// Where a persistent volume's bytes are.
pub(super) fn persistent(path: &Path, kind: &str, source: &Value, errors: &mut Errors) {
    let path = shown(path, kind);
    match kind {
        "hostPath" => pod::host_path(&path, source, errors),
        "local" => {
            if rules::required(&path.child("path"), source.text("path"), errors) {
                pod::no_backsteps(&path.child("path"), source.text("path"), errors);
            }
        }
        "csi" => csi(&path, source, errors),
        _ => common(&path, kind, source, true, errors),
    }
}

/// Upstream's paths do not all follow the field's name.
fn shown(path: &Path, kind: &str) -> Path {
    path.child(if kind == "gcePersistentDisk" { "persistentDisk" } else { kind })
}

fn csi(path: &Path, source: &Value, errors: &mut Errors) {
    classes::driver_name(&path.child("driver"), source.text("driver"), errors);
    rules::required(&path.child("volumeHandle"), source.text("volumeHandle"), errors);
    for key in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        if !source.has(key) {
            continue;
        }
        let (path, secret) = (path.child(key), source.at(key));
        if rules::required(&path.child("name"), secret.text("name"), errors) {
            rules::subdomain(&path.child("name"), secret.text("name"), errors);
        }
        if rules::required(&path.child("namespace"), secret.text("namespace"), errors) {
            rules::label(&path.child("namespace"), secret.text("namespace"), errors);
        }
    }
}

fn common(path: &Path, kind: &str, source: &Value, persistent: bool, errors: &mut Errors) {
    let required = REQUIRED.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, keys)| keys);
    for key in required.iter().filter(|key| source.text(key).is_empty() && source.items(key).is_empty()) {
        errors.push(FieldError::required(&path.child(key), ""));
    }
    match kind {
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            if let Some(number) = source.int("partition").filter(|number| !(0..=255).contains(number)) {
                let detail = "must be between 0 and 255, inclusive";
                errors.push(FieldError::invalid(&path.child("partition"), number, detail));
            }
        }
        "gitRepo" => pod::descending(&path.child("directory"), source.text("directory"), errors),
        "nfs" if !source.text("path").is_empty() && !source.text("path").starts_with('/') => {
            let value = source.text("path");
            errors.push(FieldError::invalid(&path.child("path"), value, "must be an absolute path"));
        }
        "iscsi" => iscsi(path, source, persistent, errors),
        "fc" => fibre_channel(path, source, errors),
        "flocker" => flocker(path, source, errors),
        "quobyte" => quobyte(path, source, errors),
        "flexVolume" => flex_options(path, source, errors),
        "azureDisk" => azure_disk(path, source, errors),
        "storageos" => {
            for key in ["volumeName", "volumeNamespace"] {
                if !source.text(key).is_empty() {
                    rules::label(&path.child(key), source.text(key), errors);
                }
            }
        }
        _ => {}
    }
    let secret = WITH_SECRET.iter().find(|(name, _)| *name == kind);
    if let Some((_, namespaced)) = secret.filter(|_| source.has("secretRef")) {
        let (path, secret) = (path.child("secretRef"), source.at("secretRef"));
        if kind != "iscsi" || persistent {
            rules::required(&path.child("name"), secret.text("name"), errors);
        }
        if *namespaced && persistent {
            rules::required(&path.child("namespace"), secret.text("namespace"), errors);
        }
    }
    for (key, of) in [("endpointsNamespace", "glusterfs"), ("secretNamespace", "azureFile")] {
        if kind != of || !persistent {
            continue;
        }
        match source.at(key).as_str() {
            Some("") if kind == "azureFile" => errors.push(FieldError::required(&path.child(key), "")),
            Some("") => {
                let detail = "if the endpointnamespace is set, it must be a valid namespace name";
                errors.push(FieldError::invalid(&path.child(key), "", detail));
            }
            Some(namespace) if kind == "glusterfs" => rules::label(&path.child(key), namespace, errors),
            _ => {}
        }
    }
}

fn iscsi(path: &Path, source: &Value, persistent: bool, errors: &mut Errors) {
    let general = if persistent {
        "must be valid format"
    } else {
        "must be valid format starting with iqn, eui, or naa"
    };
    for (key, shown) in [("iqn", "iqn"), ("initiatorName", "initiatorname")] {
        let name = source.text(key);
        if source.at(key).is_null() || (name.is_empty() && key == "iqn") {
            continue;
        }
        if !["iqn", "eui", "naa"].iter().any(|kind| name.starts_with(kind)) {
            errors.push(FieldError::invalid(&path.child(shown), name, general));
        } else if !is_iscsi_name(name) {
            errors.push(FieldError::invalid(&path.child(shown), name, "must be valid format"));
        }
    }
    if let Some(lun) = source.int("lun").filter(|lun| !(0..=255).contains(lun)) {
        errors.push(FieldError::invalid(&path.child("lun"), lun, names::range_error(0, 255)));
    }
    if (source.flag("chapAuthDiscovery") || source.flag("chapAuthSession")) && !source.has("secretRef") {
        errors.push(FieldError::required(&path.child("secretRef"), ""));
    }
}

/// `iqn.YYYY-MM.domain[:text]`, `eui.` and 16 or `naa.` and 16 or 32 hexadecimal digits.
fn is_iscsi_name(name: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(rest) = name.strip_prefix("iqn.") {
        let (date, domain) = (rest.get(..7).unwrap_or_default(), rest.get(7..).unwrap_or_default());
        let dated =
            date.bytes().enumerate().all(|(i, b)| if i == 4 { b == b'-' } else { b.is_ascii_digit() });
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-:".contains(&b);
        return date.len() == 7
            && dated
            && domain.len() > 1
            && domain.starts_with('.')
            && domain.bytes().all(allowed);
    }
    match (name.strip_prefix("eui."), name.strip_prefix("naa.")) {
        (Some(digits), _) => digits.len() == 16 && hex(digits),
        (_, Some(digits)) => matches!(digits.len(), 16 | 32) && hex(digits),
        _ => false,
    }
}

fn fibre_channel(path: &Path, source: &Value, errors: &mut Errors) {
    let (targets, ids) = (source.items("targetWWNs"), source.items("wwids"));
    let targets_path = path.child("targetWWNs");
    if targets.is_empty() && ids.is_empty() {
        let detail = "must specify either targetWWNs or wwids, but not both";
        errors.push(FieldError::required(&targets_path, detail));
    }
    if !targets.is_empty() && !ids.is_empty() {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(FieldError::invalid(&targets_path, source.at("targetWWNs").clone(), detail));
    }
    if targets.is_empty() {
        return;
    }
    match source.int("lun") {
        None => {
            let detail = "lun is required if targetWWNs is specified";
            errors.push(FieldError::required(&path.child("lun"), detail));
        }
        Some(lun) if !(0..=255).contains(&lun) => {
            errors.push(FieldError::invalid(&path.child("lun"), lun, names::range_error(0, 255)));
        }
        Some(_) => {}
    }
}

fn flocker(path: &Path, source: &Value, errors: &mut Errors) {
    let (name, uuid) = (source.text("datasetName"), source.text("datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        errors.push(FieldError::required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let detail = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(FieldError::invalid(path, "resource", detail));
    }
    if name.contains('/') {
        errors.push(FieldError::invalid(&path.child("datasetName"), name, "must not contain '/'"));
    }
}

fn quobyte(path: &Path, source: &Value, errors: &mut Errors) {
    let (registry, registry_path) = (source.text("registry"), path.child("registry"));
    let pairs = "must be a host:port pair or multiple pairs separated by commas";
    if registry.is_empty() {
        errors.push(FieldError::required(&registry_path, pairs));
    } else if source.text("tenant").len() >= 65 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(&path.child("tenant"), detail));
    } else {
        for _ in registry.split(',').filter(|pair| !pair.contains(':')) {
            errors.push(FieldError::invalid(&registry_path, registry, pairs));
        }
    }
    rules::required(&path.child("volume"), source.text("volume"), errors);
}

fn flex_options(path: &Path, source: &Value, errors: &mut Errors) {
    for key in source.fields("options").into_iter().flat_map(serde_json::Map::keys) {
        let domain = key.split_once('/').map_or(key.as_str(), |(domain, _)| domain).to_lowercase();
        let domain = format!(".{domain}");
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(FieldError::invalid(&path.child("options").key(key), key.as_str(), detail));
        }
    }
}

fn azure_disk(path: &Path, source: &Value, errors: &mut Errors) {
    let modes = ["None", "ReadOnly", "ReadWrite"];
    if let Some(mode) = source.at("cachingMode").as_str().filter(|mode| !modes.contains(mode)) {
        errors.push(FieldError::not_supported(&path.child("cachingMode"), mode, &modes));
    }
    let Some(kind) = source.at("kind").as_str() else { return };
    let kinds = ["Dedicated", "Managed", "Shared"];
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("kind"), kind, &kinds));
    }
    let uri = source.text("diskURI");
    let form = match kind {
        "Managed" if !uri.starts_with("/subscriptions/") => {
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
        }
        "Managed" => return,
        _ if !uri.starts_with("https://") => {
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
        }
        _ => return,
    };
    errors.push(FieldError::not_supported(&path.child("diskURI"), uri, &[form]));
}
