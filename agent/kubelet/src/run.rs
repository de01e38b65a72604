//! The kubelet's tasks: the only file of this crate that spawns any. The Node object is not among them: whoever assembles
//! the node runs [`crate::node::run`] beside this, with [`Kubelet::health`].
//!
//! The manager below owns the workers. What wakes it: a change of a source's pods, a runtime event, a changed object, a
//! worker that ended, and a slow audit. What it reads: the sources' newest maps and the runtime's lists. What it writes:
//! each worker's desired pod. What it promises: one worker a pod UID; pods the sources do not name any more are ended
//! and cleaned up, but only once every source was read; a source that is away ends nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cri_proto::client::{Deadlines, Runtime};
use cri_proto::events::{Event, Events, Kind};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::admit;
use crate::cgroup::Cgroups;
use crate::config::Config;
use crate::context::Context;
use crate::csi::{self, Drivers};
use crate::eviction::order::Evictions;
use crate::image::Images;
use crate::image::garbage::Garbage;
use crate::logs::rotate;
use crate::machine::Machine;
use crate::node;
use crate::node::runtime::Health;
use crate::objects::{Changed, Objects};
use crate::pod::allocation;
use crate::pod::spec::labels;
use crate::pod::worker::{Desired, Worker};
use crate::pods::Pods;
use crate::recorder::{Record, Recorder, Sink, Subject};
use crate::report::Reports;
use crate::runtime_class::RuntimeClasses;
use crate::source::{self, Known};
use crate::stats::Stats;
use crate::volume::claim::Claims;
use crate::volume::token::Tokens;

mod grant;
mod orphans;

/// How long the runtime may take to be ready at start.
const RUNTIME_START: Duration = Duration::from_secs(300);
/// How often everything is listed though events tell of changes.
const AUDIT: Duration = Duration::from_secs(60);
/// Events of unknown containers cause a list, at most this often.
const RELIST_PAUSE: Duration = Duration::from_millis(250);
/// containerd 1.6 tells of a container's end before CRI shows it (the dead shim is cleaned up first): its worker looks
/// again after these.
const LOOK_AGAIN: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(400),
    Duration::from_millis(1000),
    Duration::from_millis(3000),
];

