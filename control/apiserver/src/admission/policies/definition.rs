//! Policies and bindings as stored, ready for use.

use super::super::conditions::{Compiled, Conditions};
use super::super::matching::Criteria;
use machinery::access::Get as _;
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
        let spec = stored.present("spec").unwrap_or(&null);
        let params = spec.present("paramKind").is_some();
        let (variables, types) = variables(spec, params);
        let declarations = Declarations { params, authorizer: true, variables: Some(&types), patches: false };
        let compiled = |from: &Value, field: &str, results: &[ResultType]| {
            Compiled::new(from.text(field), &declarations, results)
        };
        let of_message = Declarations { authorizer: false, ..declarations };
        let validations = spec
            .items("validations")
            .iter()
            .map(|v| Validation {
                expression: compiled(v, "expression", &[ResultType::Bool]),
                message: v.text("message").trim().to_owned(),
                message_expression: v
                    .present("messageExpression")
                    .and_then(Value::as_str)
                    .map(|source| Compiled::new(source, &of_message, &[ResultType::String])),
                reason: v.text("reason").to_owned(),
            })
            .collect();
        let annotated = [ResultType::String, ResultType::Null];
        let annotations = spec
            .items("auditAnnotations")
            .iter()
            .map(|a| (a.text("key").to_owned(), compiled(a, "valueExpression", &annotated)))
            .collect();
        let with_patches = Declarations { patches: true, ..declarations };
        let of_patch = |m: &Value, field: &str, results: &[ResultType]| {
            Compiled::new(m.at(field).text("expression"), &with_patches, results)
        };
        let mutations = spec
            .items("mutations")
            .iter()
            .map(|m| match m.text("patchType") {
                "JSONPatch" => Mutation::Patch(of_patch(m, "jsonPatch", &[ResultType::Patches])),
                _ => Mutation::Apply(of_patch(m, "applyConfiguration", &[ResultType::Object])),
            })
            .collect();
        let param_kind = spec
            .present("paramKind")
            .map(|kind| (kind.text("apiVersion").to_owned(), kind.text("kind").to_owned()));
        let mut criteria =
            Criteria::parse(spec.present("matchConstraints").unwrap_or(&null), "resourceRules");
        criteria.all_without_rules = true;
        policies.push(Policy {
            name: object::name(stored).to_owned(),
            criteria,
            param_kind,
            conditions: Conditions::parse(spec.items("matchConditions"), params),
            ignores_failure: spec.text("failurePolicy") == "Ignore",
            variables,
            validations,
            annotations,
            mutations,
            reinvoked: spec.text("reinvocationPolicy") == "IfNeeded",
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
    for variable in spec.items("variables") {
        let declarations = Declarations { params, authorizer: true, variables: Some(&types), patches: false };
        let compiled = Compiled::new(variable.text("expression"), &declarations, &[]);
        let name = variable.text("name").to_owned();
        types.insert(name.clone(), compiled.expression().map_or(Type::Dyn, |expression| expression.kind()));
        variables.push((name, compiled));
    }
    (variables, types)
}

impl Binding {
    pub(super) fn parse(stored: &Value, bindings: &mut Vec<Self>) {
        let criteria = stored.present("spec.matchResources").map(|matches| {
            let mut criteria = Criteria::parse(matches, "resourceRules");
            criteria.all_without_rules = true;
            criteria
        });
        bindings.push(Binding {
            name: object::name(stored).to_owned(),
            policy: stored.text("spec.policyName").to_owned(),
            criteria,
            params: stored.present("spec.paramRef").cloned(),
            actions: stored
                .items("spec.validationActions")
                .iter()
                .filter_map(|a| a.as_str().map(str::to_owned))
                .collect(),
        });
    }
}
