use jiff::Timestamp;
use serde_json::{Value, json};

use super::{age::human_duration, cells, columns, conditions};
use crate::resources::{all, by_group_resource};

fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().unwrap()
}

/// The cells kubectl shows, and those it shows with `-o wide`.
fn row(group: &str, plural: &str, object: &Value) -> (Vec<String>, Vec<String>) {
    let resource = by_group_resource(group, plural).unwrap();
    let (mut plain, mut wide) = (Vec::new(), Vec::new());
    for (column, cell) in columns(resource).iter().zip(cells(resource, object, now())) {
        let text = match cell {
            Value::String(text) => text,
            other => other.to_string(),
        };
        if column.priority == 0 { &mut plain } else { &mut wide }.push(text);
    }
    (plain, wide)
}

fn meta(name: &str) -> Value {
    json!({"name": name, "namespace": "d", "creationTimestamp": "2026-01-01T23:55:00Z"})
}

#[expect(clippy::needless_pass_by_value, reason = "json!() arguments read better by value")]
fn pod(status: Value) -> Value {
    json!({"kind": "Pod", "metadata": meta("p"), "spec": {"nodeName": "n", "initContainers": [{"name": "i"}, {"name": "j"}],
        "containers": [{"name": "a"}, {"name": "b"}]}, "status": status})
}

fn pod_row(status: Value) -> String {
    row("", "pods", &pod(status)).0.join(" ")
}

#[test]
fn every_row_has_a_cell_for_every_column() {
    for resource in all() {
        for object in [json!({}), json!({"metadata": meta("x"), "spec": 1, "status": []}), json!(null)] {
            let cells = cells(resource, &object, now());
            assert_eq!(cells.len(), columns(resource).len(), "{}", resource.qualified_name());
        }
    }
}

#[test]
fn durations_read_as_kubectl_prints_them() {
    let cases = [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (600, "10m"),
        (10_740, "179m"),
        (10_800, "3h"),
        (13_500, "3h45m"),
        (28_800, "8h"),
        (172_799, "47h"),
        (172_800, "2d"),
        (266_400, "3d2h"),
        (691_200, "8d"),
        (63_072_000, "2y"),
        (65_664_000, "2y30d"),
        (252_288_000, "8y"),
    ];
    for (seconds, text) in cases {
        assert_eq!(human_duration(seconds), text, "{seconds}");
    }
}

#[test]
fn a_pods_status_is_its_containers_story() {
    let running = json!({"ready": true, "restartCount": 0, "state": {"running": {}}});
    let initialized = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
    assert_eq!(pod_row(json!({"phase": "Pending"})), "p 0/2 Pending 0 5m");
    assert_eq!(
        pod_row(json!({"phase": "Running", "containerStatuses": [running, running]})),
        "p 2/2 Running 0 5m"
    );
    assert_eq!(
        pod_row(json!({"phase": "Pending", "initContainerStatuses": [
            initialized, {"name": "j", "state": {"running": {}}}]})),
        "p 0/2 Init:1/2 0 5m"
    );
    assert_eq!(
        pod_row(json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
             "lastState": {"terminated": {"finishedAt": "2026-01-01T23:58:00Z"}}}]})),
        "p 0/2 Init:CrashLoopBackOff 3 (2m ago) 5m"
    );
    assert_eq!(
        pod_row(json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"terminated": {"exitCode": 3}}}]})),
        "p 0/2 Init:ExitCode:3 0 5m"
    );
    assert_eq!(
        pod_row(json!({"phase": "Running", "containerStatuses": [running, {"restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2026-01-01T23:59:30Z"}}}]})),
        "p 1/2 CrashLoopBackOff 2 (30s ago) 5m"
    );
    let ended = json!({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
    assert_eq!(
        pod_row(json!({"phase": "Succeeded", "containerStatuses": [ended, ended]})),
        "p 0/2 Completed 0 5m"
    );
    assert_eq!(
        pod_row(json!({"phase": "Running", "containerStatuses": [running, ended]})),
        "p 1/2 NotReady 0 5m"
    );
    assert_eq!(pod_row(json!({"phase": "Failed", "reason": "Evicted"})), "p 0/2 Evicted 0 5m");
    let gated =
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]});
    assert_eq!(pod_row(gated), "p 0/2 SchedulingGated 0 5m");
}

