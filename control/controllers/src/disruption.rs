//! PodDisruptionBudget: how many of its pods may be evicted right now.
//!
//! Woken by: the budget, its pods, the controllers whose size it counts by, and the end of an eviction's grace. Reads: all of these. Writes:
//! the budget's status. Promises: a disruption that an eviction has taken (`disruptedPods`) counts until the pod is gone or two minutes have
//! passed; where the size cannot be known, nothing may be evicted.
//!
//! - [`stale`]: the marks of pods that were to go and did not

pub(crate) mod stale;

use crate::claim::{printed, selector};
use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::inventory::Inventory;
use crate::pods::{message_of, ready_since};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, code, found};
use crate::recorder::{Recorder, Severity};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use machinery::intstr::part;
use machinery::labels::Selector;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// An evicted pod that is still there after this was not evicted.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);

pub(crate) struct Disruptions {
    budgets: Arc<Informer<PodDisruptionBudget>>,
    pods: Arc<Informer<Pod>>,
    deployments: Arc<Informer<Deployment>>,
    replica_sets: Arc<Informer<ReplicaSet>>,
    replication_controllers: Arc<Informer<ReplicationController>>,
    stateful_sets: Arc<Informer<StatefulSet>>,
    inventory: Arc<Inventory>,
    client: Client,
    recorder: Recorder,
}

