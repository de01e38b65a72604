//! Expressions of admission policies and of webhooks' conditions: compiled once, evaluated within a budget (upstream:
//! `apiserver/pkg/admission/plugin/cel`).
//!
//! - [`compile`] with [`Declarations`]: text to an [`Expression`], or upstream's `compilation failed: ...`
//! - [`Evaluator`]: variables bound to JSON, expressions evaluated to JSON
//! - [`Typed`]: what an expression does wrong with objects of a known kind; [`kinds`]: kinds as types
//! - `environment`: what expressions may name, and its types

mod environment;
mod evaluator;
pub mod kinds;
mod typed;

pub use crate::cel::authorizer::{Authorizer, Check};
pub use environment::{Declarations, ResultType, Variables};
pub use evaluator::{BUDGET, CONDITIONS_BUDGET, EvaluationError, Evaluator};
pub use typed::Typed;

use crate::cel::{Environment, Program, Type};

/// An expression that is refused; the text is the detail of a field error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CompileError(pub String);

/// A type-checked CEL expression.
#[derive(Clone, Debug)]
pub struct Expression {
    program: Program,
    kind: Type,
}

impl Expression {
    /// The type of its value where other expressions name it as a variable.
    #[must_use]
    pub fn kind(&self) -> Type {
        environment::composed(&self.kind)
    }
}

/// Compiles an expression that may name what is declared and gives a value of one of these types; of any, where none is given.
///
/// # Errors
/// In upstream's words.
pub fn compile(
    source: &str,
    declarations: &Declarations<'_>,
    results: &[ResultType],
) -> Result<Expression, CompileError> {
    let variables = environment::variables(declarations);
    compile_with(
        source,
        &Environment { patches: declarations.patches, ..Environment::of(&variables) },
        results,
    )
}

/// Compiles an expression that may name just these variables.
pub(crate) fn compile_in(
    source: &str,
    variables: &[(&str, Type)],
    results: &[ResultType],
) -> Result<Expression, CompileError> {
    compile_with(source, &Environment::of(variables), results)
}

fn compile_with(
    source: &str,
    environment: &Environment<'_>,
    results: &[ResultType],
) -> Result<Expression, CompileError> {
    let (program, estimate) = Program::compile(source, environment)
        .map_err(|problems| CompileError(format!("{} failed: {problems}", problems.step())))?;
    let kind = estimate.kind;
    if results.is_empty() || results.iter().any(|result| result.is(&kind)) {
        return Ok(Expression { program, kind });
    }
    let names: Vec<String> = results.iter().map(ToString::to_string).collect();
    let given = kind.declared();
    Err(CompileError(match names.as_slice() {
        [one] => format!("must evaluate to {one} but got {given}"),
        many => format!("must evaluate to one of [{}] but got {given}", many.join(" ")),
    }))
}

#[cfg(test)]
mod tests;
