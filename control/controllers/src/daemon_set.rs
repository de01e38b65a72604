//! DaemonSet: one pod on every eligible node.
//!
//! Woken by: the set, its pods, its revisions, a node that became (or stopped being) eligible, the end of a failed pod's pause, and the
//! moment a pod becomes available. Reads: all of these. Writes: pods (create, delete, adopt, release), controller revisions, the set's
//! status. Promises: never acts on a count that its own writes have already changed ([`Expectations`]); a rollout stays within
//! `maxUnavailable` and `maxSurge`; a pod that fails again and again is remade ever more slowly.

mod eligible;
mod plan;

use crate::backoff::Backoff;
use crate::claim::{Claim, pod_changed, selector};
use crate::cluster::Cluster;
use crate::expectations::Expectations;
use crate::history::{History, RevisionSpec, Revisions};
use crate::informer::{Informer, key_of};
use crate::pods::{PodControl, from_template, slow_start};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use crate::recorder::{Recorder, Severity};
use eligible::{Fit, HASH_LABEL, fit, template_for};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use machinery::labels::Selector;
use plan::{Steps, View, by_node};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Most pods made or removed in one go (upstream's `BurstReplicas`).
const BURST: usize = 250;
/// First and longest pause before a failed pod is remade.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15 * 60));

pub(crate) struct DaemonSets {
    sets: Arc<Informer<DaemonSet>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    revisions: Revisions,
    control: Arc<PodControl>,
    failures: Backoff<(String, String)>,
}

impl DaemonSets {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, recorder: Recorder, queue: &Arc<Queue>) -> Self {
        let revisions = Revisions::new(cluster, client.clone());
        let control =
            PodControl { client, recorder, expectations: Expectations::default(), component: Self::NAME };
        let this = Self {
            sets: cluster.daemon_sets.clone(),
            pods: cluster.pods.clone(),
            nodes: cluster.nodes.clone(),
            revisions,
            control: Arc::new(control),
            failures: Backoff::new(PAUSES.0, PAUSES.1),
        };
        let wake = queue.clone();
        this.sets.on_change(move |old, new| {
            if let Some(set) = new.or(old) {
                wake.add(key_of(&**set));
            }
        });
        let (wake, sets, control) = (queue.clone(), this.sets.clone(), this.control.clone());
        this.pods.on_change(move |old, new| {
            pod_changed((old, new), &sets, Some(&control.expectations), &wake, set_selector);
        });
        let wake = queue.clone();
        cluster.revisions.on_change(move |old, new| {
            for revision in [old, new].into_iter().flatten() {
                let owners = revision.owner_references();
                if let Some(owner) =
                    owners.iter().find(|o| o.controller == Some(true) && o.kind == "DaemonSet")
                {
                    wake.add(Key::new(revision.namespace().as_deref().unwrap_or_default(), &owner.name));
                }
            }
        });
        let (wake, sets) = (queue.clone(), this.sets.clone());
        this.nodes.on_change(move |old, new| {
            // a heartbeat changes nothing here
            for set in sets.list("") {
                if old.map(|n| fit(&set, n)) != new.map(|n| fit(&set, n)) {
                    wake.add(key_of(&*set));
                }
            }
        });
        this
    }
}

fn set_selector(set: &DaemonSet) -> Result<Selector, Error> {
    selector(set.spec.as_ref().map(|s| &s.selector), &set.name_any())
}

impl Reconcile for DaemonSets {
    const NAME: &'static str = "daemonset-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(set) = self.sets.get(key) else {
            self.control.expectations.forget(key);
            return Ok(None);
        };
        let selector = set_selector(&set)?;
        if selector.is_empty() {
            let message =
                "This daemon set is selecting all pods. A non-empty selector is required.".to_owned();
            self.control.recorder.record(Self::NAME, &*set, Severity::Warning, "SelectingAll", message);
            return Ok(None);
        }
        // what it owned may have gone before it: nothing true can be said of it any more
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let history = self.history(&set, key, &selector).await?;
        let hash = history.current.labels().get(HASH_LABEL).cloned().unwrap_or_default();
        let nodes: Vec<(String, Fit)> =
            self.nodes.list("").iter().map(|node| (node.name_any(), fit(&set, node))).collect();
        if !self.control.expectations.met(key) {
            let pods = Claim::default().pods(&self.control.client, &self.pods, &*set, key, &selector).await?;
            return self.write_status(&set, key, &nodes, &pods, &hash, false).await;
        }
        let mut waits = None;
        let acted = self.act(&set, key, &selector, &nodes, &hash, &history, &mut waits).await;
        let pods = self.pods.owned_by(&set.uid().unwrap_or_default());
        let after = self.write_status(&set, key, &nodes, &pods, &hash, true).await?;
        acted.map(|()| [after, waits].into_iter().flatten().min())
    }
}

