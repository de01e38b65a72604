//! The conditions MemoryPressure, DiskPressure, PIDPressure and Ready, with upstream's reasons and messages
//! (`pkg/kubelet/nodestatus/setters.go`). Pure.

use super::Reported;
use super::resources::Resources;
use super::runtime::Health;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// An event a changed condition calls for: `Node NAME status is now: REASON`.
pub type StatusEvent = &'static str;

/// A pressure condition's words, for calm and for pressure.
struct Words {
    kind: &'static str,
    calm: (&'static str, &'static str, StatusEvent),
    pressed: (&'static str, &'static str, StatusEvent),
}

const PRESSURES: [Words; 3] = [
    Words {
        kind: "MemoryPressure",
        calm: (
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
            "NodeHasSufficientMemory",
        ),
        pressed: (
            "KubeletHasInsufficientMemory",
            "kubelet has insufficient memory available",
            "NodeHasInsufficientMemory",
        ),
    },
    Words {
        kind: "DiskPressure",
        calm: ("KubeletHasNoDiskPressure", "kubelet has no disk pressure", "NodeHasNoDiskPressure"),
        pressed: ("KubeletHasDiskPressure", "kubelet has disk pressure", "NodeHasDiskPressure"),
    },
    Words {
        kind: "PIDPressure",
        calm: ("KubeletHasSufficientPID", "kubelet has sufficient PID available", "NodeHasSufficientPID"),
        pressed: (
            "KubeletHasInsufficientPID",
            "kubelet has insufficient PID available",
            "NodeHasInsufficientPID",
        ),
    },
];

/// Resources without which a node is not ready.
const REQUIRED: [&str; 4] = ["cpu", "memory", "pods", "ephemeral-storage"];

/// The conditions now. Conditions of others (NetworkUnavailable, those of a problem detector) stay as they are.
#[must_use]
pub fn conditions(
    previous: &[NodeCondition],
    reported: &Reported,
    health: &Health,
    capacity: &Resources,
    now: &Time,
) -> (Vec<NodeCondition>, Vec<StatusEvent>) {
    let mut list = previous.to_vec();
    let mut events = Vec::new();
    let pressed = [reported.memory_pressure, reported.disk_pressure, reported.pid_pressure];
    for (words, pressed) in PRESSURES.iter().zip(pressed) {
        let (status, (reason, message, event)) =
            if pressed { ("True", words.pressed) } else { ("False", words.calm) };
        let condition = entry(&mut list, words.kind);
        condition.last_heartbeat_time = Some(now.clone());
        if condition.status != status {
            status.clone_into(&mut condition.status);
            condition.reason = Some(reason.to_owned());
            condition.message = Some(message.to_owned());
            condition.last_transition_time = Some(now.clone());
            events.push(event);
        }
    }
    let (status, reason, message) = match not_ready(reported, health, capacity) {
        None => ("True", "KubeletReady", "kubelet is posting ready status".to_owned()),
        Some(message) => ("False", "KubeletNotReady", message),
    };
    // Ready comes last in a fresh list, as clients of old expect.
    let ready = entry(&mut list, "Ready");
    ready.last_heartbeat_time = Some(now.clone());
    ready.reason = Some(reason.to_owned());
    ready.message = Some(message);
    if ready.status != status {
        if !ready.status.is_empty() {
            events.push(if status == "True" { "NodeReady" } else { "NodeNotReady" });
        }
        status.clone_into(&mut ready.status);
        ready.last_transition_time = Some(now.clone());
    }
    (list, events)
}

fn entry<'a>(list: &'a mut Vec<NodeCondition>, kind: &str) -> &'a mut NodeCondition {
    let index = list.iter().position(|c| c.type_ == kind).unwrap_or_else(|| {
        list.push(NodeCondition { type_: kind.to_owned(), ..NodeCondition::default() });
        list.len() - 1
    });
    &mut list[index]
}

/// Why the node is not ready: one reason as it is, several as Go's error aggregate prints them.
fn not_ready(reported: &Reported, health: &Health, capacity: &Resources) -> Option<String> {
    let missing: Vec<&str> = REQUIRED.into_iter().filter(|name| !capacity.contains_key(*name)).collect();
    let mut reasons: Vec<String> = Vec::new();
    let missing =
        (!missing.is_empty()).then(|| format!("missing node capacity for resources: {}", missing.join(", ")));
    let shutdown = reported.shutting_down.then(|| "node is shutting down".to_owned());
    for reason in health.errors.iter().chain(&reported.errors).chain(&shutdown).chain(&missing) {
        if !reasons.contains(reason) {
            reasons.push(reason.clone());
        }
    }
    match reasons.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}
