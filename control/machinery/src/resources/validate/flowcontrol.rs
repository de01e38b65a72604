//! FlowSchemas and PriorityLevelConfigurations. Upstream: `pkg/apis/flowcontrol/validation`.

use serde_json::Value;

use super::{Errors, rules};
use crate::{
    field::{FieldError, Path},
    names,
    resources::access::Get,
};

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub(super) fn flow_schema(schema: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), schema.at("spec"));
    let precedence = spec.int("matchingPrecedence").unwrap_or_default();
    let precedence_path = path.child("matchingPrecedence");
    let mut wrong = |detail: String| errors.push(FieldError::invalid(&precedence_path, precedence, detail));
    if precedence <= 0 {
        wrong("must be a positive value".to_owned());
    }
    if precedence > PRECEDENCE_MAX {
        wrong(format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if precedence == 1 && schema.text("metadata.name") != "exempt" {
        wrong("only the schema named 'exempt' may have matchingPrecedence 1".to_owned());
    }
    if spec.at("distinguisherMethod").is_object() {
        let method = spec.text("distinguisherMethod.type");
        let supported = ["ByNamespace", "ByUser"];
        if !supported.contains(&method) {
            let path = path.child("distinguisherMethod").child("type");
            errors.push(FieldError::not_supported(&path, method, &supported));
        }
    }
    let (level, level_path) = (
        spec.text("priorityLevelConfiguration.name"),
        path.child("priorityLevelConfiguration").child("name"),
    );
    if level.is_empty() {
        errors.push(FieldError::required(&level_path, "must reference a priority level"));
    } else {
        rules::subdomain(&level_path, level, errors);
    }
    for (index, rule) in spec.items("rules").iter().enumerate() {
        policy_rule(&path.child("rules").index(index), rule, errors);
    }
    conditions(schema, errors);
}

/// Each type of condition once, and named.
pub(super) fn conditions(object: &Value, errors: &mut Errors) {
    let path = Path::new("status").child("conditions");
    let conditions = object.items("status.conditions");
    for (index, condition) in conditions.iter().enumerate() {
        let (path, name) = (path.index(index).child("type"), condition.text("type"));
        if conditions.iter().take(index).any(|other| other.text("type") == name) {
            errors.push(FieldError::duplicate(&path, name));
        }
        rules::required(&path, name, errors);
    }
}

/// The same of a changed status.
pub(super) fn status(new: &Value, _: &Value, errors: &mut Errors) {
    conditions(new, errors);
}

fn policy_rule(path: &Path, rule: &Value, errors: &mut Errors) {
    let subjects = rule.items("subjects");
    if subjects.is_empty() {
        let detail = "subjects must contain at least one value";
        errors.push(FieldError::required(&path.child("subjects"), detail));
    }
    for (index, one) in subjects.iter().enumerate() {
        subject(&path.child("subjects").index(index), one, errors);
    }
    if rule.items("resourceRules").is_empty() && rule.items("nonResourceRules").is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, detail));
    }
    for (index, one) in rule.items("resourceRules").iter().enumerate() {
        resource_rule(&path.child("resourceRules").index(index), one, errors);
    }
    for (index, one) in rule.items("nonResourceRules").iter().enumerate() {
        let path = path.child("nonResourceRules").index(index);
        verbs(&path, one, errors);
        let detail = "nonResourceURLs must contain at least one value";
        list(&path, one, "nonResourceURLs", detail, "non-resource URLs", errors);
    }
}

fn subject(path: &Path, subject: &Value, errors: &mut Errors) {
    const KINDS: [(&str, &str); 3] =
        [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = subject.text("kind");
    let Some((_, own)) = KINDS.iter().find(|(name, _)| *name == kind) else {
        let supported = ["Group", "ServiceAccount", "User"];
        errors.push(FieldError::not_supported(&path.child("kind"), kind, &supported));
        return;
    };
    let (own_path, value) = (path.child(own), subject.at(own));
    if value.is_object() {
        let name = value.text("name");
        if rules::required(&own_path.child("name"), name, errors) && kind == "ServiceAccount" && name != "*" {
            rules::subdomain(&own_path.child("name"), name, errors);
        }
        if kind == "ServiceAccount" {
            let namespace = value.text("namespace");
            if namespace.is_empty() {
                let detail = "must specify namespace for service account";
                errors.push(FieldError::required(&own_path.child("namespace"), detail));
            } else {
                rules::label(&own_path.child("namespace"), namespace, errors);
            }
        }
    } else {
        errors.push(FieldError::required(
            &own_path,
            format!("{own} is required when subject kind is '{kind}'"),
        ));
    }
    for (name, other) in KINDS.iter().filter(|(name, _)| *name != kind) {
        if subject.at(other).is_object() {
            let detail = format!("{other} is forbidden when subject kind is not '{name}'");
            errors.push(FieldError::forbidden(&path.child(other), detail));
        }
    }
}

/// A list that is not empty, and whose wildcard stands alone.
fn list(path: &Path, rule: &Value, key: &str, missing: &str, what: &str, errors: &mut Errors) {
    let values = rule.items(key);
    if values.is_empty() {
        errors.push(FieldError::required(&path.child(key), missing));
    } else if values.len() > 1 && values.iter().any(|value| value == "*") {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(&path.child(key), rule.at(key).clone(), detail));
    }
}

