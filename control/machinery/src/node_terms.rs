//! Which nodes a node selector's terms mean (upstream: `component-helpers/scheduling/corev1/nodeaffinity`).

use crate::labels::{Operator, Requirement};
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};
use std::collections::BTreeMap;

/// One term of a node selector, compiled: all of it must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeTerm {
    /// `None`: the term is not valid, or empty, and matches no node.
    requirements: Option<Vec<Requirement>>,
    /// Names wanted (true) or unwanted, from `matchFields` on `metadata.name`.
    names: Vec<(bool, Vec<String>)>,
}

impl NodeTerm {
    /// From the API object, with its selectors parsed.
    #[must_use]
    pub fn new(term: &NodeSelectorTerm) -> Self {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        let mut requirements: Option<Vec<_>> = expressions.iter().map(requirement).collect();
        let mut names = Vec::new();
        for field in fields {
            match (field.key.as_str(), field.operator.as_str()) {
                ("metadata.name", "In") => names.push((true, field.values.clone().unwrap_or_default())),
                ("metadata.name", "NotIn") => names.push((false, field.values.clone().unwrap_or_default())),
                _ => requirements = None,
            }
        }
        if expressions.is_empty() && fields.is_empty() {
            requirements = None;
        }
        Self { requirements, names }
    }

    /// Whether a node of this name with these labels matches.
    #[must_use]
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.as_ref().is_some_and(|r| r.iter().all(|r| r.matches(labels)))
            && self.names.iter().all(|(wanted, names)| names.iter().any(|n| n == name) == *wanted)
    }

    /// The only nodes the term can match, where it names them.
    #[must_use]
    pub fn named(&self) -> Option<Vec<&str>> {
        let mut wanted = self.names.iter().filter(|(wanted, _)| *wanted);
        let first = wanted.next()?;
        let rest: Vec<_> = wanted.collect();
        Some(first.1.iter().filter(|n| rest.iter().all(|(_, o)| o.contains(n))).map(String::as_str).collect())
    }
}

fn requirement(expression: &NodeSelectorRequirement) -> Option<Requirement> {
    let operator = Operator::of_expression(&expression.operator)?;
    Requirement::new(&expression.key, operator, expression.values.clone().unwrap_or_default()).ok()
}

/// Whether a selector means a node of this name with these labels: one of its terms does.
#[must_use]
pub fn selects(selector: &NodeSelector, name: &str, labels: &BTreeMap<String, String>) -> bool {
    selector.node_selector_terms.iter().any(|term| NodeTerm::new(term).matches(name, labels))
}

/// Whether a pod may be on a node of this name with these labels, by its node selector and its required node affinity.
#[must_use]
pub fn allows(pod: &PodSpec, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let plain = pod.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = pod.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    plain && required.is_none_or(|selector| selects(selector, name, labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn matches(term: Value) -> bool {
        let labels =
            BTreeMap::from([("disk".to_owned(), "ssd".to_owned()), ("size".to_owned(), "10".to_owned())]);
        NodeTerm::new(&serde_json::from_value(term).unwrap()).matches("n1", &labels)
    }

    #[test]
    fn all_of_a_term_must_hold_and_an_empty_one_holds_nowhere() {
        let by = |key: &str, operator: &str, values: &[&str]| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
        let table = [
            (json!({}), false),
            (by("disk", "In", &["ssd", "hdd"]), true),
            (by("disk", "NotIn", &["ssd"]), false),
            (by("other", "NotIn", &["x"]), true),
            (by("disk", "Exists", &[]), true),
            (by("disk", "DoesNotExist", &[]), false),
            (by("size", "Gt", &["9"]), true),
            (by("size", "Lt", &["9"]), false),
            (by("size", "Gt", &["x"]), false),
            (by("disk", "Like", &["ssd"]), false),
            (
                json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n1"] }] }),
                true,
            ),
            (
                json!({ "matchFields": [{ "key": "metadata.name", "operator": "NotIn", "values": ["n1"] }] }),
                false,
            ),
            (
                json!({ "matchFields": [{ "key": "metadata.uid", "operator": "In", "values": ["n1"] }] }),
                false,
            ),
        ];
        for (term, want) in table {
            assert_eq!(matches(term.clone()), want, "{term}");
        }
    }

    #[test]
    fn selector_and_affinity_must_both_allow_a_node() {
        let allowed = |spec: Value| {
            let mut spec = spec;
            spec["containers"] = json!([]);
            let labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
            allows(&serde_json::from_value(spec).unwrap(), "n1", &labels)
        };
        let affinity = |value: &str| {
            let term =
                json!({ "matchExpressions": [{ "key": "disk", "operator": "In", "values": [value] }] });
            json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] } } })
        };
        assert!(allowed(json!({})));
        assert!(allowed(json!({ "nodeSelector": { "disk": "ssd" }, "affinity": affinity("ssd") })));
        assert!(!allowed(json!({ "nodeSelector": { "disk": "hdd" } })));
        assert!(!allowed(json!({ "nodeSelector": { "disk": "ssd" }, "affinity": affinity("hdd") })));
    }
}
