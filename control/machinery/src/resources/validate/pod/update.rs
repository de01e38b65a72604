//! What may change of a pod that exists.

use serde_json::Value;

use super::{address, rules};
use crate::{
    field::{FieldError, Path},
    resources::{
        access::{Get, copy, entries, existing, remove, same},
        validate::Errors,
    },
};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                         `spec.tolerations` (only additions to existing tolerations),\
                         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(in crate::resources::validate) fn update(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let (spec, before) = (new.at("spec"), old.at("spec"));
    for list in ["containers", "initContainers"] {
        let path = path.child(list);
        if spec.items(list).len() != before.items(list).len() {
            errors.push(FieldError::forbidden(&path, "pod updates may not add or remove containers"));
            return;
        }
    }
    if deadline(&path.child("activeDeadlineSeconds"), spec, before, errors).is_none() {
        return;
    }
    added_tolerations(&path.child("tolerations"), spec, before, errors);
    for gate in spec.items("schedulingGates") {
        if !before.items("schedulingGates").contains(gate) {
            let detail =
                format!("only deletion is allowed, but found new scheduling gate '{}'", gate.text("name"));
            errors.push(FieldError::forbidden(&path.child("schedulingGates"), detail));
        }
    }
    let mut allowed = spec.clone();
    for list in ["containers", "initContainers"] {
        for (container, before) in entries(&mut allowed, list).zip(before.items(list)) {
            copy(container, before, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        copy(&mut allowed, before, key);
    }
    let grace = "terminationGracePeriodSeconds";
    if before.int(grace).is_some_and(|seconds| seconds < 0) && spec.int(grace) == Some(1) {
        copy(&mut allowed, before, grace);
    }
    if !before.items("schedulingGates").is_empty() {
        gated(&path, &mut allowed, before, errors);
    }
    if !same(&allowed, before) {
        let detail = format!(
            "pod updates may not change fields other than {UPDATABLE}\n{}",
            changed(&allowed, before)
        );
        errors.push(FieldError::forbidden(&path, detail));
    }
}

/// None where the check of the pod ends here.
fn deadline(path: &Path, spec: &Value, before: &Value, errors: &mut Errors) -> Option<()> {
    let (new, old) = (spec.int("activeDeadlineSeconds"), before.int("activeDeadlineSeconds"));
    match (new, old) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            rules::between(path, &Value::from(seconds), 0, i64::from(i32::MAX), errors);
            return None;
        }
        (Some(seconds), Some(before)) if before < seconds => {
            let detail = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(path, seconds, detail));
            return None;
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(path, Value::Null, detail));
        }
        _ => {}
    }
    Some(())
}

/// A toleration stays as it was but for how long it holds; more may be added.
fn added_tolerations(path: &Path, spec: &Value, before: &Value, errors: &mut Errors) {
    let bare = |toleration: &Value| {
        let mut toleration = toleration.clone();
        remove(&mut toleration, "tolerationSeconds");
        toleration
    };
    let new: Vec<Value> = spec.items("tolerations").iter().map(bare).collect();
    for old in before.items("tolerations").iter().map(bare) {
        if !new.iter().any(|toleration| same(toleration, &old)) {
            let detail = "existing toleration can not be modified except its tolerationSeconds";
            errors.push(FieldError::forbidden(path, detail));
            return;
        }
    }
}

/// A pod nobody schedules yet may still be narrowed down.
fn gated(path: &Path, allowed: &mut Value, before: &Value, errors: &mut Errors) {
    if !same(allowed.at("nodeSelector"), before.at("nodeSelector")) {
        let kept = before
            .fields("nodeSelector")
            .into_iter()
            .flatten()
            .all(|(key, value)| allowed.fields("nodeSelector").and_then(|s| s.get(key)) == Some(value));
        if !kept {
            let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            let value = allowed.at("nodeSelector").clone();
            errors.push(FieldError::invalid(&path.child("nodeSelector"), value, detail));
        }
        copy(allowed, before, "nodeSelector");
    }
    let required = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let (new, old) = (allowed.items(required), before.items(required));
    let narrowed = old.is_empty()
        || (new.len() == old.len()
            && new.iter().zip(old).all(|(new, old)| {
                ["matchExpressions", "matchFields"]
                    .iter()
                    .all(|key| old.items(key).iter().all(|requirement| new.items(key).contains(requirement)))
            }));
    if narrowed && allowed.has("affinity.nodeAffinity") {
        if !before.has("affinity") && allowed.fields("affinity").is_some_and(|affinity| affinity.len() == 1) {
            remove(allowed, "affinity");
        } else if let Some(affinity) = existing(allowed, "affinity") {
            copy(affinity, before.at("affinity"), "nodeAffinity");
        }
    }
}

/// Which fields differ, a line each: upstream prints a diff of its own types here.
pub(in crate::resources::validate) fn changed(new: &Value, old: &Value) -> String {
    let mut lines = Vec::new();
    differences(&Path::new("spec"), new, old, &mut lines);
    lines.join("\n")
}

