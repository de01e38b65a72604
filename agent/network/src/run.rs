//! The reconciler of the pod network.
//!
//! Woken by: a change of a Node's addresses or pod ranges; a change of the ConfigMap of settings; the kernel's word that a link, address or route changed; a
//! failed round's pause; the audit period; shutdown. Reads: the newest Node objects, settings, and the kernel's links, addresses, routes and neighbours. Writes: the
//! CNI configuration, routes of our own protocol number, overlay links of our names with what is on them, the nftables table `windlass-network` (where others took
//! it, pods' host ports as well), a few sysctls, and a
//! Warning event on this node for each other node whose pods it cannot reach. Promises: no route changes before every
//! Node and the settings were seen once, so a restart takes none away; where the API server shows us no other Node, our own pods have their network all the
//! same; what others made is never changed; shutdown leaves everything in place, because pods outlive us; a change of the way loses no connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use client::{
    Event, Source, mirror,
    recorder::{self, Note, Recorder, Severity},
};
use futures::StreamExt;
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use netlink::{Kernel, Protocol, changes::Changes};
use supervise::{Backoff, Scope, Supervisor};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, ConflistError, condition, conflist,
    difference::difference,
    guard::Guard,
    kernel::{self, KernelError, Outcome},
    masquerade::{self, Masquerade},
    node::Member,
    overlay::Device,
    plan::{Desired, Known, Mtu, Observed, plan},
    ports,
    problem::Problem,
    settings::CONFIG_MAP,
    sysctl, torn,
};

/// Namespace of the ConfigMap.
const SYSTEM: &str = "kube-system";
/// How often the kernel is looked at though it said nothing.
const AUDIT_PERIOD: Duration = Duration::from_secs(60);
/// How often the table is looked for: after somebody's `nft flush ruleset` pods reach nothing beyond the cluster.
const LOOK_PERIOD: Duration = Duration::from_secs(15);
/// First and longest pause after a failed round.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Changes of nodes this close together make one round.
const GATHER: Duration = Duration::from_millis(20);
/// The same for the kernel's word, which comes several times for every pod that starts or ends.
const GATHER_KERNEL: Duration = Duration::from_millis(200);
/// How long the API server may take to note the node's condition.
const SAY: Duration = Duration::from_secs(5);
/// How long a round may take: the kernel answers at once, or not at all.
const ROUND: Duration = Duration::from_secs(30);
/// How long an overlay link nobody is reached by is kept: until every other node has followed the same change.
const LINGER: Duration = Duration::from_secs(300);
/// As many problems are reported as events in one round; the log has them all.
const MOST_EVENTS: usize = 20;

