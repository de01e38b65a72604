//! Probes: asking a container how it is, as often as its pod says.
//!
//! A pod's probes are driven inside its worker's task, beside the worker's own loop, so that a slow image pull does not
//! delay them and they end with the pod. What wakes a probe: its timer. What it reads: the container's id and address.
//! What it writes: the verdict of that container id, and a wake-up for the worker when the verdict changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cri_proto::client::Runtime;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Container, ExecAction, Pod, Probe};
use parking_lot::Mutex;
use supervise::Work;
use tokio::sync::{Notify, watch};

pub use crate::pod::plan::Verdict;
use crate::recorder::Recorder;

pub(crate) mod grpc;
pub(crate) mod http;

/// How often a probe that could not be made is made again at once.
const TRIES: usize = 3;
/// What of a command's output is told.
const OUTPUT_BYTES: usize = 10 << 10;

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Until it succeeds once, the others wait.
    Startup,
    /// Its failure restarts the container.
    Liveness,
    /// Its failure keeps traffic away.
    Readiness,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// The container is to be asked at all.
pub(crate) fn has_any(container: &Container) -> bool {
    container.startup_probe.is_some()
        || container.liveness_probe.is_some()
        || container.readiness_probe.is_some()
}

/// A running container whose probes are to be driven.
#[derive(Clone, Debug)]
pub struct Target {
    /// As last seen by the worker.
    pub pod: Arc<Pod>,
    /// Entry of `spec.containers` or `spec.initContainers` that has the probes.
    pub container: Container,
    /// The runtime's id of the running container.
    pub id: String,
    /// `status.podIPs`, the primary first.
    pub ips: Vec<String>,
    /// When it was started.
    pub started_at: Option<jiff::Timestamp>,
    /// Its pod is being deleted: only its readiness still matters.
    pub ending: bool,
}

impl Target {
    fn probe(&self, kind: Kind) -> Option<&Probe> {
        match kind {
            Kind::Startup => self.container.startup_probe.as_ref(),
            Kind::Liveness => self.container.liveness_probe.as_ref(),
            Kind::Readiness => self.container.readiness_probe.as_ref(),
        }
    }

    fn wants(&self, kind: Kind) -> bool {
        kind == Kind::Readiness || !self.ending
    }
}

/// The verdicts of one pod's containers.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    known: Arc<Mutex<BTreeMap<String, Verdict>>>,
    changed: Arc<Notify>,
}

impl Verdicts {
    /// All of them, by container id.
    pub fn all(&self) -> BTreeMap<String, Verdict> {
        self.known.lock().clone()
    }

    /// Begins judging a container; `ready_before` is what was last reported of this very container, so that a restart
    /// of the kubelet does not make ready pods unready.
    pub fn begin(&self, container: &Container, id: &str, reported: Option<(bool, bool)>) {
        let mut known = self.known.lock();
        known.entry(id.to_owned()).or_insert_with(|| {
            let (started, ready) = reported.unwrap_or_default();
            Verdict {
                started: container.startup_probe.is_none() || started,
                ready: container.readiness_probe.is_none() || ready,
                failed: None,
            }
        });
    }

    /// Forgets containers that do not run any more.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.known.lock().retain(|id, _| keep(id));
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Verdict)) -> bool {
        let mut known = self.known.lock();
        let Some(verdict) = known.get_mut(id) else { return false };
        let before = verdict.clone();
        change(verdict);
        let news = *verdict != before;
        drop(known);
        if news {
            self.changed.notify_waiters();
        }
        news
    }

    /// Waits until a container's startup probe has succeeded.
    async fn until_started(&self, id: &str) {
        loop {
            let changed = self.changed.notified();
            if self.started(id) {
                return;
            }
            changed.await;
        }
    }

    fn started(&self, id: &str) -> bool {
        self.known.lock().get(id).is_some_and(|v| v.started)
    }
}

/// What probes work with.
#[derive(Clone)]
pub struct Handles {
    /// The runtime, which runs commands in containers.
    pub runtime: Runtime,
    /// Where failed probes are reported.
    pub recorder: Recorder,
    /// What every probe is a piece of.
    pub work: Work,
}

