//! What makes pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    age::{age, human_duration, moment, seconds, since},
    format::{containers, count, is_true, labels, name, or, selector},
};
use crate::access::Get;

pub(super) fn deployment(deployment: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(deployment.at("spec.template.spec"));
    vec![
        name(deployment),
        ready(deployment),
        count(deployment, "status.updatedReplicas"),
        count(deployment, "status.availableReplicas"),
        age(deployment, now),
        names,
        images,
        json!(selector(deployment.at("spec.selector"))),
    ]
}

fn ready(object: &Value) -> Value {
    let ready = object.int("status.readyReplicas").unwrap_or_default();
    json!(format!("{ready}/{}", object.int("spec.replicas").unwrap_or_default()))
}

/// Replica sets, and the older kind whose selector is a plain map.
pub(super) fn replica_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(set.at("spec.template.spec"));
    let wanted = set.at("spec.selector");
    let plain = set.text("kind") == "ReplicationController";
    vec![
        name(set),
        count(set, "spec.replicas"),
        count(set, "status.replicas"),
        count(set, "status.readyReplicas"),
        age(set, now),
        names,
        images,
        json!(if plain { labels(wanted) } else { selector(wanted) }),
    ]
}

pub(super) fn daemon_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(set.at("spec.template.spec"));
    vec![
        name(set),
        count(set, "status.desiredNumberScheduled"),
        count(set, "status.currentNumberScheduled"),
        count(set, "status.numberReady"),
        count(set, "status.updatedNumberScheduled"),
        count(set, "status.numberAvailable"),
        json!(labels(set.at("spec.template.spec.nodeSelector"))),
        age(set, now),
        names,
        images,
        json!(selector(set.at("spec.selector"))),
    ]
}

pub(super) fn stateful_set(set: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(set.at("spec.template.spec"));
    vec![name(set), ready(set), age(set, now), names, images]
}

pub(super) fn job(job: &Value, now: Timestamp) -> Vec<Value> {
    let (names, images) = containers(job.at("spec.template.spec"));
    let done = job.int("status.succeeded").unwrap_or_default();
    let parallel = job.int("spec.parallelism").unwrap_or_default();
    let completions = match job.int("spec.completions") {
        Some(wanted) => format!("{done}/{wanted}"),
        None if parallel > 1 => format!("{done}/1 of {parallel}"),
        None => format!("{done}/1"),
    };
    let duration = moment(job.text("status.startTime")).map_or_else(String::new, |start| {
        let end = moment(job.text("status.completionTime")).unwrap_or(now);
        human_duration(seconds(start, end))
    });
    vec![
        name(job),
        json!(job_status(job)),
        json!(completions),
        json!(duration),
        age(job, now),
        names,
        images,
        json!(selector(job.at("spec.selector"))),
    ]
}

fn job_status(job: &Value) -> &'static str {
    match () {
        () if is_true(job, "Complete") => "Complete",
        () if is_true(job, "Failed") => "Failed",
        () if job.has("metadata.deletionTimestamp") => "Terminating",
        () if is_true(job, "Suspended") => "Suspended",
        () if is_true(job, "FailureTarget") => "FailureTarget",
        () if is_true(job, "SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

/// A pointer to a boolean is printed as text, capitalised; plain booleans are cells of that type.
fn suspended(suspend: &Value) -> &'static str {
    match suspend.as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    }
}

pub(super) fn cron_job(job: &Value, now: Timestamp) -> Vec<Value> {
    let template = job.at("spec.jobTemplate.spec");
    let (names, images) = containers(template.at("template.spec"));
    let last = job.text("status.lastScheduleTime");
    vec![
        name(job),
        json!(job.text("spec.schedule")),
        json!(or(job.text("spec.timeZone"), "<none>")),
        json!(suspended(job.at("spec.suspend"))),
        json!(job.items("status.active").len()),
        json!(if last.is_empty() { "<none>".to_owned() } else { since(last, now) }),
        age(job, now),
        names,
        images,
        json!(selector(template.at("selector"))),
    ]
}

pub(super) fn pod_template(template: &Value, _: Timestamp) -> Vec<Value> {
    let (names, images) = containers(template.at("template.spec"));
    vec![name(template), names, images, json!(labels(template.at("template.metadata.labels")))]
}

pub(super) fn controller_revision(revision: &Value, now: Timestamp) -> Vec<Value> {
    let owner = revision.items("metadata.ownerReferences").iter().find(|owner| owner.flag("controller"));
    let controller = owner.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let kind = owner.text("kind").to_lowercase();
            match owner.text("apiVersion").split_once('/') {
                Some((group, _)) => format!("{kind}.{group}/{}", owner.text("name")),
                None => format!("{kind}/{}", owner.text("name")),
            }
        },
    );
    vec![name(revision), json!(controller), count(revision, "revision"), age(revision, now)]
}