/// Why the network's reconciler ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no netlink.
    #[error("open a netlink socket for routes")]
    Netlink(#[source] std::io::Error),
    /// The kernel's changes cannot be read.
    #[error("read the kernel's changes of links and routes")]
    Changes(#[source] std::io::Error),
    /// The watch ended, which it does not do by itself.
    #[error("the watch of nodes ended")]
    WatchEnded,
}

/// Why a round failed; the next one tries again.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("write the CNI configuration")]
    Conflist(#[from] ConflistError),
    #[error("keep the ways to other nodes")]
    Kernel(#[from] KernelError),
    #[error("keep masquerading")]
    Masquerade(#[from] netlink::nft::Error),
    #[error("bring the pod network in order: not done within {}s", ROUND.as_secs())]
    Late,
}

/// Runs until cancelled; what it made stays. `node` reads this node's own object, as every kubelet may; `client` reads all.
///
/// # Errors
/// The watch or the kernel's connection ended; the caller starts again.
pub async fn run(
    config: Config,
    node: Client,
    client: Client,
    supervisor: &Supervisor,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut changes = Changes::subscribe().map_err(Error::Netlink)?;
    let mut own = mirror::<Node>(Source::all::<Node>(&node).named(&config.node));
    let mut nodes = mirror::<Node>(Source::all::<Node>(&client));
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM);
    let mut maps = mirror::<ConfigMap>(Source::of(maps).named(CONFIG_MAP));
    let scope = Scope::new(supervisor, "network/", &shutdown);
    let (recorder, writer) = Recorder::new(Some(client), Some(&config.node));
    scope.keep(writer.task("events"));
    let mut network = Network {
        recorder,
        node,
        known: Known { settings: config.settings, ..Known::default() },
        told: false,
        refused_at: Instant::now(),
        unused: BTreeMap::new(),
        mtu: conflist::written_mtu(&config),
        config,
        kernel: Kernel::of(Protocol::Route),
        members: BTreeMap::new(),
        own: None,
        listed: false,
        refused: false,
        problems: BTreeSet::new(),
        masquerade: None,
        nftables: netlink::nft::Kernel::default(),
        sysctls_warned: false,
    };
    let mut next = Instant::now() + AUDIT_PERIOD;
    let mut look = Instant::now() + LOOK_PERIOD;
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            event = own.next() => if network.take_own(event.ok_or(Error::WatchEnded)?) {
                next = next.min(Instant::now() + GATHER);
            },
            event = nodes.next() => if network.take(event.ok_or(Error::WatchEnded)?) {
                next = next.min(Instant::now() + GATHER);
            },
            event = maps.next() => if network.take_settings(event.ok_or(Error::WatchEnded)?) {
                next = next.min(Instant::now() + GATHER);
            },
            changed = changes.next() => {
                changed.map_err(Error::Changes)?;
                next = next.min(Instant::now() + GATHER_KERNEL);
            }
            () = sleep_until(look) => {
                look = Instant::now() + LOOK_PERIOD;
                if network.is_torn().await {
                    next = Instant::now();
                    network.restore_ports().await;
                }
            }
            () = sleep_until(next) => {
                let audit = next + AUDIT_PERIOD;
                let round = tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    round = timeout(ROUND, network.any_round()) => round.unwrap_or(Err(RoundError::Late)),
                };
                match round {
                    Ok(()) => {
                        backoff.reset();
                        next = audit.max(Instant::now() + GATHER);
                    }
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "pod network not in order; trying again");
                        next = Instant::now() + backoff.next_pause();
                    }
                }
            }
        }
    }
}

struct Network {
    config: Config,
    /// Speaks as the node.
    node: Client,
    recorder: Recorder,
    kernel: Kernel,
    members: BTreeMap<String, Member>,
    /// This node, as it is shown to every kubelet.
    own: Option<Member>,
    /// Every Node was seen once.
    listed: bool,
    /// The ConfigMap was looked for.
    told: bool,
    /// Settings, and what became of overlay links.
    known: Known,
    /// When a link was last not made.
    refused_at: Instant,
    /// Links nobody is reached by, and since when.
    unused: BTreeMap<Device, Instant>,
    /// What pods are told.
    mtu: Mtu,
    /// The API server does not show us the others.
    refused: bool,
    /// Reported already.
    problems: BTreeSet<Problem>,
    /// Applied, and when.
    masquerade: Option<(Masquerade, Instant)>,
    nftables: netlink::nft::Kernel,
    sysctls_warned: bool,
}

impl Network {
    /// Whether the event changes anything that matters here; a node's heartbeat does not.
    fn take(&mut self, event: Event<Node>) -> bool {
        match event {
            Event::Set(key, node) => {
                let member = Member::of(&node);
                self.members.insert(key.name.as_ref().to_owned(), member.clone()) != Some(member)
            }
            Event::Gone(gone) => self.members.remove(&*gone.key.name).is_some(),
            Event::Synced => !std::mem::replace(&mut self.listed, true),
            Event::Failed(error) if !self.listed && error.refusal().is_some() => {
                let first = !std::mem::replace(&mut self.refused, true);
                if first {
                    let why = error.refusal().unwrap_or_default();
                    tracing::warn!(why, "other nodes are not known: their pods cannot be reached");
                }
                first
            }
            Event::Unreadable(_) | Event::Failed(_) => false,
        }
    }

