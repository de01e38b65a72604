use serde_json::{Value, json};

use super::{created, deployment, pod_with, updated};

const NEITHER: &str = "name is neither a standard finalizer name nor is it fully qualified";

#[test]
fn a_finalizer_without_a_domain_must_not_hold_an_object_of_any_group() {
    let mut held = deployment();
    held["metadata"]["finalizers"] = json!(["foo", "foregroundDeletion", "example.com/x"]);
    let refused = format!("metadata.finalizers[0]: Invalid value: \"foo\": {NEITHER}");
    assert_eq!(created("apps", "deployments", held), std::slice::from_ref(&refused));
    assert_eq!(
        pod_with(|pod| pod["metadata"]["finalizers"] = json!(["foo"])),
        std::slice::from_ref(&refused)
    );
    let changed =
        updated("apps", "deployments", &deployment(), |new| new["metadata"]["finalizers"] = json!(["foo"]));
    assert_eq!(changed, [refused]);
}

#[test]
fn a_finalizer_without_a_domain_must_not_be_refused_where_upstream_takes_it() {
    let lease = json!({"metadata": {"name": "l", "namespace": "d", "finalizers": ["foo"]}, "spec": {}});
    assert_eq!(created("coordination.k8s.io", "leases", lease), [""; 0]);
    let class = json!({"metadata": {"name": "c", "finalizers": ["foo"]}, "handler": "h"});
    assert_eq!(created("node.k8s.io", "runtimeclasses", class), [""; 0]);
}

#[test]
fn a_label_must_not_be_told_of_at_a_place_clients_do_not_look_at() {
    let why = &crate::names::label_value("-x")[0];
    let refused = |path: &str| [format!("{path}: Invalid value: \"-x\": {why}")];
    let bad = json!({"a": "-x"});
    let map = json!({"metadata": {"name": "m", "namespace": "d", "labels": bad}});
    assert_eq!(created("", "configmaps", map), refused("metadata.labels"));
    assert_eq!(pod_with(|pod| pod["spec"]["nodeSelector"] = bad.clone()), refused("spec.nodeSelector"));
    let mut held = deployment();
    held["spec"]["template"]["metadata"]["labels"]["c"] = json!("-x");
    let said = created("apps", "deployments", held);
    assert_eq!(said, refused("spec.template.labels"));
}

#[test]
fn an_api_service_must_not_hide_its_group_nor_trust_what_it_does_not_ask() {
    let refused = |spec: Value| {
        let name =
            format!("{}.{}", spec["version"].as_str().unwrap(), spec["group"].as_str().unwrap_or_default());
        created("apiregistration.k8s.io", "apiservices", json!({"metadata": {"name": name}, "spec": spec}))
    };
    let base = |more: Value| {
        let mut spec =
            json!({"group": "example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    assert_eq!(refused(base(json!({}))), [""; 0]);
    assert_eq!(
        refused(base(json!({"group": "", "version": "v2"})))[0],
        "spec.group: Required value: only v1 may have an empty group and it better be legacy kube"
    );
    assert_eq!(
        refused(base(json!({"caBundle": "YWJj", "insecureSkipTLSVerify": true}))),
        [
            "spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle",
            "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
        ]
    );
    let service = json!({"name": "s", "namespace": "n", "port": 70000});
    assert_eq!(
        refused(base(json!({"service": service, "caBundle": "YWJj", "insecureSkipTLSVerify": true}))),
        [
            "spec.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive",
            "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
        ]
    );
}
