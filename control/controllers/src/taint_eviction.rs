//! Pods leave nodes with NoExecute taints they do not tolerate, or no longer.
//!
//! Woken by: a node whose NoExecute taints changed, a pod that came to a node or whose tolerations changed, and the end of a toleration.
//! Reads: nodes and pods. Writes: the pod's condition `DisruptionTarget`, and its deletion. Promises: a pod leaves only while such a taint is
//! there; its time runs from when this controller first saw pod and taint together, and starts again after a restart.

mod plan;

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::pods::Disruption;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use crate::recorder::{Recorder, Severity};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use plan::{Eviction, eviction};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The controller. A key is a pod.
pub(crate) struct TaintEviction {
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    /// Pods that are to leave: their uid, and since when their time runs.
    scheduled: Mutex<BTreeMap<Key, (String, Instant)>>,
    client: Client,
    recorder: Recorder,
}

fn hard_taints(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.filter(|t| t.effect == "NoExecute").cloned().collect()
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

impl TaintEviction {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, recorder: Recorder, queue: &Arc<Queue>) -> Self {
        let (wake, pods) = (queue.clone(), cluster.pods.clone());
        cluster.nodes.on_change(move |old, new| {
            let Some(node) = new.or(old) else { return };
            let taints = |node: &Arc<Node>| hard_taints(node);
            if old.map(taints).unwrap_or_default() == new.map(taints).unwrap_or_default() {
                return;
            }
            let name = node.name_any();
            for pod in pods.list("").iter().filter(|pod| node_of(pod) == Some(&name)) {
                wake.add(key_of(&**pod));
            }
        });
        let wake = queue.clone();
        cluster.pods.on_change(move |old, new| {
            let seen =
                |pod: &Arc<Pod>| pod.spec.as_ref().map(|s| (s.node_name.clone(), s.tolerations.clone()));
            if let Some(pod) = new.or(old)
                && node_of(pod).is_some()
                && old.map(seen) != new.map(seen)
            {
                wake.add(key_of(&**pod));
            }
        });
        Self {
            nodes: cluster.nodes.clone(),
            pods: cluster.pods.clone(),
            scheduled: Mutex::default(),
            client,
            recorder,
        }
    }

    fn tell(&self, pod: &Pod, what: &str, key: &Key) {
        let message = format!("{what} deletion of Pod {key}");
        self.recorder.record(Self::NAME, pod, Severity::Normal, "TaintManagerEviction", message);
    }

    fn cancel(&self, pod: &Pod, key: &Key) {
        if self.scheduled.lock().remove(key).is_some() {
            self.tell(pod, "Cancelling", key);
        }
    }

    /// Since when the pod's time runs: since now, where it was not scheduled yet.
    fn since(&self, pod: &Pod, key: &Key) -> Instant {
        let uid = pod.uid().unwrap_or_default();
        let mut scheduled = self.scheduled.lock();
        match scheduled.get(key) {
            Some((same, since)) if *same == uid => *since,
            _ => {
                let now = Instant::now();
                scheduled.insert(key.clone(), (uid, now));
                now
            }
        }
    }

    async fn evict(&self, pod: &Pod, key: &Key) -> Result<(), Error> {
        let message = format!("Marking for deletion Pod {key}");
        self.recorder.record(Self::NAME, pod, Severity::Normal, "TaintManagerEviction", message);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let why = Disruption {
            reason: "DeletionByTaintManager",
            message: "Taint manager: deleting due to NoExecute taint",
        };
        let status = json!({ "conditions": [why.condition(pod, Timestamp::now())] });
        let patch = Patch::Strategic(json!({ "metadata": { "uid": pod.uid() }, "status": status }));
        let patched = api.patch_status(&key.name, &PatchParams::default(), &patch).await;
        found(patched).doing(|| format!("mark pod {key} for eviction"))?;
        let only_this = Preconditions { uid: pod.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::default() };
        found(api.delete(&key.name, &params).await).map(drop).doing(|| format!("evict pod {key}"))
    }
}

impl Reconcile for TaintEviction {
    const NAME: &'static str = "taint-eviction-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(pod) = self.pods.get(key).filter(|pod| pod.metadata.deletion_timestamp.is_none()) else {
            self.scheduled.lock().remove(key);
            return Ok(None);
        };
        let node = node_of(&pod).and_then(|name| self.nodes.get(&Key::new("", name)));
        let taints = node.map(|node| hard_taints(&node)).unwrap_or_default();
        let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
        let tolerated_for = match eviction(tolerations, &taints) {
            Eviction::Never => {
                self.cancel(&pod, key);
                return Ok(None);
            }
            Eviction::Now => {
                self.cancel(&pod, key);
                Duration::ZERO
            }
            Eviction::After(time) => time,
        };
        let since = self.since(&pod, key);
        let left = tolerated_for.saturating_sub(since.elapsed());
        if !left.is_zero() {
            return Ok(Some(left));
        }
        self.evict(&pod, key).await?;
        self.scheduled.lock().remove(key);
        Ok(None)
    }
}