fn differences(path: &Path, new: &Value, old: &Value, lines: &mut Vec<String>) {
    match (new, old) {
        _ if same(new, old) => {}
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let null = Value::Null;
                differences(
                    &path.child(key),
                    a.get(key).unwrap_or(&null),
                    b.get(key).unwrap_or(&null),
                    lines,
                );
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&path.index(index), a, b, lines);
            }
        }
        _ => {
            lines.push(format!("- {path}: {old}"));
            lines.push(format!("+ {path}: {new}"));
        }
    }
}

/// A status may be anything its kubelet says, but containers that ended for good stay ended.
pub(in crate::resources::validate) fn update_status(new: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::new("status");
    let never = old.text("spec.restartPolicy") == "Never";
    let always = old.text("spec.restartPolicy") == "Always";
    for (list, containers) in
        [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")]
    {
        for before in old.at("status").items(list) {
            let ended = before.at("state.terminated");
            let name = before.text("name");
            let own_policy = old
                .at("spec")
                .items(containers)
                .iter()
                .find(|container| container.text("name") == name)
                .map(|container| container.text("restartPolicy"));
            // A pod that restarts, or a container with a policy of its own, may leave any state.
            if ended.is_null() || always || own_policy.is_some_and(|policy| !policy.is_empty()) {
                continue;
            }
            if ended.int("exitCode") != Some(0) && !never {
                continue;
            }
            let now = new.at("status").items(list).iter().position(|status| status.text("name") == name);
            if let Some(index) = now
                && !new.at("status").items(list).get(index).is_some_and(|s| s.has("state.terminated"))
            {
                let path = path.child(list).index(index).child("state");
                errors.push(FieldError::forbidden(&path, "may not be transitioned to non-terminated state"));
            }
        }
    }
    reported(&path, new, old, errors);
    addresses(&path, new, old, errors);
}

/// What a kubelet says of a pod beside its containers.
fn reported(path: &Path, new: &Value, old: &Value, errors: &mut Errors) {
    for (index, condition) in new.items("status.conditions").iter().enumerate() {
        let path = path.child("conditions").index(index);
        if let Some(seen) = condition.int("observedGeneration").filter(|seen| *seen < 0) {
            let detail = "must be a non-negative integer";
            errors.push(FieldError::invalid(&path.child("observedGeneration"), seen, detail));
        }
        let kind = condition.text("type");
        if !["PodScheduled", "Ready", "Initialized"].contains(&kind) {
            rules::qualified(&path.child("Type"), kind, errors);
        }
    }
    if new.text("spec.nodeName") != old.text("spec.nodeName") {
        errors.push(FieldError::forbidden(&path.child("nodeName"), "may not be changed directly"));
    }
    let (nominated, nominated_path) = (new.text("status.nominatedNodeName"), path.child("nominatedNodeName"));
    if nominated != old.text("status.nominatedNodeName") && !nominated.is_empty() {
        rules::subdomain(&nominated_path, nominated, errors);
        if !old.text("spec.nodeName").is_empty() {
            let detail = "may not be set on pods that are already bound to a node";
            errors.push(FieldError::forbidden(&nominated_path, detail));
        }
    }
    if let Some(seen) = new.int("status.observedGeneration").filter(|seen| *seen < 0) {
        let detail = "must be a non-negative integer";
        errors.push(FieldError::invalid(&path.child("observedGeneration"), seen, detail));
    }
    rules::immutable(&path.child("qosClass"), new.at("status.qosClass"), old.at("status.qosClass"), errors);
}

/// The pod's and its host's addresses: one of each family at most. Those reported before are not judged again.
fn addresses(path: &Path, new: &Value, old: &Value, errors: &mut Errors) {
    for key in ["podIPs", "hostIPs"] {
        let (path, list) = (path.child(key), new.at("status").items(key));
        let known: Vec<&str> = old.at("status").items(key).iter().map(|ip| ip.text("ip")).collect();
        for (index, ip) in list.iter().enumerate() {
            address::ip(&path.index(index), ip.text("ip"), &known, errors);
        }
        let sixes = list.iter().filter(|ip| ip.text("ip").contains(':')).count();
        if list.len() > 2 || (list.len() == 2 && sixes != 1) {
            let detail = "may specify no more than one IP for each IP family";
            errors.push(FieldError::invalid(&path, new.at("status").at(key).clone(), detail));
        }
    }
}

/// Ephemeral containers are added, never changed or taken away.
pub(in crate::resources::validate) fn update_ephemeral_containers(
    new: &Value,
    old: &Value,
    errors: &mut Errors,
) {
    super::pod(new, errors);
    let path = Path::new("spec").child("ephemeralContainers");
    let list = new.items("spec.ephemeralContainers");
    for before in old.items("spec.ephemeralContainers") {
        let name = before.text("name");
        match list.iter().find(|container| container.text("name") == name) {
            None => {
                let detail = format!(
                    "existing ephemeral containers {} may not be removed\n",
                    crate::goformat::go_quote(name)
                );
                errors.push(FieldError::forbidden(&path, detail));
            }
            Some(container) if !same(container, before) => {
                let detail = format!(
                    "existing ephemeral containers {} may not be changed\n",
                    crate::goformat::go_quote(name)
                );
                errors.push(FieldError::forbidden(&path, detail));
            }
            Some(_) => {}
        }
    }
}