    /// Whether the event changes how nodes are reached.
    fn take_settings(&mut self, event: Event<ConfigMap>) -> bool {
        let data = match event {
            Event::Set(_, map) => map.data.unwrap_or_default(),
            Event::Gone(_) => BTreeMap::new(),
            Event::Synced => return !std::mem::replace(&mut self.told, true),
            // Of a control plane that is not ours: what flags say counts.
            Event::Failed(error) if error.refusal().is_some() => {
                return !std::mem::replace(&mut self.told, true);
            }
            Event::Unreadable(_) | Event::Failed(_) => return false,
        };
        let (settings, wrong) = self.config.settings.overlaid(&data);
        for text in &wrong {
            tracing::warn!(setting = text, "ConfigMap {SYSTEM}/{CONFIG_MAP} is not followed in part");
        }
        if !wrong.is_empty() {
            self.note("InvalidPodNetworkSettings", format!("ConfigMap {CONFIG_MAP}: {}", wrong.join("; ")));
        }
        let changed = std::mem::replace(&mut self.known.settings, settings) != settings;
        if changed {
            tracing::info!(?settings, "settings of the pod network");
            self.known.refused.clear();
        }
        changed
    }

    fn take_own(&mut self, event: Event<Node>) -> bool {
        match event {
            Event::Set(_, node) => {
                let member = Some(Member::of(&node));
                std::mem::replace(&mut self.own, member.clone()) != member
            }
            Event::Gone(_) => self.own.take().is_some(),
            Event::Synced | Event::Unreadable(_) | Event::Failed(_) => false,
        }
    }

    /// A whole round where every Node is known, and what can be done for our own pods where they are not.
    async fn any_round(&mut self) -> Result<(), RoundError> {
        if self.listed && self.told {
            return self.round().await;
        }
        let own = self.own.as_ref().map(|member| member.pod_cidrs.clone()).unwrap_or_default();
        if own.is_empty() {
            return Ok(());
        }
        self.sysctls(&own).await;
        // Else the whole round does it in a moment, which knows what lies next to us.
        if self.refused {
            self.masquerade(&own, &Desired::default()).await?;
        }
        self.conflist(&own)
    }

    async fn round(&mut self) -> Result<(), RoundError> {
        let own =
            self.members.get(&self.config.node).map(|member| member.pod_cidrs.clone()).unwrap_or_default();
        // Routes matter to a node without a range, too: its host network reaches pods.
        let mut observed = kernel::observe(&mut self.kernel, &self.config.bridge).await?;
        if self.refused_at.elapsed() >= AUDIT_PERIOD {
            self.known.refused.clear();
        }
        let mut desired = plan(&self.members, &self.config.node, &observed, &self.known);
        let mut outcome = self.change(&desired, &observed).await?;
        if !outcome.refused.is_empty() {
            // What was to go by such a link has another way, or a problem to tell of.
            self.known.refused.append(&mut outcome.refused);
            self.refused_at = Instant::now();
            observed = kernel::observe(&mut self.kernel, &self.config.bridge).await?;
            desired = plan(&self.members, &self.config.node, &observed, &self.known);
            outcome = self.change(&desired, &observed).await?;
        }
        self.note_unused(&desired);
        self.mtu = desired.mtu;
        if !own.is_empty() {
            self.sysctls(&own).await;
            self.masquerade(&own, &desired).await?;
            self.conflist(&own)?;
        }
        self.report(&desired);
        self.condition(&desired).await;
        match outcome.failed.into_iter().next() {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    /// What is said on the Node follows; it is looked at again in the next round.
    async fn condition(&mut self, desired: &Desired) {
        let why = condition::unavailable(&desired.problems, !desired.routes.is_empty());
        let said = self.members.get(&self.config.node).map(|own| own.unavailable);
        if said.is_none_or(|said| said == why.is_some()) {
            return;
        }
        let nodes: Api<Node> = Api::all(self.node.clone());
        let patch = Patch::Strategic(condition::patch(why.as_deref(), Timestamp::now()));
        let params = PatchParams::default();
        match timeout(SAY, nodes.patch_status(&self.config.node, &params, &patch)).await {
            Ok(Ok(_)) => tracing::info!(unavailable = why.is_some(), "said whether other nodes are reached"),
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "say whether other nodes are reached"
                );
            }
            Err(_) => {
                tracing::warn!("say whether other nodes are reached: no answer within {}s", SAY.as_secs())
            }
        }
    }

