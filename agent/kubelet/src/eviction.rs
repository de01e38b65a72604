//! Eviction: what the machine has left of memory, disk and process ids, and who must go when it is too little.
//!
//! Woken every [`PERIOD`], and at once after an eviction is carried out. Reads the kernel's counters, the filesystems of the kubelet's root
//! and of the runtime's images, and, when something runs out or a pod's disk use is limited, what pods use. Writes the
//! pressure conditions into what is [`Reported`] of the node (the scheduler keeps new pods away by the taints that
//! follow), and evictions into [`order::Evictions`], which pods' workers carry out. Promises: a condition rises with the
//! first observation below a threshold, and falls only when none was seen for `evictionPressureTransitionPeriod`; a
//! signal that cannot be read says nothing; images nobody uses go before pods do; one pod goes at a time, and the next only when
//! it is gone or [`CLEANUP`] is over; a pod that has time by a soft threshold has none once a hard one is met.
//!
//! - [`signal`]: what is observed; [`crate::pressure`]: the thresholds, and when to act (pure)
//! - [`candidate`]: which pod goes, and what it is told (pure); [`order`]: evictions on their way to the workers

pub(crate) mod candidate;
pub(crate) mod order;
pub(crate) mod signal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::recorder::Annotations;
use cri_proto::client::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::image::garbage::Garbage;
use crate::meters::{EVICTIONS, Meters};
use crate::node::Reported;
use crate::pods::Pods;
use crate::pressure::policy::{Memory, Met};
use crate::pressure::threshold::{Left, Observations, Resource, Signal};
use crate::recorder::{Kind, Recorder, Subject};
use crate::stats::Stats;
use crate::stats::collect::Depth;
use candidate::Candidate;
use order::{Cause, Eviction, Evictions};

/// The machine is looked at this often, as upstream's eviction manager does.
const PERIOD: Duration = Duration::from_secs(10);
/// The runtime is asked where its images live this often.
const IMAGES_PERIOD: Duration = Duration::from_secs(60);
/// How long an evicted pod is waited for.
const CLEANUP: Duration = Duration::from_secs(30);
/// How often it is looked for meanwhile.
const CLEANUP_LOOK: Duration = Duration::from_secs(1);
/// Seconds that pods have which must go at once.
const AT_ONCE: i64 = 1;

/// Looks at what is left of the machine: memory, process ids, the filesystem of the first path, those of the others. Blocking.
pub type Observe = Arc<dyn Fn(&Path, &[PathBuf]) -> Observations + Send + Sync>;

/// What the eviction task works with.
#[derive(Clone)]
pub struct Parts {
    /// Of the kubelet: thresholds, directories.
    pub config: Arc<Config>,
    /// Asked where images lie.
    pub runtime: Runtime,
    /// The registry of pods.
    pub pods: Pods,
    /// Decides which pods use most.
    pub stats: Stats,
    /// Deletes unused images before pods are evicted.
    pub garbage: Garbage,
    /// Where evictions and pressure are reported.
    pub recorder: Recorder,
    /// Evictions on their way.
    pub evictions: Evictions,
    /// What is counted.
    pub(crate) meters: Meters,
    /// What is left; [`signal::observe`] asks the kernel.
    pub observe: Observe,
}

