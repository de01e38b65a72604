//! The reconciler of the pod network.
//!
//! Woken by: a change of a Node's addresses or pod ranges; the kernel's word that a link, address or route changed; a
//! failed round's pause; the audit period; shutdown. Reads: the newest Node objects and the kernel's routes. Writes: the
//! CNI configuration, routes of our own protocol number, the nftables table `windlass-network`, a few sysctls, and a
//! Warning event on this node for each other node whose pods it cannot reach. Promises: nothing happens before every
//! Node was seen once, so a restart takes no route away; what others made is never changed; shutdown leaves everything
//! in place, because pods outlive us.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        events::{Event as Notice, EventType, Recorder, Reporter},
        watcher::{self, Event, watcher},
    },
};
use rtnetlink::Handle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, ConflistError,
    changes::Changes,
    conflist,
    masquerade::Masquerade,
    node::Member,
    plan::{Plan, Problem, plan},
    routes::{self, RouteError},
    sysctl,
};

/// How often the kernel is looked at though it said nothing.
const AUDIT_PERIOD: Duration = Duration::from_secs(60);
/// First and longest pause after a failed round.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Changes of nodes this close together make one round.
const GATHER: Duration = Duration::from_millis(20);
/// The same for the kernel's word, which comes several times for every pod that starts or ends.
const GATHER_KERNEL: Duration = Duration::from_millis(200);
/// How long a round may take: the kernel answers at once, or not at all.
const ROUND: Duration = Duration::from_secs(30);
/// How long recording an event may hold up a round.
const RECORD_WITHIN: Duration = Duration::from_secs(2);
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
    /// The watch ended for good.
    #[error("watch nodes")]
    Watch(#[source] Box<watcher::Error>),
    /// The watch's stream closed.
    #[error("the watch of nodes closed")]
    WatchClosed,
}

/// Why a round failed; the next one tries again.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("write the CNI configuration")]
    Conflist(#[from] ConflistError),
    #[error("keep the routes to other nodes")]
    Routes(#[from] RouteError),
    #[error("keep masquerading")]
    Masquerade(#[from] nft::Error),
    #[error("bring the pod network in order: not done within {}s", ROUND.as_secs())]
    Late,
}

/// Runs until cancelled; what it made stays.
///
/// # Errors
/// The watch or the kernel's connection ended; the caller starts anew.
pub async fn run(config: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    let mut changes = Changes::subscribe().map_err(Error::Netlink)?;
    let (connection, kernel, _) = rtnetlink::new_connection().map_err(Error::Netlink)?;
    // Ends when the handle is dropped, which is when this function returns.
    tokio::spawn(connection);
    let nodes = watcher(Api::<Node>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .filter(|event| {
            if let Err(error) = event {
                tracing::debug!(%error, "watch of nodes interrupted; it is resumed");
            }
            futures::future::ready(event.is_ok())
        });
    let mut nodes = std::pin::pin!(nodes);
    let reporter = Reporter { controller: "windlass-network".into(), instance: Some(config.node.clone()) };
    let mut network = Network {
        recorder: Recorder::new(client, reporter),
        config,
        kernel,
        members: BTreeMap::new(),
        relisting: BTreeMap::new(),
        listed: false,
        problems: BTreeSet::new(),
        masquerade: None,
        nftables: nft::Kernel::default(),
        sysctls_warned: false,
    };
    let mut next = Instant::now() + AUDIT_PERIOD;
    let mut pause = RETRY.0;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            event = nodes.try_next() => match event {
                Ok(Some(event)) => if network.take(event) { next = next.min(Instant::now() + GATHER); },
                Ok(None) => return Err(Error::WatchClosed),
                Err(error) => return Err(Error::Watch(Box::new(error))),
            },
            changed = changes.next() => {
                changed.map_err(Error::Changes)?;
                next = next.min(Instant::now() + GATHER_KERNEL);
            }
            () = sleep_until(next) => {
                let audit = next + AUDIT_PERIOD;
                if !network.listed {
                    next = Instant::now() + AUDIT_PERIOD;
                    continue;
                }
                let round = tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    round = timeout(ROUND, network.round()) => round.unwrap_or(Err(RoundError::Late)),
                };
                match round {
                    Ok(()) => (next, pause) = (audit.max(Instant::now() + GATHER), RETRY.0),
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "pod network not in order; trying again");
                        next = Instant::now() + pause;
                        pause = (pause * 2).min(RETRY.1);
                    }
                }
            }
        }
    }
}

