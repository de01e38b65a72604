//! The reconciler of the pod network.
//!
//! Woken by: a change of a Node's addresses or pod ranges; the kernel's word that a link, address or route changed; a
//! failed round's pause; the audit period; shutdown. Reads: the newest Node objects and the kernel's routes. Writes: the
//! CNI configuration, routes of our own protocol number, the nftables table `windlass-network` (where others took it, pods' host ports as well), a few sysctls, and a
//! Warning event on this node for each other node whose pods it cannot reach. Promises: no route changes before every
//! Node was seen once, so a restart takes none away; where the API server shows us no other Node, our own pods have their network all the
//! same; what others made is never changed; shutdown leaves everything in place, because pods outlive us.

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
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use netlink::{Kernel, Protocol, changes::Changes};
use supervise::{Backoff, Scope, Supervisor};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, ConflistError, conflist,
    masquerade::{self, Masquerade},
    node::Member,
    plan::{Plan, Problem, plan},
    ports,
    routes::{self, RouteError},
    sysctl, torn,
};

/// How often the kernel is looked at though it said nothing.
const AUDIT_PERIOD: Duration = Duration::from_secs(60);
/// How often the table is looked for: after somebody's `nft flush ruleset` pods reach nothing beyond the cluster.
const LOOK_PERIOD: Duration = Duration::from_secs(15);
/// First and longest pause after a failed round.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Changes of nodes this close together make one round.
const GATHER: Duration = Duration::from_millis(20);
/// The same for the kernel's word, which comes several times forevery pod that starts or ends.
const GATHER_KERNEL: Duration = Duration::from_millis(200);
/// How long a round may take: the kernel answers at once, or not at all.
const ROUND: Duration = Duration::from_secs(30);
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
    #[error("keep the routes to other nodes")]
    Routes(#[from] RouteError),
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
    let scope = Scope::new(supervisor, "network/", &shutdown);
    let (recorder, writer) = Recorder::new(Some(client), Some(&config.node));
    scope.keep(writer.task("events"));
    let mut network = Network {
        recorder,
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
    recorder: Recorder,
    kernel: Kernel,
    members: BTreeMap<String, Member>,
    /// This node, as it is shown to every kubelet.
    own: Option<Member>,
    /// Every Node was seen once.
    listed: bool,
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
        if self.listed {
            return self.round().await;
        }
        let own = self.own.as_ref().map(|member| member.pod_cidrs.clone()).unwrap_or_default();
        if own.is_empty() {
            return Ok(());
        }
        self.sysctls(&own).await;
        // Else the whole round does it in a moment, which knows what lies next to us.
        if self.refused {
            self.masquerade(&own, &Plan::default()).await?;
        }
        self.conflist(&own)
    }

    async fn round(&mut self) -> Result<(), RoundError> {
        let own =
            self.members.get(&self.config.node).map(|member| member.pod_cidrs.clone()).unwrap_or_default();
        // Routes matter to a node without a range, too: its host network reaches pods.
        let observed = routes::observe(&mut self.kernel, &self.config.bridge).await?;
        let plan = plan(&self.members, &self.config.node, &observed);
        let mut failure = None;
        for step in &plan.steps {
            match routes::apply(&mut self.kernel, *step).await {
                Ok(()) => tracing::info!(?step, "route changed"),
                // The others may work.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if !own.is_empty() {
            self.sysctls(&own).await;
            self.masquerade(&own, &plan).await?;
            self.conflist(&own)?;
        }
        self.report(&plan);
        match failure {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    /// Comes last: with it the runtime says that the network is ready.
    fn conflist(&self, own: &[IpNet]) -> Result<(), RoundError> {
        if conflist::write(&self.config, own)? {
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

    async fn masquerade(&mut self, own: &[IpNet], plan: &Plan) -> Result<(), RoundError> {
        let pods = self.members.values().flat_map(|member| &member.pod_cidrs);
        let ranges = pods.chain(&self.config.cluster_cidrs).copied().collect();
        let wanted = Masquerade::new(own, &ranges, &plan.direct);
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
    fn report(&mut self, plan: &Plan) {
        let new: Vec<Problem> = plan.problems.difference(&self.problems).cloned().collect();
        self.problems.clone_from(&plan.problems);
        let about = recorder::node(&self.config.node);
        for (index, problem) in new.iter().enumerate() {
            tracing::warn!(%problem, "pods of another node cannot be reached");
            if index >= MOST_EVENTS {
                continue;
            }
            self.recorder.note(Note {
                component: "windlass-network",
                about: about.clone(),
                severity: Severity::Warning,
                reason: "PodRouteUnavailable".into(),
                message: problem.to_string(),
                action: Some(("Routing", None)),
            });
        }
    }
}
