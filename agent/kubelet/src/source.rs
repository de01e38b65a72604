//! Where pods come from: the API server, a directory of manifests, a URL.
//!
//! Each source tells its pods as one map, `None` until it has been read once: only when every source has been read may
//! anything that runs be called an orphan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

pub(crate) mod api;
pub(crate) mod manifests;
pub(crate) mod mirror;
pub(crate) mod url;

/// Pods by UID.
pub type Pods = BTreeMap<String, Arc<Pod>>;

/// The pods of the API that are bound to this node, mirrors included.
#[derive(Clone, Debug, Default)]
pub struct ApiPods {
    /// `None` until the first list.
    pub pods: Option<Arc<Pods>>,
    /// UIDs of those that cannot be read: they are as they were last known, and never gone.
    pub unreadable: Arc<BTreeSet<String>>,
}

impl ApiPods {
    /// The API's object of a pod: itself, or the mirror of a static pod.
    pub fn api_pod(&self, pod: &Pod) -> Option<Arc<Pod>> {
        let pods = self.pods.as_ref()?;
        if !crate::pod::is_static(pod) {
            return pods.get(crate::pod::uid(pod)).cloned();
        }
        self.mirror_of(pod)
    }

    /// The mirror of a static pod, whatever its hash.
    pub fn mirror_of(&self, pod: &Pod) -> Option<Arc<Pod>> {
        let named = |p: &&Arc<Pod>| {
            crate::pod::is_mirror(p)
                && crate::pod::name(p) == crate::pod::name(pod)
                && crate::pod::namespace(p) == crate::pod::namespace(pod)
        };
        self.pods.as_ref()?.values().find(named).cloned()
    }
}
