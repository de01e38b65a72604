//! The kubelet's tasks, each kept by its scope. The Node object's are not among them: whoever assembles the node has
//! [`crate::node::keep`] beside this, with [`Kubelet::health`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cri_proto::client::{Deadlines, Runtime};
use cri_proto::v1;
use supervise::{Scope, Task};
use tokio::sync::{Mutex, mpsc, watch};

use crate::cgroup::Cgroups;
use crate::config::check::GATES;
use crate::config::manifest::ManifestUrl;
use crate::config::{CgroupDriver, Config};
use crate::csi::{self, Drivers};
use crate::directory;
use crate::eviction::order::Evictions;
use crate::image::Images;
use crate::image::garbage::Garbage;
use crate::logs::{links, rotate};
use crate::machine::Machine;
use crate::node;
use crate::node::runtime::Health;
use crate::objects::{Changed, Objects};
use crate::pods::Pods;
use crate::recorder::{Kind, Recorder, Subject};
use crate::report::Reports;
use crate::runtime_class::RuntimeClasses;
use crate::source::{self, ApiPods};
use crate::stats::Stats;
use crate::user_namespace::UserNamespaces;
use crate::volume::claim::Claims;
use crate::volume::token::Tokens;
use crate::worker::context::Context;
use crate::{probe, volume};

mod manager;
mod pulse;

use manager::Manager;
pub use pulse::Pulse;

/// How long the runtime may take to be ready at start.
const RUNTIME_START: Duration = Duration::from_secs(300);
/// How long workers may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How often the runtime is asked at start how it is configured, and the pause before it is asked again, as upstream's.
const ASKS: (u32, Duration) = (3, Duration::from_secs(2));

