//! A user of the cluster: makes, changes and waits for objects, all in the namespace `default`.

use futures::StreamExt as _;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::pin::pin;
use std::time::Duration;

/// Longest wait for one thing.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct User(pub Client);

impl User {
    pub async fn create(&self, object: &Value) {
        let group_version = object["apiVersion"].as_str().unwrap();
        let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
        let kind = object["kind"].as_str().unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.0.clone(), namespace, &resource),
            None if ["Namespace", "Node", "PersistentVolume"].contains(&kind) => {
                Api::all_with(self.0.clone(), &resource)
            }
            None => Api::default_namespaced_with(self.0.clone(), &resource),
        };
        api.create(&PostParams::default(), &serde_json::from_value(object.clone()).unwrap()).await.unwrap();
    }

    /// Makes an object that belongs to another of its kind.
    pub async fn adopt(&self, kind: &str, name: &str, owner: &str) {
        let uid = self.api(kind).get(owner).await.unwrap().metadata.uid.unwrap();
        let owner = json!({"apiVersion": "v1", "kind": kind, "name": owner, "uid": uid});
        self.create(&json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "ownerReferences": [owner]}})).await;
    }

    pub async fn patch(&self, kind: &str, name: &str, patch: &Value) {
        self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub async fn delete(&self, kind: &str, name: &str) {
        self.api(kind).delete(name, &DeleteParams::background()).await.unwrap();
    }

    pub async fn until(&self, kind: &str, name: &str, holds: impl Fn(&Value) -> bool) {
        self.until_all(kind, |all| all.iter().any(|o| o["metadata"]["name"] == name && holds(o))).await;
    }

    pub async fn until_gone(&self, kind: &str, name: &str) {
        self.until_all(kind, |all| all.iter().all(|o| o["metadata"]["name"] != name)).await;
    }

    /// Waits until all objects of a kind are as they should be.
    pub async fn until_all(&self, kind: &str, hold: impl Fn(&[Value]) -> bool) {
        let writer = reflector::store::Writer::new(resource(kind));
        let store = writer.as_reader();
        let events = watcher(self.api(kind), watcher::Config::default()).default_backoff();
        let mut events = pin!(reflector(writer, events));
        let all =
            || -> Vec<Value> { store.state().iter().map(|o| serde_json::to_value(&**o).unwrap()).collect() };
        let waiting = async {
            while let Some(event) = events.next().await {
                let complete = matches!(
                    event,
                    Ok(watcher::Event::InitDone | watcher::Event::Apply(_) | watcher::Event::Delete(_))
                );
                if complete && hold(&all()) {
                    return;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("{kind}: not as it should be: {:#}", Value::from(all()));
        }
    }

    /// What the controllers made of the cluster, a line an object.
    pub async fn picture(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for kind in [
            "Pod",
            "ReplicaSet",
            "ControllerRevision",
            "EndpointSlice",
            "PersistentVolumeClaim",
            "PersistentVolume",
        ] {
            for object in self.api(kind).list(&ListParams::default()).await.unwrap() {
                let object = serde_json::to_value(&object).unwrap();
                let owner = object["metadata"]["ownerReferences"][0]["kind"].as_str().unwrap_or_default();
                let said = match kind {
                    "Pod" => object["spec"]["containers"][0]["image"].to_string(),
                    "ReplicaSet" => format!(
                        "{} {}",
                        object["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
                        object["status"]["replicas"]
                    ),
                    "ControllerRevision" => object["revision"].to_string(),
                    "EndpointSlice" => object["endpoints"].as_array().map_or(0, Vec::len).to_string(),
                    _ => object["status"]["phase"].to_string(),
                };
                lines.push(format!("{kind} of {owner}: {said}"));
            }
        }
        lines.sort();
        lines
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let resource = resource(kind);
        match kind {
            "Namespace" | "PersistentVolume" => Api::all_with(self.0.clone(), &resource),
            _ => Api::default_namespaced_with(self.0.clone(), &resource),
        }
    }
}

fn resource(kind: &str) -> ApiResource {
    let group = match kind {
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ControllerRevision" => "apps",
        "Job" => "batch",
        "EndpointSlice" => "discovery.k8s.io",
        _ => "",
    };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind))
}
