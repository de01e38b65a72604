//! Volumes of a pod.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::env::{VOLUME_FIELDS, field_ref, resource_field_ref};
use crate::{
    access::Get as _,
    goformat::go_quote,
    names,
    resources::validate::{claim, cursor::Cursor, meta, volume_source},
};

/// Checks volumes of the pod of this name (none where it has none), and gives those with a name of their own by it.
pub(super) fn volumes<'v>(volumes: Cursor<'v>, pod: &str) -> BTreeMap<&'v str, Cursor<'v>> {
    let claim = |volume: &Cursor<'_>| format!("{pod}-{}", volume.text("name"));
    let own = volumes.items().filter(|volume| volume.has("ephemeral") && !pod.is_empty());
    let created: BTreeSet<String> = own.map(|volume| claim(&volume)).collect();
    // What an older server let through may still be changed.
    let tokens = Tokens { odd: volumes.old.items("").iter().any(has_odd_token) };
    let mut found = BTreeMap::new();
    for volume in volumes.items() {
        let (before, name) = (volume.errors(), volume.field("name"));
        source(volume, tokens);
        if volume.has("ephemeral") && !pod.is_empty() && !name.is_empty() {
            let claim = claim(&volume);
            for message in names::dns1123_subdomain(&claim) {
                name.invalid(format!("PVC name {}: {message}", go_quote(&claim)));
            }
        }
        if name.required() && name.label() && found.contains_key(name.str()) {
            name.duplicate();
        }
        if volume.errors() == before {
            found.insert(name.str(), volume);
        }
        let taken = volume.field("persistentVolumeClaim.claimName");
        if created.contains(taken.str()) {
            taken.invalid("must not reference a PVC that gets created for an ephemeral volume");
        }
    }
    found
}

/// What is let through of the paths of tokens.
#[derive(Clone, Copy)]
struct Tokens {
    /// Even one that leaves its volume.
    odd: bool,
}

fn has_odd_token(volume: &Value) -> bool {
    volume.items("projected.sources").iter().any(|source| {
        let path = source.text("serviceAccountToken.path");
        path.starts_with('/') || path.starts_with("..") || path.split('/').any(|part| part == "..")
    })
}

/// The fields that are set, by name.
fn set_fields(holder: Cursor<'_>) -> impl Iterator<Item = (&str, Cursor<'_>)> {
    let keys = holder.value.as_object().into_iter().flat_map(serde_json::Map::keys);
    keys.map(move |key| (key.as_str(), holder.field(key))).filter(|(_, field)| field.is_set())
}

fn source(volume: Cursor<'_>, tokens: Tokens) {
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
        "projected" => projected(source, tokens),
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
    source.each("items").for_each(file_of_key);
}

fn file_of_key(item: Cursor<'_>) {
    item.field("key").required();
    file_path(item.field("path"));
    mode(item.field("mode"));
}

/// Where a file goes inside its volume; names starting with two dots are the writer's own.
fn file_path(path: Cursor<'_>) {
    if path.required() {
        stays_inside(path);
    }
}

fn stays_inside(path: Cursor<'_>) {
    path.descending();
    if path.str().starts_with("..") && !path.str().starts_with("../") {
        path.invalid("must not start with '..'");
    }
}

/// Upstream leaves the items and their indexes out of these paths.
fn downward_files(source: Cursor<'_>) {
    source.each("items").map(|item| item.reported_at(source)).for_each(downward_file);
}

fn downward_file(item: Cursor<'_>) {
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

/// The files of several sources in one volume. A source of a kind that is off is empty, and so is none.
fn projected(volume: Cursor<'_>, tokens: Tokens) {
    mode(volume.field("defaultMode"));
    let mut paths = BTreeSet::new();
    let conflict = |at: Cursor<'_>, shown: &str| at.invalid_value(shown, "conflicting duplicate paths");
    for item in volume.each("sources") {
        for source in ["secret", "configMap"].into_iter().filter_map(|kind| item.field(kind).if_set()) {
            source.field("name").required();
            for file in source.each("items") {
                file_of_key(file);
                let path = file.text("path");
                if !path.is_empty() && !paths.insert(path) {
                    conflict(volume, source.text("name"));
                }
            }
        }
        if let Some(source) = item.field("downwardAPI").if_set() {
            for file in source.each("items") {
                downward_file(file.reported_at(source));
                let path = file.text("path");
                if !path.is_empty() && !paths.insert(path) {
                    conflict(volume, path);
                }
            }
        }
        if let Some(token) = item.field("serviceAccountToken").if_set() {
            token.field("expirationSeconds").token_seconds();
            // Upstream names the volume's path.
            let path = token.field("path").reported_at(volume.field("path"));
            if path.required() && !tokens.odd {
                stays_inside(path);
            }
        }
        let bundles = ["clusterTrustBundle.path"];
        let certificates = ["credentialBundlePath", "keyPath", "certificateChainPath"]
            .map(|key| item.field("podCertificate").text(key));
        let files = bundles.into_iter().map(|path| item.text(path)).chain(certificates);
        for path in files.filter(|path| !path.is_empty()) {
            if !paths.insert(path) {
                conflict(volume, path);
            }
        }
        if set_fields(item).count() > 1 {
            item.forbidden("may not specify more than 1 volume type per source");
        }
    }
}
