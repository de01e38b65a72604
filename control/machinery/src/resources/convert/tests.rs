use serde_json::json;

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
            {"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 70}}},
            {"type": "Resource", "resource": {"name": "memory",
                "target": {"type": "Utilization", "averageUtilization": 50}}}]},
        "status": {"currentMetrics": [], "conditions": [{"type": "AbleToScale"}]},
    });
    let mut object = stored.clone();
    from_storage(hpas, "v1", &mut object);
    assert_eq!(object["apiVersion"], "autoscaling/v1");
    assert_eq!(object["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 70}));
    to_storage(hpas, "v1", &mut object);
    assert_eq!(object, stored);
}

#[test]
fn string_data_wins_over_data_and_is_not_stored() {
    let secrets = by_group_resource("", "secrets").unwrap();
    let mut secret = json!({"data": {"a": "eA==", "b": "eQ=="}, "stringData": {"a": "z"}});
    to_storage(secrets, "v1", &mut secret);
    assert_eq!(secret, json!({"apiVersion": "v1", "data": {"a": "eg==", "b": "eQ=="}}));
}
