//! Times, durations and patterns that are written out are read when an expression is compiled.

use super::super::ast::{Expr, Kind};
use super::super::parts::parts;
use super::super::value::Value;
use super::Problem;

fn reads(function: &str, text: &str) -> bool {
    match function {
        "duration" => crate::duration::parse(text).is_ok(),
        "timestamp" => text.parse::<jiff::Timestamp>().is_ok(),
        "matches" => regex::Regex::new(text).is_ok(),
        _ => true,
    }
}

/// Those that do not read.
pub(super) fn wrong(expr: &Expr) -> Vec<Problem> {
    let mut out = Vec::new();
    if let Kind::Call { function, args, .. } = &expr.kind
        && let Some(Expr { at, kind: Kind::Literal(Value::Text(text)) }) = args.first()
        && !reads(function, text)
    {
        out.push(Problem { at: *at, text: format!("invalid {function} argument") });
    }
    out.extend(parts(expr).into_iter().flat_map(wrong));
    out
}
