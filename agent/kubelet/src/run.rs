//! The kubelet's tasks, each kept by its scope. The Node object's are not among them: whoever assembles the node has
//! [`crate::node::keep`] beside this, with [`Kubelet::health`].
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
use supervise::{Scope, Task};
use tokio::sync::{Mutex, Notify, mpsc, watch};

use crate::cgroup::Cgroups;
use crate::config::Config;
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
use crate::pods::Pods;
use crate::recorder::{Recorder, Subject};
use crate::report::Reports;
use crate::runtime_class::RuntimeClasses;
use crate::source::{self, ApiPods};
use crate::stats::Stats;
use crate::volume::claim::Claims;
use crate::volume::token::Tokens;
use crate::worker::context::Context;
use crate::worker::{Desired, Worker};
use crate::{admit, probe, volume};

mod grant;
mod keeping;
mod orphans;
mod pulse;
mod reasons;

use keeping::Keeping;
pub use pulse::Pulse;

/// How long the runtime may take to be ready at start.
const RUNTIME_START: Duration = Duration::from_secs(300);
/// How long workers may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
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
    writer: client::recorder::Writer,
    changed: mpsc::UnboundedReceiver<Changed>,
    scope: Arc<Scope>,
    evicted: mpsc::UnboundedReceiver<String>,
    stats: Stats,
    garbage: Garbage,
    known: watch::Sender<ApiPods>,
    health: watch::Sender<Health>,
    pulse: Pulse,
}

impl Kubelet {
    /// Waits for the runtime and prepares this machine; all tasks will be the scope's.
    pub async fn prepare(
        config: Config,
        client: Option<kube::Client>,
        scope: Arc<Scope>,
    ) -> Result<Self, Error> {
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
        Ok(Self::assemble(config, (runtime, version.runtime_name.into()), (machine, cgroups), client, scope))
    }

