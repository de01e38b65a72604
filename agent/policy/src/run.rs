//! The watches, and the loop that applies what they show.
//!
//! Woken by: a change of a policy, pod or namespace; the CNI plugin's question (`attach`); the audit period; shutdown. Reads: the newest
//! state of what changed, and which CNI configuration the runtime uses. Writes: the table `windlass-policy`, connection tracking's entries of flows
//! that are allowed no more, the records of addresses. Promises: changes that arrive while a transaction runs go into the next one together; nothing is
//! applied before every watch has shown everything once, so a restart never takes rules away; shutdown leaves the rules in place; a plugin
//! is always answered.
//!
//! Where there is no policy, nothing is watched but policies, and there is no table. Where another's CNI configuration comes before ours, pods are
//! not ours to judge: there is no table either.

use crate::apply::{Applied, Applier};
use crate::attach::{self, Ask, PATIENCE, Records};
use crate::flows;
use crate::metrics::{self, Metrics};
use crate::model::{Model, Owner};
use crate::object::{read_pod, read_policy};
use client::{Event, Identity, Source, mirror};
use futures::stream::{BoxStream, pending};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Client;
use netlink::{Kernel, Protocol};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use supervise::{Backoff, Scope, Supervisor, Work};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// First and longest pause after a failed transaction.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Pods are watched for so long after the last policy went, for the next one.
const LINGER: Duration = Duration::from_secs(300);
/// Where what is counted is told.
pub const METRICS_PORT: u16 = 10247;
/// Pods that are not at their end.
const LIVING: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// What is to be known of this node.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name.
    pub node: String,
    /// Where the socket and the records are.
    pub directory: PathBuf,
    /// Where the container runtime reads CNI configurations.
    pub cni_conf_dir: PathBuf,
    /// Where `/metrics` is answered; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
    /// How often the table is looked for; somebody's `nft flush ruleset` is mended within this time.
    pub audit: Duration,
}

impl Config {
    /// The usual places.
    #[must_use]
    pub fn new(node: String, cni_conf_dir: PathBuf) -> Self {
        Self {
            node,
            directory: "/run/windlass".into(),
            cni_conf_dir,
            metrics: Some((Ipv4Addr::LOCALHOST, METRICS_PORT).into()),
            audit: Duration::from_secs(15),
        }
    }

    /// Where the CNI plugin asks.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join(attach::SOCKET)
    }
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The watches ended, which they do not do by themselves.
    #[error("the watches ended")]
    WatchesEnded,
    /// The CNI plugin cannot ask.
    #[error("listen in {}", .0.display())]
    Listen(PathBuf, #[source] std::io::Error),
}

/// Runs until cancelled; the rules stay.
///
/// # Errors
/// The watches ended, or the socket cannot be made; the caller starts again.
pub async fn run(
    config: Config,
    client: Client,
    supervisor: &Supervisor,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let listener =
        attach::listen(&config.directory).map_err(|e| Error::Listen(config.directory.clone(), e))?;
    let scope = Scope::new(supervisor, "policy/", &shutdown);
    let stop = scope.stop().clone();
    // one a connection, of which there are few
    let (asks, mut asked) = mpsc::channel(1);
    scope.work("attach").spawn(attach::serve(listener, asks, scope.work("attach/connection"), stop.clone()));
    let metrics = Arc::new(Metrics::default());
    if let Some(address) = config.metrics {
        let works = (scope.work("metrics"), Work::new(supervisor, "policy/metrics/connection"));
        metrics::serve(metrics.clone(), address, works, stop);
    }
    let mut policies = mirror::<NetworkPolicy>(Source::all::<NetworkPolicy>(&client));
    let records = Records::new(&config.directory);
    let mut model = Model::default();
    for (address, owner) in records.read() {
        model.restore(address, owner);
    }
    let mut judge = Judge {
        foreign: !network::is_used(&config.cni_conf_dir),
        config,
        client,
        metrics,
        records,
        model,
        applier: Applier::default(),
        flows: Kernel::of(Protocol::Netfilter),
        pods: pending().boxed(),
        namespaces: pending().boxed(),
        watching: false,
        listed: Listed::default(),
        refused: false,
        idle_since: Instant::now(),
        waiting: Vec::new(),
    };
    let mut audit = Instant::now() + judge.config.audit;
    let mut retry: Option<Instant> = None;
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        let next = judge.waiting.iter().map(|waiting| waiting.until).chain(retry).min();
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            event = policies.next() => judge.policy(event.ok_or(Error::WatchesEnded)?),
            event = judge.pods.next() => judge.pod(event.ok_or(Error::WatchesEnded)?),
            event = judge.namespaces.next() => judge.namespace(event.ok_or(Error::WatchesEnded)?),
            Some(ask) = asked.recv() => judge.ask(ask),
            () = sleep_until(audit) => {
                audit = Instant::now() + judge.config.audit;
                judge.look_after().await;
            }
            () = sleep_until(next.unwrap_or(audit)), if next.is_some() => {}
        }
        // what is ready already belongs into the same transaction
        while let Some(Some(event)) = policies.next().now_or_never() {
            judge.policy(event);
        }
        while let Some(Some(event)) = judge.pods.next().now_or_never() {
            judge.pod(event);
        }
        while let Some(Some(event)) = judge.namespaces.next().now_or_never() {
            judge.namespace(event);
        }
        while let Ok(ask) = asked.try_recv() {
            judge.ask(ask);
        }
        if retry.is_none_or(|at| at <= Instant::now()) {
            retry = match judge.apply().await {
                Ok(()) => {
                    backoff.reset();
                    None
                }
                Err(error) => {
                    judge.metrics.failed();
                    let pause = backoff.next_pause();
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, ?pause, "policies not applied");
                    Some(Instant::now() + pause)
                }
            };
        }
        judge.settle();
    }
}

