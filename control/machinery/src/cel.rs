//! Expressions in CEL as the API has them: compiled once, checked against what they may name, evaluated within a budget.
//!
//! - [`compile`] with [`Declarations`]: text to an [`Expression`], or upstream's `compilation failed: ...`
//! - [`Evaluator`]: variables bound to JSON, expressions evaluated to JSON
//! - [`authorizer`]: the `authorizer` variable; `check`: names and result types; `rewrite`: what the interpreter needs of a tree
//! - [`type_errors`]: what an expression does wrong with an object of a known kind; `types`
//!
//! Parser and interpreter are the `cel` crate's, the Kubernetes libraries `kube-cel`'s. The interpreter has no notion of
//! cost: every turn of a comprehension is charged for the size of its body, as a stand-in for upstream's cost limits.

pub mod authorizer;
mod check;
mod error;
mod rewrite;
mod types;
mod value;

pub use check::{Declarations, ResultType};
pub use error::{CompileError, EvaluationError};

use crate::object::Gvk;
use crate::schema;
use authorizer::Authorizer;
use kube_cel::KubeCelExt as _;
use kube_cel::cel::{Context, ExecutionError, Value as CelValue, parser};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Bytes of an expression; upstream bounds the object that holds it.
const LONGEST: usize = 64 * 1024;
/// What one evaluation may spend (upstream: `PerCallLimit`).
const PER_CALL: i64 = 1_000_000;
/// What one evaluator's evaluations may spend together (upstream: `RuntimeCELCostBudget`).
const BUDGET: i64 = 10_000_000;

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Expression {
    source: String,
    tree: parser::Expression,
    /// The `variables.x` it names.
    composed: Vec<String>,
}

impl Expression {
    /// The text it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// Compiles an expression that may name `declarations` and gives a `wanted` type.
///
/// # Errors
/// In upstream's words, as far as the parser's go.
pub fn compile(
    source: &str,
    declarations: &Declarations<'_>,
    wanted: &[ResultType],
) -> Result<Expression, CompileError> {
    if source.len() > LONGEST {
        return Err(CompileError(format!("expression is longer than {LONGEST} bytes")));
    }
    let parsed = parser::Parser::default()
        .enable_optional_syntax(true)
        .parse(source)
        .map_err(|errors| CompileError(format!("compilation failed: {}", error::parse(source, &errors))))?;
    check::check(source, &parsed, declarations, wanted)?;
    let composed = rewrite::composed(&parsed);
    Ok(Expression { source: source.to_owned(), tree: rewrite::prepare(parsed), composed })
}

/// What is wrong with an expression where `object` is of `gvk`: fields and operators its type has not. Nothing, where the
/// kind or the expression is unknown here.
#[must_use]
pub fn type_errors(source: &str, gvk: &Gvk) -> Vec<String> {
    let table = schema::builtin();
    let parsed = parser::Parser::default().enable_optional_syntax(true).parse(source);
    match (table.kind(gvk), parsed) {
        (Some(id), Ok(parsed)) => types::errors(source, &parsed, table, id),
        _ => Vec::new(),
    }
}

/// Evaluates expressions over one set of variables.
pub struct Evaluator<'e> {
    context: Context<'static>,
    left: Arc<AtomicI64>,
    variables: BTreeMap<&'e str, &'e Expression>,
    composed: BTreeMap<String, Result<CelValue, EvaluationError>>,
}

impl Default for Evaluator<'_> {
    fn default() -> Self {
        let mut context = Context::default().with_all();
        let left = Arc::new(AtomicI64::new(BUDGET));
        let spent = left.clone();
        context.add_function(rewrite::CHARGE, move |cost: i64| -> Result<bool, ExecutionError> {
            if spent.fetch_sub(cost, Ordering::Relaxed) < cost {
                return Err(ExecutionError::function_error(rewrite::CHARGE, error::OVER_BUDGET));
            }
            Ok(true)
        });
        Evaluator { context, left, variables: BTreeMap::new(), composed: BTreeMap::new() }
    }
}

impl<'e> Evaluator<'e> {
    /// Binds a variable.
    pub fn bind(&mut self, name: &str, value: &Value) {
        self.context.add_variable_from_value(name, value::from_json(value));
    }

    /// Declares what `variables.name` stands for: evaluated when it is first needed.
    pub fn compose(&mut self, name: &'e str, expression: &'e Expression) {
        self.variables.insert(name, expression);
    }

    /// Binds `authorizer` and `authorizer.requestResource`.
    pub fn authorize(&mut self, authorizer: &Authorizer) {
        authorizer.bind(&mut self.context);
    }

    /// The expression's value as JSON: times and durations as text.
    ///
    /// # Errors
    /// Where evaluation fails, or costs too much.
    pub fn evaluate(&mut self, expression: &Expression) -> Result<Value, EvaluationError> {
        self.value(expression, 0).and_then(|value| value::to_json(&value))
    }

    fn value(&mut self, expression: &Expression, depth: usize) -> Result<CelValue, EvaluationError> {
        for name in &expression.composed {
            self.compute(name, depth)?;
        }
        let budget = self.left.load(Ordering::Relaxed);
        let allowed = budget.min(PER_CALL);
        self.left.store(allowed, Ordering::Relaxed);
        let result = CelValue::resolve(&expression.tree, &self.context).map_err(|e| error::evaluation(&e));
        let spent = allowed - self.left.load(Ordering::Relaxed);
        self.left.store(budget - spent.max(0), Ordering::Relaxed);
        result
    }

    /// Sees to it that `variables.name` has its value.
    fn compute(&mut self, name: &str, depth: usize) -> Result<(), EvaluationError> {
        /// Variables may name earlier ones only, so that this is never reached by a policy that was validated.
        const DEEPEST: usize = 64;
        if !self.composed.contains_key(name) {
            let Some(expression) = self.variables.get(name).copied().filter(|_| depth < DEEPEST) else {
                return Err(EvaluationError(format!("no such key: {name}")));
            };
            let value = self
                .value(expression, depth + 1)
                .map_err(|e| EvaluationError(format!("composited variable {name:?} fails to evaluate: {e}")));
            self.composed.insert(name.to_owned(), value);
            let known = self.composed.iter().filter_map(|(k, v)| Some((k.clone(), v.clone().ok()?)));
            let map: std::collections::HashMap<String, CelValue> = known.collect();
            self.context.add_variable_from_value("variables", map);
        }
        match self.composed.get(name) {
            Some(Err(e)) => Err(e.clone()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
