//! A claim's volume that was made larger while a pod uses it. Upstream: `volume/util/operationexecutor` (`node_expander.go`), `volume/util`
//! (`resize_util.go`) and `volume/local`, whose texts these are.
//!
//! Of the volumes mounted here only `local` ones are grown by the node: somebody makes the disk and its PersistentVolume larger, and the
//! node says in the claim's status that it is there. A directory needs nothing done to it, and a raw device shows its size.
//! Whatever fails here, or is not answered in time, holds nothing else up; it is tried again at a later sync of the pod.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition, Pod,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams};
use machinery::quantity::Quantity;
use serde_json::{Value, json};

use super::claim::{self, Claimed};
use crate::recorder::{Kind, Recorder, Subject};

/// How long a sync waits for the API server to say how large the volume is, and then to take what is written.
const PATIENCE: Duration = Duration::from_secs(2);
/// The conditions about a resize.
const CONDITIONS: [&str; 4] =
    ["FileSystemResizePending", "Resizing", "ControllerResizeError", NODE_RESIZE_ERROR];
const NODE_RESIZE_ERROR: &str = "NodeResizeError";
const PENDING: &str = "NodeResizePending";
const IN_PROGRESS: &str = "NodeResizeInProgress";
const INFEASIBLE: &str = "NodeResizeInfeasible";

/// What a claim gets that its status does not show yet.
#[derive(Debug, PartialEq)]
struct Growth {
    size: Quantity,
    /// A resizer keeps count of the steps in `allocatedResourceStatuses`.
    counted: bool,
    /// What is asked for changed after a failure: failing once more, the resizer should choose another size.
    last_try: bool,
}

/// Grows what a pod's claim is bound to, if it is to be grown.
pub(super) async fn follow(client: &kube::Client, recorder: &Recorder, pod: &Pod, claimed: &Claimed) {
    let local = claimed.volume.spec.as_ref().is_some_and(|s| s.local.is_some());
    if !local || claimed.read_only {
        return;
    }
    let (claim, volume) = match tokio::time::timeout(PATIENCE, read(client, pod, claimed)).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return tracing::debug!(volume = claimed.name(), %error, "its size is not known"),
        Err(_) => return tracing::debug!(volume = claimed.name(), "its size is not known in time"),
    };
    let Some(growth) = growth(&claim, &volume) else { return };
    if claim::is_for(&volume, &claim).is_err() {
        return;
    }
    let grown = tokio::time::timeout(PATIENCE, grow(client, recorder, pod, claim, &volume, &growth)).await;
    let grown = grown.unwrap_or_else(|_| Err("the API server did not answer in time".to_owned()));
    if let Err(error) = grown {
        let name = claimed.name();
        let text = format!("NodeExpandVolume.NodeExpandVolume failed for volume \"{name}\" : {error}");
        recorder.warning(pod, None, "VolumeResizeFailed", text);
    }
}

async fn read(
    client: &kube::Client,
    pod: &Pod,
    claimed: &Claimed,
) -> kube::Result<(PersistentVolumeClaim, PersistentVolume)> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), crate::pod::namespace(pod));
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    tokio::try_join!(claims.get(&claimed.claim), volumes.get(claimed.name()))
}

