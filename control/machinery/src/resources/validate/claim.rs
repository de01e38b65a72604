//! Claims on persistent volumes.

use super::{checks::IMMUTABLE, cursor::Cursor, difference::changed};
use crate::{
    access::{Get as _, copy, existing, same},
    names,
    quantity::Quantity,
};

/// What holds for every claim; groups of data sources are not judged where it named any before.
pub(super) fn claim(claim: Cursor<'_>) {
    let spec = claim.field("spec");
    self::spec(spec, names_a_group(spec.old));
}

/// The spec of a claim made from a template, whose data sources' groups are not judged.
pub(super) fn of_template(spec: Cursor<'_>) {
    self::spec(spec, names_a_group(spec.value));
}

fn names_a_group(spec: &serde_json::Value) -> bool {
    spec.has("dataSource.apiGroup") || spec.has("dataSourceRef.apiGroup")
}

fn spec(spec: Cursor<'_>, lenient: bool) {
    let modes = spec.field("accessModes");
    modes.required_with("at least 1 access mode is required");
    if let Some(selector) = spec.field("selector").if_set() {
        selector.label_selector();
    }
    modes.access_modes();
    let storage = spec.field("resources.requests.storage").named("resources[storage]");
    if storage.is_set() {
        storage.positive();
    } else {
        storage.missing("");
    }
    let class = spec.field("storageClassName");
    if !class.is_empty() {
        class.subdomain();
    }
    spec.plain(&["volumeMode"]);
    let (source, reference) = (spec.field("dataSource"), spec.field("dataSourceRef"));
    for source in [source, reference].into_iter().filter_map(Cursor::if_set) {
        data_source(source, lenient);
    }
    if source.is_set() && reference.is_set() {
        let equal = ["apiGroup", "kind", "name"].iter().all(|key| source.at(key) == reference.at(key));
        let detail = if !reference.text("namespace").is_empty() {
            "may not be specified when dataSourceRef.namespace is specified"
        } else if !equal {
            "must match dataSourceRef"
        } else {
            ""
        };
        if !detail.is_empty() {
            spec.invalid_value(source.path().as_str(), detail);
        }
    }
    let class = spec.field("volumeAttributesClassName");
    if !class.is_empty() {
        class.subdomain();
    }
}

fn data_source(source: Cursor<'_>, lenient: bool) {
    source.field("name").required();
    source.field("kind").required();
    let (group, kind) = (source.field("apiGroup"), source.text("kind"));
    if group.is_empty() && kind != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        source.invalid_value(kind, detail);
    }
    if !group.is_empty() && !lenient {
        group.subdomain();
    }
    let namespace = source.field("namespace");
    if !namespace.is_empty() {
        namespace.label();
    }
}

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn update(claim: Cursor<'_>) {
    let spec = claim.field("spec");
    let before = spec.old;
    let annotation = claim.field("metadata.annotations").key(BETA_CLASS);
    let (annotated, annotated_before) = (annotation.value.as_str(), annotation.old.as_str());
    let mut allowed = spec.value.clone();
    // Binding sets the volume's name once; a class may be named where none was; a bound claim may grow.
    if before.text("volumeName").is_empty() {
        copy(&mut allowed, before, "volumeName");
    }
    let class = spec.at("storageClassName").as_str();
    let classless = !before.has("storageClassName");
    let from_annotation = classless
        && annotated_before.is_some()
        && class == annotated_before
        && (annotated.is_none() || annotated == annotated_before);
    if !from_annotation && annotated != annotated_before {
        annotation.invalid_value(annotated.unwrap_or_default(), IMMUTABLE);
    }
    let from_nothing =
        classless && class.is_some() && annotated_before.is_none_or(|before| class == Some(before));
    if from_annotation || from_nothing {
        copy(&mut allowed, before, "storageClassName");
    }
    if claim.text("status.phase") == "Bound" {
        copy(&mut allowed, before, "volumeAttributesClassName");
        if let Some(requests) = existing(&mut allowed, "resources.requests") {
            copy(requests, before.at("resources.requests"), "storage");
        }
    }
    if !same(&allowed, before) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                      bound claims";
        spec.forbidden(format!("{detail}\n{}", changed(&allowed, before)));
    }
    let size = spec.field("resources.requests.storage");
    let parse = super::quantities::parse;
    // A request that cannot be met may be taken back, but not below what is there.
    let granted = parse(claim.old.at("status.capacity.storage")).unwrap_or_else(Quantity::zero);
    if let (Some(now), Some(before)) = (parse(size.value), parse(size.old))
        && now < before
        && now <= granted
    {
        size.forbidden("field can not be less than status.capacity");
    }
    // Upstream leaves `spec` out of this path.
    claim.field("spec.volumeMode").named("volumeMode").immutable();
    let attributes = spec.field("volumeAttributesClassName");
    if claim.old.has("status.currentVolumeAttributesClassName")
        && attributes.changed()
        && attributes.is_empty()
    {
        let what = if attributes.is_set() { "empty string" } else { "nil" };
        attributes.forbidden(format!(
            "update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil"
        ));
    }
}

pub(super) fn status(claim: Cursor<'_>) {
    let status = claim.field("status");
    claim.field("spec.accessModes").named("Spec.accessModes").required();
    status.field("capacity").entries().for_each(|(_, amount)| amount.sane_quantity());
    let states = status.field("allocatedResourceStatuses");
    for (name, state) in states.entries() {
        allocated_name(states, name);
        if !state.is_enumerated() {
            states.unsupported_value(name, &state.enumeration());
        }
    }
    let allocated = status.field("allocatedResources");
    for (name, amount) in allocated.entries() {
        if allocated_name(allocated, name) {
            amount.sane_quantity();
        }
    }
}

/// Of Kubernetes' own resources a claim has storage only.
fn allocated_name(map: Cursor<'_>, name: &str) -> bool {
    let qualified = map.format_of(name, names::qualified_name);
    let foreign = name == "storage" || (name.contains('/') && !name.contains("kubernetes.io/"));
    if qualified && !foreign {
        map.unsupported_value(name, &["storage"]);
    }
    qualified && foreign
}
