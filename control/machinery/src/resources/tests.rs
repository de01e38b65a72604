use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::{Value, json};

use super::{all, by_group_resource, by_gvk, by_gvr, groups, selectable};

/// The facts beside the repository, or none: then the test says so and passes.
fn discovery(file: &str) -> Option<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/kubernetes-1.36/discovery")
        .join(file);
    match fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        Err(error) => {
            println!("skipped: {}: {error}", path.display());
            None
        }
    }
}

/// What discovery says of one version, in the form `APIResourceList.resources` has.
fn described(group: &str, version: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for r in all().iter().filter(|r| r.group == group && r.versions.contains(&version)) {
        let mut entry = json!({"name": r.plural, "singularName": r.singular, "namespaced": r.namespaced,
            "kind": r.kind, "verbs": r.verbs});
        if !r.short_names.is_empty() {
            entry["shortNames"] = json!(r.short_names);
        }
        if !r.categories.is_empty() {
            entry["categories"] = json!(r.categories);
        }
        if !r.storage_version_hash().is_empty() {
            entry["storageVersionHash"] = json!(r.storage_version_hash());
        }
        found.insert(r.plural.to_owned(), entry);
        for sub in &r.subresources {
            let mut entry = json!({"name": format!("{}/{}", r.plural, sub.name), "singularName": "",
                "namespaced": r.namespaced, "kind": sub.kind, "verbs": sub.verbs});
            if let Some((group, version)) = sub.group_version {
                entry["group"] = json!(group);
                entry["version"] = json!(version);
            }
            found.insert(format!("{}/{}", r.plural, sub.name), entry);
        }
    }
    found
}

#[test]
fn every_served_version_equals_a_complete_servers_discovery() {
    for group in groups() {
        for version in &group.versions {
            let file = if group.name.is_empty() {
                format!("api__{version}.json")
            } else {
                format!("apis__{}__{version}.json", group.name)
            };
            let Some(expected) = discovery(&file) else { return };
            let expected: BTreeMap<String, Value> = expected["resources"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| (r["name"].as_str().unwrap().to_owned(), r.clone()))
                .collect();
            assert_eq!(described(group.name, version), expected, "{file}");
        }
    }
}

#[test]
fn groups_come_in_discoverys_order_with_its_preferred_versions() {
    let Some(expected) = discovery("apis.json") else { return };
    // Alpha versions and resource.k8s.io/v1beta1 (another shape) are not served.
    let served = |group: &str, version: &str| {
        !version.contains("alpha") && (group, version) != ("resource.k8s.io", "v1beta1")
    };
    let expected: Vec<(String, Vec<String>)> = expected["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| {
            let name = g["name"].as_str().unwrap().to_owned();
            let versions = g["versions"].as_array().unwrap().iter();
            let versions = versions.map(|v| v["version"].as_str().unwrap().to_owned());
            let versions = versions.filter(|v| served(&name, v)).collect();
            (name, versions)
        })
        .filter(|(_, versions): &(String, Vec<String>)| !versions.is_empty())
        .collect();
    let ours: Vec<(String, Vec<String>)> = groups()
        .iter()
        .skip(1)
        .map(|g| (g.name.to_owned(), g.versions.iter().map(|v| (*v).to_owned()).collect()))
        .collect();
    assert_eq!(ours, expected);
    assert_eq!(groups()[0].name, "");
}

#[test]
fn keys_are_laid_out_as_upstream_lays_out_etcd() {
    let key = |group, plural, name| by_group_resource(group, plural).unwrap().key("ns", name);
    assert_eq!(key("", "pods", "a"), "/registry/pods/ns/a");
    assert_eq!(key("", "services", "a"), "/registry/services/specs/ns/a");
    assert_eq!(key("", "endpoints", "a"), "/registry/services/endpoints/ns/a");
    assert_eq!(key("", "nodes", "a"), "/registry/minions/a");
    assert_eq!(key("", "replicationcontrollers", "a"), "/registry/controllers/ns/a");
    assert_eq!(key("apps", "deployments", "a"), "/registry/deployments/ns/a");
    assert_eq!(key("networking.k8s.io", "ingresses", "a"), "/registry/ingress/ns/a");
    assert_eq!(key("events.k8s.io", "events", "a"), "/registry/events/ns/a");
    assert_eq!(
        key("apiextensions.k8s.io", "customresourcedefinitions", "a"),
        "/registry/apiextensions.k8s.io/customresourcedefinitions/a"
    );
    let pods = by_group_resource("", "pods").unwrap();
    assert_eq!(pods.list_key(Some("ns")), "/registry/pods/ns/");
    assert_eq!(pods.list_key(None), "/registry/pods/");
}

#[test]
fn resources_are_found_by_name_and_by_kind() {
    assert_eq!(by_gvr("apps", "v1", "deployments").unwrap().kind, "Deployment");
    assert_eq!(by_gvk("batch", "v1", "CronJob").unwrap().plural, "cronjobs");
    assert!(by_gvr("apps", "v1beta1", "deployments").is_none());
    let autoscalers = by_gvr("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
    assert_eq!(autoscalers.versions, ["v2", "v1"]);
    assert_eq!(autoscalers.storage_api_version(), "autoscaling/v2");
    assert_eq!(by_group_resource("apps", "deployments").unwrap().qualified_name(), "deployments.apps");
}

#[test]
fn a_selector_compares_text_whatever_the_field() {
    let pods = by_group_resource("", "pods").unwrap();
    let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"nodeName": "n"},
        "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}});
    let value = |field| selectable::value(pods, &pod, field);
    assert_eq!(value("spec.nodeName").as_deref(), Some("n"));
    assert_eq!(value("spec.hostNetwork").as_deref(), Some("false"));
    assert_eq!(value("status.podIPs").as_deref(), Some("10.0.0.1,fd00::1"));
    assert_eq!(value("status.phase").as_deref(), Some(""));
    assert_eq!(value("spec.image"), None);

    let events = by_group_resource("events.k8s.io", "events").unwrap();
    let event = json!({"involvedObject": {"kind": "Pod"}, "reportingComponent": "c"});
    assert_eq!(selectable::value(events, &event, "regarding.kind").as_deref(), Some("Pod"));
    assert_eq!(selectable::value(events, &event, "reportingController").as_deref(), Some("c"));
    let nodes = by_group_resource("", "nodes").unwrap();
    assert_eq!(selectable::value(nodes, &json!({}), "spec.unschedulable").as_deref(), Some("false"));
}
