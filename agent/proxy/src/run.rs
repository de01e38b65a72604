//! The watches and the loop that applies what they show.
//!
//! Woken by: a change of a Service, EndpointSlice or ServiceCIDR, of this node's zone or addresses, the audit period, shutdown. Reads: the newest state of the
//! services that changed. Writes: the tables `windlass`, conntrack entries, what load balancers ask for. Promises: changes that
//! arrive while a transaction runs go into the next one together; nothing is applied before every watch has shown everything once, so
//! a restart never takes rules away; shutdown leaves the rules in place.

use crate::apply::{Applier, ServiceName, State};
use crate::conntrack::{self, Stale};
use crate::health::Health;
use crate::metrics::{Change, Extent, Metrics};
use crate::model::ready_here;
use crate::service::{read_service, read_slice};
use client::{Event, Key, Source, mirror};
use futures::{FutureExt, StreamExt};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use supervise::{Backoff, Supervisor};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How often the tables are looked for; somebody's `nft flush ruleset` is mended within this time.
const AUDIT_PERIOD: Duration = Duration::from_secs(15);
/// First and longest pause after a failed transaction.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// What the proxy must know about its node and cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name: endpoints on it are local.
    pub node: String,
    /// Where pods have their addresses.
    pub cluster_cidrs: Vec<IpNet>,
    /// Service addresses whose port 53 the node answers itself (the cluster's DNS): left alone.
    pub local_addresses: Vec<IpAddr>,
    /// Where `/healthz` and `/livez` are answered (upstream: port 10256 on every address).
    pub healthz: SocketAddr,
    /// Where `/proxyMode` is answered (upstream: port 10249 on the loopback address).
    pub mode: SocketAddr,
}

/// The label that names a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";
/// The taint of a node that is about to go.
const LEAVING: &str = "ToBeDeletedByClusterAutoscaler";

/// Why the proxy ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The watches ended, which they do not do by themselves.
    #[error("the watches ended")]
    WatchesEnded,
}

/// Runs until cancelled; the rules stay.
///
/// # Errors
/// The watches ended; the caller starts again.
pub async fn run(
    config: Config,
    client: Client,
    supervisor: &Supervisor,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    // slices and services that another proxy serves are not even sent to us
    const SERVED: &str = "!service.kubernetes.io/service-proxy-name";
    const SLICES: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
    let mut services = mirror::<Service>(Source::all::<Service>(&client).labels(SERVED));
    let mut slices = mirror::<EndpointSlice>(Source::all::<EndpointSlice>(&client).labels(SLICES));
    let mut nodes = mirror::<Node>(Source::all::<Node>(&client).named(&config.node));
    let mut ranges = mirror::<ServiceCIDR>(Source::all::<ServiceCIDR>(&client));
    let metrics = Arc::new(Metrics::default());
    let mut proxy = Proxy {
        started: Timestamp::now(),
        triggered: Vec::new(),
        metrics: metrics.clone(),
        node: config.node.clone(),
        health: Health::new(supervisor, metrics),
        applier: Applier::new(config.node, config.cluster_cidrs).beside_dns(config.local_addresses),
        state: State::default(),
        dirty: BTreeSet::new(),
        ranges: BTreeMap::new(),
        listed: (false, false, false),
    };
    let stop = shutdown.child_token();
    let _stopped = stop.clone().drop_guard();
    proxy.health.serve_own(config.healthz, config.mode, &stop);
    let mut audit = Instant::now() + AUDIT_PERIOD;
    let mut retry: Option<Instant> = None;
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            event = services.next() => proxy.service(event.ok_or(Error::WatchesEnded)?),
            event = slices.next() => proxy.slice(event.ok_or(Error::WatchesEnded)?),
            event = nodes.next() => proxy.node(event.ok_or(Error::WatchesEnded)?),
            event = ranges.next() => proxy.range(event.ok_or(Error::WatchesEnded)?),
            () = sleep_until(audit) => {
                audit = Instant::now() + AUDIT_PERIOD;
                match proxy.applier.audit().await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "cannot look after the nftables tables");
                        continue;
                    }
                }
            }
            () = sleep_until(retry.unwrap_or(audit)), if retry.is_some() => {}
        }
        // what is ready already belongs into the same transaction
        while let Some(Some(event)) = services.next().now_or_never() {
            proxy.service(event);
        }
        while let Some(Some(event)) = slices.next().now_or_never() {
            proxy.slice(event);
        }
        while let Some(Some(event)) = ranges.next().now_or_never() {
            proxy.range(event);
        }
        if retry.is_some_and(|at| at > Instant::now()) {
            continue;
        }
        retry = match proxy.apply().await {
            Ok(()) => {
                proxy.health.set(|status| (status.updated, status.waiting) = (Timestamp::now(), None));
                backoff.reset();
                None
            }
            Err(error) => {
                let now = std::time::Instant::now();
                proxy.metrics.failed();
                proxy.health.set(|status| status.waiting = status.waiting.or(Some(now)));
                let pause = backoff.next_pause();
                tracing::error!(error = &error as &dyn std::error::Error, ?pause, "services not applied");
                Some(Instant::now() + pause)
            }
        };
    }
}

