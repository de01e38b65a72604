//! StatefulSet: pods with ordinals, each with its own name and claims, made and replaced in order.
//!
//! Woken by: the set, its pods, its revisions, and the moment a pod becomes available. Reads: all of these, and claims. Writes: pods
//! (create, delete, adopt, release), claims (create, change of owner), controller revisions, the set's status. Promises: never two pods of
//! one ordinal, as the ordinal is the name; in order, nothing is done beyond a pod that is not well; a claim is never deleted here: it goes
//! with an owner, where the retention policy gives it one.

mod identity;
mod plan;

use crate::claim::{Claim, pod_changed, selector};
use crate::cluster::Cluster;
use crate::history::{History, RevisionSpec, Revisions, template_of};
use crate::informer::{Informer, key_of};
use crate::pods::{controlled_by, message_of, terminating_namespace};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, aggregate, code, found};
use crate::recorder::{Recorder, Severity};
use identity::ClaimOwners;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use machinery::labels::Selector;
use plan::{Action, Counts, View, ordinal};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How far the pod is that has a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Having {
    /// It is about to be made.
    Coming,
    /// It is there and has not started.
    Pending,
    /// It has started.
    Started,
    /// The set is too small for it.
    Surplus,
}

impl Having {
    /// It cannot start without its claims.
    fn needs_claims(self) -> bool {
        matches!(self, Self::Coming | Self::Pending)
    }
}

/// The label of a revision that says its template's hash.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

pub(crate) struct StatefulSets {
    sets: Arc<Informer<StatefulSet>>,
    pods: Arc<Informer<Pod>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    revisions: Revisions,
    client: Client,
    recorder: Recorder,
}

impl StatefulSets {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, recorder: Recorder, queue: &Arc<Queue>) -> Self {
        let wake = queue.clone();
        cluster.stateful_sets.on_change(move |old, new| {
            if let Some(set) = new.or(old) {
                wake.add(key_of(&**set));
            }
        });
        let (wake, sets) = (queue.clone(), cluster.stateful_sets.clone());
        cluster.pods.on_change(move |old, new| pod_changed((old, new), &sets, None, &wake, set_selector));
        Self {
            sets: cluster.stateful_sets.clone(),
            pods: cluster.pods.clone(),
            claims: cluster.persistent_volume_claims.clone(),
            revisions: Revisions::new(cluster, client.clone()),
            client,
            recorder,
        }
    }

    fn api(&self, key: &Key) -> Api<StatefulSet> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    fn tell(&self, set: &StatefulSet, severity: Severity, reason: &'static str, message: String) {
        self.recorder.record(Self::NAME, set, severity, reason, message);
    }
}

fn set_selector(set: &StatefulSet) -> Result<Selector, Error> {
    selector(set.spec.as_ref().map(|s| &s.selector), &set.name_any())
}

impl Reconcile for StatefulSets {
    const NAME: &'static str = "statefulset-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.sets.get(key) else { return Ok(None) };
        let selector = set_selector(&set)?;
        // a pod that is selected, but whose name is not of this set, is none of its pods
        let is_member = |pod: &Pod| ordinal(&set, pod).is_some();
        let claim = Claim { member: Some(&is_member), ..Claim::default() };
        let claimed = claim.pods(&self.client, &self.pods, &*set, key, &selector).await?;
        let pods: Vec<Arc<Pod>> = claimed.into_iter().filter(|p| ordinal(&set, p).is_some()).collect();
        let history = self.history(&set, key, &selector).await?;
        let update = history.current.clone();
        let named = set.status.as_ref().and_then(|s| s.current_revision.clone()).unwrap_or_default();
        let current = history.old.iter().find(|r| r.name_any() == named).unwrap_or(&update).clone();
        let (current_name, update_name) = (current.name_any(), update.name_any());
        let view = View {
            set: &set,
            pods: &pods,
            current: &current_name,
            update: &update_name,
            now: Timestamp::now(),
        };
        let counts = view.counts();
        let mut acted = Ok(());
        if set.metadata.deletion_timestamp.is_none() {
            for action in view.plan() {
                acted = self.execute(key, &set, &current, &update, action).await;
                if acted.is_err() {
                    break;
                }
            }
        }
        let after = self.write_status(&set, key, &counts, &update_name).await?;
        acted?;
        let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit);
        let dead = plan::dead_revisions(&history.old, &current_name, &pods);
        self.revisions.truncate(key, &dead, limit, |_| false).await?;
        Ok(after)
    }
}

