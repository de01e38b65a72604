//! Jobs and the schedules that make them.

mod indexes;
mod policies;
mod status;

use serde_json::Value;

use super::{checks::IMMUTABLE, cursor::Cursor, pod, selector::MISMATCH};
use crate::{
    access::{Fields, Get as _, copy, entries, existing, remove, same},
    cron,
    labels::Selector,
    names,
};

pub(super) use self::status::job_status;

/// An indexed job's bounds: its indexes are kept in its status.
const INDEXED_MAX: i64 = 100_000;
/// The bounds of one with more completions than that.
const HIGH_COMPLETIONS_MAX: i64 = 10_000;
/// The longest name of who else runs a job, in bytes.
const MANAGER_MAX: usize = 63;

pub(super) fn job(job: Cursor<'_>) {
    let (spec, name) = (job.field("spec"), job.field("metadata.name"));
    generated_selector(job);
    job_spec(spec);
    // Pods are named after their index.
    let completions = spec.int("completions");
    if spec.text("completionMode") == "Indexed" && completions > 0 {
        let hostname = format!("{}-{}", name.str(), completions - 1);
        if !names::dns1123_label(&hostname).is_empty() {
            name.invalid(format!("will not able to create pod with invalid DNS label: {hostname}"));
        }
    }
}

fn job_spec(spec: Cursor<'_>) {
    self::spec(spec);
    let selector = spec.field("selector");
    if !selector.is_set() {
        selector.missing("");
        // Upstream takes a missing selector for one that selects nothing.
        spec.field("template.metadata.labels").invalid(MISMATCH);
    } else {
        selector.label_selector();
        if Selector::from_label_selector(selector.value).is_ok() {
            spec.matches_template();
        }
    }
}

fn spec(spec: Cursor<'_>) {
    spec.plain(&[
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ]);
    if spec.has("maxFailedIndexes") {
        spec.field("backoffLimitPerIndex").required_with("when maxFailedIndexes is specified");
    }
    if let Some(manager) = spec.field("managedBy").if_set() {
        manager.domain_path();
        manager.bounded(MANAGER_MAX);
    }
    spec.plain(&["completionMode"]);
    let mode = spec.text("completionMode");
    if mode == "Indexed" {
        indexed(spec);
    } else if matches!(mode, "" | "NonIndexed") {
        for count in ["backoffLimitPerIndex", "maxFailedIndexes"].map(|key| spec.field(key)) {
            if count.is_set() {
                count.invalid("requires indexed completion mode");
            }
        }
    }
    policies::failure(spec);
    policies::success(spec);
    let replacement = spec.field("podReplacementPolicy");
    if spec.has("podFailurePolicy") {
        replacement.one_of(&["Failed"]);
    } else {
        replacement.is_plain();
    }
    pod::template(spec.field("template"));
    let restart = spec.field("template.spec.restartPolicy");
    match restart.str() {
        "" | "Always" => restart.missing("valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.has("podFailurePolicy") => {
            restart.invalid("only \"Never\" is supported when podFailurePolicy is specified");
        }
        "Never" | "OnFailure" => {}
        _ => restart.unsupported(&["OnFailure", "Never"]),
    }
}

fn indexed(spec: Cursor<'_>) {
    let completions = spec.field("completions");
    completions.required_with("when completion mode is Indexed");
    if spec.int("parallelism") > INDEXED_MAX {
        let detail = format!("must be less than or equal to {INDEXED_MAX} when completion mode is Indexed");
        spec.field("parallelism").invalid(detail);
    }
    let failed = spec.field("maxFailedIndexes");
    if let (Some(failures), Some(completions)) = (failed.number(), completions.number())
        && failures > completions
    {
        failed.invalid("must be less than or equal to completions");
    }
    if failed.number() > Some(INDEXED_MAX) {
        failed.invalid(format!("must be less than or equal to {INDEXED_MAX}"));
    }
    if completions.number() > Some(INDEXED_MAX) && spec.has("backoffLimitPerIndex") {
        failed.required_with(&format!("must be specified when completions is above {INDEXED_MAX}"));
        for count in [spec.field("parallelism"), failed] {
            if count.number() > Some(HIGH_COMPLETIONS_MAX) {
                count.invalid(format!(
                    "must be less than or equal to {HIGH_COMPLETIONS_MAX} when completions are above {INDEXED_MAX} and \
                     used with backoff limit per index"
                ));
            }
        }
    }
}

