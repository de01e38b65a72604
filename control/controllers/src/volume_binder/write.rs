//! The binder's writes. Each names the version it was decided on and gives the object as it is afterwards; what is already so is not
//! written.

use super::migration;
use crate::informer::key_of;
use crate::reconcile::{Doing, Error, found};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use machinery::binding::{BIND_COMPLETED, BOUND_BY_CONTROLLER, Claim, Volume};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The size of a volume before its growth is finished on its node.
const PRE_RESIZE: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

/// Writes claims and volumes.
pub(super) struct Writer {
    client: Client,
}

impl Writer {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.client.clone())
    }

    fn claims(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), &claim.namespace().unwrap_or_default())
    }

    async fn volume(&self, volume: &PersistentVolume, change: Value) -> Result<PersistentVolume, Error> {
        let patch = Patch::Merge(versioned(volume, change));
        let written = self.volumes().patch(&volume.name_any(), &PatchParams::default(), &patch).await;
        written.doing(|| format!("write volume {}", volume.name_any()))
    }

    async fn claim(
        &self,
        claim: &PersistentVolumeClaim,
        change: Value,
    ) -> Result<PersistentVolumeClaim, Error> {
        let patch = Patch::Merge(versioned(claim, change));
        let written = self.claims(claim).patch(&claim.name_any(), &PatchParams::default(), &patch).await;
        written.doing(|| format!("write claim {}", key_of(claim)))
    }

    /// Binds both sides and says so on both.
    pub(super) async fn bind(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
    ) -> Result<(), Error> {
        let volume = self.bind_volume(volume, claim).await?;
        let volume = self.volume_phase(&volume, "Bound", "").await?;
        let claim = self.bind_claim(claim, &volume).await?;
        self.claim_phase(&claim, "Bound", Some(&volume)).await
    }

    async fn bind_volume(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
    ) -> Result<PersistentVolume, Error> {
        let view = super::compact(volume, Volume::new)?;
        let wanted = super::compact(claim, Claim::new)?;
        let whole = view
            .claim
            .as_ref()
            .is_some_and(|r| r.name == wanted.name && r.namespace == wanted.namespace && r.uid == wanted.uid);
        let annotated = volume.annotations().contains_key(BOUND_BY_CONTROLLER);
        let annotate = !view.is_of(&wanted) && !annotated;
        if whole && !annotate {
            return Ok(volume.clone());
        }
        let mut change = json!({"spec": {"claimRef": reference(claim)}});
        if annotate {
            change["metadata"] = json!({"annotations": {BOUND_BY_CONTROLLER: "yes"}});
        }
        self.volume(volume, change).await
    }

    async fn bind_claim(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<PersistentVolumeClaim, Error> {
        let named =
            claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()) == volume.metadata.name.as_deref();
        let mut annotations = BTreeMap::new();
        if !named && !claim.annotations().contains_key(BOUND_BY_CONTROLLER) {
            annotations.insert(BOUND_BY_CONTROLLER, "yes");
        }
        if !claim.annotations().contains_key(BIND_COMPLETED) {
            annotations.insert(BIND_COMPLETED, "yes");
        }
        if named && annotations.is_empty() {
            return Ok(claim.clone());
        }
        let mut change = json!({"metadata": {"annotations": annotations}});
        if !named {
            change["spec"] = json!({"volumeName": volume.metadata.name});
        }
        self.claim(claim, change).await
    }

    /// Takes a binding back: a volume that a controller bound is free, one the user bound stays kept for its claim's name.
    pub(super) async fn unbind(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let change = match volume.annotations().contains_key(BOUND_BY_CONTROLLER) {
            true => {
                json!({"metadata": {"annotations": {BOUND_BY_CONTROLLER: null}}, "spec": {"claimRef": null}})
            }
            false => json!({"spec": {"claimRef": {"uid": null}}}),
        };
        let volume = self.volume(volume, change).await?;
        self.volume_phase(&volume, "Available", "").await.map(drop)
    }

    /// Sets the volume's phase.
    pub(super) async fn volume_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        message: &str,
    ) -> Result<PersistentVolume, Error> {
        if volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(phase) {
            return Ok(volume.clone());
        }
        let message = if message.is_empty() { Value::Null } else { json!(message) };
        let now = jiff::Timestamp::now();
        let now = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
        let status = json!({"phase": phase, "message": message, "lastPhaseTransitionTime": now});
        let patch = Patch::Merge(versioned(volume, json!({"status": status})));
        let name = volume.name_any();
        let written = self.volumes().patch_status(&name, &PatchParams::default(), &patch).await;
        written.doing(|| format!("write status of volume {name}"))
    }

    /// Sets the claim's phase, and what its volume gives it.
    pub(super) async fn claim_phase(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<(), Error> {
        let status = claim_status(claim, phase, volume)?;
        if status.as_object().is_none_or(serde_json::Map::is_empty) {
            return Ok(());
        }
        let patch = Patch::Merge(versioned(claim, json!({"status": status})));
        let name = claim.name_any();
        let written = self.claims(claim).patch_status(&name, &PatchParams::default(), &patch).await;
        written.map(drop).doing(|| format!("write status of claim {}", key_of(claim)))
    }

    /// Gives a claim without class the default one.
    pub(super) async fn assign_class(&self, claim: &PersistentVolumeClaim, class: &str) -> Result<(), Error> {
        self.claim(claim, json!({"spec": {"storageClassName": class}})).await.map(drop)
    }

    /// Tells an outside provisioner that the claim is its own.
    pub(super) async fn ask(
        &self,
        claim: &PersistentVolumeClaim,
        provisioner: &str,
    ) -> Result<PersistentVolumeClaim, Error> {
        if claim.annotations().get(migration::PROVISIONER).is_some_and(|p| p == provisioner) {
            return Ok(claim.clone());
        }
        let mark = migration::annotation(claim.metadata.annotations.as_ref(), Some(provisioner));
        let mut wanted = vec![
            (migration::BETA_PROVISIONER, Some(provisioner)),
            (migration::PROVISIONER, Some(provisioner)),
        ];
        wanted.extend(mark.map(|mark| (migration::MIGRATED_TO, mark)));
        self.annotate_claim(claim, &wanted).await
    }

    /// Sets annotations of a claim, or takes them away.
    pub(super) async fn annotate_claim(
        &self,
        claim: &PersistentVolumeClaim,
        annotations: &[(&str, Option<&str>)],
    ) -> Result<PersistentVolumeClaim, Error> {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        self.claim(claim, json!({"metadata": {"annotations": annotations}})).await
    }

    /// Marks a volume whose plugin moved, and sets the finalizers that go with it.
    pub(super) async fn migrate_volume(
        &self,
        volume: &PersistentVolume,
        mark: Option<Option<&str>>,
        finalizers: Option<Vec<String>>,
    ) -> Result<(), Error> {
        let mut metadata = json!({});
        if let Some(mark) = mark {
            metadata["annotations"] = json!({migration::MIGRATED_TO: mark});
        }
        if let Some(finalizers) = finalizers {
            metadata["finalizers"] = json!(finalizers);
        }
        self.volume(volume, json!({"metadata": metadata})).await.map(drop)
    }

    /// Sets a volume's finalizers.
    pub(super) async fn volume_finalizers(
        &self,
        volume: &PersistentVolume,
        finalizers: Vec<String>,
    ) -> Result<(), Error> {
        self.volume(volume, json!({"metadata": {"finalizers": finalizers}})).await.map(drop)
    }

    pub(super) async fn delete_volume(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let name = volume.name_any();
        let own = Preconditions { uid: volume.uid(), resource_version: None };
        let deleted = self.volumes().delete(&name, &DeleteParams::default().preconditions(own)).await;
        found(deleted).map(drop).doing(|| format!("delete volume {name}"))
    }
}

