//! Roles, budgets, priorities, leases, runtime classes.

use serde_json::Value;

use super::{Errors, pod, quantities, rules, selector};
use crate::{
    field::{FieldError, Path},
    names,
    resources::access::{Get, same},
};

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn role(role: &Value, errors: &mut Errors) {
    let cluster = role.text("metadata.namespace").is_empty();
    for (index, rule) in role.items("rules").iter().enumerate() {
        policy_rule(&Path::new("rules").index(index), rule, !cluster, errors);
    }
    if !cluster || !role.has("aggregationRule") {
        return;
    }
    let path = Path::from("aggregationRule.clusterRoleSelectors");
    let selectors = role.items("aggregationRule.clusterRoleSelectors");
    if selectors.is_empty() {
        let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(FieldError::required(&path, detail));
    }
    for (index, selector) in selectors.iter().enumerate() {
        selector::label_selector(&path.index(index), selector, errors);
    }
}

fn policy_rule(path: &Path, rule: &Value, namespaced: bool, errors: &mut Errors) {
    if rule.items("verbs").is_empty() {
        errors.push(FieldError::required(&path.child("verbs"), "verbs must contain at least one value"));
    }
    if !rule.items("nonResourceURLs").is_empty() {
        let urls = rule.at("nonResourceURLs").clone();
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.push(FieldError::invalid(&path.child("nonResourceURLs"), urls.clone(), detail));
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|key| !rule.items(key).is_empty()) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(&path.child("nonResourceURLs"), urls, detail));
        }
        return;
    }
    if rule.items("apiGroups").is_empty() {
        let detail = "resource rules must supply at least one api group";
        errors.push(FieldError::required(&path.child("apiGroups"), detail));
    }
    if rule.items("resources").is_empty() {
        let detail = "resource rules must supply at least one resource";
        errors.push(FieldError::required(&path.child("resources"), detail));
    }
}

pub(super) fn role_binding(binding: &Value, errors: &mut Errors) {
    let (path, role) = (Path::new("roleRef"), binding.at("roleRef"));
    let namespaced = !binding.text("metadata.namespace").is_empty();
    let group = role.text("apiGroup");
    if group != RBAC {
        errors.push(FieldError::not_supported(&path.child("apiGroup"), group, &[RBAC]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    let kind = role.text("kind");
    if !kinds.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("kind"), kind, kinds));
    }
    let name = role.text("name");
    if rules::required(&path.child("name"), name, errors) {
        rules::text(&path.child("name"), name, names::path_segment(name), errors);
    }
    for (index, subject) in binding.items("subjects").iter().enumerate() {
        role_subject(&Path::new("subjects").index(index), subject, namespaced, errors);
    }
}

fn role_subject(path: &Path, subject: &Value, namespaced: bool, errors: &mut Errors) {
    let (name, group) = (subject.text("name"), subject.text("apiGroup"));
    rules::required(&path.child("name"), name, errors);
    let expected = match subject.text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                rules::subdomain(&path.child("name"), name, errors);
            }
            if !namespaced && subject.text("namespace").is_empty() {
                errors.push(FieldError::required(&path.child("namespace"), ""));
            }
            ""
        }
        "User" | "Group" => RBAC,
        other => {
            let kinds = ["ServiceAccount", "User", "Group"];
            errors.push(FieldError::not_supported(&path.child("kind"), other, &kinds));
            return;
        }
    };
    if group != expected {
        errors.push(FieldError::not_supported(&path.child("apiGroup"), group, &[expected]));
    }
}

pub(super) fn role_binding_update(new: &Value, old: &Value, errors: &mut Errors) {
    if !same(new.at("roleRef"), old.at("roleRef")) {
        let detail = "cannot change roleRef";
        errors.push(FieldError::invalid(&Path::new("roleRef"), new.at("roleRef").clone(), detail));
    }
}

pub(super) fn disruption_budget(budget: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), budget.at("spec"));
    if spec.has("minAvailable") && spec.has("maxUnavailable") {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid(&path, spec.clone(), detail));
    }
    for key in ["minAvailable", "maxUnavailable"] {
        rules::count_or_percent(&path.child(key), spec.at(key), errors);
        rules::not_over_100_percent(&path.child(key), spec.at(key), errors);
    }
    selector::label_selector(&path.child("selector"), spec.at("selector"), errors);
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    let policy = spec.text("unhealthyPodEvictionPolicy");
    rules::supported_or_empty(&path.child("unhealthyPodEvictionPolicy"), policy, &policies, errors);
}

