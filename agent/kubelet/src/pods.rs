//! The registry of pods on this node: what the HTTPS server and the node's status ask.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::RwLock;

use crate::pod::observed::Observed;

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
    views: Arc<RwLock<BTreeMap<String, View>>>,
}

impl Pods {
    /// The pod of that name; the newest where an old one of the same name is still ending.
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<View> {
        let views = self.views.read();
        let named = views
            .values()
            .filter(|v| crate::pod::name(&v.pod) == name && crate::pod::namespace(&v.pod) == namespace);
        named.max_by_key(|v| v.pod.metadata.creation_timestamp.as_ref().map(|t| t.0)).cloned()
    }

    /// The pod with that UID.
    pub fn by_uid(&self, uid: &str) -> Option<View> {
        self.views.read().get(uid).cloned()
    }

    /// All pods, in no order.
    pub fn all(&self) -> Vec<View> {
        self.views.read().values().cloned().collect()
    }

    /// Publishes a worker's view.
    pub(crate) fn publish(&self, view: View) {
        self.views.write().insert(crate::pod::uid(&view.pod).to_owned(), view);
    }

    /// Forgets a pod that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.views.write().remove(uid);
    }
}
