//! What must be written before a pod with late claims is bound: its volumes are kept for its claims, and claims without one are given
//! the node they are to be provisioned for. Then the volume binder and the provisioners work; this waits until every claim is bound.

use crate::model::Pod;
use crate::model::storage::Needs;
use k8s_openapi::api::core::v1 as api;
use kube::api::{Patch, PatchParams};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client};
use machinery::binding::{BIND_COMPLETED, BOUND_BY_CONTROLLER, Claim, SELECTED_NODE, Volume};
use machinery::goformat::go_quote;
use serde_json::json;
use std::time::Duration;

/// How long claims may take to be bound; upstream's `bindTimeoutSeconds`.
const BINDING: Duration = Duration::from_secs(600);
/// How long one write may take.
const WRITE: Duration = Duration::from_secs(30);

/// Writes claims and volumes.
#[derive(Clone)]
pub(crate) struct VolumeWriter {
    client: Client,
}

impl VolumeWriter {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn claims(&self, claim: &Claim) -> Api<api::PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), &claim.namespace)
    }

    /// Brings the pod's claims to their volumes on the node; the error is for the pod's condition.
    pub(crate) async fn bind(&self, pod: &Pod, node: &str, needs: &Needs) -> Result<(), String> {
        let write = async {
            for (disk, claim) in &needs.bind {
                self.keep(&disk.volume, claim).await?;
            }
            for claim in &needs.provision {
                self.choose(claim, node).await?;
            }
            Ok(())
        };
        let written: Result<(), kube::Error> = tokio::time::timeout(WRITE, write)
            .await
            .unwrap_or_else(|late| Err(kube::Error::Service(late.into())));
        written.map_err(|error| client::message_of(&error))?;
        let wait = async {
            for (_, claim) in &needs.bind {
                self.bound(pod, claim, None).await?;
            }
            for claim in &needs.provision {
                self.bound(pod, claim, Some(node)).await?;
            }
            Ok(())
        };
        match tokio::time::timeout(BINDING, wait).await {
            Ok(done) => done.map_err(|why: String| format!("binding volumes: {why}")),
            Err(_) => Err("binding volumes: context deadline exceeded".to_owned()),
        }
    }

    /// Keeps a volume for a claim; the volume binder does the rest.
    async fn keep(&self, volume: &Volume, claim: &Claim) -> Result<(), kube::Error> {
        let mut metadata = json!({"uid": volume.uid, "resourceVersion": volume.version});
        if !volume.is_of(claim) {
            metadata["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
        }
        let patch = json!({"metadata": metadata, "spec": {"claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": claim.namespace,
            "name": claim.name,
            "uid": claim.uid,
            "resourceVersion": claim.version,
        }}});
        let volumes: Api<api::PersistentVolume> = Api::all(self.client.clone());
        volumes.patch(&volume.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    /// Has a claim provisioned for the node.
    async fn choose(&self, claim: &Claim, node: &str) -> Result<(), kube::Error> {
        let patch = json!({"metadata": {
            "uid": claim.uid,
            "resourceVersion": claim.version,
            "annotations": {SELECTED_NODE: node},
        }});
        self.claims(claim).patch(&claim.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    /// Waits until the claim is bound. With `node`, a provisioner that gives up takes the annotation away.
    async fn bound(&self, pod: &Pod, claim: &Claim, node: Option<&str>) -> Result<(), String> {
        let settled = await_condition(self.claims(claim), &claim.name, Settled { node });
        let pods: Api<api::Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let gone = await_condition(pods, &pod.name, kube::runtime::conditions::is_deleted(&pod.uid));
        let last = tokio::select! {
            last = settled => last.map_err(|error| format!("failed to check binding: {error}"))?,
            _ = gone => return Err(format!("pod does not exist any more: pod {} not found", go_quote(&pod.name))),
        };
        match last {
            Some(last) if is_bound(&last) => Ok(()),
            Some(_) => Err(format!("provisioning failed for PVC {}", go_quote(&claim.name))),
            None => Err(format!(
                "failed to check binding: persistentvolumeclaim {} not found",
                go_quote(&claim.name)
            )),
        }
    }
}

fn is_bound(claim: &api::PersistentVolumeClaim) -> bool {
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).is_some_and(|n| !n.is_empty());
    named && claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(BIND_COMPLETED))
}

/// The claim is bound, gone, or given up by its provisioner.
struct Settled<'a> {
    node: Option<&'a str>,
}

impl Condition<api::PersistentVolumeClaim> for Settled<'_> {
    fn matches_object(&self, claim: Option<&api::PersistentVolumeClaim>) -> bool {
        let Some(claim) = claim else { return true };
        let chosen = claim.metadata.annotations.as_ref().and_then(|a| a.get(SELECTED_NODE));
        is_bound(claim) || self.node.is_some_and(|node| chosen.map(String::as_str) != Some(node))
    }
}
