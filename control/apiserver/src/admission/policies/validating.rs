//! ValidatingAdmissionPolicy: expressions that must hold. Upstream: `policy/validating/{dispatcher,validator}.go`.

use super::super::subject::Subject;
use super::super::{Attributes, Verdict};
use super::definition::{Policy, Validation};
use super::{Invocation, invocations, is_exempt, refusal};
use crate::registry::Registry;
use machinery::admission::{BUDGET, EvaluationError, Evaluator};
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
    let failure = |message: String| Denial { message, reason: String::new(), always: false };
    match policy.conditions.hold(&mut evaluator, policy.ignores_failure) {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(message) => return vec![failure(message)],
    }
    subject.show_namespace(&mut evaluator);
    policy.compose(&mut evaluator);
    judge(policy, &mut evaluator).unwrap_or_else(|over| {
        // What was found before does not count.
        if policy.ignores_failure { Vec::new() } else { vec![failure(over.to_string())] }
    })
}

/// The outcomes of all validations, then their messages, then the annotations; the error is that they cost too much.
fn judge(policy: &Policy, evaluator: &mut Evaluator<'_>) -> Result<Vec<Denial>, EvaluationError> {
    evaluator.restart(BUDGET);
    let mut outcomes = Vec::with_capacity(policy.validations.len());
    for validation in &policy.validations {
        outcomes.push(settled(validation.expression.evaluate(evaluator))?);
    }
    // Messages get what is left, and as annotations do without the authorizer.
    evaluator.authorize(None);
    evaluator.restart(evaluator.left());
    let messages: Result<Vec<Option<Value>>, EvaluationError> = policy
        .validations
        .iter()
        .map(|v| match &v.message_expression {
            Some(expression) => settled(expression.evaluate(evaluator)).map(Result::ok),
            None => Ok(None),
        })
        .collect();
    let mut denials = Vec::new();
    for (at, (validation, outcome)) in policy.validations.iter().zip(outcomes).enumerate() {
        let failed = match (outcome, &messages) {
            (Err(message), _) => message,
            (Ok(_), Err(over)) => format!("failed messageExpression: {over}"),
            (Ok(Value::Bool(true)), Ok(_)) => continue,
            (Ok(_), Ok(messages)) => {
                let made = messages.get(at).and_then(Option::as_ref);
                denials.push(Denial {
                    message: message(validation, made),
                    reason: if validation.reason.is_empty() {
                        "Invalid".into()
                    } else {
                        validation.reason.clone()
                    },
                    always: false,
                });
                continue;
            }
        };
        if !policy.ignores_failure {
            denials.push(Denial { message: failed, reason: String::new(), always: false });
        }
    }
    denials.extend(annotate(policy, evaluator)?);
    Ok(denials)
}

/// The values of the audit annotations go to the log.
fn annotate(policy: &Policy, evaluator: &mut Evaluator<'_>) -> Result<Vec<Denial>, EvaluationError> {
    evaluator.restart(BUDGET);
    let mut denials = Vec::new();
    for (key, annotation) in &policy.annotations {
        match settled(annotation.evaluate(evaluator))? {
            Ok(Value::String(value)) if !value.trim().is_empty() => {
                tracing::info!(policy = policy.name, key, value = value.trim(), "audit annotation");
            }
            Ok(_) => {}
            Err(_) if policy.ignores_failure => {}
            Err(message) => denials.push(Denial { message, reason: String::new(), always: true }),
        }
    }
    Ok(denials)
}

/// A value or a failure; the error is that nothing further is to be evaluated.
fn settled(outcome: Result<Value, EvaluationError>) -> Result<Result<Value, String>, EvaluationError> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(EvaluationError::Failed(message)) => Ok(Err(message)),
        Err(over @ EvaluationError::OutOfBudget) => Err(over),
    }
}

/// The message of a validation that does not hold: its expression's, else its own, else the expression itself.
fn message(validation: &Validation, made: Option<&Value>) -> String {
    let made = made.and_then(Value::as_str).map(str::trim);
    match made.filter(|text| !text.is_empty() && text.len() <= MESSAGE_MAX && !text.contains('\n')) {
        Some(made) => made.to_owned(),
        None if validation.message.is_empty() => {
            format!("failed expression: {}", validation.expression.source.trim())
        }
        None => validation.message.clone(),
    }
}
