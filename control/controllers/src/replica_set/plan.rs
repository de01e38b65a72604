//! How many pods to make, or which to remove. Pure.

use crate::pods::{active, available, finished, phase, ready_since};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub(super) enum Plan {
    /// The count is right.
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// Compares present and wanted pods. `related` are the pods of sets with the same controller.
pub(super) fn plan(wanted: usize, pods: &[Arc<Pod>], related: &[Arc<Pod>], burst: usize) -> Plan {
    let mut there: Vec<Arc<Pod>> = pods.iter().filter(|p| active(p)).cloned().collect();
    if there.len() < wanted {
        return Plan::Create((wanted - there.len()).min(burst));
    }
    let surplus = (there.len() - wanted).min(burst);
    if surplus == 0 {
        return Plan::Nothing;
    }
    let mut per_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|p| active(p)) {
        *per_node.entry(node(pod)).or_default() += 1;
    }
    there.sort_by_cached_key(|pod| rank(pod, per_node.get(node(pod)).copied().unwrap_or(0)));
    there.truncate(surplus);
    Plan::Delete(there)
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

/// How useful a pod is, the least first.
pub(crate) type Rank = (
    bool,
    u8,
    bool,
    i64,
    Reverse<usize>,
    Reverse<Option<Timestamp>>,
    Reverse<i32>,
    Reverse<Option<Timestamp>>,
    String,
);

/// [`rank`] for pods whose neighbours do not matter.
pub(crate) fn removal_rank(pod: &Pod) -> Rank {
    rank(pod, 0)
}

/// The lowest goes first (upstream's `ActivePodsWithRanks`): without a node, not running, not ready, cheap to lose, beside many of its
/// kind, ready for a shorter time, restarted often, young.
fn rank(pod: &Pod, beside: usize) -> Rank {
    let phase = match phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let cost = pod
        .annotations()
        .get("controller.kubernetes.io/pod-deletion-cost")
        .and_then(|c| c.parse().ok())
        .unwrap_or(0);
    let ready = ready_since(pod);
    let restarts: i32 =
        pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()).map(|c| c.restart_count).sum();
    let created = pod.creation_timestamp().map(|t| t.0);
    (
        !node(pod).is_empty(),
        phase,
        ready.is_some(),
        cost,
        Reverse(beside),
        Reverse(ready),
        Reverse(restarts),
        Reverse(created),
        pod.name_any(),
    )
}

/// What the status counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Pods that count towards the spec's number.
    pub replicas: i32,
    /// Of these, with all of the template's labels.
    pub fully_labeled: i32,
    /// Of these, ready.
    pub ready: i32,
    /// Of these, ready for long enough.
    pub available: i32,
    /// Pods on their way out.
    pub terminating: i32,
    /// Until the next ready pod counts as available.
    pub next_available: Option<Duration>,
}

impl Counts {
    pub(super) fn of(
        pods: &[Arc<Pod>],
        template_labels: &BTreeMap<String, String>,
        min_ready: i32,
        now: Timestamp,
    ) -> Self {
        let mut counts = Self::default();
        for pod in pods.iter().filter(|p| !finished(p)) {
            if pod.metadata.deletion_timestamp.is_some() {
                counts.terminating += 1;
                continue;
            }
            counts.replicas += 1;
            counts.fully_labeled +=
                i32::from(template_labels.iter().all(|(k, v)| pod.labels().get(k) == Some(v)));
            counts.ready += i32::from(ready_since(pod).is_some());
            match available(pod, min_ready, now) {
                Ok(available) => counts.available += i32::from(available),
                Err(wait) => {
                    counts.next_available = Some(counts.next_available.map_or(wait, |w| w.min(wait)))
                }
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{PodCondition, PodSpec, PodStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    fn pod(name: &str, node: Option<&str>, phase: &str, ready_at: Option<i64>) -> Arc<Pod> {
        let condition = |at: i64| PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(Time(Timestamp::from_second(at).unwrap())),
            ..PodCondition::default()
        };
        Arc::new(Pod {
            metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
            spec: Some(PodSpec { node_name: node.map(str::to_owned), ..PodSpec::default() }),
            status: Some(PodStatus {
                phase: Some(phase.into()),
                conditions: ready_at.map(|at| vec![condition(at)]),
                ..PodStatus::default()
            }),
        })
    }

    fn removed(wanted: usize, pods: &[Arc<Pod>]) -> Vec<String> {
        match plan(wanted, pods, pods, 500) {
            Plan::Delete(pods) => pods.iter().map(|p| p.name_any()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let pods = [
            pod("old", Some("n1"), "Running", Some(100)),
            pod("young", Some("n1"), "Running", Some(5000)),
            pod("starting", Some("n2"), "Pending", None),
            pod("homeless", None, "Pending", None),
            pod("unready", Some("n1"), "Running", None),
        ];
        assert_eq!(removed(1, &pods), ["homeless", "starting", "unready", "young"]);
    }

    #[test]
    fn the_crowded_node_gives_first() {
        let pods = [
            pod("a", Some("n1"), "Running", Some(100)),
            pod("b", Some("n1"), "Running", Some(100)),
            pod("c", Some("n2"), "Running", Some(9000)),
        ];
        assert_eq!(removed(2, &pods), ["a"]);
    }

    #[test]
    fn finished_and_leaving_pods_do_not_count() {
        let mut leaving = (*pod("leaving", Some("n1"), "Running", Some(1))).clone();
        leaving.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let pods = [Arc::new(leaving), pod("done", Some("n1"), "Succeeded", None)];
        assert!(matches!(plan(3, &pods, &pods, 500), Plan::Create(3)));
        assert!(matches!(plan(3, &pods, &pods, 2), Plan::Create(2)));
        let counts = Counts::of(&pods, &BTreeMap::new(), 0, Timestamp::UNIX_EPOCH);
        assert_eq!((counts.replicas, counts.terminating), (0, 1));
    }

    #[test]
    fn a_ready_pod_is_available_after_min_ready_seconds() {
        let pods = [pod("a", Some("n1"), "Running", Some(100))];
        let at = |second| Counts::of(&pods, &BTreeMap::new(), 30, Timestamp::from_second(second).unwrap());
        assert_eq!((at(110).available, at(110).next_available), (0, Some(Duration::from_secs(20))));
        assert_eq!((at(130).available, at(130).next_available), (1, None));
    }
}