impl Disruptions {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        recorder: Recorder,
        inventory: Arc<Inventory>,
        queue: &Arc<Queue>,
    ) -> Self {
        let wake = queue.clone();
        cluster.budgets.on_change(move |old, new| {
            if let Some(budget) = new.or(old) {
                wake.add(key_of(&**budget));
            }
        });
        let (wake, budgets, events) = (queue.clone(), cluster.budgets.clone(), recorder.clone());
        cluster.pods.on_change(move |old, new| {
            for pod in [old, new].into_iter().flatten() {
                selecting(&budgets, pod).iter().for_each(|budget| wake.add(key_of(&**budget)));
            }
            let Some(pod) = new.or(old) else { return };
            if let Some(message) = several_message(pod, &selecting(&budgets, pod)) {
                let reason = "MultiplePodDisruptionBudgets";
                events.record(Self::NAME, &**pod, Severity::Warning, reason, message);
            }
        });
        // the size of a controller changes what its pods' budgets allow; budgets are few
        let sized = |queue: &Arc<Queue>| {
            let (wake, budgets) = (queue.clone(), cluster.budgets.clone());
            move |namespace: Option<String>| {
                for budget in budgets.list(namespace.as_deref().unwrap_or_default()) {
                    wake.add(key_of(&*budget));
                }
            }
        };
        let wake = sized(queue);
        cluster.deployments.on_change(move |old, new| {
            let size = |d: &Arc<Deployment>| d.spec.as_ref().and_then(|s| s.replicas);
            if old.map(size) != new.map(size) {
                wake(new.or(old).and_then(|d| d.namespace()));
            }
        });
        let wake = sized(queue);
        cluster.replica_sets.on_change(move |old, new| {
            let size = |d: &Arc<ReplicaSet>| d.spec.as_ref().and_then(|s| s.replicas);
            if old.map(size) != new.map(size) {
                wake(new.or(old).and_then(|d| d.namespace()));
            }
        });
        let wake = sized(queue);
        cluster.stateful_sets.on_change(move |old, new| {
            let size = |d: &Arc<StatefulSet>| d.spec.as_ref().and_then(|s| s.replicas);
            if old.map(size) != new.map(size) {
                wake(new.or(old).and_then(|d| d.namespace()));
            }
        });
        let wake = sized(queue);
        cluster.replication_controllers.on_change(move |old, new| {
            let size = |d: &Arc<ReplicationController>| d.spec.as_ref().and_then(|s| s.replicas);
            if old.map(size) != new.map(size) {
                wake(new.or(old).and_then(|d| d.namespace()));
            }
        });
        Self {
            budgets: cluster.budgets.clone(),
            pods: cluster.pods.clone(),
            deployments: cluster.deployments.clone(),
            replica_sets: cluster.replica_sets.clone(),
            replication_controllers: cluster.replication_controllers.clone(),
            stateful_sets: cluster.stateful_sets.clone(),
            inventory,
            client,
            recorder,
        }
    }

    /// The size of what controls a pod, and its uid.
    fn scale(&self, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
        let key = Key::new(namespace, &owner.name);
        let size = |replicas: Option<i32>| replicas.unwrap_or(1);
        match owner.kind.as_str() {
            "ReplicaSet" => {
                let set = self.replica_sets.get(&key).filter(|s| s.uid().as_deref() == Some(&owner.uid))?;
                let above = set.owner_references().iter().find(|o| o.controller == Some(true));
                match above.filter(|o| o.kind == "Deployment") {
                    None => Some((owner.uid.clone(), size(set.spec.as_ref()?.replicas))),
                    Some(above) => {
                        let deployment = self.deployments.get(&Key::new(namespace, &above.name))?;
                        let ours = deployment.uid().as_deref() == Some(&above.uid);
                        ours.then(|| {
                            (above.uid.clone(), size(deployment.spec.as_ref().and_then(|s| s.replicas)))
                        })
                    }
                }
            }
            "StatefulSet" => {
                let set = self.stateful_sets.get(&key).filter(|s| s.uid().as_deref() == Some(&owner.uid))?;
                Some((owner.uid.clone(), size(set.spec.as_ref()?.replicas)))
            }
            "ReplicationController" => {
                let set = self.replication_controllers.get(&key);
                let set = set.filter(|s| s.uid().as_deref() == Some(&owner.uid))?;
                Some((owner.uid.clone(), size(set.spec.as_ref()?.replicas)))
            }
            _ => None,
        }
    }

    /// The size of a controller of any other kind, by its scale; nothing where it is gone.
    async fn foreign_scale(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<i32>, String> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let Some(served) = self.inventory.by_kind(group, &owner.kind) else {
            let version = &owner.api_version;
            return Err(format!("no matches for kind \"{}\" in version \"{version}\"", owner.kind));
        };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &served.resource);
        match api.get_scale(&owner.name).await {
            Ok(scale) => {
                let same = scale.metadata.uid.as_deref() == Some(&owner.uid);
                Ok(scale.spec.and_then(|s| s.replicas).filter(|_| same))
            }
            // either the object is not there, or its kind has no scale
            Err(error) if code(&error) == Some(404) => {
                let there = api.get_metadata_opt(&owner.name).await.map_err(|e| message_of(&e))?;
                match there {
                    None => Ok(None),
                    Some(_) if group.is_empty() => {
                        Err(format!("{} does not implement the scale subresource", served.resource.plural))
                    }
                    Some(_) => Err(format!(
                        "{}.{group} does not implement the scale subresource",
                        served.resource.plural
                    )),
                }
            }
            Err(error) => Err(message_of(&error)),
        }
    }

    /// How many pods there should be, by their controllers. A pod without one does not count.
    async fn expected(&self, namespace: &str, pods: &[Arc<Pod>]) -> Result<i32, String> {
        let mut sizes = BTreeMap::new();
        let mut asked = BTreeSet::new();
        for pod in pods {
            let owners = pod.owner_references();
            let Some(owner) = owners.iter().find(|o| o.controller == Some(true)) else { continue };
            if !asked.insert(owner.uid.clone()) {
                continue;
            }
            let scale = match self.scale(namespace, owner) {
                Some(scale) => Some(scale),
                None => {
                    let size = self.foreign_scale(namespace, owner).await?;
                    size.map(|size| (owner.uid.clone(), size))
                }
            };
            let (uid, size) =
                scale.ok_or_else(|| format!("found no controllers for pod {:?}", pod.name_any()))?;
            sizes.insert(uid, size);
        }
        Ok(sizes.values().fold(0_i32, |sum, size| sum.saturating_add(*size)))
    }
}

/// Whether the budget counts by the size of its pods' controllers.
fn by_size(budget: &PodDisruptionBudget) -> bool {
    budget.spec.as_ref().is_some_and(|spec| {
        spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
    })
}

/// No controller says how many of this pod there should be.
fn is_unmanaged(pod: &Arc<Pod>) -> bool {
    !pod.owner_references().iter().any(|o| o.controller == Some(true))
}

/// What an event says of a budget by size over pods without a controller.
fn unmanaged_message(selector: Option<&LabelSelector>) -> String {
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of the PDB cannot be \
         calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of \
         the PDB to an integer value.",
        printed(selector)
    )
}

/// The budgets that select a pod.
fn selecting(budgets: &Informer<PodDisruptionBudget>, pod: &Pod) -> Vec<Arc<PodDisruptionBudget>> {
    let mut found = budgets.list(pod.namespace().as_deref().unwrap_or_default());
    found.retain(|budget| budget_selector(budget).is_ok_and(|s| s.matches(pod.labels())));
    found
}

