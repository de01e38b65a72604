//! EndpointSlices and Endpoints: where a service's pods answer.
//!
//! Woken by: a service, a pod whose labels (old or new) a service selects, a slice or Endpoints object of ours that somebody changed.
//! Reads: services, pods, nodes (zones). Writes: the slices managed by `endpointslice-controller.k8s.io`, the Endpoints of services with
//! a selector. Promises: a slice is written only if its content changes; an endpoint never is in two slices of the same ports.

mod plan;

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::pods::{controlled_by, generated_name};
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use plan::{Desired, Slot};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The label by which a slice names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label by which a slice names who keeps it.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Our value of [`MANAGED_BY`], upstream's.
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Marks what belongs to a headless service.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The label by which an Endpoints object says that nobody else keeps it.
const ENDPOINTS_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

pub(crate) struct EndpointSlices {
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    slices: Arc<Informer<EndpointSlice>>,
    endpoints: Arc<Informer<Endpoints>>,
    client: Client,
}

impl EndpointSlices {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(cluster: &Cluster, client: Client, queue: &Arc<Queue>) -> Self {
        let wake = queue.clone();
        cluster.services.on_change(move |old, new| {
            if let Some(service) = new.or(old) {
                wake.add(key_of(&**service));
            }
        });
        let (wake, services) = (queue.clone(), cluster.services.clone());
        cluster.pods.on_change(move |old, new| {
            // most changes of a pod are none to its services
            if let (Some(old), Some(new)) = (old, new)
                && plan::same_for_services(old, new)
            {
                return;
            }
            let Some(namespace) = new.or(old).and_then(|pod| pod.namespace()) else { return };
            for service in services.list(&namespace) {
                if [old, new].into_iter().flatten().any(|pod| plan::selects(&service, pod)) {
                    wake.add(key_of(&*service));
                }
            }
        });
        let wake = queue.clone();
        cluster.endpoint_slices.on_change(move |old, new| {
            for slice in [old, new].into_iter().flatten() {
                if slice.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
                    && let Some(service) = slice.labels().get(SERVICE_NAME)
                {
                    wake.add(Key::new(slice.namespace().as_deref().unwrap_or_default(), service));
                }
            }
        });
        let wake = queue.clone();
        cluster.endpoints.on_change(move |old, new| {
            if let Some(endpoints) = new.or(old) {
                wake.add(key_of(&**endpoints));
            }
        });
        Self {
            services: cluster.services.clone(),
            pods: cluster.pods.clone(),
            nodes: cluster.nodes.clone(),
            slices: cluster.endpoint_slices.clone(),
            endpoints: cluster.endpoints.clone(),
            client,
        }
    }
}

impl Reconcile for EndpointSlices {
    const NAME: &'static str = "endpointslice-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        // a service's slices and Endpoints go with it by their owner; Endpoints without an owner are removed here, as upstream does
        let Some(service) = self.services.get(key) else {
            let ours = self.endpoints.get(key).filter(|e| e.labels().contains_key(ENDPOINTS_MANAGED_BY));
            // A service that cannot be read keeps what it has.
            if ours.is_some() && !self.services.exists(key) {
                let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
                let deleted = api.delete(&key.name, &DeleteParams::default()).await;
                found(deleted).doing(|| format!("delete endpoints {key}"))?;
            }
            return Ok(None);
        };
        let has_selector =
            service.spec.as_ref().and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty());
        if !has_selector || service.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let pods: Vec<Arc<Pod>> =
            self.pods.list(&key.namespace).into_iter().filter(|pod| plan::selects(&service, pod)).collect();
        let zone = |node: &str| -> Option<String> {
            self.nodes.get(&Key::new("", node))?.labels().get("topology.kubernetes.io/zone").cloned()
        };
        let desired = plan::desired(&service, &pods, zone);
        self.reconcile_slices(&service, key, &desired).await?;
        self.reconcile_endpoints(&service, key, &pods).await?;
        Ok(None)
    }
}

