//! ReplicaSet: as many pods as the spec says.
//!
//! Woken by: the ReplicaSet, its pods, and the moment a pod becomes available. Reads: both. Writes: pods (create, delete, adopt, release)
//! and the ReplicaSet's status. Promises: never acts on a count that its own writes have already changed ([`Expectations`]); a burst of
//! creations grows from one, so that a template nobody can admit costs one refusal and not five hundred.

mod plan;

use crate::cluster::Cluster;
use crate::expectations::Expectations;
use crate::informer::{Informer, controller_uid, key_of};
use crate::pods::{self, PodControl, from_template, message_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use crate::recorder::Recorder;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use machinery::labels::Selector;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Most pods made or removed in one go (upstream's `BurstReplicas`).
const BURST: usize = 500;

/// The controller.
pub struct ReplicaSets {
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    control: Arc<PodControl>,
}

impl ReplicaSets {
    /// Registers for what wakes it.
    #[must_use]
    pub fn new(cluster: &Cluster, client: Client, recorder: Recorder, queue: &Arc<Queue>) -> Self {
        let control =
            PodControl { client, recorder, expectations: Expectations::default(), component: Self::NAME };
        let this = Self {
            sets: cluster.replica_sets.clone(),
            pods: cluster.pods.clone(),
            control: Arc::new(control),
        };
        let wake = queue.clone();
        this.sets.on_change(move |old, new| {
            if let Some(set) = new.or(old) {
                wake.add(key_of(&**set));
            }
        });
        let (wake, sets, control) = (queue.clone(), this.sets.clone(), this.control.clone());
        this.pods.on_change(move |old, new| pod_changed(old, new, &sets, &control.expectations, &wake));
        this
    }
}

/// Wakes the owner of a pod, old and new; a pod without an owner wakes every set that selects it.
fn pod_changed(
    old: Option<&Arc<Pod>>,
    new: Option<&Arc<Pod>>,
    sets: &Informer<ReplicaSet>,
    expectations: &Expectations,
    queue: &Queue,
) {
    let Some(pod) = new.or(old) else { return };
    let owner = |pod: &Pod| {
        let reference =
            pod.owner_references().iter().find(|o| o.controller == Some(true) && o.kind == "ReplicaSet")?;
        Some(Key::new(pod.namespace().as_deref()?, &reference.name))
    };
    let going = new.is_none_or(|p| p.metadata.deletion_timestamp.is_some());
    for key in [old, new].into_iter().flatten().filter_map(|pod| owner(pod)) {
        expectations.created(&key, &pod.name_any());
        if going {
            expectations.deleted(&key, &pod.uid().unwrap_or_default());
        }
        queue.add(key);
    }
    if controller_uid(&**pod).is_none() && !going {
        let labels = pod.labels();
        for set in sets.list(pod.namespace().as_deref().unwrap_or_default()) {
            if selector(&set).is_ok_and(|s| !s.is_empty() && s.matches(labels)) {
                queue.add(key_of(&*set));
            }
        }
    }
}

fn selector(set: &ReplicaSet) -> Result<Selector, Error> {
    let selector = set.spec.as_ref().map(|s| &s.selector);
    let value = serde_json::to_value(selector).map_err(|e| Error::Unusable(e.to_string()))?;
    Selector::from_label_selector(&value)
        .map_err(|e| Error::Unusable(format!("selector of {}: {e}", set.name_any())))
}

impl Reconcile for ReplicaSets {
    const NAME: &'static str = "replicaset-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.sets.get(key) else {
            self.control.expectations.forget(key);
            return Ok(None);
        };
        let selector = selector(&set)?;
        let pods = self.claim(&set, key, &selector).await?;
        let ready_to_act = self.control.expectations.met(key) && set.metadata.deletion_timestamp.is_none();
        let acted = if ready_to_act { self.act(&set, key, &pods).await } else { Ok(()) };
        let after = self.write_status(&set, key, &pods, acted.as_ref().err()).await?;
        acted.map(|()| after)
    }
}

impl ReplicaSets {
    /// The pods of a set: its own, plus orphans it selects (adopted), less those it no longer selects (released).
    async fn claim(&self, set: &ReplicaSet, key: &Key, selector: &Selector) -> Result<Vec<Arc<Pod>>, Error> {
        let uid = set.uid().unwrap_or_default();
        let mut mine = Vec::new();
        for pod in self.pods.owned_by(&uid) {
            if selector.matches(pod.labels()) || set.metadata.deletion_timestamp.is_some() {
                mine.push(pod);
            } else if pods::active(&pod) {
                let owners: Vec<&OwnerReference> =
                    pod.owner_references().iter().filter(|o| o.uid != uid).collect();
                self.own(&pod, key, &owners).await?;
            }
        }
        if set.metadata.deletion_timestamp.is_some() || selector.is_empty() {
            return Ok(mine);
        }
        for pod in self.pods.list(&key.namespace) {
            if controller_uid(&*pod).is_none() && pods::active(&pod) && selector.matches(pod.labels()) {
                let reference = pods::controlled_by(set);
                let owners: Vec<&OwnerReference> =
                    pod.owner_references().iter().chain([&reference]).collect();
                self.own(&pod, key, &owners).await?;
                mine.push(pod);
            }
        }
        Ok(mine)
    }

