use std::fs;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{apply, image::has_latest_tag, read_back, share};
use crate::resources::{all, by_group_resource};

fn defaulted(group: &str, plural: &str, mut object: Value) -> Value {
    apply(by_group_resource(group, plural).unwrap(), &mut object);
    object
}

#[test]
fn a_pod_is_filled_in_as_upstream_fills_it_in() {
    let pod = defaulted(
        "",
        "pods",
        json!({"spec": {
            "hostNetwork": true,
            "containers": [{
                "name": "c", "image": "nginx",
                "ports": [{"containerPort": 80}],
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "livenessProbe": {"httpGet": {"port": 80}},
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}],
            "volumes": [
                {"name": "none"},
                {"name": "s", "secret": {"secretName": "s"}},
                {"name": "h", "hostPath": {"path": "/"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}},
                    {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}],
        }}),
    );
    assert_eq!(
        pod,
        json!({"spec": {
            "hostNetwork": true, "enableServiceLinks": true, "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30, "securityContext": {},
            "containers": [{
                "name": "c", "image": "nginx", "imagePullPolicy": "Always",
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
                "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                    "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}}],
            "volumes": [
                {"name": "none", "emptyDir": {}},
                {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}},
                {"name": "h", "hostPath": {"path": "/", "type": ""}},
                {"name": "p", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}},
                    {"downwardAPI": {"items": [
                        {"path": "n", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}]}}]}}],
        }})
    );
}

#[test]
fn a_template_is_given_no_pod_only_defaults() {
    let deployment = defaulted(
        "apps",
        "deployments",
        json!({"spec": {"template": {"spec": {"hostNetwork": true, "containers": [{"image": "a:1",
            "ports": [{"containerPort": 1}], "resources": {"limits": {"cpu": "1"}}}]}}}}),
    );
    assert_eq!(
        deployment,
        json!({"spec": {"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"spec": {
                "hostNetwork": true, "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
                "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30,
                "containers": [{"image": "a:1", "imagePullPolicy": "IfNotPresent",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 1, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "1"}}}]}}}})
    );
}

#[test]
fn a_service_is_filled_in_by_its_type() {
    let service = |spec| defaulted("", "services", json!({ "spec": spec }))["spec"].clone();
    assert_eq!(
        service(json!({"ports": [{"port": 80}]})),
        json!({"sessionAffinity": "None", "type": "ClusterIP", "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
    );
    assert_eq!(
        service(json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP",
            "ports": [{"port": 80, "targetPort": "http"}]})),
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
            "type": "LoadBalancer", "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
            "allocateLoadBalancerNodePorts": true, "ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}]})
    );
    assert_eq!(
        service(json!({"type": "ExternalName", "externalName": "a.b"})),
        json!({"type": "ExternalName", "externalName": "a.b", "sessionAffinity": "None"})
    );
}

#[test]
fn a_job_must_not_share_labels_where_it_has_its_own() {
    let jobs = by_group_resource("batch", "jobs").unwrap();
    let shared = |own: Value, template: Value| {
        let mut job =
            json!({"metadata": {"labels": own}, "spec": {"template": {"metadata": {"labels": template}}}});
        let shares = share(jobs, &mut job);
        (shares, job["metadata"]["labels"].clone())
    };
    assert_eq!(shared(Value::Null, json!({"a": "b"})), (true, json!({"a": "b"})));
    assert_eq!(shared(json!({}), json!({"a": "b"})), (true, json!({"a": "b"})));
    assert_eq!(shared(json!({"a": "b"}), json!({"a": "b"})), (false, json!({"a": "b"})));
    assert_eq!(shared(Value::Null, Value::Null), (false, Value::Null));
    let mut cron =
        json!({"spec": {"jobTemplate": {"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}}});
    assert!(!share(by_group_resource("batch", "cronjobs").unwrap(), &mut cron));
}

#[test]
fn a_job_without_counts_runs_once() {
    let job = defaulted("batch", "jobs", json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}));
    let spec = &job["spec"];
    assert_eq!(
        (&spec["completions"], &spec["parallelism"], &spec["backoffLimit"]),
        (&json!(1), &json!(1), &json!(6))
    );
    let queue = defaulted("batch", "jobs", json!({"spec": {"parallelism": 3, "backoffLimitPerIndex": 1}}));
    assert_eq!(queue["spec"].get("completions"), None);
    assert_eq!(queue["spec"]["backoffLimit"], json!(2_147_483_647));
}

#[test]
fn a_namespace_carries_its_name_as_a_label() {
    let namespace = defaulted("", "namespaces", json!({"metadata": {"name": "n"}}));
    assert_eq!(
        namespace,
        json!({"metadata": {"name": "n", "labels": {"kubernetes.io/metadata.name": "n"}},
            "status": {"phase": "Active"}})
    );
}

#[test]
fn a_limit_range_defaults_containers_from_its_bounds() {
    let range = defaulted(
        "",
        "limitranges",
        json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}},
            {"type": "Pod", "max": {"cpu": "2"}}]}}),
    );
    assert_eq!(
        range["spec"]["limits"],
        json!([{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}, "default": {"cpu": "2"},
            "defaultRequest": {"cpu": "2", "memory": "1Mi"}}, {"type": "Pod", "max": {"cpu": "2"}}])
    );
}

