//! When a container starts again: after its end, and for other resources.

use std::collections::BTreeSet;

use crate::resources::validate::cursor::Cursor;

const RULES_MAX: usize = 20;
const CODES_MAX: usize = 255;

/// A container's own policy, and the rules beside it.
pub(super) fn policy(container: Cursor<'_>) {
    let (policy, rules) = (container.field("restartPolicy"), container.field("restartPolicyRules"));
    match (policy.is_set(), rules.is_empty()) {
        (false, true) => return,
        (false, false) => policy.missing("must specify restartPolicy when restart rules are used"),
        (true, _) => policy.enumerated(),
    }
    let count = rules.values().len();
    if count > RULES_MAX {
        rules.too_many(count, RULES_MAX);
    }
    for rule in rules.items() {
        rule.field("action").enumerated();
        let codes = rule.field("exitCodes");
        if codes.required_with("must be specified") {
            codes.field("operator").enumerated();
            let count = codes.list("values").len();
            if count > CODES_MAX {
                codes.field("values").too_many(count, CODES_MAX);
            }
        }
    }
}

/// What a change of a container's resources asks of it. Upstream leaves the index out of most of these paths.
pub(super) fn resize(policies: Cursor<'_>, pod_policy: &str) {
    let mut seen = BTreeSet::new();
    for policy in policies.items() {
        let (resource, restart) = (policy.text("resourceName"), policy.field("restartPolicy"));
        if !seen.insert(resource) {
            policy.duplicate_value(resource, "");
        }
        let (resource, restart) =
            (policy.field("resourceName").reported_at(policies), restart.reported_at(policies));
        if resource.required() {
            resource.one_of(&["cpu", "memory"]);
        }
        if restart.required() {
            restart.is_plain();
        }
        if pod_policy == "Never" && restart.str() != "NotRequired" {
            restart.invalid("must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}
