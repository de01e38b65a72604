use serde_json::json;

use super::{created, deployment, pod_with, updated};

const NEITHER: &str = "name is neither a standard finalizer name nor is it fully qualified";

#[test]
fn a_finalizer_without_a_domain_must_not_hold_an_object_of_any_group() {
    let mut held = deployment();
    held["metadata"]["finalizers"] = json!(["foo", "foregroundDeletion", "example.com/x"]);
    let refused = format!("metadata.finalizers[0]: Invalid value: \"foo\": {NEITHER}");
    assert_eq!(created("apps", "deployments", held), [refused.clone()]);
    assert_eq!(pod_with(|pod| pod["metadata"]["finalizers"] = json!(["foo"])), [refused.clone()]);
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
