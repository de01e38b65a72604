//! Policies and bindings as stored, ready for use.

use super::super::conditions::{Compiled, Conditions};
use super::super::matching::Criteria;
use crate::registry::metadata::{at, items, text};
use machinery::admission::{Declarations, Evaluator, ResultType, Variables};
use machinery::cel::Type;
use machinery::object;
use serde_json::Value;

/// What a policy of either kind has.
#[derive(Debug)]
pub(super) struct Policy {
    pub name: String,
    pub criteria: Criteria,
    /// Group version and kind of its parameters.
    pub param_kind: Option<(String, String)>,
    pub conditions: Conditions,
    pub ignores_failure: bool,
    variables: Vec<(String, Compiled)>,
    pub validations: Vec<Validation>,
    pub annotations: Vec<(String, Compiled)>,
    pub mutations: Vec<Mutation>,
    pub reinvoked: bool,
}

/// One validation of a validating policy.
#[derive(Debug)]
pub(super) struct Validation {
    pub expression: Compiled,
    pub message: String,
    pub message_expression: Option<Compiled>,
    pub reason: String,
}

/// One mutation of a mutating policy.
#[derive(Debug)]
pub(super) enum Mutation {
    Apply(Compiled),
    Patch(Compiled),
}

/// A binding of a policy of either kind.
#[derive(Debug)]
pub(super) struct Binding {
    pub name: String,
    pub policy: String,
    /// Any request the policy means, where none.
    pub criteria: Option<Criteria>,
    pub params: Option<Value>,
    pub actions: Vec<String>,
}

impl Policy {
    pub(super) fn parse(stored: &Value, policies: &mut Vec<Self>) {
        let null = Value::Null;
        let spec = at(stored, &["spec"]).unwrap_or(&null);
        let params = at(spec, &["paramKind"]).is_some();
        let (variables, types) = variables(spec, params);
        let declarations = Declarations { params, authorizer: true, variables: Some(&types), patches: false };
        let compiled = |from: &Value, field: &str, results: &[ResultType]| {
            Compiled::new(text(from, &[field]), &declarations, results)
        };
        let of_message = Declarations { authorizer: false, ..declarations };
        let validations = items(spec, &["validations"])
            .iter()
            .map(|v| Validation {
                expression: compiled(v, "expression", &[ResultType::Bool]),
                message: text(v, &["message"]).trim().to_owned(),
                message_expression: at(v, &["messageExpression"])
                    .and_then(Value::as_str)
                    .map(|source| Compiled::new(source, &of_message, &[ResultType::String])),
                reason: text(v, &["reason"]).to_owned(),
            })
            .collect();
        let annotated = [ResultType::String, ResultType::Null];
        let annotations = items(spec, &["auditAnnotations"])
            .iter()
            .map(|a| (text(a, &["key"]).to_owned(), compiled(a, "valueExpression", &annotated)))
            .collect();
        let with_patches = Declarations { patches: true, ..declarations };
        let of_patch = |m: &Value, field: &str, results: &[ResultType]| {
            Compiled::new(text(m, &[field, "expression"]), &with_patches, results)
        };
        let mutations = items(spec, &["mutations"])
            .iter()
            .map(|m| match text(m, &["patchType"]) {
                "JSONPatch" => Mutation::Patch(of_patch(m, "jsonPatch", &[ResultType::Patches])),
                _ => Mutation::Apply(of_patch(m, "applyConfiguration", &[ResultType::Object])),
            })
            .collect();
        let param_kind = at(spec, &["paramKind"])
            .map(|kind| (text(kind, &["apiVersion"]).to_owned(), text(kind, &["kind"]).to_owned()));
        let mut criteria = Criteria::parse(at(spec, &["matchConstraints"]).unwrap_or(&null), "resourceRules");
        criteria.all_without_rules = true;
        policies.push(Policy {
            name: object::name(stored).to_owned(),
            criteria,
            param_kind,
            conditions: Conditions::parse(items(spec, &["matchConditions"]), params),
            ignores_failure: text(spec, &["failurePolicy"]) == "Ignore",
            variables,
            validations,
            annotations,
            mutations,
            reinvoked: text(spec, &["reinvocationPolicy"]) == "IfNeeded",
        });
    }

    /// Declares the policy's variables.
    pub(super) fn compose<'e>(&'e self, evaluator: &mut Evaluator<'e>) {
        for (name, variable) in &self.variables {
            evaluator.compose(name, variable.expression());
        }
    }
}

/// A policy's variables, each of which may name those before it, and their types.
fn variables(spec: &Value, params: bool) -> (Vec<(String, Compiled)>, Variables) {
    let (mut variables, mut types) = (Vec::new(), Variables::new());
    for variable in items(spec, &["variables"]) {
        let declarations = Declarations { params, authorizer: true, variables: Some(&types), patches: false };
        let compiled = Compiled::new(text(variable, &["expression"]), &declarations, &[]);
        let name = text(variable, &["name"]).to_owned();
        types.insert(name.clone(), compiled.expression().map_or(Type::Dyn, |expression| expression.kind()));
        variables.push((name, compiled));
    }
    (variables, types)
}

impl Binding {
    pub(super) fn parse(stored: &Value, bindings: &mut Vec<Self>) {
        let criteria = at(stored, &["spec", "matchResources"]).map(|matches| {
            let mut criteria = Criteria::parse(matches, "resourceRules");
            criteria.all_without_rules = true;
            criteria
        });
        bindings.push(Binding {
            name: object::name(stored).to_owned(),
            policy: text(stored, &["spec", "policyName"]).to_owned(),
            criteria,
            params: at(stored, &["spec", "paramRef"]).cloned(),
            actions: items(stored, &["spec", "validationActions"])
                .iter()
                .filter_map(|a| a.as_str().map(str::to_owned))
                .collect(),
        });
    }
}
