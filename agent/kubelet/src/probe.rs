//! Probes: asking a container how it is, as often as its pod says.
//!
//! A pod's probes are driven inside its worker's task, beside the worker's own loop, so that a slow image pull does not
//! delay them and they end with the pod. What wakes a probe: its timer. What it reads: the container's id and address.
//! What it writes: the verdict of that container id, and a wake-up for the worker when the verdict changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::context::Context;
use crate::pod::plan::Verdict;

pub mod grpc;
pub mod http;

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
pub fn has_any(container: &Container) -> bool {
    container.startup_probe.is_some()
        || container.liveness_probe.is_some()
        || container.readiness_probe.is_some()
}

/// A running container whose probes are to be driven.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its pod.
    pub pod: Arc<Pod>,
    /// Its spec.
    pub container: Container,
    /// Its id.
    pub id: String,
    /// Its pod's addresses.
    pub ips: Vec<String>,
}

/// The verdicts of one pod's containers.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    known: Arc<Mutex<BTreeMap<String, Verdict>>>,
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
        *verdict != before
    }

    fn started(&self, id: &str) -> bool {
        self.known.lock().get(id).is_some_and(|v| v.started)
    }
}

/// Drives the probes of the targets, as they come and go, for ever.
pub async fn drive(
    context: Context,
    mut targets: watch::Receiver<Vec<Target>>,
    verdicts: Verdicts,
    wake: Arc<Notify>,
) {
    let mut running = FuturesUnordered::new();
    let mut begun: Vec<(String, Kind)> = Vec::new();
    loop {
        let wanted = targets.borrow_and_update().clone();
        begun.retain(|(id, _)| wanted.iter().any(|t| t.id == *id));
        for target in wanted {
            let probes = [
                (Kind::Startup, &target.container.startup_probe),
                (Kind::Liveness, &target.container.liveness_probe),
                (Kind::Readiness, &target.container.readiness_probe),
            ];
            for (kind, probe) in probes {
                let Some(probe) = probe else { continue };
                let key = (target.id.clone(), kind);
                if !begun.contains(&key) {
                    begun.push(key);
                    running.push(one(
                        &context,
                        target.clone(),
                        kind,
                        probe.clone(),
                        verdicts.clone(),
                        &wake,
                        targets.clone(),
                    ));
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
    context: &Context,
    target: Target,
    kind: Kind,
    probe: Probe,
    verdicts: Verdicts,
    wake: &Notify,
    mut targets: watch::Receiver<Vec<Target>>,
) {
    let id = target.id.clone();
    let gone = async {
        let still = |all: &Vec<Target>| all.iter().any(|t| t.id == id);
        // The sender is gone when the worker is.
        targets.wait_for(|all| !still(all)).await.ok();
    };
    tokio::select! {
        () = gone => {}
        () = repeat(context, &target, kind, &probe, &verdicts, wake) => {}
    }
}

async fn repeat(
    context: &Context,
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
    tokio::time::sleep(delay).await;
    let (mut last, mut run) = (None, 0);
    loop {
        if kind == Kind::Startup || verdicts.started(&target.id) {
            let outcome = Box::pin(ask(context, target, probe, timeout)).await;
            let ok = outcome.is_ok();
            if let Err(message) = &outcome {
                let text = format!("{} probe failed: {message}", kind.name());
                context.recorder.warning(&target.pod, Some(&target.container.name), "Unhealthy", text);
            }
            run = if last == Some(ok) { run + 1 } else { 1 };
            last = Some(ok);
            let decided = run >= if ok { successes } else { failures };
            if decided && verdicts.change(&target.id, |v| judge(v, target, kind, ok, probe)) {
                wake.notify_one();
            }
            if decided && kind == Kind::Startup {
                return;
            }
            if decided && kind == Kind::Liveness && !ok {
                return;
            }
        }
        tokio::time::sleep(period).await;
    }
}

fn judge(verdict: &mut Verdict, target: &Target, kind: Kind, ok: bool, probe: &Probe) {
    let failed = |what: &str| {
        Some((
            format!("Container {} failed {what} probe", target.container.name),
            probe.termination_grace_period_seconds,
        ))
    };
    match (kind, ok) {
        (Kind::Startup, true) => verdict.started = true,
        (Kind::Startup, false) => verdict.failed = failed("startup"),
        (Kind::Liveness, true) => {}
        (Kind::Liveness, false) => verdict.failed = failed("liveness"),
        (Kind::Readiness, ok) => verdict.ready = ok,
    }
}

/// Asks once; the error is the text users see.
async fn ask(context: &Context, target: &Target, probe: &Probe, timeout: Duration) -> Result<(), String> {
    let host = target.ips.first().map(String::as_str).unwrap_or_default();
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        let timed_out =
            || format!("command timed out: \"{}\" timed out after {}s", command.join(" "), timeout.as_secs());
        let call = context.runtime.exec_sync(&target.id, command.clone(), timeout);
        return match tokio::time::timeout(timeout + Duration::from_secs(1), call).await {
            Err(_) => Err(timed_out()),
            Ok(Err(error)) if error.code() == tonic_code_deadline() => Err(timed_out()),
            Ok(Err(error)) => Err(error.runtime_message()),
            Ok(Ok(answer)) if answer.exit_code == 0 => Ok(()),
            Ok(Ok(answer)) => {
                let output = [answer.stdout, answer.stderr].concat();
                Err(String::from_utf8_lossy(&output[..output.len().min(10 << 10)]).into_owned())
            }
        };
    }
    if let Some(get) = &probe.http_get {
        let request =
            http::Request::of(get, &target.container, host, "kube-probe/1.36").map_err(|e| e.to_string())?;
        return http::get(&request, timeout).await.map_err(|e| e.to_string());
    }
    if let Some(socket) = &probe.tcp_socket {
        let host = socket.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(host);
        let port = http::port(&socket.port, &target.container).map_err(|e| e.to_string())?;
        let address = http::joined(host, port);
        return match tokio::time::timeout(timeout, tokio::net::TcpStream::connect(&address)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("dial tcp {address}: connect: {}", http::reason(&error))),
            Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
        };
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
        return grpc::check(host, port, action.service.as_deref().unwrap_or_default(), timeout).await;
    }
    Err("missing probe handler".to_owned())
}

fn tonic_code_deadline() -> tonic::Code {
    tonic::Code::DeadlineExceeded
}
