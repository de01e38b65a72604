//! A deployment's status and conditions. Pure.

use crate::deployment::plan::Rollout;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use std::sync::Arc;
use std::time::Duration;

/// What a deployment's status is written after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A step of a rollout, which makes progress or does not.
    Rolling,
    /// A pause, a change of size or the deployment's end: no progress is expected (upstream's `syncDeploymentStatus`).
    Resting,
}

/// Within how many seconds a rollout must make progress, where that is asked for (`MaxInt32` asks for nothing).
#[must_use]
pub(crate) fn deadline(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref()?.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)
}

/// The counts, from all of the deployment's sets.
#[must_use]
pub(crate) fn counts(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    new: Option<&Arc<ReplicaSet>>,
) -> DeploymentStatus {
    let sum = |field: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| -> i32 {
        sets.iter().filter_map(|s| s.status.as_ref()).map(field).sum()
    };
    let available = sum(|s| s.available_replicas.unwrap_or(0));
    let specified: i32 = sets.iter().filter_map(|s| s.spec.as_ref()?.replicas).sum();
    let old = deployment.status.as_ref();
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(sum(|s| s.replicas)),
        updated_replicas: Some(new.and_then(|s| s.status.as_ref()).map_or(0, |s| s.replicas)),
        ready_replicas: Some(sum(|s| s.ready_replicas.unwrap_or(0))),
        available_replicas: Some(available),
        unavailable_replicas: Some((specified - available).max(0)),
        terminating_replicas: Some(sum(|s| s.terminating_replicas.unwrap_or(0))),
        collision_count: old.and_then(|s| s.collision_count),
        conditions: old.and_then(|s| s.conditions.clone()),
    }
}

/// Every wanted replica is of the new template and available, and nothing else is left.
#[must_use]
pub(crate) fn complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1));
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

/// Something moved since `old`.
fn progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let count = |n: Option<i32>| n.unwrap_or(0);
    let left_old = |s: &DeploymentStatus| count(s.replicas) - count(s.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || left_old(new) < left_old(old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

/// A condition as it is said now: its times move only when what it says moves.
#[must_use]
pub(crate) fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Sets a condition unless it says the same already.
pub(crate) fn set(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition) {
    if let Some(old) = conditions.iter().find(|c| c.type_ == new.type_) {
        if old.status == new.status && old.reason == new.reason {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
    }
    conditions.retain(|c| c.type_ != new.type_);
    conditions.push(new);
}

/// The condition `Available`, as it follows from the counts.
pub(crate) fn availability(wanted: Rollout, status: &mut DeploymentStatus, now: Timestamp) {
    let enough = status.available_replicas.unwrap_or(0)
        >= wanted.replicas - if wanted.recreate { 0 } else { wanted.unavailable };
    let (status_now, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    let available = condition("Available", status_now, reason, message, now);
    set(status.conditions.get_or_insert_default(), available);
}

/// `Progressing` and `ReplicaFailure` after a step of a rollout. Gives the time until the deadline, if one runs.
pub(crate) fn conclude(
    deployment: &Deployment,
    sets: &[Arc<ReplicaSet>],
    new: Option<&Arc<ReplicaSet>>,
    status: &mut DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let old_status = deployment.status.clone().unwrap_or_default();
    let mut conditions = status.conditions.take().unwrap_or_default();
    let wait = match deadline(deployment) {
        None => {
            conditions.retain(|c| c.type_ != "Progressing");
            None
        }
        Some(deadline) => progress(deployment, new, &old_status, status, &mut conditions, deadline, now),
    };
    match failure(sets, new) {
        None => conditions.retain(|c| c.type_ != "ReplicaFailure"),
        Some(failure) => {
            let (reason, message) = (
                failure.reason.as_deref().unwrap_or_default(),
                failure.message.as_deref().unwrap_or_default(),
            );
            set(&mut conditions, condition("ReplicaFailure", &failure.status, reason, message, now));
        }
    }
    status.conditions = Some(conditions);
    wait
}

/// Why some set cannot make its pods: the new one says it first.
fn failure<'a>(
    sets: &'a [Arc<ReplicaSet>],
    new: Option<&'a Arc<ReplicaSet>>,
) -> Option<&'a ReplicaSetCondition> {
    let all = new.into_iter().chain(sets).flat_map(|s| s.status.as_ref()?.conditions.as_ref());
    all.flatten().find(|c| c.type_ == "ReplicaFailure")
}

fn progress(
    deployment: &Deployment,
    new: Option<&Arc<ReplicaSet>>,
    old_status: &DeploymentStatus,
    status: &DeploymentStatus,
    conditions: &mut Vec<DeploymentCondition>,
    deadline: i32,
    now: Timestamp,
) -> Option<Duration> {
    let named = new.map_or_else(
        || format!("Deployment \"{}\"", deployment.name_any()),
        |set| format!("ReplicaSet \"{}\"", set.name_any()),
    );
    let current = conditions.iter().find(|c| c.type_ == "Progressing").cloned();
    let reason = current.as_ref().and_then(|c| c.reason.clone()).unwrap_or_default();
    // a rollout that has come to its end stays so until a new one begins, whatever becomes of its pods
    if reason == "NewReplicaSetAvailable" && status.replicas == status.updated_replicas {
        return None;
    }
    if complete(deployment, status) {
        let message = format!("{named} has successfully progressed.");
        set(conditions, condition("Progressing", "True", "NewReplicaSetAvailable", &message, now));
        return None;
    }
    if progressing(old_status, status) {
        let message = format!("{named} is progressing.");
        let mut moved = condition("Progressing", "True", "ReplicaSetUpdated", &message, now);
        // the time of the last progress is what the deadline counts from
        if let Some(current) = current.filter(|c| c.status == "True") {
            moved.last_transition_time = current.last_transition_time;
        }
        conditions.retain(|c| c.type_ != "Progressing");
        conditions.push(moved);
        return Some(seconds(deadline));
    }
    let current = current?;
    if reason == "NewReplicaSetAvailable" || reason == "ProgressDeadlineExceeded" {
        return None;
    }
    let from = current.last_update_time.as_ref()?.0;
    let waited = now.duration_since(from);
    let limit = SignedDuration::from_secs(i64::from(deadline));
    if waited < limit {
        // one second more, so that it has passed for sure
        return Some((limit - waited).unsigned_abs() + Duration::from_secs(1));
    }
    let message = format!("{named} has timed out progressing.");
    set(conditions, condition("Progressing", "False", "ProgressDeadlineExceeded", &message, now));
    None
}

fn seconds(deadline: i32) -> Duration {
    Duration::from_secs(u64::try_from(deadline).unwrap_or(0) + 1)
}

#[cfg(test)]
mod tests;
