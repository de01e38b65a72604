//! What may change of a pod that exists.

use serde_json::{Value, json};

use super::annotations;
use crate::{
    access::{Fields, Get as _, copy, entries, object, remove, same},
    field::{FieldError, Path},
    goformat::go_quote,
    resources::validate::{cursor::Cursor, difference::changed},
};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(in crate::resources::validate) fn update(pod: Cursor<'_>) {
    let spec = pod.field("spec");
    let before = spec.old;
    annotations::kept(pod.field("metadata.annotations"));
    for list in ["containers", "initContainers"] {
        if spec.list(list).len() != before.items(list).len() {
            return spec.field(list).forbidden("pod updates may not add or remove containers");
        }
    }
    if !deadline(spec.field("activeDeadlineSeconds")) {
        return;
    }
    added_tolerations(spec.field("tolerations"));
    let gates = before.items("schedulingGates");
    for gate in spec.each("schedulingGates").map(|gate| gate.field("name")) {
        if !gates.iter().any(|known| known.text("name") == gate.str()) {
            let name = gate.str();
            gate.forbidden(format!("only deletion is allowed, but found new scheduling gate '{name}'"));
        }
    }
    let mut allowed = spec.value.clone();
    for list in ["containers", "initContainers"] {
        for (container, before) in entries(&mut allowed, list).zip(before.items(list)) {
            copy(container, before, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        copy(&mut allowed, before, key);
    }
    let grace = spec.field("terminationGracePeriodSeconds");
    if grace.old.as_i64().is_some_and(|seconds| seconds < 0) && grace.number() == Some(1) {
        copy(&mut allowed, before, "terminationGracePeriodSeconds");
    }
    if !before.items("schedulingGates").is_empty() {
        gated(spec, &mut allowed);
    }
    if !same(&allowed, before) {
        let lines = changed(&allowed, before);
        spec.forbidden(format!("pod updates may not change fields other than {UPDATABLE}\n{lines}"));
    }
}

/// False where the check of the pod ends here.
fn deadline(deadline: Cursor<'_>) -> bool {
    match (deadline.number(), deadline.old.as_i64()) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            deadline.between(0, i64::from(i32::MAX));
            return false;
        }
        (Some(seconds), Some(before)) if before < seconds => {
            deadline.invalid("must be less than or equal to previous value");
            return false;
        }
        (None, Some(_)) => deadline.invalid("must not update from a positive integer to nil value"),
        _ => {}
    }
    true
}

/// A toleration stays as it was but for how long it holds; more may be added.
fn added_tolerations(tolerations: Cursor<'_>) {
    let bare = |toleration: &Value| {
        let mut toleration = toleration.clone();
        remove(&mut toleration, "tolerationSeconds");
        toleration
    };
    let new: Vec<Value> = tolerations.values().iter().map(bare).collect();
    let kept = |old: Value| new.iter().any(|toleration| same(toleration, &old));
    if !tolerations.old.items("").iter().map(bare).all(kept) {
        tolerations.forbidden("existing toleration can not be modified except its tolerationSeconds");
    }
}

/// A pod nobody schedules yet may still be narrowed down.
fn gated(spec: Cursor<'_>, allowed: &mut Value) {
    let before = spec.old;
    let selector = spec.field("nodeSelector");
    if selector.changed() {
        let kept = |(key, value): (&String, &Value)| selector.value.get(key) == Some(value);
        if !selector.old.as_object().into_iter().flatten().all(kept) {
            selector.invalid("only additions to spec.nodeSelector are allowed (no mutations or deletions)");
        }
        copy(allowed, before, "nodeSelector");
    }
    let affinity = spec.field("affinity.nodeAffinity");
    if !affinity.changed() {
        return;
    }
    narrowed(affinity);
    if !before.has("affinity.nodeAffinity") && !allowed.has("affinity") {
        return;
    }
    if !before.has("affinity") && allowed.fields("affinity").is_none_or(only_node_affinity) {
        remove(allowed, "affinity");
    } else if let Some(own) = object(allowed, "affinity") {
        copy(own, before.at("affinity"), "nodeAffinity");
    }
}

fn only_node_affinity(affinity: &Fields) -> bool {
    affinity.iter().all(|(key, value)| key == "nodeAffinity" || value.is_null())
}

/// Required terms that were there stay, and each is only added to.
fn narrowed(affinity: Cursor<'_>) {
    let terms = affinity.field("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    let old = terms.old.items("");
    if !old.is_empty() && old.len() != terms.values().len() {
        let shown: Value = terms.values().iter().map(printed).collect();
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return terms.invalid_value(shown, why);
    }
    for (term, old) in terms.items().zip(old) {
        if !only_added(term.value, old) {
            term.invalid_value(printed(term.value), "only additions are allowed (no mutations or deletions)");
        }
    }
}

/// A term as upstream prints it: its internal type, whose fields have Go's names.
fn printed(term: &Value) -> Value {
    let list = |list: &str| -> Value {
        let items = term.items(list).iter();
        let print =
            |r: &Value| json!({"Key": r.at("key"), "Operator": r.at("operator"), "Values": r.at("values")});
        if term.items(list).is_empty() { Value::Null } else { items.map(print).collect() }
    };
    json!({"MatchExpressions": list("matchExpressions"), "MatchFields": list("matchFields")})
}

/// Requirements are added behind those that were there. A term of none matches nothing, and stays one of none.
fn only_added(new: &Value, old: &Value) -> bool {
    let lists = ["matchExpressions", "matchFields"].map(|list| (new.items(list), old.items(list)));
    if lists.iter().all(|(_, old)| old.is_empty()) {
        return lists.iter().all(|(new, _)| new.is_empty());
    }
    lists.iter().all(|(new, old)| {
        new.len() >= old.len() && new.iter().zip(old.iter()).all(|(new, old)| same(new, old))
    })
}

/// Ephemeral containers are added, never changed or taken away.
pub(in crate::resources::validate) fn update_ephemeral_containers(pod: Cursor<'_>) {
    if annotations::was_mirror(pod) {
        // Upstream forgets what else it found, and names no field.
        pod.forget();
        let error = FieldError::forbidden(&Path::root(), "static pods do not support ephemeral containers");
        return pod.add(vec![FieldError { field: String::new(), ..error }]);
    }
    super::pod(pod);
    annotations::kept(pod.field("metadata.annotations"));
    let list = pod.field("spec.ephemeralContainers");
    for before in list.old.items("") {
        let name = before.text("name");
        let what = match list.values().iter().find(|container| container.text("name") == name) {
            None => "removed",
            Some(container) if !same(container, before) => "changed",
            Some(_) => continue,
        };
        list.forbidden(format!("existing ephemeral containers {} may not be {what}\n", go_quote(name)));
    }
}