#[test]
fn a_pod_being_deleted_is_terminating_until_it_has_ended() {
    let mut object = pod(json!({"phase": "Running"}));
    object["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
    assert_eq!(row("", "pods", &object).0[2], "Terminating");
    object["status"]["reason"] = json!("NodeLost");
    assert_eq!(row("", "pods", &object).0[2], "Unknown");
    object["status"] = json!({"phase": "Succeeded"});
    assert_eq!(row("", "pods", &object).0[2], "Succeeded");
}

#[test]
fn sidecars_count_as_containers() {
    let mut object = pod(json!({"phase": "Running",
        "initContainerStatuses": [{"name": "i", "started": true, "ready": true, "state": {"running": {}}},
            {"name": "j", "state": {"terminated": {"exitCode": 0}}}],
        "containerStatuses": [{"ready": true, "state": {"running": {}}}]}));
    object["spec"]["initContainers"][0]["restartPolicy"] = json!("Always");
    assert_eq!(row("", "pods", &object).0.join(" "), "p 2/3 Running 0 5m");
}

#[test]
fn wide_pods_show_where_they_are() {
    let mut object = pod(json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}],
        "conditions": [{"type": "g", "status": "True"}]}));
    object["spec"]["readinessGates"] = json!([{"conditionType": "g"}, {"conditionType": "h"}]);
    assert_eq!(row("", "pods", &object).1, ["10.0.0.1", "n", "<none>", "1/2"]);
    assert_eq!(conditions(&object), None);
    object["status"]["phase"] = json!("Succeeded");
    assert_eq!(conditions(&object).unwrap()[0]["type"], "Completed");
}

#[test]
fn a_nodes_row_says_what_it_is_for() {
    let mut node = json!({"metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6",
                "containerRuntimeVersion": "containerd://2"}}});
    let (plain, wide) = row("", "nodes", &node);
    assert_eq!(plain, ["n", "Ready,SchedulingDisabled", "control-plane,worker", "24h", "v1.36.0"]);
    assert_eq!(wide, ["10.0.0.1", "<none>", "Debian", "6", "containerd://2"]);
    node["status"]["nodeInfo"]["architecture"] = json!("arm64");
    assert_eq!(row("", "nodes", &node).1[3], "6 (arm64)");
}

#[test]
fn services_show_their_addresses_by_type() {
    let service =
        |spec: Value| row("", "services", &json!({"metadata": meta("s"), "spec": spec})).0.join(" ");
    assert_eq!(
        service(json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]})),
        "s ClusterIP 10.0.0.1 <none> 80/TCP,53/UDP 5m"
    );
    assert_eq!(
        service(json!({"type": "NodePort", "clusterIP": "10.0.0.1",
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]})),
        "s NodePort 10.0.0.1 <none> 80:30080/TCP 5m"
    );
    assert_eq!(
        service(json!({"type": "ExternalName", "externalName": "a.b"})),
        "s ExternalName <none> a.b <none> 5m"
    );
    assert_eq!(service(json!({"type": "LoadBalancer"})), "s LoadBalancer <none> <pending> <none> 5m");
}

#[test]
fn workloads_show_how_far_they_are() {
    let spec = json!({"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {
        "containers": [{"name": "x", "image": "i:1"}, {"name": "y", "image": "j:2"}]}}});
    let object = json!({"metadata": meta("w"), "spec": spec,
        "status": {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}});
    let (plain, wide) = row("apps", "deployments", &object);
    assert_eq!(plain.join(" "), "w 2/3 3 1 5m");
    assert_eq!(wide, ["x,y", "i:1,j:2", "a=b"]);
    assert_eq!(row("apps", "replicasets", &object).0.join(" "), "w 3 3 2 5m");
    assert_eq!(row("apps", "statefulsets", &object).0.join(" "), "w 2/3 5m");
    let job = json!({"metadata": meta("j"), "spec": {"completions": 1}, "status": {"succeeded": 1,
        "startTime": "2026-01-01T23:55:00Z", "completionTime": "2026-01-01T23:55:09Z",
        "conditions": [{"type": "Complete", "status": "True"}]}});
    assert_eq!(row("batch", "jobs", &job).0.join(" "), "j Complete 1/1 9s 5m");
    let cron = json!({"metadata": meta("c"), "spec": {"schedule": "* * * * *", "suspend": false}});
    assert_eq!(row("batch", "cronjobs", &cron).0.join(" "), "c * * * * * <none> False 0 <none> 5m");
}

#[test]
fn events_show_what_happened_to_whom() {
    let event = json!({"metadata": meta("p.1"), "type": "Normal", "reason": "Started", "message": "Started it\n",
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"}, "count": 3,
        "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": "2026-01-01T23:00:00Z", "lastTimestamp": "2026-01-01T23:59:00Z"});
    let (plain, wide) = row("", "events", &event);
    assert_eq!(plain, ["60s", "Normal", "Started", "pod/p", "Started it"]);
    assert_eq!(wide, ["spec.containers{c}", "kubelet, n", "60m", "3", "p.1"]);
}

