//! FlowSchemas and PriorityLevelConfigurations. Upstream: `pkg/apis/flowcontrol/validation`.

use std::collections::BTreeSet;

use super::cursor::Cursor;
use crate::names;

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub(super) fn flow_schema(schema: Cursor<'_>) {
    let spec = schema.field("spec");
    let precedence = spec.field("matchingPrecedence");
    let number = precedence.number().unwrap_or_default();
    if number <= 0 {
        precedence.invalid("must be a positive value");
    }
    if number > PRECEDENCE_MAX {
        precedence.invalid(format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if number == 1 && schema.text("metadata.name") != "exempt" {
        precedence.invalid("only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = spec.field("distinguisherMethod").if_set() {
        method.plain(&["type"]);
    }
    let level = spec.field("priorityLevelConfiguration").field("name");
    if level.required_with("must reference a priority level") {
        level.subdomain();
    }
    spec.each("rules").for_each(policy_rule);
    conditions(schema);
}

/// Each type of condition once, and named.
pub(super) fn conditions(object: Cursor<'_>) {
    let mut seen = BTreeSet::new();
    for kind in object.each("status.conditions").map(|condition| condition.field("type")) {
        if !seen.insert(kind.str()) {
            kind.duplicate();
        }
        kind.required();
    }
}

fn policy_rule(rule: Cursor<'_>) {
    rule.field("subjects").required_with("subjects must contain at least one value");
    rule.each("subjects").for_each(subject);
    if rule.list("resourceRules").is_empty() && rule.list("nonResourceRules").is_empty() {
        rule.missing("at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    rule.each("resourceRules").for_each(resource_rule);
    for rule in rule.each("nonResourceRules") {
        verbs(rule);
        let missing = "nonResourceURLs must contain at least one value";
        list(rule.field("nonResourceURLs"), missing, "non-resource URLs");
    }
}

/// Kinds of subjects, and the field that says which.
const SUBJECTS: [(&str, &str); 3] =
    [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

fn subject(subject: Cursor<'_>) {
    let kind = subject.field("kind");
    let Some((_, own)) = SUBJECTS.iter().find(|(name, _)| *name == kind.str()) else {
        return kind.unsupported(&SUBJECTS.map(|(name, _)| name));
    };
    let who = subject.field(own);
    if who.required_with(&format!("{own} is required when subject kind is '{}'", kind.str())) {
        let (name, account) = (who.field("name"), kind.str() == "ServiceAccount");
        if name.required() && account && name.str() != "*" {
            name.subdomain();
        }
        if account && who.field("namespace").required_with("must specify namespace for service account") {
            who.field("namespace").label();
        }
    }
    for (name, other) in SUBJECTS.into_iter().filter(|(name, _)| *name != kind.str()) {
        if subject.has(other) {
            let detail = format!("{other} is forbidden when subject kind is not '{name}'");
            subject.field(other).forbidden(detail);
        }
    }
}

/// A list that is not empty, and whose wildcard stands alone.
fn list(list: Cursor<'_>, missing: &str, what: &str) {
    if list.required_with(missing) && list.values().len() > 1 && list.strs().contains(&"*") {
        list.invalid(format!("if '*' is present, must not specify other {what}"));
    }
}

fn verbs(rule: Cursor<'_>) {
    let verbs = rule.field("verbs");
    list(verbs, "verbs must contain at least one value", "verbs");
    let given = verbs.strs();
    if !given.contains(&"*") && given.iter().any(|verb| !VERBS.contains(verb)) {
        verbs.unsupported(&VERBS);
    }
}

fn resource_rule(rule: Cursor<'_>) {
    verbs(rule);
    list(rule.field("apiGroups"), "resource rules must supply at least one api group", "api groups");
    list(rule.field("resources"), "resource rules must supply at least one resource", "resources");
    let namespaces = rule.field("namespaces");
    if !(namespaces.is_empty() && rule.flag("clusterScope")) {
        let missing = "resource rules that are not cluster scoped must supply at least one namespace";
        list(namespaces, missing, "namespaces");
    }
    if namespaces.strs().contains(&"*") {
        return;
    }
    for namespace in namespaces.items() {
        for message in names::dns1123_label(namespace.str()) {
            namespace.invalid(format!("each member of this list must be '*' or a DNS-1123 label; {message}"));
        }
    }
}

pub(super) fn priority_level(level: Cursor<'_>) {
    let (spec, kind) = (level.field("spec"), level.field("spec.type"));
    if (level.text("metadata.name") == "exempt") != (kind.str() == "Exempt") {
        kind.invalid("must be 'Exempt' if and only if `name` is 'exempt'");
    }
    let (limited, exempt) = (spec.field("limited"), spec.field("exempt"));
    match kind.str() {
        "Exempt" => {
            if limited.is_set() {
                limited.forbidden("must be nil if the type is not Limited");
            }
            shares(exempt);
        }
        "Limited" => {
            if exempt.is_set() {
                exempt.forbidden("must be nil if the type is Limited");
            }
            if limited.required_with("must not be empty when type is Limited") {
                shares(limited);
                let percent = limited.field("borrowingLimitPercent");
                if percent.number().is_some_and(|percent| percent < 0) {
                    percent.invalid("if specified, must be a non-negative integer");
                }
                response(limited.field("limitResponse"));
            }
        }
        _ => kind.enumerated(),
    }
    conditions(level);
}

fn shares(part: Cursor<'_>) {
    let shares = part.field("nominalConcurrencyShares");
    if shares.number().is_some_and(|shares| shares < 0) {
        shares.invalid("must be a non-negative integer");
    }
    part.plain(&["lendablePercent"]);
}

fn response(response: Cursor<'_>) {
    let queuing = response.field("queuing");
    match (response.text("type"), queuing.is_set()) {
        ("Reject", true) => queuing.forbidden("must be nil if limited.limitResponse.type is not Limited"),
        ("Reject", false) => {}
        ("Queue", true) => queues(queuing),
        ("Queue", false) => queuing.missing("must not be empty if limited.limitResponse.type is Limited"),
        _ => response.field("type").enumerated(),
    }
}

fn queues(queuing: Cursor<'_>) {
    for key in ["queueLengthLimit", "queues", "handSize"] {
        if queuing.int(key) <= 0 {
            queuing.field(key).invalid("must be positive");
        }
    }
    let queues = queuing.int("queues");
    if queues > QUEUES_MAX {
        queuing.field("queues").invalid(format!("must not be greater than {QUEUES_MAX}"));
    }
    if queues > 0 && queuing.int("handSize") > queues {
        queuing.field("handSize").invalid(format!("should not be greater than queues ({queues})"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{resources::validate::cursor::look, schema::builtin};
    use serde_json::{Value, json};

    fn texts(check: fn(Cursor<'_>), object: &Value) -> Vec<String> {
        let api = "flowcontrol.apiserver.k8s.io/v1";
        let kind = if object["spec"]["type"].is_null() { "FlowSchema" } else { "PriorityLevelConfiguration" };
        let errors = look(builtin().named(api, kind), object, None, check);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_schema_names_a_level_and_whom_it_is_about() {
        let schema = json!({"metadata": {"name": "s"}, "spec": {"matchingPrecedence": 1, "rules": [
            {"subjects": [{"kind": "User", "group": {"name": "g"}}]}]}});
        assert_eq!(
            texts(flow_schema, &schema),
            [
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
                "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
                "spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            ]
        );
    }

    #[test]
    fn a_level_that_queues_says_how() {
        let level = |response: Value| {
            json!({"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 5,
                "limitResponse": response}}})
        };
        assert_eq!(texts(priority_level, &level(json!({"type": "Reject"}))), Vec::<String>::new());
        assert_eq!(
            texts(
                priority_level,
                &level(
                    json!({"type": "Queue", "queuing": {"queues": 2, "handSize": 3, "queueLengthLimit": 0}})
                )
            ),
            [
                "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: 0: must be positive",
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 3: should not be greater than queues (2)",
            ]
        );
        let exempt = json!({"metadata": {"name": "l"}, "spec": {"type": "Exempt"}});
        assert_eq!(
            texts(priority_level, &exempt),
            ["spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'"]
        );
    }
}
