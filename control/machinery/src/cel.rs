//! CEL, the expression language of validation rules, admission policies and webhook conditions.
//!
//! - [`Program`]: an expression, compiled in an [`Environment`], then evaluated at a bounded cost
//! - `lexer`, `parser`, `ast`: text to expression; `check`: types, and what an expression may cost at most
//! - [`value`]: values; [`value::list`]: lists that a schema calls sets or maps; `eval`: evaluation; `optimize`: what is constant;
//!   [`authorizer`]: the values of the authorizer library; [`patches`]: the types of patches that policies make
//! - `overload`: what a function is; `library`: the functions; `table`: all of them by name, which `check`, `eval` and `cost` read
//!
//! Errors are worded as cel-go words them, as authors and tests match on them.

mod ast;
pub(crate) mod authorizer;
mod check;
mod cost;
mod eval;
mod fault;
mod lexer;
mod library;
mod named;
mod names;
mod optimize;
mod overload;
mod parser;
mod parts;
pub mod patches;
mod place;
mod table;
pub(crate) mod types;
pub(crate) mod value;
pub(crate) mod words;

pub use eval::Variables;
pub use fault::Error;
pub(crate) use fault::Evaluated;
pub(crate) use types::ObjectType;
pub use types::Type;
pub use value::{Key, Struct, Value};

use std::fmt;

/// What one evaluation may cost (upstream: `PerCallLimit`).
pub(crate) const PER_CALL: u64 = 1_000_000;
/// What all evaluations for one object may cost (upstream: `RuntimeCELCostBudget`).
pub(crate) const PER_OBJECT: u64 = 10_000_000;
/// The longest expression that is read.
const LONGEST: usize = 64 * 1024;

/// One thing wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Offset into the text, in characters.
    pub at: usize,
    /// As cel-go words it.
    pub text: String,
}

/// All that is wrong with an expression, as cel-go prints it: place, text, the line and a mark under it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    text: String,
    /// It compiles, yet a constant part of it cannot be made.
    constant: bool,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Problems {
    pub(crate) fn new(text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|p| p.at);
        problems.dedup();
        let one = |problem: &Problem| {
            let before: String = text.chars().take(problem.at).collect();
            let line = before.matches('\n').count();
            let column = before.chars().rev().take_while(|c| *c != '\n').count();
            let shown = text.lines().nth(line).unwrap_or_default();
            let dots = ".".repeat(column);
            format!("ERROR: <input>:{}:{}: {}\n | {shown}\n | {dots}^", line + 1, column + 1, problem.text)
        };
        Problems { text: problems.iter().map(one).collect::<Vec<_>>().join("\n"), constant: false }
    }

    /// At which step it failed, in upstream's words.
    #[must_use]
    pub fn step(&self) -> &'static str {
        if self.constant { "program instantiation" } else { "compilation" }
    }
}

/// An expression that may be evaluated.
#[derive(Clone, Debug)]
pub struct Program {
    expr: ast::Expr,
}

/// What an expression may name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Environment<'e> {
    /// Variables and their types; `a.b` is a variable's name, too. The first one's type bounds the sizes of what is below it.
    pub variables: &'e [(&'e str, Type)],
    /// Whether there are `Object{...}`, `JSONPatch{...}` and `jsonpatch.escapeKey`.
    pub patches: bool,
    /// Whether it is about a device (`device`): there is `cel.bind`, and attributes of any name and kind are bounded in size.
    pub devices: bool,
}

impl<'e> Environment<'e> {
    /// Of variables and the libraries that every expression has.
    #[must_use]
    pub fn of(variables: &'e [(&'e str, Type)]) -> Self {
        Environment { variables, ..Environment::default() }
    }
}

/// What checking says of an expression before it is evaluated.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// The type of its value.
    pub kind: Type,
    /// What it costs at most.
    pub cost: u64,
}

/// Whether an expression, as it is written, reads `operand.field`, `operand.?field` or `has(operand.field)` somewhere (upstream:
/// `hasSelectExp` of `apiserver/pkg/apis/apiserver/validation`). One that does not parse reads nothing.
pub(crate) fn selects(text: &str, operand: &str, field: &str) -> bool {
    read(text, false).is_ok_and(|expr| selects_in(&expr, operand, field))
}

fn selects_in(expr: &ast::Expr, operand: &str, field: &str) -> bool {
    let is_it = match &expr.kind {
        ast::Kind::Select { operand: of, field: name, .. } | ast::Kind::Has { operand: of, field: name } => {
            name == field && matches!(&of.kind, ast::Kind::Ident(known) if known == operand)
        }
        _ => false,
    };
    is_it || parts::parts(expr).into_iter().any(|part| selects_in(part, operand, field))
}

impl Program {
    /// Parses an expression; nothing is known of its types.
    ///
    /// # Errors
    /// With where and why it is none.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        let mut expr = read(text, false)?;
        // What cannot be made fails where it is evaluated.
        let _ = optimize::optimize(&mut expr);
        Ok(Program { expr })
    }

    /// Parses an expression and checks it against the types of what it names.
    ///
    /// # Errors
    /// With every place that is wrong: a name, a field or a function that is not there, types that do not fit.
    pub fn compile(text: &str, environment: &Environment<'_>) -> Result<(Self, Estimate), Problems> {
        let mut expr = read(text, environment.devices)?;
        names::qualify(&mut expr, environment.variables);
        let estimate = check::check(&expr, environment).map_err(|problems| Problems::new(text, problems))?;
        optimize::optimize(&mut expr)
            .map_err(|error| Problems { text: error.to_string(), constant: true })?;
        Ok((Program { expr }, estimate))
    }

    /// Whether the expression uses a variable.
    #[must_use]
    pub(crate) fn mentions(&self, variable: &str) -> bool {
        check::mentions(&self.expr, variable)
    }

    /// Evaluates it. The cost is what was spent, at most (about) `limit`.
    pub(crate) fn eval(&self, variables: &dyn Variables, limit: u64) -> (Result<Value, Error>, u64) {
        let mut run = eval::Run { variables, bound: Vec::new(), spent: 0, limit };
        let value = run.eval(&self.expr);
        (value, run.spent)
    }
}

/// The expression a text is, where `cel.bind` is a macro or a function that is not there.
fn read(text: &str, binds: bool) -> Result<ast::Expr, Problems> {
    if text.len() > LONGEST {
        let text_of =
            format!("expression code point size exceeds limit: size: {}, limit {LONGEST}", text.len());
        return Err(Problems::new("", vec![Problem { at: 0, text: text_of }]));
    }
    parser::parse(text, binds)
}

#[cfg(test)]
mod tests;
