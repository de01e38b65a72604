//! Persistent volumes and claims on them.

use serde_json::Value;

use super::{Errors, pod, quantities, rules, selector, volume_source};
use crate::{
    field::{FieldError, Path},
    quantity::Quantity,
    resources::access::{Fields, Get, copy, existing, remove, same, set},
};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

fn access_modes(path: &Path, spec: &Value, errors: &mut Errors) {
    let modes: Vec<&str> = spec.items("accessModes").iter().filter_map(Value::as_str).collect();
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(mode)) {
        errors.push(FieldError::not_supported(path, *mode, &ACCESS_MODES));
    }
    let others = modes.iter().any(|mode| *mode != "ReadWriteOncePod" && ACCESS_MODES.contains(mode));
    if others && modes.contains(&"ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(path, detail));
    }
}

fn volume_mode(path: &Path, spec: &Value, errors: &mut Errors) {
    if let Some(mode) = spec.at("volumeMode").as_str().filter(|mode| !VOLUME_MODES.contains(mode)) {
        errors.push(FieldError::not_supported(&path.child("volumeMode"), mode, &VOLUME_MODES));
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

/// Where the bytes are, by key, in upstream's order.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

pub(super) fn persistent_volume(volume: &Value, errors: &mut Errors) {
    volume_spec(&Path::new("spec"), volume.at("spec"), false, errors);
}

/// A volume's spec; an inline one stands in an attachment and says less.
pub(super) fn volume_spec(path: &Path, spec: &Value, inline: bool, errors: &mut Errors) {
    let out_of_place = "may not be specified in the context of inline volumes";
    let capacity = spec.fields("capacity");
    let capacity_empty = capacity.is_none_or(Fields::is_empty);
    if inline {
        if spec.has("claimRef") {
            errors.push(FieldError::forbidden(&path.child("claimRef"), out_of_place));
        }
        if !capacity_empty {
            errors.push(FieldError::forbidden(&path.child("capacity"), out_of_place));
        }
        if !spec.has("csi") {
            let detail = "has to be specified in the context of inline volumes";
            errors.push(FieldError::required(&path.child("csi"), detail));
        }
    }
    if spec.items("accessModes").is_empty() {
        errors.push(FieldError::required(&path.child("accessModes"), ""));
    }
    access_modes(&path.child("accessModes"), spec, errors);
    if !inline {
        self::capacity(&path.child("capacity"), spec, errors);
    }
    reclaim_policy(&path.child("persistentVolumeReclaimPolicy"), spec, inline, errors);
    let affinity_path = path.child("nodeAffinity");
    if spec.has("nodeAffinity") && inline {
        errors.push(FieldError::forbidden(&affinity_path, out_of_place));
    } else if spec.has("nodeAffinity.required") {
        pod::node_selector(&affinity_path.child("required"), spec.at("nodeAffinity.required"), errors);
    } else if spec.has("nodeAffinity") {
        let detail = "must specify required node constraints";
        errors.push(FieldError::required(&affinity_path.child("required"), detail));
    }
    source(path, spec, errors);
    let root = ["/", "//", "/."].contains(&spec.text("hostPath.path"));
    if root && spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden(&path.child("persistentVolumeReclaimPolicy"), detail));
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() && inline {
        errors.push(FieldError::forbidden(&path.child("storageClassName"), out_of_place));
    } else if !class.is_empty() {
        rules::subdomain(&path.child("storageClassName"), class, errors);
    }
    if !inline {
        volume_mode(path, spec, errors);
    } else if !matches!(spec.text("volumeMode"), "" | "Filesystem") {
        let detail = "may not specify volumeMode other than Filesystem in the context of inline volumes";
        errors.push(FieldError::forbidden(&path.child("volumeMode"), detail));
    }
    if let Some(class) = spec.at("volumeAttributesClassName").as_str() {
        let class_path = path.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.push(FieldError::required(&class_path, "an empty string is disallowed"));
        } else {
            rules::subdomain(&class_path, class, errors);
        }
        if !spec.has("csi") {
            let detail = "has to be specified when using volumeAttributesClassName";
            errors.push(FieldError::required(&path.child("csi"), detail));
        }
    }
}