/// What an event says of a pod that several budgets select, which therefore cannot be evicted.
fn several_message(pod: &Pod, budgets: &[Arc<PodDisruptionBudget>]) -> Option<String> {
    let [first, _, ..] = budgets else { return None };
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let chosen = first.name_any();
    Some(format!(
        "Pod {namespace:?}/{name:?} matches multiple PodDisruptionBudgets.  Chose {chosen:?} arbitrarily."
    ))
}

/// What an event says of an evicted pod that is still there. Upstream's names the budget's namespace twice, and not its name.
fn not_deleted_message(namespace: &str) -> String {
    format!("Pod was expected by PDB {namespace}/{namespace} to be deleted but it wasn't")
}

fn budget_selector(budget: &PodDisruptionBudget) -> Result<Selector, Error> {
    selector(budget.spec.as_ref().and_then(|s| s.selector.as_ref()), &budget.name_any())
}

/// What a budget works out to.
#[derive(Debug, PartialEq)]
struct Outcome {
    expected: i32,
    desired: i32,
    healthy: i32,
    allowed: i32,
    disrupted: BTreeMap<String, Time>,
    /// Evicted pods that are still there.
    not_deleted: Vec<String>,
    /// Until the next eviction's grace ends.
    recheck: Option<Duration>,
}

/// Works a budget out. `scale` is how many pods there should be by their controllers, asked for only where that counts.
fn work_out(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scale: impl FnOnce() -> Result<i32, String>,
    now: Timestamp,
) -> Result<Outcome, String> {
    let spec = budget.spec.clone().unwrap_or_default();
    let part = |value: &IntOrString, of: i32| part(value, of, true);
    let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let expected = scale()?;
            (expected, expected.saturating_sub(part(most, expected)).max(0))
        }
        (None, Some(IntOrString::Int(least))) => (count, *least),
        (None, Some(least)) => {
            let expected = scale()?;
            (expected, part(least, expected))
        }
        (None, None) => (0, 0),
    };
    let noted = budget.status.as_ref().and_then(|s| s.disrupted_pods.clone()).unwrap_or_default();
    let mut outcome = Outcome {
        expected,
        desired,
        healthy: 0,
        allowed: 0,
        disrupted: BTreeMap::new(),
        not_deleted: Vec::new(),
        recheck: None,
    };
    for pod in pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
        let name = pod.name_any();
        if let Some(since) = noted.get(&name) {
            let left = DELETION_TIMEOUT - now.duration_since(since.0);
            if left >= SignedDuration::ZERO {
                let left = left.unsigned_abs();
                outcome.recheck = Some(outcome.recheck.map_or(left, |r| r.min(left)));
                outcome.disrupted.insert(name, since.clone());
                continue;
            }
            outcome.not_deleted.push(name);
        }
        outcome.healthy += i32::from(ready_since(pod).is_some());
    }
    if expected > 0 {
        outcome.allowed = (outcome.healthy - desired).max(0);
    }
    Ok(outcome)
}

/// The condition `DisruptionAllowed`; its time changes with its status.
fn condition(
    old: &PodDisruptionBudgetStatus,
    allowed: bool,
    reason: &str,
    message: &str,
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = old.conditions.clone().unwrap_or_default();
    let status = if allowed { "True" } else { "False" };
    let new = Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: Some(generation),
        last_transition_time: Time(now),
    };
    match all.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) if old.status == new.status => {
            *old = Condition { last_transition_time: old.last_transition_time.clone(), ..new };
        }
        Some(old) => *old = new,
        None => all.push(new),
    }
    all
}

impl Reconcile for Disruptions {
    const NAME: &'static str = "controllermanager";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(budget) = self.budgets.get(key) else { return Ok(None) };
        let now = Timestamp::now();
        let generation = budget.metadata.generation.unwrap_or(0);
        let old = budget.status.clone().unwrap_or_default();
        let (new, recheck) = match &self.look(key, &budget, now).await {
            Ok((pods, outcome)) => {
                for name in &outcome.not_deleted {
                    if let Some(pod) = pods.iter().find(|p| p.name_any() == *name) {
                        let message = not_deleted_message(&key.namespace);
                        self.recorder.record(Self::NAME, &**pod, Severity::Warning, "NotDeleted", message);
                    }
                }
                if by_size(&budget) && pods.iter().any(is_unmanaged) {
                    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
                    let message = unmanaged_message(selector);
                    self.recorder.record(Self::NAME, &*budget, Severity::Warning, "UnmanagedPods", message);
                }
                let allowed = outcome.allowed > 0;
                let reason = if allowed { "SufficientPods" } else { "InsufficientPods" };
                let new = PodDisruptionBudgetStatus {
                    conditions: Some(condition(&old, allowed, reason, "", generation, now)),
                    current_healthy: Some(outcome.healthy),
                    desired_healthy: Some(outcome.desired),
                    disrupted_pods: Some(outcome.disrupted.clone()),
                    disruptions_allowed: Some(outcome.allowed),
                    expected_pods: Some(outcome.expected),
                    observed_generation: Some(generation),
                };
                (new, outcome.recheck)
            }
            Err(why) => {
                let conditions = condition(&old, false, "SyncFailed", why, generation, now);
                let new = PodDisruptionBudgetStatus {
                    conditions: Some(conditions),
                    disruptions_allowed: Some(0),
                    observed_generation: Some(generation),
                    ..old.clone()
                };
                (new, None)
            }
        };
        self.write(key, &budget, &old, &new).await?;
        Ok(recheck)
    }
}

