//! How storage is made and by whom: classes, drivers, attachments.

use serde_json::Value;

use super::{Errors, quantities, rules, selector, storage};
use crate::{
    field::{FieldError, Path},
    names,
    resources::access::{Fields, Get, remove, same},
};

/// Most parameters of a class, and most bytes of all of them together.
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_SIZE_MAX: usize = 256 * 1024;

fn provisioner(path: &Path, name: &str, errors: &mut Errors) {
    if rules::required(path, name, errors) {
        let lower = name.to_lowercase();
        rules::qualified(path, &lower, errors);
    }
}

fn parameters(class: &Value, may_be_empty: bool, errors: &mut Errors) {
    let (path, empty) = (Path::new("parameters"), Fields::new());
    let parameters = class.fields("parameters").unwrap_or(&empty);
    if parameters.len() > PARAMETERS_MAX {
        errors.push(FieldError::too_long(&path, PARAMETERS_MAX));
        return;
    }
    if parameters.contains_key("") {
        errors.push(FieldError::invalid(&path, "", "field can not be empty."));
    }
    let size: usize =
        parameters.iter().map(|(key, value)| key.len() + value.as_str().unwrap_or_default().len()).sum();
    if size > PARAMETERS_SIZE_MAX {
        errors.push(FieldError::too_long(&path, PARAMETERS_SIZE_MAX));
    }
    if !may_be_empty && parameters.is_empty() {
        errors.push(FieldError::required(&path, "must contain at least one key/value pair"));
    }
}

pub(super) fn storage_class(class: &Value, errors: &mut Errors) {
    provisioner(&Path::new("provisioner"), class.text("provisioner"), errors);
    parameters(class, true, errors);
    let policy = class.text("reclaimPolicy");
    rules::supported_or_empty(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"], errors);
    let (path, modes) = (Path::new("volumeBindingMode"), ["Immediate", "WaitForFirstConsumer"]);
    match class.at("volumeBindingMode").as_str() {
        None => errors.push(FieldError::required(&path, "")),
        Some(mode) if !modes.contains(&mode) => errors.push(FieldError::not_supported(&path, mode, &modes)),
        Some(_) => {}
    }
    let terms = class.items("allowedTopologies");
    for (index, term) in terms.iter().enumerate() {
        let path = Path::new("allowedTopologies").index(index).child("matchLabelExpressions");
        topology_term(&path, term, errors);
        if terms.iter().take(index).any(|other| same(other, term)) {
            errors.push(FieldError::duplicate(&path, ""));
        }
    }
}

fn topology_term(path: &Path, term: &Value, errors: &mut Errors) {
    let requirements = term.items("matchLabelExpressions");
    for (index, requirement) in requirements.iter().enumerate() {
        let path = path.index(index);
        let (values, values_path) = (requirement.items("values"), path.child("values"));
        if values.is_empty() {
            errors.push(FieldError::required(&values_path, ""));
        }
        for (index, value) in values.iter().enumerate() {
            if values.iter().take(index).any(|other| other == value) {
                errors.push(FieldError::duplicate(&values_path.index(index), value.clone()));
            }
        }
        let key = requirement.text("key");
        rules::qualified(&path.child("key"), key, errors);
        if requirements.iter().take(index).any(|other| other.text("key") == key) {
            errors.push(FieldError::duplicate(&path.child("key"), key));
        }
    }
}

pub(super) fn storage_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    for key in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        rules::immutable(&Path::new(key), new.at(key), old.at(key), errors);
    }
}

pub(super) fn volume_attributes_class(class: &Value, errors: &mut Errors) {
    provisioner(&Path::new("driverName"), class.text("driverName"), errors);
    parameters(class, false, errors);
}

pub(super) fn volume_attributes_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    for key in ["driverName", "parameters"] {
        if !same(new.at(key), old.at(key)) {
            errors.push(FieldError::forbidden(&Path::new(key), format!("updates to {key} are forbidden.")));
        }
    }
}

/// The name of a CSI driver, in any case.
pub(super) fn driver_name(path: &Path, name: &str, errors: &mut Errors) {
    if !rules::required(path, name, errors) {
        return;
    }
    if name.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
    rules::text(path, name, names::dns1123_subdomain(&name.to_lowercase()), errors);
}

/// Bytes of what a driver says of an attachment, and of an error.
const METADATA_MAX: usize = 256 * 1024;
const MESSAGE_MAX: usize = 1024;

pub(super) fn volume_attachment(attachment: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), attachment.at("spec"));
    driver_name(&path.child("attacher"), spec.text("attacher"), errors);
    let (source, source_path) = (spec.at("source"), path.child("source"));
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (source.has("inlineVolumeSpec"), source.at("persistentVolumeName").as_str()) {
        (false, None) => errors.push(FieldError::required(&source_path, one)),
        (true, Some(_)) => errors.push(FieldError::forbidden(&source_path, one)),
        (false, Some("")) => {
            let detail = "must specify non empty persistentVolumeName";
            errors.push(FieldError::required(&source_path.child("persistentVolumeName"), detail));
        }
        (false, Some(_)) => {}
        (true, None) => {
            let path = source_path.child("inlineVolumeSpec");
            storage::volume_spec(&path, source.at("inlineVolumeSpec"), true, errors);
        }
    }
    rules::subdomain(&path.child("nodeName"), spec.text("nodeName"), errors);
    attachment_state(attachment, errors);
    if let Some(name) = source.at("persistentVolumeName").as_str() {
        rules::subdomain(&source_path.child("persistentVolumeName"), name, errors);
    }
}

