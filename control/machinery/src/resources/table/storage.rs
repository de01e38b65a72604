//! Volumes, claims and classes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    age::age,
    format::{name, or, scalar},
};
use crate::access::Get;

/// The order access modes are listed in, each once.
const MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];

fn access_modes(modes: &[Value]) -> String {
    let short = MODES.iter().filter(|(mode, _)| modes.iter().any(|m| m == mode)).map(|(_, short)| *short);
    short.collect::<Vec<_>>().join(",")
}

/// An object being deleted is on its way out, whatever its phase.
fn phase(object: &Value) -> &str {
    if object.has("metadata.deletionTimestamp") { "Terminating" } else { object.text("status.phase") }
}

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// The class, which very old objects have in an annotation.
fn class(object: &Value) -> &str {
    let annotation = object.fields("metadata.annotations").and_then(|all| all.get(CLASS_ANNOTATION));
    annotation.and_then(Value::as_str).unwrap_or(object.text("spec.storageClassName"))
}

pub(super) fn persistent_volume(volume: &Value, now: Timestamp) -> Vec<Value> {
    let claim = volume.at("spec.claimRef");
    let claim = if claim.is_object() {
        format!("{}/{}", claim.text("namespace"), claim.text("name"))
    } else {
        String::new()
    };
    vec![
        name(volume),
        json!(scalar(volume.at("spec.capacity.storage"), "0")),
        json!(access_modes(volume.items("spec.accessModes"))),
        json!(volume.text("spec.persistentVolumeReclaimPolicy")),
        json!(phase(volume)),
        json!(claim),
        json!(class(volume)),
        json!(or(volume.text("spec.volumeAttributesClassName"), "<unset>")),
        json!(volume.text("status.reason")),
        age(volume, now),
        json!(or(volume.text("spec.volumeMode"), "<unset>")),
    ]
}

pub(super) fn claim(claim: &Value, now: Timestamp) -> Vec<Value> {
    let bound = claim.text("spec.volumeName");
    let (capacity, modes) = if bound.is_empty() {
        (String::new(), String::new())
    } else {
        (scalar(claim.at("status.capacity.storage"), "0"), access_modes(claim.items("status.accessModes")))
    };
    vec![
        name(claim),
        json!(phase(claim)),
        json!(bound),
        json!(capacity),
        json!(modes),
        json!(class(claim)),
        json!(or(claim.text("spec.volumeAttributesClassName"), "<unset>")),
        age(claim, now),
        json!(or(claim.text("spec.volumeMode"), "<unset>")),
    ]
}

const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

pub(super) fn storage_class(class: &Value, now: Timestamp) -> Vec<Value> {
    let annotations = class.fields("metadata.annotations");
    let chosen = DEFAULT_CLASS
        .iter()
        .any(|key| annotations.and_then(|all| all.get(*key)).and_then(Value::as_str) == Some("true"));
    let own = class.text("metadata.name");
    vec![
        json!(if chosen { format!("{own} (default)") } else { own.to_owned() }),
        json!(class.text("provisioner")),
        json!(or(class.text("reclaimPolicy"), "Delete")),
        json!(or(class.text("volumeBindingMode"), "Immediate")),
        json!(class.flag("allowVolumeExpansion")),
        age(class, now),
    ]
}

pub(super) fn attributes_class(class: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(class), json!(class.text("driverName")), age(class, now)]
}

pub(super) fn volume_attachment(attachment: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(attachment),
        json!(attachment.text("spec.attacher")),
        json!(attachment.text("spec.source.persistentVolumeName")),
        json!(attachment.text("spec.nodeName")),
        json!(attachment.flag("status.attached")),
        age(attachment, now),
    ]
}

pub(super) fn csi_driver(driver: &Value, now: Timestamp) -> Vec<Value> {
    let spec = driver.at("spec");
    let joined = |list: &[Value], text: &dyn Fn(&Value) -> String| {
        or(&list.iter().map(text).collect::<Vec<_>>().join(","), "<none>").to_owned()
    };
    let audiences = joined(spec.items("tokenRequests"), &|request| request.text("audience").to_owned());
    let audiences = if spec.items("tokenRequests").is_empty() { "<unset>".to_owned() } else { audiences };
    vec![
        name(driver),
        // Unset means attach.
        json!(spec.at("attachRequired").as_bool().unwrap_or(true)),
        json!(spec.flag("podInfoOnMount")),
        json!(spec.flag("storageCapacity")),
        json!(audiences),
        json!(spec.flag("requiresRepublish")),
        json!(joined(spec.items("volumeLifecycleModes"), &|mode| scalar(mode, ""))),
        age(driver, now),
    ]
}

pub(super) fn csi_node(node: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(node), json!(node.items("spec.drivers").len()), age(node, now)]
}

pub(super) fn csi_capacity(capacity: &Value, _: Timestamp) -> Vec<Value> {
    vec![
        name(capacity),
        json!(capacity.text("storageClassName")),
        json!(scalar(capacity.at("capacity"), "<unset>")),
    ]
}
