//! The cluster as the scheduler knows it: nodes with the pods on them, those it has just assumed there included.

use crate::model::{NodeInfo, Pod, Snapshot};
use crate::schedule::Change;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Nodes, pods on them, and the rest of what a [`Snapshot`] shows.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: BTreeMap<String, Slot>,
    /// Where each placed pod is, by UID.
    placed: HashMap<String, Placed>,
    /// All of the snapshot but its nodes; changed in place.
    pub rest: Snapshot,
}

/// A node, or the pods of one that is not known (yet, or any more).
#[derive(Debug, Default)]
struct Slot {
    known: bool,
    info: Arc<NodeInfo>,
}

#[derive(Debug)]
struct Placed {
    pod: Arc<Pod>,
    node: String,
    /// Our own decision, not yet seen from the API.
    assumed: bool,
}

impl Cluster {
    /// Whether there is such a node.
    pub(crate) fn has_node(&self, name: &str) -> bool {
        self.nodes.get(name).is_some_and(|slot| slot.known)
    }

    /// Takes over a node; says what changed for pods that wait.
    pub fn set_node(&mut self, node: NodeInfo) -> Option<Change> {
        let slot = self.nodes.entry(node.name.clone()).or_default();
        let came = !std::mem::replace(&mut slot.known, true);
        (Arc::make_mut(&mut slot.info).update(node) || came).then_some(Change::NodeChanged)
    }

    /// Forgets a node; its pods stay counted until they go, too.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(slot) = self.nodes.get_mut(name) {
            slot.known = false;
            if slot.info.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// A pod that the API says is on a node; says what changed for pods that wait.
    pub fn set_pod(&mut self, pod: Arc<Pod>) -> Option<Change> {
        let node = pod.node.clone()?;
        let old = self.take_out(&pod.uid);
        let change = match &old {
            None => Some(Change::PodPlaced),
            Some(old) if old.node != node || old.pod.labels != pod.labels => Some(Change::PodPlaced),
            Some(old) if old.pod.requests != pod.requests || old.pod.terminating != pod.terminating => {
                Some(Change::PodGone)
            }
            // An assumed pod was announced when it was assumed.
            Some(_) => None,
        };
        self.put_in(pod, node, false);
        change
    }

    /// Counts `pod` on `node` before the API says so.
    pub fn assume(&mut self, pod: &Pod, node: &str) {
        let pod = Arc::new(Pod { node: Some(node.to_owned()), nominated: None, ..pod.clone() });
        self.take_out(&pod.uid);
        self.put_in(pod, node.to_owned(), true);
    }

    /// Takes an assumption back: the binding failed. A pod the API has confirmed stays.
    pub fn forget(&mut self, uid: &str) -> Option<Change> {
        if self.placed.get(uid).is_some_and(|p| p.assumed) { self.remove_pod(uid) } else { None }
    }

    /// Whether the pod is placed or assumed.
    pub fn has_pod(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    /// The pod is gone.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Change> {
        self.take_out(uid).map(|_| Change::PodGone)
    }

    fn put_in(&mut self, pod: Arc<Pod>, node: String, assumed: bool) {
        let slot = self.nodes.entry(node.clone()).or_default();
        Arc::make_mut(&mut slot.info).add(pod.clone());
        self.placed.insert(pod.uid.clone(), Placed { pod, node, assumed });
    }

    fn take_out(&mut self, uid: &str) -> Option<Placed> {
        let placed = self.placed.remove(uid)?;
        if let Some(slot) = self.nodes.get_mut(&placed.node) {
            Arc::make_mut(&mut slot.info).remove(uid);
            if !slot.known && slot.info.pods.is_empty() {
                self.nodes.remove(&placed.node);
            }
        }
        Some(placed)
    }

    /// Everything at this moment; costs a reference count a node.
    pub fn snapshot(&self, nominated: HashMap<String, Vec<Arc<Pod>>>) -> Snapshot {
        let nodes = self.nodes.values().filter(|s| s.known).map(|s| s.info.clone()).collect();
        Snapshot { nodes, nominated: Arc::new(nominated), ..self.rest.clone() }
    }
}
