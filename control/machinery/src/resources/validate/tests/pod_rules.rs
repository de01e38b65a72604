//! Rules of pods that name several of their fields at once: annotations, systems, host namespaces, files.

use super::*;

fn annotated(key: &str, value: &str) -> Vec<String> {
    pod_with(|p| p["metadata"]["annotations"] = json!({key: value}))
}

#[test]
fn an_annotation_that_means_something_must_not_say_nonsense() {
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    for fine in ["0", "-12", "2147483647", "-0"] {
        assert_eq!(annotated(cost, fine), [""; 0], "{fine}");
    }
    for odd in ["+1", "007", "2147483648", "x", ""] {
        let refused =
            format!("metadata.annotations[{cost}]: Invalid value: {odd:?}: must be a 32bit integer");
        assert_eq!(annotated(cost, odd), [refused]);
    }
    assert_eq!(
        annotated("kubernetes.io/config.mirror", "h"),
        [
            "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"h\": must set spec.nodeName if mirror pod annotation is set"
        ]
    );
    let armor = "container.apparmor.security.beta.kubernetes.io/";
    assert_eq!(
        annotated(&format!("{armor}x"), "odd"),
        [
            format!("metadata.annotations[{armor}x]: Invalid value: \"x\": container not found"),
            format!(
                "metadata.annotations[{armor}x]: Invalid value: \"odd\": invalid AppArmor profile name: \"odd\""
            ),
        ]
    );
    assert_eq!(
        annotated("seccomp.security.alpha.kubernetes.io/pod", "odd"),
        [
            "metadata.annotations.seccomp.security.alpha.kubernetes.io/pod: Invalid value: \"odd\": must be a valid seccomp profile"
        ]
    );
}

#[test]
fn a_profile_said_twice_must_not_be_two_profiles() {
    let refused = pod_with(|p| {
        p["metadata"]["annotations"] =
            json!({"container.apparmor.security.beta.kubernetes.io/c": "unconfined"});
        p["spec"]["containers"][0]["securityContext"] =
            json!({"appArmorProfile": {"type": "RuntimeDefault"}});
    });
    assert_eq!(
        refused,
        [
            "spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match"
        ]
    );
}

