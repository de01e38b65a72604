//! Endpoints: what EndpointSlices say, for clients that read only the older kind.
//!
//! Woken by: a service, a pod whose labels (old or new) a service selects, an Endpoints object that somebody changed. Reads: services and pods.
//! Writes: the Endpoints of services with a selector. Promises: an object is written only if its content changes; Endpoints that nobody owns
//! go with their service, as upstream's do.

use super::{Reach, Triggers, changes, follow, has_pods, pods_of, set_headless, subsets, trigger};
use crate::cluster::Cluster;
use crate::informer::key_of;
use crate::options::EndpointWrites;
use crate::pods::message_of;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use crate::recorder::{Recorder, Severity};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The label by which an Endpoints object says that nobody else keeps it.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

pub(crate) struct EndpointsObjects {
    reach: Reach,
    triggers: Triggers,
}

impl EndpointsObjects {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        recorder: Recorder,
        options: EndpointWrites,
        queue: &Arc<Queue>,
    ) -> Self {
        let gather = options.endpoints_gather;
        follow(cluster, gather, queue);
        let wake = queue.clone();
        cluster.endpoints.on_change(move |old, new| {
            if let Some(endpoints) = new.or(old) {
                wake.add_gathered(key_of(&**endpoints), gather);
            }
        });
        Self { reach: Reach::of(cluster, client, recorder), triggers: Triggers::default() }
    }

    async fn remove_left_over(&self, key: &Key) -> Result<(), Error> {
        let ours = self.reach.endpoints.get(key).is_some_and(|e| e.labels().contains_key(MANAGED_BY));
        // A service that cannot be read keeps what it has.
        if !ours || self.reach.services.exists(key) {
            return Ok(());
        }
        let api: Api<Endpoints> = Api::namespaced(self.reach.client.clone(), &key.namespace);
        let deleted = api.delete(&key.name, &DeleteParams::default()).await;
        found(deleted).map(drop).doing(|| format!("delete endpoints {key}"))
    }
}

impl Reconcile for EndpointsObjects {
    const NAME: &'static str = "endpoints-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(service) = self.reach.services.get(key) else {
            self.triggers.forget(key);
            return self.remove_left_over(key).await.map(|()| None);
        };
        if has_pods(&service) {
            let pods = pods_of(&service, &self.reach.pods);
            let trigger = self.triggers.next(key, &service, &pods);
            self.write(&service, key, &pods, trigger).await?;
        }
        Ok(None)
    }
}

impl EndpointsObjects {
    async fn write(
        &self,
        service: &Service,
        key: &Key,
        pods: &[Arc<Pod>],
        trigger: Option<Timestamp>,
    ) -> Result<(), Error> {
        let api: Api<Endpoints> = Api::namespaced(self.reach.client.clone(), &key.namespace);
        let (subsets, cut) = subsets::subsets(service, pods);
        let mut labels: BTreeMap<String, String> = service.labels().clone();
        labels.insert(MANAGED_BY.to_owned(), "endpoint-controller".to_owned());
        set_headless(service, &mut labels);
        let over = "endpoints.kubernetes.io/over-capacity";
        let Some(old) = self.reach.endpoints.get(key) else {
            let cut = cut.then(|| (over.to_owned(), "truncated".to_owned()));
            let since = trigger.map(|at| (trigger::ANNOTATION.to_owned(), at.to_string()));
            let annotations: BTreeMap<String, String> = cut.into_iter().chain(since).collect();
            let meta = ObjectMeta {
                name: Some(key.name.to_string()),
                namespace: Some(key.namespace.to_string()),
                labels: Some(labels),
                annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
                ..ObjectMeta::default()
            };
            let endpoints = Endpoints { metadata: meta, subsets: (!subsets.is_empty()).then_some(subsets) };
            return match api.create(&PostParams::default(), &endpoints).await {
                Err(error) if crate::pods::terminating_namespace(&error) => Ok(()),
                Err(error) => {
                    let why = message_of(&error);
                    let message = format!("Failed to create endpoint for service {key}: {why}");
                    self.tell(&endpoints, "FailedToCreateEndpoint", message);
                    Err(error).doing(|| format!("create endpoints {key}"))
                }
                Ok(_) => Ok(()),
            };
        };
        let same_labels = *old.labels() == labels;
        let same_cut = old.annotations().contains_key(over) == cut;
        if same_labels && same_cut && old.subsets.clone().unwrap_or_default() == subsets {
            return Ok(());
        }
        let patch = json!({
            "metadata": {
                "labels": changes(old.labels(), &labels),
                "annotations": {
                    over: cut.then_some("truncated"),
                    trigger::ANNOTATION: trigger.map(|at| at.to_string()),
                },
            },
            "subsets": (!subsets.is_empty()).then_some(subsets),
        });
        let patched = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        if let Err(error) = &patched {
            let message = format!("Failed to update endpoint {key}: {}", message_of(error));
            self.tell(&old, "FailedToUpdateEndpoint", message);
        }
        found(patched).map(drop).doing(|| format!("update endpoints {key}"))
    }

