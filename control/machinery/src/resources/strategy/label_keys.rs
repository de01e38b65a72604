//! `matchLabelKeys` and `mismatchLabelKeys`: a new pod's selectors are narrowed to the values its own labels have
//! (upstream: `mutatePodAffinity`, `mutateTopologySpreadConstraints`).

use serde_json::{Value, json};

use crate::access::{Fields, Get, entries, existing, set};

/// Narrows every selector of a new pod's affinities and spread constraints.
pub(super) fn merge(pod: &mut Value) {
    let labels = pod.fields("metadata.labels").cloned().unwrap_or_default();
    let Some(spec) = existing(pod, "spec") else { return };
    for kind in ["affinity.podAffinity", "affinity.podAntiAffinity"] {
        let Some(affinity) = existing(spec, kind) else { continue };
        for weighted in entries(affinity, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = existing(weighted, "podAffinityTerm") {
                narrow(term, &labels);
            }
        }
        for term in entries(affinity, "requiredDuringSchedulingIgnoredDuringExecution") {
            narrow(term, &labels);
        }
    }
    for constraint in entries(spec, "topologySpreadConstraints") {
        narrow(constraint, &labels);
    }
}

/// Adds the expressions of one holder's keys to its selector. Keys the pod has no label for add nothing; no selector
/// selects nothing, and stays none.
fn narrow(holder: &mut Value, labels: &Fields) {
    let of_keys = |list: &str, operator: &str| -> Vec<Value> {
        let keys = holder.items(list).iter().filter_map(Value::as_str);
        let valued = keys.filter_map(|key| Some((key, labels.get(key)?)));
        valued.map(|(key, value)| json!({"key": key, "operator": operator, "values": [value]})).collect()
    };
    let mut added = of_keys("matchLabelKeys", "In");
    added.extend(of_keys("mismatchLabelKeys", "NotIn"));
    if added.is_empty() {
        return;
    }
    let Some(selector) = existing(holder, "labelSelector") else { return };
    let mut expressions = selector.items("matchExpressions").to_vec();
    expressions.append(&mut added);
    set(selector, "matchExpressions", expressions);
}