/// What was shown whole.
#[derive(Default)]
struct Listed {
    policies: bool,
    pods: bool,
    namespaces: bool,
}

/// A plugin that waits, and since when.
struct Waiting {
    owner: Owner,
    answer: tokio::sync::oneshot::Sender<String>,
    since: Instant,
    until: Instant,
}

struct Judge {
    config: Config,
    client: Client,
    metrics: Arc<Metrics>,
    records: Records,
    model: Model,
    applier: Applier,
    flows: Kernel,
    pods: BoxStream<'static, Event<Pod>>,
    namespaces: BoxStream<'static, Event<Namespace>>,
    /// Pods and namespaces are watched.
    watching: bool,
    listed: Listed,
    /// The API server does not show us policies.
    refused: bool,
    /// Another's CNI configuration is used.
    foreign: bool,
    /// Since when there is no policy.
    idle_since: Instant,
    waiting: Vec<Waiting>,
}

impl Judge {
    fn policy(&mut self, event: Event<NetworkPolicy>) {
        match event {
            Event::Set(key, policy) => {
                let policy = read_policy(&policy, &key.namespace);
                self.model.set_policy(&key, Some(policy));
                if !self.watching && !self.foreign {
                    self.watch();
                }
            }
            Event::Gone(gone) => {
                self.model.set_policy(&gone.key, None);
                self.idle_since = Instant::now();
            }
            Event::Synced => (self.listed.policies, self.refused) = (true, false),
            Event::Failed(error) => self.failed(&error),
            Event::Unreadable(_) => {}
        }
    }

    fn watch(&mut self) {
        self.pods = mirror::<Pod>(Source::all::<Pod>(&self.client).fields(LIVING));
        self.namespaces = mirror::<Namespace>(Source::all::<Namespace>(&self.client));
        self.watching = true;
    }

    fn rest(&mut self) {
        (self.pods, self.namespaces) = (pending().boxed(), pending().boxed());
        (self.watching, self.listed.pods, self.listed.namespaces) = (false, false, false);
        self.model.forget_pods();
    }

    fn pod(&mut self, event: Event<Pod>) {
        match event {
            Event::Set(key, pod) => {
                let read = read_pod(&pod, &self.config.node);
                self.model.set_pod(&key, read, pod.metadata.uid.as_deref());
            }
            Event::Gone(Identity { key, uid }) => self.model.set_pod(&key, None, Some(&uid)),
            Event::Synced => (self.listed.pods, self.refused) = (true, false),
            Event::Failed(error) => self.failed(&error),
            Event::Unreadable(_) => {}
        }
    }

