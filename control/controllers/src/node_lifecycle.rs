//! What follows from a node's health: conditions when it falls silent, taints, pods marked not ready; the older names of its labels.
//!
//! Woken by: the node, its Lease (each renewal moves its deadline), pods that come to it. Reads: nodes, leases, pods. Writes: node conditions,
//! taints and labels, pod conditions. Promises: a node that renews its Lease is never called unreachable; a restart of ours gives every node
//! a full grace period first; what a living kubelet says of its pods is not contradicted; where no node at all is ready, nobody is sent
//! away: more likely we are cut off than they.

mod plan;

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::options::NodeHealth;
use crate::pods;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use crate::recorder::{Recorder, Severity};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use plan::{Health, Pace, Zone};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// No node is looked at more often by itself, whatever the period.
const SHORTEST: Duration = Duration::from_millis(100);
/// Nodes with this label do not count when it is judged whether a zone is lost.
const UNCOUNTED: &str = "node.kubernetes.io/exclude-disruption";
/// Labels and the older names they have too.
const OLDER_LABELS: [(&str, &str); 2] =
    [("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch")];

pub(crate) struct NodeLifecycle {
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    /// Last sign of life of each node, by our own clock: clocks of nodes may be wrong.
    seen: Arc<Mutex<BTreeMap<Key, Instant>>>,
    /// Nodes announced, with what their events are about.
    announced: Mutex<BTreeMap<Key, Arc<Node>>>,
    /// Nodes that fell silent, whose pods are still to be marked.
    unmarked: Arc<Mutex<BTreeSet<Key>>>,
    /// When pods were last sent away from a node of each zone.
    paced: Mutex<HashMap<(String, String), Instant>>,
    /// Every zone was lost when last looked at.
    cut_off: Mutex<bool>,
    options: NodeHealth,
    client: Client,
    recorder: Recorder,
}

