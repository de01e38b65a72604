use serde_json::{Value, json};

use super::{created, updated};

fn claim(request: Value) -> Value {
    json!({"metadata": {"name": "c", "namespace": "d"}, "spec": {"devices": {"requests": [request]}}})
}

#[test]
fn a_claim_must_not_ask_for_what_no_driver_could_give() {
    let refused = |request: Value| created("resource.k8s.io", "resourceclaims", claim(request));
    let gpu = json!({"deviceClassName": "gpu.example.com"});
    assert_eq!(refused(json!({"name": "a", "exactly": gpu})), [""; 0]);
    let either = "exactly one of `exactly` or `firstAvailable` is required";
    assert_eq!(
        refused(json!({"name": "a"})),
        [format!("spec.devices.requests[0]: Required value: {either}")]
    );
    let mut sub = gpu.clone();
    sub["name"] = json!("s");
    assert_eq!(
        refused(json!({"name": "a", "exactly": gpu, "firstAvailable": [sub]})),
        [format!("spec.devices.requests[0]: Invalid value: null: {either}, but multiple fields are set")]
    );
    assert_eq!(
        refused(
            json!({"name": "a", "exactly": {"deviceClassName": "gpu.example.com", "allocationMode": "All", "count": 2}})
        ),
        [
            "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'"
        ]
    );
    let mut two = claim(json!({"name": "a", "exactly": gpu}));
    let again = two["spec"]["devices"]["requests"][0].clone();
    two["spec"]["devices"]["requests"].as_array_mut().unwrap().push(again);
    assert_eq!(
        created("resource.k8s.io", "resourceclaims", two),
        ["spec.devices.requests[1]: Duplicate value: \"a\""]
    );
}

#[test]
fn a_claim_must_not_change_its_mind() {
    let old = claim(json!({"name": "a", "exactly": {"deviceClassName": "gpu.example.com"}}));
    let changed = updated("resource.k8s.io", "resourceclaims", &old, |new| {
        new["spec"]["devices"]["requests"][0]["name"] = json!("b");
    });
    assert!(
        changed.len() == 1
            && changed[0].starts_with("spec: Invalid value: {")
            && changed[0].ends_with(": field is immutable"),
        "{changed:?}"
    );
}

#[test]
fn a_slice_must_not_be_reached_from_nowhere_nor_move() {
    let slice = |more: Value| {
        let mut spec = json!({"driver": "d.example.com", "pool": {"name": "p", "resourceSliceCount": 1, "generation": 1}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": "s"}, "spec": spec})
    };
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let refused = |more: Value| created("resource.k8s.io", "resourceslices", slice(more));
    assert_eq!(refused(json!({"nodeName": "n", "devices": [{"name": "g"}]})), [""; 0]);
    assert_eq!(refused(json!({})), [format!("spec: Required value: {one}")]);
    assert_eq!(
        refused(json!({"nodeName": "n", "allNodes": true})),
        [format!("spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {one}, but multiple fields are set")]
    );
    let moved = updated("resource.k8s.io", "resourceslices", &slice(json!({"nodeName": "n"})), |new| {
        new["spec"]["nodeName"] = json!("m");
    });
    assert_eq!(moved, ["spec.nodeName: Invalid value: \"m\": field is immutable"]);
}