    async fn change(&mut self, desired: &Desired, observed: &Observed) -> Result<Outcome, RoundError> {
        let steps = difference(desired, observed);
        if steps.is_empty() {
            return Ok(Outcome::default());
        }
        let outcome = kernel::apply(&mut self.kernel, steps, observed).await?;
        for step in &outcome.done {
            tracing::info!("{step}");
        }
        Ok(outcome)
    }

    /// Links that lead to nobody go when they have done so for long enough.
    fn note_unused(&mut self, desired: &Desired) {
        let now = Instant::now();
        let leads = |device: &Device| {
            desired.overlays.get(device).is_some_and(|overlay| !overlay.forwarding.is_empty())
        };
        for device in Device::ALL {
            if leads(&device) {
                self.unused.remove(&device);
            } else {
                self.unused.entry(device).or_insert(now);
            }
        }
        let long = self.unused.iter().filter(|(_, since)| now.duration_since(**since) >= LINGER);
        self.known.idle = long.map(|(device, _)| *device).collect();
    }

    /// Comes last: with it the runtime says that the network is ready.
    fn conflist(&self, own: &[IpNet]) -> Result<(), RoundError> {
        if conflist::write(&self.config, own, self.mtu)? {
            tracing::info!(cidrs = ?own, "CNI configuration written");
        }
        Ok(())
    }

    async fn sysctls(&mut self, own: &[IpNet]) {
        if !self.sysctls_warned {
            sysctl::load_bridge_filter().await;
        }
        let failures = sysctl::set(
            own.iter().any(|cidr| cidr.addr().is_ipv4()),
            own.iter().any(|cidr| cidr.addr().is_ipv6()),
        );
        if !std::mem::replace(&mut self.sysctls_warned, !failures.is_empty()) {
            for error in &failures {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "pods may not reach each other or Services"
                );
            }
        }
    }

    async fn masquerade(&mut self, own: &[IpNet], desired: &Desired) -> Result<(), RoundError> {
        let pods = self.members.values().flat_map(|member| &member.pod_cidrs);
        let ranges = pods.chain(&self.config.cluster_cidrs).copied().collect();
        let guard = (!desired.overlays.is_empty()).then(|| Guard {
            port: self.known.settings.vxlan_port,
            bridge: self.config.bridge.clone(),
            nodes: self.members.values().flat_map(|member| &member.addresses).copied().collect(),
        });
        let wanted = Masquerade::new(own, &ranges, &desired.direct, guard);
        let stale =
            |(applied, at): &(Masquerade, Instant)| *applied != wanted || at.elapsed() >= AUDIT_PERIOD;
        if self.masquerade.as_ref().is_none_or(stale) {
            self.nftables.commit(wanted.batch()).await?;
            self.masquerade = Some((wanted, Instant::now()));
        }
        Ok(())
    }

    /// Whether somebody took the table away that is to be there; then it is to be made again.
    async fn is_torn(&mut self) -> bool {
        let there =
            self.masquerade.is_none() || self.nftables.has_tables(masquerade::TABLES).await.unwrap_or(true);
        if !there {
            tracing::warn!("the nftables table windlass-network was taken away; put in place again");
            self.masquerade = None;
        }
        !there
    }

    /// Whoever took our table away may have taken the plugins' as well.
    async fn restore_ports(&self) {
        match ports::restore(&self.config, Path::new(torn::RESULTS)).await {
            Ok(0) => {}
            Ok(pods) => tracing::warn!(pods, "host ports of pods were taken away; put in place again"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "host ports of pods are not put in place again");
            }
        }
    }

    /// Says each problem once, until it went away and came again.
    fn report(&mut self, desired: &Desired) {
        let new: Vec<Problem> = desired.problems.difference(&self.problems).cloned().collect();
        self.problems.clone_from(&desired.problems);
        for (index, problem) in new.iter().enumerate() {
            tracing::warn!(%problem, "pods of another node cannot be reached");
            if index < MOST_EVENTS {
                self.note("PodRouteUnavailable", problem.to_string());
            }
        }
    }

    fn note(&self, reason: &'static str, message: String) {
        self.recorder.note(Note {
            component: "windlass-network",
            about: recorder::node(&self.config.node),
            severity: Severity::Warning,
            reason: reason.into(),
            message,
            action: Some(("Routing", None)),
        });
    }
}
