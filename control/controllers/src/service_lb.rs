//! LoadBalancer Services get addresses, out of pools or of the nodes.
//!
//! Woken by: a Service, another one that gives addresses back, the pools, nodes that come, go or take no traffic any more, and for Services
//! of the policy Local their endpoints. Reads: Services, nodes, EndpointSlices, the ConfigMap `kube-system/windlass-load-balancer`. Writes,
//! with one patch: `status.loadBalancer`, upstream's finalizer, and an annotation that says that the addresses are ours (agents announce
//! no others); events with upstream's reasons. Promises: no address is with two Services unless both say that they share it, whatever
//! was killed in between: the record is the status of all Services, read whole before the first address is given. What a Service has it
//! keeps. Without pools, and for Services of another class, nothing is done, as without a cloud. A description of pools that cannot be
//! right is said on the ConfigMap and in the log; the last good one stays. Where a cloud's own program does all this, it only stops announcing.
//!
//! Upstream: `k8s.io/cloud-provider/controllers/service`. Run it with one worker.

mod allocate;
mod ledger;
mod nodes;
mod read;
#[cfg(test)]
mod tests;

use crate::address_pools::{self, Pool, PoolError};
use crate::cluster::Cluster;
use crate::informer::{Informer, key_of};
use crate::options::LoadBalancing;
use crate::queue::{Key, Queue};
use crate::reconcile::{Doing, Error, Reconcile, found};
use crate::recorder::{Recorder, Severity};
use allocate::{Origin, Unavailable, allocate, origin, undisputed};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use ledger::Ledger;
use machinery::load_balancer::{ANNOUNCED, FINALIZER, MODE, NODES};
use nodes::Reached;
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Who records the events, as upstream.
const COMPONENT: &str = "service-controller";
/// Label of a slice: the Service it belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(crate) struct ServiceBalancers {
    services: Arc<Informer<Service>>,
    nodes: Arc<Informer<Node>>,
    slices: Arc<Informer<EndpointSlice>>,
    pools: Arc<RwLock<Vec<Pool>>>,
    ledger: Mutex<Ledger>,
    /// A cloud's own program gives addresses.
    external: bool,
    client: Client,
    recorder: Recorder,
}

/// Wakes every Service that has addresses of ours or could.
fn wake_all(services: &Informer<Service>, queue: &Queue) {
    let all = services.list("");
    all.iter().filter(|service| read::is_wanted(service)).for_each(|service| queue.add(key_of(&**service)));
}

impl ServiceBalancers {
    /// Registers for what wakes it.
    #[must_use]
    pub(crate) fn new(
        cluster: &Cluster,
        client: Client,
        recorder: Recorder,
        options: LoadBalancing,
        queue: &Arc<Queue>,
    ) -> Self {
        let pools = Arc::new(RwLock::new(options.pools.clone()));
        let (wake, services) = (queue.clone(), cluster.services.clone());
        cluster.services.on_change(move |old, new| {
            let Some(service) = new.or(old) else { return };
            let concerns =
                |service: &Arc<Service>| read::is_balanced(service) || read::mode(service).is_some();
            if ![old, new].into_iter().flatten().any(concerns) {
                return;
            }
            wake.add(key_of(&**service));
            let kept = new.map(|new| read::addresses(new)).unwrap_or_default();
            let freed = old.is_some_and(|old| read::addresses(old).iter().any(|ip| !kept.contains(ip)));
            let ended =
                old.is_some_and(|old| read::is_wanted(old)) && !new.is_some_and(|new| read::is_wanted(new));
            if freed || ended {
                wake_all(&services, &wake);
            }
        });
        let (wake, services) = (queue.clone(), cluster.services.clone());
        cluster.nodes.on_change(move |old, new| {
            let reached = |node: Option<&Arc<Node>>| node.map(|node| Reached::of(node));
            if reached(old) != reached(new) {
                wake_all(&services, &wake);
            }
        });
        let (wake, services) = (queue.clone(), cluster.services.clone());
        cluster.endpoint_slices.on_change(move |old, new| {
            for slice in [old, new].into_iter().flatten() {
                let Some(name) = slice.labels().get(SERVICE_NAME) else { continue };
                let key = Key::new(slice.namespace().as_deref().unwrap_or_default(), name);
                let service = services.get(&key);
                if service
                    .is_some_and(|service| read::mode(&service) == Some(NODES) && read::is_local(&service))
                {
                    wake.add(key);
                }
            }
        });
        let (wake, services) = (queue.clone(), cluster.services.clone());
        let (shared, say) = (pools.clone(), recorder.clone());
        let given = options.pools;
        cluster.balancer_pools.on_change(move |_, new| {
            let read = match new {
                None => given.clone(),
                Some(map) => match address_pools::read(map.data.as_ref().unwrap_or(&Default::default())) {
                    Ok(pools) => pools,
                    Err(error) => return refuse(&say, map, &error),
                },
            };
            if *shared.read() != read {
                tracing::info!(pools = ?read.iter().map(|pool| &pool.name).collect::<Vec<_>>(), "address pools of load balancers");
                *shared.write() = read;
                wake_all(&services, &wake);
            }
        });
        Self {
            services: cluster.services.clone(),
            nodes: cluster.nodes.clone(),
            slices: cluster.endpoint_slices.clone(),
            pools,
            ledger: Mutex::default(),
            external: options.external,
            client,
            recorder,
        }
    }
}

