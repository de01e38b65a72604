use serde_json::{Value, json};

use super::{from_storage, is_storage, to_storage};
use crate::resources::by_group_resource;

#[test]
fn an_event_of_the_events_group_is_kept_as_the_core_groups() {
    let events = by_group_resource("events.k8s.io", "events").unwrap();
    let sent = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "d"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "windlass.dev/x",
        "reportingInstance": "x-1", "action": "Start", "reason": "Started", "note": "Started it", "type": "Normal",
        "regarding": {"kind": "Pod", "name": "p"}, "related": {"kind": "Node", "name": "n"},
        "deprecatedCount": 2, "deprecatedSource": {"component": "kubelet"},
        "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z", "deprecatedLastTimestamp": "2026-01-01T00:00:01Z",
    });
    let mut object = sent.clone();
    to_storage(events, "v1", &mut object);
    assert_eq!(
        object,
        json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "d"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingComponent": "windlass.dev/x",
            "reportingInstance": "x-1", "action": "Start", "reason": "Started", "message": "Started it",
            "type": "Normal", "involvedObject": {"kind": "Pod", "name": "p"},
            "related": {"kind": "Node", "name": "n"}, "count": 2, "source": {"component": "kubelet"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:01Z",
        })
    );
    from_storage(events, "v1", &mut object);
    assert_eq!(object, sent);
    assert!(!is_storage(events, "v1"));
}

