//! What a resize may change of a pod: CPU and memory, never the pod's quality of service.

use std::iter::zip;

use serde_json::Value;

use crate::access::{Fields, Get as _, copy, entries, object, remove, same, set};
use crate::resources::{
    strategy::{noted_qos_class, qos_class},
    validate::cursor::Cursor,
};

const ONLY: &str = "only cpu and memory resources are mutable";

pub(in crate::resources::validate) fn resize(pod: Cursor<'_>) {
    super::pod(pod);
    let refused = if pod.field("metadata.annotations").old.get("kubernetes.io/config.mirror").is_some() {
        Some("static pods cannot be resized")
    } else if pod.old.text("spec.os.name") == "windows" {
        Some("windows pods cannot be resized")
    } else {
        None
    };
    if let Some(detail) = refused {
        pod.forget();
        return pod.forbidden(detail);
    }
    let spec = pod.field("spec");
    if noted_qos_class(pod.old) != qos_class(pod.value) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        spec.invalid_value(pod.text("status.qosClass"), detail);
    }
    let running = pod.old.items("status.containerStatuses").iter().find(|s| s.has("state.running"));
    if running.is_some_and(|status| !status.has("resources")) {
        spec.forbidden("Pod running on node without support for resize");
    }
    let before = spec.old;
    let mut allowed = spec.value.clone();
    whole_pod(spec, &mut allowed);
    if !pod.old.items("status.nodeAllocatableResourceClaimStatuses").is_empty() {
        spec.forbidden("pods with node allocatable resource claims cannot be resized");
    }
    if !same_containers(spec) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (container, old) in zip(spec.each(list), before.items(list)) {
            for part in ["requests", "limits"] {
                let amounts = container.field("resources").field(part);
                if removed(amounts.value.as_object(), old.at("resources").fields(part)) {
                    amounts.forbidden(format!("resource {part} cannot be removed"));
                }
            }
        }
    }
    for (container, before) in zip(entries(&mut allowed, "containers"), before.items("containers")) {
        mask(container, before);
        if !same(container, before) {
            spec.forbidden(ONLY);
        }
    }
    let init = zip(entries(&mut allowed, "initContainers"), before.items("initContainers"));
    for (place, (container, before)) in zip(spec.each("initContainers"), init) {
        let changed = !same(container, before);
        mask(container, before);
        if !same(container, before) {
            place.forbidden("only cpu and memory resources for init or sidecar containers are mutable");
        }
        if changed && container.text("restartPolicy") != "Always" {
            for _ in place.each("resizePolicy").filter(|p| p.text("restartPolicy") == "RestartContainer") {
                place.forbidden(
                    "non-sidecar init containers with a resize policy of RestartContainer cannot be resized",
                );
            }
        }
    }
    if pod.errors() == 0 && !same(&allowed, before) {
        spec.forbidden(ONLY);
    }
}

/// Resources the pod states for itself.
fn whole_pod(spec: Cursor<'_>, allowed: &mut Value) {
    let resources = spec.field("resources");
    let set_in = |resources: &Value| {
        ["requests", "limits"].iter().any(|part| resources.fields(part).is_some_and(|f| !f.is_empty()))
    };
    if !set_in(resources.value) && !set_in(resources.old) {
        return;
    }
    if !resources.is_set() && !resources.old.is_null() {
        return resources.forbidden("pod-level resources cannot be removed");
    }
    for part in ["requests", "limits"] {
        if removed(resources.map(part), resources.old.fields(part)) {
            resources.field(part).forbidden(format!("pod-level resource {part} cannot be removed"));
        }
    }
    mask(allowed, spec.old);
    if !same(allowed.at("resources"), resources.old) {
        spec.forbidden("only cpu and memory resources are mutable at pod-level");
    }
}