    fn namespace(&mut self, event: Event<Namespace>) {
        match event {
            Event::Set(key, namespace) => {
                let labels = namespace.metadata.labels.unwrap_or_default();
                self.model.set_namespace(&key.name, Some(labels));
            }
            Event::Gone(gone) => self.model.set_namespace(&gone.key.name, None),
            Event::Synced => (self.listed.namespaces, self.refused) = (true, false),
            Event::Failed(error) => self.failed(&error),
            Event::Unreadable(_) => {}
        }
    }

    /// Nobody waits for what we may not see.
    fn failed(&mut self, error: &client::Error) {
        if !self.is_complete()
            && let Some(why) = error.refusal()
            && !std::mem::replace(&mut self.refused, true)
        {
            tracing::warn!(why, "network policies are not known, and so not applied");
        }
    }

    /// Everything was shown that matters.
    fn is_complete(&self) -> bool {
        self.listed.policies
            && (self.model.is_idle() || self.foreign || (self.listed.pods && self.listed.namespaces))
    }

    fn ask(&mut self, ask: Ask) {
        self.model.attach(&ask.addresses, &ask.owner);
        let since = Instant::now();
        self.waiting.push(Waiting { owner: ask.owner, answer: ask.answer, since, until: since + PATIENCE });
    }

    async fn look_after(&mut self) {
        let foreign = !network::is_used(&self.config.cni_conf_dir);
        if foreign != self.foreign {
            tracing::info!(foreign, "whose CNI configuration is used has changed");
            self.foreign = foreign;
            match foreign {
                true => self.rest(),
                false if !self.model.is_idle() && !self.watching => self.watch(),
                false => {}
            }
        }
        if self.watching && self.model.is_idle() && self.idle_since.elapsed() > LINGER {
            self.rest();
        }
        match self.applier.audit().await {
            Ok(_) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "cannot look after the nftables table");
            }
        }
    }

    async fn apply(&mut self) -> Result<(), netlink::nft::Error> {
        self.keep_records();
        if !self.is_complete() {
            return Ok(());
        }
        if self.foreign || self.model.is_idle() {
            self.model.rules_mut().forget_changes();
            self.model.take_narrowed();
            return self.applier.remove().await;
        }
        let began = Instant::now();
        let applied = self.applier.apply(self.model.rules_mut()).await?;
        let mut narrowed = self.model.take_narrowed();
        match applied {
            Applied::Nothing => {}
            Applied::Partly => self.metrics.applied(began.elapsed(), self.model.counts()),
            Applied::Whole => {
                self.metrics.applied(began.elapsed(), self.model.counts());
                // nobody knows what began while these rules were not there
                narrowed.extend(self.model.rules().targets().keys().map(|(_, address)| *address));
            }
        }
        match flows::cut(&mut self.flows, narrowed, self.model.rules()).await {
            Ok(0) => {}
            Ok(count) => {
                self.metrics.cut(count);
                tracing::debug!(count, "flows that are allowed no more are cut");
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "flows that are allowed no more are left to end");
            }
        }
        Ok(())
    }

    /// Writes down whose an address is that it was not.
    fn keep_records(&mut self) {
        for address in self.model.take_reattached() {
            let owner = self.model.attached().get(&address);
            if let Err(error) = self.records.keep(address, owner) {
                tracing::warn!(%address, %error, "whose an address is will not be known after a restart");
            }
        }
    }

    /// Answers the plugins that need not, or may not, wait any longer.
    fn settle(&mut self) {
        let now = Instant::now();
        let complete = self.is_complete();
        let unneeded = complete && (self.foreign || self.model.is_idle());
        for waiting in std::mem::take(&mut self.waiting) {
            let judged =
                unneeded || (complete && self.applier.is_in_step() && self.model.can_judge(&waiting.owner));
            let error = match judged {
                true => "",
                false if self.refused => "",
                false if waiting.until > now => {
                    self.waiting.push(waiting);
                    continue;
                }
                // its rules are not in the kernel
                false if complete && !self.applier.is_in_step() => {
                    "nftables does not take the rules of network policies"
                }
                false => "",
            };
            let pod = &waiting.owner.pod;
            if !judged {
                tracing::warn!(%pod, refused = self.refused, complete, "a pod is attached before its policies are known");
            }
            self.metrics.attached(waiting.since.elapsed(), judged);
            // a plugin that is gone was given up by its runtime
            let _ = waiting.answer.send(error.to_owned());
        }
    }
}
