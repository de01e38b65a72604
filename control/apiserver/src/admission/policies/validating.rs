//! ValidatingAdmissionPolicy: expressions that must hold. Upstream: `policy/validating/{dispatcher,validator}.go`.

use super::super::subject::Subject;
use super::super::{Attributes, Verdict};
use super::definition::Validation;
use super::{Invocation, invocations, is_exempt, refusal};
use crate::registry::Registry;
use machinery::cel::Evaluator;
use serde_json::Value;

/// Bytes of a message that an expression makes.
const MESSAGE_MAX: usize = 5 * 1024;

/// One reason to refuse the request.
#[derive(Debug, PartialEq)]
struct Denial {
    message: String,
    /// Empty for failures.
    reason: String,
    /// It is to be refused whatever the binding's actions are.
    always: bool,
}

/// Asks every validating policy that means the request.
pub(in super::super) fn validate<'a>(registry: &'a Registry, a: &'a mut Attributes<'_>) -> Verdict<'a> {
    Box::pin(async move {
        if is_exempt(a) {
            return Ok(());
        }
        let (policies, bindings) = a.admission.policies.validating.get(
            registry,
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
        )?;
        if policies.is_empty() {
            return Ok(());
        }
        let (due, broken) = invocations(registry, a, &policies, &bindings).await;
        // Why, and the reason of the status.
        let mut denied = Vec::new();
        for failure in broken.iter().filter(|f| !f.policy.ignores_failure) {
            let binding = failure.binding.map(|b| b.name.as_str());
            denied.push((worded(&failure.policy.name, binding, &failure.message), String::new()));
        }
        for invocation in &due {
            let subject = Subject::in_namespace(registry, a, &invocation.kind).await?;
            for denial in evaluate(registry, a, invocation, &subject) {
                let (policy, binding) = (&invocation.policy.name, &invocation.binding.name);
                let actions = &invocation.binding.actions;
                if denial.always || actions.iter().any(|action| action == "Deny") {
                    let message = worded(policy, Some(binding), &denial.message);
                    denied.push((message, denial.reason.clone()));
                }
                if denial.always {
                    continue;
                }
                if actions.iter().any(|action| action == "Warn") {
                    a.warnings.lock().push(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {}",
                        denial.message
                    ));
                }
                if actions.iter().any(|action| action == "Audit") {
                    tracing::info!(policy, binding, message = denial.message, "audit: validation failed");
                }
            }
        }
        match denied.first() {
            None => Ok(()),
            Some((message, reason)) => Err(refusal(a, message, vec![message.clone()], reason)),
        }
    })
}

fn worded(policy: &str, binding: Option<&str>, message: &str) -> String {
    match binding {
        Some(binding) => {
            format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {message}")
        }
        None => format!("ValidatingAdmissionPolicy '{policy}' denied request: {message}"),
    }
}

fn evaluate(
    registry: &Registry,
    a: &Attributes<'_>,
    invocation: &Invocation<'_>,
    subject: &Subject,
) -> Vec<Denial> {
    let policy = invocation.policy;
    let mut evaluator = subject.evaluator(registry, a);
    evaluator.bind("params", &invocation.param);
    policy.compose(&mut evaluator);
    let failure = |message: String, always: bool| Denial { message, reason: String::new(), always };
    match policy.conditions.hold(&mut evaluator, policy.ignores_failure) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(message) => return vec![failure(message, false)],
    }
    let mut denials = Vec::new();
    for validation in &policy.validations {
        match validation.expression.evaluate(&mut evaluator) {
            Ok(Value::Bool(true)) => {}
            Ok(_) => denials.push(Denial {
                message: message(validation, &mut evaluator),
                reason: if validation.reason.is_empty() {
                    "Invalid".into()
                } else {
                    validation.reason.clone()
                },
                always: false,
            }),
            Err(_) if policy.ignores_failure => {}
            Err(message) => denials.push(failure(message, false)),
        }
    }
    for (key, annotation) in &policy.annotations {
        match annotation.evaluate(&mut evaluator) {
            Ok(Value::String(value)) if !value.trim().is_empty() => {
                tracing::info!(policy = policy.name, key, value = value.trim(), "audit annotation");
            }
            Ok(Value::String(_) | Value::Null) => {}
            Ok(_) => denials.push(failure(
                format!(
                    "valueExpression '{}' resulted in unsupported return type. Return type must be either string or null.",
                    annotation.source
                ),
                true,
            )),
            Err(_) if policy.ignores_failure => {}
            Err(message) => denials.push(failure(message, true)),
        }
    }
    denials
}

/// The message of a validation that does not hold: its expression's, else its own, else the expression itself.
fn message(validation: &Validation, evaluator: &mut Evaluator<'_>) -> String {
    let made = validation.message_expression.as_ref().and_then(|m| m.evaluate(evaluator).ok());
    if let Some(Value::String(text)) = made {
        let text = text.trim();
        if !text.is_empty() && text.len() <= MESSAGE_MAX && !text.contains('\n') {
            return text.to_owned();
        }
    }
    if validation.message.is_empty() {
        return format!("failed expression: {}", validation.expression.source);
    }
    validation.message.clone()
}