/// Keeps the pressure conditions in `reported` true, and evicts, until `stop`.
pub async fn watch(parts: Parts, reported: &watch::Sender<Reported>, stop: &CancellationToken) {
    let mut manager =
        Manager { parts, memory: Memory::default(), images: Images { dirs: Vec::new(), asked: None } };
    loop {
        let evicted = match stop.run_until_cancelled(Box::pin(manager.look(reported))).await {
            None => return,
            Some(evicted) => evicted,
        };
        let pause = async {
            match evicted.is_empty() {
                true => tokio::time::sleep(PERIOD).await,
                false => manager.gone(&evicted).await,
            }
        };
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

struct Manager {
    parts: Parts,
    memory: Memory,
    images: Images,
}

impl Manager {
    /// Observes, reports and acts once; gives the UIDs of the pods that go.
    async fn look(&mut self, reported: &watch::Sender<Reported>) -> Vec<String> {
        let policy = self.parts.config.eviction.clone();
        let observed = self.observe().await;
        let verdict = self.memory.judge(&policy, &observed, Instant::now());
        self.parts.evictions.set_pressures(verdict.pressures);
        reported.send_if_modified(|reported| {
            let [memory, disk, pid] = verdict.pressures;
            let before = (reported.memory_pressure, reported.disk_pressure, reported.pid_pressure);
            if before == (memory, disk, pid) {
                return false;
            }
            tracing::warn!(memory, disk, pid, ?observed, "pressure on the node changed");
            (reported.memory_pressure, reported.disk_pressure, reported.pid_pressure) = (memory, disk, pid);
            true
        });
        let over = self.end_those_over_their_limits().await;
        if !over.is_empty() {
            return over;
        }
        let Some(met) = verdict.act.first().copied() else { return Vec::new() };
        self.act(met, &verdict.act).await
    }

    async fn observe(&mut self) -> Observations {
        let parts = &self.parts;
        let signals = parts.config.eviction.signals();
        self.images.refresh(&parts.runtime, &signals).await;
        let (root, dirs) = (parts.config.root_dir.clone(), self.images.dirs.clone());
        let (stats, observe) = (parts.stats.clone(), Arc::clone(&parts.observe));
        // A filesystem may be a slow one.
        let observed = tokio::task::spawn_blocking(move || {
            let mut observed = observe(&root, &dirs);
            if signals.contains(&Signal::AllocatableMemoryAvailable)
                && let Some(left) = stats.pods_memory()
            {
                observed.insert(Signal::AllocatableMemoryAvailable, left);
            }
            observed
        });
        observed.await.unwrap_or_default()
    }

    /// Images on a filesystem of their own.
    fn images_apart(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let device = |path: &Path| std::fs::metadata(path).map(|m| m.dev()).ok();
        let root = device(&self.parts.config.root_dir);
        self.images.dirs.first().is_some_and(|dir| root.is_some() && device(dir) != root)
    }

    /// Pods that may go: those that run, and are not evicted at once already.
    async fn candidates(
        &self,
        only: fn(&k8s_openapi::api::core::v1::Pod) -> bool,
        depth: Depth,
    ) -> Vec<Candidate> {
        let measured = self.parts.stats.measure(depth, only).await;
        let active = |stats: &crate::stats::collect::PodStats| {
            let phase = stats.view.status.phase.as_deref();
            let uid = crate::pod::uid(&stats.view.pod);
            !matches!(phase, Some("Succeeded" | "Failed")) && self.parts.evictions.may_hasten(uid, AT_ONCE)
        };
        let pods = measured.pods.into_iter().filter(active);
        pods.map(|stats| Candidate { pod: stats.view.pod.clone(), stats }).collect()
    }

    /// Ends pods whose disk use exceeds what they themselves say is their limit.
    async fn end_those_over_their_limits(&self) -> Vec<String> {
        let limited = |view: &crate::pods::View| candidate::has_disk_limits(&view.pod);
        if !self.parts.config.local_storage || !self.parts.pods.all().iter().any(limited) {
            return Vec::new();
        }
        let apart = self.images_apart();
        let mut gone = Vec::new();
        for candidate in self.candidates(candidate::has_disk_limits, Depth::Everything(PERIOD)).await {
            if let Some(message) = candidate::over_its_limits(&candidate, apart)
                && self.evict(
                    &candidate,
                    Eviction { message, grace: AT_ONCE, cause: Cause::Itself },
                    Annotations::new(),
                )
            {
                gone.push(crate::pod::uid(&candidate.pod).to_owned());
            }
        }
        gone
    }

    async fn act(&mut self, met: Met, all: &[Met]) -> Vec<String> {
        let resource = met.signal.resource();
        let node = Subject::node(&self.parts.config.node_name);
        let text = format!("Attempting to reclaim {}", resource.name());
        self.parts.recorder.record(node, Kind::Warning, "EvictionThresholdMet", text);
        if matches!(resource, Resource::Storage | Resource::Inodes) && self.reclaim().await {
            return Vec::new();
        }
        let depth = match resource {
            Resource::Storage | Resource::Inodes => Depth::Everything(PERIOD),
            Resource::Memory | Resource::Processes => Depth::Cgroups,
        };
        let mut candidates = self.candidates(|_| true, depth).await;
        candidate::rank(&mut candidates, met.signal, self.images_apart());
        // The message names the first threshold of the resource, as upstream's.
        let shown = all.iter().find(|m| m.signal.resource() == resource).map(|m| (m.threshold, m.available));
        for candidate in &candidates {
            let grace = match met.soft {
                true => self.parts.config.eviction.longest_grace.min(own_grace(candidate)),
                false => AT_ONCE,
            };
            let message = candidate::message(candidate, resource, shown);
            let annotations = candidate::annotations(candidate, resource);
            if self.evict(candidate, Eviction { message, grace, cause: Cause::Node }, annotations) {
                let labels = format!("{{eviction_signal={:?}}}", met.signal.name());
                self.parts.meters.add(&EVICTIONS, labels, 1.0);
                return vec![crate::pod::uid(&candidate.pod).to_owned()];
            }
        }
        tracing::warn!(resource = resource.name(), "no pod can be evicted");
        Vec::new()
    }

    /// Removes images nobody uses; true when that is enough.
    async fn reclaim(&mut self) -> bool {
        match self.parts.garbage.remove_unused().await {
            Ok(freed) => tracing::info!(freed, "removed unused images: the disk is under pressure"),
            Err(error) => tracing::warn!(%error, "remove unused images"),
        }
        let observed = self.observe().await;
        !self.parts.config.eviction.is_starved(&observed)
    }

    fn evict(&self, candidate: &Candidate, eviction: Eviction, annotations: Annotations) -> bool {
        let pod = &candidate.pod;
        if crate::pod::is_critical(pod) {
            tracing::warn!(pod = crate::pod::described(pod), "a critical pod is not evicted");
            return false;
        }
        let message = eviction.message.clone();
        if !self.parts.evictions.order(crate::pod::uid(pod), eviction) {
            return false;
        }
        let subject = Subject::pod(pod, None);
        self.parts.recorder.annotated(subject, Kind::Warning, (order::REASON, message), annotations);
        true
    }

    /// Waits until evicted pods have nothing left that runs, or those that have time must hasten.
    async fn gone(&mut self, evicted: &[String]) {
        let until = Instant::now() + CLEANUP;
        let mut next = Instant::now() + PERIOD;
        while Instant::now() < until && !evicted.iter().all(|uid| self.is_quiet(uid)) {
            tokio::time::sleep(CLEANUP_LOOK).await;
            let has_time = |uid: &String| self.parts.evictions.may_hasten(uid, AT_ONCE);
            if Instant::now() >= next && evicted.iter().any(has_time) {
                next = Instant::now() + PERIOD;
                if self.parts.config.clone().eviction.is_hard_met(&self.observe().await) {
                    return;
                }
            }
        }
    }

    fn is_quiet(&self, uid: &str) -> bool {
        self.parts.pods.is_quiet(uid)
    }
}

fn own_grace(candidate: &Candidate) -> i64 {
    let spec = candidate.pod.spec.as_ref();
    spec.and_then(|s| s.termination_grace_period_seconds).unwrap_or(i64::MAX)
}

/// Where the runtime keeps images.
struct Images {
    dirs: Vec<PathBuf>,
    asked: Option<Instant>,
}

impl Images {
    async fn refresh(&mut self, runtime: &Runtime, signals: &std::collections::BTreeSet<Signal>) {
        let wanted = [Signal::ImagefsAvailable, Signal::ImagefsInodesFree];
        let fresh = self.asked.is_some_and(|at| at.elapsed() < IMAGES_PERIOD);
        if fresh || !wanted.iter().any(|s| signals.contains(s)) {
            return;
        }
        match runtime.image_fs_info().await {
            Ok(info) => {
                let named = info.image_filesystems.into_iter().filter_map(|f| f.fs_id);
                self.dirs = named.map(|id| id.mountpoint.into()).collect();
                self.asked = Some(Instant::now());
            }
            Err(error) => tracing::debug!(%error, "ask where images live"),
        }
    }
}

impl Stats {
    /// What is left to all pods together of what they may take. Blocking.
    fn pods_memory(&self) -> Option<Left> {
        let usage = self.pods_usage()?;
        let capacity = usage.memory_limit?;
        Some(Left { available: capacity.saturating_sub(usage.working_set), capacity })
    }
}