/// Why the kubelet cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime is not there.
    #[error("container runtime {endpoint}")]
    Runtime {
        /// Its endpoint.
        endpoint: String,
        /// What it said.
        source: cri_proto::client::Error,
    },
    /// The classes' cgroups cannot be made.
    #[error("prepare cgroups")]
    Cgroups(#[source] crate::cgroup::Error),
    /// A directory cannot be made.
    #[error("create directory {}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A kubelet that is set up and not yet running: others take the handles they need from it.
pub struct Kubelet {
    context: Context,
    client: Option<kube::Client>,
    reports: Reports,
    records: mpsc::Receiver<Record>,
    work: crate::objects::Work,
    evicted: mpsc::UnboundedReceiver<String>,
    stats: Stats,
    garbage: Garbage,
    known: watch::Sender<Known>,
    health: watch::Sender<Health>,
}

impl Kubelet {
    /// Waits for the runtime and prepares this machine.
    pub async fn prepare(config: Config, client: Option<kube::Client>) -> Result<Self, Error> {
        if !config.unsupported.is_empty() {
            tracing::warn!(fields = ?config.unsupported, "configuration fields that are not acted on");
        }
        for path in [config.root_dir.join("pods"), config.pod_logs_dir.clone()] {
            std::fs::create_dir_all(&path).map_err(|source| Error::Directory { path, source })?;
        }
        let endpoint = config.container_runtime_endpoint.clone();
        let failed = |source| Error::Runtime { endpoint: endpoint.clone(), source };
        let deadlines = Deadlines { request: config.runtime_request_timeout, ..Deadlines::default() };
        let runtime = Runtime::connect(&endpoint, deadlines).map_err(failed)?;
        let version = runtime.wait_until_ready(RUNTIME_START).await.map_err(failed)?;
        tracing::info!(runtime = version.runtime_name, version = version.runtime_version, "runtime is ready");
        let machine = Machine::read(&config);
        let cgroups = Cgroups::new(&config);
        cgroups.prepare(&machine).await.map_err(Error::Cgroups)?;
        let (recorder, records) = Recorder::new();
        let (objects, work) = Objects::new(client.clone());
        let health = watch::Sender::new(Health::default());
        let (evictions, evicted) = Evictions::new();
        let images = Images::new(runtime.clone(), &config);
        let config = Arc::new(config);
        let (pods, claims) = (Pods::default(), Claims::default());
        let stats =
            Stats::new(config.clone(), runtime.clone(), cgroups.clone(), pods.clone(), claims.clone());
        let garbage = Garbage::new(runtime.clone(), config.clone(), recorder.clone());
        let context = Context {
            images,
            config,
            runtime,
            runtime_name: version.runtime_name.into(),
            recorder,
            objects,
            claims,
            drivers: Drivers::default(),
            evictions,
            runtime_classes: RuntimeClasses::default(),
            tokens: Tokens::new(client.clone()),
            cgroups,
            pods,
            health: health.subscribe(),
            machine,
        };
        Ok(Self {
            context,
            client,
            reports: Reports::default(),
            records,
            work,
            evicted,
            stats,
            garbage,
            known: watch::Sender::new(Known::default()),
            health,
        })
    }

    /// The registry of pods.
    pub fn pods(&self) -> Pods {
        self.context.pods.clone()
    }

    /// What the node and its pods use.
    pub fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// Storage drivers of this node.
    pub fn drivers(&self) -> Drivers {
        self.context.drivers.clone()
    }

    /// What the eviction task works with.
    pub fn eviction(&self) -> crate::eviction::Parts {
        crate::eviction::Parts {
            config: self.config(),
            runtime: self.runtime(),
            pods: self.pods(),
            stats: self.stats(),
            garbage: self.garbage.clone(),
            recorder: self.recorder(),
            evictions: self.context.evictions.clone(),
        }
    }

    /// The runtime.
    pub fn runtime(&self) -> Runtime {
        self.context.runtime.clone()
    }

    /// What the runtime says of itself, observed while the kubelet runs: for whoever reports the node.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// The event recorder.
    pub fn recorder(&self) -> Recorder {
        self.context.recorder.clone()
    }

    /// The configuration.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.context.config)
    }

    /// Runs until `shutdown`; pods go on without us.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { context, client, reports, records, work, evicted, garbage, known, health, .. } = self;
        let node = context.config.node_name.clone();
        let (statics_tx, statics) = watch::channel(None);
        let mut services: JoinSet<()> = JoinSet::new();
        services.spawn(Sink::new(client.clone(), &node).run(records));
        let static_dir = context.config.static_pod_path.clone();
        match static_dir {
            Some(dir) => {
                let recorder = context.recorder.clone();
                services.spawn(source::manifests::follow(dir, node.clone(), recorder, statics_tx));
            }
            None => {
                statics_tx.send_replace(Some(Arc::default()));
                // Without a directory the map stays as it is; the channel must stay open.
                services.spawn(async move { statics_tx.closed().await });
            }
        }
        let objects = client.clone().map(|client| csi::node_object::NodeObject::new(client, &node));
        let registry = context.config.root_dir.join(csi::REGISTRY);
        services.spawn(csi::register::follow(registry, context.drivers.clone(), objects));
        services.spawn(garbage.run());
        services.spawn(rotate::run(context.runtime.clone(), context.config.clone()));
        let known_rx = known.subscribe();
        let (runtime, stop) = (context.runtime.clone(), shutdown.clone());
        services.spawn(async move { node::runtime::observe(&runtime, &health, &stop).await });
        match &client {
            Some(client) => {
                services.spawn(source::api::follow(client.clone(), node.clone(), known));
                services.spawn(context.objects.clone().follow_services());
                services.spawn(context.runtime_classes.clone().follow(client.clone()));
                services.spawn(reports.clone().write(client.clone(), known_rx.clone()));
                let mirrors =
                    source::mirror::keep(client.clone(), node.clone(), statics.clone(), known_rx.clone());
                services.spawn(mirrors);
            }
            None => {
                context.runtime_classes.none();
                known.send_replace(Known { pods: Some(Arc::default()) });
                services.spawn(async move { known.closed().await });
            }
        }
        let crate::objects::Work { mut jobs, changed } = work;
        services.spawn(async move {
            let mut watches = JoinSet::new();
            loop {
                tokio::select! {
                    job = jobs.recv() => match job {
                        Some(job) => { watches.spawn(job); }
                        None => return,
                    },
                    Some(_) = watches.join_next() => {}
                }
            }
        });
        let mut manager = Manager {
            events: Events::new(context.runtime.clone()),
            context,
            client,
            reports,
            workers: HashMap::new(),
            tasks: JoinSet::new(),
            task_pods: HashMap::new(),
            index: HashMap::new(),
            listed: false,
            statics,
            known: known_rx,
            changed,
            evicted,
            later: FuturesUnordered::new(),
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = Box::pin(manager.work()) => {}
        }
        // Workers stop where they are: whatever they were doing is found and finished by the next kubelet.
        manager.tasks.shutdown().await;
        services.shutdown().await;
    }
}

/// Runs a kubelet until `shutdown`.
pub async fn run(
    config: Config,
    client: Option<kube::Client>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let kubelet = tokio::select! {
        kubelet = Box::pin(Kubelet::prepare(config, client)) => kubelet?,
        () = shutdown.cancelled() => return Ok(()),
    };
    Box::pin(kubelet.run(shutdown)).await;
    Ok(())
}

