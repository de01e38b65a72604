//! What every cluster holds from its first moment: system namespaces, system priority classes, the service ranges.

use super::service_cidr;
use crate::registry::kind::Kind;
use ipnet::IpNet;
use serde_json::{Value, json};

/// `kube-node-lease` holds the nodes' heartbeats.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

fn priority_class(name: &str, value: i64, description: &str) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": value,
        "description": description,
        "preemptionPolicy": "PreemptLowerPriority",
    })
}

/// The objects, in the order in which they are made.
pub(super) fn objects(service_cidrs: &[IpNet]) -> Vec<(Kind, Value)> {
    let mut objects = Vec::new();
    for name in NAMESPACES {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {}});
        objects.push((Kind::of("", "namespaces"), namespace));
    }
    let classes = Kind::of("scheduling.k8s.io", "priorityclasses");
    objects.push((
        classes,
        priority_class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ));
    objects.push((
        classes,
        priority_class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ));
    objects.push((Kind::of("networking.k8s.io", "servicecidrs"), service_cidr::object(service_cidrs)));
    objects.into_iter().filter_map(|(kind, object)| Some((kind?, object))).collect()
}
