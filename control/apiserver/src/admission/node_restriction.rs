//! NodeRestriction: a kubelet writes its own node, its own pods, and little else.

use super::{Attributes, Operation, Verdict};
use crate::registry::Registry;
use crate::registry::kind::Kind;
use crate::registry::metadata::{items, text, texts};
use machinery::object;
use machinery::status::Status;
use serde_json::Value;
use std::collections::BTreeMap;

const USER: &str = "system:node:";
const GROUP: &str = "system:nodes";
const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASES: &str = "kube-node-lease";
/// Labels of the reserved domains that a kubelet may set on its node.
const KUBELET_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
/// Namespaces of labels that a kubelet may set on its node.
const KUBELET_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

pub(super) fn check<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if !a.user.groups.iter().any(|g| g == GROUP) {
            return Ok(());
        }
        let Some(node) = a.user.name.strip_prefix(USER).filter(|n| !n.is_empty()) else {
            return match a.user.name.starts_with(USER) {
                true => Err(a.forbidden("could not determine node from user")),
                false => Ok(()),
            };
        };
        match (a.kind.resource.group, a.kind.resource.plural, a.subresource) {
            ("", "pods", "") => pod(registry, a, node).await,
            ("", "pods", "status") => bound(a, node, a.old_object(), "status"),
            ("", "pods", "eviction") => {
                let pod = stored_pod(registry, a).await?;
                bound(a, node, &pod, "eviction")
            }
            ("", "pods", sub) => Err(a.forbidden(format!(
                "unexpected pod subresource {sub:?}, only 'status' and 'eviction' are allowed"
            ))),
            ("", "nodes", _) => own_node(a, node),
            ("", "persistentvolumeclaims", "status") => Ok(()),
            ("", "persistentvolumeclaims", _) => Err(a.forbidden("may only update PVC status")),
            ("", "serviceaccounts", "token") => Ok(()),
            ("coordination.k8s.io", "leases", _) => lease(a, node),
            ("storage.k8s.io", "csinodes", _) if a.name != node => Err(a.forbidden(format!(
                "can only access CSINode with the same name as the requesting node: {node:?}"
            ))),
            ("resource.k8s.io", "resourceslices", _) => {
                let object = if a.operation == Operation::Delete { a.old_object() } else { a.new_object() };
                if text(object, &["spec", "nodeName"]) == node {
                    return Ok(());
                }
                Err(a.forbidden("can only create/update/delete ResourceSlice with the same NodeName as the requesting node"))
            }
            _ => Ok(()),
        }
    })
}

async fn stored_pod(registry: &Registry, a: &Attributes<'_>) -> Result<Value, Status> {
    match Kind::of("", "pods") {
        Some(kind) => registry.read_required(&kind, &a.namespace, &a.name).await,
        None => Ok(Value::Null),
    }
}

fn bound(a: &Attributes<'_>, node: &str, pod: &Value, what: &str) -> Result<(), Status> {
    if text(pod, &["spec", "nodeName"]) != node {
        return Err(match what {
            "delete" => {
                a.forbidden(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
            }
            "eviction" => {
                a.forbidden(format!("node {node:?} can only evict pods with spec.nodeName set to itself"))
            }
            _ => a.forbidden(format!(
                "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
            )),
        });
    }
    if what == "status" && object::labels(a.old_object()) != object::labels(a.new_object()) {
        return Err(a.forbidden(format!("node {node:?} cannot update labels through pod status")));
    }
    Ok(())
}

async fn pod(registry: &Registry, a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    match a.operation {
        Operation::Delete => bound(a, node, a.old_object(), "delete"),
        Operation::Connect => Ok(()),
        Operation::Update => Err(a.forbidden(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        ))),
        Operation::Create => {
            let pod = a.new_object();
            if object::annotation(pod, MIRROR).is_none() {
                return Err(a.forbidden(format!(
                    "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
                )));
            }
            if text(pod, &["spec", "nodeName"]) != node {
                return Err(a.forbidden(format!(
                    "node {node:?} can only create pods with spec.nodeName set to itself"
                )));
            }
            let [owner] = object::owner_references(pod) else {
                return match object::owner_references(pod).len() {
                    0 => Err(a.forbidden(format!(
                        "node {node:?} can only create pods with an owner reference set to itself"
                    ))),
                    _ => Err(a.forbidden(format!(
                        "node {node:?} can only create pods with a single owner reference set to itself"
                    ))),
                };
            };
            if text(owner, &["apiVersion"]) != "v1"
                || text(owner, &["kind"]) != "Node"
                || text(owner, &["name"]) != node
            {
                return Err(a.forbidden(format!(
                    "node {node:?} can only create pods with an owner reference set to itself"
                )));
            }
            if owner.get("controller") != Some(&Value::Bool(true)) {
                return Err(a.forbidden(format!(
                    "node {node:?} can only create pods with a controller owner reference set to itself"
                )));
            }
            if owner.get("blockOwnerDeletion") == Some(&Value::Bool(true)) {
                return Err(a.forbidden(format!(
                    "node {node:?} must not set blockOwnerDeletion on an owner reference"
                )));
            }
            let stored = match Kind::of("", "nodes") {
                Some(kind) => registry.lookup(&kind, "", node).await?,
                None => None,
            };
            match stored {
                Some(stored) if object::uid(&stored) == text(owner, &["uid"]) => {}
                _ => {
                    return Err(a.forbidden(format!(
                        "node {node:?}'s UID does not match the one in the owner reference"
                    )));
                }
            }
            for volume in items(pod, &["spec", "volumes"]) {
                for (source, plural) in [
                    ("secret", "secrets"),
                    ("configMap", "configmaps"),
                    ("persistentVolumeClaim", "persistentvolumeclaims"),
                ] {
                    if volume.get(source).is_some() {
                        return Err(a.forbidden(format!(
                            "node {node:?} can not create pods that reference {plural}"
                        )));
                    }
                }
            }
            if !text(pod, &["spec", "serviceAccountName"]).is_empty() {
                return Err(a.forbidden(format!(
                    "node {node:?} can not create pods that reference a service account"
                )));
            }
            Ok(())
        }
    }
}