impl StatefulSets {
    async fn history(&self, set: &StatefulSet, key: &Key, selector: &Selector) -> Result<History, Error> {
        let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        let collisions = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
        let wanted = RevisionSpec { template: &template, hash_label: HASH_LABEL, labels, collisions };
        let synced = self.revisions.sync(set, key, selector, wanted).await;
        if synced.as_ref().is_err_and(Error::is_conflict) {
            let patch = Patch::Merge(json!({ "status": { "collisionCount": collisions + 1 } }));
            let patched = self.api(key).patch_status(&key.name, &PatchParams::default(), &patch).await;
            patched.doing(|| format!("count a name collision of stateful set {key}"))?;
        }
        synced
    }

    async fn execute(
        &self,
        key: &Key,
        set: &StatefulSet,
        current: &ControllerRevision,
        update: &ControllerRevision,
        action: Action,
    ) -> Result<(), Error> {
        match action {
            Action::Create { ordinal, updated } => {
                let revision = if updated { update } else { current };
                let template = template_of(revision).ok_or_else(|| {
                    Error::Unusable(format!("controller revision {} has no template", revision.name_any()))
                })?;
                let pod = identity::pod(set, &template, &revision.name_any(), ordinal);
                self.keep_claims(key, set, &pod, Having::Coming).await?;
                self.create(key, set, &pod).await
            }
            Action::Keep(pod) => {
                let Some(ordinal) = ordinal(set, &pod) else { return Ok(()) };
                let pending = crate::pods::phase(&pod) == "Pending";
                let having = if pending { Having::Pending } else { Having::Started };
                self.keep_claims(key, set, &pod, having).await?;
                let labels = identity::labels(set, ordinal);
                if labels.iter().all(|(k, v)| pod.labels().get(k) == Some(v)) {
                    return Ok(());
                }
                let name = pod.name_any();
                let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
                let patch = Patch::Merge(json!({ "metadata": { "uid": pod.uid(), "labels": labels } }));
                let patched = api.patch(&name, &PatchParams::default(), &patch).await;
                found(patched).doing(|| format!("label pod {}/{name}", key.namespace))?;
                let message = format!("update Pod {name} in StatefulSet {} successful", key.name);
                self.tell(set, Severity::Normal, "SuccessfulUpdate", message);
                Ok(())
            }
            Action::Shrink(pod) => {
                self.keep_claims(key, set, &pod, Having::Surplus).await?;
                self.delete(key, set, &pod).await
            }
            Action::Recreate(pod) | Action::Replace(pod) => self.delete(key, set, &pod).await,
        }
    }

