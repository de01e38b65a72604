//! Failures in upstream's words, which are cel-go's.

use kube_cel::cel::{ExecutionError, ParseErrors, Value};
use std::fmt;

/// An expression that is refused; the text is the detail of a field error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError(pub String);

/// An evaluation that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvaluationError(pub String);

/// What an evaluation over its budget says.
pub(super) const OVER_BUDGET: &str = "operation cancelled: actual cost limit exceeded";

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for EvaluationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CompileError {}
impl std::error::Error for EvaluationError {}

/// One error at a place (line and column, from 1) of the source, as cel-go shows it.
pub(super) fn at(source: &str, line: usize, column: usize, message: &str) -> String {
    let text = source.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let dots = ".".repeat(column.saturating_sub(1));
    format!("ERROR: <input>:{line}:{column}: {message}\n | {text}\n | {dots}^")
}

pub(super) fn parse(source: &str, errors: &ParseErrors) -> String {
    let place = |n: isize| usize::try_from(n).unwrap_or(1).max(1);
    let shown: Vec<String> = errors
        .errors
        .iter()
        .map(|e| {
            let message = if e.msg.starts_with("Syntax error") {
                e.msg.clone()
            } else {
                format!("Syntax error: {}", e.msg)
            };
            at(source, place(e.pos.0), place(e.pos.1), &message)
        })
        .collect();
    shown.join("\n")
}

pub(super) fn evaluation(error: &ExecutionError) -> EvaluationError {
    EvaluationError(match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::UndeclaredReference(name) => {
            format!("undeclared reference to '{name}' (in container '')")
        }
        ExecutionError::NoSuchOverload | ExecutionError::UnsupportedBinaryOperator(..) => {
            "no such overload".to_owned()
        }
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::IndexOutOfBounds(Value::Int(index)) => format!("index out of bounds: {index}"),
        ExecutionError::FunctionError { message, .. } => message.clone(),
        other => other.to_string(),
    })
}