fn may_set(label: &str) -> bool {
    let namespace = label.split_once('/').map_or("", |(n, _)| n);
    let within = |domain: &str| namespace == domain || namespace.ends_with(&format!(".{domain}"));
    if !within("kubernetes.io") && !within("k8s.io") {
        return true;
    }
    KUBELET_LABELS.contains(&label) || KUBELET_NAMESPACES.iter().any(|n| within(n))
}

fn own_node(a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    if a.name != node {
        return Err(a.forbidden(format!("node {node:?} is not allowed to modify node {:?}", a.name)));
    }
    if a.operation == Operation::Delete {
        return Ok(());
    }
    let labels = |object: &Value| -> BTreeMap<String, String> {
        texts(object, &["metadata", "labels"]).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    let (old, new) = (labels(a.old_object()), labels(a.new_object()));
    let changed: Vec<&str> =
        new.keys().chain(old.keys()).filter(|k| old.get(*k) != new.get(*k)).map(String::as_str).collect();
    if changed.iter().any(|l| {
        l.split('/').next().is_some_and(|n| {
            n == "node-restriction.kubernetes.io" || n.ends_with(".node-restriction.kubernetes.io")
        })
    }) {
        let doing = if a.operation == Operation::Create { "set" } else { "modify" };
        return Err(
            a.forbidden(format!("is not allowed to {doing} the following labels: {}", changed.join(", ")))
        );
    }
    if a.operation == Operation::Create {
        let refused: Vec<&str> = changed.into_iter().filter(|l| !may_set(l)).collect();
        if !refused.is_empty() {
            return Err(
                a.forbidden(format!("is not allowed to set the following labels: {}", refused.join(", ")))
            );
        }
        if a.new_object().get("spec").and_then(|s| s.get("configSource")).is_some() {
            return Err(a.forbidden(format!(
                "node {node:?} is not allowed to create pods with a non-nil configSource"
            )));
        }
        return Ok(());
    }
    let refused: Vec<&str> = changed.into_iter().filter(|l| !may_set(l)).collect();
    if !refused.is_empty() {
        return Err(a.forbidden(format!("is not allowed to modify labels: {}", refused.join(", "))));
    }
    if items(a.old_object(), &["spec", "taints"]) != items(a.new_object(), &["spec", "taints"]) {
        return Err(a.forbidden(format!("node {node:?} is not allowed to modify taints")));
    }
    if !object::owner_references(a.new_object()).is_empty()
        && object::owner_references(a.new_object()) != object::owner_references(a.old_object())
    {
        return Err(a.forbidden(format!("node {node:?} is not allowed to modify ownerReferences")));
    }
    Ok(())
}

fn lease(a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    if a.namespace != LEASES {
        return Err(a.forbidden(format!("can only access leases in the {LEASES:?} system namespace")));
    }
    if a.name != node {
        return Err(a.forbidden(format!(
            "can only access node lease with the same name as the requesting node: {node:?}"
        )));
    }
    Ok(())
}