#[test]
fn only_latest_is_pulled_always() {
    for image in ["nginx", "nginx:latest", "reg:5000/nginx", "reg:5000/a/nginx:latest", "a:latest@sha256:ab"]
    {
        assert!(has_latest_tag(image), "{image}");
    }
    for image in ["", "nginx:1", "reg:5000/nginx:1", "nginx@sha256:ab", "a:1@sha256:ab"] {
        assert!(!has_latest_tag(image), "{image}");
    }
}

/// Every golden object, cut down to a random part of its fields.
fn golden() -> Vec<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/kubernetes-1.36/golden");
    let Ok(entries) = fs::read_dir(folder) else {
        println!("skipped: no golden objects at {folder}");
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok())
        .collect()
}

fn cut(value: &Value, choices: &mut impl Iterator<Item = u8>) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter_map(|(key, value)| match choices.next().unwrap_or(5) {
                    0 => None,
                    1 => Some((key.clone(), Value::Null)),
                    2 => Some((key.clone(), Value::Object(Map::new()))),
                    3 => Some((key.clone(), json!(0))),
                    _ => Some((key.clone(), cut(value, choices))),
                })
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.iter().map(|value| cut(value, choices)).collect()),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn defaulting_twice_is_defaulting_once(choices in prop::collection::vec(0u8..12, 400)) {
        for object in golden() {
            let kind = object["kind"].as_str().unwrap_or_default().to_owned();
            for resource in all().iter().filter(|r| r.kind == kind) {
                let mut once = cut(&object, &mut choices.iter().copied());
                apply(resource, &mut once);
                let mut twice = once.clone();
                apply(resource, &mut twice);
                prop_assert_eq!(&once, &twice);
            }
        }
    }
}

#[test]
fn what_is_read_back_must_not_have_empty_lists_that_protobuf_cannot_say() {
    let read = |group: &str, plural: &str, mut object: Value| {
        read_back(by_group_resource(group, plural).unwrap(), &mut object);
        object
    };
    assert_eq!(
        read("rbac.authorization.k8s.io", "clusterroles", json!({"rules": []})),
        json!({"rules": null})
    );
    assert_eq!(
        read("storage.k8s.io", "csinodes", json!({"spec": {"drivers": []}})),
        json!({"spec": {"drivers": null}})
    );
    // These two are kept as JSON.
    let definition = json!({"spec": {"versions": []}});
    assert_eq!(read("apiextensions.k8s.io", "customresourcedefinitions", definition.clone()), definition);
    let labels = json!({"job-name": "j"});
    let job = read("batch", "jobs", json!({"spec": {"template": {"metadata": {"labels": labels}}}}));
    assert_eq!(job["metadata"]["labels"], labels);
}

#[test]
fn a_replication_controller_must_not_be_given_a_template_it_lacks() {
    let controller = defaulted("", "replicationcontrollers", json!({"spec": {"selector": {"a": "b"}}}));
    assert_eq!(controller["spec"], json!({"replicas": 1, "selector": {"a": "b"}}));
    let labelled = json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}});
    let labelled = defaulted("", "replicationcontrollers", labelled);
    assert_eq!(labelled["spec"]["selector"], json!({"a": "b"}));
    assert_eq!(labelled["spec"]["template"]["spec"]["restartPolicy"], "Always");
    // A replica set's template is there always.
    assert_eq!(
        defaulted("apps", "replicasets", json!({}))["spec"]["template"]["spec"]["restartPolicy"],
        "Always"
    );
}