#[test]
fn an_autoscaler_loses_nothing_on_its_way_through_v1() {
    let hpas = by_group_resource("autoscaling", "horizontalpodautoscalers").unwrap();
    let stored = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "behavior": {"scaleUp": {"stabilizationWindowSeconds": 3}}, "metrics": [
            {"type": "Resource", "resource": {"name": "memory",
                "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 70}}}]},
        "status": {"currentMetrics": [], "desiredReplicas": 0, "conditions": [
            {"type": "AbleToScale", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    let mut object = stored.clone();
    from_storage(hpas, "v1", &mut object);
    assert_eq!(object["apiVersion"], "autoscaling/v1");
    assert_eq!(object["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 70}));
    to_storage(hpas, "v1", &mut object);
    assert_eq!(object, stored);
}

/// What upstream's server writes of `autoscaling/v2` objects for clients of v1, and what they may send.
#[test]
fn metrics_of_v1_must_not_be_taken_for_those_of_v2() {
    let hpas = by_group_resource("autoscaling", "horizontalpodautoscalers").unwrap();
    let other = json!({"apiVersion": "v1", "kind": "Service", "name": "s"});
    let v2 = json!([
        {"type": "Object", "object": {"describedObject": other, "metric": {"name": "a"},
            "target": {"type": "AverageValue", "averageValue": "3"}}},
        {"type": "Pods", "pods": {"metric": {"name": "m", "selector": {}},
            "target": {"type": "AverageValue", "averageValue": "1500m"}}},
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
            "target": {"type": "AverageValue", "averageValue": "1"}}},
        {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "7"}}}]);
    let v1 = json!([
        {"type": "Object", "object": {"target": other, "metricName": "a", "targetValue": "0", "averageValue": "3"}},
        {"type": "Pods", "pods": {"metricName": "m", "selector": {}, "targetAverageValue": "1500m"}},
        {"type": "ContainerResource", "containerResource": {
            "name": "cpu", "container": "c", "targetAverageValue": "1"}},
        {"type": "External", "external": {"metricName": "q", "targetValue": "7"}}]);
    let behavior =
        json!({"scaleDown": {"policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]}});
    let mut object = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"metrics": v2, "behavior": behavior}, "status": {},
    });
    from_storage(hpas, "v1", &mut object);
    let annotation = |object: &Value, name: &str| -> Value {
        let text =
            object["metadata"]["annotations"][format!("autoscaling.alpha.kubernetes.io/{name}")].as_str();
        serde_json::from_str(text.unwrap()).unwrap()
    };
    assert_eq!(annotation(&object, "metrics"), v1);
    let policies = json!([{"Type": "Percent", "Value": 10, "PeriodSeconds": 60}]);
    let go = json!({"ScaleUp": null, "ScaleDown": {"StabilizationWindowSeconds": null, "SelectPolicy": null,
        "Policies": policies, "Tolerance": null}});
    assert_eq!(annotation(&object, "behavior"), go);
    assert_eq!(object["status"], json!({"currentReplicas": 0, "desiredReplicas": 0}));
    to_storage(hpas, "v1", &mut object);
    assert_eq!((&object["spec"]["metrics"], &object["spec"]["behavior"]), (&v2, &behavior));
}

#[test]
fn current_metrics_of_every_kind_come_back_from_v1() {
    let hpas = by_group_resource("autoscaling", "horizontalpodautoscalers").unwrap();
    let other = json!({"apiVersion": "v1", "kind": "Service", "name": "s"});
    let current = json!([
        {"type": "Object", "object": {"describedObject": other, "metric": {"name": "a"},
            "current": {"value": "4", "averageValue": "3"}}},
        {"type": "Pods", "pods": {"metric": {"name": "m"}, "current": {"averageValue": "1500m"}}},
        {"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": 50, "averageValue": "1"}}},
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
            "current": {"averageUtilization": 60, "averageValue": "1"}}},
        {"type": "External", "external": {"metric": {"name": "q"}, "current": {"value": "7", "averageValue": "2"}}}]);
    let mut object = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {}, "status": {"currentMetrics": current},
    });
    from_storage(hpas, "v1", &mut object);
    assert_eq!(object["status"]["currentCPUUtilizationPercentage"], 50);
    let text = object["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/current-metrics"]
        .as_str()
        .unwrap();
    assert!(text.contains(r#""currentAverageValue":"1500m""#), "{text}");
    to_storage(hpas, "v1", &mut object);
    assert_eq!(object["status"]["currentMetrics"], current);
}

/// Go decodes an annotation into its type, and leaves all of it out if it cannot.
#[test]
fn what_is_not_of_its_type_must_not_reach_the_store_through_an_annotation() {
    let hpas = by_group_resource("autoscaling", "horizontalpodautoscalers").unwrap();
    for (name, text) in [
        ("behavior", "5"),
        ("behavior", "{}"),
        ("behavior", r#"{"ScaleUp":{"StabilizationWindowSeconds":"5"}}"#),
        ("metrics", r#"["x"]"#),
        ("metrics", r#"[{"type":"Resource","resource":{"name":"cpu","targetAverageUtilization":"50"}}]"#),
        ("current-metrics", "{}"),
        ("conditions", "[1]"),
    ] {
        let mut object = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {
            "annotations": {format!("autoscaling.alpha.kubernetes.io/{name}"): text}},
            "spec": {"targetCPUUtilizationPercentage": 7}, "status": {"currentCPUUtilizationPercentage": 6}});
        to_storage(hpas, "v1", &mut object);
        assert_eq!(object["spec"].get("behavior"), None, "{text}");
        assert_eq!(object["spec"]["metrics"].as_array().unwrap().len(), 1, "{text}");
        assert_eq!(object["status"]["currentMetrics"].as_array().unwrap().len(), 1, "{text}");
        assert_eq!((object["status"].get("conditions"), object["metadata"].get("annotations")), (None, None));
    }
    let shouted = r#"{"SCALEUP":{"stabilizationwindowseconds":5}}"#;
    let mut object = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {
        "annotations": {"autoscaling.alpha.kubernetes.io/behavior": shouted}}, "spec": {}});
    to_storage(hpas, "v1", &mut object);
    assert_eq!(object["spec"]["behavior"], json!({"scaleUp": {"stabilizationWindowSeconds": 5}}));
}

#[test]
fn an_annotation_left_over_from_v1_must_not_be_kept_for_the_next_client_of_v1() {
    let hpas = by_group_resource("autoscaling", "horizontalpodautoscalers").unwrap();
    let mut object = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {
        "annotations": {"autoscaling.alpha.kubernetes.io/metrics": "[]", "mine": "1"}}, "spec": {}});
    to_storage(hpas, "v2", &mut object);
    assert_eq!(object["metadata"]["annotations"], json!({"mine": "1"}));
}