/// A change bound to the version of the object it was decided on.
fn versioned<K: Resource>(object: &K, mut change: Value) -> Value {
    let meta = object.meta();
    change["metadata"]["uid"] = json!(meta.uid);
    change["metadata"]["resourceVersion"] = json!(meta.resource_version);
    change
}

/// `spec.claimRef` for a claim.
fn reference(claim: &PersistentVolumeClaim) -> Value {
    let meta = &claim.metadata;
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": meta.namespace,
        "name": meta.name,
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
    })
}

/// The fields of a claim's status that differ from what they should be.
fn claim_status(
    claim: &PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
) -> Result<Value, Error> {
    let status = claim.status.clone().unwrap_or_default();
    let same_phase = status.phase.as_deref() == Some(phase);
    let mut change = json!({});
    if !same_phase {
        change["phase"] = json!(phase);
    }
    let Some(volume) = volume else {
        for (key, is_set) in [
            ("accessModes", status.access_modes.is_some()),
            ("capacity", status.capacity.is_some()),
            ("currentVolumeAttributesClassName", status.current_volume_attributes_class_name.is_some()),
        ] {
            if is_set {
                change[key] = Value::Null;
            }
        }
        return Ok(change);
    };
    let spec = volume.spec.clone().unwrap_or_default();
    if status.access_modes != spec.access_modes {
        change["accessModes"] = json!(spec.access_modes);
    }
    // Only a claim that becomes bound takes the volume's size: later the two may differ while it grows.
    if same_phase {
        return Ok(change);
    }
    let name = volume.name_any();
    let Some(capacity) = spec.capacity.as_ref().and_then(|c| c.get("storage")) else {
        let text = format!(
            "PersistentVolume {} is without a storage capacity",
            machinery::goformat::go_quote(&name)
        );
        return Err(Error::Unusable(text));
    };
    match volume.annotations().get(PRE_RESIZE) {
        Some(before) => {
            let usable = machinery::quantity::Quantity::parse(before).is_ok();
            let before = if usable { before.as_str() } else { &capacity.0 };
            change["capacity"] = json!({"storage": before});
        }
        None if status.capacity.as_ref().and_then(|c| c.get("storage")) != Some(capacity) => {
            change["capacity"] = json!(spec.capacity);
        }
        None => {}
    }
    if status.phase.as_deref() == Some("Pending")
        && status.current_volume_attributes_class_name != spec.volume_attributes_class_name
    {
        change["currentVolumeAttributesClassName"] = json!(spec.volume_attributes_class_name);
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(status: Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {}, "status": status})).unwrap()
    }

    #[test]
    fn a_claim_takes_over_what_its_volume_is() {
        let volume: PersistentVolume = serde_json::from_value(json!({
            "metadata": {"name": "v"},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}},
        }))
        .unwrap();
        let bound =
            json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}});
        let change = claim_status(&claim(json!({"phase": "Pending"})), "Bound", Some(&volume)).unwrap();
        assert_eq!(change, bound);
        let settled = claim_status(&claim(bound.clone()), "Bound", Some(&volume)).unwrap();
        assert_eq!(settled, json!({}));
        let mut growing = bound.clone();
        growing["capacity"]["storage"] = json!("1Gi");
        let change = claim_status(&claim(growing), "Bound", Some(&volume)).unwrap();
        assert_eq!(change, json!({}), "its size is not ours while it is bound");
        let lost = claim_status(&claim(bound), "Lost", None).unwrap();
        assert_eq!(lost, json!({"phase": "Lost", "accessModes": null, "capacity": null}));
    }

    #[test]
    fn a_volume_that_grows_gives_its_old_size() {
        let volume: PersistentVolume = serde_json::from_value(json!({
            "metadata": {"name": "v", "annotations": {PRE_RESIZE: "1Gi"}},
            "spec": {"capacity": {"storage": "2Gi"}},
        }))
        .unwrap();
        let change = claim_status(&claim(json!({"phase": "Pending"})), "Bound", Some(&volume)).unwrap();
        assert_eq!(change["capacity"]["storage"], "1Gi");
    }
}
