//! Provisioning of storage: classes, drivers, attachments.

use std::collections::BTreeSet;

use super::{checks::IMMUTABLE, cursor::Cursor, storage};
use crate::{
    access::{Get as _, remove, same},
    names,
};

/// Most parameters of a class, and most bytes of all of them together.
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_SIZE_MAX: usize = 256 * 1024;

/// A qualified name in any case.
fn provisioner(name: Cursor<'_>) {
    if name.required() {
        name.format_of(&name.str().to_lowercase(), names::qualified_name);
    }
}

/// Bytes of a map's keys and values.
fn size(map: Cursor<'_>) -> usize {
    map.entries().map(|(key, value)| key.len() + value.str().len()).sum()
}

fn parameters(parameters: Cursor<'_>, may_be_empty: bool) {
    if parameters.entries().count() > PARAMETERS_MAX {
        return parameters.too_long(PARAMETERS_MAX);
    }
    if parameters.entries().any(|(key, _)| key.is_empty()) {
        parameters.invalid_value("", "field can not be empty.");
    }
    if size(parameters) > PARAMETERS_SIZE_MAX {
        parameters.too_long(PARAMETERS_SIZE_MAX);
    }
    if !may_be_empty {
        parameters.required_with("must contain at least one key/value pair");
    }
}

pub(super) fn storage_class(class: Cursor<'_>) {
    provisioner(class.field("provisioner"));
    parameters(class.field("parameters"), true);
    let policy = class.field("reclaimPolicy");
    if !policy.is_empty() {
        policy.one_of(&["Delete", "Retain"]);
    }
    class.field("volumeBindingMode").required_plain();
    let terms = class.field("allowedTopologies");
    for (index, term) in terms.items().enumerate() {
        let requirements = term.field("matchLabelExpressions");
        topology_term(requirements);
        if terms.values().iter().take(index).any(|other| same(other, term.value)) {
            requirements.duplicate_value("", "");
        }
    }
}

fn topology_term(requirements: Cursor<'_>) {
    let mut keys = BTreeSet::new();
    for requirement in requirements.items() {
        let values = requirement.field("values");
        values.required();
        let mut seen = BTreeSet::new();
        values.items().filter(|value| !seen.insert(value.str())).for_each(Cursor::duplicate);
        let key = requirement.field("key");
        key.qualified();
        if !keys.insert(key.str()) {
            key.duplicate();
        }
    }
}

pub(super) fn volume_attributes_class(class: Cursor<'_>) {
    provisioner(class.field("driverName"));
    parameters(class.field("parameters"), false);
}

pub(super) fn volume_attributes_class_update(class: Cursor<'_>) {
    for key in ["driverName", "parameters"] {
        if class.field(key).changed() {
            class.field(key).forbidden(format!("updates to {key} are forbidden."));
        }
    }
}

/// Bytes of what a driver says of an attachment, and of an error.
const METADATA_MAX: usize = 256 * 1024;
const MESSAGE_MAX: usize = 1024;

pub(super) fn volume_attachment(attachment: Cursor<'_>) {
    let spec = attachment.field("spec");
    spec.field("attacher").driver_name();
    let source = spec.field("source");
    let (inline, name) = (source.field("inlineVolumeSpec"), source.field("persistentVolumeName"));
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (inline.is_set(), name.value.as_str()) {
        (false, None) => source.missing(one),
        (true, Some(_)) => source.forbidden(one),
        (false, Some("")) => name.missing("must specify non empty persistentVolumeName"),
        (false, Some(_)) => {}
        (true, None) => storage::volume_spec(inline, true),
    }
    spec.field("nodeName").subdomain();
    volume_attachment_status(attachment);
    name.optional_format(names::dns1123_subdomain);
}

