//! ValidatingAdmissionPolicy, MutatingAdmissionPolicy and their bindings, but for the expressions' own errors.

use serde_json::Value;

use super::{compiles, match_conditions, rule_with_operations};
use crate::{
    admission::{Declarations, ResultType, Variables},
    cel::{
        Type,
        words::{RESERVED, is_identifier},
    },
    field::{FieldError, Path},
    names,
    resources::{
        access::Get,
        validate::{Errors, rules, selector},
    },
};

const ANNOTATIONS_MAX: usize = 20;
const ANNOTATION_EXPRESSION_MAX: usize = 5 * 1024;

pub(in super::super) fn validating(policy: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), policy.at("spec"));
    let params = common(&path, spec, errors);
    let declared = spec.items("variables");
    let variables = variables(&path.child("variables"), declared, params, errors);
    let variables = Some(&variables).filter(|_| !declared.is_empty());
    let declarations = Declarations { params, authorizer: true, variables, patches: false };
    let (validations, annotations) = (spec.items("validations"), spec.items("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.push(FieldError::required(&path.child("validations"), detail));
        errors.push(FieldError::required(&path.child("auditAnnotations"), detail));
        return;
    }
    for (index, one) in validations.iter().enumerate() {
        validation(&path.child("validations").index(index), one, &declarations, errors);
    }
    let path = path.child("auditAnnotations");
    if annotations.len() > ANNOTATIONS_MAX {
        let detail = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        errors.push(FieldError::invalid(&path, spec.at("auditAnnotations").clone(), detail));
    }
    for (index, annotation) in annotations.iter().enumerate() {
        let path = path.index(index);
        let key = annotation.text("key");
        let qualified = format!("{}/{key}", policy.text("metadata.name"));
        rules::text(&path.child("key"), &qualified, names::qualified_name(&qualified), errors);
        let (path_of, expression) =
            (path.child("valueExpression"), annotation.text("valueExpression").trim());
        if expression.is_empty() {
            errors.push(FieldError::required(&path_of, "valueExpression is not specified"));
        } else if expression.len() > ANNOTATION_EXPRESSION_MAX {
            let detail = format!("must not exceed {ANNOTATION_EXPRESSION_MAX} bytes in length");
            errors.push(FieldError::required(&path_of, detail));
        } else {
            compiles(&path_of, expression, &declarations, &[ResultType::String, ResultType::Null], errors);
        }
        if annotations.iter().take(index).any(|other| other.text("key") == key) {
            errors.push(FieldError::duplicate(&path.child("key"), key));
        }
    }
}

pub(in super::super) fn mutating(policy: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), policy.at("spec"));
    let params = common(&path, spec, errors);
    mutable(&path.child("matchConstraints"), spec.at("matchConstraints"), errors);
    let variables = variables(&path.child("variables"), spec.items("variables"), params, errors);
    let declarations = Declarations { params, authorizer: true, variables: Some(&variables), patches: true };
    let mutations = spec.items("mutations");
    if mutations.is_empty() {
        let detail = "mutations must contain at least one item";
        errors.push(FieldError::required(&path.child("mutations"), detail));
    }
    for (index, one) in mutations.iter().enumerate() {
        mutation(&path.child("mutations").index(index), one, &declarations, errors);
    }
    let policy = spec.text("reinvocationPolicy");
    rules::one_of(&path.child("reinvocationPolicy"), policy, &["IfNeeded", "Never"], errors);
}

/// Deletes cannot be mutated.
fn mutable(path: &Path, matches: &Value, errors: &mut Errors) {
    let supported = ["*", "CONNECT", "CREATE", "UPDATE"];
    let path = path.child("resourceRules").child("operations");
    for operation in matches.items("resourceRules").iter().flat_map(|rule| rule.items("operations")) {
        let operation = operation.as_str().unwrap_or_default();
        if !supported.contains(&operation) {
            errors.push(FieldError::not_supported(&path, operation, &supported));
        }
    }
}

/// What policies of both kinds have; whether they have parameters.
fn common(path: &Path, spec: &Value, errors: &mut Errors) -> bool {
    let failure = spec.text("failurePolicy");
    rules::one_of(&path.child("failurePolicy"), failure, &["Fail", "Ignore"], errors);
    let params = spec.at("paramKind").is_object();
    if params {
        param_kind(&path.child("paramKind"), spec.at("paramKind"), errors);
    }
    let constraints = path.child("matchConstraints");
    if spec.at("matchConstraints").is_object() {
        match_resources(&constraints, spec.at("matchConstraints"), errors);
        if spec.items("matchConstraints.resourceRules").is_empty() {
            errors.push(FieldError::required(&constraints.child("resourceRules"), ""));
        }
    } else {
        errors.push(FieldError::required(&constraints, ""));
    }
    match_conditions(&path.child("matchConditions"), spec.items("matchConditions"), params, errors);
    params
}

