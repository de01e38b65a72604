//! Deployment: replica sets, one a template, and the way from one to the next.
//!
//! Woken by: the deployment, its replica sets, and the progress deadline. Reads: both. Writes: replica sets (create, scale, annotate,
//! delete old ones), the deployment's revision annotation and status. Promises: within `maxSurge` and `maxUnavailable` at every step;
//! one step a call, the next when the informer shows what the last one did.

pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod revision;
mod rollback;

use crate::adoption::Adoption;
use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::pods::{controlled_by, message_of, terminating_namespace};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, code, found};
use crate::recorder::{Recorder, Severity};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, Client, ResourceExt};
use machinery::intstr::part;
use machinery::labels::Selector;
use plan::{Rollout, Set, Sizes};
use progress::Phase;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct Deployments {
    deployments: Arc<Informer<Deployment>>,
    sets: Arc<Informer<ReplicaSet>>,
    pods: Arc<Informer<Pod>>,
    client: Client,
    recorder: Recorder,
}

impl Deployments {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, recorder: Recorder, queue: &Arc<Queue>) -> Self {
        let (wake, deployments) = (queue.clone(), cluster.deployments.clone());
        cluster.deployments.on_change(move |old, new| {
            if let Some(deployment) = new.or(old) {
                wake.add(key_of(&**deployment));
            }
        });
        let wake = queue.clone();
        cluster.replica_sets.on_change(move |old, new| {
            for set in [old, new].into_iter().flatten() {
                let owner = set.owner_references().iter().find(|o| o.controller == Some(true));
                match owner {
                    Some(owner) if owner.kind == "Deployment" => {
                        wake.add(Key::new(set.namespace().as_deref().unwrap_or_default(), &owner.name));
                    }
                    Some(_) => {}
                    // an orphan: whoever selects it may adopt it
                    None => {
                        for deployment in deployments.list(set.namespace().as_deref().unwrap_or_default()) {
                            if selector(&deployment).is_ok_and(|s| !s.is_empty() && s.matches(set.labels())) {
                                wake.add(key_of(&*deployment));
                            }
                        }
                    }
                }
            }
        });
        let (wake, sets) = (queue.clone(), cluster.replica_sets.clone());
        cluster.pods.on_change(move |old, new| {
            // a deployment that recreates waits for its last old pod to go
            if let (Some(pod), None) = (old, new)
                && let Some(owner) = pod
                    .owner_references()
                    .iter()
                    .find(|o| o.controller == Some(true) && o.kind == "ReplicaSet")
                && let Some(set) =
                    sets.get(&Key::new(pod.namespace().as_deref().unwrap_or_default(), &owner.name))
                && let Some(owner) = set
                    .owner_references()
                    .iter()
                    .find(|o| o.controller == Some(true) && o.kind == "Deployment")
            {
                wake.add(Key::new(set.namespace().as_deref().unwrap_or_default(), &owner.name));
            }
        });
        Self {
            deployments: cluster.deployments.clone(),
            sets: cluster.replica_sets.clone(),
            pods: cluster.pods.clone(),
            client,
            recorder,
        }
    }
}

fn selector(deployment: &Deployment) -> Result<Selector, Error> {
    let value = serde_json::to_value(deployment.spec.as_ref().map(|s| &s.selector))
        .map_err(|e| Error::Unusable(e.to_string()))?;
    Selector::from_label_selector(&value)
        .map_err(|e| Error::Unusable(format!("selector of {}: {e}", deployment.name_any())))
}

/// Reads the strategy; percentages are of `spec.replicas`, the surge rounded up, the unavailable rounded down; not both are zero.
fn wanted(deployment: &Deployment) -> Rollout {
    let spec = deployment.spec.as_ref();
    let replicas = spec.and_then(|s| s.replicas).unwrap_or(1);
    let strategy = spec.and_then(|s| s.strategy.as_ref());
    let recreate = strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate");
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let surge = rolling.and_then(|r| r.max_surge.as_ref()).map_or(0, |s| part(s, replicas, true));
    let unavailable =
        rolling.and_then(|r| r.max_unavailable.as_ref()).map_or(0, |u| part(u, replicas, false));
    let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
    let shown = deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    Rollout { replicas, surge, unavailable: unavailable.min(replicas), recreate, shown }
}

