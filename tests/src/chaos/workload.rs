//! Roll-outs of a Deployment and Jobs, one after another, and what is exact about each once it has ended.

use super::servers::{SETTLE, Seen, Servers};
use crate::patience::eventually;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const IMAGE: &str = "lab.local/echo:1";
/// Pods of the Deployment, and of a Job's completions.
const COUNT: i32 = 4;
const NAME: &str = "chaos";
/// Longer than a machine is without power and its pods then take, twice.
const PATIENCE: Duration = SETTLE.saturating_mul(2);

/// Works until `stop`, and then until what is under way has ended.
pub(super) async fn run(rollouts: Servers, jobs: Servers, seen: &Seen, stop: &CancellationToken) {
    tokio::join!(roll_out(rollouts, seen, stop), run_jobs(jobs, seen, stop));
}

async fn roll_out(mut servers: Servers, seen: &Seen, stop: &CancellationToken) {
    for round in 1.. {
        if stop.is_cancelled() {
            return;
        }
        let began = Instant::now();
        let wanted = deployment(round);
        if apply::<Deployment>(&mut servers, seen, NAME, &wanted).await.is_none() {
            return;
        }
        let ended = eventually(&format!("roll-out {round}"), PATIENCE, async || {
            look_at_rollout(&mut servers, seen).await
        })
        .await;
        seen.note(|facts| match ended {
            Ok(()) => {
                facts.work.rollouts += 1;
                facts.work.slowest_rollout = facts.work.slowest_rollout.max(began.elapsed());
            }
            Err(wrong) => facts.work.wrong.push(wrong),
        });
    }
}

async fn run_jobs(mut servers: Servers, seen: &Seen, stop: &CancellationToken) {
    for round in 1.. {
        if stop.is_cancelled() {
            return;
        }
        let (name, began) = (format!("{NAME}-{round}"), Instant::now());
        if apply::<Job>(&mut servers, seen, &name, &job(&name)).await.is_none() {
            return;
        }
        let ended = eventually(&name, PATIENCE, async || look_at_job(&mut servers, seen, &name).await).await;
        seen.note(|facts| match ended {
            Ok(()) => {
                facts.work.jobs += 1;
                facts.work.slowest_job = facts.work.slowest_job.max(began.elapsed());
            }
            Err(wrong) => facts.work.wrong.push(wrong),
        });
    }
}

/// Applying again what was applied changes nothing, whatever became of the answer to the first time.
async fn apply<K>(servers: &mut Servers, seen: &Seen, name: &str, wanted: &Value) -> Option<K>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let params = PatchParams::apply(NAME).force();
    let ask = |servers: &Servers| {
        let (api, params) = (servers.api::<K>(), params.clone());
        async move { api.patch(name, &params, &Patch::Apply(wanted)).await }
    };
    servers.insist(seen, &format!("apply {name}"), ask).await
}

async fn labelled<K>(servers: &mut Servers, seen: &Seen, label: &str) -> Vec<K>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let params = ListParams::default().labels(label);
    let ask = |servers: &Servers| {
        let (api, params) = (servers.api::<K>(), params.clone());
        async move { api.list(&params).await }
    };
    servers.insist(seen, &format!("list {label}"), ask).await.map_or_else(Vec::new, |list| list.items)
}

/// Whether the roll-out is complete: as many pods as wanted, all of one ReplicaSet.
async fn look_at_rollout(servers: &mut Servers, seen: &Seen) -> Result<(), String> {
    let ask = |servers: &Servers| {
        let api = servers.api::<Deployment>();
        async move { api.get(NAME).await }
    };
    let found = servers.insist(seen, "get the deployment", ask).await.ok_or("it is gone")?;
    let status = found.status.unwrap_or_default();
    let counts = [status.replicas, status.updated_replicas, status.available_replicas];
    if status.observed_generation != found.metadata.generation || counts != [Some(COUNT); 3] {
        return Err(format!("all, updated, available: {counts:?} of {COUNT}"));
    }
    let sets: Vec<ReplicaSet> = labelled(servers, seen, "app=chaos").await;
    let sizes: Vec<i32> =
        sets.iter().filter_map(|set| set.spec.as_ref()?.replicas).filter(|n| *n > 0).collect();
    let pods: Vec<Pod> = labelled(servers, seen, "app=chaos").await;
    let living = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count();
    if sizes != [COUNT] || living != COUNT as usize {
        return Err(format!("ReplicaSets of {sizes:?}, {living} pods, of {COUNT}"));
    }
    Ok(())
}

/// Whether the Job is complete, after as many pods that succeeded as wanted.
async fn look_at_job(servers: &mut Servers, seen: &Seen, name: &str) -> Result<(), String> {
    let ask = |servers: &Servers| {
        let api = servers.api::<Job>();
        async move { api.get(name).await }
    };
    let found = servers.insist(seen, "get the job", ask).await.ok_or("it is gone")?;
    let status = found.status.unwrap_or_default();
    let complete = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Complete" && condition.status == "True");
    if !complete {
        return Err(format!("not complete: {status:?}"));
    }
    let pods: Vec<Pod> = labelled(servers, seen, &format!("job-name={name}")).await;
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
    let succeeded = pods.iter().filter(|pod| phase(pod).as_deref() == Some("Succeeded")).count();
    if status.succeeded != Some(COUNT) || succeeded != COUNT as usize {
        return Err(format!("{:?} counted, {succeeded} pods succeeded, of {COUNT}", status.succeeded));
    }
    Ok(())
}

fn deployment(round: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME},
        "spec": {
            "replicas": COUNT,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": {"app": NAME}, "annotations": {"round": round.to_string()}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
                    "name": "echo", "image": IMAGE,
                    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                }]},
            },
        },
    })
}

fn job(name: &str) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {
            "completions": COUNT, "parallelism": 2, "backoffLimit": 20, "ttlSecondsAfterFinished": 120,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{
                "name": "work", "image": IMAGE, "command": ["/bin/sleep", "0.5"],
            }]}},
        },
    })
}
