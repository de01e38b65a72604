//! Claims and volumes that are in use are not taken away: the finalizers `kubernetes.io/pvc-protection` and `.../pv-protection`.
//!
//! Woken by: a claim or volume that changes, a pod that changes or goes. Reads: pods (for a removal, from the API server itself: its own
//! map may be behind). Writes: the finalizer only. Promises: a claim being deleted goes when no scheduled pod names it any more, and not
//! before; a volume being deleted goes when it is no longer bound.

use crate::cluster::Cluster;
use crate::informer::{Informer, Kind, key_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, code};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";

pub(crate) struct ClaimProtection {
    claims: Arc<Informer<PersistentVolumeClaim>>,
    pods: Arc<Informer<Pod>>,
    client: Client,
}

impl ClaimProtection {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        wake_on(&cluster.persistent_volume_claims, queue);
        let wake = queue.clone();
        cluster.pods.on_change(move |old, new| {
            for pod in old.into_iter().chain(new) {
                let namespace = pod.namespace().unwrap_or_default();
                claims_of(pod).for_each(|claim| wake.add(Key::new(&namespace, &claim)));
            }
        });
        Self { claims: cluster.persistent_volume_claims.clone(), pods: cluster.pods.clone(), client }
    }
}

impl Reconcile for ClaimProtection {
    const NAME: &'static str = "persistentvolumeclaim-protection-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(claim) = self.claims.get(key) else { return Ok(None) };
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        if claim.metadata.deletion_timestamp.is_none() {
            return hold(&api, &*claim, CLAIM).await;
        }
        if !claim.finalizers().iter().any(|f| f == CLAIM)
            || in_use(&key.name, &self.pods.list(&key.namespace))
        {
            return Ok(None);
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let live =
            pods.list(&ListParams::default()).await.doing(|| format!("list pods of {}", key.namespace))?;
        if in_use(&key.name, &live.items) {
            // the map is behind: the pod's end will wake us
            return Ok(None);
        }
        release(&api, &*claim, CLAIM).await
    }
}

pub(crate) struct VolumeProtection {
    volumes: Arc<Informer<PersistentVolume>>,
    client: Client,
}

impl VolumeProtection {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        wake_on(&cluster.persistent_volumes, queue);
        Self { volumes: cluster.persistent_volumes.clone(), client }
    }
}

impl Reconcile for VolumeProtection {
    const NAME: &'static str = "persistentvolume-protection-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(volume) = self.volumes.get(key) else { return Ok(None) };
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        if volume.metadata.deletion_timestamp.is_none() {
            return hold(&api, &*volume, VOLUME).await;
        }
        let bound = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        if bound || !volume.finalizers().iter().any(|f| f == VOLUME) {
            return Ok(None);
        }
        release(&api, &*volume, VOLUME).await
    }
}

fn wake_on<K: Kind>(informer: &Informer<K>, queue: &Arc<Queue>) {
    let wake = queue.clone();
    informer.on_change(move |_, new| {
        if let Some(object) = new {
            wake.add(key_of(&**object));
        }
    });
}

/// The claims a pod names, those of its own ephemeral volumes included.
pub(crate) fn claims_of(pod: &Pod) -> impl Iterator<Item = String> + '_ {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    volumes.iter().filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name_any(), volume.name)),
        (None, None) => None,
    })
}

/// Whether a scheduled pod names the claim. No kubelet starts an unscheduled one once the claim is being deleted.
fn in_use<P: std::borrow::Borrow<Pod>>(claim: &str, pods: &[P]) -> bool {
    let scheduled =
        |pod: &Pod| pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).is_some_and(|n| !n.is_empty());
    pods.iter().map(P::borrow).any(|pod| scheduled(pod) && claims_of(pod).any(|name| name == claim))
}

/// Puts the finalizer on an object that has not got it.
///
/// # Errors
/// The API server refuses.
pub(crate) async fn hold<K>(api: &Api<K>, object: &K, finalizer: &str) -> Result<Option<Duration>, Error>
where
    K: Kind + DeserializeOwned + Debug,
    K::DynamicType: Default,
{
    if object.finalizers().iter().any(|f| f == finalizer) {
        return Ok(None);
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(finalizer.to_owned());
    write(api, object, &finalizers).await
}

/// Takes the finalizer from an object.
///
/// # Errors
/// The API server refuses.
pub(crate) async fn release<K>(api: &Api<K>, object: &K, finalizer: &str) -> Result<Option<Duration>, Error>
where
    K: Kind + DeserializeOwned + Debug,
    K::DynamicType: Default,
{
    let left: Vec<String> = object.finalizers().iter().filter(|f| *f != finalizer).cloned().collect();
    write(api, object, &left).await
}

async fn write<K>(api: &Api<K>, object: &K, finalizers: &[String]) -> Result<Option<Duration>, Error>
where
    K: Kind + DeserializeOwned + Debug,
    K::DynamicType: Default,
{
    let patch = json!({"metadata": {
        "uid": object.uid(),
        "resourceVersion": object.resource_version(),
        "finalizers": finalizers,
    }});
    let name = object.name_any();
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(error) if code(&error) == Some(404) => Ok(None),
        written => written.map(|_| None).doing(|| format!("write finalizers of {}", key_of(object))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(node: &str, volumes: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"nodeName": node, "containers": [], "volumes": volumes},
        }))
        .unwrap()
    }

    #[test]
    fn only_scheduled_pods_hold_the_claims_they_name() {
        let named = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        assert!(in_use("c", &[pod("n", named.clone())]));
        assert!(!in_use("d", &[pod("n", named.clone())]));
        assert!(!in_use("c", &[pod("", named)]));
        assert!(in_use("p-scratch", &[pod("n", json!([{"name": "scratch", "ephemeral": {}}]))]));
        assert!(!in_use("c", &[pod("n", json!([{"name": "c", "emptyDir": {}}]))]));
    }
}
