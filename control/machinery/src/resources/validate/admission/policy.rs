//! ValidatingAdmissionPolicy, MutatingAdmissionPolicy and their bindings, but for the expressions' own errors.

use std::collections::BTreeSet;

use super::{compiles, match_conditions, rule_with_operations};
use crate::{
    admission::{Declarations, ResultType, Variables},
    cel::{
        Type,
        words::{RESERVED, is_identifier},
    },
    names,
    resources::validate::cursor::Cursor,
};

const ANNOTATIONS_MAX: usize = 20;
const ANNOTATION_EXPRESSION_MAX: usize = 5 * 1024;

pub(in super::super) fn validating(policy: Cursor<'_>) {
    let spec = policy.field("spec");
    let params = common(spec);
    let declared = spec.field("variables");
    let variables = variables(declared, params);
    let variables = Some(&variables).filter(|_| !declared.is_empty());
    let declarations = Declarations { params, authorizer: true, variables, patches: false };
    let (validations, annotations) = (spec.field("validations"), spec.field("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        validations.missing(detail);
        return annotations.missing(detail);
    }
    validations.items().for_each(|one| validation(one, &declarations));
    if annotations.values().len() > ANNOTATIONS_MAX {
        annotations.invalid(format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations"));
    }
    let mut seen = BTreeSet::new();
    for annotation in annotations.items() {
        let (key, expression) = (annotation.field("key"), annotation.field("valueExpression"));
        key.format_of(&format!("{}/{}", policy.text("metadata.name"), key.str()), names::qualified_name);
        match expression.str().trim().len() {
            0 => expression.missing("valueExpression is not specified"),
            1..=ANNOTATION_EXPRESSION_MAX => {
                compiles(
                    expression,
                    expression.str().trim(),
                    &declarations,
                    &[ResultType::String, ResultType::Null],
                );
            }
            _ => expression.missing(format!("must not exceed {ANNOTATION_EXPRESSION_MAX} bytes in length")),
        }
        if !seen.insert(key.str()) {
            key.duplicate();
        }
    }
}

pub(in super::super) fn mutating(policy: Cursor<'_>) {
    let spec = policy.field("spec");
    let params = common(spec);
    mutable(spec.field("matchConstraints"));
    let variables = variables(spec.field("variables"), params);
    let declarations = Declarations { params, authorizer: true, variables: Some(&variables), patches: true };
    spec.field("mutations").required_with("mutations must contain at least one item");
    spec.each("mutations").for_each(|one| mutation(one, &declarations));
    if spec.field("reinvocationPolicy").required() {
        spec.plain(&["reinvocationPolicy"]);
    }
}

/// Deletes cannot be mutated. Upstream leaves the indexes out of these paths.
fn mutable(matches: Cursor<'_>) {
    let place = matches.field("resourceRules").field("operations");
    for operation in matches.each("resourceRules").flat_map(|rule| rule.each("operations")) {
        operation.reported_at(place).supported(&["*", "CONNECT", "CREATE", "UPDATE"]);
    }
}

/// What policies of both kinds have; whether they have parameters.
fn common(spec: Cursor<'_>) -> bool {
    spec.field("failurePolicy").required_plain();
    if let Some(kind) = spec.field("paramKind").if_set() {
        param_kind(kind);
    }
    let constraints = spec.field("matchConstraints");
    if constraints.required() {
        match_resources(constraints);
        constraints.field("resourceRules").required();
    }
    match_conditions(spec.field("matchConditions"), spec.has("paramKind"));
    spec.has("paramKind")
}

fn param_kind(param: Cursor<'_>) {
    let (api_version, kind) = (param.field("apiVersion"), param.field("kind"));
    if api_version.required() {
        let text = api_version.str();
        let (group, version) = text.split_once('/').unwrap_or(("", text));
        if version.contains('/') {
            api_version.invalid(format!("unexpected GroupVersion string: {text}"));
        } else {
            if !group.is_empty() {
                api_version.format_at_once(group, names::dns1123_subdomain, ",");
            }
            if version.is_empty() {
                api_version.invalid("version must be specified");
            } else {
                api_version.format_at_once(version, names::dns1035_label, ",");
            }
        }
    }
    if kind.required() {
        let messages = names::dns1035_label(&kind.str().to_lowercase());
        if !messages.is_empty() {
            let messages = messages.join(",");
            kind.invalid(format!("may have mixed case, but should otherwise match: {messages}"));
        }
    }
}

fn match_resources(matches: Cursor<'_>) {
    matches.field("matchPolicy").required_plain();
    for selector in ["namespaceSelector", "objectSelector"].map(|key| matches.field(key)) {
        if selector.required() {
            selector.label_selector();
        }
    }
    for rule in ["resourceRules", "excludeResourceRules"].into_iter().flat_map(|list| matches.each(list)) {
        let mut seen = BTreeSet::new();
        for name in rule.each("resourceNames") {
            name.format(names::path_segment);
            if !seen.insert(name.str()) {
                name.duplicate();
            }
        }
        rule_with_operations(rule);
    }
}

/// Gives their names and types.
fn variables(variables: Cursor<'_>, params: bool) -> Variables {
    let mut composed = Variables::new();
    for variable in variables.items() {
        let (name, source) = (variable.field("name"), variable.field("expression"));
        if name.str().trim().is_empty() {
            name.missing("name is not specified");
        } else if !is_identifier(name.str()) || RESERVED.contains(&name.str()) {
            name.invalid("must be a valid CEL identifier");
        }
        if source.str().trim().is_empty() {
            source.missing("expression is not specified");
        } else {
            // A variable may name those before it.
            let declarations =
                Declarations { params, authorizer: true, variables: Some(&composed), patches: false };
            let expression = compiles(source, source.str(), &declarations, &[]);
            composed.insert(name.str().to_owned(), expression.map_or(Type::Dyn, |e| e.kind()));
        }
    }
    composed
}

fn validation(validation: Cursor<'_>, declarations: &Declarations<'_>) {
    let (expression, by_expression) = (validation.field("expression"), validation.field("messageExpression"));
    if expression.str().trim().is_empty() {
        expression.missing("expression is not specified");
    } else {
        compiles(expression, expression.str(), declarations, &[ResultType::Bool]);
    }
    if !by_expression.str().trim().is_empty() {
        let declarations = Declarations { authorizer: false, ..*declarations };
        compiles(by_expression, by_expression.str(), &declarations, &[ResultType::String]);
    }
    let message = validation.field("message");
    for text in [by_expression, message] {
        if !text.is_empty() && text.str().trim().is_empty() {
            text.invalid("must be non-empty if specified");
        }
    }
    if message.str().trim().contains(['\n', '\r']) {
        message.invalid("must not contain line breaks");
    }
    validation.field("reason").one_of(&["Forbidden", "Invalid", "RequestEntityTooLarge"]);
}

fn mutation(mutation: Cursor<'_>, declarations: &Declarations<'_>) {
    let kind = mutation.field("patchType");
    if kind.required() {
        kind.is_plain();
    }
    let (own, other, wanted) = match kind.str() {
        "JSONPatch" => ("jsonPatch", "applyConfiguration", ResultType::Patches),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", ResultType::Object),
        _ => return,
    };
    let (patch, expression) = (mutation.field(own), mutation.field(own).field("expression"));
    if !patch.is_set() {
        patch.missing(format!("must be specified when patchType is {}", kind.str()));
    } else if expression.str().trim().is_empty() {
        expression.missing("");
    } else {
        compiles(expression, expression.str().trim(), declarations, &[wanted]);
    }
    if mutation.has(other) {
        let detail = format!("must not be specified when patchType is {}", kind.str());
        mutation.field(other).invalid_value(format!("{{{other}}}"), detail);
    }
}

/// A binding of a validating policy.
pub(in super::super) fn validating_binding(binding: Cursor<'_>) {
    let spec = binding.field("spec");
    common_binding(spec);
    let actions = spec.field("validationActions");
    let mut seen = BTreeSet::new();
    for action in actions.items() {
        action.enumerated();
        if !seen.insert(action.str()) {
            action.duplicate();
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        actions.invalid(
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response \
             and headers serves no purpose)",
        );
    }
    actions.required_with("at least one validation action is required");
}

/// A binding of a mutating policy.
pub(in super::super) fn mutating_binding(binding: Cursor<'_>) {
    let spec = binding.field("spec");
    common_binding(spec);
    mutable(spec.field("matchResources"));
}

fn common_binding(spec: Cursor<'_>) {
    spec.field("policyName").required_format(names::dns1123_subdomain);
    if let Some(reference) = spec.field("paramRef").if_set() {
        param_ref(reference);
    }
    if let Some(matches) = spec.field("matchResources").if_set() {
        match_resources(matches);
    }
}

fn param_ref(reference: Cursor<'_>) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let (name, selector) = (reference.field("name"), reference.field("selector"));
    if !name.is_empty() {
        name.format(names::path_segment);
        if selector.is_set() {
            name.forbidden(EXCLUSIVE);
        }
    }
    if selector.is_set() {
        selector.label_selector();
        if !name.is_empty() {
            selector.forbidden(EXCLUSIVE);
        }
    }
    if name.is_empty() && !selector.is_set() {
        reference.missing("one of name or selector must be specified");
    }
    reference.field("parameterNotFoundAction").required_plain();
}
