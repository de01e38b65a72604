//! One pod's worker: the only one that ever touches that pod.
//!
//! What wakes it: a change of what is desired, a container event of the pod, a probe's new verdict, a changed ConfigMap
//! or Secret it uses, the end of a delay, and a slow period with jitter as the retry of everything.
//! What it reads: the newest desired pod, and the runtime, asked afresh. Nothing is taken from what woke it.
//! What it writes: the pod's cgroup, volumes, sandbox and containers, and the status handed to the status writer.
//! What it promises: it is idempotent, so it may die at any instruction and begin again; what runs and is right is left
//! alone; a pod that must end is ended with its grace, and its directory and cgroup are gone before the API forgets it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use supervise::{Backoff, jittered};
use tokio::sync::{Notify, watch};

use crate::eviction::order::Eviction;
use crate::meters::{WORKER_DURATION, WORKER_START};
use crate::pod::allocation::Pending;
use crate::pod::allocation::Record;
use crate::pod::backoff::Backoffs;
use crate::pod::observed::{Observed, Observer};
use crate::pod::plan::{self, Action, Plan};
use crate::pod::status::{self, Outcome, Waiting};
use crate::probe::{self, Target, Verdicts};
use crate::report::Reports;
use crate::volume;

pub mod context;
mod end;
pub(crate) mod execute;
mod hooks;
mod look;
mod report;
mod resize;
mod start;
mod stops;
mod volumes;
mod wait;

use context::Context;
use execute::Start;
use stops::{Stopping, Stops};
use wait::{hastened, must_end, network};

/// How many times a sync may plan: what is not done by then is taken for a failure, and paused for.
const ROUNDS: usize = 64;
/// How many times in a row the same may be planned: what was done without effect is paused for.
const REPEATS: usize = 3;
/// A failed sync is tried again after this long, doubling up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(30);
/// The longest pause before a volume that could not be mounted is tried again, as upstream's.
const MOUNT_LAST: Duration = Duration::from_secs(122);
/// The pause before a volume is looked for again that could not be found out about.
const MOUNT_UNKNOWN: Duration = Duration::from_secs(2);

/// What is asked of a worker.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Newest version from its source.
    pub pod: Arc<Pod>,
    /// It is gone from its source: stop it, clean up, and end.
    pub removed: bool,
    /// The node will not run it: why.
    pub rejected: Option<Outcome>,
    /// It asks for other resources than `pod` shows, which were not granted.
    pub pending: Option<Pending>,
    /// The node wants its resources back.
    pub evicted: Option<Eviction>,
}

/// A worker's own state.
pub struct Worker {
    context: Arc<Context>,
    reports: Reports,
    desired: watch::Receiver<Desired>,
    wake: Arc<Notify>,
    observer: Observer,
    verdicts: Verdicts,
    targets: watch::Sender<Vec<Arc<Target>>>,
    backoffs: Backoffs,
    failures: BTreeMap<String, (Waiting, Timestamp)>,
    sandbox_held: Option<(Timestamp, Duration)>,
    record: Record,
    /// The record as it is on disk: as text, which takes less room.
    saved: Option<Vec<u8>>,
    /// What is reported of a resize under way.
    progress: Option<status::Progress>,
    resize_held: Option<(Timestamp, Duration)>,
    /// Containers killed to be started again.
    restarting: BTreeSet<String>,
    hooks_pending: BTreeSet<String>,
    backing_off: BTreeMap<String, Duration>,
    reported: Arc<PodStatus>,
    finished: bool,
    outcome: Option<Outcome>,
    evicted: Option<Eviction>,
    stops: Stops,
    /// Its volumes and cgroup are gone.
    torn_down: bool,
    failed_volume: Option<String>,
    /// When mounting is tried again, and the pause before that.
    mount_held: Option<(Timestamp, Duration)>,
    /// The sandbox waits for the node's network.
    awaits_network: bool,
    /// The attempts whose backoff was reported, by container.
    noted: BTreeMap<String, Option<u32>>,
    /// When the pod came to this worker.
    seen: tokio::time::Instant,
    /// It was looked at before.
    synced: bool,
}

