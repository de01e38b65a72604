//! When a job fails for good, and when it has succeeded.

use std::collections::BTreeSet;

use super::indexes::count;
use crate::{goformat::go_quote, resources::validate::cursor::Cursor};

const RULES_MAX: usize = 20;
const CODES_MAX: usize = 255;
const CONDITIONS_MAX: usize = 20;
/// The longest list of indexes, in bytes.
const INDEXES_MAX: usize = 64 * 1024;

fn at_most(list: Cursor<'_>, max: usize) {
    let count = list.values().len();
    if count > max {
        list.too_many(count, max);
    }
}

/// A value of an enumeration, which upstream lists where it is missing.
fn listed(value: Cursor<'_>) {
    let mut values: Vec<String> = value.enumeration().into_iter().map(go_quote).collect();
    values.sort();
    if value.required_with(&format!("valid values: [{}]", values.join(" "))) {
        value.is_plain();
    }
}

pub(super) fn failure(spec: Cursor<'_>) {
    let rules = spec.field("podFailurePolicy.rules");
    at_most(rules, RULES_MAX);
    let containers: BTreeSet<&str> = ["template.spec.containers", "template.spec.initContainers"]
        .into_iter()
        .flat_map(|list| spec.each(list))
        .map(|container| container.text("name"))
        .collect();
    for rule in rules.items() {
        let action = rule.field("action");
        listed(action);
        if action.str() == "FailIndex" && !spec.has("backoffLimitPerIndex") {
            action.invalid("requires the backoffLimitPerIndex to be set");
        }
        let (codes, conditions) = (rule.field("onExitCodes"), rule.field("onPodConditions"));
        if codes.is_set() {
            exit_codes(codes, &containers);
        }
        at_most(conditions, CONDITIONS_MAX);
        for pattern in conditions.items() {
            pattern.field("type").qualified();
            listed(pattern.field("status"));
        }
        match (codes.is_set(), conditions.is_empty()) {
            (true, false) => {
                rule.invalid_unshown("specifying both OnExitCodes and OnPodConditions is not supported");
            }
            (false, true) => {
                rule.invalid_unshown("specifying one of OnExitCodes and OnPodConditions is required");
            }
            _ => {}
        }
    }
}

fn exit_codes(codes: Cursor<'_>, containers: &BTreeSet<&str>) {
    listed(codes.field("operator"));
    let (name, values) = (codes.field("containerName"), codes.field("values"));
    if name.is_set() && !containers.contains(name.str()) {
        name.invalid("must be one of the container or initContainer names in the pod template");
    }
    if values.is_empty() {
        values.invalid("at least one value is required");
    }
    at_most(values, CODES_MAX);
    let mut seen = BTreeSet::new();
    for value in values.items() {
        if codes.text("operator") == "In" && value.number() == Some(0) {
            value.invalid("must not be 0 for the In operator");
        }
        if !seen.insert(value.number()) {
            value.duplicate();
        }
    }
    if !values.items().is_sorted_by_key(Cursor::number) {
        values.invalid("must be ordered");
    }
}

pub(super) fn success(spec: Cursor<'_>) {
    let Some(policy) = spec.field("successPolicy").if_set() else { return };
    if spec.text("completionMode") != "Indexed" {
        return policy.invalid("requires indexed completion mode");
    }
    let rules = policy.field("rules");
    rules.required_with("at least one rules must be specified when the successPolicy is specified");
    at_most(rules, RULES_MAX);
    let completions = spec.int("completions");
    for rule in rules.items() {
        let (succeeded, indexes) = (rule.field("succeededCount"), rule.field("succeededIndexes"));
        if !succeeded.is_set() && !indexes.is_set() {
            rule.missing("at least one of succeededCount or succeededIndexes must be specified");
        }
        indexes.bounded(INDEXES_MAX);
        let total = count(indexes.str(), completions).unwrap_or_else(|error| {
            indexes.invalid(format!("error parsing succeededIndexes: {error}"));
            0
        });
        succeeded.not_negative();
        let most = |most: i64, what: &str| {
            if succeeded.number() > Some(most) {
                succeeded.invalid(format!("must be less than or equal to {most} (the number of {what})"));
            }
        };
        most(completions, "specified completions");
        if indexes.is_set() {
            most(total, "indexes in the specified succeededIndexes field");
        }
    }
}
