//! Labels of nodes that have another name today.

use serde_json::Value;

use crate::{access::Get, field::Path, names};

const DEPRECATED: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// What is to be said of a label of nodes.
pub(super) fn deprecated(label: &str) -> Option<&'static str> {
    DEPRECATED.iter().find(|(name, _)| *name == label).map(|(_, text)| *text)
}

/// The labels of a map of labels that something is to be said of.
pub(super) fn in_map(map: &Value) -> impl Iterator<Item = (&str, &'static str)> {
    let labels = map.as_object().into_iter().flat_map(|labels| labels.keys());
    labels.filter_map(|label| Some((label.as_str(), deprecated(label)?)))
}

/// Expressions of a node selector's term, or of a label selector.
pub(super) fn expressions(path: &Path, holder: &Value, check_values: bool, found: &mut Vec<String>) {
    for (index, expression) in holder.items("matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let key = expression.text("key");
        if let Some(text) = deprecated(key) {
            found.push(format!("{}: {key} is {text}", path.child("key")));
        }
        let values = expression.items("values").iter().filter_map(Value::as_str);
        for (at, value) in values.enumerate().filter(|_| check_values) {
            for error in names::label_value(value) {
                found.push(format!("{}: {value} is invalid, {error}", path.child("values").index(at)));
            }
        }
    }
}

/// The terms of a required node affinity.
pub(super) fn terms(path: &Path, terms: &[Value], found: &mut Vec<String>) {
    for (index, term) in terms.iter().enumerate() {
        expressions(&path.index(index), term, false, found);
    }
}