fn capacity(path: &Path, spec: &Value, errors: &mut Errors) {
    let capacity = spec.fields("capacity");
    if capacity.is_none_or(Fields::is_empty) {
        errors.push(FieldError::required(path, ""));
    }
    if capacity.is_none_or(|amounts| amounts.len() != 1 || !amounts.contains_key("storage")) {
        errors.push(FieldError::not_supported(path, spec.at("capacity").clone(), &["storage"]));
    }
    for (name, value) in capacity.into_iter().flatten() {
        let path = path.key(name);
        if let Some(amount) = quantities::parse(value).filter(|amount| amount.sign() < 0) {
            errors.push(FieldError::invalid(&path, amount.value(), "must be a valid resource quantity"));
        }
        quantities::positive(&path, value, errors);
    }
}

fn reclaim_policy(path: &Path, spec: &Value, inline: bool, errors: &mut Errors) {
    let policy = spec.text("persistentVolumeReclaimPolicy");
    if inline {
        if !matches!(policy, "" | "Retain") {
            errors.push(FieldError::forbidden(path, "may only be Retain in the context of inline volumes"));
        }
    } else {
        rules::supported_or_empty(path, policy, &["Delete", "Recycle", "Retain"], errors);
    }
}

fn source(path: &Path, spec: &Value, errors: &mut Errors) {
    let mut sources = SOURCES.iter().filter(|key| spec.has(key));
    let Some(first) = sources.next() else {
        errors.push(FieldError::required(path, "must specify a volume type"));
        return;
    };
    volume_source::persistent(path, first, spec.at(first), errors);
    if *first == "local" && !spec.has("nodeAffinity") {
        let detail = "Local volume requires node affinity";
        errors.push(FieldError::required(&path.child("nodeAffinity"), detail));
    }
    for key in sources {
        errors.push(FieldError::forbidden(&path.child(key), "may not specify more than 1 volume type"));
    }
}

pub(super) fn persistent_volume_update(new: &Value, old: &Value, errors: &mut Errors) {
    let source = |object: &Value| {
        let mut spec = object.at("spec").clone();
        for key in NOT_SOURCES {
            remove(&mut spec, key);
        }
        spec
    };
    let (mut wanted, before) = (source(new), source(old));
    // A secret for growing the volume may be named later.
    if before.has("csi")
        && !before.has("csi.controllerExpandSecretRef")
        && let Some(csi) = existing(&mut wanted, "csi")
    {
        remove(csi, "controllerExpandSecretRef");
    }
    if !same(&wanted, &before) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        let detail = format!("{detail}\n{}", pod::changed(&wanted, &before));
        errors.push(FieldError::forbidden(&Path::from("spec.persistentvolumesource"), detail));
    }
    let (spec, spec_before) = (new.at("spec"), old.at("spec"));
    // Upstream leaves `spec` out of these two paths.
    rules::immutable(&Path::new("volumeMode"), spec.at("volumeMode"), spec_before.at("volumeMode"), errors);
    if old.has("spec.nodeAffinity")
        && !same(&stable_labels(spec.at("nodeAffinity")), &stable_labels(spec_before.at("nodeAffinity")))
    {
        let detail = format!("{}, except for updating from beta label to GA", rules::IMMUTABLE);
        errors.push(FieldError::invalid(&Path::new("nodeAffinity"), spec.at("nodeAffinity").clone(), detail));
    }
    if old.has("spec.volumeAttributesClassName") && !new.has("spec.volumeAttributesClassName") {
        let detail = "update from non-nil value to nil is forbidden";
        errors.push(FieldError::forbidden(&Path::from("spec.volumeAttributesClassName"), detail));
    }
}

