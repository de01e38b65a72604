//! What makes pods from a template and keeps them.

use serde_json::{Value, json};

use super::{Errors, pod, rules, selector, storage};
use crate::{
    field::{FieldError, Path},
    resources::access::{Fields, Get, existing, remove, same, set},
};

/// A template whose pods run for good.
fn running_template(kind: &str, path: &Path, spec: &Value, errors: &mut Errors) {
    let path = path.child("template");
    pod::template(&path, spec.at("template"), errors);
    let policy = spec.text("template.spec.restartPolicy");
    if policy != "Always" {
        let path = path.child("spec").child("restartPolicy");
        errors.push(FieldError::not_supported(&path, policy, &["Always"]));
    }
    if spec.has("template.spec.activeDeadlineSeconds") {
        let path = path.child("spec").child("activeDeadlineSeconds");
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(&path, detail));
    }
}

pub(super) fn deployment(deployment: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), deployment.at("spec"));
    rules::not_negative(&path.child("replicas"), spec.at("replicas"), errors);
    selector::of_template("deployment", &path, spec, errors);
    running_template("ReplicaSet", &path, spec, errors);
    let (strategy, strategy_path) = (spec.at("strategy"), path.child("strategy"));
    match strategy.text("type") {
        "Recreate" => {
            if strategy.has("rollingUpdate") {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(FieldError::forbidden(&strategy_path.child("rollingUpdate"), detail));
            }
        }
        "RollingUpdate" => {
            let (path, rolling) = (strategy_path.child("rollingUpdate"), strategy.at("rollingUpdate"));
            if rolling.is_null() {
                let detail = "this should be defaulted and never be nil";
                errors.push(FieldError::required(&path, detail));
            } else {
                rolling_update(&path, rolling, errors);
            }
        }
        other => {
            let supported = ["Recreate", "RollingUpdate"];
            // Upstream prints its internal type, whose fields have Go's names.
            let value = json!({"Type": other, "RollingUpdate": strategy.at("rollingUpdate")});
            errors.push(FieldError::not_supported(&strategy_path, value, &supported));
        }
    }
    let counts = ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"];
    rules::not_negatives(&path, spec, &counts, errors);
    let ready = spec.int("minReadySeconds").unwrap_or_default();
    if let Some(deadline) = spec.int("progressDeadlineSeconds").filter(|deadline| *deadline <= ready) {
        let detail = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid(&path.child("progressDeadlineSeconds"), deadline, detail));
    }
}

fn rolling_update(path: &Path, rolling: &Value, errors: &mut Errors) {
    let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
    rules::count_or_percent(&path.child("maxUnavailable"), unavailable, errors);
    rules::count_or_percent(&path.child("maxSurge"), surge, errors);
    if rules::is_zero(unavailable) && rules::is_zero(surge) {
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(&path.child("maxUnavailable"), unavailable.clone(), detail));
    }
    rules::not_over_100_percent(&path.child("maxUnavailable"), unavailable, errors);
}

pub(super) fn replica_set(set: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), set.at("spec"));
    rules::not_negatives(&path, spec, &["replicas", "minReadySeconds"], errors);
    // Upstream's text names the other kind.
    selector::of_template("deployment", &path, spec, errors);
    running_template("ReplicaSet", &path, spec, errors);
}

pub(super) fn daemon_set(set: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), set.at("spec"));
    if spec.has("selector") {
        selector::of_template("daemonset", &path, spec, errors);
    } else {
        // Upstream takes a missing selector for one that selects nothing.
        let path = path.child("template").child("metadata").child("labels");
        let labels = spec.at("template.metadata.labels").clone();
        errors.push(FieldError::invalid(&path, labels, "`selector` does not match template `labels`"));
    }
    running_template("DaemonSet", &path, spec, errors);
    rules::not_negative(&path.child("minReadySeconds"), spec.at("minReadySeconds"), errors);
    let (strategy, strategy_path) = (spec.at("updateStrategy"), path.child("updateStrategy"));
    match strategy.text("type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let (path, rolling) = (strategy_path.child("rollingUpdate"), strategy.at("rollingUpdate"));
            if rolling.is_null() {
                errors.push(FieldError::required(&path, ""));
            } else {
                daemon_rolling_update(&path, rolling, errors);
            }
        }
        other => {
            let supported = ["RollingUpdate", "OnDelete"];
            // Upstream prints its internal type, whose fields have Go's names.
            let value = json!({"Type": other, "RollingUpdate": strategy.at("rollingUpdate")});
            errors.push(FieldError::not_supported(&strategy_path, value, &supported));
        }
    }
    rules::not_negative(&path.child("revisionHistoryLimit"), spec.at("revisionHistoryLimit"), errors);
}