    /// Puts the parts together.
    pub(crate) fn assemble(
        config: Config,
        (runtime, runtime_name): (Runtime, Arc<str>),
        (machine, cgroups): (Machine, Cgroups),
        client: Option<kube::Client>,
        scope: Arc<Scope>,
    ) -> Self {
        let (recorder, writer) = Recorder::new(client.clone(), &config.node_name);
        let (objects, changed) = Objects::new(client.clone(), &scope);
        let health = watch::Sender::new(Health::default());
        let (evictions, evicted) = Evictions::new();
        let images = Images::new(runtime.clone(), &config);
        let config = Arc::new(config);
        let (pods, claims) = (Pods::default(), Claims::default());
        let stats =
            Stats::new(config.clone(), runtime.clone(), cgroups.clone(), pods.clone(), claims.clone());
        let garbage = Garbage::new(runtime.clone(), config.clone(), recorder.clone());
        let volumes = volume::Handles {
            config: config.clone(),
            objects: objects.clone(),
            claims,
            drivers: Drivers::default(),
            tokens: Tokens::new(client.clone()),
            recorder: recorder.clone(),
        };
        let probes = probe::Handles {
            runtime: runtime.clone(),
            recorder: recorder.clone(),
            work: scope.vital("probes"),
        };
        let context = Context {
            images,
            config,
            runtime,
            runtime_name,
            recorder,
            objects,
            volumes,
            probes,
            evictions,
            runtime_classes: RuntimeClasses::default(),
            cgroups,
            pods,
            health: health.subscribe(),
            machine,
        };
        Self {
            context,
            client,
            reports: Reports::default(),
            writer,
            changed,
            scope,
            evicted,
            stats,
            garbage,
            known: watch::Sender::new(ApiPods::default()),
            health,
            pulse: Pulse::default(),
        }
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
        self.context.volumes.drivers.clone()
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
            observe: Arc::new(crate::eviction::signal::observe),
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

    /// What tells whether the manager's loop goes round.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Runs until the scope ends; pods go on without us.
    pub async fn run(self) {
        let Self { context, client, reports, writer, changed, scope, evicted, .. } = self;
        let Self { garbage, known, health, pulse, .. } = self;
        let node = context.config.node_name.clone();
        // Both senders are held until the end: a source that does not run must not look like one that ended.
        let (statics_tx, statics) = watch::channel(None);
        scope.keep(writer.task("events"));
        match context.config.static_pod_path.clone() {
            Some(dir) => {
                let (node, recorder, tell) = (node.clone(), context.recorder.clone(), statics_tx.clone());
                scope.keep(Task::endless("static-pods", move || {
                    source::manifests::follow(dir.clone(), node.clone(), recorder.clone(), tell.clone())
                }));
            }
            None => drop(statics_tx.send_replace(Some(Arc::default()))),
        }
        let objects = client.clone().map(|client| csi::node_object::NodeObject::new(client, &node));
        let (plugins, drivers) =
            (context.config.root_dir.join(csi::REGISTRY), context.volumes.drivers.clone());
        scope.keep(Task::endless("plugins", move || {
            csi::register::follow(plugins.clone(), drivers.clone(), objects.clone())
        }));
        scope.keep(Task::endless("image-garbage", move || garbage.clone().run()));
        let (runtime, config) = (context.runtime.clone(), context.config.clone());
        scope.keep(Task::endless("log-rotation", move || rotate::run(runtime.clone(), config.clone())));
        let known_rx = known.subscribe();
        let runtime = context.runtime.clone();
        scope.keep(Task::new("runtime-health", move |stop| {
            let (runtime, health) = (runtime.clone(), health.clone());
            async move {
                node::runtime::observe(&runtime, &health, &stop).await;
                Ok(())
            }
        }));
        match &client {
            Some(client) => {
                let (of, name, tell) = (client.clone(), node.clone(), known.clone());
                scope.keep(Task::endless("watch/pods", move || {
                    source::api::follow(of.clone(), name.clone(), tell.clone())
                }));
                let (of, classes) = (client.clone(), context.runtime_classes.clone());
                scope.keep(Task::endless("watch/runtimeclasses", move || classes.clone().follow(of.clone())));
                let (of, reports, pods) = (client.clone(), reports.clone(), known_rx.clone());
                scope.keep(Task::endless("status", move || reports.clone().write(of.clone(), pods.clone())));
                let (of, statics, pods) = (client.clone(), statics.clone(), known_rx.clone());
                scope.keep(Task::endless("mirror-pods", move || {
                    source::mirror::keep(of.clone(), node.clone(), statics.clone(), pods.clone())
                }));
            }
            None => {
                context.runtime_classes.none();
                known.send_replace(ApiPods { pods: Some(Arc::default()), ..ApiPods::default() });
            }
        }
        let (workers, work) = (scope.work("pods"), scope.vital("pod-workers"));
        let (ends, ended) = mpsc::unbounded_channel();
        let manager = Manager {
            events: Events::new(context.runtime.clone()),
            context,
            client,
            reports,
            workers: HashMap::new(),
            keeping: Keeping { tasks: workers.clone(), work, stop: scope.stop().clone(), ends },
            ended,
            index: HashMap::new(),
            listed: false,
            statics,
            known: known_rx,
            changed,
            evicted,
            later: FuturesUnordered::new(),
            pulse,
        };
        // It outlives the lives of its loop: what it knows of workers stays.
        let manager = Arc::new(Mutex::new(manager));
        scope.keep(Task::endless("syncloop", move || {
            let manager = manager.clone();
            async move { Box::pin(manager.lock().await.work()).await }
        }));
        scope.ended().await;
        // Workers stop where they are: whatever they were doing is found and finished by the next kubelet.
        workers.finish(STOP_PATIENCE).await;
        drop((statics_tx, known));
    }
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
    keeping: Keeping,
    ended: mpsc::UnboundedReceiver<String>,
    index: HashMap<String, Seen>,
    listed: bool,
    statics: watch::Receiver<Option<Arc<source::Pods>>>,
    known: watch::Receiver<ApiPods>,
    changed: mpsc::UnboundedReceiver<Changed>,
    evicted: mpsc::UnboundedReceiver<String>,
    later: FuturesUnordered<Delayed>,
    pulse: Pulse,
}

impl Manager {
    async fn work(&mut self) {
        let mut relist_due = false;
        self.relist().await;
        self.reconcile().await;
        let audit = tokio::time::sleep(AUDIT);
        let mut audit = std::pin::pin!(audit);
        loop {
            self.pulse.beat();
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
                Some(uid) = self.ended.recv() => {
                    self.workers.remove(&uid);
                    self.index.retain(|_, seen| seen.uid != uid);
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
            if !wanted.contains_key(uid) && !known.unreadable.contains(uid) {
                handle.desired.send_if_modified(|desired| !std::mem::replace(&mut desired.removed, true));
            }
        }
        self.end_orphans(&wanted, &known.unreadable).await;
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
            self.context.recorder.record(
                Subject::pod(pod, None),
                kind,
                reasons::kept(&outcome.reason),
                reason,
            );
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
        let (context, reports, again) = (self.context.clone(), self.reports.clone(), Arc::clone(&wake));
        let worker =
            move || Worker::new(context.clone(), reports.clone(), desired.clone(), Arc::clone(&again)).run();
        self.keeping.start(uid, worker);
        self.workers.insert(uid.to_owned(), Handle { desired: tell, wake, asked });
    }
}

#[cfg(test)]
mod tests;
