//! What follows from a node's health: conditions when it falls silent, taints, evictions, pods marked not ready, pods of nodes that are gone.
//!
//! Woken by: the node, its Lease (each renewal moves its deadline), its pods. Reads: nodes, leases, pods. Writes: node conditions and taints,
//! pod conditions, pod deletions. Promises: a node that renews its Lease is never called unreachable; a pod is evicted only by a NoExecute
//! taint it does not tolerate (any longer); a restart of ours gives every node a full grace period first.

mod plan;

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::pods;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use crate::recorder::{Recorder, Severity};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, PodCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use plan::Health;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a node may be silent (upstream's `--node-monitor-grace-period`).
const GRACE: Duration = Duration::from_secs(50);
/// How long the pods of a node that is gone stay (upstream's quarantine).
const QUARANTINE: Duration = Duration::from_secs(40);

/// The controller.
pub struct NodeLifecycle {
    nodes: Arc<Informer<Node>>,
    leases: Arc<Informer<Lease>>,
    pods: Arc<Informer<Pod>>,
    /// Last sign of life of each node, by our own clock: clocks of nodes may be wrong.
    seen: Arc<Mutex<BTreeMap<Key, Instant>>>,
    /// Nodes missing since.
    missing: Mutex<BTreeMap<Key, Instant>>,
    /// Nodes announced.
    announced: Mutex<BTreeSet<String>>,
    client: Client,
    recorder: Recorder,
}

impl NodeLifecycle {
    /// Registers for what wakes it.
    #[must_use]
    pub fn new(cluster: &Cluster, client: Client, recorder: Recorder, queue: &Arc<Queue>) -> Self {
        let seen: Arc<Mutex<BTreeMap<Key, Instant>>> = Arc::default();
        let (wake, heard) = (queue.clone(), seen.clone());
        cluster.nodes.on_change(move |old, new| {
            let Some(node) = new.or(old) else { return };
            let key = key_of(&**node);
            let heartbeat = |n: &Arc<Node>| ready(n).and_then(|c| c.last_heartbeat_time.clone());
            if new.is_some() && old.map(heartbeat) != new.map(heartbeat) {
                heard.lock().insert(key.clone(), Instant::now());
            }
            wake.add(key);
        });
        let (wake, heard) = (queue.clone(), seen.clone());
        cluster.leases.on_change(move |old, new| {
            let Some(lease) = new.or(old) else { return };
            let renewed = |l: &Arc<Lease>| l.spec.as_ref().and_then(|s| s.renew_time.clone());
            if new.is_some() && old.map(renewed) != new.map(renewed) {
                let key = Key::new("", &lease.name_any());
                heard.lock().insert(key.clone(), Instant::now());
                // healthy nodes renew all the time: only one called silent has news in this
                if old.is_none() {
                    wake.add(key);
                }
            }
        });
        let wake = queue.clone();
        cluster.pods.on_change(move |old, new| {
            let node = |pod: &Arc<Pod>| pod.spec.as_ref().and_then(|s| s.node_name.clone());
            if let Some(name) = new.and_then(node)
                && old.and_then(node).as_ref() != Some(&name)
            {
                wake.add(Key::new("", &name));
            }
        });
        Self {
            nodes: cluster.nodes.clone(),
            leases: cluster.leases.clone(),
            pods: cluster.pods.clone(),
            seen,
            missing: Mutex::default(),
            announced: Mutex::default(),
            client,
            recorder,
        }
    }
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready")
}

impl Reconcile for NodeLifecycle {
    const NAME: &'static str = "node-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(node) = self.nodes.get(key) else { return self.gone(key).await };
        self.missing.lock().remove(key);
        if self.announced.lock().insert(node.uid().unwrap_or_default()) {
            let message = format!("Node {key} event: Registered Node {key} in Controller");
            self.recorder.record(Self::NAME, &*node, Severity::Normal, "RegisteredNode", message);
        }
        let last = *self.seen.lock().entry(key.clone()).or_insert_with(Instant::now);
        let silent_for = last.elapsed();
        if silent_for >= GRACE {
            self.call_silent(&node, key).await?;
        }
        let health = Health::of(&node, silent_for >= GRACE);
        self.write_taints(&node, key, health).await?;
        let mut next = GRACE.saturating_sub(silent_for).max(Duration::from_secs(1));
        if health != Health::Ready {
            self.mark_pods_unready(key).await?;
        }
        if let Some(wait) = self.evict(&node, key).await? {
            next = next.min(wait);
        }
        Ok(Some(next))
    }
}

impl NodeLifecycle {
    fn pods_on(&self, key: &Key) -> Vec<Arc<Pod>> {
        let all = self.pods.list("").into_iter();
        all.filter(|p| p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(&*key.name)).collect()
    }

    /// A node is gone: so are its pods, whoever shall say so.
    async fn gone(&self, key: &Key) -> Result<Option<Duration>, Error> {
        self.seen.lock().remove(key);
        let pods = self.pods_on(key);
        if pods.is_empty() {
            self.missing.lock().remove(key);
            return Ok(None);
        }
        let since = *self.missing.lock().entry(key.clone()).or_insert_with(Instant::now);
        if since.elapsed() < QUARANTINE {
            return Ok(Some(QUARANTINE.saturating_sub(since.elapsed())));
        }
        for pod in pods {
            self.remove_orphan(&pod).await?;
        }
        Ok(None)
    }