pub(super) fn disruption_budget_status(new: &Value, _old: &Value, errors: &mut Errors) {
    let (path, status) = (Path::new("status"), new.at("status"));
    conditions(&path.child("conditions"), status.items("conditions"), errors);
    let counts = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
    rules::not_negatives(&path, status, &counts, errors);
}

/// Conditions in the form all newer kinds share.
pub(super) fn conditions(path: &Path, conditions: &[Value], errors: &mut Errors) {
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        let kind = condition.text("type");
        if conditions.iter().take(index).any(|other| other.text("type") == kind) {
            errors.push(FieldError::duplicate(&path.child("type"), kind));
        }
        rules::qualified(&path.child("type"), kind, errors);
        let statuses = ["False", "True", "Unknown"];
        let status = condition.text("status");
        if !statuses.contains(&status) {
            errors.push(FieldError::not_supported(&path.child("status"), status, &statuses));
        }
        rules::not_negative(&path.child("observedGeneration"), condition.at("observedGeneration"), errors);
        rules::required(&path.child("lastTransitionTime"), condition.text("lastTransitionTime"), errors);
        if condition.text("message").len() > 32_768 {
            errors.push(FieldError::too_long(&path.child("message"), 32_768));
        }
        let reason = condition.text("reason");
        if rules::required(&path.child("reason"), reason, errors) {
            rules::text(&path.child("reason"), reason, condition_reason(reason), errors);
            if reason.len() > 1024 {
                errors.push(FieldError::too_long(&path.child("reason"), 1024));
            }
        }
    }
}

/// Words of letters, digits, `_`, `,` and `:`, as `MinimumReplicasAvailable`.
fn condition_reason(reason: &str) -> Vec<String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b',' || b == b':';
    let valid = reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && reason.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && reason.bytes().all(inner);
    if valid {
        return Vec::new();
    }
    vec![names::regex_error(
        "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric \
         characters or '_,:', and must end with an alphanumeric character or '_'",
        "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
        &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
    )]
}

/// Above this are the system's own classes.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;

pub(super) fn priority_class(class: &Value, errors: &mut Errors) {
    let (name, value) = (class.text("metadata.name"), class.int("value").unwrap_or_default());
    if let Some(known) = match name {
        "system-cluster-critical" => Some(2_000_000_000),
        "system-node-critical" => Some(2_000_001_000),
        _ => None,
    } {
        if value != known {
            let detail = format!("value of {name} PriorityClass must be {known}");
            errors.push(FieldError::forbidden(&Path::from("metadata.name"), detail));
        }
    } else if name.starts_with("system-") {
        let detail = "priority class names with 'system-' prefix are reserved for system use only. error: "
            .to_owned()
            + name
            + " is not a known system priority class";
        errors.push(FieldError::forbidden(&Path::from("metadata.name"), detail));
    } else if value > USER_PRIORITY_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
        errors.push(FieldError::forbidden(&Path::new("value"), detail));
    }
    let policies = ["PreemptLowerPriority", "Never"];
    let policy = class.text("preemptionPolicy");
    rules::supported_or_empty(&Path::new("preemptionPolicy"), policy, &policies, errors);
}

pub(super) fn priority_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    if new.int("value").unwrap_or_default() != old.int("value").unwrap_or_default() {
        let detail = "may not be changed in an update.";
        errors.push(FieldError::forbidden(&Path::new("value"), detail));
    }
    let key = "preemptionPolicy";
    rules::immutable(&Path::new(key), new.at(key), old.at(key), errors);
}

pub(super) fn lease(lease: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), lease.at("spec"));
    if let Some(seconds) = spec.int("leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        let detail = "must be greater than 0";
        errors.push(FieldError::invalid(&path.child("leaseDurationSeconds"), seconds, detail));
    }
    if let Some(count) = spec.int("leaseTransitions").filter(|count| *count < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(&path.child("leaseTransitions"), count, detail));
    }
    if let Some(strategy) = spec.at("strategy").as_str() {
        lease_strategy(&path.child("strategy"), strategy, errors);
    }
    if !spec.text("preferredHolder").is_empty() && spec.text("strategy").is_empty() {
        let detail = "may only be specified if `strategy` is defined";
        errors.push(FieldError::forbidden(&path.child("preferredHolder"), detail));
    }
}

