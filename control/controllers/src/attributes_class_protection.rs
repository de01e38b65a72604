//! VolumeAttributesClasses that are in use are not taken away: the finalizer `kubernetes.io/vac-protection`.
//!
//! Woken by: a class that changes, a claim or volume that names one no more. Reads: all three. Writes: the finalizer only. Promises: a class
//! being deleted goes when no volume has it, and no claim has it, wants it or is on its way to it.

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Error, Reconcile};
use crate::volume_protection::{hold, release};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::{Api, Client, ResourceExt};
use std::sync::Arc;
use std::time::Duration;

const CLASS: &str = "kubernetes.io/vac-protection";

pub(crate) struct AttributesClassProtection {
    classes: Arc<Informer<VolumeAttributesClass>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    volumes: Arc<Informer<PersistentVolume>>,
    client: Client,
}

impl AttributesClassProtection {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        let wake = queue.clone();
        cluster.attributes_classes.on_change(move |_, new| {
            if let Some(class) = new {
                wake.add(key_of(&**class));
            }
        });
        let wake = queue.clone();
        cluster.persistent_volume_claims.on_change(move |old, _| {
            let named = old.into_iter().flat_map(|claim| of_claim(claim));
            named.for_each(|class| wake.add(Key::new("", class)));
        });
        let wake = queue.clone();
        cluster.persistent_volumes.on_change(move |old, _| {
            let named = old.into_iter().filter_map(|volume| of_volume(volume));
            named.for_each(|class| wake.add(Key::new("", class)));
        });
        Self {
            classes: cluster.attributes_classes.clone(),
            claims: cluster.persistent_volume_claims.clone(),
            volumes: cluster.persistent_volumes.clone(),
            client,
        }
    }
}

/// The classes a claim names.
fn of_claim(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &str> {
    let status = claim.status.as_ref();
    let wanted = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref());
    let current = status.and_then(|s| s.current_volume_attributes_class_name.as_deref());
    let target =
        status.and_then(|s| s.modify_volume_status.as_ref()?.target_volume_attributes_class_name.as_deref());
    [wanted, current, target].into_iter().flatten().filter(|name| !name.is_empty())
}

fn of_volume(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.volume_attributes_class_name.as_deref()
}

fn in_use(class: &str, claims: &[Arc<PersistentVolumeClaim>], volumes: &[Arc<PersistentVolume>]) -> bool {
    claims.iter().any(|claim| of_claim(claim).any(|name| name == class))
        || volumes.iter().any(|volume| of_volume(volume) == Some(class))
}

impl Reconcile for AttributesClassProtection {
    const NAME: &'static str = "volumeattributesclass-protection-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(class) = self.classes.get(key) else { return Ok(None) };
        let api: Api<VolumeAttributesClass> = Api::all(self.client.clone());
        if class.metadata.deletion_timestamp.is_none() {
            return hold(&api, &*class, CLASS).await;
        }
        if !class.finalizers().iter().any(|f| f == CLASS)
            || in_use(&key.name, &self.claims.list(""), &self.volumes.list(""))
        {
            return Ok(None);
        }
        release(&api, &*class, CLASS).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_class_that_a_claim_or_volume_has_must_not_go() {
        let claim = |spec: serde_json::Value, status: serde_json::Value| -> Arc<PersistentVolumeClaim> {
            Arc::new(
                serde_json::from_value(json!({ "metadata": {}, "spec": spec, "status": status })).unwrap(),
            )
        };
        let held = |claim| in_use("fast", &[claim], &[]);
        assert!(held(claim(json!({ "volumeAttributesClassName": "fast" }), json!({}))));
        assert!(held(claim(json!({}), json!({ "currentVolumeAttributesClassName": "fast" }))));
        let on_its_way = json!({ "modifyVolumeStatus": { "status": "Pending", "targetVolumeAttributesClassName": "fast" } });
        assert!(held(claim(json!({ "volumeAttributesClassName": "slow" }), on_its_way)));
        assert!(!held(claim(json!({ "volumeAttributesClassName": "slow" }), json!({}))));
        let volume: PersistentVolume = serde_json::from_value(
            json!({ "metadata": {}, "spec": { "volumeAttributesClassName": "fast" } }),
        )
        .unwrap();
        assert!(in_use("fast", &[], &[Arc::new(volume)]));
    }
}
