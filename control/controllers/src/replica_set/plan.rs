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

/// Compares what is there with what is wanted. `related` are the pods of sets with the same controller.
pub(super) fn plan(
    wanted: usize,
    pods: &[Arc<Pod>],
    related: &[Arc<Pod>],
    burst: usize,
    now: Timestamp,
) -> Plan {
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
    let ages = Ages::of(&there, now);
    there.sort_by_cached_key(|pod| ages.rank(pod, per_node.get(node(pod)).copied().unwrap_or(0)));
    there.truncate(surplus);
    Plan::Delete(there)
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default()
}

/// Without a node, not running, not ready.
type Stage = (bool, u8, bool);

fn stage(pod: &Pod) -> Stage {
    let phase = match phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    (!node(pod).is_empty(), phase, ready_since(pod).is_some())
}

/// How often a container was restarted at the most, and how often a sidecar.
fn restarts(pod: &Pod) -> (i32, i32) {
    let Some(status) = &pod.status else { return (0, 0) };
    let inits = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
    let sidecars: Vec<&str> =
        inits.filter(|c| c.restart_policy.as_deref() == Some("Always")).map(|c| c.name.as_str()).collect();
    let most = |all: &mut dyn Iterator<Item = i32>| all.max().unwrap_or(0).max(0);
    let own = status.container_statuses.iter().flatten().map(|c| c.restart_count);
    let of_sidecars = status.init_container_statuses.iter().flatten();
    let of_sidecars = of_sidecars.filter(|c| sidecars.contains(&c.name.as_str())).map(|c| c.restart_count);
    (most(&mut { own }), most(&mut { of_sidecars }))
}

/// How useful a pod is whose neighbours do not matter, the least first (upstream's `ActivePods`).
pub(crate) type Rank =
    (Stage, Reverse<Option<Timestamp>>, Reverse<(i32, i32)>, Reverse<Option<Timestamp>>, String);

/// The lowest goes first: without a node, not running, not ready, ready for a shorter time, restarted often, young.
pub(crate) fn removal_rank(pod: &Pod) -> Rank {
    let created = pod.creation_timestamp().map(|t| t.0);
    (stage(pod), Reverse(ready_since(pod)), Reverse(restarts(pod)), Reverse(created), pod.name_any())
}

/// What it costs to lose the pod, by its annotation; zero where that is no number as Kubernetes writes one.
fn cost(pod: &Pod) -> i32 {
    let cost = pod.annotations().get("controller.kubernetes.io/pod-deletion-cost");
    let plain = |text: &&String| {
        text.as_str() == "0" || text.starts_with('-') || text.starts_with(|c: char| matches!(c, '1'..='9'))
    };
    cost.filter(plain).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// An age by its order of magnitude, so that not always the youngest go: the power of two that it is nanoseconds, and between pods of
/// equal magnitude whose times differ the least uid. `None` where there is no time.
type Age = Option<(i64, String)>;

/// The least uid of the pods of each time.
struct Ages {
    ready: HashMap<Timestamp, String>,
    created: HashMap<Timestamp, String>,
    now: Timestamp,
}

impl Ages {
    fn of(pods: &[Arc<Pod>], now: Timestamp) -> Self {
        let least = |time: fn(&Pod) -> Option<Timestamp>| {
            let mut least: HashMap<Timestamp, String> = HashMap::new();
            for pod in pods {
                let (Some(at), uid) = (time(pod), pod.uid().unwrap_or_default()) else { continue };
                let first = least.entry(at).or_insert_with(|| uid.clone());
                if uid < *first {
                    *first = uid;
                }
            }
            least
        };
        let created = least(|pod| pod.creation_timestamp().map(|t| t.0));
        Self { ready: least(ready_since), created, now }
    }

    fn age(&self, at: Option<Timestamp>, least: &HashMap<Timestamp, String>) -> Age {
        let at = at?;
        let nanoseconds = self.now.duration_since(at).as_nanos();
        let magnitude = u128::try_from(nanoseconds).ok().and_then(u128::checked_ilog2).map_or(-1, i64::from);
        Some((magnitude, least.get(&at).cloned().unwrap_or_default()))
    }

    /// The lowest goes first (upstream's `ActivePodsWithRanks`): without a node, not running, not ready, cheap to lose, beside many of its
    /// kind, ready for a shorter time, restarted often, young.
    fn rank(&self, pod: &Pod, beside: usize) -> impl Ord + use<> {
        (
            (stage(pod), cost(pod), Reverse(beside)),
            self.age(ready_since(pod), &self.ready),
            Reverse(restarts(pod)),
            self.age(pod.creation_timestamp().map(|t| t.0), &self.created),
            pod.name_any(),
        )
    }
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
        match plan(wanted, pods, pods, 500, Timestamp::from_second(5100).unwrap()) {
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
    fn pods_of_about_the_same_age_must_not_go_by_their_seconds() {
        let of = |name: &str, uid: &str, ready_at| {
            let mut pod = (*pod(name, Some("n1"), "Running", Some(ready_at))).clone();
            pod.metadata.uid = Some(uid.into());
            Arc::new(pod)
        };
        // ready for 5000 s and 4900 s, which is the same power of two nanoseconds, and for 100 s
        let pods = [of("older", "a", 100), of("newer", "b", 200), of("new", "c", 5000)];
        assert_eq!(removed(0, &pods), ["new", "older", "newer"]);
    }

    #[test]
    fn a_cost_that_is_no_number_must_not_count() {
        let of = |cost: &str| {
            let mut pod = Pod::default();
            let key = "controller.kubernetes.io/pod-deletion-cost".to_owned();
            pod.metadata.annotations = Some(BTreeMap::from([(key, cost.to_owned())]));
            super::cost(&pod)
        };
        assert_eq!(["5", "-7", "0", "2147483647"].map(of), [5, -7, 0, i32::MAX]);
        assert_eq!(["+5", "007", "", "x", "2147483648"].map(of), [0; 5]);
    }

    #[test]
    fn one_container_that_restarts_counts_for_its_pod() {
        let pod: Pod = serde_json::from_value(serde_json::json!({ "metadata": {},
            "spec": { "containers": [], "initContainers": [
                { "name": "side", "restartPolicy": "Always" }, { "name": "once" }] },
            "status": { "containerStatuses": [
                    { "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 3 },
                    { "name": "b", "image": "", "imageID": "", "ready": true, "restartCount": 4 }],
                "initContainerStatuses": [
                    { "name": "side", "image": "", "imageID": "", "ready": true, "restartCount": 2 },
                    { "name": "once", "image": "", "imageID": "", "ready": true, "restartCount": 9 }] } }))
        .unwrap();
        assert_eq!(restarts(&pod), (4, 2));
    }

    #[test]
    fn finished_and_leaving_pods_do_not_count() {
        let mut leaving = (*pod("leaving", Some("n1"), "Running", Some(1))).clone();
        leaving.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let pods = [Arc::new(leaving), pod("done", Some("n1"), "Succeeded", None)];
        let now = Timestamp::UNIX_EPOCH;
        assert!(matches!(plan(3, &pods, &pods, 500, now), Plan::Create(3)));
        assert!(matches!(plan(3, &pods, &pods, 2, now), Plan::Create(2)));
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