    async fn create(&self, key: &Key, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let name = pod.name_any();
        match api.create(&PostParams::default(), pod).await {
            Ok(_) => {
                let message = format!("create Pod {name} in StatefulSet {} successful", key.name);
                self.tell(set, Severity::Normal, "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) if terminating_namespace(&error) => Ok(()),
            Err(error) => {
                // a pod that is there already is our own, not seen yet, or one that has to go first
                if code(&error) != Some(409) {
                    let why = message_of(&error);
                    let message =
                        format!("create Pod {name} in StatefulSet {} failed error: {why}", key.name);
                    self.tell(set, Severity::Warning, "FailedCreate", message);
                }
                Err(error).doing(|| format!("create pod {}/{name}", key.namespace))
            }
        }
    }

    async fn delete(&self, key: &Key, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let name = pod.name_any();
        let only_this = Preconditions { uid: pod.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
        match api.delete(&name, &params).await {
            Ok(_) => {
                let message = format!("delete Pod {name} in StatefulSet {} successful", key.name);
                self.tell(set, Severity::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(()),
            Err(error) => {
                let why = message_of(&error);
                let message = format!("delete Pod {name} in StatefulSet {} failed error: {why}", key.name);
                self.tell(set, Severity::Warning, "FailedDelete", message);
                Err(error).doing(|| format!("delete pod {}/{name}", key.namespace))
            }
        }
    }

    /// A pod's claims are there before it starts, and belong to whom the retention policy says.
    async fn keep_claims(
        &self,
        key: &Key,
        set: &StatefulSet,
        pod: &Pod,
        having: Having,
    ) -> Result<(), Error> {
        let Some(ordinal) = ordinal(set, pod) else { return Ok(()) };
        let reference = controlled_by(pod);
        let claims = identity::claims(set, ordinal)
            .into_iter()
            .map(|(_, claim)| (self.claims.get(&Key::new(&key.namespace, &claim.name_any())), claim));
        let claims: Vec<_> = claims.collect();
        let mut missing = Vec::new();
        for (there, claim) in &claims {
            let name = claim.name_any();
            let Some(there) = there else {
                missing.extend(having.needs_claims().then_some(claim));
                continue;
            };
            if having == Having::Coming
                && identity::goes_with_an_earlier_pod(set, there.owner_references(), &reference)
            {
                return Err(Error::Unusable(format!(
                    "claim {name} of an earlier pod {} is still being deleted",
                    pod.name_any()
                )));
            }
        }
        let mut failures = self.make_claims(key, set, &reference, &missing).await;
        if having.needs_claims() {
            let going = claims.iter().filter_map(|(there, _)| there.as_ref());
            let going = going.filter(|there| there.metadata.deletion_timestamp.is_some());
            failures.extend(going.map(|there| format!("pvc {} is being deleted", there.name_any())));
        }
        if let Some(why) = aggregate(&failures) {
            if having == Having::Coming {
                let name = pod.name_any();
                let message = format!("create Pod {name} in StatefulSet {} failed error: {why}", key.name);
                self.tell(set, Severity::Warning, "FailedCreate", message);
            }
            return Err(Error::Unusable(format!("claims of pod {}: {why}", pod.name_any())));
        }
        for there in claims.iter().filter_map(|(there, _)| there.as_ref()) {
            self.keep_owners(key, set, there, &reference, having).await?;
        }
        Ok(())
    }

    /// Makes claims; gives why some could not be made.
    async fn make_claims(
        &self,
        key: &Key,
        set: &StatefulSet,
        pod: &OwnerReference,
        missing: &[&PersistentVolumeClaim],
    ) -> Vec<String> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut failures = Vec::new();
        for claim in missing {
            let mut claim = (*claim).clone();
            claim.metadata.owner_references = identity::claim_owners(set, &[], pod, false).changed;
            let (name, pod) = (claim.name_any(), &pod.name);
            match api.create(&PostParams::default(), &claim).await {
                Ok(_) => {
                    let message =
                        format!("create Claim {name} Pod {pod} in StatefulSet {} success", key.name);
                    self.tell(set, Severity::Normal, "SuccessfulCreate", message);
                }
                // made before; the informer has not shown it yet
                Err(error) if code(&error) == Some(409) => {}
                Err(error) => {
                    let why = message_of(&error);
                    let message = format!(
                        "create Claim {name} for Pod {pod} in StatefulSet {} failed error: {why}",
                        key.name
                    );
                    self.tell(set, Severity::Warning, "FailedCreate", message);
                    failures.push(format!("failed to create PVC {name}: {why}"));
                }
            }
        }
        failures
    }

    /// Brings a claim's owners in line with the retention policy.
    async fn keep_owners(
        &self,
        key: &Key,
        set: &StatefulSet,
        claim: &PersistentVolumeClaim,
        pod: &OwnerReference,
        having: Having,
    ) -> Result<(), Error> {
        let name = claim.name_any();
        let ClaimOwners { changed, conflicting } =
            identity::claim_owners(set, claim.owner_references(), pod, having == Having::Surplus);
        if conflicting && (changed.is_some() || having.needs_claims()) {
            let message = format!(
                "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a manging controller, \
                 the retention policy is ignored for this claim"
            );
            self.tell(set, Severity::Warning, "ConflictingController", message);
        }
        let Some(owners) = changed else { return Ok(()) };
        let patch = json!({ "metadata": { "uid": claim.uid(), "resourceVersion": claim.resource_version(),
            "ownerReferences": owners } });
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(patched).map(drop).doing(|| format!("change the owners of claim {}/{name}", key.namespace))
    }

    async fn write_status(
        &self,
        set: &StatefulSet,
        key: &Key,
        counts: &Counts,
        update: &str,
    ) -> Result<Option<Duration>, Error> {
        let old = set.status.clone().unwrap_or_default();
        let unchanged = set.status.is_some()
            && old.replicas == counts.replicas
            && old.ready_replicas.unwrap_or(0) == counts.ready
            && old.available_replicas.unwrap_or(0) == counts.available
            && old.current_replicas.unwrap_or(0) == counts.current
            && old.updated_replicas.unwrap_or(0) == counts.updated
            && old.current_revision.as_ref() == Some(&counts.current_revision)
            && old.update_revision.as_deref() == Some(update)
            && old.observed_generation == set.metadata.generation;
        if !unchanged {
            let some = |n: i32| (n != 0).then_some(n);
            let patch = json!({ "metadata": { "uid": set.uid() }, "status": {
                "replicas": counts.replicas,
                "readyReplicas": some(counts.ready),
                "availableReplicas": counts.available,
                "currentReplicas": some(counts.current),
                "updatedReplicas": some(counts.updated),
                "currentRevision": counts.current_revision,
                "updateRevision": update,
                "collisionCount": old.collision_count.unwrap_or(0),
                "observedGeneration": set.metadata.generation,
            }});
            let patched =
                self.api(key).patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            found(patched).doing(|| format!("write the status of stateful set {key}"))?;
        }
        Ok(counts.next_available)
    }
}
