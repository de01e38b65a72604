//! What a kubelet may not say of a pod.

use super::*;

/// The refusals of a status that is written over `old`, of a pod with this spec.
fn reported(spec: &Value, old: &Value, new: &Value) -> Vec<String> {
    let with = |status: &Value| json!({"metadata": {"name": "p", "namespace": "d", "resourceVersion": "1"}, "spec": spec, "status": status});
    let resource = by_group_resource("", "pods").unwrap();
    let errors = subresource_update(resource, "status", &with(new), &with(old));
    errors.iter().map(ToString::to_string).collect()
}

fn ended(name: &str, code: i64) -> Value {
    json!({"name": name, "state": {"terminated": {"exitCode": code}}})
}

fn running(name: &str) -> Value {
    json!({"name": name, "state": {"running": {}}})
}

#[test]
fn a_container_that_ended_for_good_must_not_run_again() {
    let refused =
        ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"];
    let rules = |action: &str, operator: &str| json!([{"action": action, "exitCodes": {"operator": operator, "values": [42]}}]);
    for (policy, container, code, may) in [
        ("Always", json!({}), 0, true),
        ("OnFailure", json!({}), 0, false),
        ("OnFailure", json!({}), 1, true),
        ("Never", json!({}), 1, false),
        // A policy of its own counts before the pod's.
        ("Always", json!({"restartPolicy": "Never"}), 1, false),
        ("Never", json!({"restartPolicy": "OnFailure"}), 1, true),
        ("Never", json!({"restartPolicy": "OnFailure"}), 0, false),
        // And its rules before both.
        ("Never", json!({"restartPolicy": "Never", "restartPolicyRules": rules("Restart", "In")}), 42, true),
        ("Never", json!({"restartPolicy": "Never", "restartPolicyRules": rules("Restart", "In")}), 1, false),
        (
            "Never",
            json!({"restartPolicy": "Never", "restartPolicyRules": rules("Restart", "NotIn")}),
            1,
            true,
        ),
        (
            "Never",
            json!({"restartPolicy": "Never", "restartPolicyRules": rules("RestartAllContainers", "In")}),
            1,
            true,
        ),
    ] {
        let mut own = container.clone();
        own["name"] = json!("c");
        let spec = json!({"restartPolicy": policy, "containers": [own]});
        let old = json!({"containerStatuses": [ended("c", code)]});
        let found = reported(&spec, &old, &json!({"containerStatuses": [running("c")]}));
        let want: &[&str] = if may { &[] } else { &refused };
        assert_eq!(found, want, "{policy}: {container} ended with {code}");
        assert_eq!(reported(&spec, &old, &old), [""; 0], "what stays as it was");
    }
    // One the pod does not have never starts again, and the place is that in the old list.
    let spec =
        json!({"restartPolicy": "Always", "containers": [{"name": "c"}], "initContainers": [{"name": "i"}]});
    let old = json!({"containerStatuses": [running("c"), ended("odd", 1)], "initContainerStatuses": [ended("i", 0)]});
    let new =
        json!({"containerStatuses": [running("odd"), running("c")], "initContainerStatuses": [running("i")]});
    assert_eq!(
        reported(&spec, &old, &new),
        ["status.containerStatuses[1].state: Forbidden: may not be transitioned to non-terminated state"]
    );
}

#[test]
fn a_status_must_not_name_a_claim_its_pod_has_not() {
    let spec = json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}],
        "resourceClaims": [{"name": "one", "resourceClaimTemplateName": "t"}]});
    let claims = |list: Value| reported(&spec, &json!({}), &json!({"resourceClaimStatuses": list}));
    assert_eq!(claims(json!([{"name": "one", "resourceClaimName": "p-one-x"}])), [""; 0]);
    let made = claims(json!([{"name": "two"}, {"name": "one"}, {"name": "one", "resourceClaimName": "NO"}]));
    assert_eq!(
        made[..2],
        [
            "status.resourceClaimStatuses[0].name: Invalid value: \"two\": must match the name of an entry in \
             `spec.resourceClaims`",
            "status.resourceClaimStatuses[2].name: Duplicate value: \"one\"",
        ]
    );
    assert!(
        made[2].starts_with("status.resourceClaimStatuses[2].resourceClaimName: Invalid value: \"NO\""),
        "{made:?}"
    );
    let extended = |claim: Value| reported(&spec, &json!({}), &json!({"extendedResourceClaimStatus": claim}));
    let mapping = |container: &str, resource: &str| json!({"containerName": container, "resourceName": resource, "requestName": "r"});
    let fine = json!({"resourceClaimName": "x", "requestMappings": [mapping("c", "example.com/gpu")]});
    assert_eq!(extended(fine), [""; 0]);
    let at = "status.extendedResourceClaimStatus";
    assert_eq!(
        extended(json!({"resourceClaimName": "", "requestMappings": []})),
        [
            format!("{at}.requestMappings: Required value: at least one request mapping is required"),
            format!("{at}.resourceClaimName: Required value"),
        ]
    );
    assert_eq!(
        extended(json!({"resourceClaimName": "x", "requestMappings": [mapping("d", "example.com/gpu")]})),
        [format!(
            "{at}.requestMappings[0].containerName: Invalid value: \"d\": must match the name of an entry in \
             spec.initContainers.name or spec.containers.name"
        )]
    );
}

#[test]
fn the_health_of_a_device_must_not_be_told_of_what_was_not_asked_for() {
    let spec = json!({"containers": [{"name": "c", "resources": {
        "requests": {"example.com/gpu": "1"}, "claims": [{"name": "k", "request": "r"}]}}]});
    let told = |list: &str, name: &str, devices: Value| {
        let status =
            json!([{"name": "c", "allocatedResourcesStatus": [{"name": name, "resources": devices}]}]);
        let status = Value::Object([(list.to_owned(), status)].into_iter().collect());
        reported(&spec, &json!({}), &status)
    };
    let list = "containerStatuses";
    let one = json!([{"resourceID": "a", "health": "Healthy"}]);
    assert_eq!(told(list, "example.com/gpu", one.clone()), [""; 0]);
    assert_eq!(told(list, "claim:k/r", one.clone()), [""; 0]);
    let at = "status.containerStatuses[0].allocatedResourcesStatus[0]";
    assert_eq!(
        told(list, "example.com/tpu", one.clone()),
        [format!(
            "{at}.name: Invalid value: \"example.com/tpu\": must match one of the container's resource requests"
        )]
    );
    assert_eq!(told(list, "claim:k", one.clone()).len(), 1, "the request is a part of the name");
    assert_eq!(
        told(
            list,
            "example.com/gpu",
            json!([{"resourceID": "a", "health": "Unwell"}, {"resourceID": "a", "health": "Unknown"}])
        ),
        [
            format!(
                "{at}.resources[0].health: Unsupported value: \"Unwell\": supported values: \"Healthy\", \"Unhealthy\", \"Unknown\""
            ),
            format!("{at}.resources[1].resourceID: Duplicate value: \"a\""),
        ]
    );
    assert_eq!(
        told("ephemeralContainerStatuses", "example.com/gpu", one),
        [
            "status.ephemeralContainerStatuses[0].allocatedResourcesStatus: Forbidden: must not be specified in container status"
        ]
    );
}