impl Reconcile for Deployments {
    const NAME: &'static str = "deployment-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(deployment) = self.deployments.get(key) else { return Ok(None) };
        let selector = selector(&deployment)?;
        if selector.is_empty() {
            let message =
                "This deployment is selecting all pods. A non-empty selector is required.".to_owned();
            self.recorder.record(Self::NAME, &*deployment, Severity::Warning, "SelectingAll", message);
            return Ok(None);
        }
        let mut sets = self.claim(&deployment, key, &selector).await?;
        sets.sort_by_key(|s| (s.creation_timestamp().map(|t| t.0), s.name_any()));
        if deployment.metadata.deletion_timestamp.is_some() {
            return self.write_status(&deployment, key, &sets, Phase::Resting).await;
        }
        let wanted = wanted(&deployment);
        self.note_pause(&deployment, key).await?;
        let paused = deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
        if let Some(wished) = rollback::wished(&deployment).filter(|_| !paused) {
            return self.roll_back(&deployment, key, &mut sets, wanted, wished).await.map(|()| None);
        }
        if paused || resized(&sets, wanted) {
            self.annotate_new(&deployment, key, &sets).await?;
            let sizes = plan::scale(wanted, &views(&deployment, &sets));
            self.resize(&deployment, key, &sets, wanted, &sizes, true).await?;
            if paused {
                self.clean_up(&deployment, key, &sets).await?;
            }
            return self.write_status(&deployment, key, &sets, Phase::Resting).await;
        }
        if wanted.recreate {
            self.recreate(&deployment, key, &mut sets, wanted).await?;
        } else {
            self.ensure_new(&deployment, key, &mut sets, wanted).await?;
            let sizes = plan::roll(wanted, &views(&deployment, &sets));
            self.resize(&deployment, key, &sets, wanted, &sizes, false).await?;
        }
        let after = self.write_status(&deployment, key, &sets, Phase::Rolling).await?;
        if deployment.status.as_ref().is_some_and(|s| progress::complete(&deployment, s)) {
            self.clean_up(&deployment, key, &sets).await?;
        }
        Ok(after)
    }
}

/// Whether the deployment's size changed since its sets were scaled last.
fn resized(sets: &[Arc<ReplicaSet>], wanted: Rollout) -> bool {
    let active = sets.iter().filter(|s| size(s) > 0);
    let noted = active.filter_map(|s| s.annotations().get(revision::DESIRED)?.parse::<i32>().ok());
    noted.into_iter().any(|desired| desired != wanted.replicas)
}

fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn views(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Vec<Set> {
    let new = revision::find_new(deployment, sets).map(|s| s.name_any());
    sets.iter()
        .map(|set| Set {
            name: set.name_any(),
            replicas: size(set),
            available: set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0),
            new: Some(set.name_any()) == new,
            max_replicas: set.annotations().get(revision::MAX).and_then(|m| m.parse().ok()),
            desired: set.annotations().get(revision::DESIRED).and_then(|d| d.parse().ok()),
        })
        .collect()
}

impl Deployments {
    fn set_api(&self, key: &Key) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    fn api(&self, key: &Key) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    /// Its own sets, plus orphans it selects (adopted), less those it no longer selects (released).
    async fn claim(
        &self,
        deployment: &Deployment,
        key: &Key,
        selector: &Selector,
    ) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let uid = deployment.uid().unwrap_or_default();
        let mut adoption = Adoption::default();
        let mut mine = Vec::new();
        let mut changed = Vec::new();
        for set in self.sets.owned_by(&uid) {
            if selector.matches(set.labels()) {
                mine.push(set);
            } else {
                let owners: Vec<_> =
                    set.owner_references().iter().filter(|o| o.uid != uid).cloned().collect();
                changed.push((set, owners));
            }
        }
        if deployment.metadata.deletion_timestamp.is_none() {
            for set in self.sets.list(&key.namespace) {
                if crate::informer::controller_uid(&*set).is_none()
                    && set.metadata.deletion_timestamp.is_none()
                    && selector.matches(set.labels())
                {
                    adoption.allowed(&self.client, deployment, key).await?;
                    let owners =
                        set.owner_references().iter().cloned().chain([controlled_by(deployment)]).collect();
                    changed.push((set.clone(), owners));
                    mine.push(set);
                }
            }
        }
        for (set, owners) in changed {
            let patch = json!({ "metadata": { "uid": set.uid(), "ownerReferences": owners } });
            let patched =
                self.set_api(key).patch(&set.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
            found(patched)
                .doing(|| format!("change the owners of replica set {}/{}", key.namespace, set.name_any()))?;
        }
        Ok(mine)
    }

