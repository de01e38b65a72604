//! Constant parts are made once, when an expression is compiled: they cost nothing when it is evaluated (upstream: cel-go's
//! `OptOptimize`, `CompileRegexConstants`).

use super::ast::{Expr, Kind};
use super::fault::Error;
use super::library::patterns;
use super::parts::parts_mut;
use super::table;
use super::value::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

const CONVERSIONS: [&str; 10] =
    ["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"];
/// Functions whose second argument is a pattern.
const PATTERNS: [&str; 3] = ["matches", "find", "findAll"];

/// Makes what is constant. An expression with a constant part that cannot be made is none that may be evaluated.
///
/// # Errors
/// Why the first such part cannot be made; it is left as it is, as are those like it.
pub(super) fn optimize(expr: &mut Expr) -> Result<(), Error> {
    let mut outcome = Ok(());
    for part in parts_mut(expr) {
        outcome = outcome.and(optimize(part));
    }
    match constant(&expr.kind) {
        Ok(Some(value)) => expr.kind = Kind::Literal(value),
        Ok(None) => {}
        Err(error) => outcome = outcome.and(Err(error)),
    }
    outcome
}

fn value(expr: &Expr) -> Option<&Value> {
    match &expr.kind {
        Kind::Literal(value) => Some(value),
        _ => None,
    }
}

fn constant(kind: &Kind) -> Result<Option<Value>, Error> {
    Ok(match kind {
        Kind::List(items) => {
            let items: Option<Vec<Value>> =
                items.iter().map(|(e, optional)| value(e).filter(|_| !optional).cloned()).collect();
            items.map(Value::list_of)
        }
        Kind::Map(entries) => map(entries),
        // Nothing is in an empty list, and what is looked for is not evaluated.
        Kind::Call { target: None, function, args } if function == "@in" => {
            let empty = matches!(args.get(1).and_then(value), Some(Value::List(items)) if items.is_empty());
            empty.then_some(Value::Bool(false))
        }
        Kind::Call { target: None, function, args } if CONVERSIONS.contains(&function.as_str()) => {
            let [arg] = &args[..] else { return Ok(None) };
            let Some(arg) = value(arg).map(std::slice::from_ref) else { return Ok(None) };
            let Some(overload) = table::named(function, false).find(|o| o.accepts(arg)) else {
                return Ok(None);
            };
            Some((overload.body)(arg)?)
        }
        Kind::Call { target, function, args } if PATTERNS.contains(&function.as_str()) => {
            let pattern = args.get(usize::from(target.is_none()));
            if let Some(Value::Text(pattern)) = pattern.and_then(value) {
                patterns::compiled(pattern)?;
            }
            None
        }
        _ => None,
    })
}

fn map(entries: &[(Expr, Expr, bool)]) -> Option<Value> {
    let entry = |(k, v, optional): &(Expr, Expr, bool)| {
        (!optional).then_some(())?;
        Some((value(k)?.key()?, value(v)?.clone()))
    };
    let made: BTreeMap<_, _> = entries.iter().map(entry).collect::<Option<_>>()?;
    // A key that is there twice fails when it is evaluated.
    (made.len() == entries.len()).then(|| Value::Map(Arc::new(made)))
}