fn attachment_state(attachment: &Value, errors: &mut Errors) {
    let (path, status) = (Path::new("status"), attachment.at("status"));
    let metadata = status.fields("attachmentMetadata").into_iter().flatten();
    let size: usize = metadata.map(|(key, value)| key.len() + value.as_str().unwrap_or_default().len()).sum();
    if size > METADATA_MAX {
        errors.push(FieldError::too_long(&path.child("attachmentMetadata"), METADATA_MAX));
    }
    for key in ["attachError", "detachError"] {
        let (path, error) = (path.child(key), status.at(key));
        if error.text("message").len() > MESSAGE_MAX {
            // Upstream names the wrong bound here.
            errors.push(FieldError::too_long(&path.child("message"), METADATA_MAX));
        }
        if let Some(code) = error.int("errorCode").filter(|code| *code < 0) {
            let detail = names::range_error(0, i64::from(i32::MAX));
            errors.push(FieldError::invalid(&path.child("errorCode"), code, detail));
        }
    }
}

pub(super) fn volume_attachment_update(new: &Value, old: &Value, errors: &mut Errors) {
    rules::immutable(&Path::new("spec"), new.at("spec"), old.at("spec"), errors);
}

pub(super) fn volume_attachment_status(new: &Value, _old: &Value, errors: &mut Errors) {
    attachment_state(new, errors);
}

/// How long a driver's name for a node may be.
const NODE_ID_MAX: usize = 256;

pub(super) fn csi_node(node: &Value, errors: &mut Errors) {
    let drivers = node.items("spec.drivers");
    for (index, driver) in drivers.iter().enumerate() {
        let path = Path::from("spec.drivers").index(index);
        let (name, id) = (driver.text("name"), driver.text("nodeID"));
        driver_name(&path.child("name"), name, errors);
        rules::required(&path.child("nodeID"), id, errors);
        if id.len() > NODE_ID_MAX {
            let detail = format!("must be {NODE_ID_MAX} characters or less");
            errors.push(FieldError::invalid(&path.child("nodeID"), id, detail));
        }
        let count = path.child("allocatable").child("count");
        rules::not_negative(&count, driver.at("allocatable.count"), errors);
        if drivers.iter().take(index).any(|other| other.text("name") == name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
        let keys = driver.items("topologyKeys");
        for (index, key) in keys.iter().enumerate() {
            let text = key.as_str().unwrap_or_default();
            rules::required(&path, text, errors);
            if keys.iter().take(index).any(|other| other == key) {
                errors.push(FieldError::duplicate(&path, text));
            }
            rules::qualified(&path, text, errors);
        }
    }
}

/// What a driver said of a node stays, but for how many volumes fit.
pub(super) fn csi_node_update(new: &Value, old: &Value, errors: &mut Errors) {
    let fixed = |driver: &Value| {
        let mut driver = driver.clone();
        remove(&mut driver, "allocatable");
        driver
    };
    for before in old.items("spec.drivers") {
        for driver in new.items("spec.drivers").iter().filter(|d| d.text("name") == before.text("name")) {
            rules::immutable(&Path::from("spec.drivers"), &fixed(driver), &fixed(before), errors);
        }
    }
}

pub(super) fn csi_driver(driver: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), driver.at("spec"));
    for (key, shown) in [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ] {
        if !spec.has(key) {
            errors.push(FieldError::required(&path.child(shown), ""));
        }
    }
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    if let Some(policy) = spec.at("fsGroupPolicy").as_str().filter(|policy| !policies.contains(policy)) {
        errors.push(FieldError::not_supported(&path.child("fsGroupPolicy"), policy, &policies));
    }
    let requests = spec.items("tokenRequests");
    for (index, request) in requests.iter().enumerate() {
        let (path, audience) = (path.child("tokenRequests").index(index), request.text("audience"));
        if requests.iter().take(index).any(|other| other.text("audience") == audience) {
            errors.push(FieldError::duplicate(&path.child("audience"), audience));
            continue;
        }
        rules::token_seconds(&path.child("expirationSeconds"), request.at("expirationSeconds"), errors);
    }
    for mode in spec.items("volumeLifecycleModes") {
        if !["Persistent", "Ephemeral"].iter().any(|known| mode == known) {
            let path = path.child("volumeLifecycleModes");
            errors.push(FieldError::not_supported(&path, mode.clone(), &["Persistent", "Ephemeral"]));
        }
    }
    if !spec.has("seLinuxMount") {
        errors.push(FieldError::required(&path.child("seLinuxMount"), ""));
    }
    let period = "nodeAllocatableUpdatePeriodSeconds";
    if let Some(seconds) = spec.int(period).filter(|seconds| *seconds < 10) {
        let detail = "must be greater than or equal to 10 seconds";
        errors.push(FieldError::invalid(&path.child(period), seconds, detail));
    }
    let key = "serviceAccountTokenInSecrets";
    if spec.has(key) && requests.is_empty() {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        errors.push(FieldError::invalid(&path.child(key), spec.at(key).clone(), detail));
    }
}

pub(super) fn csi_driver_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    for (key, shown) in
        [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
    {
        rules::immutable(&path.child(shown), new.at("spec").at(key), old.at("spec").at(key), errors);
    }
}

pub(super) fn csi_storage_capacity(capacity: &Value, errors: &mut Errors) {
    if capacity.has("nodeTopology") {
        selector::label_selector(&Path::new("nodeTopology"), capacity.at("nodeTopology"), errors);
    }
    rules::subdomain(&Path::new("storageClassName"), capacity.text("storageClassName"), errors);
    if capacity.has("capacity") {
        quantities::amount(&Path::new("capacity"), capacity.at("capacity"), errors);
    }
}

pub(super) fn csi_storage_capacity_update(new: &Value, old: &Value, errors: &mut Errors) {
    for key in ["nodeTopology", "storageClassName"] {
        rules::immutable(&Path::new(key), new.at(key), old.at(key), errors);
    }
}