const OLDEST: &str = "OldestEmulationVersion";

/// One of Kubernetes' own strategies, or somebody's with a domain in front.
fn lease_strategy(path: &Path, strategy: &str, errors: &mut Errors) {
    // Upstream says `strategy` twice here.
    let path = path.child("strategy");
    if strategy.contains('/') {
        rules::qualified(&path, strategy, errors);
    } else if strategy != OLDEST {
        errors.push(FieldError::not_supported(&path, strategy, &[OLDEST]));
    }
}

/// A semantic version's numbers, leading ones first; pre-releases sort by their text.
fn version(text: &str) -> Option<([u64; 3], &str)> {
    let text = text.split_once('+').map_or(text, |(version, _)| version);
    let (numbers, pre) = text.split_once('-').unwrap_or((text, ""));
    let mut parts = numbers.split('.').map(|part| {
        let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        (plain && (part.len() == 1 || !part.starts_with('0'))).then(|| part.parse::<u64>().ok()).flatten()
    });
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    (parts.next().is_none() && pre.is_empty() != text.contains('-')).then_some((numbers, pre))
}

pub(super) fn lease_candidate(candidate: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), candidate.at("spec"));
    rules::required(&path.child("leaseName"), spec.text("leaseName"), errors);
    let (emulated, binary) = (spec.text("emulationVersion"), spec.text("binaryVersion"));
    let (emulated_path, binary_path) = (path.child("emulationVersion"), path.child("binaryVersion"));
    let unreadable = "must be a valid semantic version";
    if !emulated.is_empty() && version(emulated).is_none() {
        errors.push(FieldError::invalid(&emulated_path, emulated, unreadable));
    }
    if rules::required(&binary_path, binary, errors) && version(binary).is_none() {
        errors.push(FieldError::invalid(&binary_path, binary, unreadable));
    }
    let of = |text: &str| version(text).map(|(numbers, _)| numbers).unwrap_or_default();
    if !binary.is_empty() && !emulated.is_empty() && of(binary) < of(emulated) {
        let detail = "must be greater than or equal to `emulationVersion`";
        errors.push(FieldError::invalid(&binary_path, binary, detail));
    }
    let strategy = spec.text("strategy");
    if rules::required(&path.child("strategy"), strategy, errors) {
        if strategy == OLDEST && of(emulated) == [0; 3] {
            let detail = "must be specified when `strategy` is 'OldestEmulationVersion'";
            errors.push(FieldError::required(&emulated_path, detail));
        }
        lease_strategy(&path.child("strategy"), strategy, errors);
    }
}

pub(super) fn lease_candidate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let key = "spec.leaseName";
    rules::immutable(&Path::from(key), new.at(key), old.at(key), errors);
}

pub(super) fn runtime_class(class: &Value, errors: &mut Errors) {
    let handler = class.text("handler");
    if rules::required(&Path::new("handler"), handler, errors) {
        rules::label(&Path::new("handler"), handler, errors);
    }
    if class.has("overhead") {
        let limits = serde_json::json!({"limits": class.at("overhead.podFixed")});
        quantities::requirements(&Path::new("overhead"), &limits, errors);
    }
    let (path, scheduling) = (Path::new("scheduling"), class.at("scheduling"));
    rules::labels(&path.child("nodeSelector"), scheduling.at("nodeSelector"), errors);
    let (path, tolerations) = (path.child("tolerations"), scheduling.items("tolerations"));
    pod::tolerations(&path, tolerations, errors);
    for (index, toleration) in tolerations.iter().enumerate() {
        let alike = |other: &&Value| {
            ["key", "operator", "value", "effect"].iter().all(|key| other.text(key) == toleration.text(key))
        };
        if tolerations.iter().take(index).any(|other| alike(&other)) {
            errors.push(FieldError::duplicate(&path.index(index), toleration.clone()));
        }
    }
}

pub(super) fn runtime_class_update(new: &Value, old: &Value, errors: &mut Errors) {
    rules::immutable(&Path::new("handler"), new.at("handler"), old.at("handler"), errors);
}
