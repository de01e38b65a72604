//! The registry of pods on this node: what the HTTPS server and the node's status ask.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::RwLock;

use crate::pod::observed::Observed;
use crate::pod::status::is_terminal;

/// One pod as its worker last saw it.
#[derive(Clone, Debug)]
pub struct View {
    /// The pod as asked for.
    pub pod: Arc<Pod>,
    /// The status as computed here, which the API may not have yet.
    pub status: Arc<PodStatus>,
    /// The runtime's sandboxes and containers, newest first, with ids and log paths.
    pub observed: Arc<Observed>,
}

/// A shared handle to the registry.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    known: Arc<RwLock<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    views: BTreeMap<String, View>,
    /// Pods that were taken, and that no worker has looked at yet.
    taken: BTreeMap<String, Arc<Pod>>,
}

impl Pods {
    /// The pod of that name; the newest where an old one of the same name is still ending.
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<View> {
        let known = self.known.read();
        let named = known
            .views
            .values()
            .filter(|v| crate::pod::name(&v.pod) == name && crate::pod::namespace(&v.pod) == namespace);
        named.max_by_key(|v| v.pod.metadata.creation_timestamp.as_ref().map(|t| t.0)).cloned()
    }

    /// The pod with that UID.
    pub fn by_uid(&self, uid: &str) -> Option<View> {
        self.known.read().views.get(uid).cloned()
    }

    /// All pods, in no order.
    pub fn all(&self) -> Vec<View> {
        self.known.read().views.values().cloned().collect()
    }

    /// Pods that run or are to: those that were taken, whether or not a worker has looked at them, and those of which something runs still.
    /// Upstream: `GetActivePods`.
    pub(crate) fn active(&self) -> Vec<Arc<Pod>> {
        let known = self.known.read();
        let seen = known
            .views
            .values()
            .filter(|view| !is_terminal(view.status.phase.as_deref()) || !view.observed.is_quiet());
        known.taken.values().chain(seen.map(|view| &view.pod)).cloned().collect()
    }

    /// Nothing of a pod runs, and nothing of it is about to.
    pub(crate) fn is_quiet(&self, uid: &str) -> bool {
        let known = self.known.read();
        !known.taken.contains_key(uid) && known.views.get(uid).is_none_or(|view| view.observed.is_quiet())
    }

    /// Counts a pod that the node takes.
    pub(crate) fn take(&self, pod: &Arc<Pod>) {
        let uid = crate::pod::uid(pod);
        let mut known = self.known.write();
        if !known.views.contains_key(uid) {
            known.taken.insert(uid.to_owned(), Arc::clone(pod));
        }
    }

    /// Publishes a worker's view.
    pub(crate) fn publish(&self, view: View) {
        let uid = crate::pod::uid(&view.pod).to_owned();
        let mut known = self.known.write();
        known.taken.remove(&uid);
        known.views.insert(uid, view);
    }

    /// Forgets a pod that is gone, or that is not taken after all.
    pub(crate) fn forget(&self, uid: &str) {
        let mut known = self.known.write();
        known.taken.remove(uid);
        known.views.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str) -> Arc<Pod> {
        Arc::new(serde_json::from_value(json!({"metadata": {"uid": uid}})).unwrap())
    }

    #[test]
    fn a_pod_that_no_worker_has_looked_at_yet_must_not_count_as_gone() {
        let pods = Pods::default();
        let active = || pods.active().iter().map(|pod| crate::pod::uid(pod).to_owned()).collect::<Vec<_>>();
        pods.take(&pod("u"));
        assert!(active() == ["u"] && !pods.is_quiet("u"));
        assert!(pods.all().is_empty() && pods.by_uid("u").is_none(), "there is nothing to show of it");
        let view = |phase: &str| View {
            pod: pod("u"),
            status: Arc::new(PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() }),
            observed: Arc::default(),
        };
        pods.publish(view("Pending"));
        assert!(active() == ["u"] && pods.is_quiet("u"));
        pods.take(&pod("u"));
        assert!(pods.is_quiet("u"), "it was looked at");
        pods.publish(view("Failed"));
        assert!(active().is_empty());
        pods.take(&pod("v"));
        pods.forget("v");
        assert!(active().is_empty() && pods.is_quiet("v"));
    }
}
