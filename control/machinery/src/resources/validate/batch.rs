//! Jobs and the schedules that make them.

use serde_json::Value;

use super::{Errors, pod, rules, selector};
use crate::{
    field::{FieldError, Path},
    resources::access::{Get, same},
};

const COUNTS: [&str; 7] = [
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
];

/// An indexed job's bounds: its indexes are kept in its status.
const INDEXED_MAX: i64 = 100_000;

pub(super) fn job(job: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), job.at("spec"));
    self::spec(&path, spec, errors);
    if spec.has("selector") {
        selector::label_selector(&path.child("selector"), spec.at("selector"), errors);
        selector::matches_template(&path, spec.at("selector"), spec, errors);
    } else {
        errors.push(FieldError::required(&path.child("selector"), ""));
    }
}

fn spec(path: &Path, spec: &Value, errors: &mut Errors) {
    rules::not_negatives(path, spec, &COUNTS, errors);
    let mode = spec.text("completionMode");
    rules::supported_or_empty(&path.child("completionMode"), mode, &["Indexed", "NonIndexed"], errors);
    if mode == "Indexed" {
        indexed(path, spec, errors);
    } else {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(count) = spec.int(key) {
                let detail = "requires indexed completion mode";
                errors.push(FieldError::invalid(&path.child(key), count, detail));
            }
        }
    }
    failure_policy(&path.child("podFailurePolicy"), spec, errors);
    let policies: &[&str] =
        if spec.has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    let policy = spec.text("podReplacementPolicy");
    rules::supported_or_empty(&path.child("podReplacementPolicy"), policy, policies, errors);
    let template = path.child("template");
    pod::template(&template, spec.at("template"), errors);
    let restart = spec.text("template.spec.restartPolicy");
    let restart_path = template.child("spec").child("restartPolicy");
    match restart {
        "" | "Always" => {
            let detail = "valid values: \"OnFailure\", \"Never\"";
            errors.push(FieldError::required(&restart_path, detail));
        }
        "Never" => {}
        "OnFailure" => {
            if spec.has("podFailurePolicy") {
                let detail = "only \"Never\" is supported when podFailurePolicy is specified";
                errors.push(FieldError::invalid(&restart_path, restart, detail));
            }
        }
        other => {
            errors.push(FieldError::not_supported(&restart_path, other, &["OnFailure", "Never"]));
        }
    }
}

fn indexed(path: &Path, spec: &Value, errors: &mut Errors) {
    let completions = spec.int("completions");
    if completions.is_none() {
        errors.push(FieldError::required(&path.child("completions"), "when completion mode is Indexed"));
    }
    if let Some(count) = spec.int("parallelism").filter(|count| *count > INDEXED_MAX) {
        let detail = format!("must be less than or equal to {INDEXED_MAX} when completion mode is Indexed");
        errors.push(FieldError::invalid(&path.child("parallelism"), count, detail));
    }
    let (failed, failed_path) = (spec.int("maxFailedIndexes"), path.child("maxFailedIndexes"));
    if let (Some(failed), Some(completions)) = (failed, completions)
        && failed > completions
    {
        let detail = "must be less than or equal to completions";
        errors.push(FieldError::invalid(&failed_path, failed, detail));
    }
    if let Some(failed) = failed.filter(|failed| *failed > INDEXED_MAX) {
        let detail = format!("must be less than or equal to {INDEXED_MAX}");
        errors.push(FieldError::invalid(&failed_path, failed, detail));
    }
}

fn failure_policy(path: &Path, spec: &Value, errors: &mut Errors) {
    for (index, rule) in spec.items("podFailurePolicy.rules").iter().enumerate() {
        let path = path.child("rules").index(index);
        let actions = ["Count", "FailIndex", "FailJob", "Ignore"];
        rules::one_of(&path.child("action"), rule.text("action"), &actions, errors);
        match (rule.has("onExitCodes"), rule.items("onPodConditions").is_empty()) {
            (true, false) => {
                let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.push(without_value(&path, detail));
            }
            (false, true) => {
                let detail = "specifying one of OnExitCodes and OnPodConditions is required";
                errors.push(without_value(&path, detail));
            }
            (true, true) => {
                let (path, codes) = (path.child("onExitCodes"), rule.at("onExitCodes"));
                rules::one_of(&path.child("operator"), codes.text("operator"), &["In", "NotIn"], errors);
                if codes.items("values").is_empty() {
                    let detail = "at least one value is required";
                    errors.push(FieldError::invalid(
                        &path.child("values"),
                        codes.at("values").clone(),
                        detail,
                    ));
                }
            }
            (false, false) => {}
        }
    }
}

/// `f: Invalid value: detail`: upstream does not repeat the whole rule.
fn without_value(path: &Path, detail: &str) -> FieldError {
    FieldError { bad_value: None, ..FieldError::invalid(path, Value::Null, detail) }
}