/// Drives the probes of the targets, as they come and go, forever.
pub async fn drive(
    handles: Handles,
    mut targets: watch::Receiver<Vec<Arc<Target>>>,
    verdicts: Verdicts,
    wake: Arc<Notify>,
) {
    let mut running = FuturesUnordered::new();
    let mut begun: Vec<(String, Kind)> = Vec::new();
    loop {
        let wanted = targets.borrow_and_update().clone();
        begun.retain(|(id, kind)| wanted.iter().any(|t| t.id == *id && t.wants(*kind)));
        for target in wanted {
            for kind in [Kind::Startup, Kind::Liveness, Kind::Readiness] {
                let key = (target.id.clone(), kind);
                if target.probe(kind).is_some() && target.wants(kind) && !begun.contains(&key) {
                    begun.push(key);
                    let (target, verdicts) = (Arc::clone(&target), verdicts.clone());
                    // boxed: the set keeps room for one of them even while it is empty
                    running.push(Box::pin(one(&handles, target, kind, verdicts, &wake, targets.clone())));
                }
            }
        }
        tokio::select! {
            changed = targets.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some(()) = running.next(), if !running.is_empty() => {}
        }
    }
}

/// One probe of one container, until the container is no target any more.
async fn one(
    handles: &Handles,
    target: Arc<Target>,
    kind: Kind,
    verdicts: Verdicts,
    wake: &Notify,
    mut targets: watch::Receiver<Vec<Arc<Target>>>,
) {
    let id = target.id.clone();
    let gone = async {
        let still = |all: &Vec<Arc<Target>>| all.iter().any(|t| t.id == id && t.wants(kind));
        // The sender is gone when the worker is.
        targets.wait_for(|all| !still(all)).await.ok();
    };
    let Some(probe) = target.probe(kind) else { return };
    // A panic is the probe's own affair: it begins again, and the verdict stays meanwhile.
    let asking = handles.work.insist(|| Box::pin(repeat(handles, &target, kind, probe, &verdicts, wake)));
    tokio::select! {
        () = gone => {}
        () = asking => {}
    }
}

async fn repeat(
    handles: &Handles,
    target: &Target,
    kind: Kind,
    probe: &Probe,
    verdicts: &Verdicts,
    wake: &Notify,
) {
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default))
    };
    let period = seconds(probe.period_seconds, 10);
    let timeout = seconds(probe.timeout_seconds, 1);
    let delay = Duration::from_secs(u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0));
    let successes = probe.success_threshold.unwrap_or(1).max(1);
    let failures = probe.failure_threshold.unwrap_or(3).max(1);
    let begun = target.started_at.map_or(Duration::ZERO, |at| {
        Duration::try_from(jiff::Timestamp::now().duration_since(at)).unwrap_or_default()
    });
    tokio::time::sleep(delay.saturating_sub(begun)).await;
    if kind != Kind::Startup {
        verdicts.until_started(&target.id).await;
    }
    let (mut last, mut run) = (None, 0);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now(), period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let Some(ok) = tell(handles, target, kind, Box::pin(ask(handles, target, probe, timeout)).await)
        else {
            continue;
        };
        run = if last == Some(ok) { run + 1 } else { 1 };
        last = Some(ok);
        if run < if ok { successes } else { failures } {
            continue;
        }
        if verdicts.change(&target.id, |v| judge(v, kind, ok, probe)) {
            wake.notify_one();
        }
        if kind == Kind::Startup || (kind == Kind::Liveness && !ok) {
            return;
        }
    }
}

/// What asking once came to.
enum Outcome {
    Success,
    Warning(String),
    Failure(String),
    /// Nothing was learned of the container.
    Error(String),
}

/// Says what is worth an event; `None` when the answer does not count.
fn tell(handles: &Handles, target: &Target, kind: Kind, answer: Outcome) -> Option<bool> {
    let event = |reason, text: String| {
        handles.recorder.warning(&target.pod, Some(&target.container.name), reason, text);
    };
    let name = kind.name();
    match answer {
        Outcome::Success => Some(true),
        Outcome::Warning(text) => {
            event("ProbeWarning", format!("{name} probe warning: {text}"));
            Some(true)
        }
        Outcome::Failure(text) => {
            event("Unhealthy", format!("{name} probe failed: {text}"));
            Some(false)
        }
        Outcome::Error(text) => {
            event("Unhealthy", format!("{name} probe errored and resulted in unknown state: {text}"));
            None
        }
    }
}