struct Handle {
    desired: watch::Sender<Desired>,
    wake: Arc<Notify>,
    /// The pod as its source has it: it may ask for other resources than the desired one shows.
    asked: Arc<Pod>,
}

/// Something that happens a little later.
enum Later {
    /// The pod of this container looks again.
    Look(String),
    Relist,
}

type Delayed = std::pin::Pin<Box<dyn Future<Output = Later> + Send>>;

/// One sandbox or container of the last list.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    uid: String,
    state: i32,
}

struct Manager {
    context: Context,
    client: Option<kube::Client>,
    reports: Reports,
    events: Events,
    workers: HashMap<String, Handle>,
    tasks: JoinSet<()>,
    task_pods: HashMap<Id, String>,
    index: HashMap<String, Seen>,
    listed: bool,
    statics: watch::Receiver<Option<Arc<source::Pods>>>,
    known: watch::Receiver<Known>,
    changed: mpsc::UnboundedReceiver<Changed>,
    evicted: mpsc::UnboundedReceiver<String>,
    later: FuturesUnordered<Delayed>,
}

impl Manager {
    async fn work(&mut self) {
        let mut relist_due = false;
        self.relist().await;
        self.reconcile().await;
        let audit = tokio::time::sleep(AUDIT);
        let mut audit = std::pin::pin!(audit);
        loop {
            tokio::select! {
                event = self.events.next() => match event {
                    Event::Resync => {
                        self.relist().await;
                        self.reconcile().await;
                    }
                    Event::Container { id, kind } => {
                        if matches!(kind, Kind::Stopped | Kind::Deleted) {
                            for pause in LOOK_AGAIN {
                                self.delay(pause, Later::Look(id.clone()));
                            }
                        }
                        match self.index.get(&id) {
                            Some(seen) => self.wake(&seen.uid),
                            None if !relist_due => {
                                relist_due = true;
                                self.delay(RELIST_PAUSE, Later::Relist);
                            }
                            None => {}
                        }
                    }
                },
                Some(later) = self.later.next(), if !self.later.is_empty() => match later {
                    Later::Look(id) => {
                        if let Some(seen) = self.index.get(&id) {
                            self.wake(&seen.uid);
                        }
                    }
                    Later::Relist => {
                        relist_due = false;
                        self.relist().await;
                        self.reconcile().await;
                    }
                },
                changed = self.statics.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.reconcile().await;
                }
                changed = self.known.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.reconcile().await;
                }
                Some(uid) = self.evicted.recv() => self.wake(&uid),
                Some(changed) = self.changed.recv() => {
                    for uid in self.context.objects.users(&changed) {
                        self.wake(&uid);
                    }
                }
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    let id = match ended {
                        Ok((id, ())) => id,
                        Err(error) => {
                            tracing::error!(%error, "a pod worker died; it is started anew");
                            error.id()
                        }
                    };
                    if let Some(uid) = self.task_pods.remove(&id) {
                        self.workers.remove(&uid);
                        self.index.retain(|_, seen| seen.uid != uid);
                    }
                    self.reconcile().await;
                }
                () = &mut audit => {
                    self.relist().await;
                    self.reconcile().await;
                    audit.as_mut().reset(tokio::time::Instant::now() + AUDIT);
                }
            }
        }
    }

    fn delay(&self, pause: Duration, later: Later) {
        self.later.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            later
        }));
    }

    fn wake(&self, uid: &str) {
        if let Some(handle) = self.workers.get(uid) {
            handle.wake.notify_one();
        }
    }

    /// Lists everything, wakes the pods that changed, and notes what is there.
    async fn relist(&mut self) {
        let runtime = &self.context.runtime;
        let (sandboxes, containers) =
            tokio::join!(runtime.list_pod_sandboxes(HashMap::new()), runtime.list_containers(HashMap::new()));
        let (sandboxes, containers) = match (sandboxes, containers) {
            (Ok(sandboxes), Ok(containers)) => (sandboxes, containers),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "listing what runs");
                return;
            }
        };
        let mut index = HashMap::new();
        let entries = sandboxes
            .into_iter()
            .map(|s| (s.id, s.labels, s.state))
            .chain(containers.into_iter().map(|c| (c.id, c.labels, c.state + 16)));
        for (id, mut own, state) in entries {
            // What carries no pod's UID is not ours.
            if let Some(uid) = own.remove(labels::POD_UID) {
                index.insert(id, Seen { uid, state });
            }
        }
        for (id, seen) in &index {
            if self.index.get(id) != Some(seen) {
                self.wake(&seen.uid);
            }
        }
        for (id, seen) in &self.index {
            if !index.contains_key(id) {
                self.wake(&seen.uid);
            }
        }
        self.index = index;
        self.listed = true;
    }

    /// Gives every worker its newest pod, and every pod a worker.
    async fn reconcile(&mut self) {
        let statics = self.statics.borrow_and_update().clone();
        let known = self.known.borrow_and_update().clone();
        let complete = statics.is_some() && known.pods.is_some() && self.listed;
        let mut wanted: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
        wanted.extend(statics.iter().flat_map(|pods| pods.iter()).map(|(u, p)| (u.clone(), Arc::clone(p))));
        let of_api = known.pods.iter().flat_map(|pods| pods.iter());
        let of_api = of_api.filter(|(_, pod)| !crate::pod::is_mirror(pod));
        wanted.extend(of_api.map(|(u, p)| (u.clone(), Arc::clone(p))));
        for (uid, pod) in &wanted {
            match self.workers.get_mut(uid) {
                // One that is ending ends first; its pod gets a new worker afterwards.
                Some(handle) if handle.desired.borrow().removed => {}
                Some(handle) => handle.take(pod),
                // Until the runtime was listed, a pod that runs cannot be told from a new one.
                None if self.listed => self.admit(uid, pod).await,
                None => {}
            }
        }
        self.grant().await;
        if !complete {
            return;
        }
        for (uid, handle) in &self.workers {
            if !wanted.contains_key(uid) {
                handle.desired.send_if_modified(|desired| !std::mem::replace(&mut desired.removed, true));
            }
        }
        self.end_orphans(&wanted).await;
    }

    async fn admit(&mut self, uid: &str, pod: &Arc<Pod>) {
        let same_name = |handle: &Handle| {
            let other = &handle.desired.borrow().pod;
            crate::pod::name(other) == crate::pod::name(pod)
                && crate::pod::namespace(other) == crate::pod::namespace(pod)
        };
        // A changed static pod waits for its predecessor, which has its name.
        if crate::pod::is_static(pod) && self.workers.values().any(same_name) {
            return;
        }
        let old = self.index.values().any(|seen| seen.uid == uid)
            || pod.metadata.deletion_timestamp.is_some()
            || pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
        // What an old pod was granted, if it asks for something else by now.
        let record = old.then(|| allocation::Record::read(&self.context.config.pod_dir(uid))).flatten();
        let admitted = record.map_or_else(|| Arc::clone(pod), |record| record.granted.put(pod));
        let rejected = if old { None } else { self.refusal(pod).await };
        if let Some(outcome) = &rejected {
            let reason = outcome.message.trim_start_matches("Pod was rejected: ").to_owned();
            let kind = crate::recorder::Kind::Warning;
            self.context.recorder.record(Subject::pod(pod, None), kind, reason_word(&outcome.reason), reason);
        }
        let desired = Desired { pod: admitted, removed: false, rejected, pending: None };
        self.start(uid, desired, Arc::clone(pod));
    }

    async fn refusal(&mut self, pod: &Pod) -> Option<crate::pod::status::Outcome> {
        if let Some(refused) = self.context.evictions.refusal(pod) {
            return Some(refused);
        }
        let allowed = &self.context.config.allowed_unsafe_sysctls;
        if let Some(outcome) = admit::never(pod, &self.node(None), allowed) {
            return Some(outcome);
        }
        let labels = self.labels_for(pod).await;
        admit::refusal(pod, &self.active(crate::pod::uid(pod)), &self.node(labels.as_ref()))
    }

    fn start(&mut self, uid: &str, desired: Desired, asked: Arc<Pod>) {
        let wake = Arc::new(Notify::new());
        let (tell, desired) = watch::channel(desired);
        let worker = Worker::new(self.context.clone(), self.reports.clone(), desired, Arc::clone(&wake));
        let task = self.tasks.spawn(Box::pin(worker.run()));
        self.task_pods.insert(task.id(), uid.to_owned());
        self.workers.insert(uid.to_owned(), Handle { desired: tell, wake, asked });
    }
}

/// The reasons of refusals, which events name.
fn reason_word(reason: &str) -> &'static str {
    match reason {
        "OutOfcpu" => "OutOfcpu",
        "OutOfmemory" => "OutOfmemory",
        "OutOfpods" => "OutOfpods",
        "NodePorts" => "NodePorts",
        "NodeAffinity" => "NodeAffinity",
        "Evicted" => "Evicted",
        "SysctlForbidden" => "SysctlForbidden",
        "PodOSSelectorNodeLabelDoesNotMatch" => "PodOSSelectorNodeLabelDoesNotMatch",
        "PodOSNotSupported" => "PodOSNotSupported",
        "SupplementalGroupsPolicyNotSupported" => "SupplementalGroupsPolicyNotSupported",
        "OutOfephemeral-storage" => "OutOfephemeral-storage",
        _ => "UnexpectedAdmissionError",
    }
}