/// Why the kubelet cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime is not there.
    #[error("container runtime {endpoint}")]
    Runtime { endpoint: String, source: cri_proto::client::Error },
    /// The machine is not one to run on.
    #[error(transparent)]
    Host(#[from] crate::host::Error),
    /// The classes' cgroups cannot be made.
    #[error("prepare cgroups")]
    Cgroups(#[source] crate::cgroup::Error),
    /// Where those are cannot be written down.
    #[error("write {}", .path.display())]
    Record { path: PathBuf, source: std::io::Error },
    /// A directory cannot be made.
    #[error("create directory {}", .path.display())]
    Directory { path: PathBuf, source: std::io::Error },
}

/// A kubelet that is set up and not yet running: others take the handles they need from it.
pub struct Kubelet {
    context: Arc<Context>,
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
        mut config: Config,
        client: Option<kube::Client>,
        scope: Arc<Scope>,
    ) -> Result<Self, Error> {
        if !config.unsupported.is_empty() {
            tracing::warn!(fields = ?config.unsupported, "configuration fields that are not acted on");
        }
        let gates = config.feature_gates.iter().map(|(name, on)| (name.as_str(), *on));
        for warning in machinery::gates::check(gates, &GATES).unwrap_or_default() {
            tracing::warn!("{warning}");
        }
        // Upstream's modes.
        let directories = [
            (config.root_dir.join("pods"), 0o750),
            (config.pod_logs_dir.clone(), 0o750),
            (config.container_logs_dir.clone(), 0o755),
        ];
        for (path, mode) in directories {
            directory::make(&path, mode).map_err(|source| Error::Directory { path, source })?;
        }
        let endpoint = config.container_runtime_endpoint.clone();
        let failed = |source| Error::Runtime { endpoint: endpoint.clone(), source };
        let deadlines = Deadlines { request: config.runtime_request_timeout, ..Deadlines::default() };
        let mut runtime = Runtime::connect(&endpoint, deadlines).map_err(failed)?;
        if let Some(images) = &config.image_service_endpoint {
            let failed = |source| Error::Runtime { endpoint: images.clone(), source };
            runtime = runtime.with_images_at(images).map_err(failed)?;
        }
        let version = runtime.wait_until_ready(RUNTIME_START).await.map_err(failed)?;
        tracing::info!(runtime = version.runtime_name, version = version.runtime_version, "runtime is ready");
        config.cgroup_driver = driver(&runtime, config.cgroup_driver).await.map_err(failed)?;
        let machine = Machine::read(&config);
        crate::host::prepare(&config.host, machine.unified)?;
        let cgroups = Cgroups::new(&config);
        let path = config.root_dir.join(crate::cgroup::record::FILE);
        cgroups.record(&config.root_dir).map_err(|source| Error::Record { path, source })?;
        cgroups.prepare(&machine.limit).await.map_err(Error::Cgroups)?;
        for reserved in config.enforcement.reserved() {
            let amounts =
                if reserved.title == "Kube" { &config.kube_reserved } else { &config.system_reserved };
            cgroups.limit_reserved(&reserved, amounts).await.map_err(Error::Cgroups)?;
        }
        if let Some(range) = config.pod_cidr.as_ref().filter(|_| client.is_none())
            && let Err(error) = runtime.update_runtime_config(range).await
        {
            tracing::warn!(%error, range, "tell the runtime the range of pods");
        }
        let kubelet =
            Self::assemble(config, (runtime, version.runtime_name.into()), (machine, cgroups), client, scope);
        kubelet.context.check_resolver();
        Ok(kubelet)
    }

    /// Puts the parts together: on a runtime that answers, and a machine that is prepared.
    pub fn assemble(
        config: Config,
        (runtime, runtime_name): (Runtime, Arc<str>),
        (machine, cgroups): (Machine, Cgroups),
        client: Option<kube::Client>,
        scope: Arc<Scope>,
    ) -> Self {
        let (qps, burst) = (config.event_record_qps, config.event_burst);
        let (recorder, writer) = Recorder::limited(client.clone(), &config.node_name, qps, burst);
        let (objects, changed) = Objects::new(client.clone(), &scope);
        let health = watch::Sender::new(Health::default());
        let (evictions, evicted) = Evictions::new();
        let config = Arc::new(config);
        let (pods, claims) = (Pods::default(), Claims::default());
        let stats =
            Stats::new(config.clone(), runtime.clone(), cgroups.clone(), pods.clone(), claims.clone());
        let meters = stats.meters();
        let counting = meters.clone();
        let runtime =
            runtime.observed(Arc::new(move |operation, span, failed| counting.call(operation, span, failed)));
        let images = Images::new(runtime.clone(), &config);
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
        let user_namespaces = UserNamespaces::new(config.root_dir.join("pods"), config.ids_per_pod);
        let context = Arc::new(Context {
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
            user_namespaces,
            meters,
        });
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

    /// What its pod workers work with.
    pub fn context(&self) -> Arc<Context> {
        Arc::clone(&self.context)
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
            meters: self.context.meters.clone(),
            observe: Arc::new(crate::eviction::signal::observe),
        }
    }

    /// What the task of the machine's shutdown works with.
    pub fn shutdown(&self) -> crate::shutdown::Parts {
        crate::shutdown::Parts {
            config: self.config(),
            pods: self.pods(),
            evictions: self.context.evictions.clone(),
            recorder: self.recorder(),
            meters: self.context.meters.clone(),
            machine: crate::shutdown::Machine::default(),
        }
    }

    /// Client of the container runtime; cheap to clone.
    pub fn runtime(&self) -> Runtime {
        self.context.runtime.clone()
    }

    /// What the runtime says of itself, observed while the kubelet runs: for whoever reports the node.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Recorder of this kubelet's events; cheap to clone.
    pub fn recorder(&self) -> Recorder {
        self.context.recorder.clone()
    }

    /// What the task that limits all pods together works with.
    pub fn enforcement(&self) -> crate::enforcement::Parts {
        crate::enforcement::Parts {
            config: self.config(),
            cgroups: self.context.cgroups.clone(),
            recorder: self.recorder(),
        }
    }

    /// Settings this kubelet runs with.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.context.config)
    }

    /// Shows whether the manager's loop makes progress.
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
        context.recorder.record(Subject::node(&node), Kind::Normal, "Starting", "Starting kubelet.");
        for reserved in context.config.enforcement.reserved() {
            let (title, cgroup) = (reserved.title.to_lowercase(), reserved.cgroup);
            let text = format!("Updated limits on {title} reserved cgroup {cgroup}");
            context.recorder.record(Subject::node(&node), Kind::Normal, "NodeAllocatableEnforced", text);
        }
        follow_manifests(&scope, &context, &statics_tx);
        let (of, recorder) = (node.clone(), context.recorder.clone());
        scope.keep(Task::endless("system-oom", move || crate::oom::watch(of.clone(), recorder.clone())));
        let objects = client.clone().map(|client| csi::node_object::NodeObject::new(client, &node));
        let (plugins, drivers) =
            (context.config.root_dir.join(csi::REGISTRY), context.volumes.drivers.clone());
        scope.keep(Task::endless("plugins", move || {
            csi::register::follow(plugins.clone(), drivers.clone(), objects.clone())
        }));
        scope.keep(Task::endless("image-garbage", move || garbage.clone().run()));
        let (runtime, config) = (context.runtime.clone(), context.config.clone());
        scope.keep(Task::endless("log-rotation", move || rotate::run(runtime.clone(), config.clone())));
        let (runtime, config) = (context.runtime.clone(), context.config.clone());
        scope.keep(Task::endless("log-links", move || links::run(runtime.clone(), config.clone())));
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
        let workers = scope.work("pods");
        let sources = manager::Sources { statics, known: known_rx, changed, evicted };
        let manager = Manager::new(context, client, reports, sources, workers.clone(), &scope, pulse);
        // It outlives restarts of its loop: what it knows of workers stays.
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