/// A selector the server wrote selects by the job's own uid.
pub(super) fn job_create(job: &Value, errors: &mut Errors) {
    if job.flag("spec.manualSelector") {
        return;
    }
    let uid = job.text("metadata.uid");
    if uid.is_empty() {
        errors.push(FieldError::required(&Path::new("metadata").child("uid"), ""));
    }
    let labels = job.at("spec.template.metadata.labels");
    let path = Path::from("spec.template.metadata.labels");
    let name = job.text("metadata.name");
    let wanted = [
        ("batch.kubernetes.io/controller-uid", uid),
        ("controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
        ("job-name", name),
    ];
    for (key, value) in wanted {
        match labels.get(key).and_then(Value::as_str) {
            None => errors.push(FieldError::required(&path.key(key), format!("must be '{value}'"))),
            Some(other) if other != value => {
                let detail = format!("must be '{value}'");
                errors.push(FieldError::invalid(&path, labels.clone(), detail));
            }
            Some(_) => {}
        }
    }
    let expected = serde_json::json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    if !same(job.at("spec.selector"), &expected) {
        let path = Path::new("spec").child("selector");
        let detail = "`selector` not auto-generated";
        errors.push(FieldError::invalid(&path, job.at("spec.selector").clone(), detail));
    }
}

/// What never changes of a job, and the template unless the job is suspended and has not started.
pub(super) fn job_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let (spec, before) = (new.at("spec"), old.at("spec"));
    // An indexed job may be scaled together with its parallelism.
    let elastic = spec.text("completionMode") == "Indexed"
        && spec.has("completions")
        && spec.int("completions") == spec.int("parallelism");
    if !elastic {
        rules::immutable(
            &path.child("completions"),
            spec.at("completions"),
            before.at("completions"),
            errors,
        );
    }
    rules::immutable(&path.child("selector"), spec.at("selector"), before.at("selector"), errors);
    let paused = before.flag("suspend") && !old.has("status.startTime");
    let comparable = |spec: &Value| {
        let mut template = spec.at("template").clone();
        if paused {
            for list in ["metadata", "spec"] {
                let keys: &[&str] = match list {
                    "metadata" => &["labels", "annotations"],
                    _ => &["nodeSelector", "affinity", "tolerations", "schedulingGates"],
                };
                for key in keys {
                    if let Some(part) = template.get_mut(list) {
                        crate::resources::access::remove(part, key);
                    }
                }
            }
        }
        template
    };
    if !same(&comparable(spec), &comparable(before)) {
        let value = spec.at("template").clone();
        errors.push(FieldError::invalid(&path.child("template"), value, rules::IMMUTABLE));
    }
    for key in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        rules::immutable(&path.child(key), spec.at(key), before.at(key), errors);
    }
}

/// A schedule's jobs are named after it, with room for the time behind.
const CRON_JOB_NAME_MAX: usize = 52;

pub(super) fn cron_job(job: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), job.at("spec"));
    let schedule = spec.text("schedule");
    if rules::required(&path.child("schedule"), schedule, errors) {
        if let Err(message) = cron(schedule) {
            errors.push(FieldError::invalid(&path.child("schedule"), schedule, message));
        }
        if schedule.contains("TZ") {
            let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(FieldError::invalid(&path.child("schedule"), schedule, detail));
        }
    }
    not_negative_counts(&path, spec, errors);
    let policies = ["Allow", "Forbid", "Replace"];
    rules::one_of(&path.child("concurrencyPolicy"), spec.text("concurrencyPolicy"), &policies, errors);
    if let Some(zone) = spec.at("timeZone").as_str() {
        time_zone(&path.child("timeZone"), zone, errors);
    }
    let template = path.child("jobTemplate");
    rules::labels(
        &template.child("metadata").child("labels"),
        spec.at("jobTemplate.metadata.labels"),
        errors,
    );
    if spec.has("jobTemplate.spec.manualSelector") && spec.flag("jobTemplate.spec.manualSelector") {
        let path = template.child("spec").child("manualSelector");
        errors.push(FieldError::not_supported(&path, true, &["nil", "false"]));
    }
    self::spec(&template.child("spec"), spec.at("jobTemplate.spec"), errors);
    let name = job.text("metadata.name");
    if name.len() > CRON_JOB_NAME_MAX {
        let detail = crate::names::max_len_error(CRON_JOB_NAME_MAX);
        errors.push(FieldError::invalid(&Path::new("metadata").child("name"), name, detail));
    }
}

fn not_negative_counts(path: &Path, spec: &Value, errors: &mut Errors) {
    let counts = ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"];
    rules::not_negatives(path, spec, &counts, errors);
}

fn time_zone(path: &Path, zone: &str, errors: &mut Errors) {
    if zone.is_empty() {
        errors.push(FieldError::invalid(path, zone, "timeZone must be nil or non-empty string"));
    } else if zone.eq_ignore_ascii_case("local") {
        errors.push(FieldError::invalid(
            path,
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        ));
    } else if jiff::tz::TimeZone::get(zone).is_err() {
        errors.push(FieldError::invalid(path, zone, format!("unknown time zone {zone}")));
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
