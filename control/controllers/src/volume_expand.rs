//! Tells who grows a claim that asks for more than it has.
//!
//! Woken by: a bound claim that changes. Reads: the claim and its volume. Writes: an event, and for volumes whose plugin moved to a driver
//! the annotation its resizer waits for. Promises: nothing is grown here; all that is left in the tree that grows belongs to drivers.

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile};
use crate::recorder::{Recorder, Severity};
use crate::volume_binder::migration;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use machinery::quantity::Quantity;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const REASON: &str = "ExternalExpanding";
const RESIZER: &str = "volume.kubernetes.io/storage-resizer";

pub(crate) struct Expansion {
    claims: Arc<Informer<PersistentVolumeClaim>>,
    volumes: Arc<Informer<PersistentVolume>>,
    client: Client,
    recorder: Recorder,
}

impl Expansion {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, recorder: Recorder, queue: &Arc<Queue>) -> Self {
        let wake = queue.clone();
        cluster.persistent_volume_claims.on_change(move |old, new| {
            let Some(claim) = new.filter(|c| grows(c)) else { return };
            if old.is_none_or(|old| sizes(old) != sizes(claim)) {
                wake.add(key_of(&**claim));
            }
        });
        Self {
            claims: cluster.persistent_volume_claims.clone(),
            volumes: cluster.persistent_volumes.clone(),
            client,
            recorder,
        }
    }
}

/// What it asks for and what it has.
fn sizes(claim: &PersistentVolumeClaim) -> (Option<Quantity>, Option<Quantity>) {
    let parse = |text: &str| Quantity::parse(text).ok();
    let asked = claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let has = claim.status.as_ref().and_then(|s| s.capacity.as_ref());
    (asked.and_then(|r| parse(&r.get("storage")?.0)), has.and_then(|c| parse(&c.get("storage")?.0)))
}

/// Whether a bound claim asks for more than it has.
fn grows(claim: &PersistentVolumeClaim) -> bool {
    let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let (asked, has) = sizes(claim);
    bound && asked.unwrap_or_else(Quantity::zero) > has.unwrap_or_else(Quantity::zero)
}

/// The in-tree plugin of a volume that a driver took over.
fn moved_plugin(volume: &PersistentVolume) -> Option<&'static str> {
    let spec = volume.spec.as_ref()?;
    [
        (spec.aws_elastic_block_store.is_some(), "kubernetes.io/aws-ebs"),
        (spec.azure_disk.is_some(), "kubernetes.io/azure-disk"),
        (spec.azure_file.is_some(), "kubernetes.io/azure-file"),
        (spec.cinder.is_some(), "kubernetes.io/cinder"),
        (spec.gce_persistent_disk.is_some(), "kubernetes.io/gce-pd"),
        (spec.portworx_volume.is_some(), "kubernetes.io/portworx-volume"),
        (spec.vsphere_volume.is_some(), "kubernetes.io/vsphere-volume"),
    ]
    .into_iter()
    .find_map(|(is, plugin)| is.then_some(plugin))
}

impl Reconcile for Expansion {
    const NAME: &'static str = "persistentvolume-expander-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(claim) = self.claims.get(key).filter(|c| grows(c)) else { return Ok(None) };
        let name = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
        let Some(volume) = self.volumes.get(&Key::new("", &name)) else {
            return Err(Error::Unusable(format!("claim {key}: volume {name} is not known yet")));
        };
        let holder = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        if holder.and_then(|h| h.uid.as_deref()) != claim.metadata.uid.as_deref() {
            return Err(Error::Unusable(format!(
                "persistent Volume is not bound to PVC being updated : {key}"
            )));
        }
        let say = |text: String| {
            self.recorder.record("volume_expand", &*claim, Severity::Normal, REASON, text);
        };
        let Some(plugin) = moved_plugin(&volume) else {
            say("waiting for an external controller to expand this PVC".to_owned());
            return Ok(None);
        };
        say(format!("CSI migration enabled for {plugin}; waiting for external resizer to expand the pvc"));
        let driver = migration::driver_of(plugin);
        if claim.annotations().get(RESIZER).map(String::as_str) == driver {
            return Ok(None);
        }
        let patch = json!({"metadata": {
            "uid": claim.uid(),
            "resourceVersion": claim.resource_version(),
            "annotations": {RESIZER: driver},
        }});
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        let written = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        written.map(|_| None).doing(|| format!("name the resizer of claim {key}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bound_claims_that_ask_for_more_grow() {
        let claim = |phase: &str, asked: &str, has: &str| -> PersistentVolumeClaim {
            serde_json::from_value(json!({
                "metadata": {},
                "spec": {"resources": {"requests": {"storage": asked}}},
                "status": {"phase": phase, "capacity": {"storage": has}},
            }))
            .unwrap()
        };
        assert!(grows(&claim("Bound", "2Gi", "1Gi")));
        assert!(!grows(&claim("Bound", "1024Mi", "1Gi")));
        assert!(!grows(&claim("Pending", "2Gi", "1Gi")));
    }
}
