//! Constant parts are made once, when an expression is compiled: they cost nothing when it is evaluated (upstream: cel-go's
//! `OptOptimize`).

use super::ast::{Expr, Kind};
use super::parts::parts_mut;
use super::table;
use super::value::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

const CONVERSIONS: [&str; 8] = ["bool", "bytes", "double", "duration", "int", "string", "timestamp", "uint"];

pub(super) fn optimize(expr: &mut Expr) {
    parts_mut(expr).into_iter().for_each(optimize);
    if let Some(value) = constant(&expr.kind) {
        expr.kind = Kind::Literal(value);
    }
}

fn value(expr: &Expr) -> Option<&Value> {
    match &expr.kind {
        Kind::Literal(value) => Some(value),
        _ => None,
    }
}

fn constant(kind: &Kind) -> Option<Value> {
    match kind {
        Kind::List(items) => {
            let items: Option<Vec<Value>> =
                items.iter().map(|(e, optional)| value(e).filter(|_| !optional).cloned()).collect();
            items.map(Value::list_of)
        }
        Kind::Map(entries) => {
            let entry = |(k, v, optional): &(Expr, Expr, bool)| {
                (!optional).then_some(())?;
                Some((value(k)?.key()?, value(v)?.clone()))
            };
            let made: BTreeMap<_, _> = entries.iter().map(entry).collect::<Option<_>>()?;
            // A key that is there twice fails when it is evaluated.
            (made.len() == entries.len()).then(|| Value::Map(Arc::new(made)))
        }
        Kind::Call { target: None, function, args } if CONVERSIONS.contains(&function.as_str()) => {
            let args: Vec<Value> = args.iter().map(|a| value(a).cloned()).collect::<Option<_>>()?;
            let overload = table::named(function, false).find(|o| o.accepts(&args))?;
            (overload.body)(&args).ok()
        }
        _ => None,
    }
}
