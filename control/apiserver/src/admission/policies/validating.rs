//! ValidatingAdmissionPolicy: expressions that must hold. Upstream: `policy/validating/{dispatcher,validator}.go`.

use super::super::subject::Subject;
use super::super::{Attributes, Verdict};
use super::definition::{Policy, Validation};
use super::{Invocation, invocations, is_exempt, refusal};
use crate::registry::Registry;
use machinery::admission::{BUDGET, EvaluationError, Evaluator};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Bytes of a message that an expression makes.
const MESSAGE_MAX: usize = 5 * 1024;

/// Bytes of the value of an audit annotation.
const ANNOTATION_MAX: usize = 10 * 1024;

/// What an evaluation comes to.
#[derive(Debug, Default, PartialEq)]
struct Judgement {
    denials: Vec<Denial>,
    /// Audit annotations, by their keys within the policy.
    annotations: Vec<(String, String)>,
}

impl Judgement {
    fn denied(denial: Denial) -> Self {
        Self { denials: vec![denial], annotations: Vec::new() }
    }
}

/// A validation that failed, as the audit log has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failed<'a> {
    message: &'a str,
    policy: &'a str,
    binding: &'a str,
    expression_index: usize,
    validation_actions: &'a [String],
}

/// One reason to refuse the request.
#[derive(Debug, PartialEq)]
struct Denial {
    /// Which of the validations.
    index: usize,
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
        let mut annotations = Annotations::default();
        for invocation in &due {
            let subject = Subject::in_namespace(registry, a, &invocation.kind).await?;
            let judgement = evaluate(registry, a, invocation, &subject);
            annotations.add(&invocation.policy.name, judgement.annotations);
            for denial in judgement.denials {
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
                    a.annotate(|| {
                        let failed = Failed {
                            message: &denial.message,
                            policy,
                            binding,
                            expression_index: denial.index,
                            validation_actions: actions,
                        };
                        let value = serde_json::to_string(&[failed]).unwrap_or_default();
                        ("validation.policy.admission.k8s.io/validation_failure".to_owned(), value)
                    });
                }
            }
        }
        annotations.publish(a);
        match denied.first() {
            None => Ok(()),
            Some((message, reason)) => Err(refusal(a, message, vec![message.clone()], reason)),
        }
    })
}

/// The audit annotations of all evaluations: by policy and key, the values without those that came before.
#[derive(Default)]
struct Annotations(BTreeMap<(String, String), Vec<String>>);

impl Annotations {
    fn add(&mut self, policy: &str, annotations: Vec<(String, String)>) {
        for (key, mut value) in annotations {
            value.truncate(value.floor_char_boundary(ANNOTATION_MAX));
            let values = self.0.entry((policy.to_owned(), key)).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }

    fn publish(self, a: &Attributes<'_>) {
        for ((policy, key), values) in self.0 {
            a.annotate(|| (format!("{policy}/{key}"), values.join(", ")));
        }
    }
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
) -> Judgement {
    let policy = invocation.policy;
    let mut evaluator = subject.evaluator(registry, a);
    evaluator.bind("params", &invocation.param);
    let failure = |message: String| {
        Judgement::denied(Denial { index: 0, message, reason: String::new(), always: false })
    };
    match policy.conditions.hold(&mut evaluator, policy.ignores_failure) {
        Ok(true) => {}
        Ok(false) => return Judgement::default(),
        Err(message) => return failure(message),
    }
    subject.show_namespace(&mut evaluator);
    policy.compose(&mut evaluator);
    judge(policy, &mut evaluator).unwrap_or_else(|over| {
        // What was found before does not count.
        if policy.ignores_failure { Judgement::default() } else { failure(over.to_string()) }
    })
}

/// The outcomes of all validations, then their messages, then the annotations; the error is that they cost too much.
fn judge(policy: &Policy, evaluator: &mut Evaluator<'_>) -> Result<Judgement, EvaluationError> {
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
    let mut judgement = Judgement::default();
    let denials = &mut judgement.denials;
    for (at, (validation, outcome)) in policy.validations.iter().zip(outcomes).enumerate() {
        let failed = match (outcome, &messages) {
            (Err(message), _) => message,
            (Ok(_), Err(over)) => format!("failed messageExpression: {over}"),
            (Ok(Value::Bool(true)), Ok(_)) => continue,
            (Ok(_), Ok(messages)) => {
                let made = messages.get(at).and_then(Option::as_ref);
                denials.push(Denial {
                    index: at,
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
            denials.push(Denial { index: at, message: failed, reason: String::new(), always: false });
        }
    }
    annotate(policy, evaluator, &mut judgement)?;
    Ok(judgement)
}

/// Adds the audit annotations, and denials of those that fail.
fn annotate(
    policy: &Policy,
    evaluator: &mut Evaluator<'_>,
    judgement: &mut Judgement,
) -> Result<(), EvaluationError> {
    evaluator.restart(BUDGET);
    for (key, annotation) in &policy.annotations {
        match settled(annotation.evaluate(evaluator))? {
            Ok(Value::String(value)) if !value.trim().is_empty() => {
                judgement.annotations.push((key.clone(), value.trim().to_owned()));
            }
            Ok(_) => {}
            Err(_) if policy.ignores_failure => {}
            Err(message) => {
                judgement.denials.push(Denial { index: 0, message, reason: String::new(), always: true });
            }
        }
    }
    Ok(())
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