#[test]
fn the_annotations_of_a_mirror_pod_must_not_come_or_go() {
    let mirror = |p: &mut Value| p["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "h"});
    let mut placed = pod();
    placed["spec"]["nodeName"] = json!("n");
    let at = "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not";
    assert_eq!(updated("", "pods", &placed, mirror), [format!("{at} add mirror pod annotation")]);
    mirror(&mut placed);
    let gone = updated("", "pods", &placed, |p| p["metadata"]["annotations"] = json!({}));
    assert_eq!(gone, [format!("{at} remove or update mirror pod annotation")]);
    let resource = by_group_resource("", "pods").unwrap();
    let mut old = placed;
    defaults::apply(resource, &mut old);
    old["metadata"]["resourceVersion"] = json!("1");
    let debugged = subresource_update(resource, "ephemeralcontainers", &old, &old);
    assert_eq!(debugged[0].to_string(), ": Forbidden: static pods do not support ephemeral containers");
}

#[test]
fn a_pod_must_not_have_what_its_system_has_not() {
    let on = |system: &str, spec: Value| {
        pod_with(|p| {
            p["spec"]["os"] = json!({"name": system});
            p["spec"]["securityContext"] = spec["pod"].clone();
            p["spec"]["containers"][0]["securityContext"] = spec["container"].clone();
        })
    };
    let options = json!({"windowsOptions": {"runAsUserName": "u"}});
    assert_eq!(
        on("linux", json!({"pod": options, "container": options})),
        [
            "spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
            "spec.containers[0].securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
        ]
    );
    assert_eq!(
        on("windows", json!({"pod": {"fsGroup": 1}, "container": {"privileged": false}})),
        [
            "spec.securityContext.fsGroup: Forbidden: cannot be set for a windows pod",
            "spec.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
        ]
    );
    let user = |name: &str| on("windows", json!({"pod": {"windowsOptions": {"runAsUserName": name}}}));
    assert_eq!(user("DOMAIN\\user"), [""; 0]);
    assert_eq!(
        user("a\\b\\c"),
        [
            "spec.securityContext.windowsOptions.runAsUserName: Invalid value: \"a\\\\b\\\\c\": runAsUserName cannot contain more than one backslash"
        ]
    );
    assert_eq!(
        on("windows", json!({"container": {"windowsOptions": {"hostProcess": true}}})),
        [
            "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers"
        ]
    );
}

#[test]
fn a_pod_must_not_mix_processes_of_the_host_with_others() {
    let refused = |pod: Value, first: Value, second: Value| {
        pod_with(|p| {
            let container = |name: &str, own: &Value| {
                let context = json!({"windowsOptions": {"hostProcess": own}});
                json!({"name": name, "image": "i:1", "securityContext": context})
            };
            p["spec"]["os"] = json!({"name": "windows"});
            p["spec"]["hostNetwork"] = json!(true);
            p["spec"]["securityContext"] = json!({"windowsOptions": {"hostProcess": pod}});
            p["spec"]["containers"] = json!([container("a", &first), container("b", &second)]);
        })
    };
    let mixed = "spec: Invalid value: \"\": If pod contains any hostProcess containers then all containers must be \
                 HostProcess containers";
    assert_eq!(refused(Value::Null, json!(true), Value::Null), [mixed]);
    assert_eq!(refused(Value::Null, json!(true), json!(false)), [mixed]);
    assert_eq!(
        refused(json!(true), Value::Null, json!(false)),
        [
            "spec.containers[1].securityContext.windowsOptions.hostProcess: Invalid value: false: pod hostProcess value \
             must be identical if both are specified, was true",
            mixed
        ]
    );
    assert_eq!(refused(json!(true), Value::Null, json!(true)), [""; 0]);
}

#[test]
fn a_secret_without_a_name_must_not_keep_a_pod_from_being_made() {
    assert_eq!(pod_with(|p| p["spec"]["imagePullSecrets"] = json!([{"name": ""}, {}])), [""; 0]);
    let mut workload = deployment();
    workload["spec"]["template"]["spec"]["imagePullSecrets"] = json!([{}]);
    assert_eq!(created("apps", "deployments", workload), [""; 0]);
}

#[test]
fn a_pod_in_its_hosts_namespaces_must_not_set_the_hosts_sysctls() {
    let refused = |sysctl: &str| {
        pod_with(|p| {
            p["spec"]["hostNetwork"] = json!(true);
            p["spec"]["hostIPC"] = json!(true);
            p["spec"]["securityContext"] = json!({"sysctls": [{"name": sysctl, "value": "1"}]});
        })
    };
    let at = "spec.securityContext.sysctls[0].name: Invalid value:";
    assert_eq!(
        refused("net/ipv4/tcp_syncookies"),
        [format!("{at} \"net/ipv4/tcp_syncookies\": may not be specified when 'hostNetwork' is true")]
    );
    assert_eq!(
        refused("kernel.sem"),
        [format!("{at} \"kernel.sem\": may not be specified when 'hostIPC' is true")]
    );
    assert_eq!(refused("kernel.pid_max"), [""; 0]);
}

#[test]
fn a_feature_that_is_off_must_not_be_let_in_by_its_value() {
    assert_eq!(
        pod_with(|p| p["spec"]["securityContext"] = json!({"seLinuxChangePolicy": "MountOption"})),
        [
            "spec.securityContext.seLinuxChangePolicy: Unsupported value: \"MountOption\": supported values: \"Recursive\""
        ]
    );
    assert_eq!(
        pod_with(|p| p["spec"]["tolerations"] = json!([{"key": "k", "operator": "Lt", "value": "1"}])),
        [
            "spec.tolerations[0].operator: Unsupported value: \"Lt\": supported values: \"Equal\", \"Exists\", \"Lt\", \"Gt\""
        ]
    );
    let mut used = pod();
    used["spec"]["securityContext"] = json!({"seLinuxChangePolicy": "MountOption"});
    assert_eq!(updated("", "pods", &used, |p| p["spec"]["containers"][0]["image"] = json!("j:1")), [""; 0]);
}

#[test]
fn block_devices_must_not_be_given_to_a_pod_of_users_of_its_own() {
    let refused = pod_with(|p| {
        p["spec"]["hostUsers"] = json!(false);
        p["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        p["spec"]["containers"][0]["volumeDevices"] = json!([{"name": "v", "devicePath": "/d"}]);
    });
    assert_eq!(refused, ["spec.containers[0].volumeDevices: Forbidden: when `hostUsers` is false"]);
}

#[test]
fn files_of_one_volume_must_not_have_one_path() {
    let projected = |sources: Value| {
        pod_with(|p| {
            p["spec"]["serviceAccountName"] = json!("s");
            p["spec"]["volumes"] = json!([{"name": "v", "projected": {"sources": sources}}]);
        })
    };
    let map = |path: &str| json!({"configMap": {"name": "m", "items": [{"key": "k", "path": path}]}});
    let secret = json!({"secret": {"name": "s", "items": [{"key": "k", "path": "a"}]}});
    assert_eq!(
        projected(json!([map("a"), secret])),
        ["spec.volumes[0].projected: Invalid value: \"s\": conflicting duplicate paths"]
    );
    let token = json!({"serviceAccountToken": {"path": "a"}});
    assert_eq!(
        projected(json!([map("a"), token, {}])),
        [""; 0],
        "a token's path is not counted; an empty source is none"
    );
    let mut both = map("a");
    both["secret"] = json!({"name": "s"});
    assert_eq!(
        projected(json!([both])),
        [
            "spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type per source"
        ]
    );
}

#[test]
fn a_pod_must_not_mount_the_claim_it_is_still_to_bring() {
    let refused = pod_with(|p| {
        let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        p["spec"]["volumes"] = json!([
            {"name": "e", "ephemeral": {"volumeClaimTemplate": template}},
            {"name": "v", "persistentVolumeClaim": {"claimName": "p-e"}},
        ]);
    });
    assert_eq!(
        refused,
        [
            "spec.volumes[1].persistentVolumeClaim.claimName: Invalid value: \"p-e\": must not reference a PVC that gets created for an ephemeral volume"
        ]
    );
}

#[test]
fn a_variable_must_not_come_from_a_file_of_a_volume_that_is_not_the_pods_own() {
    let refused = |volumes: Value| {
        pod_with(|p| {
            p["spec"]["volumes"] = volumes;
            p["spec"]["containers"][0]["env"] = json!([{"name": "A", "valueFrom": {"fileKeyRef": {"key": "K", "volumeName": "v", "path": "f"}}}]);
        })
    };
    let at = "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName:";
    assert_eq!(refused(json!([])), [format!("{at} Not found: \"v\"")]);
    assert_eq!(
        refused(json!([{"name": "v", "hostPath": {"path": "/x"}}])),
        [format!("{at} Invalid value: \"v\": referenced volume must be of type emptyDir")]
    );
    assert_eq!(refused(json!([{"name": "v", "emptyDir": {}}])), [""; 0]);
}

#[test]
fn a_gated_pod_must_not_be_let_go_where_it_was_not_meant_to() {
    let term =
        |values: Value| json!({"matchExpressions": [{"key": "k", "operator": "In", "values": values}]});
    let required = |terms: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    let mut gated = pod();
    gated["spec"]["schedulingGates"] = json!([{"name": "g"}]);
    gated["spec"]["affinity"] = required(json!([term(json!(["a"]))]));
    let change = |affinity: Value| updated("", "pods", &gated, |p| p["spec"]["affinity"] = affinity);
    let at = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let printed = |values: &str| {
        format!(
            r#"{{"MatchExpressions":[{{"Key":"k","Operator":"In","Values":["{values}"]}}],"MatchFields":null}}"#
        )
    };
    assert_eq!(
        change(required(json!([term(json!(["a"])), term(json!(["b"]))]))),
        [format!(
            "{at}: Invalid value: [{},{}]: no additions/deletions to non-empty NodeSelectorTerms list are allowed",
            printed("a"),
            printed("b")
        )]
    );
    assert_eq!(
        change(required(json!([term(json!(["b"]))]))),
        [format!(
            "{at}[0]: Invalid value: {}: only additions are allowed (no mutations or deletions)",
            printed("b")
        )]
    );
    let mut narrower = term(json!(["a"]));
    narrower["matchExpressions"].as_array_mut().unwrap().push(json!({"key": "l", "operator": "Exists"}));
    assert_eq!(change(required(json!([narrower]))), [""; 0]);
    let more =
        updated("", "pods", &gated, |p| p["spec"]["schedulingGates"] = json!([{"name": "g"}, {"name": "h"}]));
    assert_eq!(
        more,
        [
            "spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'h'"
        ]
    );
}

#[test]
fn a_stateful_set_an_older_server_let_through_must_not_be_stuck() {
    let resource = by_group_resource("apps", "statefulsets").unwrap();
    let mut old = deployment();
    old["metadata"]["resourceVersion"] = json!("1");
    old["spec"]["template"]["spec"]["containers"][0]["name"] = json!("NOT A NAME");
    defaults::apply(resource, &mut old);
    let mut new = old.clone();
    new["spec"]["replicas"] = json!(3);
    assert_eq!(update(resource, &new, &old), []);
    assert_eq!(create(resource, &old).len(), 1);
}

#[test]
fn a_status_must_not_say_of_a_pod_what_its_system_has_not() {
    let resource = by_group_resource("", "pods").unwrap();
    let mut old = pod();
    old["metadata"]["resourceVersion"] = json!("1");
    old["spec"]["os"] = json!({"name": "windows"});
    old["status"] =
        json!({"ephemeralContainerStatuses": [{"name": "d", "state": {"terminated": {"exitCode": 0}}}]});
    let mut new = old.clone();
    new["status"] = json!({"containerStatuses": [{"name": "c", "user": {"linux": {"uid": 0, "gid": 0}}}],
        "ephemeralContainerStatuses": [{"name": "d", "state": {"running": {}}}]});
    let refused: Vec<String> =
        subresource_update(resource, "status", &new, &old).iter().map(ToString::to_string).collect();
    assert_eq!(
        refused,
        [
            "status.ephemeralContainerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            "status.containerStatuses[0].user.linux: Forbidden: cannot be set for a windows pod",
        ]
    );
}
