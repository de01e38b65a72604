//! Mirrors Endpoints that people write into EndpointSlices, which is what proxies and DNS read.
//!
//! Woken by: Endpoints that may be mirrored, a service that gained or lost its selector, came or went, a slice of ours that somebody
//! changed. Reads: Endpoints, services, slices. Writes: the slices managed by `endpointslicemirroring-controller.k8s.io`, warnings
//! about addresses that are not mirrored. Promises: only the Endpoints of services without a selector are mirrored; when they go, or
//! may not be mirrored any more, so do the slices; one slice for each address family and set of ports.

mod plan;

use crate::cluster::Cluster;
use crate::endpoints::{Reach, changes};
use crate::informer::key_of;
use crate::options::EndpointWrites;
use crate::pods::{controlled_by, generated_name, terminating_namespace};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use crate::recorder::{Recorder, Severity};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use plan::Step;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// Who records the events.
const COMPONENT: &str = "endpoint-slice-mirroring-controller";

pub(crate) struct EndpointMirror {
    reach: Reach,
    /// Most addresses of a subset that are mirrored.
    most: usize,
}

impl EndpointMirror {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        recorder: Recorder,
        options: EndpointWrites,
        queue: &Arc<Queue>,
    ) -> Self {
        let wake = queue.clone();
        cluster.services.on_change(move |old, new| {
            let without = |service: Option<&Arc<Service>>| service.is_some_and(|s| !plan::has_selector(s));
            if let Some(service) = new.or(old)
                && without(old) != without(new)
            {
                wake.add(key_of(&**service));
            }
        });
        let wake = queue.clone();
        cluster.endpoints.on_change(move |old, new| {
            if let Some(endpoints) = new.or(old)
                && [old, new].into_iter().flatten().any(|e| plan::may_mirror(e))
            {
                wake.add(key_of(&**endpoints));
            }
        });
        let wake = queue.clone();
        cluster.endpoint_slices.on_change(move |old, new| {
            for slice in [old, new].into_iter().flatten().filter(|slice| plan::is_mirror(slice)) {
                if let Some(service) = plan::service_of(slice) {
                    let key = Key::new(slice.namespace().as_deref().unwrap_or_default(), service);
                    wake.add_gathered(key, options.mirror_gather);
                }
            }
        });
        Self { reach: Reach::of(cluster, client, recorder), most: options.mirrored }
    }
}

impl Reconcile for EndpointMirror {
    const NAME: &'static str = "endpointslice-mirroring-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let existing: Vec<Arc<EndpointSlice>> = self
            .reach
            .slices
            .list(&key.namespace)
            .into_iter()
            .filter(|s| {
                plan::is_mirror(s)
                    && plan::service_of(s) == Some(&*key.name)
                    && s.metadata.deletion_timestamp.is_none()
            })
            .collect();
        let endpoints = self.reach.endpoints.get(key).filter(|e| plan::may_mirror(e));
        if self.reach.services.get(key).is_none() && self.reach.services.exists(key) {
            // It cannot be read, and keeps what it has.
            return Ok(None);
        }
        let served = self.reach.services.get(key).is_some_and(|service| !plan::has_selector(&service));
        let steps = match endpoints.as_ref().filter(|_| served) {
            None => existing.iter().map(|slice| Step::Delete(slice.name_any())).collect(),
            Some(endpoints) => {
                let desired = plan::desired(endpoints, self.most);
                self.warn(endpoints, &desired);
                plan::steps(endpoints, &desired, &existing)
            }
        };
        for step in steps {
            self.take(key, endpoints.as_deref(), step, &existing).await?;
        }
        Ok(None)
    }
}

impl EndpointMirror {
    fn warn(&self, endpoints: &Endpoints, desired: &plan::Mirrored) {
        let warn = |reason, message| {
            self.reach.recorder.record(COMPONENT, endpoints, Severity::Warning, reason, message);
        };
        if desired.invalid > 0 {
            let message =
                format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", desired.invalid);
            warn("InvalidIPAddress", message);
        }
        if desired.skipped > desired.invalid {
            let message = format!(
                "A max of {} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
                self.most, desired.skipped
            );
            warn("TooManyAddressesToMirror", message);
        }
    }

    async fn take(
        &self,
        key: &Key,
        endpoints: Option<&Endpoints>,
        step: Step,
        existing: &[Arc<EndpointSlice>],
    ) -> Result<(), Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.reach.client.clone(), &key.namespace);
        match (step, endpoints) {
            (Step::Create(slice), Some(endpoints)) if endpoints.metadata.deletion_timestamp.is_none() => {
                let prefix = format!("{}-", key.name);
                let meta = ObjectMeta {
                    name: Some(generated_name(&prefix)),
                    generate_name: Some(prefix),
                    namespace: Some(key.namespace.to_string()),
                    labels: Some(plan::labels(endpoints)),
                    annotations: Some(plan::annotations(endpoints)).filter(|a| !a.is_empty()),
                    owner_references: Some(vec![controlled_by(endpoints)]),
                    ..ObjectMeta::default()
                };
                let slice = EndpointSlice { metadata: meta, ..slice };
                match api.create(&PostParams::default(), &slice).await {
                    Err(error) if terminating_namespace(&error) => Ok(()),
                    created => {
                        created.map(drop).doing(|| format!("create a mirrored endpoint slice of {key}"))
                    }
                }
            }
            (Step::Update(name, slice), Some(endpoints)) => {
                let Some(old) = existing.iter().find(|s| s.name_any() == name) else { return Ok(()) };
                let patch = json!({
                    "metadata": {
                        "labels": changes(old.labels(), &plan::labels(endpoints)),
                        "annotations": changes(old.annotations(), &plan::annotations(endpoints)),
                        "ownerReferences": [controlled_by(endpoints)],
                    },
                    "endpoints": slice.endpoints,
                    "ports": slice.ports,
                });
                let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
                found(patched).map(drop).doing(|| format!("update endpoint slice {}/{name}", key.namespace))
            }
            (Step::Delete(name), _) => {
                let deleted = api.delete(&name, &DeleteParams::default()).await;
                found(deleted).map(drop).doing(|| format!("delete endpoint slice {}/{name}", key.namespace))
            }
            (Step::Create(_) | Step::Update(..), _) => Ok(()),
        }
    }
}
