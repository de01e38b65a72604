//! Pods nobody else will remove: of nodes that are gone, of nodes out of service, on their way out without ever having had a node, and the
//! oldest of too many that have ended.
//!
//! Woken by: pods that end, go, or come to a node; nodes that go or are taken out of service. Reads: pods and nodes; the node once more from
//! the API server before its pods are removed. Writes: the phase `Failed` of pods that cannot say so themselves, and pods' deletion without
//! grace. Promises: a node missing for less than the quarantine costs no pod.

use crate::cluster::Cluster;
use crate::informer::Informer;
use crate::pods::{self, Disruption};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a node may be missing before its pods go.
const QUARANTINE: Duration = Duration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The controller. A key is a pod, a node (without namespace), or empty: all pods that have ended.
pub(crate) struct PodGarbage {
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    /// Nodes missing since.
    missing: Mutex<BTreeMap<Key, Instant>>,
    /// How many pods that have ended may stay; all of them without.
    kept: Option<usize>,
    client: Client,
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether the node is said to be down for good: what runs there will never say that it has ended.
fn out_of_service(node: &Node) -> bool {
    let status = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = status.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
    !ready && taints.is_some_and(|t| t.iter().any(|t| t.key == OUT_OF_SERVICE))
}

/// The ended pods to remove: beyond `kept`, the evicted first, then the oldest.
fn surplus(mut ended: Vec<Arc<Pod>>, kept: usize) -> Vec<Arc<Pod>> {
    let many = ended.len().saturating_sub(kept);
    let evicted = |pod: &Pod| {
        pod.status
            .as_ref()
            .is_some_and(|s| s.phase.as_deref() == Some("Failed") && s.reason.as_deref() == Some("Evicted"))
    };
    ended.sort_by_cached_key(|pod| (!evicted(pod), pod.creation_timestamp(), pod.name_any()));
    ended.truncate(many);
    ended
}

impl PodGarbage {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, kept: Option<usize>, queue: &Arc<Queue>) -> Self {
        let (wake, nodes) = (queue.clone(), cluster.nodes.clone());
        cluster.pods.on_change(move |old, new| {
            let Some(pod) = new else { return };
            let going = pod.metadata.deletion_timestamp.is_some();
            match node_of(pod) {
                None if going => wake.add(crate::informer::key_of(&**pod)),
                None => {}
                // before the first list is complete every node seems to be missing: the quarantine lets it come
                Some(name) => match nodes.get(&Key::new("", name)) {
                    Some(node) if !(going && out_of_service(&node)) => {}
                    _ => wake.add(Key::new("", name)),
                },
            }
            if pods::finished(pod) && !old.is_some_and(|old| pods::finished(old)) {
                wake.add(Key::default());
            }
        });
        let wake = queue.clone();
        cluster.nodes.on_change(move |old, new| {
            let Some(node) = new.or(old) else { return };
            if new.is_none_or(|node| out_of_service(node)) {
                wake.add(Key::new("", &node.name_any()));
            }
        });
        Self {
            pods: cluster.pods.clone(),
            nodes: cluster.nodes.clone(),
            missing: Mutex::default(),
            kept,
            client,
        }
    }

    fn pods_on(&self, node: &str) -> Vec<Arc<Pod>> {
        self.pods.list("").into_iter().filter(|pod| node_of(pod) == Some(node)).collect()
    }

    async fn node(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let pods = self.pods_on(&key.name);
        if let Some(node) = self.nodes.get(key) {
            self.missing.lock().remove(key);
            if out_of_service(&node) {
                for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
                    self.remove(pod, None).await?;
                }
            }
            return Ok(None);
        }
        if pods.is_empty() {
            self.missing.lock().remove(key);
            return Ok(None);
        }
        let since = *self.missing.lock().entry(key.clone()).or_insert_with(Instant::now);
        if since.elapsed() < QUARANTINE {
            return Ok(Some(QUARANTINE.saturating_sub(since.elapsed())));
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        if nodes.get_metadata_opt(&key.name).await.doing(|| format!("look for node {key}"))?.is_some() {
            return Ok(Some(QUARANTINE));
        }
        let why = Disruption { reason: "DeletionByPodGC", message: "PodGC: node no longer exists" };
        for pod in pods {
            self.remove(&pod, Some(why)).await?;
        }
        Ok(None)
    }

    /// Says that the pod has failed, unless it has ended, and removes it at once.
    async fn remove(&self, pod: &Pod, why: Option<Disruption>) -> Result<(), Error> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        if !pods::finished(pod) {
            let mut status = json!({ "phase": "Failed", "observedGeneration": pod.metadata.generation });
            if let Some(why) = why {
                status["conditions"] = json!([why.condition(pod, Timestamp::now())]);
            }
            let patch = Patch::Strategic(json!({ "metadata": { "uid": pod.uid() }, "status": status }));
            let patched = api.patch_status(&name, &PatchParams::default(), &patch).await;
            found(patched).doing(|| format!("mark pod {namespace}/{name} failed"))?;
        }
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        let deleted = api.delete(&name, &params).await;
        found(deleted).map(drop).doing(|| format!("remove pod {namespace}/{name}"))
    }
}

impl Reconcile for PodGarbage {
    const NAME: &'static str = "pod-garbage-collector-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        if !key.namespace.is_empty() {
            let left_over = self.pods.get(key).filter(|pod| node_of(pod).is_none());
            if let Some(pod) = left_over.filter(|pod| pod.metadata.deletion_timestamp.is_some()) {
                self.remove(&pod, None).await?;
            }
            return Ok(None);
        }
        if !key.name.is_empty() {
            return self.node(key).await;
        }
        let ended: Vec<Arc<Pod>> = self.pods.list("").into_iter().filter(|p| pods::finished(p)).collect();
        if let Some(kept) = self.kept {
            for pod in surplus(ended, kept) {
                self.remove(&pod, None).await?;
            }
        }
        Ok(None)
    }
}

impl PodGarbage {
    /// Wakes every node that pods name but that does not exist; called once after the first lists.
    pub(crate) fn adopt_existing(&self, queue: &Queue) {
        let pods = self.pods.list("");
        let names: BTreeSet<&str> = pods.iter().filter_map(|pod| node_of(pod)).collect();
        let missing =
            names.into_iter().map(|name| Key::new("", name)).filter(|key| self.nodes.get(key).is_none());
        missing.for_each(|key| queue.add(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(name: &str, second: i64, reason: Option<&str>) -> Arc<Pod> {
        let created = Timestamp::from_second(second).unwrap().to_string();
        let pod = json!({ "metadata": { "name": name, "creationTimestamp": created },
            "status": { "phase": "Failed", "reason": reason } });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn the_evicted_go_first_then_the_oldest() {
        let all =
            || vec![ended("new", 30, None), ended("old", 10, None), ended("evicted", 40, Some("Evicted"))];
        let names = |kept| surplus(all(), kept).iter().map(|p| p.name_any()).collect::<Vec<_>>();
        assert_eq!(names(1), ["evicted", "old"]);
        assert_eq!(names(2), ["evicted"]);
        assert!(names(3).is_empty());
    }

    #[test]
    fn a_ready_node_is_in_service_whatever_its_taints() {
        let node = |ready: &str| -> Node {
            serde_json::from_value(json!({ "metadata": {}, "spec": { "taints": [{ "key": OUT_OF_SERVICE, "effect": "NoExecute" }] },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] } }))
            .unwrap()
        };
        assert!(!out_of_service(&node("True")));
        assert!(out_of_service(&node("Unknown")));
        assert!(!out_of_service(&Node::default()));
    }
}