fn judge(verdict: &mut Verdict, kind: Kind, ok: bool, probe: &Probe) {
    let failed = |what: &str| Some((format!("failed {what} probe"), probe.termination_grace_period_seconds));
    match (kind, ok) {
        (Kind::Startup, true) => verdict.started = true,
        (Kind::Startup, false) => verdict.failed = failed("startup"),
        (Kind::Liveness, true) => {}
        (Kind::Liveness, false) => verdict.failed = failed("liveness"),
        (Kind::Readiness, ok) => verdict.ready = ok,
    }
}

/// Asks; what tells nothing of the container is tried again at once, a few times.
async fn ask(handles: &Handles, target: &Target, probe: &Probe, timeout: Duration) -> Outcome {
    let mut answer = Box::pin(once(handles, target, probe, timeout)).await;
    for _ in 1..TRIES {
        match answer {
            Outcome::Error(_) => answer = Box::pin(once(handles, target, probe, timeout)).await,
            known => return known,
        }
    }
    answer
}

async fn once(handles: &Handles, target: &Target, probe: &Probe, timeout: Duration) -> Outcome {
    let host = target.ips.first().map(String::as_str).unwrap_or_default();
    if let Some(action) = &probe.exec {
        return exec(handles, target, action, timeout).await;
    }
    if let Some(get) = &probe.http_get {
        let user_agent = format!("kube-probe/{}", machinery::release::MAJOR_MINOR);
        let request = match http::Request::of(get, &target.container, host, &user_agent) {
            Ok(request) => request,
            Err(error) => return Outcome::Error(error.to_string()),
        };
        return match http::get(&request, timeout).await.and_then(http::Reply::judged) {
            Ok(None) => Outcome::Success,
            Ok(Some(warning)) => Outcome::Warning(warning),
            Err(error) => Outcome::Failure(error.to_string()),
        };
    }
    if let Some(socket) = &probe.tcp_socket {
        let host = socket.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(host);
        let port = match http::port(&socket.port, &target.container) {
            Ok(port) => port,
            Err(error) => return Outcome::Error(error.to_string()),
        };
        let address = http::joined(host, port);
        return match tokio::time::timeout(timeout, tokio::net::TcpStream::connect(&address)).await {
            Ok(Ok(_)) => Outcome::Success,
            Ok(Err(error)) => {
                Outcome::Failure(format!("dial tcp {address}: connect: {}", http::reason(&error)))
            }
            Err(_) => Outcome::Failure(format!("dial tcp {address}: i/o timeout")),
        };
    }
    if let Some(action) = &probe.grpc {
        let Ok(port) = u16::try_from(action.port) else {
            return Outcome::Error(format!("invalid port number: {}", action.port));
        };
        let service = action.service.as_deref().unwrap_or_default();
        return match grpc::check(host, port, service, timeout).await {
            Ok(()) => Outcome::Success,
            Err(text) => Outcome::Failure(text),
        };
    }
    let pod = crate::pod::described(&target.pod);
    Outcome::Error(format!("missing probe handler for {pod}:{}", target.container.name))
}

async fn exec(handles: &Handles, target: &Target, action: &ExecAction, timeout: Duration) -> Outcome {
    // Only what the container's own fields say literally is expanded: a probe has no environment.
    let literal = |name: &str| {
        let found = target.container.env.iter().flatten().find(|var| var.name == name);
        found.map(|var| var.value.clone().unwrap_or_default())
    };
    let command: Vec<String> =
        action.command.iter().flatten().map(|word| crate::pod::spec::env::expand(word, literal)).collect();
    let timed_out = || {
        let words = command.join(" ");
        Outcome::Failure(format!("command timed out: {words:?} timed out after {}s", timeout.as_secs()))
    };
    let call = handles.runtime.exec_sync(&target.id, command.clone(), timeout);
    match tokio::time::timeout(timeout + Duration::from_secs(1), Box::pin(call)).await {
        Err(_) => timed_out(),
        Ok(Err(error)) if error.code() == tonic::Code::DeadlineExceeded => timed_out(),
        Ok(Err(error)) => Outcome::Error(error.runtime_message()),
        Ok(Ok(answer)) if answer.exit_code == 0 => Outcome::Success,
        Ok(Ok(answer)) => {
            let output = [answer.stdout, answer.stderr].concat();
            Outcome::Failure(String::from_utf8_lossy(&output[..output.len().min(OUTPUT_BYTES)]).into_owned())
        }
    }
}