/// Where the controller of endpoints says when what it wrote down happened.
const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// As many changes are timed at once.
const MOST_TRIGGERED: usize = 10_000;

struct Proxy {
    started: Timestamp,
    /// Changes of endpoints that wait: of IPv6, and when they happened.
    triggered: Vec<(bool, Timestamp)>,
    metrics: Arc<Metrics>,
    node: String,
    health: Health,
    applier: Applier,
    state: State,
    dirty: BTreeSet<ServiceName>,
    /// Ranges of cluster IPs, by the name of their ServiceCIDR.
    ranges: BTreeMap<String, Vec<IpNet>>,
    listed: (bool, bool, bool),
}

impl Proxy {
    /// Our own node: where we are, and whether the world should send us traffic.
    fn node(&mut self, event: Event<Node>) {
        let node = match event {
            Event::Set(_, node) => Some(node),
            Event::Gone(_) => None,
            Event::Synced => {
                self.listed.2 = true;
                return;
            }
            Event::Failed(error) => return self.failed(&error),
            Event::Unreadable(_) => return,
        };
        let zone = node.as_ref().and_then(|n| n.metadata.labels.as_ref()?.get(ZONE).cloned());
        let stays = node.as_ref().is_some_and(|node| {
            let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
            node.metadata.deletion_timestamp.is_none() && taints.into_iter().all(|t| t.key != LEAVING)
        });
        self.health.set(|status| status.eligible = stays);
        let addresses = node.as_ref().map(addresses);
        // a node that is not there for a moment keeps its own
        let moved = addresses.is_some_and(|addresses| self.applier.set_addresses(addresses));
        if self.applier.set_zone(zone.unwrap_or_default()) | moved {
            self.dirty.extend(self.state.services.keys().cloned());
        }
    }

    /// Nothing waits for these: a control plane that has none, or does not show them, has services all the same.
    fn range(&mut self, event: Event<ServiceCIDR>) {
        match event {
            Event::Set(key, range) => {
                let texts = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
                let cidrs = texts.filter_map(|text| text.parse().ok()).collect();
                self.ranges.insert(key.name.as_ref().to_owned(), cidrs);
            }
            Event::Gone(gone) => drop(self.ranges.remove(&*gone.key.name)),
            Event::Synced | Event::Failed(_) | Event::Unreadable(_) => return,
        }
        let all: BTreeSet<IpNet> = self.ranges.values().flatten().copied().collect();
        self.applier.set_service_cidrs(all.into_iter().collect());
    }

    /// Until everything was shown once, those who ask how we are learn that we may not see it.
    fn failed(&self, error: &client::Error) {
        if self.listed != (true, true, true)
            && let Some(why) = error.refusal()
        {
            self.health.set(|status| status.refused = Some(why));
        }
    }

    fn service(&mut self, event: Event<Service>) {
        match event {
            Event::Set(key, service) => self.set_service(name(&key), Some(&service)),
            Event::Gone(gone) => self.set_service(name(&gone.key), None),
            Event::Synced => self.listed.0 = true,
            Event::Failed(error) => self.failed(&error),
            Event::Unreadable(_) => {}
        }
    }

    fn set_service(&mut self, name: ServiceName, service: Option<&Service>) {
        let changed = match service.and_then(read_service) {
            Some(service) => {
                self.state.services.insert(name.clone(), service.clone()).as_ref() != Some(&service)
            }
            None => self.state.services.remove(&name).is_some(),
        };
        if changed {
            self.metrics.changed(Change::Service);
            self.dirty.insert(name);
        }
    }

