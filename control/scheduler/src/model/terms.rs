//! Affinity terms and spread constraints, compiled.

use super::selector::{compile, narrowed};
use k8s_openapi::api::core::v1 as api;
use machinery::labels::{Operator, Selector};
use std::collections::BTreeMap;

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// A term of pod affinity or anti-affinity.
#[derive(Clone, Debug, PartialEq)]
pub struct PodTerm {
    /// The label whose equal values make nodes one place.
    pub topology_key: String,
    selector: Selector,
    namespaces: Vec<String>,
    namespace_selector: Selector,
}

impl PodTerm {
    /// Compiles a term of a pod in `namespace` with `labels`.
    pub fn new(term: &api::PodAffinityTerm, namespace: &str, labels: &Labels) -> Self {
        let mut selector = compile(term.label_selector.as_ref());
        selector = narrowed(selector, labels, term.match_label_keys.iter().flatten(), Operator::In);
        selector = narrowed(selector, labels, term.mismatch_label_keys.iter().flatten(), Operator::NotIn);
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        Self {
            topology_key: term.topology_key.clone(),
            selector,
            namespaces,
            namespace_selector: compile(term.namespace_selector.as_ref()),
        }
    }

    /// Whether the term is about a pod with `labels` in `namespace`, whose own labels are `of_namespace`.
    pub fn matches(&self, namespace: &str, labels: &Labels, of_namespace: Option<&Labels>) -> bool {
        let here = self.namespaces.iter().any(|n| n == namespace)
            || of_namespace.is_some_and(|l| self.namespace_selector.matches(l));
        here && self.selector.matches(labels)
    }
}

/// A topology spread constraint.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// How much the counts of two places may differ.
    pub max_skew: i64,
    /// The label whose equal values make nodes one place.
    pub topology_key: String,
    /// True for `DoNotSchedule`.
    pub required: bool,
    /// Which pods are counted.
    pub selector: Selector,
    /// With fewer places than this, the smallest count is taken as 0.
    pub min_domains: i64,
    /// Count only nodes that the pod's node selector and affinity allow.
    pub honor_affinity: bool,
    /// Count only nodes whose taints the pod tolerates.
    pub honor_taints: bool,
}

impl Spread {
    /// Compiles a constraint of a pod with `labels`.
    pub fn new(constraint: &api::TopologySpreadConstraint, labels: &Labels) -> Self {
        let selector = compile(constraint.label_selector.as_ref());
        Self {
            max_skew: constraint.max_skew.into(),
            topology_key: constraint.topology_key.clone(),
            required: constraint.when_unsatisfiable == "DoNotSchedule",
            selector: narrowed(selector, labels, constraint.match_label_keys.iter().flatten(), Operator::In),
            min_domains: constraint.min_domains.unwrap_or(1).into(),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    /// What a pod without constraints of its own gets: spread softly over hosts and zones with the pods of its Services and
    /// controllers.
    pub fn defaults(selector: &Selector) -> [Self; 2] {
        [("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5)].map(|(key, max_skew)| Self {
            max_skew,
            topology_key: key.to_owned(),
            required: false,
            selector: selector.clone(),
            min_domains: 1,
            honor_affinity: true,
            honor_taints: false,
        })
    }
}
