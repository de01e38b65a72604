//! Pods: one word for the state of many containers.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    age::{age, human_duration, moment, seconds},
    format::{condition, is_true, name, or},
};
use crate::access::Get;

/// What the containers' statuses come to.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

pub(super) fn pod(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match summary.last_restart {
        Some(last) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, human_duration(seconds(last, now)))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = match pod.items("status.podIPs").first() {
        Some(first) => first.text("ip"),
        None => pod.text("status.podIP"),
    };
    vec![
        name(pod),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        age(pod, now),
        json!(or(ip, "<none>")),
        json!(or(pod.text("spec.nodeName"), "<none>")),
        json!(or(pod.text("status.nominatedNodeName"), "<none>")),
        json!(readiness_gates(pod)),
    ]
}

/// A row's conditions: a pod that has run to its end is drawn apart.
pub fn conditions(object: &Value) -> Option<Value> {
    if object.text("kind") != "Pod" {
        return None;
    }
    let (reason, message) = match object.text("status.phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

fn readiness_gates(pod: &Value) -> String {
    let gates = pod.items("spec.readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|gate| is_true(pod, gate.text("conditionType"))).count();
    format!("{open}/{}", gates.len())
}

fn restarted_at(status: &Value) -> Option<Timestamp> {
    moment(status.text("lastState.terminated.finishedAt"))
}

fn is_sidecar(container: &Value) -> bool {
    container.text("restartPolicy") == "Always"
}

fn summarize(pod: &Value) -> Summary {
    let init = pod.items("spec.initContainers");
    let sidecars = init.iter().filter(|container| is_sidecar(container)).count();
    let phase = pod.text("status.phase");
    let mut summary = Summary {
        reason: or(pod.text("status.reason"), phase).to_owned(),
        ready: 0,
        total: pod.items("spec.containers").len() + sidecars,
        restarts: 0,
        last_restart: None,
    };
    let gated =
        condition(pod, "PodScheduled").is_some_and(|condition| condition.text("reason") == "SchedulingGated");
    if gated {
        "SchedulingGated".clone_into(&mut summary.reason);
    }
    let (mut sidecar_restarts, mut sidecar_restart) = (0, None);
    let mut initializing = false;
    for (index, status) in pod.items("status.initContainerStatuses").iter().enumerate() {
        let sidecar = init.iter().any(|c| c.text("name") == status.text("name") && is_sidecar(c));
        let count = status.int("restartCount").unwrap_or_default();
        summary.restarts += count;
        summary.last_restart = summary.last_restart.max(restarted_at(status));
        if sidecar {
            sidecar_restarts += count;
            sidecar_restart = sidecar_restart.max(restarted_at(status));
        }
        let ended = status.at("state.terminated");
        if ended.is_object() && ended.int("exitCode").unwrap_or_default() == 0 {
            continue;
        }
        if sidecar && status.flag("started") {
            summary.ready += usize::from(status.flag("ready"));
            continue;
        }
        let waiting = status.text("state.waiting.reason");
        summary.reason = if ended.is_object() {
            format!("Init:{}", exit(ended))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", init.len())
        };
        initializing = true;
        break;
    }
    if !initializing || is_true(pod, "Initialized") {
        summary.restarts = sidecar_restarts;
        summary.last_restart = sidecar_restart;
        running(pod, &mut summary);
    }
    if pod.has("metadata.deletionTimestamp") {
        if pod.text("status.reason") == "NodeLost" {
            "Unknown".clone_into(&mut summary.reason);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut summary.reason);
        }
    }
    summary
}

/// Why a container ended: its reason, the signal, or the code.
fn exit(ended: &Value) -> String {
    let signal = ended.int("signal").unwrap_or_default();
    match (ended.text("reason"), signal) {
        ("", 0) => format!("ExitCode:{}", ended.int("exitCode").unwrap_or_default()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn running(pod: &Value, summary: &mut Summary) {
    let mut any_running = false;
    for status in pod.items("status.containerStatuses").iter().rev() {
        summary.restarts += status.int("restartCount").unwrap_or_default();
        summary.last_restart = summary.last_restart.max(restarted_at(status));
        let (waiting, ended) = (status.text("state.waiting.reason"), status.at("state.terminated"));
        if !waiting.is_empty() {
            waiting.clone_into(&mut summary.reason);
        } else if ended.is_object() {
            summary.reason = exit(ended);
        } else if status.flag("ready") && status.at("state.running").is_object() {
            any_running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && any_running {
        let reason = if is_true(pod, "Ready") { "Running" } else { "NotReady" };
        reason.clone_into(&mut summary.reason);
    }
}