fn param_kind(path: &Path, kind: &Value, errors: &mut Errors) {
    let (api_version, version_path) = (kind.text("apiVersion"), path.child("apiVersion"));
    if rules::required(&version_path, api_version, errors) {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if version.contains('/') {
            let detail = format!("unexpected GroupVersion string: {api_version}");
            errors.push(FieldError::invalid(&version_path, api_version, detail));
        } else {
            let messages = names::dns1123_subdomain(group);
            if !group.is_empty() && !messages.is_empty() {
                errors.push(FieldError::invalid(&version_path, group, messages.join(",")));
            }
            let messages = names::dns1035_label(version);
            if version.is_empty() {
                errors.push(FieldError::invalid(&version_path, api_version, "version must be specified"));
            } else if !messages.is_empty() {
                errors.push(FieldError::invalid(&version_path, version, messages.join(",")));
            }
        }
    }
    let kind = kind.text("kind");
    if rules::required(&path.child("kind"), kind, errors) {
        let messages = names::dns1035_label(&kind.to_lowercase());
        if !messages.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", messages.join(","));
            errors.push(FieldError::invalid(&path.child("kind"), kind, detail));
        }
    }
}

fn match_resources(path: &Path, matches: &Value, errors: &mut Errors) {
    let policies = ["Equivalent", "Exact"];
    rules::one_of(&path.child("matchPolicy"), matches.text("matchPolicy"), &policies, errors);
    for key in ["namespaceSelector", "objectSelector"] {
        if matches.at(key).is_null() {
            errors.push(FieldError::required(&path.child(key), ""));
        } else {
            selector::label_selector(&path.child(key), matches.at(key), errors);
        }
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        for (index, rule) in matches.items(key).iter().enumerate() {
            let path = path.child(key).index(index);
            let resource_names = rule.items("resourceNames");
            for (index, name) in resource_names.iter().enumerate() {
                let path = path.child("resourceNames").index(index);
                let text = name.as_str().unwrap_or_default();
                rules::text(&path, text, names::path_segment(text), errors);
                if resource_names.iter().take(index).any(|other| other == name) {
                    errors.push(FieldError::duplicate(&path, text));
                }
            }
            rule_with_operations(&path, rule, errors);
        }
    }
}

/// Gives their names and types.
fn variables(path: &Path, variables: &[Value], params: bool, errors: &mut Errors) -> Variables {
    let mut composed = Variables::new();
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        let name = variable.text("name");
        if name.trim().is_empty() {
            errors.push(FieldError::required(&path.child("name"), "name is not specified"));
        } else if !is_identifier(name) || RESERVED.contains(&name) {
            errors.push(FieldError::invalid(&path.child("name"), name, "must be a valid CEL identifier"));
        }
        let (path, source) = (path.child("expression"), variable.text("expression"));
        if source.trim().is_empty() {
            errors.push(FieldError::required(&path, "expression is not specified"));
        } else {
            // A variable may name those before it.
            let declarations =
                Declarations { params, authorizer: true, variables: Some(&composed), patches: false };
            let expression = compiles(&path, source, &declarations, &[], errors);
            composed.insert(name.to_owned(), expression.map_or(Type::Dyn, |e| e.kind()));
        }
    }
    composed
}

