//! What pods are refused for.

use super::*;

#[test]
fn a_pod_needs_containers_with_names_and_images() {
    assert_eq!(created("", "pods", pod()), Vec::<String>::new());
    assert_eq!(pod_with(|p| p["spec"]["containers"] = json!([])), ["spec.containers: Required value"]);
    assert_eq!(
        pod_with(|p| p["spec"]["containers"] = json!([{}])),
        ["spec.containers[0].name: Required value", "spec.containers[0].image: Required value"]
    );
    assert_eq!(
        pod_with(
            |p| p["spec"]["containers"] = json!([{"name": "c", "image": "i"}, {"name": "c", "image": "i"}])
        ),
        ["spec.containers[1].name: Duplicate value: \"c\""]
    );
    assert_eq!(
        pod_with(|p| p["spec"]["restartPolicy"] = json!("Sometimes")),
        [
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \"OnFailure\""
        ]
    );
}

#[test]
fn a_container_is_checked_field_by_field() {
    let cases = [
        (
            json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
        (
            json!({"ports": [{"containerPort": 70000}]}),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {}}]}),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, \
             `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        (
            json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            json!({"livenessProbe": {}}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            json!({"livenessProbe": {"successThreshold": 2, "tcpSocket": {"port": 1}}}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            json!({"imagePullPolicy": "Often"}),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Often\": supported values: \"Always\", \
             \"IfNotPresent\", \"Never\"",
        ),
    ];
    for (extra, text) in cases {
        let errors = pod_with(|p| {
            for (key, value) in extra.as_object().unwrap() {
                p["spec"]["containers"][0][key] = value.clone();
            }
        });
        assert_eq!(errors, [text]);
    }
}

#[test]
fn init_containers_have_no_probes_unless_they_stay() {
    let init = json!([{"name": "i", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]);
    assert_eq!(
        pod_with(|p| p["spec"]["initContainers"] = init.clone()),
        ["spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without \
          restartPolicy=Always"]
    );
    let mut sidecar = init;
    sidecar[0]["restartPolicy"] = json!("Always");
    assert_eq!(pod_with(|p| p["spec"]["initContainers"] = sidecar), Vec::<String>::new());
}

#[test]
fn volumes_and_placement_are_checked() {
    assert_eq!(
        pod_with(|p| p["spec"]["volumes"] = json!([{"name": "v", "secret": {}}])),
        ["spec.volumes[0].secret.secretName: Required value"]
    );
    assert_eq!(
        pod_with(|p| p["spec"]["volumes"] = json!([{"name": "v", "hostPath": {"path": "/a/../b"}}])),
        ["spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"]
    );
    assert_eq!(
        pod_with(|p| p["spec"]["tolerations"] = json!([{"operator": "Equal", "value": "x"}])),
        [
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which \
          means \"match all values and all keys\""
        ]
    );
    assert_eq!(
        pod_with(|p| p["spec"]["dnsPolicy"] = json!("None")),
        ["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"]
    );
    assert_eq!(
        pod_with(|p| p["spec"]["topologySpreadConstraints"] = json!([
            {"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Maybe"}])),
        [
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            "spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
            "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Maybe\": supported values: \
             \"DoNotSchedule\", \"ScheduleAnyway\"",
        ]
    );
}

#[test]
fn a_pod_changes_its_image_and_little_else() {
    let image = |new: &mut Value| new["spec"]["containers"][0]["image"] = json!("nginx:2");
    assert_eq!(updated("", "pods", &pod(), image), Vec::<String>::new());
    let command = |new: &mut Value| new["spec"]["containers"][0]["command"] = json!(["x"]);
    let errors = updated("", "pods", &pod(), command);
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].starts_with(
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
             tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"
        ),
        "{errors:?}"
    );
    let more = |new: &mut Value| {
        new["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "x", "image": "x"}));
    };
    assert_eq!(
        updated("", "pods", &pod(), more),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
    let tolerate = |new: &mut Value| new["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
    assert_eq!(updated("", "pods", &pod(), tolerate), Vec::<String>::new());
}

#[test]
fn an_ephemeral_container_is_added_and_stays() {
    let pods = by_group_resource("", "pods").unwrap();
    let mut old = pod();
    defaults::apply(pods, &mut old);
    old["metadata"]["resourceVersion"] = json!("1");
    let mut new = old.clone();
    new["spec"]["ephemeralContainers"] = json!([{"name": "e", "image": "i"}]);
    defaults::apply(pods, &mut new);
    assert_eq!(subresource_update(pods, "ephemeralcontainers", &new, &old), []);
    assert_eq!(
        subresource_update(pods, "ephemeralcontainers", &old, &new)[0].to_string(),
        "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n"
    );
}

#[test]
fn a_pod_asks_for_no_less_than_its_containers_together() {
    let errors = pod_with(|pod| {
        let asks = |cpu: &str| json!({"requests": {"cpu": cpu}});
        pod["spec"] = json!({"resources": asks("3"), "containers": [
            {"name": "a", "image": "i:1", "resources": asks("1")}, {"name": "b", "image": "i:1", "resources": asks("2")}],
            "initContainers": [{"name": "s", "image": "i:1", "restartPolicy": "Always", "resources": asks("1")}]});
    });
    assert_eq!(
        errors,
        [
            "spec.resources.requests[cpu]: Invalid value: \"3\": must be greater than or equal to aggregate container \
          requests of 4"
        ]
    );
}

#[test]
fn containers_say_when_they_start_again() {
    let errors = pod_with(|pod| {
        pod["spec"]["restartPolicy"] = json!("Never");
        let container = &mut pod["spec"]["containers"][0];
        container["restartPolicyRules"] = json!([{"action": "Restart"}]);
        container["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    });
    assert_eq!(
        errors,
        [
            "spec.containers[0].resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when pod \
             `restartPolicy` is 'Never'",
            "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
            "spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified",
        ]
    );
}