pub(super) fn volume_attachment_status(attachment: Cursor<'_>) {
    let status = attachment.field("status");
    let metadata = status.field("attachmentMetadata");
    if size(metadata) > METADATA_MAX {
        metadata.too_long(METADATA_MAX);
    }
    for error in ["attachError", "detachError"].map(|key| status.field(key)) {
        if error.text("message").len() > MESSAGE_MAX {
            // Upstream names the wrong bound here.
            error.field("message").too_long(METADATA_MAX);
        }
        error.plain(&["errorCode"]);
    }
}

/// How long a driver's name for a node may be.
const NODE_ID_MAX: usize = 256;

pub(super) fn csi_node(node: Cursor<'_>) {
    let mut names = BTreeSet::new();
    for driver in node.each("spec.drivers") {
        let (name, id) = (driver.field("name"), driver.field("nodeID"));
        name.driver_name();
        id.required();
        if id.str().len() > NODE_ID_MAX {
            id.invalid(format!("must be {NODE_ID_MAX} characters or less"));
        }
        driver.field("allocatable.count").not_negative();
        if !names.insert(name.str()) {
            name.duplicate();
        }
        // Upstream leaves the keys' own place out of these paths.
        let mut seen = BTreeSet::new();
        for key in driver.each("topologyKeys").map(|key| key.reported_at(driver)) {
            key.required();
            if !seen.insert(key.str()) {
                key.duplicate();
            }
            key.qualified();
        }
    }
}

/// What a driver said of a node stays, but for how many volumes fit.
pub(super) fn csi_node_update(node: Cursor<'_>) {
    let drivers = node.field("spec.drivers");
    let fixed = |driver: &serde_json::Value| {
        let mut driver = driver.clone();
        remove(&mut driver, "allocatable");
        driver
    };
    for before in drivers.old.items("") {
        for driver in drivers.values().iter().filter(|d| d.text("name") == before.text("name")) {
            let driver = fixed(driver);
            if !same(&driver, &fixed(before)) {
                drivers.invalid_value(driver, IMMUTABLE);
            }
        }
    }
}

/// Upstream's paths do not all follow the fields' names.
const ATTACH_REQUIRED: &str = "attachedRequired";

pub(super) fn csi_driver(driver: Cursor<'_>) {
    let spec = driver.field("spec");
    let attach = spec.field("attachRequired").named(ATTACH_REQUIRED);
    for field in [attach, spec.field("podInfoOnMount"), spec.field("storageCapacity")] {
        field.required();
    }
    spec.plain(&["fsGroupPolicy"]);
    let mut audiences = BTreeSet::new();
    for request in spec.each("tokenRequests") {
        let audience = request.field("audience");
        if audiences.insert(audience.str()) {
            request.field("expirationSeconds").token_seconds();
        } else {
            audience.duplicate();
        }
    }
    let modes = spec.field("volumeLifecycleModes");
    for mode in modes.items() {
        mode.reported_at(modes).enumerated();
    }
    spec.field("seLinuxMount").required();
    let period = spec.field("nodeAllocatableUpdatePeriodSeconds");
    if period.number().is_some_and(|seconds| seconds < 10) {
        period.invalid("must be greater than or equal to 10 seconds");
    }
    let in_secrets = spec.field("serviceAccountTokenInSecrets");
    if in_secrets.is_set() && spec.list("tokenRequests").is_empty() {
        in_secrets.invalid("serviceAccountTokenInSecrets is set but no tokenRequests are specified");
    }
}

pub(super) fn csi_driver_update(driver: Cursor<'_>) {
    let spec = driver.field("spec");
    spec.field("attachRequired").named(ATTACH_REQUIRED).immutable();
    spec.field("volumeLifecycleModes").immutable();
}

pub(super) fn csi_storage_capacity(capacity: Cursor<'_>) {
    if let Some(topology) = capacity.field("nodeTopology").if_set() {
        topology.label_selector();
    }
    capacity.field("storageClassName").subdomain();
    if let Some(amount) = capacity.field("capacity").if_set() {
        amount.amount();
    }
}
