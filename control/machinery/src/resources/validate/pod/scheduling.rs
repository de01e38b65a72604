//! What decides where a pod goes.

use std::{collections::BTreeSet, num::IntErrorKind};

use serde_json::Map;

use crate::{access::Get as _, goformat::go_quote, names, resources::validate::cursor::Cursor};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(affinity: Cursor<'_>) {
    let node = affinity.field("nodeAffinity");
    if let Some(required) = node.field(REQUIRED).if_set() {
        required.node_selector();
    }
    for term in node.each(PREFERRED) {
        weight(term);
        term.field("preference").node_selector_term();
    }
    for terms in ["podAffinity", "podAntiAffinity"].map(|key| affinity.field(key)) {
        terms.each(REQUIRED).for_each(pod_term);
        for term in terms.each(PREFERRED) {
            weight(term);
            pod_term(term.field("podAffinityTerm"));
        }
    }
}

fn weight(term: Cursor<'_>) {
    if !(1..=100).contains(&term.int("weight")) {
        term.field("weight").invalid("must be in the range 1-100");
    }
}

fn pod_term(term: Cursor<'_>) {
    term.field("labelSelector").label_selector();
    term.field("namespaceSelector").label_selector();
    for namespace in term.each("namespaces") {
        // Upstream's path names the term's field in the singular.
        namespace.reported_at(term.field("namespace")).label();
    }
    label_keys(term);
    topology_key(term.field("topologyKey"));
}

fn topology_key(key: Cursor<'_>) {
    if key.required_with("can not be empty") {
        key.qualified();
    }
}

pub(super) fn gates(gates: Cursor<'_>) {
    let mut seen = BTreeSet::new();
    for gate in gates.items() {
        let name = gate.field("name").reported_at(gate);
        name.qualified();
        if !seen.insert(name.str()) {
            name.duplicate();
        }
    }
}

pub(super) fn spread(constraints: Cursor<'_>) {
    for (index, constraint) in constraints.items().enumerate() {
        let (key, action) = (constraint.field("topologyKey"), constraint.field("whenUnsatisfiable"));
        if constraint.int("maxSkew") <= 0 {
            constraint.field("maxSkew").invalid("must be greater than zero");
        }
        topology_key(key);
        action.enumerated();
        let same = |other: Cursor<'_>| {
            other.text("topologyKey") == key.str() && other.text("whenUnsatisfiable") == action.str()
        };
        if constraints.items().skip(index + 1).any(same) {
            let pair = format!("{{{}, {}}}", key.str(), action.str());
            constraint.field("{topologyKey, whenUnsatisfiable}").duplicate_value(pair, "");
        }
        let domains = constraint.field("minDomains");
        if domains.number().is_some_and(|domains| domains <= 0) {
            domains.invalid("must be greater than zero");
        }
        if domains.is_set() && action.str() != "DoNotSchedule" {
            let action = action.str();
            domains
                .invalid(format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"));
        }
        constraint.plain(&["nodeAffinityPolicy", "nodeTaintsPolicy"]);
        label_keys(constraint);
        constraint.field("labelSelector").label_selector();
    }
}

/// Keys whose values a pod's own labels give; they stand beside a selector and are not in it, nor in both lists.
fn label_keys(holder: Cursor<'_>) {
    let selector = holder.field("labelSelector");
    let lists @ [keys, mismatched] = ["matchLabelKeys", "mismatchLabelKeys"].map(|list| holder.field(list));
    for list in lists {
        if !list.is_empty() && !selector.is_set() {
            list.forbidden("must not be specified when labelSelector is not set");
        } else {
            list.items().for_each(|key| {
                key.qualified();
            });
        }
    }
    let mut selected: BTreeSet<&str> =
        selector.map("matchLabels").into_iter().flat_map(Map::keys).map(String::as_str).collect();
    for expression in selector.each("matchExpressions") {
        let key = expression.text("key");
        if let Some(index) = keys.strs().iter().rposition(|k| *k == key).filter(|_| selected.contains(key)) {
            // Upstream leaves the list out of this path.
            holder.item(index).invalid_value(key, "exists in both matchLabelKeys and labelSelector");
        }
        selected.insert(key);
    }
    let mismatched = mismatched.strs();
    for key in keys.items().filter(|key| mismatched.contains(&key.str())) {
        key.invalid("exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

/// A value that taints' are compared with.
fn compare(value: Cursor<'_>) {
    value.format(names::decimal_integer);
    if let Err(e) = value.str().parse::<i64>() {
        let overflow = matches!(e.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow);
        let why = if overflow { "value out of range" } else { "invalid syntax" };
        value.invalid(format!("strconv.ParseInt: parsing {}: {why}", go_quote(value.str())));
    }
}

pub(in crate::resources::validate) fn tolerations(tolerations: Cursor<'_>) {
    let before = tolerations.old.items("");
    let compared = before.iter().any(|t| matches!(t.text("operator"), "Lt" | "Gt"));
    for toleration in tolerations.items() {
        let (key, operator) = (toleration.field("key"), toleration.field("operator"));
        let (value, effect) = (toleration.text("value"), toleration.field("effect"));
        key.optional_format(names::qualified_name);
        if key.is_empty() && operator.str() != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            operator.invalid(detail);
        }
        if toleration.has("tolerationSeconds") && effect.str() != "NoExecute" {
            effect.invalid("effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator.str() {
            "" | "Equal" => {
                operator.format_at_once(value, names::label_value, ";");
            }
            "Exists" => {
                if !value.is_empty() {
                    operator.invalid_value(value, "value must be empty when `operator` is 'Exists'");
                }
            }
            // A feature that is off (TaintTolerationComparisonOperators), unless it was used before.
            "Lt" | "Gt" if compared => compare(toleration.field("value")),
            "Lt" | "Gt" => operator.unsupported_as_listed(&["Equal", "Exists", "Lt", "Gt"]),
            _ => operator.unsupported(&["Equal", "Exists"]),
        }
        effect.is_plain();
    }
}
