//! Jobs, and the schedules that make them.

use serde_json::Value;

use super::{pod::template, workloads::labels_where_none};
use crate::access::{Fields, Get, default, default_text, entries, existing, object};

/// Gives a job that has no labels those of its template; false where it has, or there are none.
pub(super) fn job_labels(job: &mut Value) -> bool {
    let Some(labels) = job.fields("spec.template.metadata.labels").filter(|l| !l.is_empty()).cloned() else {
        return false;
    };
    let has_none = job.fields("metadata.labels").is_none_or(Fields::is_empty);
    labels_where_none(job, &labels);
    has_none
}

pub(super) fn job(job: &mut Value) {
    let Some(spec) = object(job, "spec") else { return };
    if !spec.has("completions") && !spec.has("parallelism") {
        default(spec, "completions", 1);
    }
    default(spec, "parallelism", 1);
    // With a limit of its own for every index, the whole has none.
    let backoff = if spec.has("backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
    default(spec, "backoffLimit", backoff);
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    default(spec, "manualSelector", false);
    let replacement = if spec.has("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    default(spec, "podReplacementPolicy", replacement);
    failure_policy(spec);
    template(spec);
}

fn failure_policy(spec: &mut Value) {
    for rule in entries(spec, "podFailurePolicy.rules") {
        for pattern in entries(rule, "onPodConditions") {
            default_text(pattern, "status", "True");
        }
    }
}

pub(super) fn cron_job(job: &mut Value) {
    let Some(spec) = object(job, "spec") else { return };
    default_text(spec, "concurrencyPolicy", "Allow");
    default(spec, "suspend", false);
    default(spec, "successfulJobsHistoryLimit", 3);
    default(spec, "failedJobsHistoryLimit", 1);
    // The job's own fields are filled in when a job is made of it.
    if let Some(spec) = existing(spec, "jobTemplate.spec") {
        failure_policy(spec);
        template(spec);
    }
}