    fn tell(&self, endpoints: &Endpoints, reason: &'static str, message: String) {
        self.reach.recorder.record("endpoint-controller", endpoints, Severity::Warning, reason, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::EndpointSlices;
    use crate::fake::Fake;
    use serde_json::Value;
    use supervise::{Scope, Supervisor};
    use tokio_util::sync::CancellationToken;

    /// What is written about a service with one pod, by the controllers that are on.
    async fn written(objects: bool, slices: bool) -> Vec<String> {
        let (fake, cluster) = (Fake::default(), Cluster::default());
        let (supervisor, stop) = (Supervisor::default(), CancellationToken::new());
        let scope = Scope::new(&supervisor, "", &stop);
        let (recorder, _writer) = Recorder::new(None, None);
        let (queue, options) = (Arc::new(Queue::default()), EndpointWrites::default());
        let ours = EndpointsObjects::new(&cluster, fake.client(), recorder.clone(), options, &queue);
        let theirs = EndpointSlices::new(&cluster, fake.client(), recorder, options, &Arc::default());
        let meta =
            |name: &str| json!({ "name": name, "namespace": "n", "uid": name, "resourceVersion": "1" });
        let mut pod = json!({ "metadata": meta("p"), "spec": { "nodeName": "m", "containers": [] },
            "status": { "podIP": "10.0.0.1", "podIPs": [{ "ip": "10.0.0.1" }] } });
        pod["metadata"]["labels"] = json!({ "a": "b" });
        let spec = json!({ "selector": { "a": "b" }, "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"], "ports": [{ "port": 80 }] });
        let none: Vec<Value> = Vec::new();
        fake.shown(&scope, &cluster.services, vec![json!({ "metadata": meta("s"), "spec": spec })]).await;
        fake.shown(
            &scope,
            &cluster.nodes,
            vec![json!({ "metadata": { "name": "m", "uid": "m", "resourceVersion": "1" } })],
        )
        .await;
        fake.shown(&scope, &cluster.pods, vec![pod]).await;
        fake.shown(&scope, &cluster.endpoints, none.clone()).await;
        fake.shown(&scope, &cluster.endpoint_slices, none).await;
        let key = queue.next().await;
        if objects {
            ours.reconcile(&key).await.unwrap();
        }
        if slices {
            theirs.reconcile(&key).await.unwrap();
        }
        stop.cancel();
        scope.ended().await;
        fake.writes()
    }

    #[tokio::test]
    async fn a_controller_that_is_off_must_not_stop_the_other() {
        let objects = "POST /api/v1/namespaces/n/endpoints";
        let slices = "POST /apis/discovery.k8s.io/v1/namespaces/n/endpointslices";
        assert_eq!(written(true, false).await, [objects]);
        assert_eq!(written(false, true).await, [slices]);
        assert_eq!(written(true, true).await, [objects, slices]);
    }
}