impl DaemonSets {
    async fn history(&self, set: &DaemonSet, key: &Key, selector: &Selector) -> Result<History, Error> {
        let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        let collisions = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
        let wanted = RevisionSpec { template: &template, hash_label: HASH_LABEL, labels, collisions };
        let synced = self.revisions.sync(set, key, selector, wanted).await;
        if synced.as_ref().is_err_and(Error::is_conflict) {
            let api: Api<DaemonSet> = Api::namespaced(self.control.client.clone(), &key.namespace);
            let patch = Patch::Merge(json!({ "status": { "collisionCount": collisions + 1 } }));
            let patched = api.patch_status(&key.name, &PatchParams::default(), &patch).await;
            patched.doing(|| format!("count a name collision of daemon set {key}"))?;
        }
        synced
    }

    #[allow(clippy::too_many_arguments, reason = "one call's state, nowhere else")]
    async fn act(
        &self,
        set: &DaemonSet,
        key: &Key,
        selector: &Selector,
        nodes: &[(String, Fit)],
        hash: &str,
        history: &History,
        waits: &mut Option<Duration>,
    ) -> Result<(), Error> {
        let pods = Claim::default().pods(&self.control.client, &self.pods, set, key, selector).await?;
        let grouped = by_node(&pods);
        let view = View { set, nodes, pods: &grouped, hash, now: Timestamp::now() };
        let uid = set.uid().unwrap_or_default();
        let steps = view.manage(|node| {
            let wait = self.failures.wait_or_begin((uid.clone(), node.to_owned()));
            *waits = [*waits, wait].into_iter().flatten().min();
            wait.is_some()
        });
        for (pod, node) in &steps.ended {
            let name = format!("{}/{}", key.namespace, pod.name_any());
            let (severity, reason, message) = if crate::pods::phase(pod) == "Failed" {
                let message = format!("Found failed daemon pod {name} on node {node}, will try to kill it");
                (Severity::Warning, "FailedDaemonPod", message)
            } else {
                let message =
                    format!("Found succeeded daemon pod {name} on node {node}, will try to delete it");
                (Severity::Normal, "SucceededDaemonPod", message)
            };
            self.control.recorder.record(Self::NAME, set, severity, reason, message);
        }
        self.execute(set, key, hash, steps).await?;
        let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
        let on_delete = strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete");
        if !on_delete && self.control.expectations.met(key) {
            self.execute(set, key, hash, view.roll()).await?;
        }
        let limit = set.spec.as_ref().and_then(|s| s.revision_history_limit);
        let live = |revision: &k8s_openapi::api::apps::v1::ControllerRevision| {
            let hash = revision.labels().get(HASH_LABEL);
            pods.iter().any(|p| p.labels().get(HASH_LABEL) == hash)
        };
        self.revisions.truncate(key, &history.old, limit, live).await
    }

    async fn execute(&self, set: &DaemonSet, key: &Key, hash: &str, mut steps: Steps) -> Result<(), Error> {
        steps.create.truncate(BURST);
        steps.delete.truncate(BURST);
        let nodes = &steps.create;
        let (_, created) = slow_start(nodes.len(), |at| async move {
            let pod = from_template(&template_for(set, hash, &nodes[at]), set);
            self.control.create(set, key, &pod).await
        })
        .await;
        let removals = steps.delete.iter().map(|pod| self.control.delete(set, key, pod));
        let removed: Result<(), Error> = futures::future::join_all(removals).await.into_iter().collect();
        created.and(removed)
    }

    async fn write_status(
        &self,
        set: &DaemonSet,
        key: &Key,
        nodes: &[(String, Fit)],
        pods: &[Arc<Pod>],
        hash: &str,
        acted: bool,
    ) -> Result<Option<Duration>, Error> {
        let grouped = by_node(pods);
        let counts = View { set, nodes, pods: &grouped, hash, now: Timestamp::now() }.counts();
        let old = set.status.clone().unwrap_or_default();
        let unavailable = counts.desired - counts.available;
        let observed = if acted { set.metadata.generation } else { old.observed_generation };
        let unchanged = set.status.is_some()
            && old.desired_number_scheduled == counts.desired
            && old.current_number_scheduled == counts.current
            && old.number_misscheduled == counts.misscheduled
            && old.number_ready == counts.ready
            && old.updated_number_scheduled.unwrap_or(0) == counts.updated
            && old.number_available.unwrap_or(0) == counts.available
            && old.number_unavailable.unwrap_or(0) == unavailable
            && old.observed_generation == observed;
        if !unchanged {
            let some = |n: i32| (n != 0).then_some(n);
            let api: Api<DaemonSet> = Api::namespaced(self.control.client.clone(), &key.namespace);
            let patch = json!({ "metadata": { "uid": set.uid() }, "status": {
                "desiredNumberScheduled": counts.desired,
                "currentNumberScheduled": counts.current,
                "numberMisscheduled": counts.misscheduled,
                "numberReady": counts.ready,
                "updatedNumberScheduled": some(counts.updated),
                "numberAvailable": some(counts.available),
                "numberUnavailable": some(unavailable),
                "observedGeneration": observed,
            }});
            let patched = api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            found(patched).doing(|| format!("write the status of daemon set {key}"))?;
        }
        Ok(counts.next_available)
    }
}
