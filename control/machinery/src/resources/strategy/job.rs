//! A job selects its pods by its own uid, unless its user took that on.

use serde_json::Value;

use crate::access::{Get, default, object};

const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const LEGACY_CONTROLLER_UID: &str = "controller-uid";
const LEGACY_JOB_NAME: &str = "job-name";

pub(super) fn create(job: &mut Value) {
    if job.flag("spec.manualSelector") {
        return;
    }
    let (name, uid) = (job.text("metadata.name").to_owned(), job.text("metadata.uid").to_owned());
    let Some(spec) = object(job, "spec") else { return };
    // A label that is there already stays: validation then refuses the job.
    let template = object(spec, "template").and_then(|t| object(t, "metadata"));
    if let Some(labels) = template.and_then(|m| object(m, "labels")) {
        default(labels, LEGACY_JOB_NAME, name.as_str());
        default(labels, JOB_NAME, name.as_str());
        default(labels, LEGACY_CONTROLLER_UID, uid.as_str());
        default(labels, CONTROLLER_UID, uid.as_str());
    }
    if let Some(matched) = object(spec, "selector").and_then(|s| object(s, "matchLabels")) {
        default(matched, CONTROLLER_UID, uid);
    }
}
