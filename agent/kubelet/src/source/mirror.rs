//! Mirror pods: how the API shows this node's static pods.
//!
//! What wakes it: a change of the static pods or of the API's pods, and a period as retry. What it reads: both. What it
//! writes: creates the mirrors that are missing and deletes those that show something else or nothing. What it
//! promises: deleting a mirror never stops the static pod; the mirror comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use tokio::sync::watch;

use super::{ApiPods, Pods};
use crate::pod::{CONFIG_HASH, CONFIG_MIRROR};

const RETRY: Duration = Duration::from_secs(30);

/// What to do about mirrors.
#[derive(Debug, Default)]
struct Plan {
    create: Vec<Arc<Pod>>,
    delete: Vec<Arc<Pod>>,
}

fn plan(wanted: &Pods, known: &ApiPods) -> Plan {
    let mut plan = Plan::default();
    let Some(pods) = &known.pods else { return plan };
    for pod in wanted.values() {
        match known.mirror_of(pod) {
            None => plan.create.push(Arc::clone(pod)),
            Some(mirror) => {
                let shows = crate::pod::annotation(&mirror, CONFIG_MIRROR)
                    == crate::pod::annotation(pod, CONFIG_HASH);
                if !shows || mirror.metadata.deletion_timestamp.is_some() {
                    plan.delete.push(mirror);
                }
            }
        }
    }
    for mirror in pods.values().filter(|p| crate::pod::is_mirror(p)) {
        let has = wanted.values().any(|p| {
            crate::pod::name(p) == crate::pod::name(mirror)
                && crate::pod::namespace(p) == crate::pod::namespace(mirror)
        });
        if !has {
            plan.delete.push(Arc::clone(mirror));
        }
    }
    plan
}

/// Keeps the mirrors until cancelled from outside.
pub async fn keep(
    client: kube::Client,
    node: String,
    mut statics: watch::Receiver<Option<Arc<Pods>>>,
    mut known: watch::Receiver<ApiPods>,
) {
    // A mirror just made is not in the watch yet: it is not made again until the watch moved.
    let mut made: BTreeMap<String, ()> = BTreeMap::new();
    loop {
        let wanted = statics.borrow_and_update().clone();
        let api_pods = known.borrow_and_update().clone();
        if let Some(wanted) = wanted {
            let plan = plan(&wanted, &api_pods);
            for mirror in plan.delete {
                delete(&client, &mirror).await;
            }
            for pod in plan.create {
                let uid = crate::pod::uid(&pod).to_owned();
                if !made.contains_key(&uid) && create(&client, &node, &pod).await {
                    made.insert(uid, ());
                }
            }
        }
        tokio::select! {
            changed = statics.changed() => if changed.is_err() { return },
            changed = known.changed() => {
                if changed.is_err() {
                    return;
                }
                made.clear();
            }
            () = tokio::time::sleep(RETRY) => made.clear(),
        }
    }
}

async fn create(client: &kube::Client, node: &str, pod: &Pod) -> bool {
    let mut mirror = pod.clone();
    mirror.metadata.uid = None;
    mirror.metadata.resource_version = None;
    mirror.metadata.generation = None;
    mirror.status = None;
    let hash = crate::pod::annotation(pod, CONFIG_HASH).unwrap_or_default().to_owned();
    mirror.metadata.annotations.get_or_insert_default().insert(CONFIG_MIRROR.to_owned(), hash);
    match Api::<Node>::all(client.clone()).get_opt(node).await {
        Ok(Some(owner)) => {
            mirror.metadata.owner_references = Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: node.to_owned(),
                uid: owner.metadata.uid.unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: None,
            }]);
        }
        // NodeRestriction wants the owner: the node must be registered first.
        Ok(None) => return false,
        Err(error) => {
            tracing::warn!(%error, node, "reading the node for its mirror pods");
            return false;
        }
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), crate::pod::namespace(pod));
    match api.create(&PostParams::default(), &mirror).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 409 => true,
        Err(error) => {
            tracing::warn!(pod = crate::pod::name(pod), %error, "mirror pod not created");
            false
        }
    }
}

async fn delete(client: &kube::Client, mirror: &Pod) {
    let api: Api<Pod> = Api::namespaced(client.clone(), crate::pod::namespace(mirror));
    let preconditions = Preconditions { uid: mirror.metadata.uid.clone(), ..Preconditions::default() };
    let params = DeleteParams::default().grace_period(0).preconditions(preconditions);
    match api.delete(crate::pod::name(mirror), &params).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => tracing::warn!(pod = crate::pod::name(mirror), %error, "mirror pod not deleted"),
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json!() arguments read better by value")]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, uid: &str, annotations: serde_json::Value) -> Arc<Pod> {
        let value =
            json!({"metadata": {"name": name, "namespace": "n", "uid": uid, "annotations": annotations}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn map(pods: &[Arc<Pod>]) -> Pods {
        pods.iter().map(|p| (crate::pod::uid(p).to_owned(), Arc::clone(p))).collect()
    }

    #[test]
    fn mirrors_follow_the_static_pods() {
        let wanted = map(&[
            pod("same", "1", json!({(CONFIG_HASH): "1"})),
            pod("new", "2", json!({(CONFIG_HASH): "2"})),
            pod("changed", "3", json!({(CONFIG_HASH): "3"})),
        ]);
        let api = map(&[
            pod("same", "a", json!({(CONFIG_MIRROR): "1"})),
            pod("changed", "b", json!({(CONFIG_MIRROR): "0"})),
            pod("gone", "c", json!({(CONFIG_MIRROR): "9"})),
            pod("ordinary", "d", json!({})),
        ]);
        let plan = plan(&wanted, &ApiPods { pods: Some(Arc::new(api)), ..ApiPods::default() });
        let names =
            |pods: &[Arc<Pod>]| pods.iter().map(|p| crate::pod::name(p).to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&plan.create), ["new"]);
        assert_eq!(names(&plan.delete), ["changed", "gone"]);
    }
}