fn same_containers(spec: Cursor<'_>) -> bool {
    let count = spec.errors();
    for kind in ["containers", "initContainers"] {
        let (list, old) = (spec.field(kind), spec.old.items(kind));
        if list.values().len() != old.len() {
            list.forbidden(format!("{kind} may not be added or removed on resize"));
            continue;
        }
        for (new, old) in zip(list.items(), old) {
            if new.text("name") != old.text("name") {
                new.field("name").forbidden(format!("{kind} may not be renamed or reordered on resize"));
            }
        }
    }
    spec.errors() == count
}

fn removed(new: Option<&Fields>, old: Option<&Fields>) -> bool {
    old.is_some_and(|old| old.keys().any(|name| new.is_none_or(|new| !new.contains_key(name))))
}

/// Makes a holder's CPU and memory what they were.
fn mask(holder: &mut Value, before: &Value) {
    let Some(resources) = object(holder, "resources") else { return };
    for part in ["requests", "limits"] {
        let mut amounts = match resources.at(part) {
            Value::Null => Value::Object(Fields::new()),
            amounts => amounts.clone(),
        };
        for name in ["cpu", "memory"] {
            match before.at("resources").at(part).get(name) {
                Some(value) => set(&mut amounts, name, value.clone()),
                None => {
                    remove(&mut amounts, name);
                }
            }
        }
        set(resources, part, amounts);
    }
    if before.at("resources").is_null() && same(resources, &Value::Null) {
        copy(holder, before, "resources");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{resources::validate::cursor::look, schema::builtin};
    use serde_json::json;

    fn pod(containers: Value) -> Value {
        json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"qosClass": "Burstable"}, "spec": {
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30,
            "containers": containers}})
    }

    fn container(name: &str, resources: Value) -> Value {
        json!({"name": name, "image": "i", "imagePullPolicy": "Always", "terminationMessagePolicy": "File",
            "terminationMessagePath": "/t", "resources": resources})
    }

    fn texts(new: Value, old: Value) -> Vec<String> {
        let errors = look(builtin().named("v1", "Pod"), &new, Some(&old), resize);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn cpu_and_memory_change_and_nothing_else_does() {
        let old = pod(json!([container("c", json!({"requests": {"cpu": "1"}}))]));
        let more = pod(json!([container("c", json!({"requests": {"cpu": "2", "memory": "1Gi"}}))]));
        assert_eq!(texts(more, old.clone()), [""; 0]);
        let storage =
            pod(json!([container("c", json!({"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}}))]));
        assert_eq!(
            texts(storage, old.clone()),
            ["spec: Forbidden: only cpu and memory resources are mutable"]
        );
        let mut policy = old.clone();
        policy["spec"]["containers"][0]["resizePolicy"] =
            json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
        assert_eq!(
            texts(policy, old.clone()),
            ["spec: Forbidden: only cpu and memory resources are mutable"]
        );
        let none = pod(json!([container("c", json!({"requests": {"memory": "1Gi"}}))]));
        assert_eq!(
            texts(none, old.clone()),
            ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]
        );
        let same = pod(json!([container("c", json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}))]));
        assert_eq!(texts(same, old.clone()), [""; 0]);
        let guaranteed = pod(json!([container(
            "c",
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}})
        )]));
        assert_eq!(
            texts(guaranteed, old),
            ["spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"]
        );
    }

    #[test]
    fn containers_stay_who_they_are() {
        let requests = || json!({"requests": {"cpu": "1"}});
        let old = pod(json!([container("a", requests()), container("b", requests())]));
        let swapped = pod(json!([container("b", requests()), container("a", requests())]));
        assert_eq!(
            texts(swapped, old.clone()),
            [
                "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
                "spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize"
            ]
        );
        let fewer = pod(json!([container("a", requests())]));
        assert_eq!(
            texts(fewer, old.clone()),
            ["spec.containers: Forbidden: containers may not be added or removed on resize"]
        );
        let mut mirror = old.clone();
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        assert_eq!(texts(old, mirror), ["<nil>: Forbidden: static pods cannot be resized"]);
    }
}