/// Says that pools are not used as they are written.
fn refuse(recorder: &Recorder, map: &ConfigMap, error: &PoolError) {
    let error_text = error as &dyn std::error::Error;
    tracing::error!(
        error = error_text,
        "the ConfigMap of load balancers' pools is not used; the last good one stays"
    );
    let message = format!("Pools not used: {error}");
    recorder.record(COMPONENT, map, Severity::Warning, "InvalidPools", message);
}

/// What a Service should have, and what is done about it.
struct Desired {
    mode: &'static str,
    addresses: Vec<IpAddr>,
}

impl Reconcile for ServiceBalancers {
    const NAME: &'static str = "service-lb-controller";

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Error> {
        let Some(service) = self.services.get(key) else {
            if !self.services.exists(key) {
                self.ledger.lock().forget(key);
            }
            return Ok(None);
        };
        if !self.ledger.lock().is_seen(key, read::version(&service)) {
            return Ok(None); // what we wrote is on its way here, and wakes us
        }
        if self.external {
            return self.hand_over(key, &service).await.map(|()| None);
        }
        let pools = self.pools.read().clone();
        if !read::is_wanted(&service) {
            let left = read::has_finalizer(&service) && read::of_our_class(&service) && !pools.is_empty();
            if read::mode(&service).is_some() || left {
                self.release(key, &service).await?;
            }
            return Ok(None);
        }
        if pools.is_empty() {
            return Ok(None);
        }
        match self.desired(&pools, &service) {
            Ok(desired) => self.ensure(key, &service, desired).await?,
            Err((why, kept)) => {
                if kept != read::addresses(&service) && read::mode(&service) == Some(ANNOUNCED) {
                    self.write(key, &service, &Desired { mode: ANNOUNCED, addresses: kept }).await?;
                }
                let message = format!("Error syncing load balancer: failed to ensure load balancer: {why}");
                self.say(&service, Severity::Warning, "SyncLoadBalancerFailed", message);
            }
        }
        Ok(None)
    }
}

impl ServiceBalancers {
    fn say(&self, service: &Service, severity: Severity, reason: &'static str, message: impl Into<String>) {
        self.recorder.record(COMPONENT, service, severity, reason, message);
    }

    /// What a Service should have; where that is not to be had, why, and what it may keep.
    fn desired(&self, pools: &[Pool], service: &Service) -> Result<Desired, (Unavailable, Vec<IpAddr>)> {
        let who = read::holder(service);
        let all = self.services.list("");
        let nodes = self.nodes.list("");
        let reserved = nodes.iter().flat_map(|node| Reached::of(node).all);
        let entries: Vec<_> = all
            .iter()
            .filter(|other| read::is_balanced(other) || read::mode(other).is_some())
            .map(|other| read::entry(other))
            .collect();
        let taken = self.ledger.lock().taken(&entries, &who.key, reserved);
        let held = if read::mode(service) == Some(NODES) { Vec::new() } else { read::addresses(service) };
        let failed = |why| (why, undisputed(&who, &held, &taken));
        let wish = read::wish(service).map_err(failed)?;
        match origin(pools, &wish).map_err(failed)? {
            Origin::Ranges(open) => {
                let addresses = allocate(&open, &wish, &who, &held, &taken).map_err(failed)?;
                Ok(Desired { mode: ANNOUNCED, addresses })
            }
            Origin::Nodes => {
                let others: Vec<_> = all.iter().filter(|other| read::mode(other) == Some(NODES)).collect();
                let others: Vec<_> = others.into_iter().map(|other| read::holder(other)).collect();
                nodes::ports_free(&who, &others).map_err(failed)?;
                let only = read::is_local(service).then(|| {
                    let mut slices = self.slices.list(&who.key.namespace);
                    slices.retain(|slice| {
                        slice.labels().get(SERVICE_NAME).map(String::as_str) == Some(&*who.key.name)
                    });
                    nodes::with_endpoints(&slices)
                });
                let addresses = nodes::published(&nodes, &wish.families, only.as_ref()).map_err(failed)?;
                Ok(Desired { mode: NODES, addresses })
            }
        }
    }

