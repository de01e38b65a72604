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
use crate::shape::{Detect, NodePorts, Pods, Settings};
use crate::sysctl::Limits;
use client::recorder::Recorder;
use client::{Event, Key, Source, mirror};
use futures::{FutureExt, StreamExt};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use supervise::{Backoff, Scope, Supervisor};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// First and longest pause after a failed transaction.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// What the proxy must know about its node and cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name: endpoints on it are local.
    pub node: String,
    /// How traffic of pods is told from other traffic.
    pub detect: Detect,
    /// Service addresses whose port 53 the node answers itself (the cluster's DNS): left alone.
    pub local_addresses: Vec<IpAddr>,
    /// Where `/healthz` and `/livez` are answered (upstream: port 10256 on every address); `None`: nowhere.
    pub healthz: Option<SocketAddr>,
    /// Where `/proxyMode` is answered (upstream: port 10249 on the loopback address); `None`: nowhere.
    pub mode: Option<SocketAddr>,
    /// Where node ports are.
    pub node_ports: NodePorts,
    /// The node's primary address, whatever its object says (`bindAddress`).
    pub bind: Option<IpAddr>,
    /// Every connection to a cluster IP gets the node's address as its source (`masqueradeAll`).
    pub masquerade_all: bool,
    /// Limits of connection tracking.
    pub limits: Limits,
    /// How long changes are gathered after a transaction (`minSyncPeriod`).
    pub pause: Duration,
    /// How often the tables are looked for; somebody's `nft flush ruleset` is mended within this time (`syncPeriod`).
    pub audit: Duration,
    /// How long a change may wait before the proxy calls itself unhealthy; upstream: twice its `syncPeriod`.
    pub patience: Duration,
}

impl Config {
    /// The defaults for a node.
    #[must_use]
    pub fn new(node: String, cluster_cidrs: Vec<IpNet>) -> Self {
        Self {
            node,
            detect: Detect::Fixed(Pods::Ranges(cluster_cidrs)),
            local_addresses: Vec::new(),
            healthz: Some((Ipv6Addr::UNSPECIFIED, HEALTH_PORT).into()),
            mode: Some((Ipv4Addr::LOCALHOST, STATUS_PORT).into()),
            node_ports: NodePorts::Ranges(Vec::new()),
            bind: None,
            masquerade_all: false,
            limits: Limits::default(),
            pause: Duration::ZERO,
            audit: Duration::from_secs(15),
            patience: Duration::from_secs(60),
        }
    }

    /// Whether the proxy's own ports are to be had now (`bindAddressHardFail`).
    ///
    /// # Errors
    /// The first that is not.
    pub fn check_ports(&self) -> Result<(), Error> {
        for address in [self.healthz, self.mode].into_iter().flatten() {
            supervise::listen::bind(address).map_err(|source| Error::Listen { address, source })?;
        }
        Ok(())
    }

    fn settings(&self) -> Settings {
        Settings {
            detect: self.detect.clone(),
            masquerade_all: self.masquerade_all,
            node_ports: self.node_ports.clone(),
            bind: self.bind,
        }
    }
}

/// Upstream's ports.
pub const HEALTH_PORT: u16 = 10256;
/// See [`HEALTH_PORT`].
pub const STATUS_PORT: u16 = 10249;

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
    /// A port of ours is not to be had, and must be.
    #[error("listen on {address}")]
    Listen {
        /// Where it should listen.
        address: SocketAddr,
        /// What the kernel said.
        source: std::io::Error,
    },
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
    let (recorder, writer) = Recorder::new(Some(client.clone()), Some(&config.node));
    let scope = Scope::new(supervisor, "proxy/", &shutdown);
    scope.keep(writer.task("events"));
    let reports = (config.node.clone(), recorder);
    let settings = config.settings();
    let applier = Applier::new(config.node.clone(), settings.shape(None))
        .with_limits(config.limits)
        .beside_dns(config.local_addresses);
    let mut proxy = Proxy {
        started: Timestamp::now(),
        triggered: Vec::new(),
        metrics: metrics.clone(),
        node: config.node,
        settings,
        health: Health::new(supervisor, config.patience, metrics, reports),
        applier,
        state: State::default(),
        dirty: BTreeSet::new(),
        ranges: BTreeMap::new(),
        listed: (false, false, false),
    };
    let stop = shutdown.child_token();
    let _stopped = stop.clone().drop_guard();
    proxy.health.serve_own((config.healthz, config.mode), &stop);
    let mut audit = Instant::now() + config.audit;
    let mut retry: Option<Instant> = None;
    let mut gathered = Instant::now();
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            event = services.next() => proxy.service(event.ok_or(Error::WatchesEnded)?),
            event = slices.next() => proxy.slice(event.ok_or(Error::WatchesEnded)?),
            event = nodes.next() => proxy.node(event.ok_or(Error::WatchesEnded)?),
            event = ranges.next() => proxy.range(event.ok_or(Error::WatchesEnded)?),
            () = sleep_until(audit) => {
                audit = Instant::now() + config.audit;
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
        if gathered > Instant::now() {
            retry = Some(gathered);
            continue;
        }
        retry = match proxy.apply().await {
            Ok(()) => {
                proxy.health.set(|status| (status.updated, status.waiting) = (Timestamp::now(), None));
                backoff.reset();
                gathered = Instant::now() + config.pause;
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
    settings: Settings,
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
        // A node that is gone for a moment keeps its addresses.
        if node.is_some() && self.applier.set_shape(self.settings.shape(node.as_ref())) {
            tracing::info!("the node's addresses or pod ranges changed: all rules are made again");
        }
        let addresses = node.as_ref().map(addresses);
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

    fn set_slice(&mut self, named: &(String, String), slice: Option<&EndpointSlice>) {
        let changed = self.state.set_slice(named, slice.and_then(read_slice));
        if changed.holds.is_some() && self.triggered.len() < MOST_TRIGGERED {
            self.triggered.extend(slice.and_then(|slice| triggered(slice, self.started)));
        }
        for service in changed.services() {
            self.metrics.changed(Change::Endpoints);
            self.dirty.insert(service);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_must_not_look_free() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let config = Config { healthz: None, mode: Some(address), ..Config::new("n".into(), Vec::new()) };
        assert!(
            matches!(config.check_ports(), Err(Error::Listen { address: named, .. }) if named == address)
        );
        assert!(Config { mode: None, ..config }.check_ports().is_ok(), "neither is asked for");
    }
}
