//! Makes the claims of generic ephemeral volumes.
//!
//! Woken by: a pod that names such a volume, a claim that goes while its pod is there. Reads: pods and claims. Writes: the claim, named
//! after pod and volume and controlled by the pod. Promises: a claim of that name that is not the pod's own is never used, and said so.

use crate::cluster::Cluster;
use crate::informer::{Informer, controller_uid, key_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Error, Reconcile};
use crate::recorder::{Recorder, Severity};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use std::sync::Arc;
use std::time::Duration;

pub(crate) struct EphemeralVolumes {
    pods: Arc<Informer<Pod>>,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    client: Client,
    recorder: Recorder,
}

impl EphemeralVolumes {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, recorder: Recorder, queue: &Arc<Queue>) -> Self {
        let wake = queue.clone();
        cluster.pods.on_change(move |old, new| {
            // A pod's volumes never change.
            if let (None, Some(pod)) = (old, new)
                && pod.metadata.deletion_timestamp.is_none()
                && ephemeral(pod).next().is_some()
            {
                wake.add(key_of(&**pod));
            }
        });
        let (wake, pods) = (queue.clone(), cluster.pods.clone());
        cluster.persistent_volume_claims.on_change(move |old, new| {
            if let (Some(claim), None) = (old, new) {
                let namespace = claim.namespace().unwrap_or_default();
                let name = claim.name_any();
                for pod in pods.list(&namespace) {
                    if ephemeral(&pod).any(|v| claim_name(&pod, v) == name) {
                        wake.add(key_of(&*pod));
                    }
                }
            }
        });
        Self {
            pods: cluster.pods.clone(),
            claims: cluster.persistent_volume_claims.clone(),
            client,
            recorder,
        }
    }

    async fn ensure(&self, pod: &Pod, volume: &Volume) -> Result<(), String> {
        let namespace = pod.namespace().unwrap_or_default();
        let name = claim_name(pod, volume);
        if let Some(claim) = self.claims.get(&Key::new(&namespace, &name)) {
            return owned(pod, &claim);
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &namespace);
        let created = api.create(&PostParams::default(), &claim_for(pod, volume)).await;
        created.map(drop).map_err(|error| format!("create PVC {name}: {}", told(&error)))
    }
}

/// What the API server said.
fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn ephemeral(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    volumes.iter().filter(|v| v.ephemeral.is_some())
}

fn claim_name(pod: &Pod, volume: &Volume) -> String {
    format!("{}-{}", pod.name_any(), volume.name)
}

/// Whether the claim was made for the pod; the error is upstream's.
fn owned(pod: &Pod, claim: &PersistentVolumeClaim) -> Result<(), String> {
    if controller_uid(claim) == pod.metadata.uid.as_deref() {
        return Ok(());
    }
    Err(format!("PVC {} was not created for pod {} (pod is not owner)", key_of(claim), key_of(pod)))
}

fn claim_for(pod: &Pod, volume: &Volume) -> PersistentVolumeClaim {
    let template = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.clone());
    let template = template.unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(claim_name(pod, volume)),
            annotations: meta.annotations,
            labels: meta.labels,
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: pod.name_any(),
                uid: pod.uid().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec),
        status: None,
    }
}

impl Reconcile for EphemeralVolumes {
    const NAME: &'static str = "ephemeral-volume-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(pod) = self.pods.get(key) else { return Ok(None) };
        if pod.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        for volume in ephemeral(&pod) {
            if let Err(why) = self.ensure(&pod, volume).await {
                let text = format!("ephemeral volume {}: {why}", volume.name);
                let component = "ephemeral_volume";
                self.recorder.record(component, &*pod, Severity::Warning, "FailedBinding", text.clone());
                return Err(Error::Unusable(format!("pod {key}, {text}")));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_belongs_to_its_pod_alone() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "volumes": [{"name": "data", "ephemeral": {"volumeClaimTemplate": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "s"}}}}]},
        }))
        .unwrap();
        let volume = ephemeral(&pod).next().unwrap();
        let mut claim = claim_for(&pod, volume);
        claim.metadata.namespace = Some("n".to_owned());
        assert_eq!(claim.name_any(), "p-data");
        assert_eq!(claim.labels().get("a").map(String::as_str), Some("b"));
        assert_eq!(claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()), Some("s"));
        assert_eq!(owned(&pod, &claim), Ok(()));
        claim.metadata.owner_references = None;
        assert_eq!(
            owned(&pod, &claim),
            Err("PVC n/p-data was not created for pod n/p (pod is not owner)".to_owned())
        );
    }
}
