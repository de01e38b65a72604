//! The catalog as clients read it.

use super::catalog::{Group, Resource, Version};
use machinery::object::format_api_version;
use serde_json::{Value, json};

/// `/api`.
#[must_use]
pub fn api_versions(groups: &[Group], address: &str) -> Value {
    let versions: Vec<&str> = groups
        .iter()
        .filter(|g| g.name.is_empty())
        .flat_map(|g| g.versions.iter().map(|v| v.name.as_str()))
        .collect();
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`.
#[must_use]
pub fn group_list(groups: &[Group]) -> Value {
    let groups: Vec<Value> = groups.iter().filter(|g| !g.name.is_empty()).map(group_entry).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
#[must_use]
pub fn group(group: &Group) -> Value {
    let mut document = group_entry(group);
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    document
}

fn group_entry(group: &Group) -> Value {
    let version =
        |v: &Version| json!({"groupVersion": format_api_version(&group.name, &v.name), "version": v.name});
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": group.name, "versions": versions, "preferredVersion": preferred})
}

/// `/api/v1`, `/apis/GROUP/VERSION`.
#[must_use]
pub fn resource_list(groups: &[Group], group: &str, version: &str) -> Option<Value> {
    let version = groups.iter().find(|g| g.name == group)?.versions.iter().find(|v| v.name == version)?;
    let mut resources = Vec::new();
    for resource in &version.resources {
        resources.push(resource_entry(resource));
        resources.extend(resource.subresources.iter().map(|s| {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, s.name),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": s.kind,
                "verbs": s.verbs,
            });
            if let Some((group, version)) = &s.group_version {
                entry["group"] = group.clone().into();
                entry["version"] = version.clone().into();
            }
            entry
        }));
    }
    let mut document = json!({
        "kind": "APIResourceList",
        "groupVersion": format_api_version(group, &version.name),
        "resources": resources,
    });
    // The core group's list never said its own version.
    if !group.is_empty() {
        document["apiVersion"] = "v1".into();
    }
    Some(document)
}

fn resource_entry(r: &Resource) -> Value {
    let mut entry = json!({
        "name": r.plural,
        "singularName": r.singular,
        "namespaced": r.namespaced,
        "kind": r.kind,
        "verbs": r.verbs,
    });
    names(&mut entry, r);
    if !r.storage_version_hash.is_empty() {
        entry["storageVersionHash"] = r.storage_version_hash.clone().into();
    }
    entry
}

fn names(entry: &mut Value, r: &Resource) {
    if !r.short_names.is_empty() {
        entry["shortNames"] = json!(r.short_names);
    }
    if !r.categories.is_empty() {
        entry["categories"] = json!(r.categories);
    }
}

/// All groups in one `APIGroupDiscoveryList`.
#[must_use]
pub fn aggregated(groups: &[&Group], beta: bool) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let versions: Vec<Value> = group.versions.iter().map(aggregated_version).collect();
            let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let version = if beta { "v2beta1" } else { "v2" };
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_version(version: &Version) -> Value {
    let resources: Vec<Value> = version.resources.iter().map(aggregated_resource).collect();
    let freshness = if version.stale { "Stale" } else { "Current" };
    json!({"version": version.name, "freshness": freshness, "resources": resources})
}

fn aggregated_resource(r: &Resource) -> Value {
    let mut entry = json!({
        "resource": r.plural,
        // An empty group and version mean the list's own.
        "responseKind": {"group": "", "version": "", "kind": r.kind},
        "scope": if r.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": r.singular,
        "verbs": r.verbs,
    });
    names(&mut entry, r);
    if !r.subresources.is_empty() {
        let subresources: Vec<Value> = r
            .subresources
            .iter()
            .map(|s| {
                let (group, version) = s.group_version.clone().unwrap_or_default();
                json!({
                    "subresource": s.name,
                    "responseKind": {"group": group, "version": version, "kind": s.kind},
                    "verbs": s.verbs,
                })
            })
            .collect();
        entry["subresources"] = subresources.into();
    }
    entry
}