fn daemon_rolling_update(path: &Path, rolling: &Value, errors: &mut Errors) {
    for key in ["maxUnavailable", "maxSurge"] {
        rules::count_or_percent(&path.child(key), rolling.at(key), errors);
        rules::not_over_100_percent(&path.child(key), rolling.at(key), errors);
    }
    match (rules::is_zero(rolling.at("maxUnavailable")), rules::is_zero(rolling.at("maxSurge"))) {
        (false, false) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.push(FieldError::invalid(&path.child("maxSurge"), rolling.at("maxSurge").clone(), detail));
        }
        (true, true) => {
            let detail = "cannot be 0 when maxSurge is 0";
            errors.push(FieldError::required(&path.child("maxUnavailable"), detail));
        }
        _ => {}
    }
}

/// What holds for every stateful set; a service's name and claims that `old` (null for a new set) has never change, and
/// are not judged again.
pub(super) fn stateful_set(set: &Value, old: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), set.at("spec"));
    let policy = spec.text("podManagementPolicy");
    if rules::required(&path.child("podManagementPolicy"), policy, errors)
        && !["OrderedReady", "Parallel"].contains(&policy)
    {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        errors.push(FieldError::invalid(&path.child("podManagementPolicy"), policy, detail));
    }
    let (strategy, strategy_path) = (spec.at("updateStrategy"), path.child("updateStrategy"));
    match strategy.text("type") {
        "" => errors.push(FieldError::required(&strategy_path, "")),
        "OnDelete" => {
            if strategy.has("rollingUpdate") {
                let detail = "only allowed for updateStrategy 'RollingUpdate'";
                let value = strategy.at("rollingUpdate").clone();
                errors.push(FieldError::invalid(&strategy_path.child("rollingUpdate"), value, detail));
            }
        }
        "RollingUpdate" => {
            let (path, rolling) = (strategy_path.child("rollingUpdate"), strategy.at("rollingUpdate"));
            rules::not_negative(&path.child("partition"), rolling.at("partition"), errors);
            if rolling.has("maxUnavailable") {
                let (path, most) = (path.child("maxUnavailable"), rolling.at("maxUnavailable"));
                rules::count_or_percent(&path, most, errors);
                if rules::is_zero(most) {
                    errors.push(FieldError::invalid(&path, most.clone(), "cannot be 0"));
                }
                rules::not_over_100_percent(&path, most, errors);
            }
        }
        _ => {
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::invalid(&strategy_path, strategy.clone(), detail));
        }
    }
    if old.is_null() {
        for (index, claim) in spec.items("volumeClaimTemplates").iter().enumerate() {
            let lenient = claim.has("spec.dataSource.apiGroup") || claim.has("spec.dataSourceRef.apiGroup");
            let path = path.child("volumeClaimTemplates").index(index).child("spec");
            storage::claim_spec(&path, claim.at("spec"), lenient, errors);
        }
    }
    for key in ["whenDeleted", "whenScaled"] {
        let path = path.child("persistentVolumeClaimRetentionPolicy").child(key);
        let policy = spec.at("persistentVolumeClaimRetentionPolicy").text(key);
        rules::supported_or_empty(&path, policy, &["Delete", "Retain"], errors);
    }
    rules::not_negatives(&path, spec, &["replicas", "minReadySeconds"], errors);
    rules::not_negative(&path.child("ordinals").child("start"), spec.at("ordinals.start"), errors);
    let service = spec.text("serviceName");
    if old.is_null() && !service.is_empty() {
        rules::label(&path.child("serviceName"), service, errors);
    }
    selector::of_template("statefulset", &path, spec, errors);
    running_template("StatefulSet", &path, &as_it_will_run(spec), errors);
}

/// The set's spec with its template as its pods will have it: named after the set, with volumes for its claims.
fn as_it_will_run(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let claims: Vec<String> =
        spec.items("volumeClaimTemplates").iter().map(|c| c.text("metadata.name").to_owned()).collect();
    let Some(pod) = existing(&mut spec, "template.spec") else { return spec };
    for key in ["hostname", "subdomain"] {
        remove(pod, key);
    }
    if !claims.is_empty() {
        let own = pod
            .items("volumes")
            .iter()
            .filter(|v| !claims.iter().any(|name| name == v.text("name")))
            .cloned();
        let made =
            claims.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        let volumes: Vec<Value> = made.chain(own).collect();
        set(pod, "volumes", volumes);
    }
    spec
}