    fn slice(&mut self, event: Event<EndpointSlice>) {
        match event {
            Event::Set(key, slice) => self.set_slice(&name(&key), Some(&slice)),
            Event::Gone(gone) => self.set_slice(&name(&gone.key), None),
            Event::Synced => self.listed.1 = true,
            Event::Failed(error) => self.failed(&error),
            Event::Unreadable(_) => {}
        }
    }

    fn set_slice(&mut self, (namespace, slice_name): &(String, String), slice: Option<&EndpointSlice>) {
        let new = slice.and_then(read_slice);
        let owner = new.as_ref().map(|s| (namespace.clone(), s.service.clone()));
        // the slice may have belonged to another service before
        let before: Vec<ServiceName> = match &owner {
            Some(owner) if self.state.slices.get(owner).is_some_and(|all| all.contains_key(slice_name)) => {
                Vec::new()
            }
            _ => {
                let all = self.state.slices.iter();
                all.filter(|((ns, _), all)| ns == namespace && all.contains_key(slice_name))
                    .map(|(n, _)| n.clone())
                    .collect()
            }
        };
        for old_owner in before {
            if let Some(all) = self.state.slices.get_mut(&old_owner) {
                all.remove(slice_name);
                if all.is_empty() {
                    self.state.slices.remove(&old_owner);
                }
            }
            self.metrics.changed(Change::Endpoints);
            self.dirty.insert(old_owner);
        }
        if let (Some(owner), Some(new)) = (owner, new) {
            let all = self.state.slices.entry(owner.clone()).or_default();
            if all.get(slice_name) != Some(&new) {
                all.insert(slice_name.clone(), new);
                self.metrics.changed(Change::Endpoints);
                if self.triggered.len() < MOST_TRIGGERED {
                    self.triggered.extend(slice.and_then(|slice| triggered(slice, self.started)));
                }
                self.dirty.insert(owner);
            }
        }
    }

    /// Says how many endpoints are here, to the load balancers that ask.
    fn tell_balancers(&mut self) {
        let asked = self.state.services.iter().filter(|(_, s)| s.health_check_node_port != 0);
        let wanted = asked.map(|(name, service)| {
            let slices = self.state.slices.get(name).into_iter().flat_map(BTreeMap::values);
            (name.clone(), (service.health_check_node_port, ready_here(slices, &self.node)))
        });
        self.health.sync(&wanted.collect());
    }

    async fn forget(&self, stale: Stale) {
        if stale.is_empty() {
            return;
        }
        let began = std::time::Instant::now();
        match conntrack::forget(stale).await {
            Ok(counts) => self.metrics.forgot(began.elapsed(), counts),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "stale connections are left to time out");
            }
        }
    }

    async fn apply(&mut self) -> Result<(), netlink::nft::Error> {
        if self.listed != (true, true, true) {
            return Ok(());
        }
        self.health.set(|status| status.refused = None);
        let dirty = std::mem::take(&mut self.dirty);
        let began = std::time::Instant::now();
        match self.applier.apply(&self.state, &dirty).await {
            Ok(applied) => {
                let extent = if applied.whole { Extent::Full } else { Extent::Partial };
                self.metrics.applied(extent, began.elapsed(), applied.no_local);
                for (ipv6, at) in self.triggered.drain(..) {
                    self.metrics.programmed(ipv6, Timestamp::now().duration_since(at).as_secs_f64());
                }
                self.tell_balancers();
                self.forget(applied.stale).await;
                Ok(())
            }
            Err(error) => {
                self.dirty.extend(dirty);
                Err(error)
            }
        }
    }
}

/// The node's addresses, as its object has them.
fn addresses(node: &Node) -> Vec<IpAddr> {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    all.filter_map(|address| address.address.parse().ok()).collect()
}

/// When a change of endpoints happened. What happened before the proxy was there is not its delay.
fn triggered(slice: &EndpointSlice, started: Timestamp) -> Option<(bool, Timestamp)> {
    let at = slice.metadata.annotations.as_ref()?.get(TRIGGERED)?.parse::<Timestamp>().ok()?;
    (at > started).then_some((slice.address_type == "IPv6", at))
}

fn name(key: &Key) -> (String, String) {
    (key.namespace.as_ref().to_owned(), key.name.as_ref().to_owned())
}