fn verbs(path: &Path, rule: &Value, errors: &mut Errors) {
    list(path, rule, "verbs", "verbs must contain at least one value", "verbs", errors);
    let given = rule.items("verbs");
    let unknown = |verb: &Value| !VERBS.contains(&verb.as_str().unwrap_or_default());
    if !given.iter().any(|verb| verb == "*") && given.iter().any(unknown) {
        errors.push(FieldError::not_supported(&path.child("verbs"), rule.at("verbs").clone(), &VERBS));
    }
}

fn resource_rule(path: &Path, rule: &Value, errors: &mut Errors) {
    verbs(path, rule, errors);
    let group = "resource rules must supply at least one api group";
    list(path, rule, "apiGroups", group, "api groups", errors);
    let resource = "resource rules must supply at least one resource";
    list(path, rule, "resources", resource, "resources", errors);
    let namespaces = rule.items("namespaces");
    if !(namespaces.is_empty() && rule.flag("clusterScope")) {
        let missing = "resource rules that are not cluster scoped must supply at least one namespace";
        list(path, rule, "namespaces", missing, "namespaces", errors);
    }
    if namespaces.iter().any(|namespace| namespace == "*") {
        return;
    }
    for (index, namespace) in namespaces.iter().enumerate() {
        let text = namespace.as_str().unwrap_or_default();
        for message in names::dns1123_label(text) {
            let detail = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
            errors.push(FieldError::invalid(&path.child("namespaces").index(index), text, detail));
        }
    }
}

pub(super) fn priority_level(level: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), level.at("spec"));
    let kind = spec.text("type");
    if (level.text("metadata.name") == "exempt") != (kind == "Exempt") {
        let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(FieldError::invalid(&path.child("type"), kind, detail));
    }
    let (limited, exempt) = (spec.at("limited"), spec.at("exempt"));
    match kind {
        "Exempt" => {
            if limited.is_object() {
                let detail = "must be nil if the type is not Limited";
                errors.push(FieldError::forbidden(&path.child("limited"), detail));
            }
            shares(&path.child("exempt"), exempt, errors);
        }
        "Limited" => {
            if exempt.is_object() {
                let detail = "must be nil if the type is Limited";
                errors.push(FieldError::forbidden(&path.child("exempt"), detail));
            }
            let path = path.child("limited");
            if limited.is_object() {
                shares(&path, limited, errors);
                if let Some(percent) = limited.int("borrowingLimitPercent").filter(|percent| *percent < 0) {
                    let detail = "if specified, must be a non-negative integer";
                    errors.push(FieldError::invalid(&path.child("borrowingLimitPercent"), percent, detail));
                }
                response(&path.child("limitResponse"), limited.at("limitResponse"), errors);
            } else {
                errors.push(FieldError::required(&path, "must not be empty when type is Limited"));
            }
        }
        other => {
            let supported = ["Exempt", "Limited"];
            errors.push(FieldError::not_supported(&path.child("type"), other, &supported));
        }
    }
    conditions(level, errors);
}

fn shares(path: &Path, part: &Value, errors: &mut Errors) {
    if let Some(shares) = part.int("nominalConcurrencyShares").filter(|shares| *shares < 0) {
        let detail = "must be a non-negative integer";
        errors.push(FieldError::invalid(&path.child("nominalConcurrencyShares"), shares, detail));
    }
    if let Some(percent) = part.int("lendablePercent").filter(|percent| !(0..=100).contains(percent)) {
        let detail = "must be between 0 and 100, inclusive";
        errors.push(FieldError::invalid(&path.child("lendablePercent"), percent, detail));
    }
}

fn response(path: &Path, response: &Value, errors: &mut Errors) {
    let queuing = response.at("queuing");
    match response.text("type") {
        "Reject" if queuing.is_object() => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(FieldError::forbidden(&path.child("queuing"), detail));
        }
        "Reject" => {}
        "Queue" if queuing.is_object() => queues(&path.child("queuing"), queuing, errors),
        "Queue" => {
            let detail = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(FieldError::required(&path.child("queuing"), detail));
        }
        other => {
            let supported = ["Queue", "Reject"];
            errors.push(FieldError::not_supported(&path.child("type"), other, &supported));
        }
    }
}

fn queues(path: &Path, queuing: &Value, errors: &mut Errors) {
    let number = |key: &str| queuing.int(key).unwrap_or_default();
    let (queues, hand) = (number("queues"), number("handSize"));
    for key in ["queueLengthLimit", "queues", "handSize"] {
        if number(key) <= 0 {
            errors.push(FieldError::invalid(&path.child(key), number(key), "must be positive"));
        }
    }
    if queues > QUEUES_MAX {
        let detail = format!("must not be greater than {QUEUES_MAX}");
        errors.push(FieldError::invalid(&path.child("queues"), queues, detail));
    }
    if queues > 0 && hand > queues {
        let detail = format!("should not be greater than queues ({queues})");
        errors.push(FieldError::invalid(&path.child("handSize"), hand, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(check: fn(&Value, &mut Errors), object: &Value) -> Vec<String> {
        let mut errors = Errors::new();
        check(object, &mut errors);
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
