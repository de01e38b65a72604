use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::{Value, json};

use super::{Resource, all, by_group_resource, by_gvk, by_gvr, defaults, groups, selectable, strategy};
use crate::schema;

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

/// An object as it is stored after a client created it.
fn stored(resource: &Resource, object: Value) -> Value {
    let mut object = canonical(resource, object);
    defaults::apply(resource, &mut object);
    strategy::prepare_for_create(resource, &mut object);
    object
}

fn canonical(resource: &Resource, object: Value) -> Value {
    let types = schema::builtin();
    let id = types.named(&resource.storage_api_version(), resource.kind).unwrap();
    let normalized = types.normalize(id, object).unwrap();
    assert_eq!(normalized.unknown, Vec::<String>::new(), "{}", resource.qualified_name());
    normalized.value
}

/// What users write, kind by kind.
fn written() -> Vec<Value> {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1",
        "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1000m"}},
        "readinessProbe": {"httpGet": {"port": 80}}, "env": [{"name": "A", "value": ""}]}],
        "volumes": [{"name": "e"}, {"name": "h", "hostPath": {"path": "/h"}}]}});
    let once = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let meta = json!({"name": "x", "namespace": "d", "uid": "u", "creationTimestamp": null});
    let selector = json!({"matchLabels": {"a": "b"}});
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Pod", "spec": template["spec"]}),
        json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "Yg=="}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount"}),
        json!({"apiVersion": "v1", "kind": "Endpoints", "subsets": [{"addresses": [{"ip": "10.0.0.1"}],
            "ports": [{"port": 1}]}]}),
        json!({"apiVersion": "v1", "kind": "LimitRange", "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}),
        json!({"apiVersion": "v1", "kind": "ReplicationController", "spec": {"template": template}}),
        json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": once}}),
        json!({"apiVersion": "batch/v1", "kind": "CronJob", "spec": {"schedule": "*/5 * * * mon-fri",
            "jobTemplate": {"spec": {"template": once}}}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": {"podSelector": {},
            "ingress": [{"ports": [{"port": 80}]}]}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "spec": {"defaultBackend": {"service": {
            "name": "s", "port": {"number": 80}}}}}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "roleRef": {"kind": "Role",
            "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]}),
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "spec": {"minAvailable": 1, "selector": selector}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"leaseDurationSeconds": 40}}),
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": {"maxReplicas": 3,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}}}),
    ];
    for kind in ["Deployment", "ReplicaSet", "DaemonSet", "StatefulSet"] {
        let spec = json!({"selector": selector, "template": template});
        objects.push(json!({"apiVersion": "apps/v1", "kind": kind, "spec": spec}));
    }
    for object in &mut objects {
        object["metadata"] = meta.clone();
    }
    let cluster = json!({"name": "x", "creationTimestamp": null});
    for mut object in [
        json!({"apiVersion": "v1", "kind": "Namespace"}),
        json!({"apiVersion": "v1", "kind": "Node"}),
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "spec": {"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/v"}}}),
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "a.b/c"}),
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": [{"verbs": ["get"],
            "apiGroups": [""], "resources": ["pods"]}]}),
    ] {
        object["metadata"] = cluster.clone();
        objects.push(object);
    }
    objects
}

#[test]
fn what_users_write_is_accepted_and_stored_in_canonical_form() {
    for object in written() {
        let (api, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        let resource = by_gvk(group, version, kind).unwrap();
        let mut stored = stored(resource, object.clone());
        assert_eq!(crate::validation::create(resource, &stored), [], "{kind}");
        assert_eq!(canonical(resource, stored.clone()), stored, "{kind}");
        stored["metadata"]["resourceVersion"] = json!("1");
        let mut again = stored.clone();
        defaults::apply(resource, &mut again);
        strategy::prepare_for_update(resource, &mut again, &stored);
        assert_eq!(again, stored, "{kind}");
        assert_eq!(crate::validation::update(resource, &again, &stored), [], "{kind}");
    }
}