struct Network {
    config: Config,
    recorder: Recorder,
    kernel: Handle,
    members: BTreeMap<String, Member>,
    /// What a list in progress has shown so far; it replaces `members` at its end.
    relisting: BTreeMap<String, Member>,
    listed: bool,
    /// Reported already.
    problems: BTreeSet<Problem>,
    /// Applied, and when.
    masquerade: Option<(Masquerade, Instant)>,
    nftables: nft::Kernel,
    sysctls_warned: bool,
}

impl Network {
    /// Whether the event changes anything that matters here; a node's heartbeat does not.
    fn take(&mut self, event: Event<Node>) -> bool {
        match event {
            Event::Apply(node) => {
                let member = Member::of(&node);
                self.members.insert(node.name_any(), member.clone()) != Some(member)
            }
            Event::Delete(node) => self.members.remove(&node.name_any()).is_some(),
            Event::Init => {
                self.relisting.clear();
                false
            }
            Event::InitApply(node) => {
                self.relisting.insert(node.name_any(), Member::of(&node));
                false
            }
            Event::InitDone => {
                self.members = std::mem::take(&mut self.relisting);
                self.listed = true;
                true
            }
        }
    }

    async fn round(&mut self) -> Result<(), RoundError> {
        let own =
            self.members.get(&self.config.node).map(|member| member.pod_cidrs.clone()).unwrap_or_default();
        // Routes matter to a node without a range, too: its host network reaches pods.
        let observed = routes::observe(&self.kernel, &self.config.bridge).await?;
        let plan = plan(&self.members, &self.config.node, &observed);
        let mut failure = None;
        for step in &plan.steps {
            match routes::apply(&self.kernel, *step).await {
                Ok(()) => tracing::info!(?step, "route changed"),
                // The others may work.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if !own.is_empty() {
            if !self.sysctls_warned {
                sysctl::load_bridge_filter().await;
            }
            self.sysctls(&own);
            self.masquerade(&own, &plan).await?;
            // Last: with it the runtime says that the network is ready.
            if conflist::write(&self.config, &own)? {
                tracing::info!(cidrs = ?own, "CNI configuration written");
            }
        }
        self.report(&plan).await;
        match failure {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    fn sysctls(&mut self, own: &[IpNet]) {
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
        // Somebody's `nft flush ruleset` is mended by the audit.
        if self.masquerade.as_ref().is_none_or(stale) {
            self.nftables.commit(wanted.batch()).await?;
            self.masquerade = Some((wanted, Instant::now()));
        }
        Ok(())
    }

    /// Says each problem once, until it went away and came again.
    async fn report(&mut self, plan: &Plan) {
        let new: Vec<Problem> = plan.problems.difference(&self.problems).cloned().collect();
        self.problems.clone_from(&plan.problems);
        let about = ObjectReference {
            kind: Some("Node".into()),
            name: Some(self.config.node.clone()),
            // What upstream's kubelet uses for a Node it has not read.
            uid: Some(self.config.node.clone()),
            ..ObjectReference::default()
        };
        for (index, problem) in new.iter().enumerate() {
            tracing::warn!(%problem, "pods of another node cannot be reached");
            if index >= MOST_EVENTS {
                continue;
            }
            let notice = Notice {
                type_: EventType::Warning,
                reason: "PodRouteUnavailable".into(),
                note: Some(problem.to_string()),
                action: "Routing".into(),
                secondary: None,
            };
            match timeout(RECORD_WITHIN, self.recorder.publish(&notice, &about)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "event not recorded"),
                // Nobody answers; nor will they the others.
                Err(_elapsed) => return,
            }
        }
    }
}
