//! Plays scheduler and kubelets: binds pods, has them run (those of Jobs to their end), and lets them go when they are deleted.

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use supervise::Scope;

pub const NODES: [&str; 2] = ["n1", "n2"];

/// The uids of all pods ever seen, by the name of what owns them.
pub type Made = Arc<Mutex<BTreeMap<String, std::collections::BTreeSet<String>>>>;

/// The nodes as objects.
pub fn objects() -> Vec<Value> {
    let node = |name: &&str| {
        let conditions = json!([{"type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": jiff::Timestamp::now().to_string(), "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {
            "capacity": {"cpu": "8", "memory": "8Gi", "pods": "110"},
            "allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"}, "conditions": conditions}})
    };
    NODES.iter().map(node).collect()
}

pub fn play(scope: &Scope, client: Client) -> Made {
    let made = Made::default();
    let seen = made.clone();
    scope.keep(supervise::Task::endless("node", move || {
        let (client, seen) = (client.clone(), seen.clone());
        async move {
            let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
            let each = pods.applied_objects().try_for_each(|pod| {
                let owner = pod.owner_references().first().map(|owner| owner.name.clone());
                seen.lock()
                    .entry(owner.unwrap_or_default())
                    .or_default()
                    .insert(pod.uid().unwrap_or_default());
                let client = client.clone();
                async move {
                    drop(act(&client, &pod).await);
                    Ok(())
                }
            });
            drop(each.await);
        }
    }));
    made
}

async fn act(client: &Client, pod: &Pod) -> kube::Result<()> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let (name, object) = (pod.name_any(), serde_json::to_value(pod).unwrap());
    if pod.metadata.deletion_timestamp.is_some() {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        return api.delete(&name, &now).await.map(drop);
    }
    if object["spec"]["nodeName"].is_null() {
        let terms =
            "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
        let meant = object.pointer(&format!("{terms}/0/matchFields/0/values/0")).and_then(Value::as_str);
        let node = meant.unwrap_or(NODES[name.len() % NODES.len()]);
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
        let plain = PostParams::default();
        return api.create_subresource::<Value, Value>("binding", &name, &plain, &binding).await.map(drop);
    }
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    let wanted =
        if pod.owner_references().iter().any(|owner| owner.kind == "Job") { "Succeeded" } else { "Running" };
    if phase == wanted {
        return Ok(());
    }
    let ready = if wanted == "Running" { "True" } else { "False" };
    let state = match wanted {
        "Running" => json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}),
        _ => {
            json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}})
        }
    };
    let condition =
        |kind| json!({"type": kind, "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let container = &object["spec"]["containers"][0];
    let status = json!({"phase": wanted, "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
        "conditions": [condition("Ready"), condition("ContainersReady")],
        "containerStatuses": [{"name": container["name"], "image": container["image"], "imageID": "i",
            "ready": wanted == "Running", "restartCount": 0, "state": state}]});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await.map(drop)
}