/// Asks again what fails: a runtime may be starting still.
async fn patiently<T, E: std::fmt::Display, F: Future<Output = Result<T, E>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> Result<T, E> {
    for _ in 1..ASKS.0 {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => tracing::warn!(%error, what, "the runtime is asked again"),
        }
        tokio::time::sleep(ASKS.1).await;
    }
    ask().await
}

/// Who makes pods' cgroups: what the runtime says, since it makes those inside them, or else what is configured. Upstream:
/// `getCgroupDriverFromCRI`.
async fn driver(
    runtime: &Runtime,
    configured: CgroupDriver,
) -> Result<CgroupDriver, cri_proto::client::Error> {
    let told = patiently("RuntimeConfig", || runtime.runtime_config()).await?;
    let driver = chosen(told.as_ref(), configured);
    tracing::info!(?driver, ?configured, told = told.is_some(), "who makes cgroups");
    Ok(driver)
}

/// Old runtimes do not say, and what is unknown is not followed.
fn chosen(told: Option<&v1::RuntimeConfigResponse>, configured: CgroupDriver) -> CgroupDriver {
    let linux = told.and_then(|config| config.linux.as_ref());
    match linux.map(|linux| v1::CgroupDriver::try_from(linux.cgroup_driver)) {
        Some(Ok(v1::CgroupDriver::Systemd)) => CgroupDriver::Systemd,
        Some(Ok(v1::CgroupDriver::Cgroupfs)) => CgroupDriver::Cgroupfs,
        Some(Err(_)) | None => configured,
    }
}

/// Follows the directory and the URL of manifests there are.
fn follow_manifests(scope: &Scope, context: &Context, tell: &watch::Sender<Option<Arc<source::Pods>>>) {
    let (config, recorder) = (&context.config, context.recorder.clone());
    let (node, period) = (config.node_name.clone(), config.file_check_frequency);
    let directory = |dir: PathBuf, tell: watch::Sender<_>| {
        let (node, recorder) = (node.clone(), recorder.clone());
        scope.keep(Task::endless("static-pods", move || {
            source::manifests::follow(dir.clone(), period, node.clone(), recorder.clone(), tell.clone())
        }));
    };
    let url = |from: ManifestUrl, tell: watch::Sender<_>| {
        let node = node.clone();
        scope.keep(Task::endless("static-pods-url", move || {
            source::url::follow(from.clone(), node.clone(), tell.clone())
        }));
    };
    match (config.static_pod_path.clone(), config.static_pod_url.clone()) {
        (None, None) => drop(tell.send_replace(Some(Arc::default()))),
        (Some(dir), None) => directory(dir, tell.clone()),
        (None, Some(from)) => url(from, tell.clone()),
        (Some(dir), Some(from)) => {
            let (one, first) = watch::channel(None);
            let (other, second) = watch::channel(None);
            directory(dir, one);
            url(from, other);
            let tell = tell.clone();
            scope.keep(Task::endless("static-pods-joined", move || {
                source::url::join(first.clone(), second.clone(), tell.clone())
            }));
        }
    }
}

#[cfg(test)]
mod tests;