    async fn remove_orphan(&self, pod: &Pod) -> Result<(), Error> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        if !pods::finished(pod) {
            let condition = json!([{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists", "lastTransitionTime": Time(Timestamp::now()),
            }]);
            let patch = json!({ "metadata": { "uid": pod.uid() }, "status": { "phase": "Failed", "conditions": condition } });
            let patched = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            found(patched).doing(|| format!("mark pod {namespace}/{name} of a node that is gone"))?;
        }
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        found(api.delete(&name, &params).await)
            .map(drop)
            .doing(|| format!("delete pod {namespace}/{name} of a node that is gone"))
    }

    /// Every condition of a silent node becomes Unknown.
    async fn call_silent(&self, node: &Node, key: &Key) -> Result<(), Error> {
        let now = Time(Timestamp::now());
        let old = node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        let mut changed = Vec::new();
        for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
            let condition = old.iter().find(|c| c.type_ == kind);
            if condition.is_some_and(|c| c.status == "Unknown") {
                continue;
            }
            let (reason, message) = match condition {
                Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            };
            changed.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                last_heartbeat_time: condition
                    .and_then(|c| c.last_heartbeat_time.clone())
                    .or_else(|| node.creation_timestamp()),
                last_transition_time: Some(now.clone()),
            });
        }
        if changed.is_empty() {
            return Ok(());
        }
        if ready(node).is_some_and(|c| c.status == "True") {
            let message = format!("Node {key} status is now: NodeNotReady");
            self.recorder.record(Self::NAME, node, Severity::Normal, "NodeNotReady", message);
        }
        let api: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Strategic(json!({ "status": { "conditions": changed } }));
        found(api.patch_status(&key.name, &PatchParams::default(), &patch).await)
            .map(drop)
            .doing(|| format!("mark node {key} unknown"))
    }

    async fn write_taints(&self, node: &Node, key: &Key, health: Health) -> Result<(), Error> {
        let old = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
        let Some(new) = plan::taints(node, &old, health, Timestamp::now()) else { return Ok(()) };
        let api: Api<Node> = Api::all(self.client.clone());
        // the whole list is written, so it must be the list that was read
        let patch =
            json!({ "metadata": { "resourceVersion": node.resource_version() }, "spec": { "taints": new } });
        found(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)
            .map(drop)
            .doing(|| format!("taint node {key}"))
    }

    async fn mark_pods_unready(&self, key: &Key) -> Result<(), Error> {
        for pod in self.pods_on(key) {
            let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
            let is_ready =
                conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
            if !is_ready || pods::finished(&pod) {
                continue;
            }
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            let condition = PodCondition {
                type_: "Ready".to_owned(),
                status: "False".to_owned(),
                last_transition_time: Some(Time(Timestamp::now())),
                ..PodCondition::default()
            };
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
            let patch = json!({ "metadata": { "uid": pod.uid() }, "status": { "conditions": [condition] } });
            let patched = api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            found(patched).doing(|| format!("mark pod {namespace}/{name} not ready"))?;
            self.recorder.record(
                Self::NAME,
                &*pod,
                Severity::Warning,
                "NodeNotReady",
                "Node is not ready".to_owned(),
            );
        }
        Ok(())
    }

    /// Evicts pods that do not tolerate a NoExecute taint (any longer); gives the time until the next one's time is up.
    async fn evict(&self, node: &Node, key: &Key) -> Result<Option<Duration>, Error> {
        let taints: Vec<Taint> = node
            .spec
            .iter()
            .flat_map(|s| s.taints.iter().flatten())
            .filter(|t| t.effect == "NoExecute")
            .cloned()
            .collect();
        if taints.is_empty() {
            return Ok(None);
        }
        let now = Timestamp::now();
        let mut next = None;
        for pod in self.pods_on(key).into_iter().filter(|p| pods::active(p)) {
            match plan::eviction(&pod, &taints, now) {
                plan::Eviction::Never => {}
                plan::Eviction::After(wait) => next = Some(next.map_or(wait, |n: Duration| n.min(wait))),
                plan::Eviction::Now => {
                    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
                    let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
                    let message = format!("Marking for deletion Pod {namespace}/{name}");
                    self.recorder.record(
                        "taint-eviction-controller",
                        &*pod,
                        Severity::Normal,
                        "TaintManagerEviction",
                        message,
                    );
                    let condition = json!([{
                        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
                        "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": Time(now),
                    }]);
                    let patch =
                        json!({ "metadata": { "uid": pod.uid() }, "status": { "conditions": condition } });
                    let patched =
                        api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(patch)).await;
                    found(patched).doing(|| format!("mark pod {namespace}/{name} for eviction"))?;
                    let only_this = Preconditions { uid: pod.uid(), resource_version: None };
                    let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
                    found(api.delete(&name, &params).await)
                        .doing(|| format!("evict pod {namespace}/{name}"))?;
                }
            }
        }
        Ok(next)
    }

    /// Wakes every node that pods name but that does not exist; called once after the first lists.
    pub fn adopt_existing(&self, queue: &Queue) {
        let names: BTreeSet<String> =
            self.pods.list("").iter().filter_map(|p| p.spec.as_ref()?.node_name.clone()).collect();
        names
            .into_iter()
            .map(|n| Key::new("", &n))
            .filter(|k| self.nodes.get(k).is_none())
            .for_each(|k| queue.add(k));
        let _ = &self.leases;
    }
}