    async fn own(&self, pod: &Pod, key: &Key, owners: &[&OwnerReference]) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.control.client.clone(), &key.namespace);
        // the uid makes sure that it is still the same pod
        let patch = json!({ "metadata": { "uid": pod.uid(), "ownerReferences": owners } });
        let name = pod.name_any();
        let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(patched).map(drop).doing(|| format!("change the owners of pod {}/{name}", key.namespace))
    }

    async fn act(&self, set: &ReplicaSet, key: &Key, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let wanted = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let related: Vec<Arc<Pod>> = self.related(set);
        match plan::plan(usize::try_from(wanted).unwrap_or(0), pods, &related, BURST) {
            plan::Plan::Nothing => Ok(()),
            plan::Plan::Create(count) => self.create(set, key, count).await,
            plan::Plan::Delete(chosen) => {
                let removals = chosen.iter().map(|pod| self.control.delete(set, key, pod));
                futures::future::join_all(removals).await.into_iter().collect()
            }
        }
    }

    /// Pods of every set with the same controller: on a node that has many of them one more can go first.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let sets = match controller_uid(set) {
            Some(owner) => self.sets.owned_by(owner),
            None => return self.pods.owned_by(&set.uid().unwrap_or_default()),
        };
        sets.iter().flat_map(|s| self.pods.owned_by(&s.uid().unwrap_or_default())).collect()
    }

    /// Batches of 1, 2, 4, ...: the first refusal ends it.
    async fn create(&self, set: &ReplicaSet, key: &Key, count: usize) -> Result<(), Error> {
        let template = set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
        let (mut left, mut batch) = (count, 1);
        while left > 0 {
            let now = batch.min(left);
            let creations = (0..now).map(|_| async {
                let pod = from_template(&template, set);
                self.control.create(set, key, &pod).await
            });
            for created in futures::future::join_all(creations).await {
                match created {
                    // the owner goes with the namespace
                    Err(Error::Api { source, .. }) if pods::terminating_namespace(&source) => return Ok(()),
                    other => other?,
                }
            }
            left -= now;
            batch *= 2;
        }
        Ok(())
    }

    /// Writes the status if it changed; gives the time until a pod becomes available.
    async fn write_status(
        &self,
        set: &ReplicaSet,
        key: &Key,
        pods: &[Arc<Pod>],
        failure: Option<&Error>,
    ) -> Result<Option<Duration>, Error> {
        let now = Timestamp::now();
        let spec = set.spec.as_ref();
        let labels: BTreeMap<String, String> =
            spec.and_then(|s| s.template.as_ref()?.metadata.as_ref()?.labels.clone()).unwrap_or_default();
        let min_ready = spec.and_then(|s| s.min_ready_seconds).unwrap_or(0);
        let counts = plan::Counts::of(pods, &labels, min_ready, now);
        let old = set.status.clone().unwrap_or_default();
        let conditions =
            conditions(old.conditions.clone().unwrap_or_default(), failure, set, counts.replicas, now);
        let unchanged = old.replicas == counts.replicas
            && old.ready_replicas.unwrap_or(0) == counts.ready
            && old.available_replicas.unwrap_or(0) == counts.available
            && old.fully_labeled_replicas.unwrap_or(0) == counts.fully_labeled
            && old.terminating_replicas == Some(counts.terminating)
            && old.observed_generation == set.metadata.generation
            && old.conditions.clone().unwrap_or_default() == conditions;
        if !unchanged {
            let api: Api<ReplicaSet> = Api::namespaced(self.control.client.clone(), &key.namespace);
            let patch = json!({ "metadata": { "uid": set.uid() }, "status": {
                "replicas": counts.replicas,
                "readyReplicas": counts.ready,
                "availableReplicas": counts.available,
                "fullyLabeledReplicas": counts.fully_labeled,
                "terminatingReplicas": counts.terminating,
                "observedGeneration": set.metadata.generation,
                "conditions": if conditions.is_empty() { None } else { Some(conditions) },
            }});
            let patched = api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            found(patched).doing(|| format!("write the status of replica set {key}"))?;
        }
        Ok(counts.next_available)
    }
}

/// `ReplicaFailure` while pods cannot be made or removed.
fn conditions(
    mut conditions: Vec<ReplicaSetCondition>,
    failure: Option<&Error>,
    set: &ReplicaSet,
    replicas: i32,
    now: Timestamp,
) -> Vec<ReplicaSetCondition> {
    let present = conditions.iter().any(|c| c.type_ == "ReplicaFailure");
    match failure {
        None => conditions.retain(|c| c.type_ != "ReplicaFailure"),
        Some(_) if present => {}
        Some(error) => {
            let wanted = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
            let message = match error {
                Error::Api { source, .. } => message_of(source),
                other @ Error::Unusable(_) => other.to_string(),
            };
            conditions.push(ReplicaSetCondition {
                type_: "ReplicaFailure".to_owned(),
                status: "True".to_owned(),
                reason: Some(if replicas < wanted { "FailedCreate" } else { "FailedDelete" }.to_owned()),
                message: Some(message),
                last_transition_time: Some(Time(now)),
            });
        }
    }
    conditions
}