#[test]
fn storage_and_endpoints_are_shortened() {
    let claim = json!({"metadata": meta("c"), "spec": {"volumeName": "v", "storageClassName": "fast",
        "volumeMode": "Filesystem"}, "status": {"phase": "Bound", "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
        "capacity": {"storage": "1Gi"}}});
    assert_eq!(
        row("", "persistentvolumeclaims", &claim).0.join(" "),
        "c Bound v 1Gi RWO,RWX fast <unset> 5m"
    );
    let addresses: Vec<Value> = (1..=5).map(|n| json!({"ip": format!("10.0.0.{n}")})).collect();
    let endpoints =
        json!({"metadata": meta("e"), "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
    assert_eq!(
        row("", "endpoints", &endpoints).0.join(" "),
        "e 10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more... 5m"
    );
}

#[test]
fn requests_and_autoscalers_show_their_state() {
    let request = json!({"metadata": meta("r"), "spec": {"signerName": "a.b/c", "username": "u",
        "expirationSeconds": 86400}, "status": {"certificate": "x", "conditions": [{"type": "Approved"}]}});
    assert_eq!(
        row("certificates.k8s.io", "certificatesigningrequests", &request).0.join(" "),
        "r 5m a.b/c u 24h Approved,Issued"
    );
    let hpa = json!({"metadata": meta("h"), "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "w"},
        "minReplicas": 1, "maxReplicas": 3, "metrics": [{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": 80}}}]}, "status": {"currentReplicas": 2}});
    assert_eq!(
        row("autoscaling", "horizontalpodautoscalers", &hpa).0.join(" "),
        "h Deployment/w cpu: <unknown>/80% 1 3 2 5m"
    );
}

#[test]
fn other_kinds_show_their_name_and_when_they_were_made() {
    assert_eq!(row("", "limitranges", &json!({"metadata": meta("l")})).0, ["l", "2026-01-01T23:55:00Z"]);
}

#[test]
fn a_column_must_not_stand_where_upstream_has_another() {
    let names = |group: &str, plural: &str| {
        let columns = columns(by_group_resource(group, plural).unwrap()).iter();
        columns.map(|column| format!("{}:{}", column.name, column.kind)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        names("", "events"),
        "Last Seen:string Type:string Reason:string Object:string Subobject:string Source:string Message:string \
         First Seen:string Count:string Name:string"
    );
    assert_eq!(names("networking.k8s.io", "ipaddresses"), "Name:string ParentRef:string");
    let event = json!({"metadata": meta("e"), "message": "said", "reportingComponent": "me"});
    assert_eq!(
        cells(by_group_resource("", "events").unwrap(), &event, now())[5..7],
        [json!("me"), json!("said")]
    );
}

#[test]
fn a_kind_with_columns_of_its_own_must_not_be_shown_by_name_and_age_alone() {
    let bundle = json!({"metadata": meta("b"), "spec": {"signerName": "example.com/s"}});
    assert_eq!(row("certificates.k8s.io", "clustertrustbundles", &bundle).0.join(" "), "b example.com/s");
    let request = json!({"metadata": meta("r"), "spec": {"podName": "p", "serviceAccountName": "s", "nodeName": "n",
        "signerName": "example.com/s"}, "status": {"conditions": [{"type": "Denied"}]}});
    assert_eq!(
        row("certificates.k8s.io", "podcertificaterequests", &request).0.join(" "),
        "r p s n example.com/s Denied <none>"
    );
    let rule =
        json!({"metadata": meta("t"), "spec": {"taint": {"key": "k", "value": "v", "effect": "NoExecute"}}});
    assert_eq!(row("resource.k8s.io", "devicetaintrules", &rule).0.join(" "), "t k v NoExecute  5m");
    let migration = json!({"metadata": meta("m"), "spec": {"resource": {"group": "apps", "resource": "deployments"}},
        "status": {"conditions": [{"type": "Running", "status": "False"}, {"type": "Succeeded", "status": "True"}]}});
    let shown = row("storagemigration.k8s.io", "storageversionmigrations", &migration).0.join(" ");
    assert_eq!(shown, "m deployments.apps Succeeded");
    let candidate = json!({"metadata": meta("c"), "spec": {"leaseName": "l", "binaryVersion": "1.36", "emulationVersion": "1.35"}});
    assert_eq!(row("coordination.k8s.io", "leasecandidates", &candidate).0.join(" "), "c l 1.36 1.35 5m");
}