    /// Gives a Service what it should have, and says so.
    async fn ensure(&self, key: &Key, service: &Service, desired: Desired) -> Result<(), Error> {
        let before = read::mode(service);
        let vip =
            |point: &k8s_openapi::api::core::v1::LoadBalancerIngress| point.ip_mode.as_deref() == Some("VIP");
        let settled = before == Some(desired.mode)
            && read::has_finalizer(service)
            && read::addresses(service) == desired.addresses
            && read::points(service).len() == desired.addresses.len()
            && read::points(service).iter().all(vip);
        if settled {
            return Ok(());
        }
        let other_nodes = before == Some(NODES) && desired.mode == NODES;
        if !other_nodes {
            self.say(service, Severity::Normal, "EnsuringLoadBalancer", "Ensuring load balancer");
        }
        self.write(key, service, &desired).await?;
        match other_nodes {
            true => {
                self.say(
                    service,
                    Severity::Normal,
                    "UpdatedLoadBalancer",
                    "Updated load balancer with new hosts",
                );
            }
            false => self.say(service, Severity::Normal, "EnsuredLoadBalancer", "Ensured load balancer"),
        }
        Ok(())
    }

    async fn write(&self, key: &Key, service: &Service, desired: &Desired) -> Result<(), Error> {
        let mut finalizers = service.finalizers().to_vec();
        if !read::has_finalizer(service) {
            finalizers.push(FINALIZER.to_owned());
        }
        let point = |address: &IpAddr| json!({ "ip": address, "ipMode": "VIP" });
        let ingress: Vec<Value> = desired.addresses.iter().map(point).collect();
        self.patch(key, service, &finalizers, json!(desired.mode), ingress, desired.addresses.clone()).await
    }

    /// Takes back what a Service has.
    async fn release(&self, key: &Key, service: &Service) -> Result<(), Error> {
        self.say(service, Severity::Normal, "DeletingLoadBalancer", "Deleting load balancer");
        let mut finalizers = service.finalizers().to_vec();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        self.patch(key, service, &finalizers, Value::Null, Vec::new(), Vec::new()).await?;
        self.say(service, Severity::Normal, "DeletedLoadBalancer", "Deleted load balancer");
        Ok(())
    }

    /// Lets another provider have a Service as it is; agents announce nothing of it any more.
    async fn hand_over(&self, key: &Key, service: &Service) -> Result<(), Error> {
        if read::mode(service).is_none() {
            return Ok(());
        }
        let metadata =
            json!({ "resourceVersion": service.metadata.resource_version, "annotations": { MODE: null } });
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let patched = api.patch_status(&key.name, &PatchParams::default(), &patch).await;
        found(patched).map(drop).doing(|| format!("hand service {key} over to the cloud's own program"))
    }

    /// One write of all that belongs together, to the Service as it was read.
    async fn patch(
        &self,
        key: &Key,
        service: &Service,
        finalizers: &[String],
        mode: Value,
        ingress: Vec<Value>,
        addresses: Vec<IpAddr>,
    ) -> Result<(), Error> {
        let ingress = if ingress.is_empty() { Value::Null } else { Value::Array(ingress) };
        let patch = json!({
            "metadata": {
                "uid": service.uid(),
                "resourceVersion": service.metadata.resource_version,
                "finalizers": finalizers,
                "annotations": { MODE: mode },
            },
            "status": { "loadBalancer": { "ingress": ingress } },
        });
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let patched = api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        let patched = found(patched).doing(|| format!("write the load balancer of service {key}"))?;
        if let Some(patched) = patched {
            self.ledger.lock().wrote(key, read::version(&patched), addresses);
        }
        Ok(())
    }
}
