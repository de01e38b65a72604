//! What a job's status may say, so that controllers of others cannot take back what it said. Most is judged where it changes
//! only: a spec may change before its status follows.

use std::collections::BTreeSet;

use serde_json::Value;

use super::indexes;
use crate::{access::Get as _, resources::validate::cursor::Cursor, time};

fn is_true(status: &Value, kind: &str) -> bool {
    let is = |condition: &Value| condition.text("type") == kind && condition.text("status") == "True";
    status.items("conditions").iter().any(is)
}

fn is_finished(status: &Value) -> bool {
    is_true(status, "Complete") || is_true(status, "Failed")
}

pub(in crate::resources::validate) fn job_status(job: Cursor<'_>) {
    let (spec, status) = (job.field("spec"), job.field("status"));
    status.not_negatives(&["active", "succeeded", "failed", "ready", "terminating"]);
    let mut seen = BTreeSet::new();
    for uid in ["succeeded", "failed"]
        .into_iter()
        .flat_map(|list| status.field("uncountedTerminatedPods").each(list))
    {
        if uid.is_empty() {
            uid.invalid_value("", "must not be empty");
        } else if !seen.insert(uid.str()) {
            uid.duplicate();
        }
    }
    ends_one_way(status);
    finished(spec, status);
    indexes(spec, status);
    let (ready, active) = (status.field("ready"), status.field("active"));
    if (ready.changed() || active.changed()) && ready.number().unwrap_or_default() > status.int("active") {
        ready.invalid("cannot set more ready pods than active");
    }
    met(spec, status);
    lasts(spec, status);
}

/// A job completes or fails, and says before that it will.
fn ends_one_way(status: Cursor<'_>) {
    let conditions = status.field("conditions");
    let now = |kind: &str| is_true(status.value, kind);
    let changed = |kind: &str| now(kind) != is_true(status.old, kind);
    let (complete, failed) = (changed("Complete"), changed("Failed"));
    if (complete || failed) && now("Complete") && now("Failed") {
        conditions.invalid_unshown("cannot set Complete=True and Failed=true conditions");
    }
    if (complete || changed("FailureTarget")) && now("Complete") && now("FailureTarget") {
        conditions.invalid_unshown("cannot set Complete=True and FailureTarget=true conditions");
    }
    let (end, start) = (status.field("completionTime"), status.field("startTime"));
    if complete || end.changed() {
        if end.is_set() && !now("Complete") {
            end.invalid("cannot set completionTime when there is no Complete=True condition");
        }
        if !end.is_set() && now("Complete") {
            end.missing("completionTime is required for Complete jobs");
        }
    }
    let at = |field: Cursor<'_>| time::parse(field.str()).ok();
    if (start.changed() || end.changed())
        && let (Some(started), Some(ended)) = (at(start), at(end))
        && ended < started
    {
        end.invalid("must be equal to or after `startTime`");
    }
    if (failed || status.field("failedIndexes").changed()) && now("Failed") && !now("FailureTarget") {
        conditions
            .invalid_unshown("cannot set Failed=True condition without the FailureTarget=true condition");
    }
    if (complete || changed("SuccessCriteriaMet")) && now("Complete") && !now("SuccessCriteriaMet") {
        conditions.invalid_unshown(
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        );
    }
}

/// A finished job has started and has no pods.
fn finished(spec: Cursor<'_>, status: Cursor<'_>) {
    if !is_finished(status.value) {
        return;
    }
    let just = !is_finished(status.old);
    let (active, start) = (status.field("active"), status.field("startTime"));
    if (just || active.changed()) && status.int("active") > 0 {
        active.invalid("active>0 is invalid for finished job");
    }
    let nothing_to_do = spec.flag("suspend") && spec.at("completions").as_i64() == Some(0);
    if (just || start.changed()) && !nothing_to_do {
        start.required_with("startTime is required for finished job");
    }
    let uncounted = status.field("uncountedTerminatedPods");
    if (just || uncounted.changed())
        && ["failed", "succeeded"].iter().any(|list| !uncounted.list(list).is_empty())
    {
        uncounted.invalid("must be empty for finished job");
    }
    let terminating = status.field("terminating");
    if (just || terminating.changed()) && status.int("terminating") > 0 {
        terminating.invalid("terminating>0 is invalid for finished job");
    }
}