/// Node labels that have had another name for long, by their old one.
const RENAMED_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
];

fn stable_labels(affinity: &Value) -> Value {
    let mut affinity = affinity.clone();
    let terms = affinity.pointer_mut("/required/nodeSelectorTerms").and_then(Value::as_array_mut);
    for term in terms.into_iter().flatten() {
        let requirements = term.get_mut("matchExpressions").and_then(Value::as_array_mut);
        for requirement in requirements.into_iter().flatten() {
            let renamed = RENAMED_LABELS.iter().find(|(old, _)| *old == requirement.text("key"));
            if let Some((_, new)) = renamed {
                set(requirement, "key", *new);
            }
        }
    }
    affinity
}

/// What holds for every claim; groups of data sources are not judged where `old` (null for a new claim) names any.
pub(super) fn claim(claim: &Value, old: &Value, errors: &mut Errors) {
    let lenient = old.has("spec.dataSource.apiGroup") || old.has("spec.dataSourceRef.apiGroup");
    claim_spec(&Path::new("spec"), claim.at("spec"), lenient, errors);
}

/// A claim's spec; `lenient` of its data sources' groups.
pub(super) fn claim_spec(path: &Path, spec: &Value, lenient: bool, errors: &mut Errors) {
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
            quantities::positive(&storage, value, errors);
        }
    }
    let class = spec.text("storageClassName");
    if !class.is_empty() {
        rules::subdomain(&path.child("storageClassName"), class, errors);
    }
    volume_mode(path, spec, errors);
    for key in ["dataSource", "dataSourceRef"] {
        if spec.has(key) {
            data_source(&path.child(key), spec.at(key), lenient, errors);
        }
    }
    let (source, reference) = (spec.at("dataSource"), spec.at("dataSourceRef"));
    if !source.is_null() && !reference.is_null() {
        let equal = ["apiGroup", "kind", "name"].iter().all(|key| source.at(key) == reference.at(key));
        let detail = if !reference.text("namespace").is_empty() {
            Some("may not be specified when dataSourceRef.namespace is specified")
        } else if !equal {
            Some("must match dataSourceRef")
        } else {
            None
        };
        if let Some(detail) = detail {
            errors.push(FieldError::invalid(path, path.child("dataSource").as_str(), detail));
        }
    }
    let class = spec.text("volumeAttributesClassName");
    if !class.is_empty() {
        rules::subdomain(&path.child("volumeAttributesClassName"), class, errors);
    }
}

