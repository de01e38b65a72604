use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn set(spec: Value) -> StatefulSet {
    let mut set =
        json!({ "metadata": { "name": "db" }, "spec": { "replicas": 3, "selector": {}, "template": {} } });
    for (key, value) in spec.as_object().unwrap() {
        set["spec"][key] = value.clone();
    }
    serde_json::from_value(set).unwrap()
}

fn pod(ordinal: i32, revision: &str, ready: bool) -> Arc<Pod> {
    let status = if ready { "True" } else { "False" };
    Arc::new(
        serde_json::from_value(
            json!({ "metadata": { "name": format!("db-{ordinal}"), "labels": { REVISION_LABEL: revision } },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": status }] } }),
        )
        .unwrap(),
    )
}

fn steps(set: &StatefulSet, pods: &[Arc<Pod>]) -> Vec<String> {
    let view = View { set, pods, current: "old", update: "new", now: Timestamp::UNIX_EPOCH };
    let name = |action: Action| match action {
        Action::Create { ordinal, updated } => {
            Some(format!("+{ordinal}{}", if updated { "" } else { "old" }))
        }
        Action::Shrink(p) | Action::Replace(p) | Action::Recreate(p) => {
            Some(format!("-{}", ordinal(set, &p).unwrap()))
        }
        Action::Keep(_) => None,
    };
    view.plan().into_iter().filter_map(name).collect()
}

#[test]
fn one_after_the_other() {
    let ordered = set(json!({}));
    assert_eq!(steps(&ordered, &[]), ["+0"]);
    assert!(steps(&ordered, &[pod(0, "new", false)]).is_empty());
    assert_eq!(steps(&ordered, &[pod(0, "new", true)]), ["+1"]);
    let parallel = set(json!({ "podManagementPolicy": "Parallel" }));
    assert_eq!(steps(&parallel, &[pod(1, "new", false)]), ["+0", "+2"]);
    let from_five = set(json!({ "ordinals": { "start": 5 } }));
    assert_eq!(steps(&from_five, &[pod(5, "new", true)]), ["+6"]);
}

#[test]
fn shrinking_starts_at_the_end() {
    let small = set(json!({ "replicas": 1 }));
    let pods = [pod(0, "new", true), pod(1, "new", true), pod(2, "new", true)];
    assert_eq!(steps(&small, &pods), ["-2"]);
    let broken = [pod(0, "new", true), pod(1, "new", false), pod(2, "new", true)];
    assert_eq!(steps(&small, &broken), ["-2"]);
    let broken = [pod(0, "new", true), pod(1, "new", false), pod(2, "new", false)];
    assert!(steps(&small, &broken).is_empty(), "1 is the first that is not well, and not the last");
}

#[test]
fn a_rollout_goes_down_to_the_partition() {
    let pods = [pod(0, "old", true), pod(1, "old", true), pod(2, "old", true)];
    assert_eq!(steps(&set(json!({})), &pods), ["-2"]);
    let on_delete = set(json!({ "updateStrategy": { "type": "OnDelete" } }));
    assert!(steps(&on_delete, &pods).is_empty());
    let partitioned = set(json!({ "updateStrategy": { "rollingUpdate": { "partition": 2 } } }));
    let done = [pod(0, "old", true), pod(1, "old", true), pod(2, "new", true)];
    assert!(steps(&partitioned, &done).is_empty());
    assert_eq!(steps(&partitioned, &done[1..]), ["+0old"]);
    let fast = set(json!({ "updateStrategy": { "rollingUpdate": { "maxUnavailable": 2 } } }));
    assert_eq!(steps(&fast, &pods), ["-2"], "one after the other: the gate of maxUnavailable is off");
}

#[test]
fn a_second_bad_update_must_not_take_more_pods_than_may_be_missing() {
    let parallel = json!({ "podManagementPolicy": "Parallel",
        "updateStrategy": { "rollingUpdate": { "maxUnavailable": 2 } } });
    let set = set(parallel);
    assert_eq!(steps(&set, &[pod(0, "old", true), pod(1, "old", true), pod(2, "bad", false)]), ["-2"]);
    assert_eq!(steps(&set, &[pod(0, "old", true), pod(1, "bad", false), pod(2, "bad", false)]), ["-2"]);
    assert!(steps(&set, &[pod(0, "old", true), pod(1, "bad", false), pod(2, "new", false)]).is_empty());
}

#[test]
fn revisions_in_use_must_not_push_others_out_of_the_history() {
    let revision = |name: &str| -> Arc<ControllerRevision> {
        Arc::new(serde_json::from_value(json!({ "metadata": { "name": name }, "revision": 1 })).unwrap())
    };
    let old = ["a", "b", "c", "d"].map(revision);
    let dead = dead_revisions(&old, "c", &[pod(0, "b", true)]);
    assert_eq!(dead.iter().map(|r| r.name_any()).collect::<Vec<_>>(), ["a", "d"]);
}

#[test]
fn a_finished_rollout_moves_the_current_revision() {
    let set = set(json!({}));
    let mut pods = vec![pod(0, "new", true), pod(1, "new", true), pod(2, "old", true)];
    let counts = |pods: &[Arc<Pod>]| {
        View { set: &set, pods, current: "old", update: "new", now: Timestamp::UNIX_EPOCH }.counts()
    };
    let now = counts(&pods);
    assert_eq!((now.current, now.updated, now.current_revision.as_str()), (1, 2, "old"));
    pods[2] = pod(2, "new", true);
    let now = counts(&pods);
    assert_eq!((now.current, now.updated, now.ready, now.current_revision.as_str()), (3, 3, 3, "new"));
}

proptest! {
    /// From whatever is there, the set comes to have its ordinals, all well and new.
    #[test]
    fn converges(
        there in proptest::collection::btree_map(0..6_i32, (any::<bool>(), any::<bool>()), 0..6),
        wanted in 0..5_i32, start in 0..3_i32, parallel in any::<bool>(), most in 1..4_i32,
    ) {
        let policy = if parallel { "Parallel" } else { "OrderedReady" };
        let set = set(json!({ "replicas": wanted, "ordinals": { "start": start }, "podManagementPolicy": policy,
            "updateStrategy": { "rollingUpdate": { "maxUnavailable": most } } }));
        let mut pods: Vec<Arc<Pod>> =
            there.iter().map(|(n, (new, ready))| pod(*n, if *new { "new" } else { "old" }, *ready)).collect();
        for _ in 0..60 {
            let view = View { set: &set, pods: &pods, current: "old", update: "new", now: Timestamp::UNIX_EPOCH };
            let (mut gone, mut made) = (Vec::new(), Vec::new());
            for action in view.plan() {
                match action {
                    Action::Create { ordinal, updated } => made.push(pod(ordinal, if updated { "new" } else { "old" }, true)),
                    Action::Keep(_) => {}
                    Action::Recreate(p) | Action::Shrink(p) | Action::Replace(p) => gone.push(p.name_any()),
                }
            }
            if !parallel {
                prop_assert!(made.len() <= 1);
            }
            pods.retain(|p| !gone.contains(&p.name_any()));
            pods.extend(made);
            // what runs becomes ready
            pods = pods.iter().map(|p| pod(ordinal(&set, p).unwrap(), revision(p), true)).collect();
        }
        let mut at: Vec<i32> = pods.iter().map(|p| ordinal(&set, p).unwrap()).collect();
        at.sort_unstable();
        prop_assert_eq!(at, (start..start + wanted).collect::<Vec<_>>());
        prop_assert!(pods.iter().all(|p| revision(p) == "new"));
    }
}
