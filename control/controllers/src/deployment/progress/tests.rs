use super::*;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn deployment(deadline: Option<i32>, reason: Option<&str>) -> Deployment {
    let conditions = reason.map(|reason| {
        json!([{ "type": "Progressing", "status": "True", "reason": reason, "message": "m",
            "lastUpdateTime": "1960-01-01T00:00:00Z", "lastTransitionTime": "1960-01-01T00:00:00Z" }])
    });
    serde_json::from_value(json!({ "metadata": { "name": "d", "generation": 1 },
        "spec": { "replicas": 2, "progressDeadlineSeconds": deadline, "selector": {}, "template": {} },
        "status": { "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2,
            "readyReplicas": 2, "conditions": conditions } }))
    .unwrap()
}

fn set_of(name: &str, available: i32, conditions: &Value) -> Arc<ReplicaSet> {
    let set = json!({ "metadata": { "name": name }, "spec": { "replicas": 2, "selector": {} },
        "status": { "replicas": 2, "availableReplicas": available, "conditions": conditions } });
    Arc::new(serde_json::from_value(set).unwrap())
}

/// The conditions after a step with these sets, the last of which is the new one: type and reason.
fn concluded(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Vec<(String, String)> {
    let mut status = counts(deployment, sets, sets.last());
    conclude(deployment, sets, sets.last(), &mut status, NOW);
    let all = status.conditions.unwrap_or_default();
    all.into_iter().map(|c| (c.type_, c.reason.unwrap_or_default())).collect()
}

fn says(kind: &str, reason: &str) -> Vec<(String, String)> {
    vec![(kind.to_owned(), reason.to_owned())]
}

#[test]
fn a_complete_deployment_whose_pods_are_lost_must_not_time_out() {
    let complete = deployment(Some(600), Some("NewReplicaSetAvailable"));
    for available in [2, 1, 0] {
        let there = concluded(&complete, &[set_of("new", available, &json!(null))]);
        assert_eq!(there, says("Progressing", "NewReplicaSetAvailable"), "{available}");
    }
    let stuck = deployment(Some(600), Some("ReplicaSetUpdated"));
    let there = concluded(&stuck, &[set_of("new", 1, &json!(null))]);
    assert_eq!(there, says("Progressing", "ProgressDeadlineExceeded"));
}

#[test]
fn a_deployment_without_a_deadline_must_not_say_that_it_progresses() {
    for deadline in [None, Some(i32::MAX)] {
        let without = deployment(deadline, Some("ReplicaSetUpdated"));
        assert!(concluded(&without, &[set_of("new", 1, &json!(null))]).is_empty());
    }
}

#[test]
fn an_old_sets_failure_must_not_hide_the_new_ones() {
    let failure = |reason: &str| json!([{ "type": "ReplicaFailure", "status": "True", "reason": reason }]);
    let plain = deployment(None, None);
    let sets = [set_of("old", 0, &failure("Old")), set_of("new", 0, &failure("New"))];
    assert_eq!(concluded(&plain, &sets), says("ReplicaFailure", "New"));
    let sets = [set_of("old", 0, &failure("Old")), set_of("new", 0, &json!(null))];
    assert_eq!(concluded(&plain, &sets), says("ReplicaFailure", "Old"));
}
