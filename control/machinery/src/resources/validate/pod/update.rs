//! What may change of a pod that exists.

use serde_json::{Value, json};

use super::{annotations, security};
use crate::{
    access::{Fields, Get as _, copy, entries, object, remove, same},
    field::{FieldError, Path},
    goformat::go_quote,
    resources::validate::{core::one_a_family, cursor::Cursor, difference::changed},
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

/// A status may be anything its kubelet says, but containers that ended for good stay ended.
pub(in crate::resources::validate) fn update_status(pod: Cursor<'_>) {
    let status = pod.field("status");
    let at = pod.field("metadata.annotations");
    annotations::kept(at);
    annotations::specific(at, pod.field("spec"));
    users(pod, status);
    let policy = pod.old.text("spec.restartPolicy");
    for (list, containers) in
        [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")]
    {
        for before in status.old.items(list) {
            let (ended, name) = (before.at("state.terminated"), before.text("name"));
            let mut own = pod.old.at("spec").items(containers).iter();
            let own = own.find(|container| container.text("name") == name);
            // A pod that restarts, or a container with a policy of its own, may leave any state.
            let restarts = policy == "Always" || own.is_some_and(|own| !own.text("restartPolicy").is_empty());
            if ended.is_null() || restarts || (ended.int("exitCode") != Some(0) && policy != "Never") {
                continue;
            }
            let now = status.each(list).find(|status| status.text("name") == name);
            if let Some(now) = now.filter(|now| !now.has("state.terminated")) {
                now.field("state").forbidden("may not be transitioned to non-terminated state");
            }
        }
    }
    reported(pod, status);
    addresses(status.field("podIPs"));
    addresses(status.field("hostIPs"));
}

/// As whom containers run: what a pod's system knows, and ids the kernel knows.
fn users(pod: Cursor<'_>, status: Cursor<'_>) {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    for user in lists.into_iter().flat_map(|list| status.each(list)).map(|of| of.field("user.linux")) {
        match pod.text("spec.os.name") {
            "windows" if user.is_set() => user.forbidden("cannot be set for a windows pod"),
            "" | "linux" if user.is_set() => security::linux_user(user),
            _ => {}
        }
    }
    for before in status.old.items("ephemeralContainerStatuses").iter().filter(|s| s.has("state.terminated"))
    {
        let mut now = status.each("ephemeralContainerStatuses");
        let now = now.find(|status| status.text("name") == before.text("name"));
        if let Some(now) = now.filter(|now| !now.has("state.terminated")) {
            now.field("state").forbidden("may not be transitioned to non-terminated state");
        }
    }
}

/// What a kubelet says of a pod beside its containers.
fn reported(pod: Cursor<'_>, status: Cursor<'_>) {
    let observed = |of: Cursor<'_>| {
        let seen = of.field("observedGeneration");
        if seen.number().is_some_and(|seen| seen < 0) {
            seen.invalid("must be a non-negative integer");
        }
    };
    for condition in status.each("conditions") {
        observed(condition);
        if !["PodScheduled", "Ready", "Initialized"].contains(&condition.text("type")) {
            condition.field("type").named("Type").qualified();
        }
    }
    if pod.text("spec.nodeName") != pod.old.text("spec.nodeName") {
        status.field("nodeName").forbidden("may not be changed directly");
    }
    let nominated = status.field("nominatedNodeName");
    if nominated.changed() && !nominated.is_empty() {
        nominated.subdomain();
        if !pod.old.text("spec.nodeName").is_empty() {
            nominated.forbidden("may not be set on pods that are already bound to a node");
        }
    }
    observed(status);
    status.field("qosClass").immutable();
}

/// A pod's or its host's addresses: one of each family at most. Those reported before are not judged again.
fn addresses(list: Cursor<'_>) {
    let known: Vec<&str> = list.old.items("").iter().map(|ip| ip.text("ip")).collect();
    for address in list.items() {
        address.field("ip").reported_at(address).ip(&known);
    }
    if !one_a_family(&list.items().map(|address| address.text("ip")).collect::<Vec<_>>()) {
        list.invalid("may specify no more than one IP for each IP family");
    }
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
