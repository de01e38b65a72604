//! Times, durations and patterns that are written out are read when an expression is compiled.

use super::super::ast::{Expr, Kind};
use super::super::library::patterns;
use super::super::parts::parts;
use super::super::table;
use super::super::value::Value;
use super::Problem;

fn reads(function: &str, value: &Value) -> bool {
    match (function, value) {
        ("duration" | "timestamp", value) => {
            let args = std::slice::from_ref(value);
            table::named(function, false).find(|o| o.accepts(args)).is_none_or(|o| (o.body)(args).is_ok())
        }
        ("matches", Value::Text(text)) => patterns::compiled(text).is_ok(),
        _ => true,
    }
}

/// Those that do not read.
pub(super) fn wrong(expr: &Expr) -> Vec<Problem> {
    let mut out = Vec::new();
    if let Kind::Call { function, args, .. } = &expr.kind
        && let Some(Expr { at, kind: Kind::Literal(value) }) = args.first()
        && !reads(function, value)
    {
        out.push(Problem { at: *at, text: format!("invalid {function} argument") });
    }
    out.extend(parts(expr).into_iter().flat_map(wrong));
    out
}
