//! `/pods`: the pods of this node with their statuses as they are known here.

use super::answer::{self, HttpResponse};
use super::pods::View;
use crate::pod::spec::labels;
use cri_proto::client::Runtime;
use cri_proto::v1::{Container, ContainerState};
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

/// Answers with a `PodList`.
pub fn serve(views: &[View]) -> HttpResponse {
    let items: Result<Vec<Value>, _> = views.iter().map(item).collect();
    match items {
        Ok(items) => list(&items),
        Err(error) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn list(items: &[Value]) -> HttpResponse {
    answer::json(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// `/runningpods/`: what the runtime runs, whatever the API says: names and images, no more.
pub async fn running(runtime: &Runtime) -> HttpResponse {
    match runtime.list_containers(HashMap::new()).await {
        Ok(containers) => list(&running_pods(containers)),
        Err(error) => answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.runtime_message()),
    }
}

fn running_pods(containers: Vec<Container>) -> Vec<Value> {
    let mut pods: BTreeMap<[String; 3], Vec<Value>> = BTreeMap::new();
    for container in containers.into_iter().filter(|c| c.state == ContainerState::ContainerRunning as i32) {
        let label = |name: &str| container.labels.get(name).cloned();
        let labels = [labels::POD_NAMESPACE, labels::POD_NAME, labels::POD_UID].map(label);
        // Others use the runtime, too.
        let [Some(namespace), Some(name), Some(uid)] = labels else { continue };
        let image = container.image.map(|image| image.image);
        let shown = json!({"name": label(labels::CONTAINER_NAME), "image": image, "resources": {}});
        pods.entry([namespace, name, uid]).or_default().push(shown);
    }
    let shown = |([namespace, name, uid], containers): ([String; 3], Vec<Value>)| {
        let metadata = json!({"name": name, "namespace": namespace, "uid": uid});
        json!({"metadata": metadata, "spec": {"containers": containers}, "status": {}})
    };
    pods.into_iter().map(shown).collect()
}

fn item(view: &View) -> Result<Value, serde_json::Error> {
    let mut pod = serde_json::to_value(&*view.pod)?;
    if let Value::Object(fields) = &mut pod {
        // The list says what its items are.
        fields.remove("kind");
        fields.remove("apiVersion");
        fields.insert("status".to_owned(), serde_json::to_value(&*view.status)?);
    }
    Ok(pod)
}
