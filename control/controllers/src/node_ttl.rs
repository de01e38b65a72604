//! How long nodes may keep what they read (`node.alpha.kubernetes.io/ttl`, in seconds): the more nodes, the longer.
//!
//! Woken by: a node that comes, goes or changes. Reads: how many nodes there are. Writes: the annotation. Promises: a cluster whose size
//! swings about a bound is not annotated each time.

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// From how many nodes, to how many, which time in seconds.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// The step for so many nodes, given the present one: the bounds overlap, so that it is left only when it is far off.
fn step(mut step: usize, nodes: usize) -> usize {
    while STEPS.get(step).is_some_and(|(_, most, _)| nodes > *most) && step + 1 < STEPS.len() {
        step += 1;
    }
    while step > 0 && STEPS.get(step).is_some_and(|(least, ..)| nodes < *least) {
        step -= 1;
    }
    step
}

pub(crate) struct NodeTtl {
    nodes: Arc<Informer<Node>>,
    step: Arc<Mutex<usize>>,
    client: Client,
}

impl NodeTtl {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        let present: Arc<Mutex<usize>> = Arc::default();
        let (wake, nodes, known) = (queue.clone(), cluster.nodes.clone(), present.clone());
        cluster.nodes.on_change(move |old, new| {
            if old.is_none() != new.is_none() {
                let all = nodes.list("");
                let mut known = known.lock();
                let now = step(*known, all.len());
                if std::mem::replace(&mut *known, now) != now {
                    all.iter().for_each(|node| wake.add(key_of(&**node)));
                }
            }
            if let Some(node) = new {
                let said = |node: &Arc<Node>| node.annotations().get(ANNOTATION).cloned();
                if old.is_none() || old.map(said) != Some(said(node)) {
                    wake.add(key_of(&**node));
                }
            }
        });
        Self { nodes: cluster.nodes.clone(), step: present, client }
    }
}

impl Reconcile for NodeTtl {
    const NAME: &'static str = "ttl-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(node) = self.nodes.get(key) else { return Ok(None) };
        let seconds = STEPS.get(*self.step.lock()).map_or(0, |(_, _, seconds)| *seconds).to_string();
        if node.annotations().get(ANNOTATION) == Some(&seconds) {
            return Ok(None);
        }
        let api: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { ANNOTATION: seconds } } }));
        let patched = api.patch(&key.name, &PatchParams::default(), &patch).await;
        found(patched).map(|_| None).doing(|| format!("annotate node {key}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_grows_with_the_cluster_and_does_not_swing() {
        assert_eq!(step(0, 100), 0);
        assert_eq!(step(0, 101), 1);
        assert_eq!(step(1, 95), 1);
        assert_eq!(step(1, 89), 0);
        assert_eq!(step(0, 5000), 4);
        assert_eq!(step(4, 3), 0);
    }
}
