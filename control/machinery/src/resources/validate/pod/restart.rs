//! When a container starts again: after its end, and for other resources.

use serde_json::Value;

use crate::{
    field::{FieldError, Path},
    resources::{access::Get, validate::Errors},
};

const RULES_MAX: usize = 20;
const CODES_MAX: usize = 255;

/// A container's own policy, and the rules beside it.
pub(super) fn policy(path: &Path, container: &Value, errors: &mut Errors) {
    let (rules, policy_path) = (container.items("restartPolicyRules"), path.child("restartPolicy"));
    let policies = ["Always", "Never", "OnFailure"];
    match container.at("restartPolicy").as_str() {
        None if rules.is_empty() => return,
        None => {
            let detail = "must specify restartPolicy when restart rules are used";
            errors.push(FieldError::required(&policy_path, detail));
        }
        Some(policy) if !policies.contains(&policy) => {
            errors.push(FieldError::not_supported(&policy_path, policy, &policies));
        }
        Some(_) => {}
    }
    let rules_path = path.child("restartPolicyRules");
    if rules.len() > RULES_MAX {
        errors.push(FieldError::too_many(&rules_path, rules.len(), RULES_MAX));
    }
    for (index, rule) in rules.iter().enumerate() {
        self::rule(&rules_path.index(index), rule, errors);
    }
}

fn rule(path: &Path, rule: &Value, errors: &mut Errors) {
    let (action, actions) = (rule.text("action"), ["Restart", "RestartAllContainers"]);
    if !actions.contains(&action) {
        errors.push(FieldError::not_supported(&path.child("action"), action, &actions));
    }
    let (codes, codes_path) = (rule.at("exitCodes"), path.child("exitCodes"));
    if codes.is_null() {
        errors.push(FieldError::required(&codes_path, "must be specified"));
        return;
    }
    let operator = codes.text("operator");
    if !["In", "NotIn"].contains(&operator) {
        errors.push(FieldError::not_supported(&codes_path.child("operator"), operator, &["In", "NotIn"]));
    }
    let count = codes.items("values").len();
    if count > CODES_MAX {
        errors.push(FieldError::too_many(&codes_path.child("values"), count, CODES_MAX));
    }
}

/// What a change of a container's resources asks of it. Upstream leaves the index out of most of these paths.
pub(super) fn resize(path: &Path, policies: &[Value], pod_policy: &str, errors: &mut Errors) {
    for (index, policy) in policies.iter().enumerate() {
        let (resource, restart) = (policy.text("resourceName"), policy.text("restartPolicy"));
        if policies.iter().take(index).any(|other| other.text("resourceName") == resource) {
            errors.push(FieldError::duplicate(&path.index(index), resource));
        }
        for (value, supported) in
            [(resource, ["cpu", "memory"]), (restart, ["NotRequired", "RestartContainer"])]
        {
            match value {
                "" => errors.push(FieldError::required(path, "")),
                known if supported.contains(&known) => {}
                other => errors.push(FieldError::not_supported(path, other, &supported)),
            }
        }
        if pod_policy == "Never" && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, restart, detail));
        }
    }
}
