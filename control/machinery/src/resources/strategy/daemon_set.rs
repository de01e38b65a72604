//! Daemon sets: the generation of the template, which `apps/v1` keeps in an annotation.

use serde_json::Value;

use crate::access::{Get, object, same, set};

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn noted(set: &Value) -> i64 {
    let annotation =
        set.fields("metadata.annotations").and_then(|a| a.get(TEMPLATE_GENERATION)?.as_str()?.parse().ok());
    annotation.unwrap_or_default()
}

fn note(daemon_set: &mut Value, generation: i64) {
    if let Some(annotations) =
        object(daemon_set, "metadata").and_then(|metadata| object(metadata, "annotations"))
    {
        set(annotations, TEMPLATE_GENERATION, generation.to_string());
    }
}

pub(super) fn create(daemon_set: &mut Value) {
    let first = noted(daemon_set).max(1);
    note(daemon_set, first);
}

/// Counts changes of the template, whatever the client says of the count.
pub(super) fn update(new: &mut Value, old: &Value) {
    let changed = !same(new.at("spec.template"), old.at("spec.template"));
    note(new, noted(old) + i64::from(changed));
}