/// What a sync leaves to wait for.
enum Next {
    /// Until something happens, or that moment.
    Wait(Option<Timestamp>),
    /// Again at once: what is desired has changed meanwhile.
    Again,
    /// Nothing, ever.
    Done,
}

/// How far a plan was carried out.
enum Executed {
    /// As far as it can be, before another is made.
    Done,
    /// Until the pod was to end.
    Interrupted,
    /// Until something failed that is not tried again before that moment.
    Held(Timestamp),
}

/// A sync that could not be finished.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Runtime(#[from] cri_proto::client::Error),
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::Error),
    #[error(transparent)]
    Volume(#[from] volume::Error),
    #[error("remove log directory: {0}")]
    Logs(std::io::Error),
    #[error("there is still more to do after {} plans", ROUNDS)]
    Unsettled,
    #[error("what was done {} times without a failure is still to be done", REPEATS)]
    Ineffective,
}

impl Worker {
    /// A worker for the pod in `desired`.
    pub fn new(
        context: Arc<Context>,
        reports: Reports,
        desired: watch::Receiver<Desired>,
        wake: Arc<Notify>,
    ) -> Self {
        let cap = context.config.max_container_restart_period;
        let reported = Arc::new(desired.borrow().pod.status.clone().unwrap_or_default());
        Self {
            context,
            reports,
            desired,
            wake,
            observer: Observer::default(),
            verdicts: Verdicts::default(),
            targets: watch::Sender::new(Vec::new()),
            backoffs: Backoffs::new(cap),
            failures: BTreeMap::new(),
            sandbox_held: None,
            record: Record::default(),
            saved: None,
            progress: None,
            resize_held: None,
            restarting: BTreeSet::new(),
            hooks_pending: BTreeSet::new(),
            backing_off: BTreeMap::new(),
            reported,
            finished: false,
            outcome: None,
            evicted: None,
            stops: Stops::default(),
            torn_down: false,
            failed_volume: None,
            mount_held: None,
            awaits_network: false,
            noted: BTreeMap::new(),
            seen: tokio::time::Instant::now(),
            synced: false,
        }
    }

    /// Works until the pod is gone.
    pub async fn run(&mut self) {
        let probes = Box::pin(probe::drive(
            self.context.probes.clone(),
            self.targets.subscribe(),
            self.verdicts.clone(),
            Arc::clone(&self.wake),
        ));
        let work = Box::pin(self.work());
        tokio::select! {
            () = work => {}
            () = probes => {}
        }
    }

