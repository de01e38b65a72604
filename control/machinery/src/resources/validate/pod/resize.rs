//! What a resize may change of a pod: CPU and memory, never the pod's quality of service.

use serde_json::Value;

use crate::{
    field::{FieldError, Path},
    resources::{
        access::{Fields, Get, copy, entries, object, remove, same, set},
        strategy::qos_class,
        validate::Errors,
    },
};

const ONLY: &str = "only cpu and memory resources are mutable";

pub(in crate::resources::validate) fn resize(new: &Value, old: &Value, errors: &mut Errors) {
    super::pod(new, errors);
    let none = Path::new("");
    if old.fields("metadata.annotations").is_some_and(|all| all.contains_key("kubernetes.io/config.mirror")) {
        *errors = vec![FieldError::forbidden(&none, "static pods cannot be resized")];
        return;
    }
    if old.text("spec.os.name") == "windows" {
        *errors = vec![FieldError::forbidden(&none, "windows pods cannot be resized")];
        return;
    }
    let path = Path::new("spec");
    let class = match old.text("status.qosClass") {
        "" => qos_class(old),
        class => class,
    };
    if class != qos_class(new) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(&path, new.text("status.qosClass"), detail));
    }
    let running = old.items("status.containerStatuses").iter().find(|s| s.has("state.running"));
    if running.is_some_and(|status| !status.has("resources")) {
        errors.push(FieldError::forbidden(&path, "Pod running on node without support for resize"));
    }
    let (spec, before) = (new.at("spec"), old.at("spec"));
    let mut allowed = spec.clone();
    whole_pod(&path, &mut allowed, before, errors);
    if !old.items("status.nodeAllocatableResourceClaimStatuses").is_empty() {
        let detail = "pods with node allocatable resource claims cannot be resized";
        errors.push(FieldError::forbidden(&path, detail));
    }
    if !same_containers(&path, spec, before, errors) {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (index, (container, old)) in spec.items(list).iter().zip(before.items(list)).enumerate() {
            let path = path.child(list).index(index).child("resources");
            for (part, what) in [("requests", "requests"), ("limits", "limits")] {
                if removed(container.at("resources").fields(part), old.at("resources").fields(part)) {
                    let detail = format!("resource {what} cannot be removed");
                    errors.push(FieldError::forbidden(&path.child(part), detail));
                }
            }
        }
    }
    for (container, before) in entries(&mut allowed, "containers").zip(before.items("containers")) {
        mask(container, before);
        if !same(container, before) {
            errors.push(FieldError::forbidden(&path, ONLY));
        }
    }
    let init = entries(&mut allowed, "initContainers").zip(before.items("initContainers"));
    for (index, (container, before)) in init.enumerate() {
        let path = path.child("initContainers").index(index);
        let changed = !same(container, before);
        mask(container, before);
        if !same(container, before) {
            let detail = "only cpu and memory resources for init or sidecar containers are mutable";
            errors.push(FieldError::forbidden(&path, detail));
        }
        if changed && container.text("restartPolicy") != "Always" {
            for policy in container.items("resizePolicy") {
                if policy.text("restartPolicy") == "RestartContainer" {
                    let detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                    errors.push(FieldError::forbidden(&path, detail));
                }
            }
        }
    }
    if errors.is_empty() && !same(&allowed, before) {
        errors.push(FieldError::forbidden(&path, ONLY));
    }
}

/// Resources the pod states for itself.
fn whole_pod(path: &Path, allowed: &mut Value, before: &Value, errors: &mut Errors) {
    let (new, old) = (allowed.at("resources"), before.at("resources"));
    let set_in = |resources: &Value| {
        ["requests", "limits"].iter().any(|part| resources.fields(part).is_some_and(|f| !f.is_empty()))
    };
    if !set_in(new) && !set_in(old) {
        return;
    }
    let path_of = path.child("resources");
    if new.is_null() && !old.is_null() {
        errors.push(FieldError::forbidden(&path_of, "pod-level resources cannot be removed"));
        return;
    }
    for part in ["requests", "limits"] {
        if removed(new.fields(part), old.fields(part)) {
            let detail = format!("pod-level resource {part} cannot be removed");
            errors.push(FieldError::forbidden(&path_of.child(part), detail));
        }
    }
    mask(allowed, before);
    if !same(allowed.at("resources"), before.at("resources")) {
        let detail = "only cpu and memory resources are mutable at pod-level";
        errors.push(FieldError::forbidden(path, detail));
    }
}

fn same_containers(path: &Path, spec: &Value, before: &Value, errors: &mut Errors) -> bool {
    let count = errors.len();
    for list in ["containers", "initContainers"] {
        let (new, old) = (spec.items(list), before.items(list));
        let path = path.child(list);
        if new.len() != old.len() {
            let detail = format!("{list} may not be added or removed on resize");
            errors.push(FieldError::forbidden(&path, detail));
            continue;
        }
        for (index, (new, old)) in new.iter().zip(old).enumerate() {
            if new.text("name") != old.text("name") {
                let detail = format!("{list} may not be renamed or reordered on resize");
                errors.push(FieldError::forbidden(&path.index(index).child("name"), detail));
            }
        }
    }
    errors.len() == count
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
        let mut errors = Errors::new();
        resize(&new, &old, &mut errors);
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