impl NodeLifecycle {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        recorder: Recorder,
        options: NodeHealth,
        queue: &Arc<Queue>,
    ) -> Self {
        let seen: Arc<Mutex<BTreeMap<Key, Instant>>> = Arc::default();
        let unmarked: Arc<Mutex<BTreeSet<Key>>> = Arc::default();
        let (wake, heard, nodes) = (queue.clone(), seen.clone(), cluster.nodes.clone());
        cluster.nodes.on_change(move |old, new| {
            let Some(node) = new.or(old) else { return };
            let key = key_of(&**node);
            // whether a zone is lost decides for all its nodes
            let is_ready = |n: &Arc<Node>| ready(n).is_some_and(|c| c.status == "True");
            if old.map(is_ready) != new.map(is_ready) {
                nodes.list("").iter().for_each(|node| wake.add(key_of(&**node)));
            }
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
        let (wake, nodes, late) = (queue.clone(), cluster.nodes.clone(), unmarked.clone());
        cluster.pods.on_change(move |old, new| {
            let node = |pod: &Arc<Pod>| pod.spec.as_ref().and_then(|s| s.node_name.clone());
            let Some(name) = new.and_then(node).filter(|name| old.and_then(node).as_ref() != Some(name))
            else {
                return;
            };
            let key = Key::new("", &name);
            // a pod that comes to a node that is not ready is not ready either
            if nodes.get(&key).is_some_and(|n| ready(&n).is_some_and(|c| c.status != "True")) {
                late.lock().insert(key.clone());
                wake.add(key);
            }
        });
        Self {
            nodes: cluster.nodes.clone(),
            pods: cluster.pods.clone(),
            seen,
            announced: Mutex::default(),
            unmarked,
            paced: Mutex::default(),
            cut_off: Mutex::new(false),
            options,
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
        let Some(node) = self.nodes.get(key) else {
            self.gone(key);
            return Ok(None);
        };
        if self.announced.lock().insert(key.clone(), node.clone()).is_none() {
            let message = format!("Node {key} event: Registered Node {key} in Controller");
            self.recorder.record(Self::NAME, &*node, Severity::Normal, "RegisteredNode", message);
        }
        let last = *self.seen.lock().entry(key.clone()).or_insert_with(Instant::now);
        let silent_for = last.elapsed();
        let grace = if ready(&node).is_some() { self.options.grace } else { self.options.startup };
        if silent_for >= grace {
            self.call_silent(&node, key).await?;
        }
        let health = Health::of(&node, silent_for >= grace);
        self.write_labels(&node, key).await?;
        let (evicting, wait) = self.may_evict(&node, health);
        self.write_taints(&node, key, health, evicting).await?;
        if health == Health::Ready {
            self.unmarked.lock().remove(key);
        } else if self.unmarked.lock().contains(key) {
            self.mark_pods_unready(key).await?;
            self.unmarked.lock().remove(key);
        }
        let next = grace.saturating_sub(silent_for).max(self.options.period).max(SHORTEST);
        Ok(Some(wait.map_or(next, |wait| next.min(wait))))
    }
}

impl NodeLifecycle {
    fn pods_on(&self, key: &Key) -> Vec<Arc<Pod>> {
        let all = self.pods.list("").into_iter();
        all.filter(|p| p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(&*key.name)).collect()
    }

    fn gone(&self, key: &Key) {
        self.seen.lock().remove(key);
        self.unmarked.lock().remove(key);
        if let Some(node) = self.announced.lock().remove(key) {
            let message = format!("Node {key} event: Removing Node {key} from Controller");
            self.recorder.record(Self::NAME, &*node, Severity::Normal, "RemovingNode", message);
        }
    }

    /// Gives a label's value to its older name, for clients that know only that.
    async fn write_labels(&self, node: &Node, key: &Key) -> Result<(), Error> {
        let labels = node.labels();
        let stale = OLDER_LABELS.iter().filter_map(|(label, older)| {
            let value = labels.get(*label)?;
            (labels.get(*older) != Some(value)).then(|| ((*older).to_owned(), value.clone()))
        });
        let stale: BTreeMap<String, String> = stale.collect();
        if stale.is_empty() {
            return Ok(());
        }
        let api: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({ "metadata": { "labels": stale } }));
        let patched = api.patch(&key.name, &PatchParams::default(), &patch).await;
        found(patched).map(drop).doing(|| format!("label node {key}"))
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
        let api: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Strategic(json!({ "status": { "conditions": changed } }));
        found(api.patch_status(&key.name, &PatchParams::default(), &patch).await)
            .doing(|| format!("mark node {key} unknown"))?;
        if ready(node).is_some_and(|c| c.status == "True") {
            let message = format!("Node {key} status is now: NodeNotReady");
            self.recorder.record(Self::NAME, node, Severity::Normal, "NodeNotReady", message);
            self.unmarked.lock().insert(key.clone());
        }
        Ok(())
    }

    /// Whether pods should leave a node that is not ready, or how long until they may.
    fn may_evict(&self, node: &Node, health: Health) -> (bool, Option<Duration>) {
        let mut zones: HashMap<(String, String), Zone> = HashMap::new();
        for other in self.nodes.list("").iter().filter(|n| !n.labels().contains_key(UNCOUNTED)) {
            let zone = zones.entry(plan::zone(other)).or_default();
            if ready(other).is_some_and(|c| c.status == "True") { zone.ready += 1 } else { zone.unready += 1 }
        }
        let all_lost = !zones.is_empty() && zones.values().all(|zone| zone.lost());
        if std::mem::replace(&mut *self.cut_off.lock(), all_lost) && !all_lost {
            // some report again: the others get time to do so
            let now = Instant::now();
            self.seen.lock().values_mut().for_each(|seen| *seen = now);
        }
        if matches!(health, Health::Ready | Health::Unsaid) {
            return (false, None);
        }
        let own = plan::zone(node);
        match zones.get(&own).copied().unwrap_or_default().pace(all_lost, &self.options) {
            Pace::Halted => (plan::evicted(node) && !all_lost, None),
            Pace::One(_) if plan::evicted(node) => (true, None),
            Pace::One(pause) => {
                let mut paced = self.paced.lock();
                let left =
                    paced.get(&own).map_or(Duration::ZERO, |last| pause.saturating_sub(last.elapsed()));
                if left.is_zero() {
                    paced.insert(own, Instant::now());
                    return (true, None);
                }
                (false, Some(left))
            }
        }
    }

    async fn write_taints(
        &self,
        node: &Node,
        key: &Key,
        health: Health,
        evicting: bool,
    ) -> Result<(), Error> {
        let old = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
        let Some(new) = plan::taints(node, &old, health, evicting, Timestamp::now()) else { return Ok(()) };
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
}