/// What of a stateful set may change while it lives.
const STATEFUL_SET_MUTABLE: [&str; 7] = [
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

pub(super) fn stateful_set_update(new: &Value, old: &Value, errors: &mut Errors) {
    let mut allowed = new.at("spec").clone();
    for key in STATEFUL_SET_MUTABLE {
        set(&mut allowed, key, old.at("spec").at(key).clone());
    }
    if !same(&allowed, old.at("spec")) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden(&Path::new("spec"), detail));
    }
}

/// The pods a workload owns are found by its selector, which is why that never changes.
pub(super) fn selector_update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec").child("selector");
    rules::immutable(&path, new.at("spec.selector"), old.at("spec.selector"), errors);
}

pub(super) fn replication_controller(controller: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), controller.at("spec"));
    rules::not_negative(&path.child("minReadySeconds"), spec.at("minReadySeconds"), errors);
    let wanted = spec.fields("selector");
    if wanted.is_none_or(Fields::is_empty) {
        errors.push(FieldError::required(&path.child("selector"), ""));
    }
    rules::not_negative(&path.child("replicas"), spec.at("replicas"), errors);
    let template = path.child("template");
    if !spec.has("template") {
        errors.push(FieldError::required(&template, ""));
        return;
    }
    let empty = Fields::new();
    let labels = spec.fields("template.metadata.labels").unwrap_or(&empty);
    if wanted.is_some_and(|wanted| wanted.iter().any(|(key, value)| labels.get(key) != Some(value))) {
        let path = template.child("metadata").child("labels");
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(&path, Value::Object(labels.clone()), detail));
    }
    running_template("ReplicationController", &path, spec, errors);
}

pub(super) fn pod_template(object: &Value, errors: &mut Errors) {
    pod::template(&Path::new("template"), object.at("template"), errors);
}

/// The counts of a status are not negative, and none but the whole exceeds the whole.
fn counts(new: &Value, all: &[&str], parts: &[&str], errors: &mut Errors) {
    let (path, status) = (Path::new("status"), new.at("status"));
    rules::not_negatives(&path, status, all, errors);
    let whole = status.int("replicas").unwrap_or_default();
    for key in parts {
        let count = status.int(key).unwrap_or_default();
        if count > whole {
            let detail = "cannot be greater than status.replicas";
            errors.push(FieldError::invalid(&path.child(key), count, detail));
        }
    }
}

/// What is available is ready.
fn available(new: &Value, detail: &str, errors: &mut Errors) {
    let available = new.int("status.availableReplicas").unwrap_or_default();
    if available > new.int("status.readyReplicas").unwrap_or_default() {
        errors.push(FieldError::invalid(&Path::from("status.availableReplicas"), available, detail));
    }
}

/// Collisions are counted upwards.
fn collisions(new: &Value, old: &Value, errors: &mut Errors) {
    let (now, before) = (new.int("status.collisionCount"), old.int("status.collisionCount"));
    if before.is_some_and(|before| now.is_none_or(|now| now < before)) {
        let path = Path::from("status.collisionCount");
        errors.push(FieldError::invalid(&path, now.unwrap_or_default(), "cannot be decremented"));
    }
}

/// Of replica sets and replication controllers.
pub(super) fn controller_status(new: &Value, _old: &Value, errors: &mut Errors) {
    let all = [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ];
    counts(new, &all, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], errors);
    available(new, "cannot be greater than readyReplicas", errors);
}

pub(super) fn deployment_status(new: &Value, old: &Value, errors: &mut Errors) {
    let all = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    counts(new, &all, &["updatedReplicas", "readyReplicas", "availableReplicas"], errors);
    available(new, "cannot be greater than readyReplicas", errors);
    collisions(new, old, errors);
}

pub(super) fn stateful_set_status(new: &Value, old: &Value, errors: &mut Errors) {
    let all = [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ];
    let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    counts(new, &all, &parts, errors);
    available(new, "cannot be greater than status.readyReplicas", errors);
    collisions(new, old, errors);
}

pub(super) fn daemon_set_status(new: &Value, old: &Value, errors: &mut Errors) {
    let all = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    counts(new, &all, &[], errors);
    collisions(new, old, errors);
}

pub(super) fn controller_revision(revision: &Value, errors: &mut Errors) {
    rules::not_negative(&Path::new("revision"), revision.at("revision"), errors);
}

pub(super) fn controller_revision_create(revision: &Value, errors: &mut Errors) {
    match revision.at("data") {
        Value::Null => errors.push(FieldError::required(&Path::new("data"), "data is mandatory")),
        Value::Object(_) => {}
        _ => errors.push(FieldError::required(&Path::new("data"), "data must be a valid JSON object")),
    }
}

pub(super) fn controller_revision_update(new: &Value, old: &Value, errors: &mut Errors) {
    rules::immutable(&Path::new("data"), new.at("data"), old.at("data"), errors);
}
