//! What users do while the controllers die: a cluster of most kinds is made, changed and partly removed.

use crate::lives::Lives;
use crate::node;
use crate::server::Server;
use crate::user::User;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use supervise::{Scope, Supervisor};
use tokio_util::sync::CancellationToken;

/// How a story ended.
pub struct Ended {
    pub lives: usize,
    /// All objects, without what is random or depends on the clock: a line an object.
    pub objects: Vec<String>,
    /// Pods ever made, by owner.
    pub pods_made: BTreeMap<String, usize>,
}

pub async fn run(lives: Lives) -> Ended {
    let server = Arc::new(Server::start().await);
    let user = User(server.client());
    let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
    let scope = Scope::new(&supervisor, "test/", &stop);
    let made = node::play(&scope, server.client());
    let living = lives.begin(&server);
    for object in node::objects().into_iter().chain(beginning()) {
        user.create(&object).await;
    }
    user.adopt("ConfigMap", "owned", "owner").await;
    user.until("Deployment", "d", |d| settled(d, 3)).await;
    user.until("StatefulSet", "s", |s| settled(s, 3)).await;
    user.until("DaemonSet", "ds", |d| d["status"]["numberAvailable"] == 2).await;
    user.until("Job", "j", |j| j["status"]["succeeded"] == 3 && j["status"]["completionTime"].is_string())
        .await;
    user.until("PersistentVolumeClaim", "c", |c| c["status"]["phase"] == "Bound").await;

    user.until("Service", "lb-first", |service| address(service) == "192.0.2.1").await;
    user.create(&balanced("lb-second")).await;

    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    user.patch("Deployment", "d", &image).await;
    user.patch("DaemonSet", "ds", &image).await;
    user.patch("StatefulSet", "s", &json!({"spec": {"replicas": 1}})).await;
    for (kind, name) in [("Job", "j"), ("ConfigMap", "owner"), ("Namespace", "gone"), ("Service", "lb-first")]
    {
        user.delete(kind, name).await;
    }
    user.until("Deployment", "d", |d| settled(d, 3)).await;
    user.until("StatefulSet", "s", |s| settled(s, 1)).await;
    user.until("DaemonSet", "ds", |d| {
        observed(d) && d["status"]["updatedNumberScheduled"] == 2 && d["status"]["numberAvailable"] == 2
    })
    .await;
    for (kind, name) in [("Job", "j"), ("ConfigMap", "owned"), ("Namespace", "gone"), ("Service", "lb-first")]
    {
        user.until_gone(kind, name).await;
    }
    // There is one address: it was given back, and is given once.
    user.until("Service", "lb-second", |service| address(service) == "192.0.2.1").await;
    user.until_all("EndpointSlice", |slices| {
        let of = |slice: &Value| slice["endpoints"].as_array().map_or(0, Vec::len);
        slices.iter().map(of).sum::<usize>() == 3
            && slices.iter().all(|s| {
                s["endpoints"].as_array().is_some_and(|e| e.iter().all(|e| e["conditions"]["ready"] == true))
            })
    })
    .await;
    // three of the Deployment, one of the StatefulSet, two of the DaemonSet
    user.until_all("Pod", |pods| pods.len() == 6).await;
    let ended = Ended {
        lives: living.end().await,
        objects: user.picture().await,
        pods_made: made.lock().iter().map(|(owner, pods)| (owner.clone(), pods.len())).collect(),
    };
    stop.cancel();
    scope.ended().await;
    ended
}

/// A Service that is to have the pool's only address.
fn balanced(name: &str) -> Value {
    let spec = json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

fn address(service: &Value) -> &Value {
    &service["status"]["loadBalancer"]["ingress"][0]["ip"]
}

fn observed(object: &Value) -> bool {
    object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

fn settled(object: &Value, replicas: u32) -> bool {
    let status = &object["status"];
    observed(object)
        && ["replicas", "readyReplicas", "updatedReplicas", "availableReplicas"]
            .iter()
            .all(|field| status[field] == replicas)
}

fn beginning() -> Vec<Value> {
    let template = |app: &str, restart: &str| {
        json!({"metadata": {"labels": {"app": app}}, "spec": {"restartPolicy": restart, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "i:1"}]}})
    };
    let selector = |app: &str| json!({"matchLabels": {"app": app}});
    let object = |api: &str, kind: &str, name: &str, rest: Value| {
        let mut object = json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}});
        object.as_object_mut().unwrap().extend(rest.as_object().cloned().unwrap_or_default());
        object
    };
    let spec = |spec: Value| json!({"spec": spec});
    let storage = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}});
    vec![
        object("v1", "Namespace", "gone", json!({})),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "in-it", "namespace": "gone"}}),
        object(
            "v1",
            "PersistentVolume",
            "v",
            spec(json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/v"}, "persistentVolumeReclaimPolicy": "Retain"})),
        ),
        object("v1", "PersistentVolumeClaim", "c", spec(storage)),
        object("v1", "Service", "svc", spec(json!({"selector": {"app": "d"}, "ports": [{"port": 80}]}))),
        object(
            "apps/v1",
            "Deployment",
            "d",
            spec(json!({"replicas": 3, "selector": selector("d"), "template": template("d", "Always"),
                "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}})),
        ),
        object(
            "apps/v1",
            "StatefulSet",
            "s",
            spec(
                json!({"replicas": 3, "serviceName": "s", "selector": selector("s"), "template": template("s", "Always")}),
            ),
        ),
        object(
            "apps/v1",
            "DaemonSet",
            "ds",
            spec(json!({"selector": selector("ds"), "template": template("ds", "Always")})),
        ),
        object(
            "batch/v1",
            "Job",
            "j",
            spec(json!({"completions": 3, "parallelism": 2, "template": template("j", "Never")})),
        ),
        object("v1", "ConfigMap", "owner", json!({})),
        balanced("lb-first"),
    ]
}