impl Disruptions {
    /// A budget's pods, and what it works out to.
    ///
    /// # Errors
    /// Why that cannot be known; an event says it.
    async fn look(
        &self,
        key: &Key,
        budget: &PodDisruptionBudget,
        now: Timestamp,
    ) -> Result<(Vec<Arc<Pod>>, Outcome), String> {
        let fails = |reason, what: &str, why: String| {
            self.recorder.record(Self::NAME, budget, Severity::Warning, reason, format!("{what}: {why}"));
            why
        };
        let selector = budget_selector(budget)
            .map_err(|error| fails("NoPods", "Failed to get pods", error.to_string()))?;
        let mut pods = self.pods.list(&key.namespace);
        pods.retain(|pod| selector.matches(pod.labels()));
        if pods.is_empty() {
            self.recorder.record(Self::NAME, budget, Severity::Normal, "NoPods", "No matching pods found");
        }
        let expected = if by_size(budget) { self.expected(&key.namespace, &pods).await } else { Ok(0) };
        let what = "Failed to calculate the number of expected pods";
        let outcome = work_out(budget, &pods, || expected, now)
            .map_err(|why| fails("CalculateExpectedPodCountFailed", what, why))?;
        Ok((pods, outcome))
    }

    async fn write(
        &self,
        key: &Key,
        budget: &PodDisruptionBudget,
        old: &PodDisruptionBudgetStatus,
        new: &PodDisruptionBudgetStatus,
    ) -> Result<(), Error> {
        let plain = |s: &PodDisruptionBudgetStatus| {
            let mut s = s.clone();
            s.disrupted_pods = s.disrupted_pods.filter(|d| !d.is_empty());
            s
        };
        if plain(old) == plain(new) {
            return Ok(());
        }
        let mut disrupted: BTreeMap<&String, Value> =
            old.disrupted_pods.iter().flatten().map(|(name, _)| (name, Value::Null)).collect();
        disrupted.extend(new.disrupted_pods.iter().flatten().map(|(name, since)| (name, json!(since))));
        // over the version it was worked out from: an eviction may have taken a disruption meanwhile
        let patch = json!({
            "metadata": { "uid": budget.uid(), "resourceVersion": budget.resource_version() },
            "status": {
                "conditions": new.conditions,
                "currentHealthy": new.current_healthy.unwrap_or(0),
                "desiredHealthy": new.desired_healthy.unwrap_or(0),
                "disruptedPods": disrupted,
                "disruptionsAllowed": new.disruptions_allowed.unwrap_or(0),
                "expectedPods": new.expected_pods.unwrap_or(0),
                "observedGeneration": new.observed_generation,
            },
        });
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), &key.namespace);
        let patched = api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(patched).map(drop).doing(|| format!("write the status of disruption budget {key}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({ "metadata": { "name": name },
                "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": status }] } }))
            .unwrap(),
        )
    }

    fn budget(spec: Value, disrupted: Value) -> PodDisruptionBudget {
        let status = json!({ "disruptedPods": disrupted, "currentHealthy": 0, "desiredHealthy": 0,
            "disruptionsAllowed": 0, "expectedPods": 0 });
        serde_json::from_value(json!({ "metadata": {}, "spec": spec, "status": status })).unwrap()
    }

    #[test]
    fn what_a_budget_allows() {
        let pods = [pod("a", true), pod("b", true), pod("c", false)];
        let allowed = |spec: Value, scale: i32| {
            let outcome =
                work_out(&budget(spec, json!({})), &pods, || Ok(scale), Timestamp::UNIX_EPOCH).unwrap();
            (outcome.expected, outcome.desired, outcome.healthy, outcome.allowed)
        };
        assert_eq!(allowed(json!({ "minAvailable": 1 }), 9), (3, 1, 2, 1));
        assert_eq!(allowed(json!({ "minAvailable": "50%" }), 3), (3, 2, 2, 0));
        assert_eq!(allowed(json!({ "maxUnavailable": 2 }), 3), (3, 1, 2, 1));
        assert_eq!(allowed(json!({ "maxUnavailable": "30%" }), 4), (4, 2, 2, 0));
        assert_eq!(allowed(json!({ "maxUnavailable": "100%" }), 4), (4, 0, 2, 2));
        assert_eq!(allowed(json!({ "maxUnavailable": 1 }), 0), (0, 0, 2, 0));
        let unknown = work_out(
            &budget(json!({ "maxUnavailable": 1 }), json!({})),
            &pods,
            || Err("who?".into()),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(unknown, Err("who?".to_owned()));
    }

    #[test]
    fn percentages_of_pods_without_a_controller_must_not_pass_in_silence() {
        let bare = pod("a", true);
        let mut owned = (*bare).clone();
        owned.metadata.owner_references = serde_json::from_value(
            json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "1", "controller": true }]),
        )
        .unwrap();
        assert!(is_unmanaged(&bare) && !is_unmanaged(&Arc::new(owned)));
        for (spec, counts_by_size) in [
            (json!({ "minAvailable": "50%" }), true),
            (json!({ "maxUnavailable": 1 }), true),
            (json!({ "minAvailable": 1 }), false),
        ] {
            assert_eq!(by_size(&budget(spec, json!({}))), counts_by_size);
        }
        let selector: LabelSelector = serde_json::from_value(json!({ "matchLabels": { "b": "2", "a": "1" },
            "matchExpressions": [{ "key": "c", "operator": "In", "values": ["x", "y"] }] }))
        .unwrap();
        let text = "(selector: &LabelSelector{MatchLabels:map[string]string{a: 1,b: 2,},MatchExpressions:\
            []LabelSelectorRequirement{LabelSelectorRequirement{Key:c,Operator:In,Values:[x y],},},}) were found to be unmanaged.";
        assert!(unmanaged_message(Some(&selector)).contains(text));
    }

    #[test]
    fn a_pod_of_two_budgets_must_not_pass_in_silence() {
        let named = |name: &str| {
            let mut budget = budget(json!({}), json!({}));
            budget.metadata.name = Some(name.to_owned());
            Arc::new(budget)
        };
        let mut pod = (*pod("p", true)).clone();
        pod.metadata.namespace = Some("ns".to_owned());
        assert_eq!(several_message(&pod, &[]), None);
        assert_eq!(several_message(&pod, &[named("a")]), None);
        assert_eq!(
            several_message(&pod, &[named("a"), named("b")]).unwrap(),
            "Pod \"ns\"/\"p\" matches multiple PodDisruptionBudgets.  Chose \"a\" arbitrarily."
        );
    }

    #[tokio::test]
    async fn a_budget_whose_selector_is_none_must_not_allow_what_it_did() {
        let fake = crate::fake::Fake::default();
        let (client, cluster) = (fake.client(), Cluster::default());
        let (recorder, _writer) = Recorder::new(None, None);
        let controller = Disruptions::new(&cluster, client, recorder, Arc::default(), &Arc::default());
        let mut wrong = budget(
            json!({ "minAvailable": 1, "selector": { "matchExpressions": [{ "key": "a", "operator": "Like" }] } }),
            json!({}),
        );
        wrong.metadata.name = Some("b".to_owned());
        let why = controller.look(&Key::new("ns", "b"), &wrong, Timestamp::UNIX_EPOCH).await.unwrap_err();
        assert!(why.contains("Like"), "{why}");
    }

    #[test]
    fn an_eviction_counts_until_its_pod_is_gone_or_was_spared() {
        let pods = [pod("a", true), pod("b", true)];
        let budget = budget(
            json!({ "minAvailable": 1 }),
            json!({ "a": "1970-01-01T00:00:10Z", "gone": "1970-01-01T00:00:10Z" }),
        );
        let at = |s| work_out(&budget, &pods, || Ok(2), Timestamp::from_second(s).unwrap()).unwrap();
        let soon = at(70);
        assert_eq!((soon.healthy, soon.allowed, soon.recheck), (1, 0, Some(Duration::from_secs(60))));
        assert_eq!(soon.disrupted.keys().collect::<Vec<_>>(), ["a"]);
        let late = at(131);
        assert_eq!((late.healthy, late.allowed, late.not_deleted), (2, 1, vec!["a".to_owned()]));
    }
}
