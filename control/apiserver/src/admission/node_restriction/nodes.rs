//! Its own Node: not its taints and owners, and no labels by which workloads are steered.

use super::super::{Attributes, Operation};
use super::owners;
use machinery::access::Get as _;
use machinery::goformat::go_quote;
use machinery::status::Status;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Labels of the reserved domains that a kubelet may set on its node
/// (upstream: `staging/src/k8s.io/kubelet/pkg/apis/well_known_labels.go`).
const KUBELET_LABELS: [&str; 11] = [
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
/// Domains of labels that a kubelet may set on its node.
const KUBELET_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Labels that no kubelet ever sets.
const RESTRICTED: &str = "node-restriction.kubernetes.io";

pub(super) fn own(a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let quoted = go_quote(node);
    if a.name != node {
        return Err(a.forbidden(format!("node {quoted} is not allowed to modify node {}", go_quote(&a.name))));
    }
    let (old, new) = (a.old_object(), a.new_object());
    let source = "spec.configSource";
    let refused: Vec<&str> = changed_labels(old, new).into_iter().filter(|label| !may_set(label)).collect();
    match a.operation {
        Operation::Create => {
            if new.has(source) {
                return Err(a.forbidden(format!(
                    "node {quoted} is not allowed to create pods with a non-nil configSource"
                )));
            }
            if !refused.is_empty() {
                return Err(a.forbidden(format!(
                    "node {quoted} is not allowed to set the following labels: {}",
                    refused.join(", ")
                )));
            }
        }
        Operation::Update => {
            if new.has(source) && new.present(source) != old.present(source) {
                return Err(a.forbidden(format!(
                    "node {quoted} is not allowed to update configSource to a new non-nil configSource"
                )));
            }
            if old.items("spec.taints") != new.items("spec.taints") {
                return Err(a.forbidden(format!("node {quoted} is not allowed to modify taints")));
            }
            if owners(old) != owners(new) {
                return Err(a.forbidden(format!("node {quoted} is not allowed to modify ownerReferences")));
            }
            if !refused.is_empty() {
                return Err(a.forbidden(format!("is not allowed to modify labels: {}", refused.join(", "))));
            }
        }
        Operation::Delete | Operation::Connect => {}
    }
    Ok(())
}

/// Labels that are not the same on both sides.
fn changed_labels<'a>(old: &'a Value, new: &'a Value) -> BTreeSet<&'a str> {
    let labels = |node: &'a Value| node.texts("metadata.labels").collect::<BTreeMap<&str, &str>>();
    let (old, new) = (labels(old), labels(new));
    old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).copied().collect()
}

fn may_set(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| {
        domain.strip_suffix(parent).is_some_and(|below| below.is_empty() || below.ends_with('.'))
    };
    if within(RESTRICTED) {
        return false;
    }
    let reserved = within("kubernetes.io") || within("k8s.io");
    !reserved || KUBELET_LABELS.contains(&label) || KUBELET_DOMAINS.into_iter().any(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_steer_workloads_are_not_a_kubelets_to_set() {
        for good in [
            "a",
            "example.com/a",
            "notkubernetes.io/a",
            "kubernetes.io/hostname",
            "x.node.kubernetes.io/a",
            "kubelet.kubernetes.io/a",
        ] {
            assert!(may_set(good), "{good}");
        }
        for bad in [
            "node-restriction.kubernetes.io/a",
            "x.node-restriction.kubernetes.io/a",
            "kubernetes.io/a",
            "node-role.kubernetes.io/control-plane",
            "x.k8s.io/a",
            "xnode.kubernetes.io/a",
        ] {
            assert!(!may_set(bad), "{bad}");
        }
    }
}
