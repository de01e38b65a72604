//! Jobs and the schedules that make them.

use serde_json::Value;

use super::{checks::IMMUTABLE, cursor::Cursor, pod};
use crate::{
    names,
    resources::access::{Get as _, copy, entries, existing, remove, same},
};

/// An indexed job's bounds: its indexes are kept in its status.
const INDEXED_MAX: i64 = 100_000;

pub(super) fn job(job: Cursor<'_>) {
    let spec = job.field("spec");
    self::spec(spec);
    if spec.has("selector") {
        spec.field("selector").label_selector();
        spec.matches_template();
    } else {
        spec.field("selector").missing("");
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
        "completionMode",
    ]);
    if spec.text("completionMode") == "Indexed" {
        indexed(spec);
    } else {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if spec.has(key) {
                spec.field(key).invalid("requires indexed completion mode");
            }
        }
    }
    failure_policy(spec);
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
}

fn failure_policy(spec: Cursor<'_>) {
    for rule in spec.field("podFailurePolicy").each("rules") {
        rule.plain(&["action"]);
        match (rule.has("onExitCodes"), rule.list("onPodConditions").is_empty()) {
            (true, false) => {
                rule.invalid_unshown("specifying both OnExitCodes and OnPodConditions is not supported");
            }
            (false, true) => {
                rule.invalid_unshown("specifying one of OnExitCodes and OnPodConditions is required");
            }
            (true, true) => {
                let codes = rule.field("onExitCodes");
                codes.plain(&["operator"]);
                if codes.list("values").is_empty() {
                    codes.field("values").invalid("at least one value is required");
                }
            }
            (false, false) => {}
        }
    }
}

/// A selector the server wrote selects by the job's own uid.
pub(super) fn job_create(job: Cursor<'_>) {
    if job.flag("spec.manualSelector") {
        return;
    }
    let (uid, name) = (job.field("metadata.uid"), job.text("metadata.name"));
    uid.required();
    let labels = job.field("spec.template.metadata.labels");
    let wanted = [
        ("batch.kubernetes.io/controller-uid", uid.str()),
        ("controller-uid", uid.str()),
        ("batch.kubernetes.io/job-name", name),
        ("job-name", name),
    ];
    for (key, value) in wanted {
        let (label, detail) = (labels.key(key), format!("must be '{value}'"));
        if !label.is_set() {
            label.missing(detail);
        } else if label.str() != value {
            labels.invalid(detail);
        }
    }
    let expected = serde_json::json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid.str()}});
    let selector = job.field("spec.selector");
    if !same(selector.value, &expected) {
        selector.invalid("`selector` not auto-generated");
    }
}

/// What never changes of a job, and the template unless the job is suspended.
pub(super) fn job_update(job: Cursor<'_>) {
    let spec = job.field("spec");
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
        if let Err(message) = cron(schedule.str()) {
            schedule.invalid(message);
        }
        if schedule.str().contains("TZ") {
            schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
        }
    }
    spec.plain(&[
        "startingDeadlineSeconds",
        "successfulJobsHistoryLimit",
        "failedJobsHistoryLimit",
        "concurrencyPolicy",
    ]);
    if spec.has("timeZone") {
        time_zone(spec.field("timeZone"));
    }
    let template = spec.field("jobTemplate");
    template.field("metadata.labels").labels();
    if template.flag("spec.manualSelector") {
        template.field("spec.manualSelector").unsupported(&["nil", "false"]);
    }
    self::spec(template.field("spec"));
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

/// Minute, hour, day of month, month, day of week.
const CRON_FIELDS: [(i64, i64, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

/// Whether a schedule can be read, and why not.
fn cron(schedule: &str) -> Result<(), String> {
    if let Some(word) = schedule.strip_prefix('@') {
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        return if known.contains(&word) || word.starts_with("every ") {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: {schedule}"))
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != CRON_FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (field, (low, high, names)) in fields.iter().zip(CRON_FIELDS) {
        for range in field.split(',') {
            cron_range(range, low, high, names)?;
        }
    }
    Ok(())
}

fn cron_range(range: &str, low: i64, high: i64, names: &[&str]) -> Result<(), String> {
    let number = |text: &str| -> Result<i64, String> {
        if let Some(index) = names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(low + i64::try_from(index).unwrap_or_default());
        }
        text.parse::<i64>().map_err(|_| {
            format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax")
        })
    };
    let (bounds, step) = match range.split_once('/') {
        Some((bounds, step)) => (bounds, Some(step)),
        None => (range, None),
    };
    let (start, end) = if matches!(bounds, "*" | "?") {
        (low, high)
    } else if let Some((start, end)) = bounds.split_once('-') {
        (number(start)?, number(end)?)
    } else {
        let start = number(bounds)?;
        (start, if step.is_some() { high } else { start })
    };
    let step = step.map_or(Ok(1), number)?;
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {range}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {range}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {range}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {range}"));
    }
    Ok(())
}