/// A selector the server wrote selects by the job's own uid and name.
fn generated_selector(job: Cursor<'_>) {
    let selector = job.field("spec.selector");
    if job.flag("spec.manualSelector") || !selector.is_set() {
        return;
    }
    let (uid, name) = (job.field("metadata.uid"), job.text("metadata.name"));
    uid.required();
    let labels = job.field("spec.template.metadata.labels");
    let mut wanted = vec![("controller-uid", uid.str()), ("job-name", name)];
    let prefixed =
        [("batch.kubernetes.io/controller-uid", uid.str()), ("batch.kubernetes.io/job-name", name)];
    // Jobs that are older than these labels live without.
    if !job.is_update() || prefixed.iter().all(|(key, _)| labels.old.get(key).is_some()) {
        wanted.extend(prefixed);
    }
    for (key, value) in wanted.iter().copied() {
        let (label, detail) = (labels.key(key), format!("must be '{value}'"));
        if !label.is_set() {
            label.missing(detail);
        } else if label.str() != value {
            label.invalid_value(labels.value.clone(), detail);
        }
    }
    let wanted: Fields =
        wanted.into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect();
    if Selector::from_label_selector(selector.value).is_ok_and(|parsed| !parsed.matches(&wanted)) {
        selector.invalid("`selector` not auto-generated");
    }
}

/// What never changes of a job, and the template unless the job is suspended.
pub(super) fn job_update(job: Cursor<'_>) {
    let spec = job.field("spec");
    // Upstream judges the spec a second time.
    job_spec(spec);
    let completions = spec.field("completions");
    if spec.text("completionMode") != "Indexed" {
        completions.immutable();
    } else if completions.changed() && completions.is_set() && completions.value != spec.at("parallelism") {
        completions.invalid("can only be modified in tandem with spec.parallelism");
    }
    spec.field("selector").immutable();
    template_update(job);
    for key in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        spec.field(key).immutable();
    }
}

/// What of its template a suspended job without pods may change, beside its containers' resources.
const SUSPENDED_MUTABLE: [(&str, &str); 4] = [
    ("spec", "nodeSelector"),
    ("spec.affinity", "nodeAffinity"),
    ("spec", "tolerations"),
    ("spec", "schedulingGates"),
];

fn template_update(job: Cursor<'_>) {
    let template = job.field("spec.template");
    let suspended =
        |condition: &Value| condition.text("type") == "Suspended" && condition.text("status") == "True";
    let stopped =
        !job.old.has("status.startTime") || job.old.items("status.conditions").iter().any(suspended);
    let mutable =
        job.old.flag("spec.suspend") && stopped && job.old.int("status.active").unwrap_or_default() == 0;
    if !mutable {
        return template.immutable();
    }
    let spec = template.field("spec");
    let (mut now, mut before) = (template.value.clone(), template.old.clone());
    for template in [&mut now, &mut before] {
        for (part, key) in SUSPENDED_MUTABLE {
            if let Some(part) = existing(template, part) {
                remove(part, key);
            }
        }
    }
    for list in ["spec.containers", "spec.initContainers"] {
        if now.items(list).len() == before.items(list).len() {
            for (now, before) in entries(&mut now, list).zip(entries(&mut before, list)) {
                if now.text("name") == before.text("name") {
                    copy(before, now, "resources");
                }
            }
        }
    }
    if !same(now.at("spec"), before.at("spec")) {
        spec.invalid(IMMUTABLE);
    }
}

/// A schedule's jobs are named after it, with room for the time behind.
const CRON_JOB_NAME_MAX: usize = 52;

pub(super) fn cron_job(job: Cursor<'_>) {
    let spec = job.field("spec");
    let schedule = spec.field("schedule");
    if schedule.required() {
        if let Err(error) = cron::Schedule::parse(schedule.str(), jiff::tz::TimeZone::UTC) {
            schedule.invalid(error.to_string());
        }
        // What an older server let through may stay.
        let kept = schedule.old.as_str().is_some_and(|old| old.contains("TZ"));
        match (schedule.str().contains("TZ"), kept) {
            (true, true) if spec.has("timeZone") => {
                schedule.invalid("cannot use both timeZone field and TZ or CRON_TZ in schedule");
            }
            (true, false) => {
                schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
            }
            _ => {}
        }
    }
    spec.plain(&[
        "startingDeadlineSeconds",
        "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit",
        "concurrencyPolicy",
    ]);
    let zone = spec.field("timeZone");
    if zone.is_set() && (!zone.is_update() || zone.value != zone.old) {
        time_zone(zone);
    }
    let template = spec.field("jobTemplate");
    template.field("metadata.labels").labels();
    if template.flag("spec.manualSelector") {
        template.field("spec.manualSelector").unsupported(&["nil", "false"]);
    }
    self::spec(template.field("spec"));
}

/// Longer names that are there stay.
pub(super) fn cron_job_create(job: Cursor<'_>) {
    let name = job.field("metadata.name");
    if name.str().len() > CRON_JOB_NAME_MAX {
        name.invalid(names::max_len_error(CRON_JOB_NAME_MAX));
    }
}

fn time_zone(zone: Cursor<'_>) {
    if zone.is_empty() {
        zone.invalid("timeZone must be nil or non-empty string");
    } else if zone.str().eq_ignore_ascii_case("local") {
        zone.invalid("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    } else if jiff::tz::TimeZone::get(zone.str()).is_err() {
        zone.invalid(format!("unknown time zone {}", zone.str()));
    }
}