impl EndpointSlices {
    async fn reconcile_slices(&self, service: &Service, key: &Key, desired: &[Desired]) -> Result<(), Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        let uid = service.uid().unwrap_or_default();
        let existing: Vec<Arc<EndpointSlice>> = self
            .slices
            .owned_by(&uid)
            .into_iter()
            .filter(|s| {
                s.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
                    && s.metadata.deletion_timestamp.is_none()
            })
            .collect();
        let labels = slice_labels(service);
        for step in plan::arrange(desired, &existing, &labels) {
            match step {
                Slot::Create(slice) => {
                    let meta = ObjectMeta {
                        name: Some(generated_name(&format!("{}-", key.name))),
                        generate_name: Some(format!("{}-", key.name)),
                        namespace: Some(key.namespace.to_string()),
                        labels: Some(labels.clone()),
                        owner_references: Some(vec![controlled_by(service)]),
                        ..ObjectMeta::default()
                    };
                    let slice = EndpointSlice { metadata: meta, ..slice };
                    match api.create(&PostParams::default(), &slice).await {
                        Err(error) if crate::pods::terminating_namespace(&error) => {}
                        created => {
                            created.map(drop).doing(|| format!("create an endpoint slice of {key}"))?
                        }
                    }
                }
                Slot::Update(name, slice) => {
                    let patch = json!({
                        "metadata": { "labels": label_changes(&self.slices, key, &name, &labels) },
                        "endpoints": slice.endpoints,
                        "ports": slice.ports,
                    });
                    let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
                    found(patched).doing(|| format!("update endpoint slice {}/{name}", key.namespace))?;
                }
                Slot::Delete(name) => {
                    let deleted = api.delete(&name, &DeleteParams::default()).await;
                    found(deleted).doing(|| format!("delete endpoint slice {}/{name}", key.namespace))?;
                }
            }
        }
        Ok(())
    }

    async fn reconcile_endpoints(
        &self,
        service: &Service,
        key: &Key,
        pods: &[Arc<Pod>],
    ) -> Result<(), Error> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let (subsets, cut) = plan::subsets(service, pods);
        let mut labels: BTreeMap<String, String> = service.labels().clone();
        labels.insert(ENDPOINTS_MANAGED_BY.to_owned(), "endpoint-controller".to_owned());
        set_headless(service, &mut labels);
        let over = "endpoints.kubernetes.io/over-capacity";
        let Some(old) = self.endpoints.get(key) else {
            let annotations = cut.then(|| BTreeMap::from([(over.to_owned(), "truncated".to_owned())]));
            let meta = ObjectMeta {
                name: Some(key.name.to_string()),
                namespace: Some(key.namespace.to_string()),
                labels: Some(labels),
                annotations,
                ..ObjectMeta::default()
            };
            let endpoints = Endpoints { metadata: meta, subsets: (!subsets.is_empty()).then_some(subsets) };
            return match api.create(&PostParams::default(), &endpoints).await {
                Err(error) if crate::pods::terminating_namespace(&error) => Ok(()),
                created => created.map(drop).doing(|| format!("create endpoints {key}")),
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
                "annotations": { over: cut.then_some("truncated") },
            },
            "subsets": (!subsets.is_empty()).then_some(subsets),
        });
        let patched = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        found(patched).map(drop).doing(|| format!("update endpoints {key}"))
    }
}

fn slice_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    set_headless(service, &mut labels);
    labels
}

fn set_headless(service: &Service, labels: &mut BTreeMap<String, String>) {
    if service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
}

fn label_changes(
    slices: &Informer<EndpointSlice>,
    key: &Key,
    name: &str,
    wanted: &BTreeMap<String, String>,
) -> BTreeMap<String, Option<String>> {
    let old = slices.get(&Key::new(&key.namespace, name));
    changes(old.map(|s| s.labels().clone()).unwrap_or_default().iter().collect::<BTreeMap<_, _>>(), wanted)
}

/// A merge patch from one map to another: what is gone is null.
pub(crate) fn changes<'a>(
    old: impl IntoIterator<Item = (&'a String, &'a String)>,
    wanted: &BTreeMap<String, String>,
) -> BTreeMap<String, Option<String>> {
    let gone = old.into_iter().filter(|(k, _)| !wanted.contains_key(*k)).map(|(k, _)| (k.clone(), None));
    let mut patch: BTreeMap<String, Option<String>> = gone.collect();
    patch.extend(wanted.iter().map(|(k, v)| (k.clone(), Some(v.clone()))));
    patch
}
