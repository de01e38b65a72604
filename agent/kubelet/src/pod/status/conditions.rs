//! A pod's conditions.

use super::{Input, Spec, Time, exit_code, is_running, plan, seconds};
use crate::pod::is_sidecar;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};

struct Judged {
    kind: &'static str,
    ok: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

fn judged(kind: &'static str, ok: bool) -> Judged {
    Judged { kind, ok, reason: None, message: None }
}

fn names(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

pub(super) fn conditions(
    input: &Input<'_>,
    phase: &str,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
) -> Vec<PodCondition> {
    let network = input
        .observed
        .sandbox()
        .is_some_and(|s| s.ready && (crate::pod::host_network(input.pod) || !s.ips.is_empty()));
    let containers = containers_ready(input, phase, init, main);
    let ready = ready(input, &containers);
    let all = [
        judged("PodReadyToStartContainers", network),
        initialized(input, phase, init, main),
        ready,
        containers,
        judged("PodScheduled", true),
    ];
    let all = all.into_iter().chain(restarting_all(input, phase));
    let mut all: Vec<PodCondition> = all.map(|judged| condition(input, judged)).collect();
    if !matches!(phase, "Succeeded" | "Failed") {
        all.extend(resizing(input));
    }
    all
}

/// `AllContainersRestarting`, of pods that have a rule for it.
fn restarting_all(input: &Input<'_>, phase: &str) -> Option<Judged> {
    let kind = "AllContainersRestarting";
    if !plan::may_restart_all(input.pod) {
        return None;
    }
    let before = input.previous.conditions.iter().flatten().find(|c| c.type_ == kind);
    let under_way = before.is_some_and(|c| c.status == "True");
    Some(match phase {
        "Succeeded" => Judged { reason: Some("PodCompleted"), ..judged(kind, false) },
        "Failed" => Judged { reason: Some("PodFailed"), ..judged(kind, false) },
        _ if plan::restarts_all(input.pod, input.observed, under_way) => Judged {
            reason: Some("RestartAllContainersStarted"),
            message: Some("container exited with restart policy rule".to_owned()),
            ..judged(kind, true)
        },
        _ => judged(kind, false),
    })
}

/// `PodResizePending` and `PodResizeInProgress`, as long as they are true.
fn resizing(input: &Input<'_>) -> impl Iterator<Item = PodCondition> {
    let told = |kind: &str, reason: Option<&str>, message: Option<String>, generation: i64| {
        let before = input.previous.conditions.iter().flatten().find(|c| c.type_ == kind);
        let same = before.filter(|c| c.reason.as_deref() == reason);
        let now = || Time(seconds(input.now));
        PodCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: reason.map(str::to_owned),
            message,
            last_probe_time: Some(same.and_then(|c| c.last_probe_time.clone()).unwrap_or_else(now)),
            last_transition_time: Some(same.and_then(|c| c.last_transition_time.clone()).unwrap_or_else(now)),
            observed_generation: Some(generation),
        }
    };
    let pending = input
        .pending
        .map(|p| told("PodResizePending", Some(p.reason), Some(p.message.clone()), p.generation));
    let progress = input.progress.map(|p| {
        told("PodResizeInProgress", p.error.as_ref().map(|_| "Error"), p.error.clone(), p.generation)
    });
    pending.into_iter().chain(progress)
}

fn condition(input: &Input<'_>, judged: Judged) -> PodCondition {
    let status = if judged.ok { "True" } else { "False" };
    let before =
        input.previous.conditions.iter().flatten().find(|c| c.type_ == judged.kind && c.status == status);
    let since = before.and_then(|c| c.last_transition_time.clone());
    PodCondition {
        type_: judged.kind.to_owned(),
        status: status.to_owned(),
        reason: judged.reason.map(str::to_owned),
        message: judged.message,
        last_probe_time: None,
        last_transition_time: Some(since.unwrap_or(Time(seconds(input.now)))),
        observed_generation: input.pod.metadata.generation,
    }
}

fn initialized(input: &Input<'_>, phase: &str, init: &[ContainerStatus], main: &[ContainerStatus]) -> Judged {
    let kind = "Initialized";
    if phase == "Succeeded" {
        return Judged { reason: Some("PodCompleted"), ..judged(kind, true) };
    }
    // Once a regular container ran, initialisation is over, whatever became of its containers.
    let before = input.previous.conditions.iter().flatten().find(|c| c.type_ == kind);
    let again = plan::may_restart_all(input.pod) && before.is_some_and(|c| c.status == "True");
    if again {
        return judged(kind, true);
    }
    if main.iter().any(|s| is_running(s) || s.container_id.is_some()) {
        return judged(kind, true);
    }
    let done = |spec: &Spec, status: &ContainerStatus| {
        if is_sidecar(spec) { status.started == Some(true) } else { exit_code(status) == Some(0) }
    };
    let specs = crate::pod::init_containers(input.pod);
    let open: Vec<&str> = specs
        .iter()
        .zip(init)
        .filter(|(spec, status)| !done(spec, status))
        .map(|(spec, _)| spec.name.as_str())
        .collect();
    if open.is_empty() {
        return judged(kind, true);
    }
    Judged {
        reason: Some("ContainersNotInitialized"),
        message: Some(format!("containers with incomplete status: {}", names(&open))),
        ..judged(kind, false)
    }
}

fn containers_ready(
    input: &Input<'_>,
    phase: &str,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
) -> Judged {
    let kind = "ContainersReady";
    match phase {
        "Succeeded" => return Judged { reason: Some("PodCompleted"), ..judged(kind, false) },
        "Failed" => return Judged { reason: Some("PodFailed"), ..judged(kind, false) },
        _ => {}
    }
    let sidecars =
        crate::pod::init_containers(input.pod).iter().zip(init).filter(|(spec, _)| is_sidecar(spec));
    let all = sidecars.map(|(_, status)| status).chain(main);
    let open: Vec<&str> = all.filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    if open.is_empty() {
        return judged(kind, true);
    }
    Judged {
        reason: Some("ContainersNotReady"),
        message: Some(format!("containers with unready status: {}", names(&open))),
        ..judged(kind, false)
    }
}

fn ready(input: &Input<'_>, containers: &Judged) -> Judged {
    let kind = "Ready";
    if !containers.ok {
        return Judged {
            reason: containers.reason,
            message: containers.message.clone(),
            ..judged(kind, false)
        };
    }
    let gates = input.pod.spec.as_ref().and_then(|s| s.readiness_gates.as_ref());
    let seen = input.pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let closed: Vec<String> = gates
        .into_iter()
        .flatten()
        .filter_map(|gate| {
            let kind = &gate.condition_type;
            match seen.into_iter().flatten().find(|c| c.type_ == *kind) {
                None => {
                    Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist."))
                }
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if closed.is_empty() {
        return judged(kind, true);
    }
    Judged { reason: Some("ReadinessGatesNotReady"), message: Some(closed.join(", ")), ..judged(kind, false) }
}
