//! Roles, budgets, priorities, leases, runtime classes.

use std::collections::BTreeSet;

use super::{cursor::Cursor, pod};
use crate::names;

const RBAC: &str = "rbac.authorization.k8s.io";

fn is_namespaced(object: Cursor<'_>) -> bool {
    !object.text("metadata.namespace").is_empty()
}

pub(super) fn role(role: Cursor<'_>) {
    role.each("rules").for_each(|rule| policy_rule(rule, is_namespaced(role)));
    if !is_namespaced(role) && role.has("aggregationRule") {
        let selectors = role.field("aggregationRule.clusterRoleSelectors");
        selectors.required_with("at least one clusterRoleSelector required if aggregationRule is non-nil");
        selectors.items().for_each(Cursor::label_selector);
    }
}

fn policy_rule(rule: Cursor<'_>, namespaced: bool) {
    rule.field("verbs").required_with("verbs must contain at least one value");
    let urls = rule.field("nonResourceURLs");
    if urls.is_empty() {
        rule.field("apiGroups").required_with("resource rules must supply at least one api group");
        rule.field("resources").required_with("resource rules must supply at least one resource");
        return;
    }
    if namespaced {
        urls.invalid("namespaced rules cannot apply to non-resource URLs");
    }
    if ["apiGroups", "resources", "resourceNames"].iter().any(|key| !rule.list(key).is_empty()) {
        urls.invalid("rules cannot apply to both regular resources and non-resource URLs");
    }
}

pub(super) fn role_binding(binding: Cursor<'_>) {
    let role = binding.field("roleRef");
    role.field("apiGroup").supported(&[RBAC]);
    let kinds: &[&str] = if is_namespaced(binding) { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    role.field("kind").supported(kinds);
    role.field("name").segment();
    binding.each("subjects").for_each(|subject| role_subject(subject, is_namespaced(binding)));
}

fn role_subject(subject: Cursor<'_>, namespaced: bool) {
    let (kind, name) = (subject.field("kind"), subject.field("name"));
    name.required();
    let group = match kind.str() {
        "ServiceAccount" => {
            name.optional_format(names::dns1123_subdomain);
            if !namespaced {
                subject.field("namespace").required();
            }
            ""
        }
        "User" | "Group" => RBAC,
        _ => return kind.unsupported(&["ServiceAccount", "User", "Group"]),
    };
    subject.field("apiGroup").supported(&[group]);
}

pub(super) fn role_binding_update(binding: Cursor<'_>) {
    let role = binding.field("roleRef");
    if role.changed() {
        role.invalid("cannot change roleRef");
    }
}

pub(super) fn disruption_budget(budget: Cursor<'_>) {
    let spec = budget.field("spec");
    if spec.has("minAvailable") && spec.has("maxUnavailable") {
        spec.invalid("minAvailable and maxUnavailable cannot be both set");
    }
    for amount in ["minAvailable", "maxUnavailable"].map(|key| spec.field(key)) {
        amount.count_or_percent();
        amount.not_over_100_percent();
    }
    spec.field("selector").label_selector();
    spec.plain(&["unhealthyPodEvictionPolicy"]);
}

pub(super) fn disruption_budget_status(budget: Cursor<'_>) {
    let status = budget.field("status");
    conditions(status.field("conditions"));
    status.not_negatives(&["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"]);
}

/// Conditions in the form all newer kinds share.
pub(super) fn conditions(conditions: Cursor<'_>) {
    let mut seen = BTreeSet::new();
    for condition in conditions.items() {
        let kind = condition.field("type");
        if !seen.insert(kind.str()) {
            kind.duplicate();
        }
        kind.qualified();
        condition.plain(&["status", "observedGeneration", "lastTransitionTime", "message"]);
        let reason = condition.field("reason");
        if reason.required() {
            reason.format(condition_reason);
            reason.bounded(1024);
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

pub(super) fn priority_class(class: Cursor<'_>) {
    let (name, value) = (class.field("metadata.name"), class.field("value"));
    let number = value.number().unwrap_or_default();
    let known = match name.str() {
        "system-cluster-critical" => Some(2_000_000_000),
        "system-node-critical" => Some(2_000_001_000),
        _ => None,
    };
    match known {
        Some(known) if number != known => {
            name.forbidden(format!("value of {} PriorityClass must be {known}", name.str()));
        }
        Some(_) => {}
        None if name.str().starts_with("system-") => name.forbidden(format!(
            "priority class names with 'system-' prefix are reserved for system use only. error: {} is not a known \
             system priority class",
            name.str()
        )),
        None if number > USER_PRIORITY_MAX => {
            value.forbidden(format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}"));
        }
        None => {}
    }
    class.plain(&["preemptionPolicy"]);
}

pub(super) fn priority_class_update(class: Cursor<'_>) {
    let value = class.field("value");
    if value.number().unwrap_or_default() != value.old.as_i64().unwrap_or_default() {
        value.forbidden("may not be changed in an update.");
    }
    class.field("preemptionPolicy").immutable();
}

pub(super) fn lease(lease: Cursor<'_>) {
    let spec = lease.field("spec");
    let seconds = spec.field("leaseDurationSeconds");
    if seconds.number().is_some_and(|seconds| seconds <= 0) {
        seconds.invalid("must be greater than 0");
    }
    spec.plain(&["leaseTransitions"]);
    if let Some(strategy) = spec.field("strategy").if_set() {
        lease_strategy(strategy);
    }
    if !spec.text("preferredHolder").is_empty() && spec.text("strategy").is_empty() {
        spec.field("preferredHolder").forbidden("may only be specified if `strategy` is defined");
    }
}

/// One of Kubernetes' own strategies, or somebody's with a domain in front.
fn lease_strategy(strategy: Cursor<'_>) {
    // Upstream says `strategy` twice here.
    let strategy = strategy.named("strategy.strategy");
    if strategy.str().contains('/') {
        strategy.qualified();
    } else {
        strategy.enumerated();
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

pub(super) fn lease_candidate(candidate: Cursor<'_>) {
    let spec = candidate.field("spec");
    spec.field("leaseName").required();
    let (emulated, binary) = (spec.field("emulationVersion"), spec.field("binaryVersion"));
    for field in [emulated, binary] {
        if !field.is_empty() && version(field.str()).is_none() {
            field.invalid("must be a valid semantic version");
        }
    }
    binary.required();
    let of = |field: Cursor<'_>| version(field.str()).map(|(numbers, _)| numbers).unwrap_or_default();
    if !binary.is_empty() && !emulated.is_empty() && of(binary) < of(emulated) {
        binary.invalid("must be greater than or equal to `emulationVersion`");
    }
    let strategy = spec.field("strategy");
    if strategy.required() {
        if strategy.is_enumerated() && of(emulated) == [0; 3] {
            emulated.missing("must be specified when `strategy` is 'OldestEmulationVersion'");
        }
        lease_strategy(strategy);
    }
}

pub(super) fn runtime_class(class: Cursor<'_>) {
    class.plain(&["handler"]);
    if class.has("overhead") {
        let limits = serde_json::json!({"limits": class.at("overhead.podFixed")});
        class.field("overhead").over(&limits, |overhead| overhead.requirements(Cursor::container_resource));
    }
    class.field("scheduling.nodeSelector").labels();
    let tolerations = class.field("scheduling.tolerations");
    pod::tolerations(tolerations);
    let mut seen = BTreeSet::new();
    for toleration in tolerations.items() {
        if !seen.insert(["key", "operator", "value", "effect"].map(|key| toleration.text(key))) {
            toleration.duplicate();
        }
    }
}