#[test]
fn an_older_field_must_not_say_other_than_the_one_that_replaced_it() {
    let (nodes, pods) = (by_group_resource("", "nodes").unwrap(), by_group_resource("", "pods").unwrap());
    for (given, kept) in [
        (json!({"podCIDR": "a"}), json!({"podCIDR": "a", "podCIDRs": ["a"]})),
        (json!({"podCIDRs": ["a", "b"]}), json!({"podCIDR": "a", "podCIDRs": ["a", "b"]})),
        (json!({"podCIDR": "c", "podCIDRs": ["a", "b"]}), json!({"podCIDR": "c", "podCIDRs": ["c"]})),
        (json!({}), json!({})),
    ] {
        let mut node = json!({"spec": given});
        to_storage(nodes, "v1", &mut node);
        assert_eq!(node["spec"], kept);
    }
    for (given, kept) in [
        (json!({"podIP": "a"}), json!({"podIP": "a", "podIPs": [{"ip": "a"}]})),
        (json!({"podIPs": [{"ip": "a"}]}), json!({"podIP": "a", "podIPs": [{"ip": "a"}]})),
        (json!({"podIP": "c", "podIPs": [{"ip": "a"}]}), json!({"podIP": "c", "podIPs": [{"ip": "c"}]})),
    ] {
        let mut pod = json!({"status": given});
        to_storage(pods, "v1", &mut pod);
        assert_eq!(pod["status"], kept);
    }
}

#[test]
fn an_autoscaler_of_v1_without_a_target_must_not_be_without_a_metric() {
    let hpas = by_group_resource("autoscaling", "horizontalpodautoscalers").unwrap();
    let mut object = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "spec": {}});
    to_storage(hpas, "v1", &mut object);
    let target = &object["spec"]["metrics"][0]["resource"]["target"];
    assert_eq!(*target, json!({"type": "Utilization", "averageUtilization": 80}));
}

#[test]
fn string_data_wins_over_data_and_is_not_stored() {
    let secrets = by_group_resource("", "secrets").unwrap();
    let mut secret = json!({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"a": "z"}});
    to_storage(secrets, "v1", &mut secret);
    assert_eq!(secret, json!({"apiVersion": "v1", "data": {"a": "eg==", "b": "eQ=="}}));
}

#[test]
fn a_service_account_must_not_have_one_name_only() {
    for (group, plural, path) in [
        ("apps", "deployments", "/spec/template/spec"),
        ("batch", "cronjobs", "/spec/jobTemplate/spec/template/spec"),
        ("", "podtemplates", "/template/spec"),
        ("", "pods", "/spec"),
    ] {
        let resource = by_group_resource(group, plural).unwrap();
        for (given, kept) in [
            (json!({"serviceAccount": "a"}), json!({"serviceAccount": "a", "serviceAccountName": "a"})),
            (json!({"serviceAccountName": "a"}), json!({"serviceAccount": "a", "serviceAccountName": "a"})),
            (
                json!({"serviceAccountName": "a", "serviceAccount": "b"}),
                json!({"serviceAccount": "a", "serviceAccountName": "a"}),
            ),
            (json!({}), json!({})),
        ] {
            let names = path.trim_start_matches('/').split('/').rev();
            let mut object = names.fold(given.clone(), |inner, name| {
                let mut outer = serde_json::Map::new();
                outer.insert(name.to_owned(), inner);
                Value::Object(outer)
            });
            to_storage(resource, resource.storage_version, &mut object);
            assert_eq!(object.pointer(path), Some(&kept), "{plural}: {given}");
        }
    }
}

#[test]
fn a_daemon_set_must_not_be_without_the_count_of_its_templates() {
    let sets = by_group_resource("apps", "daemonsets").unwrap();
    let counted = |annotations: Value| {
        let mut set = json!({"metadata": {"name": "d", "annotations": annotations}});
        to_storage(sets, "v1", &mut set);
        set["metadata"]["annotations"]["deprecated.daemonset.template.generation"].clone()
    };
    assert_eq!(counted(json!({"a": "b"})), "0");
    assert_eq!(counted(Value::Null), "0");
    assert_eq!(counted(json!({"deprecated.daemonset.template.generation": "7"})), "7");
}