fn data_source(path: &Path, source: &Value, lenient: bool, errors: &mut Errors) {
    rules::required(&path.child("name"), source.text("name"), errors);
    rules::required(&path.child("kind"), source.text("kind"), errors);
    let (group, kind) = (source.text("apiGroup"), source.text("kind"));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(path, kind, detail));
    }
    if !group.is_empty() && !lenient {
        rules::subdomain(&path.child("apiGroup"), group, errors);
    }
    let namespace = source.text("namespace");
    if !namespace.is_empty() {
        rules::label(&path.child("namespace"), namespace, errors);
    }
}

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn claim_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let (spec, before) = (new.at("spec"), old.at("spec"));
    let annotation = |object: &Value| -> Option<String> {
        let value = object.fields("metadata.annotations").and_then(|a| a.get(BETA_CLASS));
        value.and_then(Value::as_str).map(str::to_owned)
    };
    let (annotated, annotated_before) = (annotation(new), annotation(old));
    let mut allowed = spec.clone();
    // Binding sets the volume's name once; a class may be named where none was; a bound claim may grow.
    if before.text("volumeName").is_empty() {
        copy(&mut allowed, before, "volumeName");
    }
    let class = spec.at("storageClassName").as_str();
    let classless = !before.has("storageClassName");
    let from_annotation = classless
        && annotated_before.is_some()
        && class == annotated_before.as_deref()
        && (annotated.is_none() || annotated == annotated_before);
    if !from_annotation && annotated != annotated_before {
        let path = Path::new("metadata").child("annotations").key(BETA_CLASS);
        errors.push(FieldError::invalid(&path, annotated.unwrap_or_default(), rules::IMMUTABLE));
    }
    let from_nothing = classless
        && class.is_some()
        && annotated_before.as_deref().is_none_or(|before| class == Some(before));
    if from_annotation || from_nothing {
        copy(&mut allowed, before, "storageClassName");
    }
    if new.text("status.phase") == "Bound" {
        copy(&mut allowed, before, "volumeAttributesClassName");
        if let Some(requests) = existing(&mut allowed, "resources.requests") {
            copy(requests, before.at("resources.requests"), "storage");
        }
    }
    if !same(&allowed, before) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                      bound claims";
        let detail = format!("{detail}\n{}", pod::changed(&allowed, before));
        errors.push(FieldError::forbidden(&path, detail));
    }
    let size = |spec: &Value| quantities::parse(spec.at("resources.requests.storage"));
    // A request that cannot be met may be taken back, but not below what is there.
    let granted = quantities::parse(old.at("status.capacity.storage")).unwrap_or_else(Quantity::zero);
    if let (Some(size), Some(size_before)) = (size(spec), size(before))
        && size < size_before
        && size <= granted
    {
        let path = path.child("resources").child("requests").child("storage");
        errors.push(FieldError::forbidden(&path, "field can not be less than status.capacity"));
    }
    // Upstream leaves `spec` out of this path.
    rules::immutable(&Path::new("volumeMode"), spec.at("volumeMode"), before.at("volumeMode"), errors);
    if old.has("status.currentVolumeAttributesClassName") {
        let detail = match spec.at("volumeAttributesClassName").as_str() {
            None => "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil",
            Some("") => {
                "update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil"
            }
            Some(_) => return,
        };
        if !same(spec.at("volumeAttributesClassName"), before.at("volumeAttributesClassName")) {
            errors.push(FieldError::forbidden(&path.child("volumeAttributesClassName"), detail));
        }
    }
}

const RESIZE_STATES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizePending",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
];

pub(super) fn claim_status(new: &Value, _old: &Value, errors: &mut Errors) {
    let path = Path::new("status");
    if new.items("spec.accessModes").is_empty() {
        errors.push(FieldError::required(&Path::from("Spec.accessModes"), ""));
    }
    let sane = |path: &Path, value: &Value, errors: &mut Errors| {
        if let Some(amount) = quantities::parse(value).filter(|amount| amount.sign() < 0) {
            errors.push(FieldError::invalid(path, amount.value(), "must be a valid resource quantity"));
        }
    };
    for (name, value) in new.fields("status.capacity").into_iter().flatten() {
        sane(&path.child("capacity").key(name), value, errors);
    }
    let states = path.child("allocatedResourceStatuses");
    for (name, state) in new.fields("status.allocatedResourceStatuses").into_iter().flatten() {
        allocated_name(&states, name, errors);
        if !RESIZE_STATES.iter().any(|known| state == known) {
            errors.push(FieldError::not_supported(&states, name.as_str(), &RESIZE_STATES));
        }
    }
    let allocated = path.child("allocatedResources");
    for (name, value) in new.fields("status.allocatedResources").into_iter().flatten() {
        if allocated_name(&allocated, name, errors) {
            sane(&allocated.key(name), value, errors);
        }
    }
}

/// Of Kubernetes' own resources a claim has storage only.
fn allocated_name(path: &Path, name: &str, errors: &mut Errors) -> bool {
    let before = errors.len();
    rules::qualified(path, name, errors);
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if errors.len() == before && native && name != "storage" {
        errors.push(FieldError::not_supported(path, name, &["storage"]));
    }
    errors.len() == before
}
