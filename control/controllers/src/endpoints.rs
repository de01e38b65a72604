//! EndpointSlices: where a service's pods answer. The same as Endpoints, by a controller of its own: [`objects`].
//!
//! Woken by: a service, a pod whose labels (old or new) a service selects, a slice of ours that somebody changed, a node by which zones come
//! to share a service's endpoints badly. Reads: services, pods, nodes (zones). Writes: the slices managed by
//! `endpointslice-controller.k8s.io`. Promises: a slice is written only if its content changes; an endpoint never is in two slices of the
//! same ports.

mod arrange;
mod content;
mod objects;
mod plan;
mod subsets;
mod topology;
mod trigger;

use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::options::EndpointWrites;
use crate::pods::{controlled_by, generated_name, message_of};
use crate::queue::{Key, Queue};
use crate::reconcile::{Error, Reconcile, aggregate, found};
use crate::recorder::{Recorder, Severity};
use arrange::{Arranged, arrange};
use content::Slot;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
pub(crate) use objects::EndpointsObjects;
use parking_lot::Mutex;
use plan::Desired;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use topology::{Held, Zones};
use trigger::Triggers;

/// Who records events about slices.
const COMPONENT: &str = "endpoint-slice-controller";
/// The label by which a slice names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label by which a slice names who keeps it.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Our value of [`MANAGED_BY`], upstream's.
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Marks what belongs to a headless service.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Services whose endpoints zones share: how many each zone has, by address type.
type Shared = Arc<Mutex<HashMap<Key, BTreeMap<&'static str, Held>>>>;

/// What each controller of endpoints reads, and what it writes and records with.
pub(crate) struct Reach {
    pub(crate) services: Arc<Informer<Service>>,
    pub(crate) pods: Arc<Informer<Pod>>,
    pub(crate) endpoints: Arc<Informer<Endpoints>>,
    pub(crate) slices: Arc<Informer<EndpointSlice>>,
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
}

impl Reach {
    pub(crate) fn of(cluster: &Cluster, client: Client, recorder: Recorder) -> Self {
        Self {
            services: cluster.services.clone(),
            pods: cluster.pods.clone(),
            endpoints: cluster.endpoints.clone(),
            slices: cluster.endpoint_slices.clone(),
            client,
            recorder,
        }
    }
}

pub(crate) struct EndpointSlices {
    reach: Reach,
    nodes: Arc<Informer<Node>>,
    shared: Shared,
    triggers: Triggers,
    /// Most endpoints in a slice.
    per_slice: usize,
}

impl EndpointSlices {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        recorder: Recorder,
        options: EndpointWrites,
        queue: &Arc<Queue>,
    ) -> Self {
        let gather = options.slices_gather;
        follow(cluster, gather, queue);
        let wake = queue.clone();
        cluster.endpoint_slices.on_change(move |old, new| {
            for slice in [old, new].into_iter().flatten() {
                if slice.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
                    && let Some(service) = slice.labels().get(SERVICE_NAME)
                {
                    let key = Key::new(slice.namespace().as_deref().unwrap_or_default(), service);
                    wake.add_gathered(key, gather);
                }
            }
        });
        let shared = Shared::default();
        let (wake, nodes, sharing) = (queue.clone(), cluster.nodes.clone(), shared.clone());
        cluster.nodes.on_change(move |old, new| {
            let counted = |node: Option<&Arc<Node>>| node.and_then(|node| topology::counted(node));
            if counted(old) == counted(new) || sharing.lock().is_empty() {
                return;
            }
            let zones = Zones::of(&nodes.list(""));
            for (key, held) in sharing.lock().iter() {
                if held.values().any(|held| zones.overloads(held)) {
                    wake.add(key.clone());
                }
            }
        });
        Self {
            reach: Reach::of(cluster, client, recorder),
            nodes: cluster.nodes.clone(),
            shared,
            triggers: Triggers::default(),
            per_slice: options.per_slice,
        }
    }
}

/// Wakes services by themselves, and after `gather` by the pods they select.
fn follow(cluster: &Cluster, gather: Duration, queue: &Arc<Queue>) {
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
                wake.add_gathered(key_of(&*service), gather);
            }
        }
    });
}

/// Whether a service's pods are looked for: it selects some, and is no name for something outside.
fn has_pods(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let selects = spec.and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty());
    // an external name stands for itself, whatever is selected
    let external = spec.and_then(|s| s.type_.as_deref()) == Some("ExternalName");
    selects && !external && service.metadata.deletion_timestamp.is_none()
}

/// The pods a service selects.
fn pods_of(service: &Service, pods: &Informer<Pod>) -> Vec<Arc<Pod>> {
    let all = pods.list(&service.namespace().unwrap_or_default());
    all.into_iter().filter(|pod| plan::selects(service, pod)).collect()
}