fn validation(path: &Path, validation: &Value, declarations: &Declarations<'_>, errors: &mut Errors) {
    let expression = validation.text("expression");
    if expression.trim().is_empty() {
        errors.push(FieldError::required(&path.child("expression"), "expression is not specified"));
    } else {
        compiles(&path.child("expression"), expression, declarations, &[ResultType::Bool], errors);
    }
    let message = validation.text("messageExpression");
    if !message.trim().is_empty() {
        let path = path.child("messageExpression");
        let declarations = Declarations { authorizer: false, ..*declarations };
        compiles(&path, message, &declarations, &[ResultType::String], errors);
    }
    let empty = |text: &str| !text.is_empty() && text.trim().is_empty();
    for key in ["messageExpression", "message"] {
        let text = validation.text(key);
        if empty(text) {
            errors.push(FieldError::invalid(&path.child(key), text, "must be non-empty if specified"));
        } else if key == "message" && text.trim().contains(['\n', '\r']) {
            errors.push(FieldError::invalid(&path.child(key), text, "must not contain line breaks"));
        }
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
    rules::supported_or_empty(&path.child("reason"), validation.text("reason"), &reasons, errors);
}

fn mutation(path: &Path, mutation: &Value, declarations: &Declarations<'_>, errors: &mut Errors) {
    const KINDS: [(&str, &str, &str, &str); 2] = [
        ("JSONPatch", "jsonPatch", "applyConfiguration", "ApplyConfiguration"),
        ("ApplyConfiguration", "applyConfiguration", "jsonPatch", "JSONPatch"),
    ];
    let patch_type = mutation.text("patchType");
    let supported = ["ApplyConfiguration", "JSONPatch"];
    rules::one_of(&path.child("patchType"), patch_type, &supported, errors);
    let Some((_, own, other, _)) = KINDS.iter().find(|(name, ..)| *name == patch_type) else { return };
    if !mutation.at(own).is_object() {
        let detail = format!("must be specified when patchType is {patch_type}");
        errors.push(FieldError::required(&path.child(own), detail));
    } else if mutation.at(own).text("expression").trim().is_empty() {
        errors.push(FieldError::required(&path.child(own).child("expression"), ""));
    } else {
        let wanted = if patch_type == "JSONPatch" { ResultType::Patches } else { ResultType::Object };
        let (path, expression) =
            (path.child(own).child("expression"), mutation.at(own).text("expression").trim());
        compiles(&path, expression, declarations, &[wanted], errors);
    }
    if mutation.at(other).is_object() {
        let detail = format!("must not be specified when patchType is {patch_type}");
        errors.push(FieldError::invalid(&path.child(other), format!("{{{other}}}"), detail));
    }
}

/// A binding of a validating policy.
pub(in super::super) fn validating_binding(binding: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), binding.at("spec"));
    common_binding(&path, spec, errors);
    let (path, actions) = (path.child("validationActions"), spec.items("validationActions"));
    for (index, action) in actions.iter().enumerate() {
        let text = action.as_str().unwrap_or_default();
        let supported = ["Audit", "Deny", "Warn"];
        if !supported.contains(&text) {
            errors.push(FieldError::not_supported(&path.index(index), text, &supported));
        }
        if actions.iter().take(index).any(|other| other == action) {
            errors.push(FieldError::duplicate(&path.index(index), text));
        }
    }
    let has = |wanted: &str| actions.iter().any(|action| action == wanted);
    if has("Deny") && has("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                      response and headers serves no purpose)";
        errors.push(FieldError::invalid(&path, spec.at("validationActions").clone(), detail));
    }
    if actions.is_empty() {
        errors.push(FieldError::required(&path, "at least one validation action is required"));
    }
}

/// A binding of a mutating policy.
pub(in super::super) fn mutating_binding(binding: &Value, errors: &mut Errors) {
    let (path, spec) = (Path::new("spec"), binding.at("spec"));
    common_binding(&path, spec, errors);
    mutable(&path.child("matchResources"), spec.at("matchResources"), errors);
}

fn common_binding(path: &Path, spec: &Value, errors: &mut Errors) {
    let name = spec.text("policyName");
    if rules::required(&path.child("policyName"), name, errors) {
        rules::subdomain(&path.child("policyName"), name, errors);
    }
    if spec.at("paramRef").is_object() {
        param_ref(&path.child("paramRef"), spec.at("paramRef"), errors);
    }
    if spec.at("matchResources").is_object() {
        match_resources(&path.child("matchResources"), spec.at("matchResources"), errors);
    }
}

fn param_ref(path: &Path, reference: &Value, errors: &mut Errors) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let name = reference.text("name");
    let selected = reference.at("selector").is_object();
    if !name.is_empty() {
        rules::text(&path.child("name"), name, names::path_segment(name), errors);
        if selected {
            errors.push(FieldError::forbidden(&path.child("name"), EXCLUSIVE));
        }
    }
    if selected {
        selector::label_selector(&path.child("selector"), reference.at("selector"), errors);
        if !name.is_empty() {
            errors.push(FieldError::forbidden(&path.child("selector"), EXCLUSIVE));
        }
    }
    if name.is_empty() && !selected {
        errors.push(FieldError::required(path, "one of name or selector must be specified"));
    }
    let action = reference.text("parameterNotFoundAction");
    rules::one_of(&path.child("parameterNotFoundAction"), action, &["Deny", "Allow"], errors);
}
