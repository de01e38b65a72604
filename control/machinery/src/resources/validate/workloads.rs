//! What makes pods from a template and keeps them.

use serde_json::{Value, json};

use super::{claim, cursor::Cursor, pod, selector::MISMATCH};
use crate::access::{Get as _, existing, remove, same, set};

/// A template whose pods run for good.
fn running_template(kind: &str, template: Cursor<'_>) {
    pod::template(template);
    runs_for_good(kind, template);
}

/// What a controller keeps running must not end by itself.
fn runs_for_good(kind: &str, template: Cursor<'_>) {
    let policy = template.field("spec.restartPolicy");
    if policy.str() != "Always" {
        policy.unsupported(&["Always"]);
    }
    if template.has("spec.activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        template.field("spec.activeDeadlineSeconds").forbidden(detail);
    }
}

/// A strategy of no known type. Upstream prints its internal type, whose fields have Go's names.
fn unknown_strategy(strategy: Cursor<'_>, supported: &[&str]) {
    let value = json!({"Type": strategy.text("type"), "RollingUpdate": strategy.at("rollingUpdate")});
    strategy.unsupported_value(value, supported);
}

pub(super) fn deployment(deployment: Cursor<'_>) {
    let spec = deployment.field("spec");
    spec.field("replicas").not_negative();
    spec.selects_template("deployment");
    running_template("ReplicaSet", spec.field("template"));
    let strategy = spec.field("strategy");
    let rolling = strategy.field("rollingUpdate");
    match (strategy.text("type"), rolling.is_set()) {
        ("Recreate", true) => rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"),
        ("Recreate", false) => {}
        ("RollingUpdate", true) => {
            let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
            unavailable.count_or_percent();
            surge.count_or_percent();
            if unavailable.is_zero() && surge.is_zero() {
                unavailable.invalid("may not be 0 when `maxSurge` is 0");
            }
            unavailable.not_over_100_percent();
        }
        ("RollingUpdate", false) => rolling.missing("this should be defaulted and never be nil"),
        _ => unknown_strategy(strategy, &["Recreate", "RollingUpdate"]),
    }
    spec.not_negatives(&["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"]);
    let deadline = spec.field("progressDeadlineSeconds");
    if deadline.number().is_some_and(|deadline| deadline <= spec.int("minReadySeconds")) {
        deadline.invalid("must be greater than minReadySeconds");
    }
}

pub(super) fn replica_set(set: Cursor<'_>) {
    let spec = set.field("spec");
    spec.not_negatives(&["replicas", "minReadySeconds"]);
    // Upstream's text names the other kind.
    spec.selects_template("deployment");
    running_template("ReplicaSet", spec.field("template"));
}

pub(super) fn daemon_set(set: Cursor<'_>) {
    let spec = set.field("spec");
    if spec.has("selector") {
        spec.selects_template("daemonset");
    } else {
        // Upstream takes a missing selector for one that selects nothing.
        spec.field("template.metadata.labels").invalid(MISMATCH);
    }
    running_template("DaemonSet", spec.field("template"));
    spec.field("minReadySeconds").not_negative();
    let strategy = spec.field("updateStrategy");
    let rolling = strategy.field("rollingUpdate");
    match (strategy.text("type"), rolling.is_set()) {
        ("OnDelete", _) => {}
        ("RollingUpdate", true) => daemon_rolling_update(rolling),
        ("RollingUpdate", false) => rolling.missing(""),
        _ => unknown_strategy(strategy, &["RollingUpdate", "OnDelete"]),
    }
    spec.field("revisionHistoryLimit").not_negative();
}

