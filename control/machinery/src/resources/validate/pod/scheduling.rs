//! What decides where a pod goes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::rules;
use crate::{
    field::{FieldError, Path},
    names,
    resources::{
        access::Get,
        validate::{Errors, selector::label_selector},
    },
};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(path: &Path, affinity: &Value, errors: &mut Errors) {
    let (node, node_path) = (affinity.at("nodeAffinity"), path.child("nodeAffinity"));
    if node.has(REQUIRED) {
        node_selector(&node_path.child(REQUIRED), node.at(REQUIRED), errors);
    }
    for (index, term) in node.items(PREFERRED).iter().enumerate() {
        let path = node_path.child(PREFERRED).index(index);
        weight(&path, term, errors);
        node_term(&path.child("preference"), term.at("preference"), errors);
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let (terms, path) = (affinity.at(key), path.child(key));
        for (index, term) in terms.items(REQUIRED).iter().enumerate() {
            pod_term(&path.child(REQUIRED).index(index), term, errors);
        }
        for (index, term) in terms.items(PREFERRED).iter().enumerate() {
            let path = path.child(PREFERRED).index(index);
            weight(&path, term, errors);
            pod_term(&path.child("podAffinityTerm"), term.at("podAffinityTerm"), errors);
        }
    }
}

fn weight(path: &Path, term: &Value, errors: &mut Errors) {
    let weight = term.int("weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

/// A node selector: one term at least, each a list of requirements.
pub(in crate::resources::validate) fn node_selector(path: &Path, selector: &Value, errors: &mut Errors) {
    let (terms, path) = (selector.items("nodeSelectorTerms"), path.child("nodeSelectorTerms"));
    if terms.is_empty() {
        errors.push(FieldError::required(&path, "must have at least one node selector term"));
    }
    for (index, term) in terms.iter().enumerate() {
        node_term(&path.index(index), term, errors);
    }
}

fn node_term(path: &Path, term: &Value, errors: &mut Errors) {
    for (index, requirement) in term.items("matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let values = requirement.items("values");
        match requirement.text("operator") {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&path.child("values"), detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&path.child("values"), detail));
            }
            "Gt" | "Lt" if values.len() != 1 => {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(FieldError::required(&path.child("values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => {
                let detail = "not a valid selector operator";
                errors.push(FieldError::invalid(&path.child("operator"), other, detail));
            }
        }
        rules::qualified(&path.child("key"), requirement.text("key"), errors);
        if matches!(requirement.text("operator"), "In" | "NotIn") {
            for (index, value) in values.iter().enumerate() {
                let value = value.as_str().unwrap_or_default();
                rules::text(&path.child("values").index(index), value, names::label_value(value), errors);
            }
        }
    }
    for (index, requirement) in term.items("matchFields").iter().enumerate() {
        let path = path.child("matchFields").index(index);
        match requirement.text("operator") {
            "In" | "NotIn" => {
                if requirement.items("values").len() != 1 {
                    let detail =
                        "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                    errors.push(FieldError::required(&path.child("values"), detail));
                }
            }
            other => {
                let detail = "not a valid selector operator";
                errors.push(FieldError::invalid(&path.child("operator"), other, detail));
            }
        }
        if requirement.text("key") != "metadata.name" {
            let detail = "not a valid field selector key";
            errors.push(FieldError::invalid(&path.child("key"), requirement.text("key"), detail));
        }
    }
}

fn pod_term(path: &Path, term: &Value, errors: &mut Errors) {
    label_selector(&path.child("labelSelector"), term.at("labelSelector"), errors);
    label_selector(&path.child("namespaceSelector"), term.at("namespaceSelector"), errors);
    for namespace in term.items("namespaces") {
        // Upstream's path names the term's field in the singular.
        rules::label(&path.child("namespace"), namespace.as_str().unwrap_or_default(), errors);
    }
    label_keys(path, term, errors);
    topology_key(&path.child("topologyKey"), term.text("topologyKey"), errors);
}

fn topology_key(path: &Path, key: &str, errors: &mut Errors) {
    if key.is_empty() {
        errors.push(FieldError::required(path, "can not be empty"));
    } else {
        rules::qualified(path, key, errors);
    }
}

pub(super) fn gates(path: &Path, gates: &[Value], errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, gate) in gates.iter().enumerate() {
        let name = gate.text("name");
        rules::qualified(&path.index(index), name, errors);
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path.index(index), name));
        }
    }
}

