//! Persistent volumes, their claims, and what provisions them.

use serde_json::{Value, json};

use super::amounts::{RESOURCES, round};
use crate::access::{default, default_text, existing, object};

pub(super) fn persistent_volume(volume: &mut Value) {
    round(volume, &["spec.capacity"]);
    if let Some(status) = object(volume, "status") {
        default_text(status, "phase", "Pending");
    }
    let Some(spec) = object(volume, "spec") else { return };
    default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    default(spec, "volumeMode", "Filesystem");
    if let Some(path) = existing(spec, "hostPath") {
        default(path, "type", "");
    }
    if let Some(disk) = existing(spec, "azureDisk") {
        default(disk, "cachingMode", "ReadWrite");
        default(disk, "kind", "Shared");
        default(disk, "fsType", "ext4");
        default(disk, "readOnly", false);
    }
    iscsi(spec);
    rbd(spec);
    scale_io(spec);
}

pub(super) fn iscsi(parent: &mut Value) {
    if let Some(source) = existing(parent, "iscsi") {
        default_text(source, "iscsiInterface", "default");
    }
}

pub(super) fn rbd(parent: &mut Value) {
    if let Some(source) = existing(parent, "rbd") {
        default_text(source, "pool", "rbd");
        default_text(source, "user", "admin");
        default_text(source, "keyring", "/etc/ceph/keyring");
    }
}

pub(super) fn scale_io(parent: &mut Value) {
    if let Some(source) = existing(parent, "scaleIO") {
        default_text(source, "storageMode", "ThinProvisioned");
        default_text(source, "fsType", "xfs");
    }
}

pub(super) fn persistent_volume_claim(claim: &mut Value) {
    round(claim, &["status.capacity", "status.allocatedResources"]);
    if let Some(status) = object(claim, "status") {
        default_text(status, "phase", "Pending");
    }
    if let Some(spec) = object(claim, "spec") {
        claim_spec(spec);
    }
}

pub(super) fn claim_spec(spec: &mut Value) {
    round(spec, RESOURCES);
    default(spec, "volumeMode", "Filesystem");
}

pub(super) fn storage_class(class: &mut Value) {
    default(class, "reclaimPolicy", "Delete");
    default(class, "volumeBindingMode", "Immediate");
}

pub(super) fn csi_driver(driver: &mut Value) {
    let Some(spec) = object(driver, "spec") else { return };
    default(spec, "attachRequired", true);
    default(spec, "podInfoOnMount", false);
    default(spec, "storageCapacity", false);
    default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    default(spec, "requiresRepublish", false);
    default(spec, "seLinuxMount", false);
    if spec.get("volumeLifecycleModes").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        crate::access::set(spec, "volumeLifecycleModes", json!(["Persistent"]));
    }
}