fn daemon_rolling_update(rolling: Cursor<'_>) {
    let (unavailable, surge) = (rolling.field("maxUnavailable"), rolling.field("maxSurge"));
    for amount in [unavailable, surge] {
        amount.count_or_percent();
        amount.not_over_100_percent();
    }
    match (unavailable.is_zero(), surge.is_zero()) {
        (false, false) => surge.invalid("may not be set when maxUnavailable is non-zero"),
        (true, true) => unavailable.missing("cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

/// What holds for every stateful set; a service's name and claims never change, and are not judged again.
pub(super) fn stateful_set(set: Cursor<'_>) {
    // A set an older server let through may be changed for all that is wrong with its template.
    let update = set.is_update();
    let tolerated = update && !set.was_fine(|old| stateful_set_spec(old, true, false));
    stateful_set_spec(set, update, tolerated);
}

/// `kept`: what may not change is not judged again. `tolerated`: neither is the template.
fn stateful_set_spec(set: Cursor<'_>, kept: bool, tolerated: bool) {
    let spec = set.field("spec");
    let policy = spec.field("podManagementPolicy");
    if policy.required() && !policy.is_enumerated() {
        policy.invalid("must be 'OrderedReady' or 'Parallel'");
    }
    let strategy = spec.field("updateStrategy");
    let rolling = strategy.field("rollingUpdate");
    match strategy.text("type") {
        "" => strategy.missing(""),
        "OnDelete" if rolling.is_set() => rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"),
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.field("partition").not_negative();
            if let Some(most) = rolling.field("maxUnavailable").if_set() {
                most.count_or_percent();
                if most.is_zero() {
                    most.invalid("cannot be 0");
                }
                most.not_over_100_percent();
            }
        }
        _ => strategy.invalid("must be 'RollingUpdate' or 'OnDelete'"),
    }
    if !kept {
        spec.each("volumeClaimTemplates").for_each(|template| claim::of_template(template.field("spec")));
    }
    spec.field("persistentVolumeClaimRetentionPolicy").plain(&["whenDeleted", "whenScaled"]);
    spec.not_negatives(&["replicas", "minReadySeconds", "ordinals.start"]);
    if !kept {
        spec.field("serviceName").optional_format(crate::names::dns1123_label);
    }
    spec.selects_template("statefulset");
    let template = as_it_will_run(spec.value);
    let check = if tolerated { runs_for_good } else { running_template };
    spec.field("template").over(&template, |template| check("StatefulSet", template));
}

/// A set's template as its pods will have it: named after the set, with volumes for its claims.
fn as_it_will_run(spec: &Value) -> Value {
    let mut template = spec.at("template").clone();
    let Some(pod) = existing(&mut template, "spec") else { return template };
    for key in ["hostname", "subdomain"] {
        remove(pod, key);
    }
    let claims: Vec<&str> =
        spec.items("volumeClaimTemplates").iter().map(|c| c.text("metadata.name")).collect();
    if !claims.is_empty() {
        let own = pod.items("volumes").iter().filter(|v| !claims.contains(&v.text("name"))).cloned();
        let made =
            claims.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        let volumes: Vec<Value> = made.chain(own).collect();
        set(pod, "volumes", volumes);
    }
    template
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

pub(super) fn stateful_set_update(set: Cursor<'_>) {
    let spec = set.field("spec");
    let mut allowed = spec.value.clone();
    for key in STATEFUL_SET_MUTABLE {
        self::set(&mut allowed, key, spec.old.at(key).clone());
    }
    if !same(&allowed, spec.old) {
        spec.forbidden(
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}

pub(super) fn replication_controller(controller: Cursor<'_>) {
    let spec = controller.field("spec");
    spec.field("minReadySeconds").not_negative();
    spec.field("selector").required();
    spec.field("replicas").not_negative();
    let template = spec.field("template");
    if !template.is_set() {
        return template.missing("");
    }
    let labels = template.field("metadata.labels");
    if spec.field("selector").entries().any(|(key, wanted)| labels.value.get(key) != Some(wanted.value)) {
        labels.invalid(MISMATCH);
    }
    running_template("ReplicationController", template);
}

pub(super) fn pod_template(object: Cursor<'_>) {
    pod::template(object.field("template"));
}

/// The counts of a status are not negative, and none but the whole exceeds the whole.
fn counts<'v>(status: Cursor<'v>, all: &[&'v str], parts: &[&'v str]) {
    status.not_negatives(all);
    for part in parts.iter().map(|part| status.field(part)) {
        if part.number().unwrap_or_default() > status.int("replicas") {
            part.invalid("cannot be greater than status.replicas");
        }
    }
}

/// What is available is ready.
fn available(status: Cursor<'_>, detail: &str) {
    if status.int("availableReplicas") > status.int("readyReplicas") {
        status.field("availableReplicas").invalid(detail);
    }
}

/// Collisions are counted upwards.
fn collisions(status: Cursor<'_>) {
    let count = status.field("collisionCount");
    if count.old.as_i64() > count.number() {
        count.invalid_value(count.number().unwrap_or_default(), "cannot be decremented");
    }
}

/// Of replica sets and replication controllers.
pub(super) fn controller_status(controller: Cursor<'_>) {
    let status = controller.field("status");
    let all = [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ];
    counts(status, &all, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"]);
    available(status, "cannot be greater than readyReplicas");
}

pub(super) fn deployment_status(deployment: Cursor<'_>) {
    let status = deployment.field("status");
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
    counts(status, &all, &["updatedReplicas", "readyReplicas", "availableReplicas"]);
    available(status, "cannot be greater than readyReplicas");
    collisions(status);
}

pub(super) fn stateful_set_status(set: Cursor<'_>) {
    let status = set.field("status");
    let all = [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ];
    counts(status, &all, &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"]);
    available(status, "cannot be greater than status.readyReplicas");
    collisions(status);
}

pub(super) fn daemon_set_status(set: Cursor<'_>) {
    let status = set.field("status");
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
    counts(status, &all, &[]);
    collisions(status);
}

pub(super) fn controller_revision(revision: Cursor<'_>) {
    revision.field("revision").not_negative();
}

pub(super) fn controller_revision_create(revision: Cursor<'_>) {
    let data = revision.field("data");
    match data.value {
        Value::Null => data.missing("data is mandatory"),
        Value::Object(_) => {}
        _ => data.missing("data must be a valid JSON object"),
    }
}