fn indexes(spec: Cursor<'_>, status: Cursor<'_>) {
    let (completed, failed) = (status.field("completedIndexes"), status.field("failedIndexes"));
    let (completions, per_index) = (spec.at("completions").as_i64(), spec.has("backoffLimitPerIndex"));
    if let Some(completions) = completions {
        for (list, what) in [(completed, "completedIndexes"), (failed, "failedIndexes")] {
            let judged = list.changed() && (what == "completedIndexes" || (per_index && list.is_set()));
            if let Err(error) = indexes::count(list.str(), completions)
                && judged
            {
                list.invalid(format!("error parsing {what}: {error}"));
            }
        }
    }
    if completed.changed() && !completed.is_empty() && spec.text("completionMode") != "Indexed" {
        completed.invalid("cannot set non-empty completedIndexes when non-indexed completion mode");
    }
    if failed.changed() && failed.is_set() && !per_index {
        failed.invalid("cannot set non-null failedIndexes when backoffLimitPerIndex is null");
    }
    if (failed.changed() || completed.changed())
        && let Some(completions) = completions
        && let Some(index) = indexes::overlap(completed.str(), failed.str(), completions)
    {
        failed.invalid(format!("failedIndexes and completedIndexes overlap at index: {index}"));
    }
}

/// What a job that has met its criteria is not.
fn met(spec: Cursor<'_>, status: Cursor<'_>) {
    let conditions = status.field("conditions");
    let now = |kind: &str| is_true(status.value, kind);
    for (other, detail) in [
        ("Failed", "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        ("FailureTarget", "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
    ] {
        if now("SuccessCriteriaMet") && now(other) {
            conditions.invalid_unshown(detail);
        }
    }
    if spec.has("successPolicy") && !now("SuccessCriteriaMet") && now("Complete") {
        let detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        conditions.invalid_unshown(detail);
    }
}

/// What was said once and stays.
fn lasts(spec: Cursor<'_>, status: Cursor<'_>) {
    let conditions = status.field("conditions");
    let (now, before) = (|kind: &str| is_true(status.value, kind), |kind: &str| is_true(status.old, kind));
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if before(kind) && !now(kind) {
            conditions.invalid_unshown(format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    let scaled = spec.text("completionMode") == "Indexed" && spec.at("completions") == spec.at("parallelism");
    for (count, counted) in [("failed", true), ("succeeded", !scaled)] {
        if counted && status.int(count) < status.old.int(count).unwrap_or_default() {
            status.field(count).invalid(format!("cannot decrease the {count} counter"));
        }
    }
    let (end, start) = (status.field("completionTime"), status.field("startTime"));
    if end.is_set() && !end.old.is_null() && end.changed() {
        end.invalid("field is immutable");
    }
    let says = |status: &Value, value: &str| {
        status.items("conditions").iter().any(|c| c.text("type") == "Suspended" && c.text("status") == value)
    };
    let resumes = says(status.old, "True") && says(status.value, "False");
    if !start.old.is_null() && start.changed() && !resumes && !spec.flag("suspend") {
        start.invalid("field is immutable for unsuspended job once set");
    }
    if before("SuccessCriteriaMet") && !now("SuccessCriteriaMet") {
        conditions.invalid_unshown("cannot disable the SuccessCriteriaMet=True condition");
    }
    if before("Complete") && !before("SuccessCriteriaMet") && now("SuccessCriteriaMet") {
        let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        conditions.invalid_unshown(detail);
    }
}
