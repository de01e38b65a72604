//! What makes pods from a template and keeps them.

use serde_json::{Value, json};

use super::{
    pod::{pod_spec, template},
    storage::persistent_volume_claim,
};
use crate::access::{Fields, Get, default, default_text, entries, object, set};

pub(super) fn deployment(deployment: &mut Value) {
    let Some(spec) = object(deployment, "spec") else { return };
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = object(spec, "strategy") {
        default_text(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = object(strategy, "rollingUpdate")
        {
            default(rolling, "maxUnavailable", "25%");
            default(rolling, "maxSurge", "25%");
        }
    }
    template(spec);
}

pub(super) fn daemon_set(set: &mut Value) {
    let Some(spec) = object(set, "spec") else { return };
    default(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = object(spec, "updateStrategy") {
        default_text(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = object(strategy, "rollingUpdate")
        {
            default(rolling, "maxUnavailable", 1);
            default(rolling, "maxSurge", 0);
        }
    }
    template(spec);
}

pub(super) fn stateful_set(set: &mut Value) {
    let Some(spec) = object(set, "spec") else { return };
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default_text(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = object(spec, "updateStrategy") {
        let chosen = !strategy.text("type").is_empty();
        default_text(strategy, "type", "RollingUpdate");
        // A strategy the user wrote out without its parameters stays without them.
        if strategy.text("type") == "RollingUpdate"
            && (!chosen || strategy.has("rollingUpdate"))
            && let Some(rolling) = object(strategy, "rollingUpdate")
        {
            default(rolling, "partition", 0);
        }
    }
    if let Some(policy) = object(spec, "persistentVolumeClaimRetentionPolicy") {
        default_text(policy, "whenDeleted", "Retain");
        default_text(policy, "whenScaled", "Retain");
    }
    for claim in entries(spec, "volumeClaimTemplates") {
        default_text(claim, "apiVersion", "v1");
        default_text(claim, "kind", "PersistentVolumeClaim");
        persistent_volume_claim(claim);
    }
    template(spec);
}

pub(super) fn replica_set(set: &mut Value) {
    let Some(spec) = object(set, "spec") else { return };
    default(spec, "replicas", 1);
    template(spec);
}

/// The older kind also takes its own labels and its selector from the template.
pub(super) fn replication_controller(controller: &mut Value) {
    let labels = controller.fields("spec.template.metadata.labels").filter(|l| !l.is_empty()).cloned();
    if let Some(labels) = labels {
        labels_where_none(controller, &labels);
        if let Some(spec) = object(controller, "spec")
            && spec.fields("selector").is_none_or(Fields::is_empty)
        {
            set(spec, "selector", labels);
        }
    }
    let Some(spec) = object(controller, "spec") else { return };
    default(spec, "replicas", 1);
    // Unlike a replica set's, its template may be missing, for validation to say so.
    if spec.has("template") {
        template(spec);
    }
}

/// Gives an object that has no labels those of its template.
pub(super) fn labels_where_none(object: &mut Value, labels: &Fields) {
    if object.fields("metadata.labels").is_none_or(Fields::is_empty)
        && let Some(metadata) = crate::access::object(object, "metadata")
    {
        set(metadata, "labels", json!(labels));
    }
}

pub(super) fn pod_template(object: &mut Value) {
    if let Some(spec) = self::object(object, "template").and_then(|template| self::object(template, "spec")) {
        pod_spec(spec);
    }
}
