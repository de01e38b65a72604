//! `'...'.format([...])` with both written out is checked when it is compiled (upstream: `stringFormatValidator` of cel-go's
//! `ext/formatting.go`).

use super::super::Problem;
use super::super::ast::Expr;
use super::super::library::printf::{self, Clause};
use super::super::types::Type;

/// What is wrong with a call at a place, with a format and items of these types.
pub(super) fn wrong(at: usize, text: &str, items: &[(Expr, bool)], kinds: &[Type]) -> Vec<Problem> {
    let clauses = match printf::clauses(text, items.len()) {
        Ok(clauses) => clauses,
        Err(text) => return vec![Problem { at, text }],
    };
    for (clause, ((item, _), kind)) in clauses.iter().zip(items.iter().zip(kinds)) {
        if !takes(*clause, kind) {
            let text = format!("error during formatting: {}, was given {}", clause.takes(), name(kind));
            return vec![Problem { at: item.at, text }];
        }
    }
    let (asked, given) = (clauses.len(), items.len());
    let text = format!("too many arguments supplied to string.format (expected {asked}, got {given})");
    if given > asked { vec![Problem { at, text }] } else { Vec::new() }
}

fn takes(clause: Clause, kind: &Type) -> bool {
    match (clause, kind) {
        (_, Type::Dyn | Type::Any(_) | Type::Free)
        | (Clause::Integer | Clause::Octal | Clause::Binary | Clause::Hex, Type::Int | Type::Uint)
        | (Clause::Fixed | Clause::Scientific, Type::Double | Type::Text(_))
        | (Clause::Binary, Type::Bool)
        | (Clause::Hex, Type::Text(_) | Type::Bytes(_)) => true,
        (Clause::Text, kind) => !matches!(kind, Type::Object(_) | Type::Optional(_) | Type::Named(_)),
        _ => false,
    }
}

/// A type's name without what it is of.
fn name(kind: &Type) -> String {
    match kind {
        Type::List(..) => "list".to_owned(),
        Type::Map(..) => "map".to_owned(),
        Type::Optional(_) => "optional_type".to_owned(),
        kind => kind.declared(),
    }
}