fn growth(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<Growth> {
    let status = claim.status.clone().unwrap_or_default();
    let storage =
        |sizes: Option<&std::collections::BTreeMap<String, _>>| size(sizes).unwrap_or_else(Quantity::zero);
    let has = storage(status.capacity.as_ref());
    let capacity = size(volume.spec.as_ref().and_then(|s| s.capacity.as_ref()))?;
    if capacity <= has {
        return None;
    }
    let step = step(claim);
    if step.is_empty() && status.allocated_resources.is_none() {
        return Some(Growth { size: capacity, counted: false, last_try: false });
    }
    let size = storage(status.allocated_resources.as_ref());
    let asked = claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let failed = status.conditions.iter().flatten().any(|c| c.type_ == NODE_RESIZE_ERROR);
    let last_try = failed && storage(asked) != size;
    [PENDING, IN_PROGRESS].contains(&step).then_some(Growth { size, counted: true, last_try })
}

fn size(
    sizes: Option<
        &std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
    >,
) -> Option<Quantity> {
    Quantity::parse(&sizes?.get("storage")?.0).ok()
}

/// Where a counted resize is; empty: nowhere.
fn step(claim: &PersistentVolumeClaim) -> &str {
    let statuses = claim.status.as_ref().and_then(|s| s.allocated_resource_statuses.as_ref());
    statuses.and_then(|s| s.get("storage")).map_or("", String::as_str)
}

async fn grow(
    client: &kube::Client,
    recorder: &Recorder,
    pod: &Pod,
    mut claim: PersistentVolumeClaim,
    volume: &PersistentVolume,
    growth: &Growth,
) -> Result<(), String> {
    if growth.counted && step(&claim) != IN_PROGRESS {
        let change = json!({"allocatedResourceStatuses": {"storage": IN_PROGRESS}});
        claim = write(client, &claim, change).await?;
    }
    if let Err(error) = expand(volume).await {
        if growth.counted
            && let Err(unwritten) =
                write(client, &claim, failed(&claim, growth, &error, Timestamp::now())).await
        {
            tracing::warn!(error = unwritten, "a failed resize is not shown in the claim's status");
        }
        return Err(error);
    }
    let (name, node) =
        (volume.metadata.name.as_deref(), pod.spec.as_ref().and_then(|s| s.node_name.as_deref()));
    let text = format!(
        "MountVolume.NodeExpandVolume succeeded for volume \"{}\" {}",
        name.unwrap_or_default(),
        node.unwrap_or_default()
    );
    for subject in [Subject::pod(pod, None), Subject::claim(&claim)] {
        recorder.record(subject, Kind::Normal, "FileSystemResizeSuccessful", text.clone());
    }
    match write(client, &claim, finished(&claim, &growth.size)).await {
        Ok(_) => Ok(()),
        Err(error) if growth.counted => {
            Err(format!("mountVolume.NodeExpandVolume update pvc status failed: {error}"))
        }
        Err(error) => Err(format!("mountVolume.NodeExpandVolume update PVC status failed : {error}")),
    }
}

/// What the node does to a local volume.
async fn expand(volume: &PersistentVolume) -> Result<(), String> {
    let Some(spec) = &volume.spec else { return Ok(()) };
    if spec.volume_mode.as_deref() == Some("Block") {
        return Ok(());
    }
    let path = spec.local.as_ref().map_or("", |local| &local.path);
    // A disk that is gone may take its time to say so.
    let metadata = tokio::fs::metadata(Path::new("/").join(path)).await;
    let metadata = metadata.map_err(|error| format!("{path}: {error}"))?;
    match metadata.is_dir() {
        true => Ok(()),
        false => Err("only directory and block device are supported".to_owned()),
    }
}

fn finished(claim: &PersistentVolumeClaim, size: &Quantity) -> Value {
    let rest = |c: &&PersistentVolumeClaimCondition| !CONDITIONS.contains(&c.type_.as_str());
    let conditions = conditions(claim).iter().filter(rest).collect::<Vec<_>>();
    let steps = claim.status.as_ref().and_then(|s| s.allocated_resource_statuses.as_ref());
    let last = steps.is_none_or(|steps| steps.keys().all(|resource| resource == "storage"));
    json!({
        "capacity": {"storage": size.to_string()},
        "allocatedResourceStatuses": if last { Value::Null } else { json!({"storage": null}) },
        "conditions": if conditions.is_empty() { Value::Null } else { json!(conditions) },
    })
}

fn failed(claim: &PersistentVolumeClaim, growth: &Growth, error: &str, now: Timestamp) -> Value {
    let mut conditions = conditions(claim).to_vec();
    let said = |c: &PersistentVolumeClaimCondition| c.type_ == NODE_RESIZE_ERROR;
    if !conditions.iter().any(|c| said(c) && c.status == "True") {
        conditions.retain(|c| !said(c));
        conditions.push(PersistentVolumeClaimCondition {
            type_: NODE_RESIZE_ERROR.to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(Time(now)),
            message: Some(format!("failed to expand pvc with {error}")),
            ..PersistentVolumeClaimCondition::default()
        });
    }
    match growth.last_try {
        true => json!({"conditions": conditions, "allocatedResourceStatuses": {"storage": INFEASIBLE}}),
        false => json!({"conditions": conditions}),
    }
}

fn conditions(claim: &PersistentVolumeClaim) -> &[PersistentVolumeClaimCondition] {
    claim.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

/// Changes a claim's status, unless somebody changed the claim meanwhile.
async fn write(
    client: &kube::Client,
    claim: &PersistentVolumeClaim,
    status: Value,
) -> Result<PersistentVolumeClaim, String> {
    let (name, meta) = (claim.metadata.name.as_deref().unwrap_or_default(), &claim.metadata);
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let patch = json!({"metadata": {"resourceVersion": meta.resource_version}, "status": status});
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let written = claims.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    written.map_err(|e| format!("patchPVCStatus failed to patch PVC \"{name}\": {}", claim::told(&e)))
}

#[cfg(test)]
mod tests;