    /// Keeps the new set's annotations; makes the set when there is none. The new one is in `sets` afterwards.
    async fn ensure_new(
        &self,
        deployment: &Deployment,
        key: &Key,
        sets: &mut Vec<Arc<ReplicaSet>>,
        wanted: Rollout,
    ) -> Result<(), Error> {
        if self.annotate_new(deployment, key, sets).await? {
            return Ok(());
        }
        let newest = sets.iter().map(|s| revision::revision(s)).max().unwrap_or(0) + 1;
        let size = plan::first_size(wanted, &views(deployment, sets));
        let set = revision::new_set(deployment, size, newest, wanted.most());
        let name = set.name_any();
        let created = match self.set_api(key).create(&PostParams::default(), &set).await {
            Ok(created) => created,
            Err(error) if code(&error) == Some(409) => {
                return self.taken(deployment, key, &name, error).await;
            }
            // whatever is made in it fails, and nobody reads of it any more
            Err(error) if terminating_namespace(&error) => {
                return Err(error).doing(|| format!("create replica set {}/{name}", key.namespace));
            }
            Err(error) => {
                let (reason, why) = ("ReplicaSetCreateError", message_of(&error));
                let message = format!("Failed to create new replica set \"{name}\": {why}");
                self.write_progress(deployment, key, "False", reason, &message).await?;
                self.recorder.record(Self::NAME, deployment, Severity::Warning, reason, message);
                return Err(error).doing(|| format!("create replica set {}/{name}", key.namespace));
            }
        };
        if size > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {size}");
            self.recorder.record(Self::NAME, deployment, Severity::Normal, "ScalingReplicaSet", message);
        }
        sets.push(Arc::new(created));
        self.note_revision(deployment, key, newest).await?;
        self.write_progress(
            deployment,
            key,
            "True",
            "NewReplicaSetCreated",
            &format!("Created new replica set \"{name}\""),
        )
        .await
    }

    /// The name is taken: by our own set that the informer has not shown yet, or by another template with the same hash.
    async fn taken(
        &self,
        deployment: &Deployment,
        key: &Key,
        name: &str,
        error: kube::Error,
    ) -> Result<(), Error> {
        let there = self
            .set_api(key)
            .get_opt(name)
            .await
            .doing(|| format!("read replica set {}/{name}", key.namespace))?;
        let ours = there.is_some_and(|set| {
            let same = [Arc::new(set.clone())];
            crate::informer::controller_uid(&set) == deployment.metadata.uid.as_deref()
                && revision::find_new(deployment, &same).is_some()
        });
        if !ours {
            let collisions = deployment.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0) + 1;
            let patch = json!({ "status": { "collisionCount": collisions } });
            let patched =
                self.api(key).patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            patched.doing(|| format!("count a name collision of deployment {key}"))?;
        }
        Err(error).doing(|| format!("create replica set {}/{name}", key.namespace))
    }

    /// Brings the new set's annotations and the deployment's revision up to date; false when there is no new set.
    async fn annotate_new(
        &self,
        deployment: &Deployment,
        key: &Key,
        sets: &[Arc<ReplicaSet>],
    ) -> Result<bool, Error> {
        let Some(set) = revision::find_new(deployment, sets) else { return Ok(false) };
        let others = sets
            .iter()
            .filter(|s| s.name_any() != set.name_any())
            .map(|s| revision::revision(s))
            .max()
            .unwrap_or(0);
        let wanted = revision::revision(set).max(others + 1);
        let missing = revision::missing_annotations(deployment, set, wanted);
        let min_ready = deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
        let stale =
            set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0) != min_ready.unwrap_or(0);
        if !missing.is_empty() || stale {
            let patch = json!({ "metadata": { "annotations": missing }, "spec": { "minReadySeconds": min_ready.unwrap_or(0) } });
            let name = set.name_any();
            let patched = self.set_api(key).patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
            patched.doing(|| format!("annotate replica set {}/{name}", key.namespace))?;
        }
        self.note_revision(deployment, key, wanted).await?;
        let conditions = deployment.status.as_ref().and_then(|s| s.conditions.as_ref());
        if conditions.is_none_or(|c| c.iter().all(|c| c.type_ != "Progressing")) {
            let message = format!("Found new replica set \"{}\"", set.name_any());
            self.write_progress(deployment, key, "True", "FoundNewReplicaSet", &message).await?;
        }
        Ok(true)
    }

    async fn note_revision(&self, deployment: &Deployment, key: &Key, revision: i64) -> Result<(), Error> {
        let revision = revision.to_string();
        if deployment.annotations().get(revision::REVISION) == Some(&revision) {
            return Ok(());
        }
        // With the status, as upstream writes it: annotations written with the object count as a change of it.
        let patch = json!({ "metadata": { "annotations": { revision::REVISION: revision } } });
        let patched =
            self.api(key).patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(patched).map(drop).doing(|| format!("note the revision of deployment {key}"))
    }

    async fn note_pause(&self, deployment: &Deployment, key: &Key) -> Result<(), Error> {
        let paused = deployment.spec.as_ref().and_then(|s| s.paused).unwrap_or(false);
        let conditions = deployment.status.as_ref().and_then(|s| s.conditions.as_ref());
        let reason = conditions.and_then(|c| c.iter().find(|c| c.type_ == "Progressing")?.reason.as_deref());
        match (paused, reason) {
            (true, Some("DeploymentPaused")) => Ok(()),
            // that it made no progress is not taken back by a pause
            (_, Some("ProgressDeadlineExceeded")) => Ok(()),
            (true, _) => {
                self.write_progress(deployment, key, "Unknown", "DeploymentPaused", "Deployment is paused")
                    .await
            }
            (false, Some("DeploymentPaused")) => {
                self.write_progress(deployment, key, "Unknown", "DeploymentResumed", "Deployment is resumed")
                    .await
            }
            (false, _) => Ok(()),
        }
    }

    /// Notes how far the rollout is; nothing where no deadline asks for it.
    async fn write_progress(
        &self,
        deployment: &Deployment,
        key: &Key,
        status: &str,
        reason: &str,
        message: &str,
    ) -> Result<(), Error> {
        if progress::deadline(deployment).is_none() {
            return Ok(());
        }
        let old = deployment.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        let mut conditions = old.clone();
        progress::set(
            &mut conditions,
            progress::condition("Progressing", status, reason, message, Timestamp::now()),
        );
        if conditions == old {
            return Ok(());
        }
        let patch = json!({ "status": { "conditions": conditions } });
        let patched =
            self.api(key).patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(patched).map(drop).doing(|| format!("write the status of deployment {key}"))
    }

    /// Sets sizes, with the annotations that proportional scaling reads later.
    async fn resize(
        &self,
        deployment: &Deployment,
        key: &Key,
        sets: &[Arc<ReplicaSet>],
        wanted: Rollout,
        sizes: &Sizes,
        note_all: bool,
    ) -> Result<(), Error> {
        for set in sets {
            let (name, before) = (set.name_any(), size(set));
            let after = sizes.get(&name).copied().unwrap_or(before);
            let noted = set.annotations().get(revision::DESIRED).and_then(|d| d.parse().ok())
                == Some(wanted.replicas)
                && set.annotations().get(revision::MAX).and_then(|m| m.parse().ok()) == Some(wanted.most());
            if after == before && (noted || !note_all || before == 0) {
                continue;
            }
            let annotations = json!({ revision::DESIRED: wanted.replicas.to_string(), revision::MAX: wanted.most().to_string() });
            let patch = json!({ "metadata": { "annotations": annotations }, "spec": { "replicas": after } });
            let patched = self.set_api(key).patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
            found(patched).doing(|| format!("scale replica set {}/{name}", key.namespace))?;
            if after != before {
                let direction = if after > before { "up" } else { "down" };
                let message = format!("Scaled {direction} replica set {name} from {before} to {after}");
                self.recorder.record(Self::NAME, deployment, Severity::Normal, "ScalingReplicaSet", message);
            }
        }
        Ok(())
    }

    /// Takes the deployment back to an earlier revision, whose template its own change then brings here.
    async fn roll_back(
        &self,
        deployment: &Deployment,
        key: &Key,
        sets: &mut Vec<Arc<ReplicaSet>>,
        wanted: Rollout,
        wished: i64,
    ) -> Result<(), Error> {
        self.ensure_new(deployment, key, sets, wanted).await?;
        let back = rollback::roll_back(deployment, sets, wished);
        let tell = |severity| {
            self.recorder.record(Self::NAME, deployment, severity, back.reason, back.message.clone())
        };
        if !back.done {
            tell(Severity::Warning);
        }
        let replaced = self.api(key).replace(&key.name, &PostParams::default(), &back.deployment).await;
        found(replaced).doing(|| format!("roll deployment {key} back"))?;
        if back.done {
            tell(Severity::Normal);
        }
        Ok(())
    }

    /// Old sets go to zero; the new one comes when no old pod runs any more.
    async fn recreate(
        &self,
        deployment: &Deployment,
        key: &Key,
        sets: &mut Vec<Arc<ReplicaSet>>,
        wanted: Rollout,
    ) -> Result<(), Error> {
        let views_now = views(deployment, sets);
        let sizes: Sizes =
            views_now.iter().filter(|s| !s.new && s.replicas > 0).map(|s| (s.name.clone(), 0)).collect();
        if !sizes.is_empty() {
            return self.resize(deployment, key, sets, wanted, &sizes, false).await;
        }
        let new = revision::find_new(deployment, sets).map(|s| s.name_any());
        let old_sets = sets.iter().filter(|s| Some(s.name_any()) != new);
        let mut old_pods = old_sets.flat_map(|s| self.pods.owned_by(&s.uid().unwrap_or_default()));
        if old_pods.any(|pod| !crate::pods::finished(&pod)) {
            return Ok(());
        }
        self.ensure_new(deployment, key, sets, wanted).await?;
        let views_now = views(deployment, sets);
        let sizes = views_now
            .iter()
            .filter(|s| s.new && s.replicas != wanted.replicas)
            .map(|s| (s.name.clone(), wanted.replicas));
        self.resize(deployment, key, sets, wanted, &sizes.collect(), false).await
    }

    /// Old sets without pods beyond the history limit go, the oldest first.
    async fn clean_up(
        &self,
        deployment: &Deployment,
        key: &Key,
        sets: &[Arc<ReplicaSet>],
    ) -> Result<(), Error> {
        let limit = deployment.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
        let Ok(limit) = usize::try_from(limit) else { return Ok(()) };
        let new = revision::find_new(deployment, sets).map(|s| s.name_any());
        let mut old: Vec<&Arc<ReplicaSet>> = sets
            .iter()
            .filter(|s| Some(s.name_any()) != new && s.metadata.deletion_timestamp.is_none())
            .collect();
        old.sort_by_key(|s| revision::revision(s));
        let surplus = old.len().saturating_sub(limit);
        for set in old.into_iter().take(surplus) {
            let status = set.status.clone().unwrap_or_default();
            if status.replicas != 0 || size(set) != 0 || set.metadata.generation > status.observed_generation
            {
                continue;
            }
            let name = set.name_any();
            let params = DeleteParams {
                propagation_policy: Some(PropagationPolicy::Background),
                ..DeleteParams::default()
            };
            let deleted = self.set_api(key).delete(&name, &params).await;
            found(deleted).doing(|| format!("delete replica set {}/{name}", key.namespace))?;
        }
        Ok(())
    }

    async fn write_status(
        &self,
        deployment: &Deployment,
        key: &Key,
        sets: &[Arc<ReplicaSet>],
        phase: Phase,
    ) -> Result<Option<Duration>, Error> {
        // what this call wrote is not in `deployment`: the newest conditions count
        let deployment = self
            .api(key)
            .get_opt(&key.name)
            .await
            .doing(|| format!("read deployment {key}"))?
            .filter(|d| d.uid() == deployment.uid());
        let Some(deployment) = deployment else { return Ok(None) };
        let new = revision::find_new(&deployment, sets);
        let mut status = progress::counts(&deployment, sets, new);
        let now = Timestamp::now();
        progress::availability(wanted(&deployment), &mut status, now);
        let after = match phase {
            Phase::Resting => None,
            Phase::Rolling => progress::conclude(&deployment, sets, new, &mut status, now),
        };
        let zero_is_absent = |s: &k8s_openapi::api::apps::v1::DeploymentStatus| {
            let mut s = s.clone();
            for count in [
                &mut s.replicas,
                &mut s.updated_replicas,
                &mut s.ready_replicas,
                &mut s.available_replicas,
                &mut s.unavailable_replicas,
            ] {
                *count = count.filter(|n| *n != 0);
            }
            s
        };
        if deployment.status.as_ref().map(zero_is_absent) != Some(zero_is_absent(&status)) {
            let patch = json!({ "metadata": { "uid": deployment.uid() }, "status": status });
            let patched =
                self.api(key).patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            found(patched).doing(|| format!("write the status of deployment {key}"))?;
        }
        Ok(after)
    }
}
