//! Pods: their first status, their quality of service, and what each subresource may touch.

use serde_json::{Value, json};

use super::{keep_metadata, only};
use crate::{
    access::{Fields, Get, copy, entries, existing, remove, set},
    quantity::Quantity,
};

pub(super) fn create(pod: &mut Value) {
    let mut status = json!({"phase": "Pending", "qosClass": noted_qos_class(pod)});
    if !pod.items("spec.schedulingGates").is_empty() {
        let mut condition = scheduling_gated_condition();
        // It is so since the pod was made.
        let made = pod.text("metadata.creationTimestamp");
        if !made.is_empty() {
            set(&mut condition, "lastTransitionTime", made);
        }
        set(&mut status, "conditions", json!([condition]));
    }
    set(pod, "status", status);
}

/// The condition of a pod whose scheduling gates are not all lifted.
pub(crate) fn scheduling_gated_condition() -> Value {
    json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates"})
}

pub(super) fn update_status(new: &mut Value, old: &Value) {
    keep_metadata(new, old, &["ownerReferences"]);
    if let Some(metadata) = existing(new, "metadata") {
        remove(metadata, "deletionTimestamp");
        copy(metadata, old.at("metadata"), "deletionTimestamp");
    }
    // A kubelet may leave out what only the server decides.
    let class = old.at("status.qosClass");
    if let Some(status) = existing(new, "status")
        && status.text("qosClass").is_empty()
        && !class.is_null()
    {
        set(status, "qosClass", class.clone());
    }
    keep_observed_generations(new, old);
}

/// Clients that know of no observed generations leave out those that others noted; conditions of one type are taken in
/// their order.
fn keep_observed_generations(new: &mut Value, old: &Value) {
    const FIELD: &str = "observedGeneration";
    let Some(status) = existing(new, "status") else { return };
    if status.int(FIELD).unwrap_or_default() == 0 {
        copy(status, old.at("status"), FIELD);
    }
    let mut before: Vec<&Value> = old.items("status.conditions").iter().collect();
    for condition in entries(status, "conditions") {
        let of_type = before.iter().position(|c| c.at("type") == condition.at("type"));
        if let Some(noted) = of_type.map(|at| before.remove(at))
            && condition.int(FIELD).unwrap_or_default() == 0
        {
            copy(condition, noted, FIELD);
        }
    }
}

pub(super) fn update_ephemeral_containers(new: &mut Value, old: &Value) {
    only(new, old, |pod, asked| {
        if let Some(spec) = existing(pod, "spec") {
            copy(spec, asked.at("spec"), "ephemeralContainers");
        }
    });
}

/// Takes over the resources of the pod and its containers, and the resize policies. A list of other containers is taken
/// over whole, for validation to refuse it.
pub(super) fn resize(new: &mut Value, old: &Value) {
    only(new, old, |pod, asked| {
        let Some(spec) = existing(pod, "spec") else { return };
        copy(spec, asked.at("spec"), "resources");
        for list in ["containers", "initContainers"] {
            let asked = asked.at("spec").items(list);
            let names = |list: &[Value]| -> Vec<String> {
                list.iter().map(|container| container.text("name").to_owned()).collect()
            };
            if names(asked) != names(spec.items(list)) {
                set(spec, list, asked.to_vec());
                continue;
            }
            for (container, asked) in entries(spec, list).zip(asked) {
                copy(container, asked, "resources");
                copy(container, asked, "resizePolicy");
            }
        }
    });
}

const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// The class that a pod's status says, whoever put it there, and else the one it has by its containers (upstream: `qos.GetPodQOS`).
pub(crate) fn noted_qos_class(pod: &Value) -> &str {
    match pod.text("status.qosClass") {
        "" => qos_class(pod),
        noted => noted,
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by what containers ask of cpu and memory.
pub(crate) fn qos_class(pod: &Value) -> &'static str {
    // Requests and limits of the whole pod, where it states them, are all that counts.
    let whole = pod.at("spec.resources");
    let of_pod =
        [whole.fields("requests"), whole.fields("limits")].into_iter().flatten().any(|f| !f.is_empty());
    let lists = [pod.items("spec.containers"), pod.items("spec.initContainers")];
    let holders: Vec<&Value> = if of_pod {
        vec![whole]
    } else {
        lists.into_iter().flatten().map(|container| container.at("resources")).collect()
    };
    let positive = |list: Option<&Fields>, name: &str| -> Option<Quantity> {
        let quantity = Quantity::parse(list?.get(name)?.as_str()?).ok()?;
        (quantity.sign() > 0).then_some(quantity)
    };
    let mut any = false;
    let mut guaranteed = !holders.is_empty();
    for resources in holders {
        let (requests, limits) = (resources.fields("requests"), resources.fields("limits"));
        for name in COMPUTE {
            let (request, limit) = (positive(requests, name), positive(limits, name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= match (&request, &limit) {
                (Some(request), Some(limit)) => request.sub(limit).is_zero(),
                // A limit alone is the request too, once defaulted.
                (None, Some(_)) => requests.is_none_or(|list| !list.contains_key(name)),
                _ => false,
            };
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