    async fn work(&mut self) {
        let mut retry = Backoff::new(RETRY_FIRST, RETRY_LAST);
        loop {
            let desired = self.desired.borrow_and_update().clone();
            let kind = self.kind(&desired);
            let began = tokio::time::Instant::now();
            let synced = Box::pin(self.sync(&desired)).await;
            let labels = format!("{{operation_type={kind:?}}}");
            self.context.meters.observe(&WORKER_DURATION, labels, began.elapsed());
            let (wait, failed) = match synced {
                Ok(Next::Done) => return,
                Ok(Next::Again) => continue,
                Ok(Next::Wait(until)) => {
                    retry.reset();
                    let period = jittered(self.context.config.sync_frequency);
                    (until.map_or(period, |until| period.min(until_then(until))), false)
                }
                Err(error) => {
                    tracing::warn!(pod = crate::pod::described(&desired.pod), %error, "pod sync failed");
                    (retry.next_pause(), true)
                }
            };
            let (mut newer, mut health) = (self.desired.clone(), self.context.health.clone());
            tokio::select! {
                changed = self.desired.changed(), if !failed => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.wake.notified(), if !failed => {}
                // What failed has its pause, but for an end, or a sooner one, which may need none of what failed.
                () = hastened(&mut newer, &desired), if failed => retry.reset(),
                () = network(&mut health), if self.awaits_network => {
                    self.awaits_network = false;
                    self.sandbox_held = None;
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// What a sync is for, as upstream counts it.
    fn kind(&mut self, desired: &Desired) -> &'static str {
        let ends = desired.removed || desired.pod.metadata.deletion_timestamp.is_some();
        let first = !std::mem::replace(&mut self.synced, true);
        if first && !ends {
            self.context.meters.observe(&WORKER_START, "", self.seen.elapsed());
        }
        match (self.torn_down, ends || self.outcome.is_some(), first) {
            (true, ..) => "terminated",
            (_, true, _) => "terminating",
            (_, _, true) => "create",
            _ => "sync",
        }
    }

    async fn sync(&mut self, desired: &Desired) -> Result<Next, Error> {
        let pod = &desired.pod;
        self.never_back(pod);
        if let Some(outcome) = &desired.rejected {
            self.outcome = Some(outcome.clone());
        }
        // An eviction that is hastened is the same one with less time.
        self.evicted = desired.evicted.clone().or(self.evicted.take());
        if let Some(eviction) = &self.evicted
            && self.outcome.is_none()
        {
            self.outcome = Some(eviction.outcome());
        }
        let observed = self.look(pod).await?;
        let mut wake_at = self.deadline(pod);
        let ending = desired.removed
            || pod.metadata.deletion_timestamp.is_some()
            || self.outcome.is_some()
            || matches!(self.reported.phase.as_deref(), Some("Succeeded" | "Failed"));
        if ending {
            return Box::pin(self.end(desired, observed)).await;
        }
        self.report(pod, &observed);
        if let Some(until) = Box::pin(self.prepare(pod, &observed)).await? {
            return Ok(Next::Wait(Some(earliest(wake_at, until))));
        }
        let mut observed = observed;
        let (mut done, mut repeats) = (Vec::new(), 0);
        for _ in 0..ROUNDS {
            let plan = self.plan(pod, &observed, false);
            tracing::debug!(pod = crate::pod::name(pod), actions = ?plan.actions, "plan");
            self.backing_off.clone_from(&plan.backing_off);
            if plan.actions.is_empty() {
                if plan.finished {
                    self.finished = true;
                    return Box::pin(self.end(desired, observed)).await;
                }
                self.note_backoff(pod, &observed, &plan);
                self.report(pod, &observed);
                for until in
                    plan.wake_at.into_iter().chain(self.context.volumes.tokens.renew_at(crate::pod::uid(pod)))
                {
                    wake_at = Some(earliest(wake_at, until));
                }
                return Ok(Next::Wait(wake_at));
            }
            repeats = if plan.actions == done { repeats + 1 } else { 0 };
            if repeats == REPEATS {
                return Err(Error::Ineffective);
            }
            done.clone_from(&plan.actions);
            let executed = Box::pin(self.execute(pod, &observed, plan)).await?;
            observed = self.look(pod).await?;
            self.report(pod, &observed);
            match executed {
                Executed::Interrupted => return Ok(Next::Again),
                _ if self.desired.has_changed().unwrap_or(true) => return Ok(Next::Again),
                Executed::Held(until) => return Ok(Next::Wait(Some(earliest(wake_at, until)))),
                Executed::Done => {}
            }
        }
        Err(Error::Unsettled)
    }

    /// The API may know more than this process, which may be younger than the pod.
    fn never_back(&mut self, pod: &Pod) {
        if self.reported.phase.is_none()
            && let Some(status) = &pod.status
        {
            self.reported = Arc::new(status.clone());
        }
    }

    fn restarting_all(&self) -> bool {
        let told = self.reported.conditions.iter().flatten().find(|c| c.type_ == "AllContainersRestarting");
        told.is_some_and(|c| c.status == "True")
    }

    /// How often containers were started, by what was reported of them. What is told without a container is counted
    /// ahead: its next start is the restart that was told.
    fn starts(&self) -> BTreeMap<String, u32> {
        let all = [&self.reported.init_container_statuses, &self.reported.container_statuses];
        let count = |s: &ContainerStatus| {
            u32::try_from(s.restart_count).unwrap_or(0) + u32::from(s.container_id.is_some())
        };
        all.into_iter().flatten().flatten().map(|s| (s.name.clone(), count(s))).collect()
    }

    /// `activeDeadlineSeconds`: marks the pod when it is over, else says when it will be.
    fn deadline(&mut self, pod: &Pod) -> Option<Timestamp> {
        let limit = pod.spec.as_ref()?.active_deadline_seconds?;
        let began = self.reported.start_time.as_ref()?.0;
        let over = began.checked_add(SignedDuration::from_secs(limit)).ok()?;
        if over <= Timestamp::now() && self.outcome.is_none() {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            self.context.recorder.normal(pod, None, "DeadlineExceeded", message.clone());
            self.outcome = Some(Outcome { reason: "DeadlineExceeded".to_owned(), message });
        }
        Some(over)
    }

    fn plan(&self, pod: &Pod, observed: &Observed, terminating: bool) -> Plan {
        let held = self.failures.iter().map(|(name, (_, until))| (name.clone(), *until)).collect();
        plan::plan(&plan::Input {
            pod,
            observed,
            verdicts: &self.verdicts.all(),
            hooks_pending: &self.hooks_pending,
            backoffs: &self.backoffs,
            record: &self.record,
            resize_held: resize::held(self.resize_held),
            restarting: &self.restarting,
            restarting_all: self.restarting_all(),
            starts: &self.starts(),
            held: &held,
            sandbox_held: self.sandbox_held.map(|(until, _)| until),
            terminating,
            now: Timestamp::now(),
        })
    }

    /// The pod's cgroup, directory and volumes. `Some`: they failed, and are tried again then.
    async fn prepare(&mut self, pod: &Arc<Pod>, observed: &Observed) -> Result<Option<Timestamp>, Error> {
        self.torn_down = false;
        let dir = self.context.config.pod_dir(crate::pod::uid(pod));
        volume::blocking(move || {
            use std::os::unix::fs::DirBuilderExt;
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o750);
            builder.create(&dir).map_err(volume::io("create pod directory", dir))
        })
        .await?;
        self.take_up(pod, observed).await?;
        if let Err(error) = self.context.cgroups.ensure(&self.record.running_pod(pod)).await {
            let text = format!("unable to ensure pod container exists: {error}");
            self.context.recorder.warning(pod, None, "FailedCreatePodContainer", text);
            return Err(error.into());
        }
        match self.volumes(pod, observed).await {
            Ok(_) => Ok(None),
            Err(until) => Ok(Some(until)),
        }
    }

    /// The time the pod's containers get to end: its own, or less where it is evicted.
    fn grace(&self, pod: &Pod) -> Duration {
        let own = crate::pod::grace_seconds(pod);
        let grace = self.evicted.as_ref().map_or(own, |eviction| own.min(eviction.grace));
        Duration::from_secs(u64::try_from(grace).unwrap_or(0))
    }

    /// Stops containers of a pod that goes on; `false`: it is to end now, with whatever time that leaves them.
    async fn stop(
        &mut self,
        pod: &Arc<Pod>,
        observed: &Observed,
        stops: Vec<plan::Stop>,
    ) -> Result<bool, cri_proto::client::Error> {
        let (context, grace) = (Arc::clone(&self.context), self.grace(pod));
        let stopping = Stopping { context, pod: Arc::clone(pod), observed: observed.clone(), stops, grace };
        let mut desired = self.desired.clone();
        Box::pin(self.stops.carry_out(stopping, must_end(&mut desired))).await
    }

    /// Carries out a plan.
    async fn execute(&mut self, pod: &Arc<Pod>, observed: &Observed, plan: Plan) -> Result<Executed, Error> {
        for action in plan.actions {
            let runtime = &self.context.runtime;
            match action {
                Action::StopContainers(stops) => {
                    let again = stops.iter().filter(|stop| stop.restart);
                    let again: Vec<String> = again.map(|stop| stop.id.clone()).collect();
                    if !self.stop(pod, observed, stops).await? {
                        return Ok(Executed::Interrupted);
                    }
                    self.restarting.extend(again);
                }
                Action::Resize(updates) => Box::pin(self.resize(pod, &updates)).await?,
                Action::StopSandbox(id) => runtime.stop_pod_sandbox(&id).await?,
                Action::RemoveContainer(id) => {
                    let seen = observed.containers.iter().find(|c| c.id == id);
                    runtime.remove_container(&id).await?;
                    if let Some(seen) = seen {
                        remove_log(&seen.log_path);
                        execute::unlink_log(&self.context, pod, &seen.name, &id);
                    }
                }
                Action::Reset { id, name, runs } => {
                    if runs {
                        let stop = plan::Stop {
                            id: id.clone(),
                            name,
                            message: "killing".to_owned(),
                            grace: Some(0),
                            restart: true,
                            after: Vec::new(),
                        };
                        if !self.stop(pod, observed, vec![stop]).await? {
                            return Ok(Executed::Interrupted);
                        }
                    }
                    self.context.runtime.remove_container(&id).await?;
                }
                Action::RemoveSandbox(id) => execute::remove_sandbox(&self.context, &id).await?,
                Action::CreateSandbox { attempt } => {
                    if attempt > 0 {
                        let text = "Pod sandbox changed, it will be killed and re-created.";
                        self.context.recorder.normal(pod, None, "SandboxChanged", text);
                    }
                    return Ok(match self.create_sandbox(pod, attempt).await {
                        true => Executed::Done,
                        false => Executed::Interrupted,
                    });
                }
                Action::Start { name, attempt, ended, .. } => {
                    let Some((_, spec)) = crate::pod::container(pod, &name) else { continue };
                    let volumes = match self.volumes(pod, observed).await {
                        Ok(volumes) => volumes,
                        Err(until) => return Ok(Executed::Held(until)),
                    };
                    let start = Start { pod, container: &spec, attempt, observed, volumes: &volumes };
                    let mut desired = self.desired.clone();
                    let ending = must_end(&mut desired);
                    let Some(started) = Box::pin(execute::start(&self.context, &start, ending)).await else {
                        return Ok(Executed::Interrupted);
                    };
                    if let Some(ended) = ended {
                        self.backoffs.started(&name, ended, Timestamp::now());
                    }
                    Box::pin(self.started(pod, observed, &name, started)).await;
                }
                Action::StartCreated { id, name } => {
                    let Some((_, spec)) = crate::pod::container(pod, &name) else { continue };
                    let log = observed.containers.iter().find(|c| c.id == id).map(|c| c.log_path.clone());
                    let log = log.unwrap_or_default();
                    let started = execute::start_created(&self.context, pod, &spec, &id, &log).await;
                    let started = started.map(|()| id);
                    Box::pin(self.started(pod, observed, &name, started)).await;
                }
            }
        }
        Ok(Executed::Done)
    }

    /// Tries to make the pod's sandbox; `false`: the pod is to end, and nothing was made.
    async fn create_sandbox(&mut self, pod: &Arc<Pod>, attempt: u32) -> bool {
        let network = self.context.health.borrow().network_error.clone();
        if let Some(error) = network.filter(|_| !crate::pod::host_network(pod)) {
            let text = format!("network is not ready: container runtime network not ready: {error}");
            self.context.recorder.warning(pod, None, "NetworkNotReady", text);
            self.hold_sandbox();
            self.awaits_network = true;
            return true;
        }
        self.awaits_network = false;
        let mut desired = self.desired.clone();
        let ending = must_end(&mut desired);
        match Box::pin(execute::create_sandbox(&self.context, pod, attempt, ending)).await {
            None => return false,
            Some(Ok(())) => self.sandbox_held = None,
            Some(Err(message)) => {
                let text = format!("Failed to create pod sandbox: {message}");
                self.context.recorder.warning(pod, None, "FailedCreatePodSandBox", text);
                self.hold_sandbox();
            }
        }
        true
    }

    /// Each failure doubles the pause before the sandbox is tried again.
    fn hold_sandbox(&mut self) {
        let delay = self.sandbox_held.map_or(Duration::from_secs(1), |(_, d)| (d * 2).min(RETRY_LAST));
        self.sandbox_held = Some((execute::retry_at(Timestamp::now(), jittered(delay)), delay));
    }
}

fn remove_log(path: &str) {
    if path.is_empty() {
        return;
    }
    if let Err(error) = crate::logs::rotate::remove(std::path::Path::new(path)) {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(path, error, "log of a removed container stays");
    }
}

fn earliest(known: Option<Timestamp>, other: Timestamp) -> Timestamp {
    known.map_or(other, |known| known.min(other))
}

fn until_then(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
}
