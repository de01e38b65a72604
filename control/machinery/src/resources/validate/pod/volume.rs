//! Volumes of a pod.

use std::collections::{BTreeMap, BTreeSet};

use super::env::{VOLUME_FIELDS, field_ref, resource_field_ref};
use crate::resources::validate::{claim, cursor::Cursor, meta, volume_source};

/// Checks volumes, and gives those with a name of their own by it.
pub(super) fn volumes(volumes: Cursor<'_>) -> BTreeMap<&str, Cursor<'_>> {
    let mut found = BTreeMap::new();
    for volume in volumes.items() {
        let (before, name) = (volume.errors(), volume.field("name"));
        source(volume);
        if name.required() && name.label() && found.contains_key(name.str()) {
            name.duplicate();
        }
        if volume.errors() == before {
            found.insert(name.str(), volume);
        }
    }
    found
}

/// The fields that are set, by name.
fn set_fields(holder: Cursor<'_>) -> impl Iterator<Item = (&str, Cursor<'_>)> {
    let keys = holder.value.as_object().into_iter().flat_map(serde_json::Map::keys);
    keys.map(move |key| (key.as_str(), holder.field(key))).filter(|(_, field)| field.is_set())
}

fn source(volume: Cursor<'_>) {
    let mut sources = set_fields(volume).filter(|(kind, _)| *kind != "name");
    let Some((kind, source)) = sources.next() else { return volume.missing("must specify a volume type") };
    match kind {
        "emptyDir" => {
            let limit = source.field("sizeLimit");
            if limit.quantity().is_some_and(|limit| limit.sign() < 0) {
                limit.forbidden("SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" => volume_source::host_path(source),
        "secret" => {
            source.field("secretName").required();
            mode(source.field("defaultMode"));
            items(source);
        }
        "configMap" => {
            source.field("name").required();
            mode(source.field("defaultMode"));
            items(source);
        }
        "persistentVolumeClaim" => {
            source.field("claimName").required();
        }
        "downwardAPI" => {
            mode(source.field("defaultMode"));
            downward_files(source);
        }
        "projected" => projected(source),
        "csi" => {
            source.field("driver").driver_name();
            if let Some(secret) = source.field("nodePublishSecretRef").if_set()
                && secret.field("name").required()
            {
                // Upstream leaves the reference out of this path.
                secret.field("name").reported_at(source.field("name")).subdomain();
            }
        }
        "image" => source.plain(&["reference", "pullPolicy"]),
        "ephemeral" => claim_template(source.field("volumeClaimTemplate")),
        _ => volume_source::in_pod(kind, source),
    }
    sources.for_each(|(_, source)| source.forbidden("may not specify more than 1 volume type"));
}

/// The claim a pod brings along: labels and annotations, and what it wants.
fn claim_template(template: Cursor<'_>) {
    if !template.is_set() {
        return template.missing("");
    }
    let metadata = template.field("metadata");
    meta::annotations(metadata.field("annotations"));
    metadata.field("labels").labels();
    for (key, field) in set_fields(metadata) {
        if !["annotations", "labels", "creationTimestamp"].contains(&key) {
            field.forbidden("cannot be set");
        }
    }
    claim::of_template(template.field("spec"));
}

fn mode(mode: Cursor<'_>) {
    if mode.number().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        mode.invalid("must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn items(source: Cursor<'_>) {
    for item in source.each("items") {
        item.field("key").required();
        file_path(item.field("path"));
        mode(item.field("mode"));
    }
}

/// Where a file goes inside its volume; names starting with two dots are the writer's own.
fn file_path(path: Cursor<'_>) {
    if path.required() {
        path.descending();
        if path.str().starts_with("..") && !path.str().starts_with("../") {
            path.invalid("must not start with '..'");
        }
    }
}

/// Upstream leaves the items and their indexes out of these paths.
fn downward_files(source: Cursor<'_>) {
    for item in source.each("items").map(|item| item.reported_at(source)) {
        file_path(item.field("path"));
        let (field, resource) = (item.field("fieldRef"), item.field("resourceFieldRef"));
        match (field.is_set(), resource.is_set()) {
            (true, both) => {
                field_ref(field, VOLUME_FIELDS);
                if both {
                    let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                    item.invalid_value("resource", detail);
                }
            }
            (false, true) => resource_field_ref(resource, true),
            (false, false) => item.missing("one of fieldRef and resourceFieldRef is required"),
        }
        mode(item.field("mode"));
    }
}

fn projected(volume: Cursor<'_>) {
    mode(volume.field("defaultMode"));
    let mut paths = BTreeSet::new();
    for item in volume.each("sources") {
        let mut sources = set_fields(item);
        let Some((kind, source)) = sources.next() else {
            item.missing("must specify a volume type");
            continue;
        };
        match kind {
            "secret" | "configMap" => {
                source.field("name").required();
                items(source);
            }
            "downwardAPI" => downward_files(source),
            "serviceAccountToken" => {
                source.field("expirationSeconds").token_seconds();
                file_path(source.field("path"));
            }
            _ => {}
        }
        let listed = source.list("items").iter().filter_map(|item| item.get("path")?.as_str());
        for file in source.at("path").as_str().into_iter().chain(listed).filter(|file| !file.is_empty()) {
            if !paths.insert(file) {
                source.field("path").invalid_value(file, "conflicting duplicate paths");
            }
        }
        sources
            .for_each(|(_, source)| source.forbidden("may not specify more than 1 volume type per source"));
    }
}
