//! ReplicaSet, and the older ReplicationController: as many pods as the spec says.
//!
//! Woken by: the set, its pods, and the moment a pod becomes available. Reads: both. Writes: pods (create, delete, adopt, release) and the
//! set's status. Promises: never acts on a count that its own writes have already changed ([`Expectations`]); a burst of creations grows
//! from one, so that a template nobody can admit costs one refusal and not five hundred.

mod plan;

pub(crate) use plan::removal_rank;

use crate::claim::{Claim, pod_changed, selector};
use crate::cluster::Cluster;
use crate::expectations::Expectations;
use crate::informer::{Informer, Kind, controller_uid, key_of};
use crate::pods::{PodControl, from_template, message_of, slow_start};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use crate::recorder::Recorder;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use machinery::labels::Selector;
use serde_json::json;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Most pods made or removed in one go (upstream's `BurstReplicas`).
const BURST: usize = 500;

/// A kind that keeps a number of pods.
pub(crate) trait Replicated:
    Kind + Resource<DynamicType = (), Scope = NamespaceResourceScope>
{
    const NAME: &'static str;
    /// Whether the status counts pods on their way out.
    const COUNTS_TERMINATING: bool;

    /// Where the kind is watched.
    fn informer(cluster: &Cluster) -> &Arc<Informer<Self>>;

    /// The object seen as a replica set, under its own metadata.
    fn as_set(&self) -> Cow<'_, ReplicaSet>;
}

impl Replicated for ReplicaSet {
    const NAME: &'static str = "replicaset-controller";
    const COUNTS_TERMINATING: bool = true;

    fn informer(cluster: &Cluster) -> &Arc<Informer<Self>> {
        &cluster.replica_sets
    }

    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        Cow::Borrowed(self)
    }
}

impl Replicated for ReplicationController {
    const NAME: &'static str = "replication-controller";
    const COUNTS_TERMINATING: bool = false;

    fn informer(cluster: &Cluster) -> &Arc<Informer<Self>> {
        &cluster.replication_controllers
    }

    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        let spec = self.spec.as_ref().map(|spec| ReplicaSetSpec {
            replicas: spec.replicas,
            min_ready_seconds: spec.min_ready_seconds,
            selector: LabelSelector { match_labels: spec.selector.clone(), match_expressions: None },
            template: spec.template.clone(),
        });
        let status = self.status.as_ref().map(|status| ReplicaSetStatus {
            replicas: status.replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            terminating_replicas: None,
            conditions: status.conditions.as_ref().map(|all| {
                let same = all.iter().map(|c| ReplicaSetCondition {
                    type_: c.type_.clone(),
                    status: c.status.clone(),
                    reason: c.reason.clone(),
                    message: c.message.clone(),
                    last_transition_time: c.last_transition_time.clone(),
                });
                same.collect()
            }),
        });
        Cow::Owned(ReplicaSet { metadata: self.metadata.clone(), spec, status })
    }
}

/// The controller of one of the kinds.
pub(crate) struct Replicas<K: Replicated> {
    sets: Arc<Informer<K>>,
    pods: Arc<Informer<Pod>>,
    control: Arc<PodControl>,
}

/// The controller of replica sets.
pub(crate) type ReplicaSets = Replicas<ReplicaSet>;
/// The controller of replication controllers.
pub(crate) type ReplicationControllers = Replicas<ReplicationController>;

impl<K: Replicated> Replicas<K> {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, recorder: Recorder, queue: &Arc<Queue>) -> Self {
        let control =
            PodControl { client, recorder, expectations: Expectations::default(), component: K::NAME };
        let this = Self {
            sets: K::informer(cluster).clone(),
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
        this.pods.on_change(move |old, new| {
            pod_changed((old, new), &sets, Some(&control.expectations), &wake, |set| {
                set_selector(&set.as_set())
            });
        });
        this
    }
}

fn set_selector(set: &ReplicaSet) -> Result<Selector, Error> {
    selector(set.spec.as_ref().map(|s| &s.selector), &set.name_any())
}

impl<K: Replicated> Reconcile for Replicas<K> {
    const NAME: &'static str = K::NAME;

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(owner) = self.sets.get(key) else {
            self.control.expectations.forget(key);
            return Ok(None);
        };
        let set = owner.as_set();
        let selector = set_selector(&set)?;
        let claim = Claim { only_active: true, ..Claim::default() };
        let pods = claim.pods(&self.control.client, &self.pods, &*owner, key, &selector).await?;
        let ready_to_act = self.control.expectations.met(key) && set.metadata.deletion_timestamp.is_none();
        let acted = if ready_to_act { self.act(&owner, &set, key, &pods).await } else { Ok(()) };
        let after = self.write_status(&set, key, &pods, acted.as_ref().err()).await?;
        acted.map(|()| after)
    }
}

impl<K: Replicated> Replicas<K> {
    async fn act(&self, owner: &K, set: &ReplicaSet, key: &Key, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let wanted = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let related: Vec<Arc<Pod>> = self.related(set);
        let now = Timestamp::now();
        match plan::plan(usize::try_from(wanted).unwrap_or(0), pods, &related, BURST, now) {
            plan::Plan::Nothing => Ok(()),
            plan::Plan::Create(count) => {
                let template = set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
                let template = &template;
                let make = |_| async move {
                    let pod = from_template(template, owner);
                    self.control.create(owner, key, &pod).await
                };
                slow_start(count, make).await.1
            }
            plan::Plan::Delete(chosen) => {
                let removals = chosen.iter().map(|pod| self.control.delete(owner, key, pod));
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
            && (!K::COUNTS_TERMINATING || old.terminating_replicas == Some(counts.terminating))
            && old.observed_generation == set.metadata.generation
            && old.conditions.clone().unwrap_or_default() == conditions;
        if !unchanged {
            let api: Api<K> = Api::namespaced(self.control.client.clone(), &key.namespace);
            let mut patch = json!({ "metadata": { "uid": set.uid() }, "status": {
                "replicas": counts.replicas,
                "readyReplicas": counts.ready,
                "availableReplicas": counts.available,
                "fullyLabeledReplicas": counts.fully_labeled,
                "observedGeneration": set.metadata.generation,
                "conditions": if conditions.is_empty() { None } else { Some(conditions) },
            }});
            if K::COUNTS_TERMINATING {
                patch["status"]["terminatingReplicas"] = json!(counts.terminating);
            }
            let patched = api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            found(patched).doing(|| format!("write the status of {key}"))?;
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
