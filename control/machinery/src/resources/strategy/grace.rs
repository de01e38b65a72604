//! Deletion: who is given time, and what becomes of dependents.

use serde_json::Value;

use super::Dependents;
use crate::access::Get;
use crate::resources::Resource;

/// How long an object has before it is removed; none for kinds that are removed at once.
///
/// Only pods are deleted gracefully: what the request says, else what the pod says; nothing for a pod that never reached
/// a node or has run to its end.
pub fn grace_period_seconds(resource: &Resource, object: &Value, requested: Option<i64>) -> Option<i64> {
    if (resource.group, resource.kind) != ("", "Pod") {
        return None;
    }
    let unscheduled = object.text("spec.nodeName").is_empty();
    let finished = matches!(object.text("status.phase"), "Failed" | "Succeeded");
    if unscheduled || finished {
        return Some(0);
    }
    let period = requested.or(object.int("spec.terminationGracePeriodSeconds")).unwrap_or_default();
    Some(if period < 0 { 1 } else { period })
}

/// What becomes of dependents where the request says nothing.
pub fn dependents_by_default(resource: &Resource) -> Dependents {
    match (resource.group, resource.kind) {
        ("", "ReplicationController") | ("batch", "Job") => Dependents::Orphan,
        (_, "Event") => Dependents::Unsupported,
        _ => Dependents::Delete,
    }
}

/// The warning a client gets that deletes without saying what becomes of dependents, where that is a surprise.
pub fn orphaning_warning(resource: &Resource) -> Option<&'static str> {
    ((resource.group, resource.kind) == ("batch", "Job")).then_some(
        "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them \
         or set propagationPolicy=Orphan to suppress this warning",
    )
}