impl Reconcile for EndpointSlices {
    const NAME: &'static str = "endpointslice-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        // its slices go with it by their owner
        let Some(service) = self.reach.services.get(key) else {
            self.triggers.forget(key);
            self.shared.lock().remove(key);
            return Ok(None);
        };
        if !has_pods(&service) {
            return Ok(None);
        }
        let pods = pods_of(&service, &self.reach.pods);
        let trigger = self.triggers.next(key, &service, &pods);
        let place = |node: &str| self.nodes.get(&Key::new("", node)).map(|node| topology::zone_of(&node));
        let (desired, mut failures) = plan::desired(&service, &pods, place);
        let written = self.reconcile_slices(&service, key, &desired, trigger).await;
        failures.extend(written.as_ref().err().map(|refused| refused.text.clone()));
        if let Some(why) = aggregate(&failures) {
            let message = format!("Error updating Endpoint Slices for Service {key}: {why}");
            let reason = "FailedToUpdateEndpointSlices";
            self.reach.recorder.record(COMPONENT, &*service, Severity::Warning, reason, message);
        }
        written.map_err(|refused| refused.error)?;
        match aggregate(&failures) {
            Some(why) => Err(Error::Unusable(format!("endpoint slices of {key}: {why}"))),
            None => Ok(None),
        }
    }
}

/// A write that was refused: as an event says it, and as an error.
struct Refused {
    text: String,
    error: Error,
}

fn refused(error: kube::Error, what: &str, key: &Key) -> Refused {
    let text = format!("failed to {what} EndpointSlice for Service {key}: {}", message_of(&error));
    let error = Error::Api { what: format!("{what} an endpoint slice of {key}"), source: Box::new(error) };
    Refused { text, error }
}

impl EndpointSlices {
    async fn reconcile_slices(
        &self,
        service: &Service,
        key: &Key,
        desired: &[Desired],
        trigger: Option<Timestamp>,
    ) -> Result<(), Refused> {
        let api: Api<EndpointSlice> = Api::namespaced(self.reach.client.clone(), &key.namespace);
        let uid = service.uid().unwrap_or_default();
        let existing: Vec<Arc<EndpointSlice>> = self
            .reach
            .slices
            .owned_by(&uid)
            .into_iter()
            .filter(|s| {
                s.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
                    && s.metadata.deletion_timestamp.is_none()
            })
            .collect();
        let labels = slice_labels(service);
        let zones = plan::by_topology(service).then(|| Zones::of(&self.nodes.list("")));
        let Arranged { steps, shared } = arrange(desired, &existing, &labels, zones.as_ref(), self.per_slice);
        self.tell_sharing(service, key, shared, desired);
        for step in steps {
            match step {
                Slot::Create(slice) => {
                    let meta = ObjectMeta {
                        name: Some(generated_name(&format!("{}-", key.name))),
                        generate_name: Some(format!("{}-", key.name)),
                        namespace: Some(key.namespace.to_string()),
                        labels: Some(labels.clone()),
                        annotations: trigger
                            .map(|at| BTreeMap::from([(trigger::ANNOTATION.to_owned(), at.to_string())])),
                        owner_references: Some(vec![controlled_by(service)]),
                        ..ObjectMeta::default()
                    };
                    let slice = EndpointSlice { metadata: meta, ..slice };
                    match api.create(&PostParams::default(), &slice).await {
                        Err(error) if crate::pods::terminating_namespace(&error) => {}
                        created => drop(created.map_err(|error| refused(error, "create", key))?),
                    }
                }
                Slot::Update(name, slice) => {
                    let patch = json!({
                        "metadata": {
                            "labels": label_changes(&self.reach.slices, key, &name, &labels),
                            "annotations": { trigger::ANNOTATION: trigger.map(|at| at.to_string()) },
                        },
                        "endpoints": slice.endpoints,
                        "ports": slice.ports,
                    });
                    let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
                    found(patched).map_err(|error| refused(error, &format!("update {name}"), key))?;
                }
                Slot::Delete(name) => {
                    let deleted = api.delete(&name, &DeleteParams::default()).await;
                    found(deleted).map_err(|error| refused(error, &format!("delete {name}"), key))?;
                }
            }
        }
        Ok(())
    }

    /// Says when zones begin to share the endpoints, and why they do not.
    fn tell_sharing(
        &self,
        service: &Service,
        key: &Key,
        outcomes: BTreeMap<&'static str, Result<Held, String>>,
        desired: &[Desired],
    ) {
        let tell = |severity, reason, message: &str, family: &str| {
            let message = format!("{message}, addressType: {family}");
            self.reach.recorder.record(COMPONENT, service, severity, reason, message);
        };
        let disabled = "TopologyAwareHintsDisabled";
        let mut shared = self.shared.lock();
        if outcomes.is_empty() {
            if shared.remove(key).is_some()
                && let Some(group) = desired.first()
            {
                let message = "Topology Aware Hints has been disabled";
                tell(Severity::Warning, disabled, message, group.address_type);
            }
            return;
        }
        for (family, outcome) in outcomes {
            match outcome {
                Err(why) => {
                    shared.remove(key);
                    tell(Severity::Warning, disabled, &why, family);
                }
                Ok(held) => {
                    if !shared.contains_key(key) {
                        let message = "Topology Aware Hints has been enabled";
                        tell(Severity::Normal, "TopologyAwareHintsEnabled", message, family);
                    }
                    shared.entry(key.clone()).or_default().insert(family, held);
                }
            }
        }
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