pub(super) fn spread(path: &Path, constraints: &[Value], errors: &mut Errors) {
    for (index, constraint) in constraints.iter().enumerate() {
        let item = path.index(index);
        let skew = constraint.int("maxSkew").unwrap_or_default();
        if skew <= 0 {
            errors.push(FieldError::invalid(&item.child("maxSkew"), skew, "must be greater than zero"));
        }
        let key = constraint.text("topologyKey");
        topology_key(&item.child("topologyKey"), key, errors);
        let action = constraint.text("whenUnsatisfiable");
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if !actions.contains(&action) {
            errors.push(FieldError::not_supported(&item.child("whenUnsatisfiable"), action, &actions));
        }
        let repeated = constraints
            .iter()
            .skip(index + 1)
            .any(|other| other.text("topologyKey") == key && other.text("whenUnsatisfiable") == action);
        if repeated {
            let path = item.child("{topologyKey, whenUnsatisfiable}");
            errors.push(FieldError::duplicate(&path, format!("{{{key}, {action}}}")));
        }
        if let Some(domains) = constraint.int("minDomains") {
            if domains <= 0 {
                let detail = "must be greater than zero";
                errors.push(FieldError::invalid(&item.child("minDomains"), domains, detail));
            }
            if action != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(FieldError::invalid(&item.child("minDomains"), domains, detail));
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let supported = ["Honor", "Ignore"];
            rules::supported_or_empty(&item.child(key), constraint.text(key), &supported, errors);
        }
        label_keys(&item, constraint, errors);
        label_selector(&item.child("labelSelector"), constraint.at("labelSelector"), errors);
    }
}

/// Keys whose values a pod's own labels give; they stand beside a selector and are not in it, nor in both lists.
fn label_keys(path: &Path, holder: &Value, errors: &mut Errors) {
    let texts = |list: &str| holder.items(list).iter().filter_map(Value::as_str).collect::<Vec<_>>();
    let selector = holder.at("labelSelector");
    for list in ["matchLabelKeys", "mismatchLabelKeys"] {
        let (keys, path) = (texts(list), path.child(list));
        if !keys.is_empty() && selector.is_null() {
            errors.push(FieldError::forbidden(&path, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (index, key) in keys.iter().enumerate() {
            rules::qualified(&path.index(index), key, errors);
        }
    }
    let keys = texts("matchLabelKeys");
    let mut selected: BTreeSet<&str> = selector
        .fields("matchLabels")
        .into_iter()
        .flat_map(serde_json::Map::keys)
        .map(String::as_str)
        .collect();
    for expression in selector.items("matchExpressions") {
        let key = expression.text("key");
        if let Some(index) = keys.iter().rposition(|k| *k == key).filter(|_| selected.contains(key)) {
            // Upstream leaves the list out of this path.
            let detail = "exists in both matchLabelKeys and labelSelector";
            errors.push(FieldError::invalid(&path.index(index), key, detail));
        }
        selected.insert(key);
    }
    let mismatched = texts("mismatchLabelKeys");
    for (index, key) in keys.iter().enumerate().filter(|(_, key)| mismatched.contains(key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(FieldError::invalid(&path.child("matchLabelKeys").index(index), *key, detail));
    }
}

pub(super) const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "PreferNoSchedule"];

pub(in crate::resources::validate) fn tolerations(path: &Path, tolerations: &[Value], errors: &mut Errors) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let (key, operator) = (toleration.text("key"), toleration.text("operator"));
        let (value, effect) = (toleration.text("value"), toleration.text("effect"));
        if !key.is_empty() {
            rules::qualified(&path.child("key"), key, errors);
        }
        if key.is_empty() && operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&path.child("operator"), operator, detail));
        }
        if toleration.has("tolerationSeconds") && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&path.child("effect"), effect, detail));
        }
        match operator {
            "" | "Equal" => {
                let messages = names::label_value(value);
                if !messages.is_empty() {
                    errors.push(FieldError::invalid(&path.child("operator"), value, messages.join(";")));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    let detail = "value must be empty when `operator` is 'Exists'";
                    errors.push(FieldError::invalid(&path.child("operator"), value, detail));
                }
            }
            other => {
                errors.push(FieldError::not_supported(&path.child("operator"), other, &["Equal", "Exists"]));
            }
        }
        rules::supported_or_empty(&path.child("effect"), effect, &EFFECTS, errors);
    }
}
