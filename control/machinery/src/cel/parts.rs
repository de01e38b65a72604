//! What an expression is made of.

use super::ast::{Expr, Fold, Kind};

/// The expressions right below one.
pub(super) fn parts(expr: &Expr) -> Vec<&Expr> {
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => Vec::new(),
        Kind::Select { operand, .. } | Kind::Has { operand, .. } => vec![operand],
        Kind::Index { operand, index, .. } => vec![operand, index],
        Kind::Call { target, args, .. } => target.as_deref().into_iter().chain(args).collect(),
        Kind::List(items) => items.iter().map(|(e, _)| e).collect(),
        Kind::Map(entries) => entries.iter().flat_map(|(k, v, _)| [k, v]).collect(),
        Kind::Struct { fields, .. } => fields.iter().map(|field| &field.value).collect(),
        Kind::Fold(fold) => {
            let Fold { range, filter, body, .. } = &**fold;
            [Some(range), filter.as_ref(), Some(body)].into_iter().flatten().collect()
        }
        Kind::Bind { operand, body, .. } => vec![operand, body],
        Kind::Let { value, body, .. } => vec![value, body],
    }
}

/// The same, to be changed.
pub(super) fn parts_mut(expr: &mut Expr) -> Vec<&mut Expr> {
    match &mut expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => Vec::new(),
        Kind::Select { operand, .. } | Kind::Has { operand, .. } => vec![operand],
        Kind::Index { operand, index, .. } => vec![operand, index],
        Kind::Call { target, args, .. } => target.as_deref_mut().into_iter().chain(args).collect(),
        Kind::List(items) => items.iter_mut().map(|(e, _)| e).collect(),
        Kind::Map(entries) => entries.iter_mut().flat_map(|(k, v, _)| [k, v]).collect(),
        Kind::Struct { fields, .. } => fields.iter_mut().map(|field| &mut field.value).collect(),
        Kind::Fold(fold) => {
            let Fold { range, filter, body, .. } = &mut **fold;
            [Some(range), filter.as_mut(), Some(body)].into_iter().flatten().collect()
        }
        Kind::Bind { operand, body, .. } => vec![operand, body],
        Kind::Let { value, body, .. } => vec![value, body],
    }
}
